"""The index: chunk digest → (pack, address), over the live index segments.

Segments are immutable and derived from packs. The list of live segments is rows of the catalog; this room opens them,
answers batches, and writes new ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import Damaged, NotFound
from ..format import index as index_format
from ..format.index import IndexSegment, LargeSegment
from ..model import U8, U32, Mask
from .objects import ObjectReader, Objects

IN_MEMORY = 64 << 20
"""Segments up to this size (bytes) are read and checked whole; of larger ones only what is looked up is read."""
BATCH = 4096
"""Digests looked up in a large segment at a time: bounds what is read for them to some 32 MiB."""


class Located(NamedTuple):
    """For each digest asked for: found, the number of its pack in `IndexSet.packs`, and its address there."""

    found: Mask
    packs: U32
    addresses: U32


Accept = Callable[[U32, U32], Mask]


def open_segment(reader: ObjectReader) -> IndexSegment | LargeSegment:
    """The segment in an open object; closes it unless the segment goes on reading from it. Damaged."""
    if reader.size > IN_MEMORY:
        return LargeSegment(reader, reader.key)
    try:
        return IndexSegment.open(reader.pread(0, reader.size), what=reader.key)
    finally:
        reader.close()


class IndexSet:
    """The live segments as they were when it was opened, newest first.

    Nothing is lost with an index: a segment that is damaged or missing, or turns out to be, counts as empty and is told
    in `broken`. What it listed is not found then, and stored again.
    """

    def __init__(self, objects: Objects, keys: Sequence[str]) -> None:
        self.keys = list(keys)
        self.broken: list[str] = []
        self.packs: list[bytes] = []
        self._number: dict[bytes, int] = {}
        self._segments: dict[str, tuple[IndexSegment | LargeSegment, U32]] = {}
        for key in keys:
            try:
                segment = open_segment(objects.open(key))
            except (Damaged, NotFound):
                self.broken.append(key)
                continue
            numbers = np.array([self._pack_number(p) for p in segment.pack_ids], dtype=np.uint32)
            self._segments[key] = segment, numbers

    def _pack_number(self, pack_id: bytes) -> int:
        number = self._number.setdefault(pack_id, len(self.packs))
        if number == len(self.packs):
            self.packs.append(pack_id)
        return number

    def __len__(self) -> int:
        return sum(segment.count for segment, _ in self._segments.values())

    def locate(self, digests: U8, accept: Accept | None = None) -> Located:
        """Where chunks lie. `accept` judges what was found (pack numbers, addresses): of a chunk's copies the first
        that it takes counts. A hint: whoever relies on it looks into the pack's own table."""
        n = len(digests)
        located = Located(np.zeros(n, np.bool_), np.zeros(n, np.uint32), np.zeros(n, np.uint32))
        for key, (segment, numbers) in list(self._segments.items()):
            todo = np.flatnonzero(~located.found)
            if not len(todo):
                break
            try:
                for part, some in parts(segment, digests, todo):
                    _look(part, numbers, digests, some, accept, located)
            except Damaged:
                if key not in self.broken:
                    self.broken.append(key)
                self._segments.pop(key, None)
        return located

    def number(self, pack_id: bytes) -> int | None:
        """The number of a pack, None where no segment knows it."""
        return self._number.get(pack_id)


def parts(
    segment: IndexSegment | LargeSegment, digests: U8, todo: np.ndarray
) -> Iterator[tuple[IndexSegment, np.ndarray]]:
    """The segment with what is to be looked up in it; of a large one, pieces of it."""
    if isinstance(segment, IndexSegment):
        yield segment, todo
        return
    for at in range(0, len(todo), BATCH):
        some = todo[at : at + BATCH]
        yield segment.near(digests[some]), some


def _look(
    segment: IndexSegment, numbers: U32, digests: U8, todo: np.ndarray, accept: Accept | None, located: Located
) -> None:
    first, count = segment.find_range(digests[todo])
    rank = 0
    while len(candidates := np.flatnonzero(count > rank)):
        ordinals, where = segment.entry(first[candidates] + np.uint32(rank))
        named = numbers[ordinals]
        usable = np.ones(len(named), np.bool_) if accept is None else accept(named, where)
        taken = candidates[usable]
        hit = todo[taken]
        located.found[hit] = True
        located.packs[hit] = named[usable]
        located.addresses[hit] = where[usable]
        count[taken] = 0
        rank += 1


def encode_segment(packs: Sequence[tuple[bytes, U8, U32]], chunk_digest: str = "sha256") -> bytes:
    """A segment for packs given as (pack id, digests (n,32), addresses (n,)); `chunk_digest`: the store's."""
    ids = [pack_id for pack_id, _, _ in packs]
    digests = np.concatenate([d for _, d, _ in packs]) if packs else np.empty((0, 32), np.uint8)
    addresses = np.concatenate([a for _, _, a in packs]) if packs else np.empty(0, np.uint32)
    ordinals = np.repeat(np.arange(len(packs), dtype=np.uint32), [len(a) for _, _, a in packs])
    return index_format.encode(digests, ordinals, addresses, ids, chunk_digest)
