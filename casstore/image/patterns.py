r"""Patterns over names, as in Go's path.Match: `*`, `?`, `[a-z]`, `[^x]`, `\x`; a star does not cross a slash."""

from __future__ import annotations

import re

from ..errors import InvalidReference


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """An expression to be used with `fullmatch`. InvalidReference where the pattern is malformed."""
    pieces = [""]
    at = 0
    while at < len(pattern):
        one = pattern[at]
        at += 1
        if one == "*":
            pieces.append("")
        elif one == "?":
            pieces[-1] += "[^/]"
        elif one == "[":
            made, at = _class(pattern, at)
            pieces[-1] += made
        else:
            if one == "\\":
                one, at = _literal(pattern, at - 1)
            pieces[-1] += re.escape(one)
    first, *more = pieces
    if not more:
        return re.compile(first, re.DOTALL)
    # As Go does it: what follows a star is taken where it is found first, so that no pattern takes long.
    middle = "".join(f"(?>[^/]*?{piece})" for piece in more[:-1])
    return re.compile(f"{first}{middle}[^/]*{more[-1]}", re.DOTALL)


def _class(pattern: str, at: int) -> tuple[str, int]:
    """What stands behind a `[` → (expression, where it ends)."""
    negated = pattern.startswith("^", at)
    at += negated
    ranges: list[str] = []
    while not (ranges and pattern.startswith("]", at)):
        low, at = _member(pattern, at)
        high = low
        if pattern.startswith("-", at):
            high, at = _member(pattern, at + 1)
        # Go has a range that is upside down match nothing.
        ranges.append(f"{re.escape(low)}-{re.escape(high)}" if low <= high else "")
    inside = "".join(ranges)
    if not inside:
        return "(?s:.)" if negated else "(?!)", at + 1
    return f"[{'^' if negated else ''}{inside}]", at + 1


def _member(pattern: str, at: int) -> tuple[str, int]:
    if at >= len(pattern) or pattern[at] in "-]":
        raise _malformed(pattern)
    return _literal(pattern, at)


def _literal(pattern: str, at: int) -> tuple[str, int]:
    """One character, a backslash before it taken away."""
    at += pattern.startswith("\\", at)
    if at >= len(pattern):
        raise _malformed(pattern)
    return pattern[at], at + 1


def _malformed(pattern: str) -> InvalidReference:
    return InvalidReference("syntax error in pattern", what=pattern)
