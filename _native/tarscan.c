#include "tarscan.h"
#include "tar_header.h"

#include <stdlib.h>
#include <string.h>

#define SIZE_MAX_CLAIM ((uint64_t)INT64_MAX)

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
    uint8_t block[TAR_BLOCK];
};

/* ---- memory ---------------------------------------------------------------------------------------------------- */

static int kept_append(kept *to, const uint8_t *bytes, size_t n) {
    if (n > to->room - to->length) {
        size_t room = to->room ? to->room : TAR_BLOCK;
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

/* ---- headers --------------------------------------------------------------------------------------------------- */

static tar_text kept_bytes(const kept *from) {
    tar_text bytes = {from->bytes, from->present ? from->length : 0};
    return bytes;
}

static tar_text kept_text(const kept *from) {
    tar_text bytes = kept_bytes(from);
    return bytes.length ? tar_field_text(bytes.bytes, bytes.length) : bytes;
}

static void add_size(tarscan *s, uint64_t size) {
    s->content_size = size > SIZE_MAX_CLAIM - s->content_size ? SIZE_MAX_CLAIM : s->content_size + size;
}

static void forget_pending(tarscan *s) {
    s->pax.present = s->long_name.present = s->long_link.present = s->pending = 0;
}

static int64_t id_or_bad(const uint8_t *field) {
    int64_t v;
    return tar_number(field, ID_SIZE, &v) ? v : -1;
}

static int keep_text(tarscan *s, tar_text t, size_t *at, size_t *length) {
    *at = s->texts.length;
    *length = t.length;
    return kept_append(&s->texts, t.bytes, t.length);
}

static int keep_entry(tarscan *s, const uint8_t *block, const tar_pax *f, tarscan_entry *e, tar_text name,
                      tar_text link) {
    int64_t seconds;
    e->mode = id_or_bad(block + MODE);
    e->uid = f->has_uid ? f->uid : id_or_bad(block + UID);
    e->gid = f->has_gid ? f->gid : id_or_bad(block + GID);
    if (f->has_mtime) e->mtime_ns = f->mtime_ns;
    else e->mtime_ns = tar_number(block + MTIME, NUMBER_SIZE, &seconds) ? tar_nanoseconds(seconds) : 0;
    e->has_pax = (uint8_t)s->pax.present;
    if (keep_text(s, name, &e->name, &e->name_length) || keep_text(s, link, &e->link, &e->link_length) ||
        keep_text(s, kept_bytes(&s->pax), &e->pax, &e->pax_length))
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
    s->padding = (uint32_t)(-s->total & (TAR_BLOCK - 1));
}

/* A header of an entry: state and counts after it. `at`: its offset. */
static int take_entry(tarscan *s, const uint8_t *block, uint64_t at, uint64_t size) {
    tar_pax f;
    uint8_t room[TAR_JOINED_NAME];
    tar_read_pax(kept_bytes(&s->pax), &f);
    int sparse = tar_pax_is_sparse(&f);

    tar_text name = kept_text(&s->long_name), link = kept_text(&s->long_link);
    if (sparse && f.sparse_name.length) name = f.sparse_name;
    if (!name.length) name = f.path;
    if (!name.length) name = tar_name(block, room);
    if (!link.length) link = f.link;
    if (!link.length) link = tar_field_text(block + LINK, LINK_SIZE);

    uint8_t type = block[TYPE];
    if (!type) type = name.length && name.bytes[name.length - 1] == '/' ? '5' : '0';
    int regular = type == '0' || type == '7' || type == 'S';
    if (f.has_size) size = f.size;
    if (type >= '1' && type <= '6') size = 0; /* links, devices, directories, FIFOs: no data follows */
    uint64_t real = size;
    int64_t claimed;
    if (type == 'S') {
        if (tar_number(block + GNU_REAL_SIZE, NUMBER_SIZE, &claimed) && claimed >= 0) real = (uint64_t)claimed;
    } else if (regular && sparse) {
        if (f.has_sparse_size) real = f.sparse_size;
        else if (f.has_real_size) real = f.real_size;
    }

    if (!s->ended) {
        if (!tar_is_whiteout(name)) {
            if (regular) s->files++, add_size(s, real);
            else if (type == '2') add_size(s, link.length);
        }
        if (s->keep_entries) {
            tarscan_entry e = {.header = s->pending ? s->first : at, .data = at + TAR_BLOCK, .type = type};
            e.stored = size;
            e.size = real;
            int status = keep_entry(s, block, &f, &e, name, link);
            if (status) return status;
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
    return TARSCAN_OK;
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
    s->padding = (uint32_t)(-size & (TAR_BLOCK - 1));
    s->state = size ? EXTENDED : HEADER;
}

/* A whole block at offset `at` where a header may be. */
static int take_block(tarscan *s, const uint8_t *block, uint64_t at) {
    int64_t size;
    if (s->state == SPARSE) {
        if (s->half_entry) s->entries[s->entry_count - 1].data = at + TAR_BLOCK;
        if (!block[EXTENSION_EXTENDED]) {
            s->half_entry = 0;
            start_payload(s);
        }
        return TARSCAN_OK;
    }
    if (!tar_checksum_ok(block) || !tar_number(block + SIZE, NUMBER_SIZE, &size) || size < 0) {
        forget_pending(s);
        s->zeros = tar_is_zero(block) ? s->zeros + 1 : 0;
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
            step = TAR_BLOCK - s->have < rest ? TAR_BLOCK - s->have : rest;
            add_literal(out, count, step);
            if (step == TAR_BLOCK) {
                status = take_block(s, here, s->position);
            } else {
                memcpy(s->block + s->have, here, step);
                s->have += step;
                if (s->have == TAR_BLOCK) {
                    s->have = 0;
                    status = take_block(s, s->block, s->position + step - TAR_BLOCK);
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
