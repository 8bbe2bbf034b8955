/* Contents that are unkind to encoders, made by code. */
#ifndef CASSTORE_ENGINE_GO_CONTENTS_H
#define CASSTORE_ENGINE_GO_CONTENTS_H

#include "check.h"

#define CONTENTS 14

/* Append n bytes of what came `distance` before. */
static inline size_t repeat(uint8_t *bytes, size_t at, size_t n, size_t distance) {
    for (size_t end = at + n; at < end; at++) bytes[at] = bytes[at - distance];
    return at;
}

static inline size_t noise(uint8_t *bytes, size_t at, size_t n, unsigned kinds, uint64_t *seed) {
    for (size_t end = at + n; at < end; at++) bytes[at] = (uint8_t)(next_number(seed) % kinds);
    return at;
}

/* Copies of what came before, of lengths and distances on either side of the limits, between noise. */
static inline void patchwork(uint8_t *bytes, size_t n, uint64_t *seed) {
    static const uint16_t distances[] = {1, 2, 3, 4, 255, 4095, 4096, 4097, 8192, 32506, 32507, 32508, 32600, 32767, 32768};
    static const uint16_t lengths[] = {3, 3, 4, 4, 4, 5, 6, 7, 8, 15, 16, 17, 31, 32, 33, 127, 128, 129, 257, 258, 259, 600};
    for (size_t at = noise(bytes, 0, 40, 256, seed); at < n;) {
        uint64_t number = next_number(seed);
        size_t distance = number & 1 ? distances[(number >> 8) % 15] : 1 + (number >> 8) % 33000;
        size_t length = lengths[(number >> 40) % 22], left = n - at;
        if (distance > at) distance = at;
        at = repeat(bytes, at, length < left ? length : left, distance);
        if (number >> 62) continue;
        length = 1 + (number >> 48) % 9;
        left = n - at;
        at = noise(bytes, at, length < left ? length : left, 256, seed);
    }
}

/* Headers of 512 bytes and files, more or less. */
static inline void archive(uint8_t *bytes, size_t n, uint64_t *seed) {
    static const char words[] = "the of usr/lib/share python import return static void int char const self None 0000644 ";
    for (size_t at = 0; at < n;) {
        uint8_t file[512] = {0};
        unsigned number = (unsigned)(next_number(seed) % 100000);
        snprintf((char *)file, 200, "usr/share/doc/package-%u/file%05u", number % 7, number);
        snprintf((char *)file + 257, 30, "ustar  root");
        size_t size = number % 9000, left = n - at;
        memcpy(bytes + at, file, left < 512 ? left : 512);
        at += left < 512 ? left : 512;
        for (size_t end = n - at < size ? n : at + size; at < end; at++) {
            uint64_t next = next_number(seed);
            bytes[at] = (uint8_t)(at % 5 && next % 3 ? words[(at * 7 + next % 3) % (sizeof words - 1)] : words[next % 40]);
        }
        size = (512 - at % 512) % 512;
        size = n - at < size ? n - at : size;
        memset(bytes + at, 0, size);
        at += size;
    }
}

/* Content number `which`: at most 330000 bytes. Returns its length. */
static inline size_t content_of(int which, uint8_t *bytes) {
    uint64_t seed = 1000 + (uint64_t)which;
    size_t at = 0;
    switch (which) {
    case 0: return 0;
    case 1: return noise(bytes, 0, 16, 4, &seed);
    case 2: return noise(bytes, 0, 127, 3, &seed);
    case 3: memset(bytes, 0, 300000); return 300000;
    case 4: return noise(bytes, 0, 131070, 256, &seed);                            /* two segments of 65535 */
    case 5: return noise(bytes, 0, 70000, 2, &seed);                               /* long chains */
    case 6: patchwork(bytes, 65536, &seed); return 65536;                          /* the window, exactly */
    case 7: patchwork(bytes, 65537, &seed); return 65537;
    case 8: patchwork(bytes, 330000, &seed); return 330000;
    case 9: archive(bytes, 250000, &seed); return 250000;
    case 10: /* compressible, incompressible, compressible */
        archive(bytes, 100000, &seed);
        at = noise(bytes, 100000, 140000, 256, &seed);
        archive(bytes + at, 60000, &seed);
        return at + 60000;
    case 11: /* nothing but one period, as far back as matches reach */
        at = noise(bytes, 0, 32768, 256, &seed);
        return repeat(bytes, at, 200000, 32768);
    case 12: /* every symbol of a length, and frequencies like Fibonacci's: codes of all 15 bits */
        for (unsigned i = 0, a = 1, b = 1; i < 22; i++) {
            memset(bytes + at, (int)(3 * i), a);
            at += a;
            unsigned sum = a + b;
            a = b;
            b = sum;
        }
        for (size_t i = at; i > 1; i--) { /* shuffled, so that little matches */
            size_t j = next_number(&seed) % i;
            uint8_t swap = bytes[i - 1];
            bytes[i - 1] = bytes[j];
            bytes[j] = swap;
        }
        return at;
    default: /* bytes that hash alike, noise where steps have become long, and a match at the very end */
        for (; at < 60000; at += 4) {
            uint32_t number = (uint32_t)(next_number(&seed) % 3) << 18 | (uint32_t)(next_number(&seed) & 3);
            for (unsigned i = 0; i < 4; i++) bytes[at + i] = (uint8_t)(number >> (8 * i));
        }
        at = noise(bytes, at, 70000, 255, &seed);
        at = repeat(bytes, at, 262, 300);
        at = noise(bytes, at, 3, 255, &seed);
        return repeat(bytes, at, 40, 32700);
    }
}

#endif
