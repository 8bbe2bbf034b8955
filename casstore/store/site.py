"""The folder of a store: found, or made where there is none yet. Light: no arrays, so that listing starts fast."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from ..errors import CasstoreError, Damaged, StoreUnusable
from ..format import storefile
from ..format.storefile import StoreFile
from .catalog import Catalog, Tx, WriteTx
from .disk import write_or_leave_none
from .objects import Objects

STORE_FILE = "store.json"


class Site:
    """A store's folder, its store.json, objects and catalog. Thread-safe; close() when done."""

    def __init__(self, root: Path, file: StoreFile) -> None:
        self.root = root
        self.file = file
        self.catalog = Catalog(root)
        self.objects = Objects(root, read_only=self.catalog.read_only)

    def close(self) -> None:
        self.catalog.close()


def read_store_file(root: Path) -> StoreFile | None:
    """What STORE/store.json says, None where there is no store. Damaged: there is one, and it has none."""
    data = Objects(root).read_file(STORE_FILE)
    if data is None and is_store(root):
        data = Objects(root).read_file(STORE_FILE)  # once more: others may have been making it
        if data is None:
            raise Damaged("the store's store.json is missing", what=str(root), hint="run casstore check --repair")
    try:
        return None if data is None else storefile.decode(data, str(root / STORE_FILE))
    except StoreUnusable as error:
        if is_store(root) and storefile.version_of(data or b"") in (None, storefile.VERSION):
            raise Damaged(error.message, what=error.what, hint="run casstore check --repair") from None
        raise


def is_store(root: Path) -> bool:
    """Whatever became of store.json, was this a store? It has objects, or its catalog has the copy that was made last
    of all."""
    if any(True for _ in Objects(root).all_keys()):
        return True
    with contextlib.suppress(CasstoreError), Catalog(root) as catalog, catalog.read() as tx:
        return kept_copy(tx) is not None
    return False


def kept_copy(tx: Tx) -> StoreFile | None:
    """What the catalog keeps of store.json; None where it keeps none, or a damaged one."""
    sealed = tx.value("SELECT value FROM meta WHERE key = 'store'")
    return storefile.unseal(sealed) if isinstance(sealed, str) else None


def _foreign(tx: Tx, file: StoreFile) -> str:
    """Why this is no catalog of this store; "" if it is one. A store.json that was damaged is mended before."""
    kept = kept_copy(tx)
    return "" if kept is None or kept.id == file.id else f"it was the catalog of another store ({kept.id})"


def keep_copy(tx: WriteTx, file: StoreFile) -> None:
    tx.run("INSERT OR REPLACE INTO meta (key, value) VALUES ('store', ?)", (storefile.seal(file),))


def make_site(root: Path, create: StoreFile, *, decided: Callable[[], None] = lambda: None) -> None:
    """Make a store where nothing is yet; several may do it at once, and the first one's stays. It is there, whole, with
    its store.json and not before: `decided` is called just before that, and what fails from then on is no harm."""
    objects = Objects.make(root)
    with Catalog.make(root) as catalog:
        try:
            # Under the write lock, for others may be making it too.
            with catalog.write("init") as tx:
                if kept_copy(tx) is not None:
                    return
                data = objects.read_file(STORE_FILE)
                if data is None:
                    decided()
                    write_or_leave_none(objects.root / STORE_FILE, storefile.encode(create))
                keep_copy(tx, create if data is None else storefile.decode(data))
        except CasstoreError:
            if objects.read_file(STORE_FILE) is None:
                raise
            # Only the copy is lacking, which a repair makes.


def open_site(root: Path, *, create: StoreFile | None = None, remake: bool = False) -> Site:
    """The store at `root`. With `create`, it is made where nothing is yet; else StoreUnusable. With `remake`, a catalog
    that is missing, damaged or another store's is made anew, for `check` to fill; else Damaged."""
    file = read_store_file(root)
    if file is None:
        if create is None:
            raise StoreUnusable("not a casstore store", what=str(root), hint="make one with casstore init")
        make_site(root, create)
        file = read_store_file(root)
        if file is None:
            raise StoreUnusable("the store vanished while it was made", what=str(root))
    if remake:
        Catalog.remake(root, lambda tx: _foreign(tx, file))
        with Catalog(root) as catalog, catalog.write("keep_copy") as tx:
            if kept_copy(tx) != file:
                keep_copy(tx, file)
    return Site(root, file)
