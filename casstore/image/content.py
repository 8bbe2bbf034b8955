"""What lies below a name: the blobs of an image, and small documents read whole."""

from __future__ import annotations

from ..digest import Digest
from ..errors import Damaged
from ..flow.restore import BlobReader
from ..model import BlobInfo
from ..oci.reference import familiar_repository
from ..store import names, query
from ..store.catalog import Tx
from ..store.volume import Volume
from .resolve import UNTAGGED

MAX_DOCUMENT = 8 << 20
"""Largest manifest or config that is read whole (bytes)."""


def closure(tx: Tx, target: Digest) -> dict[Digest, BlobInfo]:
    """A manifest or index and all blobs below it that the store has."""
    found: dict[Digest, BlobInfo] = {}
    queue = [target]
    while queue:
        digest = queue.pop()
        if digest in found:
            continue
        info = query.find_blob(tx, digest)
        if info is None:
            raise Damaged("a blob that should be in the store is not", what=str(digest), hint="run casstore check")
        found[digest] = info
        queue += names.children(tx, digest)
    return found


def read_document(volume: Volume, info: BlobInfo, *, leased: bool = True) -> bytes:
    """A manifest or config whole, verified. `leased`: as BlobReader."""
    if info.size > MAX_DOCUMENT:
        raise Damaged("a document is larger than any document may be", what=str(info.digest))
    return b"".join(BlobReader(volume, info, leased=leased).read())


def per_image(volume: Volume) -> list[tuple[str, list[BlobInfo]]]:
    """(reference, blobs) of every image: once each, under its first name, or its ID where it has none."""
    with volume.catalog.read() as tx:
        targets: dict[Digest, str] = {}
        for tag in names.tags(tx):
            targets.setdefault(tag.target, f"{familiar_repository(tag.repository)}:{tag.tag}")
        for digest, name in names.pins(tx):
            if name == UNTAGGED:
                image = names.find_image(tx, digest)
                targets.setdefault(digest, image.config.hex[:12] if image else digest.hex[:12])
        return [
            (name, list(closure(tx, target).values())) for target, name in sorted(targets.items(), key=lambda o: o[1])
        ]
