"""codec/gzip: taken apart and made again, whole and in ranges; what cannot be stays as it is."""

from __future__ import annotations

import gzip
import io
import random
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casstore.codec.gzip import Analysis, candidates
from casstore.codec.replay import FAILURES, replay
from casstore.format import trace as trace_format
from casstore.kernels import deflate
from casstore.model import Choice, Segment, Trace

pytestmark = pytest.mark.skipif(deflate.IMPLEMENTATION != "compiled", reason="the compiled kernel is not built")
some = settings(max_examples=40, deadline=None)


def analysed(blob: bytes) -> tuple[bytes, Trace | None, str]:
    analysis = Analysis(io.BytesIO(blob))
    content = b"".join(bytes(piece) for piece in analysis)
    return content, analysis.trace, analysis.reason


def made_again(trace: Trace, content: bytes, start: int = 0, stop: int | None = None) -> bytes:
    kept = trace_format.decode(trace_format.encode(trace))
    assert kept == trace
    view = memoryview(content)
    return b"".join(bytes(one) for one in replay(kept, lambda a, b: view[a:b], start, stop))


def comes_back(blob: bytes, content: bytes) -> Trace:
    found, trace, reason = analysed(blob)
    assert trace is not None, reason
    assert found == content
    assert made_again(trace, content) == blob
    return trace


def words(seed: int, size: int) -> bytes:
    """Text-like: matches of all lengths and distances."""
    chance = random.Random(seed)
    known = [chance.randbytes(chance.randint(1, 40)) for _ in range(200)]
    out = bytearray()
    while len(out) < size:
        out += chance.choice(known) if chance.random() < 0.9 else chance.randbytes(chance.randint(1, 300))
    return bytes(out[:size])


def raw(content: bytes, level: int, **more: int) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, -15, **more)
    return packer.compress(content) + packer.flush()


def member(content: bytes, stream: bytes, header: bytes = b"\x1f\x8b\x08\0\0\0\0\0\0\x03") -> bytes:
    tail = zlib.crc32(content).to_bytes(4, "little") + (len(content) & 0xFFFFFFFF).to_bytes(4, "little")
    return header + stream + tail


@pytest.mark.parametrize("level", range(10))
@pytest.mark.parametrize("size", [0, 1, 1000, 32768, 70_000, 3_000_000])
def test_whatever_zlib_is_here(level: int, size: int) -> None:
    content = words(level + size, size)
    comes_back(gzip.compress(content, level), content)


@given(
    st.integers(0, 1000),
    st.integers(0, 60_000),
    st.integers(0, 9),
    st.sampled_from([zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_FIXED]),
    st.integers(1, 9),
)
@some
def test_encoders_that_no_engine_is(seed: int, size: int, level: int, strategy: int, memory: int) -> None:
    """Corrections make up for it, or the blob stays as it is."""
    content = words(seed, size)
    blob = member(content, raw(content, level, memLevel=memory, strategy=strategy))
    found, trace, _ = analysed(blob)
    if trace is not None:
        assert found == content and made_again(trace, content) == blob


@given(st.integers(0, 100), st.data())
@some
def test_ranges(seed: int, data: st.DataObject) -> None:
    content = words(seed, 200_000)
    blob = (
        gzip.compress(content, data.draw(st.sampled_from([1, 6, 9])), mtime=0) * data.draw(st.integers(1, 3))
        + b"\0junk"
    )
    found, trace, reason = analysed(blob)
    assert trace is not None, reason
    for _ in range(5):
        start = data.draw(st.integers(0, len(blob)))
        stop = data.draw(st.integers(start, len(blob) + 10))
        assert made_again(trace, found, start, stop) == blob[start:stop]


def test_ranges_over_many_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("casstore.codec.gzip.TARGET", 20_000)
    content = words(1, 900_000)
    for level in (1, 6):
        blob = gzip.compress(content, level)
        trace = comes_back(blob, content)
        assert len(trace.members[0].segments) > 4
        chance = random.Random(level)
        for _ in range(40):
            start = chance.randrange(len(blob))
            stop = start + chance.choice([1, 2, 100, 50_000])
            assert made_again(trace, content, start, stop) == blob[start:stop]


