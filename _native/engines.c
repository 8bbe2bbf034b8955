/* All engines: see engine.h. */
#include "engine.h"

const engine_kind *const engine_kinds[] = {&engine_go, &engine_zlib, &engine_gzip, &engine_busybox, &engine_pigz};
const size_t engine_count = sizeof engine_kinds / sizeof engine_kinds[0];
