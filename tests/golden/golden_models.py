"""What the golden files of each format version hold, said independently of the code that reads them.

`python tests/golden/golden_models.py` writes those that are missing; one that is there is never written
again: it is what somebody's disk holds.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from casstore.codec import frame as codec
from casstore.codec.gzip import Analysis
from casstore.codec.long import Compressor
from casstore.digest import Digest
from casstore.format import bundle, index, pack, recipe, references, storefile, trace
from casstore.format.bundle import Base, BundleWriter, Carried, Head, Header, Kind, Name, Part
from casstore.format.pack import DataTable, MetadataTable, PackKind, Record, RecordKind
from casstore.model import FRAME_BITS, ChunkList, Cutter, Recipe

V1 = Path(__file__).parent / "v1"
PACK_ID = bytes(range(16))
OTHER_ID = bytes(range(16, 32))


def noise(seed: int, length: int) -> bytes:
    """Bytes that never change: SHA-256 of a counter. Every second block is zeros, so that codecs have
    something."""
    blocks = (hashlib.sha256(b"%d/%d" % (seed, i)).digest() + bytes(32) for i in range(length // 64 + 1))
    return b"".join(blocks)[:length]


def names(contents: list[bytes]) -> np.ndarray:
    raw = b"".join(hashlib.sha256(content).digest() for content in contents)
    return np.frombuffer(raw, np.uint8).reshape(-1, 32)


#: Frame number → (codec, base, its chunks). Written in the order given: not that of the numbers.
DATA_FRAMES: dict[int, tuple[str, int | None, list[bytes]]] = {
    1: ("zstd:3", None, [noise(1, 5000), noise(2, 1), noise(3, 30000)]),
    0: ("none", None, [b"abc", noise(4, 70)]),
    3: ("zstd:9", 1, [noise(1, 5000)[:4000] + b"changed", noise(3, 29999)]),
    2: ("lz4", None, [noise(5, 4096)]),
}


def data_pack() -> bytes:
    out = bytearray(pack.encode_header(PackKind.DATA, PACK_ID))
    raws = {number: b"".join(chunks) for number, (_, _, chunks) in DATA_FRAMES.items()}
    rows = {}
    for number, (name, base, _) in DATA_FRAMES.items():
        prefix = None if base is None else raws[base]
        codec_number, stored = codec.compress(name, raws[number], prefix)
        header = pack.encode_frame(number, codec_number, len(raws[number]), stored, base)
        rows[number] = pack.frame_row(len(out), header)
        out += header + bytes(stored)
    table = DataTable(np.concatenate([rows[number] for number in sorted(rows)]), *data_chunks())
    return bytes(out + pack.encode_table(table, PACK_ID))


def data_chunks() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(digests, addresses, lengths) in order of address."""
    contents, addresses = [], []
    for number in sorted(DATA_FRAMES):
        offset = 0
        for content in DATA_FRAMES[number][2]:
            contents.append(content)
            addresses.append(number << FRAME_BITS | offset)
            offset += len(content)
    lengths = np.array([len(content) for content in contents], np.uint32)
    return names(contents), np.array(addresses, np.uint32), lengths


MANIFEST = b'{"schemaVersion":2}'
LONG = noise(6, 6000)
RECORDS = [
    Record(
        RecordKind.BLOB,
        Digest.of(MANIFEST),
        len(MANIFEST),
        0,
        0,
        len(MANIFEST),
        media_type="application/vnd.oci.image.manifest.v1+json",
    ),
    Record(
        RecordKind.RECIPE,
        Digest.of(b"layer", "sha512"),
        123456789,
        0,
        len(MANIFEST),
        len(LONG),
        "gzip",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        Digest.of(b"layer.tar"),
        987654321,
        2**40,
    ),
    Record(RecordKind.BLOB, Digest.of(b""), 0, 0, 0, 0),
]


