/* engine_zlib by itself: its bytes against those of the encoders themselves, and what holds for any stream. */
#include "../engine_zlib.h"
#include "check.h"

static uint64_t state = 1;

static uint64_t below(uint64_t n) { return next_number(&state) % n; }

static const engine_kind *const KINDS[] = {&engine_zlib, &engine_gzip, &engine_pigz, &engine_busybox};
static const uint32_t nothing[ENGINE_STATE];

/* ---- contents --------------------------------------------------------------------------------------------------- */

enum { NOISE, TEXT, FEW, ZEROS, PERIOD, TAR, MIXED, COUNT, ENDS };

/* The same bytes for the same arguments, for ever: digests of what encoders make of them are below. */
static uint8_t *content(int pattern, size_t n, size_t period) {
    uint8_t *bytes = block(n);
    uint64_t seed = (uint64_t)pattern << 48 ^ n ^ (uint64_t)period << 24;
    for (size_t i = 0, until = 0, from = 0; i < n; i++) {
        uint64_t number = next_number(&seed);
        switch (pattern) {
        case NOISE: bytes[i] = (uint8_t)number; break;
        case TEXT: bytes[i] = (uint8_t)"eeetaoinshr dlu \n"[number % 17]; break;
        case FEW: bytes[i] = (uint8_t)(number % 100 < 90 ? 'a' : 'a' + number % 7); break;
        case ZEROS: bytes[i] = 0; break;
        case PERIOD:
            bytes[i] = i < period ? (uint8_t)number : number % 5000 ? bytes[i - period] : (uint8_t)(number >> 32);
            break;
        case TAR:
            if (i % 2560 < 512) bytes[i] = i % 2560 < 20 ? (uint8_t)('a' + number % 4) : 0;
            else bytes[i] = (uint8_t)(i % 2560 > 1700 ? 0 : number % 3 ? bytes[i - 512] : 'A' + number % 26);
            break;
        case COUNT: bytes[i] = (uint8_t)(i % 2 ? i / 2 : i / 512); break; /* no three bytes are there twice */
        case ENDS: bytes[i] = (uint8_t)(number & 63); break;
        default: /* runs that are new, or older ones again */
            if (i == until) {
                until = i + 1 + number % 400;
                from = i && number >> 32 & 1 ? 1 + (number >> 40) % (i < 40000 ? i : 40000) : 0;
            }
            bytes[i] = from ? bytes[i - from] : (uint8_t)(number >> 16 & 31);
        }
    }
    /* The end is there three times already, and each time goes on a little more as gzip's window does behind the
     * end. */
    for (size_t k = 0; pattern == ENDS && k < 3; k++) {
        uint8_t *copy = bytes + n - 200 - 300 * (k + 1);
        memcpy(copy, bytes + n - 60, 60);
        memset(copy + 60, k ? 0 : 'q', 2);
        if (k == 2 && n > WINDOW + 10) memcpy(copy + 62, bytes + n + 2 - WINDOW, 5);
    }
    return bytes;
}

/* Contents, and digests of raw deflate streams of levels 1 to 9 (the large ones: 1, 6 and 9), made by zlib 1.2.13,
 * GNU gzip 1.12 and pigz 2.6 over zlib 1.2.13; and of BusyBox 1.35 as Debian builds it, which has but one level. */
static const struct {
    int pattern;
    size_t n, period;
    uint64_t digests[4];
} GOLDEN[] = {
#include "engine_zlib_golden.h"
};
#define GOLDENS (sizeof GOLDEN / sizeof GOLDEN[0])

static int is_level(size_t n, int level) { return n <= 70000 || level == 1 || level == 6 || level == 9; }

static uint64_t digest(uint64_t before, const uint8_t *bytes, size_t n) {
    uint64_t hash = before ^ n;
    for (size_t i = 0; i < n; i++) hash = (hash ^ bytes[i]) * 0x100000001b3;
    return hash;
}

