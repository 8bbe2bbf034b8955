"""`import`: the tar of a root file system, under any compression or none, becomes an image of one layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

from ..codec import compression
from ..codec.compression import Readable
from ..codec.gzip import LIMIT
from ..digest import Digest
from ..errors import BadInput, InvalidReference
from ..flow.ingest import Ingest
from ..flow.source import StreamSource, name_of, open_input, public_url
from ..model import ImageRow, Progress
from ..oci import build, media, platform, reference
from ..oci import config as oci_config
from ..oci.changes import changed
from ..oci.image import image_row
from ..oci.manifest import Descriptor, Manifest
from ..oci.manifest import parse as parse_manifest
from ..oci.reference import Reference
from ..store import protocol
from ..store.leases import Lease
from ..store.volume import Volume
from .resolve import UNTAGGED

#: Opens a URL for reading; called when all else about an import is known to be right.
Fetch = Callable[[str], AbstractContextManager[Readable]]


def is_url(where: str | Path | int) -> bool:
    """Is this to be downloaded? (As docker, by how it begins.)"""
    return isinstance(where, str) and where.startswith(("http://", "https://"))


def import_image(
    volume: Volume,
    where: str | Path | int,
    ref: str | None = None,
    *,
    changes: Sequence[str] = (),
    message: str = "",
    wanted: str | None = None,
    created: datetime | None = None,
    pack: str = "plain",
    codec: str = "zstd:3",
    limit: compression.Limit = compression.LIMIT,
    trace_limit: float = LIMIT,
    progress: Progress | None = None,
    fetch: Fetch | None = None,
) -> Digest:
    """Import a path, an open descriptor or, with `fetch`, a URL; returns the image ID. `changes`: Dockerfile
    instructions for its configuration. `created`: now, if not given."""
    name = _target(ref)
    chosen = platform.parse(wanted) if wanted else platform.host()
    runtime = changed({}, changes)
    moment = (created or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if fetch is not None and isinstance(where, str) and is_url(where):
        opened: AbstractContextManager[Readable] = fetch(where)
        named = origin = public_url(where)
    else:
        opened = open_input(where)
        named, origin = name_of(where), "-"  # whoever gets the image need not know the path, as docker has it
    with opened as raw, Lease(volume.catalog, volume.objects, "import") as lease:
        ingest = Ingest(
            volume, lease.id, pack=pack, codec=codec, limit=limit, trace_limit=trace_limit, progress=progress
        )
        try:
            stream = compression.open_stream(raw, limit, named)
            layer = ingest.take(StreamSource(stream), media_type=media.OCI_LAYER, what="import")
            if layer.diffid is None:
                raise BadInput("the decompressed content is compressed once more", what=named)
            comment = message or f"Imported from {origin}"
            raw_config = build.imported_config(layer.diffid, moment, chosen, comment, runtime or None)
            config = oci_config.parse(raw_config, "config")
            ingest.take_small(raw_config, media.OCI_CONFIG)
            raw_manifest = build.manifest(
                Descriptor(media.OCI_CONFIG, config.digest, len(raw_config)),
                [Descriptor(media.OCI_LAYER, layer.digest, layer.size)],
            )
            manifest = parse_manifest(raw_manifest, "manifest")
            if not isinstance(manifest, Manifest):
                raise BadInput("not a manifest", what="manifest")
            ingest.take_small(raw_manifest, media.OCI_MANIFEST, (config.digest, layer.digest))
            row = image_row(manifest, config, layer.files_size or 0)
            _commit(volume, lease, ingest, row, name)
            return config.digest
        finally:
            ingest.close()


def _target(ref: str | None) -> Reference | None:
    """The name to be given; refused before a byte is read."""
    if ref is None:
        return None
    if reference.parse(ref).digest is not None:
        raise InvalidReference("cannot import digest reference")
    return reference.parse_target(ref)


def _commit(volume: Volume, lease: Lease, ingest: Ingest, row: ImageRow, name: Reference | None) -> None:
    written = ingest.finish()
    lease.check()
    protocol.commit(
        volume.catalog,
        lease.id,
        written.blobs,
        objects=written.objects,
        images=[row],
        tags=[] if name is None else [(name.repository, name.tag, row.manifest)],
        pins=[(row.manifest, UNTAGGED)] if name is None else [],
        keep=UNTAGGED,
    )
