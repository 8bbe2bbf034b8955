"""`inspect`: what is known of an image, under docker's keys."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ..oci import config as oci_config
from ..oci.document import MAX_DOCUMENT, strict_json
from ..oci.reference import familiar_repository
from ..store.catalog import Tx
from ..store.volume import Volume
from .content import ask_image
from .resolve import Found, references

NEVER = "0001-01-01T00:00:00Z"
"""How docker writes a time that is not known."""

_OMITTED: Any = object()
_CONFIG: dict[str, Any] = {
    "Hostname": "",
    "Domainname": "",
    "User": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "ExposedPorts": _OMITTED,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Env": None,
    "Cmd": None,
    "Healthcheck": _OMITTED,
    "ArgsEscaped": _OMITTED,
    "Image": "",
    "Volumes": None,
    "WorkingDir": "",
    "Entrypoint": None,
    "NetworkDisabled": _OMITTED,
    "MacAddress": _OMITTED,
    "OnBuild": None,
    "Labels": None,
    "StopSignal": _OMITTED,
    "StopTimeout": _OMITTED,
    "Shell": _OMITTED,
}
"""The keys of a container's configuration in docker's order, and what they say where the image says nothing."""

_SORTED = ("ExposedPorts", "Volumes", "Labels")
"""Maps, whose keys docker sorts."""


def inspect(volume: Volume, text: str) -> dict[str, Any]:
    """One image. NotFound as `resolve`."""
    return ask_image(volume, text, _facts)


def _facts(tx: Tx, found: Found, raw: bytes) -> dict[str, Any]:
    image = found.image
    tags = references(tx, image.config)
    config = oci_config.parse(raw, str(image.config))
    value: dict[str, Any] = strict_json(raw, MAX_DOCUMENT, str(image.config))
    repositories = [familiar_repository(tag.repository) for tag in tags]
    result: dict[str, Any] = {
        "Id": str(image.config),
        "RepoTags": [f"{name}:{tag.tag}" for name, tag in zip(repositories, tags, strict=True)],
        "RepoDigests": sorted({f"{name}@{tag.target}" for name, tag in zip(repositories, tags, strict=True)}),
        "Parent": image.parent,
        "Comment": value.get("comment") or "",
        "Created": config.created or NEVER,
        "Container": value.get("container") or "",
        "ContainerConfig": _runtime(value.get("container_config") or {}),
        "DockerVersion": value.get("docker_version") or "",
        "Author": config.author,
        "Config": _runtime(value.get("config")),
        "Architecture": config.architecture,
        "Variant": config.variant or _OMITTED,
        "Os": config.os,
        "OsVersion": config.os_version or _OMITTED,
        "Size": image.size,
        "VirtualSize": image.size,
        "GraphDriver": {"Data": None, "Name": "casstore"},
        "RootFS": {"Type": "layers", "Layers": [str(one) for one in config.diff_ids]},
        "Metadata": {"LastTagTime": _time(max((tag.created for tag in tags), default=0.0))},
    }
    return {key: each for key, each in result.items() if each is not _OMITTED}


def _runtime(given: object) -> dict[str, Any] | None:
    """docker's keys, all of them; None where there is no configuration."""
    if not isinstance(given, Mapping):
        return None
    result = {key: given.get(key, missing) for key, missing in _CONFIG.items()}
    for key in _SORTED:
        if isinstance(result[key], Mapping):
            result[key] = dict(sorted(result[key].items()))
    return {
        key: each
        for key, each in result.items()
        if each is not _OMITTED and (each or _CONFIG[key] is not _OMITTED)
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z") if seconds else NEVER