static void test_golden(void) {
    for (size_t i = 0; i < GOLDENS; i++) {
        size_t n = GOLDEN[i].n, room = n + n / 8 + 1000;
        uint8_t *bytes = content(GOLDEN[i].pattern, n, GOLDEN[i].period), *out = block(room);
        for (int kind = 0; kind < 4; kind++) {
            uint64_t hash = 0;
            for (int level = 1; level < 10; level++) {
                if (kind == 3 ? level != 6 : !is_level(n, level)) continue;
                size_t size = engine_encode(KINDS[kind], level + (kind == 3 ? 20 : 0), bytes, n, out, room);
                CHECK(size && size <= room);
                hash = digest(hash, out, size);
            }
            if (hash != GOLDEN[i].digests[kind])
                fprintf(stderr, "content %zu, %s: %llx\n", i, KINDS[kind]->name, (unsigned long long)hash);
            CHECK(hash == GOLDEN[i].digests[kind]);
        }
        free(out);
        free(bytes);
    }
}

/* ---- streams ---------------------------------------------------------------------------------------------------- */

typedef struct {
    uint32_t tokens, first;
    uint64_t start;
    uint32_t state[ENGINE_STATE]; /* at its begin */
    deflate_head head;
} one_block;

typedef struct {
    uint32_t *tokens;
    size_t n, blocks;
    one_block *block;
} stream;

/* What an engine makes of a content, from the block on that begins at `from`, which sees it through views of `step`. */
static stream encoded(const engine_kind *kind, int level, const uint8_t *bytes, size_t n, uint64_t from,
                      const uint32_t *at, size_t step) {
    stream s = {block((n + 2) * sizeof *s.tokens), 0, 0, block((n / 100 + 100) * sizeof *s.block)};
    void *engine = kind->open(level);
    CHECK(engine);
    engine_view view = {NULL, 0, from, from == n};
    uint8_t *seen = NULL;
    uint64_t start = from;
    CHECK(kind->seek(engine, &view, from, at) >= 0);
    kind->save(engine, s.block[0].state);
    for (size_t first = 0;;) {
        size_t made = 0;
        uint64_t end = view.end;
        /* A copy of what may be seen, so that a sanitizer sees what else is. */
        view.begin = kind->position(engine) > kind->history ? kind->position(engine) - kind->history : 0;
        view.end = end = n;
        if (kind->position(engine) + step < n) view.end = end = kind->position(engine) + step;
        view.last = end == n;
        free(seen);
        seen = block(end - view.begin);
        memcpy(seen, bytes + view.begin, end - view.begin);
        view.bytes = seen;
        int told = kind->run(engine, &view, NULL, s.tokens + s.n, kind->max_tokens, &made);
        s.n += made;
        CHECK(told > 0 && told != ENGINE_MISS && (told != ENGINE_MORE || made));
        if (told == ENGINE_MORE || told == ENGINE_TOKENS) continue;
        unsigned follows = 0, more = 0;
        for (int empty = 0; !empty || follows; empty = 1) {
            one_block *b = &s.block[s.blocks++];
            b->tokens = empty ? 0 : (uint32_t)(s.n - first);
            b->first = (uint32_t)first;
            b->start = empty ? kind->position(engine) : start;
            CHECK(kind->block(engine, &view, s.tokens + first, b->tokens, b->start, told == ENGINE_DONE, &b->head,
                              &more) >= 0);
            follows = empty ? follows - 1 : more;
            kind->save(engine, s.block[s.blocks].state);
        }
        first = s.n;
        start = kind->position(engine);
        if (told == ENGINE_DONE) break;
    }
    CHECK(kind->position(engine) == n);
    free(seen);
    kind->close(engine);
    return s;
}

static void done(stream *s) {
    free(s->tokens);
    free(s->block);
}

static int equal(const stream *a, const stream *b, size_t blocks) {
    if (a->blocks - blocks != b->blocks) return 0;
    uint32_t tokens = blocks < a->blocks ? a->block[blocks].first : (uint32_t)a->n;
    if (a->n - tokens != b->n || memcmp(a->tokens + tokens, b->tokens, b->n * sizeof *b->tokens)) return 0;
    for (size_t i = 0; i < b->blocks; i++)
        if (memcmp(&a->block[blocks + i].head, &b->block[i].head, sizeof b->block[i].head)) return 0;
    return 1;
}

