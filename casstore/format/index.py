"""Index segments: chunk digest → (pack, address), sorted, to be mapped and searched. Specified in FORMATS.md.

A segment is a multimap: one digest may stand in several packs, and a merge keeps every pair, except those of packs
named as gone. Entries are in order of (digest, pack id, address); pack ids are in ascending order, so an entry's
ordinal orders as its pack id does.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import Damaged
from ..model import U8, U32, U64, Buffer
from .encoding import CHUNK_DIGEST_NAMES, checksum, chunk_digest_number

VERSION = 1
HEADER_SIZE = 64
TRAILER_SIZE = 32
#: Most bits of a digest that the fanout tells apart.
MAX_BITS = 24

_HEADER = struct.Struct("<8sHBBIQ24s")  # magic, version, chunk digest, fanout bits, packs, count, 0; then checksum
_MAGIC = b"cassindx"
_ALIGN = 64

Entry = np.dtype([("digest", "u1", (32,)), ("pack", "<u4"), ("address", "<u4")])
Entries = NDArray[np.void]


@dataclass(frozen=True, slots=True)
class IndexSegment:
    """A segment in memory or mapped; its arrays are views of the buffer.

    `pack_ids` ascending; `fanout` (2^bits + 1,): fanout[b] is the first entry whose digest's top `bits` bits are at
    least b; `entries` (n,) of `Entry`.
    """

    chunk_digest: str
    bits: int
    pack_ids: list[bytes]
    fanout: U32
    entries: Entries

    @classmethod
    def open(cls, buffer: Buffer, verify: bool = True, what: str = "index segment") -> IndexSegment:
        """A segment in `buffer`, which is all of it. With `verify` every byte is read and checked; without, only the
        header and the sizes, and the entries are to be searched by code that believes none of them.

        Damaged: not such a segment.
        """
        view = memoryview(buffer)
        if len(view) < HEADER_SIZE or view[:8] != _MAGIC or checksum(view[:48]) != view[48:64]:
            raise Damaged("bad index header", what=what, offset=0)
        _, version, digest, bits, packs, count, reserved = _HEADER.unpack_from(view)
        if version != VERSION or digest not in CHUNK_DIGEST_NAMES or not 1 <= bits <= MAX_BITS or any(reserved):
            raise Damaged(f"unknown index format (version {version})", what=what, offset=0)
        fanout_at, entries_at, trailer_at = _layout(packs, bits, count)
        if trailer_at + TRAILER_SIZE != len(view):
            raise Damaged("index segment of the wrong length", what=what, offset=min(trailer_at, len(view)))
        if verify and checksum(view[:trailer_at], length=32) != view[trailer_at:]:
            raise Damaged("index segment fails its checksum", what=what, offset=trailer_at)
        ids = bytes(view[HEADER_SIZE : HEADER_SIZE + 16 * packs])
        segment = cls(
            CHUNK_DIGEST_NAMES[digest],
            bits,
            [ids[i : i + 16] for i in range(0, len(ids), 16)],
            np.frombuffer(view, "<u4", (1 << bits) + 1, fanout_at),
            np.frombuffer(view, Entry, count, entries_at),
        )
        if verify:
            segment._check(what)
        return segment

    def _check(self, what: str) -> None:
        """What a checksum does not tell: that who wrote it was right."""
        count = len(self.entries)
        if any(a >= b for a, b in zip(self.pack_ids, self.pack_ids[1:], strict=False)):
            raise Damaged("index packs out of order", what=what)
        if count and int(self.entries["pack"].max()) >= len(self.pack_ids):
            raise Damaged("index entry of a pack that is not listed", what=what)
        if not np.array_equal(self.fanout, _fanout(self.entries, self.bits)):
            raise Damaged("index fanout does not match its entries", what=what)
        if not np.array_equal(_order(self.entries), np.arange(count)):
            raise Damaged("index entries out of order", what=what)


def encode(
    digests: U8, packs: U32, addresses: U32, pack_ids: Sequence[bytes], chunk_digest: str = "sha256"
) -> bytes:
    """A segment of these entries, in any order: `digests` (n, 32); `packs` ordinals in `pack_ids`; pairs that stand
    twice are kept once. ValueError: columns of different length, an ordinal that is no pack's, packs named twice."""
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
    """One segment with every entry of `segments`, except those of packs in `drop`. ValueError: no segments, or of
    different chunk digests."""
    kinds = {segment.chunk_digest for segment in segments}
    if len(kinds) != 1:
        raise ValueError("segments of one chunk digest merge, at least one")
    ids = sorted({pack_id for segment in segments for pack_id in segment.pack_ids} - set(drop))
    places = {pack_id: place for place, pack_id in enumerate(ids)}
    gone = len(ids)
    parts = []
    for segment in segments:
        ordinals = np.array([places.get(pack_id, gone) for pack_id in segment.pack_ids], np.uint32)
        packs = ordinals[segment.entries["pack"]]
        kept = packs != gone
        part = segment.entries[kept]
        part["pack"] = packs[kept]
        parts.append(part)
    return _assemble(np.concatenate(parts), ids, kinds.pop())


