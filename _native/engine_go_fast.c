/* Go's BestSpeed (1), HuffmanOnly (-2) and NoCompression (0). See engine_go.h; the source is compress/flate's
 * deflatefast.go and deflate.go.
 *
 * All take the content in segments of 65535 bytes, each a block. -2 and 0 have literals only. 1 looks each position that it
 * visits up in a table of 2^14 entries, with steps that grow while it finds nothing, and at the segment's end drops all
 * matches if they are too few.
 *
 * Because of that a segment is searched as a whole when it begins (SEARCHED). Where the stream goes another way, the
 * table is set back to what it was there, from the copy that was made at the segment's begin and the positions visited
 * since, and the rest of the segment is searched match for match (STEPPING), however far the stream goes astray. */
#include <stdlib.h>
#include <string.h>

#include "engine_go.h"

#define TABLE_BITS 14
#define TABLE (1u << TABLE_BITS)
#define MARGIN 15u /* bytes at a segment's end that are not looked at */
#define LEAST 128u /* a shorter last segment is not searched */
#define AGE (UINT64_C(1) << 30)
#define VISITS 1024u /* of a segment without matches there are 300: steps grow */

enum { BETWEEN, SEARCHED, STEPPING }; /* segments */

/* Where the next look-up is, and how far the one after it: Go's s and skip. */
typedef struct {
    uint64_t at;
    uint32_t skip;
} walk;

struct go_fast {
    int level, phase;
    uint64_t position, start, end; /* of the segment */
    uint64_t swept;
    /* SEARCHED */
    uint32_t made, served;
    int dropped; /* the segment has too few matches: literals only. The matches are needed to set back the table. */
    int stale;   /* the segment was cut, its table is to be set back */
    int brief;   /* … soon after its begin */
    /* STEPPING */
    int ahead, rest; /* a match is found (at match_at); there is none any more */
    walk next;       /* the look-up after it */
    uint64_t match_at;
    uint32_t length, distance, visits;
    /* What remains of the last segment in the table, if provable. */
    uint32_t provable, walked, behind_match;

    struct {
        uint64_t at;
        uint32_t slot, before;
    } visited[VISITS]; /* since the position */
    uint32_t table[TABLE]; /* the low 32 bits of positions; none is mistaken, because old ones are swept */
    uint32_t saved[TABLE]; /* as it was at the segment's begin */
    uint32_t tokens[GO_SEGMENT];
};

go_fast *go_fast_new(int level) {
    go_fast *f = malloc(level == 1 ? sizeof *f : offsetof(go_fast, visited));
    if (!f) return NULL;
    memset(f, 0, offsetof(go_fast, visited));
    f->level = level;
    return f;
}

void go_fast_free(go_fast *f) { free(f); }

uint64_t go_fast_position(const go_fast *f) { return f->position; }

/* ---- the table ------------------------------------------------------------------------------------------------- */

static inline uint32_t slot_of(uint32_t bytes) { return (bytes * GO_HASH) >> (32 - TABLE_BITS); }

static inline const uint8_t *byte_at(const engine_view *view, uint64_t at) { return view->bytes + (at - view->begin); }

/* Enter a position; returns the distance to the one that was there, 0: none that matches in four bytes. */
static inline uint32_t look_up(uint32_t *entry, const uint8_t *here, uint64_t at) {
    uint32_t back = (uint32_t)at - *entry;
    *entry = (uint32_t)at;
    return back <= DEFLATE_WINDOW && go_load32(here - back) == go_load32(here) ? back : 0;
}

static inline uint32_t extend(const engine_view *view, uint64_t at, uint32_t back, uint64_t end) {
    const uint8_t *here = byte_at(view, at);
    uint32_t most = end - at < DEFLATE_MAX_MATCH ? (uint32_t)(end - at) : DEFLATE_MAX_MATCH;
    return 4 + go_same(here + 4 - back, here + 4, most - 4);
}

/* Positions too old to be used get one age, so that 32 bits tell them apart from others. */
static void sweep(go_fast *f, uint64_t at) {
    for (unsigned i = 0; i < TABLE; i++)
        if ((uint32_t)at - f->table[i] > DEFLATE_WINDOW) f->table[i] = (uint32_t)at - (1u << 31);
    f->swept = at;
}

