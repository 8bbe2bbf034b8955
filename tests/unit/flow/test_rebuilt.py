"""Packed gzip blobs read again: their content without a replay, and the cache of what was made again. It is disposable:
whatever becomes of it, readers get the blob's bytes."""

from __future__ import annotations

import contextlib
import errno
import gzip
import itertools
import os
import threading
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sample
from running import Cas, Spawn

from casstore import api
from casstore.digest import Digest
from casstore.errors import Damaged
from casstore.flow import restore
from casstore.format import recipe as recipe_format
from casstore.kernels import deflate
from casstore.store import cache
from casstore.store.objects import Staged, pack_id
from casstore.store.packs import write_metadata_pack

pytestmark = pytest.mark.skipif(deflate.IMPLEMENTATION != "compiled", reason="the compiled kernel is not built")

CONTENT = sample.files(
    {"a": sample.text("a", 3_000_000), "noise": sample.noise("rebuilt", 4_500_000), "b": sample.text("b", 3_000_000)}
)
BLOB = gzip.compress(CONTENT, 6, mtime=0)
DIGEST = Digest.of(BLOB)
OTHERS = [gzip.compress(sample.noise(n, 1_500_000), 6, mtime=0) for n in range(3)]
RANGES = ((0, 1), (0, 300_000), (1_048_570, 1_048_580), (2_000_000, 5_000_001), (len(BLOB) - 9, len(BLOB)))


@pytest.fixture
def store(opened: api.Store) -> Iterator[api.Store]:
    """With BLOB in it, packed; nothing in the cache."""
    put(opened, BLOB)
    yield opened


def put(store: api.Store, blob: bytes) -> Digest:
    path = store.root.parent / "given"
    path.write_bytes(blob)
    digest = store.blobs.put(path, pack="now")
    info = store.blobs.inspect(digest)
    assert (info["State"], info["Encoding"]) == ("packed", "gzip"), info
    return digest


def cat(store: api.Store, digest: Digest = DIGEST, start: int = 0, end: int | None = None) -> bytes:
    return b"".join(store.blobs.cat(digest, start, end))


def entries(store: api.Store) -> dict[str, int]:
    folder = store.root / "cache"
    return {path.name: path.stat().st_size for path in folder.iterdir()} if folder.exists() else {}


def entry(store: api.Store, digest: Digest = DIGEST) -> Path:
    return store.root / "cache" / f"sha256-{digest.hex}"


