"""What others do between two transactions of one command."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from population import population

from casstore import api
from casstore.errors import NotFound
from casstore.store import protocol
from casstore.store.epoch import turn_epoch
from casstore.store.objects import Objects

OLD, NEW = population("between", 2, 3000)[1::4]


@pytest.fixture
def store(opened: api.Store, tmp_path: Path) -> api.Store:
    (tmp_path / "in").write_bytes(OLD.archive(["a:1"]))
    opened.load(tmp_path / "in")
    return opened


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[], Any]], None]:
    """before("read_open", act): act runs once, just before that transaction."""

    def put(name: str, act: Callable[[], Any]) -> None:
        plain = getattr(protocol, name)

        def late(*args: Any, **more: Any) -> Any:
            monkeypatch.setattr(protocol, name, plain)
            act()
            return plain(*args, **more)

        monkeypatch.setattr(protocol, name, late)

    return put


def remove(store_path: Path) -> None:
    with api.open(store_path) as other:
        assert "Untagged" in [step.verb for step in other.remove(["a:1"])]
        other.gc(grace=0.0)


def move(store_path: Path, scratch: Path) -> None:
    (scratch / "in").write_bytes(NEW.archive(["a:1"]))
    with api.open(store_path) as other:
        other.load(scratch / "in")
        assert "Error" not in [step.verb for step in other.remove([OLD.id])]
        other.gc(grace=0.0)


@pytest.mark.parametrize("command", [lambda s, out: s.save(["a:1"], out), lambda s, out: s.verify("a:1")])
def test_the_image_goes(store: api.Store, store_path: Path, tmp_path: Path, before: Any, command: Any) -> None:
    before("read_open", lambda: remove(store_path))
    with pytest.raises(NotFound, match="No such image: a:1"):
        command(store, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_name_moves_before_a_save(store: api.Store, store_path: Path, tmp_path: Path, before: Any) -> None:
    before("read_open", lambda: move(store_path, tmp_path))
    store.save(["a:1"], tmp_path / "out")
    assert NEW.differs((tmp_path / "out").read_bytes(), ["a:1"]) == ""


def test_the_name_moves_before_a_verify(store: api.Store, store_path: Path, tmp_path: Path, before: Any) -> None:
    before("read_open", lambda: move(store_path, tmp_path))
    report = store.verify("a:1")
    assert report.ok and {str(row.digest) for row in report.rows} == NEW.blobs.keys()


def test_the_image_goes_before_it_is_tagged(store: api.Store, store_path: Path, before: Any) -> None:
    before("tag", lambda: remove(store_path))
    with pytest.raises(NotFound):
        store.tag("a:1", "b:1")
    assert store.images() == []


@pytest.mark.parametrize(
    "other",
    [lambda s: turn_epoch(s.volume.catalog, s.volume.objects), lambda s: s.tag("a:1", "b:1")],
    ids=["gc", "tag"],
)
def test_a_check_sees_catalog_and_files_of_one_moment(
    store: api.Store, store_path: Path, monkeypatch: pytest.MonkeyPatch, other: Callable[[Any], Any]
) -> None:
    """What others change after its transaction began and before it reads the files: it took the catalog for one from a
    backup, and with --repair nothing was in the store for a while."""
    read_file = Objects.read_file
    begun: list[threading.Thread] = []

    def act() -> None:
        with api.open(store_path) as them:
            other(them)

    def late(objects: Objects, *given: Any, **more: Any) -> Any:
        if not begun:
            begun.append(threading.Thread(target=act))
            begun[0].start()
            begun[0].join(1)  # it waits for the lock until the check is past this
        return read_file(objects, *given, **more)

    monkeypatch.setattr(Objects, "read_file", late)
    assert store.check().findings == []
    begun[0].join()
    assert store.check().findings == []
