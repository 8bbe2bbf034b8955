"""Frames in the making: new chunks are gathered into frames, frames are compressed and checked on a pool.

A frame is decoded again right after it was made and every chunk in it hashed: what goes into a pack has been replayed.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from ..codec import frame as frame_codec
from ..errors import Damaged
from ..kernels import spans
from ..model import FRAME_BITS, U8, U32, U64, Buffer
from ..store.packs import PackShelf, Slot
from .naming import Names

FRAME_TARGET = 1 << 20
"""Uncompressed bytes of a frame made at ingest."""


class FramePool:
    """Compresses frames in the background; at most a few wait, so memory stays bounded."""

    def __init__(self, shelf: PackShelf, names: Names, compression: str, workers: int) -> None:
        self.shelf = shelf
        self._names = names
        self._compression = compression
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="frames")
        self._room = threading.Semaphore(2 * workers + 2)
        self._futures: list[Future[None]] = []
        self._failed: BaseException | None = None
        self._buffers: list[bytearray] = []

    def buffer(self, size: int) -> bytearray:
        """A buffer of at least `size` bytes, used before if there is one: fresh memory costs as much as filling it."""
        try:
            used = self._buffers.pop()
        except IndexError:
            return bytearray(size)
        return used if len(used) >= size else bytearray(size)

    def submit(self, slot: Slot, buffer: bytearray, fill: int, digests: U8, addresses: U32, lengths: U32) -> None:
        """Make a frame of the first `fill` bytes of a buffer that is given away."""
        if self._failed is not None:
            raise self._failed
        self._room.acquire()
        self._futures.append(self._pool.submit(self._make, slot, buffer, fill, digests, addresses, lengths))
        if len(self._futures) > 256:
            self._futures = [f for f in self._futures if not f.done() or f.exception() is not None]

    def _make(self, slot: Slot, buffer: bytearray, fill: int, digests: U8, addresses: U32, lengths: U32) -> None:
        raw = memoryview(buffer)[:fill]
        try:
            codec, stored = frame_codec.compress(self._compression, raw)
            again = frame_codec.decompress(codec, stored, len(raw))
            starts = (addresses & np.uint32((1 << FRAME_BITS) - 1)).astype(np.uint64)
            if not np.array_equal(self._names.of(again, starts, lengths), digests):
                raise Damaged("a frame does not decode to the chunks that went into it", what=f"frame {slot}")
            self.shelf.write_frame(slot, codec, len(raw), stored, (digests, addresses, lengths))
        except BaseException as error:
            self._failed = error
            raise
        finally:
            raw.release()
            self._buffers.append(buffer)
            self._room.release()

    def join(self) -> None:
        """Wait for all frames; raises what went wrong in any of them."""
        for future in self._futures:
            future.result()
        self._futures.clear()

    def shutdown(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


class FrameBuilder:
    """Gathers chunks into one frame after the other. Used by one thread."""

    def __init__(self, pool: FramePool, target: int = FRAME_TARGET) -> None:
        self._pool = pool
        self._target = target
        self._slot: Slot | None = None
        self._buffer = bytearray()
        self._fill = 0
        self._parts: list[tuple[U8, U32, U32]] = []

    def add(self, buffer: Buffer, starts: U64, lengths: U32, digests: U8) -> tuple[U64, U64]:
        """Append chunks; returns for each its pack's slot number and its address, (n,) uint64 both."""
        n = len(starts)
        slots = np.empty(n, np.uint64)
        addresses = np.empty(n, np.uint64)
        done = 0
        while done < n:
            if self._slot is None:
                self._slot = self._pool.shelf.open_frame()
                self._buffer = self._pool.buffer(self._target)
                self._fill = 0
            reach = np.cumsum(lengths[done:], dtype=np.uint64) + np.uint64(self._fill)
            fits = int(np.searchsorted(reach, self._target, side="right"))
            if not fits:
                if self._fill:
                    self._close()
                    continue
                fits = 1  # a chunk longer than the target has a frame of its own
                self._buffer = bytearray(int(lengths[done]))
            part = slice(done, done + fits)
            offsets = reach[:fits] - lengths[part]
            spans.copy(self._buffer, offsets, [buffer], np.zeros(fits, np.uint32), starts[part], lengths[part])
            at = offsets + np.uint64(self._slot.number << FRAME_BITS)
            slots[part] = self._slot.pack
            addresses[part] = at
            self._parts.append((digests[part].copy(), at.astype(np.uint32), lengths[part].astype(np.uint32)))
            self._fill = int(reach[fits - 1])
            done += fits
            if self._fill >= self._target:
                self._close()
        return slots, addresses

    def _close(self) -> None:
        if self._slot is None:
            return
        digests, addresses, lengths = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        self._pool.submit(self._slot, self._buffer, self._fill, digests, addresses, lengths)
        self._buffer = bytearray()
        self._slot = None
        self._parts = []

    def close(self) -> None:
        """Hand over the last frame."""
        self._close()
