"""A store opened for its bytes: the site, and over it the shared cache of packs and the index."""

from __future__ import annotations

from .cache import BlobCache
from .index import IndexSet
from .packs import PackCache
from .site import Site
from .transfers import Transfers


class Volume:
    """What every room above works on. Thread-safe; the site is closed by whoever opened it."""

    def __init__(self, site: Site) -> None:
        self.root = site.root
        self.file = site.file
        self.objects = site.objects
        self.catalog = site.catalog
        self.packs = PackCache(self.objects)
        self.cache = BlobCache(self.objects, self.catalog)
        self.transfers = Transfers(self.objects)

    def index(self, keys: list[str]) -> IndexSet:
        """The index over these live segments (catalog rows read by the caller's transaction)."""
        return IndexSet(self.objects, keys)

    def close(self) -> None:
        self.packs.close()
