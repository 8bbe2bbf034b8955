#include "../spans.h"
#include "check.h"

static void copies(void)
{
    uint64_t seed = 1;
    for (int round = 0; round < 2000; round++) {
        size_t target_size = next_number(&seed) % 400, count = 1 + next_number(&seed) % 4, n = next_number(&seed) % 20;
        uint8_t *target = block(target_size), *want = block(target_size);
        spans_source sources[4];
        for (size_t s = 0; s < count; s++) {
            sources[s].size = next_number(&seed) % 100;
            uint8_t *data = block(sources[s].size);
            fill(data, sources[s].size, &seed);
            sources[s].data = data;
        }
        fill(target, target_size, &seed);
        memcpy(want, target, target_size);
        uint64_t to[20], from[20], lengths[20], to_again[20];
        uint32_t which[20];
        size_t bad = 0, differing = 0;
        for (size_t i = 0; i < n; i++) {
            which[i] = (uint32_t)(next_number(&seed) % count);
            uint64_t size = sources[which[i]].size;
            lengths[i] = next_number(&seed) % ((size < target_size ? size : target_size) + 1);
            from[i] = next_number(&seed) % (size - lengths[i] + 1);
            to[i] = to_again[i] = next_number(&seed) % (target_size - lengths[i] + 1);
            if (lengths[i])
                memcpy(want + to[i], sources[which[i]].data + from[i], lengths[i]);
        }
        CHECK(spans_copy(target, target_size, to, sources, count, which, from, lengths, n, &bad) == SPANS_OK);
        CHECK(memcmp(target, want, target_size) == 0);
        CHECK(spans_equal(target, target_size, to, want, target_size, to_again, lengths, n, &differing, &bad) ==
              SPANS_OK);
        CHECK(differing == n);
        if (n && lengths[n - 1]) {
            want[to[n - 1] + lengths[n - 1] - 1] ^= 1;
            CHECK(spans_equal(target, target_size, to, want, target_size, to_again, lengths, n, &differing, &bad) ==
                  SPANS_OK);
            CHECK(differing < n);
        }
        for (size_t s = 0; s < count; s++)
            free((void *)(uintptr_t)sources[s].data);
        free(target);
        free(want);
    }
}

static void refusals(void)
{
    uint8_t target[10] = {0}, data[10] = "123456789";
    spans_source source = {data, 10};
    const uint64_t wrong[][2] = {{0, 11}, {10, 1}, {11, 0}, {UINT64_MAX, 1}, {1, UINT64_MAX}, {UINT64_MAX, UINT64_MAX}};
    size_t bad = 0, differing = 0;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        uint64_t good[2] = {0, 0}, starts[2] = {0, wrong[i][0]}, lengths[2] = {5, wrong[i][1]};
        uint32_t which[2] = {0, 0};
        /* where the length alone is too much, the good side does not fit either: sources are looked at first */
        int target_status = lengths[1] > 10 ? SPANS_OUTSIDE_SOURCE : SPANS_OUTSIDE_TARGET;
        CHECK(spans_copy(target, 10, good, &source, 1, which, starts, lengths, 2, &bad) == SPANS_OUTSIDE_SOURCE);
        CHECK(bad == 1);
        CHECK(spans_copy(target, 10, starts, &source, 1, which, good, lengths, 2, &bad) == target_status);
        CHECK(bad == 1 && target[0] == 0);
        CHECK(spans_equal(target, 10, starts, data, 10, good, lengths, 2, &differing, &bad) == SPANS_OUTSIDE_SOURCE);
        CHECK(bad == 1);
        CHECK(spans_equal(target, 10, good, data, 10, starts, lengths, 2, &differing, &bad) == target_status);
    }
    uint64_t zero = 0, one = 1;
    uint32_t which = 1;
    CHECK(spans_copy(target, 10, &zero, &source, 1, &which, &zero, &one, 1, &bad) == SPANS_NO_SOURCE);
    CHECK(spans_copy(target, 10, &zero, NULL, 0, &which, &zero, &one, 1, &bad) == SPANS_NO_SOURCE);
    CHECK(spans_copy(NULL, 0, NULL, NULL, 0, NULL, NULL, NULL, 0, &bad) == SPANS_OK);
    source = (spans_source){NULL, 0};
    which = 0;
    CHECK(spans_copy(NULL, 0, &zero, &source, 1, &which, &zero, &zero, 1, &bad) == SPANS_OK);
    CHECK(spans_equal(NULL, 0, &zero, NULL, 0, &zero, &zero, 1, &differing, &bad) == SPANS_OK && differing == 1);
}

static void overlap(void)
{
    uint8_t data[] = "abcdefgh";
    spans_source self = {data, 8};
    uint64_t to = 2, from = 0, length = 6;
    uint32_t which = 0;
    size_t bad;
    CHECK(spans_copy(data, 8, &to, &self, 1, &which, &from, &length, 1, &bad) == SPANS_OK);
    CHECK(memcmp(data, "ababcdef", 8) == 0);
}

int main(void)
{
    copies();
    refusals();
    overlap();
    return 0;
}
