"""Go's text/template for --format, as far as docker's users use it: fields, pipes, `if`, `range`, `with`, variables,
comparisons, `printf`, and docker's own functions (`json`, `join`, `split`, `lower`,
`upper`, `title`, `pad`, `truncate`).

Values are Python's; a mapping is a struct, whose fields are known (another is an error), unless it is a GoMap, in which
another key is no value. `None` is Go's nil pointer. What a template may cost is bounded: steps, and characters made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..errors import LimitExceeded, UsageError
from .go_values import MISSING, GoMap, Nil, family, length, quoted, sprintf, text_of, true
from .template_syntax import Branch, Jump, Node, Nodes, Operand, Pipe, parse

#: Operands evaluated by one rendering, and characters of one value or of the whole.
MAX_STEPS, MAX_TEXT = 1_000_000, 16 << 20


class Template:
    """A parsed template. `render(row)` gives its text for a mapping of field names to values."""

    def __init__(self, source: str, *, header: bool = False, escapes: bool = True) -> None:
        """UsageError where `source` does not parse. `header`: its row are titles, which functions leave as they are;
        `escapes`: `\\t` and `\\n` outside actions stand for tab and newline."""
        self._source = source
        self._functions = _FUNCTIONS | (_HEADER if header else {})
        self._nodes = parse(source, frozenset(self._functions), escapes=escapes)

    def check(self, row: Mapping[str, Any]) -> None:
        """UsageError where the template names a field that `row` has not; of what lies in fields nothing is known."""
        run = _Run(self._source, self._functions, row)
        for operand in _of_the_row(self._nodes, True):
            run.field(row, operand.fields[0], operand)

    def render(self, row: Mapping[str, Any]) -> str:
        """UsageError where a field does not exist or a function does not fit, LimitExceeded where it costs too much."""
        return _Run(self._source, self._functions, row).text(self._nodes)


class Fault(Exception):
    """What a function cannot do with its arguments; the caller adds where."""


class _Run:
    def __init__(self, source: str, functions: Mapping[str, _Function], row: Any) -> None:
        self._source = source
        self._functions = functions
        self._variables: list[tuple[str, Any]] = [("$", row)]
        self._row = row
        self._parts: list[str] = []
        self._size = 0
        self._steps = 0

    def text(self, nodes: Nodes) -> str:
        self._walk(nodes, self._row)
        return "".join(self._parts)

    # -- nodes

    def _walk(self, nodes: Iterable[Node], dot: Any) -> str | None:
        """Run nodes; break or continue, where one was met."""
        for node in nodes:
            if isinstance(node, Pipe):
                value = self._pipe(node, dot)
                if not node.names:
                    self._emit(text_of(value))
            elif isinstance(node, str):
                self._emit(node)
            elif isinstance(node, Jump):
                return node.kind
            else:
                known = len(self._variables)
                jump = self._branch(node, dot)
                del self._variables[known:]
                if jump:
                    return jump
        return None

    def _branch(self, node: Branch, dot: Any) -> str | None:
        value = self._pipe(node.pipe, dot)
        if node.kind != "range":
            if true(value):
                return self._walk(node.body, value if node.kind == "with" else dot)
            return self._walk(node.otherwise, dot)
        names, known, empty = node.pipe.names, len(self._variables), True
        for key, element in self._each(value, node.pipe):
            empty = False
            self._step()
            if node.pipe.declares:
                given = (element,) if len(names) == 1 else (key, element)
                self._variables[known - len(names) :] = zip(names, given, strict=True)
            elif names:
                for name, each in zip(names, (element,) if len(names) == 1 else (key, element), strict=True):
                    self._assign(name, each)
            jump = self._walk(node.body, element)
            del self._variables[known:]
            if jump == "break":
                break
        return self._walk(node.otherwise, dot) if empty else None

    def _each(self, value: Any, pipe: Pipe) -> Iterator[tuple[Any, Any]]:
        if isinstance(value, Mapping):
            return iter(sorted(value.items()))
        if isinstance(value, list | tuple):
            return iter(enumerate(value))
        if isinstance(value, int) and not isinstance(value, bool):
            return iter((i, i) for i in range(value))
        if value is None or value is MISSING or isinstance(value, Nil):
            return iter(())
        last = pipe.commands[-1][0]
        raise self._error(f"range can't iterate over {text_of(value)[:200]}", last)

    def _emit(self, text: str) -> None:
        self._size += len(text)
        self._step()
        if self._size > MAX_TEXT:
            raise LimitExceeded(f"the template makes more than {MAX_TEXT} characters")
        self._parts.append(text)

    def _step(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise LimitExceeded(f"the template takes more than {MAX_STEPS} steps")

    def _assign(self, name: str, value: Any) -> None:
        for i in range(len(self._variables) - 1, -1, -1):
            if self._variables[i][0] == name:
                self._variables[i] = (name, value)
                return

    # -- values

    def _pipe(self, pipe: Pipe, dot: Any) -> Any:
        piped: tuple[Any, ...] = ()
        for command in pipe.commands:
            piped = (self._command(command, dot, piped),)
        value = piped[0]
        if pipe.declares:
            self._variables += [(name, value) for name in pipe.names]
        else:
            for name in pipe.names:
                self._assign(name, value)
        return value

    def _command(self, command: Sequence[Operand], dot: Any, piped: tuple[Any, ...]) -> Any:
        head, *rest = command
        if head.kind == "call" and not head.fields:
            return self._call(head, (self._lazy(each, dot) for each in rest), len(rest), piped)
        if rest or piped:
            raise self._error(f"can't give argument to non-function {head.text}", head)
        return self._value(head, dot)

    def _lazy(self, operand: Operand, dot: Any) -> Callable[[], Any]:
        return lambda: self._value(operand, dot)

    def _value(self, operand: Operand, dot: Any) -> Any:
        self._step()
        match operand.kind:
            case "literal":
                return operand.value
            case "dot":
                value = dot
            case "variable":
                value = next(each for name, each in reversed(self._variables) if name == operand.value)
            case "call":
                value = self._call(operand, iter(()), 0, ())
            case _:
                value = self._pipe(operand.value, dot)
        for name in operand.fields:
            value = self.field(value, name, operand)
        return value

    def field(self, value: Any, name: str, operand: Operand) -> Any:
        if not isinstance(value, Mapping):
            if value is None:
                raise self._error(f"nil pointer evaluating {operand.text}", operand)
            if isinstance(value, Nil) and value.kind == "map":
                return MISSING
            raise self._error(f"can't evaluate field {name} in type {family(value)}", operand)
        if name in value:
            return value[name]
        if isinstance(value, GoMap):
            return MISSING
        plain = name.replace("_", "").lower()
        for key in value:
            if str(key).replace("_", "").lower() == plain:
                return value[key]  # `StoredBytes` also finds `stored_bytes`
        raise self._error(f"can't evaluate field {name}", operand, hint=f"fields: {', '.join(map(str, value))}")

    def _call(self, head: Operand, arguments: Iterator[Callable[[], Any]], count: int, piped: tuple[Any, ...]) -> Any:
        name, (least, most, function) = head.value, self._functions[head.value]
        count += len(piped)
        if count < least or (most is not None and count > most):
            wanted = str(least) if most == least else f"at least {least}"
            raise self._error(f"wrong number of args for {name}: want {wanted} got {count}", head)
        if name in ("and", "or"):
            value: Any = None
            for lazy in (*arguments, *((lambda given=given: given) for given in piped)):
                value = lazy()
                if true(value) == (name == "or"):
                    break
            return value
        values = [*(lazy() for lazy in arguments), *piped]
        try:
            value = function(*values)
        except Fault as fault:
            raise self._error(f"error calling {name}: {fault}", head) from None
        except (TypeError, ValueError, LookupError, AttributeError):
            raise self._error(f"wrong type of argument for {name}", head) from None
        if isinstance(value, str) and len(value) > MAX_TEXT:
            raise LimitExceeded(f"the template makes more than {MAX_TEXT} characters")
        return value

    def _error(self, problem: str, operand: Operand, hint: str | None = None) -> UsageError:
        before = self._source[: operand.at]
        line, column = before.count("\n") + 1, len(before.rpartition("\n")[2].encode("utf-8", "replace"))
        text = operand.text if len(operand.text) <= 20 else operand.text[:20] + "..."
        where = f'template: :{line}:{column}: executing "" at <{text}>'
        return UsageError(f"template parsing error: {where}: {problem}", hint=hint)


def _of_the_row(nodes: Iterable[Node], top: bool) -> Iterator[Operand]:
    """The operands that name a field of the row: `.Field` while dot is the row (`top`), `$.Field` anywhere."""
    for node in nodes:
        if isinstance(node, Pipe | Branch):
            yield from _in_pipe(node if isinstance(node, Pipe) else node.pipe, top)
        if isinstance(node, Branch):
            yield from _of_the_row(node.body, top and node.kind == "if")
            yield from _of_the_row(node.otherwise, top)


def _in_pipe(pipe: Pipe, top: bool) -> Iterator[Operand]:
    for operand in (each for command in pipe.commands for each in command):
        if operand.kind == "pipe":
            yield from _in_pipe(operand.value, top)
        elif operand.fields and ((operand.kind == "dot" and top) or operand.value == "$"):
            yield operand


# -- functions


def to_json(value: Any) -> str:
    """One line, as docker writes it: no spaces, keys in the order given."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=_plain)
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _plain(value: Any) -> Any:
    return None if value is MISSING or isinstance(value, Nil) else str(value)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, Nil) and value.kind == "map":
            value = ""
        elif isinstance(value, Mapping):
            if key in value:
                value = value[key]
            else:  # Go's zero value of what the map holds
                value = "" if all(isinstance(each, str) for each in value.values()) else MISSING
        elif isinstance(value, list | tuple | str | Nil):
            if not isinstance(key, int) or isinstance(key, bool):
                raise Fault(f"cannot index slice/array with type {family(key)}")
            sequence = value.encode() if isinstance(value, str) else () if isinstance(value, Nil) else value
            if not 0 <= key < len(sequence):
                raise Fault(f"index out of range: {key}")
            value = sequence[key]
        elif value is None or value is MISSING:
            raise Fault("index of untyped nil" if value is MISSING else "index of nil pointer")
        else:
            raise Fault(f"can't index item of type {family(value)}")
    return value


