"""The index: chunk digest → (pack, address), over the live index segments.

Segments are immutable and derived from packs. The list of live segments is rows of the catalog; this room opens them,
answers batches, and writes new ones.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import Damaged
from ..format import index as index_format
from ..kernels import table
from ..model import U8, U32, Mask
from .objects import ObjectReader, Objects

IN_MEMORY = 64 << 20
"""Segments up to this size are read into memory, which no truncation can hurt; larger ones are mapped."""


class Located(NamedTuple):
    """For each digest asked for: found, the number of its pack in `IndexSet.packs`, and its address there."""

    found: Mask
    packs: U32
    addresses: U32


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

    def locate(self, digests: U8, allowed: Callable[[U32], Mask] | Iterable[bytes] | None = None) -> Located:
        """Where chunks lie. `allowed` limits the packs: an iterable of pack ids, or a function that is given pack
        numbers found and tells which of them may be used (each number at most once a call)."""
        n = len(digests)
        found = np.zeros(n, np.bool_)
        packs = np.zeros(n, np.uint32)
        addresses = np.zeros(n, np.uint32)
        judge = self._judge(allowed)
        for segment, numbers in self._segments:
            todo = np.flatnonzero(~found)
            if not len(todo):
                break
            first, count = segment.find_range(digests[todo])
            rank = 0
            while True:
                candidates = np.flatnonzero(count > rank)
                if not len(candidates):
                    break
                ordinals, where = segment.entry(first[candidates] + rank)
                if len(ordinals) and int(ordinals.max()) >= len(numbers):
                    raise Damaged("an index entry names a pack that its segment does not list", what="index")
                global_numbers = numbers[ordinals]
                usable = judge(global_numbers)
                hit = todo[candidates[usable]]
                found[hit] = True
                packs[hit] = global_numbers[usable]
                addresses[hit] = where[usable]
                count[candidates[usable]] = 0
                rank += 1
        return Located(found, packs, addresses)

    def _judge(self, allowed: Callable[[U32], Mask] | Iterable[bytes] | None) -> Callable[[U32], Mask]:
        if allowed is None:
            return lambda numbers: np.ones(len(numbers), np.bool_)
        if not callable(allowed):
            verdict = np.zeros(len(self.packs), np.bool_)
            for pack_id in allowed:
                number = self._number.get(pack_id)
                if number is not None:
                    verdict[number] = True
            return lambda numbers: verdict[numbers]
        known = np.zeros(len(self.packs), np.int8)
        ask = allowed

        def judge(numbers: U32) -> Mask:
            fresh = np.unique(numbers)
            fresh = fresh[known[fresh] == 0]
            if len(fresh):
                known[fresh] = np.where(ask(fresh), 1, -1)
            return known[numbers] > 0

        return judge


def encode_segment(packs: Sequence[tuple[bytes, U8, U32]]) -> bytes:
    """A segment for packs given as (pack id, digests (n,32), addresses (n,))."""
    ids = [pack_id for pack_id, _, _ in packs]
    digests = np.concatenate([d for _, d, _ in packs]) if packs else np.empty((0, 32), np.uint8)
    addresses = np.concatenate([a for _, _, a in packs]) if packs else np.empty(0, np.uint32)
    ordinals = np.repeat(np.arange(len(packs), dtype=np.uint32), [len(a) for _, _, a in packs])
    return index_format.encode(digests, ordinals, addresses, ids)