static void empty(go_fast *f, uint64_t at) {
    for (unsigned i = 0; i < TABLE; i++) f->table[i] = (uint32_t)at - (1u << 31);
    f->swept = at;
}

/* Enter a position that the search visited once; those out of reach, and perhaps out of view, do not matter. */
static void enter(go_fast *f, const engine_view *view, uint64_t at) {
    if (at + DEFLATE_WINDOW >= f->position) f->table[slot_of(go_load32(byte_at(view, at)))] = (uint32_t)at;
}

static inline void step(walk *w) {
    uint32_t step = w->skip >> 5;
    w->at += step;
    w->skip += step;
}

/* Visit again what is visited below `until`, if no match is found. */
static void revisit(go_fast *f, const engine_view *view, walk *w, uint64_t until, uint64_t limit) {
    while (w->at < until) {
        walk then = *w;
        step(&then);
        if (then.at > limit) return;
        enter(f, view, w->at);
        *w = then;
    }
}

/* ---- a segment as a whole -------------------------------------------------------------------------------------- */

static void search(go_fast *f, const engine_view *view) {
    const uint8_t *bytes = byte_at(view, f->start);
    uint32_t *table = f->table, *tokens = f->tokens, size = (uint32_t)(f->end - f->start), literal = 0, made = 0;
    uint32_t limit = size < MARGIN ? 0 : size - MARGIN;
    const uint32_t base = (uint32_t)f->start;
    if (size < GO_SEGMENT && size < LEAST) goto rest;
    uint32_t at = 0, slot = slot_of(go_load32(bytes));
    for (;;) {
        uint32_t skip = 32, next = at, back;
        for (;;) {
            at = next;
            next = at + (skip >> 5);
            skip += skip >> 5;
            if (next > limit) goto rest;
            uint32_t bytes_here = go_load32(bytes + at);
            back = base + at - table[slot];
            table[slot] = base + at;
            slot = slot_of(go_load32(bytes + next));
            if (back <= DEFLATE_WINDOW && go_load32(bytes + at - back) == bytes_here) break;
        }
        while (literal < at) tokens[made++] = bytes[literal++];
        do {
            uint32_t most = size - at < DEFLATE_MAX_MATCH ? size - at : DEFLATE_MAX_MATCH;
            uint32_t length = 4 + go_same(bytes + at + 4 - back, bytes + at + 4, most - 4);
            tokens[made++] = deflate_match(length, back);
            literal = at += length;
            if (at >= limit) goto rest;
            table[slot_of(go_load32(bytes + at - 1))] = base + at - 1;
            back = look_up(&table[slot_of(go_load32(bytes + at))], bytes + at, f->start + at);
        } while (back);
        slot = slot_of(go_load32(bytes + ++at));
    }
rest:
    while (literal < size) tokens[made++] = bytes[literal++];
    f->made = made;
    f->served = 0;
    f->dropped = made > size - (size >> 4);
}

/* Is what the table holds of the last 32 KiB told by where the last match was? Only if none begins there. */
static void prove(go_fast *f) {
    uint64_t end = f->end, back = 0;
    uint32_t i = f->made;
    f->provable = 0;
    if (f->end - f->start != GO_SEGMENT) return;
    for (; i && !(f->tokens[i - 1] & DEFLATE_MATCH); i--) back++;
    f->behind_match = i > 0;
    if (i && back + deflate_length(f->tokens[i - 1]) <= DEFLATE_WINDOW) return;
    f->walked = (uint32_t)(i ? end - (end - back + 1) : GO_SEGMENT);
    f->provable = 1;
}

/* ---- match for match ------------------------------------------------------------------------------------------- */

static inline uint64_t limit_of(const go_fast *f) { return f->end < f->start + MARGIN ? f->start : f->end - MARGIN; }

/* Behind a match: at the position. */
static void behind_match(go_fast *f, const engine_view *view) {
    uint64_t at = f->position;
    f->visits = 0;
    f->ahead = 0;
    f->next = (walk){at + 1, 32};
    f->rest = at >= limit_of(f);
    if (f->rest) return;
    f->table[slot_of(go_load32(byte_at(view, at - 1)))] = (uint32_t)(at - 1);
    const uint8_t *here = byte_at(view, at);
    f->distance = look_up(&f->table[slot_of(go_load32(here))], here, at);
    if (!f->distance) return;
    f->ahead = 1;
    f->match_at = at;
    f->length = extend(view, at, f->distance, f->end);
}

