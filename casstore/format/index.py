"""Index segments: chunk digest → (pack, address), sorted, to be searched in place. Specified in FORMATS.md.

A segment is a multimap: one digest may stand in several packs, and a merge keeps every pair, except those
of packs named as gone. Entries are in order of (digest, pack id, address); pack ids are in ascending order,
so an entry's ordinal orders as its pack id does.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

import numpy as np
from blake3 import blake3

from ..errors import Damaged
from ..kernels import table
from ..model import U8, U32, Buffer, Mask
from .encoding import CHUNK_DIGEST_NAMES, checksum, chunk_digest_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

VERSION = 1
HEADER_SIZE = 64
TRAILER_SIZE = 32

# magic, version, chunk digest, fanout bits, packs, count, 0; then 16 bytes of checksum
_HEADER = struct.Struct("<8sHBBIQ24s")
_MAGIC = b"cassindx"
_ALIGN = 64
_PIECE = 4 << 20

#: Bytes between two wanted runs of entries that a LargeSegment reads along rather than skips.
GAP = 8 << 10

Entry = np.dtype([("digest", "u1", (32,)), ("pack", "<u4"), ("address", "<u4")])
Entries: TypeAlias = "NDArray[np.void]"


class Head(NamedTuple):
    """What a segment's header says; its lengths agree with the file's."""

    chunk_digest: str
    bits: int
    packs: int
    entries: int


def decode_head(data: Buffer, size: int, what: str = "index segment") -> Head:
    """The header in the first HEADER_SIZE bytes of a segment of `size` bytes. Damaged: not such a segment."""
    view = memoryview(data)
    if len(view) < HEADER_SIZE or view[:8] != _MAGIC or checksum(view[:48]) != view[48:64]:
        raise Damaged("bad index header", what=what, offset=0)
    _, version, digest, bits, packs, count, reserved = _HEADER.unpack_from(view)
    if version != VERSION:
        raise Damaged(f"index of unknown format version {version}", what=what, offset=0)
    if digest not in CHUNK_DIGEST_NAMES or bits > table.MAX_BITS or any(reserved):
        raise Damaged("unknown kind of index", what=what, offset=0)
    if _layout(packs, bits, count)[2] + TRAILER_SIZE != size or count >= 1 << 32:
        raise Damaged("index segment of the wrong length", what=what, offset=size)
    return Head(CHUNK_DIGEST_NAMES[digest], bits, packs, count)


def _ids(data: Buffer) -> list[bytes]:
    packed = bytes(data)
    return [packed[i : i + 16] for i in range(0, len(packed), 16)]


@dataclass(frozen=True, slots=True)
class IndexSegment:
    """A segment in memory; its arrays are views of the buffer.

    `pack_ids` ascending; `fanout` (2^bits + 1,): fanout[b] is the first entry whose digest's top `bits` bits
    are at least b; `entries` (n,) of `Entry`.
    """

    chunk_digest: str
    bits: int
    pack_ids: list[bytes]
    fanout: U32
    entries: Entries
    what: str

    @classmethod
    def open(cls, buffer: Buffer, verify: bool = True, what: str = "index segment") -> IndexSegment:
        """A segment in `buffer`, which is all of it. With `verify` every byte is read and checked; without,
        only the header and the sizes: the searches below believe nothing else.

        Damaged: not such a segment.
        """
        view = memoryview(buffer)
        head = decode_head(view[:HEADER_SIZE], len(view), what)
        fanout_at, entries_at, trailer_at = _layout(head.packs, head.bits, head.entries)
        if verify and checksum(view[:trailer_at], length=32) != view[trailer_at:]:
            raise Damaged("index segment fails its checksum", what=what, offset=trailer_at)
        segment = cls(
            head.chunk_digest,
            head.bits,
            _ids(view[HEADER_SIZE : HEADER_SIZE + 16 * head.packs]),
            np.frombuffer(view, "<u4", (1 << head.bits) + 1, fanout_at),
            np.frombuffer(view, Entry, head.entries, entries_at),
            what,
        )
        if verify:
            segment._check()
        return segment

    @property
    def count(self) -> int:
        return len(self.entries)

    def find(self, digests: U8) -> tuple[Mask, U32, U32]:
        """For each of the (n, 32) digests: whether it is here; the ordinal of the pack and the address of its
        first entry. Damaged: the fanout is wrong."""
        try:
            return table.find(self._rows(), self.count, self._fanout(), self.bits, digests)
        except ValueError as error:
            raise Damaged(str(error), what=self.what) from None

    def find_range(self, digests: U8) -> tuple[U32, U32]:
        """For each digest: the number of its first entry, and how many it has. Damaged: the fanout is
        wrong."""
        try:
            return table.find_range(self._rows(), self.count, self._fanout(), self.bits, digests)
        except ValueError as error:
            raise Damaged(str(error), what=self.what) from None

    def entry(self, numbers: U32) -> tuple[U32, U32]:
        """The packs' ordinals and the addresses of these entries. Damaged: an ordinal that is no pack's."""
        rows = self.entries[numbers]
        packs, addresses = rows["pack"].astype(np.uint32), rows["address"].astype(np.uint32)
        if len(packs) and int(packs.max()) >= len(self.pack_ids):
            raise Damaged("index entry of a pack that is not listed", what=self.what)
        return packs, addresses

    def slices(self) -> Iterator[Entries]:
        """All entries, in pieces that fit into memory."""
        yield self.entries

    def _rows(self) -> memoryview:
        return self.entries.view(np.uint8).data

    def _fanout(self) -> memoryview:
        return self.fanout.view(np.uint8).data

    def _check(self) -> None:
        """What a checksum does not tell: that who wrote it was right."""
        if any(a >= b for a, b in zip(self.pack_ids, self.pack_ids[1:], strict=False)):
            raise Damaged("index packs out of order", what=self.what)
        if self.count and int(self.entries["pack"].max()) >= len(self.pack_ids):
            raise Damaged("index entry of a pack that is not listed", what=self.what)
        try:
            fanout = table.build_fanout(self.entries["digest"], self.bits)
        except ValueError as error:
            raise Damaged(str(error), what=self.what) from None
        if not np.array_equal(self.fanout, fanout):
            raise Damaged("index fanout does not match its entries", what=self.what)
        equal = np.flatnonzero(_equal_neighbours(self.entries))
        places = _places(self.entries)
        if np.any(places[equal] >= places[equal + 1]):
            raise Damaged("index entries out of order", what=self.what)


class Ranged(Protocol):
    """Where a LargeSegment reads: an object of `size` bytes."""

    @property
    def size(self) -> int: ...

    def pread(self, offset: int, length: int) -> bytes: ...


class LargeSegment:
    """A segment that is left where it is: pack ids and fanout in memory, entries read as they are asked for.

    Not mapped: a file that is truncated under a map, or cannot be read, kills the process. Entries are not checked by
    the segment's checksum, which is over all of them: whoever relies on one asks the pack that it names.
    """

    def __init__(self, reader: Ranged, what: str = "index segment") -> None:
        self._reader = reader
        self._what = what
        self._head = decode_head(reader.pread(0, min(HEADER_SIZE, reader.size)), reader.size, what)
        fanout_at, self._entries_at, _ = _layout(self._head.packs, self._head.bits, self._head.entries)
        self.pack_ids = _ids(reader.pread(HEADER_SIZE, 16 * self._head.packs))
        self._fanout: U32 = np.frombuffer(reader.pread(fanout_at, 4 * ((1 << self._head.bits) + 1)), "<u4")

    @property
    def count(self) -> int:
        return self._head.entries

    @property
    def chunk_digest(self) -> str:
        return self._head.chunk_digest

    def verify(self, stop: Callable[[], None] = lambda: None) -> None:
        """Read all of it and compare its checksum; `stop` is called now and then. Damaged."""
        end = self._reader.size - TRAILER_SIZE
        hasher = blake3()
        for at in range(0, end, _PIECE):
            stop()
            hasher.update(self._reader.pread(at, min(_PIECE, end - at)))
        if hasher.digest() != self._reader.pread(end, TRAILER_SIZE):
            raise Damaged("index segment fails its checksum", what=self._what, offset=end)

    def slices(self) -> Iterator[Entries]:
        """All entries, in pieces that fit into memory. Damaged."""
        rows = _PIECE // Entry.itemsize
        for first in range(0, self.count, rows):
            length = min(rows, self.count - first) * Entry.itemsize
            yield np.frombuffer(self._reader.pread(self._entries_at + first * Entry.itemsize, length), Entry)

    def near(self, digests: U8) -> IndexSegment:
        """A segment in memory of all entries in the buckets of these digests (n, 32), a few thousand at most. Damaged:
        the file ends early, or is not in order."""
        bits = self._head.bits
        top = np.ascontiguousarray(digests[:, :4]).view(">u4").reshape(-1).astype(np.uint64)
        buckets = np.unique(top >> np.uint64(32 - bits))
        first, past = (self._fanout[(buckets + np.uint64(k)).astype(np.int64)].astype(np.int64) for k in (0, 1))
        if np.any(first > past) or np.any(first[1:] < past[:-1]) or (len(past) and int(past.max()) > self.count):
            raise Damaged("index fanout does not match its entries", what=self._what)
        full = past > first
        first, past = first[full] * Entry.itemsize, past[full] * Entry.itemsize
        heads = np.flatnonzero(np.concatenate([[True], first[1:] - past[:-1] > GAP])) if len(first) else first
        tails = np.append(heads[1:] - 1, len(first) - 1) if len(first) else heads
        runs = [
            self._reader.pread(self._entries_at + int(begin), int(end - begin))
            for begin, end in zip(first[heads], past[tails], strict=True)
        ]
        entries = np.frombuffer(b"".join(runs), Entry)
        few = table.pick_bits(len(entries))
        try:
            fanout = table.build_fanout(entries["digest"], few)
        except ValueError as error:
            raise Damaged(str(error), what=self._what) from None
        return IndexSegment(self._head.chunk_digest, few, self.pack_ids, fanout, entries, self._what)


def encode(
    digests: U8, packs: U32, addresses: U32, pack_ids: Sequence[bytes], chunk_digest: str = "sha256"
) -> bytes:
    """A segment of these entries, in any order: `digests` (n, 32); `packs` ordinals in `pack_ids`; entries
    that stand twice are kept once. ValueError: columns of different length, an ordinal that is no pack's,
    packs named twice."""
    if not len(digests) == len(packs) == len(addresses) or len(set(pack_ids)) != len(pack_ids):
        raise ValueError("columns of different length, or packs named twice")
    if len(packs) and int(packs.max()) >= len(pack_ids):
        raise ValueError("entry of a pack that is not listed")
    ids = sorted(pack_ids)
    places = {pack_id: place for place, pack_id in enumerate(ids)}
    ordinals = np.array([places[pack_id] for pack_id in pack_ids], np.uint32)
    entries = np.empty(len(digests), Entry)
    entries["digest"] = digests
    entries["pack"] = ordinals[packs] if len(packs) else packs
    entries["address"] = addresses
    return _assemble(entries, ids, chunk_digest)


def merge(segments: Sequence[IndexSegment], drop: Collection[bytes] = ()) -> bytes:
    """One segment with every entry of `segments`, except those of packs in `drop`. The segments must have
    been opened with `verify`, or must not be trusted for more than they are. ValueError: no segments, or of
    different chunk digests. Damaged: an entry of a pack that its segment does not list."""
    kinds = {segment.chunk_digest for segment in segments}
    if len(kinds) != 1:
        raise ValueError("segments of one chunk digest merge, at least one")
    ids = sorted({pack_id for segment in segments for pack_id in segment.pack_ids} - set(drop))
    places = {pack_id: place for place, pack_id in enumerate(ids)}
    gone = len(ids)
    parts = []
    for segment in segments:
        packs = segment.entries["pack"]
        if len(packs) and int(packs.max()) >= len(segment.pack_ids):
            raise Damaged("index entry of a pack that is not listed", what=segment.what)
        ordinals = np.array([places.get(pack_id, gone) for pack_id in segment.pack_ids], np.uint32)
        packs = ordinals[packs] if len(packs) else packs
        kept = packs != gone
        part = segment.entries[kept]
        part["pack"] = packs[kept]
        parts.append(part)
    return _assemble(np.concatenate(parts), ids, kinds.pop())


def _assemble(entries: Entries, ids: list[bytes], chunk_digest: str) -> bytes:
    if any(len(pack_id) != 16 for pack_id in ids):
        raise ValueError("a pack id is 16 bytes")
    entries = _sorted(entries)
    count = len(entries)
    if count >= 1 << 32:
        raise ValueError("too many entries for one index segment")
    bits = table.pick_bits(count)
    head = _HEADER.pack(_MAGIC, VERSION, chunk_digest_number(chunk_digest), bits, len(ids), count, b"")
    fanout_at, entries_at, trailer_at = _layout(len(ids), bits, count)
    out = bytearray(trailer_at + TRAILER_SIZE)
    out[:HEADER_SIZE] = head + checksum(head)
    out[HEADER_SIZE : HEADER_SIZE + 16 * len(ids)] = b"".join(ids)
    np.frombuffer(out, "<u4", (1 << bits) + 1, fanout_at)[:] = table.build_fanout(entries["digest"], bits)
    np.frombuffer(out, Entry, count, entries_at)[:] = entries
    out[trailer_at:] = checksum(memoryview(out)[:trailer_at], length=32)
    return bytes(out)


def _layout(packs: int, bits: int, count: int) -> tuple[int, int, int]:
    """Where fanout, entries and trailer begin."""
    fanout = -(-(HEADER_SIZE + 16 * packs) // _ALIGN) * _ALIGN
    entries = -(-(fanout + 4 * ((1 << bits) + 1)) // _ALIGN) * _ALIGN
    return fanout, entries, entries + Entry.itemsize * count


def _sorted(entries: Entries) -> Entries:
    """In order of (digest, pack, address), each once."""
    order = table.order(entries["digest"])
    entries = entries[order]
    equal = _equal_neighbours(entries)
    if not equal.any():
        return entries
    # Few digests stand more than once: only those are put in order of place.
    tied = np.zeros(len(entries), bool)
    tied[1:] |= equal
    tied[:-1] |= equal
    group = np.cumsum(np.concatenate(([True], ~equal)))[tied]
    members = entries[tied]
    entries[tied] = members[np.lexsort((_places(members), group))]
    places = _places(entries)
    fresh = np.ones(len(entries), bool)
    fresh[1:] = ~(equal & (places[1:] == places[:-1]))
    return entries[fresh]


def _equal_neighbours(entries: Entries) -> Mask:
    """For each entry but the last, whether the next one has the same digest."""
    words = entries.view(np.uint8).reshape(-1, Entry.itemsize).view("<u8")[:, :4]
    equal: Mask = np.all(words[1:] == words[:-1], axis=1)
    return equal


def _places(entries: Entries) -> NDArray[np.uint64]:
    """Pack and address as one number."""
    places: NDArray[np.uint64] = (entries["pack"].astype(np.uint64) << np.uint64(32)) | entries["address"]
    return places
