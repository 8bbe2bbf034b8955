/* klauspost's coder: how the tokens of a segment are sent. See engine_klauspost.h. */
#include <string.h>

#include "engine_klauspost.h"

#define END 256u        /* the symbol that ends a block */
#define LITERAL_CODES 286u
#define DISTANCE_CODES 30u
#define FEW 250u        /* tokens, below which fixed codes are tried */
#define GUESS (70 * 8)  /* bits of a head, before the first is known */
#define IMPOSSIBLE UINT32_MAX

static const uint8_t ORDER[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};

/* ---- codes ----------------------------------------------------------------------------------------------------- */

typedef struct {
    uint32_t frequency;
    uint16_t symbol;
} leaf;

/* Lengths of a Huffman tree, the shallower of equal ones. Returns the longest. Of at least 3 leaves, by frequency. */
static unsigned tree_lengths(const leaf *leaves, unsigned n, uint8_t *lengths) {
    uint32_t weight[LITERAL_CODES];
    uint16_t parent[2 * LITERAL_CODES], depth[LITERAL_CODES];
    unsigned leaf_at = 0, node_at = 0, longest = 0;
    for (unsigned made = 0; made < n - 1; made++) {
        uint32_t sum = 0;
        for (unsigned child = 0; child < 2; child++) {
            if (leaf_at < n && (node_at >= made || leaves[leaf_at].frequency <= weight[node_at])) {
                sum += leaves[leaf_at].frequency;
                parent[leaf_at++] = (uint16_t)made;
            } else {
                sum += weight[node_at];
                parent[n + node_at++] = (uint16_t)made;
            }
        }
        weight[made] = sum;
    }
    depth[n - 2] = 0;
    for (unsigned node = n - 2; node-- > 0;) depth[node] = (uint16_t)(depth[parent[n + node]] + 1);
    /* The counts of each length are what matters: the rarest leaves get the longest codes. */
    unsigned count[LITERAL_CODES] = {0};
    for (unsigned i = 0; i < n; i++) {
        unsigned length = depth[parent[i]] + 1u;
        count[length]++;
        if (length > longest) longest = length;
    }
    if (longest > 15) return longest;
    unsigned at = n;
    for (unsigned length = 1; length <= longest; length++)
        for (unsigned k = 0; k < count[length]; k++) lengths[leaves[--at].symbol] = (uint8_t)length;
    return longest;
}

/* By frequency, those of equal frequency in order. */
static void sort_leaves(leaf *leaves, unsigned n) {
    leaf other[LITERAL_CODES];
    uint32_t all = 0;
    for (unsigned i = 0; i < n; i++) all |= leaves[i].frequency;
    for (unsigned shift = 0; shift < 32 && all >> shift; shift += 8) {
        unsigned start[257] = {0};
        for (unsigned i = 0; i < n; i++) start[(leaves[i].frequency >> shift & 0xff) + 1]++;
        for (unsigned i = 0; i < 256; i++) start[i + 1] += start[i];
        for (unsigned i = 0; i < n; i++) other[start[leaves[i].frequency >> shift & 0xff]++] = leaves[i];
        memcpy(leaves, other, n * sizeof *leaves);
    }
}

static void make_lengths(const kp_rules *rules, const uint32_t *frequencies, unsigned n, unsigned limit,
                         uint8_t *lengths) {
    if (rules->tree) {
        leaf leaves[LITERAL_CODES];
        unsigned count = 0;
        for (unsigned i = 0; i < n; i++)
            if (frequencies[i]) leaves[count++] = (leaf){frequencies[i], (uint16_t)i};
        if (count > 2) {
            sort_leaves(leaves, count);
            memset(lengths, 0, n);
            if (tree_lengths(leaves, count, lengths) <= limit) return;
        }
    }
    engine_go_lengths(frequencies, n, limit, lengths);
}

