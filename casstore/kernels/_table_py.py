"""The pure-Python twin of table."""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..model import U8, U32, U64, Buffer, Mask
from ._arrays import column, digest_rows, octets, within

IMPLEMENTATION = "python"

#: Most bits of a fanout: 64 MiB of it.
MAX_BITS = 24
ENTRY = 40

#: ChunkMap: the value of a digest that was claimed and not set yet.
PENDING = 2**64 - 1
#: ChunkMap: what `get` says of a digest that is not there. Cannot be set.
MISSING = 2**64 - 2


def pick_bits(count: int) -> int:
    """The fanout bits for a table of `count` entries: 2–4 in a bucket on average, more beyond 2^26."""
    return min(MAX_BITS, max(0, count.bit_length() - 2))


def _rows(digests: Any) -> list[bytes]:
    return [row.tobytes() for row in digest_rows(digests)]


def _locate(
    entries_buf: Buffer, count: int, fanout_buf: Buffer, bits: int, digests: Any
) -> Iterator[tuple[memoryview, int, int]]:
    """For each digest: the entries, the number of its first one (or where it would be), how many it has."""
    entries, fanout = octets(entries_buf), octets(fanout_buf)
    within("bits", bits, MAX_BITS)
    within("count", count, min(len(entries) // ENTRY, 2**32 - 1))
    if len(fanout) < 4 * (2**bits + 1):
        raise ValueError(f"a fanout of {bits} bits is longer than {len(fanout)} bytes")

    def digest_at(i: int) -> bytes:
        return entries[i * ENTRY : i * ENTRY + 32].tobytes()

    for digest in _rows(digests):
        bucket = int.from_bytes(digest[:4], "big") >> (32 - bits)
        low, high = struct.unpack_from("<2I", fanout, 4 * bucket)
        if not low <= high <= count:
            raise ValueError(f"bucket {bucket} of the fanout is not a range of entries")
        first = low + bisect_left(range(low, high), digest, key=digest_at)
        past = low + bisect_right(range(low, high), digest, key=digest_at)
        yield entries, first, past - first


def find(
    entries_buf: Buffer, count: int, fanout_buf: Buffer, bits: int, digests: Any
) -> tuple[Mask, U32, U32]:
    """For each of the (n, 32) `digests`: whether it is there, and the pack and address of its first entry
    (zeros, if not). ValueError: the buffers are too short for `count` and `bits`, or the fanout is wrong."""
    found, packs, addresses = [], [], []
    for entries, first, many in _locate(entries_buf, count, fanout_buf, bits, digests):
        pack, address = struct.unpack_from("<2I", entries, first * ENTRY + 32) if many else (0, 0)
        found.append(many > 0)
        packs.append(pack)
        addresses.append(address)
    return np.array(found, np.bool_), np.array(packs, np.uint32), np.array(addresses, np.uint32)


def find_range(
    entries_buf: Buffer, count: int, fanout_buf: Buffer, bits: int, digests: Any
) -> tuple[U32, U32]:
    """For each digest: the number of its first entry (where it would be, if absent), and how many it has."""
    firsts, counts = [], []
    for _, first, many in _locate(entries_buf, count, fanout_buf, bits, digests):
        firsts.append(first)
        counts.append(many)
    return np.array(firsts, np.uint32), np.array(counts, np.uint32)


def build_fanout(digests: Any, bits: int) -> U32:
    """The fanout (2^bits + 1,) of ascending digests (n, 32), which may be a column of wider rows. ValueError:
    not ascending."""
    within("bits", bits, MAX_BITS)
    rows = _rows(digests)
    for index in range(1, len(rows)):
        if rows[index - 1] > rows[index]:
            raise ValueError(f"digest {index} is smaller than the one before it")
    sizes = np.zeros(2**bits + 1, np.uint32)
    for row in rows:
        sizes[(int.from_bytes(row[:4], "big") >> (32 - bits)) + 1] += 1
    return np.cumsum(sizes, dtype=np.uint32)


def order(digests: Any) -> U32:
    """What sorts the digests (n, 32): their numbers, ascending by digest, equal ones in their order."""
    rows = _rows(digests)
    return np.array(sorted(range(len(rows)), key=rows.__getitem__), np.uint32)


class ChunkMap:
    """A map from digests to uint64 values that knows which digests were never seen before. Calls exclude one
    another: of two threads that claim a digest, one is the first."""

    def __init__(self) -> None:
        self._values: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._values)

    def claim(self, digests: Any) -> Mask:
        """True for each digest that was not in the map; it then is, as PENDING. In one call only the first of
        equal digests is True. MemoryError: none was claimed."""
        first = []
        for row in _rows(digests):
            first.append(row not in self._values)
            self._values.setdefault(row, PENDING)
        return np.array(first, np.bool_)

    def set(self, digests: Any, values: Any) -> None:
        """Give each digest, claimed or not, its value. ValueError: MISSING is not a value."""
        rows, numbers = _rows(digests), column(values, np.uint64).tolist()
        if len(rows) != len(numbers):
            raise ValueError(f"{len(rows)} digests, {len(numbers)} values")
        if MISSING in numbers:
            raise ValueError("MISSING is not a value")
        self._values.update(zip(rows, numbers, strict=True))

    def get(self, digests: Any) -> U64:
        """The value of each digest: MISSING where it is not in the map."""
        return np.array([self._values.get(row, MISSING) for row in _rows(digests)], np.uint64)

    def export(self) -> tuple[U8, U64]:
        """All digests (n, 32), ascending, and their values."""
        rows = sorted(self._values)
        digests = np.frombuffer(bytearray(b"".join(rows)), np.uint8).reshape(-1, 32)
        return digests, np.array([self._values[row] for row in rows], np.uint64)