def _slice(value: Any, *bounds: Any) -> Any:
    if not isinstance(value, str | list | tuple):
        raise Fault(f"can't slice item of type {family(value)}")
    whole = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    given = [*bounds, *(0, len(whole))[len(bounds) :]]
    for bound in given:
        if not isinstance(bound, int) or isinstance(bound, bool):
            raise Fault(f"cannot index slice/array with type {family(bound)}")
        if not 0 <= bound <= len(whole):
            raise Fault(f"index out of range: {bound}")
    if given[0] > given[1]:
        raise Fault(f"invalid slice index: {given[0]} > {given[1]}")
    part = whole[given[0] : given[1]]
    return part.decode("utf-8", "replace") if isinstance(part, bytes) else part


def _len(value: Any) -> int:
    count = length(value)
    if count is None:
        raise Fault(f"len of type {family(value)}")
    return count


def _equal(first: Any, *others: Any) -> bool:
    return any(_same(first, other) for other in others)


def _same(one: Any, other: Any) -> bool:
    kinds = family(one), family(other)
    nil = [each is None or each is MISSING or isinstance(each, Nil) for each in (one, other)]
    if any(nil):
        return all(nil)
    if kinds[0] != kinds[1]:
        raise Fault("incompatible types for comparison")
    if kinds[0] not in ("string", "int", "float64", "bool"):
        raise Fault(f"non-comparable type {quoted(text_of(one)[:80])}: {kinds[0]}")
    return bool(one == other)


