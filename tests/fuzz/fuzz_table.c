/* Fuzzing table: entries and fanout as a hostile segment file has them, then the same digests in order, then a map.
 * Checked: nothing outside is read; a bad bucket is one; a sound table and the map answer as a search from end to end
 * does; sorting is stable. */
#include "fuzz_input.h"
#include "table.h"

#define MOST 200

/* Digests from few bytes, so that many begin alike or are equal; or from 32. */
static void take_digest(input *in, uint8_t *digest)
{
    uint8_t kind = take(in);
    memset(digest, kind & 1 ? 0xff : 0, TABLE_DIGEST);
    if (kind & 2) {
        for (int i = 0; i < TABLE_DIGEST; i++)
            digest[i] = take(in);
    } else {
        digest[0] = (uint8_t)(kind >> 4 << 5);
        digest[kind >> 2 & 31] ^= take(in);
    }
}

static uint32_t little(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint32_t top_bits(const uint8_t *digest, unsigned bits)
{
    uint32_t top = (uint32_t)digest[0] << 24 | (uint32_t)digest[1] << 16 | (uint32_t)digest[2] << 8 | digest[3];
    return bits ? top >> (32 - bits) : 0;
}

static void check_lookups(const table *t, const uint8_t *asked, size_t n, int sound)
{
    uint8_t *found = block(n);
    uint32_t *packs = block(4 * n), *addresses = block(4 * n), *firsts = block(4 * n), *counts = block(4 * n);
    uint32_t bad = 0, bad_range = 0;
    int status = table_find(t, asked, n, found, packs, addresses, &bad);
    int again = table_find_range(t, asked, n, firsts, counts, &bad_range);
    CHECK(status == again && (status == TABLE_OK || status == TABLE_BAD_FANOUT));
    if (status == TABLE_BAD_FANOUT) {
        CHECK(!sound && bad == bad_range && bad < 1u << t->bits);
        uint32_t low = little(t->fanout + 4 * (size_t)bad), high = little(t->fanout + 4 * ((size_t)bad + 1));
        CHECK(low > high || high > t->count);
    } else {
        for (size_t i = 0; i < n; i++) {
            const uint8_t *digest = asked + i * TABLE_DIGEST;
            if (found[i]) {
                const uint8_t *entry = t->entries + firsts[i] * (size_t)TABLE_ENTRY;
                CHECK(firsts[i] < t->count && !memcmp(entry, digest, TABLE_DIGEST));
                CHECK(little(entry + 32) == packs[i] && little(entry + 36) == addresses[i]);
            } else {
                CHECK(!packs[i] && !addresses[i]);
            }
            CHECK(firsts[i] <= t->count && counts[i] <= t->count - firsts[i]);
            if (!sound)
                continue;
            uint32_t smaller = 0, equal = 0;
            for (size_t k = 0; k < t->count; k++) {
                int order = memcmp(t->entries + k * TABLE_ENTRY, digest, TABLE_DIGEST);
                smaller += order < 0;
                equal += order == 0;
            }
            CHECK(found[i] == (equal > 0) && counts[i] == equal && firsts[i] == smaller);
        }
    }
    free(found);
    free(packs);
    free(addresses);
    free(firsts);
    free(counts);
}

/* The digests of the hostile entries, put in order by the kernel itself: now everything is to be right. */
static void check_sorted(const table *hostile, const uint8_t *asked, size_t n)
{
    size_t count = hostile->count, bad = 0;
    uint32_t *order = block(4 * count), *fanout = block(4 * (((size_t)1 << hostile->bits) + 1));
    CHECK(table_order(hostile->entries, TABLE_ENTRY, count, order) == TABLE_OK);
    uint8_t *entries = block(count * TABLE_ENTRY), *seen = block(count);
    memset(seen, 0, count);
    for (size_t i = 0; i < count; i++) {
        CHECK(order[i] < count && !seen[order[i]]);
        seen[order[i]] = 1;
        memcpy(entries + i * TABLE_ENTRY, hostile->entries + order[i] * (size_t)TABLE_ENTRY, TABLE_ENTRY);
        if (i) {
            int step = memcmp(entries + (i - 1) * TABLE_ENTRY, entries + i * TABLE_ENTRY, TABLE_DIGEST);
            CHECK(step < 0 || (step == 0 && order[i - 1] < order[i]));
        }
    }
    CHECK(table_build_fanout(entries, TABLE_ENTRY, count, hostile->bits, fanout, &bad) == TABLE_OK);
    for (size_t b = 0; b <= (size_t)1 << hostile->bits; b++) {
        size_t below = 0;
        for (size_t i = 0; i < count && count < 32; i++)
            below += top_bits(entries + i * TABLE_ENTRY, hostile->bits) < b;
        CHECK(count >= 32 || fanout[b] == below);
    }
    uint8_t *bytes = block(4 * (((size_t)1 << hostile->bits) + 1));
    for (size_t b = 0; b <= (size_t)1 << hostile->bits; b++)
        for (int k = 0; k < 4; k++)
            bytes[4 * b + (size_t)k] = (uint8_t)(fanout[b] >> 8 * k);
    table sorted = {entries, bytes, count, hostile->bits};
    check_lookups(&sorted, asked, n, 1);

    int ascending = 1;
    for (size_t i = 0; i < count; i++)
        ascending &= order[i] == i;
    int status = table_build_fanout(hostile->entries, TABLE_ENTRY, count, hostile->bits, fanout, &bad);
    CHECK(status == (ascending ? TABLE_OK : TABLE_UNSORTED) && (ascending || (bad && bad < count)));
    free(order);
    free(fanout);
    free(entries);
    free(seen);
    free(bytes);
}

/* Against a list. */
typedef struct {
    uint8_t digests[MOST][TABLE_DIGEST];
    uint64_t values[MOST];
    size_t used;
} list;

static size_t place(const list *l, const uint8_t *digest)
{
    size_t i = 0;
    while (i < l->used && memcmp(l->digests[i], digest, TABLE_DIGEST))
        i++;
    return i;
}

static void put(list *l, size_t at, const uint8_t *digest, uint64_t value)
{
    memcpy(l->digests[at], digest, TABLE_DIGEST);
    l->values[at] = value;
    l->used += at == l->used;
}

static void check_map(input *in, const uint8_t *asked, size_t n)
{
    static list known;
    known.used = 0;
    chunkmap map;
    chunkmap_init(&map, take_number(in, 8), take_number(in, 8));
    uint64_t *values = block(8 * n);
    uint8_t *first = block(n);
    for (int round = 0; round < 4; round++) {
        size_t from = n ? take(in) % n : 0, some = n - from;
        const uint8_t *digests = asked + from * TABLE_DIGEST;
        if (take(in) & 1) {
            CHECK(chunkmap_claim(&map, digests, some, first) == TABLE_OK);
            for (size_t i = 0; i < some; i++) {
                size_t at = place(&known, digests + i * TABLE_DIGEST);
                CHECK(first[i] == (at == known.used));
                if (first[i])
                    put(&known, at, digests + i * TABLE_DIGEST, CHUNKMAP_PENDING);
            }
        } else {
            int reserved = 0;
            for (size_t i = 0; i < some; i++) {
                values[i] = take_wild(in);
                reserved |= values[i] == CHUNKMAP_MISSING;
            }
            CHECK(chunkmap_set(&map, digests, values, some) == (reserved ? TABLE_RESERVED : TABLE_OK));
            for (size_t i = 0; i < some && !reserved; i++)
                put(&known, place(&known, digests + i * TABLE_DIGEST), digests + i * TABLE_DIGEST, values[i]);
        }
        CHECK(map.used == known.used);
        chunkmap_get(&map, asked, n, values);
        for (size_t i = 0; i < n; i++) {
            size_t at = place(&known, asked + i * TABLE_DIGEST);
            CHECK(values[i] == (at == known.used ? CHUNKMAP_MISSING : known.values[at]));
        }
    }
    uint8_t *digests = block(known.used * TABLE_DIGEST);
    uint64_t *dumped = block(known.used * 8);
    chunkmap_dump(&map, digests, dumped);
    for (size_t i = 0; i < known.used; i++) {
        size_t at = place(&known, digests + i * TABLE_DIGEST);
        CHECK(at < known.used && known.values[at] == dumped[i]);
        for (size_t k = 0; k < i; k++)
            CHECK(memcmp(digests + k * TABLE_DIGEST, digests + i * TABLE_DIGEST, TABLE_DIGEST));
    }
    free(digests);
    free(dumped);
    free(values);
    free(first);
    chunkmap_free(&map);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input in = {data, size};
    unsigned bits = take(&in) % 9;
    size_t count = take(&in) % MOST, n = take(&in) % MOST;
    size_t buckets = ((size_t)1 << bits) + 1;
    uint8_t *entries = block(count * TABLE_ENTRY), *fanout = block(4 * buckets), *asked = block(n * TABLE_DIGEST);
    for (size_t i = 0; i < count; i++) {
        take_digest(&in, entries + i * TABLE_ENTRY);
        for (int k = TABLE_DIGEST; k < TABLE_ENTRY; k++)
            entries[i * TABLE_ENTRY + (size_t)k] = (uint8_t)(i * 7 + (size_t)k);
    }
    for (size_t i = 0; i < n; i++) {
        if (count && i % 3 == 0)
            memcpy(asked + i * TABLE_DIGEST, entries + take(&in) % count * TABLE_ENTRY, TABLE_DIGEST);
        else
            take_digest(&in, asked + i * TABLE_DIGEST);
    }
    /* Right numbers with some wrong ones among them, so that searches begin. */
    for (size_t b = 0; b < buckets; b++) {
        uint64_t value = b * count / (buckets - 1);
        if (in.left && (take(&in) & 7) == 7)
            value = take_wild(&in);
        for (int k = 0; k < 4; k++)
            fanout[4 * b + (size_t)k] = (uint8_t)(value >> 8 * k);
    }
    table hostile = {entries, fanout, count, bits};
    check_lookups(&hostile, asked, n, 0);
    check_sorted(&hostile, asked, n);
    check_map(&in, asked, n);
    free(entries);
    free(fanout);
    free(asked);
    return 0;
}
