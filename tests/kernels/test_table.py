"""table: both twins against dictionaries and each other; a fanout that lies."""

from __future__ import annotations

import mmap
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casstore.kernels import _table_py as twin
from casstore.kernels import table
from casstore.kernels.table import MAX_BITS, MISSING, PENDING, pick_bits


@pytest.fixture(params=["_table_py", "_table_c"])
def kernel(request: pytest.FixtureRequest) -> Any:
    return pytest.importorskip(f"casstore.kernels.{request.param}")


def compiled() -> Any:
    return pytest.importorskip("casstore.kernels._table_c")


def rows(digests: list[bytes]) -> Any:
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)


#: Digests that begin alike, so that few bits make crowded buckets and eight bytes do not decide.
digest = st.builds(
    lambda head, middle, tail: head + bytes(7) + middle + bytes(20) + tail,
    st.binary(min_size=2, max_size=2),
    st.binary(min_size=1, max_size=1),
    st.binary(min_size=2, max_size=2),
)
few = st.sampled_from([bytes(32), b"\xff" * 32, bytes(31) + b"\1", b"\x80" + bytes(31)])
digests_of = st.lists(digest | few, max_size=60)


def entries_of(digests: list[bytes]) -> Any:
    """Sorted entries whose pack is their number and whose address is 7 more."""
    array = np.empty((len(digests), 40), np.uint8)
    array[:, :32] = rows(sorted(digests))
    places = np.arange(len(digests), dtype="<u4")
    array[:, 32:36] = places.view(np.uint8).reshape(-1, 4)
    array[:, 36:] = (places + 7).astype("<u4").view(np.uint8).reshape(-1, 4)
    return array


def test_chooser() -> None:
    compiled()
    assert table.IMPLEMENTATION == "compiled"


def test_bits_keep_buckets_small() -> None:
    assert [pick_bits(count) for count in (0, 1, 3, 4, 7, 8, 10_000_000)] == [0, 0, 0, 1, 1, 2, 22]
    assert pick_bits(2**32 - 1) == MAX_BITS
    for count in range(2, 5000):
        assert 2 <= count / 2 ** pick_bits(count) < 4


@settings(deadline=None)
@given(digests_of, digests_of, st.integers(0, 10))
def test_lookups(stored: list[bytes], wanted: list[bytes], bits: int) -> None:
    wanted = wanted + stored[::2]
    entries = entries_of(stored)
    ordered = sorted(stored)
    for kernel in (twin, compiled()):
        fanout = kernel.build_fanout(entries[:, :32], bits)
        assert (fanout.dtype, fanout.shape) == (np.uint32, (2**bits + 1,))
        found, packs, addresses = kernel.find(entries, len(stored), fanout, bits, rows(wanted))
        firsts, counts = kernel.find_range(entries, len(stored), fanout, bits, rows(wanted))
        assert (found.dtype, packs.dtype, addresses.dtype) == (np.bool_, np.uint32, np.uint32)
        assert counts.tolist() == [stored.count(each) for each in wanted]
        assert firsts.tolist() == [sum(other < each for other in ordered) for each in wanted]
        assert found.tolist() == [each in stored for each in wanted]
        assert packs.tolist() == [ordered.index(each) if each in stored else 0 for each in wanted]
        assert addresses.tolist() == [ordered.index(each) + 7 if each in stored else 0 for each in wanted]


@settings(deadline=None)
@given(st.data())
def test_a_lying_fanout_is_refused_or_harmless(data: st.DataObject) -> None:
    bits = data.draw(st.integers(0, 4))
    stored = data.draw(digests_of)
    entries, count = entries_of(stored), len(stored)
    number = st.integers(0, count + 1) | st.integers(0, 2**32 - 1)
    fanout = np.array(data.draw(st.lists(number, min_size=2**bits + 1, max_size=2**bits + 1)), np.uint32)
    wanted = rows(data.draw(digests_of))
    outcomes = []
    for kernel in (twin, compiled()):
        for name in ("find", "find_range"):
            try:
                outcomes.append(
                    (
                        name,
                        [
                            each.tolist()
                            for each in getattr(kernel, name)(entries, count, fanout, bits, wanted)
                        ],
                    )
                )
            except ValueError as error:
                outcomes.append((name, str(error)))
    assert outcomes[:2] == outcomes[2:]


def test_entries_out_of_order_are_harmless(kernel: Any) -> None:
    entries = np.frombuffer(random.Random(3).randbytes(4000), np.uint8).reshape(-1, 40)
    fanout = np.array([0, 100], np.uint32)
    assert len(kernel.find(entries, 100, fanout, 0, entries[:, :32])[0]) == 100


@pytest.mark.parametrize(
    ("count", "bits", "fanout"),
    [
        (6, 1, 3),
        (-1, 1, 3),
        (2**32, 1, 3),
        (2**70, 1, 3),
        (5, -1, 3),
        (5, 25, 3),
        (5, 2**40, 3),
        (5, 2, 4),
        (5, 1, 0),
    ],
)
def test_buffers_too_short(kernel: Any, count: int, bits: int, fanout: int) -> None:
    entries, numbers = bytearray(5 * 40), bytearray(4 * fanout)
    for function in (kernel.find, kernel.find_range):
        with pytest.raises(ValueError):
            function(entries, count, numbers, bits, np.zeros((1, 32), np.uint8))
    entries.append(0)
    numbers.append(0)


