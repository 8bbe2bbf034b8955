/* cut: content-defined chunks, the same wherever the same content lies.
 *
 * The cutter "gear32n", standardised for ever by tests/golden/gear32n.json:
 *
 *   G[b] = LOW[b & 15] ^ HIGH[b >> 4]                    sixteen 32-bit constants each
 *   h    = sum of G[byte j places back] << j  (mod 2^32)  over the last 32 bytes, so (h << 1) + G[b] byte by byte
 *   A chunk ends at the first length L, minimum <= L < maximum, where h of its last 32 bytes is below
 *       2^(32 - log2(average) - 2)   while L <  average,
 *       2^(32 - log2(average) + 2)   from L = average on;
 *   else at maximum; else where the payload ends.
 *
 * Where a payload's rest is <= minimum it is the last chunk. h is never reset and does not know of chunk ends, so
 * stretches can be hashed apart from each other; minimum >= 64 keeps the window within the chunk.
 *
 * LOW and HIGH are the 32 little-endian words of SHA-256("casstore gear32n 6 " + k), k = "0", "1", "2", "3": 6 is the
 * first number for which all G differ and a run of one byte, any byte, never cuts at averages of 1 KiB and more (its h
 * is -G[b], at least 2^24). Zero-filled stretches so become equal chunks of the maximum.
 *
 * All kernels give the same cuts. */
#ifndef CASSTORE_CUT_H
#define CASSTORE_CUT_H

#include <stddef.h>
#include <stdint.h>

#define CUT_MINIMUM 64u          /* least `minimum` */
#define CUT_MAXIMUM (1u << 28) /* greatest `maximum` */

enum {
    CUT_OK = 0,
    CUT_RANGE = -1,  /* limits out of order, or a segment outside the buffer or too long for one chunk */
    CUT_ROOM = -2,   /* more chunks than `room` */
    CUT_KERNEL = -3  /* this CPU does not have that kernel */
};

typedef enum { CUT_BEST, CUT_SCALAR, CUT_AVX2, CUT_KERNELS } cut_kernel;

/* 64 <= minimum <= average <= maximum <= 2^28, average a power of two. */
typedef struct {
    uint64_t minimum, average, maximum;
} cut_limits;

/* Can this CPU run it? */
int cut_usable(cut_kernel kernel);

/* Cut the n segments bytes[starts[i], + lengths[i]), each one payload, or a payload from one of its cuts on, in order.
 * whole[i]: one chunk whatever its length (< 2^32). Writes *count chunks (as spans of `bytes`) to chunk_starts and
 * chunk_lengths. An empty segment makes none.
 * final == 0: the last segment may go on beyond the buffer. Only cuts that no further byte can change are made there;
 * *tail is what is left uncut at its end, to be given again with what follows. */
int cut_segments(cut_kernel kernel, const uint8_t *bytes, uint64_t size, const uint64_t *starts,
                 const uint64_t *lengths, const uint8_t *whole, size_t n, int final, cut_limits limits,
                 uint64_t *chunk_starts, uint32_t *chunk_lengths, size_t room, size_t *count, uint64_t *tail);

#endif
