/* klauspost's engine as a program: VERSION LEVEL < content > deflate. */
#include <stdio.h>
#include <stdlib.h>

#include "engine_klauspost.h"

int main(int argc, char **argv) {
    static const engine_kind *const kinds[] = {&engine_klauspost, &engine_klauspost_1_18, &engine_klauspost_1_20,
                                               &engine_klauspost_1_15, &engine_klauspost_1_14};
    const engine_kind *kind = NULL;
    for (size_t i = 0; argc == 3 && i < sizeof kinds / sizeof *kinds; i++)
        if (kinds[i]->version == (unsigned)atoi(argv[1])) kind = kinds[i];
    size_t most = (size_t)1 << 26, room = most + most / 8;
    uint8_t *content = malloc(most), *out = malloc(room);
    if (!kind || !content || !out) return 2;
    size_t n = fread(content, 1, most, stdin);
    size_t size = engine_encode(kind, atoi(argv[2]), content, n, out, room);
    int failed = n == most || !size || size > room || fwrite(out, 1, size, stdout) != size || fflush(stdout);
    free(content);
    free(out);
    return failed;
}
