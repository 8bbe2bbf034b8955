"""Fuzzing index segments: format/index.py on its two ways of reading, and the table kernel below it.

An input is a byte of flags and a segment whose checksums are made right unless AS_IT_IS says otherwise; with FITTING
the bytes are cut or filled up to the length that the header claims.

Checked: Damaged or answers. Of a segment that passes its whole check the answers are those of a dictionary, whether it
is read whole or by pieces, and it is written again as the same entries.
"""

from __future__ import annotations

import numpy as np

from casstore.errors import Damaged
from casstore.format import index
from casstore.format.encoding import checksum
from casstore.transport.members import MemoryReader

AS_IT_IS, FITTING = 1, 2
_MOST = 1 << 18


def close(data: bytes) -> bytes:
    flags, raw = data[0], bytearray(data[1:])
    if flags & AS_IT_IS or len(raw) < index.HEADER_SIZE:
        return bytes(raw)
    raw[48:64] = checksum(raw[:48])
    if flags & FITTING:
        packs, count = int.from_bytes(raw[12:16], "little"), int.from_bytes(raw[16:24], "little")
        end = index._layout(packs, min(raw[11], 24), count)[2]
        if end <= _MOST:
            raw = raw[:end].ljust(end, b"\0") + bytes(index.TRAILER_SIZE)
    end = max(0, len(raw) - index.TRAILER_SIZE)
    raw[end:] = checksum(raw[:end], length=32)
    return bytes(raw)


def one(data: bytes) -> None:
    if not data:
        return
    raw = close(data)
    try:
        loose = index.IndexSegment.open(raw, verify=False)
    except Damaged:
        loose = None
    asked = questions(raw)
    if loose is not None:
        ask(loose, asked)
        look_nearby(raw, asked)
    try:
        sound = index.IndexSegment.open(raw)
    except Damaged:
        return
    assert loose is not None
    compare(sound, asked)
    large = index.LargeSegment(MemoryReader(raw))
    large.verify()
    assert np.array_equal(np.concatenate([*large.slices(), sound.entries[:0]]), sound.entries)
    near = large.near(asked)
    for ours, theirs in zip(sound.find(asked), near.find(asked), strict=True):
        assert np.array_equal(ours, theirs)
    write_again(sound)


def questions(raw: bytes) -> np.ndarray:
    """Digests that may be there: any 32 bytes that lie where entries may begin, and some beside them."""
    rows = [raw[at : at + 32] for at in range(64, len(raw) - 31, 8)][:300]
    rows += [rows[i][:31] + bytes([rows[i][31] ^ 1]) for i in range(0, len(rows), 7)]
    return np.frombuffer(b"".join(rows) + bytes(32) + b"\xff" * 32, np.uint8).reshape(-1, 32)


def ask(segment: index.IndexSegment, asked: np.ndarray) -> None:
    try:
        segment.find(asked)
        firsts, counts = segment.find_range(asked)
        segment.entry(firsts[counts > 0])
    except Damaged:
        pass
    try:
        index.merge([segment])
    except Damaged:
        pass


def look_nearby(raw: bytes, asked: np.ndarray) -> None:
    large = index.LargeSegment(MemoryReader(raw))
    try:
        ask(large.near(asked), asked)
    except Damaged:
        pass
    try:
        large.verify()
    except Damaged:
        pass


def compare(segment: index.IndexSegment, asked: np.ndarray) -> None:
    known: dict[bytes, list[tuple[int, int]]] = {}
    for entry in segment.entries:
        known.setdefault(entry["digest"].tobytes(), []).append((int(entry["pack"]), int(entry["address"])))
    found, packs, addresses = segment.find(asked)
    firsts, counts = segment.find_range(asked)
    for i, row in enumerate(asked):
        places = known.get(row.tobytes(), [])
        assert bool(found[i]) == bool(places) and int(counts[i]) == len(places)
        if places:
            assert places[0] == (int(packs[i]), int(addresses[i])) and places == sorted(set(places))
            numbers = np.arange(firsts[i], firsts[i] + counts[i], dtype=np.uint32)
            assert places == list(zip(*(column.tolist() for column in segment.entry(numbers)), strict=True))


def write_again(segment: index.IndexSegment) -> None:
    entries = segment.entries
    written = index.encode(
        entries["digest"], entries["pack"], entries["address"], segment.pack_ids, segment.chunk_digest
    )
    for again in (written, index.merge([segment])):
        other = index.IndexSegment.open(again)
        assert np.array_equal(other.entries, entries) and other.pack_ids == segment.pack_ids
    emptied = index.IndexSegment.open(index.merge([segment], drop=segment.pack_ids))
    assert emptied.count == 0 and emptied.pack_ids == []


def seeds() -> dict[str, bytes]:
    def made(count: int, packs: int, alike: bool = False) -> bytes:
        numbers = np.arange(count)
        digests = np.zeros((count, 32), np.uint8)
        digests[:, 0] = (numbers * 37 % 256) >> (5 if alike else 0)
        digests[:, 9] = numbers // 2 if alike else 0
        ids = [bytes([7 * i + 1]) * 16 for i in range(packs)]
        ordinals = (numbers % max(packs, 1)).astype(np.uint32)
        return index.encode(digests, ordinals, (numbers << 22).astype(np.uint32), ids, "blake3" if alike else "sha256")

    segments = {"empty": made(0, 0), "one": made(1, 1), "some": made(20, 3), "alike": made(12, 2, alike=True)}
    fitting = {f"{name}-fitting": bytes([FITTING]) + each for name, each in segments.items()}
    return {name: bytes([0]) + each for name, each in segments.items()} | fitting
