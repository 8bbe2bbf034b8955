"""Changes to rows that several transactions have in common. None is a transaction: each is called within
one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from ..errors import LeaseLost, UsageError
from ..model import NewBlob
from . import rules
from .catalog import Tx, WriteTx


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


def end_lease(tx: WriteTx, lease: int) -> bool:
    """Delete a lease's row and all that it names: from here on nothing is granted on it. Returns whether there was
    one."""
    tx.run("DELETE FROM named_blob WHERE lease = ?", (lease,))
    tx.run("DELETE FROM named_object WHERE lease = ?", (lease,))
    return tx.run("DELETE FROM lease WHERE id = ?", (lease,)) > 0


def opened_gen(tx: Tx, lease: int) -> int:
    """The lease's place in the order. Rule 1: an expired lease whose row is there still counts; without row,
    nothing."""
    gen = tx.value("SELECT opened_gen FROM lease WHERE id = ?", (lease,))
    if gen is None:
        raise LeaseLost("the lease of this command has ended; nothing was changed", what=f"lease {lease}")
    return int(gen)


def name_blob(tx: WriteTx, lease: int, blob_id: int) -> None:
    tx.run("INSERT INTO named_blob (lease, blob) VALUES (?, ?) ON CONFLICT DO NOTHING", (lease, blob_id))


def name_object(tx: WriteTx, lease: int, object_id: int) -> None:
    tx.run("INSERT INTO named_object (lease, object) VALUES (?, ?) ON CONFLICT DO NOTHING", (lease, object_id))


# -- blobs and objects


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
        "pack_refused": blob.pack_refused,
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
                "SELECT c.child FROM child c JOIN blob b ON b.id = c.child WHERE c.parent = ? AND b.state = 'retired'",
                (current,),
            )
        ]


def use_object(tx: WriteTx, lease: int, opened: int, key: str, described: NewObject | None) -> int:
    """Make an object live for a blob that is about to depend on it; returns its id.

    Ours and pending, live, or retired but seen, and not found damaged: else it cannot be relied on (LeaseLost).
    """
    row = tx.row("SELECT id, state, retired_gen, lease FROM object WHERE key = ?", (key,))
    if row is None or not ((row[1] == "pending" and row[3] == lease) or rules.seen(row[1], row[2], opened)):
        raise LeaseLost("an object that this command relies on is gone; nothing was changed", what=key)
    if rules.unsound(tx, row[0]):
        raise LeaseLost("an object that this command relies on was found damaged; nothing was changed", what=key)
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
    tx.many(
        "INSERT INTO covers (segment, pack) VALUES (?, ?) ON CONFLICT DO NOTHING", ((segment, pack) for pack in packs)
    )
