"""The door to what lies under STORE: keys, the write ritual, errors of the operating system."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from casstore.digest import Digest
from casstore.errors import (
    CasstoreError,
    Damaged,
    LeaseLost,
    NotFound,
    OutOfSpace,
    ReadOnlyStore,
    StoreUnusable,
    UsageError,
)
from casstore.store import disk
from casstore.store import objects as module
from casstore.store.disk import replace_file
from casstore.store.objects import Objects, check_key, index_key, loose_key, pack_id, pack_key

KEY = pack_key(bytes(range(16)))
SHA512 = Digest("sha512", bytes(64))


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    made = Objects.make(tmp_path / "new" / "store")
    made.make_staging(1)
    return made


def put(objects: Objects, key: str, data: bytes) -> None:
    with objects.stage(1, key) as staged:
        staged.write(data)
        objects.publish([staged])


# -- keys


@pytest.mark.parametrize("key", [loose_key(Digest.of(b"x")), loose_key(SHA512), KEY, index_key()])
def test_keys_that_are_made_are_keys(key: str) -> None:
    assert check_key(key) == key


def test_keys_are_never_the_same_twice() -> None:
    assert len({loose_key(Digest.of(b"x")) for _ in range(50)}) == 50
    assert len({index_key() for _ in range(50)}) == 50


def test_pack_keys_carry_the_pack_id() -> None:
    assert pack_id(KEY) == bytes(range(16))
    with pytest.raises(UsageError):
        pack_id(index_key())


HEX = "ab" * 16


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/etc/passwd",
        "packs/../../x",
        f"packs/{HEX}",
        f"packs/cd/{HEX}",
        f"packs/ab/{HEX}\n",
        f"packs/AB/{HEX.upper()}",
        f"index/{HEX}/",
        f"index/{HEX}.tmp",
        f"blobs/sha256/ab/{HEX}.00000000",
        f"blobs/md5/ab/{HEX}.00000000",
    ],
)
def test_what_is_no_key_never_becomes_a_path(objects: Objects, key: str) -> None:
    actions: list[Any] = [objects.open, objects.stat, lambda k: objects.delete([k]), lambda k: objects.stage(1, k)]
    for action in actions:
        with pytest.raises(UsageError):
            action(key)


# -- the write ritual


def test_a_new_store_is_private(objects: Objects) -> None:
    assert objects.root.stat().st_mode & 0o777 == 0o700


def test_making_twice_is_fine(objects: Objects) -> None:
    put(objects, KEY, b"data")
    Objects.make(objects.root)
    assert objects.stat(KEY) == 4


def test_what_is_staged_is_not_there_and_what_is_published_is(objects: Objects) -> None:
    with objects.stage(1, KEY) as staged:
        assert [staged.write(b"one "), staged.write(memoryview(b"two")), staged.write(bytearray())] == [0, 4, 7]
        assert staged.pread(2, 3) == b"e t"
        staged.push()
        assert objects.stat(KEY) is None
        with pytest.raises(NotFound, match=KEY):
            objects.open(KEY)
        objects.publish([staged])
    with objects.open(KEY) as reader:
        assert (reader.size, reader.pread(0, 7), reader.pread(4, 3)) == (7, b"one two", b"two")
        assert reader.pread(7, 0) == b""
    assert dict(objects.list()) == {KEY: 7}
    assert list((objects.root / "tmp" / "1").iterdir()) == []


def test_published_files_are_not_writable(objects: Objects) -> None:
    put(objects, KEY, b"data")
    assert (objects.root / "objects" / KEY).stat().st_mode & 0o222 == 0


def test_a_key_may_come_late(objects: Objects) -> None:
    with objects.stage(1) as staged:
        staged.write(b"data")
        with pytest.raises(UsageError):
            objects.publish([staged])
        staged.key = loose_key(Digest.of(b"data"))
        objects.publish([staged])
        assert objects.stat(staged.key) == 4


def test_an_error_leaves_nothing_staged(objects: Objects) -> None:
    with pytest.raises(KeyError), objects.stage(1, KEY) as staged:
        staged.write(b"data")
        raise KeyError
    assert list((objects.root / "tmp" / "1").iterdir()) == []


def test_files_and_folders_are_synced_in_order(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    rename, fsync = Path.rename, os.fsync

    def renamed(self: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(self, target)

    def synced(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        steps.append(f"fsync {path.relative_to(objects.root)}" if path.is_dir() else "fsync file")
        fsync(handle)

    monkeypatch.setattr(Path, "rename", renamed)
    monkeypatch.setattr(os, "fsync", synced)
    put(objects, KEY, b"data")
    assert steps[:2] == ["fsync file", "rename"]
    assert set(steps[2:]) == {"fsync objects/packs/00", "fsync objects/packs", "fsync objects"}
    steps.clear()
    objects.delete([KEY])
    assert steps == ["fsync objects/packs/00"]


def test_a_file_that_is_not_what_was_written_is_not_published(objects: Objects) -> None:
    with objects.stage(1, KEY) as staged:
        staged.write(b"data")
        os.ftruncate(staged.fileno(), 2)
        with pytest.raises(Damaged):
            objects.publish([staged])
    assert objects.stat(KEY) is None


# -- staging folders


def test_without_its_folder_a_lease_can_write_nothing(objects: Objects) -> None:
    staged = objects.stage(1, KEY)
    staged.write(b"data")
    objects.remove_staging(1)
    objects.remove_staging(1)
    assert not objects.has_staging(1)
    staged.write(b"more")  # into a file that has no name any more
    with pytest.raises(LeaseLost):
        objects.publish([staged])
    with pytest.raises(LeaseLost):
        objects.stage(1, KEY)
    assert dict(objects.list()) == {}
    staged.close()


def test_removing_a_folder_that_a_writer_still_fills(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    objects.stage(1, KEY).close()
    rmdir, turns = Path.rmdir, iter([True, True, False])

    def busy(self: Path) -> None:
        if next(turns):
            (self / "late").touch()
        rmdir(self)

    monkeypatch.setattr(Path, "rmdir", busy)
    objects.remove_staging(1)
    assert not objects.has_staging(1)


def test_staging_folders_are_listed(objects: Objects) -> None:
    objects.make_staging(12)
    (objects.root / "tmp" / "stranger").mkdir()
    assert objects.stagings() == [1, 12]


# -- published objects


def test_deleting_what_is_missing_is_fine(objects: Objects) -> None:
    put(objects, KEY, b"data")
    other = loose_key(Digest.of(b"never published"))
    objects.delete([KEY, KEY, other])
    assert dict(objects.list()) == {}


def test_listing_knows_keys_only(objects: Objects) -> None:
    loose = loose_key(SHA512)
    put(objects, KEY, b"12")
    put(objects, loose, b"123")
    (objects.root / "objects" / "packs" / "stranger").touch()
    assert dict(objects.list()) == {KEY: 2, loose: 3}
    assert dict(objects.list("packs/")) == {KEY: 2}
    assert dict(objects.list("blobs/sha512/00")) == {loose: 3}
    assert dict(objects.list("index")) == {}


def test_reads_past_the_end_are_damage(objects: Objects) -> None:
    put(objects, KEY, b"12345678")
    with objects.open(KEY) as reader:
        for offset, length in ((8, 1), (0, 9), (9, 0), (-1, 2), (0, -1), (1 << 62, 1 << 62)):
            with pytest.raises(Damaged, match=KEY):
                reader.pread(offset, length)


def test_a_file_cut_under_its_reader_is_damage(objects: Objects) -> None:
    put(objects, KEY, b"12345678")
    with objects.open(KEY) as reader:
        os.truncate(objects.root / "objects" / KEY, 4)
        assert reader.pread(0, 4) == b"1234"
        with pytest.raises(Damaged, match="at offset 4"):
            reader.pread(0, 8)


def test_large_reads_and_writes_come_in_pieces(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE", 3)
    monkeypatch.setattr(disk, "PIECE", 3)
    put(objects, KEY, b"0123456789")
    with objects.open(KEY) as reader:
        assert reader.pread(1, 8) == b"12345678"


# -- small files


def test_small_files_are_replaced_whole(objects: Objects) -> None:
    assert objects.read_file("epoch") is None
    objects.write_file("epoch", b"one")
    objects.write_file("epoch", b"two")
    assert objects.read_file("epoch") == b"two"
    with pytest.raises(Damaged):
        objects.read_file("epoch", limit=2)
    assert {path.name for path in objects.root.iterdir()} == {"objects", "tmp", "epoch"}


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "UP", "x" * 40])
def test_small_files_have_plain_names(objects: Objects, name: str) -> None:
    with pytest.raises(UsageError):
        objects.read_file(name)
    with pytest.raises(UsageError):
        objects.write_file(name, b"")


def test_what_a_killed_writer_left_is_taken_by_the_next(objects: Objects) -> None:
    (objects.root / ".epoch.new").write_bytes(b"half of a longer")
    objects.write_file("epoch", b"whole")
    assert objects.read_file("epoch") == b"whole"
    assert {path.name for path in objects.root.iterdir()} == {"objects", "tmp", "epoch"}


def test_many_write_the_same_small_file(objects: Objects) -> None:
    contents = [bytes([65 + n]) * 3000 * (n + 1) for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda data: objects.write_file("epoch", data), contents * 8))
    assert objects.read_file("epoch") in contents
    assert {path.name for path in objects.root.iterdir()} == {"objects", "tmp", "epoch"}


def test_a_failed_replacement_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def fail(handle: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutOfSpace):
        replace_file(target, b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


# -- the operating system says no


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, OutOfSpace),
        (errno.EDQUOT, OutOfSpace),
        (errno.EROFS, ReadOnlyStore),
        (errno.EACCES, ReadOnlyStore),
        (errno.EIO, StoreUnusable),
    ],
)
@pytest.mark.parametrize("call", ["write", "fsync"])
def test_write_errors(
    objects: Objects, monkeypatch: pytest.MonkeyPatch, call: str, number: int, expected: type[CasstoreError]
) -> None:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    with objects.stage(1, KEY) as staged:
        monkeypatch.setattr(os, call, fail)
        with pytest.raises(expected) as caught:
            staged.write(b"data")
            objects.publish([staged])
        monkeypatch.undo()
    assert caught.value.what == KEY
    assert objects.stat(KEY) is None


def test_a_read_error_is_damage(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    put(objects, KEY, b"data")

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with objects.open(KEY) as reader:
        monkeypatch.setattr(os, "pread", fail)
        with pytest.raises(Damaged, match="Input/output error"):
            reader.pread(0, 4)


def test_a_read_only_store_reads_and_refuses(objects: Objects) -> None:
    put(objects, KEY, b"data")
    objects.write_file("epoch", b"e")
    locked = Objects(objects.root, read_only=True)
    assert locked.stat(KEY) == 4
    assert locked.read_file("epoch") == b"e"
    actions: list[Any] = [
        lambda: locked.stage(1, KEY),
        lambda: locked.publish([]),
        lambda: locked.delete([KEY]),
        lambda: locked.make_staging(2),
        lambda: locked.remove_staging(1),
        lambda: locked.write_file("epoch", b"x"),
    ]
    for action in actions:
        with pytest.raises(ReadOnlyStore, match="store is read-only"):
            action()


def test_free_space_is_told(objects: Objects) -> None:
    assert objects.free() > 0
