/* What klauspost's searches share: see engine_klauspost.h. */
#ifndef CASSTORE_ENGINE_KLAUSPOST_SEARCH_H
#define CASSTORE_ENGINE_KLAUSPOST_SEARCH_H

#include "engine_klauspost.h"

#define REACH 32768 /* distances are smaller (but where it is said) */
#define MARGIN 11   /* bytes at the end of a segment where no match begins */

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
    const uint8_t *history; /* where the encoder's own buffer begins; NULL: not in view */
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

static inline void add_literals(kp_tokens *t, const uint8_t *from, const uint8_t *to) {
    uint32_t *out = t->tokens + t->n;
    t->n += (uint32_t)(to - from);
    for (; from < to; from++) {
        *out++ = *from;
        t->symbols[*from]++;
    }
}

static inline void add_match(kp_tokens *t, const kp_rules *rules, int32_t length, uint32_t distance) {
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

/* What a search enters in its tables follows from the content and from its matches: where they end, how long they are, how
 * far it had looked ahead then. What lies out of reach at the segment's end does not matter: of matches that end there, only
 * where the last one does. */
static inline void leave_trail(kp_matcher *m, const place *p, int32_t next, int32_t end, int32_t length) {
    uint64_t where = (uint64_t)(uint32_t)(p->end - next) << 40 ^ (uint64_t)(uint32_t)(p->end - end) << 20;
    if (p->end - end > REACH) m->trail = 0;
    else where ^= (uint32_t)length;
    m->trail = (m->trail ^ where) * 0x9e3779b97f4a7c15u;
    m->trail ^= m->trail >> 29;
}

void kp_match_1(kp_matcher *m, const kp_rules *rules, const place *p, int32_t s, kp_tokens *tokens);
void kp_match_2(kp_matcher *m, const kp_rules *rules, const place *p, int32_t s, kp_tokens *tokens);
void kp_match_3(kp_matcher *m, const kp_rules *rules, const place *p, int32_t s, kp_tokens *tokens);
void kp_match_4(kp_matcher *m, const kp_rules *rules, const place *p, int32_t s, kp_tokens *tokens);

#endif
