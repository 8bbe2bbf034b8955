/* Fuzzing deflate: a stream is parsed, in one piece and in pieces of any size, and made again by any engine.
 *
 * The stream is the input as it is; or what an engine makes of the input; or one made of any tokens, blocks and heads
 * that the input chooses, which no encoder would make. Checked: cuts make no difference; from an engine's exceptions
 * (trace_make) come the same bits (trace_apply), stretch by stretch, in views of just the size that they are told to
 * have; an engine that starts from its saved state does what the one that went on does. */
#include "fuzz_deflate.h"
#include "stretch.h"

#define CONTENT (1u << 18)
#define TOKENS (1u << 17)
#define STRETCHES 6
#define EXCEPTIONS (1u << 17)
#define STREAM (1u << 18)

typedef struct {
    uint8_t *bytes;
    size_t size;
} bits;

/* ---- streams ---------------------------------------------------------------------------------------------------- */

/* A dynamic head with codes for everything, longer for some as the input says. */
static void any_head(input *in, deflate_head *head)
{
    uint32_t frequencies[DEFLATE_LITERALS];
    head->literal_count = 286;
    head->distance_count = 30;
    head->code_count = 19;
    for (unsigned i = 0; i < 286; i++)
        frequencies[i] = 1 + i % 7 * (take(in) & 15);
    engine_go_lengths(frequencies, 286, 15, head->lengths);
    for (unsigned i = 0; i < 30; i++)
        frequencies[i] = 1 + (take(in) & 63);
    engine_go_lengths(frequencies, 30, 15, head->lengths + DEFLATE_LITERALS);
    for (unsigned i = 0; i < 16; i++)
        head->code_lengths[i] = 4;
    for (unsigned i = 0; i < 316; i++)
        head->ops[i][0] = head->lengths[i < 286 ? i : DEFLATE_LITERALS + i - 286];
    head->op_count = 316;
}

/* Tokens of content [at, end): literals, and matches as they come. */
static size_t any_tokens(input *in, const uint8_t *content, size_t at, size_t end, uint32_t *tokens)
{
    size_t n = 0;
    while (at < end) {
        uint8_t choice = take(in);
        size_t length = 0, distance = 1 + (choice & 8 ? take_number(in, 2) & 0x7fff : take(in));
        if (choice & 3 && distance <= at)
            while (length < DEFLATE_MAX_MATCH && at + length < end && content[at + length] == content[at + length - distance])
                length++;
        if (length > DEFLATE_MIN_MATCH && choice & 4)
            length = DEFLATE_MIN_MATCH + take(in) % (length - DEFLATE_MIN_MATCH + 1);
        if (length >= DEFLATE_MIN_MATCH) {
            tokens[n] = deflate_match((uint32_t)length, (uint32_t)distance);
            if (length == DEFLATE_MAX_MATCH && choice & 16)
                tokens[n] |= DEFLATE_LONG;
            n++;
            at += length;
        } else {
            tokens[n++] = content[at++];
        }
    }
    return n;
}

static bits any_stream(input *in, const uint8_t *content, size_t size)
{
    bits made = {block(STREAM), 0};
    deflate_writer writer = {made.bytes, STREAM, 0, 0, 0};
    uint32_t *tokens = block((size + 1) * sizeof *tokens);
    int final = 0;
    for (size_t at = 0; !final && !writer.lost;) {
        uint8_t choice = take(in);
        size_t end = at + (choice & 4 ? take_number(in, 2) : take(in));
        end = end < size && in->left ? end : size;
        deflate_head head;
        memset(&head, 0, sizeof head);
        head.type = choice % 4 % 3;
        if (head.type == DEFLATE_STORED && end - at > 0xffff)
            end = at + 0xffff;
        final = end == size && (!(choice & 8) || !in->left);
        head.final = (uint8_t)final;
        if (head.type == DEFLATE_STORED) {
            head.padding = choice >> 4;
            head.stored = (uint16_t)(end - at);
        } else if (head.type == DEFLATE_FIXED) {
            deflate_fixed_lengths(head.lengths);
        } else {
            any_head(in, &head);
        }
        deflate_write_head(&writer, &head);
        if (head.type == DEFLATE_STORED) {
            deflate_write_bytes(&writer, content + at, end - at);
        } else {
            deflate_codes codes;
            deflate_codes_make(&codes, head.lengths);
            deflate_write_tokens(&writer, &codes, tokens, any_tokens(in, content, at, end, tokens));
            deflate_write_end(&writer, &codes);
        }
        at = end;
    }
    deflate_write_align(&writer, take(in));
    made.size = STREAM - writer.room;
    free(tokens);
    return made;
}

