"""Deflate streams taken apart in stretches, and the engines that predict them.

    parser, stretch = Parser(), Stretch(tokens=…)
    parser.begin(stretch)
    told, used, made = parser.parse(stretch, data, last, content, at, target)

What each means is told in `_native/deflate.h`, `stretch.h`, `engine.h` and `trace.h`. There is no other twin: without
the compiled kernel gzip blobs stay as they are.
"""

from __future__ import annotations

from isal.isal_zlib import crc32

from ._deflate_c import Engine, Parser, Stretch, engines
from ._deflate_py import BadStream, BadTrace, Lost, TooMuch, ViewTooSmall

HISTORY = max((history for history, _ in engines().values()), default=0)
"""Content before a position that some engine wants to see (bytes)."""
LOOKAHEAD = max((ahead for _, ahead in engines().values()), default=0)
"""And after it."""

__all__ = [
    "HISTORY",
    "LOOKAHEAD",
    "BadStream",
    "BadTrace",
    "Engine",
    "Lost",
    "Parser",
    "Stretch",
    "TooMuch",
    "ViewTooSmall",
    "crc32",
    "engines",
]
