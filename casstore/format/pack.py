"""Packs: sealed, self-describing objects of frames. Bytes ⇄ model, no files. Specified in FORMATS.md.

A pack is its header, its frames one after the other in any order of number, its table, and a trailer. Every
byte of it is under a checksum: the header's own, each frame's (over its header and its stored bytes), the
table's (in the trailer). A reader takes TRAILER_SIZE bytes from the end, `decode_trailer`, then
`decode_table`; a frame that it then reads goes through `check_frame` before it is decompressed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Protocol, TypeAlias

import msgspec
import numpy as np

from ..digest import Digest
from ..errors import Damaged, LimitExceeded
from ..model import FRAME_BITS, MAX_FRAME, MAX_FRAMES, U8, U32, U64, Buffer
from .encoding import (
    CHUNK_DIGEST_NAMES,
    checksum,
    chunk_digest_number,
    decode_columns,
    encode_columns,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

VERSION = 1
#: Largest list of records in a metadata pack (bytes).
MAX_RECORDS = 64 << 20

# magic, version, kind, chunk digest, 0, pack id; then 16 bytes of checksum
_HEADER = struct.Struct("<8sHBBI16s")
# magic, codec, transform, key, raw length, stored length, number, base + 1, 0; then 16 bytes of checksum
_FRAME = struct.Struct("<4sBBHIIHHI")
# magic, version, kind, chunk digest, pack id, how many frames, how many chunks or records
_TABLE = struct.Struct("<4sHBB16sII")
# offset of the table, its length with this trailer, BLAKE3, magic
_TRAILER = struct.Struct("<QQ32s8s")
_ZSTD = 2  # the one codec that takes a prefix
_HEADER_MAGIC = b"casspack"
_FRAME_MAGIC = b"cFr\xf1"
_TABLE_MAGIC = b"cTb\xf1"
_TRAILER_MAGIC = b"casspend"

HEADER_SIZE = _HEADER.size + 16
FRAME_HEADER_SIZE = _FRAME.size + 16
TRAILER_SIZE = _TRAILER.size

#: A row of a pack's list of frames; its place in the list is its number. `offset` is where its header begins
#: in the pack; `base` is the number, plus 1, of the frame whose raw bytes are its prefix, or 0.
Frame = np.dtype(
    [
        ("offset", "<u8"),
        ("stored", "<u4"),
        ("raw", "<u4"),
        ("codec", "u1"),
        ("transform", "u1"),
        ("base", "<u2"),
        ("checksum", "u1", (16,)),
    ]
)
Frames: TypeAlias = "NDArray[np.void]"


class PackKind(IntEnum):
    DATA = 1
    METADATA = 2


class RecordKind(IntEnum):
    BLOB = 1
    RECIPE = 2


class PackHeader(NamedTuple):
    kind: PackKind
    pack_id: bytes
    chunk_digest: str


class Piece(NamedTuple):
    """`length` bytes at `offset` of the uncompressed frame `frame`."""

    frame: int
    offset: int
    length: int


class Record(NamedTuple):
    """One blob in a metadata pack: its bytes or its recipe, `length` bytes from `offset` of frame `frame` on
    (it may go on in the frames that follow), and what the catalog knows of it, so that the catalog can be
    rebuilt."""

    kind: RecordKind
    digest: Digest
    size: int
    frame: int
    offset: int
    length: int
    encoding: str = "identity"
    media_type: str = ""
    diffid: Digest | None = None
    content_size: int | None = None
    files_size: int | None = None


@dataclass(frozen=True, slots=True)
class DataTable:
    """What a data pack holds: `digests` (n, 32), `addresses` (n,), `lengths` (n,) bytes. Decoded ones are in
    order of address; chunks do not overlap."""

    frames: Frames
    digests: U8
    addresses: U32
    lengths: U32
    chunk_digest: str = "sha256"


@dataclass(frozen=True, slots=True)
class MetadataTable:
    """What a metadata pack holds."""

    frames: Frames
    records: list[Record]
    chunk_digest: str = "sha256"


class Reader(Protocol):
    """Where `scan_frames` reads: an object of `size` bytes."""

    @property
    def size(self) -> int: ...

    def pread(self, offset: int, length: int) -> Buffer: ...


_Size = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
_Name = Annotated[str, msgspec.Meta(max_length=255)]
_Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=64)]


class _Row(NamedTuple):
    """A Record as it is written: a MessagePack array. What is out of bounds stops the decoder at once."""

    kind: RecordKind
    digest: _Digest
    size: _Size
    frame: _Size
    offset: _Size
    length: _Size
    encoding: _Name
    media_type: _Name
    diffid: _Digest | None
    content_size: _Size | None
    files_size: _Size | None


_rows_decoder = msgspec.msgpack.Decoder(list[_Row])


def encode_header(kind: PackKind, pack_id: bytes, chunk_digest: str = "sha256") -> bytes:
    """The first HEADER_SIZE bytes of a pack. `pack_id` is 16 bytes."""
    if len(pack_id) != 16:
        raise ValueError("a pack id is 16 bytes")
    head = _HEADER.pack(_HEADER_MAGIC, VERSION, kind, chunk_digest_number(chunk_digest), 0, pack_id)
    return head + checksum(head)


def decode_header(data: Buffer, what: str = "pack") -> PackHeader:
    """The header from a pack's first HEADER_SIZE bytes. Damaged: not one, or of an unknown version."""
    view = memoryview(data)[:HEADER_SIZE]
    if len(view) < HEADER_SIZE or view[:8] != _HEADER_MAGIC or checksum(view[:-16]) != view[-16:]:
        raise Damaged("bad pack header", what=what, offset=0)
    _, version, kind, digest, reserved, pack_id = _HEADER.unpack_from(view)
    _check_head(version, kind, digest, what, 0)
    if reserved:
        raise Damaged("unknown pack header", what=what, offset=0)
    return PackHeader(PackKind(kind), pack_id, CHUNK_DIGEST_NAMES[digest])


