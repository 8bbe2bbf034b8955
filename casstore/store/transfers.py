"""Transfers that may be cut short, in STORE/transfers: what has come of a blob, and where an upload goes on. Nothing
depends on them: whoever wants the room may delete any of them at any time, and the transfer begins anew.

    transfers/sha256-<hex>       the first bytes of a blob that is being fetched
    transfers/up-<hex>           a note about an upload: <hex> is the SHA-256 of what it is called

Whoever is at one holds a lock on it; the kernel lets go of it when a process dies, and the next one goes on from there.
Bytes are believed only once the whole blob has its digest. A blob that is whole becomes an object by a second link,
made in its lease's staging folder; the first goes when the commit is done. Until then a file is written to by the
holder of the lock only, and afterwards by nobody.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from ..digest import Digest
from ..errors import InvalidReference, LeaseLost
from .disk import translate, write_all
from .objects import Objects, Staged

LEAST = 64 << 10
"""A blob of fewer bytes is fetched again as fast as it is found."""
KEEP = 7 * 86400.0
"""Seconds after which gc takes what nobody went on with."""
MAX_NOTE = 64 << 10


class Part(Staged):
    """The first bytes of a blob, ours alone. `begun`: how many there were when we came."""

    def __init__(self, path: Path, handle: int, size: int) -> None:
        self._origin = path
        self.path = path
        self.key = None
        self.size = self.begun = size
        self._pushed = 0
        self._handle = handle

    def settle(self, folder: Path, key: str) -> None:
        """It is whole and right: from now on it is an object in the making, in the staging folder of a lease, under its
        key. LeaseLost: that is gone."""
        path = folder / secrets.token_hex(8)
        try:
            os.fchmod(self._handle, 0o444)
            try:
                os.link(self._origin, path)
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                    raise
                self._origin.rename(path)  # a file system without links
        except FileNotFoundError as error:
            if folder.is_dir():  # somebody wanted the room, and deleted it
                raise translate(error, key) from error
            raise LeaseLost("the staging folder is gone: the lease has ended", what=key) from error
        except OSError as error:
            raise translate(error, key) from error
        self.path, self.key = path, key

    def abort(self) -> None:
        """Leave it for the next one."""
        self.close()

    def drop(self) -> None:
        """It is of no use any more: it was wrong, or the commit is done."""
        with contextlib.suppress(OSError):
            self._origin.unlink()
        self.close()


class Note:
    """A note about an upload, ours alone until it is closed."""

    def __init__(self, path: Path, handle: int) -> None:
        self._path = path
        self._handle = handle

    def read(self) -> bytes:
        """What it says, b"" where it is new."""
        try:
            return os.pread(self._handle, MAX_NOTE, 0)
        except OSError as error:
            raise translate(error, str(self._path)) from error

    def write(self, data: bytes) -> None:
        """Let it say this. A crash may leave some of it."""
        try:
            os.ftruncate(self._handle, 0)
            os.lseek(self._handle, 0, os.SEEK_SET)
            write_all(self._handle, data)
        except OSError as error:
            raise translate(error, str(self._path)) from error

    def drop(self) -> None:
        """The upload is done."""
        with contextlib.suppress(OSError):
            self._path.unlink()
        self.close()

    def close(self) -> None:
        """Leave it for the next one."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Transfers:
    """All of a store's."""

    def __init__(self, objects: Objects) -> None:
        self._folder = objects.root / "transfers"
        self._read_only = objects.read_only

    def part(self, digest: Digest, size: int) -> Part | None:
        """What has come of a blob of so many bytes. None: another is at it, or it is not worth it."""
        if size < LEAST:
            return None
        found = self._take(self._folder / f"{digest.algorithm}-{digest.hex}")
        if found is None:
            return None
        path, handle = found
        have = os.lseek(handle, 0, os.SEEK_END)
        if have > size:
            part = Part(path, handle, have)
            part.drop()
            return None
        return Part(path, handle, have)

    def note(self, name: str) -> Note | None:
        """A note about the upload that is called so. None: another is at it, or there can be none."""
        found = self._take(self._folder / f"up-{hashlib.sha256(name.encode()).hexdigest()}")
        return Note(*found) if found else None

    def _take(self, path: Path) -> tuple[Path, int] | None:
        if self._read_only:
            return None
        flags = os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        while True:
            try:
                try:
                    handle = os.open(path, flags | os.O_RDWR, 0o600)
                except FileNotFoundError:
                    self._folder.mkdir(mode=0o700, exist_ok=True)
                    continue
                except PermissionError:
                    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)  # whole, and settled before
            except OSError:
                return None  # it can do without
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                here = path.stat(follow_symlinks=False)
                mine = os.fstat(handle)
            except FileNotFoundError:
                os.close(handle)  # it was done and dropped just now
                continue
            except OSError:
                os.close(handle)
                return None
            if (here.st_dev, here.st_ino) == (mine.st_dev, mine.st_ino):
                return path, handle
            os.close(handle)

    def sweep(self, needless: Callable[[Digest], bool] = lambda digest: False, keep: float = KEEP) -> int:
        """Delete what nobody has gone on with for so many seconds, and what came of blobs that are `needless`; bytes
        that had come."""
        freed = 0
        try:
            entries = [Path(entry.path) for entry in os.scandir(self._folder)]
        except OSError:
            return 0
        for path in entries:
            try:
                if time.time() - path.stat().st_mtime < keep and not (
                    (digest := _digest(path.name)) is not None and needless(digest)
                ):
                    continue
            except OSError:
                continue
            found = self._take(path)
            if found is not None:
                size = os.fstat(found[1]).st_size
                Part(*found, size).drop()
                freed += size
        return freed


def _digest(name: str) -> Digest | None:
    try:
        return Digest.parse(name.replace("-", ":", 1))
    except InvalidReference:
        return None
