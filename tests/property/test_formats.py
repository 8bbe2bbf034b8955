"""Formats: what is decoded is what was encoded; damage is told as Damaged, never wrong bytes, never another
error.

"Damaged" is tried in three ways: one byte changed, cut short, and (for what a liar could make) changed and
sealed again with a right checksum, where a consistent other value is also allowed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casstore.codec import frame as codec
from casstore.digest import Digest
from casstore.errors import Damaged, StoreUnusable
from casstore.format import encoding, index, pack, recipe, storefile
from casstore.format.pack import DataTable, Frame, Frames, MetadataTable, PackKind, Record, RecordKind
from casstore.model import FRAME_BITS, ChunkList, Cutter, Recipe
from casstore.transport.members import MemoryReader

PACK_ID = b"0123456789abcdef"
EXAMPLES = int(os.environ.get("CASSTORE_EXAMPLES", "100"))
many = settings(max_examples=EXAMPLES, deadline=None)

seeds = st.integers(0, 2**32 - 1)


def same(ours: Any, theirs: Any) -> bool:
    return bool(np.array_equal(ours, theirs))


def digests_of(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32), dtype=np.uint8)


# -- damage


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` with one byte changed, or cut short."""
    where = draw(st.integers(0, len(data) - 1))
    if draw(st.booleans()):
        return data[:where]
    return data[:where] + bytes([data[where] ^ draw(st.integers(1, 255))]) + data[where + 1 :]