class Counted:
    """Stands for `replayed`: `starts` tells from where something was made again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.starts: list[int] = []
        plain = restore.replayed

        def counted(recipe: Any, content: Any, what: str, start: int, stop: int) -> Iterator[memoryview]:
            self.starts.append(start)
            return plain(recipe, content, what, start, stop)

        monkeypatch.setattr(restore, "replayed", counted)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    return Counted(monkeypatch).starts


# -- what is kept, and for how long


def test_what_was_read_whole_is_read_from_the_cache(store: api.Store, made: list[int]) -> None:
    for start, end in RANGES:
        assert cat(store, DIGEST, start, end) == BLOB[start:end]
    assert not entries(store), "a range fills nothing"
    made.clear()
    assert cat(store) == BLOB
    assert made == [0]
    assert entries(store) == {entry(store).name: cache.stored_size(len(BLOB))}
    assert cat(store) == BLOB
    for start, end in RANGES:
        assert cat(store, DIGEST, start, end) == BLOB[start:end]
    assert made == [0]


def test_save_keeps_what_it_makes_too(cas: Cas, opened: api.Store, tmp_path: Path, made: list[int]) -> None:
    layer = sample.files({"f": sample.text("layer", 1_500_000), "n": sample.noise("layer", 300_000)})
    (tmp_path / "in").write_bytes(sample.oci_archive(sample.image("saved", ["saved:1"], [layer])))
    cas("load", "--pack", "now", "-i", tmp_path / "in")
    cas("gc")
    assert opened.blobs.inspect(Digest.of(sample.gz(layer)))["State"] == "packed"
    made.clear()
    for _ in range(2):
        out = cas("save", "--format", "oci-archive", "saved:1").raw
        members = sample.members_of(out)
        assert members[f"blobs/sha256/{sample.sha(sample.gz(layer))}"] == sample.gz(layer)
    assert made == [0]
    assert list(entries(opened)) == [entry(opened, Digest.of(sample.gz(layer))).name]


def test_nothing_is_kept_where_it_is_turned_off(store: api.Store, made: list[int]) -> None:
    assert cat(store) == BLOB
    store.config.set("cache.size", "0")
    made.clear()
    assert cat(store) == BLOB
    assert cat(store, DIGEST, 5, 10) == BLOB[5:10]
    assert made == [0, 5], "nor is what is there believed"
    store.gc()
    assert not entries(store)
    assert cat(store) == BLOB
    assert not entries(store)


def test_what_is_larger_than_the_cache_is_not_kept(store: api.Store) -> None:
    store.config.set("cache.size", str(cache.stored_size(len(BLOB)) - 1))
    assert cat(store) == BLOB
    assert not entries(store)
    store.config.set("cache.size", str(cache.stored_size(len(BLOB))))
    assert cat(store) == BLOB
    assert entries(store)


def test_the_least_recently_used_go_first(store: api.Store) -> None:
    digests = [put(store, one) for one in OTHERS]
    each = max(cache.stored_size(len(one)) for one in OTHERS)
    store.config.set("cache.size", str(2 * each))
    for number in (0, 1):
        assert cat(store, digests[number]) == OTHERS[number]
    for number, when in ((0, 2_000), (1, 1_000)):
        os.utime(entry(store, digests[number]), (when, when))
    assert cat(store, digests[2]) == OTHERS[2]
    assert set(entries(store)) == {entry(store, digests[n]).name for n in (0, 2)}
    assert cat(store, digests[0], 7, 9) == OTHERS[0][7:9]
    os.utime(entry(store, digests[2]), (3_000, 3_000))
    assert cat(store, digests[1]) == OTHERS[1]
    assert set(entries(store)) == {entry(store, digests[n]).name for n in (0, 1)}, "a range counts as use"
    assert sum(entries(store).values()) <= 2 * each


def test_what_is_in_the_making_counts_in_full(store: api.Store) -> None:
    """Two makers at once must not go over the bound together."""
    digests = [put(store, one) for one in OTHERS[:2]]
    store.config.set("cache.size", str(cache.stored_size(len(OTHERS[0]))))
    first = store.blobs.cat(digests[0])
    head = bytes(next(first))
    assert cat(store, digests[1]) == OTHERS[1]
    assert list(entries(store)) == [f"{entry(store, digests[0]).name}.{len(OTHERS[0])}"]
    assert head + b"".join(first) == OTHERS[0]
    assert list(entries(store)) == [entry(store, digests[0]).name]


def test_gc_takes_what_belongs_to_nothing(store: api.Store) -> None:
    other = put(store, OTHERS[0])
    assert cat(store) == BLOB and cat(store, other) == OTHERS[0]
    left = entry(store).with_name(f"{entry(store).name}.{len(BLOB)}")
    left.write_bytes(b"half made by one that was killed")
    reading = store.blobs.cat(put(store, OTHERS[1]))
    next(reading)
    growing = next(name for name in entries(store) if name.endswith(f".{len(OTHERS[1])}"))
    store.blobs.rm([other])
    store.gc(grace=0)
    assert set(entries(store)) == {entry(store).name, growing}
    store.config.set("cache.size", "1M")
    reading.close()  # type: ignore[attr-defined]
    store.gc()
    assert not entries(store)


def test_df_tells_the_cache_apart(store: api.Store, cas: Cas) -> None:
    before = store.df(verbose=False)
    cat(store)
    after = store.df(verbose=False)
    assert (before.cache_bytes, after.cache_bytes) == (0, cache.stored_size(len(BLOB)))
    on_disk = sum(path.stat().st_size for path in store.root.rglob("*") if path.is_file())
    assert after.stored_bytes + after.cache_bytes == on_disk
    assert any(line.startswith("Cache:") for line in cas("df").lines)


def test_proofs_have_nothing_to_do_with_it(opened: api.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packing, check and verify ask whether a blob can be made again: not the cache."""

    def asked(*_: object) -> None:
        raise AssertionError("the cache was asked")

    monkeypatch.setattr(cache.BlobCache, "find", asked)
    monkeypatch.setattr(cache.BlobCache, "take", asked)
    given = opened.root.parent / "given"
    given.write_bytes(BLOB)
    opened.blobs.put(given, pack="later")
    opened.gc()
    assert opened.blobs.inspect(DIGEST)["State"] == "packed"
    report = opened.check(read_data=True)
    assert not report.findings


