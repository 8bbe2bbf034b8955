"""store.json made again where it is lost or damaged: from the copy in the catalog, else from what packs and the copy of
the references say."""

from __future__ import annotations

import contextlib
import secrets
from datetime import UTC, datetime
from pathlib import Path

from ..errors import CasstoreError, Damaged, NotFound, StoreUnusable
from ..format import pack, references, storefile
from ..format.storefile import StoreFile
from .catalog import Catalog
from .objects import Objects
from .references import FILE
from .site import STORE_FILE, is_store, kept_copy


def refound(root: Path) -> None:
    """Let STORE/store.json be there and right, if there is a store; a damaged one goes into quarantine.

    StoreUnusable: it is of a format that this program does not know.
    """
    objects = Objects(root)
    data = objects.read_file(STORE_FILE, storefile.MAX_SIZE, part=True)
    found: StoreFile | None = None
    with contextlib.suppress(StoreUnusable):
        found = None if data is None else storefile.decode(data)
    kept = None
    with contextlib.suppress(CasstoreError), Catalog(root) as catalog, catalog.read() as tx:
        kept = kept_copy(tx)
    if kept is None and found is None:
        if data is not None and storefile.version_of(data) is not None:
            storefile.decode(data, str(root / STORE_FILE))  # says what is the matter with it
        if not is_store(root):
            return
        kept = _from_packs(objects)
    if kept is None or kept == found:
        return
    # Two of three decide: a catalog of another store does not make this one that store.
    if found is None or found.id == kept.id or found.id != _named_id(objects):
        objects.quarantine_file(STORE_FILE)
        objects.write_file(STORE_FILE, storefile.encode(kept))


def _from_packs(objects: Objects) -> StoreFile:
    """A new one. The digest that names chunks is in each pack. How content is cut is nowhere else; another way costs no
    more than that what comes is found to be the same less often."""
    for key in objects.all_keys("packs/"):
        with contextlib.suppress(Damaged, NotFound), objects.open(key) as reader:
            header = pack.decode_header(reader.pread(0, min(pack.HEADER_SIZE, reader.size)), key)
            return _new(objects, header.chunk_digest)
    return _new(objects, "sha256")


def _new(objects: Objects, chunk_digest: str) -> StoreFile:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return StoreFile(id=_named_id(objects) or secrets.token_hex(16), created=now, chunk_digest=chunk_digest)


def _named_id(objects: Objects) -> str:
    """The store's id by the copy of the references; "" where there is none, or a damaged one."""
    with contextlib.suppress(Damaged):
        data = objects.read_file(FILE, references.MAX_SIZE)
        return "" if data is None else references.decode(data, FILE).head.store
    return ""
