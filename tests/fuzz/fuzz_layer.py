"""Fuzzing what layers hold: tars taken apart (kernels/tarscan on both twins, flow/split.py), compressed streams
(codec/compression.py).

An input is a byte of flags and a tar, whose headers get their checksums unless AS_IT_IS; with STREAM it is a compressed
stream; with MEMBERS what members of one are made of.

Checked: taking apart never fails, and the pieces put together are the bytes; the twins agree, however the bytes are
chopped; a stream is read as the same bytes, or refused by BadInput at the same place, whatever is asked for at a time;
what is taken from gzip is what zlib reads.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import zlib
from unittest import mock

import numpy as np

from casstore.codec import compression
from casstore.digest import Digest
from casstore.errors import BadInput, LimitExceeded
from casstore.flow import split
from casstore.flow.source import BytesSource
from casstore.format.storefile import StoreFile
from casstore.kernels import _tarscan_py, tarscan
from casstore.model import U8, U32, U64, Buffer, Cutter

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

AS_IT_IS, STREAM, MEMBERS = 1, 2, 4
_LIMIT = compression.Limit(output=1 << 20, ratio=200, free=1 << 16)
_FILE = StoreFile(id="0" * 32, created="2024-01-01T00:00:00Z", cutter=Cutter("gear32n", 64, 256, 1024))
_PACKERS = (
    lambda data: gzip.compress(data, 1, mtime=0),
    lambda data: zstd.compress(data, 1),
    lambda data: bz2.compress(data, 1),
    lambda data: lzma.compress(data, preset=0),
)
_EDGES = {"FEED": 1500, "LITERAL_FLUSH": 700}  # of buffers, where small inputs reach them


def summed(raw: bytearray) -> bytes:
    for at in range(0, len(raw) - 511, 512):
        if raw[at + 257 : at + 262] == b"ustar":
            raw[at + 148 : at + 156] = b" " * 8
            raw[at + 148 : at + 156] = b"%06o\0 " % sum(raw[at : at + 512])
    return bytes(raw)


class Kept:
    """A sink that keeps the chunks of both tracks."""

    def __init__(self) -> None:
        self.tracks = (bytearray(), bytearray())

    def take(self, track: int, buffer: Buffer, starts: U64, lengths: U32, digests: U8, *, force: bool = False) -> bool:
        view = memoryview(buffer)
        for start, length, digest in zip(starts.tolist(), lengths.tolist(), digests, strict=True):
            piece = view[start : start + length]
            assert len(piece) == length and Digest.of(piece).raw == digest.tobytes()
            self.tracks[track].extend(piece)
        return True


def take_apart(data: bytes) -> None:
    kept = Kept()
    with mock.patch.multiple(split, **_EDGES):
        found = split.Splitter(_FILE, kept).run(BytesSource(data))
    assert found.size == len(data) and found.digest == Digest.of(data).raw
    assert (found.literals.size, found.payloads.size) == tuple(map(len, kept.tracks))
    out, at = bytearray(), [0, 0]
    for row in found.weave.tolist():
        for track in (0, 1):
            out += kept.tracks[track][at[track] : at[track] + row[track]]
            at[track] += row[track]
    assert out == data
    assert 0 <= found.files_size < 1 << 63


def same_twins(data: bytes, step: int) -> None:
    ours, oracle = tarscan.Scanner(entries=True), _tarscan_py.Scanner(entries=True)
    kinds, entries = [np.zeros(0, np.uint8)], []
    for at in range(0, len(data), step):
        mine = ours.feed(data[at : at + step])
        assert int(mine.lengths.sum()) == len(data[at : at + step])
        kinds.append(np.repeat(mine.payload, mine.lengths.astype(np.int64)))
        entries += ours.pop_entries()
    whole = oracle.feed(data)
    assert np.array_equal(np.concatenate(kinds), np.repeat(whole.payload, whole.lengths.astype(np.int64)))
    for name in ("position", "payload_left", "content_size", "files", "ended"):
        assert getattr(ours, name) == getattr(oracle, name), name
    assert entries == oracle.pop_entries()


def outcome(data: bytes, at_a_time: int) -> bytes | str:
    try:
        stream = compression.open_stream(io.BytesIO(data), _LIMIT, "stream")
        out = b"".join(iter(lambda: stream.read(at_a_time), b""))
    except LimitExceeded:
        return "limit"
    except BadInput as error:
        assert "\n" not in str(error) and error.offset is not None and 0 <= error.offset <= len(data)
        return "refused"
    assert stream.consumed == len(data) and stream.produced == len(out)
    assert 0 <= stream.trailing <= len(data)
    return out


def read_stream(data: bytes) -> bytes | str:
    whole, parts = outcome(data, 1 << 21), outcome(data, 997)
    assert whole == parts or "limit" in (whole, parts)
    if isinstance(whole, bytes) and compression.detect(data) == "gzip":
        assert inflated(data) in (whole, None)
    return whole


def inflated(data: bytes) -> bytes | None:
    """All members, as zlib reads them; None where reserved flags are set, for which it refuses what we and Go read."""
    out = b""
    while compression.detect(data) == "gzip":
        if data[3:4] and data[3] & 0xE0:
            return None
        decoder = zlib.decompressobj(31)
        out += decoder.decompress(data)
        assert decoder.eof
        data = decoder.unused_data
    return out


def make_members(data: bytes) -> None:
    packer, junk, data = _PACKERS[data[0] & 3], data[0] & 4, data[1:]
    parts = data.split(b"|")
    made = b"".join(packer(part) for part in parts)
    assert read_stream(made) in (b"".join(parts), "limit")
    if junk:
        got = read_stream(made + parts[0])
        assert got != "refused" or packer is not _PACKERS[0] or compression.detect(parts[0]) == "gzip"


def one(data: bytes) -> None:
    if len(data) < 2:
        return
    flags, rest = data[0], data[1:]
    if flags & MEMBERS:
        make_members(rest)
    elif flags & STREAM:
        read_stream(rest)
    else:
        tar = rest if flags & AS_IT_IS else summed(bytearray(rest))
        take_apart(tar)
        same_twins(tar, 1 + (flags >> 3) * 37)


TOKENS = ["ustar\x00", "path=", "linkpath=", "size=", "mtime=", "GNU.sparse.major=1\n", "GNU.sparse.map=", ".wh.", "|"]


def seeds() -> dict[str, bytes]:
    text = b"what a layer holds " * 5
    made = {f"stream-{i}": bytes([STREAM]) + pack(text) for i, pack in enumerate(_PACKERS)}
    made |= {f"members-{i}": bytes([MEMBERS, i]) + text + b"|" + text for i in range(8)}
    block = bytearray(512)
    block[:4], block[124:136], block[156:157], block[257:263] = b"file", b"00000001000\0", b"0", b"ustar\0"
    pax = bytearray(block)
    pax[124:136], pax[156:157] = b"00000000013\0", b"x"
    made["tar"] = bytes([0]) + summed(block) + bytes(range(256)) * 2 + bytes(1024)
    made["pax"] = bytes([8]) + summed(pax) + b"11 path=a/\n".ljust(512, b"\0") + summed(block) + text
    return made
