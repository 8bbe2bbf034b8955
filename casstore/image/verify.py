"""`verify`: every blob of an image read back and compared with its digest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..codec import compression
from ..digest import Digest
from ..errors import CasstoreError, Damaged, NotFound
from ..flow.inside import Inside
from ..flow.restore import BlobReader
from ..model import BlobInfo
from ..oci import config as oci_config
from ..oci import manifest as oci_manifest
from ..oci.manifest import Manifest
from ..store.leases import Lease
from ..store.volume import Volume
from .content import protect, read_document
from .resolve import Found


@dataclass(frozen=True, slots=True)
class VerifyRow:
    """One blob of an image, read back: `kind` index, manifest, config or layer; `problem` is "" where its digest is
    right."""

    digest: Digest
    kind: str
    size: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class VerifyReport:
    rows: list[VerifyRow]

    @property
    def ok(self) -> bool:
        return not any(row.problem for row in self.rows)


def verify(volume: Volume, reference: str) -> VerifyReport:
    """Read every blob of an image back whole and compare it with its digest, and what layers have inside with what the
    config says that it is: a pull that did not look into them left that open."""
    rows = []
    with Lease(volume.catalog, volume.objects, "verify", reading=True) as lease:
        (found,), blobs = protect(volume, lease, [reference])
        said = _diff_ids(volume, found, blobs)
        for digest, info in blobs.items():
            try:
                problem = _read(volume, lease, info, said.get(digest))
            except (Damaged, NotFound) as error:
                lease.check()
                problem = str(error)
            kind = "config" if digest == found.image.config else _kind(info.media_type)
            rows.append(VerifyRow(digest, kind, info.size, problem))
    return VerifyReport(rows)


def _diff_ids(volume: Volume, found: Found, blobs: Mapping[Digest, BlobInfo]) -> dict[Digest, Digest]:
    """Layer → the digest of its content, by the config."""
    try:
        info = blobs[found.image.manifest]
        manifest = oci_manifest.parse(read_document(volume, info), str(info.digest), info.media_type, info.digest)
        config = oci_config.parse(read_document(volume, blobs[found.image.config]), str(found.image.config))
    except (KeyError, CasstoreError):
        return {}  # which is told where these are read
    layers = manifest.layers if isinstance(manifest, Manifest) else ()
    return {layer.digest: diff_id for layer, diff_id in zip(layers, config.diff_ids, strict=False)}


def _read(volume: Volume, lease: Lease, info: BlobInfo, said: Digest | None) -> str:
    """Read a blob back; what is wrong with it."""
    actual = info.diffid
    unknown = said is not None and actual is None and info.encoding != "identity"
    inside = Inside(info.encoding, compression.LIMIT, strict=False) if unknown else None
    try:
        for piece in BlobReader(volume, info).read():
            lease.check()
            if inside is not None:
                inside.feed(piece)
        if inside is not None:
            inside.finish()
            actual = inside.digest if inside.known else None
            if actual is None:
                return f"what is inside cannot be read, the config says {said}"
    finally:
        if inside is not None:
            inside.close()
    if said is None or actual is None or actual == said:
        return ""
    return f"it is {actual} inside, the config says {said}"


def _kind(media_type: str) -> str:
    if "index" in media_type or "manifest.list" in media_type:
        return "index"
    return "manifest" if "manifest" in media_type else "layer"
