"""STORE/references.json: a copy of the tags, pins and settings, so that they outlive the catalog, which alone has them.

Not a commit point: it is written after the commits that change names, at most once a command, and may be stale by what
was written since. It is never wrong: it shows the catalog as it was at one moment, replaces itself atomically, and
carries a checksum and the store's id: the copy of another store's names counts for nothing. `check --repair` reads it
when the catalog is lost or is older than the copy.
"""

from __future__ import annotations

import contextlib
import re
import secrets

from ..errors import CasstoreError, Damaged
from ..format import references as references_format
from ..format import storefile
from ..format.references import Head, References
from . import names
from .catalog import Catalog, Tx, WriteTx
from .epoch import epoch_matches
from .objects import Objects
from .site import STORE_FILE, kept_copy

FILE = "references.json"
LATEST = "references.latest.json"
"""Says which state is the latest, without its names: written where the copy itself, a large one, is left for later."""
LOST = "references.lost.json"
"""Where a copy goes that shows a later state than the catalog, which then is one from a backup. It stays until `check`
has taken it over."""
_NUMBER = re.compile(r"[0-9]{1,18}")
UNPACED = 1 << 20
"""A copy larger than this (bytes) is written at most every so many seconds as it has MiB."""


def changed(tx: WriteTx) -> None:
    """To be called in every transaction that changes a tag, a pin or a setting: it makes another state of it."""
    if tx.renamed:
        return
    tx.renamed = True
    state = _state(tx)
    objects = Objects(tx.root)
    lost = _head(tx, objects, LOST)
    if lost is None or not _later(lost, state):
        for name in (FILE, LATEST):
            copy = _head(tx, objects, name)
            if copy is not None and _later(copy, state):
                objects.write_file(LOST, objects.read_file(name, references_format.MAX_SIZE) or b"")
                break
    _move(tx, state.serial + 1)


def outdo(tx: WriteTx, copy: References) -> None:
    """What the copy has that this catalog lacked was taken from it: the catalog is later than the copy from here on."""
    tx.renamed = True
    _move(tx, max(copy.head.serial, _state(tx).serial) + 1)


def _move(tx: WriteTx, serial: int) -> None:
    tx.run(
        "INSERT INTO meta (key, value) VALUES ('references', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (f"{serial} {secrets.token_hex(8)}",),
    )


def refresh(catalog: Catalog, objects: Objects, *, now: bool = False) -> None:
    """Write the copy, if names have changed since it was written. A large one is left for later when it is young,
    unless `now`; that there is a later state is written all the same (rule 18). Failing is no harm: the copy is stale
    then, and the next one brings it up to date."""
    if catalog.read_only:
        return
    with contextlib.suppress(CasstoreError):
        # Once more when others changed names meanwhile: whoever writes last must not leave an older state.
        for _ in range(4):
            with catalog.read() as tx:
                state = _state(tx)
                copy, latest = _head(tx, objects, FILE), _head(tx, objects, LATEST)
                if not state.serial or (copy is not None and copy[:2] == state[:2]):
                    return
                if any(one is not None and _later(one, state) for one in (copy, latest)):
                    return
                if not epoch_matches(tx, objects):
                    return
                moment = int(tx.now())
                state = state._replace(written=moment, store=_store_id(tx, objects))
                data = references_format.encode(_shown(tx, state))
            age = len(data) / UNPACED if copy is None else moment - copy.written
            if not now and len(data) > UNPACED and age < len(data) / UNPACED:
                if latest is None or latest[:2] != state[:2]:
                    objects.write_file(LATEST, references_format.encode(References(state, [], [], {})))
                return
            if copy is None and objects.read_file(FILE, 1, part=True) is not None:
                objects.quarantine_file(FILE)  # another store's, or damaged
            objects.write_file(FILE, data)


def problems(tx: Tx, objects: Objects) -> dict[str, str]:
    """What is wrong with the copies, by file. That one is stale or missing is not wrong."""
    found = {}
    for name in (FILE, LATEST, LOST):
        try:
            data = objects.read_file(name, references_format.MAX_SIZE)
            if data is not None:
                head = references_format.decode(data, name).head
                if not _is_ours(tx, objects, head):
                    found[name] = f"is of another store ({head.store})"
        except Damaged as error:
            found[name] = error.message
    return found


