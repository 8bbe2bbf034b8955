/* Chains of positions with equal hashes: see engine_zlib.h. */
#include "engine_zlib.h"

#define STEP 31000u

void engine_zlib_forget(chains *c, uint64_t position) {
    memset(c->newest, 0, sizeof c->newest);
    memset(c->newest_wide, 0, sizeof c->newest_wide);
    memset(c->steps, 0xff, sizeof c->steps);
    memset(c->links, 0xff, sizeof c->links);
    c->hashed = position > WINDOW ? position - WINDOW : 1;
    c->origin = c->hashed - WINDOW;
}

static void lower(uint16_t *numbers, size_t n) {
    for (size_t i = 0; i < n; i++) {
        unsigned number = numbers[i];
        numbers[i] = (uint16_t)(number > STEP ? number - STEP : 0);
    }
}

void engine_zlib_renumber(chains *c) {
    c->origin += STEP;
    lower(c->newest, HASHES);
    lower(c->newest_wide, WIDE_HASHES);
}

void engine_zlib_hash(chains *c, const engine_view *view, uint64_t to, int wide) {
    for (;;) {
        uint64_t step = c->hashed + 256 < to ? c->hashed + 256 : to;
        if (c->hashed >= step) return;
        const uint8_t *bytes = view->bytes + (size_t)(c->hashed - view->begin);
        if (step + 3 > view->end) { /* the last ones one by one; the very last three bytes are no beginning of four */
            step = c->hashed + 1;
            if (step + 2 > view->end) return;
            uint8_t three[4] = {bytes[0], bytes[1], bytes[2], step + 3 > view->end ? 0 : bytes[3]};
            hash_some(c, three, step, wide);
        } else {
            hash_some(c, bytes, step, wide);
        }
    }
}
