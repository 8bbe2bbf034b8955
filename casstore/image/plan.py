"""What a mirror is to hold: repositories, and which of their tags."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Literal

from ..errors import Conflict
from ..oci import reference
from ..oci.reference import Reference
from ..transport.credentials import Credential
from .plan_versions import Constraint, order_of

_WILD = re.compile(r"[*?\[]")
_ABOUT = re.compile(r"sha(?:256|512)-[0-9a-f]{64,}(?:\..*)?")
"""Tags that say something about another image: signatures, and what stands in for the referrers API."""


@dataclass(frozen=True, slots=True)
class Access:
    """How a plan says that a registry is to be reached. `verify`: False for certificates that nobody vouches for, and
    plain http where there is no https; `certificates`: a folder with *.crt, and *.cert with *.key."""

    credential: Credential | None = None
    verify: bool = True
    certificates: Path | None = None


DEFAULT = Access()


@dataclass(frozen=True)
class Choice:
    """Which tags of a repository. `exact`: those and no others, tags or digests; else all that fit one of `include`
    (globs; none: all), `pattern` and `versions`, and none of `exclude`. Of these the `newest` so many, by `order`
    (numbers in tags, or when the images were made), made `since` then."""

    exact: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    pattern: re.Pattern[str] | None = None
    versions: Constraint | None = None
    newest: int | None = None
    order: Literal["version", "created"] = "version"
    since: datetime | None = None

    @cached_property
    def needs_list(self) -> bool:
        """Must the registry tell what tags there are?"""
        return not self.exact

    @property
    def needs_dates(self) -> bool:
        """Must it be known when an image was made?"""
        return self.since is not None or (self.newest is not None and self.order == "created")

    def fits(self, tag: str) -> bool:
        """May this tag be among them, by its name?"""
        if self.exact:
            return tag in self.exact
        if self.include and not any(fnmatch.fnmatchcase(tag, glob) for glob in self.include):
            return False
        if any(fnmatch.fnmatchcase(tag, glob) for glob in self.exclude):
            return False
        if self.pattern is not None and not self.pattern.search(tag):
            return False
        if self.versions is not None and not self.versions.allows(tag):
            return False
        return not (_ABOUT.fullmatch(tag) and (self.newest is not None or self.since is not None))

    def by_name(self, tags: Iterable[str]) -> list[str]:
        """Those that fit, newest first where that is to be known of their names; `newest` is applied where names are
        all that it needs."""
        found = [tag for tag in tags if self.fits(tag)]
        if self.newest is None or self.needs_dates:
            return found
        return sorted(found, key=order_of, reverse=True)[: self.newest]

    def by_date(self, dated: Sequence[tuple[str, datetime | None]]) -> list[str]:
        """Of tags and when their images were made (None: unknown, which counts as long ago), those that are chosen."""
        if self.since is not None:
            since = self.since
            dated = [(tag, made) for tag, made in dated if made is not None and made >= since]
        if self.newest is None:
            return [tag for tag, _ in dated]
        if self.order == "version":
            return sorted((tag for tag, _ in dated), key=order_of, reverse=True)[: self.newest]
        known = sorted(((made, tag) for tag, made in dated if made is not None), reverse=True)
        rest = sorted(tag for tag, made in dated if made is None)
        return [*(tag for _, tag in known), *rest][: self.newest]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is wanted of one repository. `platform`: of each index that image alone, "" for all of it; `target`: the
    repository's path at the registry that it goes to, "" for its own; `where`: what said so, for messages."""

    repository: Reference
    choice: Choice = field(default_factory=Choice)
    platform: str = ""
    target: str = ""
    access: Access = DEFAULT
    where: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a mirror is to hold."""

    wanted: tuple[Wanted, ...]

    def __add__(self, other: Plan) -> Plan:
        return Plan(self.wanted + other.wanted)


def of_reference(text: str) -> Wanted:
    """`NAME:TAG` or `NAME@DIGEST`: that; `NAME`: all its tags."""
    name = reference.parse(text)
    ref = str(name.digest) if name.digest else name.tag
    return Wanted(Reference(name.domain, name.path), Choice(exact=(ref,) if ref else ()), where=text)


def check_targets(plan: Plan) -> None:
    """Conflict where two repositories would become one."""
    taken: dict[str, Reference] = {}
    for one in plan.wanted:
        target = one.target or one.repository.path
        if taken.setdefault(target, one.repository) != one.repository:
            raise Conflict(
                f"both {taken[target].familiar_name} and {one.repository.familiar_name} would go to {target}",
                what=one.where or None,
                hint="give one of them a target",
            )


def include(globs: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Globs as arguments of a Choice: those without a wildcard are exact, if all are."""
    wild = not globs or any(_WILD.search(glob) for glob in globs)
    return {"include": tuple(globs)} if wild else {"exact": tuple(dict.fromkeys(globs))}
