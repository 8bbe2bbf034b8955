"""One large blob off the wire over several connections at once: many servers give each of them only so much."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from ..digest import Digest
from ..errors import Interrupted
from ..flow.source import fill
from .blob_download import BlobDownload, IgnoredRange
from .registry import Registry

PART = 8 << 20
"""Bytes that are asked for at once."""
LARGE = 32 << 20
"""A blob of which less is left comes over one connection."""


class LaneDownload:
    """What BlobDownload is, with parts of the blob fetched ahead by `lanes` threads, two for each at most in memory. A
    registry that ignores ranges is asked for the rest in one."""

    def __init__(
        self,
        registry: Registry,
        path: str,
        digest: Digest,
        size: int,
        start: int = 0,
        *,
        lanes: int,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._registry = registry
        self._path = path
        self._digest = digest
        self._whole = size
        self._check = check
        self._at = start
        self.size: int | None = size - start
        self._next = start  # the first byte that no lane has begun with
        self._ahead = 2 * lanes * PART
        self._parts: dict[int, memoryview] = {}
        self._turn = threading.Condition()
        self._failure: BaseException | None = None
        self._ignored = self._ended = False
        self._rest: BlobDownload | None = None
        self._open: set[BlobDownload] = set()
        self._threads = [threading.Thread(target=self._lane, name="lane", daemon=True) for _ in range(lanes)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the connections go."""
        with self._turn:
            self._ended = True
            self._turn.notify_all()
            for one in self._open:
                one.wake()
        for thread in self._threads:
            thread.join()
        if self._rest is not None:
            self._rest.close()

    def readinto(self, view: memoryview) -> int:
        """What has come, at least one byte; 0 at the end. RemoteFailure, BadInput, NotFound."""
        if self._rest is None:
            with self._turn:
                while self._at < self._whole and not (self._at in self._parts or self._failure or self._ignored):
                    self._check()
                    self._turn.wait(0.2)
                part = self._parts.pop(self._at, None)
                if part is not None:
                    got = min(len(view), len(part))
                    view[:got] = part[:got]
                    self._at += got
                    if got < len(part):
                        self._parts[self._at] = part[got:]
                    else:
                        self._turn.notify_all()
                    return got
                if self._failure is not None:
                    raise self._failure
                if self._at >= self._whole:
                    return 0
            path, digest = self._path, self._digest
            self._rest = BlobDownload(self._registry, path, digest, self._whole, self._at, check=self._check)
        return self._rest.readinto(view)

    def _lane(self) -> None:
        try:
            while (start := self._claim()) is not None:
                stop = min(start + PART, self._whole)
                one = BlobDownload(
                    self._registry, self._path, self._digest, self._whole, start, stop, check=self._check_lane
                )
                with self._turn:
                    self._open.add(one)
                try:
                    data = memoryview(bytearray(stop - start))
                    fill(one, data)
                finally:
                    one.close()
                    with self._turn:
                        self._open.discard(one)
                with self._turn:
                    self._parts[start] = data
                    self._turn.notify_all()
        except IgnoredRange:
            with self._turn:
                self._ignored = True
                self._turn.notify_all()
        except BaseException as error:
            with self._turn:
                self._failure = self._failure or error
                self._turn.notify_all()

    def _check_lane(self) -> None:
        self._check()
        if self._ended:
            raise Interrupted("not wanted any more")

    def _claim(self) -> int | None:
        """Where the next part begins, once there is room for it."""
        with self._turn:
            while not self._ended and not self._failure and not self._ignored and self._next < self._whole:
                if self._next < self._at + self._ahead:
                    start = self._next
                    self._next += PART
                    return start
                self._turn.wait()
            return None


def download(
    registry: Registry,
    path: str,
    digest: Digest,
    size: int,
    start: int = 0,
    *,
    lanes: int = 1,
    check: Callable[[], None] = lambda: None,
) -> BlobDownload | LaneDownload:
    """A blob's bytes from `start` on, over up to `lanes` connections if it is large."""
    if lanes > 1 and size - start >= LARGE:
        return LaneDownload(registry, path, digest, size, start, lanes=lanes, check=check)
    return BlobDownload(registry, path, digest, size, start, check=check)