def encode_frame(number: int, codec: int, raw_length: int, stored: Buffer, base: int | None = None) -> bytes:
    """The FRAME_HEADER_SIZE bytes that precede the `stored` bytes of frame `number`, which decompress under
    `codec` (with the raw bytes of frame `base` as prefix, where given) to `raw_length` bytes."""
    length = len(memoryview(stored))
    if not (0 <= number < MAX_FRAMES and 0 < raw_length <= MAX_FRAME and 0 < length <= MAX_FRAME):
        raise ValueError(f"no frame can be number {number}, {raw_length} bytes raw, {length} stored")
    if base is not None and (base == number or not 0 <= base < MAX_FRAMES or codec != _ZSTD):
        raise ValueError(f"frame {number} cannot lean on {base}")
    head = _FRAME.pack(
        _FRAME_MAGIC, codec, 0, 0, raw_length, length, number, 0 if base is None else base + 1, 0
    )
    return head + checksum(head, stored)


def frame_row(offset: int, header: Buffer) -> Frames:
    """The row, as an array of one, of the frame whose header (of `encode_frame`) is written at `offset`."""
    _, codec, transform, _, raw, stored, _, base, _ = _FRAME.unpack_from(header)
    row = np.zeros(1, Frame)
    row[0] = (offset, stored, raw, codec, transform, base, 0)
    row["checksum"][0] = np.frombuffer(header, np.uint8, 16, _FRAME.size)
    return row


def check_frame(data: Buffer, frames: Frames, number: int, what: str = "pack") -> memoryview:
    """The stored bytes of frame `number`, given the FRAME_HEADER_SIZE + stored bytes at its offset.

    Damaged: they are not what the table says, or not what was written.
    """
    row = frames[number]
    view = memoryview(data)
    stored = view[FRAME_HEADER_SIZE:]
    head = _FRAME.pack(
        _FRAME_MAGIC,
        int(row["codec"]),
        int(row["transform"]),
        0,
        int(row["raw"]),
        int(row["stored"]),
        number,
        int(row["base"]),
        0,
    )
    kept = row["checksum"].tobytes()
    if len(stored) != row["stored"] or view[:FRAME_HEADER_SIZE] != head + kept:
        raise Damaged(f"frame {number} is not the one listed", what=what, offset=int(row["offset"]))
    if checksum(head, stored) != kept:
        raise Damaged(f"frame {number} fails its checksum", what=what, offset=int(row["offset"]))
    return stored


