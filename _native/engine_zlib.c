/* zlib, GNU gzip, BusyBox's gzip and pigz, predicted: see engine.h.
 *
 * Encoders with one matcher. Their rules, by what they look at:
 *
 * Chains. Each position is hashed by its three bytes to 15 bits; position 0 never. Candidates come newest first, up
 * to `chain` of them (a quarter, if there already is a match of `good`); the first may be REACH away, the others
 * less. A longer match wins; one of `nice` or of all that is left ends the search.
 * Levels 1 to 3 take what they find. Matches longer than `lazy` are not hashed, but for their first position, so
 * that the chains depend on all tokens before: these levels cannot be taken up in the middle.
 * Levels 4 to 9 drop matches of 3 that are more than FAR away, and look one position on, unless the match is `lazy`
 * long; a longer one there makes this token a literal. All positions are hashed: chains depend on the content alone.
 * After a literal, what was found for the next position is kept, over block boundaries too.
 *
 * Blocks. zlib ends them after 16383 tokens: 1.2.5.1 to 1.2.11 count them in last_lit, 1.2.12 and later (sym_next,
 * LIT_MEM) otherwise, with the same result. GNU gzip: 32767, or at a multiple of 4096 where, from level 3 on, half
 * of the tokens are literals and an estimate is below half of the content. When the last token but the one that
 * waits fills a block, an empty one ends the stream.
 *
 * The window. 64 KiB, moved on by 32 KiB when less than AHEAD bytes are ahead and the position in it is WINDOW +
 * REACH. A block whose begin has left it cannot be stored. Seen from the content: windows depend on the last
 * position looked at. This is so where input comes in large pieces, or in such as are multiples of 512 bytes.
 *
 * GNU gzip does not shorten its searches towards the end: there it compares what its window holds behind the end,
 * which is two zeros and then what was there 32 KiB before. Once it has seen the end, its window stays; positions in
 * its last AHEAD bytes have no matches.
 *
 * BusyBox's gzip is GNU gzip in little memory: blocks of 8191 tokens, hashes of 13 bits, no zeros behind the end,
 * where it has matches as elsewhere. Built with CONFIG_GZIP_FAST it takes twice as much of both (here: levels 14 to
 * 19), or four times (24 to 29). Its own levels 1 to 3 are 4; without any it is 6.
 *
 * pigz encodes pieces of 128 KiB, each with the 32 KiB before as its dictionary; a piece ends its block, and then
 * comes to a byte boundary: by fixed empty blocks (10 bits each), or with one stored empty block if the bits are
 * odd.
 *
 * Sources: zlib's deflate.c and trees.c, gzip 1.12's, pigz 2.6's, BusyBox's gzip.c; GZIP.md. */
#include <stdlib.h>
#include <string.h>

#include "engine_zlib.h"

#define AHEAD 262u /* WINDOW - REACH */
#define FAR 4096u
#define PIECE 131072u

typedef enum { ZLIB, PIGZ, GNU, BUSYBOX } flavour;

typedef struct {
    uint16_t good, lazy, nice, chain;
} level_rules;

static const level_rules LEVELS[10] = {{0, 0, 0, 0},      {4, 4, 8, 4},        {4, 5, 16, 8},      {4, 6, 32, 32},
                                       {4, 4, 16, 16},    {8, 16, 32, 32},     {8, 16, 128, 128},  {8, 32, 128, 256},
                                       {32, 128, 258, 1024}, {32, 258, 258, 4096}};

/* What is known of the next token: nothing, what was found at its position, and (lazy levels) at the one after it. */
enum { UNKNOWN, HERE, BOTH };

typedef struct {
    level_rules rules;
    flavour flavour;
    int lazy;
    int old;       /* GNU gzip and BusyBox: from the time before zlib */
    int cuts;      /* they end a block early, at this level */
    uint32_t most; /* tokens of a block */
    uint64_t position;
    uint64_t piece;            /* pigz: where it began */
    int known, carried;        /* carried: what is known was searched for with the token before in mind */
    unsigned length, next_length;
    uint32_t distance, next_distance;
    uint64_t start; /* of the block, and what it has so far */
    uint32_t tokens, matches;
    uint64_t extra;
    int full, waiting; /* waiting: the block has ended with a committed token, and run has not said so */
    uint64_t edge;     /* gzip: the first position looked at with the end in sight, plus 1 */
    unsigned phase;    /* pigz: bits in the last byte */
    chains chains;
} engine;

