"""The two lines over a real store: what goes in comes out, whole and in ranges; frames, names, sizes of chunks."""

from __future__ import annotations

import hashlib
import random
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import sample
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from casstore import api
from casstore.digest import Digest
from casstore.errors import BadInput, CasstoreError, Damaged, DigestMismatch
from casstore.flow.frames import FrameBuilder, FramePool
from casstore.flow.ingest import Ingest
from casstore.flow.loose import SPOT_SPAN
from casstore.flow.naming import Names
from casstore.flow.restore import BlobReader
from casstore.flow.source import BytesSource
from casstore.kernels import hashing
from casstore.model import MAX_FRAME, BlobInfo
from casstore.store import protocol, query
from casstore.store.leases import Lease
from casstore.store.packs import PackShelf

KINDS = {
    "default": {},
    "blake3": {"chunk_digest": "blake3"},
    "4k": {"chunk_size": 4 << 10},
    "256k": {"chunk_size": 256 << 10},
}
BLOBS = {
    "empty": b"",
    "one byte": b"x",
    "small": b"0123456789" * 10,
    "no tar": sample.noise("no tar", 700_000),
    "tar": sample.rich_layer("in and out"),
    "tar of one large file": sample.files({"f": sample.noise("large", 9_000_000)}),
    "tar of many": sample.files({f"{i}": sample.text(i, i * 37 % 5000) for i in range(900)}),
    "zeros": bytes(6_000_000),
    "tar with zeros": sample.files({"a": b"a", "zeros": bytes(30_000_000), "b": b"b"}),
    "gzip": sample.gz(sample.rich_layer("gz")),
    "large gzip": sample.gz(sample.noise("large gz", 2_500_000)),
    "false gzip": b"\x1f\x8b\x08" + sample.noise("false", 200_000),
}


