/* Exceptions to an engine's predictions, made and applied: see trace.h.
 *
 * One exception: varint of blocks since the one before it, varint of tokens (since the block's begin, or since the
 * exception before in the same block), kind, and what the kind needs. */
#include "trace.h"

#include <string.h>

enum { TOKEN, CUT, JOIN, STORED, HEAD, DROP, KINDS };

/* ---- bytes ----------------------------------------------------------------------------------------------------- */

static int put(trace_buffer *b, const void *bytes, size_t n) {
    if (n > b->room - b->size) return TRACE_ROOM;
    memcpy(b->bytes + b->size, bytes, n);
    b->size += n;
    return TRACE_OK;
}

static int put_varint(trace_buffer *b, uint64_t value) {
    uint8_t out[10];
    size_t n = 0;
    do {
        out[n] = (uint8_t)(value & 0x7f);
        value >>= 7;
        if (value) out[n] |= 0x80;
        n++;
    } while (value);
    return put(b, out, n);
}

typedef struct {
    const uint8_t *at, *end;
} reader;

static int get_byte(reader *r) { return r->at < r->end ? *r->at++ : TRACE_BAD; }

static int get_varint(reader *r, uint64_t *value) {
    *value = 0;
    for (unsigned shift = 0; shift < 63; shift += 7) {
        int byte = get_byte(r);
        if (byte < 0) return TRACE_BAD;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) return TRACE_OK;
    }
    return TRACE_BAD;
}

/* ---- heads ----------------------------------------------------------------------------------------------------- */

static int same_head(const deflate_head *a, const deflate_head *b) {
    if (a->type != b->type || a->final != b->final) return 0;
    if (a->type == DEFLATE_STORED) return a->padding == b->padding && a->stored == b->stored;
    if (a->type == DEFLATE_FIXED) return 1;
    return a->literal_count == b->literal_count && a->distance_count == b->distance_count &&
           a->code_count == b->code_count && a->op_count == b->op_count &&
           !memcmp(a->code_lengths, b->code_lengths, sizeof a->code_lengths) &&
           !memcmp(a->ops, b->ops, (size_t)a->op_count * sizeof a->ops[0]);
}

static int put_head(trace_buffer *b, const deflate_head *h) {
    uint8_t first = (uint8_t)(h->type | h->final << 2 | (h->type == DEFLATE_STORED ? h->padding << 3 : 0));
    int failed = put(b, &first, 1);
    if (!failed && h->type == DEFLATE_DYNAMIC) {
        uint8_t counts[3] = {(uint8_t)(h->literal_count - 257), (uint8_t)(h->distance_count - 1), h->code_count};
        failed = put(b, counts, 3);
        if (!failed) failed = put(b, h->code_lengths, 19);
        if (!failed) failed = put_varint(b, h->op_count);
        for (unsigned i = 0; !failed && i < h->op_count; i++)
            failed = put(b, h->ops[i], h->ops[i][0] >= 16 ? 2 : 1);
    }
    return failed;
}

/* The lengths that operations make; are they lengths, and codes that tokens can be written with? */
static int unfold(deflate_head *h) {
    unsigned literals = h->literal_count, all = literals + h->distance_count, at = 0;
    for (unsigned i = 0; i < h->op_count; i++) {
        unsigned op = h->ops[i][0], extra = h->ops[i][1], times = 1, length = op;
        if (op > 18 || !h->code_lengths[op]) return TRACE_BAD;
        if (op >= 16) {
            if (extra >= (op == 16 ? 4u : op == 17 ? 8u : 128u) || (op == 16 && !at)) return TRACE_BAD;
            times = extra + (op == 18 ? 11 : 3);
            unsigned before = at - 1;
            length = op != 16 ? 0 : h->lengths[before < literals ? before : DEFLATE_LITERALS + before - literals];
        }
        if (times > all - at) return TRACE_BAD;
        for (; times; times--, at++)
            h->lengths[at < literals ? at : DEFLATE_LITERALS + at - literals] = (uint8_t)length;
    }
    return at == all ? TRACE_OK : TRACE_BAD;
}

