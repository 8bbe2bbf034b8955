"""No blob, however it is crafted, decodes more than its share when it is restored."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sample
from hypothesis import example, given, settings
from hypothesis import strategies as st

from casstore import api
from casstore.digest import Digest
from casstore.flow import reach
from casstore.flow.reach import NOWHERE, Reach
from casstore.format import recipe as recipe_format
from casstore.format.pack import DataTable

FRAME = 1000
BASE = 1 << 40


def cost(name: int) -> list[tuple[int, int]]:
    """Every third frame leans on another."""
    return [(name, FRAME), *([(name | BASE, FRAME)] if name % 3 == 0 else [])]


class Reader:
    """Reads runs of chunks as restore does: a run's frames are there together, of the others the most recent ones."""

    def __init__(self, keep: int) -> None:
        self._keep = keep // FRAME
        self._kept: OrderedDict[int, None] = OrderedDict()
        self.decoded = 0

    def read(self, names: set[int]) -> None:
        missing = {one for each in names if each not in self._kept for one, _ in cost(each)}
        for name in (names | missing) & self._kept.keys():
            self._kept.move_to_end(name)
        for name in missing - self._kept.keys():
            self.decoded += FRAME
            self._kept[name] = None
        while len(self._kept) > self._keep:
            self._kept.popitem(last=False)


runs = st.lists(st.lists(st.tuples(st.integers(0, 60), st.integers(1, FRAME)), min_size=1, max_size=12), max_size=40)


LONG = [(0, 1), (1, 1), (1, 2), (2, 540), (3, 1), (6, 823), (9, 559), (9, 1000), (10, 1), (27, 998), (56, 149)]
"""A run that reads more than is remembered: in which order is not known."""


@given(runs, st.integers(0, 2**32))
@example([LONG, [(1, 1), (4, 348), (5, 826), (21, 826)], [(0, 1)]], 1)
@settings(max_examples=300, deadline=None)
def test_the_bound_holds(made: list[list[tuple[int, int]]], seed: int) -> None:
    """Against a reader that remembers twice as much as is counted on: some frames that it has are not counted on."""
    free, recent = 5 * FRAME, 8 * FRAME
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reach, "FREE", free)
        patch.setattr(reach, "RECENT", recent)
        judge, reader, total = Reach(cost), Reader(2 * recent), 0
        movable = np.random.default_rng(seed)
        for run in made:
            frames = np.array([NOWHERE if name > 55 else name for name, _ in run], np.uint64)
            lengths = np.array([length for _, length in run], np.uint32)
            again = judge.judge(frames, lengths, movable.random(len(run)) < 0.8)
            if again is None:
                continue
            total += int(lengths.sum())
            apart = again | (frames == NOWHERE)
            reader.decoded += int(lengths[apart].sum())
            reader.read(set(frames[~apart].tolist()))
            assert judge.seen == total
            assert reader.decoded <= judge.decoded <= free + reach.FACTOR * total


def test_the_least_used_frames_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "FREE", 0)
    judge = Reach(lambda name: [(name, FRAME)])
    frames = np.array([1, 1, 2, 3, 4, 4], np.uint64)
    lengths = np.array([400, 300, 10, 20, 250, 250], np.uint32)
    again = judge.judge(frames, lengths, np.ones(6, np.bool_))
    assert again is not None and again.tolist() == [False, False, True, True, False, False]
    # What the blob used before has to be fetched, however little it is.
    judge = Reach(lambda name: [(name, FRAME)])
    movable = np.array([True, True, False, False, True, True])
    assert judge.judge(frames, lengths, movable) is None and judge.seen == judge.decoded == 0
    again = judge.judge(frames, lengths, movable, force=True)
    assert again is not None and again.tolist() == [True, True, False, False, True, True]
    # Those that a reader has by now cost no more than themselves.
    assert judge.judge(np.array([2, 3], np.uint64), np.array([5, 5], np.uint32), np.zeros(2, np.bool_)) is not None
    assert judge.judge(np.array([1, 2], np.uint64), np.array([5, 5], np.uint32), np.zeros(2, np.bool_)) is None


# -- a store

FILES = 400
SIZE = 9000


