"""Progress on stderr: a bar on a terminal, a plain line every few seconds elsewhere.

The library calls `progress(what, done, total)`, from any thread: bytes of the task named `what`; `total` is
None where it is not known; `done == total` ends the task.

It is also how a signal reaches the library's threads: Python gives it to the main thread only, which would wait
until the others have finished their layers.
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self

from ..errors import Interrupted
from ..model import Progress
from .units import human_size, visible

_FIRST, _EVERY = 5.0, 5.0
#: A terminal sees nothing of commands that are done sooner (seconds).
_PATIENCE = 0.5


#: Set when a signal asked the command to end.
stopped = threading.Event()
#: Set when what the command was called for is about to become visible: a signal is too late then.
decided = threading.Event()


class Silent:
    """Shows nothing."""

    def __call__(self, what: str, done: int, total: int | None) -> None:
        if stopped.is_set():
            raise Interrupted("interrupted")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


class Lines(Silent):
    """Plain lines: the first after five seconds, then one for each running task every five."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = time.monotonic() + _FIRST
        self._tasks: dict[str, tuple[int, int | None]] = {}

    def __call__(self, what: str, done: int, total: int | None) -> None:
        super().__call__(what, done, total)
        with self._lock:
            if total is not None and done >= total:
                self._tasks.pop(what, None)
            else:
                self._tasks[what] = (done, total)
            if time.monotonic() < self._next:
                return
            self._next = time.monotonic() + _EVERY
            for name, (some, whole) in self._tasks.items():
                of = f" of {human_size(whole)} ({some * 100 // whole}%)" if whole else ""
                print(visible(f"{name}: {human_size(some)}{of}"), file=sys.stderr, flush=True)


class Bars(Silent):
    """Bars by rich, imported when the first has something to show; gone when the command ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._start = time.monotonic() + _PATIENCE
        self._display: Any = None
        self._tasks: dict[str, Any] = {}

    def __call__(self, what: str, done: int, total: int | None) -> None:
        super().__call__(what, done, total)
        with self._lock:
            if self._display is None:
                if time.monotonic() < self._start:
                    return
                self._display = _display()
            task = self._tasks.get(what)
            if task is None:
                if total is not None and done >= total:
                    return
                task = self._tasks[what] = self._display.add_task(visible(what), total=total)
            self._display.update(task, completed=done, total=total)
            if total is not None and done >= total:
                self._display.remove_task(self._tasks.pop(what))

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._display is not None:
            self._display.stop()


def for_terminal(quiet: bool = False) -> AbstractContextManager[Progress]:
    """What suits stderr."""
    if quiet:
        return Silent()
    return Bars() if sys.stderr is not None and sys.stderr.isatty() else Lines()


def _display() -> Any:
    from rich import progress
    from rich.console import Console
    from rich.text import Text

    class Name(progress.ProgressColumn):
        """Names as they are: rich would obey the markup in them."""

        def render(self, task: progress.Task) -> Text:
            return Text(task.description)

    display = progress.Progress(
        Name(),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    display.start()
    return display
