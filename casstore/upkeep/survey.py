"""A look at one pack, byte by byte if wanted; and its table made again from what else is known of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from ..errors import Damaged
from ..flow.naming import Names
from ..format import pack as pack_format
from ..format.pack import DataTable, Frames, MetadataTable, PackKind, Record
from ..model import FRAME_BITS, MAX_FRAME, U8, U32
from ..store.damage import Rot
from ..store.objects import ObjectReader, pack_id
from ..store.packs import Pack
from ..store.volume import Volume

KINDS = {"data": PackKind.DATA, "metadata": PackKind.METADATA}


@dataclass(slots=True)
class Survey:
    """What was found of one pack. `table`: None where it cannot be read; `bad`: frames that cannot be, of those looked
    at; `recovered`: the table is not the pack's own."""

    key: str
    table: DataTable | MetadataTable | None = None
    problems: list[str] = field(default_factory=list)
    bad: set[int] = field(default_factory=set)
    read_bytes: int = 0
    recovered: bool = False

    @property
    def problem(self) -> str:
        """In one line, "" where nothing is wrong."""
        more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
        return self.problems[0] + more if self.problems else ""

    def rot(self) -> Rot:
        """What is bad of the pack."""
        if self.table is None:
            return Rot(self.key)
        if isinstance(self.table, DataTable):
            return Rot(self.key, intervals=_spans(self.bad) if not self.recovered else _gaps(self.table, self.bad))
        hurt = {one.digest for one in self.table.records if _is_hurt(self.table, one, self.bad)}
        return Rot(self.key, records=frozenset(hurt))


def _spans(frames: set[int]) -> U32:
    """The addresses of whole frames, as intervals."""
    numbers = np.array(sorted(frames), np.uint64)
    ends = np.minimum((numbers + np.uint64(1)) << np.uint64(FRAME_BITS), np.uint64(0xFFFFFFFF))
    return np.stack([numbers << np.uint64(FRAME_BITS), ends], axis=1).astype(np.uint32)


def _gaps(table: DataTable, bad: set[int]) -> U32:
    """All addresses at which a recovered table has no chunk."""
    good = ~np.isin(table.addresses >> np.uint32(FRAME_BITS), np.array(sorted(bad), np.uint32))
    starts = table.addresses[good].astype(np.uint64)
    ends = starts + table.lengths[good]
    low = np.concatenate([np.zeros(1, np.uint64), ends])
    high = np.concatenate([starts, np.full(1, 0xFFFFFFFF, np.uint64)])
    return np.stack([low, high], axis=1)[low < high].astype(np.uint32)


def _is_hurt(table: MetadataTable, record: Record, bad: set[int]) -> bool:
    try:
        pieces = pack_format.pieces(table.frames, record.frame, record.offset, record.length)
    except Damaged:
        return True  # of a recovered table: its last frames were not found
    return not bad.isdisjoint(piece.frame for piece in pieces)


def survey(
    volume: Volume, reader: ObjectReader, kind: str, *, frames: bool, stop: Callable[[], None] = lambda: None
) -> Survey:
    """Look at the header and the table of a pack, with `frames` at every byte and every chunk's name."""
    found = Survey(reader.key)
    try:
        head = pack_format.decode_header(reader.pread(0, min(pack_format.HEADER_SIZE, reader.size)), reader.key)
        if head != (KINDS[kind], pack_id(reader.key), volume.file.chunk_digest):
            raise Damaged("the header is that of another pack", what=reader.key, offset=0)
    except Damaged as error:
        # Readers go by the table; the header is for whoever has nothing but the pack.
        found.problems.append(_said(error))
    try:
        pack = Pack(reader, reader.key)
        if isinstance(pack.table, DataTable) != (kind == "data"):
            raise Damaged("the table is that of another kind of pack", what=reader.key)
        found.table = pack.table
    except Damaged as error:
        found.problems.append(_said(error))
        return found
    if frames:
        read_frames(volume, pack, found, stop)
    return found


