"""A single blob put into the store."""

from __future__ import annotations

from pathlib import Path

from ..codec import compression
from ..codec.gzip import LIMIT
from ..digest import Digest
from ..flow.ingest import Ingest
from ..flow.source import StreamSource, open_input
from ..model import Progress
from ..store import protocol
from ..store.leases import Lease
from ..store.names import PIN
from ..store.volume import Volume


def put(
    volume: Volume,
    where: str | Path | int,
    *,
    pack: str = "plain",
    codec: str = "zstd:3",
    limit: compression.Limit = compression.LIMIT,
    trace_limit: float = LIMIT,
    progress: Progress | None = None,
) -> Digest:
    """Store a file or stream as one blob, pinned until `rm`."""
    with open_input(where) as raw, Lease(volume.catalog, volume.objects, "blob put") as lease:
        ingest = Ingest(
            volume, lease.id, pack=pack, codec=codec, limit=limit, trace_limit=trace_limit, progress=progress
        )
        try:
            taken = ingest.take(StreamSource(raw), what="blob")
            written = ingest.finish()
            protocol.commit(
                volume.catalog, lease.id, written.blobs, objects=written.objects, pins=[(taken.digest, PIN)]
            )
            return taken.digest
        finally:
            ingest.close()
