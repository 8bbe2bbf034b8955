"""Python values as Go sees and prints them: what `%v` makes of a list, a map or nil, what counts as true; and `printf`,
with the verbs and flags that mean something for text, numbers, lists and maps."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Widest field and most digits; Go refuses wider ones too.
MAX_WIDTH = 1_000_000

_VERB = re.compile(r"%([-+# 0]*)(\*|\d+)?(?:\.(\*|\d*))?(.)?", re.DOTALL)
_BASES = {"d": "d", "b": "b", "o": "o", "x": "x", "X": "X"}


class GoMap(dict[str, Any]):
    """A map, in which a key that is not there is no value; another mapping is a struct, with fields of known names."""


@dataclass(frozen=True, slots=True)
class Nil:
    """A nil list or map: empty in a template, null in JSON. `kind`: list or map."""

    kind: str


NIL_LIST, NIL_MAP = Nil("list"), Nil("map")


class _Missing:
    """What a map has under a key that is not there."""

    __slots__ = ()


MISSING = _Missing()


class Empty(dict[str, Any]):
    """Go's `struct{}`, the value in a set such as ExposedPorts."""


EMPTY = Empty()


def text_of(value: Any, *, inside: bool = False) -> str:
    """As `%v` prints it. `inside`: as an argument of print, or within another value, where no value is `<nil>`."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is MISSING:
        return "<nil>" if inside else "<no value>"
    if value is None:
        return "<nil>"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, Nil):
        return "[]" if value.kind == "list" else "map[]"
    if isinstance(value, Empty):
        return "{}"
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{text_of(value[key], inside=True)}" for key in sorted(value)) + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(text_of(each, inside=True) for each in value) + "]"
    return str(value)


def true(value: Any) -> bool:
    """Go's truth: zero, nil, and what has no elements are false; a struct is true."""
    if value is None or value is MISSING or isinstance(value, Nil):
        return False
    return isinstance(value, Empty) or bool(value)


def length(value: Any) -> int | None:
    """What `len` says (bytes, of a text); None where it has nothing to say."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogateescape"))
    if isinstance(value, Nil):
        return 0
    return len(value) if isinstance(value, Mapping | list | tuple) else None


def family(value: Any) -> str:
    """The name of a value's kind of type."""
    if value is None or value is MISSING:
        return "<nil>"
    for kind, name in ((bool, "bool"), (str, "string"), (int, "int"), (float, "float64"), (Mapping, "map")):
        if isinstance(value, kind):
            return name
    if isinstance(value, Nil):
        return value.kind
    return "slice" if isinstance(value, list | tuple) else type(value).__name__


def _float(value: float) -> str:
    """The shortest digits, with an exponent below 1e-4 and from 1e21 on."""
    if value != value or value in (float("inf"), float("-inf")):
        return {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}[str(value)]
    if value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    text = repr(value)
    return re.sub(r"e([+-])(\d)$", r"e\g<1>0\2", text)


# -- printf


def sprintf(form: str, *values: Any) -> str:
    """The text; what does not fit is told in it, as Go does: `%!d(string=hi)`, `%!s(MISSING)`, `%!(EXTRA int=1)`."""
    parts, at, given = [], 0, list(values)
    size = 0
    for found in _VERB.finditer(form):
        parts.append(form[at : found.start()])
        at = found.end()
        parts.append(_verb(found, given))
        size += len(parts[-1])
        if size > 64 * MAX_WIDTH:
            raise ValueError("too long")
    parts.append(form[at:])
    if given:
        told = ", ".join(f"{family(value)}={text_of(value, inside=True)}" for value in given)
        parts.append(f"%!(EXTRA {told})")
    return "".join(parts)


def quoted(text: str) -> str:
    """As `%q` prints it."""
    return json.dumps(text, ensure_ascii=False).replace("\\b", "\\b").replace("\x7f", "\\x7f")


def _verb(found: re.Match[str], given: list[Any]) -> str:
    flags, verb = found[1], found[4]
    width, precision = _number(found[2], given), _number(found[3], given)
    if isinstance(width, str) or isinstance(precision, str):
        return str(width if isinstance(width, str) else precision)
    if found[3] == "":
        precision = 0
    if width is not None and width < 0:
        flags, width = flags + "-", -width
    if verb is None:
        return "%!(NOVERB)"
    if verb == "%":
        return "%"
    if not given:
        return f"%!{verb}(MISSING)"
    return _shown(given.pop(0), verb, flags, width or 0, precision)


