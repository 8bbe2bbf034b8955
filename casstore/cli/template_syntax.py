"""The grammar of Go's text/template: source → nodes, for template.py to run.

    list     := { text | action | branch | "{{break}}" | "{{continue}}" }
    branch   := "{{" ("if" | "range" | "with") pipeline "}}" list ["{{else}}" list | "{{else if …}}" …] "{{end}}"
    pipeline := [$name ["," $name] (":=" | "=")] command {"|" command}
    command  := operand {space operand}
    operand  := ("." | .Field | $name | "text" | `text` | 'c' | number | true | false | nil | function
                | "(" pipeline ")") {.Field}

`{{-` and `-}}` trim the white space beside them, `{{/* … */}}` is a comment. Named templates (define, template, block)
are not here. Source: the documentation of Go's text/template.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..errors import UsageError

#: How deep blocks and parentheses may nest.
MAX_DEPTH = 100

_SPACE = " \t\r\n"
_TOKEN = re.compile(
    r"""(?P<close>[ \t\r\n]+-}}|}})
      |(?P<space>[ \t\r\n]+)
      |(?P<declare>:=)|(?P<assign>=)|(?P<pipe>\|)|(?P<comma>,)|(?P<left>\()|(?P<right>\))
      |(?P<string>"(?:[^"\\\n]|\\.)*"|`[^`]*`)
      |(?P<char>'(?:[^'\\\n]|\\.)+')
      |(?P<number>[+-]?(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+
                  |(?:[0-9][0-9_]*(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?))
      |(?P<field>\.\w+)|(?P<dot>\.)|(?P<variable>\$\w*)|(?P<word>\w+)""",
    re.VERBOSE,
)
_ESCAPE = re.compile(
    r"\\(?:([abfnrtv\\'\"])|x([0-9a-fA-F]{2})|([0-7]{3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.S
)
_SIMPLE = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_KEYWORDS = frozenset({"if", "range", "with", "else", "end", "break", "continue", "define", "template", "block"})


@dataclass(frozen=True, slots=True)
class Operand:
    """A value to be: `kind` is literal (`value`), dot, variable (`value`: its name), call (`value`: the function's
    name) or pipe (`value`: a Pipe); `fields` are then looked up in it. `at`, `text`: where and what, for errors."""

    kind: str
    value: Any
    fields: tuple[str, ...]
    at: int
    text: str


@dataclass(frozen=True, slots=True)
class Pipe:
    """`commands`, the value of each the last argument of the next; `names` are the variables that it sets (`declares`)
    or changes."""

    commands: tuple[tuple[Operand, ...], ...]
    names: tuple[str, ...] = ()
    declares: bool = False


@dataclass(frozen=True, slots=True)
class Branch:
    """`kind`: if, with or range."""

    kind: str
    pipe: Pipe
    body: Nodes
    otherwise: Nodes


@dataclass(frozen=True, slots=True)
class Jump:
    """`kind`: break or continue."""

    kind: str


Node: TypeAlias = str | Pipe | Branch | Jump
Nodes: TypeAlias = tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class _Token:
    """`spaced`: white space stands before it."""

    kind: str
    text: str
    at: int
    spaced: bool = False


def parse(source: str, functions: Sequence[str] | frozenset[str], *, escapes: bool = True) -> Nodes:
    """The nodes of `source`, which may call `functions`. With `escapes`, `\\t` and `\\n` outside actions stand for tab
    and newline. UsageError in docker's words: `template parsing error: template: :1: unclosed action`."""
    return _Parser(source, frozenset(functions), escapes).parse()


class _Parser:
    def __init__(self, source: str, functions: frozenset[str], escapes: bool) -> None:
        self._source = source
        self._functions = functions
        self._tokens = list(self._lex(escapes))
        self._next = 0
        self._depth = 0
        self._loops = 0
        self._variables = ["$"]

    def parse(self) -> Nodes:
        nodes, end = self._list()
        if end is not None:
            raise self._error(f"unexpected {{{{{end.text}}}}}", end.at)
        return nodes

    def _error(self, problem: str, at: int) -> UsageError:
        line = self._source.count("\n", 0, at) + 1
        return UsageError(f"template parsing error: template: :{line}: {problem}")

    # -- the lexer

    def _lex(self, escapes: bool) -> list[_Token]:
        tokens: list[_Token] = []
        source, at, trim = self._source, 0, False
        while at < len(source):
            begin = source.find("{{", at)
            end = len(source) if begin < 0 else begin
            text = source[at:end]
            if escapes:
                text = text.replace("\\t", "\t").replace("\\n", "\n")
            if trim:
                text = text.lstrip(_SPACE)
            trim = False
            if begin >= 0:
                at = begin + 2
                if source[at : at + 1] == "-" and source[at + 1 : at + 2] in tuple(_SPACE):
                    text, at = text.rstrip(_SPACE), at + 2
            if text:
                tokens.append(_Token("text", text, end))
            if begin < 0:
                break
            if source.startswith("/*", at):
                at, trim = self._comment(at)
                continue
            at, trim = self._action(tokens, at)
        return tokens

    def _comment(self, at: int) -> tuple[int, bool]:
        end = self._source.find("*/", at + 2)
        if end < 0:
            raise self._error("unclosed comment", at)
        close = _TOKEN.match(self._source, end + 2)
        if close is None or close.lastgroup != "close":
            raise self._error("comment ends before closing delimiter", end)
        return close.end(), "-" in close[0]

    def _action(self, tokens: list[_Token], at: int) -> tuple[int, bool]:
        """Tokens up to `}}`, which is one too; → (what follows, whether it is to be trimmed)."""
        tokens.append(_Token("open", "{{", at - 2))
        spaced = False
        while True:
            found = _TOKEN.match(self._source, at)
            if found is None:
                raise self._unlexed(at)
            kind, text = found.lastgroup or "", found[0]
            if kind == "space":
                spaced, at = True, found.end()
                continue
            if kind == "number" and re.match(r"[\w.]", self._source[found.end() : found.end() + 1]):
                raise self._error(f"bad number syntax: {_quote(text + self._source[found.end()])}", at)
            tokens.append(_Token(kind, text, at, spaced))
            spaced, at = False, found.end()
            if kind == "close":
                return at, "-" in text

    def _unlexed(self, at: int) -> UsageError:
        rest = self._source[at : at + 1]
        problem = {
            "": "unclosed action",
            '"': "unterminated quoted string",
            "`": "unterminated raw quoted string",
            "'": "unterminated character constant",
        }.get(rest)
        return self._error(problem or f"unrecognized character in action: U+{ord(rest):04X} {rest!r}", at)

    # -- lists and branches

    def _list(self) -> tuple[Nodes, _Token | None]:
        """Nodes up to an `{{else…` or `{{end}}` (its word is taken), or to the end of the source (None)."""
        nodes: list[Node] = []
        while self._next < len(self._tokens):
            token = self._take()
            if token.kind == "text":
                nodes.append(token.text)
                continue
            word = self._peek()
            if word.kind != "word" or word.text not in _KEYWORDS:
                nodes.append(self._pipe("command"))
                self._take()
                continue
            self._take()
            if word.text in ("else", "end"):
                return tuple(nodes), word
            nodes.append(self._keyword(word))
        return tuple(nodes), None

    def _keyword(self, word: _Token) -> Node:
        if word.text in ("if", "range", "with"):
            return self._branch(word)
        if word.text in ("break", "continue"):
            if not self._loops:
                raise self._error(f"{{{{{word.text}}}}} outside {{{{range}}}}", word.at)
            self._expect_close(word.text)
            return Jump(word.text)
        raise self._error(f"{{{{{word.text}}}}} is not supported: named templates", word.at)

    def _branch(self, word: _Token) -> Branch:
        """From behind its word to behind its `{{end}}`."""
        self._deeper(word.at)
        known, loop = len(self._variables), word.text == "range"
        pipe = self._pipe(word.text)
        self._take()
        self._loops += loop
        body, end = self._list()
        self._loops -= loop
        otherwise: Nodes = ()
        if end is not None and end.text == "else":
            after = self._peek()
            if not loop and after.kind == "word" and after.text == word.text:  # else if, else with
                self._take()
                otherwise = (self._branch(after),)  # it takes the one {{end}} for both
                del self._variables[known:]
                self._depth -= 1
                return Branch(word.text, pipe, body, otherwise)
            self._expect_close("else")
            otherwise, end = self._list()
        if end is None:
            raise self._error("unexpected EOF", len(self._source))
        if end.text != "end":
            raise self._error("expected end; found {{else}}", end.at)
        self._expect_close("end")
        del self._variables[known:]
        self._depth -= 1
        return Branch(word.text, pipe, body, otherwise)

    def _expect_close(self, where: str) -> None:
        token = self._take()
        if token.kind != "close":
            raise self._error(f"unexpected {_shown(token)} in {where}", token.at)

    def _deeper(self, at: int) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._error(f"more than {MAX_DEPTH} levels deep", at)

    # -- pipelines

    def _pipe(self, where: str, end: str = "close") -> Pipe:
        """A pipeline up to its `end`, which is left."""
        begin = self._peek()
        names, declares = self._declaration(where)
        commands: list[tuple[Operand, ...]] = []
        while True:
            token = self._peek()
            if token.kind == end:
                break
            if token.kind == "pipe" and commands:
                self._take()
                if self._peek().kind == end:
                    raise self._error(f"missing value for {where}", token.at)
            elif commands:
                raise self._misplaced(token, where)
            commands.append(self._command(where, end))
        if not commands:
            raise self._error(f"missing value for {where}", begin.at)
        for i, command in enumerate(commands[1:], 2):
            if command[0].kind in ("literal", "dot") and not command[0].fields:
                raise self._error(f"non executable command in pipeline stage {i}", command[0].at)
        if declares:
            self._variables += names
        return Pipe(tuple(commands), names, declares)

    def _declaration(self, where: str) -> tuple[tuple[str, ...], bool]:
        """`$a :=`, `$a =`, and in a range `$a, $b :=`; else nothing is taken."""
        ahead = self._tokens[self._next : self._next + 4]
        kinds = [token.kind for token in ahead]
        if kinds[:1] != ["variable"]:
            return (), False
        if kinds[1:2] in (["declare"], ["assign"]):
            count = 1
        elif kinds[1:3] == ["comma", "variable"] and kinds[3:4] in (["declare"], ["assign"]):
            count = 2
            if where != "range":
                raise self._error(f"too many declarations in {where}", ahead[2].at)
        else:
            return (), False
        names = tuple(token.text for token in ahead[: 2 * count : 2])
        declares = kinds[2 * count - 1] == "declare"
        if not declares:
            for name in names:
                self._known(name, ahead[0].at)
        self._next += 2 * count
        return names, declares

    def _command(self, where: str, end: str) -> tuple[Operand, ...]:
        operands: list[Operand] = []
        while True:
            token = self._peek()
            if token.kind in (end, "pipe"):
                break
            if operands and not token.spaced and token.kind != "close":
                raise self._error(f"unexpected {_shown(token)} in operand", token.at)
            operands.append(self._operand(where))
        if not operands:
            raise self._error(f"missing value for {where}", self._peek().at)
        if len(operands) == 1 and operands[0].text == "nil":
            raise self._error("nil is not a command", operands[0].at)
        return tuple(operands)

    def _operand(self, where: str) -> Operand:
        token = self._take()
        kind, value, fields, at = "literal", None, [], token.at
        if token.kind in ("string", "char", "number"):
            value = self._literal(token)
        elif token.kind == "dot":
            kind = "dot"
        elif token.kind == "field":
            kind = "dot"
            fields.append(token.text[1:])
        elif token.kind == "variable":
            self._known(token.text, token.at)
            kind, value = "variable", token.text
        elif token.kind == "word" and token.text in ("true", "false", "nil"):
            value = {"true": True, "false": False}.get(token.text)
        elif token.kind == "word":
            if token.text not in self._functions:
                raise self._error(f'function "{token.text}" not defined', token.at)
            kind, value = "call", token.text
        elif token.kind == "left":
            self._deeper(token.at)
            kind, value = "pipe", self._pipe("parenthesized pipeline", "right")
            self._take()
            self._depth -= 1
        else:
            raise self._misplaced(token, where)
        while self._peek().kind == "field" and not self._peek().spaced:
            if kind == "literal":
                raise self._error(f"unexpected <{self._peek().text}> in operand", self._peek().at)
            at = self._peek().at  # where Go sees a chain of fields
            fields.append(self._take().text[1:])
        last = self._tokens[self._next - 1]
        text = self._source[token.at : last.at + len(last.text)]
        return Operand(kind, value, tuple(fields), at, text)

    def _misplaced(self, token: _Token, where: str) -> UsageError:
        if token.kind == "close" and where == "parenthesized pipeline":
            return self._error("unclosed left paren", token.at)
        return self._error(f"unexpected {_shown(token)} in {where}", token.at)

    def _known(self, name: str, at: int) -> None:
        if name not in self._variables:
            raise self._error(f'undefined variable "{name}"', at)

    def _literal(self, token: _Token) -> Any:
        if token.kind == "number":
            return self._number(token)
        if token.text[0] == "`":
            return token.text[1:-1]
        text = self._unquoted(token)
        if token.kind == "string":
            return text
        if len(text) != 1:
            raise self._error(f"malformed character constant: {token.text}", token.at)
        return ord(text)

    def _number(self, token: _Token) -> int | float:
        digits = token.text.lstrip("+-").lower()
        try:
            if digits.startswith("0") and digits.isdigit():
                value: int | float = int(digits, 8)
            elif re.fullmatch(r"[0-9_]+|0[xbo].*", digits):
                value = int(digits, 0)
            else:
                value = float(digits)
        except ValueError:
            raise self._error(f"bad number syntax: {_quote(token.text)}", token.at) from None
        if isinstance(value, int) and value >= 1 << 64:
            raise self._error(f"integer overflow: {_quote(token.text)}", token.at)
        return -value if token.text[0] == "-" else value

    def _unquoted(self, token: _Token) -> str:
        def one(found: re.Match[str]) -> str:
            simple, byte, octal, short, long, wrong = found.groups()
            if wrong is not None or int(octal or "0", 8) > 255 or int(long or "0", 16) > 0x10FFFF:
                raise self._error(f"invalid syntax: {token.text}", token.at)
            if simple is not None:
                return chr(_SIMPLE.get(simple, ord(simple)))
            if short or long:
                code = int(short or long, 16)
                return "\ufffd" if 0xD800 <= code < 0xE000 else chr(code)
            return chr(int(byte, 16) if byte else int(octal, 8))

        return _ESCAPE.sub(one, token.text[1:-1])

    # -- tokens

    def _peek(self) -> _Token:
        return self._tokens[self._next]  # every action is closed: there is always one

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        self._next += 1
        return token


def _shown(token: _Token) -> str:
    if token.kind == "close":
        return '"}}"'
    return f"<{token.text}>" if token.kind in ("field", "word", "dot", "variable") else _quote(token.text)


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
