/* What the files of the zlib family share: chains of positions with equal hashes, and how blocks are sent. The rules
 * that both follow are told in engine_zlib.c. */
#ifndef CASSTORE_ENGINE_ZLIB_H
#define CASSTORE_ENGINE_ZLIB_H

#include <string.h>

#include "engine.h"

/* How zlib and its kin send a block of these tokens, which are `bytes` of content: stored (where `storable`), with
 * fixed or with dynamic codes, whichever takes the fewest bytes. Fills in the head but for `final`; returns the
 * block's bits, of a stored one only those of its type. */
uint64_t engine_zlib_send(const uint32_t *tokens, size_t n, uint64_t bytes, int storable, deflate_head *head);

/* Huffman codes of at most `limit` bits for `n` symbols (at most 286), by the rules of zlib: two symbols at least, the
 * deepest last. Returns the highest symbol that has a code. */
unsigned engine_zlib_lengths(const uint32_t *frequencies, unsigned n, unsigned limit, uint8_t *lengths);

/* ---- chains ----------------------------------------------------------------------------------------------------- */

#define WINDOW 32768u
#define REACH 32506u /* of the newest candidate; others are less far away */
#define HASHES 32768u
#define WIDE_HASHES 65536u
#define MASK (WINDOW - 1)
#define AMPLE 640u /* bytes ahead with which no rule about the end applies, and eight more may be read */

/* zlib's chains link positions whose three bytes have the same hash. Where all positions are hashed, these chains
 * are kept only by single steps, and longer matches are found in chains of their own, by four bytes, which are
 * shorter: `rank` counts a position's predecessors in zlib's chain, so that a search ends with the candidate that
 * zlib's would end with.
 *
 * Distances of WINDOW and more stand for none. Numbers of positions are from `origin` on; WINDOW at least, so that
 * 0, no position, is far away from all. */
typedef struct {
    uint64_t hashed; /* all positions before it that are to be */
    uint64_t origin;
    unsigned mask; /* of a hash */
    uint16_t newest[HASHES];
    uint16_t newest_wide[WIDE_HASHES];
    uint32_t steps[WINDOW]; /* wide: rank << 16 | distance to the one before in zlib's chain */
    /* Of a chain: the distance to the one before, and three times on from there, 16 bits each, the nearest lowest.
     * wide: the chain by four bytes; else zlib's. */
    uint64_t links[WINDOW];
} chains;

static inline uint32_t load32(const uint8_t *p) {
    uint32_t value;
    memcpy(&value, p, 4);
    return value;
}

static inline uint64_t load64(const uint8_t *p) {
    uint64_t value;
    memcpy(&value, p, 8);
    return value;
}

#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define FIRST_DIFFERENT(bits) ((unsigned)__builtin_clzll(bits) >> 3)
#define THREE_BYTES 0xffffff00u
#else
#define FIRST_DIFFERENT(bits) ((unsigned)__builtin_ctzll(bits) >> 3)
#define THREE_BYTES 0x00ffffffu
#endif

/* Nothing is hashed; begin with what is in the window before `position`. Position 0 is never hashed. */
void engine_zlib_forget(chains *c, uint64_t position);
/* Numbers would no longer fit. */
void engine_zlib_renumber(chains *c);
/* Hash all before `to`, as far as three bytes are in sight. */
void engine_zlib_hash(chains *c, const engine_view *view, uint64_t to, int wide);

/* Hash positions [c->hashed, to), at most 300 of them, whose bytes are here; four bytes of each are in sight. */
static inline void hash_some(chains *c, const uint8_t *bytes, uint64_t to, int wide) {
    uint64_t at = c->hashed;
    if (at >= to) return;
    if (at - c->origin > 64000) engine_zlib_renumber(c);
    unsigned number = (unsigned)(at - c->origin), hash = (unsigned)bytes[0] << 5 ^ bytes[1];
    unsigned slot = (unsigned)at & MASK;
    const unsigned mask = c->mask;
    for (size_t n = (size_t)(to - at), i = 0; i < n; i++, number++, slot = (slot + 1) & MASK) {
        hash = (hash << 5 ^ bytes[i + 2]) & mask;
        unsigned distance = number - c->newest[hash];
        c->newest[hash] = (uint16_t)number;
        if (wide) {
            c->steps[slot] = (c->steps[(slot - distance) & MASK] & 0xffff0000u) + 0x10000u + distance;
            unsigned four = load32(bytes + i) * 0x9e3779b1u >> 16;
            distance = number - c->newest_wide[four];
            c->newest_wide[four] = (uint16_t)number;
        }
        c->links[slot] = c->links[(slot - distance) & MASK] << 16 | distance;
    }
    c->hashed = to;
}