def _shown(value: Any, verb: str, flags: str, width: int, precision: int | None) -> str:
    """One value; of a list or map each element by itself, as Go does."""
    if verb != "T" and not isinstance(value, Empty | str):
        if isinstance(value, list | tuple):
            return "[" + " ".join(_shown(each, verb, flags, width, precision) for each in value) + "]"
        if isinstance(value, Mapping):
            pairs = ([_shown(each, verb, flags, width, precision) for each in pair] for pair in sorted(value.items()))
            return "map[" + " ".join(":".join(pair) for pair in pairs) + "]"
        if isinstance(value, Nil):
            return text_of(value)
    text = _formatted(value, verb, flags, precision)
    if text is None:
        shown = "<nil>" if value is None or value is MISSING else f"{family(value)}={text_of(value, inside=True)}"
        return f"%!{verb}({shown})"
    if "-" in flags:
        return text.ljust(width)
    if "0" in flags and not isinstance(value, str) and verb not in "sqT":
        sign = text[:1] if text[:1] in ("+", "-") else ""
        return sign + text[len(sign) :].rjust(width - len(sign), "0")
    return text.rjust(width)


def _number(text: str | None, given: list[Any]) -> int | str | None:
    """A width or precision; a text where it is a bad one."""
    if text == "*":
        value = given.pop(0) if given else None
        if not isinstance(value, int) or isinstance(value, bool) or abs(value) > MAX_WIDTH:
            return "%!(BADWIDTH)"
        return value
    if not text:
        return None
    return int(text) if len(text) < 8 and int(text) <= MAX_WIDTH else "%!(BADWIDTH)"


def _formatted(value: Any, verb: str, flags: str, precision: int | None) -> str | None:
    """The text before it is padded; None where the verb does not fit the value."""
    if verb == "T":
        return family(value)
    if verb == "v" and "#" not in flags:
        return _signed(text_of(value, inside=True), value, flags)
    if value is None or value is MISSING:
        return None
    if isinstance(value, Empty):
        return text_of(value)
    if isinstance(value, bool):
        return text_of(value) if verb in "tv" else None
    if isinstance(value, str):
        return _text(value, verb, flags, precision)
    if isinstance(value, int):
        return _integer(value, verb, flags)
    return _fraction(value, verb, flags, precision) if isinstance(value, float) else str(value)


def _text(value: str, verb: str, flags: str, precision: int | None) -> str | None:
    shown = value if precision is None else value[:precision]
    if verb == "s":
        return shown
    if verb == "q" or verb == "v":
        return f"`{shown}`" if verb == "q" and "#" in flags and "`" not in shown else quoted(shown)
    if verb in "xX":
        digits = shown.encode("utf-8", "surrogateescape").hex(*(" ",) if " " in flags else ())
        return digits.upper() if verb == "X" else digits
    return None


def _integer(value: int, verb: str, flags: str) -> str | None:
    if verb in ("c", "q", "U"):
        if verb == "U":
            return f"U+{value:04X}"
        one = chr(value) if 0 <= value < 0x110000 and not 0xD800 <= value < 0xE000 else "\ufffd"
        return one if verb == "c" else f"'{one}'"
    if verb == "v":
        return str(value)
    if verb not in _BASES:
        return None
    digits = format(abs(value), _BASES[verb])
    prefix = {"x": "0x", "X": "0X", "o": "0", "b": "0b"}.get(verb, "") if "#" in flags else ""
    return _signed(("-" if value < 0 else "") + prefix + digits, value, flags)


def _fraction(value: float, verb: str, flags: str, precision: int | None) -> str | None:
    if verb == "v" or (verb in "gG" and precision is None):
        return _signed(text_of(value), value, flags)
    if verb not in "eEfFgG":
        return None
    return _signed(format(value, f".{6 if precision is None else precision}{verb}"), value, flags)


def _signed(text: str, value: Any, flags: str) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or text[:1] in ("-", "+"):
        return text
    return ("+" if "+" in flags else " " if " " in flags else "") + text