static int get_head(reader *r, deflate_head *h) {
    memset(h, 0, sizeof *h);
    int first = get_byte(r);
    if (first < 0) return TRACE_BAD;
    h->type = first & 3;
    h->final = first >> 2 & 1;
    h->padding = (uint8_t)(first >> 3);
    if (h->type == DEFLATE_STORED) return TRACE_OK;
    if (h->type > DEFLATE_DYNAMIC || h->padding) return TRACE_BAD;
    if (h->type == DEFLATE_FIXED) {
        deflate_fixed_lengths(h->lengths);
        return TRACE_OK;
    }
    int literals = get_byte(r), distances = get_byte(r), codes = get_byte(r);
    if (literals < 0 || literals > 29 || distances < 0 || distances > 29 || codes < 4 || codes > 19) return TRACE_BAD;
    h->literal_count = (uint16_t)(literals + 257);
    h->distance_count = (uint16_t)(distances + 1);
    h->code_count = (uint8_t)codes;
    for (unsigned i = 0; i < 19; i++) {
        int length = get_byte(r);
        if (length < 0 || length > 7) return TRACE_BAD;
        h->code_lengths[i] = (uint8_t)length;
    }
    uint64_t ops;
    if (get_varint(r, &ops) || ops > DEFLATE_OPS) return TRACE_BAD;
    h->op_count = (uint16_t)ops;
    for (unsigned i = 0; i < ops; i++) {
        int op = get_byte(r), extra = op >= 16 ? get_byte(r) : 0;
        if (op < 0 || extra < 0) return TRACE_BAD;
        h->ops[i][0] = (uint8_t)op;
        h->ops[i][1] = (uint8_t)extra;
    }
    return unfold(h);
}

/* ---- tokens ---------------------------------------------------------------------------------------------------- */

static int put_token(trace_buffer *b, uint32_t token) {
    uint8_t out[4];
    out[0] = token & DEFLATE_MATCH ? (token & DEFLATE_LONG ? 2 : 1) : 0;
    out[1] = (uint8_t)(token & DEFLATE_MATCH ? token >> 16 : 0);
    out[2] = (uint8_t)token;
    out[3] = (uint8_t)(token >> 8);
    /* A literal is the content's next byte, whatever it is. */
    return put(b, out, out[0] ? 4 : 1);
}

/* A token that the content has at this position. */
static int get_token(reader *r, const engine_view *view, uint64_t position, uint32_t *token) {
    int kind = get_byte(r);
    if (kind < 0 || kind > 2 || position >= view->end) return TRACE_BAD;
    const uint8_t *here = view->bytes + (position - view->begin);
    if (!kind) {
        *token = *here;
        return TRACE_OK;
    }
    int length = get_byte(r), low = get_byte(r), high = get_byte(r);
    if (length < 0 || low < 0 || high < 0 || high > 127) return TRACE_BAD;
    uint32_t n = (uint32_t)length + DEFLATE_MIN_MATCH, distance = (uint32_t)(low | high << 8) + 1;
    if (kind == 2 && n != DEFLATE_MAX_MATCH) return TRACE_BAD;
    if (n > view->end - position || distance > position - view->begin || memcmp(here, here - distance, n))
        return TRACE_BAD;
    *token = deflate_match(n, distance) | (kind == 2 ? DEFLATE_LONG : 0);
    return TRACE_OK;
}

static int of_engine(int told) {
    switch (told) {
    case ENGINE_LOST: return TRACE_LOST;
    case ENGINE_MEMORY: return TRACE_MEMORY;
    case ENGINE_MORE: return TRACE_VIEW;
    default: return told < 0 ? TRACE_BAD : TRACE_OK;
    }
}

/* What one stretch may cost: an engine that is to stand elsewhere looks at some of what lies before, so that each such
 * move must be paid for by content. */
#define MOVES 64u
#define BYTES_PER_MOVE 4096u

typedef struct {
    uint64_t begin, moves;
} purse;

static int move(purse *p, const engine_kind *kind, void *engine, const engine_view *view, uint64_t to) {
    static const uint32_t nothing[ENGINE_STATE];
    if (++p->moves > MOVES + (to - p->begin) / BYTES_PER_MOVE) return TRACE_LOST;
    return of_engine(kind->seek(engine, view, to, nothing));
}

/* ---- making ---------------------------------------------------------------------------------------------------- */

typedef struct {
    trace_buffer *out;
    uint64_t blocks, tokens; /* since the last exception */
} maker;

static int except(maker *m, int kind) {
    uint8_t byte = (uint8_t)kind;
    int failed = put_varint(m->out, m->blocks);
    if (!failed) failed = put_varint(m->out, m->tokens);
    m->blocks = m->tokens = 0;
    return failed ? failed : put(m->out, &byte, 1);
}

#define AT_A_TIME 1024u /* tokens */

#define TRY(expression)                                                                                                \
    do {                                                                                                               \
        int failed_ = (expression);                                                                                    \
        if (failed_) return failed_;                                                                                   \
    } while (0)

