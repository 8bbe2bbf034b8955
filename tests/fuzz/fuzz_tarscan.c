/* Fuzzing tarscan. The input's first byte chooses how the rest is chopped. Checked: every byte is told once, pieces
 * keep their rules, chopping or skipping payloads changes nothing. What it keeps is bounded from outside: by the
 * fuzzer's -malloc_limit_mb. */
#include "fuzz_input.h"
#include "tar_header.h"
#include "tarscan.h"

/* All that was told about a stream, folded. */
typedef struct {
    uint64_t kinds; /* of the bytes */
    uint64_t entries;
    tarscan_status status;
} summary;

static uint64_t fold(uint64_t h, uint64_t value) {
    h ^= value;
    h *= 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

static void take_entries(tarscan *s, uint64_t end, summary *sum) {
    size_t n;
    const uint8_t *texts;
    const tarscan_entry *e = tarscan_entries(s, &n, &texts);
    for (size_t i = 0; i < n; i++) {
        CHECK(e[i].header % 512 == 0 && e[i].data % 512 == 0);
        CHECK(e[i].header < e[i].data && e[i].data <= end);
        uint64_t h = sum->entries;
        uint64_t fields[] = {e[i].header, e[i].data, e[i].stored, e[i].size, (uint64_t)e[i].mode, (uint64_t)e[i].uid,
                             (uint64_t)e[i].gid, (uint64_t)e[i].mtime_ns, e[i].type, e[i].has_pax,
                             e[i].name_length, e[i].link_length, e[i].pax_length};
        for (size_t k = 0; k < sizeof fields / sizeof *fields; k++) h = fold(h, fields[k]);
        size_t at[] = {e[i].name, e[i].link, e[i].pax};
        size_t length[] = {e[i].name_length, e[i].link_length, e[i].pax_length};
        for (int k = 0; k < 3; k++)
            for (size_t j = 0; j < length[k]; j++) h = fold(h, texts[at[k] + j]);
        sum->entries = h;
    }
    tarscan_entries_clear(s);
}

/* Feed bytes from an allocation of their own, so that a read beyond them is seen. */
static void feed(tarscan *s, const uint8_t *bytes, size_t n, summary *sum) {
    uint8_t *copy = malloc(n ? n : 1);
    size_t used = 0, count = 0, told = 0, room = 1;
    tarscan_piece *pieces = NULL;
    CHECK(copy);
    if (n) memcpy(copy, bytes, n);
    while (used < n) {
        size_t before = used;
        room += 1 + room / 2;
        pieces = realloc(pieces, room * sizeof *pieces);
        CHECK(pieces);
        CHECK(tarscan_feed(s, copy, n, &used, pieces, room, &count) == TARSCAN_OK);
        CHECK(used > before && count <= room);
    }
    for (size_t i = 0; i < count; i++) {
        CHECK(pieces[i].length > 0 && pieces[i].length <= n - told);
        if (pieces[i].payload) CHECK(pieces[i].total >= pieces[i].length);
        else CHECK(!pieces[i].total && !pieces[i].last && (!i || pieces[i - 1].payload));
        for (uint64_t k = 0; k < pieces[i].length; k++) sum->kinds = fold(sum->kinds, pieces[i].payload);
        told += pieces[i].length;
    }
    CHECK(told == n);
    free(pieces);
    free(copy);
}

enum way { WHOLE, CHOPPED, SKIPPING };

static summary scan(const uint8_t *bytes, size_t n, enum way way, unsigned step) {
    summary sum = {0, 0, {0, 0, 0, 0, 0}};
    tarscan *s = tarscan_new(1);
    CHECK(s);
    for (size_t at = 0; at < n;) {
        size_t size = way == WHOLE ? n : 1 + (at * 31 + step * 7) % (step * 13 + 1);
        if (size > n - at) size = n - at;
        tarscan_get_status(s, &sum.status);
        CHECK(sum.status.position == at);
        if (way == SKIPPING && sum.status.payload_left) {
            if (size > sum.status.payload_left) size = (size_t)sum.status.payload_left;
            CHECK(tarscan_skip(s, sum.status.payload_left + 1) == TARSCAN_RANGE);
            CHECK(tarscan_skip(s, size) == TARSCAN_OK);
            for (size_t k = 0; k < size; k++) sum.kinds = fold(sum.kinds, 1);
        } else {
            feed(s, bytes + at, size, &sum);
        }
        at += size;
        take_entries(s, at, &sum);
    }
    tarscan_get_status(s, &sum.status);
    tarscan_free(s);
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!size) return 0;
    summary whole = scan(data + 1, size - 1, WHOLE, 0);
    for (enum way way = CHOPPED; way <= SKIPPING; way++) {
        summary other = scan(data + 1, size - 1, way, data[0]);
        CHECK(whole.kinds == other.kinds && whole.entries == other.entries);
        CHECK(whole.status.position == other.status.position && whole.status.payload_left == other.status.payload_left);
        CHECK(whole.status.content_size == other.status.content_size && whole.status.files == other.status.files);
        CHECK(whole.status.ended == other.status.ended);
    }
    return 0;
}

/* Most changes would only break checksums, so most times they are put right afterwards. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed);

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed) {
    static const char types[] = "01256 7SxXgLKVZ";
    uint64_t state = seed;
    uint64_t way = next_number(&state) % 8;
    size_t blocks = (size - (size > 0)) / TAR_BLOCK;
    if (blocks && way < 3) {
        uint8_t *block = data + 1 + next_number(&state) % blocks * TAR_BLOCK;
        size_t field = way == 0 ? SIZE : next_number(&state) % TAR_BLOCK;
        size_t length = way == 0 ? NUMBER_SIZE : 1 + next_number(&state) % (TAR_BLOCK - field);
        if (way == 1) block[TYPE] = (uint8_t)types[next_number(&state) % sizeof types];
        else LLVMFuzzerMutate(block + field, length, length);
    } else {
        size = LLVMFuzzerMutate(data, size, most);
    }
    if (next_number(&state) % 8) {
        for (size_t at = 1; at + TAR_BLOCK <= size; at += TAR_BLOCK) {
            uint8_t *block = data + at;
            if (memcmp(block + MAGIC, "ustar", 5) || tar_checksum_ok(block)) continue;
            unsigned sum = CHECKSUM_SIZE * ' ';
            for (size_t i = 0; i < TAR_BLOCK; i++)
                if (i < CHECKSUM || i >= CHECKSUM + CHECKSUM_SIZE) sum += block[i];
            snprintf((char *)block + CHECKSUM, CHECKSUM_SIZE, "%06o", sum);
            block[CHECKSUM + 7] = ' ';
        }
    }
    return size;
}