def _less(one: Any, other: Any) -> bool:
    kinds = family(one), family(other)
    if any(kind not in ("string", "int", "float64") for kind in kinds):
        raise Fault("invalid type for comparison")
    if kinds[0] != kinds[1]:
        raise Fault("incompatible types for comparison")
    return bool(one < other)


def _title(text: Any) -> str:
    made, before = [], " "
    for each in text_of(text):
        word = before.isalnum() or before == "_" or (ord(before) > 127 and not before.isspace())
        made.append(each if word else each.upper())
        before = each
    return "".join(made)


def _pad(text: Any, before: int, after: int) -> str:
    shown = text_of(text)
    if max(before, after) > MAX_TEXT:
        raise Fault("too wide")
    return " " * before + shown + " " * after if shown else shown


def _split(text: str, by: str) -> list[str]:
    return text.split(by) if by else list(text)


def _join(parts: Any, by: str) -> str:
    if isinstance(parts, Nil):
        return ""
    if not isinstance(parts, list | tuple):
        raise Fault(f"expected a list, got {family(parts)}")
    return _joined(list(map(text_of, parts)), by)


def _joined(parts: Sequence[str], by: str) -> str:
    """`by.join(parts)`, unless that would be too long."""
    if sum(map(len, parts)) + len(by) * len(parts) > MAX_TEXT:
        raise LimitExceeded(f"the template makes more than {MAX_TEXT} characters")
    return by.join(parts)


