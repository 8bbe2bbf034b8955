/* The engine of klauspost/compress's flate at levels 1 to 6, as pgzip drives it: podman, buildah, skopeo, umoci and apko make
 * layers so; and of Go's own from 1.27 on at levels -2 to 6, which was made from it. See engine.h; the rules: GZIP.md.
 *
 * pgzip gives its encoder a unit at a time, each with the last 16 KiB before it as a dictionary and each followed by a
 * flush (an empty stored block); at the end there is an empty fixed block. So each unit depends on the content alone, and
 * what is inside is made from its begin on: a seek into the middle of one encodes what lies before.
 *
 * pgzip's levels: 5 (or -1) is 5 with units of 1 MiB, which is the default; 15 with half of that, 25 with a quarter, as
 * umoci has it, and so on to 55; others likewise, those that a version's rules are known for.
 *
 * Go's encoder has no units: its tables go on to the content's end. What they hold within reach follows from what the
 * last segment has entered in them, of which there is a digest. A seek makes the segments before it again, the first of
 * them with empty tables, and can go on if the digest is the one that was saved: nearly always a few segments are enough.
 *
 * A segment is coded once its tokens are known, and only then is it known whether it goes on with the block before. So a
 * block's end is told after a look at the segment after it. */
#include <stdlib.h>
#include <string.h>

#include "engine_klauspost.h"

#define UNIT (1u << 20) /* the largest */
#define SHRINKS 5       /* so often it can be halved */
#define DICTIONARY 16384u
#define REACH 32768u
#define SMALL 128u /* bytes of a last segment that is too short to be searched */
#define TINY 32u   /* and to be coded */
/* Segments that are made again before a seek, where there are no units. Where not every position is looked at, it takes
 * longer until what came before is forgotten. */
#define WARM 8u
#define WARM_DENSE 5u /* levels 4 to 6; no less, for the encoder's buffer */
/* In a state: there is a digest, of what the matcher remembers, or of the coder's codes, too. */
#define PROVEN 256u
#define PROVEN_CODES 512u

typedef struct {
    kp_rules rules;
    uint32_t unit;       /* its size; 0: there are none, all is one */
    uint64_t base;       /* of the unit */
    uint64_t position; /* tokens before it are handed out */
    uint64_t begin, end; /* of the segment */
    uint32_t taken;      /* of its tokens */
    int open;            /* there is a segment */
    int sync, last;      /* its end is the unit's; and the content's */
    int joined;          /* it goes on with the block */
    int fresh;           /* the block has no segment yet */
    int edge;            /* the end of a block was told */
    int lost;
    unsigned follows;       /* empty blocks that are to come */
    uint32_t cuts, joins;   /* segments of this unit whose plan was overruled */
    uint64_t trail;         /* the matcher's, before the segment */
    int fresh_codes;        /* codes before the position do not matter */
    kp_kind kind;
    kp_coder coder, before; /* after and before the segment */
    deflate_head head, next_head; /* of the block; of the one that the segment begins */
    kp_tokens tokens;
    kp_matcher matcher;
} kp_engine;

static void *kp_open(const kp_rules *rules, uint32_t unit) {
    kp_engine *e = calloc(1, sizeof *e);
    if (!e) return NULL;
    e->rules = *rules;
    e->unit = unit;
    kp_tokens_init(&e->tokens);
    kp_matcher_init(&e->matcher);
    return e;
}

static void kp_close(void *engine) { free(engine); }

static uint64_t kp_position(const void *engine) { return ((const kp_engine *)engine)->position; }

/* ---- segments -------------------------------------------------------------------------------------------------- */

static uint32_t segment_bit(const kp_engine *e) { return e->unit ? 1u << ((e->begin - e->base) / KP_SEGMENT) : 0; }

static uint64_t base_of(const kp_engine *e, uint64_t position) { return e->unit ? position - position % e->unit : 0; }

static int begin_unit(kp_engine *e, const engine_view *view, uint64_t base) {
    uint64_t from = base ? base - DICTIONARY : 0;
    if (view->begin > from || view->end < base) return ENGINE_MORE;
    e->base = base;
    e->cuts = e->joins = 0;
    memset(&e->coder, 0, sizeof e->coder);
    kp_matcher_reset(&e->matcher, from);
    if (base) kp_match(&e->matcher, &e->rules, view, DICTIONARY, &e->tokens);
    return 0;
}