/* Views may be cut in any way, and any block boundary is a place to begin at (at levels 1 to 3 only pigz's pieces
 * are). */
static void test_views_and_seeks(void) {
    static const struct {
        int pattern;
        size_t n, period;
    } contents[] = {{MIXED, 300000, 0}, {NOISE, 140000, 0}, {TEXT, 65536 + 99, 0}, {PERIOD, 98100, 32506},
                    {FEW, 270000, 0}};
    for (size_t i = 0; i < sizeof contents / sizeof contents[0]; i++) {
        size_t n = contents[i].n;
        uint8_t *bytes = content(contents[i].pattern, n, contents[i].period);
        for (int run = 0; run < 6; run++) {
            const engine_kind *kind = KINDS[run % 3];
            int level = run < 3 ? 6 : 1 + (int)below(5);
            stream whole = encoded(kind, level, bytes, n, 0, nothing, n);
            stream parts = encoded(kind, level, bytes, n, 0, nothing, kind->lookahead + below(40000));
            CHECK(equal(&whole, &parts, 0));
            done(&parts);
            for (size_t k = 1; k < whole.blocks; k++) {
                const one_block *b = &whole.block[k];
                if (!b->tokens) continue;
                if (level < 4 && (kind != &engine_pigz || b->start % 131072)) {
                    void *engine = kind->open(level);
                    engine_view view = {bytes, 0, n, 1};
                    CHECK(engine && kind->seek(engine, &view, b->start, b->state) == ENGINE_LOST);
                    kind->close(engine);
                    continue;
                }
                if (whole.blocks > 12 && below(3)) continue;
                stream rest = encoded(kind, level, bytes, n, b->start, b->state, n);
                CHECK(equal(&whole, &rest, k));
                done(&rest);
            }
            done(&whole);
        }
        free(bytes);
    }
}

/* Positions of 64 bits: the same tokens, wherever the content lies. */
static void test_far_positions(void) {
    size_t n = 200000;
    uint8_t *bytes = content(MIXED, n, 0);
    uint32_t *here = block(n * sizeof *here), *there = block(n * sizeof *there);
    for (int level = 4; level < 10; level++) {
        uint64_t starts[2] = {1 << 20, (1ull << 32) - 65536};
        size_t made[2] = {0, 0};
        for (int k = 0; k < 2; k++) {
            void *engine = engine_zlib.open(level);
            engine_view view = {bytes, starts[k] - 32768, starts[k] - 32768 + n, 1};
            CHECK(engine && engine_zlib.seek(engine, &view, starts[k], nothing) >= 0);
            for (int told = 0; told != ENGINE_DONE;) {
                size_t got = 0;
                told = engine_zlib.run(engine, &view, NULL, (k ? there : here) + made[k], 16383, &got);
                CHECK(told > 0);
                made[k] += got;
            }
            CHECK(engine_zlib.position(engine) == view.end);
            engine_zlib.close(engine);
        }
        CHECK(made[0] == made[1] && !memcmp(here, there, made[0] * sizeof *here));
    }
    free(here);
    free(there);
    free(bytes);
}

/* A stream may have a block boundary anywhere: what was saved there goes on as the engine itself does. */
static void test_cuts(void) {
    static const size_t sizes[] = {66000, 65400, 65530, 65600};
    for (int run = 0; run < 40; run++) {
        const engine_kind *kind = run % 3 == 2 ? &engine_busybox : KINDS[run % 3];
        int level = 4 + (int)below(6);
        size_t n = sizes[run / 2 % 4];
        uint64_t until = run % 4 < 2 ? n - 1 - below(260) : below(n);
        uint8_t *bytes = content(run % 8 < 4 ? PERIOD : TEXT, n, 1000);
        uint32_t *tokens = block(2 * n * sizeof *tokens), at[ENGINE_STATE];
        engine_view view = {bytes, 0, n, 1};
        void *engine = kind->open(level), *other = kind->open(level);
        size_t made = 0, again = 0;
        CHECK(engine && other && kind->seek(engine, &view, 0, nothing) >= 0);
        while (kind->position(engine) < until) CHECK(kind->run(engine, &view, NULL, tokens, 1, &made) > 0);
        CHECK(kind->cut(engine) >= 0);
        kind->save(engine, at);
        CHECK(kind->seek(other, &view, kind->position(engine), at) >= 0);
        for (int told = 0; told != ENGINE_DONE;) {
            told = kind->run(engine, &view, NULL, tokens, n, &made);
            CHECK(told > 0 && kind->run(other, &view, NULL, tokens + n, n, &again) == told);
            CHECK(made == again && !memcmp(tokens, tokens + n, made * sizeof *tokens));
        }
        kind->close(engine);
        kind->close(other);
        free(tokens);
        free(bytes);
    }
}