@pytest.mark.parametrize(
    "header",
    [
        b"\x1f\x8b\x08\x08\1\2\3\4\2\x03layer.tar\0",
        b"\x1f\x8b\x08\x1c\0\0\0\0\0\xff\x05\0extraname\0comment\0",
        b"\x1f\x8b\x08\x02\0\0\0\0\0\x03\xab\xcd",
        b"\x1f\x8b\x08\0\x00\x09\x6e\x88\0\xff",
    ],
)
def test_headers_are_kept(header: bytes) -> None:
    content = words(5, 40_000)
    trace = comes_back(member(content, raw(content, 6), header), content)
    assert trace.members[0].header == header


def test_members_and_what_follows_them() -> None:
    one, two = words(1, 30_000), words(2, 50_000)
    blob = gzip.compress(one, 6) + gzip.compress(b"") + gzip.compress(two, 9) + bytes(512)
    trace = comes_back(blob, one + two)
    assert len(trace.members) == 3 and trace.tail == bytes(512)


def test_trailers_that_lie_are_kept() -> None:
    content = words(3, 10_000)
    blob = bytearray(gzip.compress(content))
    blob[-6] ^= 1
    trace = comes_back(bytes(blob), content)
    assert trace.members[0].trailer == bytes(blob[-8:])


def test_padding_is_kept() -> None:
    """The bits between a stream and its byte's end are anybody's."""
    content = b"abc"
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    stream = bytearray(packer.compress(content) + packer.flush())
    stream[-1] |= 0x80
    assert zlib.decompress(bytes(stream), -15) == content
    comes_back(member(content, bytes(stream)), content)


def test_flushes() -> None:
    """Empty blocks between others: stored ones of a sync, and those of a full flush."""
    content = words(4, 90_000)
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    stream = b""
    for at, flush in zip(range(0, 90_000, 30_000), (zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_FINISH), strict=True):
        stream += packer.compress(content[at : at + 30_000]) + packer.flush(flush)
    comes_back(member(content, stream), content)


@given(st.binary(max_size=300))
@some
def test_anything_ends_without_a_trace_or_comes_back(blob: bytes) -> None:
    for data in (blob, b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + blob):
        content, trace, reason = analysed(data)
        assert (trace is None) == bool(reason)
        if trace is not None:
            assert made_again(trace, content) == data


