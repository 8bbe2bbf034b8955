"""What docker's own types make of an image's JSON: which objects are maps, and what a field that is null or left out is
in a template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .go_values import EMPTY, NIL_LIST, NIL_MAP, GoMap

_SETS = frozenset({"ExposedPorts", "Volumes"})
_MAPS = _SETS | {"Labels", "Data", "Annotations"}
_LISTS = frozenset({"Cmd", "Entrypoint", "Env", "Layers", "OnBuild", "RepoDigests", "RepoTags", "Shell", "Test"})
_LEFT_OUT: dict[str, Any] = {
    "ExposedPorts": NIL_MAP,
    "Healthcheck": None,
    "ArgsEscaped": False,
    "NetworkDisabled": False,
    "MacAddress": "",
    "StopSignal": "",
    "StopTimeout": None,
    "Shell": NIL_LIST,
}
_LEFT_OUT_ABOVE = {"Variant": "", "OsVersion": ""}


def typed(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What `inspect` tells of an image, for a template: `.Config.Labels.nosuch` is no value, `.Config.Nosuch` an error;
    `.Config.Entrypoint` prints as `[]` where it is null, `.Config.Healthcheck` as `<nil>` where there is none."""
    value = {**_LEFT_OUT_ABOVE, **_fields(facts)}
    for name in ("Config", "ContainerConfig"):
        if isinstance(value.get(name), dict):
            value[name] = {**_LEFT_OUT, **value[name]}
    return value


def _fields(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _field(name, value) for name, value in facts.items()}


def _field(name: str, value: Any) -> Any:
    if value is None:
        return NIL_MAP if name in _MAPS else NIL_LIST if name in _LISTS else None
    if not isinstance(value, Mapping):
        return value
    if name in _MAPS:
        return GoMap({key: EMPTY if name in _SETS else value[key] for key in sorted(value)})
    return _fields(value)
