"""Files of another store, of the same program and sound, in the place of the store's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import sample

from casstore import api
from casstore.errors import Damaged
from casstore.store import references


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two stores with an image each; the second has changed names more often."""
    for name in ("own", "other"):
        layer = sample.files({name: sample.noise(name, 50_000)})
        (tmp_path / f"{name}.tar").write_bytes(sample.oci_archive(sample.image(name, [f"{name}:1"], [layer])))
        with api.open(tmp_path / name) as store:
            store.load(tmp_path / f"{name}.tar")
            for number in range(5 if name == "other" else 0):
                store.tag("other:1", f"other:again{number}")
    return tmp_path / "own", tmp_path / "other"


def names(root: Path) -> set[str]:
    with api.open(root) as store:
        return {f"{row.repository}:{row.tag}" for row in store.images()}


def repair(root: Path) -> list[tuple[str, str, bool]]:
    with api.open(root, remake=True) as store:
        return [(one.what, one.severity, one.repaired) for one in store.check(repair=True).findings]


@pytest.mark.parametrize("name", [references.FILE, references.LATEST, references.LOST])
def test_a_copy_of_another_stores_names_is_told_and_replaced(pair: tuple[Path, Path], name: str) -> None:
    own, other = pair
    before = (own / references.FILE).read_bytes()
    shutil.copy(other / references.FILE, own / name)
    with api.open(own) as store:
        (told,) = store.check().findings
        assert told.what == name and store.volume.file.id not in told.problem
        assert (other / "store.json").read_text().split('"id": "')[1][:32] in told.problem
    assert repair(own) == [(name, "warning", True)]
    assert (own / references.FILE).read_bytes()[:100] == before[:100]
    assert len(list((own / "quarantine").iterdir())) == 1
    with api.open(own) as store:
        assert not store.check().findings
        assert store.check(read_data=True).ok
    assert names(own) == {"own:1"}


@pytest.mark.parametrize("name", [references.FILE, references.LATEST, references.LOST])
def test_a_copy_of_another_stores_names_is_nobodys_business(pair: tuple[Path, Path], name: str) -> None:
    own, other = pair
    shutil.copy(other / references.FILE, own / name)
    with api.open(own) as store:
        store.gc(grace=0)
        store.tag("own:1", "own:2")
    assert names(own) == {"own:1", "own:2"}
    with api.open(own) as store:
        assert [one.what for one in store.check().findings] == ([] if name == references.FILE else [name])
    if name == references.FILE:  # the place was needed; it is kept all the same
        (kept,) = (own / "quarantine").iterdir()
        assert kept.read_bytes() == (other / references.FILE).read_bytes()


def test_beside_a_lost_catalog_its_names_are_not_taken(pair: tuple[Path, Path]) -> None:
    own, other = pair
    shutil.copy(other / references.FILE, own / references.FILE)
    (own / "catalog.sqlite").unlink()
    assert (references.FILE, "error", True) in repair(own)
    with api.open(own) as store:
        (row,) = store.images()  # without a name, for there is none
        assert row.repository is None
        assert store.check(read_data=True).ok


def test_of_a_lost_store_the_copy_tells_which_it_was(pair: tuple[Path, Path]) -> None:
    own, _ = pair
    was = (own / "store.json").read_text().split('"id": "')[1][:32]
    (own / "catalog.sqlite").unlink()
    (own / "store.json").unlink()
    repair(own)
    with api.open(own) as store:
        assert store.volume.file.id == was
    assert names(own) == {"own:1"}


def test_another_stores_catalog_does_not_make_it_that_store(pair: tuple[Path, Path]) -> None:
    own, other = pair
    was = (own / "store.json").read_text()
    shutil.copy(other / "catalog.sqlite", own / "catalog.sqlite")
    with api.open(own) as store, pytest.raises(Damaged):
        store.gc(grace=0)
    assert ("catalog.sqlite", "error", True) in repair(own)
    assert (own / "store.json").read_text() == was
    assert names(own) == {"own:1"}
    with api.open(own) as store:
        store.gc(grace=0)
        assert not store.check(read_data=True).findings
