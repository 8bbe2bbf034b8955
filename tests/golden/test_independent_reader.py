"""FORMATS.md is enough: a reader written from it alone, without casstore's code, reads the golden files."""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from typing import Any

import golden_models as golden
import lz4.block
from blake3 import blake3

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def hashed(data: bytes, length: int = 16) -> bytes:
    return bytes(blake3(data).digest(length=length))


def columns(data: bytes, at: int, counts: list[int]) -> tuple[list[list[int]], int]:
    heads = [struct.unpack_from("<QB", data, at + 9 * i) for i in range(len(counts))]
    at += 9 * len(counts)
    (stored,) = struct.unpack_from("<I", data, at)
    raw = zstd.decompress(data[at + 4 : at + 4 + stored]) if stored else b""
    values = []
    begin = 0
    for (base, width), count in zip(heads, counts, strict=True):
        planes = [raw[begin + w * count : begin + (w + 1) * count] for w in range(width)]
        values.append([base + sum(plane[i] << 8 * w for w, plane in enumerate(planes)) for i in range(count)])
        begin += width * count
    assert begin == len(raw)
    return values, at + 4 + stored


def msgpack(data: bytes, at: int) -> tuple[Any, int]:
    """As much of MessagePack as records need."""
    tag = data[at]
    at += 1
    if tag < 0x80:
        return tag, at
    if 0x90 <= tag < 0xA0 or tag in (0xDC, 0xDD):
        size = {0xDC: 2, 0xDD: 4}.get(tag, 0)
        count = int.from_bytes(data[at : at + size], "big") if size else tag & 15
        at += size
        items = []
        for _ in range(count):
            item, at = msgpack(data, at)
            items.append(item)
        return items, at
    if tag == 0xC0:
        return None, at
    if 0xCC <= tag <= 0xCF:
        size = 1 << (tag - 0xCC)
        return int.from_bytes(data[at : at + size], "big"), at + size
    size = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}.get(tag, 0)
    length = int.from_bytes(data[at : at + size], "big") if size else tag & 31
    text = data[at + size : at + size + length]
    return (text if 0xC4 <= tag <= 0xC6 else text.decode()), at + size + length


def read_pack(data: bytes) -> tuple[list[bytes], bytes, int]:
    """(raw frames by number, what follows the table's frames, n)."""
    magic, version, kind, _, _, pack_id = struct.unpack_from("<8sHBBI16s", data)
    assert (magic, version) == (b"casspack", 1)
    assert hashed(data[:32]) == data[32:48]
    offset, length, total, end = struct.unpack("<QQ32s8s", data[-56:])
    assert end == b"casspend"
    assert offset + length == len(data)
    assert hashed(data[offset : len(data) - 40], 32) == total
    table = data[offset:-56]
    magic, version, table_kind, _, table_id, frames, n = struct.unpack_from("<4sHBB16sII", table)
    assert (magic, version, table_kind, table_id) == (b"cTb\xf1", 1, kind, pack_id)
    rows = [struct.unpack_from("<QIIBBH16s", table, 32 + 36 * i) for i in range(frames)]
    assert 48 + sum(40 + row[1] for row in rows) == offset
    raws: dict[int, bytes] = {}
    for number in sorted(range(frames), key=lambda i: rows[i][5]):
        at, stored_length, raw_length, codec, transform, base, checksum = rows[number]
        head = data[at : at + 24]
        stored = data[at + 40 : at + 40 + stored_length]
        expected = (b"cFr\xf1", codec, transform, 0, raw_length, stored_length, number, base, 0)
        assert struct.unpack("<4sBBHIIHHI", head) == expected
        assert data[at + 24 : at + 40] == checksum == hashed(head + stored)
        if codec == 2:
            prefix = zstd.ZstdDict(raws[base - 1], is_raw=True).as_prefix if base else None
            raws[number] = zstd.ZstdDecompressor(zstd_dict=prefix).decompress(stored)
        else:
            raws[number] = lz4.block.decompress(stored, raw_length) if codec else stored
        assert len(raws[number]) == raw_length
    return [raws[i] for i in range(frames)], table[32 + 36 * frames :], n


