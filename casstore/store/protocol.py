"""The transactions of those who write, tag, pack and read: the upper rows of PROTOCOL.md, a function of that name each.

Every function is one transaction (BEGIN IMMEDIATE): all that it tests and all that it changes is of one
moment. The collector's rows are in `collector`, the guards in `rules`. A function that needs a lease raises
LeaseLost where the lease's row is gone, and has then changed nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from ..digest import Digest
from ..errors import Conflict, LeaseLost, NotFound, UsageError
from ..model import U32, BlobInfo, ImageRow, NewBlob, Place, TagRow, Used
from . import query, rules
from .catalog import Catalog, Tx, WriteTx
from .objects import check_key


class NewObject(NamedTuple):
    """A published object as its commit describes it: bytes of its file, uncompressed bytes of its chunks (data packs),
    keys of the packs that it has entries of (index segments)."""

    key: str
    size: int
    chunk_bytes: int = 0
    packs: tuple[str, ...] = ()


class Move(NamedTuple):
    """One blob's edge to be moved off the object `old`. `expected`: the intervals of `old` that the blob was seen to
    use when the plan was made; `to`: the same chunks elsewhere. For a metadata pack: `to` is the one new
    metadata
    pack, `record` the (frame, offset, length) there."""

    digest: Digest
    old: str
    expected: U32
    to: tuple[Used, ...]
    record: tuple[int, int, int] | None = None


# -- leases


def lease_open(catalog: Catalog, purpose: str, ttl: float) -> int:
    """Open a lease of `ttl` seconds; returns its id. Make its staging folder after this."""
    with catalog.write("lease_open") as tx:
        return tx.insert(
            "INSERT INTO lease (opened_gen, expires, purpose) VALUES (?, ?, ?)",
            (rules.next_gen(tx), tx.now() + ttl, purpose[:200]),
        )


def lease_renew(catalog: Catalog, lease: int, ttl: float) -> None:
    """Let the lease last `ttl` seconds from now."""
    with catalog.write("lease_renew") as tx:
        opened_gen(tx, lease)
        tx.run("UPDATE lease SET expires = ? WHERE id = ?", (tx.now() + ttl, lease))


def lease_close(catalog: Catalog, lease: int) -> None:
    """End a lease; ended already is fine. Remove its staging folder after this."""
    with catalog.write("lease_close") as tx:
        end_lease(tx, lease)


def end_lease(tx: WriteTx, lease: int) -> None:
    """Delete a lease's row and all that it names: from here on nothing is granted on it."""
    tx.run("DELETE FROM named_blob WHERE lease = ?", (lease,))
    tx.run("DELETE FROM named_object WHERE lease = ?", (lease,))
    tx.run("DELETE FROM lease WHERE id = ?", (lease,))


def opened_gen(tx: Tx, lease: int) -> int:
    """The lease's place in the order. Rule 1: an expired lease whose row is there still counts; without row, nothing."""
    gen = tx.value("SELECT opened_gen FROM lease WHERE id = ?", (lease,))
    if gen is None:
        raise LeaseLost("the lease of this command has ended; nothing was changed", what=f"lease {lease}")
    return int(gen)


# -- naming


def name_blobs(catalog: Catalog, lease: int, digests: Iterable[Digest]) -> set[Digest]:
    """Which of these blobs are present. Those are named by the lease now and stay until it ends: the caller may drop
    its bytes (rule 2). All others are missing, whatever rows there may be."""
    present = set()
    with catalog.write("name_blobs") as tx:
        opened = opened_gen(tx, lease)
        for digest in dict.fromkeys(digests):
            row = tx.row("SELECT id, state, retired_gen, damaged FROM blob WHERE digest = ?", (digest.raw,))
            if row is not None and not row[3] and rules.seen(row[1], row[2], opened):
                tx.run("INSERT OR IGNORE INTO named_blob (lease, blob) VALUES (?, ?)", (lease, row[0]))
                present.add(digest)
    return present


def name_objects(catalog: Catalog, lease: int, keys: Iterable[str]) -> set[str]:
    """Which of these objects (packs of index hits) may be used: as `name_blobs`. Holds while the lease does."""
    present = set()
    with catalog.write("name_objects") as tx:
        opened = opened_gen(tx, lease)
        for key in dict.fromkeys(keys):
            row = tx.row("SELECT id, state, retired_gen, damaged FROM object WHERE key = ?", (key,))
            if row is not None and not row[3] and rules.seen(row[1], row[2], opened):
                _name_object(tx, lease, row[0])
                present.add(key)
    return present