def _assemble(entries: Entries, ids: list[bytes], chunk_digest: str) -> bytes:
    entries = entries[_order(entries)]
    if len(entries) > 1:
        words = entries.view(np.uint8).reshape(-1, Entry.itemsize).view("<u8")
        fresh = np.ones(len(entries), bool)
        np.any(words[1:] != words[:-1], axis=1, out=fresh[1:])
        if not fresh.all():
            entries = entries[fresh]
    count = len(entries)
    if count >= 1 << 32:
        raise ValueError("too many entries for one index segment")
    bits = _pick_bits(count)
    head = _HEADER.pack(_MAGIC, VERSION, chunk_digest_number(chunk_digest), bits, len(ids), count, b"")
    fanout_at, entries_at, trailer_at = _layout(len(ids), bits, count)
    out = bytearray(trailer_at + TRAILER_SIZE)
    out[:HEADER_SIZE] = head + checksum(head)
    out[HEADER_SIZE : HEADER_SIZE + 16 * len(ids)] = b"".join(ids)
    np.frombuffer(out, "<u4", (1 << bits) + 1, fanout_at)[:] = _fanout(entries, bits)
    np.frombuffer(out, Entry, count, entries_at)[:] = entries
    out[trailer_at:] = checksum(memoryview(out)[:trailer_at], length=32)
    return bytes(out)


def _layout(packs: int, bits: int, count: int) -> tuple[int, int, int]:
    """Where fanout, entries and trailer begin."""
    fanout = -(-(HEADER_SIZE + 16 * packs) // _ALIGN) * _ALIGN
    entries = -(-(fanout + 4 * ((1 << bits) + 1)) // _ALIGN) * _ALIGN
    return fanout, entries, entries + Entry.itemsize * count


def _pick_bits(count: int) -> int:
    """So many that a bucket holds two to four entries."""
    return min(max((count // 4).bit_length(), 1), MAX_BITS)


def _fanout(entries: Entries, bits: int) -> U32:
    """Entries are in order already, so counting is enough."""
    buckets = _words(entries["digest"], ">u4", 1)[:, 0] >> np.uint32(32 - bits)
    counts = np.bincount(buckets, minlength=1 << bits)
    return np.concatenate(([0], np.cumsum(counts))).astype("<u4")


def _words(digests: U8, kind: str, words: int) -> U64:
    """The first words of each digest, so that they order as its bytes do."""
    head = np.ascontiguousarray(digests[:, : words * np.dtype(kind).itemsize])
    return head.view(kind).astype(kind.replace(">", "<"))


def _order(entries: Entries) -> NDArray[np.int64]:
    """The order by (digest, pack, address), stable. Digests are told apart by their first 8 bytes, nearly always; the
    few runs that are not are then sorted in full."""
    first = _words(entries["digest"], ">u8", 1)[:, 0]
    order: NDArray[np.int64] = np.argsort(first, kind="stable")
    first = first[order]
    same = first[1:] == first[:-1]
    if same.any():
        tied = np.zeros(len(order), bool)
        tied[1:] |= same
        tied[:-1] |= same
        members = order[tied]
        words = _words(entries["digest"][members], ">u8", 4)
        keys = (entries["address"][members], entries["pack"][members], *(words[:, i] for i in (3, 2, 1, 0)))
        order[tied] = members[np.lexsort(keys)]
    return order
