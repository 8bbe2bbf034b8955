/* klauspost's levels 1 to 4: tables of 5 bytes (1 to 3), or of 4 and of 7 (4). See engine_klauspost.h. */
#include "engine_klauspost_search.h"

/* Of the 5 lowest bytes, in a table of so many bits. */
static inline uint32_t hash5(uint64_t bytes, unsigned bits) {
    return (uint32_t)(((bytes << 24) * 889523592379u) >> (64 - bits));
}

/* A match is taken: extended to both sides, with what waits before it. Returns its length; *s: its end. */
static inline int32_t take(const kp_rules *rules, const place *p, int32_t *s, int32_t t, int32_t *waiting,
                           kp_tokens *tokens) {
    const uint8_t *src = p->src;
    int32_t at = *s, length = whole(p, at + 4, t + 4) + 4;
    while (t > 0 && at > *waiting && src[t - 1] == src[at - 1]) at--, t--, length++;
    add_literals(tokens, src + *waiting, src + at);
    add_match(tokens, rules, length, (uint32_t)(at - t));
    *waiting = *s = at + length;
    return length;
}

static inline void rest(const place *p, int32_t waiting, kp_tokens *tokens) {
    if (tokens->n) add_literals(tokens, p->src + waiting, p->src + p->end);
}

static inline int matches(const place *p, int32_t s, int32_t t, uint64_t bytes) {
    return s - t < REACH && load4(p->src + t) == (uint32_t)bytes;
}

/* Right behind another match a distance of REACH will do, too. */
static inline int matches_again(const place *p, int32_t s, int32_t t, uint64_t bytes) {
    return s - t <= REACH && load4(p->src + t) == (uint32_t)bytes;
}

/* ---- 1 and 2 ----------------------------------------------------------------------------------------------------- */

/* Two positions side by side are looked up, then some are left out. */
static inline void match_pairwise(kp_matcher *m, const kp_rules *rules, const place *p, int32_t s, int two,
                                  kp_tokens *tokens) {
    const unsigned bits = two ? 17 : 15;
    const uint8_t *src = p->src;
    const int32_t cur = p->cur;
    uint32_t *table = m->last;
    uint64_t bytes = load8(src + s);
    for (int32_t waiting = s;;) {
        int32_t next = s, t;
        for (;;) {
            uint32_t *entry = &table[hash5(bytes, bits)];
            s = next;
            next = s + 2 + ((s - waiting) >> 5);
            if (next > p->limit) {
                rest(p, waiting, tokens);
                return;
            }
            t = (int32_t)*entry - cur;
            *entry = (uint32_t)(s + cur);
            uint64_t now = load8(src + next);
            entry = &table[hash5(now, bits)];
            if (matches(p, s, t, bytes)) {
                *entry = (uint32_t)(next + cur);
                break;
            }
            bytes = now;
            s = next++;
            t = (int32_t)*entry - cur;
            *entry = (uint32_t)(s + cur);
            if (matches(p, s, t, bytes)) {
                if (!two) *entry = (uint32_t)(next + cur);
                break;
            }
            bytes = now >> 8;
        }
        for (;;) {
            int32_t length = take(rules, p, &s, t, &waiting, tokens);
            if (next >= s) s = next + 1;
            leave_trail(m, p, next, waiting, length);
            if (s >= p->limit) {
                if (s + length + 8 < p->end) table[hash5(load8(src + s), bits)] = (uint32_t)(s + cur);
                rest(p, waiting, tokens);
                return;
            }
            if (two) {
                for (int32_t i = s - length + 2; i < s - 5; i += 7) {
                    uint64_t inside = load8(src + i);
                    table[hash5(inside, bits)] = (uint32_t)(i + cur);
                    table[hash5(inside >> 16, bits)] = (uint32_t)(i + 2 + cur);
                    table[hash5(inside >> 32, bits)] = (uint32_t)(i + 4 + cur);
                }
            }
            bytes = load8(src + s - 2);
            table[hash5(bytes, bits)] = (uint32_t)(s - 2 + cur);
            if (two) table[hash5(bytes >> 8, bits)] = (uint32_t)(s - 1 + cur);
            bytes >>= 16;
            uint32_t *entry = &table[hash5(bytes, bits)];
            t = (int32_t)*entry - cur;
            *entry = (uint32_t)(s + cur);
            if (!matches_again(p, s, t, bytes)) break;
        }
        bytes >>= 8;
        s++;
    }
}

void kp_match_1(kp_matcher *m, const kp_rules *rules, const place *p, int32_t s, kp_tokens *tokens) {
    match_pairwise(m, rules, p, s, 0, tokens);
}

void kp_match_2(kp_matcher *m, const kp_rules *rules, const place *p, int32_t s, kp_tokens *tokens) {
    match_pairwise(m, rules, p, s, 1, tokens);
}

/* ---- 3 ----------------------------------------------------------------------------------------------------------- */

#define BITS_3 16
#define REACH_3 (REACH - 4)

static inline void push_3(kp_matcher *m, const place *p, uint64_t bytes, int32_t at) {
    push(&m->pairs[hash5(bytes, BITS_3)], (uint32_t)(at + p->cur));
}

