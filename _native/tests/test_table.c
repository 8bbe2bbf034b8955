#include "../table.h"
#include "check.h"

#define MOST 600

/* Digests of which many begin alike and some are equal: `alike` leading bytes from a few values. */
static void digests_like(uint8_t *digests, size_t n, size_t alike, uint64_t *seed)
{
    fill(digests, n * TABLE_DIGEST, seed);
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < alike; j++)
            digests[i * TABLE_DIGEST + j] = (uint8_t)(next_number(seed) % 2 ? 0xff : 0);
        if (i && next_number(seed) % 4 == 0)
            memcpy(digests + i * TABLE_DIGEST, digests + (next_number(seed) % i) * TABLE_DIGEST, TABLE_DIGEST);
    }
}

static int by_digest(const void *a, const void *b)
{
    return memcmp(a, b, TABLE_DIGEST);
}

static uint8_t *entries_like(size_t n, size_t alike, uint64_t *seed)
{
    uint8_t *digests = block(n * TABLE_DIGEST), *entries = block(n * TABLE_ENTRY);
    digests_like(digests, n, alike, seed);
    qsort(digests, n, TABLE_DIGEST, by_digest);
    fill(entries, n * TABLE_ENTRY, seed);
    for (size_t i = 0; i < n; i++)
        memcpy(entries + i * TABLE_ENTRY, digests + i * TABLE_DIGEST, TABLE_DIGEST);
    free(digests);
    return entries;
}

static uint32_t number_at(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void lookups(void)
{
    uint64_t seed = 1;
    for (int round = 0; round < 300; round++) {
        size_t n = next_number(&seed) % MOST, alike = next_number(&seed) % 33, wanted = next_number(&seed) % 100, bad;
        unsigned bits = (unsigned)(next_number(&seed) % 13);
        uint8_t *entries = entries_like(n, alike, &seed);
        uint32_t *fanout = block((((size_t)1 << bits) + 1) * 4), wrong = 0;
        CHECK(table_build_fanout(entries, TABLE_ENTRY, n, bits, fanout, &bad) == TABLE_OK);
        CHECK(fanout[0] == 0 && fanout[(size_t)1 << bits] == n);
        table t = {entries, (const uint8_t *)fanout, n, bits};

        uint8_t *digests = block(wanted * TABLE_DIGEST), *found = block(wanted);
        uint32_t *packs = block(wanted * 4), *addresses = block(wanted * 4);
        uint32_t *firsts = block(wanted * 4), *counts = block(wanted * 4);
        digests_like(digests, wanted, alike, &seed);
        for (size_t i = 0; i < wanted && n; i += 2)
            memcpy(digests + i * TABLE_DIGEST, entries + next_number(&seed) % n * TABLE_ENTRY, TABLE_DIGEST);
        CHECK(table_find(&t, digests, wanted, found, packs, addresses, &wrong) == TABLE_OK);
        CHECK(table_find_range(&t, digests, wanted, firsts, counts, &wrong) == TABLE_OK);
        for (size_t i = 0; i < wanted; i++) {
            size_t first = 0, past;
            while (first < n && memcmp(entries + first * TABLE_ENTRY, digests + i * TABLE_DIGEST, TABLE_DIGEST) < 0)
                first++;
            past = first;
            while (past < n && memcmp(entries + past * TABLE_ENTRY, digests + i * TABLE_DIGEST, TABLE_DIGEST) == 0)
                past++;
            CHECK(firsts[i] == first && counts[i] == past - first && found[i] == (past > first));
            CHECK(packs[i] == (found[i] ? number_at(entries + first * TABLE_ENTRY + 32) : 0));
            CHECK(addresses[i] == (found[i] ? number_at(entries + first * TABLE_ENTRY + 36) : 0));
        }
        free(entries), free(fanout), free(digests), free(found);
        free(packs), free(addresses), free(firsts), free(counts);
    }
}

/* Whatever stands in the buffers, nothing outside of them is read (the sanitizer looks). */
static void hostile(void)
{
    uint64_t seed = 2;
    size_t refused = 0;
    for (int round = 0; round < 3000; round++) {
        size_t n = next_number(&seed) % 50, wanted = 40;
        unsigned bits = (unsigned)(next_number(&seed) % 6);
        uint8_t *entries = block(n * TABLE_ENTRY), *fanout = block((((size_t)1 << bits) + 1) * 4);
        fill(entries, n * TABLE_ENTRY, &seed);
        fill(fanout, (((size_t)1 << bits) + 1) * 4, &seed);
        for (size_t i = 0; i <= (size_t)1 << bits; i++)
            if (round % 4) { /* numbers that are nearly right */
                uint32_t value = (uint32_t)(next_number(&seed) % (n + 1 + (round % 4 == 1)));
                memcpy(fanout + 4 * i, &value, 4);
            }
        table t = {entries, fanout, n, bits};
        uint8_t digests[40 * TABLE_DIGEST], found[40];
        uint32_t one[40], two[40], wrong = 0;
        fill(digests, sizeof digests, &seed);
        int a = table_find(&t, digests, wanted, found, one, two, &wrong);
        int b = table_find_range(&t, digests, wanted, one, two, &wrong);
        CHECK(a == b && (a == TABLE_OK || (a == TABLE_BAD_FANOUT && wrong < 1u << bits)));
        refused += a != TABLE_OK;
        free(entries);
        free(fanout);
    }
    CHECK(refused > 500 && refused < 3000);
}

static const uint8_t *compared;

static int by_digest_and_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    int order = memcmp(compared + x * (size_t)TABLE_ENTRY, compared + y * (size_t)TABLE_ENTRY, TABLE_DIGEST);
    return order ? order : (x > y) - (x < y);
}

