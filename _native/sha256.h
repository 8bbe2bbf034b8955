/* SHA-256 (FIPS 180-4) of a stream and of many spans.
 *
 * The SHA instructions of a CPU wait for one another inside one message; two independent messages side by side keep
 * them busy and take little longer than one. So everything here hands out blocks from two lanes at a time. */
#ifndef CASSTORE_SHA256_H
#define CASSTORE_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define SHA256_BLOCK 64
#define SHA256_SIZE 32

/* A way to compress whole blocks into states: of one message, or of two independent ones (`blocks` of each). */
typedef struct {
    const char *name; /* "sha-ni", "armv8" or "portable" */
    void (*one)(uint32_t state[8], const uint8_t *data, size_t blocks);
    void (*two)(uint32_t a_state[8], const uint8_t *a_data, uint32_t b_state[8], const uint8_t *b_data, size_t blocks);
} sha256_engine;

/* Plain C, and the best that this CPU has (asked at run time). Both live for ever and never change. */
const sha256_engine *sha256_portable(void);
const sha256_engine *sha256_best(void);

/* A message that is still growing. `pending` holds its last length % 64 bytes. Plain data: copy it as you like. */
typedef struct {
    uint32_t state[8];
    uint64_t length; /* bytes so far; the format ends at 2^61 - 1 */
    uint8_t pending[SHA256_BLOCK];
} sha256_stream;

void sha256_start(sha256_stream *stream);
void sha256_update(const sha256_engine *engine, sha256_stream *stream, const uint8_t *data, size_t size);
/* The digest of what came so far; the stream may go on. */
void sha256_digest(const sha256_engine *engine, const sha256_stream *stream, uint8_t digest[SHA256_SIZE]);

enum {
    SHA256_OK = 0,
    SHA256_OUTSIDE = 1, /* a span reaches outside its buffer: *bad is its index, nothing was hashed */
};

/* digests + 32 * i: the SHA-256 of the lengths[i] bytes of buf at starts[i]. */
int sha256_names(const sha256_engine *engine, const uint8_t *buf, uint64_t size, const uint64_t *starts,
                 const uint64_t *lengths, size_t n, uint8_t *digests, size_t *bad);

/* sha256_update(stream, data, data_size) and sha256_names(buf, …) in one go, the one beside the other. */
int sha256_stream_and_names(const sha256_engine *engine, sha256_stream *stream, const uint8_t *data, size_t data_size,
                            const uint8_t *buf, uint64_t size, const uint64_t *starts, const uint64_t *lengths,
                            size_t n, uint8_t *digests, size_t *bad);

#endif
