"""Where an archive goes: an open descriptor as it comes, or a file that appears whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import CasstoreError, OutOfSpace
from ..flow.step import Step
from ..model import Buffer

PUSH_EVERY = 32 << 20
"""Bytes after which a file's written part is pushed to the disk, so that the end does not wait for all of it."""


@contextlib.contextmanager
def opened(out: str | Path | int, step: Step, decided: Callable[[], None]) -> Iterator[Pipe | File]:
    """What writes to a path, or to an open descriptor."""
    if isinstance(out, int):
        yield Pipe(out, step)
    else:
        with File(Path(out), step, decided) as file:
            yield file


class Pipe:
    """An open descriptor that is written to as it comes."""

    def __init__(self, fd: int, step: Step) -> None:
        self._fd = fd
        self._step = step

    def write(self, data: Buffer) -> int:
        view = memoryview(data).cast("B")
        total = len(view)
        while view:
            try:
                done = os.write(self._fd, view[: 1 << 30])
            except OSError as error:
                if error.errno == errno.EPIPE:
                    raise
                raise _failed(error, "output") from None
            view = view[done:]
        self._step.advance(total)
        return total


class File:
    """A file that appears under its name only when it is whole and on the disk."""

    def __init__(self, path: Path, step: Step, decided: Callable[[], None]) -> None:
        self._path = path
        self._decided = decided
        self._temp = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        self._step = step
        self._size = 0
        self._pushed = 0
        self._fd = -1

    def __enter__(self) -> File:
        try:
            self._fd = os.open(self._temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _failed(error, str(self._path)) from None
        return self

    def write(self, data: Buffer) -> int:
        view = memoryview(data).cast("B")
        total = len(view)
        try:
            while view:
                view = view[os.write(self._fd, view[: 1 << 30]) :]
            self._size += total
            if self._size - self._pushed >= PUSH_EVERY:
                # "Not needed" makes the kernel begin to write these pages out; it drops none that is not written.
                os.posix_fadvise(self._fd, self._pushed, self._size - self._pushed, os.POSIX_FADV_DONTNEED)
                self._pushed = self._size
        except OSError as error:
            raise _failed(error, str(self._path)) from None
        self._step.advance(total)
        return total

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                os.fsync(self._fd)
                self._decided()
                self._temp.rename(self._path)
                folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)
        except OSError as failure:
            error = failure
            raise _failed(failure, str(self._path)) from None
        finally:
            os.close(self._fd)
            if error is not None:
                with contextlib.suppress(OSError):
                    self._temp.unlink()


def _failed(error: OSError, what: str) -> CasstoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return OutOfSpace("no space left", what=what)
    return CasstoreError(error.strerror or "cannot write", what=what)
