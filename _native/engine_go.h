/* What the parts of the engine of Go's compress/flate share. See engine.h.
 *
 * engine_go.c        levels, and how blocks are sent
 * engine_go_chain.c  the tokens of levels 2 to 9
 * engine_go_fast.c   those of BestSpeed (1), HuffmanOnly (-2), NoCompression (0) */
#ifndef CASSTORE_ENGINE_GO_H
#define CASSTORE_ENGINE_GO_H

#include "engine.h"

#define GO_TOKENS 16384u /* of a block, levels 2 to 9 */
#define GO_SEGMENT 65535u /* bytes of a block, the other levels */
#define GO_HASH 0x1e35a7bdu

/* Load bytes in an order that is the same everywhere (compilers make one load of it). */
static inline uint32_t go_load32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static inline uint32_t go_load32_big(const uint8_t *p) {
    return (uint32_t)p[3] | (uint32_t)p[2] << 8 | (uint32_t)p[1] << 16 | (uint32_t)p[0] << 24;
}
static inline uint64_t go_load64(const uint8_t *p) { return go_load32(p) | (uint64_t)go_load32(p + 4) << 32; }

/* How many bytes are the same, at most `most`; nothing beyond those is touched. */
static inline uint32_t go_same(const uint8_t *a, const uint8_t *b, uint32_t most) {
    uint32_t n = 0;
    for (; n + 8 <= most; n += 8) {
        uint64_t differ = go_load64(a + n) ^ go_load64(b + n);
        if (differ) return n + ((uint32_t)__builtin_ctzll(differ) >> 3);
    }
    while (n < most && a[n] == b[n]) n++;
    return n;
}

/* The view reaches back as far as this engine may look from here. */
static inline int go_reaches(const engine_view *view, uint64_t position) {
    uint64_t back = position < DEFLATE_WINDOW ? position : DEFLATE_WINDOW;
    return view->begin <= position - back && position <= view->end;
}

/* Is this token one that the content has at this position, which is in view? */
int go_fits(const engine_view *view, uint64_t position, uint32_t token);

typedef struct go_chain go_chain;
go_chain *go_chain_new(int level);
void go_chain_free(go_chain *chain);
int go_chain_seek(go_chain *chain, const engine_view *view, uint64_t position, const uint32_t state[ENGINE_STATE]);
void go_chain_save(const go_chain *chain, uint32_t state[ENGINE_STATE]);
uint64_t go_chain_position(const go_chain *chain);
int go_chain_run(go_chain *chain, const engine_view *view, const uint32_t *actual, uint32_t *tokens, size_t max,
                 size_t *made);
int go_chain_commit(go_chain *chain, const engine_view *view, uint32_t token);
int go_chain_cut(go_chain *chain);
/* Where Go's window begins when it deals with the byte at `at`, if the content ends at `end` (UINT64_MAX: not near). */
uint64_t go_chain_window(uint64_t at, uint64_t end);

typedef struct go_fast go_fast;
go_fast *go_fast_new(int level);
void go_fast_free(go_fast *fast);
int go_fast_seek(go_fast *fast, const engine_view *view, uint64_t position, const uint32_t state[ENGINE_STATE]);
void go_fast_save(const go_fast *fast, uint32_t state[ENGINE_STATE]);
uint64_t go_fast_position(const go_fast *fast);
int go_fast_run(go_fast *fast, const engine_view *view, const uint32_t *actual, uint32_t *tokens, size_t max,
                size_t *made);
int go_fast_commit(go_fast *fast, const engine_view *view, uint32_t token);
int go_fast_cut(go_fast *fast);

#endif