/* ---- bounds ----------------------------------------------------------------------------------------------------- */

/* Up to where the encoder sees: the content's end, or that of the piece. */
typedef struct {
    uint64_t end;
    int last;
} bounds;

static inline bounds bounds_at(const engine *e, const engine_view *view, uint64_t position) {
    bounds b = {view->end, view->last};
    if (e->flavour == PIGZ) {
        uint64_t end = position - position % PIECE + PIECE;
        if (view->end >= end + 4 || (view->end >= end && view->last)) b.end = end, b.last = 1;
    }
    return b;
}

static inline const uint8_t *bytes_at(const engine_view *view, uint64_t position) {
    return view->bytes + (size_t)(position - view->begin);
}

/* Where the window begins when the encoder looks at `position`; `begin`: where it began. */
static uint64_t window_at(uint64_t position, uint64_t begin, int end_in_sight) {
    uint64_t turn = WINDOW + REACH + !end_in_sight;
    return position - begin < turn ? begin : begin + ((position - begin - turn) / WINDOW + 1) * WINDOW;
}

static uint64_t window_of(const engine *e, uint64_t position, uint64_t end, int last) {
    int in_sight = last && end - position < AHEAD;
    if (e->old && in_sight && e->edge) position = e->edge - 1;
    uint64_t piece = e->flavour == PIGZ ? (position && position == end ? position - 1 : position) / PIECE * PIECE : 0;
    return window_at(position, piece ? piece - WINDOW : 0, in_sight);
}

/* ---- searching -------------------------------------------------------------------------------------------------- */

/* What gzip's or BusyBox's window holds at a position, behind the end too. */
static uint8_t byte_of(const engine *e, const engine_view *view, uint64_t at, uint64_t window) {
    if (at < view->end) return *bytes_at(view, at);
    uint64_t stale = at - window >= WINDOW ? window > 0 : window > WINDOW;
    if (at - window >= 2 * WINDOW) stale = 0; /* BusyBox reads on behind its window: zeros, for all that is known */
    return (e->flavour == GNU && at < view->end + 2) || !stale ? 0 : *bytes_at(view, at - WINDOW);
}

/* The same near the end, by the letter. */
static unsigned search_end(const engine *e, const engine_view *view, bounds b, uint64_t position, unsigned best,
                           unsigned tries, uint32_t *found) {
    unsigned left = b.end - position < DEFLATE_MAX_MATCH ? (unsigned)(b.end - position) : DEFLATE_MAX_MATCH;
    if (left < DEFLATE_MIN_MATCH || (!e->old && best >= left)) return best;
    uint64_t window = window_of(e, position, b.end, b.last);
    if (e->flavour == GNU && position - window > 2 * WINDOW - AHEAD) return best;
    unsigned most = left, nice = e->rules.nice;
    if (e->old) most = DEFLATE_MAX_MATCH;
    else if (nice > left) nice = left;
    uint32_t distance = 0, reach = position - window == REACH ? REACH - 1 : REACH;
    for (; tries; tries--) {
        uint64_t at = (position - distance) & MASK;
        distance += e->lazy ? e->chains.steps[at] & 0xffff : (uint32_t)(e->chains.links[at] & 0xffff);
        if (distance > reach) break;
        reach = REACH - 1;
        unsigned length = 0;
        if (e->old) {
            while (length < most && byte_of(e, view, position + length, window) ==
                                        byte_of(e, view, position + length - distance, window))
                length++;
        } else {
            const uint8_t *here = bytes_at(view, position);
            while (length < most && here[length] == here[(ptrdiff_t)length - (ptrdiff_t)distance]) length++;
        }
        if (length <= best) continue;
        best = length;
        *found = distance;
        if (length >= nice) break;
    }
    return best < left ? best : left;
}

/* ---- predicting ------------------------------------------------------------------------------------------------- */

