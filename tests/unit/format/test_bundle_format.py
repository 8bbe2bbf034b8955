"""Bundles as bytes: what is refused, and what it may cost to refuse it."""

from __future__ import annotations

import random
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from casstore.codec import long
from casstore.codec.long import Compressor, Decompressor
from casstore.digest import Digest
from casstore.errors import BadInput, Damaged, LimitExceeded
from casstore.flow.source import BytesSource
from casstore.format import bundle
from casstore.format.bundle import BundleReader, BundleWriter, Carried, Head, Header, Kind, Part
from casstore.format.encoding import checksum, zstd
from casstore.model import Cutter

HEADER = Header("sha256", Cutter())


def written(*parts: tuple[Part, bytes]) -> bytes:
    out = bytearray()
    writer = BundleWriter(out.extend, HEADER)
    for part, content in parts:
        writer.add(part, content)
    writer.end()
    return bytes(out)


def opened(data: bytes) -> BundleReader:
    return BundleReader(BytesSource(data), "b")


@pytest.mark.parametrize("size", [0, 1, bundle.MAX_BLOCK - 1, bundle.MAX_BLOCK, bundle.MAX_BLOCK + 1, 3 << 20])
def test_parts_come_back_however_they_are_read(size: int) -> None:
    content = random.Random(size).randbytes(size)
    data = written((Part.RECORDS, b"records"), (Part.CHUNKS, content))
    assert bytes(opened(data).whole(Part.CHUNKS, size)) == content
    reader = opened(data)
    assert bytes(reader.read(Part.RECORDS, 3)) == b"rec"
    got = b""
    while piece := reader.some(Part.CHUNKS, 100_000):
        got += bytes(piece)
    assert got == content
    assert reader.end() == Digest.of(data)


def test_how_a_part_is_filled_does_not_show() -> None:
    whole = written((Part.CHUNKS, bytes(range(256)) * 9000))
    assert written(*[(Part.CHUNKS, bytes(range(256)))] * 9000) == whole


def test_parts_have_an_order() -> None:
    with pytest.raises(ValueError, match="order"):
        written((Part.CHUNKS, b"x"), (Part.RECORDS, b"x"))
    data = written((Part.HEAD, b"one"), (Part.CHUNKS, b"two"))
    first, second = data[64 : 64 + 27], data[64 + 27 : 64 + 54]
    with pytest.raises(Damaged, match="not a block"):
        opened(data[:64] + second + first + data[64 + 54 :]).end()


def test_less_and_more_than_is_asked_for() -> None:
    data = written((Part.RECORDS, b"records"))
    with pytest.raises(Damaged, match="less than it claims"):
        opened(data).read(Part.RECORDS, 8)
    with pytest.raises(Damaged, match="larger than it may be"):
        opened(data).whole(Part.RECORDS, 6)
    reader = opened(data)
    reader.read(Part.RECORDS, 6)
    with pytest.raises(Damaged, match="more than it says"):
        reader.done(Part.RECORDS)


def test_a_block_that_was_taken_out_is_missed_at_the_end() -> None:
    data = written((Part.RECORDS, b"records"), (Part.CHUNKS, b"chunks"))
    without = data[:64] + data[64 + 24 + 7 :]
    with pytest.raises(Damaged, match="not what was written"):
        opened(without).end()


@pytest.mark.parametrize("at", range(64))
def test_any_byte_of_the_header(at: int) -> None:
    data = bytearray(written((Part.HEAD, b"x")))
    data[at] ^= 4
    with pytest.raises((BadInput, Damaged), match=r"not a bundle|fails its checksum"):
        opened(bytes(data))


def test_another_version() -> None:
    head = bytearray(written((Part.HEAD, b"x"))[:48])
    head[8] = 2
    with pytest.raises(Damaged, match="unknown format version 2"):
        opened(bytes(head) + checksum(head))


@pytest.mark.parametrize("length", [0, 64 - 1, 64, 64 + 23, 64 + 24, 64 + 25])
def test_an_end_that_comes_early(length: int) -> None:
    data = written((Part.HEAD, b"xyz"))[:length]
    with pytest.raises(BadInput, match=r"not a bundle|unexpected end"):
        opened(data).end()


# -- heads


def blob(seed: int, kind: Kind = Kind.RECIPE, size: int = 5, length: int = 5) -> Carried:
    return Carried(kind, Digest.of(b"%d" % seed), size, length)


def test_a_head_comes_back() -> None:
    head = Head(blobs=(blob(1), blob(2, Kind.BYTES), blob(3, Kind.WHOLE, 7, 0)), roots=(Digest.of(b"x", "sha512"),))
    assert bundle.decode_head(bundle.encode_head(head)) == head


