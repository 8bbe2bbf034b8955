"""Bundles: files that carry images to another store, without what that store has. Bytes ⇄ model. FORMATS.md says what
each byte means.

Written and read front to back, so that both ends may be pipes: a header, then parts in blocks of at most a MiB, each
block under a checksum, and at the end a hash of everything. A part is asked for by its kind, in the order of `Part`.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, NamedTuple, Protocol

import msgspec
import numpy as np
from blake3 import blake3

from ..digest import Digest
from ..errors import BadInput, Damaged, LimitExceeded
from ..kernels import table
from ..model import U32, Buffer, Cutter, Recipe
from .encoding import CHUNK_DIGEST_NAMES, checksum, chunk_digest_number, decode_columns, deflated, encode_columns

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

VERSION = 1
MAX_BLOCK = 1 << 20
"""Most bytes of a block."""
MAX_HEAD = 16 << 20
"""Most bytes of the head, uncompressed: some 100 000 blobs."""
MAX_DOCUMENT = 4 << 20
"""Largest blob that is carried among the records."""
FREE_ROWS = 1 << 22
ROWS_PER_DIGEST = 8
"""Rows and entries that all recipes of a bundle may have together: so many, and so many more for each chunk that one
names. They are in memory together, and a record of a few bytes can claim millions."""

# magic, version, chunk digest, 0, minimum, average, maximum, name of the cutter, 0; then 16 bytes of checksum
_HEADER = struct.Struct("<8sHBBIII16sQ")
# kind, 0, length; then 16 bytes of checksum
_BLOCK = struct.Struct("<BBHI")
_MAGIC = b"cassbndl"
_LEVEL = 19
HEADER_SIZE = _HEADER.size + 16


class Part(IntEnum):
    """What a block is of; each part is none, one or more blocks."""

    HEAD = 1
    RECORDS = 2
    SOURCES = 3
    WHOLE = 4
    CHUNKS = 5
    END = 6


class Kind(IntEnum):
    """How a blob is carried: its bytes, or its recipe, among the records; or its bytes in the part WHOLE."""

    BYTES = 1
    RECIPE = 2
    WHOLE = 3


class Header(NamedTuple):
    """What stores a bundle is for."""

    chunk_digest: str
    cutter: Cutter


class Base(NamedTuple):
    """A blob that the other side must have, or another one whose content has the digest `diffid`."""

    digest: Digest
    size: int
    diffid: Digest | None = None


class Carried(NamedTuple):
    """A blob in a bundle. `length`: bytes of its record. The rest is as in NewBlob: what its sender knows of it."""

    kind: Kind
    digest: Digest
    size: int
    length: int
    encoding: str = "identity"
    media_type: str = ""
    diffid: Digest | None = None
    content_size: int | None = None
    files_size: int | None = None


class Name(NamedTuple):
    """A tag, as kept, and what it points at."""

    repository: str
    tag: str
    target: Digest


@dataclass(frozen=True, slots=True)
class Head:
    """What a bundle says before its content. `roots`: the manifests and indexes that were asked for. `referrers`:
    (manifest, the one that it says something of). `chunks`: how many are in it, `chunk_bytes` uncompressed."""

    bases: tuple[Base, ...] = ()
    blobs: tuple[Carried, ...] = ()
    names: tuple[Name, ...] = ()
    roots: tuple[Digest, ...] = ()
    referrers: tuple[tuple[Digest, Digest], ...] = ()
    chunks: int = 0
    chunk_bytes: int = 0


_Size = Annotated[int, msgspec.Meta(ge=0, le=(1 << 62) - 1)]
_Text = Annotated[str, msgspec.Meta(max_length=255)]
_Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=64)]


class _Base(NamedTuple):
    digest: _Digest
    size: _Size
    diffid: _Digest | None


class _Carried(NamedTuple):
    kind: Kind
    digest: _Digest
    size: _Size
    length: _Size
    encoding: _Text
    media_type: _Text
    diffid: _Digest | None
    content_size: _Size | None
    files_size: _Size | None


class _Name(NamedTuple):
    repository: _Text
    tag: _Text
    target: _Digest


class _Head(NamedTuple):
    bases: list[_Base]
    blobs: list[_Carried]
    names: list[_Name]
    roots: list[_Digest]
    referrers: list[tuple[_Digest, _Digest]]
    chunks: _Size
    chunk_bytes: _Size


_head_decoder = msgspec.msgpack.Decoder(_Head)


def encode_header(header: Header) -> bytes:
    """The first HEADER_SIZE bytes."""
    cutter = header.cutter
    digest = chunk_digest_number(header.chunk_digest)
    name = cutter.algorithm.encode()
    if not 0 < len(name) <= 16:
        raise ValueError("a cutter's name has 1 to 16 bytes")
    head = _HEADER.pack(_MAGIC, VERSION, digest, 0, cutter.minimum, cutter.average, cutter.maximum, name, 0)
    return head + checksum(head)


def decode_header(data: Buffer, what: str = "bundle") -> Header:
    """BadInput: no bundle. Damaged: a damaged one, or of a version that is unknown here."""
    view = memoryview(data)[:HEADER_SIZE]
    if len(view) < HEADER_SIZE or view[:8] != _MAGIC:
        raise BadInput("not a bundle", what=what)
    if checksum(view[:-16]) != view[-16:]:
        raise Damaged("the bundle's header fails its checksum", what=what, offset=0)
    _, version, digest, zero, minimum, average, maximum, name, rest = _HEADER.unpack_from(view)
    if version != VERSION:
        raise Damaged(f"bundle of unknown format version {version}", what=what, hint="a newer casstore made it")
    if digest not in CHUNK_DIGEST_NAMES or zero or rest or not name.rstrip(b"\0").isascii():
        raise Damaged("unknown bundle header", what=what, offset=0)
    return Header(CHUNK_DIGEST_NAMES[digest], Cutter(name.rstrip(b"\0").decode(), minimum, average, maximum))


def encode_head(head: Head) -> bytes:
    """The part HEAD. LimitExceeded: more blobs or names than a bundle may have, or too long a name."""
    raw = msgspec.msgpack.encode(
        (
            [(base.digest.raw, base.size, base.diffid and base.diffid.raw) for base in head.bases],
            [one._replace(digest=one.digest.raw, diffid=one.diffid and one.diffid.raw) for one in head.blobs],  # type: ignore[arg-type]
            [(name.repository, name.tag, name.target.raw) for name in head.names],
            [root.raw for root in head.roots],
            [(one.raw, of.raw) for one, of in head.referrers],
            head.chunks,
            head.chunk_bytes,
        )
    )
    if len(raw) > MAX_HEAD:
        raise LimitExceeded("too many blobs for one bundle", hint="make several, one with --since the other")
    try:
        again = _head(raw, "bundle")
    except Damaged as fault:
        raise LimitExceeded(str(fault)) from fault
    if again != head:
        raise ValueError("a digest of the wrong length for its algorithm")
    return deflated(raw, _LEVEL)


def decode_head(stored: Buffer, what: str = "bundle") -> Head:
    """The head in a whole part HEAD. Damaged: it is none. Memory follows MAX_HEAD, whatever it claims."""
    decoder = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: 23})
    try:
        raw = bytes(decoder.decompress(stored, MAX_HEAD + 1))
    except zstd.ZstdError as error:
        raise Damaged(f"undecodable head: {error}", what=what) from None
    if len(raw) > MAX_HEAD or not decoder.eof or decoder.unused_data:
        raise Damaged("head of another length than any that is written", what=what)
    return _head(raw, what)


def _head(raw: bytes, what: str) -> Head:
    try:
        found = _head_decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Damaged(f"undecodable head: {error}", what=what) from None
    blobs = tuple(
        Carried(
            one.kind,
            _digest(one.digest, what),
            one.size,
            one.length,
            one.encoding,
            one.media_type,
            None if one.diffid is None else _digest(one.diffid, what),
            one.content_size,
            one.files_size,
        )
        for one in found.blobs
    )
    for one in blobs:
        fits = {
            Kind.BYTES: one.length == one.size <= MAX_DOCUMENT,
            Kind.RECIPE: one.length > 0,
            Kind.WHOLE: not one.length,
        }
        if not fits[one.kind]:
            raise Damaged(f"blob {one.digest} has an impossible record", what=what)
    if len({one.digest for one in blobs}) != len(blobs):
        raise Damaged("a blob stands twice in the bundle", what=what)
    return Head(
        tuple(
            Base(_digest(base.digest, what), base.size, None if base.diffid is None else _digest(base.diffid, what))
            for base in found.bases
        ),
        blobs,
        tuple(Name(one.repository, one.tag, _digest(one.target, what)) for one in found.names),
        tuple(_digest(root, what) for root in found.roots),
        tuple((_digest(one, what), _digest(of, what)) for one, of in found.referrers),
        found.chunks,
        found.chunk_bytes,
    )


def _digest(raw: bytes, what: str) -> Digest:
    if len(raw) not in (32, 64):
        raise Damaged("what should be a digest is none", what=what)
    return Digest("sha512" if len(raw) == 64 else "sha256", raw)


class Weight:
    """What the recipes of one bundle come to."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._rows = 0
        self._most = FREE_ROWS
        self._seen = table.ChunkMap()
        self.chunks = 0
        """Bytes of all chunks that they name, each once."""
        self.content = 0
        """Bytes of what they make."""

    def add(self, recipe: Recipe) -> None:
        """One more. LimitExceeded: together they have more pieces than a bundle may have."""
        digests = np.concatenate([recipe.literals.digests, recipe.payloads.digests]).reshape(-1, 32)
        lengths = np.concatenate([recipe.literals.lengths, recipe.payloads.lengths])
        own = table.ChunkMap()
        own.claim(digests)
        self._rows += len(recipe.weave) + len(digests)
        self._most += ROWS_PER_DIGEST * len(own)
        if self._rows > self._most:
            raise LimitExceeded("too many pieces for one bundle", what=self._what, hint="make several")
        self.chunks += int(lengths[self._seen.claim(digests)].sum(dtype=np.uint64))
        self.content += recipe.content_size


