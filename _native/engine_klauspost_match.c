/* klauspost's level 5: tokens by two tables, of 4 and of 7 bytes. See engine_klauspost.h. */
#include <string.h>

#include "engine_klauspost.h"

#define REACH 32768           /* distances are smaller */
#define ROOM (KP_SEGMENT * 5) /* history is kept up to here, then only the last REACH bytes of it */
#define MARGIN 11             /* bytes at the end of a segment where no match begins */
#define SPAN (1u << 29)       /* positions are counted anew after so many */
#define FIRST 65536u          /* the first of them: 0 is out of reach */

void kp_tokens_init(kp_tokens *t) {
    for (unsigned i = 0; i < 256; i++) t->length_code[i] = (uint8_t)deflate_length_code(i + DEFLATE_MIN_MATCH);
    for (unsigned i = 0; i < 256; i++) t->distance_code[i] = (uint8_t)deflate_distance_code(i + 1);
    for (unsigned i = 0; i < 256; i++) t->distance_code[256 + i] = (uint8_t)deflate_distance_code((i << 7) + 1);
    kp_tokens_clear(t);
}

void kp_tokens_clear(kp_tokens *t) {
    t->n = 0;
    memset(t->symbols, 0, sizeof t->symbols);
    memset(t->distances, 0, sizeof t->distances);
}

void kp_tokens_literals(kp_tokens *t, const uint8_t *bytes, uint32_t n) {
    uint32_t odd[256] = {0}; /* two counters, so that equal bytes do not wait for each other */
    kp_tokens_clear(t);
    for (uint32_t i = 0; i < n; i++) {
        t->tokens[i] = bytes[i];
        if (i & 1) odd[bytes[i]]++;
        else t->symbols[bytes[i]]++;
    }
    for (unsigned i = 0; i < 256; i++) t->symbols[i] += odd[i];
    t->n = n;
}

static void add_literals(kp_tokens *t, const uint8_t *from, const uint8_t *to) {
    uint32_t *out = t->tokens + t->n;
    t->n += (uint32_t)(to - from);
    for (; from < to; from++) {
        *out++ = *from;
        t->symbols[*from]++;
    }
}

static void add_match(kp_tokens *t, const kp_rules *rules, int32_t length, uint32_t distance) {
    uint32_t at = distance - 1;
    unsigned code = t->distance_code[at < 256 ? at : 256 + (at >> 7)];
    const int32_t piece = DEFLATE_MAX_MATCH, least = DEFLATE_MIN_MATCH;
    while (length > 0) {
        int32_t now = length;
        if (now > piece) now = now > piece + least && !rules->short_splits ? piece : piece - least;
        length -= now;
        t->symbols[257 + t->length_code[now - least]]++;
        t->distances[code]++;
        t->tokens[t->n++] = deflate_match((uint32_t)now, distance);
    }
}

/* ---- history --------------------------------------------------------------------------------------------------- */

void kp_matcher_init(kp_matcher *m) {
    memset(m, 0, sizeof *m);
    m->bias = FIRST;
}

void kp_matcher_reset(kp_matcher *m, uint64_t position) {
    /* What is in the tables stays, out of reach. */
    uint64_t bias = m->bias + (m->end - m->base) + 2 * REACH;
    if (bias > SPAN) kp_matcher_init(m), bias = FIRST;
    m->bias = (uint32_t)bias;
    m->base = m->begin = m->end = position;
}

/* Count positions from later on. */
static void rebase(kp_matcher *m) {
    uint64_t base = m->end - REACH;
    uint32_t shift = m->bias + (uint32_t)(base - m->base) - FIRST;
    for (size_t i = 0; i < 1u << KP_TABLE_BITS; i++) {
        uint32_t last = (uint32_t)m->pairs[i], before = (uint32_t)(m->pairs[i] >> 32);
        m->last[i] = m->last[i] > shift ? m->last[i] - shift : 0;
        last = last > shift ? last - shift : 0;
        before = before > shift ? before - shift : 0;
        m->pairs[i] = (uint64_t)before << 32 | last;
    }
    m->base = base;
    m->bias = FIRST;
}

