"""Splitting: what comes out is what went in, however the source is chopped and whatever is in it."""

from __future__ import annotations

import random
import tarfile
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import sample
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from casstore.digest import Digest
from casstore.errors import BadInput
from casstore.flow import pieces, split
from casstore.flow.layout import Layout, Spans
from casstore.flow.pieces import Pieces
from casstore.flow.source import BytesSource, StreamSource
from casstore.flow.split import Split, Splitter, Track, Weave
from casstore.format import recipe as recipe_format
from casstore.format.storefile import StoreFile
from casstore.model import ChunkList, Cutter, Recipe

FILE = StoreFile(id="0" * 32, created="2024-01-01T00:00:00Z", chunk_digest="sha256", cutter=Cutter())
SMALL = StoreFile(
    id="0" * 32, created="2024-01-01T00:00:00Z", chunk_digest="blake3", cutter=Cutter("gear32n", 1024, 4096, 16384)
)
few = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Kept:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.chunks: dict[bytes, bytes] = {}

    def take(
        self,
        track: int,
        buffer: object,
        starts: np.ndarray,
        lengths: np.ndarray,
        digests: np.ndarray,
        *,
        force: bool = False,
    ) -> bool:
        view = memoryview(buffer)  # type: ignore[call-overload]
        for start, length, name in zip(starts.tolist(), lengths.tolist(), digests, strict=True):
            self.chunks[name.tobytes()] = bytes(view[start : start + length])
        return True


class Chopped:
    """A source that gives as little as it likes."""

    def __init__(self, data: bytes, seed: int) -> None:
        self.size: int | None = len(data)
        self._data = memoryview(data)
        self._random = random.Random(seed)

    def readinto(self, view: memoryview) -> int:
        got = min(len(view), len(self._data), self._random.choice([1, 7, 512, 5000, 1 << 20]))
        view[:got] = self._data[:got]
        self._data = self._data[got:]
        return got


class Whole(NamedTuple):
    split: Split
    chunks: dict[bytes, bytes]


def run(data: bytes, file: StoreFile = FILE, seed: int = 0) -> Whole:
    kept = Kept()
    return Whole(Splitter(file, kept).run(Chopped(data, seed)), kept.chunks)


def joined(whole: Whole, start: int = 0, end: int | None = None) -> bytes:
    """The bytes that the recipe makes."""
    made = whole.split
    layout = Layout(made.weave, made.literals, made.payloads)
    end = layout.size if end is None else end
    names = [name.tobytes() for track in (made.literals, made.payloads) for name in track.digests]
    out = bytearray(end - start)
    if not out:
        return b""
    pieces = layout.pieces(Spans.one(start, end))
    for to, chunk, skip, length in zip(*(column.tolist() for column in pieces), strict=True):
        out[to : to + length] = whole.chunks[names[chunk]][skip : skip + length]
    return bytes(out)


def check(data: bytes, file: StoreFile = FILE, seed: int = 0) -> Whole:
    """All that holds for every split."""
    whole = run(data, file, seed)
    made = whole.split
    assert made.size == len(data)
    assert made.digest == Digest.of(data).raw
    assert joined(whole) == data
    rows = made.weave.sum(axis=0).tolist() if len(made.weave) else [0, 0]
    assert rows == [made.literals.size, made.payloads.size]
    assert max([*made.literals.lengths.tolist(), *made.payloads.lengths.tolist(), 0]) <= file.cutter.maximum
    # A payload row ends where a chunk does.
    ends = np.cumsum(np.repeat(made.payloads.lengths, made.payloads.repeats), dtype=np.uint64)
    assert np.isin(np.cumsum(made.weave[:, 1], dtype=np.uint64), np.append(ends, 0)).all()
    recipe = Recipe(made.size, made.weave, made.literals, made.payloads)
    again = recipe_format.decode(recipe_format.encode(recipe))
    assert np.array_equal(again.weave, made.weave) and again.size == made.size
    return whole


