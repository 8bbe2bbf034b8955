"""A file that is cut, overwritten or replaced while somebody reads it: right bytes or a clean error, in ranges too."""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sample
from harness import MEMORY, SEED

from casstore import api
from casstore.digest import Digest
from casstore.errors import CasstoreError
from casstore.store import query

LAYERS = [sample.files({f"{seed}{n}": sample.noise((seed, n), 700_000) for n in range(9)}) for seed in "ab"]
KINDS = ("data", "metadata", "index", "blob")

Spoil = Callable[[Path, Path], None]


def cut(path: Path, _: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path, _: Path) -> None:
    os.truncate(path, 0)


def zeroes(path: Path, _: Path) -> None:
    """Cut and grown again: the bytes behind are holes."""
    size = path.stat().st_size
    os.truncate(path, size // 3)
    os.truncate(path, size)


def noise(path: Path, _: Path) -> None:
    with path.open("r+b") as file:
        file.write(random.Random(SEED).randbytes(path.stat().st_size))


def replaced_by_another(path: Path, other: Path) -> None:
    shutil.copy(other, path.with_name("new"))
    path.with_name("new").rename(path)


def replaced_by_a_part(path: Path, _: Path) -> None:
    path.with_name("new").write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    path.with_name("new").rename(path)


def replaced_by_noise(path: Path, _: Path) -> None:
    path.with_name("new").write_bytes(random.Random(SEED).randbytes(path.stat().st_size))
    path.with_name("new").rename(path)


def gone(path: Path, _: Path) -> None:
    path.unlink()


WAYS: list[Spoil] = [cut, empty, zeroes, noise, replaced_by_another, replaced_by_a_part, replaced_by_noise, gone]


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two images, one of them loose, each with two large layers, and their archives as they are saved."""
    root = (MEMORY if MEMORY.is_dir() else tmp_path_factory.mktemp("under")) / f"casstore-under-{os.getpid()}"
    root.mkdir()
    for name, pack in (("packed", "now"), ("loose", "never")):
        layers = [sample.files({name: sample.noise(name, 40_000)}), *LAYERS]
        layers = [layer + bytes(10240) * (1 + (pack == "never")) for layer in layers]
        image = sample.image(name, [f"{name}:1"], layers, config={"Labels": {"m": sample.noise(name, 30_000).hex()}})
        (root / f"{name}.tar").write_bytes(sample.docker_archive(image))
        with api.open(root / "store") as store:
            store.load(root / f"{name}.tar", pack=pack)
            store.save([f"{name}:1"], root / f"{name}.saved")
    yield root
    shutil.rmtree(root)


@pytest.fixture
def copy(origin: Path) -> Iterator[Path]:
    shutil.copytree(origin / "store", origin / "copy")
    yield origin / "copy"
    shutil.rmtree(origin / "copy")


def files(root: Path, kind: str) -> list[Path]:
    """The largest first."""
    with api.open(root) as store, store.volume.catalog.read() as tx:
        found = [root / "objects" / row.key for row in query.objects(tx, kind) if row.state == "live"]
    return sorted(found, key=lambda path: -path.stat().st_size)


def contents(root: Path) -> dict[Digest, bytes]:
    with api.open(root) as store:
        return {row.digest: b"".join(store.blobs.cat(row.digest)) for row in store.blobs.ls()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_half_way_through_a_blob(copy: Path, way: Spoil, kind: str) -> None:
    chance = random.Random(f"{SEED} {way.__name__} {kind}")
    right = contents(copy)
    path, *others = files(copy, kind)
    with api.open(copy) as store:
        begun = {digest: store.blobs.cat(digest) for digest in right}
        got = {digest: bytes(next(stream, b"")) for digest, stream in begun.items()}
        way(path, others[0] if others else files(copy, "data")[0])
        for digest, stream in begun.items():
            parts = [got[digest]]
            try:
                parts += [bytes(piece) for piece in stream]
            except CasstoreError as error:
                assert "\n" not in str(error) and right[digest].startswith(b"".join(parts))
            else:
                assert b"".join(parts) == right[digest]
        for store_now in (store, None):  # who has read before, and who comes now
            with store_now or api.open(copy) as reader:
                for digest, data in right.items():
                    for _ in range(4):
                        low = chance.randint(0, len(data))
                        high = chance.randint(low, min(len(data), low + 100_000))
                        try:
                            assert b"".join(reader.blobs.cat(digest, low, high)) == data[low:high]
                        except CasstoreError as error:
                            assert "\n" not in str(error)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_half_way_through_a_save(copy: Path, way: Spoil, kind: str) -> None:
    name = "loose" if kind == "blob" else "packed"
    right = (copy.parent / f"{name}.saved").read_bytes()
    path, *others = files(copy, kind)
    out, into = os.pipe()
    failed: list[BaseException] = []

    def save() -> None:
        try:
            with api.open(copy) as store:
                store.save([f"{name}:1"], into)
        except BaseException as error:
            failed.append(error)
        finally:
            os.close(into)

    thread = threading.Thread(target=save)
    thread.start()
    with open(out, "rb") as pipe:
        got = pipe.read(len(right) // 8)
        way(path, others[0] if others else files(copy, "data")[0])
        got += pipe.read()
    thread.join()
    same = next((n for n, (a, b) in enumerate(zip(got, right, strict=False)) if a != b), len(got))
    assert right.startswith(got), (same, len(got), len(right), failed)
    if failed:
        assert isinstance(failed[0], CasstoreError) and "\n" not in str(failed[0])
    else:
        assert got == right
