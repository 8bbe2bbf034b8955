"""`history` and `inspect` as the library has them, of whole images and of odd ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sample
from running import Cas

from casstore import api
from casstore.errors import AmbiguousPrefix, Damaged, NotFound

ODD_TIMES = [
    None,
    "",
    "yesterday",
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+03:00",
    "9999-12-31T23:59:59.999999999-12:00",
    "10000-01-01T00:00:00Z",
    "2024-02-30T00:00:00Z",
]


def load(store: api.Store, folder: Path, *images: sample.Image, pack: str | None = None) -> None:
    (folder / "in.tar").write_bytes(sample.docker_archive(*images))
    store.load(folder / "in.tar", pack=pack)


@pytest.mark.parametrize("created", ODD_TIMES)
def test_odd_times_are_listed(cas: Cas, tmp_path: Path, created: str | None) -> None:
    one = sample.image(1, ["t:1"], created=created, history=[{"created_by": "x", "created": created}])
    (tmp_path / "in.tar").write_bytes(sample.docker_archive(one, sample.image(2, ["u:1"])))
    cas("load", "-q", "-i", tmp_path / "in.tar")
    assert len(cas("images").lines) == 3
    for argv in (
        ("images", "--format", "json"),
        ("images", "-f", "before=t:1"),
        ("images", "-f", "since=t:1"),
        ("history", "t:1"),
        ("history", "-H=false", "t:1"),
        ("history", "--format", "json", "t:1"),
        ("image", "prune", "-a", "--dry-run", "--filter", "until=1h"),
    ):
        cas(*argv)
    (facts,) = json.loads(cas("inspect", "t:1").out)
    assert facts["Created"] == (created or "0001-01-01T00:00:00Z")


@pytest.mark.parametrize("pack", ["now", "never"])
def test_layers_that_are_missing_do_not_matter(opened: api.Store, store_path: Path, tmp_path: Path, pack: str) -> None:
    one = sample.rich_image()
    load(opened, tmp_path, one, pack=pack)
    told = opened.history("rich:1"), opened.inspect("rich:1"), opened.images()
    opened.close()
    files = [path for path in (store_path / "objects").rglob("*") if path.is_file()]
    for path in files:
        if path.stat().st_size > 100_000 or "blobs" in path.parts:
            path.unlink()
    with api.open(store_path) as store:
        assert not store.verify("rich:1").ok
        assert (store.history("rich:1"), store.inspect("rich:1"), store.images()) == told


def test_a_damaged_config_is_told(opened: api.Store, store_path: Path, tmp_path: Path) -> None:
    one = sample.image(1, ["d:1"])
    load(opened, tmp_path, one)
    opened.close()
    for path in (store_path / "objects/packs").rglob("*"):
        if path.is_file():
            path.write_bytes(bytes(path.stat().st_size))
    with api.open(store_path) as store:
        for ask in (store.history, store.inspect):
            with pytest.raises(Damaged):
                ask("d:1")
        assert len(store.images()) == 1


def test_history_of_more_steps_than_are_stored(opened: api.Store, tmp_path: Path) -> None:
    layers = [sample.files({str(n): bytes(10**n)}) for n in range(3)]
    steps: list[dict[str, Any]] = [{"created_by": str(n), "empty_layer": n % 2 == 1} for n in range(5)]
    load(opened, tmp_path, sample.image(1, ["h:1"], layers, history=steps))
    assert [(line.created_by, line.size) for line in opened.history("h:1")] == [
        ("4", 100), ("3", 0), ("2", 10), ("1", 0), ("0", 1),
    ]  # fmt: skip


def test_docker_keys_of_a_configuration(opened: api.Store, tmp_path: Path) -> None:
    given = {"Volumes": {"/b": {}, "/a": {}}, "Healthcheck": {"Test": ["NONE"]}, "StopSignal": "", "Nonsense": 1}
    load(opened, tmp_path, sample.image(1, ["k:1"], config=given, variant="v8", **{"os.version": "1"}))
    facts = opened.inspect("k:1")
    assert list(facts["Config"]["Volumes"]) == ["/a", "/b"] and facts["Config"]["Healthcheck"] == {"Test": ["NONE"]}
    assert {"Nonsense", "StopSignal", "ExposedPorts"}.isdisjoint(facts["Config"])
    assert (facts["Variant"], facts["OsVersion"]) == ("v8", "1")
    (row,) = opened.images()
    assert facts["RepoDigests"] == [f"k@{row.digest}"]
    assert facts["Metadata"]["LastTagTime"].startswith("20")


def test_an_index_is_its_image_for_this_machine(opened: api.Store, tmp_path: Path) -> None:
    layout, _ = sample.platforms()
    (tmp_path / "in.tar").write_bytes(layout.tar())
    opened.load(tmp_path / "in.tar", all_platforms=True)
    (row,) = opened.images()
    facts = opened.inspect("many:1")
    assert facts["Id"] == str(row.id) and facts["RepoTags"] == ["many:1"]
    assert facts["RepoDigests"] == [f"many@{layout.top[0]['digest']}"]
    assert [line.id for line in opened.history("many:1")] == [row.id]


def test_ambiguity_is_told_by_all(opened: api.Store, tmp_path: Path) -> None:
    images = [sample.image(n, [f"a:{n}"]) for n in range(17)]  # of 17, two begin alike
    load(opened, tmp_path, *images)
    starts = [one.id[7] for one in images]
    twice = next(each for each in starts if starts.count(each) > 1)
    for ask in (opened.inspect, opened.history):
        with pytest.raises(AmbiguousPrefix, match=f'ambiguous image ID prefix "{twice}": matches '):
            ask(twice)
    assert [step.verb for step in opened.remove([twice])] == ["Error"]
    with pytest.raises(NotFound):
        opened.inspect("nosuch")
