"""Several things done at once, all of which are given up where one fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

from ..errors import Interrupted
from ..flow.source import Source

T = TypeVar("T")
R = TypeVar("R")


class Ended(Interrupted):
    """Another one has failed: why, it says itself."""


class Crew:
    """So many workers. What they read for long goes through `watched`, so that they end soon; `wake` is called for
    those that wait for something."""

    def __init__(self, workers: int, wake: Callable[[], None] = lambda: None) -> None:
        self._workers = workers
        self._wake = wake
        self._ended = threading.Event()

    def check(self) -> None:
        """Ended, once one has failed."""
        if self._ended.is_set():
            raise Ended("given up")

    def watched(self, source: Source) -> Source:
        """The same bytes, until one has failed."""
        return _Watched(source, self)

    def each(self, do: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """`do` for each item; the results in their order. The first failure is raised when all have ended."""
        if not items:
            return []
        failures: list[
            BaseException
        ] = []  # in the order in which they happened: what follows the first may be its work

        def attempt(item: T) -> R:
            try:
                return do(item)
            except BaseException as error:
                failures.append(error)
                raise

        with ThreadPoolExecutor(max(1, min(len(items), self._workers)), thread_name_prefix="crew") as pool:
            begun = [pool.submit(attempt, item) for item in items]
            try:
                wait(begun, return_when=FIRST_EXCEPTION)
            finally:
                if failures or not all(one.done() for one in begun):
                    self._ended.set()
                    for one in begun:
                        one.cancel()
                    self._wake()
        if failures:
            raise failures[0]
        return [one.result() for one in begun]


class _Watched:
    def __init__(self, source: Source, crew: Crew) -> None:
        self._source = source
        self._crew = crew
        self.size = source.size

    def readinto(self, view: memoryview) -> int:
        self._crew.check()
        return self._source.readinto(view)
