"""A rebuild of the catalog that was cut off is carried on by the next: nothing that had a row by then is forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest
import sample

from casstore import api
from casstore.store import damage, protocol


class Cut(Exception):
    pass


@pytest.mark.parametrize("lost", [True, False])
@pytest.mark.parametrize("step", ["protocol.commit", "damage.adopt", "damage.relink", "damage.restore_names"])
@pytest.mark.parametrize("number", [1, 2])
def test_it_is_carried_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: bool, step: str, number: int) -> None:
    root = tmp_path / "store"
    catalog = root / "catalog.sqlite"
    (tmp_path / "a.tar").write_bytes(sample.docker_archive(sample.image("a", ["a:1"])))
    (tmp_path / "b.tar").write_bytes(sample.oci_archive(sample.image("b", ["b:1"])))
    with api.open(root) as store:
        store.load(tmp_path / "a.tar")
    backup = catalog.read_bytes()
    with api.open(root) as store:
        store.load(tmp_path / "b.tar")
    catalog.unlink()
    if not lost:
        catalog.write_bytes(backup)
    module, name = step.split(".")
    where = {"protocol": protocol, "damage": damage}[module]
    real, calls = getattr(where, name), 0

    def cut(*values: object, **more: object) -> object:
        nonlocal calls
        calls += 1
        if calls == number:
            raise Cut
        return real(*values, **more)

    monkeypatch.setattr(where, name, cut)
    try:
        with api.open(root, remake=True) as store:
            store.check(repair=True)
    except Cut:
        pass
    monkeypatch.undo()
    with api.open(root, remake=True) as store:
        assert store.check(repair=True).ok
        assert {(row.repository, row.tag) for row in store.images()} == {("a", "1"), ("b", "1")}
        assert not store.check(read_data=True).findings
        store.gc(grace=0)
        assert not store.check(read_data=True).findings
        assert len(store.images()) == 2
