"""Who lost his lease (he was suspended for too long) is told so, and blames nobody: nothing is marked as damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from population import population
from shrink import shrink

from casstore import api
from casstore.errors import LeaseLost
from casstore.store import protocol, query, rewrite

KEPT = population("lost", 2, 9000)
PLAIN = KEPT[1]


@pytest.fixture
def store(store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> api.Store:
    """A store with an image in several packs, opened by nobody before."""
    shrink(monkeypatch.setattr)
    with api.open(store_path) as first:
        for one in KEPT[1::4]:
            (tmp_path / "in").write_bytes(one.archive([f"{one.name}:1"]))
            first.load(tmp_path / "in", pack="now")
        (tmp_path / "in").write_bytes(KEPT[0].layers[0] + b"a blob of its own")
        first.blobs.put(tmp_path / "in", pack="later")
    return api.open(store_path)


def lose(store_path: Path) -> None:
    """All leases are over, and what they protected is gone: everything lies elsewhere now."""
    with api.open(store_path) as other:
        with other.volume.catalog.read() as tx:
            leases = [row[0] for row in tx.rows("SELECT id FROM lease")]
        for lease in leases:
            protocol.lease_close(other.volume.catalog, lease)
        before = set(other.volume.objects.list())
        other.gc(grace=0.0)
        assert before.isdisjoint(other.volume.objects.list())


def save(store: api.Store, scratch: Path) -> None:
    store.save([f"{PLAIN.name}:1"], scratch / "out")


def cat(store: api.Store, scratch: Path) -> None:
    (layer,) = (row.digest for row in store.blobs.ls() if str(row.digest) == PLAIN_LAYER)
    b"".join(store.blobs.cat(layer))


PLAIN_LAYER = next(digest for digest, data in PLAIN.blobs.items() if data == PLAIN.layers[0])

COMMANDS: dict[str, tuple[Callable[[api.Store, Path], Any], Any, str]] = {
    "save": (save, protocol, "read_open"),
    "cat": (cat, protocol, "read_open"),
    "verify": (lambda store, _: store.verify(f"{PLAIN.name}:1"), protocol, "read_open"),
    "check": (lambda store, _: store.check(), query, "objects"),
    "check --read-data": (lambda store, _: store.check(read_data=True), query, "blobs"),
    "check --repair": (lambda store, _: store.check(repair=True), query, "blobs"),
    "gc: pack": (lambda store, _: store.gc(), rewrite, "pack_begin"),
    "gc: repack": (lambda store, _: store.gc(max_time=60), protocol, "name_objects"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_lost(name: str, store: api.Store, store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command, where, function = COMMANDS[name]
    plain = getattr(where, function)
    called: list[str] = []

    def suspended(*args: Any, **more: Any) -> Any:
        result = plain(*args, **more)
        result = list(result) if function in ("objects", "blobs") else result
        if not called:
            called.append(name)
            lose(store_path)
        return result

    monkeypatch.setattr(where, function, suspended)
    with store:
        with pytest.raises(LeaseLost):
            command(store, tmp_path)
        assert called
        with store.volume.catalog.read() as tx:
            assert not tx.rows("SELECT digest FROM blob WHERE damaged <> 0 OR pack_refused IS NOT NULL")
            assert not tx.rows("SELECT key FROM object WHERE damaged <> 0")
        assert store.check(read_data=True).findings == []
        store.save([f"{PLAIN.name}:1"], tmp_path / "out")
        assert PLAIN.differs((tmp_path / "out").read_bytes(), [f"{PLAIN.name}:1"]) == ""
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
