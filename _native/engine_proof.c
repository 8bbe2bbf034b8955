/* Engines held against what their encoders made: see engine_proof.h. */
#include "engine_proof.h"

#include <stdlib.h>
#include <string.h>

const proof_vector engine_proof_vectors[] = {
#include "engine_proof_vectors.h"
};
const size_t engine_proof_count = sizeof engine_proof_vectors / sizeof engine_proof_vectors[0];

/* ---- the content ------------------------------------------------------------------------------------------------- */

static uint32_t draw(uint64_t *seed) {
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 33);
}

/* Limits of distance, of one encoder or another, and of what is dropped as too far for its length. */
static const uint16_t FAR[] = {1, 2, 4095, 4096, 4097, 8192, 32505, 32506, 32507, 32767, 32768, 33000};
/* And of length. */
static const uint16_t LONG[] = {3, 3, 4, 4, 5, 6, 8, 9, 15, 17, 31, 33, 60, 130, 257, 258, 259, 262, 520};

/* From here on matches are near and short, so that there is a segment of klauspost's which does not use all codes. */
#define NEAR 65535u

void engine_proof_content(uint8_t *bytes, size_t n) {
    uint64_t seed = 35;
    for (size_t at = 0; at < n;) {
        uint32_t kind = draw(&seed) % 16, number = draw(&seed), count, back;
        if (at % 50000 > 46000) kind = 15; /* a stretch of noise now and then */
        if (kind < 6) { /* a word */
            uint64_t word = (at > NEAR ? 2000 + number % 200 : number % 1500) * 0x9e3779b97f4a7c15u;
            for (count = 2 + number % 8; count && at < n; count--)
                bytes[at++] = (uint8_t)"etaoinshrdlu/.0_"[draw(&word) % 16];
        } else if (kind < 12) { /* as before: there, or with another end */
            back = number & 1 ? FAR[(number >> 4) % (sizeof FAR / sizeof *FAR)] : 1 + (number >> 4) % 33000;
            if (number % 7 == 0 || at > NEAR) back = 1 + (number >> 4) % 300;
            count = LONG[draw(&seed) % (sizeof LONG / sizeof *LONG)] % (at > NEAR ? 160 : 1000);
            if (back > at) back = (uint32_t)at;
            for (; back && count && at < n; count--, at++) bytes[at] = bytes[at - back];
        } else if (kind < 14) { /* numbers */
            for (count = 1 + number % 6; count && at < n; count--) bytes[at++] = (uint8_t)draw(&seed);
        } else if (kind == 14) { /* a run */
            for (count = number % 40 || at > NEAR ? number % 30 : 1500; count && at < n; count--)
                bytes[at++] = (uint8_t)(number >> 20 & 3);
        } else { /* noise of few or of all bytes */
            for (count = number % 300; count && at < n; count--)
                bytes[at++] = (uint8_t)(number & 512 ? draw(&seed) : draw(&seed) & 31);
        }
    }
}

/* ---- the proof --------------------------------------------------------------------------------------------------- */

static uint64_t digest_of(const uint8_t *bytes, size_t n) {
    uint64_t digest = 0xcbf29ce484222325;
    for (size_t i = 0; i < n; i++) digest = (digest ^ bytes[i]) * 0x100000001b3;
    return digest;
}

int engine_prove(const engine_kind *kind, int level) {
    const proof_vector *v = engine_proof_vectors, *end = v + engine_proof_count;
    while (v < end && (v->level != level || v->version != kind->version || strcmp(v->name, kind->name))) v++;
    if (v == end) return PROOF_FAILS;
    size_t room = v->content + v->content / 8 + 1024;
    uint8_t *content = malloc(v->content), *out = malloc(room);
    int told = PROOF_MEMORY;
    if (content && out) {
        engine_proof_content(content, v->content);
        size_t size = engine_encode(kind, level, content, v->content, out, room);
        /* None was made: no memory, which is told from a level that is not there by who has opened it. */
        if (size) told = size == v->size && digest_of(out, size) == v->digest ? PROOF_HOLDS : PROOF_FAILS;
    }
    free(content);
    free(out);
    return told;
}
