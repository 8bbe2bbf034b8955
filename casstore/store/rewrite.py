"""The transactions of those who rewrite: loose blobs into packs, packs into better packs, segments into one.
Rows of PROTOCOL.md, a function of that name each; the others are in `protocol` and `collector`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..digest import Digest
from ..errors import Conflict
from ..model import U32, BlobInfo, NewBlob, Used
from . import query, rows, rules
from .catalog import Catalog, Tx, WriteTx
from .protocol import Commit
from .rows import NewObject


class Move(NamedTuple):
    """One blob's edge to be moved off the object `old`. `expected`: the intervals of `old` that the blob was
    seen to use when the plan was made; `to`: the same chunks elsewhere. For a metadata pack: `to` is the one
    new metadata pack, `record` the (frame, offset, length) there."""

    digest: Digest
    old: str
    expected: U32
    to: tuple[Used, ...]
    record: tuple[int, int, int] | None = None


def pack_begin(catalog: Catalog, lease: int, digest: Digest) -> BlobInfo | None:
    """Name a live, loose blob and its file for packing; None where it is not (any more) both."""
    with catalog.write("pack_begin") as tx:
        rows.opened_gen(tx, lease)
        row = tx.row(
            "SELECT id, loc FROM blob WHERE digest = ? AND state = 'live' AND loc_state = 'loose'",
            (digest.raw,),
        )
        if row is None:
            return None
        rows.name_blob(tx, lease, row[0])
        rows.name_object(tx, lease, row[1])
        return query.find_blob(tx, digest)


def pack_commit(catalog: Catalog, lease: int, loose: str, blob: NewBlob, objects: Sequence[NewObject]) -> bool:
    """Replace a blob's loose file (key `loose`) by the place in `blob`, which was replayed and compared.

    False, and nothing changed, where the blob is no longer live at that file: somebody else packed, healed or
    collected it; what we wrote dies with the lease.
    """
    with catalog.write("pack_commit") as tx:
        work = Commit(tx, lease, objects)
        row = tx.row(
            "SELECT b.id, o.id FROM blob b JOIN object o ON o.id = b.loc"
            " WHERE b.digest = ? AND b.state = 'live' AND b.loc_state = 'loose' AND o.key = ?",
            (blob.digest.raw, loose),
        )
        if row is None:
            return False
        blob_id, loose_id = row
        edges = work.edges(blob.place)
        work.wake_segments()
        rows.drop_edges(tx, blob_id)
        columns = rows.blob_columns(blob, edges[0][0])
        del columns["media_type"]
        rows.update_blob(tx, blob_id, columns)
        rows.put_edges(tx, blob_id, edges)
        tx.run("DELETE FROM named_object WHERE lease = ? AND object = ?", (lease, loose_id))
        tx.run(
            "UPDATE object SET state = 'retired', retired_gen = ? WHERE id = ? AND state = 'live'",
            (rules.next_gen(tx), loose_id),
        )
        return True


class Facts(NamedTuple):
    """What is inside a compressed blob: its digest, its length in bytes, docker's SIZE of it."""

    diffid: Digest
    content_size: int
    files_size: int


def learn(catalog: Catalog, digest: Digest, facts: Facts) -> None:
    """Note what is inside a blob, which its digest determines: so it holds whatever became of the blob meanwhile."""
    with catalog.write("learn") as tx:
        tx.run(
            "UPDATE blob SET diffid = ?, content_size = ?, files_size = ? WHERE digest = ? AND content_size IS NULL",
            (facts.diffid.raw, facts.content_size, facts.files_size, digest.raw),
        )


def measure(catalog: Catalog, sizes: Mapping[Digest, int]) -> None:
    """Note the sizes of images by their manifests, where they were not known."""
    with catalog.write("measure") as tx:
        for digest, size in sizes.items():
            tx.run(
                "UPDATE image SET size = ? WHERE size < 0 AND manifest = (SELECT id FROM blob WHERE digest = ?)",
                (size, digest.raw),
            )


def pack_refuse(catalog: Catalog, digest: Digest, reason: str, engines: str = "") -> None:
    """Note why a loose blob cannot be packed, so that it is not tried again each time; with `engines` (what tried it,
    see query.loose_blobs) not by the same."""
    with catalog.write("pack_refuse") as tx:
        tx.run("UPDATE blob SET pack_refused = ? WHERE digest = ?", (refusal(reason, engines), digest.raw))


def refusal(reason: str, engines: str = "") -> str:
    """What the catalog keeps of it."""
    return reason[:200] + (f" (engines {engines})" if engines else "")


