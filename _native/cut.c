#include "cut.h"

#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define HAVE_AVX2 1
#include <immintrin.h>
#endif

#define WINDOW 32
#define SPAN 4096 /* positions hashed at a time; more are often hashed in vain, beyond a cut and within the minimum */

/* The constants, each handed to F(x, word). */
#define LOW_WORDS(F, x)                                                               \
    F(x, 0xec38ff86u), F(x, 0x71d8ada3u), F(x, 0x48a5f75au), F(x, 0xf1b6dcd5u),       \
    F(x, 0xe6ac14c7u), F(x, 0xe80f9e93u), F(x, 0xfca5e928u), F(x, 0x286b346du),       \
    F(x, 0x645814beu), F(x, 0xe9b7d0f1u), F(x, 0xc6bb4a40u), F(x, 0x32cc11c1u),       \
    F(x, 0x38348cf1u), F(x, 0x58f9432cu), F(x, 0xbb785101u), F(x, 0xf2caf4cbu)
#define HIGH_WORDS(F, x)                                                              \
    F(x, 0x1ecb680eu), F(x, 0xc21866afu), F(x, 0x3f271862u), F(x, 0x56af1822u),       \
    F(x, 0xfab98cb8u), F(x, 0x14edc7d6u), F(x, 0xaf212dc0u), F(x, 0x92fca9d6u),       \
    F(x, 0xefe1a398u), F(x, 0x1f3ca6b6u), F(x, 0x8a11e0e0u), F(x, 0x47c7fd17u),       \
    F(x, 0xff96f1d1u), F(x, 0xb4f73a39u), F(x, 0x37d42484u), F(x, 0xbbda19e7u)
#define XOR(high, low) (high) ^ (low)
#define ROW(unused, high) LOW_WORDS(XOR, high)
#define BYTE(k, word) (uint8_t)((word) >> 8 * (k))

static const uint32_t GEAR[256] = {HIGH_WORDS(ROW, 0)};

typedef struct {
    uint32_t strict, loose; /* h below: a cut before the average, a cut from it on */
} thresholds;

/* Where a stretch of positions may be cut: bit i, position i. */
typedef struct {
    uint64_t strict[SPAN / 64], loose[SPAN / 64];
} marks;

static inline void mark(marks *found, size_t i, uint32_t h, thresholds below) {
    if (h < below.loose) found->loose[i / 64] |= (uint64_t)1 << i % 64;
    if (h < below.strict) found->strict[i / 64] |= (uint64_t)1 << i % 64;
}

/* Marks positions from .. to-1, position i being the one after byte at[i]; at[from - 32] and on are readable. */
static void scan_scalar(const uint8_t *at, size_t from, size_t to, thresholds below, marks *found) {
    const uint32_t loose = below.loose;
    uint32_t h = 0;
    for (size_t i = from; i < from + WINDOW; i++) h = (h << 1) + GEAR[at[(ptrdiff_t)i - WINDOW]];
    size_t i = from;
    for (; to - i >= 4; i += 4) {
        /* Each from the one before, but with one test and one jump for the four. */
        uint32_t h0 = (h << 1) + GEAR[at[i]], h1 = (h0 << 1) + GEAR[at[i + 1]];
        uint32_t h2 = (h1 << 1) + GEAR[at[i + 2]], h3 = (h2 << 1) + GEAR[at[i + 3]];
        h = h3;
        if (__builtin_expect((h0 < loose) | (h1 < loose) | (h2 < loose) | (h3 < loose), 0)) {
            mark(found, i, h0, below);
            mark(found, i + 1, h1, below);
            mark(found, i + 2, h2, below);
            mark(found, i + 3, h3, below);
        }
    }
    for (; i < to; i++) {
        h = (h << 1) + GEAR[at[i]];
        mark(found, i, h, below);
    }
}

/* ---- AVX2: eight streams ---------------------------------------------------------------------------------------- */

#ifdef HAVE_AVX2
#define STREAMS 8
#define STEPS 16 /* bytes of each stream at a time */

/* The k-th bytes of the constants: what pshufb looks nibbles up in. */
static const uint8_t LOW_BYTES[4][16] = {
    {LOW_WORDS(BYTE, 0)}, {LOW_WORDS(BYTE, 1)}, {LOW_WORDS(BYTE, 2)}, {LOW_WORDS(BYTE, 3)}};
static const uint8_t HIGH_BYTES[4][16] = {
    {HIGH_WORDS(BYTE, 0)}, {HIGH_WORDS(BYTE, 1)}, {HIGH_WORDS(BYTE, 2)}, {HIGH_WORDS(BYTE, 3)}};

static inline __attribute__((target("avx2"))) __m256i both_halves(const uint8_t bytes[16]) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)bytes));
}

static inline __attribute__((target("avx2"))) __m256i load_two(const uint8_t *low, const uint8_t *high) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)low)),
                                   _mm_loadu_si128((const __m128i *)high), 1);
}

