"""What packing would save, told from some of what is loose: taken apart and looked up, but not written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ..codec import compression, frame
from ..codec.compression import Limit
from ..errors import BadInput, Damaged, NotFound
from ..flow.frames import FRAME_TARGET
from ..flow.source import Buffers, RangeSource, StreamSource, chunks
from ..flow.split import Splitter
from ..flow.step import Counted, Step
from ..kernels import table
from ..model import U8, U32, U64, BlobInfo, Buffer, Progress
from ..store import protocol
from ..store.index import IndexSet
from ..store.volume import Volume

ENOUGH = 512 << 20
"""Bytes of loose blobs that are looked at."""
_EVERY = 8
"""One in so many runs of chunks is compressed, to see how far they do."""


@dataclass(frozen=True, slots=True)
class Saving:
    """Bytes. Of `total` that are loose, `looked` were looked at, which would be `kept` as compressed chunks, if their
    encoders are known."""

    total: int
    looked: int
    kept: int

    @property
    def bytes(self) -> int:
        """What packing all is expected to save."""
        return max(0, round(self.total * (1 - self.kept / self.looked))) if self.looked else 0


def estimate(
    volume: Volume,
    blobs: Iterable[BlobInfo],
    *,
    codec: str,
    check: Callable[[], None] = lambda: None,
    progress: Progress | None = None,
) -> Saving:
    """Look at the first of these blobs. What cannot be read is left out; nothing is written."""
    with volume.catalog.read() as tx:
        index = IndexSet(volume.objects, protocol.live_segments(tx))
    counter = _Counter(index, codec)
    total = looked = 0
    for info in blobs:
        total += info.size
        if looked >= ENOUGH:
            continue
        check()
        step = Step(progress, f"look {str(info.digest)[:19]}", info.size)
        try:
            with volume.objects.open(info.place.key) as reader:
                source = Counted(RangeSource(reader), step)
                pieces = Buffers(bytes(each) for each in chunks(source))
                stream = compression.open_stream(pieces, Limit(), str(info.digest))
                Splitter(volume.file, counter).run(StreamSource(stream))
        except (BadInput, Damaged, NotFound):
            continue
        finally:
            step.done()
        looked += info.size
    return Saving(total, looked, counter.kept)


class _Counter:
    """A sink that keeps nothing: it counts what is new."""

    def __init__(self, index: IndexSet, codec: str) -> None:
        self._index = index
        self._codec = codec
        self._seen = table.ChunkMap()
        self._runs = 0
        self._fresh = 0
        self._tried = self._stored = 0

    @property
    def kept(self) -> int:
        """Bytes of the new chunks, compressed as the tried ones were."""
        return round(self._fresh * (self._stored / self._tried)) if self._tried else self._fresh

    def take(
        self, track: int, buffer: Buffer, starts: U64, lengths: U32, digests: U8, *, force: bool = False
    ) -> bool:
        new = self._seen.claim(digests)
        self._seen.set(digests[new], np.zeros(int(new.sum()), np.uint64))
        which = np.flatnonzero(new)
        which = which[~self._index.locate(digests[which]).found]
        size = int(lengths[which].sum())
        self._fresh += size
        if size:
            if self._runs % _EVERY == 0:
                view = memoryview(buffer)
                spans = zip(starts[which].tolist(), lengths[which].tolist(), strict=True)
                raw = b"".join(bytes(view[at : at + n]) for at, n in spans)[:FRAME_TARGET]
                self._tried += len(raw)
                self._stored += len(frame.compress(self._codec, raw)[1])
            self._runs += 1
        return True