/* ---- search ---------------------------------------------------------------------------------------------------- */

static inline uint32_t load4(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t load8(const uint8_t *p) { return load4(p) | (uint64_t)load4(p + 4) << 32; }

static inline uint32_t hash4(uint64_t bytes) { return ((uint32_t)bytes * 2654435761u) >> (32 - KP_TABLE_BITS); }

static inline uint32_t hash7(uint64_t bytes) {
    return (uint32_t)(((bytes << 8) * 58295818150454627u) >> (64 - KP_TABLE_BITS));
}

static inline int32_t same(const uint8_t *a, const uint8_t *b, int32_t most) {
    int32_t n = 0;
    for (; n + 8 <= most; n += 8) {
        uint64_t differ = load8(a + n) ^ load8(b + n);
        if (differ) return n + (__builtin_ctzll(differ) >> 3);
    }
    while (n < most && a[n] == b[n]) n++;
    return n;
}

static inline void push(uint64_t *pair, uint32_t position) { *pair = *pair << 32 | position; }

/* In what follows positions are those in `src`, which begins REACH bytes before the segment, or with the history; in the
 * tables they have `cur` added. */
typedef struct {
    const uint8_t *src;
    int32_t end, limit; /* of the segment; from where on no match begins */
    int32_t cur;
} place;

/* A match at or right after a position: as long as it is known to be, 0: at least 4. */
typedef struct {
    int32_t at, from, length;
} candidate;

/* Both fill what a match may take: 258 at most, or all of the segment. */
static inline int32_t capped(const place *p, int32_t s, int32_t t) {
    int32_t most = p->end - s;
    if (most > 254) most = 254;
    return same(p->src + s, p->src + t, most);
}

static inline int32_t whole(const place *p, int32_t s, int32_t t) { return same(p->src + s, p->src + t, p->end - s); }

/* The first match at *s or after it, where literals are waiting since `waiting`. Returns 0: there is none. *next: the
 * position after those that are in the tables. */
static inline int find(kp_matcher *m, const place *p, uint64_t bytes, int32_t s, int32_t waiting, int32_t *next_out,
                       candidate *found) {
    const uint8_t *src = p->src;
    const int32_t cur = p->cur;
    int32_t next = s;
    for (;;) {
        uint32_t short_hash = hash4(bytes), long_hash = hash7(bytes);
        s = next;
        next = s + 1 + ((s - waiting) >> 6);
        *next_out = next;
        if (next > p->limit) return 0;
        int32_t t_short = (int32_t)m->last[short_hash] - cur;
        uint64_t pair = m->pairs[long_hash];
        uint64_t next_bytes = load8(src + next);
        m->last[short_hash] = (uint32_t)(s + cur);
        push(&m->pairs[long_hash], (uint32_t)(s + cur));
        short_hash = hash4(next_bytes);
        long_hash = hash7(next_bytes);
        const uint32_t here = (uint32_t)bytes, there = (uint32_t)next_bytes;

        found->at = s;
        found->length = 0;
        int32_t t = (int32_t)(uint32_t)pair - cur, t2 = (int32_t)(uint32_t)(pair >> 32) - cur;
        if (s - t < REACH) {
            int first = here == load4(src + t), second = s - t2 < REACH && here == load4(src + t2);
            if (first || second) {
                m->last[short_hash] = (uint32_t)(next + cur);
                push(&m->pairs[long_hash], (uint32_t)(next + cur));
                found->from = first ? t : t2;
                if (first && second) {
                    int32_t n = capped(p, s + 4, t + 4) + 4, n2 = capped(p, s + 4, t2 + 4) + 4;
                    found->length = n;
                    if (n2 > n) found->from = t2, found->length = n2;
                }
                return 1;
            }
        }
        if (s - t_short < REACH && here == load4(src + t_short)) {
            found->from = t_short;
            found->length = capped(p, s + 4, t_short + 4) + 4;
            pair = m->pairs[long_hash];
            m->last[short_hash] = (uint32_t)(next + cur);
            push(&m->pairs[long_hash], (uint32_t)(next + cur));
            t = (int32_t)(uint32_t)pair - cur;
            t2 = (int32_t)(uint32_t)(pair >> 32) - cur;
            if (next - t < REACH) {
                int32_t n = 0;
                if (load4(src + t) == there) n = capped(p, next + 4, t + 4) + 4;
                if (n <= found->length && next - t2 < REACH && load4(src + t2) == there)
                    t = t2, n = capped(p, next + 4, t2 + 4) + 4;
                if (n > found->length) found->at = next, found->from = t, found->length = n;
            }
            return 1;
        }
        bytes = next_bytes;
    }
}

/* Positions inside a match, after its first and before its last: every third, of 4 and of 7 bytes by turns. */
static inline void insert_inside(kp_matcher *m, const place *p, int32_t i, int32_t last) {
    if (i >= last) return;
    uint64_t bytes = load8(p->src + i);
    uint32_t at = (uint32_t)(i + p->cur);
    m->last[hash4(bytes)] = at;
    push(&m->pairs[hash7(bytes)], at);
    push(&m->pairs[hash7(bytes >> 8)], at + 1);
    m->last[hash4(bytes >> 16)] = at + 2;
    for (i += 4; i < last; i += 3) {
        bytes = load8(p->src + i);
        at = (uint32_t)(i + p->cur);
        push(&m->pairs[hash7(bytes)], at);
        m->last[hash4(bytes >> 8)] = at + 1;
    }
}

void kp_match(kp_matcher *m, const kp_rules *rules, const engine_view *view, uint32_t n, kp_tokens *tokens) {
    kp_tokens_clear(tokens);
    if (m->end - m->base > SPAN) rebase(m);
    if (m->end - m->begin + n > ROOM) m->begin = m->end - REACH;
    uint64_t low = m->end - m->begin > REACH ? m->end - REACH : m->begin;
    int32_t s = (int32_t)(m->end - low), waiting = s;
    m->end += n;
    if (n < KP_SEARCHED) return;
    const uint8_t *src = view->bytes + (low - view->begin);
    place p = {src, s + (int32_t)n, s + (int32_t)n - MARGIN, (int32_t)(m->bias + (uint32_t)(low - m->base))};
    uint64_t bytes = load8(src + s);
    candidate found;
    int32_t next;
    while (find(m, &p, bytes, s, waiting, &next, &found)) {
        int32_t at = found.at, t = found.from, length = found.length;
        if (!length) length = whole(&p, at + 4, t + 4) + 4;
        else if (length == (int32_t)DEFLATE_MAX_MATCH) length += whole(&p, at + length, t + length);
        /* Is there a longer one that holds what follows this one? */
        if (length < 30 && at + length < p.limit) {
            int32_t skip = rules->skip, at2 = at + skip;
            int32_t t2 = (int32_t)(uint32_t)m->pairs[hash7(load8(src + at + length))] - p.cur - length + skip;
            if (t2 >= 0 && at2 - t2 < REACH && at2 > t2) {
                int32_t more = whole(&p, at2, t2);
                if (more > length) t = t2, at = at2, length = more;
            }
        }
        while (t > 0 && at > waiting && src[t - 1] == src[at - 1]) at--, t--, length++;
        add_literals(tokens, src + waiting, src + at);
        add_match(tokens, rules, length, (uint32_t)(at - t));
        waiting = s = at + length;
        if (next >= s) s = next + 1;
        if (s >= p.limit) break;
        insert_inside(m, &p, s - length + 1, s - 1);
        bytes = load8(src + s - 1);
        uint32_t before = (uint32_t)(s - 1 + p.cur);
        m->last[hash4(bytes)] = before;
        push(&m->pairs[hash7(bytes)], before);
        bytes >>= 8;
    }
    if (tokens->n) add_literals(tokens, src + waiting, src + p.end);
}
