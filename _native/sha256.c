#include "sha256.h"
#include "spans.h"

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <arm_neon.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#define INLINE static inline __attribute__((always_inline))

/* First 32 bits of the fractional parts of the square roots of the first 8 primes (FIPS 180-4, 5.3.3). */
static const uint32_t INITIAL[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

/* … of the cube roots of the first 64 primes (4.2.2). */
static const uint32_t K[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

INLINE uint32_t load_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

INLINE void store_be32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

/* ---- portable ---- */

INLINE uint32_t rotr(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

static void portable_one(uint32_t state[8], const uint8_t *data, size_t blocks)
{
    for (; blocks; blocks--, data += SHA256_BLOCK) {
        uint32_t w[64];
        for (int t = 0; t < 16; t++)
            w[t] = load_be32(data + 4 * t);
        for (int t = 16; t < 64; t++) {
            uint32_t s0 = rotr(w[t - 15], 7) ^ rotr(w[t - 15], 18) ^ w[t - 15] >> 3;
            uint32_t s1 = rotr(w[t - 2], 17) ^ rotr(w[t - 2], 19) ^ w[t - 2] >> 10;
            w[t] = w[t - 16] + s0 + w[t - 7] + s1;
        }
        uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
        uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
        for (int t = 0; t < 64; t++) {
            uint32_t t1 = h + (rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25)) + (g ^ (e & (f ^ g))) + K[t] + w[t];
            uint32_t t2 = (rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22)) + ((a & b) | (c & (a | b)));
            h = g, g = f, f = e, e = d + t1;
            d = c, c = b, b = a, a = t1 + t2;
        }
        state[0] += a, state[1] += b, state[2] += c, state[3] += d;
        state[4] += e, state[5] += f, state[6] += g, state[7] += h;
    }
}

static void portable_two(uint32_t a_state[8], const uint8_t *a_data, uint32_t b_state[8], const uint8_t *b_data,
                         size_t blocks)
{
    portable_one(a_state, a_data, blocks);
    portable_one(b_state, b_data, blocks);
}

static const sha256_engine PORTABLE = {"portable", portable_one, portable_two};

/* Both vector engines below take four rounds at a time, and unroll the 16 fours of a block so that the schedule's four
 * registers keep their names: M(i) is the register that holds words 4i … 4i+3, and the others follow it around. */
#define FOURS(STEP) \
    STEP(0) STEP(1) STEP(2) STEP(3) STEP(4) STEP(5) STEP(6) STEP(7) \
    STEP(8) STEP(9) STEP(10) STEP(11) STEP(12) STEP(13) STEP(14) STEP(15)

/* ---- x86: SHA extensions ---- */

#if defined(__x86_64__)

#define NI __attribute__((target("sha,sse4.1,ssse3")))

/* The instructions want the eight words as (a, b, e, f) and (c, d, g, h), the first named in the highest place. */
typedef struct {
    __m128i abef, cdgh, m[4], wk;
} ni_lane;

INLINE NI void ni_load(ni_lane *x, const uint32_t state[8])
{
    __m128i abcd = _mm_loadu_si128((const __m128i *)state), efgh = _mm_loadu_si128((const __m128i *)(state + 4));
    __m128i cdab = _mm_shuffle_epi32(abcd, 0xB1), hgfe = _mm_shuffle_epi32(efgh, 0x1B);
    x->abef = _mm_alignr_epi8(cdab, hgfe, 8);
    x->cdgh = _mm_blend_epi16(hgfe, cdab, 0xF0);
}

INLINE NI void ni_store(const ni_lane *x, uint32_t state[8])
{
    __m128i feba = _mm_shuffle_epi32(x->abef, 0x1B), dchg = _mm_shuffle_epi32(x->cdgh, 0xB1);
    _mm_storeu_si128((__m128i *)state, _mm_blend_epi16(feba, dchg, 0xF0));
    _mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

/* Words 4i … 4i+3 of the schedule into m[i % 4], from the block (i < 4) or from the sixteen words before them; then
 * the round constants added. i is a constant wherever this is used. */
INLINE NI void ni_words(ni_lane *x, int i, const uint8_t *block)
{
    __m128i *m = x->m;
    if (i < 4) {
        const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
        m[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(block + 16 * i)), big_endian);
    } else {
        __m128i seven_back = _mm_alignr_epi8(m[(i + 3) % 4], m[(i + 2) % 4], 4);
        __m128i partial = _mm_add_epi32(_mm_sha256msg1_epu32(m[i % 4], m[(i + 1) % 4]), seven_back);
        m[i % 4] = _mm_sha256msg2_epu32(partial, m[(i + 3) % 4]);
    }
    x->wk = _mm_add_epi32(m[i % 4], _mm_load_si128((const __m128i *)(K + 4 * i)));
}

INLINE NI void ni_two_rounds(ni_lane *x)
{
    x->cdgh = _mm_sha256rnds2_epu32(x->cdgh, x->abef, x->wk);
    x->wk = _mm_shuffle_epi32(x->wk, 0x0E);
}

INLINE NI void ni_two_more(ni_lane *x)
{
    x->abef = _mm_sha256rnds2_epu32(x->abef, x->cdgh, x->wk);
}

static NI void ni_one(uint32_t state[8], const uint8_t *data, size_t blocks)
{
    ni_lane x;
    ni_load(&x, state);
    for (; blocks; blocks--, data += SHA256_BLOCK) {
        __m128i abef = x.abef, cdgh = x.cdgh;
#define STEP(i) ni_words(&x, i, data); ni_two_rounds(&x); ni_two_more(&x);
        FOURS(STEP)
#undef STEP
        x.abef = _mm_add_epi32(x.abef, abef);
        x.cdgh = _mm_add_epi32(x.cdgh, cdgh);
    }
    ni_store(&x, state);
}

static NI void ni_two(uint32_t a_state[8], const uint8_t *a_data, uint32_t b_state[8], const uint8_t *b_data,
                      size_t blocks)
{
    ni_lane x, y;
    ni_load(&x, a_state);
    ni_load(&y, b_state);
    for (; blocks; blocks--, a_data += SHA256_BLOCK, b_data += SHA256_BLOCK) {
        __m128i x_abef = x.abef, x_cdgh = x.cdgh, y_abef = y.abef, y_cdgh = y.cdgh;
#define STEP(i) \
        ni_words(&x, i, a_data); ni_words(&y, i, b_data); \
        ni_two_rounds(&x); ni_two_rounds(&y); \
        ni_two_more(&x); ni_two_more(&y);
        FOURS(STEP)
#undef STEP
        x.abef = _mm_add_epi32(x.abef, x_abef);
        x.cdgh = _mm_add_epi32(x.cdgh, x_cdgh);
        y.abef = _mm_add_epi32(y.abef, y_abef);
        y.cdgh = _mm_add_epi32(y.cdgh, y_cdgh);
    }
    ni_store(&x, a_state);
    ni_store(&y, b_state);
}

static const sha256_engine SHA_NI = {"sha-ni", ni_one, ni_two};

static int cpu_has_sha(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSSE3) || !(c & bit_SSE4_1))
        return 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_SHA);
}

