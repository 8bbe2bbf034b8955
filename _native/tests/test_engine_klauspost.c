#include "../engine_klauspost.h"
#include "../trace.h"
#include "check.h"

#define MIB (1u << 20)

static const engine_kind *const KINDS[] = {&engine_klauspost, &engine_klauspost_1_18, &engine_klauspost_1_20,
                                           &engine_klauspost_1_15, &engine_klauspost_1_14};
#define COUNT (sizeof KINDS / sizeof *KINDS)

/* ---- contents ---------------------------------------------------------------------------------------------------- */

typedef struct {
    const char *name;
    size_t size;
    int level;
    uint64_t size_of[COUNT], sum_of[COUNT]; /* what the encoders of each version made of it: bytes, FNV-1a */
} golden;

/* Pieces of many kinds, and copies of what went before. The name's first letter says what there is most of. */
static uint8_t *make(const char *name, size_t size) {
    uint8_t *bytes = block(size);
    uint64_t seed = 0;
    for (const char *c = name; *c; c++) seed = seed * 131 + (uint8_t)*c;
    for (size_t at = 0; at < size;) {
        size_t left = size - at, n = 1 + next_number(&seed) % 20000, kind = next_number(&seed) % 4;
        if (n > left) n = left;
        if (*name == 'z') kind = 4;
        else if (*name == 'n') kind = 0;
        else if (*name == 's') kind = 1;
        else if (*name == 't') kind = 2;
        if (kind == 0) { /* noise */
            fill(bytes + at, n, &seed);
        } else if (kind == 1) { /* skewed */
            for (size_t i = 0; i < n; i++) {
                uint64_t r = next_number(&seed);
                bytes[at + i] = (uint8_t)((r & 0xff) * (r >> 8 & 0xff) * (r >> 16 & 0xff) >> 17);
            }
        } else if (kind == 2) { /* words */
            for (size_t i = 0; i < n;) {
                uint64_t word = next_number(&seed) % 900, letters = word;
                for (size_t k = 2 + word % 7; k && i < n; k--, i++) {
                    bytes[at + i] = (uint8_t)('a' + (next_number(&letters) % 26));
                }
                if (i < n) bytes[at + i++] = ' ';
            }
        } else if (kind == 3 && at) { /* as before, with a byte changed here and there */
            size_t back = 1 + next_number(&seed) % (at < 40000 ? at : 40000);
            for (size_t i = 0; i < n; i++) {
                uint64_t r = next_number(&seed);
                bytes[at + i] = r % 61 ? bytes[at + i - back] : (uint8_t)(r >> 32);
            }
        } else {
            memset(bytes + at, (int)(*name == 'z' ? 0 : n & 0xff), n);
        }
        at += n;
    }
    return bytes;
}

static uint64_t sum_of(const uint8_t *bytes, size_t n) {
    uint64_t sum = 0xcbf29ce484222325;
    for (size_t i = 0; i < n; i++) sum = (sum ^ bytes[i]) * 0x100000001b3;
    return sum;
}

static size_t room_for(size_t n) { return n + n / 8 + 1000; }

/* ---- what encoders made ------------------------------------------------------------------------------------------ */

static const golden GOLDEN[] = {
#include "klauspost_golden.h"
};

static void goldens(void) {
    for (size_t i = 0; i < sizeof GOLDEN / sizeof *GOLDEN; i++) {
        const golden *g = &GOLDEN[i];
        uint8_t *content = make(g->name, g->size), *out = block(room_for(g->size));
        for (size_t k = 0; k < COUNT; k++) {
            size_t n = engine_encode(KINDS[k], g->level, content, g->size, out, room_for(g->size));
            CHECK(n == g->size_of[k]);
            CHECK(sum_of(out, n) == g->sum_of[k]);
        }
        free(content);
        free(out);
    }
    for (int level = -20; level < 100; level++) {
        void *engine = KINDS[0]->open(level);
        CHECK(!engine == !(level == -1 || (level > 0 && level < 60 && level % 10 > 0 && level % 10 < 7 && level % 10 != 4)));
        if (engine) KINDS[0]->close(engine);
    }
}

/* ---- a stream taken apart ---------------------------------------------------------------------------------------- */

typedef struct {
    deflate_head *heads;
    trace_block *blocks;
    uint32_t *tokens;
    size_t count, token_count;
} parsed;

