"""The word that the catalog and STORE/epoch share: whether a catalog belongs to the store's files. PROTOCOL.md: epoch.

Whoever is about to take files away changes it first, so that no backup of the catalog fits that counts on them.
"""

from __future__ import annotations

import secrets

from ..errors import Damaged
from .catalog import Catalog, Tx, WriteTx
from .objects import Objects


def turn_epoch(catalog: Catalog, objects: Objects) -> None:
    """Change the word: after rows say `deleting` (or that a file is damaged), before files are unlinked or moved away,
    each time.

    Damaged where catalog and files do not share one: the catalog is older than the files (restored from a backup), so
    that it may name what is gone and not know what is there. Nothing may then be deleted until `check` has looked.
    """
    with catalog.write("turn_epoch") as tx:
        epoch = _epoch(tx)
        if epoch not in _epoch_file(objects):
            raise foreign(catalog)
        # Both words in the file while the catalog changes: a crash between leaves them sharing one.
        fresh = renew(tx)
        objects.write_file("epoch", f"{epoch}\n{fresh}\n".encode())
    set_epoch(catalog, objects)


def renew(tx: WriteTx) -> str:
    """Give the catalog another word, as part of a transaction; the file is to follow."""
    fresh = secrets.token_hex(16)
    tx.run(
        "INSERT INTO meta (key, value) VALUES ('epoch', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (fresh,),
    )
    return fresh


def set_epoch(catalog: Catalog, objects: Objects) -> None:
    """Let the file hold the catalog's word: `check` found that they belong together."""
    # Under the write lock, for another collector may be turning it.
    with catalog.write("set_epoch") as tx:
        objects.write_file("epoch", f"{_epoch(tx)}\n".encode())


def epoch_matches(tx: Tx, objects: Objects) -> bool:
    """Whether the catalog and the files belong together."""
    return _epoch(tx) in _epoch_file(objects)


def foreign(catalog: Catalog, why: str = "") -> Damaged:
    """What is to be said where they do not."""
    because = f" ({why})" if why else ""
    return Damaged(
        f"the catalog does not belong to the store's files{because}; was it restored from a backup?",
        what=str(catalog.path),
        hint="nothing was deleted; run casstore check --repair",
    )


def _epoch(tx: Tx) -> str:
    return str(tx.value("SELECT value FROM meta WHERE key = 'epoch'"))


def _epoch_file(objects: Objects) -> list[str]:
    return (objects.read_file("epoch", 4096, part=True) or b"").decode("ascii", "replace").split()