const sha256_engine *sha256_best(void)
{
    return cpu_has_sha() ? &SHA_NI : &PORTABLE;
}

/* ---- ARMv8: SHA2 instructions ---- */

#elif defined(__aarch64__) && defined(__linux__)

#if defined(__clang__)
#define V8 __attribute__((target("sha2")))
#else
#define V8 __attribute__((target("+crypto"))) /* under this name every GCC offers the intrinsics */
#endif

typedef struct {
    uint32x4_t abcd, efgh, m[4], wk;
} v8_lane;

INLINE V8 void v8_words(v8_lane *x, int i, const uint8_t *block)
{
    uint32x4_t *m = x->m;
    if (i < 4)
        m[i] = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(block + 16 * i)));
    else
        m[i % 4] = vsha256su1q_u32(vsha256su0q_u32(m[i % 4], m[(i + 1) % 4]), m[(i + 2) % 4], m[(i + 3) % 4]);
    x->wk = vaddq_u32(m[i % 4], vld1q_u32(K + 4 * i));
}

INLINE V8 void v8_rounds(v8_lane *x)
{
    uint32x4_t abcd = x->abcd;
    x->abcd = vsha256hq_u32(x->abcd, x->efgh, x->wk);
    x->efgh = vsha256h2q_u32(x->efgh, abcd, x->wk);
}

static V8 void v8_one(uint32_t state[8], const uint8_t *data, size_t blocks)
{
    v8_lane x = {.abcd = vld1q_u32(state), .efgh = vld1q_u32(state + 4)};
    for (; blocks; blocks--, data += SHA256_BLOCK) {
        uint32x4_t abcd = x.abcd, efgh = x.efgh;
#define STEP(i) v8_words(&x, i, data); v8_rounds(&x);
        FOURS(STEP)
#undef STEP
        x.abcd = vaddq_u32(x.abcd, abcd);
        x.efgh = vaddq_u32(x.efgh, efgh);
    }
    vst1q_u32(state, x.abcd);
    vst1q_u32(state + 4, x.efgh);
}