static parsed parse(const uint8_t *stream, size_t n, const uint8_t *content, size_t size) {
    size_t room = size < MIB ? size + 1 : MIB;
    parsed p = {block(1000 * sizeof(deflate_head)), block(1000 * sizeof(trace_block)), block(room * 4), 0, 0};
    deflate_parser *parser = deflate_parser_new();
    uint8_t *out = block(size + 1);
    deflate_io io = {stream, n, 1, out, size + 1, p.tokens, room};
    uint32_t *first = p.tokens;
    uint8_t *from = out;
    int told;
    CHECK(parser);
    while ((told = deflate_parse(parser, &io)) != DEFLATE_END) {
        if (told == DEFLATE_HEAD) {
            CHECK(p.count < 1000);
            p.heads[p.count] = *deflate_parser_head(parser);
            first = io.tokens;
            from = io.content;
        } else {
            CHECK(told == DEFLATE_TAIL);
            p.blocks[p.count] = (trace_block){&p.heads[p.count], (uint32_t)(io.tokens - first), (uint64_t)(io.content - from)};
            p.count++;
        }
    }
    p.token_count = (size_t)(io.tokens - p.tokens);
    CHECK(io.content == out + size && !memcmp(out, content, size));
    CHECK(!io.input_left && !deflate_parser_surplus(parser));
    deflate_parser_free(parser);
    free(out);
    return p;
}

static void forget(parsed *p) {
    free(p->heads);
    free(p->blocks);
    free(p->tokens);
}

/* ---- views: only what was promised can be seen ------------------------------------------------------------------- */

typedef struct {
    uint8_t *bytes; /* its own, so that a sanitizer guards both ends */
    engine_view view;
} window;

static window look(const uint8_t *content, uint64_t origin, size_t size, uint64_t from, uint64_t to) {
    window w = {block((size_t)(to - from)), {NULL, from, to, to == origin + size}};
    memcpy(w.bytes, content + (from - origin), (size_t)(to - from));
    w.view.bytes = w.bytes;
    return w;
}

static uint64_t back(const engine_kind *kind, uint64_t origin, uint64_t position) {
    return position - origin > kind->history ? position - kind->history : origin;
}

/* The stream again, in small steps with small views, from `position` in `state` on; content begins at `origin`. States
 * at block boundaries and the bits written before them are kept, if they are asked for. */
typedef struct {
    uint64_t position, bits;
    uint32_t state[ENGINE_STATE];
} boundary;

static size_t in_steps(const engine_kind *kind, int level, const uint8_t *content, uint64_t origin, size_t size,
                       const boundary *begin, uint64_t seed, uint8_t *out, size_t room, boundary *seen, size_t *count) {
    void *engine = kind->open(level);
    CHECK(engine);
    uint64_t end = origin + size, position = begin->position;
    window w = look(content, origin, size, back(kind, origin, position), position);
    CHECK(!kind->seek(engine, &w.view, position, begin->state));
    free(w.bytes);
    uint32_t *tokens = block(kind->max_tokens * sizeof *tokens);
    deflate_writer writer = {out, room, 0, 0, 0};
    deflate_write_bits(&writer, 0, begin->bits & 7);
    unsigned follows = begin->state[0];
    for (int done = position == end && follows; !done || follows;) {
        uint64_t start = kind->position(engine);
        size_t made = 0;
        if (seen) {
            boundary *b = &seen[(*count)++];
            CHECK(*count < 1000);
            kind->save(engine, b->state);
            b->position = start;
            b->bits = (uint64_t)(room - writer.room) * 8 + writer.count;
            CHECK(b->state[0] == follows);
        }
        for (int told = ENGINE_TOKENS; !follows && (told == ENGINE_TOKENS || told == ENGINE_MORE);) {
            position = kind->position(engine);
            uint64_t to = position + (next_number(&seed) % 3 ? kind->lookahead : next_number(&seed) % kind->lookahead);
            if (told == ENGINE_MORE) to = position + kind->lookahead;
            if (to > end) to = end;
            size_t got = 0, most = next_number(&seed) % 3 ? 1 + next_number(&seed) % 70000 : next_number(&seed) % 3;
            if (most > kind->max_tokens - made) most = kind->max_tokens - made;
            w = look(content, origin, size, back(kind, origin, position), to);
            int before = told;
            told = kind->run(engine, &w.view, NULL, tokens + made, most, &got);
            CHECK(told > 0 && (told != ENGINE_MORE || before != ENGINE_MORE || got));
            CHECK(told != ENGINE_TOKENS || got == most);
            made += got;
            free(w.bytes);
            if (told == ENGINE_DONE) done = 1;
        }
        position = kind->position(engine);
        deflate_head head;
        unsigned more;
        w = look(content, origin, size, back(kind, origin, position), position);
        CHECK(!kind->block(engine, &w.view, tokens, follows ? 0 : made, start, done, &head, &more));
        free(w.bytes);
        CHECK(!follows || more == follows - 1);
        follows = more;
        deflate_write_head(&writer, &head);
        if (head.type == DEFLATE_STORED) {
            CHECK(head.stored == position - start);
            deflate_write_bytes(&writer, content + (start - origin), head.stored);
        } else {
            deflate_codes codes;
            deflate_codes_make(&codes, head.lengths);
            deflate_write_tokens(&writer, &codes, tokens, made);
            deflate_write_end(&writer, &codes);
        }
    }
    deflate_write_align(&writer, 0);
    CHECK(!writer.lost);
    kind->close(engine);
    free(tokens);
    return room - writer.room;
}

