"""The plumbing below images: single blobs read, listed, pinned. (They are put in blob_put: reading one must not wait
for what packs.)"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ..codec import compression
from ..digest import Digest
from ..errors import BadInput, NotFound
from ..flow.encoded import encoder_of
from ..flow.restore import BlobReader
from ..model import BlobInfo
from ..store import names, protocol, query
from ..store.leases import Lease
from ..store.names import PIN
from ..store.volume import Volume


@dataclass(frozen=True, slots=True)
class BlobSummary:
    """A row of `blob ls`. `stored_size`: bytes of the file or record that the blob's own place takes; the chunks of a
    packed one are shared and not counted."""

    digest: Digest
    size: int
    state: str
    encoding: str
    stored_size: int


def cat(
    volume: Volume,
    digest: Digest,
    start: int = 0,
    end: int | None = None,
    *,
    content: bool = False,
    limit: compression.Limit = compression.LIMIT,
) -> Iterator[memoryview]:
    """A blob's bytes [start, end), checked; with `content` those of what is inside it, uncompressed (BlobReader)."""
    with Lease(volume.catalog, volume.objects, "blob cat", reading=True) as lease:
        opened = protocol.read_open(volume.catalog, lease.id, [digest])
        info = opened.blobs.get(digest)
        if info is None:
            raise no_such_blob(digest)
        size = info.content_size if content else info.size
        if (size is not None and start > size) or (end is not None and end < start):
            whose = "content's" if content else "blob's"
            raise BadInput(f"range is outside of the {whose} {size} bytes", what=str(digest))
        reader = BlobReader(volume, info, cached=True)
        yield from reader.content(limit, start, end) if content else reader.read(start, end)


def no_such_blob(digest: Digest) -> NotFound:
    return NotFound(f"No such blob: {digest}")


def ls(volume: Volume) -> Iterator[BlobSummary]:
    """All blobs, by digest, as they are when the first is asked for."""
    # Gathered first: whoever goes through them may want to use the store meanwhile, which a transaction would not let.
    with volume.catalog.read() as tx:
        rows = [
            BlobSummary(info.digest, info.size, state_of(info), info.encoding, stored_size(info))
            for info in query.blobs(tx)
        ]
    yield from rows


def state_of(info: BlobInfo) -> str:
    """loose or packed (a small blob inside a metadata pack is packed)."""
    return "loose" if info.place.state == "loose" else "packed"


def stored_size(info: BlobInfo) -> int:
    """See BlobSummary."""
    return info.size if info.place.state == "loose" else info.place.length


def inspect(volume: Volume, digest: Digest) -> dict[str, Any]:
    """What the store knows of a blob."""
    with volume.catalog.read() as tx:
        info = query.find_blob(tx, digest)
        if info is None:
            raise no_such_blob(digest)
        parents = names.parents(tx, digest)
        pins = [name for _, name in names.pins(tx, digest)]
        refused = query.pack_refused(tx, digest)
    encoder = encoder_of(volume, info)
    return {
        "Digest": str(digest),
        "Size": info.size,
        "State": state_of(info),
        "Encoding": info.encoding,
        "Encoder": encoder.name if encoder else "",
        "TraceSize": encoder.trace if encoder else 0,
        "Corrections": encoder.corrections if encoder else 0,
        "Refused": refused,
        "StoredSize": stored_size(info),
        "MediaType": info.media_type,
        "DiffID": str(info.diffid) if info.diffid else "",
        "ContentSize": info.content_size,
        "Object": info.place.key,
        "Packs": [use.key for use in info.place.uses],
        "ContentBytes": sum(
            int((use.intervals[:, 1].astype("u8") - use.intervals[:, 0]).sum()) for use in info.place.uses
        ),
        "Parents": [str(one) for one in parents],
        "Pins": pins,
    }


def rm(volume: Volume, digests: Iterable[Digest]) -> None:
    """Take the pins of `put` away; NotFound for a blob that has none."""
    for digest in digests:
        if not protocol.unpin(volume.catalog, digest, PIN):
            with volume.catalog.read() as tx:
                if not names.is_live(tx, digest):
                    raise no_such_blob(digest)
