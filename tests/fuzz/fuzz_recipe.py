"""Fuzzing recipes: format/recipe.py and format/encoding.py, then what restoring makes of one.

An input is a record that lies open: after a byte of flags, the record without its checksum, the columns' planes not
compressed. Closed, it passes its checksum, so that all that lies behind is reached; with FITTING it also has as many
digests and numbers as its header says. With GROWN it is no record, but what a recipe is made from.

Checked: Damaged or a recipe, nothing else; a recipe is written again and read as the same; its layout covers every
byte of the content once, with spans inside its chunks.
"""

from __future__ import annotations

import struct
from dataclasses import fields

import numpy as np

from casstore.errors import Damaged
from casstore.flow.layout import Layout, Spans
from casstore.format import recipe
from casstore.format.encoding import checksum, deflated, inflated
from casstore.model import ChunkList, Recipe

AS_IT_IS, MANY, FITTING, GROWN = 1, 2, 4, 8

_HEADER = struct.Struct("<4sBBHQQIIII")
_HEADS = 5 * 9
_WINDOW = 1 << 16


def close(data: bytes) -> bytes:
    flags, record = data[0], data[1:]
    if flags & AS_IT_IS or len(record) < _HEADER.size:
        return record
    magic, version, zero, name, size, trace, *counts = _HEADER.unpack_from(record)
    if not flags & MANY:  # else most of the time goes into a few millions of rows
        counts = [count & 0xFFF for count in counts]
        record = _HEADER.pack(magic, version, zero, name, size, trace, *counts) + record[_HEADER.size :]
    at = _HEADER.size + name + 32 * counts[3] + _HEADS
    end = max(at, len(record) - trace)
    planes = record[at:end]
    if flags & FITTING and max(counts) < 1 << 12:
        rest = record[at - _HEADS :] or b"\0"
        head = record[: at - _HEADS].ljust(at - _HEADS, b"\1")
        record = head + rest[:_HEADS].ljust(_HEADS, b"\0") + rest[_HEADS:]
        planes = (rest * (_planes(record, at) // len(rest) + 1))[: _planes(record, at)]
        record, end = record[:at] + rest[-min(trace, 1 << 12) :][:trace], at
    stored = deflated(planes, 1) if planes else b""
    record = record[:at] + struct.pack("<I", len(stored)) + stored + record[end:]
    return record + checksum(record)


def open_up(record: bytes) -> bytes:
    *_, name, _, trace, _, _, _, distinct = _HEADER.unpack_from(record)
    at = _HEADER.size + name + 32 * distinct + _HEADS
    (stored,) = struct.unpack_from("<I", record, at)
    body = record[at + 4 : at + 4 + stored]
    length = _planes(record, at)
    planes = inflated(body, length, "seed") if stored else b""
    return bytes([0]) + record[:at] + planes + record[len(record) - 16 - trace : len(record) - 16]


def _planes(record: bytes, end: int) -> int:
    rows, literals, payloads, distinct = _HEADER.unpack_from(record)[-4:]
    widths = [record[end - _HEADS + 9 * i + 8] for i in range(5)]
    entries = literals + payloads
    return sum(w * n for w, n in zip(widths, (rows, rows, entries, distinct, entries), strict=True))


class Numbers:
    """Taken from bytes; zeros where they have ended."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def below(self, limit: int) -> int:
        size = (limit.bit_length() + 7) // 8
        if limit > 256 and self.below(2):  # small ones are as good
            size = 1
        piece = self._data[self._at : self._at + size]
        self._at += size
        return int.from_bytes(piece, "little") % limit


def grown(data: bytes) -> Recipe:
    take = Numbers(data)
    lengths = [1 + take.below(recipe.MAX_CHUNK) for _ in range(8)]
    tracks = []
    for _ in range(2):
        entries = [(take.below(8), 1 + take.below((1 << 32) - 1)) for _ in range(take.below(8))]
        names = np.array([[which] * 32 for which, _ in entries], np.uint8).reshape(-1, 32)
        sizes = [lengths[which] for which, _ in entries]
        tracks.append(ChunkList(names, np.array(sizes, np.uint32), np.array([n for _, n in entries], np.uint32)))
    last = tracks[1]
    whole = [length for times, length in zip(last.repeats, last.lengths, strict=True) for _ in range(min(times, 9))]
    literal, payload, weave = tracks[0].size, tracks[1].size, []
    for _ in range(take.below(9)):
        taken = sum(int(whole.pop(0)) for _ in range(take.below(len(whole) + 1)) if last.repeats.max() <= 9)
        weave.append((take.below(literal + 1), taken))
        literal, payload = literal - weave[-1][0], payload - taken
    weave.append((literal, payload))
    rows = np.array(weave, np.uint64)
    trace = data[-take.below(9) :] if take.below(2) else b""
    return Recipe(int(rows.sum()), rows, *tracks, "gzip" if trace else "identity", trace)


def one(data: bytes) -> None:
    if not data:
        return
    if data[0] & GROWN:
        made = grown(data[1:])
        check(made, recipe.decode(recipe.encode(made)))
        return
    try:
        found = recipe.decode(close(data))
    except Damaged:
        return
    check(found, recipe.decode(recipe.encode(found)))


def check(found: Recipe, again: Recipe) -> None:
    for field in fields(Recipe):
        ours, theirs = getattr(found, field.name), getattr(again, field.name)
        same = same_chunks(ours, theirs) if isinstance(ours, ChunkList) else np.array_equal(ours, theirs)
        assert same, field.name
    check_layout(found)


def same_chunks(ours: ChunkList, theirs: ChunkList) -> bool:
    return all(np.array_equal(getattr(ours, name), getattr(theirs, name)) for name in ("digests", "lengths", "repeats"))


def check_layout(found: Recipe) -> None:
    layout = Layout(found.weave, found.literals, found.payloads)
    assert layout.size == found.content_size == found.literals.size + found.payloads.size
    lengths = np.concatenate([found.literals.lengths, found.payloads.lengths])
    for start in {0, layout.size // 3, max(0, layout.size - _WINDOW)}:
        stop = min(start + _WINDOW, layout.size)
        if start == stop:
            continue
        pieces = layout.pieces(Spans.one(start, stop))
        order = np.argsort(pieces.to)
        to, length = pieces.to[order], pieces.length[order]
        assert int(length.min()) > 0
        assert np.array_equal(np.cumsum(length) - length, to) and int(length.sum()) == stop - start
        assert np.all(pieces.skip + pieces.length <= lengths[pieces.chunk.astype(np.int64)])


def seeds() -> dict[str, bytes]:
    digests = np.arange(8 * 32, dtype=np.uint8).reshape(8, 32)

    def chunks(which: list[int], lengths: list[int], repeats: list[int]) -> ChunkList:
        return ChunkList(digests[which].reshape(-1, 32), np.array(lengths, np.uint32), np.array(repeats, np.uint32))

    def weave(*rows: tuple[int, int]) -> np.ndarray:
        return np.array(rows, np.uint64).reshape(-1, 2)

    none = chunks([], [], [])
    made = {
        "empty": Recipe(0, weave((0, 0)), none, none),
        "literals": Recipe(1536, weave((1536, 0)), chunks([0], [1536], [1]), none),
        "tar": Recipe(
            4608,
            weave((512, 700), (836, 1024), (1536, 0)),
            chunks([0, 1, 0], [1000, 884, 1000], [1, 1, 1]),
            chunks([2, 3], [700, 256], [1, 4]),
        ),
        "traced": Recipe(
            77, weave((10, 4), (0, 4), (6, 0)), chunks([1], [4], [4]), chunks([2, 2], [4, 4], [1, 1]), "gzip", b"trace"
        ),
        "zeros": Recipe(1 << 36, weave((0, 1 << 36)), none, chunks([5, 6], [1 << 16, 1 << 15], [1 << 19, 1 << 20])),
    }
    opened = {name: open_up(recipe.encode(each)) for name, each in made.items()}
    fitting = {f"{name}-fitting": bytes([FITTING]) + each[1:] for name, each in opened.items()}
    grown_ones = {f"grown-{i}": bytes([GROWN]) + bytes(range(i, 250, 1 + i)) for i in range(4)}
    return opened | fitting | grown_ones