static void steps(void) {
    static const struct {
        const char *name;
        size_t size;
    } contents[] = {{"mixed, steps", MIB + 370000}, {"mixed, whole", MIB}, {"t steps", MIB + 100}, {"empty", 0}, {"m", 77}};
    static boundary seen[1000], nothing;
    for (size_t c = 0; c < sizeof contents / sizeof *contents; c++) {
        size_t size = contents[c].size, room = room_for(size), count = 0;
        uint8_t *content = make(contents[c].name, size), *want = block(room), *out = block(room);
        const engine_kind *kind = KINDS[c % COUNT];
        int level = c == 1 ? 25 : 5;
        size_t n = engine_encode(kind, level, content, size, want, room);
        parsed p = parse(want, n, content, size);
        CHECK(in_steps(kind, level, content, 0, size, &nothing, c, out, room, seen, &count) == n && !memcmp(out, want, n));
        CHECK(count == p.count);
        /* From each boundary on; the byte that the boundary is in has other bits from before it. */
        for (size_t i = 0; i < count; i += 1 + i / 8) {
            size_t from = (size_t)(seen[i].bits / 8), rest = n - from;
            uint8_t first = (uint8_t)(want[from] >> (seen[i].bits & 7) << (seen[i].bits & 7));
            CHECK(in_steps(kind, level, content, 0, size, &seen[i], i, out, room, NULL, NULL) == rest);
            CHECK(out[0] == first && !memcmp(out + 1, want + from + 1, rest - 1));
        }
        forget(&p);
        free(content);
        free(want);
        free(out);
    }
}

/* Far into a large content everything is as it is near its begin. */
static void far(void) {
    const uint64_t origin = (uint64_t)5 << 30;
    size_t size = 2 * MIB + 300000, room = room_for(size);
    uint8_t *content = make("mixed, far away", size), *near_out = block(room), *far_out = block(room);
    boundary near = {MIB, 0, {0}}, away = {origin + MIB, 0, {0}};
    size_t n = in_steps(KINDS[0], 5, content, 0, size, &near, 1, near_out, room, NULL, NULL);
    CHECK(in_steps(KINDS[0], 5, content, origin, size, &away, 2, far_out, room, NULL, NULL) == n);
    CHECK(!memcmp(near_out, far_out, n));
    free(content);
    free(near_out);
    free(far_out);
}

/* ---- other streams ----------------------------------------------------------------------------------------------- */

static size_t exceptions_of(const engine_kind *kind, const parsed *p, const uint8_t *content, size_t size,
                            const uint8_t *stream, size_t n) {
    static const uint32_t nothing[ENGINE_STATE];
    engine_view view = {content, 0, size, 1};
    uint32_t *scratch = block(kind->max_tokens * sizeof *scratch);
    trace_buffer buffer = {block(1 << 20), 0, 1 << 20};
    void *engine = kind->open(25);
    CHECK(engine && !kind->seek(engine, &view, 0, nothing));
    int told = trace_make(kind, engine, &view, p->blocks, p->count, p->tokens, scratch, &buffer);
    if (told == TRACE_OK) {
        uint8_t *again = block(n);
        deflate_writer writer = {again, n, 0, 0, 0};
        CHECK(!kind->seek(engine, &view, 0, nothing));
        CHECK(trace_apply(kind, engine, &view, p->count, buffer.bytes, buffer.size, scratch, kind->max_tokens,
                          &writer) == TRACE_OK);
        deflate_write_align(&writer, 0);
        CHECK(!writer.lost && !writer.room && !memcmp(again, stream, n));
        free(again);
    } else {
        CHECK(told == TRACE_LOST);
        buffer.size = SIZE_MAX;
    }
    kind->close(engine);
    free(scratch);
    free(buffer.bytes);
    return buffer.size;
}