/* ---- corrections ------------------------------------------------------------------------------------------------ */

/* A stream with other tokens here and there: literals for a match, a shorter one; those are marked. Returns the
 * number of changes. */
static size_t change(const stream *s, const uint8_t *bytes, uint32_t *tokens, uint8_t *marks, size_t *n,
                     unsigned every) {
    size_t changes = 0, at = 0, from = 0;
    *n = 0;
    for (size_t i = 0; i < s->n; i++) {
        uint32_t token = s->tokens[i], length = deflate_length(token);
        uint32_t kept = length;
        size_t first = *n;
        from = at;
        if (token & DEFLATE_MATCH && !below(every)) {
            kept = length > 3 && below(2) ? 3 + (uint32_t)below(length - 3) : 0;
            changes++;
        }
        if (kept && token & DEFLATE_MATCH) tokens[(*n)++] = deflate_match(kept, deflate_distance(token)), from += kept;
        else if (kept) tokens[(*n)++] = token, from++;
        at += length;
        while (from < at) tokens[(*n)++] = bytes[from++];
        memset(marks + first, kept < length, *n - first);
    }
    return changes;
}

/* Another encoder's tokens, through an engine: how many of them have to be told? (Those are left in `missed`.)
 * Twice, with the same result. */
static size_t misses(const engine_kind *kind, int level, const uint8_t *bytes, size_t n, const uint32_t *tokens,
                     size_t count, uint8_t *missed) {
    void *engine = kind->open(level);
    engine_view view = {bytes, 0, n, 1};
    uint32_t *made = block((count + 1) * sizeof *made);
    size_t k = 0, total = 0;
    memset(missed, 0, count);
    CHECK(engine && kind->seek(engine, &view, 0, nothing) >= 0);
    for (int told = 0; told != ENGINE_DONE;) {
        size_t got = 0, max = count - k < 5000 ? count - k : 5000;
        told = kind->run(engine, &view, tokens + k, made, max, &got);
        k += got;
        CHECK(told > 0 && told != ENGINE_MORE);
        if (told != ENGINE_MISS) continue;
        CHECK(k < count && made[got] != tokens[k]);
        missed[k] = 1;
        total++;
        CHECK(kind->commit(engine, &view, tokens[k++]) >= 0);
    }
    CHECK(k == count && kind->position(engine) == n);
    /* Told where, the engine makes the same tokens. */
    CHECK(kind->seek(engine, &view, 0, nothing) >= 0);
    for (k = 0; k < count;) {
        size_t got = 0, max = 0;
        while (k + max < count && !missed[k + max]) max++;
        int told = kind->run(engine, &view, NULL, made + k, max, &got);
        CHECK(told > 0 && told != ENGINE_MORE);
        k += got;
        if (told == ENGINE_DONE) break;
        if (told == ENGINE_BLOCK || !missed[k]) continue;
        made[k] = tokens[k];
        CHECK(kind->commit(engine, &view, tokens[k++]) >= 0);
    }
    CHECK(k == count && !memcmp(made, tokens, count * sizeof *made));
    kind->close(engine);
    free(made);
    return total;
}

