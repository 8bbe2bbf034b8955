/* The writer: see deflate.h. */
#include <string.h>

#include "deflate.h"

static const uint8_t ORDER[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};

static inline void put_bytes(deflate_writer *w) {
    if (w->room >= 8) {
        for (unsigned i = 0; i < 8; i++) w->out[i] = (uint8_t)(w->bits >> (8 * i));
        unsigned whole = w->count / 8;
        w->out += whole;
        w->room -= whole;
        w->bits = whole < 8 ? w->bits >> (8 * whole) : 0;
        w->count %= 8;
        return;
    }
    while (w->count >= 8) {
        if (w->room) {
            *w->out++ = (uint8_t)w->bits;
            w->room--;
        } else {
            w->lost = 1;
        }
        w->bits >>= 8;
        w->count -= 8;
    }
}

void deflate_write_bits(deflate_writer *w, uint64_t bits, unsigned count) {
    w->bits |= bits << w->count;
    w->count += count;
    put_bytes(w);
}

void deflate_write_align(deflate_writer *w, unsigned padding) {
    if (w->count) deflate_write_bits(w, padding & ((1u << (8 - w->count)) - 1), 8 - w->count);
}

void deflate_write_bytes(deflate_writer *w, const uint8_t *bytes, size_t n) {
    size_t step = n < w->room ? n : w->room;
    if (step) memcpy(w->out, bytes, step);
    w->out += step;
    w->room -= step;
    if (step < n) w->lost = 1;
}

/* Canonical codes, their bits in the order in which they are sent. */
static void canonical(const uint8_t *lengths, unsigned n, uint16_t *codes) {
    unsigned count[16] = {0}, next[16], code = 0;
    for (unsigned i = 0; i < n; i++) count[lengths[i]]++;
    count[0] = 0;
    for (unsigned length = 1; length < 16; length++) next[length] = code = (code + count[length - 1]) << 1;
    for (unsigned i = 0; i < n; i++) {
        unsigned length = lengths[i], out = 0;
        if (length) {
            code = next[length]++;
            for (unsigned bit = 0; bit < length; bit++) out |= (code >> bit & 1) << (length - 1 - bit);
        }
        codes[i] = (uint16_t)out;
    }
}

void deflate_write_head(deflate_writer *w, const deflate_head *h) {
    deflate_write_bits(w, h->final | (unsigned)h->type << 1, 3);
    if (h->type == DEFLATE_STORED) {
        deflate_write_align(w, h->padding);
        deflate_write_bits(w, h->stored | (uint32_t)(uint16_t)~h->stored << 16, 32);
    } else if (h->type == DEFLATE_DYNAMIC) {
        uint16_t codes[19];
        canonical(h->code_lengths, 19, codes);
        deflate_write_bits(w, h->literal_count - 257u, 5);
        deflate_write_bits(w, h->distance_count - 1u, 5);
        deflate_write_bits(w, h->code_count - 4u, 4);
        for (unsigned i = 0; i < h->code_count; i++) deflate_write_bits(w, h->code_lengths[ORDER[i]], 3);
        for (unsigned i = 0; i < h->op_count; i++) {
            unsigned op = h->ops[i][0];
            deflate_write_bits(w, codes[op], h->code_lengths[op]);
            if (op >= 16) deflate_write_bits(w, h->ops[i][1], op == 16 ? 2 : op == 17 ? 3 : 7);
        }
    }
}

void deflate_codes_make(deflate_codes *c, const uint8_t lengths[DEFLATE_LITERALS + DEFLATE_DISTANCES]) {
    canonical(lengths, DEFLATE_LITERALS, c->literal);
    canonical(lengths + DEFLATE_LITERALS, DEFLATE_DISTANCES, c->distance);
    memcpy(c->literal_length, lengths, DEFLATE_LITERALS);
    memcpy(c->distance_length, lengths + DEFLATE_LITERALS, DEFLATE_DISTANCES);
    for (unsigned at = 0; at < 256; at++) {
        unsigned code = deflate_length_code(at + DEFLATE_MIN_MATCH), sent = 257 + code;
        uint32_t extra = at + DEFLATE_MIN_MATCH - deflate_length_base[code];
        c->match[at] = c->literal[sent] | extra << c->literal_length[sent];
        c->match_length[at] = (uint8_t)(c->literal_length[sent] + deflate_length_extra[code]);
    }
}

void deflate_write_tokens(deflate_writer *writer, const deflate_codes *c, const uint32_t *tokens, size_t n) {
    deflate_writer copy = *writer, *w = &copy; /* what is written could be anything, as far as the compiler knows */
    for (size_t i = 0; i < n; i++) {
        uint32_t token = tokens[i];
        if (!(token & DEFLATE_MATCH)) {
            w->bits |= (uint64_t)c->literal[token & 0xff] << w->count;
            w->count += c->literal_length[token & 0xff];
        } else {
            unsigned at = token >> 16 & 0xff;
            uint64_t bits = c->match[at];
            unsigned count = c->match_length[at];
            if (token & DEFLATE_LONG) { /* 258 as 227 and 31 more */
                bits = c->literal[284] | 31u << c->literal_length[284];
                count = c->literal_length[284] + 5u;
            }
            uint32_t distance = deflate_distance(token);
            unsigned code = deflate_distance_code(distance);
            bits |= (uint64_t)c->distance[code] << count;
            count += c->distance_length[code];
            bits |= (uint64_t)(distance - deflate_distance_base[code]) << count;
            count += deflate_distance_extra[code];
            w->bits |= bits << w->count;
            w->count += count; /* 7 + 20 + 28 at most */
        }
        put_bytes(w);
    }
    *writer = copy;
}

void deflate_write_end(deflate_writer *w, const deflate_codes *c) {
    deflate_write_bits(w, c->literal[256], c->literal_length[256]);
}