@given(st.integers(0, 50), st.data())
@some
def test_blobs_cut_short_or_flipped(seed: int, data: st.DataObject) -> None:
    blob = bytearray(gzip.compress(words(seed, 20_000), 6))
    if data.draw(st.booleans()):
        del blob[data.draw(st.integers(0, len(blob) - 1)) :]
    else:
        blob[data.draw(st.integers(0, len(blob) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    content, trace, _ = analysed(bytes(blob))
    if trace is not None:
        assert made_again(trace, content) == bytes(blob)


def mutated(data: st.DataObject, trace: Trace) -> Iterator[Trace]:
    member = trace.members[0]
    segment = member.segments[0]
    number = st.integers(0, 1 << 40)
    exceptions = bytearray(segment.exceptions)
    for _ in range(data.draw(st.integers(0, 3))):
        if exceptions:
            exceptions[data.draw(st.integers(0, len(exceptions) - 1))] = data.draw(st.integers(0, 255))
    wrong = Segment(
        data.draw(st.one_of(st.just(segment.content), st.integers(0, segment.content))),
        data.draw(st.one_of(st.just(segment.bits), st.integers(0, 1 << 22))),
        data.draw(st.one_of(st.just(segment.blocks), number)),
        data.draw(st.one_of(st.just(segment.tokens), st.integers(0, 1 << 20))),
        0,
        tuple(data.draw(st.one_of(st.just(0), st.integers(0, (1 << 32) - 1))) for _ in range(4)),
        data.draw(st.one_of(st.just(bytes(exceptions)), st.binary(max_size=60))),
        data.draw(st.booleans()),
        data.draw(st.one_of(st.just(segment.check), st.integers(0, (1 << 32) - 1))),
    )
    yield Trace(trace.engines, (member._replace(segments=(wrong, *member.segments[1:])),), trace.tail)
    choice = Choice(data.draw(st.sampled_from(["go", "zlib", "none"])), 1, data.draw(st.integers(-128, 127)))
    yield Trace((choice,), trace.members, trace.tail)


@given(st.integers(0, 20), st.integers(0, 9), st.data())
@settings(max_examples=100, deadline=None)
def test_foreign_traces_make_other_bytes_or_an_error(seed: int, level: int, data: st.DataObject) -> None:
    content = words(seed, 30_000)
    blob = member(content, raw(content, level, strategy=zlib.Z_FILTERED))
    _, trace, _ = analysed(blob)
    if trace is None:
        return
    for wrong in mutated(data, trace):
        view = memoryview(content)
        try:
            out = b"".join(bytes(one) for one in replay(wrong, lambda a, b, v=view: v[a:b]))  # type: ignore[misc]
        except FAILURES:
            continue
        assert len(out) <= len(blob) + (1 << 20)


def test_the_likeliest_engine_comes_first() -> None:
    def header(flags: int, mtime: bytes, extra: int, system: int) -> bytes:
        return bytes([0x1F, 0x8B, 8, flags]) + mtime + bytes([extra, system])

    there = deflate.engines()
    for given_, name, level in (
        (header(0, bytes(4), 0, 255), "go", 6),
        (header(0, bytes(4), 4, 255), "go", 1),
        (header(8, b"abcd", 2, 3), "gzip", 9),
        (header(0, bytes(4), 0, 3), "zlib", 6),
    ):
        if (name, 1) in there:
            assert candidates(given_)[0][::2] == (name, level)


def long_trace() -> tuple[bytes, bytes, Trace]:
    """Content of several stretches in two members, the blob, and its trace."""
    one, two = words(5, 5_000_000), words(6, 2_300_000)
    blob = gzip.compress(one, 6) + gzip.compress(two, 1)
    trace = comes_back(blob, one + two)
    assert [len(member.segments) for member in trace.members] == [3, 2]
    return one + two, blob, trace


def test_ranges_cost_what_they_touch() -> None:
    content, blob, trace = long_trace()
    view = memoryview(content)
    reads: list[int] = []

    def read(start: int, end: int) -> memoryview:
        reads.append(end - start)
        return view[start:end]

    borders = [0, len(trace.members[0].header)]
    bits = 8 * borders[-1]
    for segment in trace.members[0].segments:
        bits += segment.bits
        borders.append(bits >> 3)
    borders += [borders[-1] + 9, len(blob) - 8, len(blob)]
    for border in borders:
        for start, stop in ((border - 3, border + 4), (border - 1, border), (border, border + 1)):
            reads.clear()
            low, high = max(start, 0), min(stop, len(blob))
            assert b"".join(bytes(one) for one in replay(trace, read, low, high)) == blob[low:high]
            assert len(reads) <= 2
    reads.clear()
    assert b"".join(bytes(one) for one in replay(trace, read, len(blob) - 8)) == blob[-8:]
    assert not reads, "a trailer is told by the trace"


def test_a_stretch_of_other_bytes_is_not_given_out() -> None:
    """What an engine made wrong is found before it leaves, in ranges too."""
    content, blob, trace = long_trace()
    first = trace.members[0]
    wrong = first.segments[1]._replace(check=first.segments[1].check ^ 1)
    bad = trace._replace(
        members=(first._replace(segments=(first.segments[0], wrong, first.segments[2])), trace.members[1])
    )
    view = memoryview(content)
    border = len(first.header) + (first.segments[0].bits >> 3)
    got = bytearray()
    with pytest.raises(deflate.BadTrace):
        for piece in replay(bad, lambda a, b: view[a:b]):
            got += piece
    assert got == blob[: len(got)] and len(got) == border
    with pytest.raises(deflate.BadTrace):
        list(replay(bad, lambda a, b: view[a:b], border + 1000, border + 1001))
    assert b"".join(bytes(one) for one in replay(bad, lambda a, b: view[a:b], 0, border)) == blob[:border]


def test_whoever_stops_early_waits_for_nothing_more() -> None:
    content, blob, trace = long_trace()
    view = memoryview(content)
    reads: list[int] = []

    def read(start: int, end: int) -> memoryview:
        reads.append(start)
        return view[start:end]

    pieces = replay(trace, read, threads=1)
    assert bytes(next(pieces)) == blob[:10]
    pieces.close()  # type: ignore[attr-defined]
    assert len(reads) <= 1