@pytest.mark.parametrize(
    "blobs",
    [
        (blob(1), blob(1)),
        (blob(1, Kind.BYTES, 5, 4),),
        (blob(1, Kind.BYTES, bundle.MAX_DOCUMENT + 1, bundle.MAX_DOCUMENT + 1),),
        (blob(1, Kind.WHOLE, 5, 5),),
        (blob(1, Kind.RECIPE, 5, 0),),
        (blob(1)._replace(media_type="x" * 256),),
        (blob(1)._replace(size=1 << 62),),
    ],
)
def test_heads_that_no_bundle_has(blobs: tuple[Carried, ...]) -> None:
    with pytest.raises(LimitExceeded):
        bundle.encode_head(Head(blobs=blobs))


def test_a_head_that_becomes_too_large() -> None:
    bomb = zstd.compress(bytes(1 << 30), 19)
    tracemalloc.start()
    with pytest.raises(Damaged, match="another length"):
        bundle.decode_head(bomb)
    assert tracemalloc.get_traced_memory()[1] < 4 * bundle.MAX_HEAD
    tracemalloc.stop()
    many = Head(blobs=tuple(replace_media(n) for n in range(60_000)))
    with pytest.raises(LimitExceeded, match="too many blobs"):
        bundle.encode_head(many)


def replace_media(number: int) -> Carried:
    return blob(number)._replace(media_type="x" * 255)


def test_names_of_any_kind_are_kept_as_they_are() -> None:
    name = bundle.Name("docker.io/library/é", "1", Digest.of(b"x"))
    head = replace(Head(), names=(name,))
    assert bundle.decode_head(bundle.encode_head(head)).names == (name,)


# -- sources


def test_sources() -> None:
    sources = np.array([0, 2, 2, 1, 0], np.uint32)
    data = bundle.encode_sources(sources)
    np.testing.assert_array_equal(bundle.decode_sources(data, 5, 2), sources)
    for count, bases in ((5, 1), (4, 2), (6, 2)):
        with pytest.raises(Damaged):
            bundle.decode_sources(data, count, bases)
    with pytest.raises(Damaged):
        bundle.decode_sources(data + b"\0", 5, 2)


# -- the long stream


@pytest.mark.parametrize("size", [1, 1000, 3 << 20])
def test_a_long_stream_comes_back(size: int) -> None:
    content = (random.Random(size).randbytes(min(size, 50_000)) * (size // 50_000 + 1))[:size]
    stream = Compressor(size, 2)
    stored = stream.add(content[: size // 2]) + stream.add(content[size // 2 :]) + stream.end()
    out = bytearray(size)
    reader = decompressor(stored)
    reader.read_into(memoryview(out)[: size // 3])
    reader.read_into(memoryview(out)[size // 3 :])
    reader.end()
    assert out == content


def test_a_long_stream_is_the_same_with_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long, "_JOB", 1 << 20)
    content = b"".join(random.Random(n % 5).randbytes(100_000 + n) for n in range(60))
    made = []
    for workers in (0, 1, 2, 5):
        stream = Compressor(len(content), workers, 3)
        made.append(stream.add(content) + stream.end())
    assert len(set(made)) == 1 and len(made[0]) < len(content) // 4
    out = bytearray(len(content))
    decompressor(made[0]).read_into(memoryview(out))
    assert out == content


def decompressor(stored: bytes) -> Decompressor:
    source = memoryview(stored)

    def some(most: int) -> bytes:
        nonlocal source
        piece, source = source[: min(most, 1000)], source[min(most, 1000) :]
        return bytes(piece)

    return Decompressor(some, "b")


def test_long_streams_that_are_none() -> None:
    stored = zstd.compress(b"content" * 1000)
    with pytest.raises(Damaged, match="ends early"):
        decompressor(stored).read_into(memoryview(bytearray(7001)))
    with pytest.raises(Damaged, match="ends early"):
        decompressor(stored[:-1]).read_into(memoryview(bytearray(7001)))
    short = decompressor(stored)
    short.read_into(memoryview(bytearray(6999)))
    with pytest.raises(Damaged, match="longer"):
        short.end()
    for more in (b"\0", stored):
        behind = decompressor(stored + more)
        behind.read_into(memoryview(bytearray(7000)))
        with pytest.raises(Damaged, match="longer"):
            behind.end()
    with pytest.raises(Damaged, match="undecodable"):
        decompressor(b"x" * 100).read_into(memoryview(bytearray(1)))


def test_a_window_larger_than_any_that_is_written() -> None:
    parameter = zstd.CompressionParameter
    stored = zstd.compress(bytes(1000), options={parameter.window_log: 28, parameter.content_size_flag: 0})
    stream = zstd.ZstdCompressor(options={parameter.window_log: 28})
    stored = stream.compress(bytes(1000)) + stream.flush()
    with pytest.raises(Damaged, match="undecodable"):
        decompressor(stored).read_into(memoryview(bytearray(1000)))
