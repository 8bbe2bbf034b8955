/* Tokens: what searches have in common, and klauspost's levels 5 and 6, which have two tables, of 4 and of 7 bytes. See
 * engine_klauspost.h; 1 to 4 are in engine_klauspost_fast.c. */
#include <string.h>

#include "engine_klauspost_search.h"

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

/* ---- history --------------------------------------------------------------------------------------------------- */

void kp_matcher_init(kp_matcher *m) { m->bias = FIRST; }

void kp_matcher_reset(kp_matcher *m, uint64_t position) {
    /* What is in the tables stays, out of reach. */
    uint64_t bias = m->bias + (m->end - m->base) + 2 * REACH;
    if (bias > SPAN) {
        memset(m, 0, sizeof *m);
        bias = FIRST;
    }
    m->bias = (uint32_t)bias;
    m->base = m->begin = m->first = m->end = position;
}

/* The buffer holds five segments; when it is full all but the last REACH bytes go, which leaves room for four. */
uint64_t kp_first(uint64_t segments) {
    return segments < 6 ? 0 : (segments - 1 - (segments - 6) % 4) * KP_SEGMENT - REACH;
}

/* Count positions from later on. */
static void rebase(kp_matcher *m) {
    uint64_t base = m->end - REACH;
    uint32_t shift = m->bias + (uint32_t)(base - m->base) - FIRST;
    for (size_t i = 0; i < 1u << KP_LAST_BITS; i++) m->last[i] = m->last[i] > shift ? m->last[i] - shift : 0;
    for (size_t i = 0; i < 1u << KP_PAIR_BITS; i++) {
        uint32_t last = (uint32_t)m->pairs[i], before = (uint32_t)(m->pairs[i] >> 32);
        last = last > shift ? last - shift : 0;
        before = before > shift ? before - shift : 0;
        m->pairs[i] = (uint64_t)before << 32 | last;
    }
    m->base = base;
    m->bias = FIRST;
}

/* ---- levels 5 and 6 ------------------------------------------------------------------------------------------ */

/* The first match at *s or after it, where literals are waiting since `waiting`. Returns 0: there is none. *next: the
 * position after those that are in the tables. `repeat`: level 6, which looks at the distance of the match before, too;
 * else 0. */
