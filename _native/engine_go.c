/* The engine of Go's compress/flate, releases 1.7 to 1.26: levels, and how blocks are sent. See engine.h.
 *
 * Source: compress/flate's deflate.go, deflatefast.go, huffman_bit_writer.go. What it is exact for: one Writer that is
 * fed by writes of 32 KiB, or any that keep its window full (io.Copy), and closed. Writes that leave the window part-full
 * when it slides, or flushes, are for the corrections. At level 1, releases before 1.15 forget their table once in 1 GiB.
 *
 * Checkpoints: levels 4 to 9, -2 and 0 can seek to any block boundary. Levels 1 to 3 remember which positions they
 * entered in their tables, which the content does not tell: `save` gives zeros, and `seek` says ENGINE_LOST, unless what
 * they remember of the last 32 KiB is provable, as in content that does not compress. */
#include <stdlib.h>
#include <string.h>

#include "engine_go.h"

typedef struct {
    int level;
    go_chain *chain; /* one of both */
    go_fast *fast;
} engine_of_go;

static void close_engine(void *engine) {
    engine_of_go *go = engine;
    if (!go) return;
    go_chain_free(go->chain);
    go_fast_free(go->fast);
    free(go);
}

static void *open_engine(int level) {
    if (level == -1) level = 6;
    if (level < -2 || level > 9) return NULL;
    engine_of_go *go = calloc(1, sizeof *go);
    if (!go) return NULL;
    go->level = level;
    if (level >= 2) go->chain = go_chain_new(level);
    else go->fast = go_fast_new(level);
    if (go->chain || go->fast) return go;
    close_engine(go);
    return NULL;
}

static int seek(void *engine, const engine_view *view, uint64_t position, const uint32_t state[ENGINE_STATE]) {
    engine_of_go *go = engine;
    if (!go_reaches(view, position)) return ENGINE_MORE;
    return go->chain ? go_chain_seek(go->chain, view, position, state)
                     : go_fast_seek(go->fast, view, position, state);
}

static void save(const void *engine, uint32_t state[ENGINE_STATE]) {
    const engine_of_go *go = engine;
    memset(state, 0, ENGINE_STATE * sizeof *state);
    if (go->chain) go_chain_save(go->chain, state);
    else go_fast_save(go->fast, state);
}

static uint64_t position_of(const void *engine) {
    const engine_of_go *go = engine;
    return go->chain ? go_chain_position(go->chain) : go_fast_position(go->fast);
}

static int run(void *engine, const engine_view *view, const uint32_t *actual, uint32_t *tokens, size_t max,
               size_t *made) {
    engine_of_go *go = engine;
    *made = 0;
    return go->chain ? go_chain_run(go->chain, view, actual, tokens, max, made)
                     : go_fast_run(go->fast, view, actual, tokens, max, made);
}

static int commit(void *engine, const engine_view *view, uint32_t token) {
    engine_of_go *go = engine;
    return go->chain ? go_chain_commit(go->chain, view, token) : go_fast_commit(go->fast, view, token);
}

static int cut(void *engine) {
    engine_of_go *go = engine;
    return go->chain ? go_chain_cut(go->chain) : go_fast_cut(go->fast);
}

int go_fits(const engine_view *view, uint64_t position, uint32_t token) {
    uint64_t ahead = view->end - position, behind = position - view->begin;
    const uint8_t *here = view->bytes + behind;
    uint32_t length = deflate_length(token);
    if (length > ahead) return 0;
    if (!(token & DEFLATE_MATCH)) return token == *here;
    if ((token & DEFLATE_LONG) && length != DEFLATE_MAX_MATCH) return 0;
    uint32_t distance = deflate_distance(token);
    return distance <= behind && go_same(here - distance, here, length) == length;
}

/* ---- blocks ---------------------------------------------------------------------------------------------------- */

typedef struct {
    uint32_t literals[286], distances[30], codes[19];
    uint64_t extra; /* bits */
} counts;

/* deflate_distance_code, in place. */
static inline unsigned distance_code(uint32_t token) {
    uint32_t at = token & 0x7fff;
    if (at < 4) return at;
    unsigned bits = 31u - (unsigned)__builtin_clz(at);
    return 2 * bits + (at >> (bits - 1) & 1);
}

static void count_tokens(counts *c, const uint32_t *tokens, size_t n) {
    uint32_t lengths[256] = {0};
    for (size_t i = 0; i < n; i++) {
        uint32_t token = tokens[i];
        if (!(token & DEFLATE_MATCH)) {
            c->literals[token & 0xff]++;
            continue;
        }
        c->distances[distance_code(token)]++;
        if (token & DEFLATE_LONG) c->literals[257 + 27]++;
        else lengths[token >> 16 & 0xff]++;
    }
    for (unsigned at = 0; at < 256; at++)
        c->literals[257 + deflate_length_code(at + DEFLATE_MIN_MATCH)] += lengths[at];
    c->literals[256] = 1;
    for (unsigned i = 0; i < 29; i++) c->extra += (uint64_t)c->literals[257 + i] * deflate_length_extra[i];
    for (unsigned i = 0; i < 30; i++) c->extra += (uint64_t)c->distances[i] * deflate_distance_extra[i];
}

static uint64_t bits_of(const uint32_t *frequencies, const uint8_t *lengths, unsigned n) {
    uint64_t bits = 0;
    for (unsigned i = 0; i < n; i++) bits += (uint64_t)frequencies[i] * lengths[i];
    return bits;
}

static void op(deflate_head *head, counts *c, unsigned symbol, unsigned extra) {
    head->ops[head->op_count][0] = (uint8_t)symbol;
    head->ops[head->op_count++][1] = (uint8_t)extra;
    c->codes[symbol]++;
}