def _name_object(tx: WriteTx, lease: int, object_id: int) -> None:
    tx.run("INSERT OR IGNORE INTO named_object (lease, object) VALUES (?, ?)", (lease, object_id))


# -- writing


def put_begin(catalog: Catalog, lease: int, objects: Iterable[tuple[str, str]]) -> None:
    """Reserve objects, given as (key, kind), before their first byte: pending rows under the lease."""
    with catalog.write("put_begin") as tx:
        opened_gen(tx, lease)
        for key, kind in objects:
            tx.run(
                "INSERT INTO object (key, kind, state, lease) VALUES (?, ?, 'pending', ?)",
                (check_key(key), kind, lease),
            )


def commit(
    catalog: Catalog,
    lease: int,
    blobs: Sequence[NewBlob],
    *,
    objects: Sequence[NewObject] = (),
    images: Sequence[ImageRow] = (),
    tags: Sequence[tuple[str, str, Digest]] = (),
    pins: Sequence[tuple[Digest, str]] = (),
    keep: str | None = None,
) -> set[Digest]:
    """Give names to what was published under the lease: all of it, or nothing with an error.

    `objects` describes every object written under the lease that `blobs` may use, and the segments over them.
    Each child of a blob must be live, or in this commit, or present under the lease; so must the targets of
    `tags` and `images`. All `blobs` are named by the lease until it ends. `keep`: see `tag`.

    Returns the digests whose blob was live already: the store keeps that one, ours dies with the lease (rule
    14).
    """
    with catalog.write("commit") as tx:
        return _Commit(tx, lease, objects).run(blobs, images, tags, pins, keep)


