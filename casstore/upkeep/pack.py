"""Packing: loose blobs become recipes over chunks, of themselves or of what gzip has inside. PROTOCOL.md: pack."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..digest import Digest
from ..errors import Damaged, DigestMismatch, NotFound
from ..flow.ingest import Ingest
from ..flow.restore import BlobReader
from ..flow.source import RangeSource
from ..model import BlobInfo, NewBlob, Progress
from ..store import protocol, query, rewrite
from ..store.leases import Lease
from ..store.volume import Volume

BATCH = 256 << 20
"""Bytes of blobs packed under one lease, into common packs."""


def plan(volume: Volume, idle_before: float | None = None) -> list[BlobInfo]:
    """Loose blobs that can be packed, the largest first; with `idle_before` (seconds since 1970) only those that nobody
    read since."""
    with volume.catalog.read() as tx:
        before = tx.now() + 1 if idle_before is None else idle_before
        return [one for one in query.loose_blobs(tx, idle_before=before) if one.encoding in ("identity", "gzip")]


def batches(blobs: list[BlobInfo]) -> Iterator[list[BlobInfo]]:
    """The plan in portions, each under one lease."""
    batch: list[BlobInfo] = []
    for info in blobs:
        batch.append(info)
        if sum(one.size for one in batch) >= BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def pack(
    volume: Volume,
    batch: list[BlobInfo],
    codec: str,
    check: Callable[[], None] = lambda: None,
    progress: Progress | None = None,
) -> list[Digest]:
    """Pack blobs; returns those that are packed now. One that is damaged is marked so and stays as it is."""
    done: list[Digest] = []
    with Lease(volume.catalog, volume.objects, "gc: pack") as lease:
        ingest = Ingest(volume, lease.id, codec=codec, progress=progress)
        try:
            taken: dict[Digest, str] = {}
            for info in batch:
                check()
                lease.check()
                begun = rewrite.pack_begin(volume.catalog, lease.id, info.digest)
                if begun is None:
                    continue
                refused: str | None = None
                what = str(info.digest)[:19]
                try:
                    with volume.objects.open(begun.place.key) as reader:
                        if info.encoding == "identity":
                            ingest.take(RangeSource(reader), expect=info.digest, what=what)
                        else:
                            refused = ingest.take_apart(RangeSource(reader), info.digest, what=what)
                except (NotFound, Damaged, DigestMismatch):
                    lease.check()
                    protocol.mark_damaged(volume.catalog, [begun])
                    continue
                if refused is not None:
                    rewrite.pack_refuse(volume.catalog, info.digest, refused)
                    continue
                taken[info.digest] = begun.place.key
            written = ingest.finish(set(taken))
            for blob in written.blobs:
                # A recipe is believed only once it was replayed from the sealed packs.
                if not _replays(volume, blob):
                    lease.check()
                    rewrite.pack_refuse(volume.catalog, blob.digest, "the recipe does not replay")
                elif rewrite.pack_commit(volume.catalog, lease.id, taken[blob.digest], blob, written.objects):
                    done.append(blob.digest)
        finally:
            ingest.close()
    return done


def _replays(volume: Volume, blob: NewBlob) -> bool:
    """Does the blob come back from what was just written, byte for byte?"""

    try:
        for _ in BlobReader(volume, info_of(blob)).read():
            pass
    except Damaged:
        return False
    return True


def info_of(blob: NewBlob) -> BlobInfo:
    """What the catalog will say of a blob once it is committed."""
    return BlobInfo(
        blob.digest,
        blob.size,
        blob.place,
        blob.encoding,
        blob.media_type,
        blob.diffid,
        blob.content_size,
        blob.files_size,
        blob.spot,
        0.0,
    )
