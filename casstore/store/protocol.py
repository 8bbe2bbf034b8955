"""The transactions of those who write, tag, pack and read: the upper rows of PROTOCOL.md, a function of that
name each.

Every function is one transaction (BEGIN IMMEDIATE): all that it tests and all that it changes is of one
moment. The collector's rows are in `collector`, the guards in `rules`. A function that needs a lease raises
LeaseLost where the lease's row is gone, and has then changed nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from ..digest import Digest
from ..errors import LeaseLost, NotFound, UsageError
from ..model import BlobInfo, ImageRow, NewBlob, Place, TagRow
from . import query, rules
from .catalog import Catalog, Tx, WriteTx
from .objects import check_key


class NewObject(NamedTuple):
    """A published object as its commit describes it: bytes of its file, uncompressed bytes of its chunks and
    whether they are packed as hard as they will be (data packs), keys of the packs that it has entries of
    (index segments)."""

    key: str
    size: int
    chunk_bytes: int = 0
    packs: tuple[str, ...] = ()
    deep: bool = False


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
    """The lease's place in the order. Rule 1: an expired lease whose row is there still counts; without row,
    nothing."""
    gen = tx.value("SELECT opened_gen FROM lease WHERE id = ?", (lease,))
    if gen is None:
        raise LeaseLost("the lease of this command has ended; nothing was changed", what=f"lease {lease}")
    return int(gen)


# -- naming


def name_blobs(catalog: Catalog, lease: int, digests: Iterable[Digest]) -> set[Digest]:
    """Which of these blobs are present. Those are named by the lease now and stay until it ends: the caller
    may drop its bytes (rule 2). All others are missing, whatever rows there may be."""
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
    """Which of these objects (packs of index hits) may be used: as `name_blobs`. Holds while the lease
    does."""
    present = set()
    with catalog.write("name_objects") as tx:
        opened = opened_gen(tx, lease)
        for key in dict.fromkeys(keys):
            row = tx.row("SELECT id, state, retired_gen, damaged FROM object WHERE key = ?", (key,))
            if row is not None and not row[3] and rules.seen(row[1], row[2], opened):
                name_object(tx, lease, row[0])
                present.add(key)
    return present


def name_object(tx: WriteTx, lease: int, object_id: int) -> None:
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

    Returns the digests whose blob was live already: the store keeps that one, ours dies with the lease.
    """
    with catalog.write("commit") as tx:
        return Commit(tx, lease, objects).run(blobs, images, tags, pins, keep)


class Commit:
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
        columns = blob_columns(blob, edges[0][0]) | {
            "state": "live",
            "created": self.now,
            "last_read": self.now,
        }
        if row is None:
            columns["digest"] = blob.digest.raw
            blob_id = tx.insert(
                f"INSERT INTO blob ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
                list(columns.values()),
            )
        else:
            # Retired and we bring its bytes, or found rotten and now healed: the row takes our place. The
            # edges of its former life go; where it was retired, so do its children, which may be retired too
            # (rule 3).
            blob_id = row[0]
            drop_edges(tx, blob_id)
            if row[1] != "live":
                tx.run("DELETE FROM child WHERE parent = ?", (blob_id,))
            update_blob(tx, blob_id, columns | {"retired_gen": None})
        put_edges(tx, blob_id, edges)
        self.ids[blob.digest] = blob_id
        return True

    def edges(self, place: Place) -> list[tuple[int, bytes]]:
        """(object id, used) of all that a place depends on, its own object first, each live from here on."""
        result = [(self.wake_object(place.key), b"")]
        result += [(self.wake_object(use.key), query.pack_intervals(use.intervals)) for use in place.uses]
        return result

    def wake_object(self, key: str) -> int:
        """Make an object that we use live. Rule 14: of all that we wrote, only what is used becomes live."""
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


def blob_columns(blob: NewBlob, loc: int) -> dict[str, Any]:
    """The columns of a blob's row that its place and content decide; `loc` is the id of its own object."""
    return {
        "size": blob.size,
        "loc_state": blob.place.state,
        "loc": loc,
        "loc_frame": blob.place.frame,
        "loc_offset": blob.place.offset,
        "loc_length": blob.place.length,
        "encoding": blob.encoding,
        "media_type": blob.media_type,
        "diffid": None if blob.diffid is None else blob.diffid.raw,
        "content_size": blob.content_size,
        "files_size": blob.files_size,
        "spot": blob.spot,
        "damaged": 0,
        "pack_refused": None,
    }


def update_blob(tx: WriteTx, blob_id: int, columns: dict[str, Any]) -> None:
    tx.run(
        f"UPDATE blob SET {', '.join(f'{name} = ?' for name in columns)} WHERE id = ?",
        [*columns.values(), blob_id],
    )


def revive(tx: WriteTx, blob_id: int) -> None:
    """Retired → live, inside a commit. Rule 5: with all that it depends on, its objects and its children's
    closure."""
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
                "SELECT c.child FROM child c JOIN blob b ON b.id = c.child"
                " WHERE c.parent = ? AND b.state = 'retired'",
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
            "UPDATE object SET state = 'live', size = ?, chunk_bytes = ?, deep = ? WHERE id = ?",
            (described.size, described.chunk_bytes, int(described.deep), row[0]),
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
        "INSERT OR REPLACE INTO image"
        " (manifest, config, created, size, os, architecture, variant, labels, parent)"
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
    """Point repository:tag at a blob that is live (NotFound otherwise, rule 3); returns what it pointed at
    before.

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
        "SELECT b.digest, b.id FROM tag t JOIN blob b ON b.id = t.target"
        " WHERE t.repository = ? AND t.tag = ?",
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
        return bool(tx.value("SELECT state FROM blob WHERE digest = ?", (digest.raw,)) == "live")


def unpin(catalog: Catalog, digest: Digest, name: str | None = None) -> bool:
    """Remove one pin, or all pins of a digest; returns whether there was one."""
    with catalog.write("unpin") as tx:
        if name is None:
            return tx.run("DELETE FROM pin WHERE digest = ?", (digest.raw,)) > 0
        return tx.run("DELETE FROM pin WHERE digest = ? AND name = ?", (digest.raw, name)) > 0


# -- reading


def live_segments(tx: Tx) -> list[str]:
    """Keys of the live index segments, newest first."""
    return [
        row[0]
        for row in tx.rows("SELECT key FROM object WHERE kind = 'index' AND state = 'live' ORDER BY id DESC")
    ]


class Opened(NamedTuple):
    """What a leased reader may read until its lease ends: blobs by digest, keys of the index segments to
    use."""

    blobs: dict[Digest, BlobInfo]
    segments: list[str]


def read_open(catalog: Catalog, lease: int, digests: Iterable[Digest]) -> Opened:
    """Name blobs for reading; those that are not live are left out. Places and segments are of the same
    moment: files retired later stay, because the lease is older."""
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
    """Blobs and objects found rotten: they answer "missing" from now on, so that the next good copy heals
    them."""
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