static bits engine_stream(input *in, const uint8_t *content, size_t size)
{
    const engine_kind *kind = engine_kinds[take(in) % engine_count];
    int level = take(in) % 32;
    size_t room = size + size / 8 + 4096, got = 0;
    bits made = {block(room), 0};
    for (int i = 0; !got && i < 32; i++)
        got = engine_encode(kind, (level + i) % 32 - 2, content, size, made.bytes, room);
    CHECK(got && got <= room);
    made.size = got;
    return made;
}

/* ---- parsing ---------------------------------------------------------------------------------------------------- */

typedef struct {
    stretch all[STRETCHES];
    size_t count;
    int told; /* last */
    uint8_t *content;
    uint64_t size;
    uint64_t bits;
    unsigned padding, surplus;
} parsed;

/* `step`: bytes of input at a time, in blocks of just that size; 0: all. */
static void parse(parsed *p, bits stream, size_t step, uint64_t target)
{
    deflate_parser *parser = deflate_parser_new();
    CHECK(parser);
    memset(p, 0, sizeof *p);
    p->content = block(CONTENT);
    uint8_t *piece = NULL;
    size_t seen = 0;
    deflate_io io = {NULL, 0, 0, p->content, CONTENT, NULL, 0};
    for (int told = DEFLATE_TAIL; told == DEFLATE_TAIL && p->count < STRETCHES;) {
        stretch *s = &p->all[p->count++];
        CHECK(!stretch_init(s, TOKENS));
        stretch_begin(s, parser);
        while ((told = stretch_parse(s, parser, &io, target)) == DEFLATE_INPUT) {
            CHECK(!io.input_left && !io.last);
            size_t n = step && step < stream.size - seen ? step : stream.size - seen;
            free(piece);
            piece = block(n);
            if (n)
                memcpy(piece, stream.bytes + seen, n);
            io.input = piece;
            io.input_left = n;
            seen += n;
            io.last = seen == stream.size;
        }
        p->told = told;
    }
    p->size = deflate_parser_content(parser);
    CHECK(io.content == p->content + p->size && p->size + io.content_room == CONTENT);
    p->bits = deflate_parser_bits(parser);
    CHECK(p->bits <= 8 * (uint64_t)seen);
    if (p->told == DEFLATE_END) {
        p->padding = deflate_parser_padding(parser);
        p->surplus = deflate_parser_surplus(parser);
        CHECK((p->bits + 7) / 8 + p->surplus == seen - io.input_left);
    }
    CHECK(p->told == DEFLATE_BAD ? *deflate_parser_error(parser) != 0 : 1);
    free(piece);
    deflate_parser_free(parser);
}

static void forget(parsed *p)
{
    for (size_t i = 0; i < p->count; i++)
        stretch_free(&p->all[i]);
    free(p->content);
}

static void check_same(const parsed *a, const parsed *b)
{
    CHECK(a->told == b->told && a->count == b->count && a->padding == b->padding);
    CHECK(a->size == b->size && !memcmp(a->content, b->content, (size_t)a->size));
    for (size_t i = 0; i < a->count; i++) {
        const stretch *s = &a->all[i], *t = &b->all[i];
        CHECK(s->count == t->count && s->token_count == t->token_count && s->size == t->size && s->bits == t->bits &&
              s->start == t->start && s->first_bit == t->first_bit);
        CHECK(!memcmp(s->tokens, t->tokens, s->token_count * sizeof *s->tokens));
        uint64_t bytes = 0;
        for (size_t k = 0; k < s->count; k++) {
            CHECK(!memcmp(&s->heads[k], &t->heads[k], sizeof s->heads[k]) && s->blocks[k].bytes == t->blocks[k].bytes &&
                  s->blocks[k].tokens == t->blocks[k].tokens && s->blocks[k].head == &s->heads[k]);
            bytes += s->blocks[k].bytes;
        }
        CHECK(bytes == s->size);
    }
}

/* ---- made again -------------------------------------------------------------------------------------------------- */

static engine_view around(const parsed *p, const engine_kind *kind, const stretch *s)
{
    uint64_t begin = s->start > kind->history ? s->start - kind->history : 0;
    uint64_t end = s->start + s->size, ahead = p->size - end;
    return look(p->content, begin, end + (ahead < kind->lookahead ? ahead : kind->lookahead), p->size);
}

