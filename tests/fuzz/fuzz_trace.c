/* Fuzzing trace_apply: exceptions, blocks, states, positions and views as a damaged or hostile store would have them,
 * for any engine.
 *
 * Checked: it ends, in time that follows the room for what it makes; nothing is written beyond that room, nothing read
 * beyond the view, which lies in a block of just its size; the engine stands within the view afterwards; what can be
 * made can be made again, from another engine. */
#include "fuzz_deflate.h"

#define MORE_TOKENS 4096

typedef struct {
    int told;
    uint64_t bits, position;
    uint8_t *made;
    uint32_t state[ENGINE_STATE];
} outcome;

static outcome apply(const engine_kind *kind, void *engine, const engine_view *view, uint64_t position,
                     const uint32_t *state, uint64_t blocks, const uint8_t *exceptions, size_t n, size_t room,
                     unsigned phase, size_t tokens)
{
    outcome o = {.made = block(room)};
    memset(o.made, 0, room);
    if (kind->seek(engine, view, position, state) < 0) {
        o.told = TRACE_LOST;
        return o;
    }
    CHECK(kind->position(engine) == position);
    deflate_writer writer = {o.made, room, 0, phase, 0};
    uint32_t *scratch = block(tokens * sizeof *scratch);
    o.told = trace_apply(kind, engine, view, blocks, exceptions, n, scratch, tokens, &writer);
    free(scratch);
    CHECK(o.told <= TRACE_OK && o.told != TRACE_MEMORY && writer.room <= room);
    o.bits = 8 * (uint64_t)(room - writer.room) + writer.count;
    o.position = kind->position(engine);
    CHECK(o.position >= position && o.position <= view->end);
    kind->save(engine, o.state);
    return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input in = {data, size}, twice;
    const engine_kind *kind;
    uint8_t flags = take(&in);
    twice = in;
    void *engine = take_engine(&in, &kind), *other = take_engine(&twice, &kind);
    uint32_t state[ENGINE_STATE];
    for (unsigned i = 0; i < ENGINE_STATE; i++)
        state[i] = flags & 1 << i ? (uint32_t)take_wild(&in) : 0;
    uint64_t blocks = take_wild(&in) & ((1ull << 62) - 1);
    size_t room = take_wild(&in) & 0xfff, tokens = kind->max_tokens + take_number(&in, 2) % MORE_TOKENS;
    uint64_t skip = flags & 16 ? take_wild(&in) & ((1ull << 60) - 1) : 0; /* content that lies before the view */
    uint32_t before = flags & 32 ? (uint32_t)take_number(&in, 3) : 0;
    size_t got, length, more = take_wild(&in) & (flags & 64 ? 0x1ffff : 0xfff);
    uint8_t *given = take_block(&in, take_number(&in, 1), &got);
    uint8_t *content = grown(given, got, more, &length);
    uint64_t position = before < length ? before : length;
    if (skip && position < kind->history) /* the view must reach back so far */
        skip = 0;
    engine_view view = {content, skip, skip + length, flags >> 7};
    uint8_t *exceptions = take_block(&in, in.left, &got);
    outcome one = apply(kind, engine, &view, skip + position, state, blocks, exceptions, got, room, flags & 7, tokens);
    outcome two = apply(kind, other, &view, skip + position, state, blocks, exceptions, got, room, flags & 7, tokens);
    CHECK(one.told == two.told && one.bits == two.bits && one.position == two.position);
    CHECK(!memcmp(one.state, two.state, sizeof one.state));
    if (one.told == TRACE_OK)
        CHECK(!memcmp(one.made, two.made, (size_t)(one.bits / 8 < room ? one.bits / 8 : room)));
    free(one.made);
    free(two.made);
    free(given);
    free(content);
    free(exceptions);
    kind->close(engine);
    kind->close(other);
    return 0;
}
