"""Fuzzing packs: format/pack.py (header, trailer, table, frames, the scan for lost frames), codec/frame.py.

An input is a byte of flags and a pack that lies open: its header, its frames, its table with the columns' planes not
compressed, and in the last 8 bytes where the table begins. Closed, every checksum holds; with FITTING the frames also
fill the pack, the bytes in them being what they are.

Checked: Damaged or a pack, nothing else; the table of one that is taken is written again and read as the same; of one
whose frames are all sound, the scan finds these frames.
"""

from __future__ import annotations

import struct

import numpy as np

from casstore.codec import frame as codec
from casstore.digest import Digest
from casstore.errors import Damaged
from casstore.format import pack
from casstore.format.encoding import checksum, deflated, inflated
from casstore.format.pack import DataTable, Frame, MetadataTable, PackKind, Record, RecordKind
from casstore.transport.members import MemoryReader

AS_IT_IS, FITTING = 1, 2

_TABLE = struct.Struct("<4sHBB16sII")
_HEADS = 3 * 9
_ID = bytes(range(16))


def close(data: bytes) -> bytes:
    flags, body = data[0], bytearray(data[1:-8])
    if flags & AS_IT_IS or len(body) < pack.HEADER_SIZE + _TABLE.size:
        return data[1:]
    begin = int.from_bytes(data[-8:], "little") % (len(body) + 1)
    body[32:48] = checksum(body[:32])
    frames, table = body[:begin], body[begin:]
    if len(table) >= _TABLE.size:
        _, _, kind, _, _, count, chunks = _TABLE.unpack_from(table)
        rows_end = _TABLE.size + count * Frame.itemsize
        if rows_end <= len(table):
            _close_frames(frames, table, count, bool(flags & FITTING))
        at = rows_end + 32 * chunks + _HEADS
        if kind == PackKind.DATA and at <= len(table):
            planes = bytes(table[at:])
            stored = deflated(planes, 1) if planes else b""
            table[at:] = struct.pack("<I", len(stored)) + stored
    length = len(table) + pack.TRAILER_SIZE
    end = struct.pack("<QQ", len(frames), length)
    return bytes(frames + table) + end + checksum(table, end, length=32) + b"casspend"


def _close_frames(frames: bytearray, table: bytearray, count: int, fitting: bool) -> None:
    rows = np.frombuffer(table, Frame, count, _TABLE.size)  # a view: what is set here lies in the table
    at = pack.HEADER_SIZE
    for number, row in enumerate(rows):
        if fitting:
            room = len(frames) - at - pack.FRAME_HEADER_SIZE
            if room < 1:
                return
            row["offset"] = at
            row["stored"] = room if number == count - 1 else 1 + int(row["stored"]) % room
        begin = int(row["offset"])
        content = begin + pack.FRAME_HEADER_SIZE
        stored = int(row["stored"])
        if content + stored > len(frames):
            continue
        head = struct.pack(
            "<4sBBHIIHHI", b"cFr\xf1", row["codec"], row["transform"], 0, row["raw"], stored, number, row["base"], 0
        )
        kept = checksum(head, frames[content : content + stored])
        frames[begin:content] = head + kept
        row["checksum"] = np.frombuffer(kept, np.uint8)
        at = content + stored


def open_up(whole: bytes) -> bytes:
    begin, length = pack.decode_trailer(whole[-pack.TRAILER_SIZE :], len(whole))
    table = whole[begin : begin + length - pack.TRAILER_SIZE]
    _, _, kind, _, _, count, chunks = _TABLE.unpack_from(table)
    at = _TABLE.size + count * Frame.itemsize + 32 * chunks + _HEADS
    if kind == PackKind.DATA:
        widths = table[at - 19], table[at - 10], table[at - 1]
        length = widths[0] * count + (widths[1] + widths[2]) * chunks
        table = table[:at] + (inflated(table[at + 4 :], length, "seed") if length else b"")
    return bytes([0]) + whole[:begin] + table + struct.pack("<Q", begin)


