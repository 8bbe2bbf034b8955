"""What the fifteen rules leave open and the store builds on: threads that meet in one transaction, stale
plans, grace, pins, healing, several packers, metadata packs, the epoch."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from test_protocol_rules import pack_loose
from toys import Toy, digest_of, spans

from casstore.digest import Digest
from casstore.errors import Damaged, LeaseLost, NotFound, ReadOnlyStore
from casstore.model import ImageRow, Used
from casstore.store import collector, damage, epoch, names, protocol, query, rewrite, rules
from casstore.store.catalog import Catalog
from casstore.store.leases import Lease
from casstore.store.objects import Objects, pack_key
from casstore.store.protocol import NewObject
from casstore.store.rewrite import Move

AB = digest_of(["a", "b"])


# -- two threads


def test_naming_holds_the_collector_off(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The collector comes while a writer is between testing a blob's state and naming it: it has to wait."""
    toy.image("t", ["a", "b"])
    toy.untag("t")
    toy.retire(digest_of(["manifest-t"]))
    lease = toy.open()
    tested, retired = threading.Event(), threading.Event()
    seen = rules.seen

    def slow(state: str, retired_gen: int | None, opened_gen: int) -> bool:
        verdict = seen(state, retired_gen, opened_gen)
        tested.set()
        assert not retired.wait(0.3), "a blob was retired between the test of its state and its name"
        return verdict

    def collect() -> int:
        tested.wait()
        done = toy.retire(AB)
        retired.set()
        return done

    monkeypatch.setattr(rules, "seen", slow)
    with ThreadPoolExecutor(1) as pool:
        collected = pool.submit(collect)
        assert protocol.name_blobs(toy.catalog, lease, [AB]) == {AB}
        assert collected.result() == 0
    assert toy.blob_state(AB) == "live"


def test_naming_and_retiring_at_once_agree(toy: Toy) -> None:
    """Whichever comes first: what was answered "present" can be committed."""
    for turn in range(8):
        toy.image("t", ["a", "b"])
        toy.untag("t")
        toy.retire(digest_of(["manifest-t"]))
        lease = toy.open()
        start = threading.Barrier(2)

        def name(start: threading.Barrier = start, lease: int = lease) -> bool:
            start.wait()
            return bool(protocol.name_blobs(toy.catalog, lease, [AB]))

        def gc(start: threading.Barrier = start) -> None:
            start.wait()
            toy.gc()

        with ThreadPoolExecutor(2) as pool:
            present, done = pool.submit(name), pool.submit(gc)
            done.result()
        manifest = toy.loose(lease, f"manifest-{turn}", children=[AB])
        if present.result():
            toy.commit(lease, manifest, tag="u")
            toy.untag("u")
        else:
            with pytest.raises(NotFound):
                toy.commit(lease, manifest, tag="u")
        toy.close(lease)
        toy.collect()
        assert toy.verdict() == []


def test_a_crowd_leaves_what_it_tagged_and_nothing_else(toy: Toy) -> None:
    stop = threading.Event()

    def write(me: int) -> None:
        for turn in range(6):
            toy.image(f"t{me}", ["a", "b"], [f"layer{me}", f"turn{turn}"], ["shared", str(turn % 2)])
        toy.catalog.checkpoint()

    def collect() -> None:
        while not stop.is_set():
            collector.collect(toy.catalog, toy.objects)

    with ThreadPoolExecutor(5) as pool:
        collectors = [pool.submit(collect) for _ in range(2)]
        writers = [pool.submit(write, me) for me in range(3)]
        try:
            for one in writers:
                one.result()
        finally:
            stop.set()
        for one in collectors:
            one.result()
    with toy.catalog.read() as tx:
        assert len(names.tags(tx)) == 3
    assert toy.verdict() == []


# -- stale plans and order


def test_a_plan_is_tested_again_when_it_is_carried_out(toy: Toy) -> None:
    toy.image("t", ["a"])
    toy.untag("t")
    with toy.catalog.read() as tx:
        todo = collector.retirable_blobs(tx, tx.now())
        young = tx.now()
    assert todo
    toy.image("t", ["a"])  # tagged again in between
    while todo:
        assert collector.gc_retire_blobs(toy.catalog, todo, young) == 0
    assert toy.verdict() == []


