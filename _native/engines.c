/* All engines: see engine.h. */
#include "engine.h"

const engine_kind *const engine_kinds[] = {&engine_go};
const size_t engine_count = sizeof engine_kinds / sizeof engine_kinds[0];
