"""`gc`: collect what nothing needs, then pack and repack within a budget. A plan first; `execute` obeys it.

Runs beside everything else, in any number: each step tests its own ground again, and can be cut off between any two.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ..codec.gzip import LIMIT
from ..digest import Digest
from ..errors import Damaged, NotFound
from ..model import BlobInfo, Progress
from ..store import collector, protocol, query
from ..store.collector import Garbage
from ..store.query import ObjectRow
from ..store.volume import Volume
from . import learn, pack, records, repack
from .estimate import Saving, estimate
from .pack import Budget, Packing, Tally
from .records import SegmentPlan
from .repack import Worn

GRACE = 600.0
"""Seconds for which a blob without a name is spared: work may be about to name it."""
DEEP = "zstd:9"
"""Codec of what gc rewrites."""


@dataclass(frozen=True, slots=True)
class GcRow:
    """A line of the plan: `action` delete, pack, repack or merge; `size` bytes of what it is about; `reason`."""

    action: str
    kind: str
    name: str
    size: int
    reason: str


@dataclass(slots=True)
class GcTotals:
    """What was done (or, of a dry run, would be at most). `encoders`: of the blobs packed, by what compressed them ("":
    nothing did); `refused`: how many stay loose, by reason."""

    blobs_deleted: int = 0
    objects_deleted: int = 0
    freed_bytes: int = 0
    blobs_packed: int = 0
    blobs_left: int = 0
    packs_rewritten: int = 0
    packs_left: int = 0
    seconds: float = 0.0
    encoders: dict[str, Tally] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GcReport:
    """`rows`: the plan. `hold`: how long each transaction of this process held the catalog's write lock meanwhile
    (seconds)."""

    rows: list[GcRow]
    totals: GcTotals
    hold: list[float] = field(default_factory=list)
    saving: Saving | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """All that one gc would do, of one moment."""

    garbage: Garbage
    loose: list[BlobInfo]
    worn: list[Worn]
    measured: list[tuple[str, int]]
    metadata: list[list[ObjectRow]]
    segments: SegmentPlan | None

    def rows(self) -> list[GcRow]:
        """The plan in lines."""
        found = [GcRow("delete", "blob", str(d), size, "no reference") for d, size in self.garbage.blobs]
        found += [GcRow("delete", kind, key, size, "no live blob in it") for key, kind, size in self.garbage.objects]
        found += [GcRow("pack", "blob", str(one.digest), one.size, "loose") for one in self.loose]
        found += [GcRow("repack", "data", one.row.key, one.row.size, one.reason) for one in self.worn]
        found += [GcRow("merge", "metadata", row.key, row.size, "small") for group in self.metadata for row in group]
        if self.segments is not None:
            found += [GcRow("merge", "index", key, 0, "many segments") for key in self.segments.keys]
        return found


def make_plan(volume: Volume, grace: float = GRACE, trace_limit: float = LIMIT) -> Plan:
    """What gc would do now; changes nothing."""
    with volume.catalog.read() as tx:
        garbage = collector.plan(tx, tx.now() - grace)
    worn, fine = repack.plan(volume)
    loose = pack.plan(volume, trace_limit)
    return Plan(garbage, loose, worn, fine, records.metadata_groups(volume), records.segment_plan(volume))


def gc(
    volume: Volume,
    *,
    dry_run: bool = False,
    grace: float = GRACE,
    max_time: float = 600.0,
    max_bytes: int | None = None,
    codec: str = "zstd:3",
    trace_limit: float = LIMIT,
    check: Callable[[], None] = lambda: None,
    progress: Progress | None = None,
) -> GcReport:
    """Collect, pack, repack, collect. `max_time` (seconds), `max_bytes` (of blobs and packs): of packing and repacking;
    what is left is told. `trace_limit`: what a gzip blob's trace may be of it."""
    began = time.monotonic()
    totals = GcTotals()
    if dry_run:
        plan = make_plan(volume, grace, trace_limit)
        totals.blobs_deleted = len(plan.garbage.blobs)
        totals.objects_deleted = len(plan.garbage.objects)
        totals.freed_bytes = sum(size for _, _, size in plan.garbage.objects)
        totals.blobs_packed = len(plan.loose)
        totals.packs_rewritten = len(plan.worn)
        saving = estimate(volume, plan.loose, codec=DEEP, check=check, progress=progress) if plan.loose else None
        totals.seconds = time.monotonic() - began
        return GcReport(plan.rows(), totals, saving=saving)
    hold: list[float] = []

    def told(_: str, seconds: float) -> None:
        hold.append(seconds)

    volume.catalog.on_write.append(told)
    try:
        run = _Run(volume, grace, Budget(max_time, max_bytes), codec, trace_limit, check, progress, totals)
        return run.run(began, hold)
    finally:
        volume.catalog.on_write.remove(told)


