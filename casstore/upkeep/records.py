"""Merging metadata packs and index segments: few large ones instead of one a command. PROTOCOL.md: repack, merge."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..digest import Digest
from ..format import index as index_format
from ..format.index import IndexSegment
from ..format.pack import MetadataTable, Record
from ..model import Used
from ..store import protocol, query, rewrite
from ..store.leases import Lease
from ..store.objects import index_key, pack_id, pack_key
from ..store.packs import write_metadata_pack
from ..store.protocol import NewObject
from ..store.query import ObjectRow
from ..store.rewrite import Move
from ..store.volume import Volume

SMALL = 16 << 20
"""Metadata packs smaller than this are merged (bytes)."""
GROUP_BYTES = 64 << 20
"""Stored bytes of the packs merged into one."""
MANY = 4
"""Packs, and segments, from this number on are merged."""
BATCH = 256
SEGMENT_RATIO = 4
"""Segments are merged once the smaller ones together have a fraction of the entries of the next larger one."""


def metadata_groups(volume: Volume) -> list[list[ObjectRow]]:
    """Metadata packs to be merged, each list into one."""
    with volume.catalog.read() as tx:
        small = [row for row in query.worn_packs(tx, "metadata", SMALL) if row.size < SMALL]
    groups: list[list[ObjectRow]] = [[]]
    total = 0
    for row in small:
        if total + row.size > GROUP_BYTES and groups[-1]:
            groups.append([])
            total = 0
        groups[-1].append(row)
        total += row.size
    return [group for group in groups if len(group) >= MANY]


def merge_metadata(volume: Volume, group: list[ObjectRow], check: Callable[[], None] = lambda: None) -> int:
    """Write the live records of these metadata packs into one; returns how many blobs were moved."""
    with Lease(volume.catalog, volume.objects, "gc: merge metadata") as lease:
        seen = protocol.name_objects(volume.catalog, lease.id, [row.key for row in group])
        records: list[tuple[Record, bytes]] = []
        origin: list[tuple[Digest, str]] = []
        for row in group:
            if row.key not in seen:
                continue
            pack = volume.packs.pack(row.key)
            if not isinstance(pack.table, MetadataTable):
                continue
            with volume.catalog.read() as tx:
                live = {digest for digest, _ in query.users(tx, row.key)}
                places = {digest: info.place for digest in live if (info := query.find_blob(tx, digest)) is not None}
            for record in pack.table.records:
                check()
                place = places.get(record.digest)
                if place is None or place.key != row.key:
                    continue
                if (place.frame, place.offset) != (record.frame, record.offset):
                    continue
                records.append((record, pack.record(record.frame, record.offset, record.length)))
                origin.append((record.digest, row.key))
        if not records:
            return 0
        fresh = secrets.token_bytes(16)
        key = pack_key(fresh)
        protocol.put_begin(volume.catalog, lease.id, [(key, "metadata")])
        staged = volume.objects.stage(lease.id, key)
        positions, size = write_metadata_pack(staged, fresh, records, chunk_digest=volume.file.chunk_digest)
        volume.objects.publish([staged])
        rewrite.repack_commit(volume.catalog, lease.id, [NewObject(key, size)])
        none = np.empty((0, 2), np.uint32)
        moves = [
            Move(digest, old, none, (Used(key, none),), (at.frame, at.offset, at.length))
            for (digest, old), at in zip(origin, positions, strict=True)
        ]
        done = 0
        for at in range(0, len(moves), BATCH):
            check()
            done += len(rewrite.repack_move(volume.catalog, lease.id, moves[at : at + BATCH]))
        return done


@dataclass(frozen=True, slots=True)
class SegmentPlan:
    """Index segments to be merged into one: keys, and bytes of their files."""

    keys: list[str]
    size: int


def segment_plan(volume: Volume) -> SegmentPlan | None:
    """The smaller segments, if they have piled up: every entry is rewritten only a few times in its life."""
    with volume.catalog.read() as tx:
        rows = sorted((r for r in query.objects(tx, "index") if r.state == "live"), key=lambda r: r.size)
    chosen: list[ObjectRow] = []
    total = 0
    for row in rows:
        if len(chosen) >= MANY and row.size > SEGMENT_RATIO * total:
            break
        chosen.append(row)
        total += row.size
    return SegmentPlan([row.key for row in chosen], total) if len(chosen) >= MANY else None


def merge_segments(volume: Volume, plan: SegmentPlan) -> bool:
    """Replace these segments by one; False where somebody else was faster.

    Rules 8 and 9: all (chunk, pack) pairs stay but those of packs whose row is gone or deleting.
    """
    with Lease(volume.catalog, volume.objects, "gc: merge index") as lease:
        with volume.catalog.read() as tx:
            if rewrite.still_live(tx, plan.keys) is None:
                return False  # and their files may be gone; those of live ones stay from here on
            gone = set(query.gone_packs(tx, plan.keys))
            covered = query.covered_packs(tx, plan.keys)
        segments = []
        for key in plan.keys:
            with volume.objects.open(key) as reader:
                segments.append(IndexSegment.open(reader.pread(0, reader.size), what=key))
        known = {one for segment in segments for one in segment.pack_ids}
        drop = {one for one in known if pack_key(one) in gone or pack_key(one) not in covered}
        key = index_key()
        protocol.put_begin(volume.catalog, lease.id, [(key, "index")])
        staged = volume.objects.stage(lease.id, key)
        staged.write(index_format.merge(segments, drop))
        volume.objects.publish([staged])
        packs = tuple(one for one in covered if one not in gone and pack_id(one) in known)
        return rewrite.merge_commit(volume.catalog, lease.id, plan.keys, NewObject(key, staged.size, packs=packs))
