/* engine_proof: does an engine, as it runs here, do what its encoder does?
 *
 * A content that is made by code is encoded by the engine alone, and held against what the encoder itself made of it:
 * the length, and FNV-1a of 64 bits. Each level that an engine has is held against a vector of its own, see
 * engine_proof_vectors.h, which tells how they were made (-1 is none: an encoder's default is a level of its own). A
 * compiler's fault, a wrong table, another order of bytes show; so does a change of the rules under an old version.
 *
 * The content has literals, matches of all lengths and near the limits of distance, runs, what does not compress, and is
 * long enough for several blocks of each encoder, for a window that slides, for pigz's pieces; of klauspost's units only
 * the smaller ones end in it, and no chain of more than some hundreds of candidates. It takes about a millisecond. */
#ifndef CASSTORE_ENGINE_PROOF_H
#define CASSTORE_ENGINE_PROOF_H

#include "engine.h"

enum {
    PROOF_HOLDS = 1,
    PROOF_FAILS = 0,   /* other bytes; or there is no vector of such a level */
    PROOF_MEMORY = -1
};

/* Thread-safe. */
int engine_prove(const engine_kind *kind, int level);

/* The content: `n` bytes, at most PROOF_MOST. Of fewer it is the begin. */
#define PROOF_MOST 133000u
void engine_proof_content(uint8_t *bytes, size_t n);

/* One vector: what the encoder made of the content's first `content` bytes. */
typedef struct {
    const char *name;
    unsigned version;
    int level;
    uint32_t content, size;
    uint64_t digest;
} proof_vector;

extern const proof_vector engine_proof_vectors[];
extern const size_t engine_proof_count;

#endif
