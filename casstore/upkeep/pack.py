"""Packing: loose blobs become recipes over chunks, of themselves or of what gzip has inside. PROTOCOL.md: pack."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from ..codec import gzip
from ..digest import Digest
from ..errors import Damaged, DigestMismatch, NotFound
from ..flow.encoded import Encoder, engines_here, packable
from ..flow.ingest import Ingest
from ..flow.proof import doubt
from ..flow.source import RangeSource
from ..model import BlobInfo, Progress
from ..store import protocol, query, rewrite
from ..store.leases import Lease
from ..store.volume import Volume

BATCH = 256 << 20
"""Bytes of blobs packed under one lease, into common packs."""
_WORKERS = 8
"""Blobs taken apart at once, at most: each needs some tens of MiB."""


class Budget:
    """How much a gc may still do: `seconds` from now, `size` bytes of what is packed and rewritten."""

    def __init__(self, seconds: float, size: int | None = None) -> None:
        self._end = time.monotonic() + seconds
        self._left = size
        self._lock = threading.Lock()

    def more(self, size: int = 0) -> bool:
        """Is there anything left? Then `size` bytes more are taken from it; the last may go over."""
        with self._lock:
            if time.monotonic() >= self._end or (self._left is not None and self._left <= 0):
                return False
            if self._left is not None:
                self._left -= size
            return True


@dataclass(slots=True)
class Tally:
    """Blobs of one encoder that were packed: how many, their bytes, and those of their traces."""

    blobs: int = 0
    size: int = 0
    trace: int = 0


@dataclass(slots=True)
class Packing:
    """What packing has done: blobs by what made them ("" where they are not compressed), and for how many each reason
    not to held."""

    packed: list[Digest] = field(default_factory=list)
    encoders: dict[str, Tally] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)

    def note(self, digest: Digest, size: int, encoder: Encoder | None) -> None:
        """One more is packed."""
        self.packed.append(digest)
        tally = self.encoders.setdefault(encoder.name if encoder else "", Tally())
        tally.blobs += 1
        tally.size += size
        tally.trace += encoder.trace if encoder else 0


def plan(volume: Volume, limit: float, idle_before: float | None = None) -> list[BlobInfo]:
    """Loose blobs that can be packed, those first that were not read for the longest time; with `idle_before` (seconds
    since 1970) only those that nobody read since. `limit`: what a trace may be of its blob."""
    with volume.catalog.read() as tx:
        before = tx.now() + 1 if idle_before is None else idle_before
        found = query.loose_blobs(tx, idle_before=before, engines=engines_here(limit))
    return [one for one in found if packable(one)]


def batches(blobs: Iterable[BlobInfo]) -> Iterator[list[BlobInfo]]:
    """The plan in portions, each under one lease."""
    batch: list[BlobInfo] = []
    size = 0
    for info in blobs:
        batch.append(info)
        size += info.size
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def pack(
    volume: Volume,
    blobs: Iterable[BlobInfo],
    done: Packing,
    *,
    limit: float,
    codec: str,
    budget: Budget | None = None,
    check: Callable[[], None] = lambda: None,
    progress: Progress | None = None,
) -> int:
    """Pack blobs, noting in `done` what became of them; returns how many the budget left. One that is damaged is marked
    so and stays as it is. `limit`: what a trace may be of its blob."""
    budget = budget or Budget(float("inf"))
    left = 0
    for batch in batches(blobs):
        left += _Batch(volume, done, limit, budget, check, progress).run(batch, codec) if budget.more() else len(batch)
    return left


class _Batch:
    """Blobs packed under one lease."""

    def __init__(
        self,
        volume: Volume,
        done: Packing,
        limit: float,
        budget: Budget,
        check: Callable[[], None],
        progress: Progress | None,
    ) -> None:
        self._volume = volume
        self._done = done
        self._limit = limit
        self._engines = engines_here(limit)
        self._budget = budget
        self._check = check
        self._progress = progress
        self._left = 0
        self._lock = threading.Lock()
        self._failed = threading.Event()
        self._taken: dict[Digest, tuple[BlobInfo, Encoder | None]] = {}

    def run(self, blobs: list[BlobInfo], codec: str) -> int:
        """Pack them; returns how many were left."""
        volume = self._volume
        with Lease(volume.catalog, volume.objects, "gc: pack") as lease:
            ingest = Ingest(volume, lease.id, codec=codec, trace_limit=self._limit, progress=self._progress)
            try:
                turns = self._turns(blobs)
                workers = min(_WORKERS, len(os.sched_getaffinity(0)), len(blobs))
                with ThreadPoolExecutor(workers, thread_name_prefix="pack") as pool:
                    for job in [pool.submit(self._work, ingest, lease, turns) for _ in range(workers)]:
                        job.result()
                written = ingest.finish(set(self._taken))
                for blob in written.blobs:
                    # A recipe is believed only once it was replayed from the sealed packs.
                    begun, encoder = self._taken[blob.digest]
                    lease.check()
                    self._check()
                    refused = doubt(volume, blob, self._check, self._progress)
                    if refused:
                        lease.check()
                        self._refuse(blob.digest, refused)
                    elif rewrite.pack_commit(volume.catalog, lease.id, begun.place.key, blob, written.objects):
                        self._done.note(blob.digest, blob.size, encoder)
            finally:
                ingest.close()
        return self._left

    def _turns(self, blobs: list[BlobInfo]) -> Iterator[BlobInfo]:
        """What the budget lets through, in this order."""
        for info in blobs:
            if self._budget.more(info.size):
                yield info
            else:
                self._left += 1

    def _work(self, ingest: Ingest, lease: Lease, turns: Iterator[BlobInfo]) -> None:
        """In any thread: blob after blob, until one fails or none is left."""
        try:
            while not self._failed.is_set():
                with self._lock:
                    info = next(turns, None)
                if info is None:
                    return
                self._check()
                lease.check()
                self._take(ingest, lease, info)
        except BaseException:
            self._failed.set()
            raise

    def _take(self, ingest: Ingest, lease: Lease, info: BlobInfo) -> None:
        """Take one blob apart."""
        begun = rewrite.pack_begin(self._volume.catalog, lease.id, info.digest)
        if begun is None:
            return
        encoder: Encoder | None = None
        what = f"pack {str(info.digest)[:19]}"
        try:
            with self._volume.objects.open(begun.place.key) as reader:
                if info.encoding == "identity":
                    ingest.take(RangeSource(reader), expect=info.digest, what=what)
                else:
                    encoder = ingest.take_apart(RangeSource(reader), info.digest, what=what)
        except (NotFound, Damaged, DigestMismatch):
            lease.check()
            protocol.mark_damaged(self._volume.catalog, [begun])
        except gzip.NoTrace as reason:
            self._refuse(info.digest, str(reason))
        else:
            self._taken[info.digest] = begun, encoder

    def _refuse(self, digest: Digest, reason: str) -> None:
        rewrite.pack_refuse(self._volume.catalog, digest, reason, self._engines)
        self._done.refused[reason] = self._done.refused.get(reason, 0) + 1