def to_take(tx: Tx, objects: Objects, *, everything: bool = False) -> list[References]:
    """The copies that show what the catalog lacks, being one from a backup, or (`everything`) a new one; the latest
    state first."""
    state, found = _state(tx), []
    for name in (FILE, LOST):
        with contextlib.suppress(Damaged):
            data = objects.read_file(name, references_format.MAX_SIZE)
            if data is not None:
                copy = references_format.decode(data, name)
                if not _is_ours(tx, objects, copy.head):
                    continue
                if everything or name == LOST or _later(copy.head, state):
                    found.append(copy)
    return sorted(found, key=lambda one: -one.head.serial)


def complete(tx: Tx, objects: Objects) -> bool:
    """Do the catalog and `to_take` together show the names of the latest state that there was? Not where its copy is
    lost, or was left for later."""
    state = _state(tx)
    file, latest, lost = (_head(tx, objects, name) for name in (FILE, LATEST, LOST))
    whole = {copy.head[:2] for copy in to_take(tx, objects)}
    return (
        file is not None
        and all(one is None or not _later(one, state) or one[:2] in whole for one in (file, latest, lost))
        and (lost is None or latest is None or latest.serial <= lost.serial)
    )


def same_state(tx: Tx, objects: Objects) -> References | None:
    """The copy, if it shows the very state that the catalog is in; None where it is stale, missing or damaged."""
    state = _state(tx)
    head = _head(tx, objects, FILE)
    if head is None or head[:2] != state[:2]:
        return None
    with contextlib.suppress(Damaged):
        copy = references_format.decode(objects.read_file(FILE, references_format.MAX_SIZE) or b"", FILE)
        return copy if copy.head[:2] == state[:2] else None
    return None


def shown(tx: Tx) -> References:
    """What a copy of this state would show."""
    return _shown(tx, _state(tx))


def later(tx: Tx, objects: Objects) -> bool:
    """Was there a later state than the catalog shows, and has `check` not looked since?"""
    state = _state(tx)
    if any(head is not None and _later(head, state) for head in (_head(tx, objects, FILE), _head(tx, objects, LATEST))):
        return True
    lost = objects.read_file(LOST, references_format.HEAD_SIZE, part=True)
    # A damaged one was ours all the same.
    head = None if lost is None else references_format.decode_head(lost)
    return lost is not None and (head is None or _is_ours(tx, objects, head))


def taken_over(objects: Objects) -> None:
    """`check` has put what the copies showed into the catalog, which is the latest state from here on."""
    for name in (LOST, LATEST):
        objects.quarantine_file(name)


def _later(copy: Head, state: Head) -> bool:
    return copy.serial > state.serial or (copy.serial == state.serial and copy.word != state.word)


def _state(tx: Tx) -> Head:
    # What is damaged passes for the earliest: a later one is looked for in the copies then.
    serial, _, word = str(tx.value("SELECT value FROM meta WHERE key = 'references'") or "").partition(" ")
    return Head(int(serial) if _NUMBER.fullmatch(serial) else 0, word, 0, "")


def _head(tx: Tx, objects: Objects, name: str) -> Head | None:
    """What a copy shows; None where there is none that can be read, or it is another store's."""
    data = objects.read_file(name, references_format.HEAD_SIZE, part=True)
    head = None if data is None else references_format.decode_head(data)
    return head if head is not None and _is_ours(tx, objects, head) else None


def _is_ours(tx: Tx, objects: Objects, head: Head) -> bool:
    return head.store == _store_id(tx, objects)


def _store_id(tx: Tx, objects: Objects) -> str:
    file = kept_copy(tx)
    if file is None:
        with contextlib.suppress(CasstoreError):
            file = storefile.decode(objects.read_file(STORE_FILE) or b"")
    return "" if file is None else file.id


def _shown(tx: Tx, head: Head) -> References:
    tags = [(row.repository, row.tag, row.target, row.created) for row in names.tags(tx)]
    settings = {str(key): str(value) for key, value in tx.rows("SELECT key, value FROM config ORDER BY key")}
    return References(head, tags, names.pins(tx), settings)
