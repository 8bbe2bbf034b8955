"""The index: chunk digest → (pack, address), over the live index segments.

Segments are immutable and derived from packs. The list of live segments is rows of the catalog; this room opens them,
answers batches, and writes new ones.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import Damaged, NotFound
from ..format import index as index_format
from ..format.index import IndexSegment, LargeSegment
from ..format.pack import DataTable
from ..model import U8, U32, U64, Mask
from .objects import ObjectReader, Objects, pack_key
from .packs import Pack

IN_MEMORY = 64 << 20
"""Segments up to this size (bytes) are read and checked whole; of larger ones only what is looked up is read."""
BATCH = 4096
"""Digests looked up in a large segment at a time: bounds what is read for them to some 32 MiB."""
TABLES = 64 << 20
"""Bytes of packs' tables that are kept to confirm what an index says: those of about 1000 packs."""


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


class Tables:
    """What packs say of themselves: it confirms what an index says of them. Thread-safe, bounded by bytes.

    `spoilt` is told the key of a pack whose table cannot be read.
    """

    def __init__(self, objects: Objects, spoilt: Callable[[str], None], limit: int = TABLES) -> None:
        self._objects = objects
        self._spoilt = spoilt
        self._limit = limit
        self._kept: OrderedDict[bytes, tuple[U32, U64]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def list(self, pack_id: bytes, digests: U8, addresses: U32) -> Mask:
        """For each chunk: does the pack have it at this address? Of a pack that cannot be read: none."""
        places, names = self._open(pack_id)
        if not len(places):
            return np.zeros(len(addresses), np.bool_)
        at = np.minimum(np.searchsorted(places, addresses), len(places) - 1)
        listed: Mask = (places[at] == addresses) & (names[at] == _short(digests))
        return listed

    def _open(self, pack_id: bytes) -> tuple[U32, U64]:
        """The addresses of a pack's chunks, ascending, and their names."""
        with self._lock:
            kept = self._kept.get(pack_id)
            if kept is None:
                kept = self._kept[pack_id] = self._read(pack_key(pack_id))
                self._bytes += _nbytes(kept)
                while self._bytes > self._limit and len(self._kept) > 1:
                    self._bytes -= _nbytes(self._kept.popitem(last=False)[1])
            self._kept.move_to_end(pack_id)
            return kept

    def _read(self, key: str) -> tuple[U32, U64]:
        try:
            with self._objects.open(key) as reader:
                table = Pack(reader, key).table
            if isinstance(table, DataTable):
                return table.addresses, _short(table.digests)
        except (Damaged, NotFound):
            pass
        self._spoilt(key)
        return np.empty(0, np.uint32), np.empty(0, np.uint64)


def _short(digests: U8) -> U64:
    # No two chunks of a pack share these by chance, and what is asked for has the whole digest from the index already.
    return np.ascontiguousarray(digests[:, :8]).view(np.uint64).reshape(-1)


def _nbytes(columns: tuple[U32, U64]) -> int:
    return columns[0].nbytes + columns[1].nbytes


class IndexSet:
    """The live segments as they were when it was opened, newest first.

    Nothing is lost with an index: a segment that is damaged or missing, or turns out to be, counts as empty and is told
    in `broken`. What it listed is not found then, and stored again.

    With `tables` only that is found which the pack's own table lists in the same place. Without, what is found is a
    hint: a large segment is not checked whole, and whoever relies on it looks into the packs himself.
    """

    def __init__(self, objects: Objects, keys: Sequence[str], tables: Tables | None = None) -> None:
        self.keys = list(keys)
        self._tables = tables
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
        that it takes, and that is confirmed, counts."""
        n = len(digests)
        located = Located(np.zeros(n, np.bool_), np.zeros(n, np.uint32), np.zeros(n, np.uint32))
        for key, (segment, numbers) in list(self._segments.items()):
            todo = np.flatnonzero(~located.found)
            if not len(todo):
                break
            try:
                for part, some in parts(segment, digests, todo):
                    self._look(part, numbers, digests, some, accept, located)
            except Damaged:
                if key not in self.broken:
                    self.broken.append(key)
                self._segments.pop(key, None)
        return located

    def _look(
        self,
        segment: IndexSegment,
        numbers: U32,
        digests: U8,
        todo: np.ndarray,
        accept: Accept | None,
        located: Located,
    ) -> None:
        first, count = segment.find_range(digests[todo])
        rank = 0
        while len(candidates := np.flatnonzero(count > rank)):
            ordinals, where = segment.entry(first[candidates] + np.uint32(rank))
            named = numbers[ordinals]
            usable = np.ones(len(named), np.bool_) if accept is None else accept(named, where)
            self._confirm(usable, named, where, digests, todo[candidates])
            taken = candidates[usable]
            hit = todo[taken]
            located.found[hit] = True
            located.packs[hit] = named[usable]
            located.addresses[hit] = where[usable]
            count[taken] = 0
            rank += 1

    def _confirm(self, usable: Mask, named: U32, where: U32, digests: U8, todo: np.ndarray) -> None:
        """Take out of `usable` what the packs do not list."""
        if self._tables is None:
            return
        for number in np.unique(named[usable]):
            mine = np.flatnonzero(usable & (named == number))
            usable[mine] = self._tables.list(self.packs[int(number)], digests[todo[mine]], where[mine])

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


def encode_segment(packs: Sequence[tuple[bytes, U8, U32]], chunk_digest: str = "sha256") -> bytes:
    """A segment for packs given as (pack id, digests (n,32), addresses (n,)); `chunk_digest`: the store's."""
    ids = [pack_id for pack_id, _, _ in packs]
    digests = np.concatenate([d for _, d, _ in packs]) if packs else np.empty((0, 32), np.uint8)
    addresses = np.concatenate([a for _, _, a in packs]) if packs else np.empty(0, np.uint32)
    ordinals = np.repeat(np.arange(len(packs), dtype=np.uint32), [len(a) for _, _, a in packs])
    return index_format.encode(digests, ordinals, addresses, ids, chunk_digest)
