"""Where an archive goes: an open descriptor as it comes, a file that appears whole or not at all, or a folder whose
files each do so."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..errors import CasstoreError, LimitExceeded, OutOfSpace
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

    def __init__(self, path: Path, step: Step, decided: Callable[[], None], mode: int = 0o600) -> None:
        self._path = path
        self._mode = mode
        self._decided = decided
        self._temp = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        self._step = step
        self._size = 0
        self._pushed = 0
        self._fd = -1

    def __enter__(self) -> File:
        try:
            self._fd = os.open(self._temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, self._mode)
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


def in_the_way(path: Path) -> int:
    """Bytes of the file that is there already; 0 where there is none. CasstoreError: something that is no file, or the
    folder above is missing."""
    try:
        found = path.stat()
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise CasstoreError("no such file or directory", what=str(path.parent)) from None
        return 0
    except OSError as error:
        raise _failed(error, str(path)) from None
    if not stat.S_ISREG(found.st_mode):
        raise CasstoreError("must be a regular file", what=str(path))
    return found.st_size


def listing(path: Path) -> list[str]:
    """The names in a folder; none where there is no such folder."""
    try:
        return sorted(one.name for one in path.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _failed(error, str(path)) from None


class Folder:
    """A folder that images are written to, made where there is none, and held against others who write there."""

    def __init__(self, path: Path, decided: Callable[[], None]) -> None:
        self.path = path
        self._decided = decided
        self._fd = -1

    def __enter__(self) -> Folder:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        except OSError as error:
            self.__exit__()
            raise _failed(error, str(self.path)) from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def names(self) -> list[str]:
        """What is in the folder itself."""
        return listing(self.path)

    def size(self, name: str) -> int | None:
        """Bytes of a file in it; None where there is none, or something that is no file."""
        try:
            found = (self.path / name).lstat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failed(error, str(self.path / name)) from None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def read(self, name: str, limit: int) -> bytes | None:
        """A small file in it. LimitExceeded."""
        size = self.size(name)
        if size is None:
            return None
        if size > limit:
            raise LimitExceeded(f"larger than {limit} bytes", what=str(self.path / name))
        try:
            with open(self.path / name, "rb") as file:
                return file.read(limit)
        except OSError as error:
            raise _failed(error, str(self.path / name)) from None

    def put(self, name: str, buffers: Iterable[Buffer], *, last: bool = False) -> None:
        """A file, whole and on the disk. `last`: with it all becomes visible."""
        target = self.path / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _failed(error, str(target.parent)) from None
        with File(target, Step(None, name, None), self._decided if last else lambda: None, 0o666) as file:
            for buffer in buffers:
                file.write(buffer)

    def remove(self, name: str) -> None:
        """A file that nothing needs any longer."""
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=self._fd)


def _failed(error: OSError, what: str) -> CasstoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return OutOfSpace("no space left", what=what)
    return CasstoreError(error.strerror or "cannot write", what=what)
