"""The rules of PROTOCOL.md: a race for each, which nothing survives but the rule.

Every race is run twice: with the rules as they are, nothing may be lost; with its own rule taken away
something must be, or the race proves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toys import Made, Toy, digest_of, names_of, spans

from casstore.errors import CasstoreError, Conflict, Damaged, LeaseLost, NotFound
from casstore.model import Used
from casstore.store import collector, protocol, query, references, rewrite, rows, rules
from casstore.store import objects as objects_module
from casstore.store.catalog import Catalog, Tx, WriteTx
from casstore.store.index import encode_segment
from casstore.store.objects import Objects, index_key, pack_id
from casstore.store.protocol import NewObject
from casstore.store.rewrite import Move

Race = Callable[[Toy], list[str]]
Without = Callable[[pytest.MonkeyPatch], None]


# 1. An expired lease whose row remains still protects.


def expired_reader(toy: Toy) -> list[str]:
    toy.image("t", ["a", "b"])
    reader = toy.open(ttl=-1.0)
    opened = protocol.read_open(toy.catalog, reader, [digest_of(["a", "b"])])
    info = opened.blobs[digest_of(["a", "b"])]
    pack_loose(toy, "a", "b")
    toy.gc()  # all but lease_expire, which has not come to it yet
    bad = []
    try:
        toy.read(info, opened.segments)
    except NotFound as error:
        bad.append(f"a leased reader lost {error.what}")
    protocol.lease_renew(toy.catalog, reader, 600)
    return bad + toy.verdict()


def without_expired(patch: pytest.MonkeyPatch) -> None:
    def floor(tx: Tx) -> int:
        oldest = tx.value("SELECT min(opened_gen) FROM lease WHERE expires > ?", (tx.now(),))
        return rules.NO_LEASE if oldest is None else int(oldest)

    patch.setattr(rules, "floor", floor)


# 2. "Present" is named with the state tested in the same transaction; that there is a row is not enough.


def hit_on_its_way_out(toy: Toy) -> list[str]:
    _, pack, _ = toy.packed_image("old", "a", "b")
    toy.untag("old")
    toy.retire()
    toy.retire()
    toy.purge()
    toy.purge()
    toy.retire_objects()
    toy.purge_objects()
    assert toy.state(pack) == "deleting"
    writer = toy.open()
    hits = protocol.name_objects(toy.catalog, writer, [pack])
    more: list[NewObject] = [] if pack in hits else toy.pack(writer, "a", "b")
    layer = toy.packed(writer, [pack] if pack in hits else [more[0].key], "a", "b")
    manifest = toy.loose(writer, "manifest-new", children=[layer.blob.digest])
    toy.commit(writer, layer, manifest, more=more, tag="new")
    toy.unlink()
    return toy.verdict()


def without_state(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rules, "seen", lambda state, retired_gen, opened_gen: True)


# 3. Tags point at live rows only.


def tag_on_retired(toy: Toy) -> list[str]:
    manifest = toy.image("t", ["a"])
    toy.untag("t")
    toy.retire()
    try:
        protocol.tag(toy.catalog, "r", "again", manifest)
    except NotFound:
        pass
    return toy.verdict()


def without_live_target(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rules, "taggable", lambda state: True)


# 4. "No live parent", rather than "no parent that a walk from the roots came by".


def parent_between_roots(toy: Toy) -> list[str]:
    manifest = toy.image("t", ["a"])
    reader = toy.open()
    protocol.read_open(toy.catalog, reader, [manifest])
    toy.untag("t")
    toy.retire(manifest)  # the collector comes by the manifest: named, it stays live
    toy.close(reader)
    toy.retire(digest_of(["a"]))  # and then by its layer
    protocol.tag(toy.catalog, "r", "again", manifest)
    return toy.verdict()


def without_live_parent(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        rules,
        "NO_LIVE_PARENT",
        "NOT EXISTS (SELECT 1 FROM child c WHERE c.child = b.id AND ("
        " EXISTS (SELECT 1 FROM tag t WHERE t.target = c.parent)"
        " OR EXISTS (SELECT 1 FROM named_blob n WHERE n.blob = c.parent)))",
    )


# 5. Reviving a blob revives its closure.


def revived_manifest(toy: Toy) -> list[str]:
    manifest, pack, _ = toy.packed_image("t", "a", "b")
    writer = toy.open()  # older than what follows
    toy.untag("t")
    toy.retire()
    toy.retire()
    toy.retire_objects()
    assert (toy.blob_state(manifest), toy.state(pack)) == ("retired", "retired")
    assert protocol.name_blobs(toy.catalog, writer, [manifest]) == {manifest}
    protocol.commit(toy.catalog, writer, [], tags=[("r", "again", manifest)])
    return toy.verdict()


def without_closure(patch: pytest.MonkeyPatch) -> None:
    def revive(tx: WriteTx, blob_id: int) -> None:
        tx.run("UPDATE blob SET state = 'live', retired_gen = NULL WHERE id = ?", (blob_id,))

    patch.setattr(rows, "revive", revive)


# 6. Objects go by key: under a digest a younger copy may stand.


def younger_copy(toy: Toy) -> list[str]:
    toy.image("t", ["a", "b"])
    toy.untag("t")
    for step in (toy.retire, toy.retire, toy.purge, toy.purge, toy.purge_objects):
        step()
    with toy.catalog.read() as tx:
        keys = collector.deleting(tx)
    toy.image("t", ["a", "b"])
    collector.gc_file(toy.objects, keys)
    toy.drop(keys)
    return toy.verdict()


def without_keys(patch: pytest.MonkeyPatch) -> None:
    def gc_file(objects: Objects, keys: Iterable[str]) -> None:
        digests = {key.partition(".")[0] for key in keys}
        objects.delete([key for key, _ in objects.list() if key.partition(".")[0] in digests])

    patch.setattr(collector, "gc_file", gc_file)


# 7. Repacking moves an edge per blob, where the new pack has all that the blob needs of the old one.


def moved_edge(toy: Toy) -> list[str]:
    lease = toy.open()
    p, s = toy.pack(lease, "a", "b")
    q, t = toy.pack(lease, "b", "x")
    one = toy.packed(lease, [q.key, p.key], "a", "b")  # a of p, b of q
    other = toy.packed(lease, [p.key], "b", "a")
    toy.commit(lease, one, more=[p, s, q, t], tag="one")
    toy.commit(lease, other, more=[p, s], tag="other")
    toy.close(lease)
    # The repacker plans: of p, `one` needs a, and nobody else is in this batch.
    repacker = toy.open()
    protocol.name_objects(toy.catalog, repacker, [p.key])
    planned = spans([0])
    new = toy.pack(repacker, "a")
    rewrite.repack_commit(toy.catalog, repacker, new)
    # Meanwhile `one` goes, with q, and comes again: now it has both chunks from p.
    toy.untag("one")
    for step in (toy.retire, toy.purge, toy.retire_objects):
        step()
    lease = toy.open()
    assert protocol.name_objects(toy.catalog, lease, [p.key, q.key]) == {p.key}
    if toy.blob_state(one.blob.digest) is None or toy.blob_state(one.blob.digest) == "retired":
        again = toy.packed(lease, [p.key], "a", "b")
        toy.commit(lease, again, tag="one")
    toy.close(lease)
    move = Move(one.blob.digest, p.key, planned, (Used(new[0].key, spans([0])),))
    rewrite.repack_move(toy.catalog, repacker, [move])
    return toy.verdict()


def without_comparison(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rewrite, "needs_just", lambda used, expected: True)


# 8. A merged segment keeps every pair (chunk, pack); one entry a chunk may be the wrong one.


def merged_multimap(toy: Toy) -> list[str]:
    _, _, s = toy.packed_image("one", "a", "b")
    lease = toy.open()
    second, t = toy.pack(lease, "a", "b", "c")  # two writers at once: the same chunks twice
    layer = toy.packed(lease, [second.key], "a", "b", "c")
    toy.commit(lease, layer, more=[second, t], tag="two")
    merged = toy.merge(lease, [s, t.key])
    assert rewrite.merge_commit(toy.catalog, lease, [s, t.key], merged)
    toy.close(lease)
    return toy.verdict()


def without_multimap(patch: pytest.MonkeyPatch) -> None:
    def one_entry_a_chunk(toy: Toy, lease: int, replaced: list[str], drop: Iterable[str] = ()) -> NewObject:
        with toy.catalog.read() as tx:
            keys = sorted(query.covered_packs(tx, replaced), key=lambda key: len(toy.words(key)), reverse=True)
        taken: set[str] = set()
        packs = []
        for key in keys:
            words = toy.words(key)
            mine = [at for at, word in enumerate(words) if word not in taken]
            taken.update(words)
            packs.append((pack_id(key), names_of([words[at] for at in mine]), np.array(mine, np.uint32)))
        return toy.put(lease, index_key(), "index", encode_segment(packs))._replace(packs=tuple(keys))

    patch.setattr(Toy, "merge", one_entry_a_chunk)


# 9. A merge drops the entries of packs that are gone or deleting; a retired one may be revived.


def merged_while_retired(toy: Toy) -> list[str]:
    manifest, pack, s = toy.packed_image("old", "a", "b")
    _, _, t = toy.packed_image("other", "c")
    writer = toy.open()  # older than what follows
    merger = toy.open()
    toy.untag("old")
    toy.retire()
    toy.retire()
    toy.retire_objects()
    assert toy.state(pack) == "retired"
    with toy.catalog.read() as tx:
        gone = tx.rows(f"SELECT o.key FROM covers v JOIN object o ON o.id = v.pack WHERE {rules.PACK_IS_GONE}")
    merged = toy.merge(merger, [s, t], drop=[row[0] for row in gone])
    assert rewrite.merge_commit(toy.catalog, merger, [s, t], merged)
    assert protocol.name_blobs(toy.catalog, writer, [manifest])
    protocol.commit(toy.catalog, writer, [], tags=[("r", "again", manifest)])
    return toy.verdict()


def without_retired_packs(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rules, "PACK_IS_GONE", "NOT EXISTS (SELECT 1 FROM object p WHERE p.id = v.pack AND p.state = 'live')")


# 10. A merge replaces exactly the segments that it read.


def merged_beside_a_writer(toy: Toy) -> list[str]:
    _, _, s = toy.packed_image("one", "a")
    _, _, t = toy.packed_image("two", "b")
    merger = toy.open()
    merged = toy.merge(merger, [s, t])
    toy.packed_image("three", "c")  # with a segment that the merger has not read
    assert rewrite.merge_commit(toy.catalog, merger, [s, t], merged)
    return toy.verdict()


def without_compare_and_set(patch: pytest.MonkeyPatch) -> None:
    def all_live(tx: Tx, segments: Any) -> list[int]:
        found = tx.rows("SELECT id FROM object WHERE kind = 'index' AND state = 'live'")
        return [row[0] for row in found]

    patch.setattr(rewrite, "still_live", all_live)
    patch.setattr(rules, "PACK_IS_GONE", "1 = 1")  # the second line of defence


# 11. An index hit counts for a reader only in the packs that its blob has edges to.


def hit_elsewhere(toy: Toy) -> list[str]:
    toy.packed_image("t", "a", "b")
    repacker = toy.open()
    new = toy.pack(repacker, "a", "b")
    rewrite.repack_commit(toy.catalog, repacker, new)
    toy.close(repacker)  # and dies before any edge was moved
    with toy.catalog.read() as tx:  # a reader without a lease
        info = query.find_blob(tx, digest_of(["a", "b"]))
        segments = protocol.live_segments(tx)
    assert info is not None
    toy.retire_objects()
    toy.purge_objects()
    toy.unlink()
    bad = []
    try:
        toy.read(info, segments)
    except NotFound as error:
        again = toy.info(info.digest)
        assert again is not None
        if again.place.key == info.place.key and toy.segments() == segments:
            bad.append(f"{error.what} is gone and the catalog stands still")
    return bad + toy.verdict()


def without_edges(patch: pytest.MonkeyPatch) -> None:
    read = Toy.read
    patch.setattr(Toy, "read", lambda self, info, segments: read(self, info, segments, any_pack=True))


# 12. Staging goes before its pending rows: a writer that wakes up renames into nowhere.


def resumed_writer(toy: Toy) -> list[str]:
    writer = toy.open(ttl=-1.0)
    staged = toy.stage(writer, objects_module.loose_key(digest_of(["a"])), "blob", b"a")
    collector.lease_expire(toy.catalog)
    toy.gc()
    try:
        toy.objects.publish([staged])
    except LeaseLost:
        pass
    staged.close()
    return toy.verdict()


def without_folder_first(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Objects, "has_staging", lambda self, lease: False)


# 13. The folder is fsynced after the unlink, before the row goes.


class Disk:
    """Unlinks that a power loss undoes, unless the folder was fsynced after them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.lost: dict[Path, bytes] = {}
        unlink, sync = Path.unlink, objects_module.sync_folder

        def remember(path: Path, missing_ok: bool = False) -> None:
            if "objects" in path.parts and path.exists():
                self.lost[path] = path.read_bytes()
            unlink(path, missing_ok=missing_ok)

        def forget(folder: Path) -> None:
            sync(folder)
            self.lost = {path: data for path, data in self.lost.items() if path.parent != folder}

        patch.setattr(Path, "unlink", remember)
        patch.setattr(objects_module, "sync_folder", forget)

    def power_loss(self) -> None:
        for path, data in self.lost.items():
            path.write_bytes(data)