/* The tokens of one block, as the engine says or not. */
static int make_tokens(maker *m, const engine_kind *kind, void *engine, const engine_view *view, const uint32_t *actual,
                       uint32_t n, uint32_t *scratch, int *done) {
    uint32_t k = 0;
    for (;;) {
        size_t made = 0, most = n - k < kind->max_tokens ? n - k : kind->max_tokens;
        int told = kind->run(engine, view, actual + k, scratch, most, &made);
        k += (uint32_t)made;
        m->tokens += made;
        if (told == ENGINE_MISS) {
            TRY(except(m, TOKEN));
            TRY(put_token(m->out, actual[k]));
            TRY(of_engine(kind->commit(engine, view, actual[k])));
            k++;
            m->tokens++;
        } else if (told == ENGINE_BLOCK) {
            if (k == n) return TRACE_OK;
            TRY(except(m, JOIN));
        } else if (told == ENGINE_DONE) {
            *done = 1;
            return k == n ? TRACE_OK : TRACE_BAD;
        } else if (told != ENGINE_TOKENS) {
            return of_engine(told);
        } else if (k == n) {
            TRY(except(m, CUT));
            return of_engine(kind->cut(engine));
        }
    }
}

/* Would the engine end a block at `end`, where a stored one does? 1, and how many tokens it has (in `scratch`); 0: it
 * would not; or a failure. It is asked for a little at a time, so that what it says beyond the end costs little. */
static int ends_there(const engine_kind *kind, void *engine, const engine_view *view, uint64_t end, uint32_t *scratch,
                      size_t *n, int *done) {
    *n = 0;
    for (;;) {
        uint64_t left = end - kind->position(engine);
        size_t made = 0, most = kind->max_tokens - *n;
        if (most > left) most = (size_t)left;
        if (most > AT_A_TIME) most = AT_A_TIME;
        int told = kind->run(engine, view, NULL, scratch + *n, most, &made);
        *n += made;
        uint64_t position = kind->position(engine);
        if (told < 0) return of_engine(told);
        if (position > end) return 0;
        if (told == ENGINE_MORE) return TRACE_VIEW;
        if (told != ENGINE_TOKENS) {
            if (told == ENGINE_DONE) *done = 1;
            return position == end;
        }
        if (!most) return 0;
    }
}

int trace_make(const engine_kind *kind, void *engine, const engine_view *view, const trace_block *blocks, size_t n,
               const uint32_t *tokens, uint32_t *scratch, trace_buffer *exceptions) {
    maker m = {exceptions, 0, 0};
    purse purse = {kind->position(engine), 0};
    unsigned follows = kind->follows ? kind->follows(engine) : 0;
    int done = 0;
    for (size_t i = 0; i < n; i++, m.blocks++, m.tokens = 0) {
        const trace_block *block = &blocks[i];
        const deflate_head *actual = block->head;
        uint64_t start = kind->position(engine);
        const uint32_t *mine = tokens;
        size_t made = block->tokens;
        tokens += made;
        if (follows && block->bytes) {
            TRY(except(&m, DROP));
            follows = 0;
        }
        int empty = follows > 0;
        if (empty) {
            follows--;
        } else if (actual->type == DEFLATE_STORED) {
            uint64_t end = start + block->bytes;
            /* One of nothing is an encoder's flush: what it goes on with is what it had. */
            int flush = !block->bytes && !(view->last && start == view->end);
            int same = flush ? 0 : ends_there(kind, engine, view, end, scratch, &made, &done);
            if (same < 0) return same;
            if (!same) {
                TRY(except(&m, STORED));
                TRY(put_varint(exceptions, block->bytes));
                TRY(put_head(exceptions, actual));
                if (!flush) TRY(move(&purse, kind, engine, view, end));
                continue;
            }
            mine = scratch;
        } else {
            TRY(make_tokens(&m, kind, engine, view, mine, block->tokens, scratch, &done));
        }
        deflate_head head;
        unsigned more = 0;
        memset(&head, 0, sizeof head);
        TRY(of_engine(kind->block(engine, view, mine, empty ? 0 : made, start, done, &head, &more)));
        if (!empty) follows = more;
        if (head.type == DEFLATE_STORED) head.stored = (uint16_t)(kind->position(engine) - start);
        if (!same_head(&head, actual)) {
            TRY(except(&m, HEAD));
            TRY(put_head(exceptions, actual));
        }
    }
    return TRACE_OK;
}

/* ---- applying -------------------------------------------------------------------------------------------------- */

typedef struct {
    reader in;
    uint64_t blocks, tokens; /* until the next exception */
    int kind;                /* of it; KINDS: there is none */
} applier;

/* Read where the next exception is, and its kind. */
static int next(applier *a) {
    a->kind = KINDS;
    a->blocks = a->tokens = 0;
    if (a->in.at == a->in.end) return TRACE_OK;
    TRY(get_varint(&a->in, &a->blocks));
    TRY(get_varint(&a->in, &a->tokens));
    a->kind = get_byte(&a->in);
    return a->kind < 0 || a->kind >= KINDS ? TRACE_BAD : TRACE_OK;
}

