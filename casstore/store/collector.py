"""The collector's transactions: the gc rows of PROTOCOL.md, a function of that name each, and `collect`,
which runs them in order until nothing is left to do.

Nothing here trusts what was read before: candidates come from a snapshot, and each change tests its guard
again in its own transaction. A `Todo` of candidates is worked off in slices, a transaction each: call the
function until the Todo is empty. Files are unlinked outside of transactions.

Only the step before unlinking, to `deleting`, is a durable commit; it makes durable all that came before it.
The others hold the write lock for no fsync: a power loss may undo the last of them, and they are done again.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from ..digest import Digest
from . import references, rows, rules
from .catalog import Catalog, Tx, WriteTx
from .epoch import foreign, turn_epoch
from .objects import Objects

HOLD = 0.005
"""Seconds that a transaction shall hold the write lock: others wait no longer than about this."""
PAUSE = 0.004
"""Seconds between two transactions, so that those who wait for the lock get it."""
FILES = 256
"""Files unlinked between two transactions, or looked up in one."""


class Todo:
    """Ids of rows to go through, a slice to a transaction. Each slice is as long as the last one's commit
    allows: what a row costs there depends on the disk and on how many pages of the catalog it touches."""

    def __init__(self, ids: Iterable[int] = ()) -> None:
        self.ids = deque(ids)
        self._budget = HOLD / 8

    def __bool__(self) -> bool:
        return bool(self.ids)

    def slice(self) -> Iterator[int]:
        """Ids for one transaction, at least one."""
        end = time.perf_counter() + self._budget
        while self.ids:
            yield self.ids.popleft()
            if time.perf_counter() > end:
                return

    def learn(self, held: float) -> None:
        """Told how long (seconds) the transaction held the lock, fit the next one."""
        self._budget *= min(max(HOLD / max(held, 1e-6), 0.25), 1.25)
        self._budget = min(max(self._budget, HOLD / 64), HOLD / 2)


# -- leases and their leftovers


def lease_expire(catalog: Catalog) -> list[int]:
    """End every lease that the catalog's clock is past; returns their ids. Rule 1: from here on, and not
    before, they protect nothing."""
    with catalog.write("lease_expire") as tx:
        ids = [int(row[0]) for row in tx.rows("SELECT id FROM lease WHERE expires < ?", (tx.now(),))]
        for one in ids:
            rows.end_lease(tx, one)
    return ids


def gc_tmp(catalog: Catalog, objects: Objects) -> list[int]:
    """Remove the staging folders of leases that have no row (no transaction); returns those leases."""
    removed = []
    # Listed first, looked up then: a lease's row is there before its folder.
    for lease in objects.stagings():
        with catalog.read() as tx:
            gone = tx.row("SELECT 1 FROM lease WHERE id = ?", (lease,)) is None
        if gone:
            objects.remove_staging(lease)
            removed.append(lease)
    return removed


def orphans(tx: Tx) -> Todo:
    """Pending objects whose lease has no row."""
    return _ids(
        tx,
        "SELECT o.id FROM object o WHERE o.state = 'pending'"
        " AND NOT EXISTS (SELECT 1 FROM lease l WHERE l.id = o.lease)",
    )


def gc_orphans(catalog: Catalog, objects: Objects, todo: Todo) -> int:
    """Pending objects of ended leases → deleting. Rule 12: only once the staging folder is gone, for until
    then a writer that wakes up may still rename a file into the store."""
    done = 0
    with catalog.write("gc_orphans") as tx:
        for one in todo.slice():
            row = tx.row("SELECT lease FROM object WHERE id = ? AND state = 'pending'", (one,))
            if row is None or tx.row("SELECT 1 FROM lease WHERE id = ?", (row[0],)) is not None:
                continue
            if not objects.has_staging(row[0]):
                done += tx.run("UPDATE object SET state = 'deleting' WHERE id = ?", (one,))
    todo.learn(tx.held)
    return done


# -- retiring


def retirable_blobs(tx: Tx, young: float) -> Todo:
    """Blobs that nothing needs, created at or before `young` (seconds since 1970). What they alone need comes
    up once they are retired."""
    return _ids(tx, f"SELECT b.id FROM blob b WHERE {rules.RETIRE_BLOB} AND {rules.NO_LIVE_PARENT}", (young,))


def gc_retire_blobs(catalog: Catalog, todo: Todo, young: float) -> int:
    """Live → retired, where no tag, pin, name or live parent is and the blob is not young; its loose file
    too."""
    done = 0
    with catalog.write("gc_retire_blobs", durable=False) as tx:
        gen = rules.next_gen(tx)
        for one in todo.slice():
            done += _retire_blob(tx, one, gen, young)
    todo.learn(tx.held)
    return done


def _retire_blob(tx: WriteTx, blob_id: int, gen: int, young: float) -> int:
    if not tx.run(
        "UPDATE blob AS b SET state = 'retired', retired_gen = ?"
        f" WHERE b.id = ? AND {rules.RETIRE_BLOB} AND {rules.NO_LIVE_PARENT}",
        (gen, blob_id, young),
    ):
        return 0
    tx.run(
        "UPDATE object SET dirty = dirty + 1 WHERE id IN (SELECT object FROM place WHERE blob = ?)",
        (blob_id,),
    )
    tx.run(
        "UPDATE object AS o SET state = 'retired', retired_gen = ? WHERE o.kind = 'blob'"
        f" AND o.id IN (SELECT object FROM place WHERE blob = ?) AND {rules.RETIRE_OBJECT}",
        (gen, blob_id),
    )
    return 1


def retirable_objects(tx: Tx) -> Todo:
    """Live objects that no live blob depends on, and segments all of whose packs are gone."""
    return _ids(tx, f"SELECT o.id FROM object o WHERE {rules.RETIRE_OBJECT}")


def gc_retire_objects(catalog: Catalog, todo: Todo) -> int:
    """Live → retired, where no live blob has an edge and no lease a name."""
    done = 0
    with catalog.write("gc_retire_objects", durable=False) as tx:
        gen = rules.next_gen(tx)
        for one in todo.slice():
            done += tx.run(
                f"UPDATE object AS o SET state = 'retired', retired_gen = ? WHERE o.id = ? AND {rules.RETIRE_OBJECT}",
                (gen, one),
            )
    todo.learn(tx.held)
    return done


# -- purging


def purgeable_blobs(tx: Tx) -> Todo:
    """Retired blobs that no older lease may still want and no row points at."""
    return _ids(tx, f"SELECT b.id FROM blob b WHERE {rules.PURGE_BLOB}", (rules.floor(tx),))


def gc_purge_blobs(catalog: Catalog, todo: Todo) -> int:
    """Delete the rows of retired blobs, with their edges and child rows."""
    done = 0
    with catalog.write("gc_purge_blobs", durable=False) as tx:
        floor = rules.floor(tx)
        for one in todo.slice():
            if tx.row(f"SELECT 1 FROM blob b WHERE b.id = ? AND {rules.PURGE_BLOB}", (one, floor)) is None:
                continue
            for table, column in (
                ("place", "blob"),
                ("child", "parent"),
                ("image", "manifest"),
                ("blob", "id"),
            ):
                tx.run(f"DELETE FROM {table} WHERE {column} = ?", (one,))
            done += 1
    todo.learn(tx.held)
    return done


def purgeable_objects(tx: Tx) -> Todo:
    """Retired objects that no older lease may still want and no row refers to."""
    return _ids(tx, f"SELECT o.id FROM object o WHERE {rules.PURGE_OBJECT}", (rules.floor(tx),))


def gc_purge_objects(catalog: Catalog, todo: Todo) -> int:
    """Retired → deleting: it never comes back."""
    done = 0
    with catalog.write("gc_purge_objects") as tx:
        floor = rules.floor(tx)
        for one in todo.slice():
            done += tx.run(
                "UPDATE object AS o SET state = 'deleting', retired_gen = NULL"
                f" WHERE o.id = ? AND {rules.PURGE_OBJECT}",
                (one, floor),
            )
    todo.learn(tx.held)
    return done


# -- deleting


def deleting(tx: Tx, limit: int = FILES) -> list[str]:
    """Keys of objects whose file is to go."""
    rows = tx.rows("SELECT key FROM object WHERE state = 'deleting' ORDER BY id LIMIT ?", (limit,))
    return [row[0] for row in rows]


def gc_file(objects: Objects, keys: Iterable[str]) -> None:
    """Unlink the files of objects that are `deleting`, then fsync their folders (no transaction)."""
    # Rule 13: Objects.delete returns when the folders are on disk. A row dropped before that could leave,
    # after a power loss, a file that nobody knows.
    objects.delete(keys)


def gc_drop(catalog: Catalog, keys: Iterable[str]) -> int:
    """Delete the rows of objects whose files are gone. Rule 6: by key, under which nothing else will ever
    stand; under a digest a younger copy may stand."""
    done = 0
    with catalog.write("gc_drop", durable=False) as tx:
        for key in keys:
            done += drop_row(tx, key)
    return done


def drop_row(tx: WriteTx, key: str) -> int:
    one = tx.value("SELECT id FROM object WHERE key = ? AND state = 'deleting'", (key,))
    tx.run("DELETE FROM covers WHERE segment = ?", (one,))
    return tx.run("DELETE FROM object WHERE id = ?", (one,))


def gc_clean(catalog: Catalog, measured: Iterable[tuple[str, int]]) -> None:
    """Note that objects, given as (key, dirty as it was then), had their live bytes measured."""
    with catalog.write("gc_clean", durable=False) as tx:
        tx.many(
            "UPDATE object SET dirty = 0 WHERE key = ? AND dirty = ?",
            measured,
        )


# -- whose files they are


def looked_at(catalog: Catalog, objects: Objects) -> None:
    """Damaged, unless all that the catalog says of the files is so, and all files are its own. Rule 18: one that was
    restored from a backup may take for garbage what came since, though nothing was deleted since; the files and the
    copy of the references tell on it."""
    with catalog.write("looked_at") as lock:
        if not lock.fits():
            raise foreign(catalog)
        if references.later(lock, objects):
            raise foreign(catalog, f"{references.FILE} shows a later state")
    keys = objects.all_keys()
    while some := list(islice(keys, FILES)):
        # Files first, then their rows: a row is there before its file, and goes after it.
        with catalog.read() as tx:
            unknown = [key for key in some if tx.row("SELECT 1 FROM object WHERE key = ?", (key,)) is None]
        for key in unknown:
            if objects.stat(key) is not None:
                raise foreign(catalog, f"it does not know {key}")


# -- plan and run


@dataclass(frozen=True, slots=True)
class Garbage:
    """What a collection would take, of one moment: blobs as (digest, size), objects as (key, kind, size), in
    bytes. Work in progress and older leases may yet hold some of it back."""

    blobs: list[tuple[Digest, int]] = field(default_factory=list)
    objects: list[tuple[str, str, int]] = field(default_factory=list)


def plan(tx: Tx, young: float) -> Garbage:
    """What a collection would take now; changes nothing."""
    taken = {int(row[0]) for row in tx.rows("SELECT id FROM blob WHERE state = 'retired'")}
    lost: Counter[int] = Counter()
    todo = retirable_blobs(tx, young).ids
    found = []
    held = f"SELECT 1 FROM blob b WHERE b.id = ? AND {rules.RETIRE_BLOB}"
    while todo:
        one = todo.popleft()
        if one in taken:
            continue
        taken.add(one)
        found.append(one)
        lost.update(row[0] for row in tx.rows("SELECT object FROM place WHERE blob = ?", (one,)))
        for (child,) in tx.rows("SELECT child FROM child WHERE parent = ?", (one,)):
            parents = tx.rows("SELECT parent FROM child WHERE child = ?", (child,))
            if all(row[0] in taken for row in parents) and tx.row(held, (child, young)):
                todo.append(child)
    result = Garbage()
    retired = "SELECT b.digest, b.size FROM blob b WHERE b.state = 'retired'"
    rows = tx.rows(retired) + [tx.row("SELECT digest, size FROM blob WHERE id = ?", (one,)) for one in found]
    result.blobs.extend((Digest.unpack(row[0]), row[1]) for row in rows if row is not None)
    objects = set(retirable_objects(tx).ids)
    for one, edges in lost.items():
        live = tx.value(
            "SELECT count(*) FROM place e JOIN blob b ON b.id = e.blob WHERE e.object = ? AND b.state = 'live'",
            (one,),
        )
        named = tx.row("SELECT 1 FROM named_object WHERE object = ?", (one,))
        if live == edges and named is None:
            objects.add(one)
    going = "SELECT id FROM object WHERE state IN ('retired', 'deleting')"
    objects |= {int(row[0]) for row in tx.rows(going)} | set(orphans(tx).ids)
    for (one,) in tx.rows("SELECT id FROM object WHERE kind = 'index' AND state = 'live'"):
        packs = tx.rows("SELECT p.id FROM covers v JOIN object p ON p.id = v.pack WHERE v.segment = ?", (one,))
        if objects.issuperset(row[0] for row in packs):
            objects.add(one)
    for one in sorted(objects):
        row = tx.row("SELECT key, kind, size FROM object WHERE id = ?", (one,))
        if row is not None:
            result.objects.append((row[0], row[1], row[2]))
    return result


@dataclass(slots=True)
class Collected:
    """What a collection did."""

    leases: int = 0
    blobs_retired: int = 0
    objects_retired: int = 0
    blobs_purged: int = 0
    objects_deleted: int = 0
    bytes_deleted: int = 0


def collect(
    catalog: Catalog,
    objects: Objects,
    *,
    grace: float = 0.0,
    looked: bool = False,
    check: Callable[[], None] = lambda: None,
) -> Collected:
    """Run every row of the collector, in order, until nothing changes.

    Blobs younger than `grace` seconds are not retired. `check` is called between transactions and may raise,
    to stop: any prefix of the work is a whole. Damaged: see `looked_at`, which a caller who comes again (`looked`) need
    not have done twice.
    """
    result = Collected()
    if not looked:
        looked_at(catalog, objects)
    with catalog.read() as tx:
        young = tx.now() - grace
    result.leases = len(lease_expire(catalog))
    gc_tmp(catalog, objects)

    def drain(find: Callable[[Tx], Todo], step: Callable[[Todo], int]) -> int:
        with catalog.read() as tx:
            todo = find(tx)
        done = 0
        while todo:
            check()
            done += step(todo)
            time.sleep(PAUSE)
        return done

    changed = 1
    while changed:
        changed = drain(orphans, lambda todo: gc_orphans(catalog, objects, todo))
        while True:
            retired = drain(lambda tx: retirable_blobs(tx, young), lambda todo: gc_retire_blobs(catalog, todo, young))
            result.blobs_retired += retired
            changed += retired
            if not retired:
                break
        retired = drain(retirable_objects, lambda todo: gc_retire_objects(catalog, todo))
        result.objects_retired += retired
        changed += retired
        while purged := drain(purgeable_blobs, lambda todo: gc_purge_blobs(catalog, todo)):
            result.blobs_purged += purged
            changed += purged
        changed += drain(purgeable_objects, lambda todo: gc_purge_objects(catalog, todo))
        changed += _delete(catalog, objects, result, check)
    return result


def _delete(catalog: Catalog, objects: Objects, result: Collected, check: Callable[[], None]) -> int:
    done = 0
    while True:
        check()
        with catalog.read() as tx:
            keys = deleting(tx)
        if not keys:
            return done
        turn_epoch(catalog, objects)
        result.bytes_deleted += sum(objects.stat(key) or 0 for key in keys)
        gc_file(objects, keys)
        dropped = gc_drop(catalog, keys)
        done += dropped
        result.objects_deleted += dropped
        time.sleep(PAUSE)


def _ids(tx: Tx, sql: str, values: tuple[float, ...] = ()) -> Todo:
    return Todo(int(row[0]) for row in tx.each(sql, values))
