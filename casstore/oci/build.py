"""Documents that casstore makes itself: always the same bytes for the same input, on every machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..digest import Digest
from . import media
from .document import MAX_DOCUMENT, encode, strict_json
from .manifest import Descriptor, plain
from .platform import Platform


def manifest(config: Descriptor, layers: Sequence[Descriptor]) -> bytes:
    """The OCI manifest of an image that came without one:
    the bytes that docker ≥ 25 makes for the same layers."""
    return encode(
        {
            "schemaVersion": 2,
            "mediaType": media.OCI_MANIFEST,
            "config": plain(config),
            "layers": [plain(layer) for layer in layers],
        }
    )


def index(manifests: Sequence[Descriptor]) -> bytes:
    """An OCI index over manifests, in the order given."""
    return encode({"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": [plain(each) for each in manifests]})


def imported_config(
    diff_id: Digest,
    created: str,
    platform: Platform,
    comment: str = "Imported from -",
    runtime: Mapping[str, Any] | None = None,
) -> bytes:
    """The config of an image made from one root file system. `created` is RFC 3339; `runtime` is the
    `config` object."""
    value: dict[str, Any] = {"architecture": platform.architecture, "comment": comment}
    if runtime is not None:
        value["config"] = dict(runtime)
    value["created"] = created
    value["history"] = [{"created": created, "comment": comment}]
    value["os"] = platform.os
    value["rootfs"] = {"type": "layers", "diff_ids": [str(diff_id)]}
    if platform.variant:
        value["variant"] = platform.variant
    return encode(value)


def as_oci(raw: bytes, changed: Mapping[str, Descriptor], what: str) -> bytes:
    """A manifest or index of docker's as the OCI one that says the same: types by their OCI names, all else as it is.
    `changed`: digests of children that were made anew, with what they are now."""
    value = strict_json(raw, MAX_DOCUMENT, what)
    value["mediaType"] = media.to_oci(value.get("mediaType") or "") or media.OCI_MANIFEST
    for child in [value.get("config"), *(value.get("layers") or ()), *(value.get("manifests") or ())]:
        if not isinstance(child, dict):
            continue
        child["mediaType"] = media.to_oci(child.get("mediaType") or "")
        new = changed.get(child["digest"])
        if new is not None:
            child["digest"], child["size"] = str(new.digest), new.size
    return encode(value)
