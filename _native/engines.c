/* All engines: see engine.h. */
#include "engine.h"
#include "engine_klauspost.h"

const engine_kind *const engine_kinds[] = {
    &engine_go, &engine_zlib, &engine_gzip, &engine_busybox, &engine_pigz, &engine_klauspost, &engine_klauspost_1_18,
    &engine_klauspost_1_20, &engine_klauspost_1_15, &engine_klauspost_1_14, &engine_go_1_27,
};
const size_t engine_count = sizeof engine_kinds / sizeof engine_kinds[0];