static uint32_t weigh(const uint32_t *frequencies, const uint8_t *lengths, unsigned n) {
    uint32_t bits = 0;
    for (unsigned i = 0; i < n; i++) bits += frequencies[i] * lengths[i];
    return bits;
}

/* ---- heads ----------------------------------------------------------------------------------------------------- */

static void add_op(deflate_head *head, uint32_t frequencies[19], unsigned op, unsigned extra) {
    head->ops[head->op_count][0] = (uint8_t)op;
    head->ops[head->op_count++][1] = (uint8_t)extra;
    frequencies[op]++;
}

/* A dynamic head that sends so many of the lengths. Returns its bits. */
static uint32_t make_head(const kp_rules *rules, deflate_head *head, const uint8_t *lengths, unsigned literals,
                          unsigned distances) {
    uint8_t all[LITERAL_CODES + DISTANCE_CODES];
    uint32_t frequencies[19] = {0};
    unsigned n = literals + distances;
    memset(head, 0, sizeof *head);
    head->type = DEFLATE_DYNAMIC;
    head->literal_count = (uint16_t)literals;
    head->distance_count = (uint16_t)distances;
    memcpy(head->lengths, lengths, sizeof head->lengths);
    memcpy(all, lengths, literals);
    memcpy(all + literals, lengths + DEFLATE_LITERALS, distances);
    for (unsigned i = 0; i < n;) {
        unsigned length = all[i], run = 1;
        while (i + run < n && all[i + run] == length) run++;
        i += run;
        if (length) {
            add_op(head, frequencies, length, 0);
            for (run--; run >= 3;) {
                unsigned step = run < 6 ? run : 6;
                add_op(head, frequencies, 16, step - 3);
                run -= step;
            }
        } else {
            while (run >= 11) {
                unsigned step = run < 138 ? run : 138;
                add_op(head, frequencies, 18, step - 11);
                run -= step;
            }
            if (run >= 3) {
                add_op(head, frequencies, 17, run - 3);
                run = 0;
            }
        }
        for (; run; run--) add_op(head, frequencies, length, 0);
    }
    make_lengths(rules, frequencies, 19, 7, head->code_lengths);
    head->code_count = 19;
    while (head->code_count > 4 && !frequencies[ORDER[head->code_count - 1]]) head->code_count--;
    return 17 + 3u * head->code_count + weigh(frequencies, head->code_lengths, 19) + 2 * frequencies[16] +
           3 * frequencies[17] + 7 * frequencies[18];
}

/* ---- the estimate ---------------------------------------------------------------------------------------------- */

/* Its last bit decides. Each step is rounded to 24 bits, whatever the compiler is told: `volatile` keeps it from fusing
 * a product and a sum, and from more precision than a float has. (Encoders before 1.20.1 on other machines than x86 do
 * fuse them; where that turns a decision, once in many thousand segments, a block is cut or joined, see kp_cut.) */
static float product(float a, float b) {
    volatile float result = a * b;
    return result;
}

static float sum(float a, float b) {
    volatile float result = a + b;
    return result;
}

/* About the logarithm to the base 2. */
static float logarithm(float value) {
    int32_t bits;
    memcpy(&bits, &value, sizeof bits);
    float exponent = (float)((bits >> 23 & 255) - 128), fraction;
    bits = (bits & (int32_t)0x807fffff) + (127 << 23);
    memcpy(&fraction, &bits, sizeof fraction);
    float more = sum(product(-0.34484843f, fraction), 2.02466578f);
    return sum(exponent, sum(product(more, fraction), -0.67487759f));
}

/* Adds what `n` symbols of so many cost. */
static float add_cost(float bits, uint32_t n, float inverse) {
    float count = (float)n, each = -logarithm(product(count, inverse));
    if (each < 1) each = 1;
    if (each > 15) each = 15;
    return sum(bits, product(each, count));
}

static float inverse_of(uint32_t n) {
    volatile float result = 1.0f / (float)n;
    return result;
}

