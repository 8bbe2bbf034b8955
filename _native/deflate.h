/* deflate: a stream of RFC 1951 taken apart into blocks and tokens, losslessly, and put together again.
 *
 * Other than an inflater, the parser keeps everything that an encoder chose: block types and boundaries, padding bits,
 * the code lengths of dynamic blocks in the very run-length form in which they were sent, and each match as it was
 * coded. What the parser gives, the writer turns back into the same bits.
 *
 * Streaming: memory is O(1) of the stream. Nothing is believed: every length is checked before it is used, and what
 * RFC 1951 forbids is DEFLATE_BAD. No function touches memory outside of what it is given. Positions are 64 bits wide. */
#ifndef CASSTORE_DEFLATE_H
#define CASSTORE_DEFLATE_H

#include <stddef.h>
#include <stdint.h>

/* ---- tokens ---------------------------------------------------------------------------------------------------- */

/* A literal is its byte. A match has DEFLATE_MATCH set, its length - 3 in bits 16..23 and its distance - 1 in bits
 * 0..14. DEFLATE_LONG: a length of 258 that was sent as symbol 284 with 31 extra bits, which the RFC allows. */
#define DEFLATE_MATCH 0x80000000u
#define DEFLATE_LONG 0x40000000u
#define DEFLATE_MIN_MATCH 3u
#define DEFLATE_MAX_MATCH 258u
#define DEFLATE_WINDOW 32768u

static inline uint32_t deflate_match(uint32_t length, uint32_t distance) {
    return DEFLATE_MATCH | (length - DEFLATE_MIN_MATCH) << 16 | (distance - 1);
}
static inline uint32_t deflate_length(uint32_t token) {
    return token & DEFLATE_MATCH ? (token >> 16 & 0xff) + DEFLATE_MIN_MATCH : 1;
}
static inline uint32_t deflate_distance(uint32_t token) { return (token & 0x7fff) + 1; }

/* The symbol of a length (3..258) is 257 + deflate_length_code; that of a distance (1..32768) deflate_distance_code. */
unsigned deflate_length_code(uint32_t length);
unsigned deflate_distance_code(uint32_t distance);
extern const uint8_t deflate_length_extra[29];
extern const uint8_t deflate_distance_extra[30];
extern const uint16_t deflate_length_base[29];
extern const uint16_t deflate_distance_base[30];

/* ---- blocks ---------------------------------------------------------------------------------------------------- */

#define DEFLATE_STORED 0
#define DEFLATE_FIXED 1
#define DEFLATE_DYNAMIC 2
#define DEFLATE_LITERALS 288
#define DEFLATE_DISTANCES 32
#define DEFLATE_OPS 320 /* code lengths sent: at most 286 + 30, each by at most one operation */

/* What a block's head says. `lengths`: literals' code lengths, then (from DEFLATE_LITERALS on) distances'. Of a dynamic
 * block also how they were sent: `code_lengths` by symbol 0..18, `code_count` of them (4..19, in the RFC's order), and
 * `ops` (symbol 0..18, and its extra bits' value). */
typedef struct {
    uint8_t type, final;
    uint8_t padding; /* stored: the bits up to the byte boundary */
    uint8_t code_count;
    uint16_t stored; /* stored: bytes */
    uint16_t literal_count, distance_count, op_count;
    uint8_t code_lengths[19];
    uint8_t lengths[DEFLATE_LITERALS + DEFLATE_DISTANCES];
    uint8_t ops[DEFLATE_OPS][2];
} deflate_head;

/* Sets `lengths` to those of a fixed block. */
void deflate_fixed_lengths(uint8_t lengths[DEFLATE_LITERALS + DEFLATE_DISTANCES]);

/* ---- parsing --------------------------------------------------------------------------------------------------- */

enum {
    DEFLATE_INPUT = 1,  /* all input is used: give more (with `last`, when there is no more) */
    DEFLATE_ROOM = 2,   /* no room for another token, or for its bytes */
    DEFLATE_HEAD = 3,   /* a block begins: deflate_parser_head */
    DEFLATE_TAIL = 4,   /* a block has ended */
    DEFLATE_END = 5,    /* the final block has ended; deflate_parser_bits tells where */
    DEFLATE_BAD = -1,   /* no deflate stream: deflate_parser_error */
    DEFLATE_CUT = -2,   /* it ended before its end */
    DEFLATE_MEMORY = -3
};

typedef struct deflate_parser deflate_parser;

deflate_parser *deflate_parser_new(void); /* NULL: no memory */
void deflate_parser_free(deflate_parser *parser);
void deflate_parser_reset(deflate_parser *parser);

typedef struct {
    const uint8_t *input; /* moved on by what was used */
    size_t input_left;
    int last; /* nothing follows this input */
    uint8_t *content; /* where the next byte goes; before it lie the last 32 KiB of content, or all if there is less */
    size_t content_room;
    uint32_t *tokens; /* moved on, as `content` is; of a stored block there are none */
    size_t token_room;
} deflate_io;

/* Parse on until something is to be told. Each token's bytes go to `content` with it; a token never straddles calls,
 * but a stored block's bytes do. */
int deflate_parse(deflate_parser *parser, deflate_io *io);

const deflate_head *deflate_parser_head(const deflate_parser *parser);
uint64_t deflate_parser_bits(const deflate_parser *parser);    /* bits of the stream used so far */
uint64_t deflate_parser_content(const deflate_parser *parser); /* bytes of content so far */
const char *deflate_parser_error(const deflate_parser *parser);
/* After DEFLATE_END: the bits that pad the last byte. */
unsigned deflate_parser_padding(const deflate_parser *parser);
/* After DEFLATE_END: input bytes that were taken and belong to what follows the stream; they are the last ones of what
 * was given, 0..7 of them. */
unsigned deflate_parser_surplus(const deflate_parser *parser);

/* ---- writing --------------------------------------------------------------------------------------------------- */

/* Bits to bytes. `out` has `room` left; what does not fit is counted and not written (`lost`). */
typedef struct {
    uint8_t *out;
    size_t room;
    uint64_t bits; /* those of the byte begun, the lowest first */
    unsigned count; /* 0..7 of them between calls */
    int lost;
} deflate_writer;

void deflate_write_bits(deflate_writer *writer, uint64_t bits, unsigned count); /* count <= 48 */
/* Pad to a byte boundary with the given bits. */
void deflate_write_align(deflate_writer *writer, unsigned padding);
/* A block's head, up to its first token or, of a stored block, its first byte. */
void deflate_write_head(deflate_writer *writer, const deflate_head *head);
void deflate_write_bytes(deflate_writer *writer, const uint8_t *bytes, size_t n); /* on a byte boundary */

/* Codes of a block, made once. */
typedef struct {
    uint16_t literal[DEFLATE_LITERALS], distance[DEFLATE_DISTANCES];
    uint8_t literal_length[DEFLATE_LITERALS], distance_length[DEFLATE_DISTANCES];
    uint32_t match[256];       /* a length's code and extra bits, by length - 3 */
    uint8_t match_length[256]; /* their number */
} deflate_codes;

void deflate_codes_make(deflate_codes *codes, const uint8_t lengths[DEFLATE_LITERALS + DEFLATE_DISTANCES]);
void deflate_write_tokens(deflate_writer *writer, const deflate_codes *codes, const uint32_t *tokens, size_t n);
void deflate_write_end(deflate_writer *writer, const deflate_codes *codes); /* end of block */

#endif
