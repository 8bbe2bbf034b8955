"""Loose blobs: kept verbatim, verified on the way, with a short hash per MiB so that ranges can be checked later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from blake3 import blake3

from ..codec import compression
from ..digest import Digest
from ..kernels import hashing, tarscan
from ..model import NewBlob, Place
from ..store.objects import Objects, Staged, loose_key
from ..store.transfers import Part
from .inside import Inside
from .source import Source, fill
from .step import Step

SPOT_SPAN = 1 << 20
SPOT_SIZE = 8
UNREADABLE = "what is inside cannot be read"
"""Why a blob stays loose whose first bytes promise a compressed stream, which it is not."""


def spot(piece: memoryview | bytes) -> bytes:
    """The check of one MiB of a loose blob: the first 8 bytes of its BLAKE3."""
    return blake3(piece).digest(SPOT_SIZE)


class _Tee:
    """Reads a source piece by piece, hashed; into a staged file, if there is one, goes what that does not have yet."""

    def __init__(self, source: Source, staged: Staged | None, digest: Digest | None, step: Step) -> None:
        self._source = source
        self._staged = staged
        self._have = staged.size if staged is not None else 0
        self._view = memoryview(bytearray(SPOT_SPAN))
        self.sha256 = hashing.Sha256()
        self.other = digest.hasher() if digest is not None and digest.algorithm != "sha256" else None
        self.size = 0
        self.spot = bytearray()
        self._step = step

    def next(self) -> memoryview:
        """The next MiB, less at the end, nothing after it; valid until the next is asked for."""
        got = fill(self._source, self._view)
        piece = self._view[:got]
        if got:
            self.sha256.update(piece)
            if self.other is not None:
                self.other.update(piece)
            if self._staged is not None and self.size + got > self._have:
                self._staged.write(piece[max(self._have - self.size, 0) :])
            self.spot += spot(piece)
            self.size += got
            self._step.advance(got)
        return piece


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
    look: bool = True,
    part: Part | None = None,
) -> tuple[NewBlob, Staged]:
    """Write one blob into the staging folder as it is; returns what a commit needs, and the staged file.

    `strict`: a blob that is not what its first bytes say, or becomes more than `limit`, is an error; else it is kept
    all the same, and what is inside stays unknown. Without `look` nobody looks inside what is compressed. `part`: what
    has come of it before, which the source has too, and where it is to be written, in the place of a staged file.
    """
    # The digest is part of the key. Where it is known only at the end, the row is made then: until it is published, the
    # file lies in the lease's folder and goes with it.
    key = loose_key(expect) if expect is not None else None
    if key is not None:
        begin(key, "blob")
    staged = part or objects.stage(lease, key)
    try:
        blob = _follow(source, staged, expect, step, limit=limit, strict=strict, look=look)
        if key is None:
            key = staged.key = loose_key(blob.digest)
            begin(key, "blob")
        if part is not None:
            part.settle(objects.staging(lease), key)
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
    look: bool = True,
) -> NewBlob:
    """Read a blob to its end, into `staged` if that is given; what is known of it then, but for its place."""
    tee = _Tee(source, staged, expect, step)
    piece = tee.next()
    kind = compression.detect(piece)
    scanner = tarscan.Scanner() if kind is None else None
    inside = Inside(kind, limit, strict=strict) if kind is not None and look else None
    try:
        while piece:
            if scanner is not None:
                scanner.feed(piece)
            elif inside is not None:
                inside.feed(piece)
            piece = tee.next()
        digest = Digest.sha256(tee.sha256.digest())
        if expect is not None:
            actual = expect.raw if tee.other is None else tee.other.digest()
            expect.check(digest.raw if tee.other is None else actual, str(expect))
            digest = expect
        if inside is not None:
            inside.finish()
    finally:
        if inside is not None:
            inside.close()
    known, length, files = None, None, None
    if inside is not None and inside.known:
        known, length, files = inside.digest, inside.size, inside.files_size
    elif scanner is not None:
        known, length, files = Digest.sha256(tee.sha256.digest()), tee.size, scanner.content_size
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
