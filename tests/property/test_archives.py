"""Archives in and out: whatever is in the layers comes back; whatever is done to an archive is an error or an image,
never anything else, and an error changes nothing."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import random
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sample
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from casstore import api
from casstore.digest import Digest
from casstore.errors import CasstoreError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

EXAMPLES = int(os.environ.get("CASSTORE_EXAMPLES", "30"))
OUTER = {"none": bytes, "gzip": sample.gz, "bzip2": bz2.compress, "xz": lzma.compress, "zstd": zstd.compress}
relaxed = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


@st.composite
def layers(draw: st.DrawFn) -> bytes:
    match draw(st.sampled_from(["bytes", "tar", "tar", "rich", "cut", "zeros"])):
        case "bytes":
            return draw(st.binary(max_size=2000))
        case "rich":
            return sample.rich_layer(draw(st.integers(0, 2)))
        case "zeros":
            return bytes(draw(st.integers(0, 200_000)))
        case kind:
            sizes = draw(st.lists(st.integers(0, 70_000), max_size=4))
            made = sample.files({f"{n}": sample.text(size, size) for n, size in enumerate(sizes)})
            return made if kind == "tar" else made[: draw(st.integers(0, len(made)))]


@st.composite
def images(draw: st.DrawFn) -> list[sample.Image]:
    """One to three, with layers in common."""
    pool = draw(st.lists(layers(), min_size=1, max_size=3))
    made = []
    for number in range(draw(st.integers(1, 3))):
        some = draw(st.lists(st.sampled_from(pool), max_size=4))
        tags = [f"i{number}:{n}" for n in range(draw(st.integers(0, 2)))]
        made.append(sample.image(number, tags, some))
    return made


def load(store: api.Store, data: bytes, way: str) -> None:
    """From a file, or through a pipe."""
    if way == "file":
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            store.load(file.name)
        return
    out, into = os.pipe()

    def feed() -> None:
        with os.fdopen(into, "wb") as pipe:
            try:
                pipe.write(data)
            except BrokenPipeError:
                pass

    writer = threading.Thread(target=feed)
    writer.start()
    try:
        store.load(out)
    finally:
        os.close(out)
        writer.join()


def plain(layer: bytes) -> bytes:
    return gzip.decompress(layer) if layer[:3] == b"\x1f\x8b\x08" else layer


@given(
    images(),
    st.sampled_from(["docker", "docker gzip", "oci", "oci gzip"]),
    st.sampled_from(sorted(OUTER)),
    st.sampled_from(["file", "pipe"]),
    st.sampled_from(["docker-archive", "oci-archive"]),
    st.booleans(),
)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=relaxed)
def test_what_is_loaded_is_saved(
    made: list[sample.Image], form: str, outer: str, way: str, out: str, collect: bool
) -> None:
    kind, packed = form.split(" ")[0], form.endswith("gzip")
    if kind == "docker":
        data = sample.docker_archive(*made, pack=sample.gz if packed else bytes)
    else:
        data = sample.oci_archive(*made, packed=packed)
    ids = [one.id for one in made]
    with tempfile.TemporaryDirectory() as folder:
        archives = []
        for number in range(2):
            with api.open(Path(folder, f"s{number}")) as store:
                load(store, OUTER[outer](data) if not number else archives[0], way)
                if collect:
                    store.gc(grace=0)
                assert {str(row.id) for row in store.images()} == set(ids)
                for one in made:
                    assert b"".join(store.blobs.cat(Digest.of(one.config))) == one.config
                store.save(ids, Path(folder, "out"), format=out)
                archives.append(Path(folder, "out").read_bytes())
                assert store.check(read_data=True).ok
        assert archives[0] == archives[1]
        if out == "docker-archive":
            saved = sample.saved_images(archives[0])
            assert {key: [plain(layer) for layer in found[1]] for key, found in saved.items()} == {
                one.id: [plain(layer) for layer in one.layers] for one in made
            }


# -- hostile

GOOD = {
    "docker": sample.docker_archive(sample.rich_image("h", ["h:1"]), sample.image("two", ["h:2"])),
    "oci": sample.oci_archive(sample.image("h", ["h:1"], [sample.files({"f": sample.text("f", 3000)})] * 2)),
    "index": sample.platforms()[0].tar(),
    "gzip": sample.gz(sample.docker_archive(sample.image("g", ["h:1"]))),
    "zstd": zstd.compress(sample.docker_archive(sample.image("g", ["h:1"]))),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[api.Store]:
    with api.open(tmp_path_factory.mktemp("hostile") / "s") as opened:
        load(opened, sample.docker_archive(sample.image("before", ["before:1"])), "file")
        yield opened


def state(store: api.Store) -> list[tuple[Any, ...]]:
    with store.volume.catalog.read() as tx:
        return [
            *tx.rows("SELECT digest, state, loc FROM blob WHERE state = 'live' ORDER BY id"),
            *tx.rows("SELECT * FROM tag ORDER BY repository, tag"),
            *tx.rows("SELECT * FROM pin ORDER BY digest, name"),
            *tx.rows("SELECT manifest FROM image ORDER BY manifest"),
            *tx.rows("SELECT key FROM object WHERE state = 'live' ORDER BY id"),
        ]


def spoil(data: bytes, seed: int) -> bytes:
    """A few changes: bytes flipped, digits and quotes of documents exchanged, blocks dropped, doubled, swapped, cut."""
    chosen = random.Random(seed)
    raw = bytearray(data)
    for _ in range(chosen.randint(1, 3)):
        if not raw:
            break
        at = chosen.randrange(len(raw))
        block = at // 512 * 512
        match chosen.randrange(8):
            case 0:
                raw[at] ^= 1 << chosen.randrange(8)
            case 1:
                raw[at : at + chosen.randint(1, 20)] = b""
            case 2:
                del raw[at:]
            case 3:
                del raw[block : block + 512]
            case 4:
                raw[block:block] = raw[block : block + 512]
            case 5:
                found = raw.find(chosen.choice([b'"', b"[", b"{", b":", b"sha256", b".tar", b"1"]), at)
                if found >= 0:
                    instead = [b"", b"0", b"null", b'"', b"../", b"[" * 99, b"1e999", b"\xff"]
                    raw[found : found + 1] = chosen.choice(instead)
            case 6:
                header = raw.find(b"ustar", at)
                if header >= 257:
                    start = header - 257
                    fields = [(0, 100), (124, 12), (148, 8), (156, 1), (157, 100), (345, 155)]
                    where, size = chosen.choice(fields)
                    raw[start + where : start + where + size] = chosen.choice(
                        [bytes(size), b"7" * size, b"\xff" * size, b"\x80" + bytes(size - 1), b"../" * size]
                    )[:size]
                    if chosen.random() < 0.8:
                        resum(raw, start)
            case 7:
                other = chosen.randrange(len(raw)) // 512 * 512
                raw[block : block + 512], raw[other : other + 512] = raw[other : other + 512], raw[block : block + 512]
    return bytes(raw)


def resum(raw: bytearray, start: int) -> None:
    """Make a tar header's checksum right again."""
    head = raw[start : start + 512]
    head[148:156] = b" " * 8
    raw[start + 148 : start + 156] = b"%06o\0 " % sum(head)