@pytest.fixture
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds for layers of a few MiB, frames of 50 KiB."""
    monkeypatch.setattr(reach, "FREE", 512 << 10)
    monkeypatch.setattr(reach, "RECENT", 400 << 10)
    for room in ("frames", "ingest", "split"):
        monkeypatch.setattr(f"casstore.flow.{room}.FRAME_TARGET", 50 << 10)
    monkeypatch.setattr("casstore.flow.frames.FrameBuilder.__init__.__defaults__", (50 << 10,))
    monkeypatch.setattr("casstore.flow.split.FEED", 128 << 10)
    monkeypatch.setattr("casstore.flow.split.LITERAL_FLUSH", 32 << 10)
    monkeypatch.setattr("casstore.flow.restore.WINDOW", 128 << 10)


def layer(order: Iterator[int] | list[int] | range) -> bytes:
    return sample.tar(sample.entry(f"{n}/{i}", sample.noise(i, SIZE)) for n, i in enumerate(order))


ASIDE = [i for j in range(6) for i in range(j, FILES, 6)]
"""Each next to one that is a frame away from it."""
ATTACKS = {
    "every frame, a little of each": [layer(range(FILES)), layer(range(0, FILES, 6))],
    "every frame, all of it, in another order": [layer(range(FILES)), layer(ASIDE)],
    "its own frames": [layer([*range(FILES), *ASIDE, *ASIDE])],
    "large files of pieces that are known": [
        sample.noise("large", 3 << 20),
        b"".join(sample.noise("large", 3 << 20)[at : at + 60_000] for at in range(0, 3 << 20, 200_000)) * 3,
    ],
}


def restored(root: Path, data: bytes) -> int:
    """Bytes decoded to restore a blob by a reader that keeps little more than what Reach counts on."""
    with api.open(root) as store:
        store.volume.packs._limit = 2 * reach.RECENT
        assert b"".join(store.blobs.cat(Digest.of(data))) == data
        return store.volume.packs.decoded_bytes


def put(root: Path, given: Path, blobs: list[bytes], *, at_once: bool) -> None:
    with api.open(root) as store:
        if at_once:
            given.write_bytes(sample.docker_archive(sample.image(0, ["a:1"], blobs)))
            store.load(given)
            return
        for data in blobs:
            given.write_bytes(data)
            store.blobs.put(given)


@pytest.mark.usefixtures("tight")
@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("attack", ATTACKS)
def test_what_a_crafted_layer_decodes(tmp_path: Path, attack: str, at_once: bool) -> None:
    blobs = ATTACKS[attack]
    put(tmp_path / "s", tmp_path / "in", blobs, at_once=at_once)
    for data in blobs:
        # A reader has a few windows under way at a time; so much may be fetched twice.
        assert restored(tmp_path / "s", data) <= 1.1 * (reach.FREE + reach.FACTOR * len(data))
    with api.open(tmp_path / "s") as store:
        assert store.check(read_data=True).ok
        assert store.gc(grace=0) and store.check(read_data=True).ok
    for data in blobs:
        restored(tmp_path / "s", data)


@pytest.mark.usefixtures("tight")
def test_without_a_bound_it_would_be_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "FREE", 1 << 60)
    blobs = ATTACKS["every frame, all of it, in another order"]
    put(tmp_path / "s", tmp_path / "in", blobs, at_once=False)
    assert restored(tmp_path / "s", blobs[0]) <= 1.1 * len(blobs[0])
    assert restored(tmp_path / "s", blobs[1]) > 4 * len(blobs[1])


@pytest.mark.usefixtures("tight")
def test_honest_layers_are_stored_once(tmp_path: Path) -> None:
    """Versions of a layer, each with a few files changed, added and gone."""
    blobs, names = [], list(range(FILES))
    for version in range(5):
        names = [n for n in names if n % 40 != version] + [FILES + version]
        blobs.append(layer([n + 10_000 * (n % 50 == version) for n in names]))
    put(tmp_path / "s", tmp_path / "in", blobs, at_once=False)
    with api.open(tmp_path / "s") as store:
        keys = [key for key, _ in store.volume.objects.list("packs")]
        packs = [store.volume.packs.pack(key) for key in keys]
        tables = [pack.table for pack in packs if isinstance(pack.table, DataTable)]
        digests = np.concatenate([table.digests for table in tables])
        assert len(np.unique(digests, axis=0)) == len(digests)
    for data in blobs:
        assert restored(tmp_path / "s", data) <= 1.5 * len(data)


# -- recipes


def test_more_pieces_than_a_recipe_may_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Content that repeats, so that no digest pays for its rows: it is cut less finely, and kept."""
    monkeypatch.setattr(recipe_format, "FREE_ROWS", 400)
    period = sample.noise("a", 20_000) + sample.noise("b", 20_000)
    blobs = [sample.tar(sample.entry(f"{i % 2}", b"ab"[i % 2 :][:1]) for i in range(6000)), period * 1500]
    put(tmp_path / "s", tmp_path / "in", blobs, at_once=False)
    for data in blobs:
        restored(tmp_path / "s", data)
