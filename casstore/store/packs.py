"""Packs on the object door: writing frames as they are made, sealing, and reading frames back, checked.

A *shelf* of open packs gives out frame numbers before the frames are compressed, so that a chunk's address is known the
moment it is first seen; frames may then be written in any order.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ..codec import frame as frame_codec
from ..digest import Digest
from ..errors import Damaged
from ..format import pack as pack_format
from ..format.pack import DataTable, Frames, MetadataTable, PackKind, Record
from ..model import MAX_FRAMES, U8, U32, Buffer, Place
from .objects import ObjectReader, Objects, Staged, pack_key
from .objects import pack_id as pack_id_of

DATA_TARGET = 64 << 20
"""Stored bytes after which a data pack is sealed."""
METADATA_FRAME = 256 << 10
GAP = 64 << 10
"""Bytes between two wanted frames that are read along rather than skipped."""
READ = 8 << 20
"""Largest read that neighbours are joined into."""
SYNC_EVERY = 16 << 20
"""Bytes after which written frames are pushed to the disk early, so that sealing does not wait for all of them."""


class Slot(NamedTuple):
    """A frame number given out: `pack` counts the packs of one shelf, `number` the frames of that pack."""

    pack: int
    number: int


@dataclass(slots=True)
class Sealed:
    """A pack that is complete in the staging folder: what the commit and the index need of it."""

    key: str
    pack_id: bytes
    staged: Staged
    size: int
    chunk_bytes: int
    digests: U8
    addresses: U32


@dataclass(slots=True)
class _Open:
    pack_id: bytes
    staged: Staged
    size: int
    promised: int = 0
    written: int = 0
    unsynced: int = 0
    closed: bool = False
    frames: dict[int, Frames] = field(default_factory=dict)
    chunks: dict[int, tuple[U8, U32, U32]] = field(default_factory=dict)


class PackShelf:
    """The data packs that one command writes under one lease. Thread-safe. `chunk_digest`: the store's, for the packs
    to say.

    `begin(key, kind)` must have the pending row on disk before it returns (PROTOCOL: put.begin).
    """

    def __init__(
        self,
        objects: Objects,
        lease: int,
        begin: Callable[[str, str], None],
        target: int = DATA_TARGET,
        *,
        chunk_digest: str = "sha256",
    ) -> None:
        self._objects = objects
        self._lease = lease
        self._begin = begin
        self._target = target
        self._chunk_digest = chunk_digest
        self._packs: list[_Open] = []
        self._lock = threading.Lock()
        self._sealed: dict[int, Sealed] = {}

    def open_frame(self) -> Slot:
        """A number for a frame that will be written later; every slot given out must be written."""
        with self._lock:
            if not self._packs or self._full(self._packs[-1]):
                self._packs.append(self._create())
            pack = self._packs[-1]
            number = pack.promised
            pack.promised += 1
            return Slot(len(self._packs) - 1, number)

    def _full(self, pack: _Open) -> bool:
        # Frames not yet written count at the average of those that are: otherwise a slow compressor overfills a pack.
        average = pack.size // pack.written if pack.written else 1 << 19
        if pack.promised >= MAX_FRAMES or pack.size + (pack.promised - pack.written) * average >= self._target:
            pack.closed = True
        return pack.closed

    def _create(self) -> _Open:
        pack_id = secrets.token_bytes(16)
        key = pack_key(pack_id)
        self._begin(key, "data")
        staged = self._objects.stage(self._lease, key)
        header = pack_format.encode_header(PackKind.DATA, pack_id, self._chunk_digest)
        staged.write(header)
        return _Open(pack_id, staged, len(header))

    def key_of(self, pack: int) -> str:
        """The object key of the shelf's pack number `pack`."""
        return pack_key(self._packs[pack].pack_id)

    def write_frame(
        self,
        slot: Slot,
        codec: int,
        raw_length: int,
        stored: Buffer,
        chunks: tuple[U8, U32, U32],
        base: int | None = None,
    ) -> None:
        """Append one compressed frame. `chunks` = digests (n,32), addresses (n,), lengths (n,)."""
        header = pack_format.encode_frame(slot.number, codec, raw_length, stored, base)
        with self._lock:
            pack = self._packs[slot.pack]
            offset = pack.size
            pack.staged.write(header)
            pack.staged.write(stored)
            pack.size += len(header) + len(stored)
            pack.written += 1
            pack.frames[slot.number] = pack_format.frame_row(offset, header)
            pack.chunks[slot.number] = chunks
            pack.unsynced += len(stored)
            push, pack.unsynced = (True, 0) if pack.unsynced >= SYNC_EVERY else (False, pack.unsynced)
        if push:
            pack.staged.push()

    def seal(self) -> list[Sealed]:
        """Close every pack: table and trailer written and re-read. All slots must have been written."""
        with self._lock:
            for index, pack in enumerate(self._packs):
                if index not in self._sealed:
                    self._sealed[index] = self._seal(pack)
            return [self._sealed[index] for index in sorted(self._sealed)]

    def close(self) -> None:
        """Close the files; what was not published goes with the lease."""
        for pack in self._packs:
            pack.staged.close()

    def _seal(self, pack: _Open) -> Sealed:
        numbers = sorted(pack.frames)
        if numbers != list(range(pack.promised)):
            raise Damaged("a frame was promised and never written", what=pack_key(pack.pack_id))
        frames = _rows([pack.frames[number] for number in numbers])
        columns = [pack.chunks[number] for number in numbers]
        digests = np.concatenate([c[0] for c in columns]) if columns else np.empty((0, 32), np.uint8)
        addresses = np.concatenate([c[1] for c in columns]) if columns else np.empty(0, np.uint32)
        lengths = np.concatenate([c[2] for c in columns]) if columns else np.empty(0, np.uint32)
        pack.chunks.clear()
        del columns
        table = DataTable(frames, digests, addresses, lengths, self._chunk_digest)
        tail = pack_format.encode_table(table, pack.pack_id)
        again = _parse_tail(tail, pack.size, pack.pack_id)
        if (
            not isinstance(again, DataTable)
            or not np.array_equal(again.digests, digests)
            or not np.array_equal(again.addresses, addresses)
        ):
            raise Damaged("a pack's table does not read back as written", what=pack_key(pack.pack_id))
        pack.staged.write(tail)
        return Sealed(
            pack_key(pack.pack_id),
            pack.pack_id,
            pack.staged,
            pack.size + len(tail),
            int(lengths.sum(dtype=np.uint64)),
            digests,
            addresses,
        )


