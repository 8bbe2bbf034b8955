/* engine_proof: each engine proves itself, at each level that it has; one that does otherwise does not.
 *
 * With a number it writes that many bytes of the content; with "failing", the engines and levels that fail. */
#include "../engine_proof.h"
#include "check.h"

#define LEVELS 100

static int opens(const engine_kind *kind, int level) {
    void *engine = kind->open(level);
    if (engine) kind->close(engine);
    return engine != NULL;
}

/* How many do not hold, which are told in `out`; *held: how many do. */
static unsigned fail(FILE *out, unsigned *held) {
    unsigned failing = 0;
    *held = 0;
    for (size_t i = 0; i < engine_count; i++) {
        const engine_kind *kind = engine_kinds[i];
        for (int level = -LEVELS; level < LEVELS; level++) {
            if (level == -1 || !opens(kind, level)) continue;
            int told = engine_prove(kind, level);
            CHECK(told >= 0);
            *held += told == PROOF_HOLDS;
            failing += told != PROOF_HOLDS;
            if (told != PROOF_HOLDS) fprintf(out, "%s %u %d\n", kind->name, kind->version, level);
        }
    }
    return failing;
}

static void *open_next(int level) { return engine_go.open(level + 1); }

/* Another level's rules; a version, a level that there is no vector of; another encoder. */
static void test_failures(void) {
    engine_kind other = engine_go;
    other.open = open_next;
    CHECK(engine_prove(&other, 4) == PROOF_FAILS && engine_prove(&other, 8) == PROOF_FAILS);
    other.version = 1000;
    CHECK(engine_prove(&other, 6) == PROOF_FAILS); /* there is no vector */
    other = engine_zlib;
    other.name = "gzip";
    CHECK(engine_prove(&other, 6) == PROOF_FAILS);
    CHECK(engine_prove(&engine_zlib, -1) == PROOF_FAILS && engine_prove(&engine_zlib, 10) == PROOF_FAILS);
}

/* Versions that differ are told from each other: all vectors of an encoder's default level are. */
static void test_different(void) {
    for (size_t i = 0; i < engine_proof_count; i++) {
        const proof_vector *a = &engine_proof_vectors[i];
        for (size_t k = 0; k < i; k++) {
            const proof_vector *b = &engine_proof_vectors[k];
            CHECK(strcmp(a->name, b->name) || a->version != b->version || a->level != b->level);
            if (a->level == b->level && !strcmp(a->name, b->name) && a->level == 5) CHECK(a->digest != b->digest);
        }
        CHECK(a->content <= PROOF_MOST);
    }
}

int main(int argc, char **argv) {
    if (argc == 2 && atoi(argv[1])) {
        size_t n = (size_t)atoi(argv[1]);
        uint8_t *bytes = block(n);
        engine_proof_content(bytes, n);
        CHECK(fwrite(bytes, 1, n, stdout) == n && !fflush(stdout));
        free(bytes);
        return 0;
    }
    unsigned held;
    if (argc == 2) {
        fail(stdout, &held);
        return 0;
    }
    CHECK(!fail(stderr, &held) && held == engine_proof_count);
    test_failures();
    test_different();
    return 0;
}
