/* Fuzzing tarscan. The input's first byte chooses how the rest is chopped. Checked: every byte is told once, pieces
 * keep their rules, and chopping or skipping payloads changes nothing.
 *
 * With clang: cc -fsanitize=fuzzer,address,undefined fuzz_tarscan.c ../tarscan.c ../tar_header.c
 * With any compiler: add -DFUZZ_MAIN: fuzz_tarscan RUNS SEED [FILE...] mutates built-in archives and the files. */
#include "../tarscan.h"
#include "check.h"
#include "tar_blocks.h"

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

#ifdef FUZZ_MAIN
static uint64_t state;

static uint64_t next(uint64_t below) { return next_number(&state) % below; }

/* Every feature once. */
static archive built_in(void) {
    archive a = {NULL, 0, 0};
    add(&a, "\5", 1);
    add_header(&a, "file", '0', 700);
    add_data(&a, "x", 1);
    grow(&a, 512);
    add_header(&a, "dir/", '5', 0);
    add_pax(&a, "13 path=long\n14 size=00600\n16 mtime=-1.250\n10 uid=-1\n");
    add_header(&a, "short", '0', 0);
    grow(&a, 1024);
    add_header(&a, "././@LongLink", 'L', 300);
    memset(grow(&a, 512), 'n', 299);
    add_header(&a, "././@LongLink", 'K', 300);
    memset(grow(&a, 512), 't', 299);
    add_header(&a, "link", '2', 0);
    uint8_t *sparse = add_header(&a, "sparse", 'S', 100);
    memcpy(sparse + 482, "\1" "00000100000", 12);
    set_checksum(sparse);
    grow(&a, 512)[504] = 1;
    grow(&a, 1024);
    add_pax(&a, "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n28 GNU.sparse.realsize=9000\n");
    add_header(&a, "holes", '0', 512);
    grow(&a, 512);
    add_pax(&a, "22 GNU.sparse.size=10\n24 GNU.sparse.offset=12\n25 GNU.sparse.numbytes=3\n");
    add_header(&a, "v7/", 0, 5);
    add_data(&a, "hello", 5);
    grow(&a, 1024);
    add_header(&a, "second", '7', (uint64_t)1 << 40);
    grow(&a, 600);
    return a;
}

/* Most mutations would only break checksums, so most times they are put right afterwards. */
static void mutate(uint8_t *bytes, size_t n) {
    static const uint8_t wild[] = {0, 1, ' ', '0', '7', '9', '=', '\n', '/', '-', '.', 0x7f, 0x80, 0xff};
    static const char types[] = "01256 7SxXgLKVZ";
    for (uint64_t k = 1 + next(8); k; k--) {
        size_t at = next(n), block = (at - (at > 0)) / 512 * 512 + 1;
        switch (next(4)) {
        case 0: bytes[at] = (uint8_t)next(256); break;
        case 1: bytes[at] = wild[next(sizeof wild)]; break;
        case 2:
            if (block + 512 <= n) bytes[block + 156] = (uint8_t)types[next(sizeof types)];
            break;
        default:
            if (block + 512 <= n) bytes[block + 124 + next(12)] = wild[next(sizeof wild)];
        }
    }
    if (next(4))
        for (size_t block = 1; block + 512 <= n; block += 512)
            if (bytes[block + 155] == ' ' && !bytes[block + 154]) set_checksum(bytes + block);
}

int main(int count, char **words) {
    if (count < 3) return 2;
    long runs = atol(words[1]);
    state = strtoull(words[2], NULL, 10);
    for (int i = 2; i < count; i++) {
        archive seed = i == 2 ? built_in() : (archive){NULL, 0, 0};
        if (i > 2) {
            FILE *file = fopen(words[i], "rb");
            if (!file) return 2;
            grow(&seed, 1);
            for (int c; (c = fgetc(file)) != EOF && seed.length < 65536;) *grow(&seed, 1) = (uint8_t)c;
            fclose(file);
        }
        uint8_t *bytes = malloc(seed.length);
        if (!bytes) return 2;
        for (long run = 0; run < runs; run++) {
            memcpy(bytes, seed.bytes, seed.length);
            size_t n = next(4) ? seed.length : 1 + next(seed.length);
            if (run) mutate(bytes, n);
            bytes[0] = (uint8_t)next(256);
            LLVMFuzzerTestOneInput(bytes, n);
        }
        free(bytes);
        free(seed.bytes);
    }
    return 0;
}
#endif
