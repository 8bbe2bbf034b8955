/* Tar blocks for the suites: headers with right checksums, PAX records. */
#ifndef CASSTORE_TEST_TAR_BLOCKS_H
#define CASSTORE_TEST_TAR_BLOCKS_H

#include "check.h"

typedef struct {
    uint8_t *bytes;
    size_t length, room;
} archive;

static uint8_t *grow(archive *a, size_t n) {
    while (a->room - a->length < n) {
        a->room = a->room ? a->room * 2 : 4096;
        a->bytes = realloc(a->bytes, a->room);
        CHECK(a->bytes);
    }
    a->length += n;
    return memset(a->bytes + a->length - n, 0, n);
}

static inline void add(archive *a, const void *bytes, size_t n) {
    uint8_t *to = grow(a, n);
    if (n) memcpy(to, bytes, n);
}

static void set_checksum(uint8_t *block) {
    unsigned sum = 0;
    memset(block + 148, ' ', 8);
    for (int i = 0; i < 512; i++) sum += block[i];
    snprintf((char *)block + 148, 8, "%06o", sum);
    block[155] = ' ';
}

/* A header whose size is octal where it fits, else base-256. Valid until the archive grows. */
static uint8_t *add_header(archive *a, const char *name, char type, uint64_t size) {
    uint8_t *block = grow(a, 512);
    memcpy(block, name, strlen(name) < 100 ? strlen(name) : 100);
    memcpy(block + 100, "0000644", 8);
    memcpy(block + 108, "0000000", 8);
    memcpy(block + 116, "0000000", 8);
    if (size >> 33) {
        block[124] = 0x80;
        for (int i = 0; i < 8; i++) block[135 - i] = (uint8_t)(size >> 8 * i);
    } else {
        char digits[24];
        snprintf(digits, sizeof digits, "%011llo", (unsigned long long)size);
        memcpy(block + 124, digits, 11);
    }
    memcpy(block + 136, "00000000000", 12);
    block[156] = (uint8_t)type;
    memcpy(block + 257, "ustar\00000", 8);
    set_checksum(block);
    return block;
}

static void add_data(archive *a, const void *bytes, size_t n) {
    add(a, bytes, n);
    grow(a, -n & 511);
}

static inline void add_pax(archive *a, const char *records) {
    add_header(a, "PaxHeaders/x", 'x', strlen(records));
    add_data(a, records, strlen(records));
}

#endif
