"""Collecting, packing, repacking and merging on real content: nothing is lost, what is dead goes, figures are true."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import sample
from running import Rows

from casstore import api
from casstore.digest import Digest
from casstore.errors import Interrupted
from casstore.image.content import per_image
from casstore.store import protocol, query
from casstore.upkeep import df, records, repack
from casstore.upkeep.gc import make_plan

SHARED = sample.rich_layer("base")


def version(number: int) -> sample.Image:
    """One of many images over one base, each with much of its own and much of its neighbours'."""
    files = {f"lib/{i}": sample.text((i, max(number - i % 5, 0)), 3_000 + 997 * i) for i in range(30)}
    own = sample.files({"own": sample.noise(number, 100_000)})
    return sample.image(number, [f"v:{number}"], [SHARED, sample.files(files), own])


def load(store: api.Store, folder: Path, *images: sample.Image, packed: bool = False) -> None:
    (folder / "in.tar").write_bytes((sample.oci_archive if packed else sample.docker_archive)(*images))
    store.load(folder / "in.tar")


def layers(store: api.Store, images: Iterable[sample.Image]) -> None:
    """Every layer and config of these images is there to the byte."""
    for one in images:
        for data in (*one.layers, one.config):
            assert b"".join(store.blobs.cat(Digest.of(data))) == data


def live(store: api.Store, kind: str) -> list[query.ObjectRow]:
    with store.volume.catalog.read() as tx:
        return [row for row in query.objects(tx, kind) if row.state == "live"]


def chunks(store: api.Store) -> Counter[bytes]:
    """Names of all chunks in live data packs, and how often each is stored."""
    found: Counter[bytes] = Counter()
    for row in live(store, "data"):
        found.update(name.tobytes() for name in store.volume.packs.pack(row.key).table.digests)
    return found


def files(root: Path) -> set[str]:
    return {path.relative_to(root / "objects").as_posix() for path in (root / "objects").rglob("*") if path.is_file()}


@pytest.fixture
def eight(opened: api.Store, tmp_path: Path) -> list[sample.Image]:
    """Eight versions, loaded one by one: as many packs of each kind."""
    images = [version(number) for number in range(8)]
    for one in images:
        load(opened, tmp_path, one)
    return images


# -- gc


def test_gc_rewrites_many_packs_into_few_and_keeps_all(
    opened: api.Store, eight: list[sample.Image], store_path: Path
) -> None:
    before = chunks(opened)
    assert len(live(opened, "data")) == len(live(opened, "metadata")) == len(live(opened, "index")) == 8
    report = opened.gc(grace=0)
    assert {row.action for row in report.rows} >= {"repack", "merge"}
    layers(opened, eight)
    assert chunks(opened).keys() == before.keys()
    assert [row.deep for row in live(opened, "data")] == [True]
    opened.gc(grace=0)
    assert len(live(opened, "metadata")) == 1
    with opened.volume.catalog.read() as tx:
        index = opened.volume.index(protocol.live_segments(tx))
    assert len(index) == sum(chunks(opened).values())
    with opened.volume.catalog.read() as tx:
        assert files(store_path) == {row.key for row in query.objects(tx)}
    assert opened.check(read_data=True).findings == []


def test_gc_that_has_nothing_to_do_does_nothing(opened: api.Store, eight: list[sample.Image], rows: Rows) -> None:
    for _ in range(3):
        opened.gc(grace=0)
    before = rows()["objects"]
    report = opened.gc(grace=0)
    assert report.rows == [] and rows()["objects"] == before


def test_dead_chunks_go(opened: api.Store, eight: list[sample.Image]) -> None:
    opened.gc(grace=0)
    list(opened.remove([f"v:{number}" for number in range(2, 8)]))
    opened.gc(grace=0)
    opened.gc(grace=0)
    layers(opened, eight[:2])
    wanted: set[bytes] = set()
    for info in list(opened.blobs.ls()):
        with opened.volume.catalog.read() as tx:
            found = query.find_blob(tx, info.digest)
        assert found is not None
        for use in found.place.uses:
            wanted |= {name.tobytes() for name in opened.volume.packs.pack(use.key).within(use.intervals)[0]}
    assert chunks(opened).keys() == wanted
    assert sum(row.size for row in live(opened, "data")) < 700_000
    list(opened.remove(["v:0", "v:1"]))
    opened.gc(grace=0)
    assert live(opened, "data") == live(opened, "metadata") == live(opened, "index") == []
    assert opened.volume.objects.stagings() == [] and list(opened.blobs.ls()) == []


def test_young_blobs_are_spared(opened: api.Store, eight: list[sample.Image]) -> None:
    list(opened.remove(["v:3"]))
    opened.gc()
    layers(opened, [eight[3]])
    opened.gc(grace=0)
    assert Digest.of(eight[3].config) not in {row.digest for row in opened.blobs.ls()}


def test_a_budget_of_nothing_only_collects(opened: api.Store, eight: list[sample.Image]) -> None:
    list(opened.remove(["v:0"]))
    report = opened.gc(grace=0, max_time=0)
    assert report.totals.blobs_deleted == 4 and report.totals.packs_rewritten == 0
    assert report.totals.packs_left
    layers(opened, eight[1:])