/* Hash a position, and search. */
static inline unsigned look(engine *e, const engine_view *view, bounds b, uint64_t position, unsigned best,
                            uint32_t *found) {
    unsigned tries = best < e->rules.good ? e->rules.chain : e->rules.chain / 4;
    if (b.end - position >= AMPLE) {
        const uint8_t *here = bytes_at(view, position);
        if (e->chains.hashed <= position) hash_some(&e->chains, here, position + 1, e->lazy);
        if (!e->lazy) return search(&e->chains, here, position, best, tries, e->rules.nice, WINDOW, 0, found);
        return search(&e->chains, here, position, best, tries, e->rules.nice, FAR, 1, found);
    }
    if (e->old && b.last && !e->edge && b.end - position < AHEAD) e->edge = position + 1;
    engine_zlib_hash(&e->chains, view, position + 1, e->lazy);
    unsigned length = search_end(e, view, b, position, best, tries, found);
    return e->lazy && length == 3 && best == 2 && *found > FAR ? 2 : length;
}

/* Find what there is at the position, and at the next. There is a byte at least, and AMPLE of them or the end in
 * sight. */
static inline void predict(engine *e, const engine_view *view, bounds b) {
    if (e->known == BOTH) return;
    uint64_t position = e->position;
    uint64_t behind = position + (e->known == HERE); /* what was found there was hashed before */
    if (e->chains.hashed < behind) engine_zlib_hash(&e->chains, view, behind, e->lazy);
    if (e->known == UNKNOWN) {
        e->carried = 0;
        e->length = look(e, view, b, position, 2, &e->distance);
        e->known = HERE;
    }
    if (e->lazy) {
        if (e->length > b.end - position) e->length = 2; /* a state that `save` did not give */
        e->next_length = 2;
        if (position + 1 < b.end) {
            if (e->length < e->rules.lazy) {
                e->next_length = look(e, view, b, position + 1, e->length, &e->next_distance);
            } else {
                if (e->old && b.last && !e->edge && b.end - position - 1 < AHEAD) e->edge = position + 2;
                engine_zlib_hash(&e->chains, view, position + 2, 1);
            }
        }
    }
    e->known = BOTH;
}

/* Go on behind `length` bytes, a literal where it is 1. */
static inline void advance(engine *e, const engine_view *view, unsigned length, int is_match) {
    uint64_t to = e->position + length;
    e->known = UNKNOWN;
    if (!is_match) {
        if (e->lazy) {
            e->length = e->next_length;
            e->distance = e->next_distance;
            e->known = HERE;
            e->carried = 1;
        }
    } else if (e->lazy || length <= e->rules.lazy) {
        if (view->end >= to + 3) hash_some(&e->chains, bytes_at(view, e->chains.hashed), to, e->lazy);
        else engine_zlib_hash(&e->chains, view, to, e->lazy);
    } else {
        e->chains.hashed = to;
    }
    e->position = to;
}

/* Count a token of the block; does it end there? `looked`: the last position looked at. */
static inline int count(engine *e, uint32_t token, uint64_t looked) {
    e->tokens++;
    e->full = 0;
    if (!e->old) return e->full = e->tokens == e->most;
    if (token & DEFLATE_MATCH) {
        e->matches++;
        e->extra += 5 + deflate_distance_extra[deflate_distance_code(deflate_distance(token))];
    }
    if (e->cuts && !(e->tokens & 4095)) {
        uint64_t estimate = (e->tokens * (uint64_t)8 + e->extra) >> 3;
        if (e->matches < e->tokens / 2 && estimate < (looked - e->start) / 2) return e->full = 1;
    }
    return e->full = e->tokens == e->most;
}

static int cut(void *engine_) {
    engine *e = engine_;
    e->tokens = e->matches = 0;
    e->extra = 0;
    e->waiting = 0;
    e->start = e->position;
    return ENGINE_TOKENS;
}

/* At the begin of a piece, pigz starts anew; at levels 1 to 3 with a dictionary of which all positions are hashed. */
static inline void begin_piece(engine *e) {
    if (e->flavour != PIGZ || e->position - e->piece < PIECE) return;
    e->piece = e->position - e->position % PIECE;
    e->known = UNKNOWN;
    if (!e->lazy) engine_zlib_forget(&e->chains, e->piece);
}

