#include "tarscan.h"

#include <stdlib.h>
#include <string.h>

#define BLOCK 512
#define SIZE_MAX_CLAIM ((uint64_t)INT64_MAX)

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

enum state {
    HEADER,    /* the next block may be a header */
    EXTENDED,  /* inside the data of an extended header (x, g, L, K) */
    SPARSE,    /* the next block is an extension of an old GNU sparse header */
    PAYLOAD,
    PADDING
};

typedef struct {
    uint8_t *bytes;
    size_t length, room;
    int present; /* bytes belong to the next entry */
} kept;

struct tarscan {
    enum state state;
    uint64_t position;
    uint64_t left;         /* of the extended header's data, the payload or the padding */
    uint64_t total;        /* the payload's claimed size */
    uint32_t padding;      /* bytes that follow what `left` counts */
    size_t have;           /* bytes of `block` filled */
    kept *filling;         /* where an extended header's data goes; NULL: nowhere */
    kept pax, long_name, long_link;
    int pending;           /* an extended header was seen; `first` is its offset */
    uint64_t first;
    int zeros;             /* zero blocks in a row */
    int ended;
    uint64_t content_size, files;
    int keep_entries;
    tarscan_entry *entries;
    size_t entry_count, entry_room;
    int half_entry;        /* the last entry lacks its extension blocks: not shown yet */
    kept texts;
    uint8_t block[BLOCK];
};

typedef struct {
    const uint8_t *bytes;
    size_t length;
} text;

/* What a PAX extended header says, as far as it matters here. */
typedef struct {
    text path, link, sparse_name;
    int has_size, has_mtime, has_uid, has_gid, has_map, has_sparse_size, has_real_size;
    uint64_t size, sparse_size, real_size;
    int64_t mtime_ns, uid, gid;
    int major, minor; /* of GNU.sparse: the digit, -1 absent, -2 anything else */
} pax_fields;

/* ---- memory ---------------------------------------------------------------------------------------------------- */

static int kept_append(kept *to, const uint8_t *bytes, size_t n) {
    if (n > to->room - to->length) {
        size_t room = to->room ? to->room : BLOCK;
        while (room - to->length < n) {
            if (room > SIZE_MAX / 2) return TARSCAN_NO_MEMORY;
            room *= 2;
        }
        uint8_t *grown = realloc(to->bytes, room);
        if (!grown) return TARSCAN_NO_MEMORY;
        to->bytes = grown;
        to->room = room;
    }
    if (n) memcpy(to->bytes + to->length, bytes, n);
    to->length += n;
    return TARSCAN_OK;
}

tarscan *tarscan_new(int entries) {
    tarscan *s = calloc(1, sizeof *s);
    if (s) s->keep_entries = entries;
    return s;
}

void tarscan_free(tarscan *s) {
    if (!s) return;
    free(s->pax.bytes);
    free(s->long_name.bytes);
    free(s->long_link.bytes);
    free(s->texts.bytes);
    free(s->entries);
    free(s);
}

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

