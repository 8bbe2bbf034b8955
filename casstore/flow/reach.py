"""How far a blob's chunks reach: what restoring it will decode, followed while it goes in, and bounded.

A chunk costs the whole frame that it lies in, and the frame's base. In what is honest, neighbours in a blob are
neighbours in frames, and each frame is decoded once, for many chunks. A blob can be crafted so that every chunk of it
lies in another frame, or comes back to a frame that a reader has long forgotten: then a few KiB decode a MiB or more.

Bound: a reader that keeps the last RECENT bytes of decoded frames, and goes from a blob's begin to its end, decodes at
most FREE + FACTOR × the blob's bytes. (FREE, because the first chunks of a layer that shares much fetch frames which
those that follow will use up.) What would go beyond is stored again, in two steps:

- A chunk that this blob meets for the first time gets a copy of its own, next to what is new in the blob: the frames of
  which the blob uses least, for what they cost, are given up first.
- One that the blob has used before stays where it was, for a recipe knows one place of a chunk. If such chunks alone go
  beyond the bound, the whole run is refused, and comes again in pieces as large as a frame (split.py): these cost no
  more than they hold, however often and in whatever order they come back.

gc asks the same of each blob that it moves chunks of, before it does (upkeep/repack.py).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

import numpy as np

from ..model import U32, U64, Mask

FREE = 32 << 20
"""Bytes that any blob may have decoded beyond FACTOR times its own."""
FACTOR = 2.0
RECENT = 32 << 20
"""Decoded bytes that a reader is sure to have still. PackCache keeps more, but serves several readers at a time."""
NOWHERE = np.uint64(0xFFFFFFFFFFFFFFFF)
"""In place of a frame: the chunk is new."""

Cost = Callable[[int], Iterable[tuple[int, int]]]
"""A frame's name → (name, bytes decoded) of it and, if it leans on one, of its base."""


class Reach:
    """One blob, from its begin to its end. `cost` is asked for each frame that is not among the recent ones; `free` is
    in the place of FREE."""

    def __init__(self, cost: Cost, free: int | None = None) -> None:
        self._cost = cost
        self._free = FREE if free is None else free
        self._recent: OrderedDict[int, tuple[int, int]] = OrderedDict()
        """Frame → (its bytes, the run that read it last), the oldest run first."""
        self._recent_bytes = 0
        self._run = 0
        self._too_long = False  # this run alone reads more than is remembered
        self.seen = 0
        """Bytes of the blob so far."""
        self.decoded = 0
        """Bytes that a reader will have decoded for them."""

    def judge(self, frames: U64, lengths: U32, movable: Mask, *, force: bool = False) -> Mask | None:
        """The next chunks, in order: which of them are to be stored again. None: too far, whatever is done, and nothing
        has been counted; not with `force`.

        `frames`: where each lies, NOWHERE where it is new. `movable`: those that the blob has not used before.
        """
        again = np.zeros(len(frames), np.bool_)
        old = np.flatnonzero(frames != NOWHERE)
        total = int(lengths.sum(dtype=np.uint64))
        decoded = self.decoded + total  # if all of them were stored again
        most = self._free + FACTOR * (self.seen + total)
        fetched: dict[int, int] = {}
        if len(old):
            names, which = np.unique(frames[old], return_inverse=True)
            used = np.bincount(which, weights=lengths[old])
            fixed = np.bincount(which, weights=~movable[old]) > 0
            needs = [self._fetch(int(name)) for name in names]
            costs = np.array([sum(need.values()) for need in needs], np.float64)
            # What cannot be moved comes first, then what is used best.
            for at in np.lexsort((-used / np.maximum(costs, 1.0), ~fixed)):
                mine = {name: size for name, size in needs[at].items() if name not in fetched}
                more = sum(mine.values()) - int(used[at])
                if more <= 0 or decoded + more <= most or (fixed[at] and force):
                    decoded += more
                    fetched |= mine
                elif fixed[at]:
                    return None
                else:
                    again[old[which == at]] = True
            fetched |= {name: self._recent[name][0] for name in names.tolist() if name in self._recent}
        self.seen += total
        self.decoded = decoded
        self._run += 1
        self._too_long = False
        self._remember(fetched.items())
        return again

    def wrote(self, frames: U64) -> None:
        """New chunks went into these frames: a reader has them by then."""
        for name in np.unique(frames).tolist():
            if name not in self._recent:
                self._remember(self._cost(name))

    def _fetch(self, name: int) -> dict[int, int]:
        if name in self._recent:
            return {}
        return {one: size for one, size in self._cost(name) if one not in self._recent}

    def _remember(self, frames: Iterable[tuple[int, int]]) -> None:
        """The run reads these, in whatever order: a reader has all of them still, or none is counted on."""
        if self._too_long:
            return
        for name, size in frames:
            self._recent_bytes += size - self._recent.pop(name, (0, 0))[0]
            self._recent[name] = size, self._run
        while self._recent_bytes > RECENT:
            oldest = next(iter(self._recent.values()))[1]
            self._too_long = oldest == self._run
            while self._recent and next(iter(self._recent.values()))[1] == oldest:
                _, (size, _) = self._recent.popitem(last=False)
                self._recent_bytes -= size