/* Tokens of [begin, end). */
static void match_segment(kp_engine *e, const engine_view *view) {
    const uint8_t *bytes = view->bytes + (e->begin - view->begin);
    uint32_t n = (uint32_t)(e->end - e->begin);
    kp_tokens *t = &e->tokens;
    if (e->rules.level <= 0) {
        e->kind = e->rules.level ? KP_LITERALS : KP_STORED;
    } else if (!e->rules.small && e->sync && n < SMALL) {
        e->kind = n <= TINY ? KP_STORED : KP_LITERALS;
    } else {
        kp_match(&e->matcher, &e->rules, view, n, t);
        if (e->rules.small && n < KP_SEARCHED) e->kind = KP_STORED;
        else if (!t->n) e->kind = e->rules.small && n < SMALL ? KP_LITERALS : KP_STORED;
        else e->kind = t->n > n - (n >> 4) ? KP_LITERALS : KP_MATCHES;
    }
    if (e->kind != KP_MATCHES) kp_tokens_literals(t, bytes, n);
}

static int plan(kp_coder *coder, const kp_engine *e, deflate_head *head) {
    return kp_plan(coder, &e->rules, e->kind, &e->tokens, (uint32_t)(e->end - e->begin), e->sync, head);
}

/* The segment begins a block, whatever was planned. */
static void plan_cut(kp_engine *e, deflate_head *head) {
    e->coder = e->before;
    e->coder.header = 0;
    e->joined = plan(&e->coder, e, head);
    e->cuts |= segment_bit(e);
}

/* The segment goes on with the block, whatever was planned. */
static void plan_join(kp_engine *e) {
    e->coder = e->before;
    if (e->sync) e->coder.header = 0;
    e->joined = 1;
    e->joins |= segment_bit(e);
}

/* The next segment. 0; ENGINE_DONE: there is none. */
static int open_segment(kp_engine *e, const engine_view *view) {
    uint64_t at = e->position;
    if (at < view->begin || at > view->end) return ENGINE_MORE;
    if (at == view->end) return view->last ? ENGINE_DONE : ENGINE_MORE;
    uint64_t base = base_of(e, at);
    if (at == base) {
        int failed = begin_unit(e, view, base);
        if (failed) return failed;
    }
    uint64_t left = view->end - at, unit = e->unit ? base + e->unit - at : UINT64_MAX;
    if (left > unit) left = unit;
    if (left < e->rules.segment && left < unit && !view->last) return ENGINE_MORE;
    uint64_t history = at - e->matcher.begin, least = e->rules.level == 4 ? at - e->matcher.first : REACH;
    if (at - (history < least ? history : least) < view->begin) return ENGINE_MORE;
    e->begin = at;
    e->end = at + (left < e->rules.segment ? left : e->rules.segment);
    e->sync = e->end - at == unit || (view->last && e->end == view->end);
    e->last = view->last && e->end == view->end;
    e->taken = 0;
    e->open = 1;
    e->trail = e->matcher.trail;
    match_segment(e, view);
    e->before = e->coder;
    e->joined = plan(&e->coder, e, &e->next_head);
    return 0;
}

/* ---- tokens ---------------------------------------------------------------------------------------------------- */

static int kp_run(void *engine, const engine_view *view, const uint32_t *actual, uint32_t *tokens, size_t max,
                  size_t *made) {
    kp_engine *e = engine;
    *made = 0;
    if (e->lost) return ENGINE_LOST;
    e->follows = 0;
    if (e->edge) { /* told, and not so */
        e->edge = 0;
        if (e->open && e->taken == e->tokens.n) e->open = 0;
        else if (e->open && !e->joined) plan_join(e);
    }
    for (;;) {
        if (e->open) {
            const uint32_t *mine = e->tokens.tokens + e->taken;
            size_t most = max - *made, left = e->tokens.n - e->taken, n = 0;
            if (most > left) most = left;
            uint64_t position = e->position;
            if (actual) {
                for (; n < most && mine[n] == actual[*made + n]; n++) position += deflate_length(mine[n]);
            } else {
                n = most;
                if (n < left)
                    for (size_t i = 0; i < n; i++) position += deflate_length(mine[i]);
            }
            if (n) memcpy(tokens + *made, mine, n * sizeof *tokens);
            *made += n;
            e->taken += (uint32_t)n;
            e->position = e->taken == e->tokens.n ? e->end : position;
            if (n < most) {
                tokens[*made] = mine[n];
                return ENGINE_MISS;
            }
            if (n < left) return ENGINE_TOKENS;
            if (e->sync) {
                e->edge = 1;
                return e->last ? ENGINE_DONE : ENGINE_BLOCK;
            }
        }
        int told = open_segment(e, view);
        if (told) return told;
        if (e->fresh) {
            if (e->joined) plan_cut(e, &e->next_head);
            e->head = e->next_head;
            e->fresh = 0;
        } else if (!e->joined) {
            e->edge = 1;
            return ENGINE_BLOCK;
        }
    }
}

