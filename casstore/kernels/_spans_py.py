"""The pure-Python twin of spans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..model import Buffer
from ._arrays import column, columns, octets

IMPLEMENTATION = "python"


def copy(
    dst: Any, dst_starts: Any, sources: Sequence[Buffer], which: Any, src_starts: Any, lengths: Any
) -> None:
    """Piece i: `lengths[i]` bytes of `sources[which[i]]` at `src_starts[i]` to the writable `dst` at
    `dst_starts[i]`, in order of i. Pieces may overlap; a source may be `dst` itself. ValueError: nothing was
    copied."""
    target = memoryview(dst)
    if target.readonly:
        raise BufferError("a writable buffer is wanted")
    target = octets(target)
    views = [octets(source) for source in sources]
    to, at, sizes = columns(np.uint64, dst_starts, src_starts, lengths)
    numbers = column(which, np.uint32)
    if len(numbers) != len(to):
        raise ValueError(f"columns differ in length: {len(numbers)}, {len(to)}")
    pieces = list(zip(to.tolist(), numbers.tolist(), at.tolist(), sizes.tolist(), strict=True))
    for index, (start, number, origin, length) in enumerate(pieces):
        if number >= len(views):
            raise ValueError(f"piece {index} names source {number} of {len(views)}")
        if origin + length > len(views[number]):
            raise ValueError(f"piece {index} reaches outside of its source")
        if start + length > len(target):
            raise ValueError(f"piece {index} reaches outside of its target")
    for start, number, origin, length in pieces:
        target[start : start + length] = views[number][origin : origin + length]


def equal(a: Buffer, a_starts: Any, b: Buffer, b_starts: Any, lengths: Any) -> int:
    """The index of the first piece whose bytes in `a` and in `b` differ; -1 if none does."""
    left, right = octets(a), octets(b)
    in_a, in_b, sizes = columns(np.uint64, a_starts, b_starts, lengths)
    pieces = list(zip(in_a.tolist(), in_b.tolist(), sizes.tolist(), strict=True))
    for index, (start, _, length) in enumerate(pieces):
        if start + length > len(left):
            raise ValueError(f"piece {index} reaches outside of the first buffer")
    for index, (_, start, length) in enumerate(pieces):
        if start + length > len(right):
            raise ValueError(f"piece {index} reaches outside of the second buffer")
    for index, (start, other, length) in enumerate(pieces):
        if left[start : start + length] != right[other : other + length]:
            return index
    return -1
