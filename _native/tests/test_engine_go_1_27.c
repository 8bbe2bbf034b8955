/* The engine of Go's compress/flate from 1.27 on: against digests of what Go made, and against itself where views are cut
 * small, and where it begins in the middle.
 *
 * With one argument it writes the content of that number. The digests (FNV-1a, by content and level) are of what Go 1.27.3
 * made of these: flate.NewWriter, one Write, Close. */
#include "../engine_klauspost.h"
#include "check.h"
#include "engine_go_contents.h"
#include "engine_go_1_27_digests.h"

#define KIND engine_go_1_27
#define MOST 1700000
#define LONG CONTENTS /* one more, of many segments */
#define BLOCKS 4000

static const int LEVELS[] = {-2, 0, 1, 2, 3, 4, 5, 6};
#define COUNT (sizeof LEVELS / sizeof *LEVELS)

static size_t make(int which, uint8_t *bytes) {
    if (which < CONTENTS) return content_of(which, bytes);
    uint64_t seed = 4;
    size_t at = 0;
    while (at < MOST - 400000) {
        size_t n = 20000 + next_number(&seed) % 60000;
        archive(bytes + at, n, &seed);
        at += n;
        n = 5000 + next_number(&seed) % 90000;
        patchwork(bytes + at, n, &seed);
        at += n;
        unsigned kinds = 1 + (unsigned)(next_number(&seed) % 256);
        n = next_number(&seed) % 30000;
        at = noise(bytes, at, n, kinds, &seed);
    }
    return at;
}

static uint64_t sum_of(const uint8_t *bytes, size_t n) {
    uint64_t digest = 0xcbf29ce484222325;
    for (size_t k = 0; k < n; k++) digest = (digest ^ bytes[k]) * 0x100000001b3;
    return digest;
}

static void test_digests(void) {
    uint8_t *bytes = block(MOST), *out = block(MOST + 65536);
    for (int which = 0; which <= LONG; which++) {
        size_t n = make(which, bytes);
        for (size_t i = 0; i < COUNT; i++) {
            size_t size = engine_encode(&KIND, LEVELS[i], bytes, n, out, MOST + 65536);
            if (sum_of(out, size) != DIGESTS[which][i]) fprintf(stderr, "content %d, level %d\n", which, LEVELS[i]);
            CHECK(size && sum_of(out, size) == DIGESTS[which][i]);
        }
    }
    CHECK(!engine_encode(&KIND, 7, bytes, 0, out, 5) && !engine_encode(&KIND, -3, bytes, 0, out, 5));
    /* A block that goes on for more tokens than a run makes. */
    size_t n = 3 * (size_t)KIND.max_tokens, room = n;
    uint64_t seed = 9;
    uint8_t *many = block(n), *made = block(room);
    noise(many, 0, n, 20, &seed);
    size_t size = engine_encode(&KIND, -2, many, n, made, room);
    CHECK(size && size < room);
    free(many);
    free(made);
    free(bytes);
    free(out);
}

/* ---- a stream, block by block ------------------------------------------------------------------------------------ */

typedef struct {
    uint64_t position;
    size_t tokens; /* before it */
    uint32_t state[ENGINE_STATE];
    unsigned follows;
    deflate_head head; /* of the block that begins here */
} boundary;

typedef struct {
    const uint8_t *bytes;
    size_t n, count, blocks;
    uint32_t *tokens;
    boundary *at;
} stream;

/* A view of its own, so that a sanitizer sees what else is looked at. */
static engine_view look(const stream *s, uint64_t position, uint64_t back, uint64_t ahead) {
    uint64_t begin = position < back ? 0 : position - back, end = s->n - position < ahead ? s->n : position + ahead;
    uint8_t *copy = block(end - begin);
    memcpy(copy, s->bytes + begin, end - begin);
    return (engine_view){copy, begin, end, end == s->n};
}

/* Go on from where the engine stands, and write down what it does. `seed`: 0: all at once. */
static void go_on(void *engine, stream *s, uint64_t seed) {
    int done = 0;
    unsigned follows = KIND.follows(engine);
    s->count = s->blocks = 0;
    if (follows) done = 1;
    while (!done || follows) {
        boundary *b = &s->at[s->blocks++];
        uint64_t start = KIND.position(engine);
        CHECK(s->blocks < BLOCKS);
        memset(b, 0, sizeof *b);
        b->position = start;
        b->tokens = s->count;
        b->follows = follows;
        KIND.save(engine, b->state);
        size_t first = s->count;
        engine_view view = look(s, start, KIND.history, 0);
        for (int told = ENGINE_MORE; !follows && (told == ENGINE_MORE || told == ENGINE_TOKENS);) {
            uint64_t ahead = seed && next_number(&seed) % 3 == 0 ? next_number(&seed) % KIND.lookahead : KIND.lookahead;
            size_t made = 0, most = seed ? next_number(&seed) % 9000 : 100000;
            free((void *)view.bytes);
            view = look(s, KIND.position(engine), KIND.history, ahead);
            told = KIND.run(engine, &view, NULL, s->tokens + s->count, most, &made);
            CHECK(told > 0 && told != ENGINE_MISS && (told != ENGINE_TOKENS || made == most));
            CHECK(told != ENGINE_MORE || made || ahead < KIND.lookahead);
            s->count += made;
            done = told == ENGINE_DONE;
        }
        unsigned more = 0;
        int told = KIND.block(engine, &view, s->tokens + first, s->count - first, start, done, &b->head, &more);
        CHECK(told >= 0);
        follows = follows ? follows - 1 : more;
        free((void *)view.bytes);
    }
    CHECK(KIND.position(engine) == s->n);
}