static void orders(void)
{
    uint64_t seed = 3;
    size_t bad;
    for (int round = 0; round < 200; round++) {
        size_t n = next_number(&seed) % MOST, alike = next_number(&seed) % 33;
        uint8_t *rows = block(n * TABLE_ENTRY), *digests = block(n * TABLE_DIGEST);
        uint32_t *want = block(n * 4), *got = block(n * 4);
        digests_like(digests, n, alike, &seed);
        for (size_t i = 0; i < n; i++) {
            want[i] = (uint32_t)i;
            memcpy(rows + i * TABLE_ENTRY, digests + i * TABLE_DIGEST, TABLE_DIGEST);
        }
        compared = rows;
        qsort(want, n, 4, by_digest_and_number);
        CHECK(table_order(digests, TABLE_DIGEST, n, got) == TABLE_OK);
        CHECK(n == 0 || memcmp(want, got, n * 4) == 0);
        CHECK(table_order(rows, TABLE_ENTRY, n, got) == TABLE_OK);
        CHECK(n == 0 || memcmp(want, got, n * 4) == 0);
        free(rows), free(digests), free(want), free(got);
    }
    uint8_t falling[3 * TABLE_DIGEST] = {0};
    uint32_t fanout[3];
    falling[31] = 1, falling[63] = 2, falling[95] = 1;
    CHECK(table_build_fanout(falling, TABLE_DIGEST, 3, 1, fanout, &bad) == TABLE_UNSORTED && bad == 2);
    CHECK(table_build_fanout(falling, TABLE_DIGEST, 2, 1, fanout, &bad) == TABLE_OK);
    CHECK(fanout[0] == 0 && fanout[1] == 2 && fanout[2] == 2);
}

/* A map against the dumbest one there is. */
static void maps(void)
{
    uint64_t seed = 4;
    for (int round = 0; round < 20; round++) {
        size_t pool = 3000, known = 0;
        uint8_t *digests = block(pool * TABLE_DIGEST);
        uint64_t *values = block(pool * 8), *got = block(pool * 8);
        size_t *same = block(pool * sizeof(size_t)); /* the first digest equal to this one */
        digests_like(digests, pool, next_number(&seed) % 30, &seed);
        for (size_t i = 0; i < pool; i++) {
            same[i] = 0;
            while (memcmp(digests + same[i] * TABLE_DIGEST, digests + i * TABLE_DIGEST, TABLE_DIGEST))
                same[i]++;
            values[i] = CHUNKMAP_MISSING;
        }
        chunkmap map;
        chunkmap_init(&map, next_number(&seed), next_number(&seed));
        for (size_t at = 0, n; at < pool; at += n) {
            uint8_t first[400];
            n = next_number(&seed) % 400;
            n = n < pool - at ? n : pool - at;
            chunkmap_get(&map, digests, pool, got);
            for (size_t i = 0; i < pool; i++)
                CHECK(got[i] == values[same[i]]);
            CHECK(chunkmap_claim(&map, digests + at * TABLE_DIGEST, n, first) == TABLE_OK);
            for (size_t i = at; i < at + n; i++) {
                CHECK(first[i - at] == (values[same[i]] == CHUNKMAP_MISSING));
                if (first[i - at]) {
                    values[same[i]] = CHUNKMAP_PENDING;
                    known++;
                }
            }
            CHECK(map.used == known);
            if (at > 100) { /* values for some, among them digests that were never claimed */
                uint64_t fresh[50];
                size_t base = next_number(&seed) % (pool - 50);
                for (size_t i = 0; i < 50; i++) {
                    fresh[i] = next_number(&seed);
                    known += values[same[base + i]] == CHUNKMAP_MISSING;
                    values[same[base + i]] = fresh[i];
                }
                CHECK(chunkmap_set(&map, digests + base * TABLE_DIGEST, fresh, 50) == TABLE_OK);
            }
        }
        uint8_t *all = block(known * TABLE_DIGEST);
        uint64_t *of_all = block(known * 8);
        CHECK(map.used == known);
        chunkmap_dump(&map, all, of_all);
        chunkmap_get(&map, all, known, got);
        CHECK(memcmp(got, of_all, known * 8) == 0);

        /* what cannot be changes nothing */
        uint64_t one[2] = {7, CHUNKMAP_MISSING};
        CHECK(chunkmap_set(&map, digests, one, 2) == TABLE_RESERVED);
        CHECK(chunkmap_claim(&map, digests, (size_t)1 << 44, NULL) == TABLE_NO_MEMORY);
        CHECK(chunkmap_claim(&map, digests, SIZE_MAX, NULL) == TABLE_NO_MEMORY);
        CHECK(chunkmap_claim(&map, digests, SIZE_MAX / 160, NULL) == TABLE_NO_MEMORY);
        chunkmap_get(&map, all, known, got);
        CHECK(map.used == known && memcmp(got, of_all, known * 8) == 0);
        chunkmap_free(&map);
        chunkmap_free(&map);
        free(digests), free(values), free(got), free(same), free(all), free(of_all);
    }
}

int main(void)
{
    lookups();
    hostile();
    orders();
    maps();
    return 0;
}
