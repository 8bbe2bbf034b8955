/* The parser: see deflate.h. */
#include "deflate.h"

#include <stdlib.h>
#include <string.h>

#define FAST 10 /* bits that the first table looks up */
#define SLOW 0xffff
#define UNIT 48 /* bits that one step may want: a length, a distance and their extra bits */

/* A Huffman code: the first FAST bits in a table (symbol << 4 | length), longer ones canonically. */
typedef struct {
    uint16_t fast[1 << FAST];
    uint16_t count[16], first[16], offset[16];
    uint16_t symbols[DEFLATE_LITERALS];
} huffman;

typedef enum { BEGIN, STORED_LENGTH, STORED, COUNTS, CODE_LENGTHS, LENGTHS, TOKENS, TAIL, END, FAILED } state;

struct deflate_parser {
    state at;
    const char *error;
    uint64_t bits; /* not yet used, the lowest first */
    unsigned count;
    uint64_t taken; /* bytes of input */
    uint64_t content;
    unsigned stored_left, code_at, length_at;
    deflate_head head;
    huffman literals, distances, code;
};

static const uint8_t ORDER[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};

deflate_parser *deflate_parser_new(void) {
    deflate_parser *p = malloc(sizeof *p);
    if (p) deflate_parser_reset(p);
    return p;
}

void deflate_parser_free(deflate_parser *p) { free(p); }
void deflate_parser_reset(deflate_parser *p) { memset(p, 0, sizeof *p); }
const deflate_head *deflate_parser_head(const deflate_parser *p) { return &p->head; }
uint64_t deflate_parser_bits(const deflate_parser *p) { return p->taken * 8 - p->count; }
uint64_t deflate_parser_content(const deflate_parser *p) { return p->content; }
const char *deflate_parser_error(const deflate_parser *p) { return p->error ? p->error : ""; }
unsigned deflate_parser_padding(const deflate_parser *p) { return (unsigned)(p->bits & ((1u << (p->count & 7)) - 1)); }
unsigned deflate_parser_surplus(const deflate_parser *p) { return p->count >> 3; }

static int bad(deflate_parser *p, const char *error) {
    p->at = FAILED;
    p->error = error;
    return DEFLATE_BAD;
}

/* ---- bits ------------------------------------------------------------------------------------------------------ */

static inline void refill(deflate_parser *p, deflate_io *io) {
    while (p->count <= 56 && io->input_left) {
        p->bits |= (uint64_t)*io->input++ << p->count;
        p->count += 8;
        p->taken++;
        io->input_left--;
    }
}

static inline unsigned peek(const deflate_parser *p, unsigned n) { return (unsigned)(p->bits & ((1ull << n) - 1)); }

static inline void drop(deflate_parser *p, unsigned n) {
    p->bits >>= n;
    p->count -= n;
}

static inline unsigned take(deflate_parser *p, unsigned n) {
    unsigned value = peek(p, n);
    drop(p, n);
    return value;
}

/* ---- codes ----------------------------------------------------------------------------------------------------- */

static unsigned reversed(unsigned code, unsigned length) {
    unsigned out = 0;
    for (unsigned i = 0; i < length; i++) out |= (code >> i & 1) << (length - 1 - i);
    return out;
}

/* Bits of code space left (of 2^15), negative when there are too many codes. */
static int build(huffman *h, const uint8_t *lengths, unsigned n) {
    unsigned next[16], code = 0, offset = 0;
    int left = 1;
    memset(h->count, 0, sizeof h->count);
    for (unsigned i = 0; i < n; i++) h->count[lengths[i]]++;
    h->count[0] = 0;
    for (unsigned length = 1; length < 16; length++) {
        left = left * 2 - h->count[length];
        if (left < 0) return left;
        code = (code + (length > 1 ? h->count[length - 1] : 0)) << 1;
        h->first[length] = (uint16_t)code;
        next[length] = code;
        h->offset[length] = (uint16_t)offset;
        offset += h->count[length];
    }
    for (unsigned i = 0; i < (1u << FAST); i++) h->fast[i] = SLOW;
    for (unsigned i = 0; i < n; i++) {
        unsigned length = lengths[i];
        if (!length) continue;
        h->symbols[h->offset[length] + next[length] - h->first[length]] = (uint16_t)i;
        if (length <= FAST)
            for (unsigned at = reversed(next[length], length); at < (1u << FAST); at += 1u << length)
                h->fast[at] = (uint16_t)(i << 4 | length);
        next[length]++;
    }
    return left;
}

