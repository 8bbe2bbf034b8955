/* An engine as a program: engine NAME LEVEL [VERSION] < content > deflate. With -t it says how fast it was, in MB/s of content. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine.h"

static uint8_t *read_all(size_t *n) {
    size_t room = 1 << 20;
    uint8_t *bytes = malloc(room);
    for (*n = 0; bytes;) {
        size_t got = fread(bytes + *n, 1, room - *n, stdin);
        *n += got;
        if (!got) break;
        if (*n == room) {
            uint8_t *larger = realloc(bytes, room *= 2);
            if (!larger) free(bytes);
            bytes = larger;
        }
    }
    return bytes;
}

int main(int argc, char **argv) {
    int timed = argc > 1 && !strcmp(argv[1], "-t");
    if (timed) argc--, argv++;
    if (argc != 3 && argc != 4) return 2;
    unsigned version = argc == 4 ? (unsigned)atoi(argv[3]) : 1;
    const engine_kind *kind = NULL;
    for (size_t i = 0; i < engine_count; i++)
        if (!strcmp(engine_kinds[i]->name, argv[1]) && engine_kinds[i]->version == version) kind = engine_kinds[i];
    if (!kind) return 2;
    size_t n, room;
    uint8_t *content = read_all(&n);
    if (!content) return 1;
    room = n + n / 8 + 65536;
    uint8_t *out = malloc(room);
    if (!out) return 1;
    memset(out, 0, room); /* its pages are there when the time is taken */
    struct timespec from, to;
    timespec_get(&from, TIME_UTC);
    size_t size = engine_encode(kind, atoi(argv[2]), content, n, out, room);
    timespec_get(&to, TIME_UTC);
    if (!size || size > room) return 1;
    if (timed) {
        double took = (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9;
        fprintf(stderr, "%.1f\n", (double)n / 1e6 / took);
    }
    int failed = fwrite(out, 1, size, stdout) != size || fflush(stdout);
    free(out);
    free(content);
    return failed;
}
