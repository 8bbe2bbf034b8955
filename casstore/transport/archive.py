"""Archives in files and folders, whose members are read in place, and the door to all kinds: `open_source`.

A plain tar in a file takes one pass over its headers, then any member can be read at any offset, nothing is copied.
"""

from __future__ import annotations

import os
import stat
import weakref
from pathlib import Path

from ..codec import compression
from ..errors import BadInput, NotFound
from ..flow.source import name_of
from . import tar
from .members import Landed, Member, Reader, Sink, Source, Stream, clean
from .stream import TarStream

__all__ = ["LIMIT", "Landed", "Reader", "Sink", "Source", "Stream", "open_source"]

LIMIT = compression.LIMIT


class FileReader:
    """A span of an open file."""

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._fd = fd
        self._offset = offset
        self.size = size

    def pread(self, offset: int, length: int) -> bytes:
        return os.pread(self._fd, max(0, min(length, self.size - offset)), self._offset + offset)

    def pread_into(self, offset: int, view: memoryview) -> int:
        room = max(0, min(len(view), self.size - offset))
        return os.preadv(self._fd, [view[:room]], self._offset + offset) if room else 0


class TarFile(Source):
    """A plain tar in a file, from `base` on: read in place."""

    def __init__(self, fd: int, what: str, limit: compression.Limit = LIMIT, base: int = 0) -> None:
        super().__init__(what, limit)
        self._fd = fd
        self._base = base

    def scan(self, sink: Sink | None = None) -> None:
        cursor = _FileCursor(self._fd, self._base, self.what)
        for header in tar.walk(cursor, self.what):
            cursor.check(header)
            self._add(header, Member(clean(header.name), header.size, header.data, sparse=header.sparse))

    def _open(self, member: Member) -> Reader:
        return FileReader(self._fd, self._base + member.offset, member.size)

    def close(self) -> None:
        os.close(self._fd)


class _FileCursor:
    def __init__(self, fd: int, base: int, what: str) -> None:
        self._fd = fd
        self._base = base
        self._what = what
        self._size = os.fstat(fd).st_size - base
        self.position = 0

    def read(self, length: int) -> bytes:
        data = os.pread(self._fd, length, self._base + self.position)
        self.position += len(data)
        return data

    def skip(self, length: int) -> None:
        self.position += length
        if self.position > self._size:
            raise BadInput("unexpected EOF", what=self._what, offset=max(self._size, 0))

    def check(self, header: tar.Header) -> None:
        if header.data + header.size > self._size:
            raise BadInput("unexpected EOF", what=f"{self._what}: {header.name}", offset=max(self._size, 0))


class Folder(Source):
    """A folder whose files are the members: an OCI layout as skopeo and buildx leave it."""

    def __init__(self, path: Path, limit: compression.Limit = LIMIT) -> None:
        super().__init__(str(path), limit)
        self._root = path

    def scan(self, sink: Sink | None = None) -> None:
        for folder, names, files in os.walk(self._root, onerror=_unreadable, followlinks=False):
            names.sort()
            for file in sorted([*names, *files]):
                path = Path(folder, file)
                info = path.lstat()
                name = str(path.relative_to(self._root))
                if stat.S_ISREG(info.st_mode):
                    header = tar.Header(name, tar.FILE, info.st_size, "", False, 0, 0)
                    self._add(header, Member(name, info.st_size))
                elif stat.S_ISLNK(info.st_mode):
                    self._add(tar.Header(name, tar.SYMLINK, 0, str(path.readlink()), False, 0, 0))

    def _open(self, member: Member) -> Reader:
        return PathReader(self._root / member.name, member.size)


class PathReader(FileReader):
    """A file of a folder, open for as long as this object lives."""

    def __init__(self, path: Path, size: int) -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _unopened(error, str(path)) from None
        weakref.finalize(self, os.close, fd)
        super().__init__(fd, 0, size)


def _unopened(error: OSError, what: str) -> BadInput | NotFound:
    if isinstance(error, FileNotFoundError):
        return NotFound("no such file or directory", what=what)
    return BadInput(f"cannot open: {error.strerror}", what=what)


def _unreadable(error: OSError) -> None:
    raise _unopened(error, str(error.filename)) from None


def open_source(where: str | Path | int, limit: compression.Limit = LIMIT) -> Source:
    """An archive by path, or by the descriptor of something that is open (a pipe, standard input).

    The descriptor is duplicated; the caller's stays open. `limit` bounds what a compressed archive, or a compressed
    layer in it, may become.
    Nothing is scanned yet.
    """
    what = name_of(where)
    if isinstance(where, int):
        fd = os.dup(where)
    else:
        path = Path(where)
        if path.is_dir():
            return Folder(path, limit)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _unopened(error, what) from None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        base = os.lseek(fd, 0, os.SEEK_CUR)
        if compression.detect(os.pread(fd, compression.DETECT_SIZE, base)) is None:
            return TarFile(fd, what, limit, base)
    return TarStream(os.fdopen(fd, "rb", buffering=0), what, limit)