static inline int find(kp_matcher *m, const place *p, uint64_t bytes, int32_t s, int32_t waiting, int32_t repeat,
                       int32_t *next_out, candidate *found) {
    const uint8_t *src = p->src;
    const int32_t cur = p->cur;
    int32_t next = s;
    for (;;) {
        uint32_t short_hash = hash4(bytes), long_hash = hash7(bytes);
        s = next;
        next = s + 1 + ((s - waiting) >> (repeat ? 7 : 6));
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
            if (repeat && load4(src + s - repeat + 1) == (uint32_t)(bytes >> 8)) {
                int32_t n = capped(p, s + 5, s - repeat + 5) + 4;
                if (n > found->length) {
                    found->at = s + 1, found->from = s - repeat + 1, found->length = n;
                    return 1;
                }
            }
            t = (int32_t)(uint32_t)pair - cur;
            t2 = (int32_t)(uint32_t)(pair >> 32) - cur;
            if (next - t < REACH) {
                int32_t n = load4(src + t) == there ? capped(p, next + 4, t + 4) + 4 : 0, n2 = 0;
                int better = n > found->length;
                if (better) found->at = next, found->from = t, found->length = n;
                if ((!better || repeat) && next - t2 < REACH && load4(src + t2) == there)
                    n2 = capped(p, next + 4, t2 + 4) + 4;
                if (n2 > found->length) found->at = next, found->from = t2, found->length = n2;
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

/* Level 6, inside or behind a match: every position of 7 bytes, every second of 4. */
static inline void insert_all(kp_matcher *m, const place *p, int32_t i, int32_t last) {
    for (; i < last; i += 2) {
        uint64_t bytes = load8(p->src + i);
        uint32_t at = (uint32_t)(i + p->cur);
        m->last[hash4(bytes)] = at;
        push(&m->pairs[hash7(bytes)], at);
        push(&m->pairs[hash7(bytes >> 8)], at + 1);
    }
}

/* At the segment's end: every second of both. */
static inline void insert_rest(kp_matcher *m, const place *p, int32_t i) {
    for (; i < p->end - 8; i += 2) {
        uint64_t bytes = load8(p->src + i);
        m->last[hash4(bytes)] = (uint32_t)(i + p->cur);
        push(&m->pairs[hash7(bytes)], (uint32_t)(i + p->cur));
    }
}

/* A longer match that holds what follows this one, and may leave out a few bytes at its begin: at `then`, or none. */
static inline void improve(const place *p, candidate *found, int32_t then, int32_t from) {
    if (from < 0 || then - from >= REACH || then <= from) return;
    int32_t more = whole(p, then, from);
    if (more > found->length) *found = (candidate){then, from, more};
}

static inline void match(kp_matcher *m, const kp_rules *rules, const place *p, int32_t s, int six, kp_tokens *tokens) {
    const uint8_t *src = p->src;
    int32_t waiting = s, next, repeat = six;
    uint64_t bytes = load8(src + s);
    candidate found;
    while (find(m, p, bytes, s, waiting, repeat, &next, &found)) {
        if (!found.length) found.length = whole(p, found.at + 4, found.from + 4) + 4;
        else if (found.length == (int32_t)DEFLATE_MAX_MATCH)
            found.length += whole(p, found.at + found.length, found.from + found.length);
        int32_t after = found.at + found.length;
        if ((six || found.length < 30) && after < p->limit) {
            int32_t skip = rules->skip, then = found.at + skip;
            uint64_t pair = m->pairs[hash7(load8(src + after))];
            int32_t t = (int32_t)(uint32_t)pair - p->cur, t2 = (int32_t)(uint32_t)(pair >> 32) - p->cur;
            int near = then - (t - found.length + skip) < REACH;
            improve(p, &found, then, t - found.length + skip);
            if (six && near) improve(p, &found, then, t2 - found.length + skip);
        }
        int32_t at = found.at, t = found.from, length = found.length;
        while (t > 0 && at > waiting && src[t - 1] == src[at - 1]) at--, t--, length++;
        add_literals(tokens, src + waiting, src + at);
        add_match(tokens, rules, length, (uint32_t)(at - t));
        waiting = s = at + length;
        if (six) repeat = at - t;
        if (next >= s) s = next + 1;
        leave_trail(m, p, next, waiting, length);
        if (s >= p->limit) {
            if (six) insert_rest(m, p, next + 1);
            break;
        }
        if (six) {
            insert_all(m, p, next + 1, s - 1);
            bytes = load8(src + s);
        } else {
            insert_inside(m, p, s - length + 1, s - 1);
            bytes = load8(src + s - 1);
            uint32_t before = (uint32_t)(s - 1 + p->cur);
            m->last[hash4(bytes)] = before;
            push(&m->pairs[hash7(bytes)], before);
            bytes >>= 8;
        }
    }
    if (tokens->n) add_literals(tokens, src + waiting, src + p->end);
}

void kp_match(kp_matcher *m, const kp_rules *rules, const engine_view *view, uint32_t n, kp_tokens *tokens) {
    kp_tokens_clear(tokens);
    m->trail = 0;
    if (m->end - m->base > SPAN) rebase(m);
    if (m->end - m->begin + n > KP_BUFFER) m->begin = m->end - REACH;
    if (m->end - m->first + n > KP_BUFFER) m->first = m->end - REACH;
    uint64_t low = m->end - m->begin > REACH ? m->end - REACH : m->begin;
    int32_t s = (int32_t)(m->end - low);
    m->end += n;
    if (n < KP_SEARCHED) return;
    place p = {view->bytes + (low - view->begin), s + (int32_t)n, s + (int32_t)n - MARGIN,
               (int32_t)(m->bias + (uint32_t)(low - m->base)),
               m->first < view->begin ? NULL : view->bytes + (m->first - view->begin)};
    switch (rules->level) {
    case 1: kp_match_1(m, rules, &p, s, tokens); break;
    case 2: kp_match_2(m, rules, &p, s, tokens); break;
    case 3: kp_match_3(m, rules, &p, s, tokens); break;
    case 4: kp_match_4(m, rules, &p, s, tokens); break;
    case 6: match(m, rules, &p, s, 1, tokens); break;
    default: match(m, rules, &p, s, 0, tokens);
    }
}