/* The next symbol; its length is left in *used. Negative: no code begins so. */
static inline int symbol(const huffman *h, uint64_t bits, unsigned *used) {
    unsigned found = h->fast[bits & ((1u << FAST) - 1)];
    if (found != SLOW) {
        *used = found & 15;
        return (int)(found >> 4);
    }
    unsigned code = 0;
    for (unsigned length = 1; length < 16; length++) {
        code = code << 1 | (unsigned)(bits >> (length - 1) & 1);
        unsigned at = code - h->first[length];
        if (code >= h->first[length] && at < h->count[length]) {
            *used = length;
            return h->symbols[h->offset[length] + at];
        }
    }
    *used = 0;
    return -1;
}

/* Is it a code? It may be incomplete only where there is nothing to tell apart: no symbol, or one of one bit. */
static int is_code(const huffman *h, int left) {
    unsigned symbols = 0;
    for (unsigned length = 1; length < 16; length++) symbols += h->count[length];
    return !left || (left > 0 && (!symbols || (symbols == 1 && h->count[1])));
}

static int make_codes(deflate_parser *p) {
    const uint8_t *lengths = p->head.lengths;
    if (!lengths[256]) return bad(p, "no code for the end of a block");
    int left = build(&p->literals, lengths, DEFLATE_LITERALS);
    if (!is_code(&p->literals, left)) return bad(p, "literal codes that are no code");
    left = build(&p->distances, lengths + DEFLATE_LITERALS, DEFLATE_DISTANCES);
    if (!is_code(&p->distances, left)) return bad(p, "distance codes that are no code");
    return 0;
}

/* ---- steps ----------------------------------------------------------------------------------------------------- */

/* Are there so many bits? If not: ask for input, or end. */
#define WANT(n)                                                                                                        \
    do {                                                                                                               \
        refill(p, io);                                                                                                 \
        if (p->count < (n)) return io->last ? DEFLATE_CUT : DEFLATE_INPUT;                                             \
    } while (0)

static int begin(deflate_parser *p, deflate_io *io) {
    WANT(3);
    memset(&p->head, 0, sizeof p->head);
    p->head.final = (uint8_t)take(p, 1);
    p->head.type = (uint8_t)take(p, 2);
    switch (p->head.type) {
    case DEFLATE_STORED:
        p->head.padding = (uint8_t)take(p, p->count & 7);
        p->at = STORED_LENGTH;
        return 0;
    case DEFLATE_FIXED:
        deflate_fixed_lengths(p->head.lengths);
        build(&p->literals, p->head.lengths, DEFLATE_LITERALS);
        build(&p->distances, p->head.lengths + DEFLATE_LITERALS, 30);
        p->at = TOKENS;
        return DEFLATE_HEAD;
    case DEFLATE_DYNAMIC: p->at = COUNTS; return 0;
    default: return bad(p, "a block of no known type");
    }
}

static int stored_length(deflate_parser *p, deflate_io *io) {
    WANT(32);
    unsigned length = take(p, 16), inverse = take(p, 16);
    if ((length ^ inverse) != 0xffff) return bad(p, "a stored block whose length does not match its inverse");
    p->head.stored = (uint16_t)length;
    p->stored_left = length;
    p->at = STORED;
    return DEFLATE_HEAD;
}

static int stored(deflate_parser *p, deflate_io *io) {
    while (p->stored_left) {
        if (!io->content_room) return DEFLATE_ROOM;
        if (p->count) { /* whole bytes, which were taken with the head */
            *io->content++ = (uint8_t)take(p, 8);
            io->content_room--;
            p->stored_left--;
            p->content++;
            continue;
        }
        size_t step = p->stored_left;
        if (step > io->input_left) step = io->input_left;
        if (step > io->content_room) step = io->content_room;
        if (!step) return io->last ? DEFLATE_CUT : DEFLATE_INPUT;
        memcpy(io->content, io->input, step);
        io->input += step;
        io->input_left -= step;
        io->content += step;
        io->content_room -= step;
        p->taken += step;
        p->content += step;
        p->stored_left -= (unsigned)step;
    }
    p->at = TAIL;
    return 0;
}

static int counts(deflate_parser *p, deflate_io *io) {
    WANT(14);
    p->head.literal_count = (uint16_t)(take(p, 5) + 257);
    p->head.distance_count = (uint16_t)(take(p, 5) + 1);
    p->head.code_count = (uint8_t)(take(p, 4) + 4);
    if (p->head.literal_count > 286 || p->head.distance_count > 30) return bad(p, "more codes than there are");
    p->code_at = 0;
    p->at = CODE_LENGTHS;
    return 0;
}

static int code_lengths(deflate_parser *p, deflate_io *io) {
    while (p->code_at < p->head.code_count) {
        WANT(3);
        p->head.code_lengths[ORDER[p->code_at++]] = (uint8_t)take(p, 3);
    }
    if (build(&p->code, p->head.code_lengths, 19)) return bad(p, "codes of code lengths that are no code");
    p->length_at = 0;
    p->at = LENGTHS;
    return 0;
}

