"""How finely a stream may be taken apart: how many small payloads one command tells apart.

Every payload told apart costs a chunk and a row of the recipe, some hundred bytes of memory. Ordinary layers have one
in 8 to 100 KiB. An archive of millions of files of a byte would cost more memory than it has content: past what is
granted here, small payloads go on among the literals, which are cut by content at the store's average.
"""

from __future__ import annotations

import threading

FREE = 1 << 18
"""Small payloads that a command tells apart in any case."""
BYTES_PER_PIECE = 64 << 10
"""One more for so many bytes of content."""


class Pieces:
    """What is left to be told apart. Shared by the streams of one command; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen = 0
        self._used = 0

    def grant(self, seen: int, wanted: int) -> int:
        """`seen` bytes more have gone by, with `wanted` small payloads in them: how many of these may be told apart."""
        with self._lock:
            self._seen += seen
            granted = max(0, min(wanted, FREE + self._seen // BYTES_PER_PIECE - self._used))
            self._used += granted
            return granted