def metadata_pack() -> bytes:
    content = MANIFEST + LONG
    out = bytearray(pack.encode_header(PackKind.METADATA, OTHER_ID, "blake3"))
    rows = []
    for number, raw in enumerate((content[:4000], content[4000:])):
        codec_number, stored = codec.compress("zstd:9", raw)
        header = pack.encode_frame(number, codec_number, len(raw), stored)
        rows.append(pack.frame_row(len(out), header))
        out += header + bytes(stored)
    table = MetadataTable(np.concatenate(rows), RECORDS, "blake3")
    return bytes(out + pack.encode_table(table, OTHER_ID))


#: (digest, pack id, address) in the order in which they are written.
INDEX_ENTRIES = sorted(
    [(hashlib.sha256(b"%d" % i).digest(), (PACK_ID, OTHER_ID)[i % 2], i << FRAME_BITS | i) for i in range(40)]
    + [(hashlib.sha256(b"%d" % i).digest(), PACK_ID, 7 + i) for i in range(5)]
)


def index_segment() -> bytes:
    shuffled = sorted(INDEX_ENTRIES, key=lambda entry: entry[2])
    digests = np.frombuffer(b"".join(entry[0] for entry in shuffled), np.uint8).reshape(-1, 32)
    ids = [OTHER_ID, PACK_ID]
    packs = np.array([ids.index(entry[1]) for entry in shuffled], np.uint32)
    return index.encode(digests, packs, np.array([entry[2] for entry in shuffled], np.uint32), ids)


def chunks(contents: list[bytes], repeats: list[int]) -> ChunkList:
    lengths = np.array([len(content) for content in contents], np.uint32)
    return ChunkList(names(contents).reshape(-1, 32), lengths, np.array(repeats, np.uint32))


A, B, C = noise(7, 3000), noise(8, 700), noise(9, 4096)
RECIPE_TAR = Recipe(
    size=2 * 3000 + 6 * 4096 + 700 + 5120 + 4096,
    weave=np.array([[512, 6000], [656, 4096], [512, 700], [836, 5 * 4096], [2604, 0], [4096, 0]], np.uint64),
    literals=chunks([noise(10, 5120), C], [1, 1]),
    payloads=chunks([A, C, B, C], [2, 1, 1, 5]),
)
RECIPE_TRACED = Recipe(
    size=12345,
    weave=np.array([[3000, 0], [0, 700]], np.uint64),
    literals=chunks([A], [1]),
    payloads=chunks([B], [1]),
    encoding="gzip",
    trace=bytes(range(100)),
)
RECIPE_EMPTY = Recipe(0, np.zeros((0, 2), np.uint64), chunks([], []), chunks([], []))

STORE = storefile.StoreFile(
    id=PACK_ID.hex(),
    created="2026-11-24T00:00:00Z",
    chunk_digest="sha256",
    cutter=Cutter("gear32n", 4096, 16384, 65536),
)

D = [Digest.sha256(hashlib.sha256(b"%d" % i).digest()) for i in range(3)]
REFERENCES = references.References(
    references.Head(7, "0123456789abcdef", 1_790_000_000, STORE.id),
    tags=[("docker.io/library/a", "1", D[0], 1_789_999_999.5), ("localhost:5000/b/c", "latest", D[1], 0.0)],
    pins=[(D[2], "untagged"), (D[0], 'by hand "é"')],
    settings={"codec": "zstd:2", "gc.grace": "0"},
)

