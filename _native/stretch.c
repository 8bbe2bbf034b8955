/* See stretch.h. */
#include "stretch.h"

#include <stdlib.h>
#include <string.h>

int stretch_init(stretch *s, size_t tokens) {
    memset(s, 0, sizeof *s);
    s->tokens = malloc(tokens * sizeof *s->tokens);
    s->token_room = tokens;
    return s->tokens ? 0 : TRACE_MEMORY;
}

void stretch_free(stretch *s) {
    free(s->heads);
    free(s->blocks);
    free(s->tokens);
    memset(s, 0, sizeof *s);
}

void stretch_begin(stretch *s, const deflate_parser *parser) {
    s->count = s->token_count = s->open_tokens = 0;
    s->size = s->bits = 0;
    s->open = 0;
    s->start = s->open_content = deflate_parser_content(parser);
    s->first_bit = deflate_parser_bits(parser);
}

static int open_block(stretch *s, const deflate_parser *parser) {
    if (s->count == s->room) {
        size_t room = s->room ? 2 * s->room : 64;
        if (room > STRETCH_BLOCKS) return DEFLATE_ROOM;
        void *grown = realloc(s->heads, room * sizeof *s->heads);
        if (!grown) return DEFLATE_MEMORY;
        s->heads = grown;
        grown = realloc(s->blocks, room * sizeof *s->blocks);
        if (!grown) return DEFLATE_MEMORY;
        s->blocks = grown;
        s->room = room;
        for (size_t i = 0; i < s->count; i++) s->blocks[i].head = &s->heads[i]; /* they may have moved */
    }
    s->heads[s->count] = *deflate_parser_head(parser);
    s->blocks[s->count].head = &s->heads[s->count];
    s->open = 1;
    return 0;
}

static void close_block(stretch *s, const deflate_parser *parser) {
    uint64_t content = deflate_parser_content(parser);
    s->blocks[s->count].tokens = (uint32_t)(s->token_count - s->open_tokens);
    s->blocks[s->count].bytes = content - s->open_content;
    s->count++;
    s->open = 0;
    s->open_tokens = s->token_count;
    s->open_content = content;
    s->size = content - s->start;
    s->bits = deflate_parser_bits(parser) - s->first_bit;
}

int stretch_parse(stretch *s, deflate_parser *parser, deflate_io *io, uint64_t target) {
    for (;;) {
        io->tokens = s->tokens + s->token_count;
        io->token_room = s->token_room - s->token_count;
        int told = deflate_parse(parser, io);
        s->token_count = s->token_room - io->token_room;
        if (told == DEFLATE_HEAD) {
            told = open_block(s, parser);
            if (told) return told;
        } else if (told == DEFLATE_TAIL) {
            close_block(s, parser);
            if (s->size >= target) return DEFLATE_TAIL;
        } else {
            return told;
        }
    }
}