class _Run:
    """One gc at work."""

    def __init__(
        self,
        volume: Volume,
        grace: float,
        budget: Budget,
        codec: str,
        trace_limit: float,
        check: Callable[[], None],
        progress: Progress | None,
        totals: GcTotals,
    ) -> None:
        self._volume = volume
        self._grace = grace
        self._budget = budget
        self._codec = codec
        self._trace_limit = trace_limit
        self._check = check
        self._progress = progress
        self._totals = totals
        self._rotten: Damaged | None = None
        self._looked = False

    def _is_here(self, digest: Digest) -> bool:
        with self._volume.catalog.read() as tx:
            return query.find_blob(tx, digest) is not None

    def _learn(self) -> None:
        """What packing has not found out, of what came without being looked into."""
        learn.learn(
            self._volume,
            learn.plan(self._volume),
            budget=self._budget,
            check=self._check,
            progress=self._progress,
        )
        learn.measure(self._volume)

    def run(self, began: float, hold: list[float]) -> GcReport:
        volume, totals = self._volume, self._totals
        # Each part is planned when its turn comes: what was collected need not be measured.
        with volume.catalog.read() as tx:
            garbage = collector.plan(tx, tx.now() - self._grace)
        self._collect()
        blobs = pack.plan(volume, self._trace_limit)
        self._pack(blobs)
        self._learn()
        worn, fine = repack.plan(volume)
        collector.gc_clean(volume.catalog, fine)
        left = self._repack(worn)
        metadata = records.metadata_groups(volume) if self._budget.more() else []
        for group in metadata:
            try:
                records.merge_metadata(volume, group, self._check)
            except (Damaged, NotFound) as error:
                self._spoilt(error, [row.key for row in group])
        if worn or metadata:
            self._collect()  # a segment merged now need not list what was just rewritten
        segments = records.segment_plan(volume)
        if segments is not None:
            records.merge_segments(volume, segments)
        self._collect()
        volume.cache.sweep()
        volume.transfers.sweep(self._is_here)
        plan = Plan(garbage, blobs, worn, fine, metadata, segments)
        volume.catalog.checkpoint()
        totals.packs_left = left
        totals.seconds = time.monotonic() - began
        if self._rotten is not None:
            raise self._rotten
        return GcReport(plan.rows(), totals, hold)

    def _spoilt(self, error: Damaged | NotFound, keys: list[str]) -> None:
        """One of these objects is rotten: it is marked and left alone, all else is done, and the end tells of it."""
        if error.what not in keys:
            raise error
        protocol.mark_damaged(self._volume.catalog, keys=[error.what])
        hint = "all else was done; run casstore check --read-data --repair"
        self._rotten = self._rotten or Damaged(error.message, what=error.what, offset=error.offset, hint=hint)

    def _collect(self) -> None:
        volume = self._volume
        done = collector.collect(
            volume.catalog, volume.objects, grace=self._grace, looked=self._looked, check=self._check
        )
        self._looked = True
        self._totals.blobs_deleted += done.blobs_purged
        self._totals.objects_deleted += done.objects_deleted
        self._totals.freed_bytes += done.bytes_deleted

    def _pack(self, blobs: list[BlobInfo]) -> None:
        done, totals = Packing(), self._totals
        totals.blobs_left = pack.pack(
            self._volume,
            blobs,
            done,
            limit=self._trace_limit,
            codec=self._codec,
            budget=self._budget,
            check=self._check,
            progress=self._progress,
        )
        self._volume.packs.forget()
        totals.blobs_packed = len(done.packed)
        totals.encoders, totals.refused = done.encoders, done.refused

    def _repack(self, worn: list[Worn]) -> int:
        total = sum(one.row.size for one in worn)
        done, left = 0, len(worn)
        for group in repack.groups(worn):
            if not self._budget.more(sum(one.row.size for one in group)):
                break
            try:
                repack.Repack(self._volume, group, DEEP, self._check).run()
            except (Damaged, NotFound) as error:
                self._spoilt(error, [one.row.key for one in group])
                continue
            self._totals.packs_rewritten += len(group)
            left -= len(group)
            done += sum(one.row.size for one in group)
            if self._progress is not None:
                self._progress("repack", done, total)
        return left
