"""Old stores open: the golden files are read for ever, and what is written today is what was written then."""

from __future__ import annotations

import hashlib

import golden_models as golden
import numpy as np
import pytest

from casstore.codec import frame as codec
from casstore.codec.long import Decompressor
from casstore.codec.replay import replay
from casstore.digest import Digest
from casstore.flow.source import BytesSource
from casstore.format import bundle, index, pack, recipe, references, storefile, trace
from casstore.format.bundle import BundleReader, Part
from casstore.format.encoding import zstd
from casstore.format.pack import DataTable, MetadataTable, PackKind
from casstore.kernels import deflate
from casstore.model import FRAME_BITS, MAX_FRAME, Recipe

#: zstd may choose other bytes in another version, for the same content; only then may encoded bytes differ.
ZSTD_OF_GOLDEN = "1.5.7"
COMPRESSED = {"data.pack", "metadata.pack", "tar.recipe", "traced.recipe", "thin.bundle", "odd.trace"}


def read(name: str) -> bytes:
    return (golden.V1 / name).read_bytes()


def read_table(data: bytes) -> DataTable | MetadataTable:
    offset, length = pack.decode_trailer(data, len(data))
    return pack.decode_table(data[offset : offset + length], pack.decode_header(data).pack_id)


def read_frame(data: bytes, table: DataTable | MetadataTable, number: int) -> bytes:
    row = table.frames[number]
    begin = int(row["offset"])
    span = data[begin : begin + pack.FRAME_HEADER_SIZE + int(row["stored"])]
    prefix = read_frame(data, table, int(row["base"]) - 1) if row["base"] else None
    stored = pack.check_frame(span, table.frames, number)
    return codec.decompress(int(row["codec"]), stored, int(row["raw"]), prefix)


@pytest.mark.parametrize("name", sorted(golden.FILES))
def test_encoding_is_byte_stable(name: str) -> None:
    if name in COMPRESSED and zstd.zstd_version != ZSTD_OF_GOLDEN:
        pytest.skip(f"zstd {zstd.zstd_version} is not the {ZSTD_OF_GOLDEN} that wrote the golden files")
    assert golden.FILES[name]() == read(name)


def test_no_golden_file_is_untested() -> None:
    assert {path.name for path in golden.V1.iterdir()} == set(golden.FILES)


def test_data_pack() -> None:
    data = read("data.pack")
    assert pack.decode_header(data) == (PackKind.DATA, golden.PACK_ID, "sha256")
    table = read_table(data)
    assert isinstance(table, DataTable)
    for kept, expected in zip((table.digests, table.addresses, table.lengths), golden.data_chunks(), strict=True):
        np.testing.assert_array_equal(kept, expected)
    frames = [read_frame(data, table, number) for number in range(4)]
    assert frames == [b"".join(golden.DATA_FRAMES[number][2]) for number in range(4)]
    for digest, address, length in zip(table.digests, table.addresses, table.lengths, strict=True):
        offset = int(address) & (MAX_FRAME - 1)
        chunk = frames[int(address) >> FRAME_BITS][offset : offset + int(length)]
        assert hashlib.sha256(chunk).digest() == digest.tobytes()


def test_metadata_pack() -> None:
    data = read("metadata.pack")
    assert pack.decode_header(data) == (PackKind.METADATA, golden.OTHER_ID, "blake3")
    table = read_table(data)
    assert isinstance(table, MetadataTable)
    assert table.records == golden.RECORDS
    record = table.records[1]
    parts = [
        read_frame(data, table, piece.frame)[piece.offset : piece.offset + piece.length]
        for piece in pack.pieces(table.frames, record.frame, record.offset, record.length)
    ]
    assert b"".join(parts) == golden.LONG


def test_index_segment() -> None:
    segment = index.IndexSegment.open(read("segment.index"))
    assert segment.pack_ids == [golden.PACK_ID, golden.OTHER_ID]
    rows = [(row["digest"].tobytes(), segment.pack_ids[row["pack"]], int(row["address"])) for row in segment.entries]
    assert rows == golden.INDEX_ENTRIES


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("tar.recipe", golden.RECIPE_TAR),
        ("traced.recipe", golden.RECIPE_TRACED),
        ("empty.recipe", golden.RECIPE_EMPTY),
    ],
)
def test_recipe(name: str, model: Recipe) -> None:
    kept = recipe.decode(read(name))
    assert (kept.size, kept.encoding, kept.trace) == (model.size, model.encoding, model.trace)
    np.testing.assert_array_equal(kept.weave, model.weave)
    for ours, theirs in ((kept.literals, model.literals), (kept.payloads, model.payloads)):
        np.testing.assert_array_equal(ours.digests, theirs.digests)
        np.testing.assert_array_equal(ours.lengths, theirs.lengths)
        np.testing.assert_array_equal(ours.repeats, theirs.repeats)


def test_store_file() -> None:
    assert storefile.decode(read("store.json")) == golden.STORE


def test_references() -> None:
    assert references.decode(read("references.json")) == golden.REFERENCES
    assert references.decode_head(read("references.json")[: references.HEAD_SIZE]) == golden.REFERENCES.head


def test_bundle() -> None:
    reader = BundleReader(BytesSource(read("thin.bundle")))
    assert reader.header == golden.BUNDLE_HEADER
    assert bundle.decode_head(reader.whole(Part.HEAD, 1 << 20)) == golden.BUNDLE_HEAD
    assert reader.read(Part.RECORDS, len(golden.MANIFEST)) == golden.MANIFEST
    assert bytes(reader.whole(Part.RECORDS, 1 << 20)) == read("tar.recipe")
    sources = bundle.decode_sources(reader.whole(Part.SOURCES, 1 << 20), 4, 2)
    assert sources.tolist() == [source for _, source in golden.BUNDLE_CHUNKS]
    assert reader.whole(Part.WHOLE, 1 << 20) == golden.WHOLE
    content = bytearray(golden.BUNDLE_HEAD.chunk_bytes)
    stream = Decompressor(lambda most: reader.some(Part.CHUNKS, most), "golden")
    stream.read_into(memoryview(content))
    stream.end()
    assert content == b"".join(chunk for chunk, source in golden.BUNDLE_CHUNKS if not source)
    assert reader.end() == Digest.of(read("thin.bundle"))


NATIVE = pytest.mark.skipif(deflate.IMPLEMENTATION == "none", reason="gzip needs the compiled kernels")


@NATIVE
def test_a_trace_makes_the_very_gzip_again() -> None:
    kept = trace.decode(read("odd.trace"))
    content = golden.ODD_CONTENT + b"more"
    blob = read("odd.gz")
    assert b"".join(replay(kept, lambda start, end: content[start:end])) == blob
    assert b"".join(replay(kept, lambda start, end: content[start:end], 700, 900)) == blob[700:900]
    assert sum(len(one.exceptions) for one in kept.members[0].segments) > 0  # some of it is odd
