"""Handles of a store: on its single blobs, and on its settings. Parts of the façade, whose ways they keep: rooms below
are imported when they are first needed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .digest import Digest
from .store.site import Site

if TYPE_CHECKING:
    from .codec.compression import Limit
    from .image.blobs import BlobSummary
    from .store.volume import Volume


class _Store(Protocol):
    """What a handle needs of the store that it is of."""

    _site: Site

    @property
    def volume(self) -> Volume: ...

    def _naming(self) -> contextlib.AbstractContextManager[None]: ...

    def _writing(self, pack: str | None) -> dict[str, Any]: ...

    def _limit(self) -> Limit: ...


class Blobs:
    """Single blobs of a store."""

    def __init__(self, store: _Store) -> None:
        self._store = store

    def put(self, source: str | Path | int, *, pack: str | None = None) -> Digest:
        """Store a file or an open descriptor as one blob, pinned until `rm`."""
        from .image.blob_put import put

        with self._store._naming():
            return put(self._store.volume, source, **self._store._writing(pack))

    def cat(
        self, digest: Digest, start: int = 0, end: int | None = None, *, content: bool = False
    ) -> Iterator[memoryview]:
        """A blob's bytes [start, end), verified; with `content` those of what is inside it, uncompressed."""
        from .image.blobs import cat

        limit = {"limit": self._store._limit()} if content else {}
        return cat(self._store.volume, digest, start, end, content=content, **limit)

    def ls(self) -> Iterator[BlobSummary]:
        """All blobs, by digest."""
        from .image.blobs import ls

        return ls(self._store.volume)

    def inspect(self, digest: Digest) -> dict[str, Any]:
        """What the store knows of a blob."""
        from .image.blobs import inspect

        return inspect(self._store.volume, digest)

    def rm(self, digests: Iterable[Digest]) -> None:
        """Unpin blobs; gc takes those that nothing needs."""
        from .image.blobs import rm

        with self._store._naming():
            rm(self._store.volume, digests)


class Config:
    """The settings of a store."""

    def __init__(self, store: _Store) -> None:
        self._store = store

    def get(self, key: str) -> str:
        """One setting; UsageError where there is none of that name."""
        from .store import settings

        with self._store._site.catalog.read() as tx:
            return settings.get(tx, key)

    def set(self, key: str, value: str) -> None:
        """Change one."""
        from .store import settings

        with self._store._naming():
            settings.change(self._store._site.catalog, key, value)

    def ls(self) -> dict[str, str]:
        """All of them."""
        from .store import settings

        with self._store._site.catalog.read() as tx:
            return settings.everything(tx)
