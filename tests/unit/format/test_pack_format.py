from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from casstore.digest import Digest
from casstore.errors import Damaged, LimitExceeded
from casstore.format import encoding, pack
from casstore.format.pack import DataTable, Frame, Frames, MetadataTable, PackKind, Piece, Record, RecordKind
from casstore.model import FRAME_BITS, MAX_FRAME, MAX_FRAMES

PACK_ID = bytes(range(16))


def frame_rows(raws: list[int], stored: int = 10) -> Frames:
    rows = np.zeros(len(raws), Frame)
    rows["raw"] = raws
    rows["stored"] = stored
    rows["offset"] = pack.HEADER_SIZE + np.arange(len(raws)) * (stored + pack.FRAME_HEADER_SIZE)
    return rows


def table_of(frames: Frames, addresses: list[int], lengths: list[int]) -> DataTable:
    digests = np.random.default_rng(0).integers(0, 256, (len(addresses), 32), dtype=np.uint8)
    return DataTable(frames, digests, np.array(addresses, np.uint32), np.array(lengths, np.uint32))


def written(stored: list[bytes]) -> bytes:
    head = pack.encode_header(PackKind.DATA, PACK_ID)
    return head + b"".join(
        pack.encode_frame(number, 0, len(content), content) + content for number, content in enumerate(stored)
    )


class InMemory:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)
        self.taken = 0

    def pread(self, offset: int, length: int) -> bytes:
        self.taken += length
        return self.data[offset : offset + length]


@pytest.mark.parametrize("digest", ["sha256", "blake3"])
@pytest.mark.parametrize("kind", list(PackKind))
def test_header(kind: PackKind, digest: str) -> None:
    assert pack.decode_header(pack.encode_header(kind, PACK_ID, digest)) == (kind, PACK_ID, digest)


def test_header_of_another_version_says_so() -> None:
    header = bytearray(pack.encode_header(PackKind.DATA, PACK_ID))
    header[8] = 2
    header[-16:] = encoding.checksum(header[:-16])
    with pytest.raises(Damaged, match="version 2"):
        pack.decode_header(header)


@pytest.mark.parametrize("pack_id", [b"", bytes(15), bytes(17)])
def test_a_pack_id_has_16_bytes(pack_id: bytes) -> None:
    with pytest.raises(ValueError):
        pack.encode_header(PackKind.DATA, pack_id)
    with pytest.raises(ValueError):
        pack.encode_table(MetadataTable(frame_rows([]), []), pack_id)


@pytest.mark.parametrize(
    ("number", "raw", "stored", "base"),
    [
        (MAX_FRAMES, 1, b"x", None),
        (-1, 1, b"x", None),
        (0, 0, b"x", None),
        (0, MAX_FRAME + 1, b"x", None),
        (0, 1, b"", None),
        (0, 1, b"x", 0),
        (0, 1, b"x", MAX_FRAMES),
        (0, 1, b"x", 1),  # under codec 0
    ],
)
def test_impossible_frames_are_not_written(number: int, raw: int, stored: bytes, base: int | None) -> None:
    with pytest.raises(ValueError):
        pack.encode_frame(number, 0, raw, stored, base)


def test_frame_row_is_what_the_header_says() -> None:
    row = pack.frame_row(77, pack.encode_frame(5, 2, 1000, b"stored", 3))[0]
    assert [int(row[name]) for name in ("offset", "stored", "raw", "codec", "base")] == [77, 6, 1000, 2, 4]


def test_a_sound_frame_of_another_number_is_not_taken() -> None:
    data = written([b"first", b"other"])
    _, rows = pack.scan_frames(InMemory(data))
    begin = int(rows[1]["offset"])
    span = data[begin : begin + pack.FRAME_HEADER_SIZE + 5]
    assert bytes(pack.check_frame(span, rows, 1)) == b"other"
    with pytest.raises(Damaged, match="not the one listed"):
        pack.check_frame(span, rows, 0)


@pytest.mark.parametrize(
    ("addresses", "lengths"),
    [
        ([0, 5], [6, 5]),  # overlap
        ([0], [0]),
        ([90], [11]),  # past the frame's end
        ([2 << FRAME_BITS], [1]),  # no such frame
        ([0, 1], [1]),
    ],
)
def test_chunks_that_cannot_be_are_not_written(addresses: list[int], lengths: list[int]) -> None:
    with pytest.raises(ValueError):
        pack.encode_table(table_of(frame_rows([100, 100]), addresses, lengths), PACK_ID)


def changed(name: str, number: int, value: int) -> Frames:
    frames = frame_rows([100, 100, 100])
    frames[name][number] = value
    return frames


@pytest.mark.parametrize(
    "frames",
    [
        changed("offset", 1, 1000),
        changed("raw", 0, 0),
        changed("raw", 0, MAX_FRAME + 1),
        changed("stored", 2, 11),
        changed("base", 1, 2),  # leans on itself
        changed("base", 1, 4),  # on one that is not there
        changed("transform", 0, 1),
        np.repeat(frame_rows([1]), MAX_FRAMES + 1),
    ],
)
def test_frames_that_cannot_be_are_not_written(frames: Frames) -> None:
    if np.array_equal(frames, changed("stored", 2, 11)):
        # The last frame's length is free: the table then begins one byte later.
        pack.encode_table(table_of(frames, [], []), PACK_ID)
        return
    with pytest.raises(ValueError):
        pack.encode_table(table_of(frames, [], []), PACK_ID)