class _Commit:
    """One commit at work."""

    def __init__(self, tx: WriteTx, lease: int, objects: Sequence[NewObject]) -> None:
        self.tx = tx
        self.lease = lease
        self.opened = opened_gen(tx, lease)
        self.now = tx.now()
        self.described = {one.key: one for one in objects}
        self.woken: set[int] = set()
        self.ids: dict[Digest, int] = {}

    def run(
        self,
        blobs: Sequence[NewBlob],
        images: Sequence[ImageRow],
        tags: Sequence[tuple[str, str, Digest]],
        pins: Sequence[tuple[Digest, str]],
        keep: str | None,
    ) -> set[Digest]:
        tx = self.tx
        kept = {blob.digest for blob in blobs if blob.digest not in self.ids and not self.place(blob)}
        self.wake_segments()
        for blob in blobs:
            for child in blob.children:
                tx.run(
                    "INSERT OR IGNORE INTO child (parent, child) VALUES (?, ?)",
                    (self.ids[blob.digest], self.require(child, f"child of {blob.digest}")),
                )
            # No tag yet: the lease is what keeps it.
            tx.run(
                "INSERT OR IGNORE INTO named_blob (lease, blob) VALUES (?, ?)",
                (self.lease, self.ids[blob.digest]),
            )
        for image in images:
            _put_image(tx, self.require(image.manifest, "image"), image)
        for digest, name in pins:
            self.wake_seen(digest)
            tx.run("INSERT OR IGNORE INTO pin (digest, name) VALUES (?, ?)", (digest.raw, name))
        for repository, tag_, target in tags:
            _put_tag(tx, repository, tag_, self.require(target, f"{repository}:{tag_}"), self.now, keep)
        return kept

    def place(self, blob: NewBlob) -> bool:
        """Make the blob's row live with our bytes; False where a live one stays."""
        tx = self.tx
        row = tx.row("SELECT id, state, damaged FROM blob WHERE digest = ?", (blob.digest.raw,))
        if row is not None and row[1] == "live" and not row[2]:
            self.ids[blob.digest] = row[0]
            return False
        edges = self.edges(blob.place)
        place = blob.place
        values = (
            blob.size,
            place.state,
            edges[0][0],
            place.frame,
            place.offset,
            place.length,
            blob.encoding,
            blob.media_type,
            None if blob.diffid is None else blob.diffid.raw,
            blob.content_size,
            blob.files_size,
            blob.spot,
            self.now,
            self.now,
            blob.digest.raw,
        )
        if row is None:
            blob_id = tx.insert(
                "INSERT INTO blob (size, loc_state, loc, loc_frame, loc_offset, loc_length, encoding, media_type,"
                " diffid, content_size, files_size, spot, created, last_read, digest, state)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'live')",
                values,
            )
        else:
            # Retired and we bring its bytes, or found rotten and now healed: the row takes our place. The
            # edges of its former life go; where it was retired, so do its children, which may be retired too
            # (rule 3).
            blob_id = row[0]
            drop_edges(tx, blob_id)
            if row[1] != "live":
                tx.run("DELETE FROM child WHERE parent = ?", (blob_id,))
            tx.run(
                "UPDATE blob SET size = ?, loc_state = ?, loc = ?, loc_frame = ?, loc_offset = ?, loc_length = ?,"
                " encoding = ?, media_type = ?, diffid = ?, content_size = ?, files_size = ?, spot = ?, created = ?,"
                " last_read = ?, state = 'live', retired_gen = NULL, damaged = 0, pack_refused = NULL"
                " WHERE digest = ?",
                values,
            )
        put_edges(tx, blob_id, edges)
        self.ids[blob.digest] = blob_id
        return True

    def edges(self, place: Place) -> list[tuple[int, bytes]]:
        """(object id, used) of all that a place depends on, its own object first; each of them is live then."""
        result = [(self.wake_object(place.key), b"")]
        result += [(self.wake_object(use.key), query.pack_intervals(use.intervals)) for use in place.uses]
        return result

    def wake_object(self, key: str) -> int:
        """The id of an object that we may use, live from here on. Rule 14: no other object of ours becomes live."""
        object_id = use_object(self.tx, self.lease, self.opened, key, self.described.get(key))
        self.woken.add(object_id)
        return object_id

    def wake_segments(self) -> None:
        """Index segments become live with the first of their packs."""
        for one in self.described.values():
            if not one.packs:
                continue
            covered = pack_ids(self.tx, one.packs)
            if not self.woken.isdisjoint(covered):
                segment = use_object(self.tx, self.lease, self.opened, one.key, one)
                put_covers(self.tx, segment, covered)

    def require(self, digest: Digest, why: str) -> int:
        """The id of a blob that is live now, or is retired but present under our lease and revived."""
        found = self.wake_seen(digest)
        if found is None:
            raise NotFound(f"blob {digest} is not in the store", what=why)
        return found

    def wake_seen(self, digest: Digest) -> int | None:
        found = self.ids.get(digest)
        if found is None:
            row = self.tx.row("SELECT id, state, retired_gen FROM blob WHERE digest = ?", (digest.raw,))
            if row is None or not rules.seen(row[1], row[2], self.opened):
                return None
            if row[1] != "live":
                revive(self.tx, row[0])
            found = self.ids[digest] = int(row[0])
        return found


def revive(tx: WriteTx, blob_id: int) -> None:
    """Retired → live, inside a commit. Rule 5: with all that it depends on, its objects and its children's closure."""
    todo = [blob_id]
    while todo:
        current = todo.pop()
        tx.run("UPDATE blob SET state = 'live', retired_gen = NULL WHERE id = ?", (current,))
        tx.run(
            "UPDATE object SET state = 'live', retired_gen = NULL"
            " WHERE state = 'retired' AND id IN (SELECT object FROM place WHERE blob = ?)",
            (current,),
        )
        todo += [
            row[0]
            for row in tx.rows(
                "SELECT c.child FROM child c JOIN blob b ON b.id = c.child WHERE c.parent = ? AND b.state = 'retired'",
                (current,),
            )
        ]


def use_object(tx: WriteTx, lease: int, opened: int, key: str, described: NewObject | None) -> int:
    """Make an object live for a blob that is about to depend on it; returns its id.

    Ours and pending, live, or retired but seen: else it cannot be relied on (LeaseLost).
    """
    row = tx.row("SELECT id, state, retired_gen, lease FROM object WHERE key = ?", (key,))
    if row is None or not ((row[1] == "pending" and row[3] == lease) or rules.seen(row[1], row[2], opened)):
        raise LeaseLost("an object that this command relies on is gone; nothing was changed", what=key)
    if row[1] == "pending":
        if described is None:
            raise UsageError("the commit does not describe this object", what=key)
        tx.run(
            "UPDATE object SET state = 'live', size = ?, chunk_bytes = ? WHERE id = ?",
            (described.size, described.chunk_bytes, row[0]),
        )
    elif row[1] == "retired":
        tx.run("UPDATE object SET state = 'live', retired_gen = NULL WHERE id = ?", (row[0],))
    return int(row[0])


