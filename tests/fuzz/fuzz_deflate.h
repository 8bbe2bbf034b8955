/* What the targets of deflate share: an engine by a byte of the input, and views in blocks of exactly their size. */
#ifndef CASSTORE_FUZZ_DEFLATE_H
#define CASSTORE_FUZZ_DEFLATE_H

#include "fuzz_input.h"
#include "trace.h"

/* Any engine, at any of its levels: the next one that there is. */
static inline void *take_engine(input *in, const engine_kind **kind)
{
    *kind = engine_kinds[take(in) % engine_count];
    int level = take(in) % 32;
    for (int i = 0; i < 32; i++) {
        void *engine = (*kind)->open((level + i) % 32 - 2);
        if (engine)
            return engine;
    }
    CHECK(!"an engine without levels");
    return NULL;
}

/* `got` bytes and as many again as `more` says, so that content is longer than any input: what came before, changed a
 * little every now and then. */
static inline uint8_t *grown(const uint8_t *given, size_t got, size_t more, size_t *size)
{
    *size = got ? got + more : 0;
    uint8_t *bytes = block(*size);
    for (size_t i = 0; i < *size; i++)
        bytes[i] = i < got ? given[i] : (uint8_t)(bytes[i - got] + (i % (got + 251) == 0));
    return bytes;
}

/* Bytes [begin, end) of content which ends at `size`, in a block of their own. */
static inline engine_view look(const uint8_t *content, uint64_t begin, uint64_t end, uint64_t size)
{
    uint8_t *bytes = block((size_t)(end - begin));
    if (end > begin)
        memcpy(bytes, content + begin, (size_t)(end - begin));
    return (engine_view){bytes, begin, end, end == size};
}

#endif