def encode_sources(sources: U32) -> bytes:
    """The part SOURCES. One number for each chunk that the recipes name, in order of first use: 0 for one that is in
    the part CHUNKS, n for one that the n-th base has."""
    return encode_columns([sources.astype(np.uint64)], _LEVEL)


def decode_sources(data: Buffer, count: int, bases: int, what: str = "bundle") -> U32:
    """The sources of `count` chunks, where there are so many `bases`."""
    (column,), end = decode_columns(memoryview(data), 0, [count], what, 8 * count)
    if end != len(data) or (count and int(column.max()) > bases):
        raise Damaged("the bundle's list of chunks contradicts itself", what=what)
    return column.astype(np.uint32)


class BundleWriter:
    """Writes a bundle, part after part."""

    def __init__(self, write: Callable[[Buffer], object], header: Header) -> None:
        self._write = write
        self._sha256 = hashlib.sha256()
        self._blake3 = blake3()
        self._part = Part.HEAD
        self._block = bytearray()
        self.size = 0
        self._put(encode_header(header))

    def _put(self, data: Buffer) -> None:
        self._write(data)
        self._sha256.update(data)
        self._blake3.update(data)
        self.size += len(data)

    def add(self, part: Part, data: Buffer) -> None:
        """More of a part, of this one or one that comes after it."""
        if part < self._part:
            raise ValueError("the parts of a bundle have an order")
        if part > self._part:
            self._flush()
            self._part = part
        view = memoryview(data).cast("B")
        while view:
            piece = view[: MAX_BLOCK - len(self._block)]
            self._block += piece
            view = view[len(piece) :]
            if len(self._block) == MAX_BLOCK:
                self._flush()

    def _flush(self) -> None:
        if self._block:
            head = _BLOCK.pack(self._part, 0, 0, len(self._block))
            self._put(head + checksum(head, self._block))
            self._put(self._block)
            self._block = bytearray()

    def end(self) -> Digest:
        """Close the bundle; returns the digest of the whole file."""
        self._flush()
        self._part = Part.END
        self._block += self._blake3.digest()
        self._flush()
        return Digest.sha256(self._sha256.digest())