@pytest.fixture
def feeds(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Set how much is read at a time."""

    def set_to(size: int) -> None:
        monkeypatch.setattr(split, "FEED", size)
        monkeypatch.setattr(split, "LITERAL_FLUSH", max(size // 3, 2))

    return set_to


def equal(one: Split, other: Split) -> bool:
    def same(a: ChunkList, b: ChunkList) -> bool:
        return all(map(np.array_equal, (a.digests, a.lengths, a.repeats), (b.digests, b.lengths, b.repeats)))

    return (
        (one.size, one.digest, one.files_size) == (other.size, other.digest, other.files_size)
        and np.array_equal(one.weave, other.weave)
        and same(one.literals, other.literals)
        and same(one.payloads, other.payloads)
    )


# -- any tar

EDGES = [0, 1, 511, 512, 513, 4095, 8191, 8192, 8193, 16384, 32767, 32768, 32769, 65536, 65537, 150_000]
contents = st.tuples(st.sampled_from(EDGES), st.sampled_from(["noise", "zeros", "text", "period"]), st.integers(0, 5))


def content(made: tuple[int, str, int]) -> bytes:
    size, kind, seed = made
    if kind == "noise":
        return sample.noise(seed, size)
    if kind == "zeros":
        return bytes(size)
    if kind == "text":
        return sample.text(seed, size)
    return (sample.noise(seed, 16384) * (size // 16384 + 1))[:size]


@st.composite
def tars(draw: st.DrawFn) -> bytes:
    """Tars as they are found: whole, cut, spoilt, one after the other, with something at the end."""
    form = draw(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT]))
    entries = []
    for number, each in enumerate(draw(st.lists(contents, max_size=6))):
        name = f"{number}" if form == tarfile.USTAR_FORMAT else f"{number}/" + "long" * draw(st.integers(0, 40))
        entries.append(sample.entry(name, content(each)))
    data = sample.tar(entries, form)
    for what in draw(st.lists(st.sampled_from(["cut", "flip", "junk", "twice", "no end"]), max_size=2)):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        if what == "cut":
            data = data[:at]
        elif what == "flip" and data:
            data = data[:at] + bytes([data[at] ^ draw(st.integers(1, 255))]) + data[at + 1 :]
        elif what == "junk":
            data += sample.noise("junk", draw(st.integers(1, 3000)))
        elif what == "twice":
            data += data
        elif what == "no end":
            data = data.rstrip(b"\0")
    return data


@given(tars(), st.sampled_from([FILE, SMALL]), st.integers(0, 3))
@few
def test_what_is_split_is_joined(data: bytes, file: StoreFile, seed: int) -> None:
    check(data, file, seed)


@given(data=tars(), size=st.sampled_from([1000, 4096, 20_000, 66_000, 300_000]))
@few
def test_how_much_is_read_at_a_time_changes_nothing(feeds: Callable[[int], None], data: bytes, size: int) -> None:
    whole = run(data)
    feeds(size)
    assert equal(check(data).split, whole.split)


@given(data=tars(), seed=st.integers(0, 2**32))
@few
def test_every_span_is_a_slice(data: bytes, seed: int) -> None:
    whole = run(data, SMALL)
    chosen = random.Random(seed)
    for _ in range(20):
        start, end = sorted((chosen.randint(0, len(data)), chosen.randint(0, len(data))))
        assert joined(whole, start, end) == data[start:end]


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1023, 1024, 1025, 70_000, 5_000_000])
@pytest.mark.parametrize("kind", ["noise", "zeros"])
def test_what_is_no_tar(size: int, kind: str) -> None:
    whole = check(content((size, kind, 1)))
    assert whole.split.files_size == 0


def test_a_feed_that_ends_everywhere_in_a_small_tar(feeds: Callable[[int], None]) -> None:
    data = sample.files({"a": sample.noise(1, 700), "b": b"b", "c": bytes(1500)})
    whole = run(data, SMALL)
    for size in (1, 3, 37, *range(509, 516), 1024, 1211, 1212, 1213, 1535, 1536, 1537):
        feeds(size)
        assert equal(run(data, SMALL).split, whole.split), size


# -- content


def test_equal_payloads_are_one_chunk_wherever_they_stand() -> None:
    file = sample.text("shared", 30_000)
    one = check(sample.files({"a": file, "b": b"b"}))
    two = check(sample.tar([sample.entry("x" * 90, b"first", mtime=5), sample.entry("other/place", file, uid=7)]))
    assert one.chunks.keys() & two.chunks.keys() == {Digest.of(file).raw}


def test_a_payload_up_to_twice_the_average_is_one_chunk() -> None:
    for size in (1, 16384, 32767, 32768):
        made = check(sample.files({"f": sample.noise(size, size)})).split
        assert made.payloads.lengths.tolist() == [size]
    assert len(check(sample.files({"f": sample.noise(1, 32769)})).split.payloads.lengths) > 1


def test_an_insertion_changes_few_chunks() -> None:
    before = sample.noise("grown", 2_000_000)
    after = before[:700_000] + b"inserted" + before[700_000:]
    one, two = check(sample.files({"f": before})), check(sample.files({"f": after}))
    assert len(two.chunks.keys() - one.chunks.keys()) <= 4


def test_docker_sizes() -> None:
    layer = sample.rich_layer("sizes")
    assert check(layer).split.files_size == 90_000 + 150_000 + len("tool") + 700 + 60_000 + 8 + 9 + 8


# -- repeats


class Zeros:
    """A tar that says it holds one file of `size` zeros, made as it is read."""

    def __init__(self, size: int) -> None:
        info, _ = sample.entry("sparse")
        info.size = size
        self._head = info.tobuf(tarfile.PAX_FORMAT)
        self.size: int | None = None
        self._left = len(self._head) + size + -size % 512 + 1024
        self.total = self._left

    def readinto(self, view: memoryview) -> int:
        got = min(len(view), self._left)
        view[:got] = bytes(got)
        head, self._head = self._head[:got], self._head[got:]
        view[: len(head)] = head
        self._left -= got
        return got


def test_hundreds_of_megabytes_of_zeros_are_a_small_recipe() -> None:
    source, kept = Zeros(400_000_000), Kept()
    made = Splitter(FILE, kept).run(source)
    assert made.size == source.total and made.files_size == 400_000_000
    assert len(kept.chunks) <= 6
    recipe = Recipe(made.size, made.weave, made.literals, made.payloads)
    assert len(recipe_format.encode(recipe)) < 2000
    assert made.payloads.repeats.max() > 6000
    layout = Layout(made.weave, made.literals, made.payloads)
    for start in (0, 1, 511, 200_000_000, made.size - 4_000_000):
        pieces = layout.pieces(Spans.one(start, start + 4_000_000))
        assert int(pieces.length.sum()) == 4_000_000 and len(pieces.to) < 200


def test_runs_are_folded_across_calls() -> None:
    def of(*letters: str) -> tuple[np.ndarray, np.ndarray]:
        names = np.array([[ord(letter)] * 32 for letter in letters], np.uint8).reshape(-1, 32)
        return names, np.full(len(letters), 10, np.uint32)

    track = Track()
    for part in ("a", "aa", "", "ab", "bb", "a", "c"):
        track.append(*of(*part))
    made = track.chunks()
    assert [chr(name[0]) for name in made.digests] == ["a", "b", "a", "c"]
    assert made.repeats.tolist() == [4, 3, 1, 1] and made.size == 90
    assert Track().chunks().size == 0


@given(st.lists(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5)), max_size=5), max_size=6))
@few
def test_a_weave_is_the_order_of_bytes(parts: list[list[tuple[int, int]]]) -> None:
    weave = Weave()
    flat = ""
    for part in parts:
        weave.append(np.array([kind for kind, _ in part], np.uint8), np.array([n for _, n in part], np.uint64))
        flat += "".join("lp"[kind] * n for kind, n in part)
    made = "".join("l" * int(row[0]) + "p" * int(row[1]) for row in weave.rows())
    assert made == flat


# -- what was made to be expensive


class Refuses(Kept):
    """Takes chunks only now and then."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = random.Random(seed)
        self.refused = 0

    def take(self, *columns: Any, force: bool = False) -> bool:
        if not force and self._random.random() < 0.6:
            self.refused += 1
            return False
        return super().take(*columns, force=force)


@given(data=tars(), seed=st.integers(0, 2**32), size=st.sampled_from([4096, 20_000, 66_000]))
@few
def test_what_is_refused_is_kept_in_large_pieces(
    feeds: Callable[[int], None], data: bytes, seed: int, size: int
) -> None:
    feeds(size)
    refuses = Refuses(seed)
    made = Splitter(FILE, refuses).run(Chopped(data, 0))
    assert joined(Whole(made, refuses.chunks)) == data
    recipe = Recipe(made.size, made.weave, made.literals, made.payloads)
    assert recipe_format.decode(recipe_format.encode(recipe)).size == len(data)
    assert (made.digest, made.files_size) == (Digest.of(data).raw, run(data).split.files_size)


@given(data=tars(), size=st.sampled_from([1000, 20_000, 300_000]), free=st.integers(0, 4))
@few
def test_small_payloads_beyond_what_is_granted_are_literal(
    feeds: Callable[[int], None], data: bytes, size: int, free: int
) -> None:
    feeds(size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "FREE", free)
        made = check(data).split
    every = run(data).split
    small = every.payloads.repeats[every.payloads.lengths < FILE.cutter.average].sum()
    assert made.payloads.size <= every.payloads.size
    if small <= free:
        assert equal(made, every)


def test_how_many_payloads_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "FREE", 100)
    monkeypatch.setattr(pieces, "BYTES_PER_PIECE", 10_240)
    data = sample.files({f"{i:05}": sample.noise(i, 20_000 if i % 1000 == 0 else 9) for i in range(4000)})
    made = check(data).split
    small = int((made.payloads.lengths == 9).sum())
    assert small == 100 + len(data) // 10_240 or small == 100 + len(data) // 10_240 - 1
    assert (made.payloads.lengths == 20_000).sum() == 4
    shared = Pieces()
    first = Splitter(FILE, Kept(), shared).run(BytesSource(data)).payloads
    second = Splitter(FILE, Kept(), shared).run(BytesSource(data)).payloads
    assert len(first.lengths) >= small and len(second.lengths) <= small - 90


# -- sources


def test_a_source_that_ends_early_is_told() -> None:
    class Ends:
        def __init__(self) -> None:
            self.data = b"x" * 100

        def read(self, n: int) -> bytes:
            piece, self.data = self.data[:n], self.data[n:]
            return piece

    with pytest.raises(BadInput, match="unexpected EOF at offset 100"):
        Splitter(FILE, Kept()).run(StreamSource(Ends(), 101))
    assert Splitter(FILE, Kept()).run(StreamSource(Ends(), 100)).size == 100
    assert Splitter(FILE, Kept()).run(StreamSource(Ends())).size == 100
    assert Splitter(FILE, Kept()).run(BytesSource(b"")).size == 0
