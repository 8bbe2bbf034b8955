"""Blobs off the wire, taken up again where a connection broke."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import TracebackType
from typing import Self

from urllib3.exceptions import HTTPError

from ..digest import Digest
from ..errors import BadInput, RemoteFailure
from .download import EARLY, reason
from .http import Answer, Stalled
from .registry import Registry

ENOUGH = 1 << 20
"""Bytes after which a connection that breaks counts as a new trouble, not as the same again."""

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(?:\d{1,19}|\*)")


class IgnoredRange(Exception):
    """The registry gives blobs whole or not at all."""


class BlobDownload:
    """A blob's bytes from `start` on, as something to read (flow's Source): exactly `size` bytes less `start`, or an
    error. What they hash to is the reader's business. Whoever has the first bytes already (a transfer that an earlier
    process began) hashes those and gives their number as `start`. `stop`: only up to there, or IgnoredRange. `check` is
    called now and then, and may raise."""

    def __init__(
        self,
        registry: Registry,
        path: str,
        digest: Digest,
        size: int,
        start: int = 0,
        stop: int | None = None,
        *,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._check = check
        self._registry = registry
        self._path = path
        self._digest = digest
        self._whole = size
        self._stop = stop
        self._end = size if stop is None else stop
        self._at = start
        self._answer: Answer | None = None
        self._failures = 0
        self._good = start
        self._what = f"{registry.domain}/{path}@{digest}"
        self.size: int | None = self._end - start

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the connection go."""
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.close()

    def wake(self) -> None:
        """Whoever waits for bytes of it, in another thread, finds the connection broken."""
        if (answer := self._answer) is not None:
            answer.wake()

    def readinto(self, view: memoryview) -> int:
        """What has come, at least one byte; 0 at the end. RemoteFailure, BadInput, NotFound."""
        want = min(len(view), self._end - self._at)
        while want:
            self._check()
            try:
                if self._answer is None:
                    self._answer = self._open()
                got = self._answer.readinto(view[:want])
            except (HTTPError, OSError, Stalled) as error:
                self._broke(reason(error))
                continue
            if not got:
                self._broke(EARLY)
                continue
            self._at += got
            if self._at - self._good >= ENOUGH:
                self._good, self._failures = self._at, 0
            if self._at == self._end:
                self.close()
            return got
        return 0

    def _open(self) -> Answer:
        answer = self._registry.open_blob(self._path, self._digest, self._at, self._stop)
        if answer.status == 206:
            found = _CONTENT_RANGE.fullmatch(answer.header("Content-Range"))
            if found is None or int(found[1]) != self._at:
                answer.close()
                raise BadInput("the registry answers with another range than was asked for", what=self._what)
            left = self._end - self._at
        elif self._stop is not None:
            answer.close()
            raise IgnoredRange
        else:
            left = self._whole
        if answer.size is not None and answer.size != left:
            answer.close()
            promised = answer.size + self._whole - left
            raise BadInput(f"its size is {promised}, its descriptor says {self._whole}", what=self._what)
        if answer.status == 200 and self._at:
            self._skip(answer)  # Range was ignored
        return answer

    def _skip(self, answer: Answer) -> None:
        scratch = memoryview(bytearray(256 << 10))
        left = self._at
        try:
            while left:
                got = answer.readinto(scratch[: min(left, len(scratch))])
                if not got:
                    raise Stalled(EARLY)
                left -= got
        except BaseException:
            answer.close()
            raise

    def _broke(self, why: str) -> None:
        self.close()
        self._failures += 1
        if self._failures > self._registry.http.network.retries:
            raise RemoteFailure(f"the download broke off: {why}", what=self._what, offset=self._at)
        self._registry.http.wait(self._failures - 1)
