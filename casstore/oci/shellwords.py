"""Words as a Dockerfile writes them: quotes, escapes and variables.

    $name ${name}               the value, or nothing
    ${name:-word} ${name-word}  `word` where the value is empty (or unset) / only where it is unset
    ${name:+word} ${name+word}  `word` where it is not
    ${name:?word} ${name?word}  an error that says `word` where the first would have put it
    ${name#glob} ## % %%        without the shortest (longest) beginning (end) that matches
    ${name/glob/word} //        the first match (each match) replaced

'…' is literal; in "…" variables are expanded, and the escape character stands before `"`, `$` and itself only.
Source: the Dockerfile reference, "Environment replacement".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..errors import BadInput

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*#?$!-]")
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9@*#?$!-]")
MAX_DEPTH = 50
"""How deep one expansion may stand in another."""
MAX_TEXT = 1 << 20
"""Longest expansion, characters: a value may hold the one before it twice."""

_WORD = {
    escape: re.compile(
        rf""" (?: "(?:{re.escape(escape)}.|[^"{re.escape(escape)}])*(?:"|{re.escape(escape)}?$) | '[^']*(?:'|$)
                | {re.escape(escape)}. | [^\s"'{re.escape(escape)}] )+ """,
        re.VERBOSE | re.DOTALL,
    )
    for escape in "\\`"
}


def words(text: str, escape: str = "\\") -> list[str]:
    """The words between white space, their quotes and escapes left in them."""
    return _WORD[escape].findall(text)


def expand(text: str, env: Mapping[str, str], escape: str = "\\") -> str:
    """`text` with its variables replaced, and quotes and escapes taken away. BadInput where it cannot be."""
    return _Expansion(text, env, escape).whole()


def expand_words(text: str, env: Mapping[str, str], escape: str = "\\") -> list[str]:
    """The same, cut at white space outside quotes, that in values included."""
    return _Expansion(text, env, escape).split()


#: (text, whether quotes protect it from being cut)
_Piece = tuple[str, bool]


