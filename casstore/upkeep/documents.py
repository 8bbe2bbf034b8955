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
from ..oci.config import Config
from ..oci.document import MAX_DOCUMENT
from ..oci.image import image_row, total
from ..oci.manifest import Index, Manifest
from ..store import names, query
from ..store.catalog import Tx
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


def pressed(volume: Volume, one: Document) -> list[Digest]:
    """The compressed forms of an image's plain layers, kept for its next push (image/pressed.py). Its manifest does not
    tell of them; what is inside them does."""
    layers = one.content.layers if isinstance(one.content, Manifest) else ()
    plain = {layer.digest for layer in layers if media.layer_encoding(layer.media_type) == "identity"}
    with volume.catalog.read() as tx:
        forms = [info for digest in sorted(plain) for info in query.find_diffid(tx, digest)]
    return [info.digest for info in forms if info.encoding != "identity"]


def lacking(volume: Volume, one: Document) -> list[Digest]:
    """What a manifest needs and the store does not have. Of an index, any part may be here."""
    with volume.catalog.read() as tx:
        return _lacking(tx, one)


def _lacking(tx: Tx, one: Document) -> list[Digest]:
    if isinstance(one.content, Index):
        return []
    return [child for child in children(one.content) if not names.is_live(tx, child)]


def problem_of(volume: Volume, one: Document) -> str:
    """In what the catalog differs from a manifest, "" if in nothing. Of an index, any part may be here.

    All that is compared is read in one transaction: meanwhile a manifest may go, and then what it needs."""
    if isinstance(one.content, Index):
        return ""
    config = _config(volume, one.content)
    with volume.catalog.read() as tx:
        if not names.is_live(tx, one.digest):
            return ""
        missing = _lacking(tx, one)
        if missing:
            return f"its blob {missing[0]} is not in the store"
        edges = set(names.children(tx, one.digest))
        unknown = [child for child in children(one.content) if child not in edges]
        if unknown:
            return f"the catalog does not know that it needs {unknown[0]}"
        now, wanted = names.find_image(tx, one.digest), _row(tx, one, config)
    if wanted is not None and (now is None or _told(now) != _told(wanted)):
        return "lists show something else than it says" if now is not None else "it is missing in lists"
    return ""


def row_of(volume: Volume, one: Document) -> ImageRow | None:
    """The row that lists need of an image; None for what is no image. A config that cannot be read leaves it bare."""
    config = _config(volume, one.content)
    with volume.catalog.read() as tx:
        return _row(tx, one, config)


def _config(volume: Volume, content: Manifest | Index) -> Config | None:
    """An image's config, None where there is none, or it cannot be read."""
    if not isinstance(content, Manifest) or not content.is_image:
        return None
    with volume.catalog.read() as tx:
        info = query.find_blob(tx, content.config.digest)
    if info is None or info.size > MAX_DOCUMENT:
        return None
    try:
        raw = b"".join(BlobReader(volume, info).read())
        return oci_config.parse(raw, str(info.digest))
    except (Damaged, NotFound, BadInput):
        return None


def _row(tx: Tx, one: Document, config: Config | None) -> ImageRow | None:
    content = one.content
    if not isinstance(content, Manifest) or not content.is_image:
        return None
    now = names.find_image(tx, one.digest)
    size = size_of(tx, one)
    parent = now.parent if now is not None else ""
    if config is not None:
        return image_row(content, config, size, parent)
    return now or ImageRow(one.digest, content.config.digest, "", size, "", "", "", {}, parent)


def size_of(tx: Tx, one: Document) -> int:
    """docker's SIZE of an image, -1 where a layer was not looked into."""
    layers = one.content.layers if isinstance(one.content, Manifest) else ()
    # Each asked for once: a manifest may name one layer ten thousand times.
    found = {digest: query.find_blob(tx, digest) for digest in {layer.digest for layer in layers}}
    known = {digest: 0 if info is None else info.files_size for digest, info in found.items()}
    return total(known[layer.digest] for layer in layers)


def _told(row: ImageRow) -> ImageRow:
    """What of a row the manifest and its blobs tell: an archive may have named another parent."""
    return ImageRow(
        row.manifest, row.config, row.created, row.size, row.os, row.architecture, row.variant, row.labels, ""
    )
