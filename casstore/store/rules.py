"""The guards of the protocol, one name each: what must hold, in the same transaction, before a row may
change.

`protocol` and `collector` look them up here by name at every use; a test takes one away and shows what is
lost then. Numbers are those of the rules in PROTOCOL.md. In SQL, `b` is a row of blob, `o` a row of object.
"""

from __future__ import annotations

from .catalog import Tx, WriteTx

NO_LEASE = 1 << 62
"""`floor` without any lease: later than every retirement."""


def next_gen(tx: WriteTx) -> int:
    """Rule 15. The next number of the one counter that orders leases and retirements; no clock does."""
    tx.run("UPDATE gen SET value = value + 1")
    return int(tx.value("SELECT value FROM gen"))


def floor(tx: Tx) -> int:
    """The oldest lease's opened_gen. What was retired at or after it may still be wanted.

    Rule 1: expiry is not looked at. A lease protects until its row is deleted.
    """
    oldest = tx.value("SELECT min(opened_gen) FROM lease")
    return NO_LEASE if oldest is None else int(oldest)


def seen(state: str, retired_gen: int | None, opened_gen: int) -> bool:
    """Rule 2. Whether a lease opened at `opened_gen` sees a blob or object: it is live, or was retired since.
    The row alone (a foreign key) would not do: retired before, it may be on its way out."""
    return state == "live" or (state == "retired" and retired_gen is not None and opened_gen <= retired_gen)


def taggable(state: str) -> bool:
    """Rule 3. Tags and child edges point at live rows only."""
    return state == "live"


def trusted(tx: WriteTx) -> bool:
    """Rule 16. A catalog that does not fit the store's files is one from a backup, or a new one in the place of one
    that was lost: it may name what is gone. Until `check` has looked, whatever it says is here counts as missing."""
    return tx.fits()


def suspect(tx: Tx, blob_id: int) -> bool:
    """Rule 17. What was found damaged answers "missing", at the commit too: between name and commit it may be found."""
    return bool(tx.value("SELECT damaged FROM blob WHERE id = ?", (blob_id,)))


def unsound(tx: Tx, object_id: int) -> bool:
    """Rule 17, of an object."""
    return bool(tx.value("SELECT damaged FROM object WHERE id = ?", (object_id,)))


#: What holds a blob whatever its parents: tags, pins, names, youth. One value: the newest `created` that is
#: not young (grace).
RETIRE_BLOB = """
    b.state = 'live' AND b.created <= ?
    AND NOT EXISTS (SELECT 1 FROM tag t WHERE t.target = b.id)
    AND NOT EXISTS (SELECT 1 FROM pin n WHERE n.digest = b.digest)
    AND NOT EXISTS (SELECT 1 FROM named_blob n WHERE n.blob = b.id)
"""

#: Rule 4: "no live parent" stands for "not reachable": local, and without a walk's races.
NO_LIVE_PARENT = """
    NOT EXISTS (SELECT 1 FROM child c JOIN blob p ON p.id = c.parent
                WHERE c.child = b.id AND p.state = 'live')
"""

#: A segment goes only when all its packs are gone: until then it may be the only way to a chunk.
RETIRE_OBJECT = """
    o.state = 'live'
    AND NOT EXISTS (SELECT 1 FROM named_object n WHERE n.object = o.id)
    AND CASE WHEN o.kind = 'index'
        THEN NOT EXISTS (SELECT 1 FROM covers v JOIN object p ON p.id = v.pack
                         WHERE v.segment = o.id AND p.state <> 'deleting')
        ELSE NOT EXISTS (SELECT 1 FROM place e JOIN blob b ON b.id = e.blob
                         WHERE e.object = o.id AND b.state = 'live')
        END
"""

#: One value: `floor`.
PURGE_BLOB = """
    b.state = 'retired' AND b.retired_gen < ?
    AND NOT EXISTS (SELECT 1 FROM child c WHERE c.child = b.id)
    AND NOT EXISTS (SELECT 1 FROM tag t WHERE t.target = b.id)
    AND NOT EXISTS (SELECT 1 FROM named_blob n WHERE n.blob = b.id)
"""

#: One value: `floor`.
PURGE_OBJECT = """
    o.state = 'retired' AND o.retired_gen < ?
    AND NOT EXISTS (SELECT 1 FROM place e WHERE e.object = o.id)
    AND NOT EXISTS (SELECT 1 FROM named_object n WHERE n.object = o.id)
"""

#: Rule 9. Packs whose entries a merge may drop: gone or on the way out. A retired one may be revived.
PACK_IS_GONE = "NOT EXISTS (SELECT 1 FROM object o WHERE o.id = v.pack AND o.state <> 'deleting')"