static void check_bits(bits stream, const stretch *s, const uint8_t *made)
{
    unsigned phase = s->first_bit & 7;
    const uint8_t *ours = stream.bytes + s->first_bit / 8;
    for (uint64_t bit = phase; bit < phase + s->bits;) {
        if (!(bit & 7) && phase + s->bits - bit >= 8) {
            CHECK(made[bit >> 3] == ours[bit >> 3]);
            bit += 8;
        } else {
            CHECK((made[bit >> 3] >> (bit & 7) & 1) == (ours[bit >> 3] >> (bit & 7) & 1));
            bit++;
        }
    }
}

/* All whole blocks of the stretches, by one engine; the other one makes them again. */
static void make_again(const parsed *p, bits stream, const engine_kind *kind, void *engine, void *other)
{
    size_t scratch_room = TOKENS > kind->max_tokens ? TOKENS : kind->max_tokens;
    uint32_t *scratch = block(scratch_room * sizeof *scratch);
    static const uint32_t nothing[ENGINE_STATE];
    uint64_t other_at = 0;
    for (size_t i = 0; i < p->count; i++) {
        const stretch *s = &p->all[i];
        engine_view view = around(p, kind, s);
        uint32_t state[ENGINE_STATE];
        if (!i) {
            CHECK(kind->seek(engine, &view, 0, nothing) >= 0 && kind->seek(other, &view, 0, nothing) >= 0);
        }
        CHECK(kind->position(engine) == s->start);
        kind->save(engine, state);
        trace_buffer out = {block(EXCEPTIONS), 0, EXCEPTIONS};
        int told = trace_make(kind, engine, &view, s->blocks, s->count, s->tokens, scratch, &out);
        CHECK(told == TRACE_OK || told == TRACE_LOST || told == TRACE_ROOM);
        uint8_t *exceptions = block(out.size);
        if (out.size)
            memcpy(exceptions, out.bytes, out.size);
        free(out.bytes);
        if (!told) {
            CHECK(kind->position(engine) == s->start + s->size);
            /* Anywhere it can begin, it begins; else it comes from before. */
            if (kind->seek(other, &view, s->start, state) < 0) {
                CHECK(other_at == s->start);
                told = TRACE_LOST;
            }
        }
        if (!told) {
            unsigned phase = s->first_bit & 7;
            size_t room = (size_t)((phase + s->bits + 7) / 8);
            uint8_t *made = block(room);
            deflate_writer writer = {made, room, 0, phase, 0};
            CHECK(trace_apply(kind, other, &view, s->count, exceptions, out.size, scratch, scratch_room, &writer) ==
                  TRACE_OK);
            CHECK(8 * (uint64_t)(room - writer.room) + writer.count == phase + s->bits);
            if (writer.count)
                *writer.out = (uint8_t)writer.bits;
            check_bits(stream, s, made);
            other_at = kind->position(other);
            CHECK(other_at == s->start + s->size);
            free(made);
        }
        free(exceptions);
        free((void *)view.bytes);
        if (told)
            break;
    }
    free(scratch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input in = {data, size};
    uint8_t flags = take(&in);
    const engine_kind *kind;
    void *engine = take_engine(&in, &kind), *other;
    input same = {data + 1, size ? size - 1 : 0};
    other = take_engine(&same, &kind);
    size_t step = 1 + take(&in) * (flags & 8 ? 37u : 1u);
    uint64_t target = (uint64_t)take(&in) << (flags >> 4);
    bits stream;
    if (flags & 3) {
        size_t got, more = take_wild(&in) & (flags & 4 ? 0x1ffff : 0xfff), length;
        size_t share = flags & 1 ? take_number(&in, 1) : in.left;
        uint8_t *given = take_block(&in, share, &got);
        uint8_t *content = grown(given, got, more, &length);
        stream = flags & 1 ? any_stream(&in, content, length) : engine_stream(&same, content, length);
        free(given);
        free(content);
    } else {
        stream.bytes = take_block(&in, in.left, &stream.size);
    }
    parsed whole, parts;
    parse(&whole, stream, 0, target);
    parse(&parts, stream, step, target);
    check_same(&whole, &parts);
    if (flags & 3)
        CHECK(whole.told == DEFLATE_END || whole.told == DEFLATE_ROOM || whole.count == STRETCHES || stream.size == STREAM);
    make_again(&whole, stream, kind, engine, other);
    forget(&whole);
    forget(&parts);
    free(stream.bytes);
    kind->close(engine);
    kind->close(other);
    return 0;
}