def one(data: bytes) -> None:
    if len(data) < 9:
        return
    whole = close(data)
    numbers, rows = pack.scan_frames(MemoryReader(whole))
    for number, row in zip(numbers.tolist(), rows, strict=True):
        begin = int(row["offset"])
        span = whole[begin : begin + pack.FRAME_HEADER_SIZE + int(row["stored"])]
        numbered = np.repeat(rows[:1], number + 1)
        numbered[number] = row
        pack.check_frame(span, numbered, number)
    try:
        header = pack.decode_header(whole)
        offset, length = pack.decode_trailer(whole[-pack.TRAILER_SIZE :], len(whole))
        table = pack.decode_table(whole[offset : offset + length], header.pack_id)
    except Damaged:
        return
    written = pack.encode_table(table, header.pack_id)
    same_table(table, pack.decode_table(written, header.pack_id))
    if isinstance(table, MetadataTable):
        for record in table.records:
            found = pack.pieces(table.frames, record.frame, record.offset, record.length)
            assert sum(piece.length for piece in found) == record.length
    try:
        read_frames(whole, table)
    except Damaged:
        return
    assert numbers.tolist() == list(range(len(table.frames)))
    assert np.array_equal(rows, table.frames)


def read_frames(whole: bytes, table: DataTable | MetadataTable) -> None:
    raws: dict[int, bytes] = {}
    sound = True
    for number in sorted(range(len(table.frames)), key=lambda n: int(table.frames[n]["base"])):
        row = table.frames[number]
        begin = int(row["offset"])
        stored = pack.check_frame(
            whole[begin : begin + pack.FRAME_HEADER_SIZE + int(row["stored"])], table.frames, number
        )
        prefix = raws.get(int(row["base"]) - 1) if row["base"] else None
        try:
            raws[number] = codec.decompress(int(row["codec"]), stored, int(row["raw"]), prefix)
        except Damaged:
            sound = False
            continue
        assert len(raws[number]) == row["raw"]
    if sound and isinstance(table, DataTable):
        offsets = table.addresses & np.uint32((1 << 22) - 1)
        assert np.all(offsets + table.lengths <= table.frames["raw"][table.addresses >> np.uint32(22)])


def same_table(ours: DataTable | MetadataTable, theirs: DataTable | MetadataTable) -> None:
    assert np.array_equal(ours.frames, theirs.frames) and ours.chunk_digest == theirs.chunk_digest
    if isinstance(ours, MetadataTable):
        assert isinstance(theirs, MetadataTable) and ours.records == theirs.records
    else:
        assert isinstance(theirs, DataTable)
        for name in ("digests", "addresses", "lengths"):
            assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name


def seeds() -> dict[str, bytes]:
    def frames(kind: PackKind, *raws: tuple[str, bytes, int | None]) -> tuple[bytes, np.ndarray]:
        out, rows = pack.encode_header(kind, _ID), []
        for number, (name, raw, base) in enumerate(raws):
            code, stored = codec.compress(name, raw, None if base is None else raws[base][1])
            header = pack.encode_frame(number, code, len(raw), stored, base)
            rows.append(pack.frame_row(len(out), header))
            out += header + bytes(stored)
        return out, np.concatenate(rows) if rows else np.zeros(0, Frame)

    text = b"all that a store keeps " * 9
    made = {}
    for name, kinds in {
        "empty": [],
        "plain": [("none", b"seventy bytes", None)],
        "mixed": [("zstd:3", text, None), ("lz4", text, None), ("zstd:3", text + b"changed", 0), ("none", b"x", None)],
    }.items():
        out, rows = frames(PackKind.DATA, *kinds)
        addresses = [n << 22 | at for n, (_, raw, _) in enumerate(kinds) for at in (0, len(raw) // 2)]
        lengths = [max(1, len(raw) // 3) for _, raw, _ in kinds for _ in (0, 1)]
        if name == "mixed":
            addresses, lengths = addresses[:-1], lengths[:-1]
        digests = np.arange(32 * len(addresses), dtype=np.uint8).reshape(-1, 32)
        table = DataTable(rows, digests, np.array(addresses, np.uint32), np.array(lengths, np.uint32))
        made[name] = out + pack.encode_table(table, _ID)
    out, rows = frames(PackKind.METADATA, ("zstd:3", text, None), ("none", b"more of it", None))
    records = [
        Record(RecordKind.BLOB, Digest.of(b"a"), 23, 0, 0, 23, media_type="text/plain"),
        Record(RecordKind.RECIPE, Digest.of(b"b", "sha512"), 1 << 40, 0, 190, 20, "gzip", "x", Digest.of(b"c"), 9, 0),
    ]
    made["metadata"] = out + pack.encode_table(MetadataTable(rows, records, "blake3"), _ID)
    opened = {name: open_up(whole) for name, whole in made.items()}
    return opened | {f"{name}-fitting": bytes([FITTING]) + each[1:] for name, each in opened.items()}