def power_loss_after_drop(toy: Toy) -> list[str]:
    toy.image("t", ["a"])
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch)
        toy.untag("t")
        toy.gc()
        disk.power_loss()
    return toy.verdict()


def without_fsync(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Objects, "_sync", lambda self, folders: None)


# 14. Of a commit's objects only those that it uses become live.


def second_writer(toy: Toy) -> list[str]:
    lease = toy.open()
    layer = toy.loose(lease, "a", "b")  # a pipe: it learns at the end that the blob was there already
    toy.image("t", ["a", "b"])
    assert toy.commit(lease, layer) == {layer.blob.digest}
    toy.close(lease)
    toy.orphans()
    toy.drop(toy.unlink())
    key = layer.blob.place.key
    bad = [] if toy.state(key) is None else [f"{key} is {toy.state(key)} and nobody uses it"]
    return bad + toy.verdict()


def without_choice(patch: pytest.MonkeyPatch) -> None:
    place = protocol.Commit.place

    def wake_all(self: protocol.Commit, blob: Any) -> bool:
        ours = place(self, blob)
        self.edges(blob.place)
        return ours

    patch.setattr(protocol.Commit, "place", wake_all)


# 15. Order is a counter, never a clock.


def clock_set_back(toy: Toy) -> list[str]:
    toy.image("t", ["a", "b"])
    reader = toy.open()
    opened = protocol.read_open(toy.catalog, reader, [digest_of(["a", "b"])])
    pack_loose(toy, "a", "b")
    toy.gc()
    try:
        toy.read(opened.blobs[digest_of(["a", "b"])], opened.segments)
    except NotFound as error:
        return [f"a leased reader lost {error.what}"]
    return toy.verdict()