def test_data_pack() -> None:
    raws, rest, n = read_pack((golden.V1 / "data.pack").read_bytes())
    (counts, gaps, lengths), end = columns(rest, 32 * n, [len(raws), n, n])
    assert end == len(rest)
    chunk = 0
    for raw, count in zip(raws, counts, strict=True):
        offset = 0
        for _ in range(count):
            offset += gaps[chunk]
            content = raw[offset : offset + lengths[chunk]]
            assert hashlib.sha256(content).digest() == rest[32 * chunk : 32 * chunk + 32]
            offset += lengths[chunk]
            chunk += 1
    assert chunk == n == sum(len(chunks) for _, _, chunks in golden.DATA_FRAMES.values())


def test_metadata_pack() -> None:
    raws, rest, n = read_pack((golden.V1 / "metadata.pack").read_bytes())
    records, end = msgpack(rest, 0)
    assert (end, len(records)) == (len(rest), n)
    for record, model in zip(records, golden.RECORDS, strict=True):
        kind, digest, size, frame, offset, length, encoding, media_type, diffid, content, files = record
        assert (kind, digest, size, encoding, media_type) == (
            model.kind,
            model.digest.raw,
            model.size,
            model.encoding,
            model.media_type,
        )
        assert diffid == (model.diffid.raw if model.diffid else None)
        assert (content, files) == (model.content_size, model.files_size)
        assert len(b"".join(raws[frame:])[offset : offset + length]) == length


def test_index_segment() -> None:
    data = (golden.V1 / "segment.index").read_bytes()
    magic, version, _, bits, packs, count, _, check = struct.unpack_from("<8sHBBIQ24s16s", data)
    assert (magic, version, check) == (b"cassindx", 1, hashed(data[:48]))
    assert hashed(data[:-32], 32) == data[-32:]
    ids = [data[64 + 16 * i : 80 + 16 * i] for i in range(packs)]
    at = (64 + 16 * packs + 63) // 64 * 64
    fanout = struct.unpack_from(f"<{2**bits + 1}I", data, at)
    at = (at + 4 * len(fanout) + 63) // 64 * 64
    entries = [struct.unpack_from("<32sII", data, at + 40 * i) for i in range(count)]
    assert at + 40 * count + 32 == len(data)
    assert [(digest, ids[pack], address) for digest, pack, address in entries] == golden.INDEX_ENTRIES
    tops = [int.from_bytes(entry[0], "big") >> (256 - bits) for entry in entries]
    assert list(fanout) == [sum(top < i for top in tops) for i in range(2**bits + 1)]


def test_recipe() -> None:
    data = (golden.V1 / "tar.recipe").read_bytes()
    assert hashed(data[:-16]) == data[-16:]
    fields = struct.unpack_from("<4sBBHQQIIII", data)
    magic, version, _, name, size, trace, rows, literals, payloads, distinct = fields
    assert (magic, version, trace) == (b"cRc\xf1", 1, 0)
    assert data[40 : 40 + name] == b"identity"
    at = 40 + name
    digests = [data[at + 32 * i : at + 32 * i + 32] for i in range(distinct)]
    entries = literals + payloads
    counts = [rows, rows, entries, distinct, entries]
    (literal_rows, chunk_counts, back, lengths, repeats), end = columns(data, at + 32 * distinct, counts)
    assert end == len(data) - 16
    which, seen = [], 0
    for ago in back:
        seen += not ago
        which.append(seen - (ago or 1))
    model = golden.RECIPE_TAR
    assert size == model.size
    expected = [row.tobytes() for track in (model.literals, model.payloads) for row in track.digests]
    assert [digests[i] for i in which] == expected
    assert [lengths[i] for i in which] == [*model.literals.lengths, *model.payloads.lengths]
    assert repeats == [*model.literals.repeats, *model.payloads.repeats]
    flat = [lengths[which[i]] for i in range(literals, entries) for _ in range(repeats[i])]
    weave, before = [], 0
    for value, count in zip(literal_rows, chunk_counts, strict=True):
        payload = sum(flat[:count])
        del flat[:count]
        weave.append([(value >> 1 ^ -(value & 1)) + -before % 512, payload])
        before = payload
    assert weave == model.weave.tolist()


