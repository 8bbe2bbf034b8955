/* How zlib, GNU gzip and pigz send a block: the choice of its type, Huffman codes, and the form in which they are sent.
 *
 * Source of the rules: zlib's trees.c (1.1 to 1.3), gzip's trees.c; RFC 1951. Both do the same here. */
#include <string.h>

#include "engine_zlib.h"

#define LITERALS 286u  /* symbols that zlib uses; the fixed code has two more */
#define DISTANCES 30u
#define CODES 19u
#define END 256u
#define NODES (2 * LITERALS + 1)

/* ---- codes ------------------------------------------------------------------------------------------------------ */

/* A heap of nodes, the rarest on top at index 1; of equally frequent ones the one whose subtree is less deep. */
typedef struct {
    uint32_t frequency[NODES];
    uint16_t parent[NODES];
    uint8_t depth[NODES];
    uint16_t heap[NODES + 1];
    unsigned size;
} forest;

/* Does `a` go before `b`, or may it stay there? */
static inline int before(const forest *f, unsigned a, unsigned b) {
    if (f->frequency[a] != f->frequency[b]) return f->frequency[a] < f->frequency[b];
    return f->depth[a] <= f->depth[b];
}

static void sink(forest *f, unsigned at) {
    uint16_t node = f->heap[at];
    for (unsigned child = 2 * at; child <= f->size; child = 2 * at) {
        if (child < f->size && before(f, f->heap[child + 1], f->heap[child])) child++;
        if (before(f, node, f->heap[child])) break;
        f->heap[at] = f->heap[child];
        at = child;
    }
    f->heap[at] = node;
}

/* Shorten what is too long: `count` of lengths in which those of `limit` are `excess` too many. */
static void settle(unsigned *count, unsigned limit, int excess) {
    for (; excess > 0; excess -= 2) {
        unsigned length = limit - 1;
        while (!count[length]) length--;
        count[length]--;
        count[length + 1] += 2;
        count[limit]--;
    }
}

unsigned engine_zlib_lengths(const uint32_t *frequencies, unsigned n, unsigned limit, uint8_t *lengths) {
    forest f;
    uint16_t order[NODES]; /* nodes as they left the heap, the rarest first */
    uint16_t length[NODES];
    unsigned left = 0, top = 0, used = 0, count[16] = {0};
    int excess = 0;
    f.size = 0;
    memset(lengths, 0, n);
    for (unsigned symbol = 0; symbol < n; symbol++) {
        f.frequency[symbol] = frequencies[symbol];
        f.depth[symbol] = 0;
        if (frequencies[symbol]) f.heap[++f.size] = (uint16_t)symbol, top = symbol, used = 1;
    }
    while (f.size < 2) { /* a code has two symbols, whether they are used or not */
        unsigned symbol = !used ? 0 : top < 2 ? top + 1 : 0;
        if (!used || top < 2) top = symbol;
        used = 1;
        f.frequency[symbol] = 1;
        f.heap[++f.size] = (uint16_t)symbol;
    }
    for (unsigned at = f.size / 2; at; at--) sink(&f, at);
    unsigned node = n;
    do {
        unsigned a = f.heap[1];
        f.heap[1] = f.heap[f.size--];
        sink(&f, 1);
        unsigned b = f.heap[1];
        order[left++] = (uint16_t)a;
        order[left++] = (uint16_t)b;
        f.frequency[node] = f.frequency[a] + f.frequency[b];
        f.depth[node] = (uint8_t)((f.depth[a] > f.depth[b] ? f.depth[a] : f.depth[b]) + 1);
        f.parent[a] = f.parent[b] = (uint16_t)node;
        f.heap[1] = (uint16_t)node++;
        sink(&f, 1);
    } while (f.size > 1);
    /* From the root down. */
    length[node - 1] = 0;
    for (unsigned i = left; i--;) {
        unsigned at = order[i], bits = length[f.parent[at]] + 1u;
        if (bits > limit) bits = limit, excess++;
        length[at] = (uint16_t)bits;
        if (at < n) count[bits]++;
    }
    if (excess) {
        settle(count, limit, excess);
        unsigned bits = limit;
        for (unsigned i = 0; i < left; i++) { /* the rarest get the longest */
            if (order[i] >= n) continue;
            while (!count[bits]) bits--;
            count[bits]--;
            length[order[i]] = (uint16_t)bits;
        }
    }
    for (unsigned i = 0; i < left; i++)
        if (order[i] < n) lengths[order[i]] = (uint8_t)length[order[i]];
    return top;
}

/* ---- sending codes ---------------------------------------------------------------------------------------------- */

static void put(deflate_head *head, uint32_t *frequencies, unsigned op, unsigned extra) {
    head->ops[head->op_count][0] = (uint8_t)op;
    head->ops[head->op_count++][1] = (uint8_t)extra;
    frequencies[op]++;
}

