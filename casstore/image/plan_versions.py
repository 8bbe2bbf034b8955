"""Tags as versions: their order, and constraints such as `>=1.2, <2` or `^1.4 || ~2.0`.

Source: semver.org 2.0; the constraints of Masterminds/semver, which skopeo's `images-by-semver` is read by.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import BadInput

_NUMBER = r"(0|[1-9][0-9]{0,17})"
_REST = r"(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?"
_VERSION = re.compile(rf"v?{_NUMBER}(?:\.{_NUMBER})?(?:\.{_NUMBER})?{_REST}")
_PART = r"(?:0|[1-9][0-9]{0,17}|[xX*])"
_TERM = re.compile(rf"\s*(=<|=>|>=|<=|!=|~>|[=<>~^])?\s*v?({_PART}(?:\.{_PART})?(?:\.{_PART})?){_REST}\s*,?")
_RANGE = re.compile(r"(\S+)\s+-\s+(\S+)")
_MAX_TEXT = 1000


class Version(NamedTuple):
    """Three numbers, and a key by which what comes before the release sorts before it."""

    major: int
    minor: int
    patch: int
    pre: tuple[tuple[int, int, str], ...]


_RELEASED = ((2, 0, ""),)


def _pre(text: str | None) -> tuple[tuple[int, int, str], ...]:
    if not text:
        return _RELEASED
    parts = text.split(".")
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts)


def version(text: str) -> Version | None:
    """`1.2.3-rc.1+5`, `v1.2`, `1`; None for what is no version."""
    found = _VERSION.fullmatch(text)
    if found is None:
        return None
    return Version(int(found[1]), int(found[2] or 0), int(found[3] or 0), _pre(found[4]))


_DIGITS = re.compile(r"([0-9]+)")
_BEFORE = re.compile(r"(?:^|[-._])(?:alpha|beta|rc|pre|dev|snapshot|nightly)(?=$|[-._0-9])", re.IGNORECASE)


def order_of(tag: str) -> tuple[Any, ...]:
    """A key by which tags sort from the oldest version to the newest: numbers by their value, tags without one first,
    `1.2-rc1` before `1.2`, `1.2` before `1.2.1` and `1.2-alpine`."""
    plain = tag.removeprefix("v") if tag[:1] == "v" and tag[1:2].isdigit() else tag
    early = _BEFORE.search(plain)
    base, rest = (plain[: early.start()], plain[early.start() :]) if early else (plain, "")
    return bool(re.match("[0-9]", plain)), _pieces(base), not early, _pieces(rest), tag


def _pieces(text: str) -> tuple[tuple[int, int, str], ...]:
    parts = re.findall(r"[0-9]+|[^0-9.]+", text)
    return tuple((1, int(part[:40]), "") if part[0].isdecimal() else (0, 0, part) for part in parts)


@dataclass(frozen=True, slots=True)
class _Term:
    """One comparison: `operator` one of = != < <= > >=."""

    operator: str
    version: Version
    early: bool  # does it speak of a version before a release?
    places: int = 4  # how many of the version's are compared by !=

    def allows(self, one: Version) -> bool:
        if one.pre != _RELEASED and not self.early:
            return False
        match self.operator:
            case "=":
                return one == self.version
            case "!=":
                return one[: self.places] != self.version[: self.places]
            case "<":
                return one < self.version
            case "<=":
                return one <= self.version
            case ">":
                return one > self.version
        return one >= self.version


@dataclass(frozen=True, slots=True)
class Constraint:
    """Any of several lists of comparisons that must all hold. What comes before a release is allowed only by what
    speaks of such."""

    text: str
    any: tuple[tuple[_Term, ...], ...]

    def allows(self, tag: str) -> bool:
        """Is this tag a version, and one of those?"""
        one = version(tag)
        return one is not None and any(all(term.allows(one) for term in terms) for terms in self.any)


def constraint(text: str, what: str) -> Constraint:
    """`>=1.2.3, <2 || ~3.1`, `1.2 - 1.4`, `^1.2`, `1.x`. BadInput."""
    if len(text) > _MAX_TEXT:
        raise BadInput("the constraint is too long", what=what)
    return Constraint(text, tuple(_terms(part, text, what) for part in text.split("||")))


def _terms(part: str, whole: str, what: str) -> tuple[_Term, ...]:
    part = _RANGE.sub(r">=\1 <=\2", part).strip()
    found: list[_Term] = []
    at = 0
    while at < len(part):
        term = _TERM.match(part, at)
        if term is None or term.end() == at:
            break
        found += _expand(term[1] or "", term[2], term[3])
        at = term.end()
    if at < len(part) or not part:
        raise BadInput(f"not a constraint on versions: {whole[:200]!r}", what=what)
    return tuple(found)


def _expand(operator: str, numbers: str, pre: str | None) -> list[_Term]:
    """`~1.2`, `^1.2`, `1.x`, `<=1.2` as plain comparisons."""
    operator = {"=>": ">=", "=<": "<=", "~>": "~"}.get(operator, operator)
    given: list[int] = []
    for number in numbers.split("."):
        if not number.isdecimal():
            break
        given.append(int(number))
    wild = len(given) < len(numbers.split("."))
    early = bool(pre)
    full = [*given, 0, 0, 0][:3]
    low = Version(full[0], full[1], full[2], _pre(pre))

    def below(place: int) -> _Term:
        """Less than the next one at this place."""
        upper = [*full[:place], full[place] + 1, 0, 0][:3]
        return _Term("<", Version(upper[0], upper[1], upper[2], ()), early)

    least = _Term(">=", low, early)
    if not given:  # "*"
        return [_Term("<" if operator in ("<", ">", "!=") else ">=", Version(0, 0, 0, ()), False)]
    if operator == "^":
        place = next((at for at, number in enumerate(given) if number), len(given) - 1)
        return [least, below(place)]
    if operator == "~":
        return [least, below(min(1, len(given) - 1))]
    if len(given) < 3 and (wild or operator in ("", "=", "<=", ">", "!=")):
        if operator in ("", "="):
            return [least, below(len(given) - 1)]
        if operator == "<=":
            return [below(len(given) - 1)]
        if operator == ">":
            return [_Term(">=", below(len(given) - 1).version, early)]
        return [_Term("!=", low, early, len(given))]
    return [_Term(operator or "=", low, early)]
