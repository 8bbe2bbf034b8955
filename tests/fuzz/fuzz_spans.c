/* Fuzzing what takes offsets: spans (copy, equal) and the hashing of spans. Checked: a span outside is refused, named
 * rightly and before anything is touched; else bytes move as one by one; engines agree, whatever the chopping. */
#include "fuzz_input.h"
#include "sha256.h"
#include "spans.h"

#define MOST 12
#define SOURCES 3

typedef struct {
    uint64_t a[MOST], b[MOST], lengths[MOST];
    uint32_t which[MOST];
    size_t n;
} pieces;

static void check_copy(const pieces *p, const spans_source *sources, size_t count, const uint8_t *before, size_t size)
{
    uint8_t *target = block(size), *want = block(size);
    if (size) {
        memcpy(target, before, size);
        memcpy(want, before, size);
    }
    size_t bad = 0, first = p->n;
    int expected = SPANS_OK;
    for (size_t i = 0; i < p->n && expected == SPANS_OK; i++) {
        first = i;
        if (p->which[i] >= count)
            expected = SPANS_NO_SOURCE;
        else if (!span_fits(p->b[i], p->lengths[i], sources[p->which[i]].size))
            expected = SPANS_OUTSIDE_SOURCE;
        else if (!span_fits(p->a[i], p->lengths[i], size))
            expected = SPANS_OUTSIDE_TARGET;
    }
    int status = spans_copy(target, size, p->a, sources, count, p->which, p->b, p->lengths, p->n, &bad);
    CHECK(status == expected);
    if (status == SPANS_OK)
        for (size_t i = 0; i < p->n; i++)
            for (uint64_t k = 0; k < p->lengths[i]; k++)
                want[p->a[i] + k] = sources[p->which[i]].data[p->b[i] + k];
    else
        CHECK(bad == first);
    CHECK(!size || !memcmp(target, want, size));
    free(target);
    free(want);
}

static void check_equal(const pieces *p, const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size)
{
    size_t bad = 0, differing = 0, misfit_a = p->n, misfit_b = p->n, first = p->n;
    for (size_t i = p->n; i-- > 0;) {
        if (!span_fits(p->a[i], p->lengths[i], a_size))
            misfit_a = i;
        if (!span_fits(p->b[i], p->lengths[i], b_size))
            misfit_b = i;
    }
    int status = spans_equal(a, a_size, p->a, b, b_size, p->b, p->lengths, p->n, &differing, &bad);
    if (misfit_a < p->n) {
        CHECK(status == SPANS_OUTSIDE_SOURCE && bad == misfit_a);
    } else if (misfit_b < p->n) {
        CHECK(status == SPANS_OUTSIDE_TARGET && bad == misfit_b);
    } else {
        for (size_t i = p->n; i-- > 0;)
            for (uint64_t k = 0; k < p->lengths[i]; k++)
                if (a[p->a[i] + k] != b[p->b[i] + k])
                    first = i;
        CHECK(status == SPANS_OK && differing == first);
    }
}

static void check_digests(const pieces *p, const uint8_t *bytes, size_t size, unsigned step)
{
    const sha256_engine *plain = sha256_portable(), *best = sha256_best();
    uint8_t digests[2][MOST][SHA256_SIZE], streamed[3][SHA256_SIZE];
    size_t bad[2] = {0, 0}, misfit = spans_misfit(p->a, p->lengths, p->n, size);
    sha256_stream by_parts, beside;
    sha256_start(&by_parts);
    sha256_start(&beside);
    for (size_t at = 0; at < size;) {
        size_t part = size - at < step ? size - at : step;
        sha256_update(plain, &by_parts, bytes + at, part);
        at += part;
    }
    sha256_digest(plain, &by_parts, streamed[0]);
    sha256_digest(best, &by_parts, streamed[1]);
    CHECK(by_parts.length == size && !memcmp(streamed[0], streamed[1], SHA256_SIZE));

    size_t half = size / 2;
    sha256_update(best, &beside, bytes, half);
    int status = sha256_names(plain, bytes, size, p->a, p->lengths, p->n, digests[0][0], &bad[0]);
    int again = sha256_stream_and_names(best, &beside, bytes + half, size - half, bytes, size, p->a, p->lengths, p->n,
                                        digests[1][0], &bad[1]);
    CHECK(status == again && status == (misfit < p->n ? SHA256_OUTSIDE : SHA256_OK));
    if (status == SHA256_OUTSIDE) {
        CHECK(bad[0] == misfit && bad[1] == misfit && beside.length == half);
        return;
    }
    sha256_digest(best, &beside, streamed[2]);
    CHECK(!memcmp(streamed[0], streamed[2], SHA256_SIZE));
    for (size_t i = 0; i < p->n; i++) {
        sha256_stream alone;
        uint8_t digest[SHA256_SIZE];
        sha256_start(&alone);
        sha256_update(plain, &alone, bytes + p->a[i], p->lengths[i]);
        sha256_digest(plain, &alone, digest);
        CHECK(!memcmp(digests[0][i], digest, SHA256_SIZE) && !memcmp(digests[1][i], digest, SHA256_SIZE));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input in = {data, size};
    uint8_t flags = take(&in);
    pieces p = {.n = flags % MOST};
    unsigned step = 1 + take(&in);
    size_t sizes[SOURCES + 1], count = flags >> 6;
    for (int s = 0; s <= SOURCES; s++)
        sizes[s] = take_number(&in, 2) % 2048;
    for (size_t i = 0; i < p.n; i++) {
        p.which[i] = flags & 16 ? (uint32_t)take_wild(&in) : count ? take(&in) % (uint32_t)count : 0;
        p.a[i] = take_wild(&in);
        p.b[i] = take_wild(&in);
        p.lengths[i] = take_wild(&in);
        if (flags & 32) { /* small ones, which mostly fit */
            p.a[i] %= 512;
            p.b[i] %= 512;
            p.lengths[i] %= 300;
        }
    }
    uint8_t *blocks[SOURCES + 1];
    spans_source sources[SOURCES];
    for (int s = 0; s <= SOURCES; s++) {
        size_t got;
        uint8_t *given = take_block(&in, sizes[s], &got);
        blocks[s] = block(sizes[s]); /* as long as it says, repeating what there is */
        for (size_t k = 0; k < sizes[s]; k++)
            blocks[s][k] = got ? given[k % got] : (uint8_t)k;
        free(given);
        if (s < SOURCES)
            sources[s] = (spans_source){blocks[s], sizes[s]};
    }
    check_copy(&p, sources, count, blocks[SOURCES], sizes[SOURCES]);
    check_equal(&p, blocks[0], sizes[0], blocks[1], sizes[1]);
    check_digests(&p, blocks[SOURCES], sizes[SOURCES], step);
    for (int s = 0; s <= SOURCES; s++)
        free(blocks[s]);
    return 0;
}
