"""The cache of packs, shared by threads: nobody waits for a frame whose maker waits for one of his."""

from __future__ import annotations

import queue
import threading
from pathlib import Path

import numpy as np
import pytest

from casstore.codec import frame as frame_codec
from casstore.store import packs
from casstore.store.objects import Objects
from casstore.store.packs import Pack, PackCache, PackShelf, Slot

RAW = [bytes([65 + n]) * 5000 for n in range(4)]
BASES = [None, None, 0, 1]


@pytest.fixture
def pack_key(tmp_path: Path) -> tuple[Objects, str]:
    """A pack of four frames, of which two lean on the other two."""
    objects = Objects.make(tmp_path)
    objects.make_staging(1)
    shelf = PackShelf(objects, 1, lambda key, kind: None)
    none = np.empty((0, 32), np.uint8), np.empty(0, np.uint32), np.empty(0, np.uint32)
    for raw, base in zip(RAW, BASES, strict=True):
        slot: Slot = shelf.open_frame()
        codec, stored = frame_codec.compress("zstd:3", raw, None if base is None else RAW[base])
        shelf.write_frame(slot, codec, len(raw), stored, none, base)
    (sealed,) = shelf.seal()
    objects.publish([sealed.staged])
    return objects, sealed.key


def test_frames_and_bases_crosswise(pack_key: tuple[Objects, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One wants base 0 and a frame that leans on base 1, the other the reverse: both claim before either decodes."""
    objects, key = pack_key
    claimed = threading.Barrier(2)
    met = threading.local()
    plain = Pack.base

    def base(self: Pack, number: int) -> int | None:
        if not getattr(met, "done", False):
            met.done = True
            claimed.wait(10)
        return plain(self, number)

    monkeypatch.setattr(packs.Pack, "base", base)
    cache = PackCache(objects)

    results: queue.SimpleQueue[dict[int, bytes]] = queue.SimpleQueue()
    for numbers in ((0, 3), (1, 2)):
        # Daemons: two that wait for each other for ever must not keep the interpreter from ending.
        threading.Thread(target=lambda n: results.put(cache.frames(key, n)), args=(numbers,), daemon=True).start()
    both = [results.get(timeout=20) for _ in range(2)]
    assert sorted(both, key=lambda one: 0 not in one) == [{0: RAW[0], 3: RAW[3]}, {1: RAW[1], 2: RAW[2]}]
