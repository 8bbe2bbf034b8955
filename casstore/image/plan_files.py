"""Files that say what a mirror is to hold: skopeo-sync's YAML, and a TOML of our own.

registry.example.com:                   # YAML: skopeo-sync(1)
  images:
    busybox: []                         # all tags
    redis: ["1.0", "sha256:…"]
  images-by-tag-regex: {nginx: ^1\\.13}
  images-by-semver: {postgres: ">=15, <17"}
  credentials: {username: john, password: secret}
  tls-verify: true
  cert-dir: /home/john/certs

[[image]]                               # TOML
source = "registry.example.com/team/app"
include = ["v1.*", "v2.*"]              # globs; all tags, if there are none
exclude = ["*-rc*"]
newest = 5                              # so many versions
order = "version"                       # or "created"
since = 2026-01-01                      # by when the image was made
platform = "linux/amd64"                # of an index; all of it, if not given
target = "mirror/app"                   # path at the registry that it goes to; if not given, its own
"""

from __future__ import annotations

import contextlib
import datetime
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from ..digest import Digest
from ..errors import BadInput, CasstoreError, InvalidReference, LimitExceeded
from ..flow.source import open_input
from ..oci import platform as oci_platform
from ..oci import reference
from ..oci.reference import Reference
from ..transport.credentials import Credential
from .plan import DEFAULT, Access, Choice, Plan, Wanted, include
from .plan_versions import constraint

MAX_FILE = 4 << 20
"""Bytes of a plan."""
MAX_DEPTH, MAX_NODES = 16, 500_000
"""How deep it may be nested, and how many values it may have, aliases counted as what they stand for."""
_MAX_PATTERN = 1000

Node: TypeAlias = "str | list[Node] | dict[str, Node] | None"


def read(path: str | Path | int, name: str = "") -> Plan:
    """A plan's file: TOML where its name ends so, else YAML. BadInput names what is wrong in it, and where."""
    what = name or str(path)
    try:
        with open_input(path) as file:
            raw = file.read(MAX_FILE + 1)
    except OSError as error:
        raise BadInput(error.strerror or "cannot be read", what=what) from None
    if len(raw) > MAX_FILE:
        raise LimitExceeded(f"a plan larger than {MAX_FILE} bytes", what=what)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput("not UTF-8", what=what, offset=error.start) from None
    plan = from_toml(text, what) if what.endswith(".toml") else from_yaml(text, what)
    if not plan.wanted:
        raise BadInput("it names no images", what=what)
    return plan


def of_reference(text: str) -> Wanted:
    """`NAME:TAG` or `NAME@DIGEST`: that; `NAME`: all its tags."""
    name = reference.parse(text)
    ref = str(name.digest) if name.digest else name.tag
    return Wanted(Reference(name.domain, name.path), Choice(exact=(ref,) if ref else ()), where=text)


# -- TOML

_KEYS = ("source", "include", "exclude", "newest", "order", "since", "platform", "target")


