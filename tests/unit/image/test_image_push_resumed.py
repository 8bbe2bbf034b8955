"""A push that was killed in the middle of a large blob: the next one goes on with that upload, if the registry does."""

from __future__ import annotations

import fcntl
import gzip
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import registry
import sample
from registry import Toy, serving

from casstore import api
from casstore.errors import RemoteFailure
from casstore.image.remote import Remote
from casstore.transport.http import Network

QUICK = Network(backoff=0.01, read_timeout=5.0, connect_timeout=5.0, retries=3)
AT_ONCE = Network(backoff=0.01, read_timeout=5.0, connect_timeout=5.0, retries=0)
LAYER = sample.gz(sample.files({"big": sample.noise("resumed", 9 << 20)}))
KEPT = 3_000_000


@pytest.fixture
def toy() -> Iterator[Toy]:
    with serving() as made:
        yield made


@pytest.fixture
def remote() -> Iterator[Remote]:
    with Remote(QUICK) as made:
        yield made


@pytest.fixture
def name(toy: Toy, opened: api.Store, tmp_path: Path) -> str:
    """An image with one large layer, in the store."""

    one = f"{toy.host}/a:1"
    image = sample.image("resumed", (one,), [gzip.decompress(LAYER)])
    archive = tmp_path / "a.tar"
    archive.write_bytes(sample.docker_archive(image, pack=lambda _: LAYER))
    opened.load(archive)
    return one


def broken(store: api.Store, toy: Toy, name: str) -> Path:
    """A push breaks off for good, after so many bytes; the note that it leaves."""
    toy.fail("PATCH", "uploads", registry.part_of_upload(KEPT))
    with Remote(AT_ONCE) as remote, pytest.raises(RemoteFailure, match="the upload broke off"):
        store.push(name, remote=remote)
    toy.log.clear()
    (note,) = notes(store)
    return note


def notes(store: api.Store) -> list[Path]:
    return sorted((store.root / "transfers").glob("up-*"))


def bodies(toy: Toy) -> list[int]:
    return [len(one.body) for one in toy.log if one.method == "PATCH"]


def begun(toy: Toy) -> int:
    return toy.count("POST", "/uploads/")


def arrived(toy: Toy, store: api.Store) -> None:
    assert toy.blobs["a"][sample.digest(LAYER)] == LAYER
    assert "1" in toy.manifests["a"]
    assert notes(store) == []


def test_the_next_one_sends_the_rest(toy: Toy, opened: api.Store, remote: Remote, name: str) -> None:
    note = broken(opened, toy, name)
    assert note.stat().st_mode & 0o777 == 0o600
    with api.open(opened.root) as again:
        sent = again.push(name, remote=remote).sent
    assert bodies(toy) == [len(LAYER) - KEPT]
    assert sent <= len(LAYER) - KEPT + 4096
    assert begun(toy) <= 1  # for the config
    arrived(toy, opened)


def test_killed_in_the_middle(toy: Toy, opened: api.Store, remote: Remote, name: str) -> None:
    came = threading.Event()

    def take_some(handler: registry.Handler) -> bool:
        session = handler.path.partition("?")[0].rpartition("/")[2]
        toy.uploads[session] += handler.rfile.read(KEPT)
        came.set()
        while handler.rfile.read1(1 << 16):
            pass  # until it dies
        handler.close_connection = True
        return True

    toy.fail("PATCH", "uploads", take_some)
    with subprocess.Popen([sys.executable, "-m", "casstore", "--store", opened.root, "push", "-q", name]) as push:
        assert came.wait(60)
        push.kill()
    toy.log.clear()
    opened.push(name, remote=remote)
    assert bodies(toy) == [len(LAYER) - KEPT]
    arrived(toy, opened)


def test_a_registry_that_forgot_it(toy: Toy, opened: api.Store, remote: Remote, name: str) -> None:
    broken(opened, toy, name)
    toy.uploads.clear()
    opened.push(name, remote=remote)
    assert bodies(toy) == [len(LAYER)]
    arrived(toy, opened)


@pytest.mark.parametrize("code", [400, 403, 416, 500, 503])
def test_a_registry_that_wants_to_hear_nothing_of_it(
    toy: Toy, opened: api.Store, remote: Remote, name: str, code: int
) -> None:
    broken(opened, toy, name)
    toy.fail("GET", "/uploads/", registry.status(code), times=4)
    opened.push(name, remote=remote)
    assert bodies(toy) == [len(LAYER)]
    arrived(toy, opened)


def test_other_bytes_than_ours(toy: Toy, opened: api.Store, remote: Remote, name: str) -> None:
    broken(opened, toy, name)
    (session,) = (key for key, kept in toy.uploads.items() if len(kept) == KEPT)
    toy.uploads[session][1000] ^= 1
    opened.push(name, remote=remote)
    assert bodies(toy) == [len(LAYER) - KEPT, len(LAYER)]
    arrived(toy, opened)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[1]",
        b"\xff",
        b'{"location": 5}',
        b'{"location": "file:///etc/passwd"}',
        b"[" * 60_000,
        json.dumps({"location": "http://127.0.0.1:1/v2/a/blobs/uploads/x"}).encode(),
    ],
    ids=lambda text: text[:40].decode(errors="replace"),
)
def test_a_note_that_says_nothing_of_use(toy: Toy, opened: api.Store, name: str, text: bytes) -> None:
    broken(opened, toy, name).write_bytes(text)
    with Remote(AT_ONCE) as remote:
        opened.push(name, remote=remote)
    assert bodies(toy) == [len(LAYER)]
    arrived(toy, opened)


def test_another_push_of_the_same_goes_its_own_way(toy: Toy, opened: api.Store, remote: Remote, name: str) -> None:
    note = broken(opened, toy, name)
    with note.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        opened.push(name, remote=remote)
    assert bodies(toy) == [len(LAYER)]
    assert notes(opened) == [note]
    assert note.stat().st_size


def test_small_blobs_leave_no_note(toy: Toy, opened: api.Store, tmp_path: Path) -> None:
    name = f"{toy.host}/small:1"
    image = sample.image("small", (name,), [sample.files({"big": sample.noise("small", 2 << 20)})])
    archive = tmp_path / "a.tar"
    archive.write_bytes(sample.docker_archive(image, pack=sample.gz))
    opened.load(archive)
    toy.fail("PATCH", "uploads", registry.part_of_upload(1 << 20))
    with Remote(AT_ONCE) as remote, pytest.raises(RemoteFailure):
        opened.push(name, remote=remote)
    assert notes(opened) == []