def _rows(rows: list[Frames]) -> Frames:
    return np.concatenate(rows) if rows else np.zeros(0, pack_format.Frame)


def _parse_tail(tail: bytes, offset: int, pack_id: bytes) -> DataTable | MetadataTable:
    pack_format.decode_trailer(tail, offset + len(tail))
    return pack_format.decode_table(tail, pack_id)


class RecordPosition(NamedTuple):
    """Where a record lies in a metadata pack."""

    frame: int
    offset: int
    length: int


def write_metadata_pack(
    staged: Staged,
    pack_id: bytes,
    records: Sequence[tuple[Record, bytes]],
    codec: str = "zstd:9",
    *,
    chunk_digest: str = "sha256",
) -> tuple[list[RecordPosition], int]:
    """Write records (metadata, bytes) into one metadata pack; returns their positions and the pack's size.

    Records share frames of at most METADATA_FRAME bytes; a longer one goes on in the frames that follow.
    """
    header = pack_format.encode_header(PackKind.METADATA, pack_id, chunk_digest)
    staged.write(header)
    size = len(header)
    frames: list[Frames] = []
    rows: list[Record] = []
    pending = bytearray()

    def flush() -> None:
        nonlocal size
        raw = bytes(pending)
        codec_id, stored = frame_codec.compress(codec, raw)
        head = pack_format.encode_frame(len(frames), codec_id, len(raw), stored)
        staged.write(head)
        staged.write(stored)
        frames.append(pack_format.frame_row(size, head))
        size += len(head) + len(stored)
        pending.clear()

    for record, data in records:
        if pending and len(pending) + len(data) > METADATA_FRAME:
            flush()
        rows.append(record._replace(frame=len(frames), offset=len(pending), length=len(data)))
        view = memoryview(data)
        while len(pending) + len(view) > METADATA_FRAME:
            room = METADATA_FRAME - len(pending)
            pending += view[:room]
            view = view[room:]
            flush()
        pending += view
    if pending:
        flush()
    tail = pack_format.encode_table(MetadataTable(_rows(frames), rows, chunk_digest), pack_id)
    staged.write(tail)
    return [RecordPosition(r.frame, r.offset, r.length) for r in rows], size + len(tail)