def test_only_the_step_before_unlinking_waits_for_the_disk(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    durable: dict[str, bool] = {}
    write = Catalog.write

    def watch(self: Catalog, name: str = "", *, durable_: bool = True, **options: bool) -> object:
        durable[name] = options.get("durable", durable_)
        return write(self, name, **options)

    monkeypatch.setattr(Catalog, "write", watch)
    toy.image("t", ["a"])
    pack_loose(toy, "a")
    toy.untag("t")
    lease = toy.open(ttl=-1)
    toy.stage(lease, pack_key(bytes(16)), "data", b"x").close()
    toy.collect()
    late = {name for name, waits in durable.items() if not waits}
    assert late == {"gc_retire_blobs", "gc_retire_objects", "gc_purge_blobs", "gc_drop"}
    assert {"gc_purge_objects", "gc_orphans", "commit", "put_begin", "pack_commit"} <= durable.keys() - late


def test_slices_fit_what_the_lock_costs() -> None:
    todo = collector.Todo(range(1_000_000))
    first = len(list(todo.slice()))
    for _ in range(50):
        todo.learn(1.0)
    slow = len(list(todo.slice()))
    assert 1 <= slow <= first  # however slow: at least one
    for _ in range(100):
        todo.learn(0.0001)
    assert len(list(todo.slice())) > slow
    assert first + slow < 1_000_000 - len(todo.ids)


def test_the_lock_is_let_go_between_slices(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "HOLD", 0.0)
    for number in range(4):
        toy.image(f"t{number}", [f"layer{number}"])
    toy.untag(*(f"t{number}" for number in range(4)))
    held: list[str] = []
    toy.catalog.on_write.append(lambda name, seconds: held.append(name))
    toy.collect()
    assert held.count("gc_retire_blobs") == held.count("gc_purge_blobs") == 8
    assert toy.verdict() == []


def test_collection_stops_where_it_is_told_to(toy: Toy) -> None:
    toy.image("t", ["a"])
    toy.untag("t")
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise LeaseLost("stop")

    with pytest.raises(LeaseLost):
        collector.collect(toy.catalog, toy.objects, check=check)
    assert toy.verdict() == []


# -- what keeps a blob


def test_young_blobs_stay(toy: Toy) -> None:
    manifest = toy.image("t", ["a"])
    toy.untag("t")
    collector.collect(toy.catalog, toy.objects, grace=3600)
    assert toy.blob_state(manifest) == "live"
    with toy.catalog.write() as tx:
        tx.run("UPDATE blob SET created = created - 7200")
    collector.collect(toy.catalog, toy.objects, grace=3600)
    assert toy.blob_state(manifest) is None


def test_a_young_manifest_keeps_its_old_layer(toy: Toy) -> None:
    toy.image("t", ["a"])
    with toy.catalog.write() as tx:
        tx.run("UPDATE blob SET created = created - 7200 WHERE digest = ?", (digest_of(["a"]).raw,))
    toy.untag("t")
    collector.collect(toy.catalog, toy.objects, grace=3600)
    assert toy.blob_state(digest_of(["a"])) == "live"


def test_a_pin_keeps_a_blob_and_all_below_it(toy: Toy) -> None:
    manifest = toy.image("t", ["a"])
    assert protocol.pin(toy.catalog, manifest, "by hand")
    toy.untag("t")
    toy.collect()
    assert toy.verdict() == []
    assert toy.blob_state(digest_of(["a"])) == "live"
    assert protocol.unpin(toy.catalog, manifest)
    assert not protocol.unpin(toy.catalog, manifest)
    toy.collect()
    assert toy.blob_state(manifest) is None


def test_a_pin_of_what_is_absent_takes_hold_when_it_comes(toy: Toy) -> None:
    assert not protocol.pin(toy.catalog, AB, "early")
    lease = toy.open()
    toy.commit(lease, toy.loose(lease, "a", "b"))
    toy.close(lease)
    toy.collect()
    assert toy.blob_state(AB) == "live"
    assert toy.verdict() == []


def test_a_pin_does_not_bring_back_what_is_retired(toy: Toy) -> None:
    manifest = toy.image("t", ["a"])
    toy.untag("t")
    toy.retire()
    assert not protocol.pin(toy.catalog, manifest, "late")
    toy.collect()
    assert toy.blob_state(manifest) is None
    assert toy.verdict() == []


def test_a_tag_that_moves_leaves_a_pin_where_asked(toy: Toy) -> None:
    one, two = toy.image("one", ["a"]), toy.image("two", ["b"])
    assert protocol.tag(toy.catalog, "r", "x", one, keep="untagged") is None
    assert protocol.tag(toy.catalog, "r", "x", two, keep="untagged") == one
    with toy.catalog.read() as tx:
        assert names.pins(tx) == []  # it has the tag "one" yet
    toy.untag("one")
    assert protocol.tag(toy.catalog, "r", "x", one, keep="untagged") == two
    assert protocol.tag(toy.catalog, "r", "x", two, keep="untagged") == one
    with toy.catalog.read() as tx:
        assert names.pins(tx) == [(one, "untagged")]
    protocol.tag(toy.catalog, "r", "y", one, keep="untagged")
    with toy.catalog.read() as tx:
        assert names.pins(tx) == []


# -- commits


def test_a_child_that_is_not_there_is_named(toy: Toy) -> None:
    lease = toy.open()
    manifest = toy.loose(lease, "manifest", children=[AB])
    with pytest.raises(NotFound, match=str(AB)):
        toy.commit(lease, manifest, tag="t")
    toy.close(lease)
    assert toy.verdict() == []


def test_nothing_is_committed_without_the_lease(toy: Toy) -> None:
    lease = toy.open()
    layer = toy.loose(lease, "a", "b")
    protocol.lease_close(toy.catalog, lease)
    for action in (
        lambda: toy.commit(lease, layer, tag="t"),
        lambda: protocol.name_blobs(toy.catalog, lease, [AB]),
        lambda: protocol.name_objects(toy.catalog, lease, []),
        lambda: protocol.put_begin(toy.catalog, lease, [(pack_key(bytes(16)), "data")]),
        lambda: protocol.read_open(toy.catalog, lease, []),
        lambda: protocol.lease_renew(toy.catalog, lease, 1),
        lambda: rewrite.pack_begin(toy.catalog, lease, AB),
        lambda: rewrite.repack_commit(toy.catalog, lease, []),
        lambda: rewrite.repack_move(toy.catalog, lease, []),
        lambda: rewrite.merge_commit(toy.catalog, lease, [], layer.objects[0]),
    ):
        with pytest.raises(LeaseLost):
            action()
    assert toy.verdict() == []


def test_another_writers_pending_object_cannot_be_used(toy: Toy) -> None:
    one, other = toy.open(), toy.open()
    pack = toy.pack(other, "a")
    layer = toy.packed(one, [pack[0].key], "a")
    with pytest.raises(LeaseLost):
        toy.commit(one, layer, more=pack)
    assert protocol.name_objects(toy.catalog, one, [pack[0].key]) == set()
    assert toy.verdict() == []


def test_a_retired_blob_that_is_brought_again_takes_the_new_place(toy: Toy) -> None:
    manifest = toy.image("t", ["a"])
    before = toy.info(manifest)
    toy.untag("t")
    toy.retire()
    toy.retire()
    toy.image("t", ["a"])
    after = toy.info(manifest)
    assert before is not None and after is not None and before.place.key != after.place.key
    assert toy.verdict() == []
    toy.collect()
    assert toy.state(before.place.key) is None
    assert toy.verdict() == []


def test_what_is_rotten_answers_missing_and_heals(toy: Toy) -> None:
    manifest = toy.image("t", ["a", "b"])
    old = toy.info(AB)
    assert old is not None
    protocol.mark_damaged(toy.catalog, [old])
    lease = toy.open()
    assert protocol.name_blobs(toy.catalog, lease, [manifest, AB]) == {manifest}
    assert toy.commit(lease, toy.loose(lease, "a", "b")) == set()
    assert protocol.name_blobs(toy.catalog, lease, [AB]) == {AB}
    toy.close(lease)
    healed = toy.info(AB)
    assert healed is not None and healed.place.key != old.place.key
    toy.collect()
    assert toy.state(old.place.key) is None
    assert toy.verdict() == []


def test_a_rotten_pack_is_no_index_hit(toy: Toy) -> None:
    _, pack, _ = toy.packed_image("t", "a")
    protocol.mark_damaged(toy.catalog, keys=[pack])
    assert protocol.name_objects(toy.catalog, toy.open(), [pack]) == set()


def test_index_entries_of_packs_that_died_with_their_lease_go(toy: Toy) -> None:
    """One of two packs under a segment was not needed: its blob was there already."""
    lease = toy.open()
    one, other = toy.pack(lease, "a"), toy.pack(lease, "b")
    both = one[1]._replace(packs=(one[0].key, other[0].key))
    toy.commit(lease, toy.packed(lease, [one[0].key], "a"), more=[one[0], other[0], both], tag="t")
    toy.close(lease)
    assert toy.state(other[0].key) == "pending"
    toy.collect()
    assert toy.state(other[0].key) is None
    assert toy.state(one[1].key) == "live"
    assert toy.verdict() == []


# -- rewriting


def test_of_two_packers_one_gives_up(toy: Toy) -> None:
    toy.image("t", ["a", "b"])
    packers = [toy.open(), toy.open()]
    info = [rewrite.pack_begin(toy.catalog, lease, AB) for lease in packers]
    done = []
    for lease, one in zip(packers, info, strict=True):
        assert one is not None
        pack = toy.pack(lease, "a", "b")
        made = toy.packed(lease, [pack[0].key], "a", "b")
        done.append(rewrite.pack_commit(toy.catalog, lease, one.place.key, made.blob, made.objects + pack))
        assert toy.verdict() == []
    assert done == [True, False]
    for lease in packers:
        toy.close(lease)
    toy.collect()
    assert toy.verdict() == []


def test_a_packer_gives_up_on_a_blob_that_went(toy: Toy) -> None:
    toy.image("t", ["a", "b"])
    lease = toy.open(ttl=-1)
    info = rewrite.pack_begin(toy.catalog, lease, AB)
    assert info is not None
    pack = toy.pack(lease, "a", "b")
    made = toy.packed(lease, [pack[0].key], "a", "b")
    toy.untag("t")
    toy.gc()
    assert toy.blob_state(AB) == "live"  # named
    toy.collect()
    assert toy.blob_state(AB) is None
    with pytest.raises(LeaseLost):
        rewrite.pack_commit(toy.catalog, lease, info.place.key, made.blob, made.objects + pack)
    assert toy.verdict() == []


def test_edges_move_between_data_packs_and_join(toy: Toy) -> None:
    lease = toy.open()
    p, q = toy.pack(lease, "a", "b"), toy.pack(lease, "c", "d")
    layer = toy.packed(lease, [p[0].key, q[0].key], "a", "b", "c")
    toy.commit(lease, layer, more=p + q, tag="t")
    new = toy.pack(lease, "a", "b", "c")
    rewrite.repack_commit(toy.catalog, lease, new)
    moves = [
        Move(layer.blob.digest, p[0].key, spans([0, 1]), (Used(new[0].key, spans([0, 1])),)),
        Move(layer.blob.digest, q[0].key, spans([0]), (Used(new[0].key, spans([2])),)),
    ]
    assert rewrite.repack_move(toy.catalog, lease, moves) == {layer.blob.digest}
    info = toy.info(layer.blob.digest)
    assert info is not None
    (use,) = info.place.uses
    assert (use.key, use.intervals.tolist()) == (new[0].key, [[0, 3]])
    toy.close(lease)
    toy.collect()
    assert {toy.state(key) for key in (p[0].key, q[0].key)} == {None}
    assert toy.verdict() == []


def test_records_move_between_metadata_packs(toy: Toy) -> None:
    toy.packed_image("t", "a")
    layer = toy.info(digest_of(["a"]))
    assert layer is not None
    lease = toy.open()
    new = toy.put(lease, pack_key(bytes(16)), "metadata", b"..a")
    rewrite.repack_commit(toy.catalog, lease, [new])
    move = Move(layer.digest, layer.place.key, spans([]), (Used(new.key, spans([])),), (0, 2, 1))
    wrong = move._replace(record=None)
    assert rewrite.repack_move(toy.catalog, lease, [wrong]) == set()
    assert rewrite.repack_move(toy.catalog, lease, [move]) == {layer.digest}
    assert rewrite.repack_move(toy.catalog, lease, [move]) == set()
    toy.close(lease)
    toy.collect()
    assert toy.state(layer.place.key) is None
    assert toy.verdict() == []


def test_a_repacker_that_dies_early_leaves_nothing(toy: Toy) -> None:
    toy.packed_image("t", "a", "b")
    lease = toy.open(ttl=-1)
    new = toy.pack(lease, "a", "b")
    rewrite.repack_commit(toy.catalog, lease, new)
    toy.collect()
    assert {toy.state(one.key) for one in new} == {None}
    assert toy.verdict() == []


def test_lost_edges_make_a_pack_dirty_until_it_is_measured(toy: Toy) -> None:
    lease = toy.open()
    pack = toy.pack(lease, "a", "b", "c")
    for tag, chunks in (("one", ["a", "b"]), ("two", ["b", "c"])):
        toy.commit(lease, toy.packed(lease, [pack[0].key], *chunks), more=pack, tag=tag)
    toy.close(lease)

    def worn() -> list[query.ObjectRow]:
        with toy.catalog.read() as tx:
            return [row for row in query.objects(tx, "data") if row.dirty]

    assert worn() == []
    toy.untag("one")
    toy.collect()
    (row,) = worn()
    with toy.catalog.read() as tx:
        assert query.live_intervals(tx, row.key).tolist() == [[1, 3]]
    collector.gc_clean(toy.catalog, [(row.key, row.dirty + 1)])  # something changed since: no
    assert worn() == [row]
    collector.gc_clean(toy.catalog, [(row.key, row.dirty)])
    assert worn() == []


# -- the plan


def test_the_plan_tells_what_a_collection_takes(toy: Toy) -> None:
    toy.image("t", ["a", "b"], ["c"])
    toy.image("u", ["c"])
    toy.packed_image("v", "x", "y")
    lease = toy.open(ttl=-1)
    toy.put(lease, pack_key(bytes(16)), "data", b"left behind")
    toy.untag("t", "v")
    collector.lease_expire(toy.catalog)
    with toy.catalog.read() as tx:
        plan = collector.plan(tx, tx.now())
    before = {key for key, _ in toy.objects.list()}
    done = toy.collect()
    assert {digest for digest, _ in plan.blobs} == {
        AB,
        digest_of(["x", "y"]),
        digest_of(["manifest-t"]),
        digest_of(["manifest-v"]),
    }
    assert {key for key, _, _ in plan.objects} == before - {key for key, _ in toy.objects.list()}
    assert done.blobs_purged == len(plan.blobs)
    assert done.objects_deleted == len(plan.objects)
    with toy.catalog.read() as tx:
        assert collector.plan(tx, tx.now()) == collector.Garbage([], [])


# -- the epoch


def test_a_catalog_from_a_backup_deletes_nothing(toy: Toy) -> None:
    toy.image("old", ["a"])
    toy.catalog.close()
    backup = toy.root.with_name("backup.sqlite")
    shutil.copy(toy.catalog.path, backup)
    toy.catalog = Catalog(toy.root)
    toy.image("new", ["b"])
    toy.untag("old")
    toy.collect()
    toy.catalog.close()
    for path in toy.root.glob("catalog.sqlite*"):
        path.unlink()
    shutil.copy(backup, toy.catalog.path)
    toy.catalog = Catalog(toy.root)
    files = dict(toy.objects.list())
    toy.untag("old")
    with pytest.raises(Damaged, match="backup"):
        toy.collect()
    assert dict(toy.objects.list()) == files
    with toy.catalog.read() as tx:
        assert not epoch.epoch_matches(tx, toy.objects)
    damage.distrust(toy.catalog, toy.objects)  # what check does
    with toy.catalog.read() as tx:
        known = {row.key for row in query.objects(tx)}
    lease = toy.open()
    found = [("blob", NewObject(key, size)) for key, size in files.items() if key not in known]
    damage.adopt(toy.catalog, lease, found)
    damage.found_again(toy.catalog, toy.objects)
    toy.close(lease)
    toy.collect()
    assert dict(toy.objects.list()) == {}


@pytest.mark.parametrize("crash", ["before the commit", "after the commit"])
def test_a_crash_while_the_epoch_turns_does_no_harm(toy: Toy, crash: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Crash(Exception):
        pass

    def fail(*_: object) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        if crash == "before the commit":
            patch.setattr("casstore.store.catalog.WriteTx.run", fail)
        else:
            patch.setattr(epoch, "set_epoch", fail)
        with pytest.raises(Crash):
            epoch.turn_epoch(toy.catalog, toy.objects)
    epoch.turn_epoch(toy.catalog, toy.objects)
    with toy.catalog.read() as tx:
        assert epoch.epoch_matches(tx, toy.objects)


def test_collectors_turn_the_epoch_at_once(toy: Toy) -> None:
    def turn() -> None:
        for _ in range(5):
            epoch.turn_epoch(toy.catalog, toy.objects)

    with ThreadPoolExecutor(4) as pool:
        for one in [pool.submit(turn) for _ in range(4)]:
            one.result()
    with toy.catalog.read() as tx:
        assert epoch.epoch_matches(tx, toy.objects)


# -- leases and read-only stores


def test_a_lease_ends_with_its_block(toy: Toy) -> None:
    with Lease(toy.catalog, toy.objects, "test") as lease:
        lease.check()
        assert toy.objects.has_staging(lease.id)
        layer = toy.loose(lease.id, "a")
        toy.commit(lease.id, layer, tag="t")
    assert not toy.objects.has_staging(lease.id)
    assert toy.verdict() == []


def test_images_are_rows_of_the_commit(toy: Toy) -> None:
    lease = toy.open()
    config, manifest = toy.loose(lease, "config"), toy.loose(lease, "manifest", children=[digest_of(["config"])])
    row = ImageRow(
        manifest.blob.digest, config.blob.digest, "2020-01-01T00:00:00Z", 7, "linux", "amd64", "", {"a": "b"}, ""
    )
    protocol.commit(
        toy.catalog,
        lease,
        [config.blob, manifest.blob],
        objects=config.objects + manifest.objects,
        images=[row],
        pins=[(manifest.blob.digest, "untagged")],
    )
    toy.close(lease)
    with toy.catalog.read() as tx:
        assert names.images(tx) == [row]
        assert names.find_image(tx, row.manifest) == row
        assert names.manifests_of(tx, row.config) == [row]
    protocol.unpin(toy.catalog, row.manifest, "untagged")
    toy.collect()
    with toy.catalog.read() as tx:
        assert names.images(tx) == []
    assert toy.verdict() == []


def test_a_read_only_catalog_reads_and_refuses(toy: Toy) -> None:
    manifest = toy.image("t", ["a"])
    with Catalog(toy.root, read_only=True) as catalog:
        with catalog.read() as tx:
            assert names.find_tag(tx, "r", "t") == manifest
        actions: list[Callable[[], object]] = [
            lambda: protocol.untag(catalog, [("r", "t")]),
            lambda: collector.collect(catalog, Objects(toy.root, read_only=True)),
            lambda: Lease(catalog, toy.objects, "x"),
        ]
        for action in actions:
            with pytest.raises(ReadOnlyStore, match="store is read-only"):
                action()
    assert Digest.parse(str(manifest)) == manifest
