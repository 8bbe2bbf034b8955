#include "../sha256.h"
#include "check.h"

#define SIZE 4096

static const sha256_engine *engines[2];

static void whole(const sha256_engine *engine, const uint8_t *data, size_t size, uint8_t digest[32])
{
    sha256_stream stream;
    sha256_start(&stream);
    sha256_update(engine, &stream, data, size);
    sha256_digest(engine, &stream, digest);
}

static void expect(const sha256_engine *engine, const char *data, size_t size, const char *hex)
{
    uint8_t digest[32];
    char text[65];
    whole(engine, (const uint8_t *)data, size, digest);
    for (int i = 0; i < 32; i++)
        snprintf(text + 2 * i, 3, "%02x", digest[i]);
    CHECK(strcmp(text, hex) == 0);
}

/* The examples of FIPS 180-4 and of NIST's example algorithms page. */
static void published(const sha256_engine *engine)
{
    expect(engine, "", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    expect(engine, "abc", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    const char *two_blocks = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    expect(engine, two_blocks, 56, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    const char *longer = "abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn"
                         "hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu";
    expect(engine, longer, 112, "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1");
    char *million = block(1000000);
    memset(million, 'a', 1000000);
    expect(engine, million, 1000000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    free(million);
}

/* Every length around the edges of blocks, at an odd address, in pieces; the engines agree. */
static void lengths(const uint8_t *data)
{
    uint64_t seed = 2;
    for (size_t length = 0; length <= 300; length++) {
        uint8_t *message = block(length), want[32], got[32];
        memcpy(message, data + 1, length);
        whole(engines[0], message, length, want);
        for (int e = 0; e < 2; e++) {
            whole(engines[e], message, length, got);
            CHECK(memcmp(want, got, 32) == 0);
            sha256_stream stream;
            sha256_start(&stream);
            for (size_t at = 0, piece; at < length; at += piece) {
                piece = next_number(&seed) % 130;
                piece = piece < length - at ? piece : length - at;
                sha256_update(engines[e], &stream, message + at, piece);
            }
            CHECK(stream.length == length);
            sha256_digest(engines[e], &stream, got);
            sha256_digest(engines[e], &stream, got); /* may be asked again */
            CHECK(memcmp(want, got, 32) == 0);
        }
        free(message);
    }
}

/* Any spans, beside a stream of any length with anything pending, or alone. */
static void lanes(const uint8_t *data)
{
    uint64_t seed = 3, starts[40], sizes[40];
    for (int round = 0; round < 500; round++) {
        size_t n = next_number(&seed) % 40, limit = round % 3 ? 200 : SIZE, bad;
        for (size_t i = 0; i < n; i++) {
            sizes[i] = next_number(&seed) % (limit + 1);
            starts[i] = next_number(&seed) % (SIZE - sizes[i] + 1);
        }
        size_t before = next_number(&seed) % 150, length = next_number(&seed) % (limit + 1);
        size_t begin = next_number(&seed) % (SIZE - length + 1);
        for (int e = 0; e < 2; e++) {
            uint8_t *digests = block(32 * n), want[32], got[32];
            CHECK(sha256_names(engines[e], data, SIZE, starts, sizes, n, digests, &bad) == SHA256_OK);
            for (size_t i = 0; i < n; i++) {
                whole(engines[0], data + starts[i], sizes[i], want);
                CHECK(memcmp(want, digests + 32 * i, 32) == 0);
            }
            memset(digests, 0, 32 * n);

            sha256_stream one, two;
            sha256_start(&one);
            sha256_update(engines[0], &one, data, before);
            two = one;
            sha256_update(engines[0], &one, data + begin, length);
            CHECK(sha256_stream_and_names(engines[e], &two, data + begin, length, data, SIZE, starts, sizes, n,
                                          digests, &bad) == SHA256_OK);
            CHECK(one.length == two.length);
            sha256_update(engines[0], &one, data, 77); /* what is pending must be right, too */
            sha256_update(engines[e], &two, data, 77);
            sha256_digest(engines[0], &one, want);
            sha256_digest(engines[e], &two, got);
            CHECK(memcmp(want, got, 32) == 0);
            for (size_t i = 0; i < n; i++) {
                whole(engines[0], data + starts[i], sizes[i], want);
                CHECK(memcmp(want, digests + 32 * i, 32) == 0);
            }
            free(digests);
        }
    }
}

static void outside(const uint8_t *data)
{
    const uint64_t wrong[][2] = {{0, SIZE + 1}, {SIZE, 1}, {SIZE + 1, 0}, {1, SIZE}, {UINT64_MAX, 1}, {1, UINT64_MAX},
                                 {UINT64_MAX, UINT64_MAX}};
    uint8_t digests[96] = {0};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        uint64_t starts[3] = {0, wrong[i][0], 0}, sizes[3] = {5, wrong[i][1], 5};
        size_t bad = 0;
        sha256_stream stream;
        sha256_start(&stream);
        CHECK(sha256_names(engines[1], data, SIZE, starts, sizes, 3, digests, &bad) == SHA256_OUTSIDE && bad == 1);
        CHECK(sha256_stream_and_names(engines[1], &stream, data, SIZE, data, SIZE, starts, sizes, 3, digests, &bad) ==
              SHA256_OUTSIDE);
        CHECK(bad == 1 && stream.length == 0 && digests[0] == 0);
    }
    uint64_t start = SIZE, size = 0; /* nothing, right at the end, is inside */
    size_t bad;
    CHECK(sha256_names(engines[1], data, SIZE, &start, &size, 1, digests, &bad) == SHA256_OK);
    start = 0;
    CHECK(sha256_names(engines[1], NULL, 0, &start, &size, 1, digests, &bad) == SHA256_OK);
    CHECK(sha256_names(engines[1], NULL, 0, NULL, NULL, 0, NULL, &bad) == SHA256_OK);
}

int main(void)
{
    engines[0] = sha256_portable();
    engines[1] = sha256_best();
    printf("engines: %s, %s\n", engines[0]->name, engines[1]->name);
    uint64_t seed = 1;
    uint8_t *data = block(SIZE);
    fill(data, SIZE, &seed);
    for (int e = 0; e < 2; e++)
        published(engines[e]);
    lengths(data);
    lanes(data);
    outside(data);
    free(data);
    return 0;
}