def test_gc_may_be_stopped_between_any_two_steps(store_path: Path, tmp_path: Path) -> None:
    images = [version(number) for number in range(5)]
    with api.open(store_path) as store:
        for one in images:
            load(store, tmp_path, one)
        list(store.remove(["v:0"]))
    for stop_after in range(0, 60, 7):
        with api.open(store_path) as store:
            calls = iter(range(stop_after))

            def check(store: api.Store = store, calls: Iterator[int] = calls) -> None:
                if next(calls, None) is None:
                    raise Interrupted("enough")

            store._check = check  # type: ignore[method-assign]
            try:
                store.gc(grace=0)
            except Interrupted:
                pass
        with api.open(store_path) as store:
            layers(store, images[1:])
            assert store.check(read_data=True).ok
            assert store.volume.objects.stagings() == []
    with api.open(store_path) as store:
        store.gc(grace=0)
        layers(store, images[1:])


def test_removed_and_loaded_between_plan_and_rewriting(
    opened: api.Store, eight: list[sample.Image], tmp_path: Path
) -> None:
    """The plan is old when it is carried out: one image has gone, one has come, one has gone and come."""
    worn, _ = repack.plan(opened.volume)
    groups = records.metadata_groups(opened.volume)
    segments = records.segment_plan(opened.volume)
    assert len(worn) == 8 and [len(group) for group in groups] == [8] and segments is not None
    list(opened.remove(["v:0", "v:1"]))
    opened.gc(grace=0, max_time=0)
    load(opened, tmp_path, eight[1], version(9))
    kept = [*eight[1:], version(9)]
    for group in repack.groups(worn):
        repack.Repack(opened.volume, group, "zstd:9").run()
    layers(opened, kept)
    list(opened.remove(["v:2"]))
    for group in groups:
        records.merge_metadata(opened.volume, group)
    records.merge_segments(opened.volume, segments)
    kept.remove(eight[2])
    layers(opened, kept)
    assert opened.check(read_data=True).ok
    for _ in range(2):
        opened.gc(grace=0)
    layers(opened, kept)
    assert opened.check(read_data=True).findings == []


def test_two_rewriters_of_one_plan(opened: api.Store, eight: list[sample.Image]) -> None:
    worn, _ = repack.plan(opened.volume)
    segments = records.segment_plan(opened.volume)
    (group,) = records.metadata_groups(opened.volume)
    assert segments is not None
    assert repack.Repack(opened.volume, worn, "zstd:1").run() > 0
    assert repack.Repack(opened.volume, worn, "zstd:1").run() == 0
    assert records.merge_metadata(opened.volume, group) > 0
    assert records.merge_metadata(opened.volume, group) == 0
    assert records.merge_segments(opened.volume, segments)
    assert not records.merge_segments(opened.volume, segments)
    layers(opened, eight)
    opened.gc(grace=0)
    assert not records.merge_segments(opened.volume, segments)
    assert repack.Repack(opened.volume, worn, "zstd:1").run() == 0
    assert records.merge_metadata(opened.volume, group) == 0
    layers(opened, eight)
    opened.gc(grace=0)
    assert opened.check(read_data=True).findings == []


