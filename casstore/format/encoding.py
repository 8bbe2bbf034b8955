"""What the formats share: checksums, the names of chunk digests, and columns of integers.

A *column* is an array of unsigned integers, kept as a base (its minimum) and, for each value, `value - base`
in the fewest whole bytes that hold the largest. The bytes of all columns are laid out plane by plane (all
lowest bytes, then all second ones, …) and compressed together by zstd. A column of equal values takes no
bytes per value.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence

import numpy as np
from blake3 import blake3

from ..errors import Damaged
from ..model import U64, Buffer
from .storefile import CHUNK_DIGESTS

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CHUNK_DIGEST_NAMES = {number: name for name, number in CHUNK_DIGESTS.items()}

_COLUMN = struct.Struct("<QB")
_LENGTH = struct.Struct("<I")
_DECODER: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 23}


def checksum(*parts: Buffer, length: int = 16) -> bytes:
    """The first `length` bytes of the BLAKE3 of `parts`, one after the other."""
    hasher = blake3()
    for part in parts:
        hasher.update(part)
    return bytes(hasher.digest(length=length))


def chunk_digest_number(name: str) -> int:
    """The number of a chunk digest; ValueError for one that no format knows."""
    try:
        return CHUNK_DIGESTS[name]
    except KeyError:
        raise ValueError(f"unknown chunk digest {name!r}") from None


def deflated(raw: Buffer, level: int) -> bytes:
    """`raw` as one zstd frame."""
    return bytes(zstd.compress(raw, level))


def inflated(stored: Buffer, raw_length: int, what: str) -> bytes:
    """The `raw_length` bytes in the one zstd frame `stored`. Memory follows what is there, not what is
    claimed. Damaged: not exactly one frame of exactly that length.
    """
    decoder = zstd.ZstdDecompressor(options=_DECODER)
    try:
        raw = bytes(decoder.decompress(stored, raw_length + 1))
    except zstd.ZstdError as error:
        raise Damaged(f"undecodable zstd data: {error}", what=what) from None
    if len(raw) != raw_length or not decoder.eof or decoder.unused_data:
        raise Damaged("zstd data of another length than claimed", what=what)
    return raw


def encode_columns(columns: Sequence[U64], level: int) -> bytes:
    """The section that `decode_columns` reads."""
    heads = bytearray()
    planes = bytearray()
    for column in columns:
        base = int(column.min()) if len(column) else 0
        rest = column - np.uint64(base)
        width = (int(rest.max()).bit_length() + 7) // 8 if len(column) else 0
        heads += _COLUMN.pack(base, width)
        planes += rest.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :width].T.tobytes()
    stored = deflated(planes, level) if planes else b""
    return bytes(heads) + _LENGTH.pack(len(stored)) + stored


def decode_columns(
    data: memoryview, at: int, counts: Sequence[int], what: str, maximum: int
) -> tuple[list[U64], int]:
    """The columns of the section at `at`, given how many values each has, and where the section ends.

    `maximum` caps the bytes of the arrays, 8 a value. Damaged: anything that cannot be such a section.
    """
    end = at + _COLUMN.size * len(counts) + _LENGTH.size
    if end > len(data):
        raise Damaged("columns end early", what=what, offset=at)
    heads = [_COLUMN.unpack_from(data, at + _COLUMN.size * i) for i in range(len(counts))]
    (stored_length,) = _LENGTH.unpack_from(data, end - _LENGTH.size)
    if stored_length > len(data) - end or any(width > 8 for _, width in heads):
        raise Damaged("columns end early", what=what, offset=at)
    raw_length = sum(width * count for (_, width), count in zip(heads, counts, strict=True))
    if 8 * sum(counts) > maximum:
        raise Damaged("columns larger than any that is written", what=what, offset=at)
    raw = inflated(data[end : end + stored_length], raw_length, what) if raw_length else b""
    if not raw_length and stored_length:
        raise Damaged("columns of constants with data", what=what, offset=at)
    columns = []
    begin = 0
    for (base, width), count in zip(heads, counts, strict=True):
        planes = np.frombuffer(raw, np.uint8, width * count, begin).reshape(width, count)
        begin += width * count
        values = np.zeros((count, 8), np.uint8)
        values[:, :width] = planes.T
        column = values.view("<u8").reshape(-1).astype(np.uint64, copy=False)
        if count and int(column.max()) > 2**64 - 1 - base:
            raise Damaged("column overflows", what=what, offset=at)
        columns.append(column + np.uint64(base))
    return columns, end + stored_length