static V8 void v8_two(uint32_t a_state[8], const uint8_t *a_data, uint32_t b_state[8], const uint8_t *b_data,
                      size_t blocks)
{
    v8_lane x = {.abcd = vld1q_u32(a_state), .efgh = vld1q_u32(a_state + 4)};
    v8_lane y = {.abcd = vld1q_u32(b_state), .efgh = vld1q_u32(b_state + 4)};
    for (; blocks; blocks--, a_data += SHA256_BLOCK, b_data += SHA256_BLOCK) {
        uint32x4_t x_abcd = x.abcd, x_efgh = x.efgh, y_abcd = y.abcd, y_efgh = y.efgh;
#define STEP(i) v8_words(&x, i, a_data); v8_words(&y, i, b_data); v8_rounds(&x); v8_rounds(&y);
        FOURS(STEP)
#undef STEP
        x.abcd = vaddq_u32(x.abcd, x_abcd);
        x.efgh = vaddq_u32(x.efgh, x_efgh);
        y.abcd = vaddq_u32(y.abcd, y_abcd);
        y.efgh = vaddq_u32(y.efgh, y_efgh);
    }
    vst1q_u32(a_state, x.abcd);
    vst1q_u32(a_state + 4, x.efgh);
    vst1q_u32(b_state, y.abcd);
    vst1q_u32(b_state + 4, y.efgh);
}

static const sha256_engine ARMV8 = {"armv8", v8_one, v8_two};

const sha256_engine *sha256_best(void)
{
    return getauxval(AT_HWCAP) & HWCAP_SHA2 ? &ARMV8 : &PORTABLE;
}

#else

const sha256_engine *sha256_best(void)
{
    return &PORTABLE;
}

#endif

const sha256_engine *sha256_portable(void)
{
    return &PORTABLE;
}

/* ---- padding, streams ---- */

/* The last one or two blocks of a message of `length` bytes, whose last length % 64 bytes are at `rest`. */
static size_t pad(uint8_t tail[2 * SHA256_BLOCK], const uint8_t *rest, uint64_t length)
{
    size_t used = length % SHA256_BLOCK, blocks = used + 9 <= SHA256_BLOCK ? 1 : 2;
    memset(tail, 0, blocks * SHA256_BLOCK);
    if (used) /* an empty span may have no address */
        memcpy(tail, rest, used);
    tail[used] = 0x80;
    store_be32(tail + blocks * SHA256_BLOCK - 8, (uint32_t)(length >> 29));
    store_be32(tail + blocks * SHA256_BLOCK - 4, (uint32_t)(length << 3));
    return blocks;
}

static void write_digest(const uint32_t state[8], uint8_t digest[SHA256_SIZE])
{
    for (int i = 0; i < 8; i++)
        store_be32(digest + 4 * i, state[i]);
}

void sha256_start(sha256_stream *stream)
{
    memset(stream, 0, sizeof *stream);
    memcpy(stream->state, INITIAL, sizeof INITIAL);
}

/* Takes from data what completes the pending block. Returns how much that was: afterwards either nothing is pending
 * or all of data was taken. */
static size_t fill_pending(const sha256_engine *engine, sha256_stream *stream, const uint8_t *data, size_t size)
{
    size_t used = stream->length % SHA256_BLOCK, room = SHA256_BLOCK - used;
    if (used == 0 || size == 0)
        return 0;
    size_t taken = size < room ? size : room;
    memcpy(stream->pending + used, data, taken);
    stream->length += taken;
    if (taken == room)
        engine->one(stream->state, stream->pending, 1);
    return taken;
}

/* What remains behind the whole blocks of data, less than one block, becomes pending. */
static void keep_rest(sha256_stream *stream, const uint8_t *data, size_t size)
{
    size_t rest = size % SHA256_BLOCK;
    if (rest)
        memcpy(stream->pending, data + (size - rest), rest);
    stream->length += size;
}

void sha256_update(const sha256_engine *engine, sha256_stream *stream, const uint8_t *data, size_t size)
{
    size_t taken = fill_pending(engine, stream, data, size);
    if (taken == size)
        return;
    data += taken, size -= taken;
    engine->one(stream->state, data, size / SHA256_BLOCK);
    keep_rest(stream, data, size);
}

