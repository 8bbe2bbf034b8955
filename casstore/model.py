"""The values that travel between rooms. No behaviour beyond what a value needs; arrays are numpy, little-endian.

A *batch* is one buffer with arrays of starts and lengths into it, never an object per chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from .digest import Digest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Buffer: TypeAlias = bytes | bytearray | memoryview
#: Arrays, typed for the checker only: commands that need no arrays, such as `images`, start without numpy.
U8: TypeAlias = "NDArray[np.uint8]"
U32: TypeAlias = "NDArray[np.uint32]"
U64: TypeAlias = "NDArray[np.uint64]"
Mask: TypeAlias = "NDArray[np.bool_]"
#: How the library tells how far it is: (what, bytes done, bytes in all or None where unknown). Called from
#: any thread; done == total ends the task `what`. It may raise: the work then ends as by any error.
Progress: TypeAlias = Callable[[str, int, int | None], None]

#: How many low bits of a chunk's address are its offset in its frame; the rest is the frame's number in its pack.
FRAME_BITS = 22
#: Largest uncompressed frame (4 MiB) and most frames in one pack: an address is 32 bits.
MAX_FRAME = 1 << FRAME_BITS
MAX_FRAMES = 1 << (32 - FRAME_BITS)


@dataclass(frozen=True, slots=True)
class Cutter:
    """How a store cuts content into chunks: fixed when the store is made (bytes)."""

    algorithm: str = "gear32n"
    minimum: int = 4096
    average: int = 16384
    maximum: int = 65536


@dataclass(frozen=True, slots=True)
class ChunkList:
    """A run of chunks in order. `digests` is (n, 32) uint8, `lengths` (n,) uint32 bytes, `repeats` (n,) uint32 ≥ 1:
    entry i stands `repeats[i]` times in a row."""

    digests: U8
    lengths: U32
    repeats: U32

    @property
    def size(self) -> int:
        """Bytes of content, repeats counted."""
        return int((self.lengths.astype("u8") * self.repeats.astype("u8")).sum())


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to rebuild one blob: two tracks woven together, then encoded.

    `weave` is (k, 2) uint64: row i says "take weave[i,0] bytes from the literal track, then weave[i,1] bytes from
    the payload track". Row sums equal the sizes of the tracks. A payload is never split inside a chunk: row
    boundaries are chunk boundaries of the payload track (not of the literal track).

    `encoding` is "identity" (the woven bytes are the blob) or the name of a codec whose `trace` makes the blob's
    bytes from the woven ones ("gzip", later).
    """

    size: int
    weave: U64
    literals: ChunkList
    payloads: ChunkList
    encoding: str = "identity"
    trace: bytes = b""

    @property
    def content_size(self) -> int:
        return int(self.weave.sum())


class Choice(NamedTuple):
    """A deflate engine (kernels/deflate), and the level of its encoder."""

    name: str
    version: int
    level: int


class Segment(NamedTuple):
    """One stretch of a deflate stream, whole blocks. `content`: bytes; `bits`: of the stream; `tokens`: most of one
    block; `engine`: its number in the trace; `state`: what it carried into it; `exceptions`: to what it predicts;
    `goes_on`: the engine cannot begin there, only come from the stretch before; `check`: CRC-32 of the bytes that
    its bits are in, all other bits 0."""

    content: int
    bits: int
    blocks: int
    tokens: int
    engine: int
    state: tuple[int, ...]
    exceptions: bytes
    goes_on: bool
    check: int


class Member(NamedTuple):
    """One gzip member. `header`: its bytes; `padding`: the bits that fill the stream's last byte; `trailer`: its last
    eight bytes, kept so that nobody need read all content for them."""

    header: bytes
    segments: tuple[Segment, ...]
    padding: int
    trailer: bytes


class Trace(NamedTuple):
    """All of a gzip blob but its content, for codec/gzip to make it again. `tail`: what follows the last member."""

    engines: tuple[Choice, ...]
    members: tuple[Member, ...]
    tail: bytes


class Used(NamedTuple):
    """What one blob uses of one object: half-open intervals of chunk addresses in a pack, (m, 2) uint32, sorted,
    merged. Empty for a loose object and for a metadata pack."""

    key: str
    intervals: U32


@dataclass(frozen=True, slots=True)
class Place:
    """Where a blob's bytes are.

    state "loose": `key` is a loose object, the whole file is the blob.
    state "inline": the blob's bytes are a record of the metadata pack `key`.
    state "packed": the blob's recipe is a record of the metadata pack `key`; `uses` are its data packs.
    A record is (frame number, offset in that frame, stored length); it may continue in the frames that follow.
    """

    state: Literal["loose", "inline", "packed"]
    key: str
    frame: int = 0
    offset: int = 0
    length: int = 0
    uses: tuple[Used, ...] = ()


@dataclass(frozen=True, slots=True)
class NewBlob:
    """A blob that a commit is to name. `diffid`: digest of the uncompressed stream, where known; `content_size`: its
    length; `files_size`: docker's SIZE of the layer (Σ lstat sizes of non-directories), None where not a tar."""

    digest: Digest
    size: int
    place: Place
    encoding: str = "identity"
    media_type: str = ""
    diffid: Digest | None = None
    content_size: int | None = None
    files_size: int | None = None
    children: tuple[Digest, ...] = ()
    spot: bytes = b""
    """For loose blobs: the first 8 bytes of the BLAKE3 of each MiB, so that ranges can be checked."""
    pack_refused: str | None = None
    """For loose blobs: why gc is not to pack it."""


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """A live blob as the catalog knows it."""

    digest: Digest
    size: int
    place: Place
    encoding: str
    media_type: str
    diffid: Digest | None
    content_size: int | None
    files_size: int | None
    spot: bytes
    created: float


@dataclass(frozen=True, slots=True)
class ImageRow:
    """What lists need of one image manifest; derived from manifest and config, disposable."""

    manifest: Digest
    config: Digest
    created: str
    """RFC 3339 as in the config, "" where absent."""
    size: int
    os: str
    architecture: str
    variant: str
    labels: dict[str, str] = field(default_factory=dict)
    parent: str = ""
    """Image ID of the parent, where the config or archive names one."""


@dataclass(frozen=True, slots=True)
class TagRow:
    """repository (as kept: familiar names normalised, e.g. docker.io/library/busybox), tag, target."""

    repository: str
    tag: str
    target: Digest
    created: float
