"""Killed with SIGKILL at random moments, again and again: the next run goes on, and little goes over the wire twice.

CASSTORE_KILLS: at how many moments (3)."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import registries
import sample
from link import linked

from casstore import api
from casstore.image.remote import Remote
from casstore.transport.blob_lanes import PART
from casstore.transport.http import Network

KILLS = int(os.environ.get("CASSTORE_KILLS", "3"))
LAYERS = [sample.files({"noise": sample.noise(("killed", n), size << 20)}) for n, size in enumerate((40, 12, 9, 6, 1))]
ONE = sample.image("killed", layers=LAYERS)
WHOLE = sum(map(len, map(sample.gz, LAYERS)))
RATE = 40e6
CONNECTIONS = Network().parallel


@pytest.fixture(scope="module")
def host(scratch: Path) -> Iterator[str]:
    """A registry that has the image."""
    with registries.docker_registry(scratch / "killed") as made:
        archive = scratch / "killed.tar"
        named = sample.Image(ONE.config, ONE.layers, (f"{made}/a/b:1",))
        archive.write_bytes(sample.docker_archive(named, pack=sample.gz))
        with api.open(scratch / "first") as store, Remote() as remote:
            store.load(archive)
            store.push(f"{made}/a/b:1", remote=remote)
        yield made


def killed_until_done(store: Path, *argv: str, kills: int = KILLS) -> int:
    """The command, killed at so many moments, then left alone; how often it was really killed."""
    chance = random.Random(f"{argv[0]} {kills}")
    command = [sys.executable, "-m", "casstore", "--store", str(store), *argv]
    killed = 0
    for _ in range(kills):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            time.sleep(chance.uniform(0.2, 2.0))
            process.kill()
            process.communicate()
            killed += process.returncode < 0
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return killed


def sound(store: Path) -> None:
    with api.open(store, create=False) as opened:
        assert opened.check(read_data=True).findings == []
        assert not list((store / "transfers").glob("*"))


@pytest.mark.parametrize("pack", ["plain", "later"])
def test_pull(host: str, tmp_path: Path, pack: str) -> None:
    store = tmp_path / "store"
    more = ["--pack", pack] if pack != "plain" else []
    with linked(f"127.0.0.1:{host.rpartition(':')[2]}", "--rate", str(RATE), "--resets", "0") as (near, counts):
        killed = killed_until_done(store, "pull", *more, "-q", f"{near}/a/b:1")
    again = counts.down - WHOLE
    print(f"{killed} kills, {again / max(killed, 1) / 1e6:.2f} MB each came again")
    # What the kernel and the link had on its way comes on top of a part for each connection.
    assert again <= killed * CONNECTIONS * (PART + (2 << 20)) + (1 << 20)
    sound(store)


def test_push(host: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with linked(f"127.0.0.1:{host.rpartition(':')[2]}", "--rate", str(RATE), "--resets", "0") as (near, counts):
        with api.open(store) as opened, Remote() as remote:
            opened.pull(f"{host}/a/b:1", remote=remote)
            opened.tag(f"{host}/a/b:1", f"{near}/pushed:1")
        killed = killed_until_done(store, "push", "-q", f"{near}/pushed:1")
    again = counts.up - WHOLE
    print(f"{killed} kills, {again / max(killed, 1) / 1e6:.2f} MB each went again")
    for data in map(sample.gz, LAYERS):
        assert registries.raw(f"http://{host}/v2/pushed/blobs/{sample.digest(data)}") == data
    sound(store)


def test_mirror(host: str, tmp_path: Path, scratch: Path) -> None:
    store = tmp_path / "store"
    with (
        registries.docker_registry(tmp_path / "target") as target,
        linked(f"127.0.0.1:{host.rpartition(':')[2]}", "--rate", str(RATE), "--resets", "0") as (near, counts),
    ):
        killed = killed_until_done(store, "mirror", "-q", f"{near}/a/b:1", "--to", target)
        for data in map(sample.gz, LAYERS):
            assert registries.raw(f"http://{target}/v2/a/b/blobs/{sample.digest(data)}") == data
    again = counts.down - WHOLE
    print(f"{killed} kills, {again / max(killed, 1) / 1e6:.2f} MB each came again")
    assert again <= killed * CONNECTIONS * (PART + (2 << 20)) + (1 << 20)
    sound(store)
