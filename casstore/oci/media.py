"""Media types of manifests, configs and layers: OCI's, docker's, and which means which."""

from __future__ import annotations

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = f"{OCI_LAYER}+gzip"
OCI_LAYER_ZSTD = f"{OCI_LAYER}+zstd"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"

DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_SCHEMA1 = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)

INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
CONFIGS = frozenset({OCI_CONFIG, DOCKER_CONFIG})

_DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar"
_OCI_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"

_TO_OCI = {
    DOCKER_LIST: OCI_INDEX,
    DOCKER_MANIFEST: OCI_MANIFEST,
    DOCKER_CONFIG: OCI_CONFIG,
    DOCKER_LAYER: OCI_LAYER,
    f"{DOCKER_LAYER}.gzip": OCI_LAYER_GZIP,
    f"{DOCKER_LAYER}.zstd": OCI_LAYER_ZSTD,
    _DOCKER_FOREIGN: _OCI_FOREIGN,
    f"{_DOCKER_FOREIGN}.gzip": f"{_OCI_FOREIGN}+gzip",
}


def to_oci(media_type: str) -> str:
    """The OCI name of what docker calls otherwise; anything else unchanged."""
    return _TO_OCI.get(media_type, media_type)


def layer_encoding(media_type: str) -> str | None:
    """How a layer of this type is compressed: "identity", "gzip", "zstd"; None for unknown types."""
    base, plus, suffix = to_oci(media_type).partition("+")
    if not base.startswith("application/vnd.oci.image.layer.") or not base.endswith("v1.tar"):
        return None
    if not plus:
        return "identity"
    return suffix if suffix in ("gzip", "zstd") else None


def layer_type(encoding: str) -> str:
    """The OCI media type of a layer under an encoding ("gzip", "zstd"; anything else is a plain tar)."""
    return f"{OCI_LAYER}+{encoding}" if encoding in ("gzip", "zstd") else OCI_LAYER


def is_distributable(media_type: str) -> bool:
    """False for layers that are not to be pushed (foreign, nondistributable)."""
    return ".nondistributable." not in to_oci(media_type)
