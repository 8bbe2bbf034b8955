"""Where bytes come from: what ingest reads. Two shapes, a file read in place and a stream read once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from ..errors import BadInput, NotFound
from ..model import Buffer


class Source(Protocol):
    """Bytes of one blob. `size` is None where unknown; `readinto` fills as much as it can, 0 at the end."""

    size: int | None

    def readinto(self, view: memoryview) -> int: ...


class Ranged(Protocol):
    """Something that can be read at an offset."""

    size: int

    def pread(self, offset: int, length: int) -> bytes: ...


class RangeSource:
    """A span of something that can be read at offsets (a member of an archive, a loose object)."""

    def __init__(self, reader: Ranged, offset: int = 0, size: int | None = None) -> None:
        self._reader = reader
        self._offset = offset
        self.size: int | None = reader.size - offset if size is None else size
        self._left = self.size

    def readinto(self, view: memoryview) -> int:
        want = min(len(view), self._left)
        if not want:
            return 0
        into = getattr(self._reader, "pread_into", None)
        if into is not None:
            got = int(into(self._offset, view[:want]))
        else:
            data = self._reader.pread(self._offset, want)
            got = len(data)
            view[:got] = data
        if got == 0:
            raise BadInput("unexpected EOF", offset=self._offset)
        self._offset += got
        self._left -= got
        return got


class StreamSource:
    """A readable object (`read(n)`), read once. With `size` given, a short stream is an error."""

    def __init__(self, stream: object, size: int | None = None) -> None:
        self._stream = stream
        self.size = size
        self._seen = 0

    def readinto(self, view: memoryview) -> int:
        want = len(view) if self.size is None else min(len(view), self.size - self._seen)
        if not want:
            return 0
        into = getattr(self._stream, "readinto", None)
        if into is not None:
            got = int(into(view[:want]) or 0)
        else:
            data = self._stream.read(want)  # type: ignore[attr-defined]
            got = len(data)
            view[:got] = data
        if got == 0 and self.size is not None:
            raise BadInput("unexpected EOF", offset=self._seen)
        self._seen += got
        return got


class BytesSource:
    """Bytes in memory."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)
        self.size: int | None = len(data)

    def readinto(self, view: memoryview) -> int:
        got = min(len(view), len(self._data))
        view[:got] = self._data[:got]
        self._data = self._data[got:]
        return got


class Resumed:
    """A source whose first bytes were already read."""

    def __init__(self, head: bytes, rest: Source) -> None:
        self._head = head
        self._rest = rest
        self.size = rest.size

    def readinto(self, view: memoryview) -> int:
        if self._head:
            got = min(len(view), len(self._head))
            view[:got], self._head = self._head[:got], self._head[got:]
            return got
        return self._rest.readinto(view)


class Chained:
    """One source after the other."""

    def __init__(self, *sources: Source) -> None:
        self._sources = [*sources]
        sizes = [one.size for one in sources]
        self.size = None if None in sizes else sum(size or 0 for size in sizes)

    def readinto(self, view: memoryview) -> int:
        while self._sources:
            got = self._sources[0].readinto(view)
            if got:
                return got
            del self._sources[0]
        return 0


def fill(source: Source, view: memoryview) -> int:
    """Read until `view` is full or the source ends; bytes read."""
    total = 0
    while total < len(view):
        got = source.readinto(view[total:])
        if got == 0:
            break
        total += got
    return total


def chunks(source: Source, size: int = 1 << 20) -> Iterator[memoryview]:
    """The source as buffers of up to `size` bytes; each is valid until the next is asked for."""
    buffer = bytearray(size)
    view = memoryview(buffer)
    while got := fill(source, view):
        yield view[:got]


def name_of(where: str | Path | int) -> str:
    """What errors call it: its path, or which descriptor it is."""
    if isinstance(where, int):
        return "standard input" if where == 0 else f"descriptor {where}"
    return str(where)


def public_url(url: str) -> str:
    """A URL without the user and password that may stand in it: what others may see of it."""
    scheme, slashes, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{slashes}{host.rpartition('@')[2]}{slash}{path}"


def open_input(where: str | Path | int) -> BinaryIO:
    """A file by path, or an open descriptor (duplicated), for reading once. NotFound, BadInput."""
    if isinstance(where, int):
        return os.fdopen(os.dup(where), "rb", buffering=1 << 20)
    try:
        return open(where, "rb", buffering=1 << 20)
    except FileNotFoundError:
        raise NotFound("no such file or directory", what=str(where)) from None
    except OSError as error:
        raise BadInput(error.strerror or "cannot open", what=str(where)) from None


class Buffers:
    """Buffers, one after the other, as something that can be read."""

    def __init__(self, buffers: Iterable[Buffer]) -> None:
        self._buffers = iter(buffers)
        self._left = memoryview(b"")

    def read(self, length: int = -1) -> bytes:
        while not self._left:
            try:
                self._left = memoryview(next(self._buffers)).cast("B")
            except StopIteration:
                return b""
        piece = self._left[: length if length >= 0 else None]
        self._left = self._left[len(piece) :]
        return bytes(piece)
