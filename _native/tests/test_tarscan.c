/* tarscan by itself: the calls' contract, and memory bounded whatever is claimed. */
#include "../tarscan.h"
#include "check.h"
#include "tar_blocks.h"

/* Feed all, with room for `room` pieces. */
static size_t feed(tarscan *s, const archive *a, tarscan_piece *pieces, size_t room) {
    size_t used = 0, count = 0;
    CHECK(tarscan_feed(s, a->bytes, a->length, &used, pieces, room, &count) == TARSCAN_OK);
    CHECK(used == a->length);
    return count;
}

static void test_pieces(void) {
    archive a = {NULL, 0, 0};
    tarscan_piece pieces[8];
    add_header(&a, "a", '0', 5);
    add_data(&a, "hello", 5);
    add_header(&a, "b", '0', 512);
    grow(&a, 512 + 1024);
    tarscan *s = tarscan_new(0);
    CHECK(s && feed(s, &a, pieces, 8) == 5);
    uint64_t lengths[] = {512, 5, 507 + 512, 512, 1024};
    for (int i = 0; i < 5; i++) {
        CHECK(pieces[i].length == lengths[i] && pieces[i].payload == i % 2 && pieces[i].last == i % 2);
        CHECK(pieces[i].total == (i % 2 ? lengths[i] : 0));
    }
    tarscan_status status;
    tarscan_get_status(s, &status);
    CHECK(status.position == a.length && status.files == 2 && status.content_size == 517 && status.ended);
    tarscan_free(s);
    free(a.bytes);
}

/* Too little room stops the scan where it can go on. */
static void test_room(void) {
    archive a = {NULL, 0, 0};
    tarscan_piece pieces[3];
    size_t used = 0, count = 0;
    add_header(&a, "a", '0', 5);
    add_data(&a, "hello", 5);
    tarscan *s = tarscan_new(0);
    CHECK(tarscan_feed(s, a.bytes, a.length, &used, pieces, 0, &count) == TARSCAN_OK && !used && !count);
    CHECK(tarscan_feed(s, a.bytes, a.length, &used, pieces, 1, &count) == TARSCAN_OK && used == 512 && count == 1);
    CHECK(tarscan_feed(s, a.bytes, a.length, &used, pieces, 2, &count) == TARSCAN_OK && used == 517 && count == 2);
    CHECK(tarscan_feed(s, a.bytes, a.length, &used, pieces, 3, &count) == TARSCAN_OK && used == 1024 && count == 3);
    tarscan_free(s);
    free(a.bytes);
}

static void test_skip(void) {
    archive a = {NULL, 0, 0};
    tarscan_piece pieces[2];
    tarscan_status status;
    add_header(&a, "a", '0', (uint64_t)INT64_MAX);
    tarscan *s = tarscan_new(0);
    feed(s, &a, pieces, 2);
    CHECK(tarscan_skip(s, (uint64_t)INT64_MAX + 1) == TARSCAN_RANGE);
    CHECK(tarscan_skip(s, 0) == TARSCAN_OK && tarscan_skip(s, (uint64_t)INT64_MAX) == TARSCAN_OK);
    CHECK(tarscan_skip(s, 1) == TARSCAN_RANGE);
    tarscan_get_status(s, &status);
    CHECK(status.position == (uint64_t)INT64_MAX + 512 && !status.payload_left);
    CHECK(status.content_size == (uint64_t)INT64_MAX);
    feed(s, &(archive){(uint8_t *)"\0", 1, 1}, pieces, 2); /* the one byte of padding */
    feed(s, &a, pieces, 2);
    tarscan_get_status(s, &status);
    CHECK(status.content_size == (uint64_t)INT64_MAX && status.payload_left == (uint64_t)INT64_MAX);
    tarscan_free(s);
    free(a.bytes);
}