class Pack:
    """One sealed pack, open for reading. Frames are checked before they are decoded. `table`: what stands in for its
    own, where that is lost."""

    def __init__(self, reader: ObjectReader, key: str, table: DataTable | MetadataTable | None = None) -> None:
        self.key = key
        self._reader = reader
        self._records: dict[tuple[int, int], Record] | None = None
        self.table_bytes = 0
        if table is None:
            offset, self.table_bytes = table_extent(reader, key)
            table = pack_format.decode_table(reader.pread(offset, self.table_bytes), pack_id_of(key), key)
        self.table = table

    @property
    def frames(self) -> Frames:
        return self.table.frames

    def close(self) -> None:
        self._reader.close()

    def stored(self, numbers: Iterable[int]) -> dict[int, memoryview]:
        """The stored bytes of these frames, neighbours fetched in one read, each checked."""
        wanted = sorted({int(n) for n in numbers}, key=lambda n: int(self.frames[n]["offset"]))
        result: dict[int, memoryview] = {}
        run: list[int] = []
        end = 0
        for number in wanted:
            start, stop = self._extent(number)
            if run and (start - end > GAP or stop - self._extent(run[0])[0] > READ):
                self._fetch(run, end, result)
                run = []
            run.append(number)
            end = stop
        if run:
            self._fetch(run, end, result)
        return result

    def _extent(self, number: int) -> tuple[int, int]:
        row = self.frames[number]
        start = int(row["offset"])
        return start, start + pack_format.FRAME_HEADER_SIZE + int(row["stored"])

    def _fetch(self, run: list[int], end: int, result: dict[int, memoryview]) -> None:
        begin = self._extent(run[0])[0]
        data = memoryview(self._reader.pread(begin, end - begin))
        for number in run:
            start, stop = self._extent(number)
            piece = data[start - begin : stop - begin]
            result[number] = pack_format.check_frame(piece, self.frames, number, self.key)

    def decode(self, number: int, stored: Buffer, prefix: bytes | None = None) -> bytes:
        """Uncompressed bytes of a frame from its stored bytes (and its base frame's uncompressed bytes)."""
        row = self.frames[number]
        try:
            return frame_codec.decompress(int(row["codec"]), stored, int(row["raw"]), prefix)
        except Damaged as error:
            raise Damaged(error.message, what=self.key, offset=int(row["offset"])) from None

    def base(self, number: int) -> int | None:
        """The frame that this frame leans on, if any."""
        base = int(self.frames[number]["base"])
        return base - 1 if base else None

    def within(self, intervals: U32) -> tuple[U8, U32, U32]:
        """Digests, addresses, lengths of the chunks that lie in these intervals (m, 2), in order of address."""
        table = self.table
        if not isinstance(table, DataTable):
            raise Damaged("not a data pack", what=self.key)
        if not len(intervals):
            return table.digests[:0], table.addresses[:0], table.lengths[:0]
        at = np.searchsorted(intervals[:, 0], table.addresses, side="right")
        inside = (at > 0) & (table.addresses < intervals[np.maximum(at, 1) - 1, 1])
        return table.digests[inside], table.addresses[inside], table.lengths[inside]

    def record_of(self, digest: Digest, place: Place) -> bytes:
        """A blob's record, which the catalog says lies at this place. Damaged: the pack says otherwise."""
        table = self.table
        if not isinstance(table, MetadataTable):
            raise Damaged("not a metadata pack", what=self.key)
        if self._records is None:
            self._records = {(one.frame, one.offset): one for one in table.records if one.length}
        listed = self._records.get((place.frame, place.offset))
        if place.length and (listed is None or (listed.digest, listed.length) != (digest, place.length)):
            raise Damaged(f"the pack lists another record where that of {digest} should be", what=self.key)
        return self.record(place.frame, place.offset, place.length)

    def record(self, frame: int, offset: int, length: int) -> bytes:
        """A record of a metadata pack."""
        parts = bytearray()
        while len(parts) < length:
            if frame >= len(self.frames):
                raise Damaged("record runs past the end of its pack", what=self.key)
            raw = self.decode(frame, self.stored([frame])[frame])
            parts += raw[offset : offset + length - len(parts)]
            if offset >= len(raw):
                raise Damaged("record lies outside its frame", what=self.key)
            frame, offset = frame + 1, 0
        return bytes(parts)