def put_edges(tx: WriteTx, blob_id: int, edges: Iterable[tuple[int, bytes]]) -> None:
    tx.many(
        "INSERT INTO place (blob, object, used) VALUES (?, ?, ?)",
        ((blob_id, obj, used) for obj, used in edges),
    )


def drop_edges(tx: WriteTx, blob_id: int) -> None:
    """Remove a blob's edges; its objects are dirty then: their live bytes want measuring."""
    tx.run(
        "UPDATE object SET dirty = dirty + 1 WHERE id IN (SELECT object FROM place WHERE blob = ?)",
        (blob_id,),
    )
    tx.run("DELETE FROM place WHERE blob = ?", (blob_id,))


def pack_ids(tx: Tx, keys: Iterable[str]) -> set[int]:
    """Ids of the objects of these keys that have a row."""
    found = (tx.value("SELECT id FROM object WHERE key = ?", (key,)) for key in keys)
    return {int(one) for one in found if one is not None}


def put_covers(tx: WriteTx, segment: int, packs: Iterable[int]) -> None:
    tx.many("INSERT OR IGNORE INTO covers (segment, pack) VALUES (?, ?)", ((segment, pack) for pack in packs))


def _put_image(tx: WriteTx, manifest: int, image: ImageRow) -> None:
    tx.run(
        "INSERT OR REPLACE INTO image (manifest, config, created, size, os, architecture, variant, labels, parent)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            manifest,
            image.config.raw,
            image.created,
            image.size,
            image.os,
            image.architecture,
            image.variant,
            msgspec.json.encode(image.labels).decode(),
            image.parent,
        ),
    )


# -- tags and pins


def tag(
    catalog: Catalog, repository: str, tag_: str, target: Digest, *, keep: str | None = None
) -> Digest | None:
    """Point repository:tag at a blob that is live (NotFound otherwise, rule 3); returns what it pointed at before.

    `keep` is the name of the pin that stands for "an image without a tag": the target gives up that pin, and
    a former target that no tag is left for gets it.
    """
    with catalog.write("tag") as tx:
        row = tx.row("SELECT id, state FROM blob WHERE digest = ?", (target.raw,))
        if row is None or not rules.taggable(row[1]):
            raise NotFound(f"blob {target} is not in the store", what=f"{repository}:{tag_}")
        return _put_tag(tx, repository, tag_, row[0], tx.now(), keep)


def _put_tag(
    tx: WriteTx, repository: str, tag_: str, target: int, now: float, keep: str | None
) -> Digest | None:
    former = _take_tag(tx, repository, tag_, now, unless=target)
    tx.run(
        "INSERT OR IGNORE INTO tag (repository, tag, target, created) VALUES (?, ?, ?, ?)",
        (repository, tag_, target, now),
    )
    if keep is not None:
        tx.run(
            "DELETE FROM pin WHERE name = ? AND digest = (SELECT digest FROM blob WHERE id = ?)",
            (keep, target),
        )
        if former is not None:
            tx.run(
                "INSERT OR IGNORE INTO pin (digest, name) SELECT b.digest, ? FROM blob b"
                " WHERE b.digest = ? AND NOT EXISTS (SELECT 1 FROM tag t WHERE t.target = b.id)",
                (keep, former.raw),
            )
    return former


def _take_tag(
    tx: WriteTx, repository: str, tag_: str, now: float, unless: int | None = None
) -> Digest | None:
    row = tx.row(
        "SELECT b.digest, b.id FROM tag t JOIN blob b ON b.id = t.target WHERE t.repository = ? AND t.tag = ?",
        (repository, tag_),
    )
    if row is None or row[1] == unless:
        return None
    tx.run("DELETE FROM tag WHERE repository = ? AND tag = ?", (repository, tag_))
    tx.run(
        "INSERT INTO tag_history (repository, tag, target, until) VALUES (?, ?, ?, ?)",
        (repository, tag_, row[0], now),
    )
    return Digest.unpack(row[0])


def untag(
    catalog: Catalog, tags: Iterable[tuple[str, str]], *, pins: Iterable[tuple[Digest, str]] = ()
) -> list[TagRow]:
    """Remove tags, given as (repository, tag), and pins, all at once; returns the tags that were there."""
    removed = []
    with catalog.write("untag") as tx:
        now = tx.now()
        for repository, tag_ in tags:
            former = _take_tag(tx, repository, tag_, now)
            if former is not None:
                removed.append(TagRow(repository, tag_, former, now))
        for digest, name in pins:
            tx.run("DELETE FROM pin WHERE digest = ? AND name = ?", (digest.raw, name))
    return removed