def test_bases_are_one_deep() -> None:
    frames = frame_rows([100, 100, 100])
    frames["codec"] = 2
    frames["base"] = [0, 1, 1]
    pack.encode_table(table_of(frames, [], []), PACK_ID)
    frames["base"] = [0, 1, 2]
    with pytest.raises(ValueError, match="itself leans"):
        pack.encode_table(table_of(frames, [], []), PACK_ID)
    frames["base"], frames["codec"][1] = [0, 1, 0], 1
    with pytest.raises(ValueError, match="without a codec"):
        pack.encode_table(table_of(frames, [], []), PACK_ID)


def test_table_of_another_pack() -> None:
    data = pack.encode_table(table_of(frame_rows([9]), [0], [9]), PACK_ID)
    pack.decode_table(data, PACK_ID)
    with pytest.raises(Damaged, match="another pack"):
        pack.decode_table(data, bytes(16))


def test_data_table_is_compact() -> None:
    rng = np.random.default_rng(1)
    lengths = rng.integers(1000, 32768, 64 * 64).astype(np.uint32)
    offsets = (np.cumsum(lengths.reshape(64, 64), axis=1) - lengths.reshape(64, 64)).ravel()
    addresses = (np.repeat(np.arange(64), 64) << FRAME_BITS) + offsets
    frames = frame_rows([MAX_FRAME] * 64)
    frames["checksum"] = rng.integers(0, 256, (64, 16))
    table = DataTable(
        frames, rng.integers(0, 256, (4096, 32), dtype=np.uint8), addresses.astype(np.uint32), lengths
    )
    assert len(pack.encode_table(table, PACK_ID)) / 4096 < 35


def test_pieces_go_on_in_the_frames_that_follow() -> None:
    frames = frame_rows([100, 50, 100])
    assert pack.pieces(frames, 0, 90, 70) == [Piece(0, 90, 10), Piece(1, 0, 50), Piece(2, 0, 10)]
    assert pack.pieces(frames, 0, 0, 0) == []
    for frame, offset, length in [(0, 90, 161), (0, 100, 1), (3, 0, 1), (2**40, 0, 1)]:
        with pytest.raises(Damaged):
            pack.pieces(frames, frame, offset, length)


BLOB = Record(RecordKind.BLOB, Digest.of(b"x"), 1, 0, 0, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"digest": Digest("sha256", bytes(31))},
        {"digest": Digest("sha256", bytes(64))},
        {"diffid": Digest("sha512", bytes(32))},
        {"size": -1},
        {"size": 1 << 63},
        {"content_size": -1},
        {"length": 101},
        {"offset": 100},
        {"frame": 1},
        {"encoding": "x" * 256},
    ],
)
def test_records_that_cannot_be_are_not_written(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        pack.encode_table(MetadataTable(frame_rows([100]), [BLOB._replace(**change)]), PACK_ID)


def test_a_media_type_from_outside_has_a_limit() -> None:
    with pytest.raises(LimitExceeded):
        record = BLOB._replace(media_type="x" * 256)
        pack.encode_table(MetadataTable(frame_rows([100]), [record]), PACK_ID)


@pytest.mark.parametrize("kind", list(PackKind))
def test_a_claimed_count_costs_nothing(kind: PackKind) -> None:
    empty: Any = (
        table_of(frame_rows([9]), [], []) if kind == PackKind.DATA else MetadataTable(frame_rows([9]), [])
    )
    data = bytearray(pack.encode_table(empty, PACK_ID))
    data[28:32] = b"\xff" * 4
    data[-40:-8] = encoding.checksum(data[:-40], length=32)
    tracemalloc.start()
    try:
        with pytest.raises(Damaged):
            pack.decode_table(data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_scan_across_windows_and_false_starts() -> None:
    # Frame magics in the content, before a window's end, at it, and in junk.
    magic = pack.encode_frame(0, 0, 1, b"x")[:4]
    fill = (1 << 20) - pack.HEADER_SIZE - 2 * pack.FRAME_HEADER_SIZE
    stored = [magic * 5 + b"." * (fill - 22), magic + b"two", b"3" * 100]
    data = written(stored) + magic + b"junk" * 20 + magic
    numbers, rows = pack.scan_frames(InMemory(data))
    assert numbers.tolist() == [0, 1, 2]
    assert rows["stored"].tolist() == [len(content) for content in stored]
    for shift in range(60):
        begin = (1 << 20) - 30 + shift
        junk = written([]) + bytes(begin - pack.HEADER_SIZE)
        reader = InMemory(junk + written([b"found"])[pack.HEADER_SIZE :])
        assert pack.scan_frames(reader)[1]["offset"].tolist() == [begin]


def test_scan_takes_the_first_of_two_frames_with_one_number() -> None:
    data = written([b"one"]) + written([b"another"])[pack.HEADER_SIZE :]
    numbers, rows = pack.scan_frames(InMemory(data))
    assert numbers.tolist() == [0]
    assert rows["stored"].tolist() == [3]
