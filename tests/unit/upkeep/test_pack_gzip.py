"""gc packs gzip blobs: within its bounds, once per engine, only what comes back, and it says what it did."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import sample

from casstore import api
from casstore.digest import Digest
from casstore.flow import encoded, proof
from casstore.format import trace as trace_format
from casstore.kernels import deflate
from casstore.model import NewBlob, Place, Trace

pytestmark = pytest.mark.skipif(deflate.IMPLEMENTATION == "none", reason="gzip needs the compiled kernels")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[api.Store]:
    with api.open(tmp_path / "store") as opened:
        opened.config.set("min-free", "0")
        yield opened


def tar(seed: object, size: int = 60_000) -> bytes:
    return sample.files({"common": sample.noise("common", 100_000), f"own-{seed}": sample.text(seed, size)})


def odd(data: bytes) -> bytes:
    """By zlib with blocks of another size than anybody has, and flushes here and there: known, but for exceptions."""
    chance = random.Random(len(data))
    encoder = zlib.compressobj(6, zlib.DEFLATED, 31, 9)
    pieces = []
    for at in range(0, len(data), 5_000):
        pieces.append(encoder.compress(data[at : at + 5_000]))
        if chance.random() < 0.3:
            pieces.append(encoder.flush(zlib.Z_SYNC_FLUSH))
    return b"".join([*pieces, encoder.flush()])


def foreign(data: bytes) -> bytes:
    """Every match is one that no encoder would take: none at all, by Huffman codes only, from another zlib's rules."""
    encoder = zlib.compressobj(6, zlib.DEFLATED, 31, 8, zlib.Z_RLE)
    return encoder.compress(data) + encoder.flush()


def put(store: api.Store, folder: Path, data: bytes, pack: str | None = None) -> Digest:
    (folder / "in").write_bytes(data)
    return store.blobs.put(folder / "in", pack=pack)


def state(store: api.Store, digest: Digest) -> tuple[str, str]:
    facts = store.blobs.inspect(digest)
    return facts["State"], facts["Refused"]


def stored(store: api.Store) -> int:
    """Bytes of all objects."""
    return sum(path.stat().st_size for path in (store.root / "objects").rglob("*") if path.is_file())


def read(store: api.Store, digest: Digest) -> bytes:
    return b"".join(store.blobs.cat(digest))


def test_several_are_packed_and_told_by_encoder(store: api.Store, tmp_path: Path) -> None:
    blobs = [sample.gz(tar(n)) for n in range(5)] + [gzip.compress(tar(7), 9, mtime=0)]
    names = [put(store, tmp_path, data) for data in blobs]
    assert {state(store, name)[0] for name in names} == {"loose"}
    totals = store.gc(grace=0).totals
    assert (totals.blobs_packed, totals.blobs_left, totals.refused) == (6, 0, {})
    told = {name: tally.blobs for name, tally in totals.encoders.items()}
    assert told == {"zlib 1.2 level 6": 5, "zlib 1.2 level 9": 1}
    assert sum(tally.size for tally in totals.encoders.values()) == sum(map(len, blobs))
    for name, data in zip(names, blobs, strict=True):
        assert state(store, name) == ("packed", "") and read(store, name) == data
        facts = store.blobs.inspect(name)
        assert facts["Corrections"] == 0 and 0 < facts["TraceSize"] < 250
    # The common part is there once.
    assert stored(store) < sum(map(len, blobs)) / 2


def test_what_the_bound_leaves_is_for_the_next_run(store: api.Store, tmp_path: Path) -> None:
    blobs = [sample.gz(tar(n)) for n in range(4)]
    names = [put(store, tmp_path, data) for data in blobs]
    seen = []
    for _ in range(5):
        totals = store.gc(grace=0, max_bytes=max(map(len, blobs)) + 1).totals
        seen.append((totals.blobs_packed, totals.blobs_left))
    assert seen == [(2, 2), (2, 0), (0, 0), (0, 0), (0, 0)]  # the last may go over the bound
    assert [read(store, name) for name in names] == blobs
    more = put(store, tmp_path, sample.gz(tar("more")))
    totals = store.gc(grace=0, max_time=0).totals
    assert (totals.blobs_packed, totals.blobs_left) == (0, 1) and state(store, more) == ("loose", "")


def test_those_unread_for_the_longest_time_come_first(store: api.Store, tmp_path: Path) -> None:
    names = [put(store, tmp_path, sample.gz(tar(n))) for n in range(3)]
    with store.volume.catalog.write() as tx:
        for name, ago in zip(names, (50_000, 90_000, 10_000), strict=True):
            tx.run("UPDATE blob SET last_read = last_read - ? WHERE digest = ?", (ago, name.raw))
    packed = []
    for _ in range(3):
        store.gc(grace=0, max_bytes=1)
        packed.append([n for n, name in enumerate(names) if state(store, name)[0] == "packed"])
    assert packed == [[1], [0, 1], [0, 1, 2]]


