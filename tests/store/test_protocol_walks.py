"""Random walks: every actor of PROTOCOL.md at once on one real store, a transaction at a time in any order.

After each step everything reachable must be readable; every few steps, and at the end, "all die, then
collect" must leave exactly what is reachable. Whoever holds a lease whose row is there must get what it was
promised.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

import pytest
from toys import Made, Toy, digest_of, spans

from casstore.digest import Digest
from casstore.errors import CasstoreError, Conflict, LeaseLost, NotFound
from casstore.model import BlobInfo, Used
from casstore.store import collector, protocol, query, rewrite
from casstore.store.objects import pack_key
from casstore.store.protocol import NewObject
from casstore.store.rewrite import Move

Actor = Iterator[None]
LAYERS = [("a",), ("a", "b"), ("b", "c"), ("a", "c", "d"), ("d",)]
TAGS = ["x", "y"]
STEPS = 250


class Broken(AssertionError):
    """A promise was broken."""


def writer(toy: Toy, rng: random.Random) -> Actor:
    lease = toy.open()
    yield
    children: list[Digest] = []
    made: list[Made] = []
    more: list[NewObject] = []
    for chunks in rng.sample(LAYERS, rng.randint(1, 2)):
        digest = digest_of(chunks)
        children.append(digest)
        if rng.random() < 0.6:  # a pipe does not know its digest, and does not ask
            toy.content[digest] = chunks
            present = protocol.name_blobs(toy.catalog, lease, [digest])
            yield
            if present:
                continue
        if rng.random() < 0.4:
            made.append(toy.loose(lease, *chunks))
            yield
        else:
            keys, new = yield from chunked(toy, lease, chunks)
            more += new
            made.append(toy.packed(lease, keys, *chunks))
            yield
    manifest = toy.loose(lease, "m" + "".join(one.hex[:6] for one in children), children=children)
    yield
    toy.commit(lease, *made, manifest, more=more, tag=rng.choice(TAGS))
    yield
    toy.close(lease)


def chunked(toy: Toy, lease: int, chunks: Sequence[str]) -> Iterator[None]:
    """The packs to take chunks from, old ones named under the lease; those that none has go into a new
    one."""
    segments = toy.segments()
    try:
        hits = toy.locate(chunks, segments)
    except NotFound:
        hits = []  # a segment went between the two: a writer just stores the chunk again
    yield
    usable = protocol.name_objects(toy.catalog, lease, hits)
    keys = sorted(usable)
    yield
    has = {word for key in keys for word in toy.words(key)}
    missing = [chunk for chunk in chunks if chunk not in has]
    if not missing:
        return keys, []  # type: ignore[return-value]
    new = toy.pack(lease, *missing)
    yield
    return [*keys, new[0].key], new  # type: ignore[return-value]


def packer(toy: Toy, rng: random.Random) -> Actor:
    with toy.catalog.read() as tx:
        loose = [one for one in query.blobs(tx) if one.place.state == "loose" and one.digest in toy.content]
    loose = [one for one in loose if not toy.content[one.digest][0].startswith("m")]
    if not loose:
        return
    digest = rng.choice(loose).digest
    lease = toy.open()
    yield
    info = rewrite.pack_begin(toy.catalog, lease, digest)
    yield
    if info is not None:
        promised(toy, lease, lambda: toy.read(info, []))
        chunks = toy.content[digest]
        keys, new = yield from chunked(toy, lease, chunks)
        made = toy.packed(lease, keys, *chunks)
        yield
        rewrite.pack_commit(toy.catalog, lease, info.place.key, made.blob, made.objects + new)
        yield
    toy.close(lease)


def repacker(toy: Toy, rng: random.Random) -> Actor:
    with toy.catalog.read() as tx:
        packs = [row.key for row in query.objects(tx, "data") if row.state == "live"]
    if not packs:
        return
    old = rng.choice(packs)
    lease = toy.open()
    yield
    named = protocol.name_objects(toy.catalog, lease, [old])
    with toy.catalog.read() as tx:
        plan = list(query.users(tx, old))
    yield
    if named and plan:
        words = promised(toy, lease, lambda: toy.words(old))
        used = {digest: [words[at] for low, high in edge for at in range(low, high)] for digest, edge in plan}
        kept = sorted({word for one in used.values() for word in one})
        new = toy.pack(lease, *kept)
        yield
        rewrite.repack_commit(toy.catalog, lease, new)
        yield
        for digest, edge in plan:
            to = (Used(new[0].key, spans(kept.index(word) for word in used[digest])),)
            rewrite.repack_move(toy.catalog, lease, [Move(digest, old, edge, to)])
            yield
    toy.close(lease)


def metadata_merger(toy: Toy, rng: random.Random) -> Actor:
    with toy.catalog.read() as tx:
        packed = [one for one in query.blobs(tx) if one.place.state == "packed"]
    if len(packed) < 2:
        return
    chosen = rng.sample(packed, 2)
    lease = toy.open()
    yield
    old = {one.place.key for one in chosen}
    named = protocol.name_objects(toy.catalog, lease, old)
    yield
    if named == old:
        data, records = b"", {}
        for one in chosen:
            with promised(toy, lease, lambda one=one: toy.objects.open(one.place.key)) as reader:
                record = reader.pread(one.place.offset, one.place.length)
            records[one.digest] = (0, len(data), len(record))
            data += record
        new = toy.put(lease, pack_key(rng.randbytes(16)), "metadata", data)
        yield
        rewrite.repack_commit(toy.catalog, lease, [new])
        yield
        for one in chosen:
            to = (Used(new.key, spans([])),)
            move = Move(one.digest, one.place.key, spans([]), to, records[one.digest])
            rewrite.repack_move(toy.catalog, lease, [move])
            yield
    toy.close(lease)


def merger(toy: Toy, rng: random.Random) -> Actor:
    lease = toy.open()
    yield
    with toy.catalog.read() as tx:
        segments = protocol.live_segments(tx)
    if len(segments) > 1:
        replaced = rng.sample(segments, 2)
        yield
        with toy.catalog.read() as tx:
            covered = query.covered_packs(tx, replaced)
            gone = query.gone_packs(tx, replaced)
        yield
        merged = promised(toy, lease, lambda: toy.merge(lease, replaced))
        yield
        if merged.packs:
            assert gone <= covered
            rewrite.merge_commit(toy.catalog, lease, replaced, merged)
            yield
    toy.close(lease)


def leased_reader(toy: Toy, rng: random.Random) -> Actor:
    lease = toy.open()
    yield
    tagged = toy.reachable()
    if tagged:
        opened = protocol.read_open(toy.catalog, lease, rng.sample(sorted(tagged), min(2, len(tagged))))
        yield
        for info in opened.blobs.values():
            data = promised(toy, lease, lambda info=info: toy.read(info, opened.segments))
            expect(toy, info, data)
            yield
    toy.close(lease)


def unleased_reader(toy: Toy, rng: random.Random) -> Actor:
    tagged = sorted(toy.reachable())
    if not tagged:
        return
    digest = rng.choice(tagged)
    before: tuple[object, ...] | None = None
    while True:
        with toy.catalog.read() as tx:
            info = query.find_blob(tx, digest)
            segments = protocol.live_segments(tx)
        if info is None:
            return
        now = (info.place.key, sorted(use.key for use in info.place.uses), segments)
        if now == before:
            raise Broken(f"a reader without lease: {digest.hex[:8]} cannot be read and the catalog stands still")
        yield
        try:
            expect(toy, info, toy.read(info, segments))
            return
        except NotFound:
            before = now


def tagger(toy: Toy, rng: random.Random) -> Actor:
    for _ in range(rng.randint(1, 3)):
        if rng.random() < 0.6:
            toy.untag(rng.choice(TAGS))
        else:
            with toy.catalog.read() as tx:
                manifests = [
                    Digest.unpack(row[0])
                    for row in tx.rows("SELECT DISTINCT b.digest FROM blob b JOIN child c ON c.parent = b.id")
                ]
            if manifests:
                try:
                    protocol.tag(toy.catalog, "r", rng.choice(TAGS), rng.choice(manifests))
                except NotFound:
                    pass
        yield


def gc(toy: Toy, rng: random.Random) -> Actor:
    """For ever: retiring more often than the rest, so that much is retired and little is gone."""
    keys: list[str] = []
    while True:
        row = rng.choice("rrrrooopqtudd")
        if row == "r":
            toy.retire()
        elif row == "o":
            toy.retire_objects()
        elif row == "p":
            toy.purge()
        elif row == "q":
            toy.purge_objects()
        elif row == "t":
            toy.orphans()
            yield
            collector.gc_tmp(toy.catalog, toy.objects)
        elif row == "u":
            keys = toy.unlink()
        else:
            toy.drop(keys)
        yield


def sleeper(toy: Toy, rng: random.Random) -> Actor:
    """The clock goes past somebody's lease."""
    for _ in range(2):
        with toy.catalog.write() as tx:
            ids = tx.rows("SELECT id FROM lease")
            if ids:
                tx.run("UPDATE lease SET expires = 0 WHERE id = ?", rng.choice(ids))
        yield
        collector.lease_expire(toy.catalog)
        yield