def without_counter(patch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000, 0, -1))  # set back a little every time that it is looked at
    patch.setattr(rules, "next_gen", lambda tx: next(clock))


def pack_loose(toy: Toy, *chunks: str) -> None:
    """What the packer does to a loose blob, from one end to the other."""
    lease = toy.open()
    info = protocol_begin(toy.catalog, lease, chunks)
    pack = toy.pack(lease, *chunks)
    made: Made = toy.packed(lease, [pack[0].key], *chunks)
    assert rewrite.pack_commit(toy.catalog, lease, info.place.key, made.blob, made.objects + pack)
    toy.close(lease)


def protocol_begin(catalog: Catalog, lease: int, chunks: tuple[str, ...]) -> Any:
    info = rewrite.pack_begin(catalog, lease, digest_of(chunks))
    assert info is not None
    return info


# 18. A catalog that does not know the store's files, or its latest names, collects nothing.


def restored_catalog(toy: Toy) -> list[str]:
    """It comes from a backup, and nothing was deleted since that was taken. What was put upon the files that it knows
    it takes for garbage: an image that got its name since; one whose chunks lay there since."""
    named = toy.image("t", ["a"])
    _, pack, _ = toy.packed_image("first", "b", "c")
    toy.untag("t")
    saved = toy.backup()
    protocol.tag(toy.catalog, "r", "again", named)
    references.refresh(toy.catalog, toy.objects)
    lease = toy.open()
    assert protocol.name_objects(toy.catalog, lease, [pack]) == {pack}
    second = toy.packed(lease, [pack], "c")
    toy.commit(lease, second, tag="second")
    toy.close(lease)
    files = {key for key, _ in toy.objects.list()}
    bad = []
    for told in ("names", "files"):
        toy.restore(saved)
        if told == "files":  # the copy of the names was not written any more
            (toy.root / references.FILE).unlink()
        toy.untag("first")
        try:
            toy.collect()
        except Damaged as error:
            assert error.hint and "check --repair" in error.hint
        bad += [f"{key} is gone" for key in sorted(files - {key for key, _ in toy.objects.list()})]
    return bad