def encode_table(table: DataTable | MetadataTable, pack_id: bytes) -> bytes:
    """Table and trailer: what seals a pack that holds its header and `table.frames`, and nothing else.

    ValueError: the table does not describe such a pack (a caller's fault). LimitExceeded: a media type, which
    comes from outside, longer than 255 characters.
    """
    if len(pack_id) != 16:
        raise ValueError("a pack id is 16 bytes")
    kind = PackKind.DATA if isinstance(table, DataTable) else PackKind.METADATA
    if isinstance(table, DataTable):
        count, body = len(table.digests), _encode_chunks(table)
    else:
        count, body = len(table.records), _encode_records(table)
    digest = chunk_digest_number(table.chunk_digest)
    try:
        begin = _check_frames(table.frames, "table")
    except Damaged as fault:
        raise ValueError(str(fault)) from fault
    head = _TABLE.pack(_TABLE_MAGIC, VERSION, kind, digest, pack_id, len(table.frames), count)
    frames = table.frames.astype(Frame, copy=False).tobytes()
    length = len(head) + len(frames) + len(body) + TRAILER_SIZE
    end = _TRAILER.pack(begin, length, b"", _TRAILER_MAGIC)
    total = checksum(head, frames, body, end[:16], length=32)
    return b"".join((head, frames, body, _TRAILER.pack(begin, length, total, _TRAILER_MAGIC)))


def decode_trailer(last_bytes: Buffer, file_size: int, what: str = "pack") -> tuple[int, int]:
    """(offset, length) of what `decode_table` takes: table and trailer. `last_bytes` are the pack's last
    TRAILER_SIZE bytes or more. Damaged: not the end of a pack of `file_size` bytes."""
    view = memoryview(last_bytes)
    if len(view) < TRAILER_SIZE:
        raise Damaged("too short for a pack", what=what, offset=0)
    offset, length, _, magic = _TRAILER.unpack_from(view, len(view) - TRAILER_SIZE)
    fits = offset >= HEADER_SIZE and length >= _TABLE.size + TRAILER_SIZE and offset + length == file_size
    if magic != _TRAILER_MAGIC or not fits:
        raise Damaged("bad pack trailer", what=what, offset=max(0, file_size - TRAILER_SIZE))
    return offset, length


def decode_table(data: Buffer, pack_id: bytes | None = None, what: str = "pack") -> DataTable | MetadataTable:
    """The table in the bytes that `decode_trailer` pointed at; `pack_id`, where given, must be its own.

    Damaged: any byte differs from what was written, or the parts contradict each other.
    """
    view = memoryview(data)
    if len(view) < _TABLE.size + TRAILER_SIZE:
        raise Damaged("too short for a pack table", what=what)
    begin, length, total, _ = _TRAILER.unpack_from(view, len(view) - TRAILER_SIZE)
    body_end = len(view) - TRAILER_SIZE
    if length != len(view) or checksum(view[: body_end + 16], length=32) != total:
        raise Damaged("pack table fails its checksum", what=what, offset=begin)
    magic, version, kind, digest, own_id, frame_count, count = _TABLE.unpack_from(view)
    _check_head(version, kind, digest, what, begin)
    if magic != _TABLE_MAGIC or (pack_id is not None and own_id != pack_id):
        raise Damaged("table of another pack", what=what, offset=begin)
    body = _TABLE.size + frame_count * Frame.itemsize
    if frame_count > MAX_FRAMES or body > body_end:
        raise Damaged("pack table ends early", what=what, offset=begin)
    frames = np.frombuffer(view, Frame, frame_count, _TABLE.size)
    if _check_frames(frames, what) != begin:
        raise Damaged("frames do not fill the pack", what=what, offset=begin)
    name = CHUNK_DIGEST_NAMES[digest]
    if kind == PackKind.DATA:
        return _decode_chunks(view[body:body_end], frames, count, name, what)
    return _decode_records(view[body:body_end], frames, count, name, what)


def pieces(frames: Frames, frame: int, offset: int, length: int, what: str = "pack") -> list[Piece]:
    """Where a record lies: it begins in frame `frame` at `offset` and goes on at the start of the following
    ones. Damaged: the frames do not hold it."""
    found = []
    while length:
        room = int(frames[frame]["raw"]) - offset if frame < len(frames) else 0
        if room <= 0:
            raise Damaged("record outside of its frames", what=what)
        found.append(Piece(frame, offset, min(room, length)))
        length -= found[-1].length
        frame, offset = frame + 1, 0
    return found