static int lengths(deflate_parser *p, deflate_io *io) {
    deflate_head *h = &p->head;
    unsigned literals = h->literal_count, all = literals + h->distance_count;
    while (p->length_at < all) {
        refill(p, io);
        if (p->count < 14 && !io->last) return DEFLATE_INPUT;
        unsigned used;
        int found = symbol(&p->code, p->bits, &used);
        if (found < 0) return bad(p, "an unknown code length");
        unsigned extra = found < 16 ? 0 : found == 16 ? 2 : found == 17 ? 3 : 7;
        if (used + extra > p->count) return DEFLATE_CUT;
        drop(p, used);
        unsigned value = take(p, extra), times = 1, length = (unsigned)found;
        if (found >= 16) {
            times = value + (found == 18 ? 11 : 3);
            if (found == 16 && !p->length_at) return bad(p, "a repeat of nothing");
            unsigned before = p->length_at - 1;
            length = found != 16 ? 0 : h->lengths[before < literals ? before : DEFLATE_LITERALS + before - literals];
        }
        if (times > all - p->length_at) return bad(p, "more code lengths than were told");
        h->ops[h->op_count][0] = (uint8_t)found;
        h->ops[h->op_count++][1] = (uint8_t)value;
        for (; times; times--, p->length_at++)
            h->lengths[p->length_at < literals ? p->length_at : DEFLATE_LITERALS + p->length_at - literals] =
                (uint8_t)length;
    }
    int failed = make_codes(p);
    if (failed) return failed;
    p->at = TOKENS;
    return DEFLATE_HEAD;
}

static inline void copy(uint8_t *to, unsigned distance, unsigned length) {
    const uint8_t *from = to - distance;
    if (distance >= length) {
        memcpy(to, from, length);
    } else {
        while (length--) *to++ = *from++;
    }
}

static int tokens(deflate_parser *p, deflate_io *io) {
    for (;;) {
        if (p->count < UNIT) refill(p, io);
        if (p->count < UNIT && !io->last) return DEFLATE_INPUT;
        if (!io->token_room || !io->content_room) return DEFLATE_ROOM;
        unsigned used;
        int found = symbol(&p->literals, p->bits, &used);
        if (found < 0) return p->count < 15 ? DEFLATE_CUT : bad(p, "an unknown literal code");
        if (used > p->count) return DEFLATE_CUT;
        if (found < 256) {
            drop(p, used);
            *io->content++ = (uint8_t)found;
            io->content_room--;
            p->content++;
            *io->tokens++ = (uint32_t)found;
            io->token_room--;
            continue;
        }
        if (found == 256) {
            drop(p, used);
            p->at = TAIL;
            return 0;
        }
        if (found > 285) return bad(p, "a length that does not exist");
        /* A match is taken as a whole or, for want of room, not at all. */
        uint64_t bits = p->bits >> used;
        unsigned code = (unsigned)found - 257, extra = deflate_length_extra[code];
        unsigned length = deflate_length_base[code] + (unsigned)(bits & ((1u << extra) - 1));
        bits >>= extra;
        used += extra;
        unsigned more;
        found = symbol(&p->distances, bits, &more);
        if (found < 0) return p->count < used + 15 ? DEFLATE_CUT : bad(p, "an unknown distance code");
        if (found > 29) return bad(p, "a distance that does not exist");
        bits >>= more;
        used += more;
        extra = deflate_distance_extra[found];
        unsigned distance = deflate_distance_base[found] + (unsigned)(bits & ((1u << extra) - 1));
        used += extra;
        if (used > p->count) return DEFLATE_CUT;
        if (distance > p->content) return bad(p, "a distance to before the beginning");
        if (length > io->content_room) return DEFLATE_ROOM;
        drop(p, used);
        copy(io->content, distance, length);
        io->content += length;
        io->content_room -= length;
        p->content += length;
        uint32_t token = deflate_match(length, distance);
        if (length == DEFLATE_MAX_MATCH && code != 28) token |= DEFLATE_LONG;
        *io->tokens++ = token;
        io->token_room--;
    }
}

int deflate_parse(deflate_parser *p, deflate_io *io) {
    for (;;) {
        int told;
        switch (p->at) {
        case BEGIN: told = begin(p, io); break;
        case STORED_LENGTH: told = stored_length(p, io); break;
        case STORED: told = stored(p, io); break;
        case COUNTS: told = counts(p, io); break;
        case CODE_LENGTHS: told = code_lengths(p, io); break;
        case LENGTHS: told = lengths(p, io); break;
        case TOKENS: told = tokens(p, io); break;
        case TAIL: p->at = p->head.final ? END : BEGIN; return DEFLATE_TAIL;
        case END: return DEFLATE_END;
        default: return DEFLATE_BAD;
        }
        if (told) return told;
    }
}