def promised(toy: Toy, lease: int, action: Callable[[], object]) -> object:
    """What a lease promised must be there while its row is."""
    try:
        return action()
    except CasstoreError as error:
        with toy.catalog.read() as tx:
            if tx.row("SELECT 1 FROM lease WHERE id = ?", (lease,)) is not None:
                raise Broken(f"under a lease: {error}") from error
        raise LeaseLost("gone with the lease") from error


def expect(toy: Toy, info: BlobInfo, data: object) -> None:
    if data != "".join(toy.content[info.digest]).encode():
        raise Broken(f"{info.digest.hex[:8]} reads back wrong")


ACTORS = [writer, writer, packer, packer, repacker, metadata_merger, merger, leased_reader, unleased_reader, tagger]


@pytest.mark.parametrize("seed", range(24))
def test_any_order(seed: int, toy: Toy) -> None:
    rng = random.Random(seed)
    collecting = gc(toy, rng)
    crowd = rng.randint(2, 6)
    running: list[tuple[str, Actor]] = []
    trail: list[str] = []
    for step in range(STEPS):
        while len(running) < crowd:
            start = rng.choice(ACTORS) if rng.random() < 0.97 else sleeper
            running.append((start.__name__, start(toy, rng)))
        at = rng.randrange(-2, len(running))
        name, actor = running[at] if at >= 0 else ("gc", collecting)
        trail.append(name)
        try:
            if at >= 0 and rng.random() < 0.02:  # killed: it does nothing any more, and its lease expires some day
                running.pop(at)
                continue
            next(actor)
        except (StopIteration, LeaseLost):
            running.pop(at)
        except Conflict as error:
            pytest.fail(f"seed {seed}, {name}: {error}; steps {trail}")
        except Broken as error:
            pytest.fail(f"seed {seed}, step {step}: {error}; steps {trail}")
        except NotFound as error:
            # A writer whose lease expired in between finds its parts gone: that is a lost lease too.
            if name not in ("writer", "packer", "repacker", "metadata_merger", "merger"):
                pytest.fail(f"seed {seed}, {name}: {error}; steps {trail}")
            raise
        bad = toy.broken() if step % 25 else toy.verdict()
        assert bad == [], f"seed {seed}, step {step}, after {name}; steps {trail}"
    assert toy.verdict() == []
