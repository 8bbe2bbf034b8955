"""Image manifests and indexes: parsed from exact bytes, which are kept beside and never written anew.

Source: OCI image-spec 1.1 manifest.md, image-index.md, descriptor.md; docker image manifest v2 schema 2.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec

from ..digest import Digest
from ..errors import BadInput, InvalidReference
from . import media
from .document import MAX_DOCUMENT, convert, strict_json
from .platform import Platform

MAX_CHILDREN = 10_000
"""Most layers of a manifest, most manifests of an index."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What points at a blob: its type, digest and size in bytes."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: dict[str, str] = field(default_factory=dict)
    artifact_type: str = ""

    @property
    def is_attestation(self) -> bool:
        """BuildKit's attestations ride in an index as manifests of no platform."""
        return self.annotations.get("vnd.docker.reference.type") == "attestation-manifest" or (
            self.platform is not None and (self.platform.os, self.platform.architecture) == ("unknown", "unknown")
        )


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image manifest. `raw` are the bytes that `digest` covers."""

    raw: bytes
    digest: Digest
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: dict[str, str]
    subject: Descriptor | None = None
    artifact_type: str = ""

    @property
    def is_image(self) -> bool:
        """Does its config describe a root file system? (Else it is an artifact: a signature, a chart, …)"""
        return self.config.media_type in media.CONFIGS

    @property
    def children(self) -> tuple[Descriptor, ...]:
        """What must be kept as long as this is: config and layers (a subject need not exist)."""
        return (self.config, *self.layers)


@dataclass(frozen=True, slots=True)
class Index:
    """An image index (docker: manifest list)."""

    raw: bytes
    digest: Digest
    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: dict[str, str]
    subject: Descriptor | None = None

    @property
    def children(self) -> tuple[Descriptor, ...]:
        return self.manifests


_Size = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class _Platform(msgspec.Struct, frozen=True):
    architecture: str = ""
    os: str = ""
    variant: str | None = None
    os_version: str | None = msgspec.field(default=None, name="os.version")
    os_features: list[str] | None = msgspec.field(default=None, name="os.features")


class _Descriptor(msgspec.Struct, frozen=True):
    digest: str
    size: _Size
    media_type: str = msgspec.field(default="", name="mediaType")
    platform: _Platform | None = None
    annotations: dict[str, str] | None = None
    artifact_type: str | None = msgspec.field(default=None, name="artifactType")


class _Document(msgspec.Struct, frozen=True):
    """Manifest and index in one: which of them it is, is decided by what is there."""

    schema_version: int = msgspec.field(default=0, name="schemaVersion")
    media_type: str | None = msgspec.field(default=None, name="mediaType")
    artifact_type: str | None = msgspec.field(default=None, name="artifactType")
    config: _Descriptor | None = None
    layers: list[_Descriptor] | None = None
    manifests: list[_Descriptor] | None = None
    subject: _Descriptor | None = None
    annotations: dict[str, str] | None = None


def parse(
    raw: bytes, what: str, media_type: str = "", digest: Digest | None = None, limit: int = MAX_DOCUMENT
) -> Manifest | Index:
    """A manifest or an index from its exact bytes.

    `media_type`: what pointed here says this is ("" if nothing did). `digest`: what the bytes must hash to.
    BadInput for anything that two readers could understand in two ways; DigestMismatch; LimitExceeded.
    """
    actual = Digest.of(raw, digest.algorithm if digest else "sha256")
    if digest is not None:
        digest.check(actual, what)
    value = strict_json(raw, limit, what)
    if not isinstance(value, dict):
        raise BadInput("invalid manifest: not a JSON object", what=what)
    has = {key for key in ("config", "layers", "manifests", "fsLayers") if key in value}
    if "manifests" in has and has & {"config", "layers", "fsLayers"}:
        raise BadInput("invalid manifest: ambiguous, has both manifests and layers", what=what)
    if "fsLayers" in has or value.get("schemaVersion") == 1 or media_type in media.DOCKER_SCHEMA1:
        raise BadInput("manifest schema 1 is not supported", what=what)
    document = convert(_Document, value, what)
    if document.schema_version != 2:
        raise BadInput(f"invalid manifest: unknown schemaVersion {document.schema_version}", what=what)
    is_index = "manifests" in has
    kind = _media_type(document, media_type, is_index, what)
    annotations = document.annotations or {}
    subject = _descriptor(document.subject, f"{what}: subject") if document.subject else None
    if is_index:
        return Index(raw, actual, kind, _descriptors(document.manifests, "manifest", what), annotations, subject)
    if document.config is None or document.layers is None:
        missing = "config" if document.config is None else "layers"
        raise BadInput(f"invalid manifest: no {missing}", what=what)
    config = _descriptor(document.config, f"{what}: config")
    layers = _descriptors(document.layers, "layer", what)
    return Manifest(raw, actual, kind, config, layers, annotations, subject, document.artifact_type or "")


def _media_type(document: _Document, expected: str, is_index: bool, what: str) -> str:
    said = document.media_type or ""
    if said and expected and said != expected:
        raise BadInput(f"invalid manifest: mediaType is {said}, expected {expected}", what=what)
    kind = said or expected or (media.OCI_INDEX if is_index else media.OCI_MANIFEST)
    if kind in (media.MANIFESTS if is_index else media.INDEXES):
        other = "an index" if is_index else "a manifest"
        raise BadInput(f"invalid manifest: mediaType {kind} on {other}", what=what)
    return kind


def _descriptors(found: list[_Descriptor] | None, kind: str, what: str) -> tuple[Descriptor, ...]:
    if found is not None and len(found) > MAX_CHILDREN:
        raise BadInput(f"invalid manifest: more than {MAX_CHILDREN} {kind}s", what=what)
    return tuple(_descriptor(each, f"{what}: {kind} {i}") for i, each in enumerate(found or ()))


def _descriptor(found: _Descriptor, what: str) -> Descriptor:
    try:
        digest = Digest.parse(found.digest)
    except InvalidReference:
        raise BadInput(f"invalid digest {found.digest[:160]!r}", what=what) from None
    platform = None
    if found.platform:
        platform = Platform(
            found.platform.os,
            found.platform.architecture,
            found.platform.variant or "",
            found.platform.os_version or "",
        )
    return Descriptor(
        found.media_type, digest, found.size, platform, found.annotations or {}, found.artifact_type or ""
    )


def plain(descriptor: Descriptor) -> dict[str, Any]:
    """A descriptor as JSON values, in the key order of the specification's own implementation."""
    value: dict[str, Any] = {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
    }
    if descriptor.annotations:
        value["annotations"] = dict(sorted(descriptor.annotations.items()))
    if descriptor.platform:
        value["platform"] = descriptor.platform.plain()
    if descriptor.artifact_type:
        value["artifactType"] = descriptor.artifact_type
    return value