@pytest.mark.parametrize("seed", range(4))
def test_any_order_of_loads_removals_and_upkeep(store_path: Path, tmp_path: Path, seed: int) -> None:
    """A random life of a store; what it should hold is known at every moment."""
    chosen = random.Random(seed)
    images = [version(number) for number in range(6)]
    there: set[int] = set()
    with api.open(store_path) as store:
        for _ in range(24):
            number = chosen.randrange(6)
            match chosen.choice([*("load", "remove") * 2, "load packed", "load later", "gc", "collect", "parts"]):
                case "load":
                    load(store, tmp_path, images[number])
                    there.add(number)
                case "load packed":
                    load(store, tmp_path, images[number], packed=True)
                    there.add(number)
                case "load later":
                    (tmp_path / "in.tar").write_bytes(sample.docker_archive(images[number]))
                    store.load(tmp_path / "in.tar", pack="later")
                    there.add(number)
                case "remove":
                    list(store.remove([images[number].id], force=True))
                    there.discard(number)
                case "gc":
                    store.gc(grace=0)
                case "collect":
                    store.gc(grace=0, max_time=0)
                case "parts":
                    worn, _ = repack.plan(store.volume)
                    if worn:
                        repack.Repack(store.volume, chosen.sample(worn, len(worn) // 2 + 1), "zstd:1").run()
            assert {row.id.hex for row in store.images()} == {images[n].id[7:] for n in there}
            for row in store.images():
                assert store.verify(row.id.hex).ok
        assert store.check(read_data=True).ok
        list(store.remove([images[n].id for n in there], force=True))
        for _ in range(2):
            store.gc(grace=0)
        assert list(store.blobs.ls()) == [] and live(store, "data") == []


def test_the_plan_is_what_a_reader_of_the_catalog_would_say(opened: api.Store, eight: list[sample.Image]) -> None:
    list(opened.remove(["v:0", "v:1"]))
    plan = make_plan(opened.volume, grace=0)
    names = {digest for digest, _ in plan.garbage.blobs}
    kept = {Digest.of(data) for one in eight[2:] for data in (one.config, *one.layers)}
    gone = {Digest.of(data) for one in eight[:2] for data in (one.config, *one.layers)} - kept
    assert gone <= names and not names & kept
    assert sum(size for _, size in plan.garbage.blobs) == sum(
        row.size for row in opened.blobs.ls() if row.digest in names
    )
    measured = {one.row.key: one.live for one in plan.worn}
    for row in live(opened, "data"):
        with opened.volume.catalog.read() as tx:
            used = [intervals for _, intervals in query.users(tx, row.key)]
        addresses = {at for part in used for low, high in part.tolist() for at in range(low, high)}
        assert measured.get(row.key, len(addresses)) == len(addresses)


# -- df


def brute(store: api.Store) -> dict[str, tuple[int, int, int]]:
    """(size, shared, unique) of each image, chunk by chunk."""
    content: dict[str, dict[tuple[str, int], int]] = {}
    sizes: dict[str, int] = {}
    for name, blobs in per_image(store.volume):
        pieces: dict[tuple[str, int], int] = {}
        sizes[name] = 0
        for info in blobs:
            sizes[name] += info.size
            if info.place.state != "packed":
                pieces[str(info.digest), 0] = info.size
                continue
            for use in info.place.uses:
                table = store.volume.packs.pack(use.key).table
                for address, length in zip(table.addresses.tolist(), table.lengths.tolist(), strict=True):
                    if any(low <= address < high for low, high in use.intervals.tolist()):
                        pieces[use.key, address] = length
        content[name] = pieces
    users = Counter(piece for pieces in content.values() for piece in pieces)
    return {
        name: (
            sizes[name],
            sum(length for piece, length in pieces.items() if users[piece] > 1),
            sum(length for piece, length in pieces.items() if users[piece] == 1),
        )
        for name, pieces in content.items()
    }


@pytest.mark.parametrize("collected", [False, True])
def test_df_counts_what_is_there(
    opened: api.Store, eight: list[sample.Image], store_path: Path, tmp_path: Path, collected: bool
) -> None:
    load(opened, tmp_path, version(20), packed=True)
    if collected:
        list(opened.remove(["v:5"]))
        for _ in range(2):
            opened.gc(grace=0)
    told = opened.df()
    assert {one.reference: (one.size, one.shared, one.unique) for one in told.per_image} == brute(opened)
    assert (told.images, told.blobs) == (9 - collected, len(list(opened.blobs.ls())))
    assert told.blob_bytes == sum(row.size for row in opened.blobs.ls())
    names = chunks(opened)
    assert told.chunks == len(names)
    tables = [opened.volume.packs.pack(row.key).table for row in live(opened, "data")]
    lengths = {n.tobytes(): int(length) for t in tables for n, length in zip(t.digests, t.lengths, strict=True)}
    assert told.chunk_bytes == sum(lengths.values())
    assert told.stored_bytes == sum(path.stat().st_size for path in store_path.rglob("*") if path.is_file())
    assert told.saved_bytes == told.blob_bytes - told.stored_bytes


def test_df_of_an_empty_store(opened: api.Store) -> None:
    told = opened.df()
    assert (told.images, told.blobs, told.blob_bytes, told.chunks, told.chunk_bytes) == (0, 0, 0, 0, 0)
    assert told.per_image == [] and told.stored_bytes > 0


def test_df_sweep_against_sets() -> None:
    """Intervals at random: what only one image covers."""
    chosen = np.random.default_rng(5)
    for _ in range(50):
        covers = []
        for number in range(4):
            bounds = np.sort(chosen.choice(60, (chosen.integers(1, 4), 2), replace=False).reshape(-1))[:2].reshape(1, 2)
            covers.append((number, bounds.astype(np.uint32)))
        unique, total = np.zeros(4, np.int64), np.zeros(4, np.int64)
        df._sweep(covers, unique, total)
        sets = [set(range(int(part[0, 0]), int(part[0, 1]))) for _, part in covers]
        assert total.tolist() == [len(each) for each in sets]
        assert unique.tolist() == [
            len(each - set().union(*(other for k, other in enumerate(sets) if k != n))) for n, each in enumerate(sets)
        ]


def test_a_lease_of_somebody_else_delays_only_what_it_may_want(
    opened: api.Store, eight: list[sample.Image], store_path: Path
) -> None:
    lease = protocol.lease_open(opened.volume.catalog, "a reader", 600)
    named = protocol.name_blobs(opened.volume.catalog, lease, [Digest.of(eight[0].layers[2])])
    assert len(named) == 1
    list(opened.remove([f"v:{number}" for number in range(8)]))
    opened.gc(grace=0)
    assert b"".join(opened.blobs.cat(Digest.of(eight[0].layers[2]))) == eight[0].layers[2]
    protocol.lease_close(opened.volume.catalog, lease)
    for _ in range(2):
        opened.gc(grace=0)
    assert files(store_path) == set()