class _Expansion:
    def __init__(self, text: str, env: Mapping[str, str], escape: str) -> None:
        self._text = text
        self._env = env
        self._escape = escape
        self._at = 0
        self._depth = 0

    def whole(self) -> str:
        return "".join(text for text, _ in self._pieces(""))

    def split(self) -> list[str]:
        found: list[str] = []
        current: str | None = None
        for text, protected in self._pieces(""):
            if protected:
                current = (current or "") + text
                continue
            for part in re.findall(r"\s+|\S+", text):
                if not part.isspace():
                    current = (current or "") + part
                elif current is not None:
                    found.append(current)
                    current = None
        return found if current is None else [*found, current]

    def _pieces(self, stop: str) -> list[_Piece]:
        """Up to a character of `stop` outside quotes, which is left, or to the end."""
        pieces: list[_Piece] = []
        size = 0
        while self._at < len(self._text):
            char = self._text[self._at]
            if char in stop:
                break
            if char == "'":
                end = self._text.find("'", self._at + 1)
                if end < 0:
                    raise BadInput("unexpected end of statement while looking for matching single-quote")
                pieces.append((self._text[self._at + 1 : end], True))
                self._at = end + 1
            elif char == '"':
                pieces.append((self._double(), True))
            elif char == self._escape:
                pieces.append((self._text[self._at + 1 : self._at + 2], True))
                self._at += 2
            elif char == "$":
                pieces.append((self._dollar(), False))
            else:
                pieces.append((char, False))
                self._at += 1
            size += len(pieces[-1][0])
            if size > MAX_TEXT:
                raise BadInput(f"a word expands to more than {MAX_TEXT} characters")
        return pieces

    def _double(self) -> str:
        parts: list[str] = []
        self._at += 1
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == '"':
                self._at += 1
                return "".join(parts)
            if char == "$":
                parts.append(self._dollar())
                continue
            after = self._text[self._at + 1 : self._at + 2]
            if char == self._escape and after and after in ('"', "$", self._escape):
                parts.append(after)
                self._at += 2
                continue
            if char != self._escape or after:
                parts.append(char)
            self._at += 1
        raise BadInput("unexpected end of statement while looking for matching double-quote")

    # -- variables

    def _dollar(self) -> str:
        self._at += 1
        if self._text[self._at : self._at + 1] == "{":
            self._at += 1
            self._depth += 1
            if self._depth > MAX_DEPTH:
                raise BadInput(f"variables more than {MAX_DEPTH} levels deep")
            value = self._braces()
            self._depth -= 1
            return value
        name = _PLAIN_NAME.match(self._text, self._at)
        if name is None:
            return "$"
        self._at = name.end()
        return self._env.get(name[0], "")

    def _braces(self) -> str:
        name = _NAME.match(self._text, self._at)
        if name is None:
            if self._at >= len(self._text):
                raise BadInput("syntax error: missing '}'")
            raise BadInput("syntax error: bad substitution")
        self._at = name.end()
        value = self._env.get(name[0])
        operator = self._text[self._at : self._at + 1]
        self._at += 1
        if operator == "}":
            return value or ""
        if operator == ":":
            colon = True
            operator = self._text[self._at : self._at + 1]
            self._at += 1
            if operator not in ("-", "+", "?") or not operator:
                raise BadInput(f"unsupported modifier ({operator}) in substitution")
        else:
            colon = False
        if not operator:
            raise BadInput("syntax error: missing '}'")
        if operator in "-+?":
            return self._default(name[0], value, operator, colon)
        if operator in "#%":
            return self._trimmed(value or "", operator)
        if operator == "/":
            return self._replaced(value or "")
        raise BadInput(f"unsupported modifier ({operator}) in substitution")

    def _default(self, name: str, value: str | None, operator: str, colon: bool) -> str:
        word = self._until("}")
        lacks = value is None or (colon and not value)
        if operator == "-":
            return word if lacks else value or ""
        if operator == "+":
            return "" if lacks else word
        if lacks:
            raise BadInput(f"{name}: {word or ('is not allowed to be ' + ('empty' if colon else 'unset'))}")
        return value or ""

    def _until(self, stop: str) -> str:
        """What stands before the character `stop`, expanded; that is taken too."""
        word = "".join(text for text, _ in self._pieces(stop))
        if self._text[self._at : self._at + 1] != stop:
            raise BadInput("syntax error: missing '}'")
        self._at += 1
        return word

    def _trimmed(self, value: str, operator: str) -> str:
        longest = self._text[self._at : self._at + 1] == operator
        self._at += longest
        glob = self._glob("}")
        if operator == "%":
            value, glob = value[::-1], glob[::-1]
        ends = _ends(glob, value, 0)
        if ends:
            value = value[max(ends) if longest else min(ends) :]
        return value[::-1] if operator == "%" else value

    def _replaced(self, value: str) -> str:
        every = self._text[self._at : self._at + 1] == "/"
        self._at += every
        glob = self._glob("/")
        word = self._until("}")
        parts: list[str] = []
        at = 0
        while at < len(value):
            ends = _ends(glob, value, at)
            if not ends or max(ends) == at:
                parts.append(value[at])
                at += 1
                continue
            parts.append(word)
            at = max(ends)
            if not every:
                break
        return "".join(parts) + value[at:]

    def _glob(self, stop: str) -> Sequence[str]:
        """A pattern up to `stop`: `*` and `?` outside quotes are wild, `=c` is the character c."""
        tokens = []
        pieces = self._pieces(stop)
        if self._text[self._at : self._at + 1] != stop:
            raise BadInput("syntax error: missing '}'")
        self._at += 1
        for text, protected in pieces:
            tokens += [each if each in "*?" and not protected else "=" + each for each in text]
        return tokens


def _ends(glob: Sequence[str], text: str, at: int) -> set[int]:
    """Where a match that begins at `at` may end."""
    ends = {at}
    for token in glob:
        if token == "*":
            ends = set(range(min(ends), len(text) + 1))
        else:
            ends = {end + 1 for end in ends if end < len(text) and token in ("?", "=" + text[end])}
        if not ends:
            break
    return ends