def pin(catalog: Catalog, digest: Digest, name: str) -> bool:
    """Keep a blob by hand, under a name, whether or not it is here; returns whether it is live now.

    A retired blob is not here: a pin does not bring it back, and does not stop its purge.
    """
    with catalog.write("pin") as tx:
        tx.run("INSERT OR IGNORE INTO pin (digest, name) VALUES (?, ?)", (digest.raw, name))
        return tx.value("SELECT state FROM blob WHERE digest = ?", (digest.raw,)) == "live"


def unpin(catalog: Catalog, digest: Digest, name: str | None = None) -> bool:
    """Remove one pin, or all pins of a digest; returns whether there was one."""
    with catalog.write("unpin") as tx:
        if name is None:
            return tx.run("DELETE FROM pin WHERE digest = ?", (digest.raw,)) > 0
        return tx.run("DELETE FROM pin WHERE digest = ? AND name = ?", (digest.raw, name)) > 0


# -- packing, repacking, merging


def pack_begin(catalog: Catalog, lease: int, digest: Digest) -> BlobInfo | None:
    """Name a live, loose blob and its file for packing; None where it is not (any more) both."""
    with catalog.write("pack_begin") as tx:
        opened_gen(tx, lease)
        row = tx.row(
            "SELECT id, loc FROM blob WHERE digest = ? AND state = 'live' AND loc_state = 'loose'",
            (digest.raw,),
        )
        if row is None:
            return None
        tx.run("INSERT OR IGNORE INTO named_blob (lease, blob) VALUES (?, ?)", (lease, row[0]))
        _name_object(tx, lease, row[1])
        return query.find_blob(tx, digest)


def pack_commit(
    catalog: Catalog, lease: int, loose: str, blob: NewBlob, objects: Sequence[NewObject]
) -> bool:
    """Replace a blob's loose file (key `loose`) by the place in `blob`, which was replayed and compared.

    False, and nothing changed, where the blob is no longer live at that file: somebody else packed, healed or
    collected it; what we wrote dies with the lease.
    """
    with catalog.write("pack_commit") as tx:
        work = _Commit(tx, lease, objects)
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
        drop_edges(tx, blob_id)
        tx.run(
            "UPDATE blob SET loc_state = ?, loc = ?, loc_frame = ?, loc_offset = ?, loc_length = ?, encoding = ?,"
            " diffid = ?, content_size = ?, files_size = ?, spot = ?, damaged = 0, pack_refused = NULL WHERE id = ?",
            (
                blob.place.state,
                edges[0][0],
                blob.place.frame,
                blob.place.offset,
                blob.place.length,
                blob.encoding,
                None if blob.diffid is None else blob.diffid.raw,
                blob.content_size,
                blob.files_size,
                blob.spot,
                blob_id,
            ),
        )
        put_edges(tx, blob_id, edges)
        tx.run("DELETE FROM named_object WHERE lease = ? AND object = ?", (lease, loose_id))
        tx.run(
            "UPDATE object SET state = 'retired', retired_gen = ? WHERE id = ? AND state = 'live'",
            (rules.next_gen(tx), loose_id),
        )
        return True


def pack_refuse(catalog: Catalog, digest: Digest, reason: str) -> None:
    """Note why a loose blob cannot be packed, so that it is not tried again each time."""
    with catalog.write("pack_refuse") as tx:
        tx.run("UPDATE blob SET pack_refused = ? WHERE digest = ?", (reason[:200], digest.raw))


def repack_commit(catalog: Catalog, lease: int, objects: Sequence[NewObject]) -> None:
    """Make rewritten packs and the segments over them live and named, before any edge moves to them."""
    with catalog.write("repack_commit") as tx:
        opened = opened_gen(tx, lease)
        for one in objects:
            object_id = use_object(tx, lease, opened, one.key, one)
            _name_object(tx, lease, object_id)
            # No edge yet: whatever becomes of the moves, the next gc looks at it.
            tx.run("UPDATE object SET dirty = dirty + 1 WHERE id = ?", (object_id,))
            put_covers(tx, object_id, pack_ids(tx, one.packs))


