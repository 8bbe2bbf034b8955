/* Go's levels 2 to 9: hash chains. See engine_go.h; the source is compress/flate's deflate.go.
 *
 * A token depends on the content, and on which positions were entered in the chains. Levels 4 to 9 enter every position
 * (but for the content's last three), and look for matches anew behind each match: between tokens they remember nothing.
 * Levels 2 and 3 leave out the inside of long matches.
 *
 * Go's window is 64 KiB; it moves on by 32 KiB when fewer than 262 bytes of it are left and there is more content. Chains
 * end where the window begins: just behind a move, distances reach 32507 only.
 *
 * Chains lie in cells: each position knows the distances to the four before it in its chain, so that four candidates cost
 * one dependent load. A cell is four lanes of 16 bits, the nearest lowest: distance - 1, or anything from 0x8000 on for
 * one that is out of reach.
 *
 * Heads are the low 16 bits of a position, so that an old one may be taken for a younger position. Where every position
 * is entered that does no harm: who has the same four bytes has the same hash, so it is in the chain itself, before what
 * was mistaken; who has not is never a match. (Levels 2 and 3 see to it that no head gets so old.) */
#include <stdlib.h>
#include <string.h>

#include "engine_go.h"

#define HASH_BITS 17
#define HEADS (1u << HASH_BITS)
#define CELLS DEFLATE_WINDOW
#define AHEAD 280u /* what a token, the search behind it and the window's move may need to see */
#define ALL_OUT UINT64_MAX
#define SWEEP 16384u

struct go_chain {
    uint64_t position;
    uint64_t entered; /* the first position that is in no chain (or left out) */
    uint64_t window;  /* where Go's window begins */
    uint64_t swept;   /* levels 2 and 3: no head was older than the window at this position … */
    uint64_t gap_end; /* … and all positions from here on are entered */
    uint32_t lazy, nice, groups, whole;
    uint32_t count; /* tokens of this block */
    unsigned found; /* 0..2: how many of the following are known: at the position, and at the one behind it */
    uint32_t length[2], distance[2];
    uint64_t cells[CELLS];
    uint16_t heads[HEADS];
};

/* lazy: 0 is greedy. chain: candidates. whole: the longest match that is entered whole, where not all are. */
static const struct {
    uint16_t lazy, nice, chain, whole;
} LEVELS[] = {{0, 16, 8, 5},      {0, 32, 32, 6},     {4, 16, 16, 0},      {16, 32, 32, 0},
              {16, 128, 128, 0},  {32, 128, 256, 0},  {128, 258, 1024, 0}, {258, 258, 4096, 0}};

go_chain *go_chain_new(int level) {
    go_chain *c = malloc(sizeof *c);
    if (!c) return NULL;
    memset(c, 0, offsetof(go_chain, cells));
    c->lazy = LEVELS[level - 2].lazy;
    c->nice = LEVELS[level - 2].nice;
    c->groups = LEVELS[level - 2].chain / 4;
    c->whole = LEVELS[level - 2].whole;
    return c;
}

void go_chain_free(go_chain *c) { free(c); }

uint64_t go_chain_position(const go_chain *c) { return c->position; }

/* The window moves on to `begin` for a byte at begin + 32507 or behind, if content follows that the window before cannot
 * hold. */
#define FIRST_MOVE 65275u

uint64_t go_chain_window(uint64_t at, uint64_t end) {
    uint64_t begin = at < FIRST_MOVE ? 0 : ((at - FIRST_MOVE) / DEFLATE_WINDOW + 1) * DEFLATE_WINDOW;
    return begin && end <= begin + DEFLATE_WINDOW ? begin - DEFLATE_WINDOW : begin;
}

/* ---- chains ---------------------------------------------------------------------------------------------------- */

static inline uint32_t hash_at(const uint8_t *here) { return (go_load32_big(here) * GO_HASH) >> (32 - HASH_BITS); }

/* Enter a position in its chain; returns its cell. */
static inline uint64_t enter(uint16_t *heads, uint64_t *cells, const uint8_t *here, uint64_t at) {
    const uint64_t low = 0x7fff7fff7fff7fff, ones = 0x0001000100010001;
    uint16_t *head = &heads[hash_at(here)];
    uint32_t back = (uint16_t)(at - *head);
    *head = (uint16_t)at;
    uint64_t lanes = cells[(at - back) % CELLS] << 16;
    lanes = ((lanes & low) + back * ones - 1) | (lanes & ~low); /* no lane overflows: 32767 + 32768 */
    if (back - 1 >= DEFLATE_WINDOW) lanes = ALL_OUT;
    cells[at % CELLS] = lanes;
    return lanes;
}

