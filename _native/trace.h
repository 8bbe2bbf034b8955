/* trace: what must be known, besides the content and an engine, to have the very deflate stream again.
 *
 * A stream is taken in stretches, each a run of whole blocks; a stretch depends on the content around it and on the few
 * numbers that its engine carries over the boundary, so that stretches are made, and made again, in any order. What the
 * engine predicts costs nothing. What it does not is a list of exceptions, in the order in which they come up:
 *
 *     token   the next token is another one
 *     cut     the block ends here, where the engine would go on
 *     join    it goes on, where the engine would end it
 *     stored  the block holds so many bytes as they are, where the engine makes something else
 *     head    the block's head is another one
 *     drop    the empty blocks that the engine would add here are not there
 *
 * A list of exceptions comes from outside: whatever it says, applying it touches no memory that it should not, makes no
 * more than it has room for, and ends in TRACE_BAD or in other bytes than wanted. */
#ifndef CASSTORE_TRACE_H
#define CASSTORE_TRACE_H

#include "engine.h"

enum {
    TRACE_OK = 0,
    TRACE_BAD = -1,    /* exceptions that contradict the content, or themselves */
    TRACE_ROOM = -2,   /* no room for what is made */
    TRACE_LOST = -3,   /* the engine cannot follow this stream */
    TRACE_MEMORY = -4,
    TRACE_VIEW = -5    /* the view is too small: it must reach `lookahead` beyond the stretch */
};

/* Bytes that grow at their end, up to a limit. */
typedef struct {
    uint8_t *bytes;
    size_t size, room;
} trace_buffer;

/* One block as the parser found it: its head, its tokens (the next `tokens` of a stretch's), its bytes of content. */
typedef struct {
    const deflate_head *head;
    uint32_t tokens;
    uint64_t bytes;
} trace_block;

/* Make the exceptions of a stretch: `blocks` of them, which begin at the engine's position. The engine stands at the
 * stretch's begin, and at its end afterwards. `exceptions` is appended to; TRACE_ROOM: there would be more than its room.
 * `scratch`: room for kind->max_tokens tokens. */
int trace_make(const engine_kind *kind, void *engine, const engine_view *view, const trace_block *blocks, size_t n,
               const uint32_t *tokens, uint32_t *scratch, trace_buffer *exceptions);

/* `n` blocks again, into `writer`; all `exceptions` must be used then. The engine stands as for trace_make. What was
 * written when it fails is of no use. `scratch`: room for the tokens of one block, at least kind->max_tokens of them. */
int trace_apply(const engine_kind *kind, void *engine, const engine_view *view, uint64_t n, const uint8_t *exceptions,
                size_t size, uint32_t *scratch, size_t scratch_room, deflate_writer *writer);

#endif
