"""STORE/references.json: a copy of the tags, pins and settings, so that they outlive the catalog, which alone has them.

Not a commit point: it is written after the commits that change names, at most once a command, and may be stale by what
was written since. It is never wrong: it shows the catalog as it was at one moment, replaces itself atomically, and
carries a checksum. `check --repair` reads it when the catalog is lost or is older than the copy.
"""

from __future__ import annotations

import contextlib
import secrets

from ..errors import CasstoreError, Damaged
from ..format import references as references_format
from ..format.references import Head, References
from . import collector, names
from .catalog import Catalog, Tx, WriteTx
from .objects import Objects

FILE = "references.json"
LOST = "references.lost.json"
"""Where a copy goes that shows a later state than the catalog, which then is one from a backup."""
UNPACED = 1 << 20
"""A copy larger than this (bytes) is written at most every so many seconds as it has MiB."""


def changed(tx: WriteTx) -> None:
    """To be called in every transaction that changes a tag, a pin or a setting: it makes another state of it."""
    if tx.renamed:
        return
    tx.renamed = True
    state = _state(tx)
    objects = Objects(tx.root)
    copy, lost = _head(objects, FILE), _head(objects, LOST)
    if copy is not None and _later(copy, state) and (lost is None or not _later(lost, state)):
        objects.write_file(LOST, objects.read_file(FILE, references_format.MAX_SIZE) or b"")
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
    unless `now`. Failing is no harm: the copy is stale then, and the next one brings it up to date."""
    if catalog.read_only:
        return
    with contextlib.suppress(CasstoreError):
        # Once more when others changed names meanwhile: whoever writes last must not leave an older state.
        for _ in range(4):
            with catalog.read() as tx:
                state = _state(tx)
                copy = _head(objects, FILE)
                if not state.serial or (copy is not None and copy[:2] == state[:2]):
                    return
                if copy is not None and _later(copy, state):
                    return
                if not collector.epoch_matches(tx, objects):
                    return
                moment = int(tx.now())
                data = references_format.encode(_shown(tx, state._replace(written=moment)))
            age = len(data) / UNPACED if copy is None else moment - copy.written
            if not now and len(data) > UNPACED and age < len(data) / UNPACED:
                return
            objects.write_file(FILE, data)


def read(objects: Objects) -> list[References]:
    """The copies that there are and that can be read, the latest state first."""
    found = []
    for name in (FILE, LOST):
        with contextlib.suppress(Damaged):
            data = objects.read_file(name, references_format.MAX_SIZE)
            if data is not None:
                found.append(references_format.decode(data, name))
    return sorted(found, key=lambda one: -one.head.serial)


def problem(objects: Objects) -> str:
    """What is wrong with the copy, "" if nothing is. That it is stale or missing is not wrong."""
    try:
        data = objects.read_file(FILE, references_format.MAX_SIZE)
        if data is not None:
            references_format.decode(data, FILE)
    except Damaged as error:
        return error.message
    return ""


def older(tx: Tx, copy: References) -> bool:
    """Is the catalog of an earlier state than the copy: one from a backup?"""
    return _later(copy.head, _state(tx))


def _later(copy: Head, state: Head) -> bool:
    return copy.serial > state.serial or (copy.serial == state.serial and copy.word != state.word)


def _state(tx: Tx) -> Head:
    serial, _, word = (tx.value("SELECT value FROM meta WHERE key = 'references'") or "0 ").partition(" ")
    return Head(int(serial), word)


def _head(objects: Objects, name: str) -> Head | None:
    data = objects.read_file(name, references_format.HEAD_SIZE, part=True)
    return None if data is None else references_format.decode_head(data)


def _shown(tx: Tx, head: Head) -> References:
    tags = [(row.repository, row.tag, row.target, row.created) for row in names.tags(tx)]
    settings = {str(key): str(value) for key, value in tx.rows("SELECT key, value FROM config ORDER BY key")}
    return References(head, tags, names.pins(tx), settings)