def without_looking(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(collector, "looked_at", lambda *_: None)


RULES: dict[int, tuple[Race, Without]] = {
    1: (expired_reader, without_expired),
    2: (hit_on_its_way_out, without_state),
    3: (tag_on_retired, without_live_target),
    4: (parent_between_roots, without_live_parent),
    5: (revived_manifest, without_closure),
    6: (younger_copy, without_keys),
    7: (moved_edge, without_comparison),
    8: (merged_multimap, without_multimap),
    9: (merged_while_retired, without_retired_packs),
    10: (merged_beside_a_writer, without_compare_and_set),
    11: (hit_elsewhere, without_edges),
    12: (resumed_writer, without_folder_first),
    13: (power_loss_after_drop, without_fsync),
    14: (second_writer, without_choice),
    15: (clock_set_back, without_counter),
    18: (restored_catalog, without_looking),
}


@pytest.mark.parametrize("number", RULES)
def test_with_the_rule_nothing_is_lost(number: int, toy: Toy) -> None:
    race, _ = RULES[number]
    assert race(toy) == []


@pytest.mark.parametrize("number", RULES)
def test_without_the_rule_something_is(number: int, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    race, without = RULES[number]
    without(monkeypatch)
    try:
        bad = race(toy)
    except CasstoreError as error:
        bad = [f"a command failed: {error}"]
    assert bad


def test_every_rule_is_named_where_it_is_kept() -> None:
    room = Path(protocol.__file__).parent
    named: set[int] = set()
    for path in room.glob("*.py"):
        for found in re.findall(r"[Rr]ules? ((?:\d+(?:, | and )?)+)", path.read_text("utf-8")):
            named.update(int(number) for number in re.findall(r"\d+", found))
    assert named >= set(RULES)


def test_a_merge_that_lost_a_pack_is_refused(toy: Toy) -> None:
    _, pack, s = toy.packed_image("one", "a")
    _, _, t = toy.packed_image("two", "b")
    merger = toy.open()
    merged = toy.merge(merger, [s, t], drop=[pack])
    with pytest.raises(Conflict):
        rewrite.merge_commit(toy.catalog, merger, [s, t], merged)
    assert toy.verdict() == []


def test_of_two_mergers_one_gives_up(toy: Toy) -> None:
    segments = [toy.packed_image(tag, tag)[2] for tag in ("one", "two")]
    mergers = [toy.open(), toy.open()]
    merged = [toy.merge(lease, segments) for lease in mergers]
    assert [rewrite.merge_commit(toy.catalog, m, segments, s) for m, s in zip(mergers, merged, strict=True)] == [
        True,
        False,
    ]
    assert toy.verdict() == []
