"""From spans of a woven stream to the chunks that hold them: arithmetic on tracks, for many spans at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..model import U64, ChunkList


class Spans(NamedTuple):
    """Bytes [starts[i], ends[i]) of one stream, wanted at to[i] of a buffer. None is empty."""

    starts: U64
    ends: U64
    to: U64

    @classmethod
    def one(cls, start: int, end: int) -> Spans:
        """[start, end) at the buffer's begin."""
        return cls(np.array([start], np.uint64), np.array([end], np.uint64), np.zeros(1, np.uint64))


class Pieces(NamedTuple):
    """Copies that make a buffer: to[i] (offset in the buffer), chunk[i] (number in the recipe's chunk table),
    skip[i] (bytes into that chunk), length[i]."""

    to: U64
    chunk: U64
    skip: U64
    length: U64


def _expand(first: U64, count: U64) -> tuple[np.ndarray, U64]:
    """(owner, value): for each i the values first[i], first[i] + 1 … count[i] of them."""
    owner = np.repeat(np.arange(len(first)), count.astype(np.int64))
    before = np.cumsum(count, dtype=np.uint64) - count
    return owner, first[owner] + np.arange(len(owner), dtype=np.uint64) - before[owner]


class Track:
    """Where each chunk of one track lies. `first`: the number of its first entry in the recipe's chunk table."""

    def __init__(self, chunks: ChunkList, first: int) -> None:
        self._first = np.uint64(first)
        self._lengths = chunks.lengths.astype(np.uint64)
        repeats = chunks.repeats.astype(np.uint64)
        self._ends = np.cumsum(self._lengths * repeats, dtype=np.uint64)
        self._begins = self._ends - self._lengths * repeats
        self._counted = np.cumsum(repeats, dtype=np.uint64)  # chunks up to and with each entry
        self._before = self._counted - repeats

    @property
    def size(self) -> int:
        """Bytes of the track."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def pieces(self, spans: Spans) -> Pieces:
        """The copies that make spans of the track."""
        # Bounds of the arrays' own type: mixed with signed ones they would be compared as floats, which end at 2^53.
        one = np.uint64(1)
        low = np.searchsorted(self._ends, spans.starts, side="right")
        high = np.searchsorted(self._ends, spans.ends, side="left")
        first = self._before[low] + (spans.starts - self._begins[low]) // self._lengths[low]
        last = self._before[high] + (spans.ends - one - self._begins[high]) // self._lengths[high]
        owner, number = _expand(first, last - first + one)
        entry = np.searchsorted(self._counted, number, side="right")
        begin = self._begins[entry] + (number - self._before[entry]) * self._lengths[entry]
        start = np.maximum(begin, spans.starts[owner])
        end = np.minimum(begin + self._lengths[entry], spans.ends[owner])
        to = spans.to[owner] + (start - spans.starts[owner])
        return Pieces(to, entry.astype(np.uint64) + self._first, start - begin, end - start)


class Layout:
    """Maps spans of the woven output to chunks."""

    def __init__(self, weave: U64, literals: ChunkList, payloads: ChunkList) -> None:
        self.literals = Track(literals, 0)
        self._payloads = Track(payloads, len(literals.lengths))
        lengths = weave.astype(np.uint64)
        self._ends = np.cumsum(lengths.reshape(-1), dtype=np.uint64)
        self._begins = self._ends - lengths.reshape(-1)
        before = np.zeros_like(lengths)
        before[1:] = np.cumsum(lengths[:-1], axis=0, dtype=np.uint64)
        self._track_start = before.reshape(-1)

    @property
    def size(self) -> int:
        """Bytes of the output."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def pieces(self, spans: Spans) -> Pieces:
        """The copies that make spans of the output."""
        low = np.searchsorted(self._ends, spans.starts, side="right").astype(np.uint64)
        high = np.searchsorted(self._ends, spans.ends, side="left").astype(np.uint64)
        owner, segment = _expand(low, high - low + np.uint64(1))
        begin = self._begins[segment]
        start = np.maximum(begin, spans.starts[owner])
        end = np.minimum(self._ends[segment], spans.ends[owner])
        there = self._track_start[segment] + (start - begin)
        to = spans.to[owner] + (start - spans.starts[owner])
        parts = []
        for kind, track in enumerate((self.literals, self._payloads)):
            mine = (segment % np.uint64(2) == kind) & (end > start)
            if mine.any():
                parts.append(track.pieces(Spans(there[mine], there[mine] + (end[mine] - start[mine]), to[mine])))
        return Pieces(*(np.concatenate(column) for column in zip(*parts, strict=True)))
