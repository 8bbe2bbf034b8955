from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import tracemalloc
from collections.abc import Callable

import pytest

from casstore.codec import compression
from casstore.codec.compression import Limit
from casstore.errors import BadInput, LimitExceeded
from casstore.format.encoding import zstd

RAW = random.Random(1).randbytes(3000) + bytes(100_000) + b"".join(b"%d," % n for n in range(30_000))
SKIPPABLE = b"\x5a\x2a\x4d\x18\x09\0\0\0" + b"\x1f\x8b\x08skip.."

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstd.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}
kinds = pytest.mark.parametrize("kind", list(COMPRESS))


class Chopped:
    """Gives as few bytes as it likes."""

    def __init__(self, data: bytes, seed: int = 0) -> None:
        self.data = io.BytesIO(data)
        self.random = random.Random(seed)

    def read(self, size: int, /) -> bytes:
        return self.data.read(min(size, self.random.choice([1, 2, 7, 100, 5000, 70_000])))


def read(data: bytes, size: int = 5000, seed: int = 0) -> bytes:
    stream = compression.open_stream(Chopped(data, seed), what="input")
    return b"".join(iter(lambda: stream.read(size), b""))


@kinds
@pytest.mark.parametrize("members", [1, 2, 5])
@pytest.mark.parametrize("size", [999, 1 << 20])
def test_all_members_however_chopped(kind: str, members: int, size: int) -> None:
    data = COMPRESS[kind](RAW) * members
    for seed in range(3):
        stream = compression.open_stream(Chopped(data, seed))
        out = []
        while part := stream.read(size):
            out.append(part)
        assert all(len(part) == size for part in out[:-1])
        assert b"".join(out) == RAW * members
        assert (stream.kind, stream.consumed, stream.produced) == (kind, len(data), len(RAW) * members)
        assert stream.read(1) == b""


@pytest.mark.parametrize(
    "data", [b"", b"x", b"plain bytes", b"\x1f\x8b", b"BZh9 name of a file" + bytes(500), RAW]
)
def test_what_is_not_compressed_is_given_as_it_is(data: bytes) -> None:
    assert compression.detect(data) is None
    assert read(data) == data


@kinds
def test_nothing_compressed_is_nothing(kind: str) -> None:
    assert compression.detect(COMPRESS[kind](b"")) == kind
    assert read(COMPRESS[kind](b"") * 3) == b""


@kinds
def test_cut_short(kind: str) -> None:
    data = COMPRESS[kind](RAW)
    cuts = {compression.DETECT_SIZE, 11, 12, 17, len(data) // 2, len(data) - 9, len(data) - 5, len(data) - 1}
    for cut in sorted(cuts):
        with pytest.raises(BadInput) as caught:
            read(data[:cut])
        assert caught.value.offset == cut
        assert caught.value.what == "input"
        assert "cut short" in str(caught.value)
        # In a later member, too.
        with pytest.raises(BadInput) as caught:
            read(data + data[:cut])
        assert caught.value.offset == len(data) + cut


@kinds
def test_damage_is_told(kind: str) -> None:
    """Each has a checksum (the zstd command's default; zstd from here has none)."""
    options = {zstd.CompressionParameter.checksum_flag: 1}
    data = zstd.compress(RAW, options=options) if kind == "zstd" else COMPRESS[kind](RAW)
    for where in range(compression.DETECT_SIZE, len(data), max(1, len(data) // 50)):
        broken = data[:where] + bytes([data[where] ^ 0x10]) + data[where + 1 :]
        try:
            assert read(broken) == RAW  # a field that says nothing of the content, such as a time
        except BadInput as error:
            assert error.offset is not None
            assert 0 <= error.offset <= len(data)


def test_trailing_garbage_after_gzip_is_skipped_and_counted() -> None:
    for garbage in (b"\0" * 2000, b"garbage", b"\x1f", b"\x1f\x8b", b"g" * 3_000_000):
        source = io.BytesIO(gzip.compress(RAW) * 2 + garbage)
        stream = compression.open_stream(source)
        assert stream.read(1 << 30) == RAW * 2
        assert stream.read(1) == b""
        assert stream.trailing == len(garbage)
        assert source.read() == b""


@pytest.mark.parametrize("kind", ["zstd", "bzip2", "xz"])
def test_junk_after_the_others_is_refused(kind: str) -> None:
    data = COMPRESS[kind](RAW)
    with pytest.raises(BadInput, match="junk after") as caught:
        read(data + b"junk")
    assert caught.value.offset == len(data)


def test_zstd_skippable_frames_anywhere() -> None:
    data = zstd.compress(RAW)
    assert compression.detect(SKIPPABLE) == "zstd"
    assert read(SKIPPABLE * 2 + data + SKIPPABLE + data + SKIPPABLE) == RAW * 2
    with pytest.raises(BadInput):
        read(data + SKIPPABLE[:-1])


def test_xz_padding() -> None:
    data = lzma.compress(RAW)
    assert read(data + bytes(8) + data + bytes(4)) == RAW * 2


def test_windows_that_take_much_memory_are_refused() -> None:
    options = {zstd.CompressionParameter.window_log: 30, zstd.CompressionParameter.content_size_flag: 0}
    compressor = zstd.ZstdCompressor(options=options)
    data = compressor.compress(RAW) + compressor.flush()
    with pytest.raises(BadInput):
        read(data)
    greedy = lzma.compress(b"x", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30}])
    with pytest.raises(BadInput):
        read(greedy)


@kinds
def test_limits(kind: str) -> None:
    bomb = COMPRESS[kind](bytes(20 << 20))
    for limit, text in [
        (Limit(output=1 << 20), "more than 1048576 bytes"),
        (Limit(ratio=50, free=1 << 20), "more than 50 times"),
    ]:
        stream = compression.open_stream(io.BytesIO(bomb), limit)
        with pytest.raises(LimitExceeded, match=text):
            while stream.read(1 << 16):
                pass
        assert stream.produced <= (1 << 20) + (1 << 16)
    stream = compression.open_stream(io.BytesIO(bomb), Limit(output=20 << 20, ratio=50, free=20 << 20))
    assert len(stream.read(1 << 30)) == 20 << 20


@kinds
def test_memory_does_not_grow_with_the_stream(kind: str) -> None:
    data = io.BytesIO(COMPRESS[kind](bytes(64 << 20)))
    stream = compression.open_stream(data)
    tracemalloc.start()
    try:
        while stream.read(1 << 18):
            pass
        assert tracemalloc.get_traced_memory()[1] < 16 << 20  # 8 MiB of it: the dictionary of xz
    finally:
        tracemalloc.stop()


def test_many_tiny_members_take_time_in_proportion() -> None:
    data = gzip.compress(b"") * 20_000 + gzip.compress(b"end")
    assert read(data) == b"end"