/* Octal, or GNU's base-256: the first byte has its top bit set, the rest is big-endian two's complement. */
static int parse_number(const uint8_t *field, size_t n, int64_t *value) {
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
static int parse_decimal(text t, uint64_t *value) {
    uint64_t v = 0;
    if (!t.length) return 0;
    for (size_t i = 0; i < t.length; i++) {
        if (!is_digit(t.bytes[i])) return 0;
        uint64_t digit = (uint64_t)(t.bytes[i] - '0');
        if (v > (SIZE_MAX_CLAIM - digit) / 10) return 0;
        v = v * 10 + digit;
    }
    *value = v;
    return 1;
}

static int parse_signed(text t, int64_t *value) {
    uint64_t v;
    int negative = t.length && t.bytes[0] == '-';
    if (negative) t.bytes++, t.length--;
    if (!parse_decimal(t, &v)) return 0;
    *value = negative ? -(int64_t)v : (int64_t)v;
    return 1;
}

#define SECOND 1000000000
#define SECONDS_MAX (INT64_MAX / SECOND - 1)

static int64_t clamp_seconds(int64_t seconds) {
    if (seconds > SECONDS_MAX) return INT64_MAX;
    if (seconds < -SECONDS_MAX) return INT64_MIN;
    return seconds * SECOND;
}

/* [-]seconds[.fraction], digits beyond nanoseconds dropped. */
static int parse_time(text t, int64_t *ns) {
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

static int is(text t, const char *word) { return t.length == strlen(word) && !memcmp(t.bytes, word, t.length); }

static int version_digit(text t) {
    if (!t.length) return -1;
    return t.length == 1 && is_digit(t.bytes[0]) ? t.bytes[0] - '0' : -2;
}

static void take_record(pax_fields *f, text key, text value) {
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
        text sub = {key.bytes + 11, key.length - 11};
        if (is(sub, "name")) f->sparse_name = value;
        else if (is(sub, "size")) f->has_sparse_size = parse_decimal(value, &f->sparse_size);
        else if (is(sub, "realsize")) f->has_real_size = parse_decimal(value, &f->real_size);
        else if (is(sub, "major")) f->major = version_digit(value);
        else if (is(sub, "minor")) f->minor = version_digit(value);
        else if (is(sub, "map") || is(sub, "offset") || is(sub, "numbytes")) f->has_map = 1;
    }
}

/* Records "length key=value\n", the length counting itself. The first that is none ends the reading. */
static void read_pax(const kept *pax, pax_fields *f) {
    memset(f, 0, sizeof *f);
    f->major = f->minor = -1;
    if (!pax->present) return;
    const uint8_t *bytes = pax->bytes;
    size_t start = 0;
    while (start < pax->length) {
        size_t at = start, length = 0;
        while (at < pax->length && at - start < 9 && is_digit(bytes[at])) length = length * 10 + (size_t)(bytes[at++] - '0');
        if (at == start || at == pax->length || bytes[at] != ' ') return;
        at++;
        if (length > pax->length - start || length <= at - start || bytes[start + length - 1] != '\n') return;
        size_t end = start + length - 1;
        const uint8_t *equals = memchr(bytes + at, '=', end - at);
        if (!equals || equals == bytes + at) return;
        text key = {bytes + at, (size_t)(equals - (bytes + at))};
        text value = {equals + 1, (size_t)(bytes + end - (equals + 1))};
        take_record(f, key, value);
        start += length;
    }
}

static int pax_is_sparse(const pax_fields *f) {
    if (f->major == 1) return f->minor == 0;
    if (f->major == 0) return f->minor == 0 || f->minor == 1;
    return f->major == -1 && f->minor == -1 && f->has_map;
}

/* ---- headers --------------------------------------------------------------------------------------------------- */

static int is_zero(const uint8_t *block) {
    uint64_t any = 0, word;
    for (size_t i = 0; i < BLOCK; i += 8) memcpy(&word, block + i, 8), any |= word;
    return !any;
}

/* Old writers summed signed chars: either sum will do. */
static int checksum_ok(const uint8_t *block) {
    uint64_t claimed;
    if (block[CHECKSUM] & 0x80 || !parse_octal(block + CHECKSUM, CHECKSUM_SIZE, &claimed)) return 0;
    uint32_t sum = 0, high = 0;
    for (size_t i = 0; i < BLOCK; i++) sum += block[i], high += block[i] >> 7;
    for (size_t i = CHECKSUM; i < CHECKSUM + CHECKSUM_SIZE; i++) sum -= block[i], high -= block[i] >> 7;
    sum += CHECKSUM_SIZE * ' ';
    return claimed == sum || (high && (int64_t)claimed == (int64_t)sum - 256 * (int64_t)high);
}

static text field_text(const uint8_t *field, size_t n) {
    const uint8_t *nul = memchr(field, 0, n);
    text t = {field, nul ? (size_t)(nul - field) : n};
    return t;
}

static text kept_text(const kept *from) {
    text none = {NULL, 0};
    return from->present && from->length ? field_text(from->bytes, from->length) : none;
}

/* The header's own name; `room` holds prefix/name where there is a prefix (POSIX magic only: GNU has times there). */
static text header_name(const uint8_t *block, uint8_t room[PREFIX_SIZE + 1 + NAME_SIZE]) {
    text name = field_text(block + NAME, NAME_SIZE);
    if (memcmp(block + MAGIC, "ustar", 6) != 0) return name;
    int star = !memcmp(block + BLOCK - 4, "tar", 4);
    text prefix = field_text(block + PREFIX, star ? STAR_PREFIX_SIZE : PREFIX_SIZE);
    if (!prefix.length) return name;
    memcpy(room, prefix.bytes, prefix.length);
    room[prefix.length] = '/';
    memcpy(room + prefix.length + 1, name.bytes, name.length);
    text joined = {room, prefix.length + 1 + name.length};
    return joined;
}

static int is_whiteout(text name) {
    size_t base = name.length;
    while (base && name.bytes[base - 1] != '/') base--;
    return name.length - base >= 4 && !memcmp(name.bytes + base, ".wh.", 4);
}

static void add_size(tarscan *s, uint64_t size) {
    s->content_size = size > SIZE_MAX_CLAIM - s->content_size ? SIZE_MAX_CLAIM : s->content_size + size;
}

static void forget_pending(tarscan *s) { s->pax.present = s->long_name.present = s->long_link.present = s->pending = 0; }

static int64_t id_or_bad(const uint8_t *field) {
    int64_t v;
    return parse_number(field, ID_SIZE, &v) ? v : -1;
}

static int keep_text(tarscan *s, text t, size_t *at, size_t *length) {
    *at = s->texts.length;
    *length = t.length;
    return kept_append(&s->texts, t.bytes, t.length);
}

static int keep_entry(tarscan *s, const uint8_t *block, const pax_fields *f, tarscan_entry *e, text name, text link) {
    int64_t seconds;
    e->mode = id_or_bad(block + MODE);
    e->uid = f->has_uid ? f->uid : id_or_bad(block + UID);
    e->gid = f->has_gid ? f->gid : id_or_bad(block + GID);
    if (f->has_mtime) e->mtime_ns = f->mtime_ns;
    else e->mtime_ns = parse_number(block + MTIME, NUMBER_SIZE, &seconds) ? clamp_seconds(seconds) : 0;
    text pax = {s->pax.bytes, s->pax.present ? s->pax.length : 0};
    e->has_pax = (uint8_t)s->pax.present;
    if (keep_text(s, name, &e->name, &e->name_length) || keep_text(s, link, &e->link, &e->link_length) ||
        keep_text(s, pax, &e->pax, &e->pax_length))
        return TARSCAN_NO_MEMORY;
    if (s->entry_count == s->entry_room) {
        size_t room = s->entry_room ? s->entry_room * 2 : 64;
        tarscan_entry *grown = room > SIZE_MAX / sizeof *grown ? NULL : realloc(s->entries, room * sizeof *grown);
        if (!grown) return TARSCAN_NO_MEMORY;
        s->entries = grown;
        s->entry_room = room;
    }
    s->entries[s->entry_count++] = *e;
    return TARSCAN_OK;
}

static void start_payload(tarscan *s) {
    s->state = s->total ? PAYLOAD : HEADER;
    s->left = s->total;
    s->padding = (uint32_t)(-s->total & (BLOCK - 1));
}

/* A header of an entry: state and counts after it. `at`: its offset. */
static int take_entry(tarscan *s, const uint8_t *block, uint64_t at, uint64_t size) {
    pax_fields f;
    uint8_t room[PREFIX_SIZE + 1 + NAME_SIZE];
    read_pax(&s->pax, &f);
    int sparse = pax_is_sparse(&f);

    text name = kept_text(&s->long_name), link = kept_text(&s->long_link);
    if (sparse && f.sparse_name.length) name = f.sparse_name;
    if (!name.length) name = f.path;
    if (!name.length) name = header_name(block, room);
    if (!link.length) link = f.link;
    if (!link.length) link = field_text(block + LINK, LINK_SIZE);

    uint8_t type = block[TYPE];
    if (!type) type = name.length && name.bytes[name.length - 1] == '/' ? '5' : '0';
    int regular = type == '0' || type == '7' || type == 'S';
    if (f.has_size) size = f.size;
    if (type >= '1' && type <= '6') size = 0; /* links, devices, directories, FIFOs: no data follows */
    uint64_t real = size;
    int64_t claimed;
    if (type == 'S' && parse_number(block + GNU_REAL_SIZE, NUMBER_SIZE, &claimed) && claimed >= 0) real = (uint64_t)claimed;
    else if (regular && sparse && f.has_sparse_size) real = f.sparse_size;
    else if (regular && sparse && f.has_real_size) real = f.real_size;

    int status = TARSCAN_OK;
    if (!s->ended) {
        if (!is_whiteout(name)) {
            if (regular) s->files++, add_size(s, real);
            else if (type == '2') add_size(s, link.length);
        }
        if (s->keep_entries) {
            tarscan_entry e = {.header = s->pending ? s->first : at, .data = at + BLOCK, .stored = size, .size = real, .type = type};
            status = keep_entry(s, block, &f, &e, name, link);
        }
    }
    forget_pending(s);
    s->total = size;
    if (type == 'S' && block[GNU_EXTENDED]) {
        s->state = SPARSE;
        s->half_entry = s->keep_entries && !s->ended;
    } else {
        start_payload(s);
    }
    return status;
}

static void take_extended(tarscan *s, uint8_t type, uint64_t at, uint64_t size) {
    s->filling = NULL;
    if (type != 'g') {
        if (!s->pending) s->pending = 1, s->first = at;
        s->filling = type == 'L' ? &s->long_name : type == 'K' ? &s->long_link : &s->pax;
        s->filling->length = 0;
        s->filling->present = size <= TARSCAN_EXTENDED_MAX;
        if (!s->filling->present) s->filling = NULL;
    }
    s->left = size;
    s->padding = (uint32_t)(-size & (BLOCK - 1));
    s->state = size ? EXTENDED : HEADER;
}

/* A whole block at offset `at` where a header may be. */
static int take_block(tarscan *s, const uint8_t *block, uint64_t at) {
    int64_t size;
    if (s->state == SPARSE) {
        if (s->half_entry) s->entries[s->entry_count - 1].data = at + BLOCK;
        if (!block[EXTENSION_EXTENDED]) {
            s->half_entry = 0;
            start_payload(s);
        }
        return TARSCAN_OK;
    }
    if (!checksum_ok(block) || !parse_number(block + SIZE, NUMBER_SIZE, &size) || size < 0) {
        forget_pending(s);
        s->zeros = is_zero(block) ? s->zeros + 1 : 0;
        if (s->zeros == 2) s->ended = 1;
        return TARSCAN_OK;
    }
    s->zeros = 0;
    switch (block[TYPE]) {
    case 'x': case 'X': case 'g': case 'L': case 'K':
        take_extended(s, block[TYPE], at, (uint64_t)size);
        return TARSCAN_OK;
    default:
        return take_entry(s, block, at, (uint64_t)size);
    }
}

/* ---- the stream ------------------------------------------------------------------------------------------------ */

static void add_literal(tarscan_piece *out, size_t *count, uint64_t n) {
    if (*count && !out[*count - 1].payload) {
        out[*count - 1].length += n;
        return;
    }
    tarscan_piece piece = {.length = n};
    out[(*count)++] = piece;
}

/* `left` has reached 0. */
static void end_run(tarscan *s) {
    s->left = s->state == PADDING ? 0 : s->padding;
    s->state = s->left ? PADDING : HEADER;
}

int tarscan_feed(tarscan *s, const uint8_t *bytes, size_t n, size_t *used, tarscan_piece *out, size_t room,
                 size_t *count) {
    while (*used < n) {
        if (*count >= room) return TARSCAN_OK;
        const uint8_t *here = bytes + *used;
        size_t rest = n - *used, step;
        int status = TARSCAN_OK;
        if (s->state == HEADER || s->state == SPARSE) {
            step = BLOCK - s->have < rest ? BLOCK - s->have : rest;
            add_literal(out, count, step);
            if (step == BLOCK) {
                status = take_block(s, here, s->position);
            } else {
                memcpy(s->block + s->have, here, step);
                s->have += step;
                if (s->have == BLOCK) {
                    s->have = 0;
                    status = take_block(s, s->block, s->position + step - BLOCK);
                }
            }
        } else {
            step = s->left < rest ? (size_t)s->left : rest;
            s->left -= step;
            if (s->state == PAYLOAD) {
                tarscan_piece piece = {.length = step, .total = s->total, .payload = 1, .last = !s->left};
                out[(*count)++] = piece;
            } else {
                add_literal(out, count, step);
                if (s->state == EXTENDED && s->filling) status = kept_append(s->filling, here, step);
            }
            if (!s->left) end_run(s);
        }
        s->position += step;
        *used += step;
        if (status) return status;
    }
    return TARSCAN_OK;
}

int tarscan_skip(tarscan *s, uint64_t n) {
    if (n && (s->state != PAYLOAD || n > s->left)) return TARSCAN_RANGE;
    if (!n) return TARSCAN_OK;
    s->position += n;
    s->left -= n;
    if (!s->left) end_run(s);
    return TARSCAN_OK;
}

void tarscan_get_status(const tarscan *s, tarscan_status *status) {
    status->position = s->position;
    status->payload_left = s->state == PAYLOAD ? s->left : 0;
    status->content_size = s->content_size;
    status->files = s->files;
    status->ended = s->ended;
}

const tarscan_entry *tarscan_entries(const tarscan *s, size_t *count, const uint8_t **texts) {
    *count = s->entry_count - (size_t)s->half_entry;
    *texts = s->texts.bytes;
    return s->entries;
}

void tarscan_entries_clear(tarscan *s) {
    if (!s->half_entry) {
        s->entry_count = s->texts.length = 0;
        return;
    }
    tarscan_entry e = s->entries[s->entry_count - 1];
    size_t gone = e.name; /* its texts are the last ones, the name first */
    s->texts.length -= gone;
    if (s->texts.length) memmove(s->texts.bytes, s->texts.bytes + gone, s->texts.length);
    e.name -= gone;
    e.link -= gone;
    e.pax -= gone;
    s->entries[0] = e;
    s->entry_count = 1;
}