/* Positions 0 .. n-1, as eight stretches side by side, one in each 32-bit lane. */
static __attribute__((target("avx2"))) void scan_avx2(const uint8_t *at, size_t n, thresholds below, marks *found) {
    size_t stretch = n / STREAMS / STEPS * STEPS;
    if (stretch < 2 * WINDOW) {
        scan_scalar(at, 0, n, below, found);
        return;
    }
    const __m256i low0 = both_halves(LOW_BYTES[0]), low1 = both_halves(LOW_BYTES[1]);
    const __m256i low2 = both_halves(LOW_BYTES[2]), low3 = both_halves(LOW_BYTES[3]);
    const __m256i high0 = both_halves(HIGH_BYTES[0]), high1 = both_halves(HIGH_BYTES[1]);
    const __m256i high2 = both_halves(HIGH_BYTES[2]), high3 = both_halves(HIGH_BYTES[3]);
    const __m256i nibble = _mm256_set1_epi8(15), limit = _mm256_set1_epi32((int)(below.loose - 1));
    __m256i h = _mm256_setzero_si256();

    for (ptrdiff_t i = -WINDOW; i < (ptrdiff_t)stretch; i += STEPS) {
        const uint8_t *from = at + i;
        /* The hardware does not foresee eight streams. What comes next is mostly what lies behind these positions. */
        _mm_prefetch((const char *)((uintptr_t)from + n + 7 * (uintptr_t)i), _MM_HINT_T0);
        _mm_prefetch((const char *)((uintptr_t)from + n + 7 * (uintptr_t)i + 64), _MM_HINT_T0);
        /* Bytes of streams 0-3 (and 4-7 in the upper half) woven: all first bytes, all second bytes, ... */
        __m256i s0 = load_two(from, from + 4 * stretch), s1 = load_two(from + stretch, from + 5 * stretch);
        __m256i s2 = load_two(from + 2 * stretch, from + 6 * stretch);
        __m256i s3 = load_two(from + 3 * stretch, from + 7 * stretch);
        __m256i a0 = _mm256_unpacklo_epi8(s0, s1), a1 = _mm256_unpackhi_epi8(s0, s1);
        __m256i b0 = _mm256_unpacklo_epi8(s2, s3), b1 = _mm256_unpackhi_epi8(s2, s3);
        __m256i woven[4] = {_mm256_unpacklo_epi16(a0, b0), _mm256_unpackhi_epi16(a0, b0),
                            _mm256_unpacklo_epi16(a1, b1), _mm256_unpackhi_epi16(a1, b1)};
        __m256i before = h, least = _mm256_set1_epi32(-1);
        for (int k = 0; k < 4; k++) {
            __m256i lo = _mm256_and_si256(woven[k], nibble);
            __m256i hi = _mm256_and_si256(_mm256_srli_epi16(woven[k], 4), nibble);
            __m256i p0 = _mm256_xor_si256(_mm256_shuffle_epi8(low0, lo), _mm256_shuffle_epi8(high0, hi));
            __m256i p1 = _mm256_xor_si256(_mm256_shuffle_epi8(low1, lo), _mm256_shuffle_epi8(high1, hi));
            __m256i p2 = _mm256_xor_si256(_mm256_shuffle_epi8(low2, lo), _mm256_shuffle_epi8(high2, hi));
            __m256i p3 = _mm256_xor_si256(_mm256_shuffle_epi8(low3, lo), _mm256_shuffle_epi8(high3, hi));
            __m256i q0 = _mm256_unpacklo_epi8(p0, p1), q1 = _mm256_unpackhi_epi8(p0, p1);
            __m256i r0 = _mm256_unpacklo_epi8(p2, p3), r1 = _mm256_unpackhi_epi8(p2, p3);
#define STEP(g)                                            \
    h = _mm256_add_epi32(_mm256_add_epi32(h, h), g);       \
    least = _mm256_min_epu32(least, h);
            STEP(_mm256_unpacklo_epi16(q0, r0))
            STEP(_mm256_unpackhi_epi16(q0, r0))
            STEP(_mm256_unpacklo_epi16(q1, r1))
            STEP(_mm256_unpackhi_epi16(q1, r1))
#undef STEP
        }
        __m256i hit = _mm256_cmpeq_epi32(_mm256_min_epu32(least, limit), least);
        uint32_t lanes = (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(hit));
        if (__builtin_expect(lanes && i >= 0, 0)) {
            uint32_t start[STREAMS];
            _mm256_storeu_si256((__m256i *)start, before);
            for (; lanes; lanes &= lanes - 1) {
                size_t lane = (size_t)__builtin_ctz(lanes), position = lane * stretch + (size_t)i;
                uint32_t g = start[lane];
                for (size_t k = 0; k < STEPS; k++, position++) {
                    g = (g << 1) + GEAR[at[position]];
                    if (g < below.loose) mark(found, position, g, below);
                }
            }
        }
    }
    scan_scalar(at, STREAMS * stretch, n, below, found);
}
#endif