def repack_commit(catalog: Catalog, lease: int, objects: Sequence[NewObject]) -> None:
    """Make rewritten packs and the segments over them live and named, before any edge moves to them."""
    with catalog.write("repack_commit") as tx:
        opened = rows.opened_gen(tx, lease)
        for one in objects:
            object_id = rows.use_object(tx, lease, opened, one.key, one)
            rows.name_object(tx, lease, object_id)
            # No edge yet: whatever becomes of the moves, the next gc looks at it.
            tx.run("UPDATE object SET dirty = dirty + 1 WHERE id = ?", (object_id,))
            rows.put_covers(tx, object_id, rows.pack_ids(tx, one.packs))


def repack_move(catalog: Catalog, lease: int, moves: Iterable[Move]) -> set[Digest]:
    """Move edges from old objects to new ones, a batch of blobs; returns the digests whose edge was moved.

    Rule 7: per blob, and only where the blob is live and still uses of the old pack exactly what the plan
    says; then all the chunks that it needs from there are in the new ones. The old object is left to the
    collector.
    """
    moved = set()
    with catalog.write("repack_move") as tx:
        opened = rows.opened_gen(tx, lease)
        for move in moves:
            row = tx.row(
                "SELECT b.id, o.id, b.loc = o.id, e.used FROM blob b JOIN place e ON e.blob = b.id"
                " JOIN object o ON o.id = e.object WHERE b.digest = ? AND b.state = 'live' AND o.key = ?",
                (move.digest.raw, move.old),
            )
            if row is None or not needs_just(row[3], move.expected) or bool(row[2]) != (move.record is not None):
                continue
            blob_id, old_id = row[0], row[1]
            targets = [(rows.use_object(tx, lease, opened, use.key, None), use.intervals) for use in move.to]
            tx.run("DELETE FROM place WHERE blob = ? AND object = ?", (blob_id, old_id))
            tx.run("UPDATE object SET dirty = dirty + 1 WHERE id = ?", (old_id,))
            for object_id, intervals in targets:
                add_edge(tx, blob_id, object_id, intervals)
            if move.record is not None:
                tx.run(
                    "UPDATE blob SET loc = ?, loc_frame = ?, loc_offset = ?, loc_length = ? WHERE id = ?",
                    (targets[0][0], *move.record, blob_id),
                )
            moved.add(move.digest)
    return moved


def needs_just(used: bytes, expected: U32) -> bool:
    """Rule 7: whether a blob's edge is the one that the plan copied the chunks of."""
    return used == query.pack_intervals(expected)


def add_edge(tx: WriteTx, blob_id: int, object_id: int, intervals: U32) -> None:
    """An edge more, joined with the one that the blob may have to this object already."""
    used = tx.value("SELECT used FROM place WHERE blob = ? AND object = ?", (blob_id, object_id))
    if used is None:
        rows.put_edges(tx, blob_id, [(object_id, query.pack_intervals(intervals))])
    else:
        both = query.merge_intervals(np.concatenate([query.unpack_intervals(used), intervals]))
        tx.run(
            "UPDATE place SET used = ? WHERE blob = ? AND object = ?",
            (query.pack_intervals(both), blob_id, object_id),
        )


def merge_commit(catalog: Catalog, lease: int, replaced: Sequence[str], merged: NewObject) -> bool:
    """Put one segment in the place of those that it was made of (rule 8: as a multimap of chunk and pack).

    Rule 10, compare and set: False, and nothing changed, unless every one of `replaced` is still live. Rule
    9: the merged segment must cover every pack that they cover, except those gone or deleting (Conflict).
    """
    with catalog.write("merge_commit") as tx:
        opened = rows.opened_gen(tx, lease)
        old = still_live(tx, replaced)
        if old is None:
            return False
        segment = rows.use_object(tx, lease, opened, merged.key, merged)
        rows.put_covers(tx, segment, rows.pack_ids(tx, merged.packs))
        gen = rules.next_gen(tx)
        for one in old:
            lost = tx.value(
                f"SELECT v.pack FROM covers v WHERE v.segment = ? AND NOT {rules.PACK_IS_GONE}"
                " AND NOT EXISTS (SELECT 1 FROM covers w WHERE w.segment = ? AND w.pack = v.pack)",
                (one, segment),
            )
            if lost is not None:
                raise Conflict("the merged segment lacks a pack that may be needed", what=merged.key)
            tx.run("UPDATE object SET state = 'retired', retired_gen = ? WHERE id = ?", (gen, one))
        return True


def still_live(tx: Tx, segments: Sequence[str]) -> list[int] | None:
    """Rule 10: the ids of exactly these segments, None unless all of them are live."""
    found = [
        tx.value("SELECT id FROM object WHERE key = ? AND kind = 'index' AND state = 'live'", (key,))
        for key in segments
    ]
    return None if None in found else found