def from_toml(text: str, what: str) -> Plan:
    """Our own form. Unknown keys are refused."""
    try:
        value = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise BadInput(f"not TOML: {why[:300]}", what=what) from None
    _known(value, ("image",), what)
    tables = value.get("image", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise BadInput("image is not a list of tables: write [[image]]", what=what)
    return Plan(tuple(_of_table(table, f"{what}: image {at}") for at, table in enumerate(tables, 1)))


def _of_table(table: dict[str, Any], what: str) -> Wanted:
    _known(table, _KEYS, what)
    source = _typed(table, "source", str, what)
    if source is None:
        raise BadInput("it has no source", what=what)
    with _at(what):
        name = reference.parse(source)
    if name.digest or (name.tag and table.keys() & {"include", "exclude", "newest", "since", "order"}):
        raise BadInput("source is a repository, its tags stand in include", what=what)
    globs = _texts(table, "include", what)
    exclude = _texts(table, "exclude", what)
    newest = _typed(table, "newest", int, what)
    if newest is not None and (isinstance(newest, bool) or newest < 1):
        raise BadInput("newest is not a number of tags", what=what)
    order = _typed(table, "order", str, what) or "version"
    if order not in ("version", "created"):
        raise BadInput(f"order is {order[:80]!r}, neither version nor created", what=what)
    since = _moment(table.get("since"), what)
    plain = newest is None and since is None and not exclude
    chosen: dict[str, Any] = {"exact": (name.tag,)} if name.tag else include(globs) if plain else {"include": globs}
    choice = Choice(**chosen, exclude=exclude, newest=newest, order=order, since=since)  # type: ignore[arg-type]
    return Wanted(
        Reference(name.domain, name.path),
        choice,
        platform=_platform(_typed(table, "platform", str, what), what),
        target=_target(_typed(table, "target", str, what), what),
        where=what,
    )


def _typed(table: Mapping[str, Any], key: str, kind: type[Any], what: str) -> Any:
    found = table.get(key)
    if found is not None and not isinstance(found, kind):
        raise BadInput(f"{key} is not {'a number' if kind is int else 'a text'}", what=what)
    return found


def _texts(table: Mapping[str, Any], key: str, what: str) -> tuple[str, ...]:
    found = table.get(key, [])
    found = [found] if isinstance(found, str) else found
    if not isinstance(found, list) or not all(isinstance(one, str) and len(one) <= _MAX_PATTERN for one in found):
        raise BadInput(f"{key} is not a list of texts", what=what)
    return tuple(found)


def _moment(value: object, what: str) -> datetime.datetime | None:
    if isinstance(value, str):
        try:
            moment = datetime.datetime.fromisoformat(value)
        except ValueError:
            raise BadInput(f"since is {value[:80]!r}, which is no date", what=what) from None
        return moment.replace(tzinfo=moment.tzinfo or datetime.UTC)
    if value is None:
        return None
    if isinstance(value, datetime.datetime):
        return value.replace(tzinfo=value.tzinfo or datetime.UTC)
    if isinstance(value, datetime.date):
        return datetime.datetime(value.year, value.month, value.day, tzinfo=datetime.UTC)
    raise BadInput("since is no date", what=what)


def _platform(text: str | None, what: str) -> str:
    with _at(what):
        return str(oci_platform.parse(text)) if text else ""


def _target(text: str | None, what: str) -> str:
    if not text:
        return ""
    with _at(what):
        found = reference.parse(f"localhost/{text}")
    if found.tag or found.digest:
        raise InvalidReference("target is the path of a repository, without tag or digest", what=what)
    return found.path


# -- YAML

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
        _known(body, _REGISTRY_KEYS, where)
        found += _of_registry(registry, body, where)
    return Plan(tuple(found))


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
            with _at(where):
                name = reference.parse(f"{registry}/{path}")
            if name.tag or name.digest:
                raise InvalidReference("a repository, without tag or digest", what=where)
            yield Wanted(name, make(node, where), access=access, where=where)


def _access(body: dict[str, Node], what: str) -> Access:
    credential = None
    said = body.get("credentials")
    if said is not None:
        if not isinstance(said, dict):
            raise BadInput("credentials is not a mapping", what=what)
        _known(said, ("username", "password"), f"{what}: credentials")
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
    with _at(what):
        for ref in refs:
            if ":" in ref:
                Digest.parse(ref)
            else:
                Reference("localhost", "x").with_tag(ref)
    return Choice(exact=tuple(dict.fromkeys(refs)))


def _by_pattern(node: Node, what: str) -> Choice:
    if not isinstance(node, str) or len(node) > _MAX_PATTERN:
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
    import yaml  # who has no such file need not wait for it

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
                empty = event.style is None and event.value in ("", "~", "null", "Null", "NULL")
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


# -- both


def _known(table: Mapping[str, object], keys: tuple[str, ...], what: str) -> None:
    for key in table:
        if key not in keys:
            raise BadInput(f"unknown key {key[:80]!r}", what=what, hint="known are " + ", ".join(keys))


@contextlib.contextmanager
def _at(what: str) -> Iterator[None]:
    """Errors of what is inside say where it stands."""
    try:
        yield
    except CasstoreError as error:
        raise BadInput(error.message, what=what) from None