/* The runner lets no allocation exceed 4 MiB: claims must not lead to any, and 64 MiB of a PAX header neither. */
static void test_claims(void) {
    static const char types[] = "xgLKX0S";
    static uint8_t noise[1 << 16];
    tarscan_piece pieces[2];
    memset(noise, '7', sizeof noise);
    for (const char *type = types; *type; type++) {
        for (int large = 0; large < 2; large++) {
            archive a = {NULL, 0, 0};
            add_header(&a, "x", *type, large ? (uint64_t)INT64_MAX : (uint64_t)64 << 20);
            tarscan *s = tarscan_new(1);
            feed(s, &a, pieces, 2);
            for (int i = 0; i < 1024; i++) feed(s, &(archive){noise, sizeof noise, sizeof noise}, pieces, 2);
            tarscan_free(s);
            free(a.bytes);
        }
    }
}

/* As much as is kept at most, of each kind at once, and used. */
static void test_largest_kept(void) {
    archive a = {NULL, 0, 0};
    tarscan_piece pieces[8];
    for (const char *type = "LKx"; *type; type++) {
        add_header(&a, "x", *type, TARSCAN_EXTENDED_MAX);
        memset(grow(&a, TARSCAN_EXTENDED_MAX), 'n', TARSCAN_EXTENDED_MAX);
    }
    add_header(&a, "link", '2', 0);
    tarscan *s = tarscan_new(1);
    feed(s, &a, pieces, 8);
    size_t count;
    const uint8_t *texts;
    const tarscan_entry *e = tarscan_entries(s, &count, &texts);
    CHECK(count == 1 && e->name_length == TARSCAN_EXTENDED_MAX && e->link_length == TARSCAN_EXTENDED_MAX);
    CHECK(e->pax_length == TARSCAN_EXTENDED_MAX && texts[e->name] == 'n' && e->header == 0);
    tarscan_free(s);
    free(a.bytes);
}

/* An entry whose extension blocks are still to come is not shown, and survives a clear. */
static void test_half_entry(void) {
    archive a = {NULL, 0, 0}, b = {NULL, 0, 0};
    tarscan_piece pieces[8];
    size_t count;
    const uint8_t *texts;
    add_header(&a, "first", '0', 0);
    uint8_t *block = add_header(&a, "second", 'S', 0);
    block[482] = 1;
    set_checksum(block);
    tarscan *s = tarscan_new(1);
    feed(s, &a, pieces, 8);
    const tarscan_entry *e = tarscan_entries(s, &count, &texts);
    CHECK(count == 1 && !memcmp(texts + e->name, "first", 5));
    tarscan_entries_clear(s);
    e = tarscan_entries(s, &count, &texts);
    CHECK(count == 0);
    grow(&b, 512);
    feed(s, &b, pieces, 8);
    e = tarscan_entries(s, &count, &texts);
    CHECK(count == 1 && e->name_length == 6 && !memcmp(texts + e->name, "second", 6) && e->data == 1536);
    tarscan_entries_clear(s);
    CHECK((tarscan_entries(s, &count, &texts), count == 0));
    tarscan_free(s);
    free(a.bytes);
    free(b.bytes);
}

/* Out of memory is a status, and leaves what can be freed. (The runner's cap makes it come soon.) */
static void test_no_memory(void) {
    archive a = {NULL, 0, 0};
    tarscan_piece pieces[1];
    size_t used = 0, count = 0;
    int status = TARSCAN_OK;
    add_header(&a, "entry", '0', 0);
    tarscan *s = tarscan_new(1);
    for (int i = 0; i < 1 << 16 && status == TARSCAN_OK; i++) {
        used = count = 0;
        status = tarscan_feed(s, a.bytes, a.length, &used, pieces, 1, &count);
    }
    CHECK(status == TARSCAN_OK || status == TARSCAN_NO_MEMORY);
    tarscan_entries_clear(s);
    tarscan_free(s);
    free(a.bytes);
}

int main(void) {
    test_no_memory();
    test_pieces();
    test_room();
    test_skip();
    test_claims();
    test_largest_kept();
    test_half_entry();
    tarscan_free(NULL);
    return 0;
}
