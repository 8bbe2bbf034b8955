/* Spans: pieces of buffers, given as arrays of starts and lengths. Copying and comparing many of them in one call.
 *
 * Nothing here allocates. Every span is checked against its buffer before the first byte is touched. */
#ifndef CASSTORE_SPANS_H
#define CASSTORE_SPANS_H

#include <stddef.h>
#include <stdint.h>

/* Does [start, start + length) lie in a buffer of `size` bytes? Written so that nothing can overflow. */
static inline int span_fits(uint64_t start, uint64_t length, uint64_t size)
{
    return start <= size && length <= size - start;
}

/* The index of the first span that does not fit a buffer of `size` bytes; n if all do. */
static inline size_t spans_misfit(const uint64_t *starts, const uint64_t *lengths, size_t n, uint64_t size)
{
    size_t i = 0;
    while (i < n && span_fits(starts[i], lengths[i], size))
        i++;
    return i;
}

typedef struct {
    const uint8_t *data;
    uint64_t size;
} spans_source;

enum {
    SPANS_OK = 0,
    SPANS_NO_SOURCE = 1,       /* which[i] is not the number of a source */
    SPANS_OUTSIDE_SOURCE = 2,
    SPANS_OUTSIDE_TARGET = 3,
};

/* Piece i: lengths[i] bytes from sources[which[i]] at src_starts[i] to dst at dst_starts[i], in order of i (later pieces
 * overwrite earlier ones; a source may overlap dst). On an error nothing was copied and *bad is the piece. */
int spans_copy(uint8_t *dst, uint64_t dst_size, const uint64_t *dst_starts, const spans_source *sources,
               size_t source_count, const uint32_t *which, const uint64_t *src_starts, const uint64_t *lengths,
               size_t n, size_t *bad);

/* *differing: the index of the first piece whose bytes differ, n if none does. On an error (SPANS_OUTSIDE_SOURCE for a,
 * SPANS_OUTSIDE_TARGET for b) nothing was compared and *bad is the piece. */
int spans_equal(const uint8_t *a, uint64_t a_size, const uint64_t *a_starts, const uint8_t *b, uint64_t b_size,
                const uint64_t *b_starts, const uint64_t *lengths, size_t n, size_t *differing, size_t *bad);

#endif
