"""The transactions of `check`: what is rotten answers "missing", what was found again gets a row, what is derived is
replaced. PROTOCOL.md: damage. (`protocol.mark_damaged` is what readers do who come upon damage by the way.)"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ..digest import Digest
from ..errors import Conflict
from ..format.references import References
from ..model import U32, BlobInfo, ImageRow
from . import protocol, query, references, rows, rules
from .catalog import Catalog, Tx, WriteTx
from .epoch import renew, set_epoch
from .objects import Objects, check_key
from .rows import NewObject


class Rot(NamedTuple):
    """What is bad of an object. `intervals`: chunk addresses of a data pack, (m, 2), in order. `records`: blobs whose
    record in a metadata pack is bad. Neither: all of it."""

    key: str
    intervals: U32 | None = None
    records: frozenset[Digest] | None = None


def mark_rot(catalog: Catalog, rot: Rot) -> None:
    """The object answers "missing", and so does every blob that needs what is bad of it, live or retired. Others that
    lie in it can be read as before; nobody may come to depend on it any more."""
    with catalog.write("mark_rot") as tx:
        object_id = tx.value("SELECT id FROM object WHERE key = ? AND state <> 'deleting'", (rot.key,))
        if object_id is None:
            return
        tx.run("UPDATE object SET damaged = 1 WHERE id = ?", (object_id,))
        hurt = [blob_id for blob_id, _ in hurt_by(tx, rot)]
        tx.many("UPDATE blob SET damaged = 1 WHERE id = ?", ((blob_id,) for blob_id in hurt))


def hurt_by(tx: Tx, rot: Rot) -> Iterator[tuple[int, Digest]]:
    """(id, digest) of the blobs, live and retired, that need what is bad."""
    edges = tx.each(
        "SELECT b.id, b.digest, b.loc = o.id, e.used FROM object o JOIN place e ON e.object = o.id"
        " JOIN blob b ON b.id = e.blob WHERE o.key = ?",
        (rot.key,),
    )
    for blob_id, raw, own, used in edges:
        digest = Digest.unpack(raw)
        if own:
            hurt = rot.records is None or digest in rot.records
        else:
            hurt = rot.intervals is None or overlap(query.unpack_intervals(used), rot.intervals)
        if hurt:
            yield blob_id, digest


def overlap(one: U32, other: U32) -> bool:
    """Do two ordered lists of intervals (m, 2) have an address in common?"""
    if not len(one) or not len(other):
        return False
    at = np.searchsorted(other[:, 1], one[:, 0], side="right")  # the first of `other` that ends behind it
    near = at < len(other)
    return bool(np.any(other[at[near], 0] < one[near, 1]))


def mark_sound(catalog: Catalog, blobs: Iterable[BlobInfo], keys: Iterable[str] = ()) -> None:
    """What was marked damaged and has been read right since is present again: blobs that still lie where they were
    read, objects of which all was read."""
    with catalog.write("mark_sound") as tx:
        for info in blobs:
            now = query.find_blob(tx, info.digest)
            if now is not None and place_keys(now) == place_keys(info):
                tx.run("UPDATE blob SET damaged = 0 WHERE digest = ?", (info.digest.raw,))
        tx.many("UPDATE object SET damaged = 0 WHERE key = ?", ((key,) for key in keys))


def place_keys(info: BlobInfo) -> set[str]:
    """All objects that a blob depends on."""
    return {info.place.key, *(use.key for use in info.place.uses)}


def suspects(tx: Tx) -> list[BlobInfo]:
    """Live blobs that are marked, or lie in an object that is."""
    rows = tx.rows(
        "SELECT b.digest FROM blob b WHERE b.state = 'live' AND (b.damaged = 1 OR EXISTS (SELECT 1 FROM place e"
        " JOIN object o ON o.id = e.object WHERE e.blob = b.id AND o.damaged = 1)) ORDER BY b.id"
    )
    found = (query.find_blob(tx, Digest.unpack(row[0])) for row in rows)
    return [info for info in found if info is not None]


def lies_in_damaged(tx: Tx, digest: Digest) -> bool:
    """Does a blob depend on an object that is marked?"""
    found = tx.row(
        "SELECT 1 FROM blob b JOIN place e ON e.blob = b.id JOIN object o ON o.id = e.object"
        " WHERE b.digest = ? AND o.damaged = 1",
        (digest.raw,),
    )
    return found is not None


def unread_since(catalog: Catalog, gen: int, lease: int) -> bool:
    """Is no lease open, but this one, that was opened at or before `gen`? Then nobody still reads by places of then."""
    with catalog.read() as tx:
        return tx.row("SELECT 1 FROM lease WHERE opened_gen <= ? AND id <> ?", (gen, lease)) is None


def stamp(catalog: Catalog) -> int:
    """The next number of the counter that orders leases: those opened later see the places of now."""
    with catalog.write("stamp") as tx:
        return rules.next_gen(tx)


# -- what was found again


def distrust(catalog: Catalog, objects: Objects, unknown: Iterable[str] = ()) -> list[str]:
    """Let catalog and files not fit: nothing is deleted, and nothing counts as present, until `found_again`. Whoever is
    to put rows under `unknown` files begins so, and a crash leaves it so.

    Returns the keys of all files that were unknown since, in order. Some have got rows meanwhile, from one who did not
    come to the end: what lies in them is to be looked at all the same.
    """
    with catalog.write("distrust") as tx:
        before = str(tx.value("SELECT value FROM meta WHERE key = 'unknown'") or "").split()
        keys = sorted({*before, *unknown})
        if keys != before:
            tx.run(
                "INSERT INTO meta (key, value) VALUES ('unknown', ?)"
                " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (" ".join(keys),),
            )
        objects.write_file("epoch", b"to be checked\n")
    return keys


def stranded(tx: Tx) -> list[str]:
    """Keys of pending and retired objects: to be finished or garbage, but in a catalog that was set back also what a
    later commit, which it has lost, put to use. (Who may still be writing one loses nothing when it is taken in.)"""
    rows = tx.rows("SELECT key FROM object WHERE state IN ('pending', 'retired') AND damaged = 0 ORDER BY id")
    return [row[0] for row in rows]


def doubtful(tx: Tx, objects: Objects) -> set[str]:
    """Those of the `stranded` that are nobody's unless a name is known: retired, or of a writer that was killed or
    still writes, to judge by its staging folder."""
    found = tx.rows("SELECT key, lease, state FROM object WHERE state IN ('pending', 'retired')")
    return {key for key, lease, state in found if state == "retired" or objects.has_staging(lease)}


def adopt(catalog: Catalog, lease: int, found: Iterable[tuple[str, NewObject]]) -> None:
    """Rows, live and named by the lease, for files that have none or are `stranded`, given as (kind, object); any other
    row stays as it is. Only while nothing can be deleted (Conflict otherwise): until blobs depend on them they are
    garbage like any other."""
    with catalog.write("adopt") as tx:
        rows.opened_gen(tx, lease)
        if tx.fits():
            raise Conflict("objects are adopted only while the catalog is distrusted")
        for kind, one in found:
            tx.run(
                "INSERT INTO object (key, kind, state, lease, size, chunk_bytes, deep, dirty)"
                " VALUES (?, ?, 'live', ?, ?, ?, ?, 1) ON CONFLICT (key) DO UPDATE SET state = 'live',"
                " retired_gen = NULL, lease = excluded.lease, size = excluded.size,"
                " chunk_bytes = excluded.chunk_bytes, deep = excluded.deep, dirty = 1"
                " WHERE state IN ('pending', 'retired') AND damaged = 0",
                (check_key(one.key), kind, lease, one.size, one.chunk_bytes, int(one.deep)),
            )
            rows.name_object(tx, lease, tx.value("SELECT id FROM object WHERE key = ?", (one.key,)))


def relink(catalog: Catalog, manifest: Digest, children: Iterable[Digest], image: ImageRow | None) -> None:
    """Edges from a live manifest to those of its blobs that are live, damaged or not, and its row in lists: what the
    commit that brought it wrote."""
    with catalog.write("relink") as tx:
        parent = tx.value("SELECT id FROM blob WHERE digest = ? AND state = 'live'", (manifest.raw,))
        if parent is None:
            return
        for child in children:
            tx.run(
                "INSERT INTO child (parent, child) SELECT ?, id FROM blob WHERE digest = ? AND state = 'live'"
                " ON CONFLICT DO NOTHING",
                (parent, child.raw),
            )
        if image is not None:
            protocol.put_image(tx, parent, image)


def restore_names(catalog: Catalog, copy: References, *, everything: bool) -> list[tuple[str, str, Digest]]:
    """Put the names of a copy that shows a later state into the catalog; returns the tags whose target is not here.

    `everything`: the catalog is a new one. Else it is from a backup: names that it has itself, and settings, may have
    been changed since, and stay.
    """
    left = []
    with catalog.write("restore_names") as tx:
        references.outdo(tx, copy)
        now = tx.now()
        for repository, tag, target, _ in copy.tags:
            blob_id = tx.value("SELECT id FROM blob WHERE digest = ? AND state = 'live'", (target.raw,))
            there = tx.row("SELECT 1 FROM tag WHERE repository = ? AND tag = ?", (repository, tag)) is not None
            if blob_id is None:
                left.append((repository, tag, target))
            elif everything or not there:
                protocol.put_tag(tx, repository, tag, blob_id, now)
        for digest, name in copy.pins:
            protocol.put_pin(tx, digest, name)
        for key, value in copy.settings.items() if everything else ():
            tx.run("DELETE FROM config WHERE key = ?", (key,))
            tx.run("INSERT INTO config (key, value) VALUES (?, ?)", (key, value))
    return left


def reset_names(catalog: Catalog, objects: Objects) -> None:
    """Make the names those of the copy, if that shows this very state: where the two differ, the catalog is damaged."""
    with catalog.write("reset_names") as tx:
        copy = references.same_state(tx, objects)
        if copy is None:
            return
        references.outdo(tx, copy)
        tx.run("DELETE FROM tag")
        tx.run("DELETE FROM pin")
        tx.run("DELETE FROM config")
        for repository, tag, target, created in copy.tags:
            tx.run(
                "INSERT INTO tag (repository, tag, target, created)"
                " SELECT ?, ?, id, ? FROM blob WHERE digest = ? AND state = 'live'",
                (repository, tag, created, target.raw),
            )
        tx.many("INSERT INTO pin (digest, name) VALUES (?, ?)", ((one.raw, name) for one, name in copy.pins))
        tx.many("INSERT INTO config (key, value) VALUES (?, ?)", copy.settings.items())


def is_kept(tx: Tx, digest: Digest) -> bool:
    """Does a tag, a pin or a live parent keep this blob from being collected?"""
    return (
        tx.row(
            "SELECT 1 FROM blob b WHERE b.digest = ? AND (EXISTS (SELECT 1 FROM tag t WHERE t.target = b.id)"
            " OR EXISTS (SELECT 1 FROM pin n WHERE n.digest = b.digest)"
            " OR EXISTS (SELECT 1 FROM child c JOIN blob p ON p.id = c.parent WHERE c.child = b.id"
            " AND p.state = 'live'))",
            (digest.raw,),
        )
        is not None
    )


def hold_nameless(catalog: Catalog, found: Iterable[tuple[Digest, str]]) -> list[Digest]:
    """Pin blobs, given with the pin's name, that nothing else keeps; returns those. Nobody can tell any more whether
    they were meant to go."""
    held = []
    with catalog.write("hold_nameless") as tx:
        for digest, name in found:
            if not is_kept(tx, digest):
                protocol.put_pin(tx, digest, name)
                held.append(digest)
    return held


def found_again(catalog: Catalog, objects: Objects) -> None:
    """The catalog is whole: it is the store's own from here on."""
    with catalog.write("found_again") as tx:
        tx.run("DELETE FROM meta WHERE key IN ('lost', 'unknown')")
        renew(tx)  # what was moved into quarantine is gone: no older catalog fits any more
    references.taken_over(objects)
    # Last: a crash before it leaves the two not fitting, and check is run again.
    set_epoch(catalog, objects)