/* ---- the interface ---------------------------------------------------------------------------------------------- */

static void *open_as(flavour flavour, int level) {
    if (level < 1 || level > 9) return NULL;
    engine *e = malloc(sizeof *e);
    if (!e) return NULL;
    memset(e, 0, offsetof(engine, chains));
    e->rules = LEVELS[level];
    e->flavour = flavour;
    e->lazy = level > 3;
    e->old = flavour >= GNU;
    e->cuts = e->old && level > 2;
    e->most = flavour == GNU ? 32767 : 16383;
    e->chains.mask = HASHES - 1;
    engine_zlib_forget(&e->chains, 0);
    return e;
}

static void *open_zlib(int level) { return open_as(ZLIB, level); }
static void *open_gnu(int level) { return open_as(GNU, level); }
static void *open_pigz(int level) { return open_as(PIGZ, level); }

static void *open_busybox(int level) {
    int memory = level / 10; /* as it was built: CONFIG_GZIP_FAST */
    if (level < 0 || memory > 2 || level % 10 < 4) return NULL;
    engine *e = open_as(BUSYBOX, level % 10);
    if (e) {
        e->most = (8192u << memory) - 1;
        e->chains.mask = (8192u << memory) - 1;
    }
    return e;
}

static void close_engine(void *engine_) { free(engine_); }
static uint64_t position_of(const void *engine_) { return ((const engine *)engine_)->position; }

static void save(const void *engine_, uint32_t state[ENGINE_STATE]) {
    const engine *e = engine_;
    int carried = e->lazy && e->carried && e->known != UNKNOWN;
    state[0] = carried ? e->length : 0;
    state[1] = carried && e->length > 2 ? e->distance : 0;
    state[2] = e->phase;
    state[3] = e->edge ? (uint32_t)(e->position + 2 - e->edge) + 1 : 0; /* an edge lies at most one ahead */
}

static int seek(void *engine_, const engine_view *view, uint64_t position, const uint32_t state[ENGINE_STATE]) {
    engine *e = engine_;
    (void)view;
    if (position && !e->lazy && (e->flavour != PIGZ || position % PIECE)) return ENGINE_LOST;
    if (state[0] == 1 || state[0] > DEFLATE_MAX_MATCH || state[1] > position || state[1] > WINDOW || state[2] > 7 ||
        (state[0] > 2) != (state[1] > 0) || state[3] > AHEAD + 3 || (state[3] > 1 && state[3] - 3 > position))
        return ENGINE_LOST;
    e->position = position;
    e->piece = position - position % PIECE;
    e->known = e->lazy && state[0] ? HERE : UNKNOWN;
    e->carried = e->known == HERE;
    e->length = state[0];
    e->distance = state[1];
    e->phase = state[2];
    e->edge = state[3] ? position + 3 - state[3] : 0;
    e->full = 0;
    cut(e);
    engine_zlib_forget(&e->chains, position);
    return 0;
}

/* Take note of an end of block with the token just committed, and of the end of all that the encoder sees. */
static inline void end_token(engine *e, bounds b, uint32_t token, uint64_t looked) {
    int full = count(e, token, looked), ends = b.last && e->position >= b.end;
    e->waiting = full || ends;
    if (ends) e->known = UNKNOWN;
}

static inline int run_as(engine *e, const engine_view *view, const uint32_t *actual, uint32_t *tokens, size_t max,
                         size_t *made) {
    size_t n = 0;
    int told;
    bounds b = bounds_at(e, view, e->position);
    for (;;) {
        uint64_t position = e->position, left = b.end - position;
        if (position == view->end && view->last) {
            told = ENGINE_DONE;
            break;
        }
        if (e->waiting) {
            cut(e);
            told = ENGINE_BLOCK;
            break;
        }
        if (n == max) {
            told = ENGINE_TOKENS;
            break;
        }
        if (left < AMPLE && !b.last) {
            told = ENGINE_MORE;
            break;
        }
        predict(e, view, b);
        unsigned length = 1;
        uint32_t token = *bytes_at(view, position);
        int is_match = e->length >= DEFLATE_MIN_MATCH && (!e->lazy || e->next_length <= e->length);
        if (is_match) {
            length = e->length;
            token = deflate_match(length, e->distance);
        }
        tokens[n] = token;
        if (actual && actual[n] != token) {
            told = ENGINE_MISS;
            break;
        }
        n++;
        advance(e, view, length, is_match);
        end_token(e, b, token, position + (unsigned)e->lazy);
    }
    *made = n;
    return told;
}

