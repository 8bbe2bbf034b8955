"""cut: where chunks end; all kernels against the pure twin, and the cut points that are fixed for ever."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casstore.kernels import _cut_py as twin
from casstore.kernels import cut as chosen
from casstore.model import Cutter

compiled = pytest.importorskip("casstore.kernels._cut_c", reason="the compiled kernel is not built")
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "gear32n.json").read_text())
SMALL = (64, 256, 1024)
USUAL = (4096, 16384, 65536)


def by(kernel: str) -> Any:
    """`cut` of the twin ("python") or of one compiled kernel."""
    if kernel == "python":
        return twin.cut
    return lambda *args: compiled.cut_with(kernel, *args)


KERNELS = ["python", *compiled.KERNELS]
kernels = pytest.mark.parametrize("cut", [pytest.param(by(name), id=name) for name in KERNELS])


def lengths(cut: Any, data: bytes, limits: tuple[int, int, int] = SMALL) -> list[int]:
    starts, sizes, tail = cut(data, [0], [len(data)], [0], True, *limits)
    assert starts.dtype == np.uint64 and sizes.dtype == np.uint32 and tail == 0
    assert starts.tolist() == (np.cumsum(sizes, dtype=np.uint64) - sizes).tolist()
    assert b"".join(data[a : a + n] for a, n in zip(starts.tolist(), sizes.tolist(), strict=True)) == data
    return sizes.tolist()


def stream(label: str, size: int) -> bytes:
    """The golden input: SHA-256 of "label counter", one after another."""
    return b"".join(hashlib.sha256(b"%s %d" % (label.encode(), i)).digest() for i in range(size // 32 + 1))[
        :size
    ]


# ---- what is fixed for ever ----


@pytest.mark.parametrize("golden", GOLDEN["cases"], ids=lambda g: f"{g['label']}-{g['average']}")
@kernels
def test_golden_cut_points(cut: Any, golden: dict[str, Any]) -> None:
    data = stream(golden["label"], golden["size"])
    if golden["repeat"] > 1:
        data = bytes(byte for byte in data for _ in range(golden["repeat"]))
    assert hashlib.sha256(data).hexdigest() == golden["sha256"]
    found = lengths(cut, data, (golden["minimum"], golden["average"], golden["maximum"]))
    assert found[: len(golden["lengths"])] == golden["lengths"]
    assert len(found) == golden["chunks"]
    assert hashlib.sha256(struct.pack(f"<{len(found)}I", *found)).hexdigest() == golden["lengths_sha256"]


def test_golden_gear() -> None:
    assert hashlib.sha256(struct.pack("<256I", *twin._GEAR)).hexdigest() == GOLDEN["gear_sha256"]
    assert len(set(twin._GEAR)) == 256


@kernels
def test_runs_of_one_byte_never_cut(cut: Any) -> None:
    for byte in range(256) if cut is not twin.cut else (0, 255):
        assert lengths(cut, bytes([byte]) * 5000, (256, 1024, 2048)) == [2048, 2048, 904]


def test_default_limits_are_ours() -> None:
    cutter = Cutter()
    assert (cutter.algorithm, cutter.minimum, cutter.average, cutter.maximum) == ("gear32n", *USUAL)


# ---- rules ----


@kernels
@pytest.mark.parametrize("limits", [SMALL, (64, 64, 64), (64, 64, 128), (100, 128, 1000), (500, 1024, 1024)])
def test_bounds(cut: Any, limits: tuple[int, int, int]) -> None:
    minimum, _, maximum = limits
    for size in (0, 1, minimum - 1, minimum, minimum + 1, maximum, maximum + 1, maximum + minimum, 20_000):
        found = lengths(cut, stream("bounds", size), limits)
        assert all(minimum <= n <= maximum for n in found[:-1]) and all(0 < n <= maximum for n in found)
        assert size > minimum or found == [size] * (size > 0)


def test_average() -> None:
    found = lengths(compiled.cut, stream("average", 8 << 20), USUAL)
    assert 16384 < np.mean(found) < 21000


@kernels
def test_definition(cut: Any) -> None:
    """By the letter of `_native/cut.h`, each hash from its 32 bytes."""
    data, at, expected = stream("definition", 6000), 0, []
    while at < len(data):
        rest = len(data) - at
        size = min(rest, 1024)
        for length in range(64, size) if rest > 64 else ():
            window = data[at + length - 32 : at + length]
            h = sum(twin._GEAR[byte] << (31 - i) for i, byte in enumerate(window)) % (1 << 32)
            if h < (1 << (32 - 8 - 2) if length < 256 else 1 << (32 - 8 + 2)):
                size = length
                break
        expected.append(size)
        at += size
    assert lengths(cut, data) == expected


@kernels
def test_same_content_is_cut_alike(cut: Any) -> None:
    """Wherever it begins, cuts soon agree: that is the point of it."""
    body = stream("shift", 40_000)
    plain, shifted = (np.cumsum(lengths(cut, lead + body)) - len(lead) for lead in (b"", b"inserted"))
    assert len(set(plain.tolist()) & set(shifted.tolist())) > 0.9 * len(plain)


@kernels
def test_segments(cut: Any) -> None:
    """Each is cut as if alone; whole ones are one chunk; empty ones none; order is kept."""
    data = stream("segments", 9000)
    starts, sizes, tail = cut(
        data, [5000, 10, 0, 700, 0], [4000, 3000, 0, 5000, 64], [0, 0, 0, 1, 0], True, *SMALL
    )
    first, second = lengths(cut, data[5000:]), lengths(cut, data[10:3010])
    assert sizes.tolist() == [*first, *second, 5000, 64] and tail == 0
    assert starts[0] == 5000 and starts[len(first)] == 10 and starts[-2:].tolist() == [700, 0]


@kernels
def test_unfinished(cut: Any) -> None:
    data = stream("tail", 3000)
    _, sizes, tail = cut(data, [0, 0], [2000, 3000], [0, 0], False, *SMALL)
    first, second = lengths(cut, data[:2000]), lengths(cut, data)
    assert sizes.tolist() == [*first, *second[: len(sizes) - len(first)]]
    assert tail == 3000 - sum(sizes.tolist()[len(first) :]) and 0 < tail < 1024
    assert cut(data, [0], [3000], [1], False, *SMALL)[1:] == (pytest.approx([]), 3000)
    assert cut(data, [0], [0], [0], False, *SMALL)[2] == 0
    assert cut(data, [], [], [], False, *SMALL)[2] == 0


@kernels
@pytest.mark.parametrize(
    "limits",
    [
        (63, 64, 128),
        (64, 100, 128),
        (256, 128, 512),
        (64, 256, 128),
        (64, 256, 1 << 29),
        (0, 0, 0),
        (-1, 64, 64),
    ],
)
def test_wrong_limits(cut: Any, limits: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError):
        cut(bytes(100), [0], [100], [0], True, *limits)


@kernels
@pytest.mark.parametrize(
    "segments",
    [
        ([0], [101], [0]),
        ([101], [0], [0]),
        ([100], [1], [1]),
        ([1 << 63], [1 << 63], [0]),
        ([(1 << 64) - 1], [2], [0]),
        ([-1], [1], [0]),
        ([0, 0], [1], [0]),
        ([0], [1], [0, 0]),
        ([[0]], [[1]], [[0]]),
    ],
)
def test_wrong_segments(cut: Any, segments: tuple[Any, Any, Any]) -> None:
    with pytest.raises(ValueError):
        cut(bytes(100), *segments, True, *SMALL)


@kernels
@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, lambda b: np.frombuffer(b, np.uint8)])
def test_buffers(cut: Any, make: Any) -> None:
    data = stream("buffers", 2000)
    assert cut(make(data), [0], [2000], np.array([False]), True, *SMALL)[1].tolist() == lengths(cut, data)


def test_kernels() -> None:
    assert chosen.IMPLEMENTATION == "compiled" and chosen.cut is compiled.cut
    assert compiled.KERNELS[-1] == "scalar"
    with pytest.raises(KeyError):
        compiled.cut_with("none", b"", [], [], [], True, *SMALL)


# ---- kernel against kernel ----


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """Noise, runs and periods: what has many candidates, and what has none."""
    parts = []
    for _ in range(draw(st.integers(1, 4))):
        size = draw(st.integers(0, 6000))
        seed = stream(str(draw(st.integers(0, 1 << 30))), draw(st.sampled_from([1, 3, 32, 33, 6000])))
        parts.append((seed * (size // len(seed) + 1))[:size])
    return b"".join(parts)


limits = st.sampled_from(
    [SMALL, (64, 64, 64), (64, 64, 256), (65, 512, 700), (1000, 1024, 4096), (256, 4096, 9000)]
)


@settings(deadline=None, max_examples=80)
@given(contents(), limits)
def test_kernels_agree(data: bytes, limits: tuple[int, int, int]) -> None:
    expected = lengths(twin.cut, data, limits)
    for name in compiled.KERNELS:
        assert lengths(by(name), data, limits) == expected, name


@settings(deadline=None, max_examples=80)
@given(contents(), limits, st.lists(st.integers(1, 5000), min_size=1, max_size=8))
def test_cuts_do_not_depend_on_chopping(data: bytes, limits: tuple[int, int, int], steps: list[int]) -> None:
    expected = lengths(compiled.cut, data, limits)
    for name in KERNELS:
        cut, found, begin, end, turn = by(name), [], 0, 0, 0
        while True:
            end = min(len(data), end + steps[turn % len(steps)])
            turn += 1
            final = end == len(data)
            _, sizes, tail = cut(data[:end], [begin], [end - begin], [0], final, *limits)
            found += sizes.tolist()
            assert tail == end - begin - int(sizes.sum()) and tail < limits[2]
            begin = end - tail
            if final:
                break
        assert found == expected, name


@pytest.mark.parametrize("name", compiled.KERNELS)
def test_large_agree(name: str) -> None:
    """Long enough for every path of the wide kernel, with usual limits; the scalar one is checked above."""
    rng = np.random.default_rng(5)
    noise = rng.integers(0, 256, 3 << 20, np.uint8)
    noise[1 << 20 : 1 << 21] &= 3
    data = noise.tobytes()
    assert lengths(by(name), data, USUAL) == lengths(by("scalar"), data, USUAL)
