"""A small real store – SQLite catalog, files, index segments – whose actors are driven one transaction at a
time.

Content is made of chunks, given as words: a blob's bytes are its chunks' words in a row, a pack's file is the
words in it. So everything can be read back, and `Toy.verdict` can say what is lost.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from casstore.digest import Digest
from casstore.errors import CasstoreError, NotFound
from casstore.format.index import IndexSegment
from casstore.format.index import merge as merge_segments
from casstore.format.storefile import StoreFile
from casstore.model import BlobInfo, NewBlob, Place, Used
from casstore.store import collector, protocol, query
from casstore.store.catalog import Catalog
from casstore.store.index import IndexSet, encode_segment
from casstore.store.objects import Objects, Staged, index_key, loose_key, pack_id, pack_key
from casstore.store.protocol import NewObject
from casstore.store.site import keep_copy

TTL = 600.0


def name_of(chunk: str) -> np.ndarray:
    return np.frombuffer(Digest.of(chunk.encode()).raw, np.uint8)


def names_of(chunks: Sequence[str]) -> np.ndarray:
    return np.stack([name_of(chunk) for chunk in chunks]) if chunks else np.empty((0, 32), np.uint8)


def digest_of(chunks: Sequence[str]) -> Digest:
    return Digest.of("".join(chunks).encode())


def spans(addresses: Iterable[int]) -> np.ndarray:
    """Intervals that use these addresses of a toy pack, in which a chunk takes one."""
    ones = np.array(sorted(addresses), np.uint32)
    return query.merge_intervals(np.stack([ones, ones + 1], axis=1)) if len(ones) else np.empty((0, 2), np.uint32)


@dataclass(frozen=True)
class Made:
    """Something published under a lease and not yet committed."""

    blob: NewBlob
    objects: list[NewObject] = field(default_factory=list)


class Toy:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.objects = Objects.make(root)
        self.catalog = Catalog.make(root)
        with self.catalog.write("init") as tx:
            keep_copy(tx, StoreFile(id="0" * 32, created="2026-11-24T00:00:00Z"))
        self.content: dict[Digest, Sequence[str]] = {}
        """What blobs are made of, known to the tests alone."""

    # -- writers

    def open(self, ttl: float = TTL) -> int:
        lease = protocol.lease_open(self.catalog, "test", ttl)
        self.objects.make_staging(lease)
        return lease

    def close(self, lease: int) -> None:
        protocol.lease_close(self.catalog, lease)
        self.objects.remove_staging(lease)

    def stage(self, lease: int, key: str, kind: str, data: bytes) -> Staged:
        protocol.put_begin(self.catalog, lease, [(key, kind)])
        staged = self.objects.stage(lease, key)
        staged.write(data)
        return staged

    def put(self, lease: int, key: str, kind: str, data: bytes) -> NewObject:
        self.objects.publish([self.stage(lease, key, kind, data)])
        return NewObject(key, len(data))

    def loose(self, lease: int, *chunks: str, children: Sequence[Digest] = ()) -> Made:
        """A blob kept verbatim."""
        digest = digest_of(chunks)
        self.content[digest] = chunks
        key = loose_key(digest)
        made = self.put(lease, key, "blob", "".join(chunks).encode())
        return Made(NewBlob(digest, made.size, Place("loose", key), children=tuple(children)), [made])

    def pack(self, lease: int, *chunks: str) -> list[NewObject]:
        """A data pack of these chunks and the segment over it."""
        identity = secrets.token_bytes(16)
        pack = self.put(lease, pack_key(identity), "data", " ".join(chunks).encode())
        addresses = np.arange(len(chunks), dtype=np.uint32)
        data = encode_segment([(identity, names_of(chunks), addresses)])
        segment = self.put(lease, index_key(), "index", data)
        return [pack._replace(chunk_bytes=len(chunks)), segment._replace(packs=(pack.key,))]

    def packed(self, lease: int, packs: Sequence[str], *chunks: str, children: Sequence[Digest] = ()) -> Made:
        """A blob kept as a recipe over these packs; each of its chunks is taken from the first that has
        it."""
        digest = digest_of(chunks)
        self.content[digest] = chunks
        recipe = self.put(lease, pack_key(secrets.token_bytes(16)), "metadata", " ".join(chunks).encode())
        left = list(chunks)
        uses = []
        for key in packs:
            has = self.words(key)
            taken = [chunk for chunk in left if chunk in has]
            left = [chunk for chunk in left if chunk not in has]
            uses.append(Used(key, spans(has.index(chunk) for chunk in taken)))
        assert not left, f"no pack has {left}"
        place = Place("packed", recipe.key, 0, 0, recipe.size, tuple(uses))
        blob = NewBlob(digest, len("".join(chunks)), place, diffid=digest, children=tuple(children))
        return Made(blob, [recipe])

    def words(self, key: str) -> list[str]:
        with self.objects.open(key) as reader:
            return reader.pread(0, reader.size).decode().split()

    def locate(self, chunks: Sequence[str], segments: Sequence[str]) -> list[str]:
        """Keys of the packs in which the index finds these chunks, one for each chunk that it finds."""
        index = IndexSet(self.objects, list(segments))
        found = index.locate(names_of(chunks))
        return [pack_key(index.packs[int(pack)]) for pack, hit in zip(found.packs, found.found, strict=True) if hit]

    def commit(self, lease: int, *made: Made, more: Sequence[NewObject] = (), tag: str = "") -> set[Digest]:
        """Commit; `tag` points at the last blob."""
        tags = [("r", tag, made[-1].blob.digest)] if tag else []
        objects = [one for each in made for one in each.objects] + list(more)
        return protocol.commit(self.catalog, lease, [one.blob for one in made], objects=objects, tags=tags)

    def image(self, tag: str, *layers: Sequence[str], lease: int | None = None) -> Digest:
        """A manifest over loose layers, tagged."""
        mine = self.open() if lease is None else lease
        made = [self.loose(mine, *layer) for layer in layers]
        manifest = self.loose(mine, f"manifest-{tag}", children=[one.blob.digest for one in made])
        self.commit(mine, *made, manifest, tag=tag)
        if lease is None:
            self.close(mine)
        return manifest.blob.digest

    def packed_image(self, tag: str, *chunks: str) -> tuple[Digest, str, str]:
        """A manifest over one packed layer, tagged; returns the manifest, the pack's key, the segment's
        key."""
        lease = self.open()
        pack, segment = self.pack(lease, *chunks)
        layer = self.packed(lease, [pack.key], *chunks)
        manifest = self.loose(lease, f"manifest-{tag}", children=[layer.blob.digest])
        self.commit(lease, layer, manifest, more=[pack, segment], tag=tag)
        self.close(lease)
        return manifest.blob.digest, pack.key, segment.key

    def untag(self, *tags: str) -> None:
        protocol.untag(self.catalog, [("r", tag) for tag in tags])

    # -- readers

    def info(self, digest: Digest) -> BlobInfo | None:
        with self.catalog.read() as tx:
            return query.find_blob(tx, digest)

    def segments(self) -> list[str]:
        with self.catalog.read() as tx:
            return protocol.live_segments(tx)

    def read(self, info: BlobInfo, segments: Sequence[str], *, any_pack: bool = False) -> bytes:
        """A blob's bytes out of what a read transaction told; raises NotFound where a file is gone."""
        place = info.place
        if place.state == "loose":
            with self.objects.open(place.key) as reader:
                return reader.pread(0, reader.size)
        with self.objects.open(place.key) as reader:
            chunks = reader.pread(place.offset, place.length).decode().split()
        index = IndexSet(self.objects, list(segments))
        # Rule 11: a hit counts only in the packs that the blob has edges to.
        edges = {pack_id(use.key) for use in place.uses}
        allowed = np.array([any_pack or one in edges for one in index.packs], np.bool_)
        found = index.locate(names_of(chunks), lambda packs, _: allowed[packs])
        if not found.found.all():
            raise NotFound("chunk in none of its packs", what=str(info.digest))
        parts = [
            self.words(pack_key(index.packs[int(pack)]))[int(address)]
            for pack, address in zip(found.packs, found.addresses, strict=True)
        ]
        return "".join(parts).encode()

    # -- rewriters

    def merge(self, lease: int, replaced: Sequence[str], drop: Iterable[str] = ()) -> NewObject:
        """Publish the union of segments, without the entries of the packs in `drop`."""
        opened = []
        for key in replaced:
            with self.objects.open(key) as reader:
                opened.append(IndexSegment.open(reader.pread(0, reader.size)))
        without = {pack_id(key) for key in drop}
        data = merge_segments(opened, without)
        packs = {one for segment in opened for one in segment.pack_ids} - without
        merged = self.put(lease, index_key(), "index", data)
        return merged._replace(packs=tuple(pack_key(one) for one in packs))

    # -- the collector, row by row

    def retire(self, *digests: Digest) -> int:
        """gc.retire blob, of these or of all that may be."""
        with self.catalog.read() as tx:
            todo = collector.retirable_blobs(tx, tx.now())
            if digests:
                ids = [tx.value("SELECT id FROM blob WHERE digest = ?", (one.raw,)) for one in digests]
                todo = collector.Todo(one for one in ids if one is not None)
            young = tx.now()
        return _all(todo, lambda left: collector.gc_retire_blobs(self.catalog, left, young))

    def retire_objects(self) -> int:
        with self.catalog.read() as tx:
            todo = collector.retirable_objects(tx)
        return _all(todo, lambda left: collector.gc_retire_objects(self.catalog, left))

    def purge(self) -> int:
        with self.catalog.read() as tx:
            todo = collector.purgeable_blobs(tx)
        return _all(todo, lambda left: collector.gc_purge_blobs(self.catalog, left))

    def purge_objects(self) -> int:
        with self.catalog.read() as tx:
            todo = collector.purgeable_objects(tx)
        return _all(todo, lambda left: collector.gc_purge_objects(self.catalog, left))

    def orphans(self) -> int:
        with self.catalog.read() as tx:
            todo = collector.orphans(tx)
        return _all(todo, lambda left: collector.gc_orphans(self.catalog, self.objects, left))

    def unlink(self) -> list[str]:
        with self.catalog.read() as tx:
            keys = collector.deleting(tx)
        collector.gc_file(self.objects, keys)
        return keys

    def drop(self, keys: Iterable[str]) -> int:
        return collector.gc_drop(self.catalog, keys)

    def gc(self) -> None:
        """Everything that collects, but ends no lease: what the table allows at any time."""
        while sum(
            (
                self.orphans(),
                self.retire(),
                self.retire_objects(),
                self.purge(),
                self.purge_objects(),
                self.drop(self.unlink()),
            )
        ):
            pass

    def collect(self) -> collector.Collected:
        return collector.collect(self.catalog, self.objects)

    def state(self, key: str) -> str | None:
        with self.catalog.read() as tx:
            return tx.value("SELECT state FROM object WHERE key = ?", (key,))

    def blob_state(self, digest: Digest) -> str | None:
        with self.catalog.read() as tx:
            return tx.value("SELECT state FROM blob WHERE digest = ?", (digest.raw,))

    # -- a backup of the catalog

    def backup(self) -> bytes:
        """The catalog as it is now."""
        self.catalog.close()  # the last connection takes the log in
        return self.catalog.path.read_bytes()

    def restore(self, saved: bytes) -> None:
        self.catalog.close()
        for path in self.root.glob("catalog.sqlite*"):
            path.unlink()
        self.catalog.path.write_bytes(saved)
        self.catalog = Catalog(self.root)

    # -- what must hold

    def broken(self) -> list[str]:
        """I1: everything that a tag reaches is live and can be read, now."""
        bad = []
        segments = self.segments()
        for digest in sorted(self.reachable()):
            info = self.info(digest)
            if info is None:
                bad.append(f"{digest.hex[:8]} is reachable and not live")
                continue
            keys = {info.place.key, *(use.key for use in info.place.uses)}
            bad += [f"{key} is needed and {self.state(key)}" for key in sorted(keys) if self.state(key) != "live"]
            try:
                if self.read(info, segments) != "".join(self.content[digest]).encode():
                    bad.append(f"{digest.hex[:8]} reads back wrong")
            except CasstoreError as error:
                bad.append(f"{digest.hex[:8]} cannot be read: {error}")
        return bad

    def reachable(self) -> set[Digest]:
        with self.catalog.read() as tx:
            rows = tx.rows(
                "WITH RECURSIVE r(id) AS (SELECT target FROM tag UNION SELECT b.id FROM blob b JOIN pin p"
                " ON p.digest = b.digest WHERE b.state = 'live'"
                " UNION SELECT c.child FROM child c JOIN r ON r.id = c.parent)"
                " SELECT b.digest FROM r JOIN blob b ON b.id = r.id"
            )
        return {Digest.unpack(row[0]) for row in rows}

    def leaks(self) -> list[str]:
        """I4, where no lease is open and gc is done: rows and files are exactly those that are reachable."""
        bad = []
        with self.catalog.read() as tx:
            blobs = {Digest.unpack(row[0]) for row in tx.rows("SELECT digest FROM blob")}
            used = {row[0] for row in tx.rows("SELECT o.key FROM object o JOIN place e ON e.object = o.id")}
            used |= {
                row[0]
                for row in tx.rows(
                    "SELECT s.key FROM object s JOIN covers v ON v.segment = s.id"
                    " JOIN object p ON p.id = v.pack WHERE s.state = 'live'"
                )
            }
            rows = {row[0] for row in tx.rows("SELECT key FROM object")}
        bad += [f"row of blob {digest.hex[:8]}" for digest in sorted(blobs - self.reachable())]
        bad += [f"row of object {key}" for key in sorted(rows - used)]
        bad += [f"file {key} without row" for key, _ in sorted(self.objects.list()) if key not in rows]
        bad += [f"staging of lease {lease}" for lease in self.objects.stagings()]
        return bad

    def verdict(self) -> list[str]:
        """What is wrong now, and what would be wrong if everybody died here and gc ran to its end (in a
        copy)."""
        bad = [f"now: {one}" for one in self.broken()]
        copy = self.root.with_name(f"{self.root.name}.{secrets.token_hex(4)}")
        shutil.copytree(self.root, copy, ignore=shutil.ignore_patterns("*-shm"))
        other = Toy.__new__(Toy)
        other.root, other.objects, other.content = copy, Objects(copy), self.content
        other.catalog = Catalog(copy)
        try:
            with other.catalog.write() as tx:
                tx.run("UPDATE lease SET expires = 0")
            other.collect()
            bad += [f"after all died: {one}" for one in other.broken()]
            bad += [f"leak after all died: {one}" for one in other.leaks()]
        except CasstoreError as error:
            bad.append(f"after all died: gc fails: {error}")
        finally:
            other.catalog.close()
            shutil.rmtree(copy)
        return bad


def _all(todo: collector.Todo, step: Callable[[collector.Todo], int]) -> int:
    done = 0
    while todo:
        done += step(todo)
    return done


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Toy]:
    """An empty store; in memory where the machine has such a place, for what is tested here is order."""
    memory = Path("/dev/shm")
    place = tmp_path
    if os.access(memory, os.W_OK):
        place = memory / f"casstore-test-{secrets.token_hex(6)}"
        place.mkdir(mode=0o700)
    monkeypatch.setattr(collector, "PAUSE", 0.0)
    made = Toy(place / "store")
    try:
        yield made
    finally:
        made.catalog.close()
        if place != tmp_path:
            shutil.rmtree(place)