/* Run lengths of `n` code lengths. */
static void put_lengths(deflate_head *head, uint32_t *frequencies, const uint8_t *lengths, unsigned n) {
    for (unsigned at = 0; at < n;) {
        unsigned length = lengths[at], run = 1;
        while (at + run < n && lengths[at + run] == length) run++;
        at += run;
        for (int first = 1; run; first = 0) {
            /* The first of a run has to be sent itself, so that one more fits into its part. */
            unsigned most = !length ? 138 : first ? 7 : 6, part = run < most ? run : most;
            run -= part;
            if (part < (length && first ? 4u : 3u)) {
                while (part--) put(head, frequencies, length, 0);
            } else if (length) {
                if (first) put(head, frequencies, length, 0), part--;
                put(head, frequencies, 16, part - 3);
            } else if (part <= 10) {
                put(head, frequencies, 17, part - 3);
            } else {
                put(head, frequencies, 18, part - 11);
            }
        }
    }
}

/* ---- blocks ----------------------------------------------------------------------------------------------------- */

typedef struct {
    uint32_t literals[LITERALS], distances[DISTANCES];
} tallies;

static void tally(tallies *t, const uint32_t *tokens, size_t n) {
    uint32_t lengths[256] = {0};
    memset(t, 0, sizeof *t);
    for (size_t i = 0; i < n; i++) {
        uint32_t token = tokens[i];
        if (!(token & DEFLATE_MATCH)) {
            t->literals[token & 0xff]++;
            continue;
        }
        t->distances[deflate_distance_code(deflate_distance(token))]++;
        if (token & DEFLATE_LONG) t->literals[284]++;
        else lengths[token >> 16 & 0xff]++;
    }
    for (unsigned i = 0; i < 256; i++)
        if (lengths[i]) t->literals[257 + deflate_length_code(i + DEFLATE_MIN_MATCH)] += lengths[i];
    t->literals[END] = 1;
}

static uint64_t bits_of(const tallies *t, const uint8_t *lengths) {
    uint64_t bits = 0;
    for (unsigned i = 0; i < LITERALS; i++)
        bits += (uint64_t)t->literals[i] * (lengths[i] + (i > END ? deflate_length_extra[i - 257] : 0u));
    for (unsigned i = 0; i < DISTANCES; i++)
        bits += (uint64_t)t->distances[i] * (lengths[DEFLATE_LITERALS + i] + deflate_distance_extra[i]);
    return bits;
}

/* A dynamic block's head; returns its bits. */
static uint64_t make_head(deflate_head *head, const tallies *t) {
    static const uint8_t order[CODES] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    uint32_t ops[CODES] = {0};
    head->type = DEFLATE_DYNAMIC;
    head->literal_count = (uint16_t)(engine_zlib_lengths(t->literals, LITERALS, 15, head->lengths) + 1);
    head->distance_count =
        (uint16_t)(engine_zlib_lengths(t->distances, DISTANCES, 15, head->lengths + DEFLATE_LITERALS) + 1);
    put_lengths(head, ops, head->lengths, head->literal_count);
    put_lengths(head, ops, head->lengths + DEFLATE_LITERALS, head->distance_count);
    engine_zlib_lengths(ops, CODES, 7, head->code_lengths);
    head->code_count = CODES;
    while (head->code_count > 4 && !head->code_lengths[order[head->code_count - 1]]) head->code_count--;
    uint64_t bits = 5 + 5 + 4 + 3u * head->code_count;
    for (unsigned op = 0; op < CODES; op++)
        bits += (uint64_t)ops[op] * (head->code_lengths[op] + (op == 16 ? 2u : op == 17 ? 3u : op == 18 ? 7u : 0u));
    return bits;
}

uint64_t engine_zlib_send(const uint32_t *tokens, size_t n, uint64_t bytes, int storable, deflate_head *head) {
    tallies t;
    uint8_t fixed[DEFLATE_LITERALS + DEFLATE_DISTANCES];
    memset(head, 0, sizeof *head);
    tally(&t, tokens, n);
    deflate_fixed_lengths(fixed);
    uint64_t fixed_bits = 3 + bits_of(&t, fixed), bits = 3 + make_head(head, &t);
    bits += bits_of(&t, head->lengths);
    uint64_t fixed_bytes = (fixed_bits + 7) / 8, least = (bits + 7) / 8;
    int is_fixed = fixed_bytes <= least;
    if (is_fixed) least = fixed_bytes;
    if (storable && bytes + 4 <= least && bytes <= 0xffff) { /* 4: the length, twice */
        memset(head, 0, sizeof *head);
        head->type = DEFLATE_STORED;
        head->stored = (uint16_t)bytes;
        return 3;
    }
    if (is_fixed) {
        memset(head, 0, sizeof *head);
        head->type = DEFLATE_FIXED;
        memcpy(head->lengths, fixed, sizeof fixed);
        return fixed_bits;
    }
    return bits;
}
