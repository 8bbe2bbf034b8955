/* An engine as a compressor: see engine.h. */
#include "engine.h"

#include <stdlib.h>
#include <string.h>

size_t engine_encode(const engine_kind *kind, int level, const uint8_t *content, size_t n, uint8_t *out, size_t room) {
    static const uint32_t nothing[ENGINE_STATE];
    engine_view view = {content, 0, n, 1};
    deflate_writer writer = {out, room, 0, 0, 0};
    size_t most = kind->max_tokens, size = 0;
    uint32_t *tokens = malloc(most * sizeof *tokens);
    void *engine = kind->open(level);
    if (!tokens || !engine || kind->seek(engine, &view, 0, nothing) < 0) goto out;
    for (int done = 0; !done;) {
        uint64_t start = kind->position(engine);
        size_t made = 0, more = 0;
        int told = kind->run(engine, &view, NULL, tokens, most, &made);
        for (; told == ENGINE_TOKENS; made += more) { /* a block of more than that */
            uint32_t *larger = realloc(tokens, 2 * most * sizeof *tokens);
            if (!larger) goto out;
            tokens = larger;
            most *= 2;
            told = kind->run(engine, &view, NULL, tokens + made, most - made, &more);
        }
        if (told < 0) goto out;
        done = told == ENGINE_DONE;
        unsigned follows = 0;
        for (int first = 1; first || follows; first = 0) {
            deflate_head head;
            deflate_codes codes;
            memset(&head, 0, sizeof head);
            if (!first) made = 0, start = kind->position(engine);
            unsigned empty = 0;
            if (kind->block(engine, &view, tokens, made, start, done, &head, &empty) < 0) goto out;
            follows = first ? empty : follows - 1;
            deflate_write_head(&writer, &head);
            if (head.type == DEFLATE_STORED) {
                deflate_write_bytes(&writer, content + start, head.stored);
            } else {
                deflate_codes_make(&codes, head.lengths);
                deflate_write_tokens(&writer, &codes, tokens, made);
                deflate_write_end(&writer, &codes);
            }
        }
    }
    deflate_write_align(&writer, 0);
    size = writer.lost ? room + 1 : room - writer.room;
out:
    if (engine) kind->close(engine);
    free(tokens);
    return size;
}