def scan_frames(reader: Reader) -> tuple[U32, Frames]:
    """(numbers, rows) of the sound frames of a pack whose table is lost, in order of number.

    Goes from frame to frame; where one is damaged, looks for the next that is sound. Of two frames with one
    number the first counts. A frame whose base is not among them is left to the caller.
    """
    found: dict[int, Frames] = {}
    for number, row in _scan(reader):
        found.setdefault(number, row)
    numbers = sorted(found)
    rows = np.concatenate([found[number] for number in numbers]) if numbers else np.zeros(0, Frame)
    return np.array(numbers, np.uint32), rows


def _scan(reader: Reader) -> Iterator[tuple[int, Frames]]:
    window = 1 << 20
    at = HEADER_SIZE
    while at + FRAME_HEADER_SIZE < reader.size:
        data = bytes(reader.pread(at, min(window, reader.size - at)))
        skip = data.find(_FRAME_MAGIC)
        if skip < 0:
            at += max(1, len(data) - len(_FRAME_MAGIC) + 1)
            continue
        at += skip
        header = data[skip : skip + FRAME_HEADER_SIZE]
        if len(header) < FRAME_HEADER_SIZE:
            if at + FRAME_HEADER_SIZE > reader.size:
                return
            header = bytes(reader.pread(at, FRAME_HEADER_SIZE))
        _, _, transform, key, raw, stored, number, base, rest = _FRAME.unpack_from(header)
        sane = 0 < raw <= MAX_FRAME and 0 < stored <= MAX_FRAME and max(number, base - 1) < MAX_FRAMES
        sane = sane and not (transform or key or rest)
        end = at + FRAME_HEADER_SIZE + stored
        if sane and end <= reader.size:
            content = reader.pread(at + FRAME_HEADER_SIZE, stored)
            if checksum(header[: _FRAME.size], content) == header[_FRAME.size :]:
                yield number, frame_row(at, header)
                at = end
                continue
        at += 1


def _check_head(version: int, kind: int, digest: int, what: str, offset: int) -> None:
    if version != VERSION:
        raise Damaged(f"pack of unknown format version {version}", what=what, offset=offset)
    if kind not in (PackKind.DATA, PackKind.METADATA) or digest not in CHUNK_DIGEST_NAMES:
        raise Damaged("pack of unknown kind", what=what, offset=offset)


def _check_frames(frames: Frames, what: str) -> int:
    """Where the table begins: after frames that lie one after the other. Their bases are one deep."""
    if len(frames) > MAX_FRAMES:
        raise Damaged("too many frames", what=what)
    raw, stored, base = (frames[name].astype(np.int64) for name in ("raw", "stored", "base"))
    if len(frames) and (min(raw.min(), stored.min()) < 1 or max(raw.max(), stored.max()) > MAX_FRAME):
        raise Damaged("frame of impossible length", what=what)
    if np.any(frames["transform"]):
        raise Damaged("frame under an unknown transform", what=what)
    leaning = np.flatnonzero(base)
    if len(leaning) and (base.max() > len(frames) or np.any(base[base[leaning] - 1])):
        raise Damaged("frame leans on one that is not there, or that itself leans", what=what)
    if np.any(frames["codec"][leaning] != _ZSTD):
        raise Damaged("frame leans on another without a codec that can", what=what)
    order = np.argsort(frames["offset"], kind="stable")
    ends = HEADER_SIZE + np.cumsum(stored[order] + FRAME_HEADER_SIZE)
    begins = np.concatenate(([HEADER_SIZE], ends))
    if np.any(frames["offset"][order] != begins[:-1].astype(np.uint64)):
        raise Damaged("frames do not lie one after the other", what=what)
    return int(begins[-1])


