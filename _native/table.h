/* Tables of digests: looking up many at once in a sorted table that lies in (mapped) memory, and a growing map.
 *
 * A table is `count` entries of TABLE_ENTRY bytes, ascending by their first TABLE_DIGEST bytes (equal digests may follow
 * one another), and a fanout of 2^bits + 1 numbers: entries fanout[b] … fanout[b + 1] - 1 are those whose digest begins
 * with the `bits` bits b. All numbers are little-endian. Neither entries nor fanout are believed: whatever they say,
 * nothing outside of them is read. */
#ifndef CASSTORE_TABLE_H
#define CASSTORE_TABLE_H

#include <stddef.h>
#include <stdint.h>

#define TABLE_DIGEST 32
#define TABLE_ENTRY 40 /* digest, pack uint32, address uint32 */
#define TABLE_MAX_BITS 24

enum {
    TABLE_OK = 0,
    TABLE_BAD_FANOUT = 1, /* a bucket that is not a range of entries */
    TABLE_UNSORTED = 2,
    TABLE_NO_MEMORY = 3,
    TABLE_RESERVED = 4, /* CHUNKMAP_MISSING given as a value */
};

/* The caller vouches for: count < 2^32, bits <= TABLE_MAX_BITS, and the sizes of both buffers. */
typedef struct {
    const uint8_t *entries, *fanout;
    uint64_t count;
    unsigned bits;
} table;

/* Each of n digests: is it there, and the pack and address of its first entry (else zeros). TABLE_BAD_FANOUT: *bad is
 * the bucket, and what was written is of no use. */
int table_find(const table *t, const uint8_t *digests, size_t n, uint8_t *found, uint32_t *packs,
               uint32_t *addresses, uint32_t *bad);

/* … the number of its first entry (where it would stand, if absent) and how many entries it has. */
int table_find_range(const table *t, const uint8_t *digests, size_t n, uint32_t *firsts, uint32_t *counts,
                     uint32_t *bad);

/* The fanout (2^bits + 1 numbers) of n < 2^32 digests, `stride` bytes from one to the next. TABLE_UNSORTED: *bad is the
 * first digest that is smaller than the one before it. */
int table_build_fanout(const uint8_t *digests, size_t stride, size_t n, unsigned bits, uint32_t *fanout, size_t *bad);

/* The numbers of n < 2^32 digests in ascending order of digest, equal ones in order of number. */
int table_order(const uint8_t *digests, size_t stride, size_t n, uint32_t *order);

/* ---- a map digest -> uint64 ---- */

#define CHUNKMAP_PENDING UINT64_MAX
#define CHUNKMAP_MISSING (UINT64_MAX - 1) /* not a value: what get says of a digest that is not there */

typedef struct {
    uint8_t digest[TABLE_DIGEST];
    uint64_t mark; /* value ^ CHUNKMAP_MISSING, so that zeroed memory is an empty slot */
} chunkmap_slot;

/* Open addressing, linear probing, a power of two of slots. One thread at a time. */
typedef struct {
    chunkmap_slot *slots;
    uint64_t capacity, used;
    uint64_t seed[2]; /* secret: digests can be chosen by whoever makes the content */
} chunkmap;

void chunkmap_init(chunkmap *map, uint64_t seed0, uint64_t seed1);
void chunkmap_free(chunkmap *map);

/* All or nothing: on TABLE_NO_MEMORY and TABLE_RESERVED the map is as it was. */
int chunkmap_claim(chunkmap *map, const uint8_t *digests, size_t n, uint8_t *first);
int chunkmap_set(chunkmap *map, const uint8_t *digests, const uint64_t *values, size_t n);
void chunkmap_get(const chunkmap *map, const uint8_t *digests, size_t n, uint64_t *values);
/* All `used` digests and values, in no order. */
void chunkmap_dump(const chunkmap *map, uint8_t *digests, uint64_t *values);

#endif
