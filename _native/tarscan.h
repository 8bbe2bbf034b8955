/* tarscan: which bytes of a tar stream are payloads of its entries, and which are everything else.
 *
 * A scanner takes a stream in pieces of any size and tells, for each byte at once, whether it is *payload* (content of
 * an entry, as it lies in the archive) or *literal* (headers, padding, extended headers, end blocks, junk). It never
 * fails on content: a block that is no header is literal, and the next one is tried, in steps of 512 bytes. Payload
 * follows only a header whose checksum and size are right.
 *
 * Understood: v7, ustar, star's prefix, PAX (size, path, linkpath, mtime, uid, gid, GNU.sparse.*), GNU long names (L,
 * K), old GNU sparse (S) with extension blocks, base-256 numbers. Global PAX headers are literal and have no effect,
 * as with Docker (BEHAVIOUR §5). Sources: POSIX.1-2017 pax; GNU tar manual, "Basic Tar Format" and "Sparse Formats".
 *
 * Memory: O(1) of the stream. Extended headers are kept up to TARSCAN_EXTENDED_MAX bytes each, as their bytes arrive;
 * a larger one is literal and has no effect. Entries (when asked for) are kept until tarscan_entries_clear.
 *
 * No function touches memory outside what it is given; a scanner is used by one thread at a time. */
#ifndef CASSTORE_TARSCAN_H
#define CASSTORE_TARSCAN_H

#include <stddef.h>
#include <stdint.h>

#define TARSCAN_EXTENDED_MAX ((size_t)1 << 20)

enum {
    TARSCAN_OK = 0,
    TARSCAN_NO_MEMORY = -1, /* the scanner must not be used any more, but for freeing */
    TARSCAN_RANGE = -2      /* an argument is out of range; nothing was done */
};

typedef struct tarscan tarscan;

/* A run of bytes of one kind. `total`: of a payload, the size its header claims (the same on each of its pieces);
 * `last`: this piece ends its payload. Both are 0 for literals. */
typedef struct {
    uint64_t length;
    uint64_t total;
    uint8_t payload;
    uint8_t last;
} tarscan_piece;

/* One entry, complete once its headers are (before its payload). Texts are spans of the scanner's `texts`.
 * `type`: as in the header, but '\0' is '0', or '5' where the name ends in '/'. Offsets count from the stream's start.
 * mode, uid, gid are -1 where they do not parse; mtime_ns (since 1970) is clamped to 64 bits. */
typedef struct {
    uint64_t header; /* of the first block that belongs to it, extended headers included */
    uint64_t data;   /* of its payload */
    uint64_t stored; /* payload bytes in the archive */
    uint64_t size;   /* size as a file; differs from `stored` when sparse */
    int64_t mode, uid, gid, mtime_ns;
    size_t name, name_length, link, link_length, pax, pax_length;
    uint8_t type;
    uint8_t has_pax;
} tarscan_entry;

/* What can be asked of a scanner at any time. */
typedef struct {
    uint64_t position;     /* bytes seen */
    uint64_t payload_left; /* bytes of the current payload still to come */
    uint64_t content_size; /* Docker's SIZE so far; stays at UINT64_MAX / 2 rather than overflow */
    uint64_t files;        /* regular files so far, whiteouts not counted */
    int ended;             /* two zero blocks were seen: what follows is split alike, but no longer counted or listed */
} tarscan_status;

/* NULL when out of memory. `entries`: keep entries. */
tarscan *tarscan_new(int entries);
void tarscan_free(tarscan *scanner);

/* Scan bytes[*used, n) and append pieces to out[*count, room). Stops early when `out` is full: call again with more
 * room and the same `used`, `count`. A literal continues the last literal piece in `out`. Needs room >= *count + 1 to
 * get anywhere. */
int tarscan_feed(tarscan *scanner, const uint8_t *bytes, size_t n, size_t *used, tarscan_piece *out, size_t room,
                 size_t *count);

/* Go on by n <= payload_left bytes of the current payload without seeing them. */
int tarscan_skip(tarscan *scanner, uint64_t n);

void tarscan_get_status(const tarscan *scanner, tarscan_status *status);

/* The entries kept, and the texts their spans point into; valid until the next call of feed or clear. */
const tarscan_entry *tarscan_entries(const tarscan *scanner, size_t *count, const uint8_t **texts);
void tarscan_entries_clear(tarscan *scanner);

#endif
