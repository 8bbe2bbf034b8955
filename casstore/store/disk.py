"""What makes bytes durable: writing all of them, whole small files, folders; and what errors of the system mean."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import CasstoreError, Conflict, OutOfSpace, ReadOnlyStore, StoreUnusable
from ..model import Buffer

PIECE = 1 << 30
"""Linux moves at most 2 GiB - 4 KiB in one read or write."""


def translate(error: OSError, what: str) -> CasstoreError:
    """The error of this project that says what an OSError under STORE means."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return OutOfSpace("no space left", what=what)
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return ReadOnlyStore(what)
    return StoreUnusable(error.strerror or "input/output error", what=what)


def sync_folder(path: Path) -> None:
    """fsync a folder: what was created in, renamed into or unlinked from it is then durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def alone(folder: Path, refusal: str) -> Iterator[None]:
    """What only one may do in a folder at a time: Conflict with these words while another does. Ends with the
    process."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise translate(error, str(folder)) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(refusal) from None
        yield
    finally:
        os.close(handle)


def replace_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a small file durably and atomically: readers see the old content or the new, never a part."""
    temp = path.with_name(f".{path.name}.new")
    try:
        handle = _open_locked(temp, mode)
        try:
            write_all(handle, data)
            os.fsync(handle)
            temp.rename(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temp.unlink()
            raise
        finally:
            os.close(handle)
        sync_folder(path.parent)
    except OSError as error:
        raise translate(error, str(path)) from error


def write_or_leave_none(path: Path, data: bytes) -> None:
    """`replace_file` for a file that is not there yet, and is not there after a failure either: with its folder not
    synced it might be, and tell of what the error denies."""
    try:
        replace_file(path, data)
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def _open_locked(path: Path, mode: int) -> int:
    """An empty file that no other process writes to meanwhile. Its name is always the same: what a killed process left
    there is taken by the next one, and nothing piles up."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            # Whoever had it may have given it its final name since we opened it.
            if os.path.samestat(os.fstat(handle), path.stat(follow_symlinks=False)):
                os.ftruncate(handle, 0)
                return handle
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def write_all(handle: int, data: Buffer) -> int:
    """All of `data`, where the file stands; returns its length (bytes)."""
    view = memoryview(data).cast("B")
    done = 0
    while done < len(view):
        done += os.write(handle, view[done : done + PIECE])
    return done
