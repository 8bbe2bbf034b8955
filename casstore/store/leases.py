"""A lease held by a running command: opened, renewed from a thread of its own, closed at the end."""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType
from typing import Self

from ..errors import CasstoreError, Damaged, LeaseLost, NotFound
from . import protocol
from .catalog import Catalog
from .objects import Objects

TTL = 600.0
"""Seconds that a lease lasts without being renewed: so long may a stopped machine sleep and go on."""


class Lease:
    """`with Lease(catalog, objects, "load x.tar") as lease:` – protects work in flight from the collector.

    What was published under it and not committed dies with it. A long lease holds up all unlinking: take one
    per image, not one per command. `id` is what the functions of `protocol` want.

    `reading`: the command only reads, and does so without a lease where the store is read-only. Should others write to
    that store, it may find files missing that they collect.
    """

    def __init__(
        self, catalog: Catalog, objects: Objects, purpose: str, ttl: float = TTL, *, reading: bool = False
    ) -> None:
        self._catalog = catalog
        self._objects = objects
        self._ttl = ttl
        self._lost = False
        self._ended = threading.Event()
        self.id = protocol.NO_LEASE
        if reading and catalog.read_only:
            self._ended.set()
            return
        self.id = protocol.lease_open(catalog, purpose, ttl)
        try:
            objects.make_staging(self.id)
        except CasstoreError:
            protocol.lease_close(catalog, self.id)
            raise
        self._thread = threading.Thread(target=self._renew, name=f"lease {self.id}", daemon=True)
        self._thread.start()

    def _renew(self) -> None:
        while not self._ended.wait(self._ttl / 3 if not self._lost else None):
            try:
                protocol.lease_renew(self._catalog, self.id, self._ttl)
            except LeaseLost:
                self._lost = True
            except CasstoreError:
                # Locked or a full disk: the next turn tries again, while the row is there nothing is lost.
                pass

    def check(self) -> None:
        """Raise LeaseLost once the lease has ended: no use in going on, the commit would be refused. If it has not,
        nothing that it protects was gone until now: what was found missing or rotten is."""
        protocol.lease_holds(self._catalog, self.id)

    def close(self) -> None:
        """End the lease and remove its staging folder. Twice is fine."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._thread.join()
        # The row first: from then on the pending rows have no owner, and the folder is anybody's to remove.
        self._lost = not protocol.lease_close(self._catalog, self.id)
        self._objects.remove_staging(self.id)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What the command did stands, or its own error says more; the collector ends the lease when it has expired.
        with contextlib.suppress(CasstoreError):
            self.close()
        # Without its lease a command finds gone what nobody kept for it. That is no damage, and no news of the store.
        if self._lost and isinstance(error, NotFound | Damaged):
            raise LeaseLost(
                "the lease of this command has ended; nothing was changed", what=f"lease {self.id}"
            ) from error
