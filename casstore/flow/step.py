"""Progress of one task, told in steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..model import Progress
from .source import Source


class Step:
    """Counts the bytes of the task `what` and passes them on, if anybody listens."""

    def __init__(self, progress: Progress | None, what: str, total: int | None) -> None:
        self._progress = progress
        self._what = what
        self._total = total
        self._seen = 0

    def advance(self, count: int) -> None:
        """`count` bytes more are done."""
        if self._progress is not None:
            self._seen += count
            self._progress(self._what, self._seen, self._total)

    def over(self, buffers: Iterable[memoryview]) -> Iterator[memoryview]:
        """The buffers, each counted when it is handed on."""
        for buffer in buffers:
            self.advance(len(buffer))
            yield buffer

    def done(self) -> None:
        """The task has ended, whatever its total was thought to be."""
        if self._progress is not None:
            self._progress(self._what, self._seen, self._seen)


class Counted:
    """A source whose bytes are counted as they are read."""

    def __init__(self, source: Source, step: Step) -> None:
        self._source = source
        self._step = step
        self.size = source.size

    def readinto(self, view: memoryview) -> int:
        got = self._source.readinto(view)
        self._step.advance(got)
        return got
