"""Loose blobs: kept verbatim, verified on the way, with a short hash per MiB so that ranges can be checked later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from blake3 import blake3

from ..codec import compression
from ..digest import Digest
from ..errors import BadInput
from ..kernels import hashing, tarscan
from ..model import NewBlob, Place
from ..store.objects import Objects, Staged, loose_key
from .source import Source, fill
from .step import Step

SPOT_SPAN = 1 << 20
SPOT_SIZE = 8


def spot(piece: memoryview | bytes) -> bytes:
    """The check of one MiB of a loose blob: the first 8 bytes of its BLAKE3."""
    return blake3(piece).digest(SPOT_SIZE)


class _Inflated:
    """Follows a compressed blob as it goes by: the digest, length and docker SIZE of what is inside."""

    def __init__(self, stream: object) -> None:
        self._stream = stream
        self.digest = hashing.Sha256()
        self.scanner = tarscan.Scanner()
        self.size = 0

    def run(self) -> None:
        while data := self._stream.read(1 << 20):  # type: ignore[attr-defined]
            self.digest.update(data)
            self.scanner.feed(data)
            self.size += len(data)
        self.scanner.finish()


class _Tee:
    """A readable over a source that also writes what it hands out to a staged file, if there is one, hashed."""

    def __init__(self, source: Source, staged: Staged | None, digest: Digest | None, step: Step) -> None:
        self._source = source
        self._staged = staged
        self._view = memoryview(bytearray(SPOT_SPAN))
        self._left = memoryview(b"")
        self.sha256 = hashing.Sha256()
        self.other = digest.hasher() if digest is not None and digest.algorithm != "sha256" else None
        self.size = 0
        self.spot = bytearray()
        self.scanner: tarscan.Scanner | None = tarscan.Scanner()
        self._step = step

    def _next(self) -> memoryview:
        got = fill(self._source, self._view)
        piece = self._view[:got]
        if got:
            self.sha256.update(piece)
            if self.other is not None:
                self.other.update(piece)
            if self._staged is not None:
                self._staged.write(piece)
            self.spot += spot(piece)
            if self.scanner is not None:
                self.scanner.feed(piece)
            self.size += got
            self._step.advance(got)
        return piece

    def read(self, n: int = -1) -> bytes:
        if not self._left:
            self._left = self._next()
        piece = self._left[: n if n >= 0 else None]
        self._left = self._left[len(piece) :]
        return bytes(piece)

    def drain(self) -> None:
        while self._next():
            pass


def take_loose(
    objects: Objects,
    lease: int,
    begin: Callable[[str, str], None],
    source: Source,
    expect: Digest | None,
    media_type: str,
    step: Step,
    *,
    limit: compression.Limit = compression.LIMIT,
    strict: bool = False,
) -> tuple[NewBlob, Staged]:
    """Write one blob into the staging folder as it is; returns what a commit needs, and the staged file.

    `strict`: a blob that is not what its first bytes say, or becomes more than `limit`, is an error; else it is kept
    all the same, and what is inside stays unknown.
    """
    # The digest is part of the key. Where it is known only at the end, the row is made then: until it is published, the
    # file lies in the lease's folder and goes with it.
    key = loose_key(expect) if expect is not None else None
    if key is not None:
        begin(key, "blob")
    staged = objects.stage(lease, key)
    try:
        blob = _follow(source, staged, expect, step, limit=limit, strict=strict)
        if key is None:
            key = staged.key = loose_key(blob.digest)
            begin(key, "blob")
        return replace(blob, place=Place("loose", key), media_type=media_type), staged
    except BaseException:
        staged.abort()
        raise


def known_loose(source: Source, expect: Digest, key: str) -> NewBlob:
    """What a commit needs of a blob that lies in the object `key` already. DigestMismatch: its bytes are others."""
    return replace(_follow(source, None, expect, Step(None, "", None)), place=Place("loose", key))


def _follow(
    source: Source,
    staged: Staged | None,
    expect: Digest | None,
    step: Step,
    *,
    limit: compression.Limit = compression.LIMIT,
    strict: bool = False,
) -> NewBlob:
    """Read a blob to its end, into `staged` if that is given; what is known of it then, but for its place."""
    tee = _Tee(source, staged, expect, step)
    first = tee.read(1 << 16)
    kind = compression.detect(first)
    inside: _Inflated | None = None
    if kind is not None:
        tee.scanner = None
        inside = _Inflated(compression.open_stream(_Prepended(first, tee), limit))
        try:
            inside.run()
        except BadInput:
            if strict:
                raise
            inside = None  # not what its first bytes say, or a bomb: still kept, byte for byte
    tee.drain()
    digest = Digest.sha256(tee.sha256.digest())
    if expect is not None:
        actual = expect.raw if tee.other is None else tee.other.digest()
        expect.check(digest.raw if tee.other is None else actual, str(expect))
        digest = expect
    known, length, files = None, None, None
    if inside is not None:
        known, length, files = Digest.sha256(inside.digest.digest()), inside.size, inside.scanner.content_size
    elif tee.scanner is not None:
        known, length, files = Digest.sha256(tee.sha256.digest()), tee.size, tee.scanner.content_size
    return NewBlob(
        digest,
        tee.size,
        Place("loose", ""),
        encoding=kind or "identity",
        diffid=known,
        content_size=length,
        files_size=files,
        spot=bytes(tee.spot),
    )


class _Prepended:
    """A readable whose first bytes were already taken."""

    def __init__(self, first: bytes, rest: _Tee) -> None:
        self._first = first
        self._rest = rest

    def read(self, n: int = -1) -> bytes:
        if self._first:
            piece, self._first = (self._first[:n], self._first[n:]) if n >= 0 else (self._first, b"")
            return piece
        return self._rest.read(n)