def repack_move(catalog: Catalog, lease: int, moves: Iterable[Move]) -> set[Digest]:
    """Move edges from old objects to new ones, a batch of blobs; returns the digests whose edge was moved.

    Rule 7: per blob, and only where the blob is live and still uses of the old pack exactly what the plan
    says; then all the chunks that it needs from there are in the new ones. The old object is left to the
    collector.
    """
    moved = set()
    with catalog.write("repack_move") as tx:
        opened = opened_gen(tx, lease)
        for move in moves:
            row = tx.row(
                "SELECT b.id, o.id, b.loc = o.id, e.used FROM blob b JOIN place e ON e.blob = b.id"
                " JOIN object o ON o.id = e.object WHERE b.digest = ? AND b.state = 'live' AND o.key = ?",
                (move.digest.raw, move.old),
            )
            if (
                row is None
                or not needs_just(row[3], move.expected)
                or bool(row[2]) != (move.record is not None)
            ):
                continue
            blob_id, old_id = row[0], row[1]
            targets = [(use_object(tx, lease, opened, use.key, None), use.intervals) for use in move.to]
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
        put_edges(tx, blob_id, [(object_id, query.pack_intervals(intervals))])
    else:
        both = query.merge_intervals(np.concatenate([query.unpack_intervals(used), intervals]))
        tx.run(
            "UPDATE place SET used = ? WHERE blob = ? AND object = ?",
            (query.pack_intervals(both), blob_id, object_id),
        )


def live_segments(tx: Tx) -> list[str]:
    """Keys of the live index segments, newest first."""
    return [
        row[0]
        for row in tx.rows("SELECT key FROM object WHERE kind = 'index' AND state = 'live' ORDER BY id DESC")
    ]


def merge_commit(catalog: Catalog, lease: int, replaced: Sequence[str], merged: NewObject) -> bool:
    """Put one segment in the place of those that it was made of (rule 8: as a multimap of chunk and pack).

    Rule 10, compare and set: False, and nothing changed, unless every one of `replaced` is still live. Rule
    9: the merged segment must cover every pack that they cover, except those gone or deleting (Conflict).
    """
    with catalog.write("merge_commit") as tx:
        opened = opened_gen(tx, lease)
        old = [
            tx.value("SELECT id FROM object WHERE key = ? AND kind = 'index' AND state = 'live'", (key,))
            for key in replaced
        ]
        if None in old:
            return False
        segment = use_object(tx, lease, opened, merged.key, merged)
        put_covers(tx, segment, pack_ids(tx, merged.packs))
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


# -- reading


class Opened(NamedTuple):
    """What a leased reader may read until its lease ends: blobs by digest, keys of the index segments to use."""

    blobs: dict[Digest, BlobInfo]
    segments: list[str]


def read_open(catalog: Catalog, lease: int, digests: Iterable[Digest]) -> Opened:
    """Name blobs for reading; those that are not live are left out. Places and segments are of the same moment: files
    retired later stay, because the lease is older."""
    with catalog.write("read_open") as tx:
        opened_gen(tx, lease)
        found = {}
        for digest in dict.fromkeys(digests):
            info = query.find_blob(tx, digest)
            if info is not None:
                tx.run(
                    "INSERT OR IGNORE INTO named_blob (lease, blob) SELECT ?, id FROM blob WHERE digest = ?",
                    (lease, digest.raw),
                )
                found[digest] = info
        return Opened(found, live_segments(tx))


# -- damage


def mark_damaged(catalog: Catalog, digests: Iterable[Digest] = (), keys: Iterable[str] = ()) -> None:
    """Blobs and objects found rotten: they answer "missing" from now on, so that the next good copy heals them."""
    with catalog.write("mark_damaged") as tx:
        tx.many("UPDATE blob SET damaged = 1 WHERE digest = ?", ((digest.raw,) for digest in digests))
        tx.many("UPDATE object SET damaged = 1 WHERE key = ?", ((key,) for key in keys))


def mark_read(catalog: Catalog, digests: Iterable[Digest], coarse: float = 3600.0) -> None:
    """Note that blobs were read, to within `coarse` seconds: what is cold is packed harder."""
    with catalog.write("mark_read") as tx:
        now = tx.now()
        tx.many(
            "UPDATE blob SET last_read = ? WHERE digest = ? AND last_read < ?",
            ((now, digest.raw, now - coarse) for digest in digests),
        )
