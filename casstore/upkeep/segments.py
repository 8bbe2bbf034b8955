"""The index, made again from the packs' own tables. PROTOCOL.md: replace_segments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ..errors import Damaged, NotFound
from ..format.pack import DataTable
from ..model import U8, U32
from ..store import damage, protocol, query
from ..store.index import encode_segment, open_segment
from ..store.leases import Lease
from ..store.objects import index_key, pack_id
from ..store.protocol import NewObject
from ..store.volume import Volume

ENTRIES = 4 << 20
"""Entries of one segment that is made here: bounds the memory that it takes."""


def rebuild(
    volume: Volume,
    lease: Lease,
    broken: Sequence[str] = (),
    lacking: Sequence[str] = (),
    stop: Callable[[], None] = lambda: None,
) -> bool:
    """Segments over every data pack that no sound one covers, and those that one should and does not (`lacking`), in
    the place of the broken ones. False where somebody else replaced those meanwhile."""
    with volume.catalog.read() as tx:
        covered = query.covered_packs(tx, [key for key in protocol.live_segments(tx) if key not in broken])
        gone = query.gone_packs(tx, list(broken))
        # Retired packs too: they may be revived (rule 9).
        wanted = [
            row.key for row in query.objects(tx, "data") if row.state in ("live", "retired") and row.key not in covered
        ]
        covered -= set(lacking)
        wanted += [key for key in lacking if key not in wanted]
        wanted += [key for key in query.covered_packs(tx, broken) if key not in {*wanted, *covered, *gone}]
    made: list[NewObject] = []
    group: list[tuple[str, U8, U32]] = []
    for key in wanted:
        stop()
        lease.check()
        group.append((key, *_chunks(volume, key)))
        if sum(len(addresses) for _, _, addresses in group) >= ENTRIES:
            made.append(_write(volume, lease, group))
            group = []
    if group:
        made.append(_write(volume, lease, group))
    return damage.replace_segments(volume.catalog, lease.id, broken, made)


def _chunks(volume: Volume, key: str) -> tuple[U8, U32]:
    """Digests and addresses of a pack's chunks. None where it cannot be read: it counts as covered all the same, its
    chunks answer "missing" anyhow."""
    try:
        table = volume.packs.pack(key).table
    except (Damaged, NotFound):
        table = None
    if not isinstance(table, DataTable):
        return np.empty((0, 32), np.uint8), np.empty(0, np.uint32)
    return table.digests, table.addresses


def _write(volume: Volume, lease: Lease, group: Sequence[tuple[str, U8, U32]]) -> NewObject:
    key = index_key()
    protocol.put_begin(volume.catalog, lease.id, [(key, "index")])
    staged = volume.objects.stage(lease.id, key)
    tables = [(pack_id(pack), digests, addresses) for pack, digests, addresses in group]
    staged.write(encode_segment(tables, volume.file.chunk_digest))
    volume.objects.publish([staged])
    return NewObject(key, staged.size, packs=tuple(pack for pack, _, _ in group))


def entries(volume: Volume, key: str) -> tuple[U8, U32]:
    """What the segments that lie in the store, known or not, tell of one data pack: digests and addresses."""
    mine = pack_id(key)
    parts = [part for name, _ in volume.objects.list("index/") for part in _entries_of(volume, name, mine)]
    if not parts:
        return np.empty((0, 32), np.uint8), np.empty(0, np.uint32)
    digests = np.concatenate([one for one, _ in parts])
    addresses = np.concatenate([one for _, one in parts])
    _, first = np.unique(addresses, return_index=True)
    return digests[first], addresses[first]


def _entries_of(volume: Volume, name: str, mine: bytes) -> Iterator[tuple[U8, U32]]:
    try:
        segment = open_segment(volume.objects.open(name))
        if mine not in segment.pack_ids:
            return
        ordinal = segment.pack_ids.index(mine)
        for rows in segment.slices():
            chosen = rows[rows["pack"] == ordinal]
            yield np.ascontiguousarray(chosen["digest"]), np.ascontiguousarray(chosen["address"])
    except (Damaged, NotFound):
        return

