"""Rescue: blobs that lie in a damaged object and can be read all the same are written anew: nothing needs it then."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..digest import Digest
from ..errors import Damaged, DigestMismatch, NotFound
from ..flow.ingest import Ingest
from ..flow.restore import BlobReader
from ..model import BlobInfo
from ..store import protocol
from ..store.volume import Volume


def rescue(
    volume: Volume, lease: int, blobs: list[BlobInfo], codec: str, check: Callable[[], None] = lambda: None
) -> set[Digest]:
    """Write blobs again, under the caller's lease; returns those that are safe now. One that cannot be read
    stays as it is. The damaged objects must be marked: what they hold then counts as missing."""
    opened = protocol.read_open(volume.catalog, lease, [info.digest for info in blobs])
    ingest = Ingest(volume, lease, codec=codec)
    try:
        safe: set[Digest] = set()
        for info in opened.blobs.values():
            check()
            try:
                reader = BlobReader(volume, info)
                if info.place.state == "inline":
                    ingest.take_small(b"".join(reader.read()), info.media_type)
                else:
                    ingest.take(_Buffers(reader), expect=info.digest, media_type=info.media_type)
            except (Damaged, NotFound, DigestMismatch):
                continue
            safe.add(info.digest)
        written = ingest.finish(safe)
        # A commit puts new bytes only in the place of those that are marked.
        protocol.mark_damaged(volume.catalog, [info for info in opened.blobs.values() if info.digest in safe])
        protocol.commit(volume.catalog, lease, written.blobs, objects=written.objects)
        return safe
    finally:
        ingest.close()


class _Buffers:
    """A blob as a source."""

    def __init__(self, reader: BlobReader) -> None:
        self.size: int | None = reader.size
        self._buffers: Iterator[memoryview] = reader.read()
        self._left = memoryview(b"")

    def readinto(self, view: memoryview) -> int:
        while not self._left:
            following = next(self._buffers, None)
            if following is None:
                return 0
            self._left = following
        got = min(len(view), len(self._left))
        view[:got] = self._left[:got]
        self._left = self._left[got:]
        return got
