"""Damage of every kind of object: a reader says Damaged or gives the right bytes, check finds it, the next good copy
heals it, and what is derived is made again."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sample

from casstore import api
from casstore.digest import Digest
from casstore.errors import CasstoreError, Damaged, NotFound
from casstore.store import query

ONE = sample.rich_image(1, ["one:1"])
TWO = sample.image("two", ["two:1"], [sample.rich_layer("base"), sample.files({"n": sample.noise(2, 1_500_000)})])
LARGE = sample.image("large", ["large:1"], config={"Labels": {"much": sample.noise("l", 50_000).hex()}})
PACKED = sample.image("packed", ["packed:1"], [sample.files({"z": sample.noise("p", 1_300_000)})])
IMAGES = (ONE, TWO, LARGE, PACKED)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with images packed and loose, and the archives that they came from."""
    root = tmp_path_factory.mktemp("origin")
    (root / "plain.tar").write_bytes(sample.docker_archive(*IMAGES[:3]))
    (root / "packed.tar").write_bytes(sample.oci_archive(PACKED))
    with api.open(root / "store") as store:
        load(store, root)
    return root


def load(store: api.Store, origin: Path) -> None:
    store.load(origin / "plain.tar")
    store.load(origin / "packed.tar")


@pytest.fixture
def copy(origin: Path, tmp_path: Path) -> Path:
    """That store, to be spoilt."""
    shutil.copytree(origin / "store", tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture(scope="module")
def blobs(origin: Path) -> dict[Digest, bytes]:
    with api.open(origin / "store") as store:
        return {row.digest: b"".join(store.blobs.cat(row.digest)) for row in store.blobs.ls()}


def objects(root: Path, kind: str) -> list[Path]:
    with api.open(root) as store, store.volume.catalog.read() as tx:
        return [root / "objects" / row.key for row in query.objects(tx, kind) if row.state == "live"]


def flip(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 0x40
    path.write_bytes(raw)


def read(store: api.Store, digest: Digest, start: int = 0, end: int | None = None) -> bytes | None:
    """A blob's bytes; None where that ends in an error that names what is wrong."""
    try:
        return b"".join(store.blobs.cat(digest, start, end))
    except (Damaged, NotFound) as error:
        assert error.what and ("/" in error.what or "sha256:" in error.what), error
        return None


KINDS = ["data", "metadata", "index", "blob"]


def cases() -> Iterator[tuple[str, float]]:
    for kind in KINDS:
        for share in (0, 0.001, 0.1, 0.33, 0.5, 0.7, 0.9, 0.99, 0.9999):
            yield kind, share


@pytest.mark.parametrize(("kind", "share"), list(cases()))
def test_one_byte_wrong(copy: Path, origin: Path, blobs: dict[Digest, bytes], kind: str, share: float) -> None:
    victim = max(objects(copy, kind), key=lambda path: path.stat().st_size)
    flip(victim, int(share * (victim.stat().st_size - 1)))
    lost = 0
    with api.open(copy) as store:
        for digest, data in blobs.items():
            for start, end in ((len(data) // 3, len(data) // 2), (0, min(10, len(data))), (0, None)):
                found = read(store, digest, start, end)
                assert found is None or found == data[start:end]
                lost += found is None
    with api.open(copy) as store:
        report = store.check(read_data=True)
        assert [row for row in report.findings if row.severity == "error"]
        assert not report.ok
        assert lost or kind != "blob"
    heal(copy, origin, blobs)


def heal(copy: Path, origin: Path, blobs: dict[Digest, bytes]) -> None:
    with api.open(copy) as store:
        store.check(read_data=True, repair=True)
    with api.open(copy) as store:
        load(store, origin)
        for digest, data in blobs.items():
            assert b"".join(store.blobs.cat(digest)) == data
        store.check(read_data=True, repair=True)
        store.gc(grace=0)
    with api.open(copy) as store:
        report = store.check(read_data=True)
        assert report.findings == []
        for digest, data in blobs.items():
            assert b"".join(store.blobs.cat(digest)) == data


def gone(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


@pytest.mark.parametrize("spoil", [gone, cut, emptied, longer])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_not_what_it_was(
    copy: Path, origin: Path, blobs: dict[Digest, bytes], kind: str, spoil: Callable[[Path], None]
) -> None:
    victim = max(objects(copy, kind), key=lambda path: path.stat().st_size)
    spoil(victim)
    with api.open(copy) as store:
        for digest, data in blobs.items():
            assert read(store, digest) in (data, None)
    with api.open(copy) as store:
        key = victim.relative_to(copy / "objects").as_posix()
        report = store.check()
        assert key in {row.what for row in report.findings} and not report.ok
    heal(copy, origin, blobs)


def test_a_reader_that_finds_damage_lets_the_next_load_heal_it(
    copy: Path, origin: Path, blobs: dict[Digest, bytes]
) -> None:
    for victim in objects(copy, "data"):
        flip(victim, victim.stat().st_size // 2)
    with api.open(copy) as store:
        hurt = [digest for digest in blobs if read(store, digest) is None]
        assert hurt
    with api.open(copy) as store:
        load(store, origin)
        for digest, data in blobs.items():
            assert b"".join(store.blobs.cat(digest)) == data


def test_what_can_be_read_of_a_damaged_pack_moves_out_of_it(copy: Path, blobs: dict[Digest, bytes]) -> None:
    (victim,) = objects(copy, "data")
    key = victim.relative_to(copy / "objects").as_posix()
    flip(victim, victim.stat().st_size // 2)
    with api.open(copy) as store:
        whole = {digest for digest in blobs if read(store, digest) is not None}
        assert len(whole) < len(blobs)
    with api.open(copy) as store:
        found = store.check(read_data=True, repair=True)
        errors = {row.what for row in found.findings if row.severity == "error"}
        assert errors == {key, *(str(digest) for digest in blobs.keys() - whole)}
        with store.volume.catalog.read() as tx:
            users = {digest for digest, _ in query.users(tx, key)}
        assert users == blobs.keys() - whole
        for digest in whole:
            assert b"".join(store.blobs.cat(digest)) == blobs[digest]
        list(store.remove(["one:1", "two:1", "large:1", "packed:1"], force=True))
        store.gc(grace=0)
    assert not victim.exists()


def test_repair_alone_is_enough_where_nothing_is_lost(copy: Path, blobs: dict[Digest, bytes]) -> None:
    """The table of a pack without its neighbours, a segment, the epoch: all that is derived."""
    for victim in objects(copy, "index"):
        victim.unlink()
    (copy / "epoch").write_text("another\n")
    with api.open(copy) as store:
        with pytest.raises(CasstoreError):
            store.gc(grace=0)
        assert not store.check().ok
        assert store.check(repair=True).ok
        assert store.check(read_data=True).findings == []
        store.gc(grace=0)
        for digest, data in blobs.items():
            assert b"".join(store.blobs.cat(digest)) == data


def test_gc_goes_on_past_a_rotten_pack_and_tells(copy: Path, origin: Path, blobs: dict[Digest, bytes]) -> None:
    (victim,) = objects(copy, "data")
    flip(victim, victim.stat().st_size // 2)
    with api.open(copy) as store:
        list(store.remove(["packed:1"]))
        with pytest.raises(Damaged, match="packs/"):
            store.gc(grace=0)
        assert objects(copy, "blob") == []
        store.gc(grace=0)
    heal(copy, origin, blobs)


def test_a_loose_blob_that_is_rotten_is_not_packed(copy: Path, tmp_path: Path) -> None:
    data = sample.rich_layer("loose")
    (tmp_path / "in").write_bytes(data)
    with api.open(copy) as store:
        digest = store.blobs.put(tmp_path / "in", pack="later")
        (victim,) = (path for path in objects(copy, "blob") if digest.hex in path.name)
        flip(victim, 3000)
        store.gc(grace=0)
        assert {row.state for row in store.blobs.ls() if row.digest == digest} == {"loose"}
        assert read(store, digest) is None
        assert store.blobs.put(tmp_path / "in") == digest
        assert b"".join(store.blobs.cat(digest)) == data
        store.gc(grace=0)
        assert store.check(read_data=True).ok
    assert not victim.exists()


def test_many_flips_never_give_wrong_bytes(copy: Path, blobs: dict[Digest, bytes]) -> None:
    chosen = random.Random(3)
    paths = [path for kind in KINDS for path in objects(copy, kind)]
    kept = {path: path.read_bytes() for path in paths}
    names = sorted(blobs)
    for _ in range(60):
        path = chosen.choice(paths)
        flip(path, chosen.randrange(len(kept[path])))
        with api.open(copy) as store:
            for digest in chosen.sample(names, 4):
                size = len(blobs[digest])
                start = chosen.randint(0, size)
                end = chosen.choice([None, chosen.randint(start, size)])
                assert read(store, digest, start, end) in (None, blobs[digest][start:end])
        path.write_bytes(kept[path])