static void test_corrections(void) {
    size_t n = 200000;
    static const int patterns[] = {MIXED, TEXT, TAR};
    for (int run = 0; run < 12; run++) {
        const engine_kind *kind = KINDS[run % 3];
        int level = 1 + (int)below(9);
        uint8_t *bytes = content(patterns[run % 4 % 3], n, 0);
        stream s = encoded(kind, level, bytes, n, 0, nothing, n);
        uint32_t *tokens = block(n * sizeof *tokens);
        uint8_t *marks = block(n), *missed = block(n);
        CHECK(misses(kind, level, bytes, n, s.tokens, s.n, missed) == 0);
        size_t count = 0, changes = change(&s, bytes, tokens, marks, &count, 100);
        size_t total = misses(kind, level, bytes, n, tokens, count, missed);
        size_t others = 0;
        for (size_t i = 0; i < count; i++) others += missed[i] && !marks[i];
        /* Where chains depend on the content alone, nothing is missed but what was changed. Else chains are others,
         * too. */
        CHECK(changes > 5 && total && others <= (level > 3 ? 0 : 4 * changes));
        free(missed);
        free(marks);
        free(tokens);
        done(&s);
        free(bytes);
    }
}

static void test_refusals(void) {
    static const uint32_t states[][ENGINE_STATE] = {
        {1, 0, 0, 0}, {259, 5, 0, 0}, {3, 0, 0, 0}, {2, 9, 0, 0}, {3, 40000, 0, 0}, {0, 0, 8, 0}, {0, 0, 0, 999}};
    uint8_t *bytes = content(TEXT, 1000, 0);
    engine_view view = {bytes, 0, 1000, 1};
    uint32_t tokens[8];
    size_t made = 0;
    for (int k = 0; k < 4; k++) {
        CHECK(!KINDS[k]->open(0) && !KINDS[k]->open(100) && !KINDS[k]->open(-1));
        void *engine = KINDS[k]->open(6);
        CHECK(engine);
        for (size_t i = 0; i < sizeof states / sizeof states[0]; i++)
            CHECK(KINDS[k]->seek(engine, &view, 900, states[i]) == ENGINE_LOST);
        /* A match that is not there is no reason to leave the content. */
        static const uint32_t longest[ENGINE_STATE] = {258, 1, 0, 0};
        CHECK(KINDS[k]->seek(engine, &view, 998, longest) >= 0);
        CHECK(KINDS[k]->run(engine, &view, NULL, tokens, 8, &made) == ENGINE_DONE && made == 2);
        CHECK(KINDS[k]->seek(engine, &view, 998, nothing) >= 0);
        CHECK(KINDS[k]->commit(engine, &view, deflate_match(3, 1)) == ENGINE_LOST);
        view.last = 0;
        CHECK(KINDS[k]->commit(engine, &view, 'a') == ENGINE_MORE);
        CHECK(KINDS[k]->run(engine, &view, NULL, tokens, 8, &made) == ENGINE_MORE && !made);
        view.last = 1;
        KINDS[k]->close(engine);
    }
    free(bytes);
}

/* Lengths are a code, whatever the frequencies; too long ones are made shorter. */
static void test_lengths(void) {
    for (int run = 0; run < 2000; run++) {
        unsigned n = 3 + (unsigned)below(284), limit = n < 20 ? 7 : 15;
        uint32_t frequencies[286] = {0};
        uint8_t lengths[286];
        uint32_t a = 1, b = 1;
        for (unsigned i = 0; i < n; i++) {
            frequencies[i] = below(4) ? (uint32_t)below(1 + below(1000)) : 0;
            if (run % 3 == 0 && i < 30) frequencies[i] = a, b += a, a = b - a; /* Fibonacci's: the deepest trees */
        }
        unsigned top = engine_zlib_lengths(frequencies, n, limit, lengths);
        uint32_t space = 0;
        unsigned highest = 0;
        for (unsigned i = 0; i < n; i++) {
            CHECK(lengths[i] <= limit && (lengths[i] || !frequencies[i]));
            if (lengths[i]) space += 1u << (15 - lengths[i]), highest = i;
        }
        CHECK(space == 1u << 15 && highest == top);
    }
}

#ifndef NO_MAIN
int main(void) {
    test_lengths();
    test_refusals();
    test_golden();
    test_views_and_seeks();
    test_far_positions();
    test_cuts();
    test_corrections();
    return 0;
}
#endif