void sha256_digest(const sha256_engine *engine, const sha256_stream *stream, uint8_t digest[SHA256_SIZE])
{
    uint8_t tail[2 * SHA256_BLOCK];
    uint32_t state[8];
    memcpy(state, stream->state, sizeof state);
    engine->one(state, tail, pad(tail, stream->pending, stream->length));
    write_digest(state, digest);
}

/* ---- two lanes ---- */

/* The spans to be hashed; both lanes take from it. */
typedef struct {
    const uint8_t *buf;
    const uint64_t *starts, *lengths;
    size_t n, next;
    uint8_t *digests;
} span_queue;

/* One message at a time, handed out as runs of adjacent blocks: its body where it lies, then its padded end. */
typedef struct {
    uint32_t state[8];
    const uint8_t *at; /* the run in hand */
    size_t blocks;
    enum { IDLE, STREAM, BODY, TAIL } doing;
    size_t span, tail_blocks;
    uint8_t tail[2 * SHA256_BLOCK];
    sha256_stream *stream;
} lane;

static void take_span(lane *x, span_queue *queue)
{
    x->span = queue->next++;
    uint64_t length = queue->lengths[x->span], rest = length % SHA256_BLOCK;
    x->at = queue->buf + queue->starts[x->span];
    x->blocks = length / SHA256_BLOCK;
    x->tail_blocks = pad(x->tail, x->at + (length - rest), length);
    memcpy(x->state, INITIAL, sizeof INITIAL);
    x->doing = BODY;
}

/* Sees to it that the lane has a run in hand: false if there is nothing left to do for it. */
static int refill(lane *x, span_queue *queue)
{
    while (x->blocks == 0) {
        switch (x->doing) {
        case BODY:
            x->at = x->tail;
            x->blocks = x->tail_blocks;
            x->doing = TAIL;
            break;
        case STREAM:
            memcpy(x->stream->state, x->state, sizeof x->state);
            x->doing = IDLE;
            break;
        case TAIL:
            write_digest(x->state, queue->digests + x->span * SHA256_SIZE);
            x->doing = IDLE;
            break;
        case IDLE:
            if (queue->next == queue->n)
                return 0;
            take_span(x, queue);
            break;
        }
    }
    return 1;
}

static void advance(lane *x, size_t blocks)
{
    x->at += blocks * SHA256_BLOCK;
    x->blocks -= blocks;
}

static void run_lanes(const sha256_engine *engine, lane *x, lane *y, span_queue *queue)
{
    for (;;) {
        int more_x = refill(x, queue), more_y = refill(y, queue);
        if (more_x && more_y) {
            size_t blocks = x->blocks < y->blocks ? x->blocks : y->blocks;
            engine->two(x->state, x->at, y->state, y->at, blocks);
            advance(x, blocks);
            advance(y, blocks);
        } else if (more_x || more_y) {
            lane *last = more_x ? x : y;
            engine->one(last->state, last->at, last->blocks);
            advance(last, last->blocks);
        } else {
            return;
        }
    }
}

int sha256_names(const sha256_engine *engine, const uint8_t *buf, uint64_t size, const uint64_t *starts,
                 const uint64_t *lengths, size_t n, uint8_t *digests, size_t *bad)
{
    if ((*bad = spans_misfit(starts, lengths, n, size)) < n)
        return SHA256_OUTSIDE;
    span_queue queue = {buf, starts, lengths, n, 0, digests};
    lane x = {.doing = IDLE}, y = {.doing = IDLE};
    run_lanes(engine, &x, &y, &queue);
    return SHA256_OK;
}

int sha256_stream_and_names(const sha256_engine *engine, sha256_stream *stream, const uint8_t *data, size_t data_size,
                            const uint8_t *buf, uint64_t size, const uint64_t *starts, const uint64_t *lengths,
                            size_t n, uint8_t *digests, size_t *bad)
{
    if ((*bad = spans_misfit(starts, lengths, n, size)) < n)
        return SHA256_OUTSIDE;
    size_t taken = fill_pending(engine, stream, data, data_size);
    span_queue queue = {buf, starts, lengths, n, 0, digests};
    lane x = {.doing = IDLE}, y = {.doing = IDLE};
    if (taken < data_size) {
        x.doing = STREAM;
        x.stream = stream;
        x.at = data + taken;
        x.blocks = (data_size - taken) / SHA256_BLOCK;
        memcpy(x.state, stream->state, sizeof x.state);
    }
    run_lanes(engine, &x, &y, &queue);
    if (taken < data_size)
        keep_rest(stream, data + taken, data_size - taken);
    return SHA256_OK;
}
