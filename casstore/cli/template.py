"""Go-like templates for --format: `{{.Field}}`, `{{json .}}`, pipes, a few functions. No control flow.

An action is call {"|" call}; a call is term {term}; a term is `.`, `.Field.Sub`, "text", number, function.
The value of one call is the last argument of the next, as in Go. `{{-` and `-}}` trim the white space beside
them; `\\t` and `\\n` outside actions stand for tab and newline, as in docker.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import UsageError

_TOKEN = re.compile(
    r"""\s*(?:(?P<field>\.(?:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)?)
          |(?P<text>"(?:[^"\\]|\\.)*"|`[^`]*`)
          |(?P<number>-?\d+)
          |(?P<name>[A-Za-z_]\w*)
          |(?P<pipe>\|))""",
    re.VERBOSE,
)

Term = tuple[str, Any]


class Template:
    """A parsed template. `render(row)` gives its text for a mapping of field names to values."""

    def __init__(self, source: str) -> None:
        """UsageError where `source` does not parse."""
        self._parts: list[str | list[list[Term]]] = []
        rest, trim = source, False
        while rest:
            literal, opened, after = rest.partition("{{")
            if trim:
                literal = literal.lstrip()
            trim = False
            if opened and after.startswith("- "):
                literal, after = literal.rstrip(), after[2:]
            if literal:
                self._parts.append(literal.replace("\\t", "\t").replace("\\n", "\n"))
            if not opened:
                break
            action, rest = _split_action(after)
            if action.endswith(" -"):
                action, trim = action[:-2], True
            if not action.strip().startswith("/*"):
                self._parts.append(_parse(action))

    def render(self, row: Mapping[str, Any]) -> str:
        """UsageError where a field or function does not exist or does not fit."""
        return "".join(part if isinstance(part, str) else _text(_run(part, row)) for part in self._parts)


def _split_action(after: str) -> tuple[str, str]:
    """Text behind `{{` → (the action, what follows its `}}`); braces inside quotes do not count."""
    found = re.match(r'((?:[^"`}]|"(?:[^"\\]|\\.)*"|`[^`]*`|}(?!}))*)}}', after, re.DOTALL)
    if not found:
        raise UsageError("template parsing error: unclosed action")
    return found[1], after[found.end() :]


def _parse(action: str) -> list[list[Term]]:
    calls: list[list[Term]] = [[]]
    at = 0
    body = action.rstrip()
    while at < len(body):
        found = _TOKEN.match(body, at)
        if not found:
            raise UsageError(f"template parsing error: unexpected {body[at:].strip()[:20]!r}")
        at = found.end()
        kind = found.lastgroup
        if kind == "pipe":
            calls.append([])
        elif kind == "text":
            raw = found["text"]
            calls[-1].append(("value", raw[1:-1] if raw[0] == "`" else json.loads(raw)))
        elif kind == "number":
            calls[-1].append(("value", int(found["number"])))
        elif kind == "field":
            calls[-1].append(("field", [name for name in found["field"].split(".") if name]))
        else:
            name = found["name"]
            if name not in _FUNCTIONS:
                raise UsageError(f'template parsing error: function "{name}" not defined')
            calls[-1].append(("name", name))
    if not all(calls):
        raise UsageError("template parsing error: missing value for command")
    return calls


def _run(calls: Sequence[Sequence[Term]], row: Mapping[str, Any]) -> Any:
    piped: list[Any] = []
    for call in calls:
        (kind, head), *rest = call
        arguments = [_value(term, row) for term in rest] + piped
        if kind == "name":
            value = _call(head, arguments)
        else:
            value = _value((kind, head), row)
            if arguments:
                raise UsageError("template: can't give argument to non-function")
        piped = [value]
    return piped[0]


def _call(name: str, arguments: Sequence[Any]) -> Any:
    try:
        return _FUNCTIONS[name](*arguments)
    except (TypeError, ValueError, LookupError, AttributeError):
        raise UsageError(f"template: wrong arguments for {name}") from None


def _value(term: Term, row: Mapping[str, Any]) -> Any:
    kind, content = term
    if kind == "name":
        return _call(content, [])
    if kind == "value":
        return content
    value: Any = row
    for name in content:
        if not isinstance(value, Mapping):
            raise UsageError(f"template: can't evaluate field {name}")
        value = _member(value, name)
    return value


def _member(value: Mapping[str, Any], name: str) -> Any:
    """A field by its name; `StoredBytes` also finds `stored_bytes`."""
    if name in value:
        return value[name]
    plain = name.replace("_", "").lower()
    for key in value:
        if key.replace("_", "").lower() == plain:
            return value[key]
    raise UsageError(f"template: can't evaluate field {name}", hint=f"fields: {', '.join(value)}")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "<nil>"
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{_text(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(map(_text, value)) + "]"
    return str(value)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        value = value.get(key, "") if isinstance(value, Mapping) else value[key]
    return value


def to_json(value: Any) -> str:
    """One line, as docker writes it: no spaces, keys in the order given."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": to_json,
    "lower": lambda text: _text(text).lower(),
    "upper": lambda text: _text(text).upper(),
    "title": lambda text: _text(text).title(),
    "truncate": lambda text, length: _text(text)[:length],
    "join": lambda parts, by: by.join(map(_text, parts)),
    "split": lambda text, by: text.split(by),
    "len": len,
    "index": _index,
    "println": lambda *parts: " ".join(map(_text, parts)) + "\n",
    "true": lambda: True,
    "false": lambda: False,
}
