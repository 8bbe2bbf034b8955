"""hashing: both twins against FIPS 180-4, hashlib and each other."""

from __future__ import annotations

import hashlib
import importlib
import mmap
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from casstore.kernels import _hashing_py as twin
from casstore.kernels import hashing

DATA = random.Random(1).randbytes(1 << 16)


@pytest.fixture(params=["_hashing_py", "_hashing_c"])
def kernel(request: pytest.FixtureRequest) -> Any:
    return pytest.importorskip(f"casstore.kernels.{request.param}")


def compiled() -> Any:
    return pytest.importorskip("casstore.kernels._hashing_c")


def of(kernel: Any, data: bytes) -> bytes:
    stream = kernel.Sha256()
    stream.update(data)
    return stream.digest()


@pytest.mark.parametrize(
    ("message", "digest"),
    [
        (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        ),
        (
            b"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn"
            b"hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
            "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1",
        ),
        (b"a" * 1_000_000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
    ],
)
def test_published_vectors(kernel: Any, message: bytes, digest: str) -> None:
    assert of(kernel, message).hex() == digest
    assert kernel.names(message, [0], [len(message)]).tobytes().hex() == digest


@pytest.mark.parametrize("length", [0, 1, 55, 56, 57, 63, 64, 65, 119, 120, 127, 128, 129, 2047, 2048, 65535])
def test_edges_of_blocks(kernel: Any, length: int) -> None:
    want = hashlib.sha256(DATA[:length]).digest()
    assert of(kernel, DATA[:length]) == want
    names = kernel.names(DATA, [0, 1, 0], [length] * 3)
    other = hashlib.sha256(DATA[1 : 1 + length]).digest()
    assert [row.tobytes() for row in names] == [want, other, want]
    stream = kernel.Sha256()
    names = kernel.stream_and_names(stream, DATA, 1, 1 + length, [0], [length])
    assert (names.tobytes(), stream.digest(), stream.length) == (want, other, length)


def test_stream_goes_on_after_digest_and_copy(kernel: Any) -> None:
    stream = kernel.Sha256()
    stream.update(DATA[:100])
    first = stream.digest()
    branch = stream.copy()
    stream.update(DATA[100:5000])
    branch.update(b"another way")
    assert first == hashlib.sha256(DATA[:100]).digest()
    assert stream.digest() == stream.digest() == hashlib.sha256(DATA[:5000]).digest()
    assert branch.digest() == hashlib.sha256(DATA[:100] + b"another way").digest()
    assert (stream.length, branch.length) == (5000, 111)


@settings(deadline=None)
@given(st.data())
def test_any_spans_beside_any_stream(data: st.DataObject) -> None:
    kernel = compiled()
    size = data.draw(st.integers(0, 3000))
    buf = DATA[:size]
    bound = st.integers(0, size)
    pairs = [sorted(pair) for pair in data.draw(st.lists(st.tuples(bound, bound), max_size=30))]
    starts = np.array([low for low, _ in pairs], np.uint64)
    lengths = np.array(
        [high - low for low, high in pairs], data.draw(st.sampled_from([np.uint32, np.uint64]))
    )
    begin, end = sorted(data.draw(st.tuples(bound, bound)))
    before = DATA[: data.draw(st.integers(0, 130))]

    ours, theirs = kernel.Sha256(), twin.Sha256()
    ours.update(before)
    theirs.update(before)
    want = twin.stream_and_names(theirs, buf, begin, end, starts, lengths)
    got = kernel.stream_and_names(ours, buf, begin, end, starts, lengths)
    assert got.dtype == want.dtype == np.uint8
    assert got.shape == want.shape == (len(pairs), 32)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(kernel.names(buf, starts, lengths), want)
    assert ours.length == theirs.length
    assert ours.digest() == theirs.digest()
    ours.update(buf)
    theirs.update(buf)
    assert ours.digest() == theirs.digest()


@settings(deadline=None)
@given(st.lists(st.integers(0, 5000), max_size=20))
def test_chopping_changes_nothing(sizes: list[int]) -> None:
    stream, at = compiled().Sha256(), 0
    for size in sizes:
        stream.update(DATA[at : at + size])
        at = min(at + size, len(DATA))
    assert stream.digest() == hashlib.sha256(DATA[:at]).digest()


@pytest.mark.parametrize(
    ("starts", "lengths"),
    [
        ([0, 0], [1, 101]),
        ([0, 100], [1, 1]),
        ([0, 101], [1, 0]),
        ([0, 2**64 - 1], [1, 2]),
        ([0, 1], [1, 2**64 - 1]),
        ([0, 2**64 - 1], [1, 2**64 - 1]),
        ([0], [1, 2]),
        ([[0]], [[1]]),
        ([-1], [1]),
        ([0.0], [1]),
        ([2**64], [1]),
    ],
)
def test_bad_spans_are_refused_before_anything_happens(kernel: Any, starts: Any, lengths: Any) -> None:
    stream = kernel.Sha256()
    with pytest.raises(ValueError):
        kernel.names(DATA[:100], starts, lengths)
    with pytest.raises(ValueError):
        kernel.stream_and_names(stream, DATA[:100], 0, 100, starts, lengths)
    with pytest.raises(ValueError):
        hashing.blake3_names(DATA[:100], starts, lengths)
    assert stream.length == 0
    assert stream.digest() == hashlib.sha256().digest()


@pytest.mark.parametrize(("begin", "end"), [(-1, 5), (6, 5), (0, 101), (101, 101), (0, 2**70)])
def test_bad_part_of_the_stream(kernel: Any, begin: int, end: int) -> None:
    stream = kernel.Sha256()
    with pytest.raises(ValueError):
        kernel.stream_and_names(stream, DATA[:100], begin, end, [0], [1])
    assert stream.length == 0


def test_every_kind_of_buffer(kernel: Any) -> None:
    raw = DATA[:8192]
    writable = mmap.mmap(-1, len(raw))
    writable[:] = raw
    for buf in (raw, bytearray(raw), memoryview(raw), np.frombuffer(raw, "<i2").reshape(64, 64), writable):
        stream = kernel.Sha256()
        stream.update(buf)
        names = kernel.stream_and_names(stream, buf, 0, 8192, [5], [5000])
        assert (
            names.tobytes()
            == kernel.names(buf, [5], [5000]).tobytes()
            == hashlib.sha256(raw[5:5005]).digest()
        )
        assert stream.digest() == hashlib.sha256(raw * 2).digest()
    writable.close()  # nothing may hold on to a buffer after the call
    with pytest.raises(BufferError):
        kernel.names(memoryview(raw)[::2], [0], [1])
    with pytest.raises(TypeError):
        kernel.names("text", [0], [1])
    for empty in (b"", np.empty((0, 32), np.uint8)):
        assert kernel.names(empty, [], []).shape == (0, 32)
        assert kernel.names(empty, [0], [0]).tobytes() == hashlib.sha256().digest()


def test_buffers_are_let_go_after_an_error(kernel: Any) -> None:
    buf = bytearray(100)
    with pytest.raises(ValueError):
        kernel.names(buf, [0], [101])
    with pytest.raises(ValueError):
        kernel.stream_and_names(kernel.Sha256(), buf, 0, 101, [], [])
    buf.append(0)  # BufferError, were it still held


def test_results_may_be_written_to(kernel: Any) -> None:
    names = kernel.names(b"abc", [0], [3])
    names[0, 0] ^= 1


def test_threads_do_not_disturb_each_other(kernel: Any) -> None:
    starts, lengths = np.arange(64, dtype=np.uint64) * 1000, np.full(64, 1000, np.uint32)
    want = twin.names(DATA, starts, lengths)

    def work(_: int) -> bool:
        stream = kernel.Sha256()
        names = kernel.stream_and_names(stream, DATA, 0, len(DATA), starts, lengths)
        return bool((names == want).all()) and stream.digest() == hashlib.sha256(DATA).digest()

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(100)))


def test_blake3_names() -> None:
    lengths = [0, 1, 64, 1024, 1025, 60000]
    names = hashing.blake3_names(DATA, [3] * 6, lengths)
    assert [row.tobytes() for row in names] == [blake3(DATA[3 : 3 + length]).digest() for length in lengths]


def test_chooser_never_takes_plain_c() -> None:
    engine = compiled().ENGINE
    assert engine in ("sha-ni", "armv8", "portable")
    expected = ("python", "hashlib") if engine == "portable" else ("compiled", engine)
    chosen = (hashing.IMPLEMENTATION, hashing.ENGINE)
    assert chosen == expected


def test_chooser_without_the_compiled_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "casstore.kernels._hashing_c", None)
    assert importlib.reload(hashing).IMPLEMENTATION == "python"
    monkeypatch.undo()
    importlib.reload(hashing)
