"""IDs that are derived, never stored: chainIDs, and the v1 IDs by which archives of old engines name layers.

Source: OCI image-spec config.md ("Layer ChainID"); BEHAVIOUR of docker's save for v1 IDs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..digest import Digest
from .document import encode

_V1_KEYS = (
    "id",
    "parent",
    "comment",
    "created",
    "container",
    "container_config",
    "docker_version",
    "author",
    "config",
    "architecture",
    "variant",
    "os",
    "Size",
)
"""The keys of a v1 layer JSON, in docker's order."""

_EMPTY_RUNTIME: dict[str, Any] = {
    "Hostname": "",
    "Domainname": "",
    "User": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Env": None,
    "Cmd": None,
    "Image": "",
    "Volumes": None,
    "WorkingDir": "",
    "Entrypoint": None,
    "OnBuild": None,
    "Labels": None,
}


def chain_ids(diff_ids: Sequence[Digest]) -> list[Digest]:
    """The chainID of every layer, bottom first."""
    chain: list[Digest] = []
    for diff_id in diff_ids:
        chain.append(Digest.of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return chain


def v1_layers(config: dict[str, Any], diff_ids: Sequence[Digest]) -> list[tuple[str, bytes]]:
    """(v1 ID, v1 JSON) of every layer, bottom first; `config` is the parsed image config.

    Lower layers get the JSON of an empty step; the top one carries the image's own fields. The IDs are
    docker's own wherever docker wrote the config.
    """
    made: list[tuple[str, bytes]] = []
    parent = ""
    for i, chain in enumerate(chain_ids(diff_ids)):
        step: dict[str, Any] = {"created": "1970-01-01T00:00:00Z", "container_config": _EMPTY_RUNTIME}
        if i == len(diff_ids) - 1:
            step |= {key: config[key] for key in _V1_KEYS[2:-2] if config.get(key) not in (None, "", 0)}
        if config.get("os") and i == len(diff_ids) - 1:
            step["os"] = config["os"]
        named = step | {"layer_id": str(chain)} | ({"parent": f"sha256:{parent}"} if parent else {})
        v1_id = Digest.of(_go(dict(sorted(named.items())))).hex
        full = step | {"id": v1_id} | ({"parent": parent} if parent else {})
        if config.get("os"):
            full["os"] = config["os"]
        made.append((v1_id, _go({key: full[key] for key in _V1_KEYS if key in full})))
        parent = v1_id
    return made


def _go(value: Any) -> bytes:
    """JSON as Go's encoder writes it: `<`, `>`, `&` and the two line separators escaped."""
    text = encode(value)
    for character, escape in (
        (b"<", rb"\u003c"),
        (b">", rb"\u003e"),
        (b"&", rb"\u0026"),
        ("\u2028".encode(), rb"\u2028"),
        ("\u2029".encode(), rb"\u2029"),
    ):
        text = text.replace(character, escape)
    return text
