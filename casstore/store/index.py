"""The index: chunk digest → (pack, address), over the live index segments.

Segments are immutable and derived from packs. The list of live segments is rows of the catalog; this room opens them,
answers batches, and writes new ones.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import Damaged
from ..format import index as index_format
from ..model import U8, U32, Mask
from .objects import ObjectReader, Objects

IN_MEMORY = 64 << 20
"""Segments up to this size are read into memory, which no truncation can hurt; larger ones are mapped."""


class Located(NamedTuple):
    """For each digest asked for: found, the number of its pack in `IndexSet.packs`, and its address there."""

    found: Mask
    packs: U32
    addresses: U32


Accept = Callable[[U32, U32], Mask]


def _content(reader: ObjectReader) -> memoryview:
    if reader.size <= IN_MEMORY:
        return memoryview(reader.pread(0, reader.size))
    return memoryview(mmap.mmap(reader.fileno(), reader.size, access=mmap.ACCESS_READ))


class IndexSet:
    """The live segments as they were when it was opened, newest first."""

    def __init__(self, objects: Objects, keys: Sequence[str]) -> None:
        self.keys = list(keys)
        self.packs: list[bytes] = []
        self._number: dict[bytes, int] = {}
        self._segments: list[tuple[index_format.IndexSegment, U32]] = []
        for key in keys:
            reader = objects.open(key)
            try:
                segment = index_format.IndexSegment.open(_content(reader), verify=reader.size <= IN_MEMORY)
            except Damaged as error:
                raise Damaged(error.message, what=key, hint="run casstore check --repair") from None
            finally:
                reader.close()
            numbers = np.array([self._pack_number(p) for p in segment.pack_ids], dtype=np.uint32)
            self._segments.append((segment, numbers))

    def _pack_number(self, pack_id: bytes) -> int:
        number = self._number.setdefault(pack_id, len(self.packs))
        if number == len(self.packs):
            self.packs.append(pack_id)
        return number

    def __len__(self) -> int:
        return sum(segment.count for segment, _ in self._segments)

    def locate(self, digests: U8, accept: Accept | None = None) -> Located:
        """Where chunks lie. `accept` judges what was found (pack numbers, addresses): of a chunk's copies the first
        that it takes counts."""
        n = len(digests)
        found = np.zeros(n, np.bool_)
        packs = np.zeros(n, np.uint32)
        addresses = np.zeros(n, np.uint32)
        for segment, numbers in self._segments:
            todo = np.flatnonzero(~found)
            if not len(todo):
                break
            first, count = segment.find_range(digests[todo])
            rank = 0
            while len(candidates := np.flatnonzero(count > rank)):
                ordinals, where = segment.entry(first[candidates] + np.uint32(rank))
                named = numbers[ordinals]
                usable = np.ones(len(named), np.bool_) if accept is None else accept(named, where)
                taken = candidates[usable]
                hit = todo[taken]
                found[hit] = True
                packs[hit] = named[usable]
                addresses[hit] = where[usable]
                count[taken] = 0
                rank += 1
        return Located(found, packs, addresses)

    def number(self, pack_id: bytes) -> int | None:
        """The number of a pack, None where no segment knows it."""
        return self._number.get(pack_id)


def encode_segment(packs: Sequence[tuple[bytes, U8, U32]]) -> bytes:
    """A segment for packs given as (pack id, digests (n,32), addresses (n,))."""
    ids = [pack_id for pack_id, _, _ in packs]
    digests = np.concatenate([d for _, d, _ in packs]) if packs else np.empty((0, 32), np.uint8)
    addresses = np.concatenate([a for _, _, a in packs]) if packs else np.empty(0, np.uint32)
    ordinals = np.repeat(np.arange(len(packs), dtype=np.uint32), [len(a) for _, _, a in packs])
    return index_format.encode(digests, ordinals, addresses, ids)