@st.composite
def forged(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` with some bytes replaced, removed or repeated."""
    out = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        where = draw(st.integers(0, max(0, len(out) - 1)))
        span = draw(st.integers(1, 9))
        kind = draw(st.sampled_from(["set", "drop", "add", "max"]))
        if kind == "set":
            out[where : where + span] = draw(st.binary(min_size=span, max_size=span))
        elif kind == "drop":
            del out[where : where + span]
        elif kind == "add":
            out[where:where] = out[where : where + span]
        else:
            out[where : where + span] = b"\xff" * span
    return bytes(out)


# -- columns

columns = st.lists(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 300), max_size=40), max_size=5)


@many
@given(columns)
def test_columns_return(values: list[list[int]]) -> None:
    arrays = [np.array(column, np.uint64) for column in values]
    data = b"before" + encoding.encode_columns(arrays, 3) + b"after"
    kept, end = encoding.decode_columns(memoryview(data), 6, [len(c) for c in values], "test", 1 << 20)
    assert [column.tolist() for column in kept] == values
    assert data[end:] == b"after"


# -- packs


@st.composite
def frame_bytes(draw: st.DrawFn) -> tuple[bytes, Frames]:
    """A pack's header and frames (in any order of number), and their rows by number."""
    count = draw(st.integers(0, 5))
    order = draw(st.permutations(range(count)))
    rng = np.random.default_rng(draw(seeds))
    out = bytearray(pack.encode_header(PackKind.DATA, PACK_ID))
    rows: dict[int, Frames] = {}
    raws: dict[int, bytes] = {}
    leaning: set[int] = set()
    for number in order:
        raw = rng.integers(0, draw(st.integers(1, 255)), draw(st.integers(1, 3000)), dtype=np.uint8).tobytes()
        bases = sorted(raws.keys() - leaning)
        base = draw(st.none() | st.sampled_from(bases)) if bases else None
        name = "zstd:3" if base is not None else draw(st.sampled_from(["none", "lz4", "zstd:1", "zstd:19"]))
        codec_number, stored = codec.compress(name, raw, None if base is None else raws[base])
        if codec_number != codec.ZSTD:
            base = None
        header = pack.encode_frame(number, codec_number, len(raw), stored, base)
        rows[number], raws[number] = pack.frame_row(len(out), header), raw
        leaning |= {number} if base is not None else set()
        out += header + bytes(stored)
    numbered = [rows[number] for number in range(count)]
    return bytes(out), np.concatenate(numbered) if numbered else np.zeros(0, Frame)


@st.composite
def data_packs(draw: st.DrawFn) -> tuple[bytes, DataTable]:
    head, frames = draw(frame_bytes())
    addresses, lengths = [], []
    for number, row in enumerate(frames):
        offset = 0
        while (room := int(row["raw"]) - offset) > 0 and draw(st.integers(0, 5)):
            offset += draw(st.just(0) | st.integers(0, room - 1))
            length = draw(st.integers(1, int(row["raw"]) - offset))
            addresses.append(number << FRAME_BITS | offset)
            lengths.append(length)
            offset += length
    table = DataTable(
        frames,
        digests_of(draw(seeds), len(addresses)),
        np.array(addresses, np.uint32),
        np.array(lengths, np.uint32),
    )
    order = np.array(draw(st.permutations(range(len(addresses)))), np.int64)
    shuffled = DataTable(frames, table.digests[order], table.addresses[order], table.lengths[order])
    return head + pack.encode_table(shuffled, PACK_ID), table


sizes = st.integers(0, 2**63 - 1)
digests = st.binary(min_size=32, max_size=32).map(Digest.sha256) | st.binary(min_size=64, max_size=64).map(
    Digest.unpack
)


@st.composite
def metadata_packs(draw: st.DrawFn) -> tuple[bytes, MetadataTable]:
    head, frames = draw(frame_bytes())
    records = []
    for _ in range(draw(st.integers(0, 4)) if len(frames) else 0):
        number = draw(st.integers(0, len(frames) - 1))
        offset = draw(st.integers(0, int(frames[number]["raw"]) - 1))
        room = int(frames["raw"][number:].sum()) - offset
        records.append(
            Record(
                draw(st.sampled_from(RecordKind)),
                draw(digests),
                draw(sizes),
                number,
                offset,
                draw(st.integers(0, room)),
                draw(st.sampled_from(["identity", "gzip"])),
                draw(st.text(max_size=20)),
                draw(st.none() | digests),
                draw(st.none() | sizes),
                draw(st.none() | sizes),
            )
        )
    table = MetadataTable(frames, records)
    return head + pack.encode_table(table, PACK_ID), table


def read_pack(data: bytes) -> DataTable | MetadataTable:
    """All of a pack, as a careful reader takes it: every byte is looked at."""
    header = pack.decode_header(data)
    offset, length = pack.decode_trailer(data[-pack.TRAILER_SIZE :], len(data))
    table = pack.decode_table(data[offset : offset + length], header.pack_id)
    if isinstance(table, DataTable) != (header.kind == PackKind.DATA):
        # These packs begin with a data header, whatever their table is.
        assert isinstance(table, MetadataTable)
    raws: dict[int, bytes] = {}
    for number in sorted(range(len(table.frames)), key=lambda n: int(table.frames[n]["base"])):
        row = table.frames[number]
        begin = int(row["offset"])
        span = data[begin : begin + pack.FRAME_HEADER_SIZE + int(row["stored"])]
        stored = pack.check_frame(span, table.frames, number)
        prefix = raws[int(row["base"]) - 1] if row["base"] else None
        raws[number] = codec.decompress(int(row["codec"]), stored, int(row["raw"]), prefix)
    return table


def same_table(ours: Any, theirs: Any) -> bool:
    if not same(ours.frames, theirs.frames) or ours.chunk_digest != theirs.chunk_digest:
        return False
    if isinstance(ours, MetadataTable):
        return bool(ours.records == theirs.records)
    return all(
        same(getattr(ours, name), getattr(theirs, name)) for name in ("digests", "addresses", "lengths")
    )


@many
@given(st.one_of(data_packs(), metadata_packs()), st.data())
def test_packs_return_and_tell_damage(made: tuple[bytes, Any], data: st.DataObject) -> None:
    content, table = made
    assert same_table(read_pack(content), table)
    with pytest.raises(Damaged):
        read_pack(data.draw(damaged(content)))


@many
@given(frame_bytes(), st.data())
def test_scan_finds_what_is_sound(made: tuple[bytes, Frames], data: st.DataObject) -> None:
    content, frames = made
    numbers, rows = pack.scan_frames(MemoryReader(content + b"the rest"))
    assert numbers.tolist() == list(range(len(frames)))
    assert same(rows, frames)
    where = data.draw(st.integers(0, len(content) - 1))
    broken = content[:where] + bytes([content[where] ^ 0x55]) + content[where + 1 :]
    numbers, rows = pack.scan_frames(MemoryReader(broken))
    hit = (frames["offset"] <= where) & (where < frames["offset"] + frames["stored"] + pack.FRAME_HEADER_SIZE)
    assert numbers.tolist() == np.flatnonzero(~hit).tolist()
    assert same(rows, frames[~hit])


def reseal_table(forgery: bytes) -> bytes:
    """A forged table (with trailer) that passes its checksum."""
    body, end = forgery[: -pack.TRAILER_SIZE], forgery[-pack.TRAILER_SIZE :]
    lengths = end[:8] + len(forgery).to_bytes(8, "little")
    return body + lengths + encoding.checksum(body, lengths, length=32) + end[48:]


@many
@given(st.one_of(data_packs(), metadata_packs()), st.data())
def test_forged_tables_are_damaged_or_consistent(made: tuple[bytes, Any], data: st.DataObject) -> None:
    content, _ = made
    offset, length = pack.decode_trailer(content[-pack.TRAILER_SIZE :], len(content))
    forgery = data.draw(forged(content[offset : offset + length]))
    if len(forgery) < pack.TRAILER_SIZE:
        return
    with contextlib.suppress(Damaged):
        table = pack.decode_table(reseal_table(forgery))
        pack.encode_table(table, PACK_ID)


@many
@given(st.binary(max_size=300))
def test_junk_is_no_pack(junk: bytes) -> None:
    for reader in (pack.decode_header, pack.decode_table, lambda d: pack.decode_trailer(d, len(d))):
        with pytest.raises(Damaged):
            reader(junk)
    assert not len(pack.scan_frames(MemoryReader(junk))[0])


# -- index segments

PACKS = [bytes([n]) * 16 for n in (5, 1, 9, 0, 7)]
entries = st.lists(
    st.tuples(
        st.integers(0, 60), st.integers(0, len(PACKS) - 1), st.integers(0, 2**32 - 1) | st.integers(0, 3)
    ),
    max_size=60,
)
Entries = list[tuple[int, int, int]]
# Few digests, some of which agree in their first bytes.
POOL = digests_of(11, 61)
POOL[10:20, :8] = POOL[10, :8]
POOL[20:30, :4] = POOL[20, :4]


def segment_of(rows: Entries) -> bytes:
    picked = np.array([row[0] for row in rows], np.int64)
    packs = np.array([row[1] for row in rows], np.uint32)
    return index.encode(POOL[picked], packs, np.array([row[2] for row in rows], np.uint32), PACKS)


def rows_of(segment: index.IndexSegment) -> list[tuple[bytes, bytes, int]]:
    return [
        (row["digest"].tobytes(), segment.pack_ids[row["pack"]], int(row["address"]))
        for row in segment.entries
    ]


def expected_rows(rows: Entries) -> list[tuple[bytes, bytes, int]]:
    return sorted({(POOL[d].tobytes(), PACKS[p], a) for d, p, a in rows})


@many
@given(entries, st.data())
def test_index_returns_and_tells_damage(rows: Entries, data: st.DataObject) -> None:
    content = segment_of(rows)
    segment = index.IndexSegment.open(content)
    assert rows_of(segment) == expected_rows(rows)
    with pytest.raises(Damaged):
        index.IndexSegment.open(data.draw(damaged(content)))


@many
@given(entries, entries, st.sets(st.sampled_from(PACKS)))
def test_merge_is_the_union_without_the_dropped(first: Entries, second: Entries, drop: set[bytes]) -> None:
    segments = [index.IndexSegment.open(segment_of(rows)) for rows in (first, second)]
    merged = index.IndexSegment.open(index.merge(segments, drop))
    assert rows_of(merged) == [row for row in expected_rows(first + second) if row[1] not in drop]
    assert merged.pack_ids == sorted(set(PACKS) - drop)


@many
@given(entries)
def test_find_says_what_is_there(rows: Entries) -> None:
    segment = index.IndexSegment.open(segment_of(rows))
    kept = expected_rows(rows)
    firsts, counts = segment.find_range(POOL)
    found, packs, addresses = segment.find(POOL)
    for number, digest in enumerate(POOL):
        theirs = [row for row in kept if row[0] == digest.tobytes()]
        span = np.arange(firsts[number], firsts[number] + counts[number], dtype=np.uint32)
        ours = [
            (segment.pack_ids[p], a)
            for p, a in zip(*map(np.ndarray.tolist, segment.entry(span)), strict=True)
        ]
        assert ours == [row[1:] for row in theirs]
        assert found[number] == bool(theirs)
        if theirs:
            assert (segment.pack_ids[packs[number]], addresses[number]) == theirs[0][1:]


@many
@given(entries, st.data())
def test_forged_index_is_damaged_or_searchable(rows: Entries, data: st.DataObject) -> None:
    forgery = bytearray(data.draw(forged(segment_of(rows))))
    if len(forgery) < 128:
        return
    forgery[48:64] = encoding.checksum(forgery[:48])
    forgery[-32:] = encoding.checksum(forgery[:-32], length=32)
    for verify in (True, False):
        with contextlib.suppress(Damaged):
            segment = index.IndexSegment.open(forgery, verify)
            _, counts = segment.find_range(POOL)
            segment.find(POOL)
            segment.entry(np.arange(min(segment.count, int(counts.sum())), dtype=np.uint32))


# -- recipes

POOL_LENGTHS = np.random.default_rng(3).integers(1, 65537, 61).astype(np.uint32)
POOL_LENGTHS[:6] = [1, 511, 512, 513, 1 << 22, 4096]
runs = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 3) | st.integers(1, 2**32 - 1)), max_size=12)


def track(chunks: list[tuple[int, int]]) -> ChunkList:
    picked = np.array([chunk[0] for chunk in chunks], np.int64)
    return ChunkList(POOL[picked], POOL_LENGTHS[picked], np.array([chunk[1] for chunk in chunks], np.uint32))


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    literals, payloads = track(draw(runs)), track(draw(runs))
    literal_left = literals.size
    chunks_left = [int(n) for n in payloads.repeats]
    weave = []
    entry = 0
    while literal_left or entry < len(chunks_left):
        take = draw(st.sampled_from([0, 512, 1024, literal_left]) | st.integers(0, literal_left))
        take = min(take, literal_left)
        payload = 0
        for _ in range(draw(st.integers(0, 3))):
            if entry < len(chunks_left):
                times = draw(st.integers(1, chunks_left[entry]))
                payload += times * int(payloads.lengths[entry])
                chunks_left[entry] -= times
                entry += not chunks_left[entry]
        if len(weave) > 12:  # enough: the rest in one row
            take = literal_left
            for last in range(entry, len(chunks_left)):
                payload += chunks_left[last] * int(payloads.lengths[last])
            entry = len(chunks_left)
        literal_left -= take
        weave.append((take, payload))
    rows = np.array(weave, np.uint64).reshape(-1, 2)
    if draw(st.booleans()):
        return Recipe(int(rows.sum()), rows, literals, payloads)
    return Recipe(
        draw(sizes), rows, literals, payloads, draw(st.text(min_size=1, max_size=9)) + "!", draw(st.binary())
    )


def same_recipe(ours: Recipe, theirs: Recipe) -> bool:
    tracks = ((ours.literals, theirs.literals), (ours.payloads, theirs.payloads))
    return (
        (ours.size, ours.encoding, ours.trace) == (theirs.size, theirs.encoding, theirs.trace)
        and same(ours.weave, theirs.weave)
        and all(same(a.digests, b.digests) for a, b in tracks)
        and all(same(a.lengths, b.lengths) for a, b in tracks)
        and all(same(a.repeats, b.repeats) for a, b in tracks)
    )


@many
@given(recipes(), st.data())
def test_recipes_return_and_tell_damage(model: Recipe, data: st.DataObject) -> None:
    content = recipe.encode(model)
    assert same_recipe(recipe.decode(content), model)
    assert recipe.encode(recipe.decode(content)) == content
    with pytest.raises(Damaged):
        recipe.decode(data.draw(damaged(content)))


@many
@given(recipes(), st.data())
def test_forged_recipes_are_damaged_or_consistent(model: Recipe, data: st.DataObject) -> None:
    forgery = data.draw(forged(recipe.encode(model)[:-16]))
    with contextlib.suppress(Damaged):
        kept = recipe.decode(forgery + encoding.checksum(forgery))
        assert int(kept.weave[:, 0].sum()) == kept.literals.size
        assert int(kept.weave[:, 1].sum()) == kept.payloads.size
        recipe.encode(kept)


# -- store.json


@many
@given(
    st.binary(min_size=16, max_size=16),
    st.text(max_size=40),
    st.sampled_from(["sha256", "blake3"]),
    st.integers(6, 22),
)
def test_store_file_returns(name: bytes, created: str, chunk_digest: str, bits: int) -> None:
    store = storefile.StoreFile(
        id=name.hex(), created=created, chunk_digest=chunk_digest, cutter=Cutter("gear32n", 64, 1 << bits, 1 << 22)
    )
    assert storefile.decode(storefile.encode(store)) == store


@many
@given(
    st.binary()
    | st.recursive(st.none() | st.integers() | st.text(), lambda s: st.lists(s)).map(repr).map(str.encode)
)
def test_junk_is_no_store_file(junk: bytes) -> None:
    with pytest.raises(StoreUnusable):
        storefile.decode(junk)


# -- frame codecs

frames_raw = st.builds(
    lambda seed, kinds, length: (
        np.random.default_rng(seed).integers(0, kinds, length, dtype=np.uint8).tobytes()
    ),
    seeds,
    st.integers(1, 256),
    st.integers(1, 5000),
)


@many
@given(frames_raw, st.sampled_from(["none", "lz4", "zstd:1", "zstd:3", "zstd:19"]), st.data())
def test_codecs_return(raw: bytes, name: str, data: st.DataObject) -> None:
    number, stored = codec.compress(name, raw)
    assert codec.decompress(number, stored, len(raw)) == raw
    _never_wrong_length(
        lambda d: codec.decompress(number, d, len(raw)), data.draw(damaged(bytes(stored))), len(raw)
    )


@many
@given(frames_raw, frames_raw, st.integers(1, 19), st.data())
def test_prefixed_frames_return(raw: bytes, prefix: bytes, level: int, data: st.DataObject) -> None:
    raw += prefix[: data.draw(st.integers(0, len(prefix)))]
    number, stored = codec.compress(f"zstd:{level}", raw, prefix)
    base = prefix if number == codec.ZSTD else None
    assert codec.decompress(number, stored, len(raw), base) == raw
    _never_wrong_length(
        lambda d: codec.decompress(number, d, len(raw), base), data.draw(damaged(bytes(stored))), len(raw)
    )


def _never_wrong_length(decode: Callable[[bytes], bytes], data: bytes, length: int) -> None:
    """A codec has no checksum of its own (the frame has): it may decode to other bytes, but never to more or
    fewer."""
    with contextlib.suppress(Damaged):
        assert len(decode(data)) == length
