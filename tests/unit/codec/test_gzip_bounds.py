"""What a gzip file, or a trace, may cost: each claim has an end, and what lies beyond is refused or kept as it is."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import pytest

from casstore.codec import gzip
from casstore.codec.gzip import Analysis
from casstore.codec.replay import replay
from casstore.errors import Damaged
from casstore.format import trace as trace_format
from casstore.kernels import deflate
from casstore.model import Choice, Member, Segment, Trace

pytestmark = pytest.mark.skipif(deflate.IMPLEMENTATION != "compiled", reason="the compiled kernel is not built")

HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\x03"
PGZIP = b"\x1f\x8b\x08\0\0\x09\x6e\x88\0\xff"


def member(stream: bytes, content: bytes, header: bytes = HEADER) -> bytes:
    return header + stream + struct.pack("<II", zlib.crc32(content), len(content))


def stored(content: bytes, each: int) -> bytes:
    """A stream of stored blocks of so many bytes, and an empty one that ends it."""
    blocks = [content[at : at + each] for at in range(0, len(content), each)]
    return b"".join(b"\0" + struct.pack("<HH", len(one), len(one) ^ 0xFFFF) + one for one in blocks) + b"\3\0"


def analysed(blob: bytes) -> tuple[bytes, Trace | None, str]:
    analysis = Analysis(io.BytesIO(blob))
    content = b"".join(bytes(piece) for piece in analysis)
    return content, analysis.trace, analysis.reason


def comes_back(blob: bytes) -> Trace:
    content, trace, reason = analysed(blob)
    assert trace is not None, reason
    kept = trace_format.decode(trace_format.encode(trace))
    view = memoryview(content)
    assert b"".join(bytes(one) for one in replay(kept, lambda a, b: view[a:b])) == blob
    return trace


def noise(size: int) -> bytes:
    return b"".join(zlib.crc32(struct.pack("<I", at)).to_bytes(4, "little") for at in range(size // 4))


def test_blocks_of_nothing_fill_no_memory() -> None:
    """Four blocks of ten bits each in five bytes."""
    nothing = sum(2 << 10 * at for at in range(4)).to_bytes(5, "little")
    _, trace, reason = analysed(member(nothing * 10_000 + b"\3\0", b""))
    assert trace is None and "small ones" in reason


def test_small_stored_blocks_are_not_worth_it() -> None:
    _, trace, reason = analysed(member(stored(noise(400_000), 100), noise(400_000)))
    assert trace is None and reason == "no engine follows its encoder"


def test_flushes_cost_no_beginning() -> None:
    """Many more of them than an engine may begin anew."""
    content = b"".join(b"a line of a log, number %d\n" % at for at in range(2000))
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    pieces = [content[at : at + 200] for at in range(0, len(content), 200)]
    assert len(pieces) > 200
    stream = b"".join(packer.compress(one) + packer.flush(zlib.Z_SYNC_FLUSH) for one in pieces) + packer.flush()
    comes_back(member(stream, content))


@pytest.mark.parametrize("each", [1000, 32768, 65535])
def test_stored_blocks_at_the_end_of_a_stretch(each: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine with a large view is asked about no more than there is."""
    monkeypatch.setattr(gzip, "TARGET", 70_000)
    content = noise(200_000)
    comes_back(member(stored(content, each), content, PGZIP))


def test_members_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gzip, "_MEMBERS", 3)
    one = member(b"\3\0", b"")
    assert analysed(one * 3)[1] is not None
    _, trace, reason = analysed(one * 4)
    assert trace is None and reason == "more members than are taken apart"


def test_many_members_are_not_searched_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every one needs a correction, whatever made it; so the best engine would be looked for each time."""
    monkeypatch.setattr(gzip, "_SEARCHES", 2)
    opened = 0

    def counted(*choice: Any) -> deflate.Engine:
        nonlocal opened
        opened += 1
        return real(*choice)

    real = deflate.Engine
    monkeypatch.setattr(deflate, "Engine", counted)
    one = member(stored(b"hello", 3), b"hello")
    assert analysed(one * 50)[1] is not None
    assert opened < 2 * len(gzip.candidates(HEADER)) * 2 + 50


def a_trace(**claims: Any) -> Trace:
    segment = Segment(1000, 900, 1, 100, 0, (0, 0, 0, 0), b"", False, 0)._replace(**claims)
    return Trace((Choice("go", 1, 6),), (Member(HEADER, (segment,), 0, bytes(8)),), b"")


@pytest.mark.parametrize(
    "claims",
    [
        {"content": (16 << 20) + 1},
        {"content": 1 << 62},
        {"blocks": (1 << 15) + 1},
        {"tokens": 1001},
        {"bits": 16 * 1000 + 5120 + 1},
        {"bits": 1 << 63},
        {"content": 0, "tokens": 0, "bits": 5121},
    ],
)
def test_segments_that_claim_too_much(claims: dict[str, int]) -> None:
    assert trace_format.decode(trace_format.encode(a_trace()))
    with pytest.raises(Damaged):
        trace_format.decode(trace_format.encode(a_trace(**claims)))


def test_segments_that_hold_nothing_are_few() -> None:
    segment = a_trace(content=1 << 14, tokens=1).members[0].segments[0]
    nothing = segment._replace(content=0, tokens=0)
    for more, fine in ((3, True), (4, False)):
        one = a_trace().members[0]._replace(segments=(segment, *[nothing] * (more - 1)))
        record = trace_format.encode(a_trace()._replace(members=(one,)))
        if fine:
            trace_format.decode(record)
        else:
            with pytest.raises(Damaged):
                trace_format.decode(record)


def test_tokens_that_there_is_no_content_for_take_no_memory() -> None:
    engine = deflate.Engine("go", 1, 6)
    engine.seek(b"abc", 0, True, 0)
    with pytest.raises(deflate.BadTrace):
        engine.apply(b"abc", 0, True, 1, b"", bytearray(100), 0, 1 << 40)


@pytest.mark.parametrize("moves", [64, 65])
def test_an_engine_begins_anew_only_so_often(moves: int) -> None:
    """Stored blocks of one byte: each has an engine begin after it."""
    exceptions = b"\0\0\3\1\0" + b"\1\0\3\1\0" * (moves - 1)
    engine = deflate.Engine("zlib", 1, 6)
    content = noise(100)
    engine.seek(content, 0, True, 0)
    out = bytearray(6 * moves)
    if moves > 64:
        with pytest.raises(deflate.Lost):
            engine.apply(content, 0, True, moves, exceptions, out, 0, 0)
    else:
        assert engine.apply(content, 0, True, moves, exceptions, out, 0, 0) == 48 * moves
        assert out[5::6] == content[:moves]