/* What the tokens would cost under the best codes. `n`: with the end of the block, if it is there. */
static uint32_t estimate(const kp_tokens *t, uint32_t n) {
    float bits = 0;
    uint32_t extra = 0, matches = 0;
    if (n) {
        float inverse = inverse_of(n);
        for (unsigned i = 0; i < 256; i++)
            if (t->symbols[i]) bits = add_cost(bits, t->symbols[i], inverse);
        bits = sum(bits, 15);
        for (unsigned i = 0; i < LITERAL_CODES - 257; i++) {
            uint32_t count = t->symbols[257 + i];
            if (!count) continue;
            bits = add_cost(bits, count, inverse);
            extra += deflate_length_extra[i] * count;
            matches += count;
        }
    }
    if (matches) {
        float inverse = inverse_of(matches);
        for (unsigned i = 0; i < DISTANCE_CODES; i++) {
            uint32_t count = t->distances[i];
            if (!count) continue;
            bits = add_cost(bits, count, inverse);
            extra += deflate_distance_extra[i] * count;
        }
    }
    return (uint32_t)bits + extra;
}

/* ---- segments -------------------------------------------------------------------------------------------------- */

static uint32_t stored_bits(uint32_t bytes) { return (bytes + 5) * 8; }

static int stored(kp_coder *coder, deflate_head *head) {
    coder->header = 0;
    memset(head, 0, sizeof *head); /* its size is filled in by who knows it */
    return 0;
}

static int fixed(kp_coder *coder, deflate_head *head) {
    coder->header = 0;
    memset(head, 0, sizeof *head);
    head->type = DEFLATE_FIXED;
    deflate_fixed_lengths(head->lengths);
    return 0;
}

static int literals(kp_coder *coder, const kp_rules *rules, const kp_tokens *t, uint32_t bytes, int sync,
                    deflate_head *head) {
    if (bytes > 1024) {
        /* Are all bytes about as frequent? The variance, times 2 ^ 16. */
        uint64_t variance = 0, most = (uint64_t)bytes * 2 << 16;
        for (unsigned i = 0; i < 256; i++) {
            int64_t off = (int64_t)t->symbols[i] * 256 - (int64_t)bytes;
            variance += (uint64_t)(off * off);
        }
        if (variance < most) return stored(coder, head);
    }
    uint32_t frequencies[END + 1];
    uint8_t lengths[DEFLATE_LITERALS + DEFLATE_DISTANCES] = {0};
    memcpy(frequencies, t->symbols, END * sizeof *frequencies);
    frequencies[END] = 1;
    make_lengths(rules, frequencies, END + 1, 15, lengths);
    uint32_t fresh = weigh(frequencies, lengths, END + 1) + (coder->header ? coder->header : GUESS);
    fresh += fresh >> rules->penalty;
    if (stored_bits(bytes) <= fresh) return stored(coder, head);
    int again = coder->header > 0;
    if (again) {
        uint32_t reused = 0;
        for (unsigned i = 0; i < 256 && reused != IMPOSSIBLE; i++) {
            if (frequencies[i] && !coder->lengths[i]) reused = IMPOSSIBLE;
            else reused += frequencies[i] * coder->lengths[i];
        }
        again = fresh >= reused;
    }
    if (!again) {
        lengths[DEFLATE_LITERALS] = 1; /* one distance, never sent */
        memcpy(coder->lengths, lengths, sizeof lengths);
        coder->header = make_head(rules, head, lengths, END + 1, 1);
        coder->literals_only = 1;
    }
    if (sync) coder->header = 0, coder->literals_only = 0;
    return again;
}

static int can_reuse(const kp_coder *coder, const kp_tokens *t) {
    for (unsigned i = 0; i < DISTANCE_CODES; i++)
        if (t->distances[i] && !coder->lengths[DEFLATE_LITERALS + i]) return 0;
    for (unsigned i = 0; i < LITERAL_CODES; i++)
        if (t->symbols[i] && !coder->lengths[i]) return 0;
    return 1;
}

