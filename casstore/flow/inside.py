"""What is inside a compressed blob, found out by a thread of its own while the blob goes by: whoever reads that off a
wire does not wait for the inflating."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from ..codec import compression
from ..digest import Digest
from ..errors import BadInput
from ..kernels import hashing, tarscan

_AHEAD = 8
"""Pieces that wait to be inflated, at most."""


class Inside:
    """`feed` it the compressed pieces, then `finish`; or `close`. `strict`: what is not what its first bytes say, or
    becomes more than `limit`, is an error (BadInput) in the end; else what is inside stays unknown."""

    def __init__(self, kind: str, limit: compression.Limit, *, strict: bool) -> None:
        self._limit = limit
        self._strict = strict
        self._pieces: deque[memoryview] = deque()
        self._turn = threading.Condition()
        self._done = self._over = False
        self._failure: BaseException | None = None
        self.known = False
        self._digest = hashing.Sha256()
        self._scanner = tarscan.Scanner()
        self.size = 0
        self._thread = threading.Thread(target=self._run, name=f"inside {kind}", daemon=True)
        self._thread.start()

    @property
    def digest(self) -> Digest:
        """SHA-256 of what is inside, once that is known."""
        return Digest.sha256(self._digest.digest())

    @property
    def files_size(self) -> int:
        """docker's SIZE of what is inside."""
        return int(self._scanner.content_size)

    def feed(self, piece: memoryview) -> None:
        """The next bytes of the blob; they are copied."""
        with self._turn:
            while len(self._pieces) >= _AHEAD and not self._over:
                self._turn.wait()
            if not self._over:
                self._pieces.append(memoryview(bytes(piece)))
                self._turn.notify_all()

    def finish(self) -> None:
        """The blob has ended: wait for what is inside. BadInput, where strict."""
        with self._turn:
            self._done = True
            self._turn.notify_all()
        self._thread.join()
        if self._failure is not None and (self._strict or not isinstance(self._failure, BadInput)):
            raise self._failure

    def close(self) -> None:
        """It is not wanted any more."""
        with self._turn:
            self._over = True
            self._pieces.clear()
            self._turn.notify_all()
        self._thread.join()

    def read(self, size: int) -> memoryview:
        """For the decompressor: some of what came."""
        with self._turn:
            while not self._pieces and not self._done and not self._over:
                self._turn.wait()
            if not self._pieces or self._over:
                return memoryview(b"")
            piece = self._pieces[0]
            if len(piece) <= size:
                self._pieces.popleft()
                self._turn.notify_all()
                return piece
            self._pieces[0] = piece[size:]
            return piece[:size]

    def _see(self, data: bytes) -> None:
        """What was inflated: hashed while the next is."""
        self._digest.update(data)
        self._scanner.feed(data)
        self.size += len(data)

    def _run(self) -> None:
        try:
            stream = compression.open_stream(self, self._limit)
            with ThreadPoolExecutor(1, thread_name_prefix="inside") as beside:
                before: Future[None] | None = None
                while data := stream.read(1 << 20):
                    this = beside.submit(self._see, data)
                    if before is not None:
                        before.result()
                    before = this
                if before is not None:
                    before.result()
            self._scanner.finish()
            self.known = True
        except BaseException as error:
            self._failure = error
        finally:
            with self._turn:
                self._over = True  # what else comes is of no interest
                self._pieces.clear()
                self._turn.notify_all()
