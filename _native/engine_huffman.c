/* Length-limited codes by Go's rules: see engine.h.
 *
 * Go merges packages lazily, level by level (huffman_code.go); what it gives is defined without that: list 1 holds the
 * leaves by (frequency, symbol); list k + 1 merges the leaves with the pairs of list k, a leaf first only where it is
 * strictly less. Of list `limit` the first 2n - 2 items are taken, of the one below both items of every pair taken, and so
 * on; a symbol's length is the number of lists in which its leaf is taken.
 *
 * Where nothing is as deep as the limit, the lists do not change with their number any more, and the fixed point is a
 * plain Huffman tree with the same preference of pairs over leaves: that is what is made first. */
#include <string.h>

#include "engine.h"

#define MOST 320 /* symbols */
#define DEEPEST 16

/* Symbols of non-zero frequency by (frequency, symbol): a counting sort, 8 bits at a time. */
static void sort(const uint32_t *frequencies, uint16_t *symbols, unsigned n) {
    uint16_t other[MOST], *from = symbols, *to = other;
    uint32_t all = 0;
    for (unsigned i = 0; i < n; i++) all |= frequencies[symbols[i]];
    for (unsigned shift = 0; shift < 32 && all >> shift; shift += 8) {
        uint16_t start[257] = {0};
        for (unsigned i = 0; i < n; i++) start[(frequencies[from[i]] >> shift & 0xff) + 1]++;
        for (unsigned i = 0; i < 256; i++) start[i + 1] = (uint16_t)(start[i + 1] + start[i]);
        for (unsigned i = 0; i < n; i++) to[start[frequencies[from[i]] >> shift & 0xff]++] = from[i];
        uint16_t *swap = from;
        from = to;
        to = swap;
    }
    if (from != symbols) memcpy(symbols, from, n * sizeof *symbols);
}

/* The depths of a Huffman tree over ascending weights; 0: deeper than the limit. */
static int plain(const uint64_t *weights, unsigned n, unsigned limit, uint8_t *depths) {
    uint64_t sums[MOST];
    uint16_t above[MOST], leaf_above[MOST]; /* inner nodes by the node they hang below */
    unsigned leaf = 0, inner = 0;
    for (unsigned made = 0; made < n - 1; made++) {
        sums[made] = 0;
        for (int side = 0; side < 2; side++) {
            if (leaf < n && (inner == made || weights[leaf] < sums[inner])) {
                leaf_above[leaf] = (uint16_t)made;
                sums[made] += weights[leaf++];
            } else {
                above[inner] = (uint16_t)made;
                sums[made] += sums[inner++];
            }
        }
    }
    uint8_t inner_depths[MOST];
    inner_depths[n - 2] = 0;
    for (unsigned i = n - 2; i-- > 0;) {
        unsigned depth = inner_depths[above[i]] + 1u;
        if (depth >= limit) return 0; /* what hangs below it is deeper */
        inner_depths[i] = (uint8_t)depth;
    }
    for (unsigned i = 0; i < n; i++) depths[i] = (uint8_t)(inner_depths[leaf_above[i]] + 1);
    return 1;
}

static void limited(const uint64_t *weights, unsigned n, unsigned limit, uint8_t *depths) {
    static const uint64_t none = UINT64_MAX;
    uint64_t lists[2][2 * MOST];
    uint16_t leaves[DEEPEST + 1][2 * MOST + 1]; /* of each list, by how many of its items are taken */
    unsigned sizes[DEEPEST + 1], most = 2 * n - 2;
    for (unsigned level = 1; level <= limit; level++) {
        const uint64_t *below = lists[~level & 1];
        uint64_t *list = lists[level & 1];
        unsigned pairs = level > 1 ? sizes[level - 1] / 2 : 0, leaf = 0, pair = 0, size = 0;
        for (; size < most && (leaf < n || pair < pairs); size++) {
            uint64_t sum = pair < pairs ? below[2 * pair] + below[2 * pair + 1] : none;
            leaves[level][size] = (uint16_t)leaf;
            if (leaf < n && weights[leaf] < sum) {
                list[size] = weights[leaf++];
            } else {
                list[size] = sum;
                pair++;
            }
        }
        leaves[level][size] = (uint16_t)leaf;
        sizes[level] = size;
    }
    memset(depths, 0, n);
    for (unsigned level = limit, taken = most; level; level--) {
        if (taken > sizes[level]) taken = sizes[level]; /* only where `limit` is too low for n */
        unsigned count = leaves[level][taken];
        for (unsigned i = 0; i < count; i++) depths[i]++;
        taken = 2 * (taken - count);
    }
}

void engine_go_lengths(const uint32_t *frequencies, unsigned n, unsigned limit, uint8_t *lengths) {
    uint16_t symbols[MOST];
    uint64_t weights[MOST];
    uint8_t depths[MOST];
    unsigned used = 0;
    memset(lengths, 0, n);
    for (unsigned i = 0; i < n && used < MOST; i++)
        if (frequencies[i]) symbols[used++] = (uint16_t)i;
    if (used <= 2) {
        for (unsigned i = 0; i < used; i++) lengths[symbols[i]] = 1;
        return;
    }
    if (limit > DEEPEST) limit = DEEPEST;
    sort(frequencies, symbols, used);
    for (unsigned i = 0; i < used; i++) weights[i] = frequencies[symbols[i]];
    if (!plain(weights, used, limit, depths)) limited(weights, used, limit, depths);
    for (unsigned i = 0; i < used; i++) lengths[symbols[i]] = depths[i];
}