@pytest.mark.parametrize("shape", [(32,), (1, 31), (1, 33), (1, 1, 32)])
def test_digests_of_another_shape(kernel: Any, shape: tuple[int, ...]) -> None:
    wrong = np.zeros(shape, np.uint8)
    for call in (
        lambda: kernel.find(bytes(40), 1, bytes(8), 0, wrong),
        lambda: kernel.build_fanout(wrong, 1),
        lambda: kernel.order(wrong),
        lambda: kernel.ChunkMap().claim(wrong),
        lambda: kernel.ChunkMap().get(wrong),
        lambda: kernel.ChunkMap().set(wrong, [1]),
        lambda: kernel.ChunkMap().claim(np.zeros((1, 32), np.uint16)),
    ):
        with pytest.raises(ValueError):
            call()


def test_mapped_memory_that_is_longer_than_it_must_be(kernel: Any) -> None:
    stored = [bytes([n]) * 32 for n in range(100)]
    entries = entries_of(stored).tobytes()
    fanout = kernel.build_fanout(rows(stored), 5).tobytes()
    file = mmap.mmap(-1, 8192)
    file[: len(entries)] = entries
    file[4097 : 4097 + len(fanout)] = fanout  # unaligned, too
    whole = memoryview(file)
    found, packs, _ = kernel.find(whole, 100, whole[4097:], 5, rows(stored))
    assert found.all()
    assert packs.tolist() == list(range(100))
    whole.release()
    file.close()


def test_fanout_of_digests_out_of_order(kernel: Any) -> None:
    digests = rows([b"\1" * 32, b"\3" * 32, b"\2" * 32])
    with pytest.raises(ValueError, match="digest 2"):
        kernel.build_fanout(digests, 3)
    for bits in (-1, 25):
        with pytest.raises(ValueError):
            kernel.build_fanout(digests[:1], bits)


@settings(deadline=None)
@given(digests_of)
def test_order(digests: list[bytes]) -> None:
    array = rows(digests)
    wide = np.zeros((len(digests), 40), np.uint8)
    wide[:, :32] = array
    want = sorted(range(len(digests)), key=digests.__getitem__)
    for kernel in (twin, compiled()):
        for view in (array, wide[:, :32], array[::-1][::-1]):
            assert kernel.order(view).tolist() == want
        assert kernel.order(array[::-1]).tolist() == twin.order(array[::-1].copy()).tolist()


steps = st.lists(st.tuples(st.sampled_from(["claim", "set", "get"]), digests_of, st.integers(0)), max_size=8)


@settings(deadline=None)
@given(steps)
def test_map_does_what_a_dictionary_does(story: list[tuple[str, list[bytes], int]]) -> None:
    ours, theirs = compiled().ChunkMap(), twin.ChunkMap()
    for verb, digests, seed in story:
        arguments: tuple[Any, ...] = (rows(digests),)
        if verb == "set":
            arguments += (np.random.default_rng(seed).integers(0, MISSING, len(digests), np.uint64),)
        got, want = getattr(ours, verb)(*arguments), getattr(theirs, verb)(*arguments)
        if want is not None:
            assert got.dtype == want.dtype
            np.testing.assert_array_equal(got, want)
        assert len(ours) == len(theirs)
    for got, want in zip(ours.export(), theirs.export(), strict=True):
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        np.testing.assert_array_equal(got, want)


def test_map_tells_the_new_from_the_known(kernel: Any) -> None:
    one, two, three = (bytes([n]) * 32 for n in (1, 2, 3))
    chunks = kernel.ChunkMap()
    assert chunks.get(rows([one])).tolist() == [MISSING]
    assert chunks.claim(rows([two, one, two])).tolist() == [True, True, False]
    assert chunks.claim(rows([one, three])).tolist() == [False, True]
    chunks.set(rows([one, two, one]), [5, 6, 7])
    assert chunks.get(rows([one, two, three, bytes(32)])).tolist() == [7, 6, PENDING, MISSING]
    digests, values = chunks.export()
    assert [row.tobytes() for row in digests] == [one, two, three]
    assert values.tolist() == [7, 6, PENDING]


def test_map_grows(kernel: Any) -> None:
    digests = np.random.default_rng(4).integers(0, 256, (20_000, 32), np.uint8)
    chunks = kernel.ChunkMap()
    for start in range(0, len(digests), 700):
        assert chunks.claim(digests[start : start + 700]).all()
    chunks.set(digests, np.arange(len(digests), dtype=np.uint64))
    assert chunks.get(digests).tolist() == list(range(len(digests)))
    assert not chunks.claim(digests).any()
    exported, values = chunks.export()
    np.testing.assert_array_equal(digests[values], exported)
    assert len(chunks) == len(digests)


def test_map_refuses_what_it_could_not_tell_from_missing(kernel: Any) -> None:
    chunks = kernel.ChunkMap()
    for values in ([1, MISSING], [1], [1, 2, 3], [-1, 1], [0.5, 1]):
        with pytest.raises(ValueError):
            chunks.set(rows([bytes(32), b"\1" * 32]), values)
    assert len(chunks) == 0


def test_of_many_threads_one_is_the_first(kernel: Any) -> None:
    digests = np.random.default_rng(5).integers(0, 256, (6000, 32), np.uint8)
    chunks = kernel.ChunkMap()

    def work(seed: int) -> Any:
        wins = np.zeros(len(digests), np.uint32)
        turn = np.random.default_rng(seed).permutation(len(digests))
        for start in range(0, len(digests), 50):
            some = turn[start : start + 50]
            wins[some] += chunks.claim(digests[some])
        return wins

    with ThreadPoolExecutor(6) as pool:
        total = sum(pool.map(work, range(6)))
    assert (total == 1).all()
    assert len(chunks) == len(digests)