def _encode_chunks(table: DataTable) -> bytes:
    if not len(table.digests) == len(table.addresses) == len(table.lengths):
        raise ValueError("columns of different length")
    order: NDArray[Any] = np.argsort(table.addresses, kind="stable")
    addresses = table.addresses[order].astype(np.int64)
    lengths = table.lengths[order].astype(np.int64)
    frame, offset = addresses >> FRAME_BITS, addresses & (MAX_FRAME - 1)
    if len(order):
        if frame[-1] >= len(table.frames) or lengths.min() < 1:
            raise ValueError("chunk outside of its frame")
        if np.any(offset + lengths > table.frames["raw"][frame]):
            raise ValueError("chunk outside of its frame")
    # A chunk's offset is kept as its distance from the end of the one before it in its frame: nearly always
    # 0.
    gaps = offset.copy()
    together = frame[1:] == frame[:-1]
    gaps[1:] -= np.where(together, offset[:-1] + lengths[:-1], 0)
    if np.any(gaps < 0):
        raise ValueError("chunks overlap")
    counts = np.bincount(frame, minlength=len(table.frames)).astype(np.uint64)
    columns: list[U64] = [counts, gaps.astype(np.uint64), lengths.astype(np.uint64)]
    return np.ascontiguousarray(table.digests[order]).tobytes() + encode_columns(columns, 3)


def _decode_chunks(body: memoryview, frames: Frames, count: int, chunk_digest: str, what: str) -> DataTable:
    if count * 32 > len(body):
        raise Damaged("pack table ends early", what=what)
    digests = np.frombuffer(body, np.uint8, count * 32).reshape(count, 32)
    # The digests are there in full, so the columns may take a like amount of memory.
    (counts, gaps, lengths), end = decode_columns(
        body, count * 32, [len(frames), count, count], what, 24 * count + 8 * len(frames)
    )
    if end != len(body) or (len(counts) and int(counts.max()) > count) or int(counts.sum()) != count:
        raise Damaged("pack table contradicts itself", what=what)
    if count and (int(lengths.min()) < 1 or max(int(lengths.max()), int(gaps.max())) > MAX_FRAME):
        raise Damaged("chunk of impossible length", what=what)
    frame = np.repeat(np.arange(len(frames)), counts.astype(np.int64))
    ends = np.cumsum(gaps + lengths)
    # `ends` runs on across frames: take away what it was where each frame's chunks began.
    firsts = np.cumsum(counts) - counts
    before = np.concatenate((np.zeros(1, np.uint64), ends))[firsts.astype(np.int64)]
    ends = ends - before[frame]
    if np.any(ends > frames["raw"][frame]):
        raise Damaged("chunk outside of its frame", what=what)
    addresses = (frame.astype(np.uint64) << np.uint64(FRAME_BITS)) + ends - lengths
    return DataTable(frames, digests, addresses.astype(np.uint32), lengths.astype(np.uint32), chunk_digest)


def _encode_records(table: MetadataTable) -> bytes:
    rows = [
        record._replace(digest=record.digest.raw, diffid=record.diffid and record.diffid.raw)  # type: ignore[arg-type]
        for record in table.records
    ]
    if any(len(record.media_type) > 255 for record in table.records):
        raise LimitExceeded("media type longer than 255 characters")
    body = msgspec.msgpack.encode(rows)
    try:
        again = _decode_records(memoryview(body), table.frames, len(rows), table.chunk_digest, "table")
    except Damaged as fault:
        raise ValueError(str(fault)) from fault
    if again.records != table.records:
        raise ValueError("a digest of the wrong length for its algorithm")
    return body


def _decode_records(
    body: memoryview, frames: Frames, count: int, chunk_digest: str, what: str
) -> MetadataTable:
    if len(body) > MAX_RECORDS:
        raise Damaged("pack table larger than any that is written", what=what)
    try:
        rows = _rows_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Damaged(f"undecodable records: {error}", what=what) from None
    if len(rows) != count:
        raise Damaged("pack table contradicts itself", what=what)
    raw = frames["raw"].tolist()
    room = np.cumsum(frames["raw"][::-1], dtype=np.int64)[::-1].tolist()  # of each frame and those after it
    for row in rows:
        holds = (
            row.frame < len(raw)
            and row.offset < raw[row.frame]
            and row.offset + row.length <= room[row.frame]
        )
        if row.length and not holds:
            raise Damaged("record outside of its frames", what=what)
    return MetadataTable(frames, [_record(row, what) for row in rows], chunk_digest)


def _record(row: _Row, what: str) -> Record:
    if len(row.digest) not in (32, 64) or (row.diffid is not None and len(row.diffid) not in (32, 64)):
        raise Damaged("record with an impossible digest", what=what)
    diffid = None if row.diffid is None else Digest.unpack(row.diffid)
    return Record(*row)._replace(digest=Digest.unpack(row.digest), diffid=diffid)  # type: ignore[arg-type]
