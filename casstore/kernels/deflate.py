"""Deflate streams taken apart in stretches, and the engines that predict them.

    parser, stretch = Parser(), Stretch(tokens=…)
    parser.begin(stretch)
    told, used, made = parser.parse(stretch, data, last, content, at, target)
    exceptions = engine.make(stretch, content, begin, last, limit)

What each means is told in `_deflate_py`, and in `_native/deflate.h`, `stretch.h`, `engine.h` and `trace.h`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isal.isal_zlib import crc32

from ._deflate_py import BadStream, BadTrace, Lost, NotCompiled, TooMuch, ViewTooSmall

if TYPE_CHECKING:
    from ._deflate_py import IMPLEMENTATION, Engine, Parser, Stretch, engines
else:
    try:
        from ._deflate_c import IMPLEMENTATION, Engine, Parser, Stretch, engines
    except ModuleNotFoundError:
        from ._deflate_py import IMPLEMENTATION, Engine, Parser, Stretch, engines

HISTORY = max((history for history, _ in engines().values()), default=0)
"""Content before a position that some engine wants to see (bytes)."""
LOOKAHEAD = max((ahead for _, ahead in engines().values()), default=0)
"""And after it."""


def sight(choice: tuple[str, int, int]) -> tuple[int, int]:
    """How much content before a position, and after it, an engine (name, version, level) wants to see (bytes).
    LookupError: it is not here."""
    found = engines().get(choice[:2])
    if found is None:
        raise LookupError(f"no engine {choice[0]} {choice[1]}")
    return found


__all__ = [
    "HISTORY",
    "IMPLEMENTATION",
    "LOOKAHEAD",
    "BadStream",
    "BadTrace",
    "Engine",
    "Lost",
    "NotCompiled",
    "Parser",
    "Stretch",
    "TooMuch",
    "ViewTooSmall",
    "crc32",
    "engines",
    "sight",
]
