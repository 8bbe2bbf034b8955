"""Rewriting data packs: what is live in worn or lightly packed ones goes into deep packs, and the blobs' edges follow.

Packs are taken in groups. Within a group the blobs come in order of size, so that versions of one layer stand side by
side; each gives its chunks in the order in which they lie, once. What a reader of it would have to decode is bounded as
at ingest, and known before anything is written: what would be too far is stored again. PROTOCOL.md: repack.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..digest import Digest
from ..errors import Damaged, NotFound
from ..flow.naming import Names
from ..flow.reach import Reach
from ..flow.records import intervals
from ..kernels import table
from ..model import FRAME_BITS, MAX_FRAME, U8, U32, U64, BlobInfo, Mask, Used
from ..store import protocol, query, rewrite
from ..store.index import encode_segment
from ..store.leases import Lease
from ..store.objects import index_key
from ..store.packs import DATA_TARGET, PackShelf
from ..store.protocol import NewObject
from ..store.query import ObjectRow
from ..store.rewrite import Move
from ..store.volume import Volume
from .deep import DeepFrames
from .reading import Reading

SMALL = DATA_TARGET // 4
"""A pack smaller than this is merged with others (bytes)."""
FULL = 256 << 20
"""One that holds this much is not, however well it compresses: it may have all the frames that a pack can (bytes)."""
DEAD = 0.25
"""Share of a pack's content that must be dead for a deep pack to be rewritten."""
GROUP = 16
"""Packs rewritten together."""
ROUNDS = 8
"""How often a blob is read in thought, each time with more chunks stored again for it, before all of them are."""
BATCH = 64
"""Edges moved in one transaction, about."""


@dataclass(frozen=True, slots=True)
class Worn:
    """A pack to be rewritten, and why. `live`: bytes of its chunks that live blobs use."""

    row: ObjectRow
    live: int
    reason: str


class _Part(NamedTuple):
    """What one blob uses of a pack of the group. `at`: which of the blob's uses that is."""

    at: int
    use: Used
    digests: U8
    addresses: U32
    lengths: U32


class _Edge(NamedTuple):
    """One blob's edge to a pack of the group, and where its chunks are now: pack on the shelf << 32 | address."""

    digest: Digest
    use: Used
    values: U64
    lengths: U32


def measure(volume: Volume, key: str) -> int:
    """Bytes of a pack that live blobs use: the union of their intervals."""
    with volume.catalog.read() as tx:
        union = query.live_intervals(tx, key)
    return int((union[:, 1].astype(np.uint64) - union[:, 0]).sum())


def plan(volume: Volume) -> tuple[list[Worn], list[tuple[str, int]]]:
    """Packs worth rewriting, and (key, dirty) of those that were measured and are not."""
    with volume.catalog.read() as tx:
        rows = query.worn_packs(tx, "data", SMALL)
    worn: list[Worn] = []
    fine: list[tuple[str, int]] = []
    small: list[Worn] = []
    for row in rows:
        # Only a pack that lost an edge can have lost live bytes.
        live = measure(volume, row.key) if row.dirty else row.chunk_bytes
        dead = 1 - live / row.chunk_bytes if row.chunk_bytes else 1.0
        if live == 0:
            fine.append((row.key, row.dirty))  # the collector takes it whole
        elif not row.deep:
            worn.append(Worn(row, live, "lightly packed"))
        elif dead >= DEAD:
            worn.append(Worn(row, live, f"{dead:.0%} dead"))
        else:
            fine.append((row.key, row.dirty))
            if row.size < SMALL and row.chunk_bytes < FULL:
                small.append(Worn(row, live, "small"))
    if len(small) + len(worn) > 1 and small:
        worn += small
    return worn, fine


def groups(worn: Sequence[Worn]) -> Iterator[list[Worn]]:
    """The plan in portions that are each carried out, or not, as a whole."""
    for at in range(0, len(worn), GROUP):
        yield list(worn[at : at + GROUP])


