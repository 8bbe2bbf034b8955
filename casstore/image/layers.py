"""The images as stacks of layers: what lies below each name, the lowest layer first."""

from __future__ import annotations

from ..digest import Digest
from ..errors import CasstoreError
from ..model import BlobInfo
from ..oci import manifest as oci_manifest
from ..oci.manifest import Manifest
from ..oci.media import MANIFESTS
from ..store.volume import Volume
from .content import per_image, read_document

Stack = list[tuple[Digest, BlobInfo]]
"""(the manifest that lists it, layer)."""


def stacks(volume: Volume) -> list[tuple[str, Stack]]:
    """(reference, layers) of every image, as `per_image` has them; of an index those of all its manifests. An image
    whose manifest cannot be read has none: `check` tells why."""
    return [(reference, _stack(volume, blobs)) for reference, blobs in per_image(volume)]


def _stack(volume: Volume, blobs: list[BlobInfo]) -> Stack:
    here = {info.digest: info for info in blobs}
    found: Stack = []
    for info in blobs:
        if info.media_type not in MANIFESTS:
            continue
        try:
            # Without a lease: what gc moves at this moment is missing from a picture, that is all.
            raw = read_document(volume, info, leased=False)
            document = oci_manifest.parse(raw, str(info.digest), info.media_type)
        except CasstoreError:
            continue
        if isinstance(document, Manifest):
            found += [(info.digest, here[one.digest]) for one in document.layers if one.digest in here]
    return found
