"""What the catalog keeps of manifests so that nobody need read them, compared with what they say, and made again: the
edges to their blobs, and the rows of lists."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from ..digest import Digest
from ..errors import BadInput, Damaged, NotFound
from ..flow.restore import BlobReader
from ..model import BlobInfo, ImageRow
from ..oci import config as oci_config
from ..oci import manifest as oci_manifest
from ..oci import media
from ..oci.document import MAX_DOCUMENT
from ..oci.image import image_row
from ..oci.manifest import Index, Manifest
from ..store import names, query
from ..store.volume import Volume


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or index of the store, read."""

    info: BlobInfo
    content: Manifest | Index

    @property
    def digest(self) -> Digest:
        return self.info.digest


def manifests(volume: Volume, skip: Collection[Digest] = ()) -> Iterator[Document]:
    """All manifests and indexes that can be read, manifests first."""
    with volume.catalog.read() as tx:
        infos = [info for info in query.blobs(tx) if is_listed(info) and info.digest not in skip]
    for info in sorted(infos, key=lambda one: one.media_type in media.INDEXES):
        found = read(volume, info)
        if found is not None:
            yield found


def is_listed(info: BlobInfo) -> bool:
    """Is a blob a manifest or index by what is known of it?"""
    return info.media_type in media.MANIFESTS or info.media_type in media.INDEXES


def read(volume: Volume, info: BlobInfo) -> Document | None:
    """A blob as a manifest or index, None where it is none, or cannot be read."""
    if info.size > MAX_DOCUMENT:
        return None
    try:
        raw = b"".join(BlobReader(volume, info).read())
        return Document(info, oci_manifest.parse(raw, str(info.digest), info.media_type, info.digest))
    except (Damaged, NotFound, BadInput):
        return None


def children(content: Manifest | Index) -> list[Digest]:
    """What a manifest needs, or an index lists, each once."""
    return list(dict.fromkeys(child.digest for child in content.children))


def lacking(volume: Volume, one: Document) -> list[Digest]:
    """What a manifest needs and the store does not have. Of an index, any part may be here."""
    if isinstance(one.content, Index):
        return []
    with volume.catalog.read() as tx:
        return [child for child in children(one.content) if not names.is_live(tx, child)]


def problem_of(volume: Volume, one: Document) -> str:
    """In what the catalog differs from a manifest, "" if in nothing. Of an index, any part may be here."""
    if isinstance(one.content, Index):
        return ""
    with volume.catalog.read() as tx:
        if not names.is_live(tx, one.digest):
            return ""
        edges = set(names.children(tx, one.digest))
        now = names.find_image(tx, one.digest)
    missing = lacking(volume, one)
    if missing:
        return f"its blob {missing[0]} is not in the store"
    unknown = [child for child in children(one.content) if child not in edges]
    if unknown:
        return f"the catalog does not know that it needs {unknown[0]}"
    wanted = row_of(volume, one)
    if wanted is not None and (now is None or _told(now) != _told(wanted)):
        return "lists show something else than it says" if now is not None else "it is missing in lists"
    return ""


def row_of(volume: Volume, one: Document) -> ImageRow | None:
    """The row that lists need of an image; None for what is no image. A config that cannot be read leaves it bare."""
    content = one.content
    if not isinstance(content, Manifest) or not content.is_image:
        return None
    with volume.catalog.read() as tx:
        layers = [query.find_blob(tx, layer.digest) for layer in content.layers]
        config_info = query.find_blob(tx, content.config.digest)
        now = names.find_image(tx, one.digest)
    size = sum(layer.files_size or 0 for layer in layers if layer is not None)
    parent = now.parent if now is not None else ""
    if config_info is not None and config_info.size <= MAX_DOCUMENT:
        try:
            raw = b"".join(BlobReader(volume, config_info).read())
            return image_row(content, oci_config.parse(raw, str(config_info.digest)), size, parent)
        except (Damaged, NotFound, BadInput):
            pass
    return now or ImageRow(one.digest, content.config.digest, "", size, "", "", "", {}, parent)


def _told(row: ImageRow) -> ImageRow:
    """What of a row the manifest and its blobs tell: an archive may have named another parent."""
    return ImageRow(
        row.manifest, row.config, row.created, row.size, row.os, row.architecture, row.variant, row.labels, ""
    )
