/* stretch: a run of whole blocks of a deflate stream, parsed and kept, so that an engine can be held against them. */
#ifndef CASSTORE_STRETCH_H
#define CASSTORE_STRETCH_H

#include "trace.h"

typedef struct {
    deflate_head *heads;
    trace_block *blocks;
    size_t count, room;
    uint32_t *tokens;
    size_t token_count, token_room;
    uint64_t start, size;       /* content: where it begins, bytes of its whole blocks */
    uint64_t first_bit, bits;   /* of the stream: where it begins, how many there are in its whole blocks */
    uint64_t open_content;      /* where the block that is open began */
    size_t open_tokens;
    int open;
} stretch;

/* Blocks of a stretch, at most: a block of nothing is 10 bits of a stream, but takes a whole head here. A power of two. */
#define STRETCH_BLOCKS 32768u

/* 0, or TRACE_MEMORY. `tokens`: most that it will hold. */
int stretch_init(stretch *s, size_t tokens);
void stretch_free(stretch *s);
/* Empty; the next block is where the parser stands, which must be between blocks. */
void stretch_begin(stretch *s, const deflate_parser *parser);

/* Parse on (io's `tokens` are the stretch's own business) until DEFLATE_TAIL: at the end of a block, and there are
 * `target` bytes of content or more; or what deflate_parse says otherwise but for HEAD, of which DEFLATE_ROOM also means
 * that a block has more tokens than there is room for, or that there are too many blocks. DEFLATE_MEMORY. */
int stretch_parse(stretch *s, deflate_parser *parser, deflate_io *io, uint64_t target);

#endif
