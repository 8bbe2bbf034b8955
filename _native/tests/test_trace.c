/* What exceptions may cost: an engine is asked for no more than the blocks that it is held against, and does not begin
 * anew more often than content pays for. The engine here is no encoder: every byte a literal, blocks as they are asked
 * for, and it counts. */
#include "check.h"
#include "../stretch.h"

#define CONTENT 200000u

typedef struct {
    uint64_t position, asked, moves;
} counter;

static counter counts;

static void *open_counter(int level) { return level ? NULL : &counts; }
static void close_counter(void *engine) { (void)engine; }
static int seek(void *engine, const engine_view *view, uint64_t position, const uint32_t state[ENGINE_STATE])
{
    (void)view, (void)state;
    ((counter *)engine)->position = position;
    ((counter *)engine)->moves++;
    return 0;
}
static void save(const void *engine, uint32_t state[ENGINE_STATE])
{
    (void)engine;
    memset(state, 0, ENGINE_STATE * sizeof *state);
}
static uint64_t position(const void *engine) { return ((const counter *)engine)->position; }
static int run_counter(void *engine, const engine_view *view, const uint32_t *actual, uint32_t *tokens, size_t max,
                       size_t *made)
{
    counter *c = engine;
    for (*made = 0; *made < max; ++*made) {
        if (c->position == view->end)
            return view->last ? ENGINE_DONE : ENGINE_MORE;
        tokens[*made] = view->bytes[c->position - view->begin];
        if (actual && tokens[*made] != actual[*made])
            return ENGINE_MISS;
        c->position++;
        c->asked++;
    }
    return c->position == view->end && view->last ? ENGINE_DONE : ENGINE_TOKENS;
}
static int commit(void *engine, const engine_view *view, uint32_t token)
{
    (void)view;
    ((counter *)engine)->position += deflate_length(token);
    return 0;
}
static int cut(void *engine)
{
    (void)engine;
    return 0;
}
static int block_of(void *engine, const engine_view *view, const uint32_t *tokens, size_t n, uint64_t start, int done,
                    deflate_head *head, unsigned *follows)
{
    (void)engine, (void)view, (void)tokens, (void)n, (void)start;
    head->type = DEFLATE_FIXED;
    head->final = (uint8_t)done;
    deflate_fixed_lengths(head->lengths);
    *follows = 0;
    return 0;
}

static const engine_kind kind = {
    .name = "counter",
    .version = 1,
    .max_tokens = 100000,
    .open = open_counter,
    .close = close_counter,
    .seek = seek,
    .save = save,
    .position = position,
    .run = run_counter,
    .commit = commit,
    .cut = cut,
    .block = block_of,
};

static uint8_t content[CONTENT];
static uint32_t scratch[CONTENT];

/* n stored blocks of `bytes` each, and what is left in a fixed one; what trace_make says. */
static int make(size_t n, uint32_t bytes, trace_buffer *out)
{
    deflate_head *heads = block((n + 1) * sizeof *heads);
    trace_block *blocks = block((n + 1) * sizeof *blocks);
    uint32_t *tokens = block(CONTENT * sizeof *tokens);
    uint32_t left = CONTENT - (uint32_t)n * bytes;
    memset(heads, 0, (n + 1) * sizeof *heads);
    for (size_t i = 0; i <= n; i++) {
        heads[i].stored = (uint16_t)bytes;
        blocks[i] = (trace_block){&heads[i], i == n ? left : 0, i == n ? left : bytes};
    }
    heads[n].type = DEFLATE_FIXED;
    heads[n].final = 1;
    deflate_fixed_lengths(heads[n].lengths);
    for (uint32_t i = 0; i < left; i++)
        tokens[i] = content[CONTENT - left + i];
    engine_view view = {content, 0, CONTENT, 1};
    counts = (counter){0, 0, 0};
    int told = trace_make(&kind, &counts, &view, blocks, n + 1, tokens, scratch, out);
    free(heads);
    free(blocks);
    free(tokens);
    return told;
}