void kp_match_3(kp_matcher *m, const kp_rules *rules, const place *p, int32_t s, kp_tokens *tokens) {
    const uint8_t *src = p->src;
    const int32_t cur = p->cur;
    uint64_t bytes = load8(src + s);
    for (int32_t waiting = s;;) {
        int32_t next = s, t, t2;
        uint64_t now;
        for (;; bytes = now) {
            uint64_t *entry = &m->pairs[hash5(bytes, BITS_3)], pair = *entry;
            s = next;
            next = s + 1 + ((s - waiting) >> 7);
            if (next > p->limit) {
                rest(p, waiting, tokens);
                return;
            }
            now = load8(src + next);
            push(entry, (uint32_t)(s + cur));
            t = (int32_t)(uint32_t)pair - cur;
            t2 = (int32_t)(uint32_t)(pair >> 32) - cur;
            if (s - t > REACH_3) continue;
            if (load4(src + t) == (uint32_t)bytes) {
                if (s - t2 <= REACH_3 && load4(src + t2) == (uint32_t)bytes &&
                    whole(p, s + 4, t2 + 4) > whole(p, s + 4, t + 4))
                    t = t2;
                break;
            }
            t = t2;
            if (s - t < REACH_3 && load4(src + t) == (uint32_t)bytes) break;
        }
        for (;;) {
            int32_t from = s - t, length = take(rules, p, &s, t, &waiting, tokens);
            t = s - from; /* where the match's source ends */
            if (next >= s) s = next + 1;
            leave_trail(m, p, next, waiting, length);
            if (s >= p->limit) {
                if (t + 8 < p->end && t > 0) push_3(m, p, load8(src + t), t);
                rest(p, waiting, tokens);
                return;
            }
            for (int32_t i = s - length + 2; i < s - 5; i += 6) push_3(m, p, load8(src + i), i);
            bytes = load8(src + s - 2);
            push_3(m, p, bytes, s - 2);
            push_3(m, p, bytes >> 8, s - 1);
            bytes >>= 16;
            uint64_t *entry = &m->pairs[hash5(bytes, BITS_3)], pair = *entry;
            push(entry, (uint32_t)(s + cur));
            t = (int32_t)(uint32_t)pair - cur;
            if (s - t >= REACH_3) break;
            if (load4(src + t) == (uint32_t)bytes) continue;
            t = (int32_t)(uint32_t)(pair >> 32) - cur;
            if (s - t >= REACH_3 || load4(src + t) != (uint32_t)bytes) break;
        }
        bytes >>= 8;
        s++;
    }
}

/* ---- 4 ----------------------------------------------------------------------------------------------------------- */

void kp_match_4(kp_matcher *m, const kp_rules *rules, const place *p, int32_t s, kp_tokens *tokens) {
    const uint8_t *src = p->src;
    const int32_t cur = p->cur;
    uint32_t *table = m->last;
    uint64_t *longer = m->pairs, bytes = load8(src + s);
    for (int32_t waiting = s;;) {
        int32_t next = s, t;
        for (;;) {
            uint32_t *entry = &table[hash4(bytes)];
            uint64_t *long_entry = &longer[hash7(bytes)];
            s = next;
            next = s + 1 + ((s - waiting) >> 6);
            if (next > p->limit) {
                rest(p, waiting, tokens);
                return;
            }
            int32_t t_short = (int32_t)*entry - cur;
            t = (int32_t)(uint32_t)*long_entry - cur;
            uint64_t now = load8(src + next);
            *entry = (uint32_t)(s + cur);
            *long_entry = (uint32_t)(s + cur);
            if (matches(p, s, t, bytes)) break;
            t = t_short;
            if (matches(p, s, t, bytes)) {
                /* The match at the next position is measured by what is as far behind the begin of the encoder's buffer
                 * as it should be before the position: a fault, kept. */
                int32_t other = (int32_t)(uint32_t)longer[hash7(now)] - cur;
                if (matches(p, next, other, now) && p->history &&
                    same(src + next + 4, p->history + (next - other + 4), p->end - next - 4) > whole(p, s + 4, t + 4))
                    s = next, t = other;
                break;
            }
            bytes = now;
        }
        int32_t length = take(rules, p, &s, t, &waiting, tokens);
        if (next >= s) s = next + 1;
        leave_trail(m, p, next, waiting, length);
        if (s >= p->limit) {
            if (s + 8 < p->end) {
                bytes = load8(src + s);
                table[hash4(bytes)] = (uint32_t)(s + cur);
                longer[hash7(bytes)] = (uint32_t)(s + cur);
            }
            rest(p, waiting, tokens);
            return;
        }
        for (int32_t i = next; i < s - 1; i += 3) {
            bytes = load8(src + i);
            longer[hash7(bytes)] = (uint32_t)(i + cur);
            longer[hash7(bytes >> 8)] = (uint32_t)(i + 1 + cur);
            table[hash4(bytes >> 8)] = (uint32_t)(i + 1 + cur);
        }
        bytes = load8(src + s - 1);
        table[hash4(bytes)] = (uint32_t)(s - 1 + cur);
        longer[hash7(bytes)] = (uint32_t)(s - 1 + cur);
        bytes >>= 8;
    }
}