static int run(void *engine_, const engine_view *view, const uint32_t *actual, uint32_t *tokens, size_t max,
               size_t *made) {
    engine *e = engine_;
    begin_piece(e);
    if (!e->waiting) e->full = 0;
    return run_as(e, view, actual, tokens, max, made);
}

static int commit(void *engine_, const engine_view *view, uint32_t token) {
    engine *e = engine_;
    uint64_t position = e->position;
    uint32_t length = deflate_length(token);
    if (e->waiting) cut(e);
    begin_piece(e);
    bounds b = bounds_at(e, view, position);
    if (length > view->end - position) return view->last ? ENGINE_LOST : ENGINE_MORE;
    if (b.end - position < AMPLE && !b.last) return ENGINE_MORE;
    predict(e, view, b);
    int is_match = token & DEFLATE_MATCH ? 1 : 0;
    /* Another encoder had its reasons for a literal where a match was as good: what follows is looked at afresh. */
    int keeps = e->length < DEFLATE_MIN_MATCH || e->next_length > e->length;
    advance(e, view, length, is_match);
    if (!is_match && !keeps) e->known = UNKNOWN;
    end_token(e, b, token, position + (unsigned)e->lazy);
    return ENGINE_TOKENS;
}

/* pigz: blocks that lead to a byte boundary. */
static unsigned pads(unsigned phase) { return phase & 1 ? 1 : ((8 - phase) & 7) / 2; }

static unsigned follows_of(const void *engine_) {
    const engine *e = engine_;
    return e->flavour == PIGZ && e->position && !(e->position % PIECE) ? pads(e->phase) : 0;
}

static void make_pad(engine *e, deflate_head *head) {
    memset(head, 0, sizeof *head);
    if (e->flavour != PIGZ || e->phase & 1) {
        head->type = DEFLATE_STORED;
        e->phase = 0;
    } else {
        head->type = DEFLATE_FIXED;
        deflate_fixed_lengths(head->lengths);
        e->phase = (e->phase + 10) & 7;
    }
}

static int block(void *engine_, const engine_view *view, const uint32_t *tokens, size_t n, uint64_t start, int done,
                 deflate_head *head, unsigned *follows) {
    engine *e = engine_;
    *follows = 0;
    if (!n && !done) {
        make_pad(e, head);
        if (e->flavour == PIGZ) *follows = pads(e->phase);
        return 0;
    }
    bounds b = bounds_at(e, view, start);
    uint32_t last = n ? tokens[n - 1] : 0;
    /* At the end, a literal that was held back is not counted; a block that is full otherwise has another after it. */
    int ends = b.last && e->position >= b.end, full = n && e->full && !(e->lazy && !(last & DEFLATE_MATCH));
    uint64_t looked = e->position;
    if (n && (!ends || full)) looked -= deflate_length(last) - (unsigned)e->lazy;
    if (!(start % PIECE)) e->phase = 0;
    int storable = start >= window_of(e, looked, b.end, b.last);
    uint64_t bits = engine_zlib_send(tokens, n, e->position - start, storable, head);
    e->phase = head->type == DEFLATE_STORED ? 0 : (unsigned)(e->phase + bits) & 7;
    if (done) {
        head->final = !full;
        *follows = (unsigned)full;
    } else if (e->flavour == PIGZ && ends) {
        *follows = pads(e->phase);
    }
    return 0;
}

#define KIND(name, version, tokens, open) \
    {name, version, WINDOW, AMPLE, tokens, open, close_engine, seek, save, position_of, \
     follows_of, run, commit, cut, block}

const engine_kind engine_zlib = KIND("zlib", 1, 16383, open_zlib);
const engine_kind engine_gzip = KIND("gzip", 1, 32767, open_gnu);
const engine_kind engine_busybox = KIND("busybox", 1, 32767, open_busybox);
const engine_kind engine_pigz = KIND("pigz", 1, 16383, open_pigz);