/* `times` code lengths of one kind. */
static void fold(deflate_head *head, counts *c, unsigned length, unsigned times) {
    if (length) {
        op(head, c, length, 0);
        for (times--; times >= 3;) {
            unsigned step = times < 6 ? times : 6;
            op(head, c, 16, step - 3);
            times -= step;
        }
    } else {
        for (; times >= 11;) {
            unsigned step = times < 138 ? times : 138;
            op(head, c, 18, step - 11);
            times -= step;
        }
        if (times >= 3) {
            op(head, c, 17, times - 3);
            times = 0;
        }
    }
    for (; times; times--) op(head, c, length, 0);
}

/* The head of a dynamic block of these tokens; returns the block's bits but for extra ones. */
static uint64_t make_dynamic(deflate_head *head, counts *c) {
    static const uint8_t order[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    uint8_t lengths[286 + 30];
    unsigned literals = 286, distances = 30;
    while (!c->literals[literals - 1]) literals--;
    while (distances && !c->distances[distances - 1]) distances--;
    if (!distances) distances = c->distances[0] = 1; /* there has to be one */
    head->type = DEFLATE_DYNAMIC;
    head->literal_count = (uint16_t)literals;
    head->distance_count = (uint16_t)distances;
    engine_go_lengths(c->literals, 286, 15, head->lengths);
    engine_go_lengths(c->distances, 30, 15, head->lengths + DEFLATE_LITERALS);
    memcpy(lengths, head->lengths, literals);
    memcpy(lengths + literals, head->lengths + DEFLATE_LITERALS, distances);
    for (unsigned i = 0, times; i < literals + distances; i += times) {
        for (times = 1; i + times < literals + distances && lengths[i + times] == lengths[i];) times++;
        fold(head, c, lengths[i], times);
    }
    engine_go_lengths(c->codes, 19, 7, head->code_lengths);
    unsigned sent = 19;
    while (sent > 4 && !c->codes[order[sent - 1]]) sent--;
    head->code_count = (uint8_t)sent;
    return 3 + 5 + 5 + 4 + 3 * sent + bits_of(c->codes, head->code_lengths, 19) + 2 * (uint64_t)c->codes[16] +
           3 * (uint64_t)c->codes[17] + 7 * (uint64_t)c->codes[18] + bits_of(c->literals, head->lengths, 286) +
           bits_of(c->distances, head->lengths + DEFLATE_LITERALS, 30);
}

static void make_stored(deflate_head *head, uint64_t bytes) {
    memset(head, 0, sizeof *head);
    head->stored = (uint16_t)bytes;
}

/* Levels 2 to 9 look whether the block's begin is still in the window when they send it: the window moves on when the
 * byte is dealt with that makes the last token certain, which is the byte after a match's first (levels 4 to 9; levels 2
 * and 3: its first), the one after a literal (itself), and the content's end for a block that is not full. */
static uint64_t window_then(const engine_of_go *go, const engine_view *view, const uint32_t *tokens, size_t n,
                            uint64_t end) {
    if (n != GO_TOKENS) return go_chain_window(end, end);
    uint64_t at = end - (go->level < 4);
    if (tokens[n - 1] & DEFLATE_MATCH) at = end - deflate_length(tokens[n - 1]) + (go->level >= 4);
    return go_chain_window(at, view->last ? view->end : UINT64_MAX);
}

static int block(void *engine, const engine_view *view, const uint32_t *tokens, size_t n, uint64_t start, int done,
                 deflate_head *head, unsigned *follows) {
    const engine_of_go *go = engine;
    uint64_t end = position_of(engine), bytes = end - start;
    *follows = 0;
    make_stored(head, bytes);
    if (!n) { /* a flush, the end */
        head->stored = 0;
        head->final = done != 0;
        return ENGINE_TOKENS;
    }
    *follows = done != 0;
    int storable = bytes <= GO_SEGMENT;
    if (!go->level) return ENGINE_TOKENS;
    if (go->level == 1 && bytes <= 16) return ENGINE_TOKENS;
    counts c;
    memset(&c, 0, sizeof c);
    count_tokens(&c, tokens, n);
    uint64_t dynamic = make_dynamic(head, &c), stored = 8 * (bytes + 5);
    if (go->level < 2) {
        if (storable && stored < dynamic + (dynamic >> 4)) make_stored(head, bytes);
        return ENGINE_TOKENS;
    }
    uint8_t plain[DEFLATE_LITERALS + DEFLATE_DISTANCES];
    deflate_fixed_lengths(plain);
    uint64_t best = 3 + bits_of(c.literals, plain, 286) + bits_of(c.distances, plain + DEFLATE_LITERALS, 30);
    int fixed = dynamic >= best;
    if (!fixed) best = dynamic;
    if (storable && stored < best + c.extra && start >= window_then(go, view, tokens, n, end)) {
        make_stored(head, bytes);
    } else if (fixed) {
        memset(head, 0, sizeof *head);
        head->type = DEFLATE_FIXED;
        memcpy(head->lengths, plain, sizeof plain);
    }
    return ENGINE_TOKENS;
}

const engine_kind engine_go = {
    .name = "go",
    .version = 1,
    .history = DEFLATE_WINDOW,
    .lookahead = GO_SEGMENT,
    .max_tokens = GO_SEGMENT,
    .open = open_engine,
    .close = close_engine,
    .seek = seek,
    .save = save,
    .position = position_of,
    .run = run,
    .commit = commit,
    .cut = cut,
    .block = block,
};