class Repack:
    """One group being rewritten under one lease."""

    def __init__(
        self, volume: Volume, group: Sequence[Worn], codec: str, check: Callable[[], None] = lambda: None
    ) -> None:
        self._volume = volume
        self._keys = [one.row.key for one in group]
        self._codec = codec
        self._check = check
        self._placed = table.ChunkMap()

    def run(self) -> int:
        """Rewrite; returns how many edges were moved."""
        volume = self._volume
        with Lease(volume.catalog, volume.objects, "gc: repack") as lease:
            seen = protocol.name_objects(volume.catalog, lease.id, self._keys)
            keys = [key for key in self._keys if key in seen]
            shelf = PackShelf(
                volume.objects,
                lease.id,
                lambda key, kind: protocol.put_begin(volume.catalog, lease.id, [(key, kind)]),
                chunk_digest=volume.file.chunk_digest,
            )
            frames = DeepFrames(shelf, Names(volume.file.chunk_digest), self._codec, len(os.sched_getaffinity(0)))
            try:
                moves: list[list[_Edge]] = []
                for digest in self._users(keys):
                    self._check()
                    lease.check()
                    moves.append(self._blob(frames, keys, digest))
                frames.close()
                sealed = shelf.seal()
                objects = [NewObject(p.key, p.size, p.chunk_bytes, deep=True) for p in sealed]
                key = index_key()
                protocol.put_begin(volume.catalog, lease.id, [(key, "index")])
                segment = volume.objects.stage(lease.id, key)
                tables = [(p.pack_id, p.digests, p.addresses) for p in sealed]
                segment.write(encode_segment(tables, volume.file.chunk_digest))
                objects.append(NewObject(key, segment.size, packs=tuple(p.key for p in sealed)))
                volume.objects.publish([*(p.staged for p in sealed), segment])
                rewrite.repack_commit(volume.catalog, lease.id, objects)
                return self._move(lease, shelf, moves)
            finally:
                frames.stop()
                shelf.close()

    def _users(self, keys: Sequence[str]) -> list[Digest]:
        """Live blobs that use a pack of the group, the largest first."""
        with self._volume.catalog.read() as tx:
            found = {digest for key in keys for digest, _ in query.users(tx, key)}
            sizes = {digest: tx.value("SELECT size FROM blob WHERE digest = ?", (digest.raw,)) or 0 for digest in found}
        return sorted(found, key=lambda one: (-sizes[one], one))

    def _blob(self, frames: DeepFrames, keys: Sequence[str], digest: Digest) -> list[_Edge]:
        """Place the chunks that a blob uses of the group; returns what becomes of its edges to the group's packs."""
        with self._volume.catalog.read() as tx:
            info = query.find_blob(tx, digest)
        uses = [] if info is None else [(at, use) for at, use in enumerate(info.place.uses) if use.key in keys]
        if info is None or not uses:
            return []
        parts = [_Part(at, use, *self._volume.packs.pack(use.key).within(use.intervals)) for at, use in uses]
        digests = np.concatenate([part.digests for part in parts])
        lengths = np.concatenate([part.lengths for part in parts])
        values = self._placed.get(digests)
        take = self._chosen(frames, info, parts, values, lengths)
        apart = take is None
        if take is None:
            take = np.ones(len(values), np.bool_)
            frames.may_lean(False)
            frames.flush()
        at = 0
        for part in parts:
            mine = slice(at, at + len(part.lengths))
            self._copy(frames, part, take[mine], values[mine], apart=apart)
            at = mine.stop
        frames.may_lean(True)
        frames.end_layer()
        self._placed.set(digests[take], values[take])
        ends = np.cumsum([len(part.lengths) for part in parts])[:-1]
        return [
            _Edge(digest, part.use, to, part.lengths) for part, to in zip(parts, np.split(values, ends), strict=True)
        ]

    def _chosen(
        self, frames: DeepFrames, info: BlobInfo, parts: Sequence[_Part], values: U64, lengths: U32
    ) -> Mask | None:
        """Which chunks of a blob are stored for it: those that are in no new frame yet, and those that lie too far from
        each other there (flow/reach.py). None: all of them, in frames of its own that hold what the old ones held of
        it; then a reader has to decode no more than before, while with large frames it would be too much."""
        take: Mask = values == table.MISSING
        try:
            reading = Reading(self._volume, info, [(part.at, part.addresses.astype(np.uint64)) for part in parts])
        except (Damaged, NotFound):
            return None  # not of this group's packs: those could be read
        lean = True
        shared = np.flatnonzero(~take)
        alone = Reach(lambda name: [(name, sum(size for _, size in frames.cost(name)))], free=0)
        take[shared] = alone.judge(
            values[shared] >> np.uint64(FRAME_BITS), lengths[shared], np.ones(len(shared), np.bool_), force=True
        )
        for _ in range(ROUNDS):
            places = values >> np.uint64(FRAME_BITS)
            places[take] = frames.plan(lengths[take])
            far = reading.too_far(places, ~take, frames.cost, self._check)
            if far is None and lean:
                lean = False
                frames.may_lean(lean)
            elif far is None:
                break
            elif not far.any():
                return take
            else:
                take = take | far
        return None

    def _copy(self, frames: DeepFrames, part: _Part, take: Mask, values: U64, *, apart: bool) -> None:
        """Store chunks of an old pack; `values` gets where. `apart`: a new frame holds no more than was decoded for any
        of its chunks before."""
        chosen = np.flatnonzero(take)
        numbers = part.addresses[chosen] >> np.uint32(FRAME_BITS)
        filled = most = 0
        for group in np.split(chosen, np.flatnonzero(np.diff(numbers)) + 1) if len(chosen) else ():
            number = int(part.addresses[group[0]] >> np.uint32(FRAME_BITS))
            raw = self._volume.packs.frames(part.use.key, [number])[number]
            size = int(part.lengths[group].sum(dtype=np.uint64))
            if apart and filled + size > min(most, len(raw)):
                frames.flush()
                filled = 0
            most = min(most, len(raw)) if filled else len(raw)
            filled += size
            offsets = (part.addresses[group] & np.uint32(MAX_FRAME - 1)).astype(np.uint64)
            packs, places = frames.add(raw, offsets, part.lengths[group], part.digests[group])
            values[group] = packs << np.uint64(32) | places
        if apart:
            frames.flush()

    def _move(self, lease: Lease, shelf: PackShelf, moves: Sequence[Sequence[_Edge]]) -> int:
        done, batch = 0, list[Move]()
        for number, edges in enumerate(moves, 1):
            # All of a blob's edges at once: what it decodes was counted with all of them moved.
            batch += [_moved(shelf, edge) for edge in edges]
            if len(batch) >= BATCH or number == len(moves):
                self._check()
                done += len(rewrite.repack_move(self._volume.catalog, lease.id, batch))
                batch.clear()
        return done


def _moved(shelf: PackShelf, edge: _Edge) -> Move:
    digest, (old, used), values, lengths = edge
    if len(values) and int(values.max()) >= table.MISSING:
        raise Damaged("a chunk was not copied", what=old)
    slots = values >> np.uint64(32)
    to = tuple(
        Used(
            shelf.key_of(int(slot)),
            intervals(values[slots == slot] & np.uint64(0xFFFFFFFF), lengths[slots == slot]),
        )
        for slot in np.unique(slots)
    )
    return Move(digest, old, used, to)
