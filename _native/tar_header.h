/* tar_header: the fields of a tar header block and of a PAX extended header, for tarscan. Pure functions; texts are
 * spans of what they were read from. Sources: POSIX.1-2017 pax; GNU tar manual, "Basic Tar Format" and "Sparse
 * Formats". */
#ifndef CASSTORE_TAR_HEADER_H
#define CASSTORE_TAR_HEADER_H

#include <stddef.h>
#include <stdint.h>

#define TAR_BLOCK 512
#define TAR_JOINED_NAME 256 /* bytes: prefix, slash, name */

/* Offsets of the fields of a header block (POSIX ustar; GNU where named so). */
enum {
    NAME = 0, NAME_SIZE = 100,
    MODE = 100, UID = 108, GID = 116, ID_SIZE = 8,
    SIZE = 124, MTIME = 136, NUMBER_SIZE = 12,
    CHECKSUM = 148, CHECKSUM_SIZE = 8,
    TYPE = 156,
    LINK = 157, LINK_SIZE = 100,
    MAGIC = 257,
    PREFIX = 345, PREFIX_SIZE = 155, STAR_PREFIX_SIZE = 131,
    GNU_EXTENDED = 482, GNU_REAL_SIZE = 483, /* old sparse: extension blocks follow; size as a file */
    EXTENSION_EXTENDED = 504                 /* the same flag within an extension block */
};

typedef struct {
    const uint8_t *bytes;
    size_t length;
} tar_text;

/* What a PAX extended header says, as far as it matters here. */
typedef struct {
    tar_text path, link, sparse_name;
    int has_size, has_mtime, has_uid, has_gid, has_map, has_sparse_size, has_real_size;
    uint64_t size, sparse_size, real_size;
    int64_t mtime_ns, uid, gid;
    int major, minor; /* of GNU.sparse: the digit, -1 absent, -2 anything else */
} tar_pax;

/* Octal between any spaces and NULs, or GNU's base-256: the first byte has its top bit set, the rest is big-endian
 * two's complement. False: neither, or beyond 64 bits. */
int tar_number(const uint8_t *field, size_t n, int64_t *value);

/* Seconds as nanoseconds, clamped. */
int64_t tar_nanoseconds(int64_t seconds);

/* A field up to its first NUL. */
tar_text tar_field_text(const uint8_t *field, size_t n);

/* The name in a header block; `room` holds prefix/name where there is a prefix. */
tar_text tar_name(const uint8_t *block, uint8_t room[TAR_JOINED_NAME]);

/* Is the last part of a path one that hides another (".wh.…")? */
int tar_is_whiteout(tar_text path);

int tar_is_zero(const uint8_t *block);
int tar_checksum_ok(const uint8_t *block); /* the one thing that makes a block a header */

/* Records "length key=value\n", the length counting itself. The first that is none ends the reading. */
void tar_read_pax(tar_text records, tar_pax *fields);

/* Do they say that the file is sparse, in a format that is known (0.0, 0.1, 1.0)? */
int tar_pax_is_sparse(const tar_pax *fields);

#endif
