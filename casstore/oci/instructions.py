"""Dockerfile text → instructions: lines, continuations, comments, flags, JSON or shell form. What an instruction means
is in changes.py.

Source: the Dockerfile reference; the errors are docker's.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from ..errors import BadInput
from .shellwords import words

_DIRECTIVE = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*")
_SPACE = re.compile(r"[\t\v\f\r ]+")
MAX_DOCUMENT = 4 << 20
"""Longest text, characters."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """`verb` in lower case; `flags` as written (`--interval=5s`); `rest`: what follows them. `line` counts from 1,
    `original` is the whole, its continuation lines joined."""

    verb: str
    flags: tuple[str, ...]
    rest: str
    line: int
    original: str
    escape: str = "\\"


def parse(text: str) -> list[Instruction]:
    """The instructions of `text`. BadInput where there is none: `file with no instructions`."""
    if len(text) > MAX_DOCUMENT:
        raise BadInput(f"more than {MAX_DOCUMENT} characters of instructions")
    lines = text.removeprefix("\ufeff").split("\n")
    escape = _escape_directive(lines)
    ends = re.compile(re.escape(escape) + r"[ \t\r]*$")
    found: list[Instruction] = []
    current, begin = "", 0
    for number, raw in enumerate(lines, 1):
        line = raw.rstrip("\r")
        if line.lstrip().startswith("#") or not line.strip():
            continue  # within a continuation too
        if not current:
            begin, line = number, line.lstrip()
        continued = ends.search(line)
        current += line[: continued.start()] if continued else line
        if not continued:
            found.append(instruction(current, begin, escape))
            current = ""
    if current.strip():
        found.append(instruction(current, begin, escape))
    if not found:
        raise BadInput("file with no instructions")
    return found


def instruction(text: str, line: int = 1, escape: str = "\\") -> Instruction:
    """One instruction, on one line."""
    verb, *more = _SPACE.split(text.strip(), maxsplit=1)
    flags, rest = _flags(more[0] if more else "")
    return Instruction(verb.lower(), flags, rest.strip(), line, text.strip(), escape)


def json_list(text: str) -> list[str] | None:
    """The strings of an array in JSON; None where it is not one, which is then a command for the shell."""
    if not text.startswith("["):
        return None
    try:
        value, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(each, str) for each in value):
        raise BadInput("when using JSON array syntax, arrays must be comprised of strings only")
    return list(value)


def pairs(given: Instruction) -> list[tuple[str, str]]:
    """The names and values of ENV or LABEL, quotes still in them: `a=1 b="two words"`, or the old `a all the rest`."""
    verb = given.verb.upper()
    found = words(given.rest, given.escape)
    if not found:
        raise BadInput(f"{verb} requires at least one argument")
    if "=" not in found[0]:
        name, *value = _SPACE.split(given.rest, maxsplit=1)
        if not value:
            raise BadInput(f"{verb} must have two arguments")
        return [(name, value[0])]
    split = []
    for word in found:
        name, equals, text = word.partition("=")
        if not equals:
            raise BadInput(f"Syntax error - can't find = in {_quoted(word)}. Must be of the form: name=value")
        if not name:
            raise BadInput(f"{verb} names can not be blank")
        split.append((name, text))
    return split


def options(given: Instruction, known: tuple[str, ...] = ()) -> dict[str, str]:
    """The values of `--name=value` flags. BadInput for one that is not `known`."""
    values: dict[str, str] = {}
    for flag in given.flags:
        name, equals, value = flag[2:].partition("=")
        if name not in known:
            raise BadInput(f"Unknown flag: {name}")
        if name in values:
            raise BadInput(f"Duplicate flag specified: {name}")
        if not equals:
            raise BadInput(f"Missing a value on flag: {name}")
        values[name] = value
    return values


def _escape_directive(lines: list[str]) -> str:
    """`# escape=` among the comments `# name=value` at the very top."""
    escape, seen = "\\", set()
    for line in lines:
        found = _DIRECTIVE.fullmatch(line.strip())
        if found is None:
            break
        name = found[1].lower()
        if name not in ("escape", "syntax", "check"):
            break
        if name in seen:
            raise BadInput(f"only one {name} parser directive can be used")
        seen.add(name)
        if name == "escape":
            if found[2] not in ("\\", "`"):
                problem = f"invalid escape token '{found[2][:20]}' does not match ` or \\"
                raise BadInput(problem)
            escape = found[2]
    return escape


def _flags(text: str) -> tuple[tuple[str, ...], str]:
    """Words that begin with `--`, their quotes taken away, and what follows them."""
    flags = []
    rest = text.lstrip()
    while rest.startswith("--"):
        found = re.match(
            r"""(?:"(?:\\.|[^"\\])*(?:"|\\?$)|'(?:\\.|[^'\\])*(?:'|\\?$)|\\.|[^\s"'\\]|\\$)+""", rest, re.S
        )
        word = found[0] if found else rest
        rest = rest[len(word) :].lstrip()
        if word == "--":
            break
        flags.append(re.sub(r"""\\(.)|["'\\]""", lambda each: each[1] or "", word, flags=re.S))
    return tuple(flags), rest


def _quoted(word: str) -> str:
    return json.dumps(word, ensure_ascii=False)
