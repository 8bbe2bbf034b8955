"""Leases of running commands: renewed while they live, lost when the row goes, closed at the end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from casstore.errors import LeaseLost, OutOfSpace
from casstore.store import collector, protocol
from casstore.store.catalog import Catalog
from casstore.store.leases import Lease
from casstore.store.objects import Objects


@pytest.fixture
def store(tmp_path: Path) -> Any:
    objects = Objects.make(tmp_path)
    with Catalog.make(tmp_path) as catalog:
        yield catalog, objects


def expires(catalog: Catalog, lease: Lease) -> float | None:
    with catalog.read() as tx:
        return tx.value("SELECT expires FROM lease WHERE id = ?", (lease.id,))


def wait_for(condition: Any) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_open_and_close(store: tuple[Catalog, Objects]) -> None:
    catalog, objects = store
    with Lease(catalog, objects, "a purpose") as lease:
        with catalog.read() as tx:
            assert tx.value("SELECT purpose FROM lease WHERE id = ?", (lease.id,)) == "a purpose"
        assert objects.has_staging(lease.id)
        lease.check()
    assert expires(catalog, lease) is None
    assert not objects.has_staging(lease.id)
    lease.close()


def test_it_is_renewed_while_it_runs(store: tuple[Catalog, Objects]) -> None:
    with Lease(*store, "test", ttl=0.3) as lease:
        first = expires(store[0], lease)
        wait_for(lambda: expires(store[0], lease) != first)
        lease.check()


def test_once_the_row_is_gone_it_is_lost(store: tuple[Catalog, Objects]) -> None:
    catalog, objects = store
    with Lease(catalog, objects, "test", ttl=0.3) as lease:
        protocol.lease_close(catalog, lease.id)

        def lost() -> bool:
            try:
                lease.check()
            except LeaseLost:
                return True
            return False

        wait_for(lost)
    assert not objects.has_staging(lease.id)


def test_a_full_disk_at_renewal_is_tried_again(store: tuple[Catalog, Objects], monkeypatch: pytest.MonkeyPatch) -> None:
    renew = protocol.lease_renew
    calls = []

    def once_full(*values: Any) -> None:
        calls.append(values)
        if len(calls) == 1:
            raise OutOfSpace("no space left")
        renew(*values)

    monkeypatch.setattr(protocol, "lease_renew", once_full)
    with Lease(*store, "test", ttl=0.3) as lease:
        wait_for(lambda: len(calls) > 1)
        lease.check()


def test_a_lease_that_cannot_be_closed_spoils_nothing(
    store: tuple[Catalog, Objects], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OutOfSpace("no space left")

    monkeypatch.setattr(protocol, "lease_close", full)
    with pytest.raises(KeyError), Lease(*store, "test"):
        raise KeyError
    with Lease(*store, "test") as lease:
        pass
    assert store[0].path.is_file()
    with store[0].read() as tx:
        assert tx.value("SELECT id FROM lease WHERE id = ?", (lease.id,)) == lease.id


def test_a_killed_command_leaves_a_lease_that_expires(store: tuple[Catalog, Objects]) -> None:
    catalog, objects = store
    lease = protocol.lease_open(catalog, "killed", 600)
    objects.make_staging(lease)
    assert collector.lease_expire(catalog) == []
    assert collector.gc_tmp(catalog, objects) == []
    with catalog.write() as tx:
        tx.run("UPDATE lease SET expires = 0")
    assert collector.lease_expire(catalog) == [lease]
    assert collector.gc_tmp(catalog, objects) == [lease]
    assert objects.stagings() == []
