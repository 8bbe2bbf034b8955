#include "table.h"

#include <stdlib.h>
#include <string.h>

/* How many lookups wait for memory at the same time. */
#define IN_FLIGHT 32
#define LINE 64

static inline uint32_t load_le32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint32_t load_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint64_t load_be64(const uint8_t *p)
{
    return (uint64_t)load_be32(p) << 32 | load_be32(p + 4);
}

static inline uint32_t bucket_of(const uint8_t *digest, unsigned bits)
{
    return bits ? load_be32(digest) >> (32 - bits) : 0;
}

/* memcmp, with the first eight bytes, which nearly always decide, in registers. */
static inline int compare(const uint8_t *a, const uint8_t *b)
{
    uint64_t x = load_be64(a), y = load_be64(b);
    if (x != y)
        return x < y ? -1 : 1;
    return memcmp(a + 8, b + 8, TABLE_DIGEST - 8);
}

/* ---- lookups ---- */

/* A bucket: entries low … high - 1. */
typedef struct {
    uint32_t low, high;
} range;

static inline const uint8_t *entry(const table *t, uint64_t i)
{
    return t->entries + i * TABLE_ENTRY;
}

/* The buckets of up to IN_FLIGHT digests. Memory is asked for in two waves, fanout then entries, each for all digests
 * before the first answer is waited for. */
static int buckets(const table *t, const uint8_t *digests, size_t n, range *out, uint32_t *bad)
{
    for (size_t i = 0; i < n; i++)
        __builtin_prefetch(t->fanout + 4 * (size_t)bucket_of(digests + i * TABLE_DIGEST, t->bits));
    for (size_t i = 0; i < n; i++) {
        uint32_t bucket = bucket_of(digests + i * TABLE_DIGEST, t->bits);
        range r = {load_le32(t->fanout + 4 * (size_t)bucket), load_le32(t->fanout + 4 * ((size_t)bucket + 1))};
        if (r.low > r.high || r.high > t->count) {
            *bad = bucket;
            return TABLE_BAD_FANOUT;
        }
        out[i] = r;
        if (r.high - r.low <= 8) {
            const uint8_t *end = entry(t, r.high);
            for (const uint8_t *p = entry(t, r.low); p < end; p += LINE)
                __builtin_prefetch(p);
            __builtin_prefetch(end - (r.high > r.low));
        } else {
            __builtin_prefetch(entry(t, r.low + (r.high - r.low) / 2));
        }
    }
    return TABLE_OK;
}

/* The first entry of the range that is not less (or, with `past`, that is greater) than the digest. */
static inline uint32_t bound(const table *t, range r, const uint8_t *digest, int past)
{
    while (r.low < r.high) {
        uint32_t middle = r.low + (r.high - r.low) / 2;
        if (compare(entry(t, middle), digest) < past)
            r.low = middle + 1;
        else
            r.high = middle;
    }
    return r.low;
}

int table_find(const table *t, const uint8_t *digests, size_t n, uint8_t *found, uint32_t *packs,
               uint32_t *addresses, uint32_t *bad)
{
    range r[IN_FLIGHT];
    for (size_t base = 0; base < n; base += IN_FLIGHT) {
        size_t group = n - base < IN_FLIGHT ? n - base : IN_FLIGHT;
        int status = buckets(t, digests + base * TABLE_DIGEST, group, r, bad);
        if (status != TABLE_OK)
            return status;
        for (size_t j = 0; j < group; j++) {
            const uint8_t *digest = digests + (base + j) * TABLE_DIGEST;
            uint32_t at = bound(t, r[j], digest, 0);
            int there = at < r[j].high && compare(entry(t, at), digest) == 0;
            found[base + j] = (uint8_t)there;
            packs[base + j] = there ? load_le32(entry(t, at) + TABLE_DIGEST) : 0;
            addresses[base + j] = there ? load_le32(entry(t, at) + TABLE_DIGEST + 4) : 0;
        }
    }
    return TABLE_OK;
}

int table_find_range(const table *t, const uint8_t *digests, size_t n, uint32_t *firsts, uint32_t *counts,
                     uint32_t *bad)
{
    range r[IN_FLIGHT];
    for (size_t base = 0; base < n; base += IN_FLIGHT) {
        size_t group = n - base < IN_FLIGHT ? n - base : IN_FLIGHT;
        int status = buckets(t, digests + base * TABLE_DIGEST, group, r, bad);
        if (status != TABLE_OK)
            return status;
        for (size_t j = 0; j < group; j++) {
            const uint8_t *digest = digests + (base + j) * TABLE_DIGEST;
            uint32_t first = bound(t, r[j], digest, 0);
            range rest = {first, r[j].high};
            firsts[base + j] = first;
            counts[base + j] = bound(t, rest, digest, 1) - first;
        }
    }
    return TABLE_OK;
}

