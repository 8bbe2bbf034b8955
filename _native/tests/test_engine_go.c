/* The engine of Go's compress/flate by itself: against digests of what Go made, and against itself where views are cut
 * small, where it begins in the middle, and where a stream goes another way than it.
 *
 * With one argument it writes the content of that number. The digests (FNV-1a, by content and level) are of what Go 1.26
 * made of these. With two arguments it tells how many corrections changed streams take. */
#include "../engine.h"
#include "check.h"
#include "engine_go_contents.h"
#include "engine_go_digests.h"

#define MOST 340000

static const int LEVELS[] = {-2, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
static const uint32_t NOTHING[ENGINE_STATE];
static uint64_t seed = 7;

static uint64_t below(uint64_t limit) { return next_number(&seed) % limit; }

static void test_digests(void) {
    uint8_t *bytes = block(MOST), *out = block(MOST + 65536);
    for (int which = 0; which < CONTENTS; which++) {
        size_t n = content_of(which, bytes);
        for (int i = 0; i < 11; i++) {
            size_t size = engine_encode(&engine_go, LEVELS[i], bytes, n, out, MOST + 65536);
            uint64_t digest = 0xcbf29ce484222325;
            for (size_t k = 0; k < size; k++) digest = (digest ^ out[k]) * 0x100000001b3;
            if (digest != DIGESTS[which][i]) fprintf(stderr, "content %d, level %d\n", which, LEVELS[i]);
            CHECK(size && digest == DIGESTS[which][i]);
        }
        CHECK(engine_encode(&engine_go, -1, bytes, n, out, MOST) == engine_encode(&engine_go, 6, bytes, n, out, MOST));
        CHECK(engine_encode(&engine_go, 6, bytes, n, out, 3) > 3);
    }
    CHECK(!engine_encode(&engine_go, -3, bytes, 0, out, 5) && !engine_encode(&engine_go, 10, bytes, 0, out, 5));
    free(bytes);
    free(out);
}

/* ---- a stream, and what the engine said at its block boundaries --------------------------------------------------- */

typedef struct {
    uint64_t position;
    size_t tokens;
    uint32_t state[ENGINE_STATE];
} boundary;

typedef struct {
    uint8_t *bytes;
    size_t n, count;
    uint64_t base; /* the position of bytes[0]; 0 but for test_far */
    uint32_t *tokens;
    boundary boundaries[400]; /* the first at 0 */
    size_t blocks;
} stream;

/* A view of its own, no larger than promised to be enough, and not always so large. */
static engine_view view_of(const stream *s, uint64_t position, uint64_t ahead) {
    uint64_t at = position - s->base, begin = at < DEFLATE_WINDOW ? 0 : at - DEFLATE_WINDOW;
    uint64_t end = s->n - at < ahead ? s->n : at + ahead;
    uint8_t *copy = block(end - begin);
    memcpy(copy, s->bytes + begin, end - begin);
    return (engine_view){copy, s->base + begin, s->base + end, end == s->n};
}

static void release(engine_view *view) { free((void *)view->bytes); }

static stream encode(int level, int which) {
    stream s = {block(MOST), 0, 0, 0, block(MOST * sizeof(uint32_t)), {{0}}, 0};
    s.n = content_of(which, s.bytes);
    engine_view view = {s.bytes, 0, s.n, 1};
    void *engine = engine_go.open(level);
    CHECK(engine && engine_go.seek(engine, &view, 0, NOTHING) > 0);
    for (int told = 0; told != ENGINE_DONE;) {
        size_t made;
        CHECK(s.blocks < 400);
        s.boundaries[s.blocks].position = engine_go.position(engine);
        s.boundaries[s.blocks].tokens = s.count;
        engine_go.save(engine, s.boundaries[s.blocks++].state);
        told = engine_go.run(engine, &view, NULL, s.tokens + s.count, engine_go.max_tokens, &made);
        CHECK(told == ENGINE_BLOCK || told == ENGINE_DONE);
        s.count += made;
    }
    engine_go.close(engine);
    return s;
}

static void drop(stream *s) {
    free(s->bytes);
    free(s->tokens);
}

/* The engine makes the stream from this boundary on, in small pieces of content and of tokens. */
static void follow(const stream *s, void *engine, size_t from, size_t until) {
    size_t k = s->boundaries[from].tokens, next = from + 1;
    uint32_t *tokens = block(engine_go.max_tokens * sizeof *tokens);
    engine_view view = view_of(s, engine_go.position(engine), 0);
    for (int told = 0; told != ENGINE_DONE && next <= until;) {
        if (told == ENGINE_MORE || !below(4)) {
            release(&view);
            view = view_of(s, engine_go.position(engine), below(4) ? engine_go.lookahead + below(3) * 100 : below(70000));
        }
        size_t made, max = below(4) ? below(engine_go.max_tokens) : below(60);
        int compared = below(2) && max <= s->count - k;
        told = engine_go.run(engine, &view, compared ? s->tokens + k : NULL, tokens, max, &made);
        CHECK(told > 0 && told != ENGINE_MISS && made <= max && made <= s->count - k && (told != ENGINE_TOKENS || made == max));
        CHECK(!memcmp(tokens, s->tokens + k, made * sizeof *tokens));
        k += made;
        if (told == ENGINE_BLOCK) {
            CHECK(next < s->blocks && s->boundaries[next].tokens == k);
            CHECK(s->boundaries[next++].position == engine_go.position(engine));
        }
        CHECK(told != ENGINE_DONE || (k == s->count && next == s->blocks));
    }
    release(&view);
    free(tokens);
}

static void test_views(void) {
    for (int which = 0; which < CONTENTS; which++) {
        for (int i = which % 2; i < 11; i += 2) {
            stream s = encode(LEVELS[i], which);
            void *engine = engine_go.open(LEVELS[i]);
            engine_view view = view_of(&s, 0, 0);
            CHECK(engine_go.seek(engine, &view, 0, NOTHING) > 0);
            release(&view);
            follow(&s, engine, 0, s.blocks);
            engine_go.close(engine);
            drop(&s);
        }
    }
}

/* From each boundary on the same stream, but where that is not provable. */
static void test_seek(void) {
    unsigned provable[11] = {0}, all[11] = {0};
    for (int which = 4; which < CONTENTS; which += 2) {
        for (int i = 0; i < 11; i++) {
            stream s = encode(LEVELS[i], which);
            void *engine = engine_go.open(LEVELS[i]);
            for (size_t from = 1; from < s.blocks; from++) {
                const boundary *b = &s.boundaries[from];
                engine_view view = view_of(&s, b->position, 0);
                int told = engine_go.seek(engine, &view, b->position, b->state);
                CHECK(told > 0 || (told == ENGINE_LOST && LEVELS[i] >= 1 && LEVELS[i] <= 3));
                CHECK(told > 0 || !memcmp(b->state, NOTHING, sizeof NOTHING));
                all[i]++;
                if (told > 0) {
                    uint32_t state[ENGINE_STATE];
                    engine_go.save(engine, state);
                    CHECK(!memcmp(state, b->state, sizeof state));
                    provable[i]++;
                    follow(&s, engine, from, from + 2);
                }
                release(&view);
            }
            engine_go.close(engine);
            drop(&s);
        }
    }
    for (int i = 0; i < 11; i++)
        CHECK(all[i] && (LEVELS[i] >= 1 && LEVELS[i] <= 3 ? provable[i] && provable[i] < all[i] : provable[i] == all[i]));
}

/* Positions beyond 4 GiB, in the same phase of the window. */
static void test_far(void) {
    for (int i = 0; i < 11; i++) {
        if (LEVELS[i] == 2 || LEVELS[i] == 3) continue;
        stream s = encode(LEVELS[i], 8);
        static const uint32_t noisy[ENGINE_STATE] = {1, 65535, 0, 0};
        const uint32_t *state = LEVELS[i] == 1 ? noisy : NOTHING;
        void *near = engine_go.open(LEVELS[i]), *far = engine_go.open(LEVELS[i]);
        uint64_t begin = 65536 + 300, at[2] = {begin, begin};
        stream t = s;
        t.base = ((uint64_t)5 << 32) - 131072;
        engine_view a = view_of(&s, begin, 0), b = view_of(&t, t.base + begin, 0);
        CHECK(engine_go.seek(near, &a, begin, state) > 0 && engine_go.seek(far, &b, t.base + begin, state) > 0);
        for (int k = 0; k < 2; k++) release(k ? &a : &b);
        uint32_t *tokens[2] = {block(65535 * sizeof(uint32_t)), block(65535 * sizeof(uint32_t))};
        for (int told[2] = {0}; told[0] != ENGINE_DONE;) {
            size_t made[2];
            a = view_of(&s, at[0], 80000);
            b = view_of(&t, t.base + at[1], 80000);
            told[0] = engine_go.run(near, &a, NULL, tokens[0], 65535, &made[0]);
            told[1] = engine_go.run(far, &b, NULL, tokens[1], 65535, &made[1]);
            CHECK(told[0] > 0 && told[0] == told[1] && made[0] == made[1] &&
                  !memcmp(tokens[0], tokens[1], made[0] * sizeof(uint32_t)));
            at[0] = engine_go.position(near);
            at[1] = engine_go.position(far) - t.base;
            CHECK(at[0] == at[1]);
            release(&a);
            release(&b);
        }
        free(tokens[0]);
        free(tokens[1]);
        engine_go.close(near);
        engine_go.close(far);
        drop(&s);
    }
}

/* ---- streams that go another way ------------------------------------------------------------------------------- */

/* Put `tokens` in place of a token: two or three others for the same bytes. Returns how many. */
static unsigned replace(uint32_t *tokens, const uint8_t *bytes, uint64_t at, uint32_t token) {
    uint32_t length = deflate_length(token), distance = deflate_distance(token), first = 1 + (uint32_t)below(2);
    if (!(token & DEFLATE_MATCH)) return 0;
    if (length == DEFLATE_MAX_MATCH && below(2)) {
        tokens[0] = token | DEFLATE_LONG;
        return 1;
    }
    if (length < 6) { /* as literals */
        for (unsigned i = 0; i < length; i++) tokens[i] = bytes[at + i];
        return length;
    }
    if (below(2)) { /* a shorter one, and another */
        first = 3 + (uint32_t)below(length - 5);
        tokens[0] = deflate_match(first, distance);
        tokens[1] = deflate_match(length - first, distance);
        return 2;
    }
    for (unsigned i = 0; i < first; i++) tokens[i] = bytes[at + i];
    tokens[first] = deflate_match(length - first, distance);
    return first + 1;
}

/* A stream of the engine's, but for changed tokens every now and then, and cuts. */
typedef struct {
    stream s;
    uint8_t *changed, *cuts, *missed; /* by token; a cut is before it */
    unsigned changes, put, misses, longest;
} strayed;

static strayed stray(int level, int which, unsigned every, int cutting) {
    stream of = encode(level, which);
    strayed t = {of, block(MOST), block(MOST), block(MOST), 0, 0, 0, 0};
    uint64_t at = 0;
    memset(t.changed, 0, MOST);
    memset(t.cuts, 0, MOST);
    memset(t.missed, 0, MOST);
    t.s.tokens = block(MOST * sizeof(uint32_t));
    t.s.count = 0;
    for (size_t k = 0; k < of.count; at += deflate_length(of.tokens[k++])) {
        uint32_t others[6], n = 0;
        if (!below(every)) n = replace(others, of.bytes, at, of.tokens[k]);
        if (cutting && !below(10 * every)) t.cuts[t.s.count] = t.s.count > 0;
        for (unsigned i = 0; i < n; i++) {
            t.changed[t.s.count] = 1;
            t.s.tokens[t.s.count++] = others[i];
        }
        t.changes += n > 0;
        t.put += n;
        if (!n) t.s.tokens[t.s.count++] = of.tokens[k];
    }
    free(of.tokens);
    return t;
}

static void drop_strayed(strayed *t) {
    drop(&t->s);
    free(t->changed);
    free(t->cuts);
    free(t->missed);
}

/* What is missed, with the stream at hand. */
static void correct(strayed *t, void *engine) {
    engine_view view = {t->s.bytes, 0, t->s.n, 1};
    uint32_t *scratch = block(65535 * sizeof(uint32_t));
    size_t last = 0;
    CHECK(engine_go.seek(engine, &view, 0, NOTHING) > 0);
    for (size_t k = 0, made; k < t->s.count;) {
        size_t until = k + 1;
        if (t->cuts[k]) CHECK(engine_go.cut(engine) > 0);
        while (until < t->s.count && !t->cuts[until]) until++;
        while (k < until) {
            size_t max = until - k < 65535 ? until - k : 65535;
            int told = engine_go.run(engine, &view, t->s.tokens + k, scratch, max, &made);
            CHECK(told > 0 && !memcmp(scratch, t->s.tokens + k, made * sizeof *scratch));
            for (; made; made--, k++) last = t->changed[k] ? k : last;
            if (told != ENGINE_MISS) continue;
            CHECK(k < until);
            if (t->changed[k]) last = k;
            t->missed[k] = 1;
            t->misses++;
            if (k - last > t->longest) t->longest = (unsigned)(k - last);
            CHECK(engine_go.commit(engine, &view, t->s.tokens[k++]) > 0);
        }
    }
    CHECK(engine_go.position(engine) == t->s.n);
    free(scratch);
}

/* The same stream from the misses alone, in small views. */
static void apply(const strayed *t, void *engine) {
    uint32_t *scratch = block(65535 * sizeof(uint32_t));
    engine_view view = view_of(&t->s, 0, engine_go.lookahead);
    CHECK(engine_go.seek(engine, &view, 0, NOTHING) > 0);
    for (size_t k = 0, made, cut = 0; k < t->s.count;) {
        size_t until = k;
        if (t->cuts[k] && cut != k) {
            CHECK(engine_go.cut(engine) > 0);
            cut = k;
        }
        if (!view.last && view.end - engine_go.position(engine) < engine_go.lookahead) {
            release(&view);
            view = view_of(&t->s, engine_go.position(engine), engine_go.lookahead + below(30000));
        }
        do until++;
        while (until < t->s.count && !t->cuts[until] && !t->missed[until] && until - k < 65535);
        if (t->missed[k]) {
            /* A full block is told before. */
            int told = engine_go.run(engine, &view, NULL, scratch, 0, &made);
            CHECK((told == ENGINE_TOKENS || told == ENGINE_BLOCK) && !made);
            CHECK(engine_go.commit(engine, &view, t->s.tokens[k++]) > 0);
        } else {
            int told = engine_go.run(engine, &view, NULL, scratch, until - k, &made);
            CHECK(told > 0 && !memcmp(scratch, t->s.tokens + k, made * sizeof *scratch));
            k += made;
        }
    }
    CHECK(engine_go.position(engine) == t->s.n);
    release(&view);
    free(scratch);
}

static void test_corrections(int verbose) {
    for (int i = 2; i < 11; i++) {
        for (unsigned run = 0; run < 4; run++) {
            unsigned changes = 0, put = 0, misses = 0, longest = 0, every = run / 2 ? 175 : 7;
            for (int which = 5; which < CONTENTS; which += verbose ? 1 : 3) {
                strayed t = stray(LEVELS[i], which, every, run % 2);
                void *engine = engine_go.open(LEVELS[i]);
                correct(&t, engine);
                apply(&t, engine);
                engine_go.close(engine);
                changes += t.changes;
                put += t.put;
                misses += t.misses;
                if (t.longest > longest) longest = t.longest;
                /* Between tokens nothing is remembered: behind a change all is as before. */
                if (LEVELS[i] >= 4) CHECK(t.misses <= t.put && t.longest == 0);
                drop_strayed(&t);
            }
            if (verbose)
                printf("level %d, every %u, cuts %u: %u changes, %u tokens, %u misses, the last %u tokens behind a change\n",
                       LEVELS[i], every, run % 2, changes, put, misses, longest);
            /* (Level 1's segments begin anew at a cut, those of this stream do not.) */
            CHECK(misses <= (LEVELS[i] >= 4 ? put : 8 * put + 10) || (LEVELS[i] == 1 && run % 2));
        }
    }
}

/* Tokens that the content does not have are refused, and change nothing. */
static void test_refusals(void) {
    for (int i = 0; i < 11; i++) {
        stream s = encode(LEVELS[i], 9);
        void *engine = engine_go.open(LEVELS[i]);
        engine_view view = view_of(&s, 0, s.n);
        CHECK(engine_go.seek(engine, &view, 0, NOTHING) > 0);
        uint32_t *tokens = block(MOST * sizeof *tokens);
        for (size_t k = 0, made; k < s.count;) {
            for (unsigned n = 0; n < 3; n++) {
                uint64_t at = engine_go.position(engine);
                uint32_t length = 3 + (uint32_t)below(256), distance = 1 + (uint32_t)below(32768);
                int fits = distance <= at && length <= s.n - at && !memcmp(s.bytes + at, s.bytes + at - distance, length);
                if (!fits) CHECK(engine_go.commit(engine, &view, deflate_match(length, distance)) == ENGINE_LOST);
                CHECK(engine_go.commit(engine, &view, s.bytes[at] ^ 1u) == ENGINE_LOST);
                CHECK(engine_go.commit(engine, &view, deflate_match(4, 1) | DEFLATE_LONG) == ENGINE_LOST);
                CHECK(engine_go.position(engine) == at);
            }
            size_t max = 1 + below(3000);
            CHECK(engine_go.run(engine, &view, NULL, tokens, max < s.count - k ? max : s.count - k, &made) > 0);
            CHECK(!memcmp(tokens, s.tokens + k, made * sizeof *tokens));
            k += made;
        }
        CHECK(engine_go.commit(engine, &view, 0) == ENGINE_LOST);
        if (LEVELS[i] == 1) {
            static const uint32_t lies[][ENGINE_STATE] = {{1, 0, 0, 0},     {1, 65536, 0, 0}, {1, 40001, 0, 0},
                                                          {2, 40000, 0, 0}, {1, 3, 1, 0},     {1, 39999, 1, 0},
                                                          {1, 40000, 2, 0}, {0, 0, 0, 0}};
            for (int k = 0; k < 8; k++) CHECK(engine_go.seek(engine, &view, 40000, lies[k]) == ENGINE_LOST);
        }
        release(&view);
        view = view_of(&s, 40000, 0); /* does not reach back far enough */
        CHECK(engine_go.seek(engine, &view, 39999, NOTHING) == ENGINE_MORE);
        release(&view);
        free(tokens);
        engine_go.close(engine);
        drop(&s);
    }
}

/* ---- blocks, and codes ----------------------------------------------------------------------------------------- */

static void test_blocks(void) {
    uint8_t *bytes = block(70000);
    uint32_t *tokens = block(70000 * sizeof *tokens);
    engine_view view = {memset(bytes, 'x', 70000), 0, 70000, 1};
    for (int i = 0; i < 11; i++) {
        deflate_head head;
        unsigned follows = 7;
        void *engine = engine_go.open(LEVELS[i]);
        memset(&head, 1, sizeof head);
        CHECK(engine_go.seek(engine, &view, 0, NOTHING) > 0);
        for (int done = 0; done < 2; done++) {
            CHECK(engine_go.block(engine, &view, tokens, 0, 0, done, &head, &follows) > 0 && !follows);
            CHECK(head.type == DEFLATE_STORED && !head.stored && head.final == done && !head.padding);
        }
        /* A block of 70000 bytes, as no Go makes it: it cannot be stored. */
        size_t n = 0;
        CHECK(engine_go.commit(engine, &view, tokens[n++] = 'x') > 0);
        while (engine_go.position(engine) < 70000) {
            uint64_t left = 70000 - engine_go.position(engine);
            tokens[n] = left < 258 ? deflate_match((uint32_t)left, 1) : deflate_match(258, 1) | DEFLATE_LONG;
            CHECK(engine_go.commit(engine, &view, tokens[n++]) > 0);
        }
        CHECK(engine_go.block(engine, &view, tokens, n, 0, 1, &head, &follows) > 0 && follows == 1 && !head.final);
        CHECK(LEVELS[i] ? head.type == DEFLATE_DYNAMIC && head.lengths[284] : head.type == DEFLATE_STORED);
        engine_go.close(engine);
    }
    free(bytes);
    free(tokens);
}

/* Package-merge as one reads it, with sets of leaves. */
typedef struct {
    uint64_t weight;
    uint8_t leaves[40];
} package;

static void slow_lengths(const uint32_t *frequencies, unsigned n, unsigned limit, uint8_t *lengths) {
    static package lists[2][200];
    unsigned order[40], used = 0, size = 0;
    memset(lengths, 0, n);
    for (unsigned i = 0; i < n; i++) {
        unsigned k = used;
        if (!frequencies[i]) continue;
        for (; k && frequencies[order[k - 1]] > frequencies[i]; k--) order[k] = order[k - 1];
        order[k] = i;
        used++;
    }
    if (used < 3) {
        for (unsigned k = 0; k < used; k++) lengths[order[k]] = 1;
        return;
    }
    for (unsigned level = 0; level < limit; level++) {
        package *from = lists[level & 1], *to = lists[~level & 1];
        unsigned pairs = size / 2, pair = 0, leaf = 0;
        for (size = 0; leaf < used || pair < pairs; size++) {
            package *p = &to[size];
            memset(p, 0, sizeof *p);
            uint64_t sum = pair < pairs ? from[2 * pair].weight + from[2 * pair + 1].weight : UINT64_MAX;
            if (leaf < used && frequencies[order[leaf]] < sum) {
                p->weight = frequencies[order[leaf]];
                p->leaves[leaf++] = 1;
                continue;
            }
            p->weight = sum;
            for (unsigned k = 0; k < used; k++)
                p->leaves[k] = (uint8_t)(from[2 * pair].leaves[k] + from[2 * pair + 1].leaves[k]);
            pair++;
        }
    }
    for (unsigned i = 0; i < 2 * used - 2; i++)
        for (unsigned k = 0; k < used; k++) lengths[order[k]] = (uint8_t)(lengths[order[k]] + lists[limit & 1][i].leaves[k]);
}

static void test_lengths(void) {
    for (unsigned run = 0; run < 10000; run++) {
        uint32_t frequencies[40];
        uint8_t fast[40], slow[40];
        unsigned n = 1 + (unsigned)below(40), limit = n > 19 || below(2) ? 15 : 5 + (unsigned)below(3), shape = (unsigned)below(4);
        for (unsigned i = 0; i < n; i++) {
            frequencies[i] = (uint32_t)below(shape ? shape * 2 : 70000);
            if (shape == 3 && below(2)) frequencies[i] = 1u << below(28);
        }
        engine_go_lengths(frequencies, n, limit, fast);
        slow_lengths(frequencies, n, limit, slow);
        CHECK(!memcmp(fast, slow, n));
    }
}

int main(int argc, char **argv) {
    if (argc == 2 && atoi(argv[1]) < CONTENTS) {
        uint8_t *bytes = block(MOST);
        size_t n = content_of(atoi(argv[1]), bytes);
        CHECK(fwrite(bytes, 1, n, stdout) == n);
        free(bytes);
        return 0;
    }
    test_lengths();
    test_blocks();
    test_digests();
    test_views();
    test_seek();
    test_far();
    test_refusals();
    test_corrections(argc > 2);
    return 0;
}
