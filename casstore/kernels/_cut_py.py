"""The pure-Python twin of `_native/cut.c`, its oracle: the same cuts, the constants from their derivation."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import numpy as np

from ..model import U8, U32, U64, Buffer
from ._arrays import columns, octets

IMPLEMENTATION = "python"

_WINDOW = 32
_LEAST_MINIMUM = 64
_GREATEST_MAXIMUM = 1 << 28


def _gear() -> list[int]:
    """G of `_native/cut.h`: for each byte value, the constant of its low nibble ^ that of its high one."""
    constants = b"".join(sha256(b"casstore gear32n 6 %d" % k).digest() for k in range(4))
    words = struct.unpack("<32I", constants)
    low, high = words[:16], words[16:]
    return [low[byte & 15] ^ high[byte >> 4] for byte in range(256)]


_GEAR = _gear()


def segments(starts: Any, lengths: Any, whole: Any) -> tuple[U64, U64, U8]:
    """The columns that `cut` takes, as it works on them; `whole` may be a mask as well."""
    starts, lengths = columns(np.uint64, starts, lengths)
    whole = np.asarray(whole) != 0
    if whole.shape != starts.shape:
        raise ValueError("whole must be as long as starts")
    return starts, lengths, whole.astype(np.uint8)


def cut(
    buf: Buffer,
    starts: U64 | Sequence[int],
    lengths: U64 | Sequence[int],
    whole: U8 | Sequence[int],
    final: bool,
    minimum: int,
    average: int,
    maximum: int,
) -> tuple[U64, U32, int]:
    """Cut segments of `buf` into chunks: (starts of the chunks in `buf`, their lengths, tail).

    Segment i is `lengths[i]` bytes from `starts[i]`: one payload, or a payload from one of its cuts on.
    `whole[i]` makes it one chunk (then < 2³² bytes); an empty one makes none. With `final` false the last
    segment may go on beyond the buffer: it gets only those cuts that no further byte can change, and
    `tail` is how many of its bytes are left uncut, to be given again with those that follow. So the cuts
    do not depend on how a payload was chopped.

    64 ≤ minimum ≤ average ≤ maximum ≤ 2²⁸ (bytes), average a power of two. ValueError: limits that are
    not so, or a segment outside the buffer.
    """
    view = octets(buf)
    if not (
        _LEAST_MINIMUM <= minimum <= average <= maximum <= _GREATEST_MAXIMUM and average & (average - 1) == 0
    ):
        raise ValueError("cut limits out of range")
    rows = [column.tolist() for column in segments(starts, lengths, whole)]
    chunks: list[tuple[int, int]] = []
    tail = 0
    for start, length, once in zip(*rows, strict=True):
        if start + length > len(view) or (once and length >= 1 << 32):
            raise ValueError("a segment outside the buffer")
    for i, (start, length, once) in enumerate(zip(*rows, strict=True), 1):
        ends = final or i < len(rows[0])
        end = start + length
        while start < end:
            if once:
                size = end - start if ends else 0
            else:
                size = _first_chunk(view[start:end], ends, minimum, average, maximum)
            if not size:
                tail = end - start
                break
            chunks.append((start, size))
            start += size
    table = np.array(chunks, np.uint64).reshape(len(chunks), 2)
    return table[:, 0].copy(), table[:, 1].astype(np.uint32), tail


def _first_chunk(view: memoryview, ends: bool, minimum: int, average: int, maximum: int) -> int:
    """Length of the first chunk of `view`, 0 where further bytes may tell. `ends`: there are none."""
    if ends and len(view) <= minimum:
        return len(view)
    bits = average.bit_length() - 1
    strict, loose = 1 << (32 - bits - 2), 1 << (32 - bits + 2)
    h = 0
    for length, byte in enumerate(view[minimum - _WINDOW : maximum], minimum - _WINDOW + 1):
        h = (h << 1) + _GEAR[byte] & 0xFFFFFFFF
        if length >= minimum and h < (strict if length < average else loose):
            return length
    if len(view) >= maximum:
        return maximum
    return len(view) if ends else 0
