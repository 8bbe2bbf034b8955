/* Fuzzing cut: limits, segments (in the buffer and not) and content are the fuzzer's. Checked: every kernel answers
 * alike; chunks fill their segments in order, with a tail only where the last may go on; no chunk breaks the limits;
 * room that is too small is told; a segment that comes in parts gets the same cuts. */
#include "cut.h"
#include "fuzz_input.h"

#define SEGMENTS 8

typedef struct {
    int status;
    size_t count;
    uint64_t tail, *starts;
    uint32_t *lengths;
} cuts;

typedef struct {
    const uint8_t *bytes;
    uint64_t size, starts[SEGMENTS], lengths[SEGMENTS];
    uint8_t whole[SEGMENTS];
    size_t n;
    cut_limits limits;
} job;

static cuts run(cut_kernel kernel, const job *j, int final, size_t room)
{
    cuts c = {.starts = block(room * sizeof *c.starts), .lengths = block(room * sizeof *c.lengths)};
    c.status = cut_segments(kernel, j->bytes, j->size, j->starts, j->lengths, j->whole, j->n, final, j->limits,
                            c.starts, c.lengths, room, &c.count, &c.tail);
    CHECK(c.count <= room);
    return c;
}

static void drop(cuts c)
{
    free(c.starts);
    free(c.lengths);
}

static void check_shape(const job *j, int final, cuts c)
{
    size_t k = 0;
    for (size_t i = 0; i < j->n; i++) {
        uint64_t at = j->starts[i], end = j->starts[i] + j->lengths[i];
        int last = i + 1 == j->n;
        uint64_t stop = last ? end - c.tail : end;
        CHECK(!last || c.tail <= j->lengths[i]);
        for (; at < stop; k++) {
            CHECK(k < c.count && c.starts[k] == at && c.lengths[k] && c.lengths[k] <= stop - at);
            if (j->whole[i])
                CHECK(c.lengths[k] == j->lengths[i]);
            else
                CHECK(c.lengths[k] <= j->limits.maximum &&
                      (c.lengths[k] >= j->limits.minimum || at + c.lengths[k] == end));
            at += c.lengths[k];
        }
    }
    CHECK(k == c.count && (!final || !c.tail));
}

/* The first segment alone, its bytes coming a few at a time. */
static void check_parts(cut_kernel kernel, const job *j, unsigned step)
{
    job whole = *j, part = *j;
    whole.n = part.n = 1;
    cuts all = run(kernel, &whole, 1, (size_t)(j->lengths[0] / j->limits.minimum + 2));
    CHECK(all.status == CUT_OK);
    size_t found = 0;
    uint64_t end = j->starts[0] + j->lengths[0];
    for (uint64_t seen = j->starts[0]; seen < end;) {
        seen = end - seen > step ? seen + step : end;
        part.lengths[0] = seen - part.starts[0];
        cuts some = run(kernel, &part, seen == end, (size_t)(part.lengths[0] / j->limits.minimum + 2));
        CHECK(some.status == CUT_OK);
        for (size_t k = 0; k < some.count; k++, found++)
            CHECK(found < all.count && some.starts[k] == all.starts[found] && some.lengths[k] == all.lengths[found]);
        CHECK(seen == end || some.tail <= j->limits.maximum || j->whole[0]);
        part.starts[0] = seen - some.tail;
        drop(some);
    }
    CHECK(found == all.count);
    drop(all);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input in = {data, size};
    job j = {0};
    uint8_t flags = take(&in);
    int final = flags & 1;
    if (flags & 2) {
        j.limits = (cut_limits){take_wild(&in), take_wild(&in), take_wild(&in)};
    } else {
        j.limits.minimum = 64 + take(&in);
        j.limits.average = (uint64_t)256 << take(&in) % 5;
        if (j.limits.minimum > j.limits.average)
            j.limits.minimum = j.limits.average;
        j.limits.maximum = j.limits.average + take_number(&in, 2) % 8192;
    }
    j.n = flags >> 2 & 7;
    unsigned step = 1 + (unsigned)take_number(&in, 2) % 4096;
    size_t short_room = take(&in) % 8;
    for (size_t i = 0; i < j.n; i++) {
        j.whole[i] = take(&in) & 1;
        j.starts[i] = take_wild(&in);
        j.lengths[i] = take_wild(&in);
    }
    size_t got, period = take_number(&in, 2);
    uint8_t *given = take_block(&in, in.left, &got);
    /* Content that goes on for longer than the input: else no average of KiBs would ever be reached. */
    size_t length = period && got ? got + period : got;
    uint8_t *bytes = block(length);
    for (size_t i = 0; i < length; i++)
        bytes[i] = i < got ? given[i] : (uint8_t)(bytes[i - got] * 5 + (i >> 7));
    free(given);
    j.bytes = bytes;
    j.size = length;
    if (flags & 32) /* segments that lie in the buffer */
        for (size_t i = 0; i < j.n; i++) {
            j.starts[i] = length ? j.starts[i] % (length + 1) : 0;
            j.lengths[i] %= length - j.starts[i] + 1;
        }

    size_t room = length / 64 * SEGMENTS + SEGMENTS + 8;
    cuts scalar = run(CUT_SCALAR, &j, final, room);
    CHECK(scalar.status == CUT_OK || scalar.status == CUT_RANGE);
    if (scalar.status == CUT_OK)
        check_shape(&j, final, scalar);
    for (int kernel = CUT_BEST; kernel < CUT_KERNELS; kernel++) {
        if (kernel == CUT_SCALAR || !cut_usable((cut_kernel)kernel))
            continue;
        cuts other = run((cut_kernel)kernel, &j, final, room);
        CHECK(other.status == scalar.status && other.count == scalar.count && other.tail == scalar.tail);
        for (size_t i = 0; i < other.count; i++)
            CHECK(other.starts[i] == scalar.starts[i] && other.lengths[i] == scalar.lengths[i]);
        drop(other);
        if (scalar.status == CUT_OK && j.n && j.lengths[0] / step < 200)
            check_parts((cut_kernel)kernel, &j, step);
    }
    cuts cramped = run(CUT_BEST, &j, final, short_room);
    CHECK(cramped.status == (scalar.status == CUT_OK && scalar.count > short_room ? CUT_ROOM : scalar.status));
    drop(cramped);
    drop(scalar);
    free(bytes);
    return 0;
}