/* Each version against each other's streams. */
static void others(void) {
    static const char *const names[] = {"mixed, others", "text, others", "skewed, others", "noise, others"};
    for (size_t c = 0; c < sizeof names / sizeof *names; c++) {
        size_t size = 1000000 + 12345 * c, room = room_for(size);
        uint8_t *content = make(names[c], size), *stream = block(room);
        for (size_t k = 0; k < COUNT; k++) {
            size_t n = engine_encode(KINDS[k], 25, content, size, stream, room);
            parsed p = parse(stream, n, content, size);
            for (size_t other = 0; other < COUNT; other++) {
                size_t exceptions = exceptions_of(KINDS[other], &p, content, size, stream, n);
                if (k == other) CHECK(!exceptions);
                /* The first two make the same tokens: cuts, joins and heads are all that may differ. */
                if (k < 2 && other < 2) CHECK(exceptions < 20000);
            }
            forget(&p);
        }
        free(content);
        free(stream);
    }
}

/* Tokens that it would not choose, and blocks that end elsewhere. */
static void lost(void) {
    static const uint32_t nothing[ENGINE_STATE];
    size_t size = 2 * MIB + 5, made;
    uint8_t *content = make("text, lost", size);
    engine_view view = {content, 0, size, 1};
    uint32_t tokens[100], actual[100], first[100], state[ENGINE_STATE];
    const engine_kind *kind = KINDS[0];
    void *engine = kind->open(5);
    deflate_head head;
    unsigned follows;
    CHECK(engine && !kind->seek(engine, &view, 0, nothing));
    CHECK(kind->run(engine, &view, NULL, first, 100, &made) == ENGINE_TOKENS && made == 100);
    CHECK(!kind->seek(engine, &view, 0, nothing));
    memcpy(actual, first, sizeof actual);
    actual[50] = deflate_match(99, 3);
    CHECK(kind->run(engine, &view, actual, tokens, 100, &made) == ENGINE_MISS && made == 50 && tokens[50] == first[50]);
    uint64_t position = kind->position(engine);
    CHECK(!kind->commit(engine, &view, first[50]));
    CHECK(kind->position(engine) == position + deflate_length(first[50]));
    CHECK(kind->run(engine, &view, first + 51, tokens, 1, &made) == ENGINE_TOKENS && made == 1);
    CHECK(kind->commit(engine, &view, 'x' ^ first[52]) == ENGINE_LOST);
    CHECK(kind->run(engine, &view, NULL, tokens, 100, &made) == ENGINE_LOST && !made);
    CHECK(kind->block(engine, &view, tokens, 0, 0, 0, &head, &follows) == ENGINE_LOST);
    CHECK(kind->cut(engine) == ENGINE_LOST);
    CHECK(kind->seek(engine, &view, MIB + 1000, nothing) == ENGINE_LOST);
    CHECK(!kind->seek(engine, &view, MIB, nothing));
    CHECK(kind->run(engine, &view, NULL, tokens, 100, &made) == ENGINE_TOKENS && made == 100);
    CHECK(kind->cut(engine) == ENGINE_LOST);
    memset(state, 0xff, sizeof state);
    CHECK(kind->seek(engine, &view, MIB, state) == ENGINE_LOST);
    state[0] = 4;
    CHECK(kind->seek(engine, &view, MIB, state) == ENGINE_LOST);
    state[0] = 0; /* every segment cut; nonsense, and harmless */
    CHECK(!kind->seek(engine, &view, MIB + 5 * KP_SEGMENT, state));
    CHECK(kind->run(engine, &view, NULL, tokens, 100, &made) == ENGINE_TOKENS);
    kind->close(engine);
    free(content);
}

/* With an argument: writes the contents, to be given to encoders. */
int main(int argc, char **argv) {
    if (argc > 1) {
        for (size_t i = 0; i < sizeof GOLDEN / sizeof *GOLDEN; i++) {
            char path[1000];
            uint8_t *content = make(GOLDEN[i].name, GOLDEN[i].size);
            snprintf(path, sizeof path, "%s/%zu", argv[1], i);
            FILE *file = fopen(path, "wb");
            CHECK(file && fwrite(content, 1, GOLDEN[i].size, file) == GOLDEN[i].size && !fclose(file));
            free(content);
        }
        return 0;
    }
    goldens();
    steps();
    far();
    others();
    lost();
    return 0;
}