def test_references() -> None:
    data = (golden.V1 / "references.json").read_bytes()
    assert data.endswith(b"}\n") and len(data) > 160
    found = json.loads(data)
    model = golden.REFERENCES
    assert list(found) == ["version", "store", "serial", "word", "written", "check", "references"]
    assert (found["serial"], found["word"], found["written"], found["store"]) == model.head
    body = data[data.index(b'"references":') + len(b'"references":') : -2]
    told = f"1 {found['store']} {found['serial']} {found['word']} {found['written']} ".encode()
    assert hashed(told + body).hex() == found["check"]
    assert found["references"] == {
        "tags": [[repository, tag, str(digest), created] for repository, tag, digest, created in model.tags],
        "pins": [[str(digest), name] for digest, name in model.pins],
        "settings": model.settings,
    }


def test_bundle() -> None:
    data = (golden.V1 / "thin.bundle").read_bytes()
    magic, version, digest, zero, minimum, average, maximum, name, rest = struct.unpack_from("<8sHBBIII16sQ", data)
    assert (magic, version, digest, zero, rest) == (b"cassbndl", 1, 1, 0, 0)
    assert (name.rstrip(b"\0"), minimum, average, maximum) == (b"gear32n", 4096, 16384, 65536)
    assert hashed(data[:48]) == data[48:64]
    parts: dict[int, bytes] = {}
    at = 64
    while at < len(data):
        kind, zero, rest, length = struct.unpack_from("<BBHI", data, at)
        content = data[at + 24 : at + 24 + length]
        assert (zero, rest) == (0, 0) and data[at + 8 : at + 24] == hashed(data[at : at + 8] + content)
        if kind == 6:
            assert content == hashed(data[:at], 32)
        parts[kind] = parts.get(kind, b"") + content
        at += 24 + length
    assert list(parts) == [1, 2, 3, 4, 5, 6]
    head, end = msgpack(zstd.decompress(parts[1]), 0)
    bases, blobs, names, roots, referrers, chunks, chunk_bytes = head
    model = golden.BUNDLE_HEAD
    assert bases == [[golden.D[0].raw, 70_000, golden.D[2].raw], [golden.D[2].raw, 7, None]]
    assert [blob[:4] for blob in blobs] == [[one.kind, one.digest.raw, one.size, one.length] for one in model.blobs]
    assert [blob[4:6] for blob in blobs] == [[one.encoding, one.media_type] for one in model.blobs]
    assert blobs[1][6:] == [golden.D[1].raw, golden.RECIPE_TAR.size, 2**40]
    assert names == [["docker.io/library/a", "1", model.roots[0].raw]] and roots == [model.roots[0].raw]
    assert referrers == [[golden.D[2].raw, model.roots[0].raw]]
    assert parts[2] == golden.MANIFEST + (golden.V1 / "tar.recipe").read_bytes()
    (sources,), end = columns(parts[3], 0, [4])
    assert end == len(parts[3]) and sources == [source for _, source in golden.BUNDLE_CHUNKS]
    assert parts[4] == golden.WHOLE
    content = b"".join(chunk for chunk, source in golden.BUNDLE_CHUNKS if not source)
    assert zstd.decompress(parts[5]) == content and (chunks, chunk_bytes) == (3, len(content))
