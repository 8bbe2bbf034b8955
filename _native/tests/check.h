/* What the plain-C suites share. Each is a program that exits with 0 or says what was wrong; run them with sanitizers. */
#ifndef CASSTORE_CHECK_H
#define CASSTORE_CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                            \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                                \
        }                                                                           \
    } while (0)

/* A block of exactly `size` bytes, so that a sanitizer sees the first byte read past it. */
static inline void *block(size_t size)
{
    void *p = malloc(size ? size : 1);
    CHECK(p);
    return p;
}

/* Numbers that are the same in every run (splitmix64). */
static inline uint64_t next_number(uint64_t *seed)
{
    uint64_t z = *seed += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static inline void fill(void *p, size_t size, uint64_t *seed)
{
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)p)[i] = (uint8_t)next_number(seed);
}

#endif
