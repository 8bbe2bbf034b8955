/* RFC 1951's tables, and codes made from lengths. See deflate.h. */
#include <string.h>

#include "deflate.h"

const uint16_t deflate_length_base[29] = {3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                          31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
const uint8_t deflate_length_extra[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
const uint16_t deflate_distance_base[30] = {1,   2,   3,   4,   5,   7,    9,    13,   17,   25,   33,   49,   65,    97,    129,
                                            193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};
const uint8_t deflate_distance_extra[30] = {0, 0, 0, 0, 1, 1, 2, 2,  3,  3,  4,  4,  5,  5,  6,
                                            6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13};

static unsigned top_bit(uint32_t value) { return 31u - (unsigned)__builtin_clz(value); }

unsigned deflate_length_code(uint32_t length) {
    if (length >= DEFLATE_MAX_MATCH) return 28;
    uint32_t at = length - DEFLATE_MIN_MATCH;
    if (at < 8) return at;
    unsigned bits = top_bit(at); /* 3..7: four codes to each power of two */
    return 4 * (bits - 1) + (at >> (bits - 2) & 3);
}

unsigned deflate_distance_code(uint32_t distance) {
    uint32_t at = distance - 1;
    if (at < 4) return at;
    unsigned bits = top_bit(at); /* two codes to each power of two */
    return 2 * bits + (at >> (bits - 1) & 1);
}

void deflate_fixed_lengths(uint8_t lengths[DEFLATE_LITERALS + DEFLATE_DISTANCES]) {
    memset(lengths, 8, 144);
    memset(lengths + 144, 9, 256 - 144);
    memset(lengths + 256, 7, 280 - 256);
    memset(lengths + 280, 8, 288 - 280);
    memset(lengths + DEFLATE_LITERALS, 5, 30);
    memset(lengths + DEFLATE_LITERALS + 30, 0, 2);
}