def why_lost(tx: Tx) -> str:
    """Why this catalog is a new one that is not filled yet; "" if it is not."""
    return str(tx.value("SELECT value FROM meta WHERE key = 'lost'") or "")


# -- the index


def replace_segments(catalog: Catalog, lease: int, replaced: Sequence[str], made: Sequence[NewObject]) -> bool:
    """Put segments made of the packs' own tables in the place of damaged ones (`replaced` may be empty).

    As `merge_commit`, rules 9 and 10: False, and nothing changed, unless every one of `replaced` is still live; each
    pack that they cover, but those gone or deleting, must be covered by a live segment (Conflict).
    """
    with catalog.write("replace_segments") as tx:
        opened = rows.opened_gen(tx, lease)
        old = _live_segments(tx, replaced)
        if old is None:
            return False
        for one in made:
            segment = rows.use_object(tx, lease, opened, one.key, one)
            rows.put_covers(tx, segment, rows.pack_ids(tx, one.packs))
        if not old:
            return True
        gen = rules.next_gen(tx)
        tx.many("UPDATE object SET state = 'retired', retired_gen = ? WHERE id = ?", ((gen, one) for one in old))
        for segment in old:
            lost = tx.value(
                f"SELECT v.pack FROM covers v WHERE v.segment = ? AND NOT {rules.PACK_IS_GONE}"
                " AND NOT EXISTS (SELECT 1 FROM covers w JOIN object s ON s.id = w.segment"
                " WHERE w.pack = v.pack AND s.state = 'live')",
                (segment,),
            )
            if lost is not None:
                raise Conflict("the new segments lack a pack that may be needed", what=replaced[0])
        return True


def _live_segments(tx: WriteTx, keys: Sequence[str]) -> list[int] | None:
    found = [tx.value("SELECT id FROM object WHERE key = ? AND state = 'live'", (key,)) for key in keys]
    return None if None in found else found