static int apply(size_t n, const trace_buffer *exceptions, uint8_t *out, size_t room, size_t *size)
{
    engine_view view = {content, 0, CONTENT, 1};
    deflate_writer writer = {out, room, 0, 0, 0};
    counts = (counter){0, 0, 0};
    int told = trace_apply(&kind, &counts, &view, n, exceptions->bytes, exceptions->size, scratch, CONTENT, &writer);
    deflate_write_align(&writer, 0);
    *size = room - writer.room;
    return told;
}

static void test_stored(void)
{
    static uint8_t bytes[1 << 20], made[1 << 20];
    const struct {
        size_t n;
        uint32_t each;
        int told;
    } cases[] = {
        {64, 10, TRACE_OK},    {65, 10, TRACE_LOST},  {5000, 10, TRACE_LOST}, {40, 5000, TRACE_OK},
        {5000, 0, TRACE_OK},   {180, 1000, TRACE_LOST}, {1, 65535, TRACE_OK},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        trace_buffer out = {bytes, 0, sizeof bytes};
        int told = make(cases[i].n, cases[i].each, &out);
        CHECK(told == cases[i].told);
        CHECK(counts.asked <= 2 * CONTENT); /* not all content for each block */
        CHECK(counts.moves <= 64 + CONTENT / 4096 && (cases[i].each || !counts.moves));
        if (told)
            continue;
        size_t size;
        CHECK(apply(cases[i].n + 1, &out, made, sizeof made, &size) == TRACE_OK);
        size_t whole = size;
        CHECK(whole > CONTENT / 2 && whole + 1000 < sizeof made);
        CHECK(!made[0] && made[1] == (uint8_t)cases[i].each && made[3] == (uint8_t)~cases[i].each);
        if (cases[i].each)
            CHECK(!memcmp(made + 5, content, cases[i].each));
        /* Less room than it takes (the last byte is not whole yet), and blocks without end. */
        CHECK(apply(cases[i].n + 1, &out, made, whole - 2, &size) == TRACE_ROOM);
        CHECK(apply((size_t)1 << 60, &out, made, whole + 1000, &size) == TRACE_ROOM);
    }
}

/* As a hostile trace says it: moves that nothing pays for. */
static void test_moves(void)
{
    static uint8_t bytes[100 * 5], made[1 << 12];
    trace_buffer out = {bytes, 0, 0};
    for (size_t n = 1; n <= 100; n++) {
        const uint8_t one[5] = {n > 1, 0, 3, 1, DEFLATE_STORED};
        memcpy(bytes + out.size, one, 5);
        out.size += 5;
        size_t size;
        int told = apply(n, &out, made, sizeof made, &size);
        CHECK(told == (n <= 64 ? TRACE_OK : TRACE_LOST));
    }
}

/* Blocks of nothing take heads: there is an end to them. */
static void test_blocks(void)
{
    enum { BLOCKS = STRETCH_BLOCKS + 8 };
    static uint8_t stream[BLOCKS * 2];
    deflate_writer writer = {stream, sizeof stream, 0, 0, 0};
    for (size_t i = 0; i < BLOCKS; i++)
        deflate_write_bits(&writer, 2, 10);
    deflate_write_align(&writer, 0);
    deflate_parser *parser = deflate_parser_new();
    stretch s;
    CHECK(parser && !stretch_init(&s, 16));
    stretch_begin(&s, parser);
    deflate_io io = {stream, sizeof stream - writer.room, 1, content, CONTENT, NULL, 0};
    CHECK(stretch_parse(&s, parser, &io, 1) == DEFLATE_ROOM && s.count == STRETCH_BLOCKS);
    stretch_free(&s);
    deflate_parser_free(parser);
}

int main(void)
{
    uint64_t seed = 7;
    fill(content, sizeof content, &seed);
    test_stored();
    test_moves();
    test_blocks();
    return 0;
}