def table_extent(reader: ObjectReader, key: str) -> tuple[int, int]:
    """Offset and length of a pack's table and trailer."""
    tail = reader.pread(max(0, reader.size - pack_format.TRAILER_SIZE), min(pack_format.TRAILER_SIZE, reader.size))
    return pack_format.decode_trailer(tail, reader.size, key)


class PackCache:
    """Open packs and decoded frames, shared by the readers of one process. Bounded by bytes; thread-safe.

    Two readers that want the same frame decode it once.
    """

    def __init__(self, objects: Objects, frame_bytes: int = 96 << 20, packs: int = 64) -> None:
        self._objects = objects
        self._limit = frame_bytes
        self._max_packs = packs
        self._packs: OrderedDict[str, Pack] = OrderedDict()
        self._frames: OrderedDict[tuple[str, int], Future[bytes]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self.decoded_bytes = 0
        """Uncompressed bytes of all frames decoded so far: the read amplification is measured by it."""

    def pack(self, key: str) -> Pack:
        """The open pack `key`; NotFound where the object is gone."""
        with self._lock:
            found = self._packs.get(key)
            if found is not None:
                self._packs.move_to_end(key)
                return found
        opened = Pack(self._objects.open(key), key)
        with self._lock:
            kept = self._packs.setdefault(key, opened)
            while len(self._packs) > self._max_packs:
                self._packs.popitem(last=False)
        return kept

    def put(self, pack: Pack) -> None:
        """Let an open pack stand for its key, whatever its file says of itself; closed with the rest."""
        with self._lock:
            self._packs[pack.key] = pack

    def frames(self, key: str, numbers: Iterable[int]) -> dict[int, bytes]:
        """Decoded frames of one pack."""
        pack = self.pack(key)
        result: dict[int, bytes] = {}
        mine: dict[int, Future[bytes]] = {}
        others: dict[int, Future[bytes]] = {}
        with self._lock:
            for number in {int(n) for n in numbers}:
                if number >= len(pack.frames):
                    raise Damaged("an address points past the last frame", what=key)
                future = self._frames.get((key, number))
                if future is not None:
                    self._frames.move_to_end((key, number))
                    others[number] = future
                else:
                    mine[number] = self._frames[key, number] = Future()
        try:
            bases = {number: base for number in mine if (base := pack.base(number)) is not None}
            stored = pack.stored(mine)

            def decode(number: int, prefix: bytes | None) -> None:
                result[number] = raw = pack.decode(number, stored[number], prefix)
                mine[number].set_result(raw)
                with self._lock:
                    self._bytes += len(raw)
                    self.decoded_bytes += len(raw)

            # What leans on nothing first, and without waiting for anybody: others may wait for it whose own frames
            # are the bases that are waited for next.
            for number in mine.keys() - bases.keys():
                decode(number, None)
            foreign = set(bases.values()) - mine.keys()
            prefixes = self.frames(key, foreign) if foreign else {}
            for number, base in bases.items():
                decode(number, prefixes[base] if base in foreign else result[base])
        except BaseException as error:
            with self._lock:
                for number, future in mine.items():
                    if not future.done():
                        self._frames.pop((key, number), None)
                        future.set_exception(error)
            raise
        self._shrink(self._limit)
        for number, future in others.items():
            result[number] = future.result()
        return result

    def forget(self) -> None:
        """Let go of the decoded frames: what comes next reads others."""
        self._shrink(0)

    def _shrink(self, limit: int) -> None:
        with self._lock:
            for name in list(self._frames):
                if self._bytes <= limit:
                    break
                future = self._frames[name]
                if future.done() and future.exception() is None:
                    del self._frames[name]
                    self._bytes -= len(future.result())

    def record(self, digest: Digest, place: Place) -> bytes:
        """The record of a blob in a metadata pack: its bytes ("inline") or its recipe ("packed")."""
        return self.pack(place.key).record_of(digest, place)

    def close(self) -> None:
        with self._lock:
            for pack in self._packs.values():
                pack.close()
            self._packs.clear()
            self._frames.clear()
            self._bytes = 0