@given(st.sampled_from(sorted(GOOD)), st.integers(0, 2**40), st.sampled_from(["file", "pipe"]), st.booleans())
@settings(max_examples=10 * EXAMPLES, deadline=None, suppress_health_check=relaxed)
def test_a_spoilt_archive_is_an_error_or_an_image(store: api.Store, form: str, seed: int, way: str, all_: bool) -> None:
    before = state(store)
    data = spoil(GOOD[form], seed)
    try:
        load(store, data, way)
    except CasstoreError as error:
        assert "\n" not in str(error)
        assert state(store) == before
        assert store.volume.objects.stagings() == []
        return
    for row in store.images():
        assert store.verify(str(row.id)).ok
        with open(os.devnull, "wb") as nowhere:
            store.save([str(row.id)], nowhere.fileno())
    list(store.remove([str(row.id) for row in store.images() if row.repository != "before"], force=True))
    store.gc(grace=0, max_time=0)
    assert {row.repository for row in store.images()} <= {"before"}


def test_members_of_a_wrong_size_are_told_quickly() -> None:
    """A header that claims a terabyte: nothing of that size is asked for."""
    info, _ = sample.entry("manifest.json")
    info.size = 1 << 40
    for data in (info.tobuf() + b"[]", sample.plain_tar({"x": b"y"})[:-1024] + info.tobuf()):
        with tempfile.TemporaryDirectory() as folder, api.open(Path(folder, "s")) as store:
            for way in ("file", "pipe"):
                with pytest.raises(CasstoreError):
                    load(store, data, way)
