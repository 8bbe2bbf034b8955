#include "tar_header.h"

#include <string.h>

/* ---- numbers --------------------------------------------------------------------------------------------------- */

/* Octal between any spaces and NULs. False: it is none. */
static int parse_octal(const uint8_t *field, size_t n, uint64_t *value) {
    size_t i = 0;
    uint64_t v = 0;
    while (i < n && (field[i] == ' ' || field[i] == 0)) i++;
    for (; i < n && field[i] >= '0' && field[i] <= '7'; i++) v = v << 3 | (uint64_t)(field[i] - '0');
    *value = v; /* fields have at most 12 digits: 36 bits */
    return i == n || field[i] == ' ' || field[i] == 0;
}

int tar_number(const uint8_t *field, size_t n, int64_t *value) {
    if (!(field[0] & 0x80)) {
        uint64_t v;
        if (!parse_octal(field, n, &v)) return 0;
        *value = (int64_t)v;
        return 1;
    }
    uint8_t flip = field[0] & 0x40 ? 0xff : 0;
    uint64_t v = (field[0] ^ flip) & 0x7f;
    for (size_t i = 1; i < n; i++) {
        if (v >> 55) return 0;
        v = v << 8 | (uint8_t)(field[i] ^ flip);
    }
    *value = flip ? -(int64_t)v - 1 : (int64_t)v;
    return 1;
}

static int is_digit(uint8_t c) { return c >= '0' && c <= '9'; }

/* Decimal digits only, at most INT64_MAX. */
static int parse_decimal(tar_text t, uint64_t *value) {
    uint64_t v = 0;
    if (!t.length) return 0;
    for (size_t i = 0; i < t.length; i++) {
        if (!is_digit(t.bytes[i])) return 0;
        uint64_t digit = (uint64_t)(t.bytes[i] - '0');
        if (v > ((uint64_t)INT64_MAX - digit) / 10) return 0;
        v = v * 10 + digit;
    }
    *value = v;
    return 1;
}

static int parse_signed(tar_text t, int64_t *value) {
    uint64_t v;
    int negative = t.length && t.bytes[0] == '-';
    if (negative) t.bytes++, t.length--;
    if (!parse_decimal(t, &v)) return 0;
    *value = negative ? -(int64_t)v : (int64_t)v;
    return 1;
}

#define SECOND 1000000000
#define SECONDS_MAX (INT64_MAX / SECOND - 1)

int64_t tar_nanoseconds(int64_t seconds) {
    if (seconds > SECONDS_MAX) return INT64_MAX;
    if (seconds < -SECONDS_MAX) return INT64_MIN;
    return seconds * SECOND;
}

/* [-]seconds[.fraction], digits beyond nanoseconds dropped. */
static int parse_time(tar_text t, int64_t *ns) {
    int negative = t.length && t.bytes[0] == '-';
    if (negative) t.bytes++, t.length--;
    size_t dot = 0;
    while (dot < t.length && t.bytes[dot] != '.') dot++;
    int64_t fraction = 0;
    for (size_t i = dot + 1, scale = SECOND / 10; i < t.length; i++, scale /= 10) {
        if (!is_digit(t.bytes[i])) return 0;
        fraction += (int64_t)scale * (t.bytes[i] - '0');
    }
    if (!dot) return 0;
    uint64_t seconds = 0;
    for (size_t i = 0; i < dot; i++) {
        if (!is_digit(t.bytes[i])) return 0;
        if (seconds <= SECONDS_MAX) seconds = seconds * 10 + (uint64_t)(t.bytes[i] - '0');
    }
    if (seconds > SECONDS_MAX) *ns = negative ? INT64_MIN : INT64_MAX;
    else *ns = negative ? -((int64_t)seconds * SECOND + fraction) : (int64_t)seconds * SECOND + fraction;
    return 1;
}

/* ---- extended headers ------------------------------------------------------------------------------------------ */

static int is(tar_text t, const char *word) { return t.length == strlen(word) && !memcmp(t.bytes, word, t.length); }

static int version_digit(tar_text t) {
    if (!t.length) return -1;
    return t.length == 1 && is_digit(t.bytes[0]) ? t.bytes[0] - '0' : -2;
}