@pytest.fixture(scope="module", params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[api.Store]:
    """A store of each kind that holds all of BLOBS."""
    root = tmp_path_factory.mktemp("store") / "s"
    given = tmp_path_factory.mktemp("given") / "blob"
    api.init(root, **KINDS[request.param])
    with api.open(root) as opened:
        for data in BLOBS.values():
            given.write_bytes(data)
            assert opened.blobs.put(given) == Digest.of(data)
        yield opened


def whole(store: api.Store, data: bytes) -> bytes:
    return b"".join(store.blobs.cat(Digest.of(data)))


def info_of(store: api.Store, digest: Digest) -> BlobInfo:
    with store.volume.catalog.read() as tx:
        found = query.find_blob(tx, digest)
    assert found is not None
    return found


@pytest.mark.parametrize("name", BLOBS)
def test_whole(store: api.Store, name: str) -> None:
    assert whole(store, BLOBS[name]) == BLOBS[name]


@pytest.mark.parametrize("name", [name for name, data in BLOBS.items() if data])
def test_ranges_are_slices(store: api.Store, name: str) -> None:
    data, digest = BLOBS[name], Digest.of(BLOBS[name])
    chosen = random.Random(name)
    marks = {0, 1, len(data) - 1, len(data), SPOT_SPAN, SPOT_SPAN - 1, 4 << 20, (4 << 20) + 1, 512, 1024}
    marks |= {chosen.randint(0, len(data)) for _ in range(6)}
    ends = sorted(mark for mark in marks if mark <= len(data))
    for start in ends[:: max(len(ends) // 6, 1)]:
        for end in chosen.sample([end for end in ends if end >= start], 2) if start < ends[-2] else [len(data)]:
            assert b"".join(store.blobs.cat(digest, start, end)) == data[start:end], (start, end)


def test_a_range_past_the_end_is_cut_or_refused(store: api.Store) -> None:
    data = BLOBS["tar"]
    assert b"".join(store.blobs.cat(Digest.of(data), 5, len(data) + 100)) == data[5:]
    with pytest.raises(BadInput, match="outside"):
        next(store.blobs.cat(Digest.of(data), len(data) + 1))


def test_windows_are_the_same_made_ahead_or_one_by_one(store: api.Store) -> None:
    data = BLOBS["tar of one large file"]
    info = info_of(store, Digest.of(data))
    for ahead in (None, 0, 1, 7):
        assert b"".join(BlobReader(store.volume, info).read(ahead=ahead)) == data


def test_a_reader_may_be_left_half_way(store: api.Store) -> None:
    stream = store.blobs.cat(Digest.of(BLOBS["tar with zeros"]))
    first = bytes(next(stream))
    stream.close()
    assert BLOBS["tar with zeros"].startswith(first)


def test_facts_of_what_is_kept_loose(store: api.Store) -> None:
    for name, inside in (("gzip", sample.rich_layer("gz")), ("large gzip", sample.noise("large gz", 2_500_000))):
        info = info_of(store, Digest.of(BLOBS[name]))
        assert (info.place.state, info.encoding) == ("loose", "gzip")
        assert info.diffid == Digest.of(inside) and info.content_size == len(inside)
        assert len(info.spot) == 8 * -(-info.size // SPOT_SPAN)
    false = info_of(store, Digest.of(BLOBS["false gzip"]))
    assert false.place.state == "loose" and false.diffid is None


def test_frames_and_chunks_keep_their_bounds(store: api.Store) -> None:
    cutter = store.volume.file.cutter
    names = Names(store.volume.file.chunk_digest)
    with store.volume.catalog.read() as tx:
        keys = [row.key for row in query.objects(tx, "data")]
    for key in keys:
        pack = store.volume.packs.pack(key)
        table = pack.table
        assert int(table.lengths.max()) <= cutter.maximum
        assert int(pack.frames["raw"].max()) <= MAX_FRAME
        for number, raw in store.volume.packs.frames(key, range(len(pack.frames))).items():
            mine = table.addresses >> 22 == number
            starts = (table.addresses[mine] & (MAX_FRAME - 1)).astype(np.uint64)
            assert np.array_equal(names.of(raw, starts, table.lengths[mine]), table.digests[mine])
        digests = {digest.tobytes() for digest in table.digests}
        assert len(digests) == len(table.digests)


def test_what_is_equal_is_stored_once(store: api.Store) -> None:
    """The zeros of two blobs, a file that stands in two tars."""
    with store.volume.catalog.read() as tx:
        keys = [row.key for row in query.objects(tx, "data")]
    digests = [digest.tobytes() for key in keys for digest in store.volume.packs.pack(key).table.digests]
    assert len(set(digests)) == len(digests)
    assert store.df(verbose=False).stored_bytes < sum(map(len, BLOBS.values())) / 2


# -- ingest


def test_a_wrong_digest_is_refused_and_leaves_nothing(opened: api.Store) -> None:
    volume = opened.volume
    for pack in ("now", "later"):
        for data in (b"plain", sample.gz(b"packed")):
            with Lease(volume.catalog, volume.objects, "test") as lease:
                ingest = Ingest(volume, lease.id, pack=pack)
                with pytest.raises(DigestMismatch):
                    ingest.take(BytesSource(data), expect=Digest.of(b"other"))
                ingest.close()
    assert list(opened.blobs.ls()) == []
    assert opened.volume.objects.stagings() == []


def test_what_is_not_wanted_in_the_end_is_left_out(opened: api.Store) -> None:
    volume = opened.volume
    with Lease(volume.catalog, volume.objects, "test") as lease:
        ingest = Ingest(volume, lease.id)
        kept = ingest.take(BytesSource(sample.noise(1, 50_000))).digest
        ingest.take(BytesSource(sample.noise(2, 50_000)))
        loose = ingest.take(BytesSource(sample.gz(b"a"))).digest
        ingest.take(BytesSource(sample.gz(b"b")))
        written = ingest.finish({kept, loose})
        protocol.commit(volume.catalog, lease.id, written.blobs, objects=written.objects)
        ingest.close()
    assert {info.digest for info in opened.blobs.ls()} == {kept, loose}
    for digest in (kept, loose):
        assert Digest.of(b"".join(opened.blobs.cat(digest))) == digest
    assert opened.check(read_data=True).ok
    opened.gc(grace=0)
    assert opened.volume.objects.stagings() == []


def test_the_same_blob_taken_by_many_threads(opened: api.Store) -> None:
    data = [sample.rich_layer(seed % 3) for seed in range(12)]
    volume = opened.volume
    with Lease(volume.catalog, volume.objects, "test") as lease:
        ingest = Ingest(volume, lease.id)
        with ThreadPoolExecutor(6) as pool:
            taken = list(pool.map(lambda one: ingest.take(BytesSource(one)).digest, data))
        written = ingest.finish()
        protocol.commit(volume.catalog, lease.id, written.blobs, objects=written.objects)
        ingest.close()
    assert len(set(taken)) == 3 == len(written.blobs)
    for one in data[:3]:
        assert whole(opened, one) == one
    assert opened.check(read_data=True).ok


def test_other_digests_than_sha256_stay_loose(opened: api.Store) -> None:
    data = sample.rich_layer("sha512")
    expect = Digest("sha512", hashlib.sha512(data).digest())
    volume = opened.volume
    with Lease(volume.catalog, volume.objects, "test") as lease:
        ingest = Ingest(volume, lease.id)
        assert ingest.take(BytesSource(data), expect=expect).digest == expect
        with pytest.raises(DigestMismatch):
            ingest.take(BytesSource(b"x"), expect=expect)
        written = ingest.finish()
        protocol.commit(volume.catalog, lease.id, written.blobs, objects=written.objects)
        ingest.close()
    assert b"".join(opened.blobs.cat(expect)) == data
    assert b"".join(opened.blobs.cat(expect, 10, 600)) == data[10:600]


@given(st.lists(st.binary(max_size=3000), max_size=5), st.booleans())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_anything_comes_back(tmp_path_factory: pytest.TempPathFactory, blobs: list[bytes], later: bool) -> None:
    root = tmp_path_factory.mktemp("any")
    with api.open(root / "s") as store:
        for data in blobs:
            (root / "in").write_bytes(data)
            store.blobs.put(root / "in", pack="later" if later else "now")
        store.gc(grace=0)
        for data in blobs:
            assert whole(store, data) == data


# -- frames


def test_chunks_longer_than_a_frame_have_one_of_their_own(opened: api.Store) -> None:
    volume = opened.volume
    lengths = [100, 5000, 700, 100, 3000, 3000, 3001, 1, 6000]
    buffer = sample.noise("frames", sum(lengths))
    sizes = np.array(lengths, np.uint32)
    starts = np.cumsum(sizes, dtype=np.uint64) - sizes
    digests = hashing.names(buffer, starts, sizes)
    with Lease(volume.catalog, volume.objects, "test") as lease:
        shelf = PackShelf(
            volume.objects, lease.id, lambda key, kind: protocol.put_begin(volume.catalog, lease.id, [(key, kind)])
        )
        pool = FramePool(shelf, Names("sha256"), "zstd:1", 2)
        builder = FrameBuilder(pool, 3000)
        slots, addresses = builder.add(buffer, starts, sizes, digests)
        builder.close()
        pool.join()
        (sealed,) = shelf.seal()
        volume.objects.publish([sealed.staged])
        raw = volume.packs.frames(sealed.key, range(len(volume.packs.pack(sealed.key).frames)))
        assert max(map(len, raw.values())) == 6000 and slots.tolist() == [0] * len(lengths)
        for start, length, address in zip(starts.tolist(), lengths, addresses.tolist(), strict=True):
            frame = raw[address >> 22]
            assert frame[address & (MAX_FRAME - 1) :][:length] == buffer[start : start + length]
        pool.shutdown()
        shelf.close()


def test_a_frame_that_does_not_decode_to_its_chunks_stops_the_command(opened: api.Store) -> None:
    volume = opened.volume
    with Lease(volume.catalog, volume.objects, "test") as lease:
        shelf = PackShelf(
            volume.objects, lease.id, lambda key, kind: protocol.put_begin(volume.catalog, lease.id, [(key, kind)])
        )
        pool = FramePool(shelf, Names("sha256"), "none", 1)
        builder = FrameBuilder(pool)
        wrong = np.zeros((1, 32), np.uint8)
        builder.add(b"data", np.zeros(1, np.uint64), np.array([4], np.uint32), wrong)
        builder.close()
        with pytest.raises(Damaged, match="does not decode"):
            pool.join()
        pool.shutdown()
        shelf.close()


def test_what_a_range_decodes(tmp_path: Path) -> None:
    """A byte of a blob costs one frame, not the blob."""
    data = sample.files({"f": sample.noise("frames", 12_000_000)})
    (tmp_path / "in").write_bytes(data)
    with api.open(tmp_path / "s") as store:
        digest = store.blobs.put(tmp_path / "in")
    with api.open(tmp_path / "s") as store:
        assert b"".join(store.blobs.cat(digest, 6_000_000, 6_000_001)) == data[6_000_000:6_000_001]
        assert store.volume.packs.decoded_bytes <= 2 << 20
    with api.open(tmp_path / "s") as store:
        assert b"".join(store.blobs.cat(digest)) == data
        assert store.volume.packs.decoded_bytes <= 1.1 * len(data)


@pytest.mark.parametrize("kind", KINDS)
def test_versions_of_a_layer_stay_cheap_to_read_after_gc(tmp_path: Path, kind: str) -> None:
    """Amplification: what is decoded to restore a blob, once gc has packed all of it hard."""
    api.init(tmp_path / "s", **KINDS[kind])
    rng = random.Random(7)
    files = {f"lib/{i}": sample.text(("v", i), rng.randint(500, 60_000)) for i in range(80)}
    layers = []
    with api.open(tmp_path / "s") as store:
        for version in range(8):
            for name in rng.sample(sorted(files), 12):
                files[name] = sample.text((name, version), rng.randint(500, 60_000))
            layers.append(sample.tar(sample.entry(n, d, mtime=version) for n, d in sorted(files.items())))
            (tmp_path / "in").write_bytes(layers[-1])
            store.blobs.put(tmp_path / "in")
        store.gc(grace=0)
    ratios = []
    for layer in layers:
        with api.open(tmp_path / "s") as store:
            assert b"".join(store.blobs.cat(Digest.of(layer))) == layer
            ratios.append(store.volume.packs.decoded_bytes / len(layer))
    assert max(ratios) <= 3
    with api.open(tmp_path / "s") as store:
        assert store.check(read_data=True).ok


def test_progress_reaches_its_end(tmp_path: Path) -> None:
    told: dict[str, tuple[int, int | None]] = {}
    with api.open(tmp_path / "s", progress=lambda what, done, total: told.__setitem__(what, (done, total))) as store:
        (tmp_path / "in").write_bytes(sample.docker_archive(sample.rich_image()))
        store.load(tmp_path / "in")
        store.save(["rich:1"], tmp_path / "out")
        store.check()
    assert told and all(done == total for done, total in told.values())


def test_errors_of_a_source_are_passed_on(opened: api.Store) -> None:
    class Fails:
        size = 10_000_000

        def __init__(self) -> None:
            self.left = 5_000_000

        def readinto(self, view: memoryview) -> int:
            if self.left <= 0:
                raise CasstoreError("the wire was cut")
            got = min(len(view), self.left, 100_000)
            self.left -= got
            return got

    volume = opened.volume
    for pack in ("now", "later"):
        with Lease(volume.catalog, volume.objects, "test") as lease:
            ingest = Ingest(volume, lease.id, pack=pack)
            with pytest.raises(CasstoreError, match="the wire was cut"):
                ingest.take(Fails())
            ingest.close()
    assert volume.objects.stagings() == []


def test_layers_of_every_dialect(opened: api.Store, tmp_path: Path) -> None:
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        data = sample.rich_layer("dialect", kind=form)
        (tmp_path / "in").write_bytes(data)
        opened.blobs.put(tmp_path / "in")
        assert whole(opened, data) == data
