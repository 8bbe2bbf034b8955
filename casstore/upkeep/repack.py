"""Rewriting data packs: what is live in worn or lightly packed ones goes into deep packs, and the blobs' edges follow.

Packs are taken in groups. Within a group the blobs come in order of size, so that versions of one layer stand side by
side; each gives its chunks in the order in which they lie, once. PROTOCOL.md: repack.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..digest import Digest
from ..errors import Damaged
from ..flow.ingest import intervals
from ..flow.naming import Names
from ..kernels import table
from ..model import FRAME_BITS, MAX_FRAME, U8, U32, U64, Used
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

SMALL = DATA_TARGET // 4
"""A pack smaller than this is merged with others (bytes)."""
DEAD = 0.25
"""Share of a pack's content that must be dead for a deep pack to be rewritten."""
GROUP = 16
"""Packs rewritten together."""
AMPLIFICATION = 2.0
"""What restoring a blob may decode, as a multiple of its chunks' bytes, before chunks are stored again for it."""
BATCH = 64
"""Edges moved in one transaction."""


@dataclass(frozen=True, slots=True)
class Worn:
    """A pack to be rewritten, and why. `live`: bytes of its chunks that live blobs use."""

    row: ObjectRow
    live: int
    reason: str


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
            if row.size < SMALL:
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
            users = self._users(keys)
            shelf = PackShelf(
                volume.objects,
                lease.id,
                lambda key, kind: protocol.put_begin(volume.catalog, lease.id, [(key, kind)]),
                chunk_digest=volume.file.chunk_digest,
            )
            frames = DeepFrames(shelf, Names(volume.file.chunk_digest), self._codec, len(os.sched_getaffinity(0)))
            try:
                moves: list[tuple[Digest, str, U32, U64, U32]] = []
                for digest, uses in users:
                    self._check()
                    lease.check()
                    moves += self._blob(frames, digest, uses)
                    frames.end_layer()
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

    def _users(self, keys: Sequence[str]) -> list[tuple[Digest, dict[str, U32]]]:
        """Live blobs with what they use of the group's packs, the largest first."""
        found: dict[Digest, dict[str, U32]] = {}
        with self._volume.catalog.read() as tx:
            for key in keys:
                for digest, used in query.users(tx, key):
                    found.setdefault(digest, {})[key] = used
            sizes = {digest: tx.value("SELECT size FROM blob WHERE digest = ?", (digest.raw,)) or 0 for digest in found}
        return sorted(found.items(), key=lambda one: (-sizes[one[0]], one[0]))

    def _blob(
        self, frames: DeepFrames, digest: Digest, uses: dict[str, U32]
    ) -> list[tuple[Digest, str, U32, U64, U32]]:
        """Place the chunks that a blob uses of the group; returns for each pack what the blob's edge becomes."""
        parts = [(key, used, *self._volume.packs.pack(key).within(used)) for key, used in uses.items()]
        names = np.concatenate([part[2] for part in parts])
        fresh = self._placed.claim(names)
        again = self._too_scattered(frames, names[~fresh], np.concatenate([part[4] for part in parts])[~fresh])
        take = fresh.copy()
        take[np.flatnonzero(~fresh)[again]] = True
        at = 0
        for key, _, digests, addresses, lengths in parts:
            mine = take[at : at + len(digests)]
            at += len(digests)
            # Two copies of one chunk within the group: the first is enough.
            _, first = np.unique(digests[mine], axis=0, return_index=True)
            chosen = np.flatnonzero(mine)[np.sort(first)] if mine.any() else np.empty(0, np.int64)
            self._copy(frames, key, digests[chosen], addresses[chosen], lengths[chosen])
        return [(digest, key, used, self._placed.get(digests), lengths) for key, used, digests, _, lengths in parts]

    def _too_scattered(self, frames: DeepFrames, digests: U8, lengths: U32) -> np.ndarray:
        """Which of a blob's chunks, all placed for earlier blobs, should be stored again next to each other: those in
        frames of which it uses least, until restoring it decodes no more than AMPLIFICATION times its bytes."""
        values = self._placed.get(digests)
        again = np.zeros(len(digests), np.bool_)
        known = values < table.MISSING
        frame, which = np.unique(values[known] >> np.uint64(FRAME_BITS), return_inverse=True)
        if not len(frame):
            return again
        used = np.bincount(which, weights=lengths[known], minlength=len(frame))
        raw = np.array([frames.size_of(int(name)) for name in frame], np.float64)
        order = np.argsort(used / raw)
        decoded, total = float(raw.sum()), float(used.sum())
        drop = np.zeros(len(frame), np.bool_)
        for one in order:
            if decoded <= AMPLIFICATION * total:
                break
            drop[one] = True
            decoded -= raw[one] - used[one]
        again[np.flatnonzero(known)[drop[which]]] = True
        return again

    def _copy(self, frames: DeepFrames, key: str, digests: U8, addresses: U32, lengths: U32) -> None:
        if not len(addresses):
            return
        number = addresses >> np.uint32(FRAME_BITS)
        heads = np.flatnonzero(np.diff(number.astype(np.int64), prepend=-1))
        for begin, end in zip(heads, np.append(heads[1:], len(number)), strict=True):
            one = int(number[begin])
            raw = self._volume.packs.frames(key, [one])[one]
            part = slice(int(begin), int(end))
            offsets = (addresses[part] & np.uint32(MAX_FRAME - 1)).astype(np.uint64)
            packs, places = frames.add(raw, offsets, lengths[part], digests[part])
            self._placed.set(digests[part], packs << np.uint64(32) | places)

    def _move(self, lease: Lease, shelf: PackShelf, moves: Sequence[tuple[Digest, str, U32, U64, U32]]) -> int:
        done = 0
        for at in range(0, len(moves), BATCH):
            self._check()
            batch = []
            for digest, old, used, values, lengths in moves[at : at + BATCH]:
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
                batch.append(Move(digest, old, used, to))
            done += len(rewrite.repack_move(self._volume.catalog, lease.id, batch))
        return done
