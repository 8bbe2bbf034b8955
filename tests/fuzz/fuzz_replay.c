/* A main for the C targets where there is no libFuzzer: each file named is one input. */
#include "fuzz_input.h"

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most); /* asked for by targets that mutate; never called */

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most)
{
    (void)data;
    return size < most ? size : most;
}

int main(int count, char **names)
{
    for (int i = 1; i < count; i++) {
        FILE *file = fopen(names[i], "rb");
        CHECK(file && !fseek(file, 0, SEEK_END));
        long size = ftell(file);
        CHECK(size >= 0 && !fseek(file, 0, SEEK_SET));
        uint8_t *bytes = block((size_t)size);
        CHECK(fread(bytes, 1, (size_t)size, file) == (size_t)size);
        fclose(file);
        fprintf(stderr, "%s\n", names[i]);
        LLVMFuzzerTestOneInput(bytes, (size_t)size);
        free(bytes);
    }
    return 0;
}
