"""Deflate without the compiled kernel: what it would do is told here, none of it is done.

Engines in Python would take minutes for a layer. So gzip blobs stay as they are where there is no compiled kernel, and
those that were packed elsewhere cannot be read: NotCompiled says so.
"""

from __future__ import annotations

from typing import NoReturn

from ..model import Buffer

IMPLEMENTATION = "none"

State = tuple[int, ...]


class BadStream(ValueError):
    """No deflate stream, or one that ends before its end."""


class BadTrace(ValueError):
    """Exceptions that contradict the content, or themselves."""


class TooMuch(ValueError):
    """More than there is room for: exceptions that are made, bits that are written, tokens of one block."""


class Lost(ValueError):
    """The engine cannot follow this stream, or begin there."""


class ViewTooSmall(ValueError):
    """Content that the engine needs to see is not in the buffer."""


class NotCompiled(LookupError):
    """The compiled kernel is not here."""


def _absent() -> NoReturn:
    raise NotCompiled("gzip needs the compiled kernels (casstore version tells which are there)")


class Stretch:
    """A run of whole blocks, parsed. `tokens`: the most that it holds. `blocks`: how many; `start`, `size`: of its
    content; `first_bit`, `bits`: of the stream; `most_tokens`: of one block."""

    blocks: int
    start: int
    size: int
    first_bit: int
    bits: int
    most_tokens: int

    def __init__(self, tokens: int) -> None:
        _absent()


class Parser:
    """One deflate stream, from its begin to its end. `bits`, `content`: how many bits and bytes of content were seen;
    once it has ended, `padding`: the bits that fill its last byte, and `surplus`: of the bytes given last, how many
    follow it."""

    bits: int
    content: int
    padding: int
    surplus: int

    def __init__(self) -> None:
        _absent()

    def begin(self, into: Stretch) -> None:
        """Empty a stretch; the next block will be its first."""
        _absent()

    def parse(
        self, into: Stretch, data: Buffer, last: bool, content: Buffer, at: int, target: int
    ) -> tuple[str, int, int]:
        """Parse on in `data` (`last`: nothing follows), content going to `content[at:]`, the last 32 KiB of it standing
        before that. Returns (told, bytes of data used, bytes of content made); told is "input" (all is used), "full"
        (at the end of a block, with `target` bytes of content or more), "end" or "room" (a block is too large).
        BadStream."""
        _absent()


class Engine:
    """An encoder, predicted. LookupError: there is no such engine, or level. All of `content` begins at `begin` of the
    stream's content; `last`: it reaches to its end. `position`: where it stands."""

    position: int

    def __init__(self, name: str, version: int, level: int) -> None:
        _absent()

    def seek(self, content: Buffer, begin: int, last: bool, position: int, state: State = (0, 0, 0, 0)) -> None:
        """Stand at a block boundary, in a state that `save` gave. Lost: it cannot begin there; ViewTooSmall."""
        _absent()

    def save(self) -> State:
        """What it remembers besides the content."""
        _absent()

    def make(self, stretch: Stretch, content: Buffer, begin: int, last: bool, limit: int) -> bytes:
        """Exceptions to what it predicts, which a stretch that begins at its position needs: at most `limit` bytes.
        TooMuch, Lost, ViewTooSmall."""
        _absent()

    def apply(
        self,
        content: Buffer,
        begin: int,
        last: bool,
        blocks: int,
        exceptions: Buffer,
        out: Buffer,
        phase: int,
        tokens: int,
    ) -> int:
        """The bits of so many blocks into `out`, the first `phase` bits of which are left 0; returns how many.
        `tokens`: of the largest block. BadTrace, TooMuch, Lost, ViewTooSmall."""
        _absent()


def engines() -> dict[tuple[str, int], tuple[int, int]]:
    """(name, version) → (bytes before a position that it looks at, bytes after)."""
    return {}
