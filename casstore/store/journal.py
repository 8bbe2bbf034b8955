"""A text file that grows by a line at a time and is made compact now and then: what was done, for whoever goes on.

A line counts once its newline is there: what a killed process left of one is passed over. Nothing depends on it but
work that would be done again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from ..errors import Conflict, LimitExceeded
from .disk import replace_file, translate, write_all

MAX_FILE = 256 << 20


class Journal:
    """One such file, ours alone until `close`; Conflict where another process has it. Its folder is made if it is not
    there. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            self._handle = self._open()
        except OSError as error:
            raise translate(error, str(path)) from error

    def _open(self) -> int:
        while True:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Whoever had it may have put a compact one in its place since we opened it.
                if os.path.samestat(os.fstat(handle), self.path.stat()):
                    return handle
            except BlockingIOError:
                os.close(handle)
                raise Conflict("another process is at work with it", what=str(self.path)) from None
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)

    def lines(self) -> list[str]:
        """All whole lines, in order. A torn one at the end is cut off, so that the next begins anew."""
        found, whole = _whole(self._handle, self.path)
        try:
            if os.fstat(self._handle).st_size > whole:
                os.ftruncate(self._handle, whole)
        except OSError as error:
            raise translate(error, str(self.path)) from error
        return found

    def append(self, line: str) -> None:
        """One more line; given to the system when this returns, so that a killed process has told it."""
        with self._lock:
            try:
                write_all(self._handle, f"{line}\n".encode())
            except OSError as error:
                raise translate(error, str(self.path)) from error

    def compact(self, lines: Iterable[str]) -> None:
        """Put these lines in the place of all: afterwards it is to be closed."""
        replace_file(self.path, "".join(f"{line}\n" for line in lines).encode())

    def close(self) -> None:
        """Let others have it."""
        with contextlib.suppress(OSError):
            os.close(self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_lines(path: Path) -> list[str]:
    """The whole lines of a journal that is only looked at; none where there is no file."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise translate(error, str(path)) from error
    try:
        return _whole(handle, path)[0]
    finally:
        os.close(handle)


def _whole(handle: int, path: Path) -> tuple[list[str], int]:
    """Whole lines, and the bytes that they take."""
    try:
        size = os.fstat(handle).st_size
        if size > MAX_FILE:
            raise LimitExceeded(f"larger than {MAX_FILE} bytes", what=str(path))
        data = os.pread(handle, size, 0) if size else b""
    except OSError as error:
        raise translate(error, str(path)) from error
    end = data.rfind(b"\n") + 1
    return data[:end].decode("utf-8", "replace").splitlines(), end
