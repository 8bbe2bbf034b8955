/* engine: encoders of deflate, predicted token for token.
 *
 * An engine is what some encoder does, under a name and a version that never change their meaning: which token it chooses
 * at a position, where it ends a block, how it sends that block. With nothing to correct it is that encoder; given what
 * another one really chose, it tells where its prediction misses and goes on from the truth, so that one miss does not
 * make another.
 *
 * Content is seen through a view: a contiguous part of it, around the position. Engines keep no pointer into it between
 * calls. Everything depends on the content and the engine's level alone: not on how views are cut, nor on the machine. */
#ifndef CASSTORE_ENGINE_H
#define CASSTORE_ENGINE_H

#include <stddef.h>
#include <stdint.h>

#include "deflate.h"

/* Bytes [begin, end) of the content, at `bytes`; `last`: it ends at `end`. Whoever calls sees to it that the view reaches
 * back `history` bytes before the engine's position, or to the content's begin, and says `last` when it is true. */
typedef struct {
    const uint8_t *bytes;
    uint64_t begin, end;
    int last;
} engine_view;

enum {
    ENGINE_TOKENS = 1, /* `max` tokens were made */
    ENGINE_BLOCK = 2,  /* the block is full: engine.block */
    ENGINE_MORE = 3,   /* the view does not reach far enough for the next token */
    ENGINE_DONE = 4,   /* all content has its tokens: engine.block, until it says that nothing follows */
    ENGINE_MISS = 5,   /* the next token is another than predicted: it was not committed */
    ENGINE_LOST = -1,  /* it cannot go on from what was committed */
    ENGINE_MEMORY = -2
};

/* What an engine remembers at a block boundary, besides the content: small numbers, kept in checkpoints. */
#define ENGINE_STATE 4

typedef struct {
    const char *name;    /* "go", "zlib", "klauspost" … */
    unsigned version;    /* of the rules: another one whenever a byte may differ */
    uint32_t history;    /* bytes before a position that it may look at */
    uint32_t lookahead;  /* bytes after one that it wants to see, where there are so many */
    uint32_t max_tokens; /* of a block of its own, but for those that go on without end (Go from 1.27 on, klauspost) */

    /* NULL: no memory, or no such level (levels are the encoder's own numbers). */
    void *(*open)(int level);
    void (*close)(void *engine);

    /* Stand at a block boundary, in a state that `save` gave; at 0 with a state of zeros: the beginning. The view need
     * reach only from `history` before the position to the position. ENGINE_LOST: what the engine remembers there is
     * more than a state holds, and cannot be had from the content (Go's levels 1 to 3, but where nothing compresses). */
    int (*seek)(void *engine, const engine_view *view, uint64_t position, const uint32_t state[ENGINE_STATE]);
    void (*save)(const void *engine, uint32_t state[ENGINE_STATE]);
    uint64_t (*position)(const void *engine);
    /* Blocks without tokens that are still to come at its position, of those that `block` told of. NULL: never any. */
    unsigned (*follows)(const void *engine);

    /* Predict and commit tokens, up to `max`, into `tokens`; *made is how many. With `actual`, an array of `max` of what
     * the stream really has (DEFLATE_LONG included): stop before the first that differs; its prediction is then in
     * tokens[*made]. */
    int (*run)(void *engine, const engine_view *view, const uint32_t *actual, uint32_t *tokens, size_t max,
               size_t *made);
    /* Commit a token, whatever was predicted: any that the content allows. */
    int (*commit)(void *engine, const engine_view *view, uint32_t token);
    /* The stream has a block boundary here, whatever was predicted. */
    int (*cut)(void *engine);

    /* How the block of these tokens (n, which may be 0) is sent, which begins at content position `start` and ends at the
     * engine's: fills in the head. Called once for each block, in order; may depend on earlier blocks. `done`: all
     * content has its tokens. *follows: blocks without tokens that come after this one, each asked for by a call with
     * n = 0 (a final empty block, a flush). */
    int (*block)(void *engine, const engine_view *view, const uint32_t *tokens, size_t n, uint64_t start, int done,
                 deflate_head *head, unsigned *follows);
} engine_kind;

extern const engine_kind engine_go;        /* Go compress/flate 1.7 to 1.26 */
extern const engine_kind engine_zlib;      /* zlib 1.2.x and 1.3.x, levels 1 to 9 */
extern const engine_kind engine_gzip;      /* GNU gzip, levels 1 to 9 */
extern const engine_kind engine_busybox;   /* BusyBox's gzip, levels 4 to 9; + 10 or 20: built faster */
extern const engine_kind engine_pigz;      /* pigz over zlib, levels 1 to 9, in pieces of 128 KiB */
extern const engine_kind engine_klauspost; /* klauspost/compress under pgzip */

/* All of them. */
extern const engine_kind *const engine_kinds[];
extern const size_t engine_count;

/* All of `content` as a deflate stream, by an engine alone. Returns its bytes, or 0: no memory, no such level; `room` too
 * small: more than `room`. What it costs is what a replay costs. */
size_t engine_encode(const engine_kind *kind, int level, const uint8_t *content, size_t n, uint8_t *out, size_t room);

/* ---- what engines share: trees, by the rules of an encoder ---------------------------------------------------------- */

/* Go's and klauspost's: length-limited codes by boundary package-merge, symbols of equal frequency in order. `lengths`
 * gets `n` of at most `limit` bits. Source: GZIP.md; Go's huffman_code.go. */
void engine_go_lengths(const uint32_t *frequencies, unsigned n, unsigned limit, uint8_t *lengths);

#endif