static void take_record(tar_pax *f, tar_text key, tar_text value) {
    /* An empty value withdraws what an earlier record of the same name said (POSIX). */
    if (is(key, "path")) f->path = value;
    else if (is(key, "linkpath")) f->link = value;
    else if (is(key, "size")) f->has_size = parse_decimal(value, &f->size);
    else if (is(key, "mtime")) f->has_mtime = parse_time(value, &f->mtime_ns);
    else if (is(key, "uid")) {
        f->has_uid = value.length > 0;
        if (!parse_signed(value, &f->uid)) f->uid = -1;
    } else if (is(key, "gid")) {
        f->has_gid = value.length > 0;
        if (!parse_signed(value, &f->gid)) f->gid = -1;
    } else if (key.length > 11 && !memcmp(key.bytes, "GNU.sparse.", 11)) {
        tar_text sub = {key.bytes + 11, key.length - 11};
        if (is(sub, "name")) f->sparse_name = value;
        else if (is(sub, "size")) f->has_sparse_size = parse_decimal(value, &f->sparse_size);
        else if (is(sub, "realsize")) f->has_real_size = parse_decimal(value, &f->real_size);
        else if (is(sub, "major")) f->major = version_digit(value);
        else if (is(sub, "minor")) f->minor = version_digit(value);
        else if (is(sub, "map") || is(sub, "offset") || is(sub, "numbytes")) f->has_map = 1;
    }
}

void tar_read_pax(tar_text records, tar_pax *f) {
    const uint8_t *bytes = records.bytes;
    size_t start = 0, n = records.length;
    memset(f, 0, sizeof *f);
    f->major = f->minor = -1;
    while (start < n) {
        size_t at = start, length = 0;
        for (; at < n && at - start < 9 && is_digit(bytes[at]); at++) length = length * 10 + (size_t)(bytes[at] - '0');
        if (at == start || at == n || bytes[at] != ' ') return;
        at++;
        if (length > n - start || length <= at - start || bytes[start + length - 1] != '\n') return;
        size_t end = start + length - 1;
        const uint8_t *equals = memchr(bytes + at, '=', end - at);
        if (!equals || equals == bytes + at) return;
        tar_text key = {bytes + at, (size_t)(equals - (bytes + at))};
        tar_text value = {equals + 1, (size_t)(bytes + end - (equals + 1))};
        take_record(f, key, value);
        start += length;
    }
}

int tar_pax_is_sparse(const tar_pax *f) {
    if (f->major == 1) return f->minor == 0;
    if (f->major == 0) return f->minor == 0 || f->minor == 1;
    return f->major == -1 && f->minor == -1 && f->has_map;
}

/* ---- header blocks ---------------------------------------------------------------------------------------------- */

tar_text tar_field_text(const uint8_t *field, size_t n) {
    const uint8_t *nul = memchr(field, 0, n);
    tar_text t = {field, nul ? (size_t)(nul - field) : n};
    return t;
}

tar_text tar_name(const uint8_t *block, uint8_t room[TAR_JOINED_NAME]) {
    tar_text name = tar_field_text(block + NAME, NAME_SIZE);
    if (memcmp(block + MAGIC, "ustar", 6) != 0) return name; /* GNU's magic: it keeps times there */
    int star = !memcmp(block + TAR_BLOCK - 4, "tar", 4);
    tar_text prefix = tar_field_text(block + PREFIX, star ? STAR_PREFIX_SIZE : PREFIX_SIZE);
    if (!prefix.length) return name;
    memcpy(room, prefix.bytes, prefix.length);
    room[prefix.length] = '/';
    memcpy(room + prefix.length + 1, name.bytes, name.length);
    tar_text joined = {room, prefix.length + 1 + name.length};
    return joined;
}

int tar_is_whiteout(tar_text name) {
    size_t base = name.length;
    while (base && name.bytes[base - 1] != '/') base--;
    return name.length - base >= 4 && !memcmp(name.bytes + base, ".wh.", 4);
}

int tar_is_zero(const uint8_t *block) {
    uint64_t any = 0, word;
    for (size_t i = 0; i < TAR_BLOCK; i += 8) memcpy(&word, block + i, 8), any |= word;
    return !any;
}

/* The bytes' sum, by four 16-bit lanes that 512 bytes cannot overflow. */
static uint32_t sum_bytes(const uint8_t *block) {
    const uint64_t even = 0x00ff00ff00ff00ff;
    uint64_t sum = 0, word;
    for (size_t i = 0; i < TAR_BLOCK; i += 8) {
        memcpy(&word, block + i, 8);
        sum += (word & even) + (word >> 8 & even);
    }
    return (uint32_t)((sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32 & 0xffff) + (sum >> 48));
}

/* The sum takes its own field for spaces. Old writers summed signed chars: either sum will do. 0 is what zero blocks
 * claim: none. */
int tar_checksum_ok(const uint8_t *block) {
    uint64_t claimed;
    if (!parse_octal(block + CHECKSUM, CHECKSUM_SIZE, &claimed) || !claimed) return 0;
    int64_t sum = (int64_t)sum_bytes(block) + CHECKSUM_SIZE * ' ';
    for (size_t i = CHECKSUM; i < CHECKSUM + CHECKSUM_SIZE; i++) sum -= block[i];
    if ((int64_t)claimed == sum) return 1;
    for (size_t i = 0; i < TAR_BLOCK; i++)
        if (block[i] > 127 && (i < CHECKSUM || i >= CHECKSUM + CHECKSUM_SIZE)) sum -= 256;
    return (int64_t)claimed == sum;
}

