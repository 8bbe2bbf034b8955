"""Files that say what a mirror is to hold, as skopeo-sync(1) has them.

registry.example.com:
  images:
    busybox: []                         # all tags
    redis: ["1.0", "sha256:…"]
  images-by-tag-regex: {nginx: ^1\\.13}
  images-by-semver: {postgres: ">=15, <17"}
  credentials: {username: john, password: secret}
  tls-verify: true
  cert-dir: /home/john/certs
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from ..digest import Digest
from ..errors import BadInput, LimitExceeded
from ..oci import reference
from ..oci.reference import Reference
from ..transport.credentials import Credential
from .plan import DEFAULT, Access, Choice, Plan, Wanted
from .plan_files import MAX_PATTERN, at, check, known
from .plan_versions import constraint

MAX_DEPTH, MAX_NODES = 16, 500_000
"""How deep it may be nested, and how many values it may have, aliases counted as what they stand for."""

Node: TypeAlias = "str | list[Node] | dict[str, Node] | None"

_REGISTRY_KEYS = ("images", "images-by-tag-regex", "images-by-semver", "credentials", "tls-verify", "cert-dir")
_YES, _NO = ("true", "yes", "on"), ("false", "no", "off")


def from_yaml(text: str, what: str) -> Plan:
    """skopeo-sync's form. Unknown keys are refused."""
    value = _load(text, what)
    if not isinstance(value, dict):
        raise BadInput("not a mapping of registries", what=what)
    found: list[Wanted] = []
    for registry, body in value.items():
        where = f"{what}: {registry[:200]}"
        if not isinstance(body, dict):
            raise BadInput("not a mapping with images", what=where)
        known(body, _REGISTRY_KEYS, where)
        found += _of_registry(registry, body, where)
    return check(Plan(tuple(found)), what)


def _of_registry(registry: str, body: dict[str, Node], what: str) -> Iterator[Wanted]:
    access = _access(body, what)
    makers: dict[str, Callable[[Node, str], Choice]] = {
        "images": _by_list,
        "images-by-tag-regex": _by_pattern,
        "images-by-semver": _by_version,
    }
    for key, make in makers.items():
        images = body.get(key)
        if images is None:
            continue
        if not isinstance(images, dict):
            raise BadInput(f"{key} is not a mapping of repositories", what=what)
        for path, node in images.items():
            where = f"{what}: {key}: {path[:200]}"
            with at(where):
                name = reference.parse(f"{registry}/{path}")
            if name.tag or name.digest:
                raise BadInput("a repository, without tag or digest", what=where)
            yield Wanted(name, make(node, where), access=access, where=where)


def _access(body: dict[str, Node], what: str) -> Access:
    credential = None
    said = body.get("credentials")
    if said is not None:
        if not isinstance(said, dict):
            raise BadInput("credentials is not a mapping", what=what)
        known(said, ("username", "password"), f"{what}: credentials")
        name, secret = _text(said, "username", what), _text(said, "password", what)
        credential = Credential(name, secret) if name else None
    verify = _text(body, "tls-verify", what).lower() or "true"
    if verify not in _YES + _NO:
        raise BadInput("tls-verify is neither true nor false", what=what)
    folder = _text(body, "cert-dir", what)
    access = Access(credential, verify in _YES, Path(folder) if folder else None)
    return DEFAULT if access == DEFAULT else access


def _text(body: dict[str, Node], key: str, what: str) -> str:
    found = body.get(key)
    if found is not None and not isinstance(found, str):
        raise BadInput(f"{key} is not a text", what=what)
    return found or ""


def _by_list(node: Node, what: str) -> Choice:
    if node is None:
        return Choice()
    if not isinstance(node, list) or not all(isinstance(one, str) for one in node):
        raise BadInput("not a list of tags", what=what)
    refs = [str(one) for one in node]
    with at(what):
        for ref in refs:
            if ":" in ref:
                Digest.parse(ref)
            else:
                Reference("localhost", "x").with_tag(ref)
    return Choice(exact=tuple(dict.fromkeys(refs)))


def _by_pattern(node: Node, what: str) -> Choice:
    if not isinstance(node, str) or len(node) > MAX_PATTERN:
        raise BadInput("not a regular expression", what=what)
    try:
        return Choice(pattern=re.compile(node))
    except (re.error, RecursionError, OverflowError) as error:
        raise BadInput(f"not a regular expression: {error}", what=what) from None


def _by_version(node: Node, what: str) -> Choice:
    if not isinstance(node, str):
        raise BadInput("not a constraint on versions", what=what)
    return Choice(versions=constraint(node, what))


def _load(text: str, what: str) -> Node:
    """YAML → texts, lists and mappings, every scalar as it was written (`1.10` stays so). Nothing is constructed; what
    aliases stand for is shared, and counted."""
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _Builder(what).run(yaml.parse(text, Loader=loader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        why = getattr(error, "problem", None) or "it breaks off"
        raise BadInput(f"not YAML: {why}{where}", what=what) from None


class _Builder:
    """Values out of YAML's events, without recursion."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._count = 0

    def run(self, events: Any) -> Node:
        open_: list[tuple[list[Node] | dict[str, Node], str, int]] = []
        keys: list[str | None] = []
        result: Node = None
        documents = 0

        def add(node: Node, line: int) -> None:
            nonlocal result
            if not open_:
                result = node
                return
            into = open_[-1][0]
            if isinstance(into, list):
                into.append(node)
            elif keys[-1] is None:
                if not isinstance(node, str):
                    raise self._bad("a key that is no text", line)
                if node in into:
                    raise self._bad(f"the key {node[:80]!r} stands there twice", line)
                keys[-1] = node
            else:
                into[keys[-1]] = node
                keys[-1] = None

        for event in events:
            kind = type(event).__name__
            line = event.start_mark.line + 1
            if kind == "DocumentStartEvent":
                documents += 1
                if documents > 1:
                    raise self._bad("more than one document", line)
            elif kind == "AliasEvent":
                node, weight = self._anchors.get(event.anchor, (None, 0))
                if not weight:
                    raise self._bad(f"the alias {event.anchor[:80]!r} stands for nothing that is known", line)
                self._weigh(weight, line)
                add(node, line)
            elif kind == "ScalarEvent":
                self._weigh(1, line)
                empty = not event.style and event.value in ("", "~", "null", "Null", "NULL")
                scalar: Node = None if empty else event.value
                if event.anchor:
                    self._anchors[event.anchor] = scalar, 1
                add(scalar, line)
            elif kind in ("SequenceStartEvent", "MappingStartEvent"):
                self._weigh(1, line)
                if len(open_) >= MAX_DEPTH:
                    raise self._bad("nested too deeply", line)
                open_.append(([] if kind[0] == "S" else {}, event.anchor or "", self._count))
                keys.append(None)
            elif kind in ("SequenceEndEvent", "MappingEndEvent"):
                whole, anchor, before = open_.pop()
                keys.pop()
                if anchor:
                    self._anchors[anchor] = whole, self._count - before + 1
                add(whole, line)
        return result

    def _weigh(self, weight: int, line: int) -> None:
        self._count += weight
        if self._count > MAX_NODES:
            raise LimitExceeded(f"more than {MAX_NODES} values in line {line}", what=self._what)

    def _bad(self, why: str, line: int) -> BadInput:
        return BadInput(f"{why} in line {line}", what=self._what)