/* Find the next match. */
static void find(go_fast *f, const engine_view *view) {
    uint64_t limit = limit_of(f);
    while (!f->ahead && !f->rest) {
        walk w = f->next;
        step(&f->next);
        if (f->next.at > limit || f->visits == VISITS) {
            f->rest = 1;
            return;
        }
        const uint8_t *here = byte_at(view, w.at);
        uint32_t slot = slot_of(go_load32(here));
        f->visited[f->visits].at = w.at;
        f->visited[f->visits].slot = slot;
        f->visited[f->visits++].before = f->table[slot];
        f->distance = look_up(&f->table[slot], here, w.at);
        if (!f->distance) continue;
        f->ahead = 1;
        f->match_at = w.at;
        f->length = extend(view, w.at, f->distance, f->end);
    }
}

/* Undo the visits from the position on. */
static void forget(go_fast *f) {
    while (f->visits && f->visited[f->visits - 1].at >= f->position) {
        f->visits--;
        f->table[f->visited[f->visits].slot] = f->visited[f->visits].before;
    }
}

/* From a segment that was searched as a whole: set the table back to what it was at the position. */
static void set_back(go_fast *f, const engine_view *view) {
    uint64_t at = f->start, limit = limit_of(f), position = f->position;
    walk w = {at, 32};
    int rest = f->end - f->start < LEAST, ended = 0; /* ended: the last token before the position is a match */
    memcpy(f->table, f->saved, sizeof f->table);
    f->phase = STEPPING;
    f->visits = 0;
    for (uint32_t i = 0; at < position && i < f->made; i++) {
        uint32_t length = deflate_length(f->tokens[i]);
        ended = 0;
        if (f->tokens[i] & DEFLATE_MATCH) {
            if (at + 1 != w.at) { /* it was not found at once behind another */
                revisit(f, view, &w, at, limit);
                enter(f, view, at);
            }
            if (at + length > position) { /* a dropped one */
                w = (walk){position, 32};
                break;
            }
            w = (walk){at + length + 1, 32};
            rest = at + length >= limit;
            ended = 1;
            if (!rest && at + length < position) {
                enter(f, view, at + length - 1);
                enter(f, view, at + length);
            }
        }
        at += length;
    }
    if (ended) {
        behind_match(f, view);
        return;
    }
    if (!rest) revisit(f, view, &w, position, limit);
    f->ahead = 0;
    f->rest = rest;
    f->next = w;
}

/* ---- the engine ------------------------------------------------------------------------------------------------ */

int go_fast_seek(go_fast *f, const engine_view *view, uint64_t position, const uint32_t state[ENGINE_STATE]) {
    f->position = f->start = f->end = position;
    f->phase = BETWEEN;
    f->provable = f->stale = f->brief = 0;
    if (f->level != 1) return ENGINE_TOKENS;
    empty(f, position);
    if (!position) return ENGINE_TOKENS;
    uint32_t walked = state[1];
    if (state[0] != 1 || !walked || walked > GO_SEGMENT || walked > position || state[2] > 1) return ENGINE_LOST;
    if (state[2] && (walked <= MARGIN || walked + 2 > position)) return ENGINE_LOST;
    walk w = {position - walked, 32};
    if (state[2]) {
        enter(f, view, w.at - 2);
        enter(f, view, w.at - 1);
    }
    revisit(f, view, &w, position, position - MARGIN);
    f->provable = 1;
    f->walked = walked;
    f->behind_match = state[2];
    return ENGINE_TOKENS;
}

void go_fast_save(const go_fast *f, uint32_t state[ENGINE_STATE]) {
    if (f->level != 1 || f->phase != BETWEEN || !f->provable) return;
    state[0] = 1;
    state[1] = f->walked;
    state[2] = f->behind_match;
}

