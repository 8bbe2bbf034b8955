"""The transactions of those who write, tag, pack and read: the upper rows of PROTOCOL.md, a function of that
name each.

Every function is one transaction (BEGIN IMMEDIATE): all that it tests and all that it changes is of one
moment. The collector's rows are in `collector`, the guards in `rules`. A function that needs a lease raises
LeaseLost where the lease's row is gone, and has then changed nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec

from ..digest import Digest
from ..errors import Conflict, LeaseLost, NotFound
from ..model import BlobInfo, ImageRow, NewBlob, Place, TagRow
from . import names, query, references, rows, rules
from .catalog import Catalog, Tx, WriteTx
from .objects import check_key
from .rows import NewObject as NewObject  # what callers of commit make

# -- leases

NO_LEASE = 0
"""The lease of those who read a store that they may not write to."""


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
        rows.opened_gen(tx, lease)
        tx.run("UPDATE lease SET expires = ? WHERE id = ?", (tx.now() + ttl, lease))


def lease_holds(catalog: Catalog, lease: int) -> None:
    """LeaseLost where the lease has ended."""
    if lease != NO_LEASE:
        with catalog.read() as tx:
            rows.opened_gen(tx, lease)


def lease_close(catalog: Catalog, lease: int) -> bool:
    """End a lease; returns whether it still held until now. Remove its staging folder after this."""
    with catalog.write("lease_close") as tx:
        return rows.end_lease(tx, lease)


# -- naming


def name_blobs(catalog: Catalog, lease: int, digests: Iterable[Digest]) -> set[Digest]:
    """Which of these blobs are present. Those are named by the lease now and stay until it ends: the caller
    may drop its bytes (rule 2). All others are missing, whatever rows there may be."""
    present = set()
    with catalog.write("name_blobs") as tx:
        opened = rows.opened_gen(tx, lease)
        for digest in dict.fromkeys(digests if rules.trusted(tx) else ()):
            row = tx.row("SELECT id, state, retired_gen, damaged FROM blob WHERE digest = ?", (digest.raw,))
            if row is not None and not row[3] and rules.seen(row[1], row[2], opened):
                rows.name_blob(tx, lease, row[0])
                present.add(digest)
    return present


def name_objects(catalog: Catalog, lease: int, keys: Iterable[str]) -> set[str]:
    """Which of these objects (packs of index hits) may be used: as `name_blobs`. Holds while the lease
    does."""
    present = set()
    with catalog.write("name_objects") as tx:
        opened = rows.opened_gen(tx, lease)
        for key in dict.fromkeys(keys if rules.trusted(tx) else ()):
            row = tx.row("SELECT id, state, retired_gen, damaged FROM object WHERE key = ?", (key,))
            if row is not None and not row[3] and rules.seen(row[1], row[2], opened):
                rows.name_object(tx, lease, row[0])
                present.add(key)
    return present


# -- writing


def put_begin(catalog: Catalog, lease: int, objects: Iterable[tuple[str, str]]) -> None:
    """Reserve objects, given as (key, kind), before their first byte: pending rows under the lease."""
    with catalog.write("put_begin") as tx:
        rows.opened_gen(tx, lease)
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
    # Without a name it is a step of upkeep, which many others follow.
    with catalog.write("commit", final=bool(images or tags or pins)) as tx:
        return Commit(tx, lease, objects).run(blobs, images, tags, pins, keep)


class Commit:
    """One commit at work."""

    def __init__(self, tx: WriteTx, lease: int, objects: Sequence[NewObject]) -> None:
        self.tx = tx
        self.lease = lease
        self.opened = rows.opened_gen(tx, lease)
        self.now = tx.now()
        self.trusted = rules.trusted(tx)
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
                    "INSERT INTO child (parent, child) VALUES (?, ?) ON CONFLICT DO NOTHING",
                    (self.ids[blob.digest], self.require(child, f"child of {blob.digest}")),
                )
            # No tag yet: the lease is what keeps it.
            rows.name_blob(tx, self.lease, self.ids[blob.digest])
        for image in images:
            put_image(tx, self.require(image.manifest, "image"), image)
        for digest, name in pins:
            self.wake_seen(digest)
            put_pin(tx, digest, name)
        for repository, tag_, target in tags:
            put_tag(tx, repository, tag_, self.require(target, f"{repository}:{tag_}"), self.now, keep)
        return kept

    def place(self, blob: NewBlob) -> bool:
        """Make the blob's row live with our bytes; False where a live one stays."""
        tx = self.tx
        row = tx.row("SELECT id, state, damaged FROM blob WHERE digest = ?", (blob.digest.raw,))
        if row is not None and row[1] == "live" and not row[2] and self.trusted:
            self.ids[blob.digest] = row[0]
            return False
        edges = self.edges(blob.place)
        columns = rows.blob_columns(blob, edges[0][0]) | {
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
            rows.drop_edges(tx, blob_id)
            if row[1] != "live":
                tx.run("DELETE FROM child WHERE parent = ?", (blob_id,))
            rows.update_blob(tx, blob_id, columns | {"retired_gen": None})
        rows.put_edges(tx, blob_id, edges)
        self.ids[blob.digest] = blob_id
        return True

    def edges(self, place: Place) -> list[tuple[int, bytes]]:
        """(object id, used) of all that a place depends on, its own object first, each live from here on."""
        result = [(self.wake_object(place.key), b"")]
        result += [(self.wake_object(use.key), query.pack_intervals(use.intervals)) for use in place.uses]
        return result

    def wake_object(self, key: str) -> int:
        """Make an object that we use live. Rule 14: of all that we wrote, only what is used becomes live."""
        object_id = rows.use_object(self.tx, self.lease, self.opened, key, self.described.get(key))
        self.woken.add(object_id)
        return object_id

    def wake_segments(self) -> None:
        """Index segments become live with the first of their packs."""
        for one in self.described.values():
            if not one.packs:
                continue
            covered = rows.pack_ids(self.tx, one.packs)
            if not self.woken.isdisjoint(covered):
                segment = rows.use_object(self.tx, self.lease, self.opened, one.key, one)
                rows.put_covers(self.tx, segment, covered)

    def require(self, digest: Digest, why: str) -> int:
        """The id of a blob that is live now, or is retired but present under our lease and revived. It is in this
        commit, or has not been found damaged since it was named."""
        ours = digest in self.ids
        found = self.wake_seen(digest)
        if found is None:
            raise NotFound(f"blob {digest} is not in the store", what=why)
        if not ours and rules.suspect(self.tx, found):
            raise LeaseLost(f"blob {digest} was found damaged meanwhile; nothing was changed, try again", what=why)
        return found

    def wake_seen(self, digest: Digest) -> int | None:
        found = self.ids.get(digest)
        if found is None:
            row = self.tx.row("SELECT id, state, retired_gen FROM blob WHERE digest = ?", (digest.raw,))
            if row is None or not rules.seen(row[1], row[2], self.opened):
                return None
            if row[1] != "live":
                rows.revive(self.tx, row[0])
            found = self.ids[digest] = int(row[0])
        return found


def put_image(tx: WriteTx, manifest: int, image: ImageRow) -> None:
    """The row that lists need of the manifest with this id."""
    columns = {
        "manifest": manifest,
        "config": image.config.raw,
        "created": image.created,
        "size": image.size,
        "os": image.os,
        "architecture": image.architecture,
        "variant": image.variant,
        "labels": msgspec.json.encode(image.labels).decode(),
        "parent": image.parent,
    }
    tx.run("DELETE FROM image WHERE manifest = ?", (manifest,))
    tx.run(
        f"INSERT INTO image ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
        list(columns.values()),
    )


# -- tags and pins


def tag(catalog: Catalog, repository: str, tag_: str, target: Digest, *, keep: str | None = None) -> Digest | None:
    """Point repository:tag at a blob that is live (NotFound otherwise, rule 3); returns what it pointed at
    before.

    `keep` is the name of the pin that stands for "an image without a tag": the target gives up that pin, and
    a former target that no tag is left for gets it.
    """
    with catalog.write("tag", final=True) as tx:
        row = tx.row("SELECT id, state FROM blob WHERE digest = ?", (target.raw,))
        if row is None or not rules.taggable(row[1]):
            raise NotFound(f"blob {target} is not in the store", what=f"{repository}:{tag_}")
        return put_tag(tx, repository, tag_, row[0], tx.now(), keep)


def put_tag(
    tx: WriteTx, repository: str, tag_: str, target: int, now: float, keep: str | None = None
) -> Digest | None:
    """`tag`, as part of a transaction, at the blob with this id."""
    references.changed(tx)
    former = _take_tag(tx, repository, tag_, now, unless=target)
    tx.run(
        "INSERT INTO tag (repository, tag, target, created) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (repository, tag_, target, now),
    )
    if keep is not None:
        tx.run(
            "DELETE FROM pin WHERE name = ? AND digest = (SELECT digest FROM blob WHERE id = ?)",
            (keep, target),
        )
        if former is not None:
            tx.run(
                "INSERT INTO pin (digest, name) SELECT b.digest, ? FROM blob b WHERE b.digest = ?"
                " AND NOT EXISTS (SELECT 1 FROM tag t WHERE t.target = b.id) ON CONFLICT DO NOTHING",
                (keep, former.raw),
            )
    return former


def _take_tag(tx: WriteTx, repository: str, tag_: str, now: float, unless: int | None = None) -> Digest | None:
    row = tx.row(
        "SELECT b.digest, b.id FROM tag t JOIN blob b ON b.id = t.target WHERE t.repository = ? AND t.tag = ?",
        (repository, tag_),
    )
    if row is None or row[1] == unless:
        return None
    references.changed(tx)
    tx.run("DELETE FROM tag WHERE repository = ? AND tag = ?", (repository, tag_))
    tx.run(
        "INSERT INTO tag_history (repository, tag, target, until) VALUES (?, ?, ?, ?)",
        (repository, tag_, row[0], now),
    )
    return Digest.unpack(row[0])


def untag(
    catalog: Catalog,
    tags: Iterable[tuple[str, str]],
    *,
    pins: Iterable[tuple[Digest, str]] = (),
    kept: Iterable[tuple[Digest, str]] = (),
    planned: str | None = None,
) -> list[TagRow]:
    """Remove tags, given as (repository, tag), and `pins`, and set the pins `kept`, all at once; returns the tags that
    were there.

    `planned`: the `names.state` that this was planned for. Is it another now, Conflict, and nothing changes.
    """
    with catalog.write("untag", final=True) as tx:
        if planned is not None and names.state(tx) != planned:
            raise Conflict("names have changed since this was planned; nothing was changed, try again")
        return _untag(tx, Going(tags, pins, kept))


class Going(NamedTuple):
    """What `untag` takes away, and the pins that it sets."""

    tags: Iterable[tuple[str, str]]
    pins: Iterable[tuple[Digest, str]] = ()
    kept: Iterable[tuple[Digest, str]] = ()


def untag_planned(catalog: Catalog, plan: Callable[[Tx], Going]) -> None:
    """`untag`, planned while nobody else can change a name: for where these never rest. The lock is held meanwhile."""
    with catalog.write("untag", final=True) as tx:
        _untag(tx, plan(tx))


def _untag(tx: WriteTx, going: Going) -> list[TagRow]:
    removed = []
    now = tx.now()
    for repository, tag_ in going.tags:
        former = _take_tag(tx, repository, tag_, now)
        if former is not None:
            removed.append(TagRow(repository, tag_, former, now))
    for digest, name in going.kept:
        put_pin(tx, digest, name)
    for digest, name in going.pins:
        if tx.run("DELETE FROM pin WHERE digest = ? AND name = ?", (digest.raw, name)):
            references.changed(tx)
    return removed


def pin(catalog: Catalog, digest: Digest, name: str) -> bool:
    """Keep a blob by hand, under a name, whether or not it is here; returns whether it is live now.

    A retired blob is not here: a pin does not bring it back, and does not stop its purge.
    """
    with catalog.write("pin", final=True) as tx:
        put_pin(tx, digest, name)
        return bool(tx.value("SELECT state FROM blob WHERE digest = ?", (digest.raw,)) == "live")


def put_pin(tx: WriteTx, digest: Digest, name: str) -> None:
    """`pin`, as part of a transaction."""
    if tx.run("INSERT INTO pin (digest, name) VALUES (?, ?) ON CONFLICT DO NOTHING", (digest.raw, name)):
        references.changed(tx)


def unpin(catalog: Catalog, digest: Digest, name: str | None = None) -> bool:
    """Remove one pin, or all pins of a digest; returns whether there was one."""
    with catalog.write("unpin", final=True) as tx:
        found = tx.run("DELETE FROM pin WHERE digest = ? AND (? IS NULL OR name = ?)", (digest.raw, name, name)) > 0
        if found:
            references.changed(tx)
        return found


# -- reading


def live_segments(tx: Tx) -> list[str]:
    """Keys of the live index segments, newest first."""
    return [
        row[0] for row in tx.rows("SELECT key FROM object WHERE kind = 'index' AND state = 'live' ORDER BY id DESC")
    ]


class Opened(NamedTuple):
    """What a leased reader may read until its lease ends: blobs by digest, keys of the index segments to
    use."""

    blobs: dict[Digest, BlobInfo]
    segments: list[str]


def read_open(catalog: Catalog, lease: int, digests: Iterable[Digest]) -> Opened:
    """Name blobs for reading; those that are not live are left out. Places and segments are of the same
    moment: files retired later stay, because the lease is older. With NO_LEASE nothing is named, nothing stays."""
    if lease == NO_LEASE:
        with catalog.read() as tx:
            infos = {digest: query.find_blob(tx, digest) for digest in digests}
            return Opened({digest: info for digest, info in infos.items() if info is not None}, live_segments(tx))
    with catalog.write("read_open") as tx:
        rows.opened_gen(tx, lease)
        found = {}
        for digest in dict.fromkeys(digests):
            info = query.find_blob(tx, digest)
            if info is not None:
                rows.name_blob(tx, lease, tx.value("SELECT id FROM blob WHERE digest = ?", (digest.raw,)))
                found[digest] = info
        return Opened(found, live_segments(tx))


# -- damage


def mark_damaged(catalog: Catalog, blobs: Iterable[BlobInfo] = (), keys: Iterable[str] = ()) -> None:
    """Blobs and objects found rotten: they answer "missing" from now on, so that the next good copy heals
    them.

    Only what is still as it was read: a blob that lies elsewhere now, or an object that was collected, has been
    found missing by somebody who came too late, and is none the worse for it.
    """
    with catalog.write("mark_damaged") as tx:
        for info in blobs:
            found = tx.rows(
                "SELECT b.id, o.key FROM blob b JOIN place e ON e.blob = b.id JOIN object o ON o.id = e.object"
                " WHERE b.digest = ?",
                (info.digest.raw,),
            )
            if {row[1] for row in found} == {info.place.key, *(use.key for use in info.place.uses)}:
                tx.run("UPDATE blob SET damaged = 1 WHERE id = ?", (found[0][0],))
        tx.many(
            "UPDATE object SET damaged = 1 WHERE key = ? AND state IN ('live', 'retired')", ((key,) for key in keys)
        )


def mark_read(catalog: Catalog, digests: Iterable[Digest], coarse: float = 3600.0) -> None:
    """Note that blobs were read, to within `coarse` seconds: what is cold is packed harder."""
    with catalog.write("mark_read") as tx:
        now = tx.now()
        tx.many(
            "UPDATE blob SET last_read = ? WHERE digest = ? AND last_read < ?",
            ((now, digest.raw, now - coarse) for digest in digests),
        )
