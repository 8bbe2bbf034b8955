"""Files that say what a mirror is to hold, in a TOML of our own.

[[image]]
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
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import BadInput, CasstoreError, LimitExceeded
from ..flow.source import name_of, open_input
from ..oci import platform as oci_platform
from ..oci import reference
from ..oci.reference import Reference
from .plan import Choice, Plan, Wanted, include

MAX_FILE = 4 << 20
"""Bytes of a plan."""
MAX_PATTERN = 1000
"""Characters of a glob or an expression."""


def read(path: str | Path | int) -> str:
    """The text of a plan's file. NotFound, BadInput."""
    what = name_of(path)
    try:
        with open_input(path) as file:
            raw = file.read(MAX_FILE + 1)
    except OSError as error:
        raise BadInput(error.strerror or "cannot be read", what=what) from None
    if len(raw) > MAX_FILE:
        raise LimitExceeded(f"a plan larger than {MAX_FILE} bytes", what=what)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput("not UTF-8", what=what, offset=error.start) from None


def check(plan: Plan, what: str) -> Plan:
    """BadInput for a plan of nothing."""
    if not plan.wanted:
        raise BadInput("it names no images", what=what)
    return plan


def known(table: Mapping[str, object], keys: tuple[str, ...], what: str) -> None:
    """BadInput for any other key."""
    for key in table:
        if key not in keys:
            raise BadInput(f"unknown key {key[:80]!r}", what=what, hint="known are " + ", ".join(keys))


@contextlib.contextmanager
def at(what: str) -> Iterator[None]:
    """Errors of what is inside say where it stands."""
    try:
        yield
    except CasstoreError as error:
        raise BadInput(error.message, what=what) from None


_KEYS = ("source", "include", "exclude", "newest", "order", "since", "platform", "target")


def from_toml(text: str, what: str) -> Plan:
    """Our own form. Unknown keys are refused."""
    try:
        value = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise BadInput(f"not TOML: {why[:300]}", what=what) from None
    known(value, ("image",), what)
    tables = value.get("image", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise BadInput("image is not a list of tables: write [[image]]", what=what)
    return check(Plan(tuple(_of_table(table, f"{what}: image {no}") for no, table in enumerate(tables, 1))), what)


def _of_table(table: dict[str, Any], what: str) -> Wanted:
    known(table, _KEYS, what)
    source = _typed(table, "source", str, what)
    if source is None:
        raise BadInput("it has no source", what=what)
    with at(what):
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
    if not isinstance(found, list) or not all(isinstance(one, str) and len(one) <= MAX_PATTERN for one in found):
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
    with at(what):
        return str(oci_platform.parse(text)) if text else ""


def _target(text: str | None, what: str) -> str:
    if not text:
        return ""
    with at(what):
        found = reference.parse(f"localhost/{text}")
    if found.tag or found.digest:
        raise BadInput("target is the path of a repository, without tag or digest", what=what)
    return found.path
