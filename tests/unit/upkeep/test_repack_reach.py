"""No blob, however it is crafted, decodes more than its share when it is restored after gc has moved its chunks."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import sample
from hypothesis import given, settings
from hypothesis import strategies as st

from casstore import api
from casstore.digest import Digest
from casstore.errors import Damaged
from casstore.flow import reach
from casstore.flow.naming import Names
from casstore.format.pack import DataTable
from casstore.model import FRAME_BITS
from casstore.store import query
from casstore.store.packs import PackShelf, Slot
from casstore.upkeep import repack
from casstore.upkeep.deep import DeepFrames

FILES = 1000
SIZE = 9000
STRIDE = 24


@pytest.fixture(autouse=True)
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that the bound is about, a twentieth of its size: frames of 50 KB, deep ones of 200 KB."""
    frame, deep = 50 << 10, 200 << 10
    monkeypatch.setattr(reach, "FREE", 8 * deep)
    monkeypatch.setattr(reach, "RECENT", 8 * deep)
    for room in ("frames", "ingest", "split"):
        monkeypatch.setattr(f"casstore.flow.{room}.FRAME_TARGET", frame)
    monkeypatch.setattr("casstore.flow.frames.FrameBuilder.__init__.__defaults__", (frame,))
    monkeypatch.setattr("casstore.flow.split.FEED", deep)
    monkeypatch.setattr("casstore.flow.split.LITERAL_FLUSH", frame)
    monkeypatch.setattr("casstore.flow.restore.WINDOW", deep)
    monkeypatch.setattr("casstore.upkeep.deep.TARGET", deep)
    monkeypatch.setattr("casstore.upkeep.deep.LEAST", deep // 16)


def layer(order: Iterable[int]) -> bytes:
    return sample.tar(sample.entry(f"{n}/{i}", sample.noise(i, SIZE)) for n, i in enumerate(order))


def aside(count: int, stride: int = STRIDE) -> list[int]:
    """Each next to one that is some frames away from it."""
    return [i for j in range(stride) for i in range(j, count, stride)]


ATTACKS = {
    "every frame, a little of each": [layer(range(FILES)), layer(range(0, FILES, STRIDE))],
    "every frame, all of it, in another order": [layer(range(FILES)), layer(aside(FILES))],
    "its own frames, in another order, twice": [layer([*range(FILES), *aside(FILES), *aside(FILES)])],
    "a large one that is in order only where it was": [layer(range(FILES)), layer([*aside(FILES), *range(FILES)])],
    "three orders": [layer(range(FILES)), layer(aside(FILES, 7)), layer(aside(FILES, 40))],
}


def put(root: Path, given: Path, data: bytes) -> None:
    given.write_bytes(data)
    with api.open(root) as store:
        store.blobs.put(given)


def gc(root: Path) -> list[str]:
    with api.open(root) as store:
        return [row.action for row in store.gc(grace=0).rows]


def restored(root: Path, data: bytes) -> int:
    """Bytes decoded to restore a blob by a reader that keeps little more than what Reach counts on."""
    with api.open(root) as store:
        store.volume.packs._limit = reach.RECENT * 5 // 4
        assert b"".join(store.blobs.cat(Digest.of(data))) == data
        return store.volume.packs.decoded_bytes


def bounded(root: Path, blobs: Iterable[bytes]) -> None:
    for data in blobs:
        # A reader has a few windows under way at a time; so much may be fetched twice.
        assert restored(root, data) <= 1.1 * (reach.FREE + reach.FACTOR * len(data))


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_a_crafted_layer_decodes_after_gc(tmp_path: Path, attack: str) -> None:
    root, blobs = tmp_path / "s", ATTACKS[attack]
    for data in blobs:
        put(root, tmp_path / "in", data)
    bounded(root, blobs)
    assert "repack" in gc(root)
    bounded(root, blobs)
    with api.open(root) as store:
        assert store.check(read_data=True).ok
    for _ in range(3):
        last = gc(root)
    assert last == []


@pytest.mark.parametrize("attack", ATTACKS)
def test_gc_after_each_load_and_in_small_groups(tmp_path: Path, attack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A blob's packs are not rewritten together, and some were before."""
    monkeypatch.setattr(repack, "GROUP", 2)
    monkeypatch.setattr(repack, "SMALL", 1 << 20)
    monkeypatch.setattr(PackShelf.__init__, "__defaults__", (4 << 20,))
    root, blobs = tmp_path / "s", ATTACKS[attack]
    for number, data in enumerate(blobs):
        put(root, tmp_path / "in", data)
        for _ in range(2):
            gc(root)
            bounded(root, blobs[: number + 1])
    with api.open(root) as store:
        store.blobs.rm([Digest.of(blobs[0])])
    for _ in range(3):
        gc(root)
        bounded(root, blobs[1:])
    with api.open(root) as store:
        assert store.check(read_data=True).ok


spans = st.lists(
    st.tuples(st.integers(0, 400), st.sampled_from([1, 1, 3, 11, 29, 80]), st.integers(1, 250)), min_size=1, max_size=6
)


@given(st.lists(st.tuples(spans, st.booleans(), st.booleans()), min_size=2, max_size=5), st.data())
@settings(max_examples=8, deadline=None)
def test_any_layers_and_any_gc(
    tmp_path_factory: pytest.TempPathFactory,
    made: list[tuple[list[tuple[int, int, int]], bool, bool]],
    data: st.DataObject,
) -> None:
    """Layers of runs of files, some a step apart; gc whenever, of all or of some packs, and what goes in between."""
    folder = tmp_path_factory.mktemp("any")
    root, there = folder / "s", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reach, "FREE", 400 << 10)
        for runs, collected, removed in made:
            blob = layer(i % 450 for begin, step, count in runs for i in range(begin, begin + step * count, step))
            put(root, folder / "in", blob)
            there.append(blob)
            if removed and len(there) > 1:
                gone = there.pop(data.draw(st.integers(0, len(there) - 1)))
                with api.open(root) as store:
                    store.blobs.rm([Digest.of(gone)])
                there = [one for one in there if one != gone]
            if collected:
                gc(root)
            else:
                with api.open(root) as store:
                    worn, _ = repack.plan(store.volume)
                    if worn:
                        chosen = data.draw(st.lists(st.sampled_from(worn), unique_by=lambda one: one.row.key))
                        repack.Repack(store.volume, chosen, "zstd:1").run()
            bounded(root, there)
        gc(root)
        bounded(root, there)


def test_a_blob_whose_order_cannot_be_read_is_kept_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(*_: object) -> None:
        raise Damaged("a recipe fails its checksum", what="recipe")

    root, blobs = tmp_path / "s", ATTACKS["every frame, all of it, in another order"]
    for data in blobs:
        put(root, tmp_path / "in", data)
    before = [restored(root, data) for data in blobs]
    monkeypatch.setattr(repack, "Reading", unreadable)
    assert "repack" in gc(root)
    for data, decoded in zip(blobs, before, strict=True):
        assert restored(root, data) <= 1.05 * decoded
    with api.open(root) as store:
        assert all(row.deep for row in packs(store)) and store.check(read_data=True).ok
    assert gc(root) == []


def packs(store: api.Store) -> list[query.ObjectRow]:
    with store.volume.catalog.read() as tx:
        return [row for row in query.objects(tx, "data") if row.state == "live"]


def test_versions_of_a_layer_are_stored_once(tmp_path: Path) -> None:
    """Each with some files changed, added and gone: nothing is lost of what they share."""
    root, blobs, names = tmp_path / "s", [], list(range(FILES))
    for version in range(5):
        names = [n for n in names if n % 40 != version] + [FILES + version]
        blobs.append(layer([n + 10_000 * (n % 50 == version) for n in names]))
        put(root, tmp_path / "in", blobs[-1])
    gc(root)
    with api.open(root) as store:
        tables = [store.volume.packs.pack(row.key).table for row in packs(store)]
        digests = np.concatenate([table.digests for table in tables if isinstance(table, DataTable)])
        assert len(digests) <= 1.02 * len(np.unique(digests, axis=0))
    for data in blobs:
        assert restored(root, data) <= 1.5 * len(data) + reach.FREE


# -- planning


class Shelf:
    """A shelf whose packs have eight frames each, and which writes nothing."""

    def __init__(self) -> None:
        self._next = 0

    def open_frame(self) -> Slot:
        self._next += 1
        return Slot(*divmod(self._next - 1, 8))

    def write_frame(self, *_: object) -> None:
        pass


@given(st.lists(st.lists(st.integers(1, 60_000), max_size=30), max_size=6), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_chunks_come_to_lie_in_the_frames_that_were_planned(layers: list[list[int]], seed: int) -> None:
    raw = random.Random(seed).randbytes(64 << 10)
    frames = DeepFrames(Shelf(), Names("sha256"), "none", 1)  # type: ignore[arg-type]
    try:
        for sizes in layers:
            lengths = np.array(sizes, np.uint32)
            planned = frames.plan(lengths)
            at = np.zeros(len(sizes), np.uint64)
            places, addresses = frames.add(raw, at, lengths, np.zeros((len(sizes), 32), np.uint8))
            real = places << np.uint64(10) | addresses >> np.uint64(FRAME_BITS)
            # The same chunks together, and in the frame that was begun if it was planned so.
            assert np.array_equal(np.diff(planned) != 0, np.diff(real) != 0)
            if len(sizes) and planned[0] < 1 << 60:
                assert planned[0] == real[0]
            if seed % 2:
                frames.end_layer()
    finally:
        frames.stop()
