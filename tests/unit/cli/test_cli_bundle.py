"""casstore bundle, as people type it: between two stores, through files and pipes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sample
from running import Cas, Spawn

from casstore import api


def images(count: int) -> list[sample.Image]:
    base = sample.files({f"lib/{n}": sample.text(n, 5000) for n in range(20)})
    return [
        sample.image(n, [f"app:{n}"], [base, sample.files({"app": sample.text("app", 50_000) + b"%d" % n})])
        for n in range(count)
    ]


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A store that has app:0."""
    (tmp_path / "0.tar").write_bytes(sample.docker_archive(images(1)[0]))
    with api.open(tmp_path / "there") as store:
        store.load(tmp_path / "0.tar")
    return tmp_path / "there"


@pytest.fixture
def here(cas: Cas, tmp_path: Path) -> Cas:
    """The scratch store, which has app:0 and app:1."""
    (tmp_path / "in.tar").write_bytes(sample.docker_archive(*images(2)))
    cas("load", "-i", tmp_path / "in.tar")
    return cas


def test_over_a_file_and_back_to_the_same_bytes(here: Cas, there: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "b"
    made = here("bundle", "create", bundle, "app:1", "--have", "app:0").out.strip()
    assert made == "sha256:" + hashlib.sha256(bundle.read_bytes()).hexdigest()
    told = here("bundle", "load", "--store", there, "--expect", made, bundle)
    assert told.out == "Loaded image: app:1\n"
    assert here("save", "app:1").raw == here("save", "--store", there, "app:1").raw


def test_the_list_of_one_side_is_taken_by_the_other(here: Cas, there: Path, tmp_path: Path) -> None:
    for form in ([], ["--format", "json"]):
        listed = here("bundle", "have", "--store", there, *form).raw
        (tmp_path / "have").write_bytes(listed)
        here("bundle", "create", tmp_path / "b", "app:1", "--have-file", tmp_path / "have")
        assert json.loads(here("bundle", "inspect", "--format", "json", tmp_path / "b").out)["Bases"]
    rows = [json.loads(row) for row in listed.splitlines()]
    assert all(set(row) == {"Digest", "Size", "DiffID"} for row in rows) and rows
    here("bundle", "load", "--store", there, tmp_path / "b")


def test_inspect(here: Cas, tmp_path: Path) -> None:
    here("bundle", "create", tmp_path / "b", "app:0", "app:1")
    facts = json.loads(here("bundle", "inspect", tmp_path / "b").out)
    assert [one["Name"] for one in facts[0]["Names"]] == ["app:0", "app:1"]
    assert facts[0]["Size"] == (tmp_path / "b").stat().st_size and facts[0]["Bases"] == []
    assert here("bundle", "inspect", "--format", "{{.ChunkDigest}}", tmp_path / "b").out == "sha256\n"


def test_through_a_pipe(here: Cas, there: Path, spawn: Spawn) -> None:
    make = spawn("bundle", "create", "-", "app:1", "--have", "app:0")
    load = [sys.executable, "-m", "casstore", "--store", str(there), "bundle", "load", "-"]
    done = subprocess.run(load, stdin=make.stdout, capture_output=True, timeout=60, check=False)
    told = make.communicate()[1].decode()
    assert make.returncode == 0 and told.startswith("sha256:")
    assert (done.returncode, done.stdout) == (0, b"Loaded image: app:1\n")
    assert here("save", "app:1").raw == here("save", "--store", there, "app:1").raw


def test_the_same_bytes_every_time(here: Cas, store_path: Path) -> None:
    made = []
    for seed in ("1", "2"):  # of Python's hashes: the order of a set is another
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = ["bundle", "create", "-", "app:1", "--have", "app:0"]
        done = subprocess.run(
            [sys.executable, "-m", "casstore", "--store", str(store_path), *command],
            capture_output=True,
            env=environment,
            timeout=60,
            check=True,
        )
        made.append(done.stdout)
    assert made[0] == made[1]


def test_levels(here: Cas, there: Path, tmp_path: Path) -> None:
    sizes = []
    for level in ("1", "19"):
        here("bundle", "create", "--level", level, tmp_path / level, "app:1")
        here("bundle", "load", "--store", tmp_path / f"store {level}", tmp_path / level)
        assert here("save", "--store", tmp_path / f"store {level}", "app:1").raw == here("save", "app:1").raw
        sizes.append((tmp_path / level).stat().st_size)
    assert sizes[1] < sizes[0]
    here("bundle", "create", tmp_path / "b", "app:1")
    assert (tmp_path / "b").read_bytes() == (tmp_path / "19").read_bytes()


def test_no_tags(here: Cas, tmp_path: Path) -> None:
    here("bundle", "create", tmp_path / "b", "app:1")
    told = here("bundle", "load", "--store", tmp_path / "new", "--no-tags", tmp_path / "b").out
    assert told == f"Loaded image ID: {images(2)[1].id}\n"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["create", "b", "none:1"], "No such image: none:1"),
        (["create", "b", "app:1", "--have", "none:1"], "No such image: none:1"),
        (["create", "b", "app:1", "--have-file", "absent"], "absent: no such file or directory"),
        (["create", "b", "app:1", "--since", "noise"], "noise: not a bundle"),
        (["create", "b", "app:1", "--have-file", "noise"], "noise: line 1 is no digest"),
        (["create", "no/folder/b", "app:1"], 'directory "no/folder" does not exist'),
        (["create", "--level", "20", "b", "app:1"], "20 is not in the range 1<=x<=19"),
        (["load", "noise"], "noise: not a bundle"),
        (["load", "absent"], "absent: no such file or directory"),
        (["load", "--expect", "x", "noise"], "invalid digest"),
        (["inspect", "noise"], "noise: not a bundle"),
    ],
)
def test_what_is_refused(
    here: Cas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("noise").write_bytes(sample.noise("noise", 300))
    assert said in here("bundle", *argv, ok=False).err
    assert not Path("b").exists()
