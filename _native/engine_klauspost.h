/* engine_klauspost's parts: klauspost/compress's flate at levels -2 to 6, as pgzip or Go (from 1.27 on) drives it. See
 * engine_klauspost.c.
 *
 * Content goes in segments of 65535 bytes. The matcher makes a segment's tokens from the content alone; the coder then
 * says how they are sent: as a block of their own, or as more tokens of the block before, under its codes. */
#ifndef CASSTORE_ENGINE_KLAUSPOST_H
#define CASSTORE_ENGINE_KLAUSPOST_H

#include "engine.h"

#define KP_SEGMENT 65535u
#define KP_TABLE_BITS 15
#define KP_LAST_BITS 17 /* the largest that some level has */
#define KP_PAIR_BITS 16

/* Where versions and levels differ. */
typedef struct {
    int8_t level;    /* as the encoder counts: 1 to 6; 0 stores, -2 has literals only */
    uint8_t penalty; /* new codes must be so much better: 1 in 2 ^ penalty */
    uint16_t segment; /* its bytes */
    uint8_t levels;   /* those that are known, by bits */
    uint8_t short_splits; /* matches longer than 258 go in pieces of 255, else of 258 */
    uint8_t skip;         /* bytes that a match found at another's end may leave out at its begin */
    uint8_t trimmed;      /* heads end with the last code used, and the end of a block counts; else 286 and 30 codes */
    uint8_t small;        /* short segments are searched as others are; else they are not */
    uint8_t tree;         /* codes from a plain Huffman tree where it is not too deep */
} kp_rules;

/* A segment's tokens, and how often each symbol is among them; [256] counts no end of block. */
typedef struct {
    uint32_t n;
    uint32_t symbols[DEFLATE_LITERALS], distances[DEFLATE_DISTANCES];
    uint32_t tokens[KP_SEGMENT + 1];
    uint8_t length_code[256], distance_code[512]; /* by length - 3; by distance - 1, from 256 on by its 128th */
} kp_tokens;

void kp_tokens_init(kp_tokens *tokens);
void kp_tokens_clear(kp_tokens *tokens);
/* Each byte a literal. */
void kp_tokens_literals(kp_tokens *tokens, const uint8_t *bytes, uint32_t n);

/* ---- the matcher ------------------------------------------------------------------------------------------------- */

typedef struct {
    uint64_t base;  /* positions are kept as their distance from here, plus `bias` */
    uint64_t begin; /* of the history */
    uint64_t end;   /* of the history: where the next segment begins */
    uint64_t first; /* in the encoder's own buffer, which has more of it */
    uint32_t bias;
    uint64_t trail;                    /* of the last segment: a digest of what it has entered in the tables */
    uint32_t last[1 << KP_LAST_BITS];  /* by 4 or 5 bytes: where they were last */
    uint64_t pairs[1 << KP_PAIR_BITS]; /* by 7 or 5 bytes: where they were last (low half), and before that */
} kp_matcher;

/* Of zeros. */
void kp_matcher_init(kp_matcher *matcher);
/* Forget all; the next segment begins at `position`, which is what the encoder began with. */
void kp_matcher_reset(kp_matcher *matcher, uint64_t position);
/* The tokens of the next `n` bytes (n <= KP_SEGMENT, all in the view, as are the 32 KiB before them or as much of the
 * history as there is). None are made where no match was found, or n < KP_SEARCHED. */
void kp_match(kp_matcher *matcher, const kp_rules *rules, const engine_view *view, uint32_t n, kp_tokens *tokens);
#define KP_SEARCHED 13
/* Where the encoder's own buffer begins once it has dealt with so many whole segments. It needs no more than KP_BUFFER
 * bytes of history. */
uint64_t kp_first(uint64_t segments);
#define KP_BUFFER (KP_SEGMENT * 5)

/* ---- the coder --------------------------------------------------------------------------------------------------- */

/* What the coder carries from segment to segment: the size of the last head, when its codes may be used on (else 0),
 * whether it has codes for literals only, and those codes. */
typedef struct {
    uint32_t header;
    uint8_t literals_only;
    uint8_t lengths[DEFLATE_LITERALS + DEFLATE_DISTANCES];
} kp_coder;

/* How a segment is sent. */
typedef enum { KP_STORED, KP_LITERALS, KP_MATCHES } kp_kind;

/* The coder's word on a segment of `bytes` bytes: 1: it goes on with the block before; 0: `head` begins a new one.
 * `sync`: a flush follows. */
int kp_plan(kp_coder *coder, const kp_rules *rules, kp_kind kind, const kp_tokens *tokens, uint32_t bytes, int sync,
            deflate_head *head);

/* ---- versions ------------------------------------------------------------------------------------------------------
 *
 * Those of klauspost/compress that differ in a byte; pgzip's own make no difference. All are called "klauspost". */
/* engine_klauspost, 1:                            1.15.10 to 1.18.0 */
extern const engine_kind engine_klauspost_1_18; /* 2: 1.18.1 to 1.20.3 */
extern const engine_kind engine_klauspost_1_20; /* 3: 1.20.4 */
extern const engine_kind engine_klauspost_1_15; /* 4: 1.15.0 to 1.15.9 */
extern const engine_kind engine_klauspost_1_14; /* 5: 1.14.4 */

/* "go", 2: Go's compress/flate from 1.27 on, which is made from klauspost's. */
extern const engine_kind engine_go_1_27;

#endif
