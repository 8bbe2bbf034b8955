"""An archive that goes by once: a pipe, or a file under compression.

Large members are handed to the caller's sink in the order in which they come; small ones are kept, for they may be
documents, and which of them are is known only at the end.
"""

from __future__ import annotations

import fcntl
from contextlib import suppress
from typing import BinaryIO, Protocol

from ..codec import compression
from ..errors import BadInput, LimitExceeded
from ..oci.document import MAX_ARCHIVE_JSON
from . import tar
from .members import Member, Sink, Source, clean

MAX_KEPT = 64 << 20
"""Bytes of small members kept in memory while an archive goes by."""
SMALL = 64 << 10
"""A member up to this size is kept in memory, whatever it is."""
MAX_DOCUMENT_GUESS = 4 << 20
"""Up to this size, a member that begins like JSON is kept: it may be a manifest or a config."""
_DOCUMENT_NAMES = frozenset({"manifest.json", "index.json", "repositories", "oci-layout"})
_PIPE_SIZE = 1 << 20
_PIECE = 1 << 20


class TarStream(Source):
    """A tar that goes by once. Owns `file`; `limit` bounds what it may become if it is compressed."""

    def __init__(self, file: BinaryIO, what: str, limit: compression.Limit) -> None:
        super().__init__(what, limit)
        self._file = file
        with suppress(OSError):  # no pipe, or larger than this user may have it
            fcntl.fcntl(file.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        plain = _Plain(file)
        packed = compression.detect(plain.ahead) is not None
        self._raw: _Input = _Unpacked(compression.open_stream(plain, limit, what)) if packed else plain
        self._kept = 0

    @property
    def seekable(self) -> bool:
        return False

    def scan(self, sink: Sink | None = None) -> None:
        if sink is None:
            raise BadInput("a stream needs somewhere for its layers to go", what=self.what)
        cursor = _Cursor(self._raw, self.what)
        for header in tar.walk(cursor, self.what):
            member = self._take(header, cursor, sink) if header.kind == tar.FILE else None
            self._add(header, member)
        cursor.drain()

    def _take(self, header: tar.Header, cursor: _Cursor, sink: Sink) -> Member | None:
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
        stream = _Passing(cursor, header.size, f"{self.what}: {name}")
        return Member(name, header.size, landed=sink(name, stream, header.size))

    def close(self) -> None:
        self._file.close()


class _Input(Protocol):
    """Bytes in order; none only at the end."""

    def read(self, size: int, /) -> bytes: ...

    def readinto(self, view: memoryview, /) -> int: ...


class _Plain:
    """An unbuffered file, and the first bytes of it that were read to see what it is."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.ahead = b""
        while len(self.ahead) < compression.DETECT_SIZE and (more := file.read(compression.DETECT_SIZE)):
            self.ahead += more

    def read(self, size: int, /) -> bytes:
        if self.ahead:
            data, self.ahead = self.ahead[:size], self.ahead[size:]
            return data
        return self._file.read(size) or b""

    def readinto(self, view: memoryview, /) -> int:
        if self.ahead:
            data = self.read(len(view))
            view[: len(data)] = data
            return len(data)
        return self._file.readinto(view) or 0  # type: ignore[attr-defined]


class _Unpacked:
    """What is inside a compressed stream."""

    def __init__(self, stream: compression.Stream) -> None:
        self._stream = stream

    def read(self, size: int, /) -> bytes:
        return self._stream.read(size)

    def readinto(self, view: memoryview, /) -> int:
        data = self._stream.read(min(len(view), _PIECE))
        view[: len(data)] = data
        return len(data)


class _Cursor:
    """Where the walk over the headers stands."""

    def __init__(self, raw: _Input, what: str) -> None:
        self._raw = raw
        self._what = what
        self._ahead = b""
        self.position = 0

    def peek(self, length: int) -> bytes:
        """The next `length` bytes, fewer at the end, without passing over them."""
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

    def some_into(self, view: memoryview) -> int:
        """The same, without a copy where that can be."""
        if self._ahead:
            data = self.some(len(view))
            view[: len(data)] = data
            return len(data)
        got = self._raw.readinto(view)
        self.position += got
        return got

    def read(self, length: int) -> bytes:
        pieces: list[bytes] = []
        while length and (data := self.some(min(length, _PIECE))):
            pieces.append(data)
            length -= len(data)
        return b"".join(pieces)

    def skip(self, length: int) -> None:
        while length:
            data = self.some(min(length, _PIECE))
            if not data:
                raise BadInput("unexpected EOF", what=self._what, offset=self.position)
            length -= len(data)

    def drain(self) -> None:
        """To the end: so that a checksum there is verified, and whoever writes into the pipe may finish."""
        while self.some(_PIECE):
            pass


class _Passing:
    """One member going by."""

    def __init__(self, cursor: _Cursor, size: int, what: str) -> None:
        self._cursor = cursor
        self._what = what
        self._left = size
        self.size = size

    def read(self, length: int) -> bytes:
        want = self._left if length < 0 else min(length, self._left)
        data = self._cursor.some(want) if want else b""
        self._passed(want, len(data))
        return data

    def readinto(self, view: memoryview) -> int:
        want = min(len(view), self._left)
        got = self._cursor.some_into(view[:want]) if want else 0
        self._passed(want, got)
        return got

    def _passed(self, want: int, got: int) -> None:
        if want and not got:
            raise BadInput("unexpected EOF", what=self._what, offset=self._cursor.position)
        self._left -= got
