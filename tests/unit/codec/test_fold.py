"""codec/fold: gzip made by an engine of ours, with the trace that makes it again."""

from __future__ import annotations

import gzip
import io
import random
from collections.abc import Iterator

import pytest
import sample

from casstore.codec.compression import LIMIT, open_stream
from casstore.codec.fold import DOCKER, Fold, gzip_of, is_folded, zstd_of
from casstore.codec.gzip import TARGET, Analysis
from casstore.codec.replay import replay
from casstore.format import trace as trace_format
from casstore.kernels import deflate
from casstore.model import Trace

pytestmark = pytest.mark.skipif(deflate.IMPLEMENTATION != "compiled", reason="the compiled kernel is not built")

CONTENTS = {
    "nothing": b"",
    "a byte": b"x",
    "some": sample.text("some", 50_000),
    "what does not compress": sample.noise("much", 3 << 20),
    "one byte over and over": bytes(12 << 20),
    "just a segment": sample.text("one", TARGET),
    "all kinds": sample.text("a", 4 << 20) + sample.noise("b", 1 << 20) + bytes(5 << 20) + sample.text("c", 2 << 20),
}


def pieces(content: bytes, sizes: Iterator[int]) -> Iterator[bytes]:
    at = 0
    while at < len(content):
        size = next(sizes)
        yield content[at : at + size]
        at += size


def folded(content: bytes, size: int = 1 << 20) -> tuple[bytes, Trace]:
    fold, made = Fold(), bytearray()
    for piece in pieces(content, iter(lambda: size, 0)):
        made += b"".join(fold.add(piece))
    made += b"".join(fold.end())
    assert fold.trace is not None
    return bytes(made), fold.trace


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_what_is_made_holds_the_content_and_comes_back_from_its_trace(content: bytes) -> None:
    blob, trace = folded(content)
    assert gzip.decompress(blob) == content
    kept = trace_format.decode(trace_format.encode(trace))
    assert kept == trace
    assert is_folded(kept)
    assert not any(one.exceptions for one in trace.members[0].segments)
    view = memoryview(content)
    assert b"".join(bytes(one) for one in replay(kept, lambda a, b: view[a:b])) == blob
    middle = len(blob) // 2
    assert b"".join(bytes(one) for one in replay(kept, lambda a, b: view[a:b], middle)) == blob[middle:]


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_whoever_takes_it_apart_finds_the_engine_and_nothing_to_correct(content: bytes) -> None:
    blob, _ = folded(content)
    analysis = Analysis(io.BytesIO(blob))
    assert b"".join(bytes(one) for one in analysis) == content
    assert analysis.trace is not None, analysis.reason
    assert is_folded(analysis.trace) or not content
    assert content == b"" or analysis.trace.engines == (DOCKER,)


def test_how_content_comes_makes_no_difference() -> None:
    content = CONTENTS["all kinds"]
    blob, trace = folded(content)
    chance = random.Random(7)
    for size in (777, 1 << 16, len(content)):
        sizes = iter(lambda most=size: chance.randint(1, most), 0)  # type: ignore[misc]
        assert b"".join(gzip_of(pieces(content, sizes))) == blob
    assert folded(content, len(content)) == (blob, trace)


def test_what_another_made_is_told_apart() -> None:
    _, trace = folded(CONTENTS["some"])
    member = trace.members[0]
    assert is_folded(trace)
    assert not is_folded(trace._replace(tail=b"\0"))
    assert not is_folded(trace._replace(members=(member, member)))
    assert not is_folded(trace._replace(engines=(DOCKER._replace(level=9),)))
    assert not is_folded(trace._replace(members=(member._replace(padding=1),)))
    assert not is_folded(trace._replace(members=(member._replace(header=b"\x1f\x8b\x08\0\1\0\0\0\0\xff"),)))
    corrected = member.segments[0]._replace(exceptions=b"\0\0\1")
    assert not is_folded(trace._replace(members=(member._replace(segments=(corrected,)),)))


def test_zstd_holds_the_content_and_is_the_same_again() -> None:
    content = CONTENTS["all kinds"]
    made = b"".join(zstd_of(pieces(content, iter(lambda: 1 << 20, 0))))
    assert len(made) < len(content)
    assert open_stream(io.BytesIO(made), LIMIT, "made").read(len(content) + 1) == content
    assert b"".join(zstd_of(pieces(content, iter(lambda: 12345, 0)))) == made
