"""IDs that are derived, never stored: chainIDs, and the v1 IDs by which archives of old engines name layers.

Source: OCI image-spec config.md ("Layer ChainID"); BEHAVIOUR of docker's save for v1 IDs.
"""

from __future__ import annotations

import re
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

_RUNTIME: dict[str, Any] = {
    "Hostname": "",
    "Domainname": "",
    "User": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "ExposedPorts": {},
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Env": None,
    "Cmd": None,
    "Healthcheck": None,
    "ArgsEscaped": False,
    "Image": "",
    "Volumes": None,
    "WorkingDir": "",
    "Entrypoint": None,
    "NetworkDisabled": False,
    "MacAddress": "",
    "OnBuild": None,
    "Labels": None,
    "StopSignal": "",
    "StopTimeout": None,
    "Shell": None,
}
"""The fields of a container's config in docker's order, and what they are where unsaid."""

_LEFT_OUT_WHEN_EMPTY = frozenset(
    {
        "ExposedPorts",
        "ArgsEscaped",
        "NetworkDisabled",
        "MacAddress",
        "StopSignal",
        "Shell",
    }
)
_LEFT_OUT_WHEN_ABSENT = frozenset({"Healthcheck", "StopTimeout"})
_SORTED_MAPS = frozenset({"ExposedPorts", "Volumes", "Labels"})
_NO_TIME = "0001-01-01T00:00:00Z"
_DROPPED = ("id", "parent", "Size", "parent_id", "layer_id", "throwaway")


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
        step: dict[str, Any] = {"created": "1970-01-01T00:00:00Z", "container_config": _runtime({})}
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


def config_from_v1(top: dict[str, Any], steps: Sequence[dict[str, Any]], diff_ids: Sequence[Digest]) -> bytes:
    """The image config that docker makes of v1 layer JSONs: `steps` from the bottom, the last of them `top`.

    JSON of engines before 1.8.3 is written anew field by field, later JSON is taken over as it is.
    """
    value = dict(top) if _version(top.get("docker_version")) >= (1, 8, 3) else _marshalled(top)
    for key in _DROPPED:
        value.pop(key, None)
    value["rootfs"] = {"type": "layers", "diff_ids": [str(diff_id) for diff_id in diff_ids]}
    value["history"] = [_history(step) for step in steps]
    return _go(dict(sorted(value.items())))


def _marshalled(value: dict[str, Any]) -> dict[str, Any]:
    """A v1 JSON with exactly the fields that docker's own type for it has."""
    found: dict[str, Any] = {key: value[key] for key in _V1_KEYS if value.get(key) not in (None, "", 0)}
    found["created"] = _time(value.get("created"))
    found["container_config"] = _runtime(value.get("container_config"))
    if isinstance(value.get("config"), dict):
        found["config"] = _runtime(value["config"])
    return found


def _runtime(value: Any) -> dict[str, Any]:
    given = value if isinstance(value, dict) else {}
    found: dict[str, Any] = {}
    for key, default in _RUNTIME.items():
        said = given.get(key, default)
        if (said is None and key in _LEFT_OUT_WHEN_ABSENT) or (not said and key in _LEFT_OUT_WHEN_EMPTY):
            continue
        if key in ("Cmd", "Entrypoint") and isinstance(said, str):
            said = [said]
        found[key] = dict(sorted(said.items())) if key in _SORTED_MAPS and isinstance(said, dict) else said
    return found


def _history(step: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"created": _time(step.get("created"))}
    runtime = step.get("container_config")
    command = runtime.get("Cmd") if isinstance(runtime, dict) else None
    words = [command] if isinstance(command, str) else command if isinstance(command, list) else []
    said = {
        "author": step.get("author"),
        "created_by": " ".join(str(word) for word in words),
        "comment": step.get("comment"),
    }
    return made | {key: text for key, text in said.items() if text}


def _time(text: Any) -> str:
    """RFC 3339 as Go writes it: no zeros at the end of a fraction."""
    if not isinstance(text, str) or not text:
        return _NO_TIME
    found = re.fullmatch(r"([^.]*)\.([0-9]++)(Z|[+-][0-9:]++)", text)
    if not found:
        return text
    fraction = found[2].rstrip("0")
    return found[1] + (f".{fraction}" if fraction else "") + found[3]


def _version(text: Any) -> tuple[int, ...]:
    """`1.10.3-dev` → (1, 10, 3)."""
    numbers = re.match(r"[0-9]{1,6}(?:\.[0-9]{1,6})*", text) if isinstance(text, str) else None
    return tuple(int(part) for part in numbers[0].split(".")) if numbers else ()


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