/* Begin a segment. Behind one that was cut soon it is not searched as a whole, because it may be cut as soon. */
static int begin(go_fast *f, const engine_view *view) {
    uint64_t left = view->end - f->position;
    if (left < GO_SEGMENT && !view->last) return ENGINE_MORE;
    if (f->stale) set_back(f, view);
    f->stale = 0;
    f->start = f->position;
    f->end = f->position + (left < GO_SEGMENT ? left : GO_SEGMENT);
    f->phase = SEARCHED;
    if (f->level != 1) return ENGINE_TOKENS;
    if (f->position - f->swept >= AGE) sweep(f, f->position);
    if (f->brief) {
        f->phase = STEPPING;
        f->ahead = 0;
        f->visits = 0;
        f->rest = left < LEAST;
        f->next = (walk){f->position, 32};
    } else {
        memcpy(f->saved, f->table, sizeof f->table);
        search(f, view);
    }
    f->brief = 0;
    return ENGINE_TOKENS;
}

/* The segment is full. */
static void finish(go_fast *f) {
    f->provable = 0;
    if (f->level == 1 && f->phase == SEARCHED) prove(f);
    f->phase = BETWEEN;
}

static uint32_t predict(go_fast *f, const engine_view *view) {
    if (f->level == 1 && f->phase == SEARCHED && !f->dropped) return f->tokens[f->served];
    if (f->phase == STEPPING) {
        find(f, view);
        if (f->ahead && f->match_at == f->position) return deflate_match(f->length, f->distance);
    }
    return *byte_at(view, f->position);
}

static int ready(go_fast *f, const engine_view *view) {
    if (!go_reaches(view, f->position)) return ENGINE_MORE;
    if (f->phase == BETWEEN) return begin(f, view);
    return view->end < f->end ? ENGINE_MORE : ENGINE_TOKENS;
}

static void advance(go_fast *f, uint32_t length) {
    f->served++;
    f->position += length;
}

int go_fast_run(go_fast *f, const engine_view *view, const uint32_t *actual, uint32_t *tokens, size_t max,
                size_t *made) {
    for (size_t n = 0;; n++) {
        *made = n;
        if (f->phase != BETWEEN && f->position >= f->end) {
            finish(f);
            return f->position == view->end && view->last ? ENGINE_DONE : ENGINE_BLOCK;
        }
        if (f->position == view->end && view->last) return ENGINE_DONE;
        if (n == max) return ENGINE_TOKENS;
        int told = ready(f, view);
        if (told != ENGINE_TOKENS) return told;
        size_t left = f->made - f->served;
        if (f->level == 1 && f->phase == SEARCHED && !f->dropped && !actual && left <= max - n) {
            memcpy(tokens + n, f->tokens + f->served, left * sizeof *tokens);
            n += left - 1;
            f->served = f->made;
            f->position = f->end;
            continue;
        }
        uint32_t token = predict(f, view);
        tokens[n] = token;
        if (actual && token != actual[n]) return ENGINE_MISS;
        advance(f, deflate_length(token));
        if (f->phase == STEPPING && (token & DEFLATE_MATCH)) behind_match(f, view);
    }
}

int go_fast_commit(go_fast *f, const engine_view *view, uint32_t token) {
    if (f->phase != BETWEEN && f->position >= f->end) finish(f);
    if (view->last && f->position == view->end) return ENGINE_LOST;
    int told = ready(f, view);
    if (told != ENGINE_TOKENS) return told;
    if (!go_fits(view, f->position, token)) return ENGINE_LOST;
    int match = (token & DEFLATE_MATCH) != 0;
    if (f->level == 1 && token != predict(f, view)) {
        if (f->phase == SEARCHED) set_back(f, view);
        find(f, view);
        if (match) {
            forget(f);
            if (f->position < limit_of(f)) enter(f, view, f->position);
        } else if (f->ahead && f->match_at == f->position) {
            f->ahead = 0;
        }
    }
    advance(f, deflate_length(token));
    if (f->phase == STEPPING && match) behind_match(f, view);
    return ENGINE_TOKENS;
}

/* The rest of the segment is the next one's. */
int go_fast_cut(go_fast *f) {
    if (f->level == 1 && f->phase != BETWEEN) {
        f->stale = f->phase == SEARCHED;
        if (!f->stale) forget(f);
        f->brief = f->position - f->start < GO_SEGMENT / 16;
        f->provable = 0;
    }
    f->phase = BETWEEN;
    return ENGINE_TOKENS;
}
