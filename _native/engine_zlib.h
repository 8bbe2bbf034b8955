/* What the files of the zlib family share: see engine_zlib.c. */
#ifndef CASSTORE_ENGINE_ZLIB_H
#define CASSTORE_ENGINE_ZLIB_H

#include "engine.h"

/* How zlib and its kin send a block of these tokens, which are `bytes` of content: stored (where `storable`), with fixed
 * or with dynamic codes, whichever takes the fewest bytes. Fills in the head but for `final`; returns the block's bits,
 * of a stored one only those of its type. */
uint64_t engine_zlib_send(const uint32_t *tokens, size_t n, uint64_t bytes, int storable, deflate_head *head);

/* Huffman codes of at most `limit` bits for `n` symbols (at most 286), by the rules of zlib: two symbols at least, the
 * deepest last. Returns the highest symbol that has a code. */
unsigned engine_zlib_lengths(const uint32_t *frequencies, unsigned n, unsigned limit, uint8_t *lengths);

#endif
