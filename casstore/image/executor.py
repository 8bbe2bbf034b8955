"""Where work on many things is done: on threads of this process, or wherever somebody's own Executor takes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Executor(Protocol):
    """Runs a function over items."""

    def run(self, do: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """`do` for each item, several at once; yields what it returns, as each ends. Once the iterator is closed, no
        other item is begun; it returns when those begun have ended."""
        ...


class Threads:
    """So many threads of this process."""

    def __init__(self, number: int = 4) -> None:
        self._number = number

    def run(self, do: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """See Executor."""
        if not items:
            return
        pool = ThreadPoolExecutor(max(1, min(self._number, len(items))), thread_name_prefix="mirror")
        try:
            for one in as_completed([pool.submit(do, item) for item in items]):
                yield one.result()
        finally:
            pool.shutdown(cancel_futures=True)