static inline unsigned common(const uint8_t *a, const uint8_t *b) {
    unsigned n = 8;
    for (; n < 256; n += 8) {
        uint64_t different = load64(a + n) ^ load64(b + n);
        if (different) return n + FIRST_DIFFERENT(different);
    }
    while (n < DEFLATE_MAX_MATCH && a[n] == b[n]) n++;
    return n;
}

/* The length of the best match among the first `tries` of zlib's chain that is longer than `best`, or `best`. Of three
 * bytes only within `far`. Wants AMPLE bytes ahead. */
static inline unsigned search(const chains *c, const uint8_t *here, uint64_t position, unsigned best, unsigned tries,
                              unsigned nice, unsigned far, int wide, uint32_t *found) {
    const uint64_t *cells = c->links;
    const uint32_t *steps = c->steps;
    const unsigned slot = (unsigned)position & MASK;
    uint64_t links = cells[slot];
    uint32_t reach = REACH - 1, rank = 0;
    uint32_t newest = wide ? steps[slot] & 0xffff : (uint32_t)(links & 0xffff);
    if (newest > REACH) return best;
    if (newest == REACH) tries = 1, reach = REACH; /* the only one: others are farther away */
    const unsigned at_first = best;
    if (wide) {
        rank = steps[slot] >> 16;
        if (best < 3) best = 3;
    }
    const uint8_t *tail = here + (best > 3 ? best - 3 : 0);
    uint32_t mask = best < 3 ? THREE_BYTES : 0xffffffff, want = load32(tail) & mask, base = 0;
    const uint64_t begin = load64(here);
    const uint32_t start = load32(here);
/* Is it behind the first `tries`? To be asked of what begins with the same three bytes: others have other ranks. */
#define LATE(distance) (wide && ((rank - (steps[(slot - (distance)) & MASK] >> 16)) & 0xffff) > tries)
#define HIT(distance) ((load32(tail - (distance)) & mask) == want)
    for (unsigned left = tries;;) {
        uint32_t first = base + (uint32_t)(links & 0xffff), second = first + (uint32_t)(links >> 16 & 0xffff),
                 third = second + (uint32_t)(links >> 32 & 0xffff), fourth = third + (uint32_t)(links >> 48);
        unsigned hits = 0;
        int on = fourth <= reach;
        base = fourth;
        if (on) {
            links = cells[(slot - fourth) & MASK];
            hits = (unsigned)HIT(first) | (unsigned)HIT(second) << 1 | (unsigned)HIT(third) << 2 |
                   (unsigned)HIT(fourth) << 3;
            if (LATE(fourth) && load32(here - fourth) == start) on = 0;
        } else if (first <= reach) {
            hits = (unsigned)HIT(first);
            if (second <= reach) hits |= (unsigned)HIT(second) << 1;
            if (third <= reach) hits |= (unsigned)HIT(third) << 2;
        }
        for (; hits; hits &= hits - 1) {
            uint32_t distance = hits & 1 ? first : hits & 2 ? second : hits & 4 ? third : fourth;
            if (!HIT(distance)) continue;
            uint64_t different = load64(here - distance) ^ begin;
            unsigned length = different ? FIRST_DIFFERENT(different) : common(here, here - distance);
            if (length <= best) continue;
            if (LATE(distance)) {
                on = 0;
                break;
            }
            best = length;
            *found = distance;
            if (length >= nice) return best;
            tail = here + best - 3;
            mask = 0xffffffff;
            want = load32(tail);
        }
        if (!on) break;
        if (!wide && (left -= 4) == 0) break;
    }
#undef HIT
#undef LATE
    if (!wide || at_first > 2 || best > 3) return best;
    /* The newest with three equal bytes. */
    uint32_t distance = newest;
    for (; tries && distance <= far; tries--) {
        if (!((load32(here - distance) ^ load32(here)) & THREE_BYTES)) {
            *found = distance;
            return 3;
        }
        distance += steps[(slot - distance) & MASK] & 0xffff;
    }
    return 2;
}

#endif
