"""The index over damaged segments and packs: an answer is right, or "missing"; never wrong, and never a signal."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from casstore.codec import frame
from casstore.errors import Damaged
from casstore.format import index as index_format
from casstore.format.index import IndexSegment, LargeSegment
from casstore.model import U8, U32
from casstore.store import index as module
from casstore.store.index import IndexSet, Located, Tables, encode_segment
from casstore.store.objects import Objects, index_key, pack_key
from casstore.store.packs import PackShelf

PACKS, CHUNKS, SHARED = 3, 200, 40
"""Each pack has CHUNKS chunks of one byte; the first SHARED of them are in every pack."""


class World(NamedTuple):
    objects: Objects
    key: str
    packs: list[tuple[bytes, U8, U32]]

    @property
    def path(self) -> Path:
        return self.objects.root / "objects" / self.key

    @property
    def digests(self) -> U8:
        """Every chunk, and as many that are nowhere."""
        known = np.unique(np.concatenate([names for _, names, _ in self.packs]), axis=0)
        return np.concatenate([known, known ^ np.uint8(1)])

    def entries_at(self) -> int:
        """Where the segment's entries begin."""
        head = index_format.decode_head(self.path.read_bytes()[:64], self.path.stat().st_size)
        return self.path.stat().st_size - 32 - 40 * head.entries

    def wrong(self, index: IndexSet, digests: U8, located: Located) -> int:
        """How many chunks are said to be where they are not."""
        places = {
            (pack_id, int(at)): name.tobytes()
            for pack_id, names, ats in self.packs
            for name, at in zip(names, ats, strict=True)
        }
        return sum(
            places.get((index.packs[int(pack)], int(at))) != name.tobytes()
            for name, hit, pack, at in zip(digests, *located, strict=True)
            if hit
        )


def publish(objects: Objects, key: str, data: bytes) -> None:
    with objects.stage(1, key) as staged:
        staged.write(data)
        objects.publish([staged])


def names(rng: np.random.Generator, count: int) -> U8:
    return rng.integers(0, 256, (count, 32), dtype=np.uint8)


@pytest.fixture
def world(tmp_path: Path) -> World:
    objects = Objects.make(tmp_path / "store")
    objects.make_staging(1)
    rng = np.random.default_rng(7)
    shared = names(rng, SHARED)
    packs = []
    for _ in range(PACKS):
        shelf = PackShelf(objects, 1, lambda key, kind: None)
        digests = np.concatenate([shared, names(rng, CHUNKS - SHARED)])
        for part in np.array_split(rng.permutation(digests), 4):
            slot = shelf.open_frame()
            codec, stored = frame.compress("none", bytes(len(part)))
            at = (np.arange(len(part)) | slot.number << 22).astype(np.uint32)
            shelf.write_frame(slot, codec, len(part), stored, (part, at, np.ones(len(part), np.uint32)))
        (sealed,) = shelf.seal()
        objects.publish([sealed.staged])
        packs.append((sealed.pack_id, sealed.digests, sealed.addresses))
    key = index_key()
    publish(objects, key, encode_segment(packs))
    return World(objects, key, packs)