/* ---- building ---- */

int table_build_fanout(const uint8_t *digests, size_t stride, size_t n, unsigned bits, uint32_t *fanout, size_t *bad)
{
    size_t next = 0, buckets_end = ((size_t)1 << bits) + 1; /* fanout[0 … next - 1] is known */
    for (size_t i = 0; i < n; i++) {
        const uint8_t *digest = digests + i * stride;
        if (i && compare(digest - stride, digest) > 0) {
            *bad = i;
            return TABLE_UNSORTED;
        }
        for (uint32_t bucket = bucket_of(digest, bits); next <= bucket; next++)
            fanout[next] = (uint32_t)i;
    }
    for (; next < buckets_end; next++)
        fanout[next] = (uint32_t)n;
    return TABLE_OK;
}

typedef struct {
    const uint8_t *digests;
    size_t stride;
} column;

static inline int before(column c, uint32_t a, uint32_t b)
{
    int order = compare(c.digests + a * c.stride, c.digests + b * c.stride);
    return order < 0 || (order == 0 && a < b);
}

static void sift(column c, uint32_t *heap, size_t n, size_t i)
{
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && before(c, heap[child], heap[child + 1]))
            child++;
        if (!before(c, heap[i], heap[child]))
            return;
        uint32_t swap = heap[i];
        heap[i] = heap[child];
        heap[child] = swap;
    }
}

/* Small ranges by insertion; a large one (many digests that begin alike, perhaps made so) by heap, which has no bad
 * case. */
static void sort_range(column c, uint32_t *order, size_t n)
{
    if (n > 24) {
        for (size_t i = n / 2; i-- > 0;)
            sift(c, order, n, i);
        for (size_t end = n; end-- > 1;) {
            uint32_t swap = order[0];
            order[0] = order[end];
            order[end] = swap;
            sift(c, order, end, 0);
        }
        return;
    }
    for (size_t i = 1; i < n; i++) {
        uint32_t moving = order[i];
        size_t j = i;
        for (; j > 0 && before(c, moving, order[j - 1]); j--)
            order[j] = order[j - 1];
        order[j] = moving;
    }
}

int table_order(const uint8_t *digests, size_t stride, size_t n, uint32_t *order)
{
    unsigned bits = 0;
    while (bits < TABLE_MAX_BITS && n >> (bits + 2))
        bits++;
    size_t buckets_count = (size_t)1 << bits;
    uint32_t *ends = calloc(buckets_count + 1, sizeof *ends);
    if (!ends)
        return TABLE_NO_MEMORY;

    for (size_t i = 0; i < n; i++)
        ends[bucket_of(digests + i * stride, bits) + 1]++;
    for (size_t b = 0; b < buckets_count; b++)
        ends[b + 1] += ends[b];
    for (size_t i = 0; i < n; i++) /* moves ends[b] from where bucket b begins to where it ends */
        order[ends[bucket_of(digests + i * stride, bits)]++] = (uint32_t)i;

    column c = {digests, stride};
    for (size_t b = 0, begin = 0; b < buckets_count; begin = ends[b++])
        sort_range(c, order + begin, ends[b] - begin);
    free(ends);
    return TABLE_OK;
}

/* ---- the map ---- */

#define FIRST_CAPACITY 1024

void chunkmap_init(chunkmap *map, uint64_t seed0, uint64_t seed1)
{
    *map = (chunkmap){.seed = {seed0, seed1}};
}

void chunkmap_free(chunkmap *map)
{
    free(map->slots);
    map->slots = NULL;
    map->capacity = map->used = 0;
}

