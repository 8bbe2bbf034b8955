/* What the C targets share: numbers and buffers taken from the bytes that the fuzzer made up. */
#ifndef CASSTORE_FUZZ_INPUT_H
#define CASSTORE_FUZZ_INPUT_H

#include "check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct {
    const uint8_t *at;
    size_t left;
} input;

/* Zeros where it has ended. */
static inline uint8_t take(input *in)
{
    if (!in->left)
        return 0;
    in->left--;
    return *in->at++;
}

static inline uint64_t take_number(input *in, int bytes)
{
    uint64_t value = 0;
    while (bytes--)
        value = value << 8 | take(in);
    return value;
}

/* A number that is small, or close to a power of two, or anything: what lies at the edges is tried first. */
static inline uint64_t take_wild(input *in)
{
    uint8_t kind = take(in);
    switch (kind & 3) {
    case 0: return kind >> 2;
    case 1: return take_number(in, 2);
    case 2: return ((uint64_t)1 << (kind >> 2)) - 2 + take(in) % 5;
    default: return take_number(in, 8);
    }
}

/* The next n bytes (fewer at the end), in a block of their own. */
static inline uint8_t *take_block(input *in, size_t n, size_t *got)
{
    *got = n < in->left ? n : in->left;
    uint8_t *bytes = block(*got);
    if (*got)
        memcpy(bytes, in->at, *got);
    in->at += *got;
    in->left -= *got;
    return bytes;
}

#endif
