#include "spans.h"

#include <string.h>

int spans_copy(uint8_t *dst, uint64_t dst_size, const uint64_t *dst_starts, const spans_source *sources,
               size_t source_count, const uint32_t *which, const uint64_t *src_starts, const uint64_t *lengths,
               size_t n, size_t *bad)
{
    for (size_t i = 0; i < n; i++) {
        *bad = i;
        if (which[i] >= source_count)
            return SPANS_NO_SOURCE;
        if (!span_fits(src_starts[i], lengths[i], sources[which[i]].size))
            return SPANS_OUTSIDE_SOURCE;
        if (!span_fits(dst_starts[i], lengths[i], dst_size))
            return SPANS_OUTSIDE_TARGET;
    }
    for (size_t i = 0; i < n; i++)
        if (lengths[i]) /* an empty buffer may have no address, and memmove wants one even for nothing */
            memmove(dst + dst_starts[i], sources[which[i]].data + src_starts[i], lengths[i]);
    return SPANS_OK;
}

int spans_equal(const uint8_t *a, uint64_t a_size, const uint64_t *a_starts, const uint8_t *b, uint64_t b_size,
                const uint64_t *b_starts, const uint64_t *lengths, size_t n, size_t *differing, size_t *bad)
{
    if ((*bad = spans_misfit(a_starts, lengths, n, a_size)) < n)
        return SPANS_OUTSIDE_SOURCE;
    if ((*bad = spans_misfit(b_starts, lengths, n, b_size)) < n)
        return SPANS_OUTSIDE_TARGET;
    size_t i = 0;
    while (i < n && (lengths[i] == 0 || memcmp(a + a_starts[i], b + b_starts[i], lengths[i]) == 0))
        i++;
    *differing = i;
    return SPANS_OK;
}