static int matches(kp_coder *coder, const kp_rules *rules, const kp_tokens *t, uint32_t bytes, int sync,
                   deflate_head *head) {
    uint32_t symbols[DEFLATE_LITERALS], distances[DEFLATE_DISTANCES], n = t->n + (sync ? 1 : 0);
    unsigned literal_count = LITERAL_CODES, distance_count = DISTANCE_CODES;
    if (coder->literals_only && coder->header) coder->header = 0, coder->literals_only = 0;
    if (coder->header && !can_reuse(coder, t)) coder->header = 0;
    memcpy(symbols, t->symbols, sizeof symbols);
    memcpy(distances, t->distances, sizeof distances);
    symbols[END] = sync || rules->trimmed;
    if (sync || rules->trimmed) {
        while (!symbols[literal_count - 1]) literal_count--;
        while (distance_count && !distances[distance_count - 1]) distance_count--;
        if (!distance_count) distances[0] = distance_count = 1;
    }
    uint32_t extra = 0, stay = stored_bits(bytes), plain;
    uint8_t fixed_lengths[DEFLATE_LITERALS + DEFLATE_DISTANCES];
    deflate_fixed_lengths(fixed_lengths);
    for (unsigned i = 0; i < LITERAL_CODES - 257; i++) extra += symbols[257 + i] * deflate_length_extra[i];
    for (unsigned i = 0; i < DISTANCE_CODES; i++) extra += distances[i] * deflate_distance_extra[i];
    plain = 3 + extra + weigh(symbols, fixed_lengths, LITERAL_CODES) +
            weigh(distances, fixed_lengths + DEFLATE_LITERALS, DISTANCE_CODES);

    if (coder->header) {
        uint32_t fresh = coder->header + estimate(t, n);
        fresh += coder->lengths[END] + (fresh >> rules->penalty);
        uint32_t reused = weigh(symbols, coder->lengths, LITERAL_CODES) +
                          weigh(distances, coder->lengths + DEFLATE_LITERALS, DISTANCE_CODES) + extra;
        uint32_t size = reused;
        if (fresh < reused) size = fresh, coder->header = 0;
        if (n < FEW && plain + 7 < size) return stay <= size ? stored(coder, head) : fixed(coder, head);
        if (stay <= size) return stored(coder, head);
    }
    if (coder->header) {
        if (sync) coder->header = 0;
        return 1;
    }
    plain += symbols[END] ? 0 : fixed_lengths[END];
    symbols[END] = 1;
    uint8_t lengths[DEFLATE_LITERALS + DEFLATE_DISTANCES] = {0};
    make_lengths(rules, symbols, LITERAL_CODES, 15, lengths);
    make_lengths(rules, distances, DISTANCE_CODES, 15, lengths + DEFLATE_LITERALS);
    memcpy(coder->lengths, lengths, sizeof lengths);
    uint32_t header = make_head(rules, head, lengths, literal_count, distance_count);
    uint32_t size = header + weigh(symbols, lengths, LITERAL_CODES) +
                    weigh(distances, lengths + DEFLATE_LITERALS, DISTANCE_CODES) + extra;
    if (n < FEW && plain <= size) return stay <= plain ? stored(coder, head) : fixed(coder, head);
    if (stay <= size) return stored(coder, head);
    coder->header = sync ? 0 : header;
    coder->literals_only = 0;
    return 0;
}

int kp_plan(kp_coder *coder, const kp_rules *rules, kp_kind kind, const kp_tokens *tokens, uint32_t bytes, int sync,
            deflate_head *head) {
    switch (kind) {
    case KP_LITERALS: return literals(coder, rules, tokens, bytes, sync, head);
    case KP_MATCHES: return matches(coder, rules, tokens, bytes, sync, head);
    default: return stored(coder, head);
    }
}