/* ---- cutting ---------------------------------------------------------------------------------------------------- */

int cut_usable(cut_kernel kernel) {
    switch (kernel) {
    case CUT_BEST:
    case CUT_SCALAR:
        return 1;
#ifdef HAVE_AVX2
    case CUT_AVX2:
        return __builtin_cpu_supports("avx2") != 0;
#endif
    default:
        return 0;
    }
}

/* A segment under the knife. Positions are lengths from its start; those in [from, to) are marked. */
typedef struct {
    cut_kernel kernel;
    thresholds below;
    const uint8_t *bytes;
    uint64_t length, from, to;
    marks found;
} cutter;

static void scan_from(cutter *c, uint64_t position) {
    uint64_t n = c->length + 1 - position < SPAN ? c->length + 1 - position : SPAN;
    memset(&c->found, 0, sizeof c->found);
    c->from = position;
    c->to = position + n;
#ifdef HAVE_AVX2
    if (c->kernel == CUT_AVX2) {
        scan_avx2(c->bytes + position - 1, n, c->below, &c->found);
        return;
    }
#endif
    scan_scalar(c->bytes + position - 1, 0, n, c->below, &c->found);
}

/* The first marked position in [position, end), else end. position >= 64; end <= length + 1. */
static uint64_t first_mark(cutter *c, uint64_t position, uint64_t end, int strict) {
    while (position < end) {
        if (position >= c->to) scan_from(c, position);
        const uint64_t *words = strict ? c->found.strict : c->found.loose;
        uint64_t stop = end < c->to ? end : c->to;
        while (position < stop) {
            uint64_t i = position - c->from;
            uint64_t word = words[i / 64] >> i % 64;
            if (word) {
                position += (uint64_t)__builtin_ctzll(word);
                return position < end ? position : end;
            }
            position += 64 - i % 64;
        }
        if (position > stop) position = stop;
    }
    return end;
}

/* Where the chunk that starts at `start` ends; 0: not to be told before more bytes are there. */
static uint64_t chunk_end(cutter *c, uint64_t start, cut_limits limits, int final) {
    uint64_t rest = c->length - start;
    if (rest > limits.minimum || (rest == limits.minimum && !final)) {
        uint64_t most = rest < limits.maximum ? rest + 1 : limits.maximum; /* lengths tried: below this */
        uint64_t middle = most < limits.average ? most : limits.average;
        uint64_t end = first_mark(c, start + limits.minimum, start + middle, 1);
        if (end < start + middle) return end;
        if (middle < most) {
            end = first_mark(c, end, start + most, 0);
            if (end < start + most) return end;
        }
        if (rest >= limits.maximum) return start + limits.maximum;
    }
    return final ? c->length : 0;
}

static int limits_ok(cut_limits l) {
    return CUT_MINIMUM <= l.minimum && l.minimum <= l.average && l.average <= l.maximum && l.maximum <= CUT_MAXIMUM &&
           (l.average & (l.average - 1)) == 0;
}

int cut_segments(cut_kernel kernel, const uint8_t *bytes, uint64_t size, const uint64_t *starts,
                 const uint64_t *lengths, const uint8_t *whole, size_t n, int final, cut_limits limits,
                 uint64_t *chunk_starts, uint32_t *chunk_lengths, size_t room, size_t *count, uint64_t *tail) {
    *count = 0;
    *tail = 0;
    if (!limits_ok(limits)) return CUT_RANGE;
    if (kernel == CUT_BEST) kernel = cut_usable(CUT_AVX2) ? CUT_AVX2 : CUT_SCALAR;
    if (!cut_usable(kernel)) return CUT_KERNEL;
    for (size_t i = 0; i < n; i++) {
        if (starts[i] > size || lengths[i] > size - starts[i]) return CUT_RANGE;
        if (whole[i] && lengths[i] > UINT32_MAX) return CUT_RANGE;
    }
    int bits = __builtin_ctzll(limits.average);
    cutter c = {.kernel = kernel};
    c.below.strict = (uint32_t)1 << (30 - bits);
    c.below.loose = (uint32_t)1 << (34 - bits);
    for (size_t i = 0; i < n; i++) {
        int ends = final || i + 1 < n;
        c.bytes = bytes + starts[i];
        c.length = lengths[i];
        c.from = c.to = 0;
        for (uint64_t start = 0; start < c.length;) {
            uint64_t end = whole[i] ? (ends ? c.length : 0) : chunk_end(&c, start, limits, ends);
            if (!end) {
                *tail = c.length - start;
                break;
            }
            if (*count == room) return CUT_ROOM;
            chunk_starts[*count] = starts[i] + start;
            chunk_lengths[(*count)++] = (uint32_t)(end - start);
            start = end;
        }
    }
    return CUT_OK;
}
