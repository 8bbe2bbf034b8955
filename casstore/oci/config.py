"""Image configs: the fields that casstore needs, read leniently. The bytes stay as they are: they are the ID.

Source: OCI image-spec config.md; docker's image JSON.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from ..digest import Digest
from ..errors import BadInput, InvalidReference
from .document import MAX_DOCUMENT, convert, strict_json
from .platform import Platform


@dataclass(frozen=True, slots=True)
class History:
    """One step of an image's making."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """What a config says. `raw` are its bytes, `digest` (of them) is the image ID. Texts: "" where absent."""

    raw: bytes
    digest: Digest
    os: str
    architecture: str
    variant: str
    os_version: str
    created: str
    author: str
    diff_ids: tuple[Digest, ...]
    history: tuple[History, ...]
    parent: str = ""
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def platform(self) -> Platform:
        return Platform(self.os, self.architecture, self.variant, self.os_version)


class _History(msgspec.Struct, frozen=True):
    created: str | None = None
    created_by: str | None = None
    author: str | None = None
    comment: str | None = None
    empty_layer: bool | None = None


class _RootFS(msgspec.Struct, frozen=True):
    type: str | None = None
    diff_ids: list[str] | None = None


class _Runtime(msgspec.Struct, frozen=True):
    labels: dict[str, str] | None = msgspec.field(default=None, name="Labels")


class _Config(msgspec.Struct, frozen=True):
    architecture: str | None = None
    os: str | None = None
    variant: str | None = None
    os_version: str | None = msgspec.field(default=None, name="os.version")
    created: str | None = None
    author: str | None = None
    parent: str | None = None
    config: _Runtime | None = None
    rootfs: _RootFS | None = None
    history: list[_History] | None = None


def parse(raw: bytes, what: str, digest: Digest | None = None) -> Config:
    """A config from its exact bytes; BadInput in docker's words where it cannot be an image."""
    actual = Digest.of(raw, digest.algorithm if digest else "sha256")
    if digest is not None:
        digest.check(actual, what)
    value = strict_json(raw, MAX_DOCUMENT, what)
    if not isinstance(value, dict):
        raise BadInput("invalid image JSON, not an object", what=what)
    found = convert(_Config, value, what)
    if found.rootfs is None:
        raise BadInput("invalid image JSON, no RootFS key", what=what)
    if found.rootfs.type not in (None, "", "layers"):
        raise BadInput(f"invalid image JSON, unknown rootfs type {found.rootfs.type[:80]!r}", what=what)
    diff_ids = tuple(_diff_id(text, i, what) for i, text in enumerate(found.rootfs.diff_ids or ()))
    history = tuple(
        History(
            each.created or "",
            each.created_by or "",
            each.author or "",
            each.comment or "",
            bool(each.empty_layer),
        )
        for each in found.history or ()
    )
    if sum(not each.empty_layer for each in history) > len(diff_ids):
        raise BadInput("too many non-empty layers in History section", what=what)
    return Config(
        raw,
        actual,
        found.os or "",
        found.architecture or "",
        found.variant or "",
        found.os_version or "",
        found.created or "",
        found.author or "",
        diff_ids,
        history,
        found.parent or "",
        (found.config.labels if found.config else None) or {},
    )


def check_os(config: Config, host_os: str, what: str) -> None:
    """Refuse what cannot run here: `cannot load windows image on linux`. An image that names no OS passes."""
    if config.os and config.os.lower() != host_os:
        raise BadInput(f"cannot load {config.os[:80]} image on {host_os}", what=what)


def check_layers(config: Config, layers: int, what: str) -> None:
    """A manifest that lists `layers` layers must match the config's diffIDs in number."""
    if layers != len(config.diff_ids):
        raise BadInput(
            f"invalid manifest, layers length mismatch: expected {layers}, got {len(config.diff_ids)}",
            what=what,
        )


def _diff_id(text: str, i: int, what: str) -> Digest:
    try:
        return Digest.parse(text)
    except InvalidReference:
        raise BadInput(f"invalid image JSON, invalid diffID {text[:160]!r} of layer {i}", what=what) from None
