"""What lies below a name: the blobs of an image, and small documents read whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from ..digest import Digest
from ..errors import Damaged, NotFound
from ..flow.restore import BlobReader
from ..model import BlobInfo
from ..oci.reference import familiar_repository
from ..store import names, protocol, query
from ..store.catalog import Tx
from ..store.leases import Lease
from ..store.volume import Volume
from .resolve import UNTAGGED, Found, resolve

T = TypeVar("T")
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
        found[digest] = find_below(tx, digest)
        queue += names.children(tx, digest)
    return found


def find_below(tx: Tx, digest: Digest) -> BlobInfo:
    """A blob below a live manifest, which must be there."""
    info = query.find_blob(tx, digest)
    if info is None:
        raise Damaged("a blob that should be in the store is not", what=str(digest), hint="run casstore check")
    return info


def protect(volume: Volume, lease: Lease, given: Sequence[str]) -> tuple[list[Found], dict[Digest, BlobInfo]]:
    """The images that are meant, in order, and all blobs below them, which the lease keeps from here on. NotFound as
    `resolve`."""
    while True:
        with volume.catalog.read() as tx:
            found = [resolve(tx, text) for text in given]
            wanted = {digest: None for one in found for digest in closure(tx, one.target)}
        opened = protocol.read_open(volume.catalog, lease.id, wanted)
        if wanted.keys() == opened.blobs.keys():
            return found, opened.blobs
        # Between the two a name was taken or moved, and what it stood for collected: see what it stands for now.


def protect_below(volume: Volume, lease: Lease, targets: Iterable[Digest]) -> dict[Digest, BlobInfo]:
    """All blobs at and below these manifests and indexes, which the lease keeps from here on. NotFound."""
    while True:
        with volume.catalog.read() as tx:
            for target in targets:
                if not names.is_live(tx, target):
                    raise NotFound("is not in the store", what=str(target))
            wanted = {digest: None for target in targets for digest in closure(tx, target)}
        opened = protocol.read_open(volume.catalog, lease.id, wanted)
        if wanted.keys() == opened.blobs.keys():
            return opened.blobs


def read_document(volume: Volume, info: BlobInfo, *, leased: bool = True) -> bytes:
    """A manifest or config whole, verified. `leased`: as BlobReader."""
    if info.size > MAX_DOCUMENT:
        raise Damaged("a document is larger than any document may be", what=str(info.digest))
    return b"".join(BlobReader(volume, info, leased=leased).read())


def ask_image(volume: Volume, text: str, ask: Callable[[Tx, Found, bytes], T]) -> T:
    """`ask(tx, found, config bytes)` about the image that `text` means, all of one moment. NotFound as `resolve`."""
    # Without a lease gc may move the config's bytes just before they are read: then they are elsewhere now.
    turns = 4
    while True:
        turns -= 1
        with volume.catalog.read() as tx:
            found = resolve(tx, text)
            info = find_below(tx, found.image.config)
            try:
                raw = read_document(volume, info, leased=not turns)
            except NotFound:
                continue
            return ask(tx, found, raw)


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