/* No head is farther back than 32769. */
static void sweep(go_chain *c, uint64_t at) {
    for (unsigned i = 0; i < HEADS; i++) {
        uint16_t back = (uint16_t)(at - c->heads[i]), least = back - 1 >= (int)DEFLATE_WINDOW ? DEFLATE_WINDOW + 1 : back;
        c->heads[i] = (uint16_t)(at - least);
    }
    c->swept = at;
}

static void empty(go_chain *c, uint64_t at) {
    memset(c->cells, 0xff, sizeof c->cells);
    for (unsigned i = 0; i < HEADS; i++) c->heads[i] = (uint16_t)(at - (DEFLATE_WINDOW + 1));
    c->swept = at;
}

static inline void enter_up_to(go_chain *c, const engine_view *view, uint64_t limit) {
    for (; c->entered < limit; c->entered++) {
        if (!c->lazy && c->entered - c->swept >= SWEEP) sweep(c, c->entered);
        enter(c->heads, c->cells, view->bytes + (c->entered - view->begin), c->entered);
    }
}

/* Go's findMatch: the best match of `here`, which has `ahead` >= 4 bytes, at a distance of at most `reach`; `lanes` is its
 * cell. 3: none. */
static inline uint32_t search(const uint64_t *cells, const uint8_t *here, uint64_t at, uint64_t lanes, uint32_t reach,
                              uint32_t ahead, uint32_t nice, uint32_t groups, uint32_t *distance) {
    uint32_t longest = ahead < DEFLATE_MAX_MATCH ? ahead : DEFLATE_MAX_MATCH, best = 3, far = 0;
    if (nice > longest) nice = longest;
    if ((lanes & 0xffff) >= reach) return best;
    uint32_t first = go_load32(here), wanted = first; /* the four bytes that end where a longer match would */
    for (;;) {
        uint32_t far0 = far + (uint32_t)(lanes & 0xffff) + 1, far1 = far + (uint32_t)(lanes >> 16 & 0xffff) + 1,
                 far2 = far + (uint32_t)(lanes >> 32 & 0xffff) + 1, far3 = far + (uint32_t)(lanes >> 48) + 1;
        uint32_t fars[4] = {far0, far1, far2, far3};
        if (far0 > reach) far0 = reach;
        if (far1 > reach) far1 = reach;
        if (far2 > reach) far2 = reach;
        if (far3 > reach) far3 = reach;
        uint64_t next = cells[(at - far3) % CELLS];
        const uint8_t *tail = here + best - 3;
        unsigned hits = (unsigned)(go_load32(tail - far0) == wanted) | (unsigned)(go_load32(tail - far1) == wanted) << 1 |
                        (unsigned)(go_load32(tail - far2) == wanted) << 2 |
                        (unsigned)(go_load32(tail - far3) == wanted) << 3;
        for (; hits; hits &= hits - 1) {
            uint32_t back = fars[__builtin_ctz(hits)];
            if (back > reach) return best;
            const uint8_t *there = here - back;
            if (go_load32(there) != first || go_load32(there + best - 3) != wanted) continue;
            uint32_t n = 4 + go_same(there + 4, here + 4, longest - 4);
            if (n > best && (n > 4 || back <= 4096)) {
                best = n;
                *distance = back;
                if (n >= nice) return best;
                wanted = go_load32(here + best - 3);
            }
        }
        if (--groups == 0 || far3 >= reach) return best;
        far = far3;
        lanes = next;
    }
}

/* ---- the engine ------------------------------------------------------------------------------------------------ */

int go_chain_seek(go_chain *c, const engine_view *view, uint64_t position, const uint32_t state[ENGINE_STATE]) {
    if (!c->lazy && position && !state[0]) return ENGINE_LOST;
    uint64_t from = position < DEFLATE_WINDOW ? 0 : position - DEFLATE_WINDOW;
    empty(c, from);
    c->position = position;
    c->entered = c->gap_end = from;
    /* Whether the window is about to move is seen when there is something to look for: one move may be due. */
    c->window = go_chain_window(position, position);
    c->count = c->found = 0;
    if (position > 3) enter_up_to(c, view, position - 3); /* of the last three, not all bytes may be in view */
    return ENGINE_TOKENS;
}