/* The tokens of a segment follow from the content alone: with another one in their midst there is no going on. */
static int kp_commit(void *engine, const engine_view *view, uint32_t token) {
    kp_engine *e = engine;
    (void)view;
    if (e->lost || !e->open || e->edge || e->taken == e->tokens.n || e->tokens.tokens[e->taken] != token) {
        e->lost = 1;
        return ENGINE_LOST;
    }
    e->position += deflate_length(token);
    e->taken++;
    return 0;
}

static int kp_cut(void *engine) {
    kp_engine *e = engine;
    if (e->lost || !e->open || e->edge || e->fresh || e->taken || !e->joined) {
        e->lost = 1;
        return ENGINE_LOST;
    }
    plan_cut(e, &e->next_head);
    e->edge = 1;
    return 0;
}

/* ---- blocks ---------------------------------------------------------------------------------------------------- */

/* An empty block of fixed codes. */
static void make_end(deflate_head *head) {
    head->type = DEFLATE_FIXED;
    head->final = 1;
    deflate_fixed_lengths(head->lengths);
}

static int kp_block(void *engine, const engine_view *view, const uint32_t *tokens, size_t n, uint64_t start, int done,
                    deflate_head *head, unsigned *follows) {
    kp_engine *e = engine;
    (void)tokens;
    (void)n;
    (void)done;
    *follows = 0;
    if (e->lost) return ENGINE_LOST;
    memset(head, 0, sizeof *head);
    int at_end = view->last && e->position == view->end;
    if (e->follows) {
        *follows = --e->follows;
        if (at_end && !e->follows) make_end(head);
        return 0;
    }
    if (!e->open) { /* a unit of nothing */
        if (!at_end || start != e->position) return ENGINE_LOST;
        if (e->unit) *follows = e->follows = 1;
        else make_end(head);
        return 0;
    }
    if (!e->edge) {
        e->lost = 1;
        return ENGINE_LOST;
    }
    *head = e->head;
    if (head->type == DEFLATE_STORED) head->stored = (uint16_t)(e->position - start);
    e->edge = 0;
    e->fresh = 1;
    if (e->taken == e->tokens.n) { /* the unit's end: a flush; at the end also of a unit of nothing */
        e->follows = !e->last || !e->unit ? 1 : e->position % e->unit ? 2 : 3;
        *follows = e->follows;
        e->open = 0;
    } else {
        e->head = e->next_head;
        e->fresh = 0;
    }
    return 0;
}

/* ---- boundaries ------------------------------------------------------------------------------------------------ */

static uint64_t memory(uint64_t trail, const kp_coder *coder) {
    uint64_t digest = trail;
    if (coder && coder->header) {
        digest = (digest ^ coder->header) * 0x100000001b3 ^ coder->literals_only;
        for (unsigned i = 0; i < sizeof coder->lengths; i++) digest = (digest ^ coder->lengths[i]) * 0x100000001b3;
    }
    return digest * 0x9e3779b97f4a7c15u;
}

/* Would the segment at the position begin its block in the same way, whatever codes there were before? */
static int is_fresh(const kp_engine *e) {
    kp_coder coder = e->before;
    deflate_head head;
    coder.header = 0;
    if (!e->open || e->taken || plan(&coder, e, &head) || memcmp(&head, &e->head, sizeof head)) return 0;
    if (coder.header != e->coder.header) return 0;
    return !coder.header || !memcmp(&coder, &e->coder, sizeof coder);
}

static void kp_save(const void *engine, uint32_t state[ENGINE_STATE]) {
    const kp_engine *e = engine;
    memset(state, 0, ENGINE_STATE * sizeof *state);
    state[0] = e->follows;
    if (!e->unit) {
        if (!e->position || e->follows) return;
        int fresh = e->open ? is_fresh(e) : e->fresh_codes;
        const kp_coder *coder = fresh ? NULL : e->open ? &e->before : &e->coder;
        uint64_t digest = memory(e->open ? e->trail : e->matcher.trail, coder);
        state[0] = fresh ? PROVEN : PROVEN_CODES;
        state[1] = (uint32_t)digest;
        state[2] = (uint32_t)(digest >> 32);
        return;
    }
    /* Of the segments before this boundary, and of the one after it. */
    if (e->position % e->unit) state[1] = e->cuts, state[2] = e->joins;
}

static unsigned kp_follows(const void *engine) { return ((const kp_engine *)engine)->follows; }