static stream stream_of(const uint8_t *bytes, size_t n) {
    return (stream){bytes, n, 0, 0, block((n + 1) * sizeof(uint32_t)), block(BLOCKS * sizeof(boundary))};
}

static void drop(stream *s) {
    free(s->tokens);
    free(s->at);
}

/* Is `part` the end of `whole`, from a boundary on? */
static void same_end(const stream *whole, size_t from, const stream *part) {
    size_t tokens = whole->at[from].tokens;
    CHECK(whole->blocks - from == part->blocks && whole->count - tokens == part->count);
    CHECK(!memcmp(whole->tokens + tokens, part->tokens, part->count * sizeof *part->tokens));
    for (size_t i = 0; i < part->blocks; i++) {
        CHECK(whole->at[from + i].position == part->at[i].position);
        CHECK(whole->at[from + i].follows == part->at[i].follows);
        CHECK(!memcmp(&whole->at[from + i].head, &part->at[i].head, sizeof part->at[i].head));
    }
}

/* Views may be cut in any way. From each boundary on, the engine goes on as before, or says that it cannot; nearly always
 * it can. */
static void test_views_and_seeks(void) {
    static const uint32_t nothing[ENGINE_STATE];
    uint8_t *bytes = block(MOST);
    size_t n = make(LONG, bytes);
    for (size_t i = 0; i < COUNT; i++) {
        stream whole = stream_of(bytes, n), part = stream_of(bytes, n);
        engine_view view = look(&whole, 0, 0, 0);
        void *engine = KIND.open(LEVELS[i]);
        CHECK(engine && KIND.seek(engine, &view, 0, nothing) >= 0);
        go_on(engine, &whole, 0);
        KIND.close(engine);
        engine = KIND.open(LEVELS[i]);
        CHECK(engine && KIND.seek(engine, &view, 0, nothing) >= 0);
        free((void *)view.bytes);
        go_on(engine, &part, 1 + i);
        same_end(&whole, 0, &part);
        KIND.close(engine);
        unsigned held = 0, lost = 0;
        for (size_t k = 1; k < whole.blocks; k++) {
            const boundary *b = &whole.at[k];
            if (k % (1 + whole.blocks / 12) && k + 2 < whole.blocks) continue;
            engine = KIND.open(LEVELS[i]);
            view = look(&whole, b->position, KIND.history, 0);
            uint32_t other[ENGINE_STATE];
            memcpy(other, b->state, sizeof other);
            other[1] ^= 1;
            if (!b->follows) {
                CHECK(KIND.seek(engine, &view, b->position, nothing) == ENGINE_LOST);
                CHECK(KIND.seek(engine, &view, b->position, other) == ENGINE_LOST);
                CHECK(KIND.seek(engine, &view, b->position - 1, b->state) == ENGINE_LOST);
            }
            int told = KIND.seek(engine, &view, b->position, b->state);
            free((void *)view.bytes);
            if (told < 0) {
                lost++;
            } else {
                uint32_t again[ENGINE_STATE];
                KIND.save(engine, again);
                CHECK(!told && !memcmp(again, b->state, sizeof again));
                go_on(engine, &part, 2 + k);
                same_end(&whole, k, &part);
                held++;
            }
            KIND.close(engine);
        }
        if (held <= (LEVELS[i] == 1 ? 1 : 2 * lost)) fprintf(stderr, "level %d: %u, lost %u\n", LEVELS[i], held, lost);
        CHECK(held > (LEVELS[i] == 1 ? 1 : 2 * lost));
        drop(&whole);
        drop(&part);
    }
    free(bytes);
}

/* With another token than predicted there is no going on, nor with a block that ends inside a segment. */
static void test_strays(void) {
    uint8_t *bytes = block(MOST);
    stream s = {bytes, make(LONG, bytes), 0, 0, NULL, NULL};
    static const uint32_t nothing[ENGINE_STATE];
    engine_view view = {bytes, 0, s.n, 1};
    uint32_t *tokens = block(1000 * sizeof *tokens), actual[3];
    for (int cut = 0; cut < 2; cut++) {
        void *engine = KIND.open(6);
        size_t made;
        CHECK(engine && KIND.seek(engine, &view, 0, nothing) >= 0);
        CHECK(KIND.run(engine, &view, NULL, tokens, 1000, &made) == ENGINE_TOKENS && made == 1000);
        actual[0] = DEFLATE_MATCH;
        CHECK(KIND.run(engine, &view, actual, tokens, 1, &made) == ENGINE_MISS && !made);
        CHECK((cut ? KIND.cut(engine) : KIND.commit(engine, &view, actual[0])) == ENGINE_LOST);
        CHECK(KIND.run(engine, &view, NULL, tokens, 1, &made) == ENGINE_LOST);
        KIND.close(engine);
    }
    free(tokens);
    free(bytes);
}

int main(int argc, char **argv) {
    if (argc == 2) {
        uint8_t *bytes = block(MOST);
        size_t n = make(atoi(argv[1]), bytes);
        CHECK(fwrite(bytes, 1, n, stdout) == n && !fflush(stdout));
        free(bytes);
        return 0;
    }
    test_digests();
    test_views_and_seeks();
    test_strays();
    return 0;
}