# -- rotten


def flipped(at: int) -> Any:
    def spoil(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)

    return spoil


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def swapped(path: Path) -> None:
    """Two pieces, each right, in the other's place."""
    data = bytearray(path.read_bytes())
    step = cache.SPAN + cache.CHECK
    data[:step], data[step : 2 * step] = data[step : 2 * step], data[:step]
    path.write_bytes(data)


SPOILT = {
    "first byte": flipped(0),
    "a check": flipped(cache.SPAN + 3),
    "in the middle": flipped(3 * cache.SPAN),
    "last byte": flipped(-1),
    "cut": cut,
    "longer": longer,
    "empty": emptied,
    "swapped": swapped,
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT.keys())
def test_what_is_rotten_is_made_again(store: api.Store, spoil: Any) -> None:
    assert cat(store) == BLOB
    spoil(entry(store))
    wrong = entry(store).read_bytes()
    assert cat(store) == BLOB
    assert not entry(store).exists() or entry(store).read_bytes() != wrong
    assert cat(store) == BLOB
    right = entry(store).read_bytes()
    spoil(entry(store))
    for start, end in RANGES:
        assert cat(store, DIGEST, start, end) == BLOB[start:end]
    assert not entry(store).exists() or entry(store).read_bytes() in (wrong, right)
    assert not store.check().findings


def test_a_file_of_another_blob_is_not_believed(store: api.Store) -> None:
    content = bytearray(CONTENT)
    content[5_000_000] ^= 1  # in the noise: as many bytes compressed
    twin = gzip.compress(bytes(content), 6, mtime=0)
    assert len(twin) == len(BLOB)
    assert cat(store, put(store, twin)) == twin
    entry(store, Digest.of(twin)).rename(entry(store))
    assert cat(store, DIGEST, 100, 200) == BLOB[100:200]
    assert cat(store) == BLOB


def test_it_may_vanish_under_a_reader(store: api.Store) -> None:
    assert cat(store) == BLOB
    reading = store.blobs.cat(DIGEST)
    head = bytes(next(reading))
    entry(store).unlink()
    (store.root / "cache").rmdir()
    assert head + b"".join(reading) == BLOB
    reading = store.blobs.cat(DIGEST)
    head = bytes(next(reading))
    for path in (store.root / "cache").iterdir():
        path.unlink()
    assert head + b"".join(reading) == BLOB


