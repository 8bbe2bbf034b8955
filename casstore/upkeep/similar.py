"""Which earlier frame is most like this one: found by what they have in common, not by names.

A frame is cut into pieces of about 1 KiB and each is hashed; the frame whose pieces make up the most bytes of the new
one is its base. Pieces that are equal to the byte are just what a compressor with that base as prefix will reuse.
"""

from __future__ import annotations

import numpy as np

from ..kernels import hashing
from ..kernels.cut import cut
from ..model import U64, Buffer

PIECE = (256, 1024, 4096)
"""Smallest, average, largest piece (bytes)."""
WORTH = 0.15
"""Share of a frame's bytes that a base must have in common with it."""


class Similar:
    """Remembers the pieces of frames, in memory: about 16 bytes a KiB of frame."""

    def __init__(self) -> None:
        self._frame_of: dict[int, int] = {}

    def pieces(self, raw: Buffer) -> tuple[U64, U64]:
        """(names, lengths) of a frame's pieces, (n,) uint64 both; names are the first 8 bytes of their SHA-256."""
        starts, lengths, _ = cut(
            raw,
            np.zeros(1, np.uint64),
            np.array([len(memoryview(raw))], np.uint64),
            np.zeros(1, np.uint8),
            True,
            *PIECE,
        )
        names = hashing.names(raw, starts, lengths)
        return np.ascontiguousarray(names[:, :8]).view(np.uint64).reshape(-1), lengths.astype(np.uint64)

    def best(self, names: U64, lengths: U64) -> int | None:
        """The remembered frame with the most bytes in common, None where none has enough."""
        shared: dict[int, int] = {}
        get = self._frame_of.get
        for name, length in zip(names.tolist(), lengths.tolist(), strict=True):
            frame = get(name)
            if frame is not None:
                shared[frame] = shared.get(frame, 0) + length
        if not shared:
            return None
        frame = max(shared, key=lambda k: (shared[k], -k))
        return frame if shared[frame] >= WORTH * float(lengths.sum()) else None

    def remember(self, frame: int, names: U64) -> None:
        """Make `frame` a candidate for later ones."""
        for name in names.tolist():
            self._frame_of.setdefault(name, frame)

    def forget(self) -> None:
        """Start anew (bases lie in the same pack as what leans on them)."""
        self._frame_of.clear()
