"""Blobs that are compressed: taken apart into content and a trace on the way in, made again on the way out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ..codec import gzip
from ..codec.gzip import Analysis
from ..codec.replay import FAILURES, replay
from ..errors import Damaged
from ..format import recipe as recipe_format
from ..format import trace as trace_format
from ..kernels import deflate, hashing
from ..model import BlobInfo, Buffer, NewBlob, Recipe, Trace
from ..store.volume import Volume
from .source import Source, fill

PIECE = 1 << 20
_SMALL = 256
"""Bytes of a trace that are never too many: small blobs have one, too."""


ENCODERS = {
    ("go", 1): "Go compress/flate 1.7 to 1.26",
    ("go", 2): "Go compress/flate from 1.27 on",
    ("zlib", 1): "zlib 1.2",
    ("gzip", 1): "GNU gzip",
    ("pigz", 1): "pigz",
    ("busybox", 1): "BusyBox gzip",
    ("klauspost", 1): "pgzip with klauspost/compress 1.15.10 to 1.18.0",
    ("klauspost", 2): "pgzip with klauspost/compress 1.18.1 to 1.20.3",
    ("klauspost", 3): "pgzip with klauspost/compress 1.20.4",
    ("klauspost", 4): "pgzip with klauspost/compress 1.15.0 to 1.15.9",
    ("klauspost", 5): "pgzip with klauspost/compress 1.14.4",
}
"""What an engine is known to be, by its name and version."""


class Encoder(NamedTuple):
    """What made a compressed blob. `name`: of the encoder, and its level; `trace`: bytes of the trace; `corrections`:
    of them, before they are compressed, what the encoder was not expected to do."""

    name: str
    trace: int
    corrections: int


class Unfolded:
    """A gzip blob as a Source of its content. `limit`: what its trace may be of it. Once that has ended: `digest` and
    `outer_size` of the blob itself, and `finish`."""

    def __init__(self, source: Source, limit: float) -> None:
        self.size: int | None = None
        self._source = source
        self._limit = limit
        self._buffer = memoryview(bytearray(PIECE))
        self._sha256 = hashing.Sha256()
        self.outer_size = 0
        self._analysis = Analysis(self, limit)
        self._pieces = iter(self._analysis)
        self._left: memoryview = memoryview(b"")

    def read(self, size: int, /) -> Buffer:
        """For the analysis: more of the blob."""
        got = fill(self._source, self._buffer)
        self._sha256.update(self._buffer[:got])
        self.outer_size += got
        return bytes(self._buffer[:got])

    def readinto(self, view: memoryview) -> int:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = piece
        got = min(len(view), len(self._left))
        view[:got] = self._left[:got]
        self._left = self._left[got:]
        return got

    @property
    def digest(self) -> bytes:
        """SHA-256 of the blob."""
        return self._sha256.digest()

    def finish(self) -> tuple[bytes, Encoder]:
        """The trace as a recipe keeps it, and what made the blob. NoTrace: why there is none, and the content was
        perhaps not all."""
        trace = self._analysis.trace
        if trace is None:
            raise gzip.NoTrace(self._analysis.reason)
        try:
            encoded = trace_format.encode(trace)
        except ValueError as error:
            raise gzip.NoTrace(str(error)) from None
        if len(encoded) > max(_SMALL, self._limit * self.outer_size):
            share = 100 * len(encoded) / self.outer_size
            raise gzip.NoTrace(f"its trace is {share:.1f} % of it, over trace.limit ({100 * self._limit:g} %)")
        return encoded, _encoder(trace, len(encoded))


def encoder_of(volume: Volume, info: BlobInfo) -> Encoder | None:
    """Of a packed blob that is compressed. Damaged: its recipe or trace cannot be read."""
    if info.place.state != "packed" or info.encoding == "identity":
        return None
    recipe = recipe_format.decode(volume.packs.record(info.digest, info.place), f"recipe of {info.digest}")
    trace = trace_format.decode(recipe.trace, f"trace of {info.digest}")
    return _encoder(trace, len(recipe.trace))


def _encoder(trace: Trace, size: int) -> Encoder:
    names = [
        f"{ENCODERS.get((one.name, one.version), f'{one.name} {one.version}')} level {one.level}"
        for one in trace.engines
    ]
    corrections = sum(len(one.exceptions) for member in trace.members for one in member.segments)
    return Encoder(", ".join(names), size, corrections)


def packable(blob: BlobInfo | NewBlob) -> bool:
    """Can a loose blob be tried? A digest of another kind than the kernel's would have to be made beside it: such blobs
    are rare, and stay."""
    return blob.encoding in ("identity", "gzip") and blob.digest.algorithm == "sha256"


def engines_here(limit: float) -> str:
    """A short name of what is tried on a gzip blob here, which changes when another try may end otherwise: the engines,
    and the limit of a trace."""
    told = f"{sorted(deflate.engines())} {limit}"
    return hashlib.sha256(told.encode()).hexdigest()[:8]


def replayed(
    recipe: Recipe, content: Callable[[int, int], Buffer], what: str, start: int, stop: int
) -> Iterator[memoryview]:
    """Bytes [start, stop) of a compressed blob, made again from its content. Damaged: its trace does not make it."""
    trace = trace_format.decode(recipe.trace, f"trace of {what}")
    if sum(one.content for member in trace.members for one in member.segments) != recipe.content_size:
        raise Damaged("its trace is that of other content", what=what)
    pieces = replay(trace, content, start, stop)
    wanted = stop - start
    while True:
        try:
            piece = next(pieces, None)
        except FAILURES as error:
            raise Damaged(f"cannot be made again from its content: {error}", what=what) from None
        if piece is None:
            break
        wanted -= len(piece)
        yield piece
    if wanted:
        raise Damaged("its trace makes another length", what=what)