/* Digests are random already, except that their first bits can be made equal by trial: the seed takes that away. */
static inline uint64_t hash(const chunkmap *map, const uint8_t *digest)
{
    unsigned __int128 product = (unsigned __int128)(load_be64(digest) ^ map->seed[0]) *
                                (load_be64(digest + 8) ^ map->seed[1]);
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* The slot of the digest, or the empty one where it would go. There is always an empty one. */
static inline chunkmap_slot *probe(const chunkmap *map, const uint8_t *digest, uint64_t hashed)
{
    for (uint64_t i = hashed;; i++) {
        chunkmap_slot *slot = &map->slots[i & (map->capacity - 1)];
        if (slot->mark == 0 || memcmp(slot->digest, digest, TABLE_DIGEST) == 0)
            return slot;
    }
}

/* The hashes of a group, and memory asked for where they point. */
static inline void approach(const chunkmap *map, const uint8_t *digests, size_t n, uint64_t *hashes)
{
    for (size_t i = 0; i < n; i++) {
        hashes[i] = hash(map, digests + i * TABLE_DIGEST);
        __builtin_prefetch(&map->slots[hashes[i] & (map->capacity - 1)]);
    }
}

/* Room for n more digests at a load of at most 3/4. */
static int reserve(chunkmap *map, size_t n)
{
    if (n > SIZE_MAX / sizeof(chunkmap_slot) / 4 - map->used)
        return TABLE_NO_MEMORY;
    uint64_t wanted = map->used + n, capacity = map->capacity ? map->capacity : FIRST_CAPACITY;
    while (wanted > capacity / 4 * 3)
        capacity *= 2;
    if (capacity == map->capacity)
        return TABLE_OK;

    chunkmap larger = *map;
    larger.capacity = capacity;
    larger.slots = calloc(capacity, sizeof *larger.slots);
    if (!larger.slots)
        return TABLE_NO_MEMORY;
    for (uint64_t i = 0; i < map->capacity; i++)
        if (map->slots[i].mark)
            *probe(&larger, map->slots[i].digest, hash(map, map->slots[i].digest)) = map->slots[i];
    free(map->slots);
    *map = larger;
    return TABLE_OK;
}

/* Makes an empty slot into the digest's. */
static inline void occupy(chunkmap *map, chunkmap_slot *slot, const uint8_t *digest)
{
    memcpy(slot->digest, digest, TABLE_DIGEST);
    slot->mark = CHUNKMAP_PENDING ^ CHUNKMAP_MISSING;
    map->used++;
}

int chunkmap_claim(chunkmap *map, const uint8_t *digests, size_t n, uint8_t *first)
{
    int status = reserve(map, n);
    if (status != TABLE_OK)
        return status;
    uint64_t hashes[IN_FLIGHT];
    for (size_t base = 0; base < n; base += IN_FLIGHT) {
        size_t group = n - base < IN_FLIGHT ? n - base : IN_FLIGHT;
        approach(map, digests + base * TABLE_DIGEST, group, hashes);
        for (size_t j = 0; j < group; j++) {
            const uint8_t *digest = digests + (base + j) * TABLE_DIGEST;
            chunkmap_slot *slot = probe(map, digest, hashes[j]);
            first[base + j] = slot->mark == 0;
            if (slot->mark == 0)
                occupy(map, slot, digest);
        }
    }
    return TABLE_OK;
}

int chunkmap_set(chunkmap *map, const uint8_t *digests, const uint64_t *values, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (values[i] == CHUNKMAP_MISSING)
            return TABLE_RESERVED;
    int status = reserve(map, n);
    if (status != TABLE_OK)
        return status;
    uint64_t hashes[IN_FLIGHT];
    for (size_t base = 0; base < n; base += IN_FLIGHT) {
        size_t group = n - base < IN_FLIGHT ? n - base : IN_FLIGHT;
        approach(map, digests + base * TABLE_DIGEST, group, hashes);
        for (size_t j = 0; j < group; j++) {
            const uint8_t *digest = digests + (base + j) * TABLE_DIGEST;
            chunkmap_slot *slot = probe(map, digest, hashes[j]);
            if (slot->mark == 0)
                occupy(map, slot, digest);
            slot->mark = values[base + j] ^ CHUNKMAP_MISSING;
        }
    }
    return TABLE_OK;
}

void chunkmap_get(const chunkmap *map, const uint8_t *digests, size_t n, uint64_t *values)
{
    if (map->capacity == 0) {
        for (size_t i = 0; i < n; i++)
            values[i] = CHUNKMAP_MISSING;
        return;
    }
    uint64_t hashes[IN_FLIGHT];
    for (size_t base = 0; base < n; base += IN_FLIGHT) {
        size_t group = n - base < IN_FLIGHT ? n - base : IN_FLIGHT;
        approach(map, digests + base * TABLE_DIGEST, group, hashes);
        for (size_t j = 0; j < group; j++)
            values[base + j] = probe(map, digests + (base + j) * TABLE_DIGEST, hashes[j])->mark ^ CHUNKMAP_MISSING;
    }
}

void chunkmap_dump(const chunkmap *map, uint8_t *digests, uint64_t *values)
{
    size_t next = 0;
    for (uint64_t i = 0; i < map->capacity; i++)
        if (map->slots[i].mark) {
            memcpy(digests + next * TABLE_DIGEST, map->slots[i].digest, TABLE_DIGEST);
            values[next++] = map->slots[i].mark ^ CHUNKMAP_MISSING;
        }
}
