"""Several tasks of one process that want the same: the first gets it, the others wait and find it done."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator

_LOOK = 0.2  # seconds between looks at whether the waiting makes sense still


class Turns:
    """What is being seen to now. `alive` is called while waiting, and may raise. `sure`: what one of the tasks has
    found or brought somewhere is there for the others too; they need not ask again."""

    def __init__(self, alive: Callable[[], None] = lambda: None, *, sure: bool = False) -> None:
        self._alive = alive
        self.sure = sure
        self._changed = threading.Condition()
        self._taken: set[Hashable] = set()

    @contextlib.contextmanager
    def alone(self, things: Iterable[Hashable]) -> Iterator[None]:
        """Nobody else is at any of these things meanwhile. All are had at once: who waits holds none, so that nobody
        waits for ever; whoever is inside must not ask for more."""
        wanted = set(things)
        with self._changed:
            while wanted & self._taken:
                self._changed.wait(_LOOK)
                self._alive()
            self._taken |= wanted
        try:
            yield
        finally:
            with self._changed:
                self._taken -= wanted
                self._changed.notify_all()