void go_chain_save(const go_chain *c, uint32_t state[ENGINE_STATE]) {
    state[0] = !c->lazy && (!c->gap_end || c->gap_end + DEFLATE_WINDOW <= c->position);
}

int go_chain_cut(go_chain *c) {
    c->count = 0;
    return ENGINE_TOKENS;
}

/* Go on behind a token, which is in view, as is whatever is entered for it. */
static inline void advance(go_chain *c, const engine_view *view, uint32_t length, int match) {
    uint64_t hashable = view->end < 3 ? 0 : view->end - 3;
    uint64_t behind = c->position + length, limit = behind < hashable ? behind : hashable;
    if (match) {
        if (c->lazy || length <= c->whole) {
            enter_up_to(c, view, limit);
        } else {
            if (c->position < hashable) enter_up_to(c, view, c->position + 1);
            c->gap_end = c->entered = behind;
        }
        c->found = 0;
    } else {
        c->found -= c->found > 0;
        c->length[0] = c->length[1];
        c->distance[0] = c->distance[1];
    }
    c->position = behind;
    c->count++;
}

/* Look for what is at the position, and behind it, as far as the choice of a token needs it. */
static inline void look(go_chain *c, const engine_view *view) {
    uint64_t end = view->end;
    for (; c->found < 2; c->found++) {
        uint64_t at = c->position + c->found;
        uint32_t before = c->found ? c->length[0] : 3, length = 3, distance = 0;
        if (end - c->position > 3 + c->found) {
            uint64_t ahead = end - at;
            if (c->found && (before >= c->lazy || ahead <= before)) return;
            enter_up_to(c, view, at);
            if (!c->lazy && at - c->swept >= SWEEP) sweep(c, at);
            while (at - c->window >= FIRST_MOVE && !(view->last && end <= c->window + 2 * DEFLATE_WINDOW))
                c->window += DEFLATE_WINDOW;
            const uint8_t *here = view->bytes + (at - view->begin);
            uint64_t lanes = enter(c->heads, c->cells, here, at);
            c->entered = at + 1;
            if (ahead >= 16) __builtin_prefetch(&c->heads[hash_at(here + 12)]);
            uint32_t reach = at - c->window < DEFLATE_WINDOW ? (uint32_t)(at - c->window) : DEFLATE_WINDOW;
            length = search(c->cells, here, at, lanes, reach, ahead < 0xffff ? (uint32_t)ahead : 0xffff, c->nice,
                            c->groups, &distance);
        }
        c->length[c->found] = length;
        c->distance[c->found] = distance;
    }
}

int go_chain_run(go_chain *c, const engine_view *view, const uint32_t *actual, uint32_t *tokens, size_t max,
                 size_t *made) {
    if (!go_reaches(view, c->position)) return ENGINE_MORE;
    for (size_t n = 0;; n++) {
        *made = n;
        if (c->position == view->end && view->last) return ENGINE_DONE;
        if (c->count >= GO_TOKENS) {
            c->count = 0;
            return ENGINE_BLOCK;
        }
        if (n == max) return ENGINE_TOKENS;
        if (view->end - c->position < AHEAD && !view->last) return ENGINE_MORE;
        look(c, view);
        uint32_t length = c->length[0];
        int match = length > 3 && (c->found < 2 || c->length[1] <= length);
        tokens[n] = match ? deflate_match(length, c->distance[0]) : view->bytes[c->position - view->begin];
        if (actual && tokens[n] != actual[n]) return ENGINE_MISS;
        advance(c, view, match ? length : 1, match);
    }
}

int go_chain_commit(go_chain *c, const engine_view *view, uint32_t token) {
    if (!go_reaches(view, c->position)) return ENGINE_MORE;
    if (view->end - c->position < AHEAD && !view->last) return ENGINE_MORE;
    if (c->position == view->end || !go_fits(view, c->position, token)) return ENGINE_LOST;
    advance(c, view, deflate_length(token), (token & DEFLATE_MATCH) != 0);
    return ENGINE_TOKENS;
}
