"""Deep frames: what `gc` rewrites chunks into. 4 MiB, zstd at a high level, each leaning on one similar earlier frame.

A base lies in the same pack and has no base itself, so packs stay independent of each other and a chunk costs at most
two frames.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from ..codec import frame as frame_codec
from ..errors import Damaged
from ..flow.naming import Names
from ..kernels import spans
from ..model import FRAME_BITS, MAX_FRAME, U8, U32, U64, Buffer
from ..store.packs import PackShelf, Slot
from .similar import Similar

KEEP = 24
"""Frames kept uncompressed as possible bases (4 MiB each)."""
LEAST = 256 << 10
"""A frame may end at a layer's end only from this size on."""


class DeepFrames:
    """Gathers chunks into deep frames and compresses them on a pool. Used by one thread."""

    def __init__(self, shelf: PackShelf, names: Names, codec: str, workers: int) -> None:
        self.shelf = shelf
        self._names = names
        self._codec = codec
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="deep")
        self._room = threading.Semaphore(workers + 2)
        self._futures: list[Future[None]] = []
        self._similar = Similar()
        self._bases: OrderedDict[int, bytes] = OrderedDict()
        self._pack = -1
        self._buffer = bytearray(MAX_FRAME)
        self._fill = 0
        self._slot: Slot | None = None
        self._parts: list[tuple[U8, U32, U32]] = []
        self._sizes: dict[int, int] = {}

    def size_of(self, name: int) -> int:
        """What is decoded to read from a frame (bytes, its base included), as far as it is filled. `name`: the pack's
        number on the shelf << 10 | the frame's."""
        return self._sizes.get(name, MAX_FRAME)

    def add(self, buffer: Buffer, starts: U64, lengths: U32, digests: U8) -> tuple[U64, U64]:
        """Append chunks; returns the number of the pack on the shelf and the address of each."""
        n = len(starts)
        packs, addresses = np.empty(n, np.uint64), np.empty(n, np.uint64)
        done = 0
        while done < n:
            if self._slot is None:
                self._slot = self.shelf.open_frame()
            reach = np.cumsum(lengths[done:], dtype=np.uint64) + np.uint64(self._fill)
            fits = int(np.searchsorted(reach, MAX_FRAME, side="right"))
            if not fits:
                self.flush()
                continue
            part = slice(done, done + fits)
            offsets = reach[:fits] - lengths[part]
            spans.copy(self._buffer, offsets, [buffer], np.zeros(fits, np.uint32), starts[part], lengths[part])
            packs[part] = self._slot.pack
            addresses[part] = offsets + np.uint64(self._slot.number << FRAME_BITS)
            self._parts.append((digests[part], addresses[part].astype(np.uint32), lengths[part].astype(np.uint32)))
            self._fill = int(reach[fits - 1])
            done += fits
        return packs, addresses

    def end_layer(self) -> None:
        """A layer ends here: what follows rather begins a frame of its own."""
        if self._fill >= LEAST:
            self.flush()

    def flush(self) -> None:
        if self._slot is None or not self._fill:
            return
        slot, raw = self._slot, bytes(memoryview(self._buffer)[: self._fill])
        columns = tuple(np.concatenate(column) for column in zip(*self._parts, strict=True))
        self._slot, self._parts, self._fill = None, [], 0
        if slot.pack != self._pack:
            self._pack = slot.pack
            self._similar.forget()
            self._bases.clear()
        names, lengths = self._similar.pieces(raw)
        base = self._similar.best(names, lengths)
        prefix = self._bases.get(base) if base is not None else None
        if prefix is None:
            base = None
            self._similar.remember(slot.number, names)
            self._bases[slot.number] = raw
            while len(self._bases) > KEEP:
                self._bases.popitem(last=False)
        elif base is not None:
            self._bases.move_to_end(base)
        name = slot.pack << 10 | slot.number
        self._sizes[name] = len(raw) + (len(prefix) if prefix is not None else 0)
        self._room.acquire()
        self._futures = [f for f in self._futures if not f.done() or f.exception() is not None]
        self._futures.append(self._pool.submit(self._make, slot, raw, base, prefix, columns))

    def _make(
        self, slot: Slot, raw: bytes, base: int | None, prefix: bytes | None, columns: tuple[np.ndarray, ...]
    ) -> None:
        try:
            codec, stored = frame_codec.compress(self._codec, raw, prefix)
            if codec != frame_codec.ZSTD:
                base = prefix = None
            again = frame_codec.decompress(codec, stored, len(raw), prefix)
            digests, addresses, lengths = columns
            starts = (addresses & np.uint32(MAX_FRAME - 1)).astype(np.uint64)
            if not np.array_equal(self._names.of(again, starts, lengths), digests):
                raise Damaged("a frame does not decode to the chunks that went into it", what=f"frame {slot}")
            self.shelf.write_frame(slot, codec, len(raw), stored, (digests, addresses, lengths), base)
        finally:
            self._room.release()

    def close(self) -> None:
        """Write the last frame and wait for all; raises what went wrong in any of them."""
        self.flush()
        for future in self._futures:
            future.result()

    def stop(self) -> None:
        """Stop the pool, whatever is left to do."""
        self._pool.shutdown(cancel_futures=True)
