"""Several things done at once, all of which are given up where one fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from ..errors import Interrupted

T = TypeVar("T")
R = TypeVar("R")

SMALL = 1 << 20
"""Bytes that are not worth threads of their own."""
_AGAIN = 0.05  # seconds


class Ended(Interrupted):
    """Another one has failed: why, it says itself."""


class Crew:
    """So many workers. Those that work for long call `check` now and then, so that they end soon; `wake` is called for
    those that wait for something."""

    def __init__(self, workers: int, wake: Callable[[], None] = lambda: None) -> None:
        self._workers = workers
        self._wake = wake
        self._ended = threading.Event()

    def check(self) -> None:
        """Ended, once one has failed."""
        if self._ended.is_set():
            raise Ended("given up")

    def each(self, do: Callable[[T], R], items: Sequence[T], *, size: int | None = None) -> list[R]:
        """`do` for each item; the results in their order. The first failure is raised when all have ended. `size`:
        bytes of all of it. What is small, or one thing only, is done by the thread that asks, unless that is the main
        one, to which signals come: threads cost more than they save where others are at work beside."""
        if not items:
            return []
        few = len(items) == 1 or (size is not None and size <= SMALL)
        if few and threading.current_thread() is not threading.main_thread():
            return [do(item) for item in items]
        # In the order in which they happened: what follows the first may be its work.
        failures: list[BaseException] = []
        working: set[object] = set()

        def attempt(item: T) -> R:
            mark = object()
            working.add(mark)
            try:
                self.check()
                return do(item)
            except BaseException as error:
                failures.append(error)
                raise
            finally:
                working.discard(mark)

        begun: list[Future[R]] = []
        with ThreadPoolExecutor(max(1, min(len(items), self._workers)), thread_name_prefix="crew") as pool:
            try:
                for item in items:  # a signal may come here already
                    begun.append(pool.submit(attempt, item))
                wait(begun, return_when=FIRST_EXCEPTION)
            finally:
                if failures or len(begun) < len(items) or not all(one.done() for one in begun):
                    self._ended.set()
                    for one in begun:
                        one.cancel()
                    self._wake()
                    while working:  # somebody may begin to wait only now
                        time.sleep(_AGAIN)
                        self._wake()
        if failures:
            raise failures[0]
        return [one.result() for one in begun]