def _truncate(text: Any, count: int) -> str:
    if count < 0:
        raise Fault(f"length {count} is negative")
    return text_of(text)[:count]


def _print(*values: Any) -> str:
    """Go's Sprint: spaces between operands where neither is a string."""
    parts = []
    for i, value in enumerate(values):
        if i and not isinstance(value, str) and not isinstance(values[i - 1], str):
            parts.append(" ")
        parts.append(text_of(value, inside=True))
    return _joined(parts, "")


_Function = tuple[int, int | None, Callable[..., Any]]

#: Name → (fewest arguments, most or None, function).
_FUNCTIONS: dict[str, _Function] = {
    "json": (1, 1, to_json),
    "lower": (1, 1, lambda text: text_of(text).lower()),
    "upper": (1, 1, lambda text: text_of(text).upper()),
    "title": (1, 1, _title),
    "truncate": (2, 2, _truncate),
    "pad": (3, 3, _pad),
    "join": (2, 2, _join),
    "split": (2, 2, _split),
    "len": (1, 1, _len),
    "index": (1, None, _index),
    "slice": (1, 3, _slice),
    "print": (0, None, _print),
    "println": (0, None, lambda *parts: _joined([text_of(part, inside=True) for part in parts], " ") + "\n"),
    "printf": (1, None, sprintf),
    "not": (1, 1, lambda value: not true(value)),
    "and": (1, None, lambda *values: values),
    "or": (1, None, lambda *values: values),
    "eq": (2, None, _equal),
    "ne": (2, 2, lambda one, other: not _same(one, other)),
    "lt": (2, 2, _less),
    "le": (2, 2, lambda one, other: not _less(other, one)),
    "gt": (2, 2, lambda one, other: _less(other, one)),
    "ge": (2, 2, lambda one, other: not _less(one, other)),
}
#: In a table's header a title stays as it is.
_HEADER: dict[str, _Function] = {
    "json": (1, 1, lambda title: title),
    "lower": (1, 1, lambda title: title),
    "upper": (1, 1, lambda title: title),
    "title": (1, 1, lambda title: title),
    "truncate": (2, 2, lambda title, count: title),
    "slice": (1, 3, lambda title, *bounds: title),
}
