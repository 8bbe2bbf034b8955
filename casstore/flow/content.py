"""A layer's content, uncompressed, to be read in any order; and streams put together from pieces of several contents.

A packed blob is read where it lies: its entries from the literal track alone, its files from the frames that hold them.
Anything else is unfolded once, verified, into a file without a name.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import BinaryIO, Self

import numpy as np

from ..codec.compression import Limit
from ..errors import BadInput, CasstoreError
from ..kernels.tarscan import Entry, Scanner
from ..model import BlobInfo
from ..store.disk import translate, write_all
from ..store.volume import Volume
from .layout import Spans
from .restore import WINDOW, Ahead, BlobReader
from .step import Step


class Content:
    """One layer, open. `entries`: all of them, in order; `size`: bytes of the tar; `ended`: its end was marked;
    `missing`: bytes of its last payload that never came.

    `what` names the layer in errors. BadInput, LimitExceeded: it is not what its encoding says.
    """

    def __init__(self, volume: Volume, info: BlobInfo, ahead: Ahead, *, limit: Limit, step: Step | None = None) -> None:
        self.what = f"layer {info.digest}"
        self._file: BinaryIO | None = None
        self._reader = BlobReader(volume, info)
        scanner = Scanner(entries=True)
        if info.place.state == "packed":
            self._reader.scan(scanner, ahead)
        else:
            self._file = volume.objects.scratch()
            self._unfold(scanner, ahead, limit, step)
        scanner.finish()
        self.size, self.ended, self.missing = scanner.position, scanner.ended, scanner.payload_left
        self.entries: Sequence[Entry] = scanner.pop_entries()

    def _unfold(self, scanner: Scanner, ahead: Ahead, limit: Limit, step: Step | None) -> None:
        """The stream inside the blob into the file."""
        if self._file is None:
            return
        for data in self._reader.content(limit, ahead=ahead):
            scanner.feed(data)
            try:
                write_all(self._file.fileno(), data)
            except OSError as error:
                raise translate(error, "a temporary file") from error
            if step is not None:
                step.advance(len(data))

    def copy(self, out: bytearray, spans: Spans) -> None:
        """Spans of the content into a buffer. BadInput where one reaches beyond it. Thread-safe."""
        if int(spans.ends.max()) > self.size:
            raise BadInput("unexpected EOF", what=self.what, offset=self.size)
        if self._file is None:
            self._reader.copy(out, spans)
            return
        view = memoryview(out)
        for start, end, to in zip(*(column.tolist() for column in spans), strict=True):
            while start < end:
                got = os.preadv(self._file.fileno(), [view[to : to + end - start]], start)
                if not got:
                    raise CasstoreError("a temporary file was cut short")
                start, to = start + got, to + got

    def read(self, start: int, end: int) -> bytes:
        """Bytes [start, end)."""
        out = bytearray(end - start)
        if out:
            self.copy(out, Spans.one(start, end))
        return bytes(out)

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


Part = bytes | tuple[int, int, int]
"""The bytes themselves, or (number of a content, where in it, how many bytes)."""


def gather(contents: Sequence[Content], parts: Iterable[Part], ahead: Ahead) -> Iterator[memoryview]:
    """The stream that the parts make, one after the other, in buffers of up to WINDOW bytes, some made ahead."""
    queue: deque[Future[bytearray]] = deque()
    try:
        for made in _windows(parts):
            queue.append(ahead.pool.submit(made.fill, contents))
            if len(queue) > ahead.threads + 1:
                yield memoryview(queue.popleft().result())
        while queue:
            yield memoryview(queue.popleft().result())
    finally:
        for future in queue:
            future.cancel()


class _Window:
    """What one buffer is made of."""

    def __init__(self) -> None:
        self.size = 0
        self.literals: list[tuple[int, bytes]] = []
        self.spans: dict[int, tuple[list[int], list[int], list[int]]] = {}

    def fill(self, contents: Sequence[Content]) -> bytearray:
        out = bytearray(self.size)
        for to, data in self.literals:
            out[to : to + len(data)] = data
        for number, columns in self.spans.items():
            contents[number].copy(out, Spans(*(np.array(column, np.uint64) for column in columns)))
        return out


def _windows(parts: Iterable[Part]) -> Iterator[_Window]:
    window = _Window()
    for part in parts:
        if isinstance(part, bytes):
            window.literals.append((window.size, part))
            window.size += len(part)
        else:
            number, at, length = part
            while length:
                if window.size >= WINDOW:
                    yield window
                    window = _Window()
                step = min(length, WINDOW - window.size)
                starts, ends, to = window.spans.setdefault(number, ([], [], []))
                starts.append(at)
                ends.append(at + step)
                to.append(window.size)
                window.size += step
                at += step
                length -= step
        if window.size >= WINDOW:
            yield window
            window = _Window()
    if window.size:
        yield window
