"""The folder of a store: found, or made where there is none yet. Light: no arrays, so that listing starts fast."""

from __future__ import annotations

from pathlib import Path

from ..errors import StoreUnusable
from ..format import storefile
from ..format.storefile import StoreFile
from .catalog import Catalog
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
    """What STORE/store.json says, None where there is no store."""
    data = Objects(root).read_file(STORE_FILE)
    return None if data is None else storefile.decode(data, str(root / STORE_FILE))


def open_site(root: Path, *, create: StoreFile | None = None, remake: bool = False) -> Site:
    """The store at `root`. With `create`, it is made where nothing is yet; else StoreUnusable. With `remake`, a catalog
    that is missing or damaged is made anew, for `check` to fill; else Damaged."""
    file = read_store_file(root)
    if file is None:
        if create is None:
            raise StoreUnusable("not a casstore store", what=str(root), hint="make one with casstore init")
        objects = Objects.make(root)
        with Catalog.make(root) as catalog, catalog.write("init"):
            # Last, for a folder with a store.json is a whole store; and under the write lock, for others may be making
            # it too: the first one's stays.
            if read_store_file(root) is None:
                objects.write_file(STORE_FILE, storefile.encode(create))
        file = read_store_file(root)
        if file is None:
            raise StoreUnusable("the store vanished while it was made", what=str(root))
    if remake:
        Catalog.remake(root)
    return Site(root, file)