static int is_next(const applier *a, int kind) { return a->kind == kind && !a->blocks && !a->tokens; }

static int apply_tokens(applier *a, const engine_kind *kind, void *engine, const engine_view *view, uint32_t *scratch,
                        size_t room, size_t *made, int *done) {
    size_t k = 0;
    for (;;) {
        int mine = a->kind != KINDS && !a->blocks && a->kind != HEAD;
        size_t most = room - k < kind->max_tokens ? room - k : kind->max_tokens, got = 0;
        if (mine && a->tokens < most) most = (size_t)a->tokens;
        int told = kind->run(engine, view, NULL, scratch + k, most, &got);
        k += got;
        if (mine) a->tokens -= got;
        if (told == ENGINE_BLOCK) {
            if (!is_next(a, JOIN)) break;
            TRY(next(a));
        } else if (told == ENGINE_DONE) {
            *done = 1;
            break;
        } else if (told != ENGINE_TOKENS) {
            return told == ENGINE_MISS ? TRACE_BAD : of_engine(told);
        } else if (is_next(a, TOKEN)) {
            if (k == room) return TRACE_ROOM;
            TRY(get_token(&a->in, view, kind->position(engine), &scratch[k]));
            TRY(of_engine(kind->commit(engine, view, scratch[k++])));
            TRY(next(a));
            /* What follows in this block counts from the token after this one. */
            if (a->kind != KINDS && !a->blocks && a->kind != HEAD) {
                if (!a->tokens) return TRACE_BAD;
                a->tokens--;
            }
        } else if (is_next(a, CUT)) {
            TRY(of_engine(kind->cut(engine)));
            TRY(next(a));
            break;
        } else if (!got && k == room) {
            return TRACE_ROOM;
        } else if (!got && !most) {
            return TRACE_BAD; /* an exception that is none here */
        }
    }
    *made = k;
    return TRACE_OK;
}

static void write_block(deflate_writer *writer, const deflate_head *head, const uint32_t *tokens, size_t n,
                        const uint8_t *bytes) {
    deflate_write_head(writer, head);
    if (head->type == DEFLATE_STORED) {
        deflate_write_bytes(writer, bytes, head->stored);
    } else {
        deflate_codes codes;
        deflate_codes_make(&codes, head->lengths);
        deflate_write_tokens(writer, &codes, tokens, n);
        deflate_write_end(writer, &codes);
    }
}

int trace_apply(const engine_kind *kind, void *engine, const engine_view *view, uint64_t n, const uint8_t *exceptions,
                size_t size, uint32_t *scratch, size_t scratch_room, deflate_writer *writer) {
    applier a = {{exceptions, exceptions + size}, 0, 0, KINDS};
    purse purse = {kind->position(engine), 0};
    unsigned follows = kind->follows ? kind->follows(engine) : 0;
    int done = 0;
    TRY(next(&a));
    for (uint64_t i = 0; i < n; i++) {
        uint64_t start = kind->position(engine);
        size_t made = 0;
        if (is_next(&a, DROP)) {
            follows = 0;
            TRY(next(&a));
        }
        int empty = follows > 0, whole = !empty && is_next(&a, STORED);
        deflate_head head;
        memset(&head, 0, sizeof head);
        if (whole) {
            uint64_t bytes;
            TRY(get_varint(&a.in, &bytes));
            TRY(get_head(&a.in, &head));
            if (head.type != DEFLATE_STORED || bytes > 0xffff || bytes > view->end - start) return TRACE_BAD;
            if (bytes || (view->last && start == view->end))
                TRY(move(&purse, kind, engine, view, start + bytes));
            TRY(next(&a));
        } else {
            unsigned more = 0;
            if (empty) follows--;
            else TRY(apply_tokens(&a, kind, engine, view, scratch, scratch_room, &made, &done));
            TRY(of_engine(kind->block(engine, view, scratch, made, start, done, &head, &more)));
            if (!empty) follows = more;
            if (a.kind == HEAD && !a.blocks) {
                TRY(get_head(&a.in, &head));
                TRY(next(&a));
            }
        }
        uint64_t bytes = kind->position(engine) - start;
        if (head.type == DEFLATE_STORED) {
            if (bytes > 0xffff) return TRACE_BAD;
            head.stored = (uint16_t)bytes;
        }
        write_block(writer, &head, scratch, made, view->bytes + (start - view->begin));
        if (writer->lost) return TRACE_ROOM;
        if (a.kind != KINDS && !a.blocks) return TRACE_BAD; /* an exception that this block has no place for */
        if (a.kind != KINDS) a.blocks--;
    }
    return a.kind == KINDS ? TRACE_OK : TRACE_BAD;
}
