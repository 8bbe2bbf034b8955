"""What a reader of a blob would decode, wherever gc puts its chunks: the bound of flow/reach.py, before they move."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..flow import restore
from ..flow.reach import NOWHERE, Cost, Reach
from ..model import FRAME_BITS, MAX_FRAMES, U64, BlobInfo, Mask
from ..store.volume import Volume

_ELSEWHERE = 1 << 60
"""Added to the name of a frame that stays where it is: number of the blob's pack << 10 | the frame's."""


class Reading:
    """One blob, with its recipe in memory. Damaged, NotFound: it cannot be read."""

    def __init__(self, volume: Volume, info: BlobInfo, going: Sequence[tuple[int, U64]]) -> None:
        """`going`: the chunks that are to move: number of the pack in the blob's uses, ascending, and their addresses
        there. They are counted through."""
        self._reading = restore.Reading(volume, info)
        frames = (volume.packs.pack(use.key).frames for use in info.place.uses)
        self._sizes = [(one["raw"].tolist(), one["base"].tolist()) for one in frames]
        places = self._reading.packs.astype(np.uint64) << np.uint64(32) | self._reading.addresses
        moving = np.concatenate([np.uint64(pack << 32) | addresses for pack, addresses in going])
        at = np.searchsorted(moving, places)
        stays = np.append(moving, NOWHERE)[at] != places
        self._which = np.where(stays, len(moving), at)  # of the moving chunks; one past them: stays
        self._frames: U64 = places >> np.uint64(FRAME_BITS) | np.uint64(_ELSEWHERE)

    def _cost(self, name: int) -> list[tuple[int, int]]:
        pack, number = (name ^ _ELSEWHERE) >> 10, name & (MAX_FRAMES - 1)
        sizes, bases = self._sizes[pack]
        base = bases[number] - 1
        leans = [] if base < 0 else [(_ELSEWHERE | pack << 10 | base, sizes[base])]
        return [(name, sizes[number]), *leans]

    def too_far(self, frames: U64, movable: Mask, cost: Cost, check: Callable[[], None]) -> Mask | None:
        """Which of the chunks that move are not to be in these frames, if the blob is to stay within its bound. None:
        that does not help, whichever of the `movable` are elsewhere."""
        reach = Reach(lambda name: self._cost(name) if name & _ELSEWHERE else cost(name))
        told = np.zeros(len(frames) + 1, np.bool_)
        there, may = np.append(frames, NOWHERE), np.append(movable, False)
        for entries, lengths in self._reading.runs():
            check()
            which = self._which[entries]
            names = np.where(which < len(frames), there[which], self._frames[entries])
            names[told[which]] = NOWHERE
            again = reach.judge(names, lengths, may[which])
            if again is None:
                return None
            told[which[again]] = True
        return told[:-1]