@pytest.fixture(params=["in memory", "left where it is"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "left where it is":
        monkeypatch.setattr(module, "IN_MEMORY", 0)
    return str(request.param)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IN_MEMORY", 0)


def confirmed(world: World, limit: int = module.TABLES) -> tuple[IndexSet, list[str]]:
    """An index that asks the packs, and the keys of packs that it could not ask."""
    spoilt: list[str] = []
    return IndexSet(world.objects, [world.key], Tables(world.objects, spoilt.append, limit)), spoilt


def change(world: World, at: int, data: bytes) -> None:
    """In place: whoever has the file open sees it."""
    world.path.chmod(0o600)
    with world.path.open("r+b") as file:
        file.seek(at)
        file.write(data)


# -- what is sound


@pytest.mark.parametrize("limit", [0, module.TABLES])
def test_all_that_packs_have_is_found(world: World, kind: str, limit: int) -> None:
    index, spoilt = confirmed(world, limit)
    located = index.locate(world.digests)
    known = len(world.digests) // 2
    assert located.found[:known].all() and not located.found[known:].any()
    assert world.wrong(index, world.digests, located) == 0
    assert not spoilt and not index.broken and len(index) == PACKS * CHUNKS


def test_threads_get_the_same_answers(world: World, kind: str) -> None:
    index, _ = confirmed(world, 0)  # tables come and go all the time
    expected = index.locate(world.digests)
    with ThreadPoolExecutor(4) as pool:
        for located in pool.map(lambda _: index.locate(world.digests), range(16)):
            np.testing.assert_array_equal(np.stack(located), np.stack(expected))


@pytest.mark.parametrize("share", [0, 1, 7, 600])
def test_a_piece_of_a_large_segment_answers_as_all_of_it(world: World, share: int) -> None:
    whole = IndexSegment.open(world.path.read_bytes())
    large = LargeSegment(world.objects.open(world.key))
    asked = np.random.default_rng(share).permutation(world.digests)[:share]
    piece = large.near(asked)
    first, count = whole.find_range(asked)
    near, also = piece.find_range(asked)
    np.testing.assert_array_equal(count, also)
    some = np.flatnonzero(count)
    np.testing.assert_array_equal(whole.entries[first[some]], piece.entries[near[some]])
    assert large.count == whole.count and large.chunk_digest == whole.chunk_digest
    np.testing.assert_array_equal(np.concatenate(list(large.slices())), whole.entries)
    large.verify()


# -- segments that rot


@pytest.mark.parametrize("when", ["before it is opened", "while it is open"])
def test_flipped_bits(world: World, kind: str, when: str) -> None:
    sound = world.path.read_bytes()
    digests = world.digests
    lost = 0
    dice = random.Random(3)
    offsets = dice.sample(range(len(sound)), 150) + list(range(12)) + [16, 48, 64, 128]
    for at in offsets:
        index, _ = confirmed(world)
        change(world, at, bytes([sound[at] ^ 1 << dice.randrange(8)]))
        if when == "before it is opened":
            index, _ = confirmed(world)
        located = index.locate(digests)
        assert world.wrong(index, digests, located) == 0, at
        lost += int(located.found.sum() < len(digests) // 2)
        change(world, at, sound[at : at + 1])
    assert lost or (kind == "in memory" and when == "while it is open")


def test_a_large_segment_is_a_hint_without_the_packs(world: World, large: None) -> None:
    """What the tests here are for: nothing but the packs' tables tells a flipped address."""
    change(world, world.entries_at() + 36, b"\x55\x55\x55\x55")
    index = IndexSet(world.objects, [world.key])
    assert world.wrong(index, world.digests, index.locate(world.digests)) == 1
    segment = LargeSegment(world.objects.open(world.key))
    with pytest.raises(Damaged):
        segment.verify()


@pytest.mark.parametrize("column", ["pack", "address"])
def test_another_copy_counts_where_the_first_is_not_confirmed(world: World, large: None, column: str) -> None:
    shared = next(
        n
        for n, row in enumerate(IndexSegment.open(world.path.read_bytes()).entries)
        if sum(row["digest"].tobytes() in {one.tobytes() for one in digests} for _, digests, _ in world.packs) > 1
    )
    at = world.entries_at() + 40 * shared
    name = np.frombuffer(world.path.read_bytes()[at : at + 32], np.uint8)[None]
    before, _ = confirmed(world)
    first = before.locate(name)
    change(world, at + (32 if column == "pack" else 36), b"\x01\x00\x00\x00")
    index, _ = confirmed(world)
    second = index.locate(name)
    assert second.found.all() and world.wrong(index, name, second) == 0
    assert (int(second.packs[0]), int(second.addresses[0])) != (int(first.packs[0]), int(first.addresses[0]))


@pytest.mark.parametrize("left", [0, 0.3, 0.9, 0.9999])
def test_cut_short_while_it_is_open(world: World, large: None, left: float) -> None:
    index, _ = confirmed(world)
    world.path.chmod(0o600)
    os.truncate(world.path, int(world.path.stat().st_size * left))
    located = index.locate(world.digests)
    assert world.wrong(index, world.digests, located) == 0
    # All is looked up at once: what runs past the end makes the segment count as empty. The checksum is not read.
    assert (left == 0.9999) or (index.broken == [world.key] and not located.found.any())


def test_cut_short_before_it_is_opened(world: World, kind: str) -> None:
    world.path.chmod(0o600)
    os.truncate(world.path, world.path.stat().st_size - 1)
    index, _ = confirmed(world)
    assert index.broken == [world.key] and not index.locate(world.digests).found.any()


@pytest.mark.parametrize("page", range(5))
def test_pages_of_zeros_while_it_is_open(world: World, large: None, page: int) -> None:
    index, _ = confirmed(world)
    length = min(4096, world.path.stat().st_size - page * 4096)
    change(world, page * 4096, bytes(length))
    for digests in (world.digests, *np.array_split(world.digests, 50)):
        located = index.locate(digests)
        assert world.wrong(index, digests, located) == 0


def test_a_disk_that_does_not_read(world: World, large: None, monkeypatch: pytest.MonkeyPatch) -> None:
    index, _ = confirmed(world)

    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr("casstore.store.objects.os.pread", fail)
        located = index.locate(world.digests)
    assert index.broken == [world.key] and not located.found.any()


# -- packs that rot


def remove(path: Path) -> None:
    path.unlink()


def spoil_table(path: Path) -> None:
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("spoil", [remove, spoil_table])
def test_a_pack_that_cannot_be_asked_has_nothing(world: World, kind: str, spoil: Callable[[Path], None]) -> None:
    bad = world.packs[1][0]
    spoil(world.objects.root / "objects" / pack_key(bad))
    index, spoilt = confirmed(world)
    located = index.locate(world.digests)
    assert spoilt == [pack_key(bad)]
    assert world.wrong(index, world.digests, located) == 0
    found = {name.tobytes() for name in world.digests[located.found]}
    assert found == {name.tobytes() for pack_id, digests, _ in world.packs if pack_id != bad for name in digests}


def test_a_pack_that_is_another_than_the_index_means(world: World, kind: str) -> None:
    """Its table is sound, and lists other chunks."""
    one, other, _ = (world.objects.root / "objects" / pack_key(pack_id) for pack_id, _, _ in world.packs)
    one.unlink()
    one.write_bytes(other.read_bytes())
    index, spoilt = confirmed(world)
    located = index.locate(world.digests)
    assert spoilt == [pack_key(world.packs[0][0])]
    assert world.wrong(index, world.digests, located) == 0
