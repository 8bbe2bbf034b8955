"""What an archive holds: members by name, found without unpacking anything.

A plain tar in a file is read in place: one pass over its headers, then any member at any offset. A pipe, or a tar
under compression, goes by once: large members are handed to the caller's sink in the order in which they come, small
ones are kept. A folder has its files as members.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Protocol, Self

from ..codec import compression
from ..digest import Digest
from ..errors import BadInput, LimitExceeded, NotFound
from ..oci.document import MAX_ARCHIVE_JSON
from . import tar

MAX_MEMBERS = 200_000
MAX_KEPT = 64 << 20
"""Bytes of small members kept in memory while an archive goes by."""
SMALL = 64 << 10
"""A member up to this size is kept in memory, whatever it is."""
MAX_DOCUMENT_GUESS = 4 << 20
"""Up to this size, a member that begins like JSON is kept: it may be a manifest or a config."""
LIMIT = compression.Limit(ratio=2000, free=1 << 30)
"""What a compressed archive may become unless told otherwise (gzip cannot exceed a ratio of about 1030)."""
_MAX_HOPS = 40
_DOCUMENT_NAMES = frozenset({"manifest.json", "index.json", "repositories", "oci-layout"})


class Reader(Protocol):
    """Bytes that can be read at an offset, from any thread."""

    size: int

    def pread(self, offset: int, length: int) -> bytes: ...

    def pread_into(self, offset: int, view: memoryview) -> int: ...


class Landed(NamedTuple):
    """What the sink made of a member: the digest of its bytes and, where it found out, of its uncompressed stream."""

    digest: Digest
    diff_id: Digest | None = None


class Stream(Protocol):
    """One member going by: exactly `size` bytes."""

    size: int

    def read(self, length: int) -> bytes: ...

    def readinto(self, view: memoryview) -> int: ...


Sink = Callable[[str, Stream, int], Landed]
"""(member's name, its bytes, how many) → what became of it."""


class Member(NamedTuple):
    """A regular file of an archive: where its bytes are (one of: an offset, memory, landed in the sink)."""

    name: str
    size: int
    offset: int = 0
    data: bytes | None = None
    landed: Landed | None = None
    sparse: bool = False


class Source:
    """An archive, scanned. `members` by clean name; `what` names it in errors."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.members: dict[str, Member] = {}
        self._links: dict[str, tuple[bool, str]] = {}
        self._twice: set[str] = set()
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def seekable(self) -> bool:
        """May members be opened at will? Else `scan` needs a sink, and what went there is gone."""
        return True

    def scan(self, sink: Sink | None = None) -> None:
        """Find the members. Once, before anything else."""
        raise NotImplementedError

    def close(self) -> None: ...

    def names(self) -> list[str]:
        """Every file and link."""
        return [*self.members, *self._links]

    def find(self, path: str) -> Member | None:
        """The file that a path leads to, symlinks and hard links followed inside the archive; None if there is none.

        BadInput: the path or a link leaves the archive, links in a circle, a name that stands twice.
        """
        name = self._resolve(path)
        if name in self._twice:
            raise BadInput("archive holds a member twice", what=f"{self.what}: {name}")
        return self.members.get(name)

    def get(self, path: str) -> Member:
        """`find`, or NotFound naming the member."""
        member = self.find(path)
        if member is None:
            raise NotFound("archive has no such member", what=f"{self.what}: {path}")
        return member

    def open(self, path: str) -> Reader:
        """A member as something to read at offsets. Members that went to the sink cannot be opened."""
        member = self.get(path)
        if member.sparse:
            raise BadInput("sparse members are not supported", what=f"{self.what}: {path}")
        if member.data is not None:
            return MemoryReader(member.data)
        if member.landed is not None:
            raise BadInput("member has gone by", what=f"{self.what}: {path}")
        return self._open(member)

    def read(self, path: str, limit: int) -> bytes:
        """A whole member of at most `limit` bytes."""
        member = self.get(path)
        if member.size > limit:
            raise LimitExceeded(f"larger than {limit} bytes", what=f"{self.what}: {path}")
        if member.landed is not None:
            raise LimitExceeded("document is too large to be read from a stream", what=f"{self.what}: {path}")
        data = self.open(path).pread(0, member.size)
        if len(data) != member.size:
            raise BadInput("unexpected EOF", what=f"{self.what}: {path}")
        return data

    def _open(self, member: Member) -> Reader:
        raise NotImplementedError

    def _add(self, header: tar.Header, member: Member | None = None) -> None:
        self._count += 1
        if self._count > MAX_MEMBERS:
            raise LimitExceeded(f"more than {MAX_MEMBERS} members", what=self.what)
        name = clean(header.name)
        if not name or header.kind in (tar.FOLDER, tar.OTHER):
            return
        if name in self.members or name in self._links:
            self._twice.add(name)
        elif header.kind == tar.FILE and member is not None:
            self.members[name] = member
        elif header.kind in (tar.SYMLINK, tar.HARD_LINK):
            self._links[name] = (header.kind == tar.HARD_LINK, header.link)

    def _resolve(self, path: str) -> str:
        where = f"{self.what}: {path}"
        if not path or path.startswith("/") or "\0" in path or ".." in path.split("/"):
            raise BadInput("invalid path, it leaves the archive", what=where)
        ahead, walked, hops = _parts(path), list[str](), 0
        while ahead:
            part = ahead.pop(0)
            if part == "..":
                if not walked:
                    raise BadInput("link leaves the archive", what=where)
                walked.pop()
                continue
            walked.append(part)
            link = self._links.get("/".join(walked))
            if link is None:
                continue
            hops += 1
            if hops > _MAX_HOPS:
                raise BadInput("too many levels of links", what=where)
            from_root, target = link
            if not from_root and target.startswith("/"):
                raise BadInput("link leaves the archive", what=where)
            walked = [] if from_root else walked[:-1]
            ahead = _parts(target) + ahead
        return "/".join(walked)


def clean(name: str) -> str:
    """A member's name without `./`, doubled and leading slashes; "" for one that climbs: nothing can refer to it."""
    parts = _parts(name)
    return "" if ".." in parts else "/".join(parts)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


class MemoryReader:
    """A member that is in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def pread(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]

    def pread_into(self, offset: int, view: memoryview) -> int:
        piece = self._data[offset : offset + len(view)]
        view[: len(piece)] = piece
        return len(piece)


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

    def __init__(self, fd: int, what: str, base: int = 0) -> None:
        super().__init__(what)
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


class TarStream(Source):
    """A tar that goes by once."""

    def __init__(self, file: BinaryIO, what: str, limit: compression.Limit) -> None:
        super().__init__(what)
        self._file = file
        self._raw = compression.open_stream(file, limit, what)
        self._kept = 0

    @property
    def seekable(self) -> bool:
        return False

    def scan(self, sink: Sink | None = None) -> None:
        if sink is None:
            raise BadInput("a stream needs somewhere for its layers to go", what=self.what)
        cursor = _StreamCursor(self._raw, self.what)
        for header in tar.walk(cursor, self.what):
            member = self._take(header, cursor, sink) if header.kind == tar.FILE else None
            self._add(header, member)
        cursor.drain()

    def _take(self, header: tar.Header, cursor: _StreamCursor, sink: Sink) -> Member | None:
        name = clean(header.name)
        if not name or header.sparse:
            return Member(name, header.size, sparse=header.sparse)
        head = cursor.peek(min(header.size, 16))
        document = name in _DOCUMENT_NAMES or name.endswith(".json")
        if document and header.size > MAX_ARCHIVE_JSON:
            raise LimitExceeded(f"larger than {MAX_ARCHIVE_JSON} bytes", what=f"{self.what}: {name}")
        document = document or (header.size <= MAX_DOCUMENT_GUESS and head.lstrip()[:1] == b"{")
        if document or header.size <= SMALL:
            self._kept += header.size
            if self._kept > MAX_KEPT:
                raise LimitExceeded(
                    f"small members take more than {MAX_KEPT} bytes",
                    what=self.what,
                    hint="load it from a file",
                )
            data = cursor.read(header.size)
            if len(data) != header.size:
                raise BadInput("unexpected EOF", what=f"{self.what}: {name}", offset=cursor.position)
            return Member(name, header.size, data=data)
        stream = _MemberStream(cursor, header.size, f"{self.what}: {name}")
        return Member(name, header.size, landed=sink(name, stream, header.size))

    def close(self) -> None:
        self._file.close()


class _StreamCursor:
    def __init__(self, raw: compression.Stream, what: str) -> None:
        self._raw = raw
        self._what = what
        self._ahead = b""
        self.position = 0

    def peek(self, length: int) -> bytes:
        while len(self._ahead) < length and (more := self._raw.read(max(tar.BLOCK, length))):
            self._ahead += more
        return self._ahead[:length]

    def some(self, length: int) -> bytes:
        """At most `length` bytes, at least one unless at the end."""
        if self._ahead:
            data, self._ahead = self._ahead[:length], self._ahead[length:]
        else:
            data = self._raw.read(length)
        self.position += len(data)
        return data

    def read(self, length: int) -> bytes:
        pieces: list[bytes] = []
        while length and (data := self.some(min(length, 1 << 20))):
            pieces.append(data)
            length -= len(data)
        return b"".join(pieces)

    def skip(self, length: int) -> None:
        while length:
            data = self.some(min(length, 1 << 20))
            if not data:
                raise BadInput("unexpected EOF", what=self._what, offset=self.position)
            length -= len(data)

    def drain(self) -> None:
        """To the end: so that a checksum there is verified, and whoever writes into the pipe may finish."""
        while self.some(1 << 20):
            pass


class _MemberStream:
    def __init__(self, cursor: _StreamCursor, size: int, what: str) -> None:
        self._cursor = cursor
        self._what = what
        self._left = size
        self.size = size

    def read(self, length: int) -> bytes:
        want = self._left if length < 0 else min(length, self._left)
        data = self._cursor.some(want) if want else b""
        if want and not data:
            raise BadInput("unexpected EOF", what=self._what, offset=self._cursor.position)
        self._left -= len(data)
        return data

    def readinto(self, view: memoryview) -> int:
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)


class Folder(Source):
    """A folder whose files are the members: an OCI layout as skopeo and buildx leave it."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
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
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115 (closed with this object)
        except OSError as error:
            raise _unopened(error, str(path)) from None
        super().__init__(self._file.fileno(), 0, size)


def _unopened(error: OSError, what: str) -> BadInput | NotFound:
    if isinstance(error, FileNotFoundError):
        return NotFound("no such file or directory", what=what)
    return BadInput(f"cannot open: {error.strerror}", what=what)


def _unreadable(error: OSError) -> None:
    raise _unopened(error, str(error.filename)) from None


def open_source(where: str | Path | int, limit: compression.Limit = LIMIT) -> Source:
    """An archive by path, or by the descriptor of something that is open (a pipe, standard input).

    The descriptor is duplicated; the caller's stays open. `limit` bounds what a compressed archive may become.
    Nothing is scanned yet.
    """
    if isinstance(where, int):
        fd, what = os.dup(where), "standard input" if where == 0 else f"descriptor {where}"
    else:
        path, what = Path(where), str(where)
        if path.is_dir():
            return Folder(path)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _unopened(error, what) from None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        base = os.lseek(fd, 0, os.SEEK_CUR)
        if compression.detect(os.pread(fd, 512, base)) is None:
            return TarFile(fd, what, base)
    return TarStream(os.fdopen(fd, "rb", buffering=0), what, limit)
