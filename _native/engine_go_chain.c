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
 * Heads are the low 16 bits of a position; old ones are swept before they could be mistaken for younger. */
#include <stdlib.h>
#include <string.h>

#include "engine_go.h"

#define HASH_BITS 17
#define HEADS (1u << HASH_BITS)
#define CELLS DEFLATE_WINDOW
#define AHEAD 280u /* what a token, the search behind it and the window's move may need to see */
#define ALL_OUT UINT64_MAX
#define SWEEP 32000u /* positions */

/* The part that changes with each token: runs keep it in registers. */
typedef struct {
    uint64_t position;
    uint64_t entered; /* the first position that is in no chain (or left out) */
    uint64_t window;  /* where Go's window begins */
    uint32_t count;   /* tokens of this block */
    unsigned found;   /* 0..2: how many of the following are known: at the position, and at the one behind it */
    uint32_t length, distance, next_length, next_distance;
} place;

struct go_chain {
    place place;
    uint64_t swept;   /* where that was done last */
    uint64_t gap_end; /* all positions from here on are entered */
    uint32_t lazy, nice, groups, whole;
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

uint64_t go_chain_position(const go_chain *c) { return c->place.position; }

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

/* No head is farther back than 32769: none will be mistaken for a younger one before SWEEP more positions. */
static void sweep(go_chain *c, uint64_t at) {
    for (unsigned i = 0; i < HEADS; i++) {
        uint16_t back = (uint16_t)((uint16_t)at - c->heads[i]);
        c->heads[i] = (uint16_t)((uint16_t)at - (back > DEFLATE_WINDOW + 1 ? DEFLATE_WINDOW + 1 : back));
    }
    c->swept = at;
}

static void empty(go_chain *c, uint64_t at) {
    memset(c->cells, 0xff, sizeof c->cells);
    for (unsigned i = 0; i < HEADS; i++) c->heads[i] = (uint16_t)(at - (DEFLATE_WINDOW + 1));
    c->swept = at;
}

static inline void enter_up_to(go_chain *c, const engine_view *view, place *p, uint64_t limit) {
    while (p->entered < limit) {
        if (p->entered - c->swept >= SWEEP) sweep(c, p->entered);
        const uint8_t *here = view->bytes + (p->entered - view->begin);
        uint64_t at = p->entered, until = limit < c->swept + SWEEP ? limit : c->swept + SWEEP;
        if (view->end - until >= 16) {
            for (; at < until; at++, here++) {
                __builtin_prefetch(&c->heads[hash_at(here + 12)]);
                enter(c->heads, c->cells, here, at);
            }
        } else {
            for (; at < until; at++, here++) enter(c->heads, c->cells, here, at);
        }
        p->entered = until;
    }
}

/* What a search knows: the best match so far, and the four bytes that end where a longer one would. */
typedef struct {
    const uint8_t *here;
    uint32_t longest, nice, best, distance, first, wanted;
} finding;

/* Is the candidate that far back, whose bytes are as wanted, better? 1: and good enough. */
static inline int consider(finding *f, uint32_t back) {
    const uint8_t *there = f->here - back;
    if (go_load32(there) != f->first) return 0;
    uint32_t n = 4 + go_same(there + 4, f->here + 4, f->longest - 4);
    if (n <= f->best || (n == 4 && back > 4096)) return 0;
    f->best = n;
    f->distance = back;
    if (n >= f->nice) return 1;
    f->wanted = go_load32(f->here + n - 3);
    return 0;
}

/* Go's findMatch: the best match at `here`, which is at `at`, at most `reach` back; `lanes` is its cell. */
static inline void search(finding *f, const uint64_t *cells, uint64_t at, uint64_t lanes, uint32_t reach, uint32_t groups) {
    const uint8_t *here = f->here;
    uint32_t far = 1;
    /* Nearly always the nearest one is a match, which makes the others less likely ones. */
    if (consider(f, 1 + (uint32_t)(lanes & 0xffff))) return;
    for (;;) {
        uint32_t lane0 = (uint32_t)lanes & 0xffff, lane1 = (uint32_t)lanes >> 16, lane2 = (uint32_t)(lanes >> 32) & 0xffff,
                 lane3 = (uint32_t)(lanes >> 48);
        if (far + lane3 > reach) break;
        uint64_t next = cells[(at - far - lane3) % CELLS];
        const uint8_t *tail = here + f->best - 3 - far;
        unsigned hit0 = go_load32(tail - lane0) == f->wanted, hit1 = go_load32(tail - lane1) == f->wanted,
                 hit2 = go_load32(tail - lane2) == f->wanted, hit3 = go_load32(tail - lane3) == f->wanted;
        if (hit0 | hit1 | hit2 | hit3) {
            for (unsigned i = 0; i < 4; i++, lanes >>= 16) {
                uint32_t back = far + (uint32_t)(lanes & 0xffff);
                if (go_load32(here - back + f->best - 3) == f->wanted && consider(f, back)) return;
            }
        }
        if (--groups == 0) return;
        far += lane3 + 1;
        lanes = next;
    }
    for (unsigned i = 0; i < 3; i++, lanes >>= 16) {
        uint32_t back = far + (uint32_t)(lanes & 0xffff);
        if (back > reach) return;
        if (go_load32(here - back + f->best - 3) == f->wanted && consider(f, back)) return;
    }
}

/* ---- the engine ------------------------------------------------------------------------------------------------ */

int go_chain_seek(go_chain *c, const engine_view *view, uint64_t position, const uint32_t state[ENGINE_STATE]) {
    if (!c->lazy && position && !state[0]) return ENGINE_LOST;
    uint64_t from = position < DEFLATE_WINDOW ? 0 : position - DEFLATE_WINDOW;
    empty(c, from);
    memset(&c->place, 0, sizeof c->place);
    c->place.position = position;
    c->place.entered = c->gap_end = from;
    /* Whether the window is about to move is seen when there is something to look for: one move may be due. */
    c->place.window = go_chain_window(position, position);
    if (position > 3) enter_up_to(c, view, &c->place, position - 3); /* of the last three, not all bytes may be in view */
    return ENGINE_TOKENS;
}

void go_chain_save(const go_chain *c, uint32_t state[ENGINE_STATE]) {
    state[0] = !c->lazy && (!c->gap_end || c->gap_end + DEFLATE_WINDOW <= c->place.position);
}

int go_chain_cut(go_chain *c) {
    c->place.count = 0;
    return ENGINE_TOKENS;
}

/* Go on behind a token, which is in view, as is whatever is entered for it. */
static inline void advance(go_chain *c, const engine_view *view, place *p, uint32_t length, int match) {
    uint64_t hashable = view->end < 3 ? 0 : view->end - 3;
    uint64_t behind = p->position + length, limit = behind < hashable ? behind : hashable;
    if (match) {
        if (c->lazy || length <= c->whole) {
            enter_up_to(c, view, p, limit);
        } else {
            if (p->position < hashable) enter_up_to(c, view, p, p->position + 1);
            c->gap_end = p->entered = behind;
        }
        p->found = 0;
    } else {
        p->found -= p->found > 0;
        p->length = p->next_length;
        p->distance = p->next_distance;
    }
    p->position = behind;
    p->count++;
}

/* Look for what is at the position, and behind it, as far as the choice of a token needs it. */
static inline void look(go_chain *c, const engine_view *view, place *p) {
    uint64_t end = view->end;
    for (; p->found < 2; p->found++) {
        uint64_t at = p->position + p->found, ahead = end - at;
        uint32_t before = p->found ? p->length : 3, length = 3, distance = 0;
        if (at + 3 < end) {
            if (p->found && (before >= c->lazy || ahead <= before)) return;
            enter_up_to(c, view, p, at);
            if (at - c->swept >= SWEEP) sweep(c, at);
            while (at - p->window >= FIRST_MOVE && !(view->last && end <= p->window + 2 * DEFLATE_WINDOW))
                p->window += DEFLATE_WINDOW;
            const uint8_t *here = view->bytes + (at - view->begin);
            if (ahead >= 16) __builtin_prefetch(&c->heads[hash_at(here + 12)]);
            uint64_t lanes = enter(c->heads, c->cells, here, at);
            p->entered = at + 1;
            uint32_t reach = at - p->window < DEFLATE_WINDOW ? (uint32_t)(at - p->window) : DEFLATE_WINDOW;
            if ((lanes & 0xffff) < reach) {
                uint32_t longest = ahead < DEFLATE_MAX_MATCH ? (uint32_t)ahead : DEFLATE_MAX_MATCH;
                uint32_t first = go_load32(here);
                finding f = {here, longest, c->nice < longest ? c->nice : longest, 3, 0, first, first};
                search(&f, c->cells, at, lanes, reach, c->groups);
                length = f.best;
                distance = f.distance;
            }
        }
        if (p->found) {
            p->next_length = length;
            p->next_distance = distance;
        } else {
            p->length = length;
            p->distance = distance;
        }
    }
}

int go_chain_run(go_chain *c, const engine_view *view, const uint32_t *actual, uint32_t *tokens, size_t max,
                 size_t *made) {
    const engine_view seen = *view;
    place p = c->place;
    size_t n = 0;
    int told;
    if (!go_reaches(&seen, p.position)) return ENGINE_MORE;
    for (;;) {
        told = ENGINE_DONE;
        if (p.position == seen.end && seen.last) break;
        told = ENGINE_BLOCK;
        if (p.count >= GO_TOKENS) {
            p.count = 0;
            break;
        }
        told = ENGINE_TOKENS;
        if (n == max) break;
        told = ENGINE_MORE;
        if (seen.end - p.position < AHEAD && !seen.last) break;
        look(c, &seen, &p);
        uint32_t length = p.length;
        int match = length > 3 && (p.found < 2 || p.next_length <= length);
        tokens[n] = match ? deflate_match(length, p.distance) : seen.bytes[p.position - seen.begin];
        told = ENGINE_MISS;
        if (actual && tokens[n] != actual[n]) break;
        n++;
        advance(c, &seen, &p, match ? length : 1, match);
    }
    c->place = p;
    *made = n;
    return told;
}

int go_chain_commit(go_chain *c, const engine_view *view, uint32_t token) {
    place *p = &c->place;
    if (!go_reaches(view, p->position)) return ENGINE_MORE;
    if (view->end - p->position < AHEAD && !view->last) return ENGINE_MORE;
    if (p->position == view->end || !go_fits(view, p->position, token)) return ENGINE_LOST;
    advance(c, view, p, deflate_length(token), (token & DEFLATE_MATCH) != 0);
    return ENGINE_TOKENS;
}
