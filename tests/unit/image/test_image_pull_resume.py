"""A pull that ended early: what came of it need not come again."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import registry
import sample
from registry import Toy, serving
from running import Spawn

from casstore import api
from casstore.digest import Digest
from casstore.errors import OutOfSpace, RemoteFailure
from casstore.image.remote import Remote
from casstore.store.transfers import Transfers
from casstore.transport.http import Network

NEVER = Network(backoff=0.01, read_timeout=2.0, connect_timeout=5.0, retries=0)
LAYER = sample.files({"noise": sample.noise("resume", 6 << 20)})
PACKED = sample.gz(LAYER)
DIGEST = sample.digest(PACKED)


@pytest.fixture
def toy() -> Iterator[Toy]:
    with serving() as made:
        made.add("a", "1", sample.image("x", layers=[LAYER]))
        yield made


@pytest.fixture
def remote() -> Iterator[Remote]:
    with Remote(NEVER) as made:
        yield made


def part_of(store_path: Path) -> Path:
    return store_path / "transfers" / DIGEST.replace(":", "-")


def ranges(toy: Toy) -> list[str]:
    return [one.headers.get("range", "") for one in toy.log if one.path.endswith(DIGEST)]


def whole(store: api.Store) -> None:
    assert b"".join(store.blobs.cat(Digest.parse(DIGEST))) == PACKED
    assert store.check(read_data=True).findings == []


def broken_off(toy: Toy, opened: api.Store, remote: Remote, at: int = 4_000_000) -> None:
    """A pull that fails when so many bytes of the layer have come."""
    toy.fail("GET", DIGEST, registry.cut(at))  # a reset may take with it what waits to be read
    with pytest.raises(RemoteFailure):
        opened.pull(f"{toy.host}/a:1", remote=remote)
    toy.log.clear()


def test_the_next_one_asks_for_the_rest(toy: Toy, opened: api.Store, remote: Remote, store_path: Path) -> None:
    broken_off(toy, opened, remote)
    came = part_of(store_path).stat().st_size
    assert 2_000_000 < came <= 4_000_000
    report = opened.pull(f"{toy.host}/a:1", remote=remote)
    assert ranges(toy) == [f"bytes={came}-"]
    assert report.fetched < len(PACKED) - came + 10_000
    whole(opened)
    assert [*(store_path / "transfers").iterdir()] == []


def test_after_a_kill_too(toy: Toy, spawn: Spawn, opened: api.Store, remote: Remote, store_path: Path) -> None:
    toy.fail("GET", DIGEST, registry.stall(4_000_000))
    process = spawn("pull", f"{toy.host}/a:1")
    while not part_of(store_path).exists() or part_of(store_path).stat().st_size < 3 << 20:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.communicate()
    toy.log.clear()
    opened.pull(f"{toy.host}/a:1", remote=remote)
    assert int(ranges(toy)[0].removeprefix("bytes=").removesuffix("-")) >= 3 << 20
    whole(opened)


def test_what_has_rotted_meanwhile_comes_again(toy: Toy, opened: api.Store, remote: Remote, store_path: Path) -> None:
    broken_off(toy, opened, remote)
    with part_of(store_path).open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"rotten")
    opened.pull(f"{toy.host}/a:1", remote=remote)
    assert ranges(toy)[1:] == [""]
    whole(opened)


def test_what_began_as_another_kind_of_thing(toy: Toy, opened: api.Store, remote: Remote, store_path: Path) -> None:
    broken_off(toy, opened, remote)
    part_of(store_path).write_bytes(bytes(2_000_000))
    opened.pull(f"{toy.host}/a:1", remote=remote)
    assert ranges(toy) == ["bytes=2000000-", ""]
    whole(opened)


def test_what_is_longer_than_the_blob_is_no_part_of_it(
    toy: Toy, opened: api.Store, remote: Remote, store_path: Path
) -> None:
    broken_off(toy, opened, remote)
    part_of(store_path).write_bytes(bytes(len(PACKED) + 1))
    opened.pull(f"{toy.host}/a:1", remote=remote)
    assert ranges(toy) == [""]
    whole(opened)


def test_what_was_whole_is_not_asked_for(toy: Toy, opened: api.Store, remote: Remote, store_path: Path) -> None:
    broken_off(toy, opened, remote)
    part_of(store_path).write_bytes(PACKED)
    part_of(store_path).chmod(0o444)  # its command was killed just before its commit
    opened.pull(f"{toy.host}/a:1", remote=remote)
    assert ranges(toy) == []
    whole(opened)


def test_of_two_at_once_one_has_it(toy: Toy, opened: api.Store, remote: Remote, store_path: Path) -> None:
    broken_off(toy, opened, remote)
    before = part_of(store_path).read_bytes()
    with part_of(store_path).open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        opened.pull(f"{toy.host}/a:1", remote=remote)
    assert ranges(toy) == [""]
    assert part_of(store_path).read_bytes() == before
    whole(opened)


def test_gc_takes_what_is_old_and_nobodys(toy: Toy, opened: api.Store, remote: Remote, store_path: Path) -> None:
    broken_off(toy, opened, remote)
    part = part_of(store_path)
    opened.gc()
    assert part.exists()
    os.utime(part, (0, 0))
    with part.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        opened.gc()
        assert part.exists()
    opened.gc()
    assert not part.exists()


def test_a_part_that_is_a_link_is_not_followed(opened: api.Store, store_path: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_bytes(b"x" * 100_000)
    (store_path / "transfers").mkdir()
    part_of(store_path).symlink_to(target)
    assert Transfers(opened.volume.objects).part(Digest.parse(DIGEST), len(PACKED)) is None
    assert target.read_bytes() == b"x" * 100_000


def test_notes(opened: api.Store) -> None:
    transfers = opened.volume.transfers
    with transfers.note("localhost/a@x") or pytest.fail("no note") as note:
        assert note.read() == b""
        note.write(b"one and more")
        note.write(b"two")
        assert transfers.note("localhost/a@x") is None
    with transfers.note("localhost/a@x") or pytest.fail("no note") as note:
        assert note.read() == b"two"
        note.drop()
    with transfers.note("localhost/a@x") or pytest.fail("no note") as note:
        assert note.read() == b""


def test_more_than_the_disk_holds_is_not_begun(toy: Toy, opened: api.Store, remote: Remote) -> None:
    document = json.loads(toy.manifests["a"]["1"][1])
    document["layers"][0]["size"] = 1 << 60
    toy.put("a", "huge", document)
    toy.log.clear()
    with pytest.raises(OutOfSpace, match=f"its layers take {1 << 60} bytes"):
        opened.pull(f"{toy.host}/a:huge", remote=remote)
    assert ranges(toy) == []