class Incoming(Protocol):
    """Where a bundle comes from: `readinto` fills as much as it can, 0 at the end."""

    def readinto(self, view: memoryview, /) -> int: ...


class BundleReader:
    """Reads a bundle front to back. Every block is checked before a byte of it is handed out; BadInput and Damaged name
    `what` and the offset in it. Memory: a block, and what is asked for."""

    def __init__(self, source: Incoming, what: str = "bundle") -> None:
        self._source = source
        self._what = what
        self._sha256 = hashlib.sha256()
        self._blake3 = blake3()
        self.offset = 0
        self.header = decode_header(self._exactly(HEADER_SIZE, short=True), what)
        self._part: Part = Part.HEAD
        self._left = memoryview(b"")
        self._next()

    def _exactly(self, length: int, *, short: bool = False) -> bytearray:
        data = bytearray(length)
        view, got = memoryview(data), 0
        while got < length:
            more = self._source.readinto(view[got:])
            if not more:
                if short:
                    break
                raise BadInput("unexpected end of the bundle", what=self._what, offset=self.offset + got)
            got += more
        view.release()
        del data[got:]
        self.offset += got
        self._sha256.update(data)
        self._blake3.update(data)
        return data

    def _next(self) -> None:
        """The next block."""
        at, before = self.offset, self._blake3.digest()
        head = self._exactly(_BLOCK.size + 16)
        kind, zero, rest, length = _BLOCK.unpack_from(head)
        known = self._part <= kind <= Part.END and not zero and not rest and 0 < length <= MAX_BLOCK
        if not known:
            raise Damaged("not a block of a bundle", what=self._what, offset=at)
        data = self._exactly(length)
        if checksum(head[: _BLOCK.size], data) != head[_BLOCK.size :]:
            raise Damaged("a block fails its checksum", what=self._what, offset=at)
        self._part, self._left = Part(kind), memoryview(data)
        if kind == Part.END and data != before:
            raise Damaged("the bundle is not what was written", what=self._what, offset=at)

    def pieces(self, part: Part) -> Iterator[memoryview]:
        """What is left of a part, block by block; what is left of those before it is skipped."""
        while self._part < part:
            self._next()
        while self._part == part:
            piece, self._left = self._left, memoryview(b"")
            if piece:
                yield piece
            if part == Part.END:
                return
            self._next()

    def read(self, part: Part, length: int) -> bytearray:
        """Exactly `length` bytes more of a part. Memory follows the bytes that are there."""
        data = bytearray()
        while self._part < part:
            self._next()
        while len(data) < length:
            if self._part != part:
                raise Damaged("the bundle has less than it claims", what=self._what, offset=self.offset)
            piece = self._left[: length - len(data)]
            data += piece
            self._left = self._left[len(piece) :]
            if not self._left:
                self._next()
        return data

    def some(self, part: Part, most: int) -> memoryview:
        """Up to `most` bytes of a part, none where it ends."""
        while self._part < part:
            self._next()
        while self._part == part and not self._left:
            self._next()
        if self._part != part:
            return memoryview(b"")
        piece, self._left = self._left[:most], self._left[most:]
        return piece

    def done(self, part: Part) -> None:
        """Damaged: there is more of the part than was read."""
        if self.some(part, 1):
            raise Damaged("the bundle has more than it says", what=self._what, offset=self.offset)

    def whole(self, part: Part, limit: int) -> bytearray:
        """A part of at most `limit` bytes."""
        data = bytearray()
        for piece in self.pieces(part):
            data += piece
            if len(data) > limit:
                raise Damaged(f"part {part.name} is larger than it may be", what=self._what, offset=self.offset)
        return data

    def end(self) -> Digest:
        """Read to the end; returns the digest of the whole file. Damaged: it is not what was written, or goes on."""
        for _ in self.pieces(Part.END):
            if self._source.readinto(memoryview(bytearray(1))):
                raise Damaged("the bundle goes on after its end", what=self._what, offset=self.offset)
        return Digest.sha256(self._sha256.digest())
