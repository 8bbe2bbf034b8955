"""spans: both twins against slices and each other."""

from __future__ import annotations

import mmap
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casstore.kernels import _spans_py as twin
from casstore.kernels import spans

DATA = random.Random(2).randbytes(4096)


@pytest.fixture(params=["_spans_py", "_spans_c"])
def kernel(request: pytest.FixtureRequest) -> Any:
    return pytest.importorskip(f"casstore.kernels.{request.param}")


def test_chooser() -> None:
    pytest.importorskip("casstore.kernels._spans_c")
    assert spans.IMPLEMENTATION == "compiled"


def test_copies_from_many_sources(kernel: Any) -> None:
    target = bytearray(b"." * 12)
    sources = [b"abcdef", memoryview(b"123456"), np.array([0x4142], ">u2")]
    kernel.copy(target, [0, 3, 6, 10], sources, [1, 0, 2, 0], [2, 0, 0, 6], np.array([3, 2, 2, 0], np.uint32))
    assert bytes(target) == b"345ab.AB...."


def test_later_pieces_overwrite_earlier_ones(kernel: Any) -> None:
    target = bytearray(4)
    kernel.copy(target, [0, 1], [b"aaaa", b"bb"], [0, 1], [0, 0], [4, 2])
    assert bytes(target) == b"abba"


def test_a_source_may_be_the_target(kernel: Any) -> None:
    target = bytearray(b"abcdefgh")
    kernel.copy(target, [2], [target], [0], [0], [6])
    assert bytes(target) == b"ababcdef"
    target.append(0)  # and is let go again


@settings(deadline=None)
@given(st.data())
def test_twins_agree(data: st.DataObject) -> None:
    kernel = pytest.importorskip("casstore.kernels._spans_c")
    sources = data.draw(st.lists(st.binary(max_size=50), min_size=1, max_size=4))
    size = data.draw(st.integers(0, 100))
    columns: list[list[int]] = [[], [], [], []]
    for _ in range(data.draw(st.integers(0, 12))):
        which = data.draw(st.integers(0, len(sources) - 1))
        length = data.draw(st.integers(0, min(len(sources[which]), size)))
        row = (
            data.draw(st.integers(0, size - length)),
            which,
            data.draw(st.integers(0, len(sources[which]) - length)),
            length,
        )
        for column, value in zip(columns, row, strict=True):
            column.append(value)
    to, which_, at, lengths = columns
    ours, theirs = bytearray(size), bytearray(size)
    kernel.copy(ours, to, sources, which_, at, lengths)
    twin.copy(theirs, to, sources, which_, at, lengths)
    assert ours == theirs

    assert kernel.equal(ours, to, theirs, to, lengths) == -1
    if size:
        theirs[data.draw(st.integers(0, size - 1))] ^= 1
    assert kernel.equal(ours, to, theirs, to, lengths) == twin.equal(ours, to, theirs, to, lengths)


def test_equal_tells_the_first_that_differs(kernel: Any) -> None:
    assert kernel.equal(b"abcabc", [0, 3, 0], b"xabcab", [1, 1, 1], [3, 3, 5]) == -1
    assert kernel.equal(b"abcabc", [0, 1, 2], b"abcabd", [3, 0, 5], [2, 0, 1]) == 2
    assert kernel.equal(b"abcabc", [0, 0], b"abcabd", [0, 1], [6, 1]) == 0
    assert kernel.equal(b"", [], b"", [], []) == -1
    assert kernel.equal(b"", [0], b"", [0], [0]) == -1


WRONG = [(0, 11), (10, 1), (11, 0), (2**64 - 1, 1), (1, 2**64 - 1), (2**64 - 1, 2**64 - 1)]


@pytest.mark.parametrize(("start", "length"), WRONG)
def test_pieces_outside_are_refused_before_anything_happens(kernel: Any, start: int, length: int) -> None:
    target, data = bytearray(10), b"0123456789"
    for to, at in (([0, start], [0, 0]), ([0, 0], [0, start])):
        with pytest.raises(ValueError):
            kernel.copy(target, to, [data], [0, 0], at, [5, length])
        with pytest.raises(ValueError):
            kernel.equal(target, to, data, at, [5, length])
    assert target == bytearray(10)
    target.append(0)


@pytest.mark.parametrize(
    "arguments",
    [
        ([0], [b"x"], [1], [0], [1]),  # no such source
        ([0], [], [0], [0], [0]),
        ([0], [b"x"], [-1], [0], [1]),
        ([0], [b"x"], [2**32], [0], [1]),
        ([0, 0], [b"x"], [0], [0], [1]),  # columns of several lengths
        ([0], [b"x"], [0, 0], [0], [1]),
        ([0], [b"x"], [0], [0, 0], [1]),
        ([0], [b"x"], [0], [0], [1, 1]),
        ([0.5], [b"x"], [0], [0], [1]),
    ],
)
def test_nonsense_is_refused(kernel: Any, arguments: Any) -> None:
    target = bytearray(4)
    with pytest.raises(ValueError):
        kernel.copy(target, *arguments)
    assert target == bytearray(4)
    target.append(0)


def test_read_only_target(kernel: Any) -> None:
    with pytest.raises(BufferError):
        kernel.copy(b"abc", [0], [b"x"], [0], [0], [1])


def test_buffers_are_let_go_when_one_of_them_is_none(kernel: Any) -> None:
    good = bytearray(10)
    with pytest.raises(TypeError):
        kernel.copy(bytearray(10), [0], [good, "text"], [0], [0], [1])
    with pytest.raises(BufferError):
        kernel.copy(bytearray(10), [0], [good, memoryview(b"abcd")[::2]], [0], [0], [1])
    with pytest.raises(TypeError):
        kernel.equal(good, [0], "text", [0], [1])
    good.append(0)


def test_mapped_memory(kernel: Any) -> None:
    source = mmap.mmap(-1, 4096)
    source[:] = DATA
    target = np.zeros(2048, np.uint16)
    kernel.copy(target, [96], [source], [0], [0], [4000])
    assert target.tobytes() == bytes(96) + DATA[:4000]
    assert kernel.equal(target, [96], source, [0], [4000]) == -1
    source.close()