def read_frames(volume: Volume, pack: Pack, found: Survey, stop: Callable[[], None] = lambda: None) -> None:
    """Every frame decoded; in a data pack every chunk compared with its name. What is bad is noted in `found`."""
    names = Names(volume.file.chunk_digest)
    raw_of: dict[int, bytes] = {}
    bases = {base for n in range(len(pack.frames)) if (base := pack.base(n)) is not None}
    for number in sorted(range(len(pack.frames)), key=lambda n: pack.base(n) is not None):
        stop()
        base = pack.base(number)
        try:
            if base is not None and base not in raw_of:
                raise Damaged(f"frame {number} leans on frame {base}, which is bad", what=pack.key)
            raw = pack.decode(number, pack.stored([number])[number], None if base is None else raw_of[base])
            if isinstance(pack.table, DataTable):
                _compare(names, pack.table, number, raw, pack.key)
        except Damaged as error:
            found.bad.add(number)
            found.problems.append(_said(error))
            continue
        found.read_bytes += len(raw)
        if number in bases:
            raw_of[number] = raw


def _compare(names: Names, table: DataTable, number: int, raw: bytes, key: str) -> None:
    mine = table.addresses >> np.uint32(FRAME_BITS) == number
    starts = (table.addresses[mine] & np.uint32(MAX_FRAME - 1)).astype(np.uint64)
    if not np.array_equal(names.of(raw, starts, table.lengths[mine]), table.digests[mine]):
        raise Damaged(f"a chunk of frame {number} is not what its name says", what=key)


def _said(error: Damaged) -> str:
    return error.message + ("" if error.offset is None else f" at offset {error.offset}")


# -- a table that is lost


def recover_data(
    volume: Volume, reader: ObjectReader, entries: tuple[U8, U32], stop: Callable[[], None] = lambda: None
) -> Pack | None:
    """A data pack whose table is lost, readable as far as its frames are sound and `entries` (digests, addresses), from
    the index, tell what lies in them. Each chunk was compared with its name. None: nothing is left."""
    frames, sound = _scanned(reader)
    digests, addresses = entries
    order = np.argsort(addresses, kind="stable")
    digests, addresses = digests[order], addresses[order]
    pack = Pack(reader, reader.key, DataTable(frames, digests[:0], addresses[:0], addresses[:0]))
    names = Names(volume.file.chunk_digest)
    raw_of: dict[int, bytes] = {}
    kept: list[tuple[U8, U32, U32]] = []
    for number, raw in _decoded(pack, sound, raw_of, stop):
        mine = addresses >> np.uint32(FRAME_BITS) == number
        starts = (addresses[mine] & np.uint32(MAX_FRAME - 1)).astype(np.uint64)
        # Where a chunk ends, nobody says: at the next one, for chunks lie side by side, or at the frame's end.
        lengths = np.diff(starts, append=np.uint64(len(raw))).astype(np.int64)
        fits = (lengths > 0) & (starts + lengths.astype(np.uint64) <= len(raw))
        starts, sizes, wanted = starts[fits], lengths[fits].astype(np.uint32), digests[mine][fits]
        right = np.all(names.of(raw, starts, sizes) == wanted, axis=1) if len(starts) else np.zeros(0, np.bool_)
        kept.append((wanted[right], addresses[mine][fits][right], sizes[right]))
    if not kept:
        return None
    columns = [np.concatenate(column) for column in zip(*kept, strict=True)]
    order = np.argsort(columns[1], kind="stable")
    table = DataTable(frames, columns[0][order], columns[1][order], columns[2][order], volume.file.chunk_digest)
    return Pack(reader, reader.key, table) if len(order) else None


def recover_metadata(reader: ObjectReader, records: list[Record]) -> Pack | None:
    """A metadata pack whose table is lost, readable as far as its frames are sound, given what the catalog knows of its
    records. None: nothing is left."""
    frames, sound = _scanned(reader)
    table = MetadataTable(frames, records)
    return Pack(reader, reader.key, table) if sound and records else None


def _scanned(reader: ObjectReader) -> tuple[Frames, set[int]]:
    """Rows by number of the frames that a scan of the pack finds sound, others empty; and the numbers found."""
    numbers, rows = pack_format.scan_frames(reader)
    frames = np.zeros(int(numbers.max()) + 1 if len(numbers) else 0, pack_format.Frame)
    frames[numbers] = rows
    return frames, {int(n) for n in numbers}


def _decoded(
    pack: Pack, sound: set[int], raw_of: dict[int, bytes], stop: Callable[[], None]
) -> Iterator[tuple[int, bytes]]:
    bases = {pack.base(n) for n in sound}
    for number in sorted(sound, key=lambda n: pack.base(n) is not None):
        stop()
        base = pack.base(number)
        if base is not None and base not in raw_of:
            continue
        try:
            raw = pack.decode(number, pack.stored([number])[number], None if base is None else raw_of[base])
        except Damaged:
            continue
        if number in bases:
            raw_of[number] = raw
        yield number, raw
