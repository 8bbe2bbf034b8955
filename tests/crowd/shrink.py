"""Small packs, small frames, small batches: what takes gigabytes in a real store happens with kilobytes here, and every
gc finds something to rewrite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from casstore.flow import frames, restore
from casstore.store import collector, leases, packs
from casstore.upkeep import deep, records, repack

Set = Callable[[Any, str, Any], None]


def changes(ttl: float | None = None) -> Iterator[tuple[Any, str, Any]]:
    """(where, name, value) of each constant; `ttl`: seconds that a lease lasts."""
    yield packs.PackShelf.__init__, "__defaults__", (96 << 10,)
    yield packs.PackCache.__init__, "__defaults__", (256 << 10, 4)
    yield packs, "METADATA_FRAME", 4 << 10
    yield packs, "SYNC_EVERY", 32 << 10
    yield frames.FrameBuilder.__init__, "__defaults__", (24 << 10,)
    yield restore, "WINDOW", 64 << 10
    yield deep, "LEAST", 8 << 10
    yield deep, "KEEP", 2
    yield repack, "GROUP", 3
    yield repack, "BATCH", 2
    yield records, "MANY", 2
    yield records, "BATCH", 3
    yield collector, "FILES", 3
    if ttl is not None:
        yield leases.Lease.__init__, "__defaults__", (ttl,)


def shrink(put: Set = setattr, ttl: float | None = None) -> None:
    """Change them, with monkeypatch.setattr or for good."""
    for where, name, value in changes(ttl):
        getattr(where, name)  # a constant that is gone must not be set in vain
        put(where, name, value)