# -- what fails


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_full_disk_keeps_nobody_from_reading(store: api.Store, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    count = itertools.count()
    plain = cache.write_all

    def write_all(handle: int, data: Any) -> int:
        if next(count) >= after:
            os.write(handle, bytes(data)[:100])
            raise OSError(errno.ENOSPC, "No space left on device")
        return plain(handle, data)

    monkeypatch.setattr(cache, "write_all", write_all)
    assert cat(store) == BLOB
    assert not entries(store)


def test_room_that_others_are_to_have_is_not_taken(store: api.Store) -> None:
    store.config.set("min-free", "100TiB")
    assert cat(store) == BLOB
    assert not entries(store)


def test_no_folder_no_cache(store: api.Store) -> None:
    (store.root / "cache").write_bytes(b"not a folder")
    assert cat(store) == BLOB
    assert cat(store, DIGEST, 3, 70_000) == BLOB[3:70_000]
    store.gc()


# -- one makes, many read


def test_many_that_want_it_at_once_have_it_made_once(
    store: api.Store, made: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "STALL", 300.0)
    begun = threading.Barrier(6)
    got: list[bytes] = []

    def read() -> None:
        begun.wait()
        got.append(cat(store))

    threads = [threading.Thread(target=read) for _ in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert got == [BLOB] * 6
    assert made == [0]


def test_nobody_hangs_on_a_maker_that_stands_still(
    store: api.Store, made: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "STALL", 0.05)
    slow = store.blobs.cat(DIGEST)
    head = b"".join(bytes(next(slow)) for _ in range(3))
    assert cat(store) == BLOB
    assert len(made) == 2
    assert head + b"".join(slow) == BLOB
    assert list(entries(store)) == [entry(store).name], "the slow one's own is kept"


def test_a_maker_that_is_given_up_leaves_nothing(store: api.Store) -> None:
    reading = store.blobs.cat(DIGEST)
    next(reading)
    assert entries(store)
    reading.close()  # type: ignore[attr-defined]
    assert not entries(store)


@pytest.mark.parametrize("taken", [0, 1, 1_200_000, 3_000_000])
def test_a_maker_that_is_killed(store: api.Store, spawn: Spawn, made: list[int], taken: int) -> None:
    """Whoever follows it goes on alone; the next one takes over what it left."""
    process = spawn("blob", "cat", str(DIGEST))
    assert process.stdout is not None
    seen = process.stdout.read(taken)
    part = entry(store).with_name(f"{entry(store).name}.{len(BLOB)}")
    while taken and not part.exists() and not entry(store).exists():
        pass
    follower = store.blobs.cat(DIGEST)
    head = next(follower, b"")
    process.kill()
    process.wait()
    assert bytes(head) + b"".join(follower) == BLOB
    assert seen == BLOB[:taken]
    process.stdout.close()
    assert cat(store) == BLOB
    assert list(entries(store)) == [entry(store).name]
    made.clear()
    assert cat(store) == BLOB and not made


# -- the content


def spoil_trace(store: api.Store, tmp_path: Path) -> None:
    """Give BLOB a trace of another encoder, in a pack whose checksums are all right."""
    key = store.blobs.inspect(DIGEST)["Object"]
    pack = store.volume.packs.pack(key)
    records = []
    for row in pack.table.records:  # type: ignore[union-attr]
        data = pack.record(row.frame, row.offset, row.length)
        if row.digest == DIGEST:
            recipe = recipe_format.decode(data)
            trace = bytearray(recipe.trace)
            trace[35 + 3] ^= 1  # the level of its engine
            changed = recipe_format.encode(replace(recipe, trace=bytes(trace)))
            assert len(changed) == len(data)
            data = changed
        records.append((row, data))
    staged = Staged(tmp_path / "pack", None)
    write_metadata_pack(staged, pack_id(key), records, chunk_digest=store.volume.file.chunk_digest)
    staged.close()
    (tmp_path / "pack").replace(store.root / "objects" / key)
    store.volume.close()  # forget what was open


def test_content_is_there_where_the_blob_cannot_be_made_again(store: api.Store, cas: Cas, tmp_path: Path) -> None:
    spoil_trace(store, tmp_path)
    failed = cas("blob", "cat", str(DIGEST), ok=False)
    assert "cannot be made again" in failed.err and str(DIGEST) in failed.err
    with pytest.raises(Damaged):
        cat(store)
    assert not entries(store)
    assert cas("blob", "cat", "--content", str(DIGEST)).raw == CONTENT
    assert b"".join(store.blobs.cat(DIGEST, content=True)) == CONTENT
    assert cas("blob", "cat", "--content", "--range", "4999999-5000001", str(DIGEST)).raw == CONTENT[4999999:5000002]


def test_content_of_everything_else(opened: api.Store, cas: Cas, tmp_path: Path) -> None:
    plain = sample.rich_layer("content")
    xz = zlib.compress(b"no known compression")
    forms = {"plain": plain, "loose gzip": sample.gz(plain), "unknown": xz, "small": b"small"}
    for name, data in forms.items():
        (tmp_path / "blob").write_bytes(data)
        pack = "never" if name == "loose gzip" else "now"
        digest = cas("blob", "put", "--pack", pack, tmp_path / "blob").out.strip()
        inside = plain if "gzip" in name else data
        assert cas("blob", "cat", "--content", digest).raw == inside, name
        for span, start, end in (
            ("0-0", 0, 1),
            ("2-", 2, None),
            ("-3", len(inside) - 3, None),
            ("1-99999", 1, 100_000),
        ):
            assert cas("blob", "cat", "--content", "--range", span, digest).raw == inside[start:end], (name, span)
        beyond = cas("blob", "cat", "--content", "--range", f"{len(inside) + 1}-", digest, ok=False)
        assert f"content's {len(inside)} bytes" in beyond.err


def test_content_that_is_rotten_is_not_given_out_whole(store: api.Store) -> None:
    """The digest of the content is held against what its chunks make."""
    with store.volume.catalog.write("test") as tx:
        tx.run("UPDATE blob SET diffid = ? WHERE digest = ?", (bytes(32), DIGEST.raw))
    got = bytearray()
    with pytest.raises(Damaged), contextlib.closing(store.blobs.cat(DIGEST, content=True)) as reading:  # type: ignore[type-var]
        for piece in reading:
            got += piece
    assert len(got) < len(CONTENT)
