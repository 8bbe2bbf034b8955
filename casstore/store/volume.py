"""A store on disk, opened: its store.json, objects, catalog, and the shared cache of packs."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from ..errors import StoreUnusable
from ..format import storefile
from ..format.storefile import StoreFile
from .catalog import Catalog
from .index import IndexSet
from .objects import Objects
from .packs import PackCache

STORE_FILE = "store.json"


class Volume:
    """What every room above works on. Thread-safe; close() when done."""

    def __init__(self, root: Path, file: StoreFile) -> None:
        self.root = root
        self.file = file
        self.objects = Objects(root)
        self.catalog = Catalog(root)
        self.packs = PackCache(self.objects)

    @classmethod
    def open(cls, root: Path, *, create: StoreFile | None = None) -> Self:
        """Open the store at `root`. With `create`, make it where nothing is yet; else StoreUnusable."""
        objects = Objects(root)
        data = objects.read_file(STORE_FILE)
        if data is None:
            if create is None:
                raise StoreUnusable("not a casstore store", what=str(root), hint="make one with casstore init")
            objects.create()
            Catalog.create(root)
            # Written last: a folder with a store.json is a whole store.
            data = storefile.encode(create)
            objects.write_file(STORE_FILE, data)
        return cls(root, storefile.decode(data))

    def index(self, keys: list[str]) -> IndexSet:
        """The index over these live segments (catalog rows read by the caller's transaction)."""
        return IndexSet(self.objects, keys)

    def close(self) -> None:
        self.packs.close()
        self.catalog.close()