WHOLE = noise(11, 900)
#: What the recipe of the bundle names, in order of first use, and where from: 0 is the bundle, 1 its first base.
BUNDLE_CHUNKS = [(noise(10, 5120), 0), (C, 1), (A, 0), (B, 0)]
BUNDLE_HEADER = Header("sha256", Cutter("gear32n", 4096, 16384, 65536))
BUNDLE_HEAD = Head(
    bases=(Base(D[0], 70_000, D[2]), Base(D[2], 7)),
    blobs=(
        Carried(
            Kind.BYTES,
            Digest.of(MANIFEST),
            len(MANIFEST),
            len(MANIFEST),
            media_type="application/vnd.oci.image.manifest.v1+json",
        ),
        Carried(
            Kind.RECIPE,
            D[1],
            RECIPE_TAR.size,
            len(recipe.encode(RECIPE_TAR)),
            media_type="application/vnd.oci.image.layer.v1.tar",
            diffid=D[1],
            content_size=RECIPE_TAR.size,
            files_size=2**40,
        ),
        Carried(Kind.WHOLE, Digest.of(WHOLE, "sha512"), len(WHOLE), 0, "zstd"),
    ),
    names=(Name("docker.io/library/a", "1", Digest.of(MANIFEST)),),
    roots=(Digest.of(MANIFEST),),
    referrers=((D[2], Digest.of(MANIFEST)),),
    chunks=3,
    chunk_bytes=5120 + 3000 + 700,
)


def thin_bundle() -> bytes:
    out = bytearray()
    writer = BundleWriter(out.extend, BUNDLE_HEADER)
    writer.add(Part.HEAD, bundle.encode_head(BUNDLE_HEAD))
    writer.add(Part.RECORDS, MANIFEST)
    writer.add(Part.RECORDS, recipe.encode(RECIPE_TAR))
    writer.add(Part.SOURCES, bundle.encode_sources(np.array([source for _, source in BUNDLE_CHUNKS], np.uint32)))
    writer.add(Part.WHOLE, WHOLE)
    content = b"".join(chunk for chunk, source in BUNDLE_CHUNKS if not source)
    stream = Compressor(len(content), 1)
    writer.add(Part.CHUNKS, stream.add(content) + stream.end())
    writer.end()
    return bytes(out)


def made_oddly() -> bytes:
    """Two members and padding: by Python's zlib, with flushes where no encoder has any, and as `gzip` does it. Written
    once; what is in the file counts, whatever zlib makes of it elsewhere."""
    path = V1 / "odd.gz"
    if path.exists():
        return path.read_bytes()
    encoder = zlib.compressobj(6, zlib.DEFLATED, 31)
    first = encoder.compress(ODD_CONTENT[:7000]) + encoder.flush(zlib.Z_FULL_FLUSH)
    first += encoder.compress(ODD_CONTENT[7000:20000]) + encoder.flush(zlib.Z_SYNC_FLUSH)
    first += encoder.compress(ODD_CONTENT[20000:]) + encoder.flush()
    return first + gzip.compress(b"more", 9, mtime=5) + bytes(20)


ODD_CONTENT = b"".join(noise(20 + i % 3, 300 + 37 * i) for i in range(40))
"""Of the first member of odd.gz; the other's is "more"."""


def trace_of_odd() -> bytes:
    analysis = Analysis(io.BytesIO(made_oddly()))
    if b"".join(bytes(piece) for piece in analysis) != ODD_CONTENT + b"more" or analysis.trace is None:
        raise AssertionError(analysis.reason)
    return trace.encode(analysis.trace)


FILES: dict[str, Callable[[], bytes]] = {
    "odd.gz": made_oddly,
    "odd.trace": trace_of_odd,
    "data.pack": data_pack,
    "metadata.pack": metadata_pack,
    "segment.index": index_segment,
    "tar.recipe": lambda: recipe.encode(RECIPE_TAR),
    "traced.recipe": lambda: recipe.encode(RECIPE_TRACED),
    "empty.recipe": lambda: recipe.encode(RECIPE_EMPTY),
    "references.json": lambda: references.encode(REFERENCES),
    "thin.bundle": thin_bundle,
    "store.json": lambda: storefile.encode(STORE),
}

if __name__ == "__main__":
    V1.mkdir(exist_ok=True)
    for name, make in FILES.items():
        if not (V1 / name).exists():
            (V1 / name).write_bytes(make())