/* Make the segments again that end at this position. */
static int warm_up(kp_engine *e, const engine_view *view, uint64_t position, uint64_t digest) {
    engine_view known = {view->bytes, view->begin, position, 0};
    uint64_t back = (e->rules.level < 4 ? WARM : WARM_DENSE) * e->rules.segment;
    if (back > position) back = position;
    kp_matcher_reset(&e->matcher, position - back);
    e->matcher.first = kp_first((position - back) / KP_SEGMENT);
    memset(&e->coder, 0, sizeof e->coder);
    for (e->position = position - back; e->position < position; e->position = e->end) {
        int failed = open_segment(e, &known);
        if (failed) return failed;
    }
    e->open = 0;
    if (e->fresh_codes) e->coder.header = 0;
    return memory(e->matcher.trail, &e->coder) == digest ? 0 : ENGINE_LOST;
}

static int kp_seek(void *engine, const engine_view *view, uint64_t position, const uint32_t state[ENGINE_STATE]) {
    kp_engine *e = engine;
    uint64_t base = base_of(e, position);
    e->position = position;
    e->open = e->edge = 0;
    e->fresh = 1;
    int proven = !e->unit && (state[0] == PROVEN || state[0] == PROVEN_CODES);
    e->fresh_codes = state[0] == PROVEN;
    e->follows = proven ? 0 : state[0];
    e->lost = e->follows > 3;
    if (e->lost) return ENGINE_LOST;
    e->cuts = e->joins = 0;
    e->base = base;
    if (position == base || e->follows || (view->last && position == view->end)) return 0;
    if ((position - base) % e->rules.segment || view->end < position || !(e->unit || proven)) {
        e->lost = 1;
        return view->end < position ? ENGINE_MORE : ENGINE_LOST;
    }
    if (!e->unit) {
        int failed = warm_up(e, view, position, state[1] | (uint64_t)state[2] << 32);
        e->lost = failed != 0;
        return failed;
    }
    engine_view known = {view->bytes, view->begin, position, 0};
    for (e->position = base; e->position < position; e->position = e->end) {
        int failed = open_segment(e, &known);
        if (failed) {
            e->lost = 1;
            return failed;
        }
        if (state[1] & segment_bit(e)) plan_cut(e, &e->next_head);
        else if (state[2] & segment_bit(e)) plan_join(e);
    }
    e->open = 0;
    return 0;
}

/* ---- versions -------------------------------------------------------------------------------------------------- */

static void *open_pgzip(const kp_rules *rules, int level) {
    if (level == -1) level = 5;
    if (level < 0 || level / 10 > SHRINKS || !(rules->levels >> level % 10 & 1)) return NULL;
    kp_rules of = *rules;
    of.level = (int8_t)(level % 10);
    return kp_open(&of, UNIT >> level / 10);
}

static void *open_engine_go_1_27(int level) {
    kp_rules rules = {6, 7, KP_SEGMENT, 0, .skip = 2, .trimmed = 1};
    if (level < -2 || level > 6) return NULL;
    if (level != -1) rules.level = (int8_t)level;
    if (level == -2) rules.penalty = 10, rules.segment = 32768;
    return kp_open(&rules, 0);
}

#define KIND(variable, name, number, history)                                                                          \
    const engine_kind variable = {name,     number,  history, KP_SEGMENT,  UNIT,       open_##variable, kp_close,       \
                                  kp_seek,  kp_save, kp_position, kp_follows, kp_run,  kp_commit,       kp_cut,         \
                                  kp_block};

#define PGZIP(variable, number, ...)                                                                                   \
    static void *open_##variable(int level) {                                                                          \
        static const kp_rules rules = {0, 7, KP_SEGMENT, __VA_ARGS__};                                                 \
        return open_pgzip(&rules, level);                                                                              \
    }                                                                                                                  \
    KIND(variable, "klauspost", number, UNIT + DICTIONARY)

#define LEVEL(n) (1u << (n))
#define MOST_LEVELS (LEVEL(1) | LEVEL(2) | LEVEL(3) | LEVEL(5) | LEVEL(6))

PGZIP(engine_klauspost, 1, MOST_LEVELS, .skip = 2)
PGZIP(engine_klauspost_1_18, 2, MOST_LEVELS | LEVEL(4), .skip = 2, .trimmed = 1)
PGZIP(engine_klauspost_1_20, 3, MOST_LEVELS | LEVEL(4), .skip = 2, .trimmed = 1, .small = 1, .tree = 1)
PGZIP(engine_klauspost_1_15, 4, LEVEL(5) | LEVEL(6), .skip = 0)
PGZIP(engine_klauspost_1_14, 5, LEVEL(5) | LEVEL(6), .short_splits = 1)

KIND(engine_go_1_27, "go", 2, WARM *KP_SEGMENT)
