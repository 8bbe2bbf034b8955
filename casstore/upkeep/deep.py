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
TARGET = MAX_FRAME
"""Uncompressed bytes of a frame."""
_BASE = 1 << 62
_PLANNED = 1 << 61


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
        self._buffer = bytearray(TARGET)
        self._fill = 0
        self._slot: Slot | None = None
        self._parts: list[tuple[U8, U32, U32]] = []
        self._costs: dict[int, list[tuple[int, int]]] = {}
        self._lean = True

    def cost(self, name: int) -> list[tuple[int, int]]:
        """reach.Cost of a frame. `name`: the pack's number on the shelf << 10 | the frame's, or what `plan` said. One
        that is not complete counts as full, and as leaning on a base that nothing else leans on."""
        return self._costs.get(name) or [(name, TARGET), *([(name | _BASE, TARGET)] if self._lean else [])]

    def plan(self, lengths: U32) -> U64:
        """In which frames chunks of these lengths would come to lie, were they appended now."""
        names = np.empty(len(lengths), np.uint64)
        ends = np.cumsum(lengths, dtype=np.uint64)
        done, fill, before, number = 0, self._fill, 0, 0
        name = _PLANNED if self._slot is None else _name(self._slot)
        while done < len(ends):
            fits = int(np.searchsorted(ends, np.uint64(before + TARGET - fill), side="right"))
            names[done:fits] = name
            if fits:
                done, before = fits, int(ends[fits - 1])
            fill, number = 0, number + 1
            name = _PLANNED | number
        return names

    def add(self, buffer: Buffer, starts: U64, lengths: U32, digests: U8) -> tuple[U64, U64]:
        """Append chunks; returns the number of the pack on the shelf and the address of each."""
        n = len(starts)
        packs, addresses = np.empty(n, np.uint64), np.empty(n, np.uint64)
        done = 0
        while done < n:
            if self._slot is None:
                self._slot = self.shelf.open_frame()
            reach = np.cumsum(lengths[done:], dtype=np.uint64) + np.uint64(self._fill)
            fits = int(np.searchsorted(reach, TARGET, side="right"))
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

    def may_lean(self, lean: bool) -> None:
        """Whether the frames that begin from here on may lean on others."""
        if lean != self._lean:
            self.flush()
            self._lean = lean

    def end_layer(self) -> None:
        """A layer ends here: what follows rather begins a frame of its own."""
        if self._fill >= LEAST:
            self.flush()

    def flush(self) -> None:
        """End the frame."""
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
        base = self._similar.best(names, lengths) if self._lean else None
        prefix = self._bases.get(base) if base is not None else None
        if prefix is None:
            base = None
            self._similar.remember(slot.number, names)
            self._bases[slot.number] = raw
            while len(self._bases) > KEEP:
                self._bases.popitem(last=False)
        elif base is not None:
            self._bases.move_to_end(base)
        name = _name(slot)
        self._costs[name] = [(name, len(raw))]
        if base is not None and prefix is not None:
            self._costs[name].append((_name(slot._replace(number=base)), len(prefix)))
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


def _name(slot: Slot) -> int:
    return slot.pack << 10 | slot.number