def test_a_refusal_holds_for_the_engines_that_gave_it(
    store: api.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = foreign(sample.noise("runs", 40_000) + tar(1, 400_000))
    name = put(store, tmp_path, data)
    totals = store.gc(grace=0).totals
    assert totals.refused == {"no engine follows its encoder": 1} or "over trace.limit" in str(totals.refused)
    loose, reason = state(store, name)
    assert loose == "loose" and f"(engines {encoded.engines_here(0.03)})" in reason and read(store, name) == data
    assert store.gc(grace=0).totals.refused == {}  # it is not tried again
    monkeypatch.setattr(deflate, "engines", lambda: {("zlib", 1): (32768, 640)})
    assert len(store.gc(grace=0).totals.refused) == 1


def test_the_limit_of_a_trace(store: api.Store, tmp_path: Path) -> None:
    data = odd(tar("odd", 900_000))
    name = put(store, tmp_path, data)
    store.config.set("trace.limit", "0.001%")
    totals = store.gc(grace=0).totals
    assert len(totals.refused) == 1 and "over trace.limit (0.001 %)" in state(store, name)[1]
    store.config.set("trace.limit", "3%")
    assert store.gc(grace=0).totals.blobs_packed == 1
    assert state(store, name) == ("packed", "") and read(store, name) == data
    assert store.blobs.inspect(name)["Corrections"] > 0


def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traces are written of which one number is wrong."""
    encode = trace_format.encode

    def wrong(trace: Trace) -> bytes:
        first = trace.members[0]
        segment = first.segments[0]._replace(bits=first.segments[0].bits - 1)
        return encode(trace._replace(members=(first._replace(segments=(segment, *first.segments[1:])),)))

    monkeypatch.setattr(trace_format, "encode", wrong)


def test_what_does_not_come_back_stays_loose(
    store: api.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = sample.gz(tar(1))
    name = put(store, tmp_path, data)
    broken(monkeypatch)
    totals = store.gc(grace=0).totals
    assert totals.refused == {"it does not come back from its trace": 1} and totals.blobs_packed == 0
    now = put(store, tmp_path, other := sample.gz(tar(2)), "now")
    for each, wanted in ((name, data), (now, other)):
        assert state(store, each)[0] == "loose" and "does not come back" in state(store, each)[1]
        assert read(store, each) == wanted
    assert not store.check(read_data=True).findings


def test_what_would_come_back_too_slowly_stays_loose(
    store: api.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "_WARM", -1.0)
    name = put(store, tmp_path, sample.gz(tar(1)))
    assert store.gc(grace=0).totals.refused == {"making it again is too slow": 1}
    assert state(store, name)[0] == "loose"


@pytest.mark.parametrize("way", ["put", "load"])
def test_packed_on_the_way_in(store: api.Store, tmp_path: Path, way: str) -> None:
    one = sample.rich_image("now", ("now:1",))
    archive = sample.docker_archive(one, pack=sample.gz)
    layers = [sample.gz(layer) for layer in one.layers]
    (tmp_path / "in.tar").write_bytes(archive)
    if way == "load":
        store.load(tmp_path / "in.tar", pack="now")
    else:
        layers = layers[:1]
        put(store, tmp_path, layers[0], "now")
    for layer in layers:
        assert state(store, Digest.of(layer)) == ("packed", "") and read(store, Digest.of(layer)) == layer
    assert not any((tmp_path / "store" / "objects" / "blobs").rglob("*.*"))
    assert store.gc(grace=0).totals.blobs_packed == 0
    # The same once more, and under "never": it is there.
    store.load(tmp_path / "in.tar", pack="never")
    assert state(store, Digest.of(layers[0]))[0] == "packed"


def test_a_dry_run_tells_what_packing_would_save(store: api.Store, tmp_path: Path) -> None:
    for n in range(6):
        put(store, tmp_path, sample.gz(tar(n) + sample.noise(n, 20_000)))
    before = stored(store)
    saving = store.gc(grace=0, dry_run=True).saving
    assert saving is not None and saving.looked == saving.total
    assert stored(store) == before
    store.gc(grace=0)
    saved = before - stored(store)
    assert saved == pytest.approx(saving.bytes, rel=0.25)
    assert store.gc(grace=0, dry_run=True).saving is None


@pytest.mark.parametrize(
    ("encoding", "algorithm", "size", "fine"),
    [
        ("gzip", "sha256", 5, True),
        ("gzip", "sha256", None, True),  # nobody has looked into it
        ("gzip", "sha512", 5, False),
        ("zstd", "sha256", 5, False),
        ("identity", "sha256", 5, True),
    ],
)
def test_what_is_tried_at_all(encoding: str, algorithm: str, size: int | None, fine: bool) -> None:
    blob = NewBlob(Digest.of(b"", algorithm), 3, Place("loose", "key"), encoding=encoding, content_size=size)
    assert encoded.packable(blob) == fine
