/* cut by itself: kernels against the definition, on buffers that end where their allocation ends. */
#include "../cut.h"
#include "check.h"

#define ROOM 4096

static uint64_t state = 1;

static uint64_t next(uint64_t below) { return next_number(&state) % below; }

static const uint32_t LOW[16] = {0xec38ff86, 0x71d8ada3, 0x48a5f75a, 0xf1b6dcd5, 0xe6ac14c7, 0xe80f9e93,
                                 0xfca5e928, 0x286b346d, 0x645814be, 0xe9b7d0f1, 0xc6bb4a40, 0x32cc11c1,
                                 0x38348cf1, 0x58f9432c, 0xbb785101, 0xf2caf4cb};
static const uint32_t HIGH[16] = {0x1ecb680e, 0xc21866af, 0x3f271862, 0x56af1822, 0xfab98cb8, 0x14edc7d6,
                                  0xaf212dc0, 0x92fca9d6, 0xefe1a398, 0x1f3ca6b6, 0x8a11e0e0, 0x47c7fd17,
                                  0xff96f1d1, 0xb4f73a39, 0x37d42484, 0xbbda19e7};

/* cut.h by the letter, slowly. */
static uint64_t first_chunk(const uint8_t *bytes, uint64_t rest, cut_limits l) {
    int bits = __builtin_ctzll(l.average);
    if (rest <= l.minimum) return rest;
    for (uint64_t length = l.minimum; length < l.maximum && length <= rest; length++) {
        uint32_t h = 0;
        for (int j = 0; j < 32; j++) {
            uint8_t byte = bytes[length - 1 - (uint64_t)j];
            h += (LOW[byte & 15] ^ HIGH[byte >> 4]) << j;
        }
        if (h < (uint32_t)1 << (length < l.average ? 32 - bits - 2 : 32 - bits + 2)) return length;
    }
    return rest < l.maximum ? rest : l.maximum;
}

static uint8_t *content(size_t n) {
    uint8_t *bytes = block(n);
    size_t period = next(3) ? n + 1 : 1 + next(80);
    unsigned mask = next(3) ? 255 : 1;
    for (size_t i = 0; i < n; i++) bytes[i] = i < period ? (uint8_t)(next(256) & mask) : bytes[i - period];
    return bytes;
}

/* Two segments (the second perhaps whole), the last fed in growing parts where `parts`. */
static void compare(cut_kernel kernel, const uint8_t *bytes, size_t n, cut_limits l, int parts) {
    static uint64_t expected[ROOM], starts[ROOM];
    static uint32_t lengths[ROOM];
    size_t count, wanted = 0, found = 0;
    uint64_t tail, begin = 0;
    for (uint64_t at = 0; at < n; at += expected[wanted++]) {
        CHECK(wanted < ROOM);
        expected[wanted] = first_chunk(bytes + at, n - at, l);
    }
    for (uint64_t end = parts ? 0 : n;;) {
        uint8_t whole = 0;
        uint64_t length;
        if (parts) end = n - end < 700 ? n : end + next(700);
        length = end - begin;
        CHECK(cut_segments(kernel, bytes, end, &begin, &length, &whole, 1, end == n, l, starts, lengths, ROOM, &count,
                           &tail) == CUT_OK);
        for (size_t i = 0; i < count; i++, found++) {
            CHECK(found < wanted && lengths[i] == expected[found] && starts[i] == begin);
            begin += lengths[i];
        }
        CHECK(tail == end - begin && (end < n || !tail));
        if (end == n) break;
    }
    CHECK(found == wanted);
}

static void test_kernels(void) {
    static const cut_limits limits[] = {
        {64, 256, 1024}, {64, 64, 64}, {65, 128, 999}, {500, 4096, 16384}, {1024, 1024, 5000}};
    for (int kernel = CUT_BEST; kernel < CUT_KERNELS; kernel++) {
        if (!cut_usable((cut_kernel)kernel)) continue;
        for (int run = 0; run < 400; run++) {
            size_t n = run < 200 ? (size_t)run : next(20000);
            uint8_t *bytes = content(n);
            compare((cut_kernel)kernel, bytes, n, limits[next(5)], run % 2);
            free(bytes);
        }
    }
}

static void test_refusals(void) {
    uint8_t *bytes = content(1000);
    uint64_t start = 0, length = 1000, starts[4], tail;
    uint32_t lengths[4];
    uint8_t whole = 0;
    size_t count;
    cut_limits good = {64, 256, 1024};
    cut_limits bad[] = {{63, 256, 1024}, {64, 255, 1024}, {64, 256, 255}, {512, 256, 1024}, {64, 256, 1u << 29},
                        {0, 0, 0}, {64, 0, 1024}, {UINT64_MAX, UINT64_MAX, UINT64_MAX}};
#define CUT(kernel, limits, size, room) \
    cut_segments(kernel, bytes, size, &start, &length, &whole, 1, 1, limits, starts, lengths, room, &count, &tail)
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) CHECK(CUT(CUT_BEST, bad[i], 1000, 4) == CUT_RANGE);
    CHECK(CUT(CUT_BEST, good, 999, 4) == CUT_RANGE);
    CHECK(CUT(CUT_BEST, good, 1000, 0) == CUT_ROOM);
    CHECK(CUT(CUT_KERNELS, good, 1000, 4) == CUT_KERNEL);
    whole = 1;
    CHECK(CUT(CUT_SCALAR, good, 1000, 1) == CUT_OK && count == 1 && lengths[0] == 1000 && !tail);
    start = UINT64_MAX;
    CHECK(CUT(CUT_BEST, good, 1000, 4) == CUT_RANGE);
    start = 0;
    length = (uint64_t)UINT32_MAX + 1; /* never read: refused before */
    CHECK(CUT(CUT_BEST, good, UINT64_MAX, 4) == CUT_RANGE);
    CHECK(cut_segments(CUT_BEST, NULL, 0, NULL, NULL, NULL, 0, 0, good, NULL, NULL, 0, &count, &tail) == CUT_OK);
    CHECK(!count && !tail && !cut_usable(CUT_KERNELS));
    free(bytes);
}

int main(void) {
    test_kernels();
    test_refusals();
    return 0;
}
