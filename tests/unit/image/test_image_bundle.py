"""Bundles: images from one store into another that has some of their content, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sample

from casstore import api
from casstore.digest import Digest
from casstore.errors import BadInput, Damaged, DigestMismatch, LimitExceeded, NotFound, ReadOnlyStore, StoreUnusable
from casstore.flow.ingest import Ingest
from casstore.flow.source import BytesSource
from casstore.flow.split import Pieces
from casstore.format import bundle as bundle_format
from casstore.format import recipe as recipe_format
from casstore.format.bundle import BundleReader, BundleWriter, Kind, Part
from casstore.format.encoding import zstd
from casstore.model import Recipe
from casstore.store import names, protocol
from casstore.store.leases import Lease

SIGNATURE = "application/vnd.example.signature"


@pytest.fixture
def other(tmp_path: Path) -> Iterator[api.Store]:
    """The store on the other side."""
    with api.open(tmp_path / "other") as store:
        yield store


def layer(seed: object, changed: bytes = b"") -> bytes:
    """A layer of files small and large; `changed` is in one of them."""
    files = {f"usr/lib/{n}.txt": sample.text((seed, n), 3000 + 900 * n) for n in range(30)}
    files |= {"usr/bin/large": sample.text((seed, "large"), 300_000), "usr/bin/noise": sample.noise(seed, 90_000)}
    return sample.files(files | {"usr/lib/7.txt": b"changed" + changed} if changed else files)


def versions(count: int = 3) -> list[sample.Image]:
    base = layer("base")
    return [sample.image(n, [f"app:{n}"], [base, layer("app", b"%d" % n)], comment=str(n)) for n in range(count)]


def load(store: api.Store, archive: bytes, folder: Path, **more: Any) -> None:
    (folder / "in.tar").write_bytes(archive)
    store.load(folder / "in.tar", **more)


def saved(store: api.Store, folder: Path, *names: str, form: str = "oci-archive") -> bytes:
    store.save(names, folder / "out.tar", format=form)
    return (folder / "out.tar").read_bytes()


def same(one: api.Store, two: api.Store, folder: Path, *names: str) -> None:
    """Every byte of these images is the same in both stores, and the other store is sound."""
    assert saved(one, folder, *names) == saved(two, folder, *names)
    report = two.check(read_data=True)
    assert not report.findings, report.findings


def whole(store: api.Store) -> dict[str, Any]:
    with store.volume.catalog.read() as tx:
        return {
            "blobs": tx.rows("SELECT digest, state FROM blob ORDER BY digest"),
            "tags": tx.rows("SELECT * FROM tag ORDER BY repository, tag"),
            "pins": tx.rows("SELECT * FROM pin ORDER BY digest, name"),
            "objects": tx.rows("SELECT key FROM object WHERE state <> 'pending' ORDER BY key"),
        }


# -- there and back


@pytest.mark.parametrize("pack", [None, "never"])
@pytest.mark.parametrize("pack_there", [None, "never"])
def test_a_version_to_a_store_that_has_the_one_before(
    opened: api.Store, other: api.Store, tmp_path: Path, pack: str | None, pack_there: str | None
) -> None:
    one, two, three = versions()
    load(opened, sample.docker_archive(one, two, three), tmp_path, pack=pack)
    load(other, sample.docker_archive(one), tmp_path, pack=pack_there)
    report = opened.bundle(["app:1", "app:2"], tmp_path / "b", have=["app:0"])
    told = other.load_bundle(tmp_path / "b")
    assert told.loaded == ["Loaded image: app:1", "Loaded image: app:2"]
    same(opened, other, tmp_path, "app:1", "app:2")
    assert report.size == (tmp_path / "b").stat().st_size < 12_000
    assert str(report.digest) == "sha256:" + hashlib.sha256((tmp_path / "b").read_bytes()).hexdigest()
    assert report.chunk_bytes < 20_000


def test_a_bundle_without_bases_is_for_any_store(opened: api.Store, other: api.Store, tmp_path: Path) -> None:
    load(opened, sample.docker_archive(*versions(2)), tmp_path)
    opened.bundle(["app:0", "app:1"], tmp_path / "b")
    other.load_bundle(tmp_path / "b")
    same(opened, other, tmp_path, "app:0", "app:1")
    before = whole(other)
    other.load_bundle(tmp_path / "b")
    assert whole(other)["blobs"] == before["blobs"] and whole(other)["tags"] == before["tags"]


@pytest.mark.parametrize("packed", [False, True], ids=["loose", "packed"])
@pytest.mark.parametrize("plain_there", [False, True], ids=["gzip there", "plain there"])
def test_gzip_layers_go_as_their_content_and_a_trace(
    opened: api.Store, other: api.Store, tmp_path: Path, packed: bool, plain_there: bool
) -> None:
    one, two = versions(2)
    load(opened, sample.oci_archive(one, two), tmp_path, pack="now" if packed else None)
    load(other, sample.oci_archive(one), tmp_path)
    report = opened.bundle(["app:1"], tmp_path / "b", have=["app:0"])
    assert report.size < 12_000, "a layer went as it is"
    other.load_bundle(tmp_path / "b")
    same(opened, other, tmp_path, "app:1")


def test_what_cannot_be_taken_apart_goes_as_it_is(opened: api.Store, other: api.Store, tmp_path: Path) -> None:
    load(opened, sample.docker_archive(*versions(1), pack=zstd.compress), tmp_path)
    opened.bundle(["app:0"], tmp_path / "b")
    assert "whole" in {one["Carried"] for one in api.inspect_bundle(tmp_path / "b")["Blobs"]}
    other.load_bundle(tmp_path / "b")
    same(opened, other, tmp_path, "app:0")


def test_a_base_that_is_compressed_otherwise_there(opened: api.Store, other: api.Store, tmp_path: Path) -> None:
    one, two = versions(2)
    load(opened, sample.docker_archive(one, pack=zstd.compress), tmp_path)
    load(other, sample.docker_archive(one, pack=zstd.compress), tmp_path)
    load(opened, sample.docker_archive(two), tmp_path)
    report = opened.bundle(["app:1"], tmp_path / "b", have=["app:0"])
    assert report.size < 12_000
    other.load_bundle(tmp_path / "b")
    same(opened, other, tmp_path, "app:1")


@pytest.mark.parametrize("collected", [False, True], ids=["loose", "after gc"])
def test_a_config_that_is_larger_than_most(
    opened: api.Store, other: api.Store, tmp_path: Path, collected: bool
) -> None:
    """It is read before the rest of the image is there."""
    labels = {f"label {number}": "x" * 1000 for number in range(300)}
    one = sample.image("wordy", ["wordy:1"], [layer("wordy")], config={"Labels": labels})
    load(opened, sample.docker_archive(one), tmp_path)
    if collected:
        opened.gc()
    opened.bundle(["wordy:1"], tmp_path / "bundle")
    other.load_bundle(tmp_path / "bundle")
    same(opened, other, tmp_path, "wordy:1")


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_bundle_since_another(opened: api.Store, other: api.Store, tmp_path: Path) -> None:
    load(opened, sample.docker_archive(*versions(3)), tmp_path)
    opened.bundle(["app:0"], tmp_path / "first")
    opened.bundle(["app:1"], tmp_path / "second", since=tmp_path / "first")
    opened.bundle(["app:2"], tmp_path / "third", since=tmp_path / "second")
    with pytest.raises(NotFound, match="base blob sha256:"):
        other.load_bundle(tmp_path / "second")
    for name in ("first", "second", "third"):
        other.load_bundle(tmp_path / name)
    same(opened, other, tmp_path, "app:0", "app:1", "app:2")
    sizes = [(tmp_path / name).stat().st_size for name in ("first", "second", "third")]
    assert sizes[1] < sizes[0] / 4 and sizes[2] < sizes[0] / 4


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_list_of_what_the_other_side_has(opened: api.Store, other: api.Store, tmp_path: Path, form: str) -> None:
    one, two = versions(2)
    load(opened, sample.docker_archive(one, two), tmp_path)
    load(other, sample.docker_archive(one, sample.image("else", ["else:1"])), tmp_path)
    lines = other.base_list()
    if form == "json":
        lines = [json.dumps({"Digest": str(one), "Size": size, "DiffID": None}) for one, size, _ in other.bases()]
    write(tmp_path / "have", "\n".join(lines).encode())
    report = opened.bundle(["app:1"], tmp_path / "b", have_file=tmp_path / "have")
    assert report.size < 12_000
    other.load_bundle(tmp_path / "b")
    same(opened, other, tmp_path, "app:1")


@pytest.mark.parametrize(("digest", "size"), [("blake3", 16 << 10), ("sha256", 4 << 10), ("sha256", 256 << 10)])
def test_stores_that_are_made_otherwise_but_alike(tmp_path: Path, digest: str, size: int) -> None:
    for name in ("one", "two"):
        api.init(tmp_path / name, chunk_digest=digest, chunk_size=size)
    with api.open(tmp_path / "one") as one, api.open(tmp_path / "two") as two:
        load(one, sample.docker_archive(*versions(2)), tmp_path)
        load(two, sample.oci_archive(versions(1)[0]), tmp_path)
        one.bundle(["app:1"], tmp_path / "b", have=["app:0"])
        two.load_bundle(tmp_path / "b")
        same(one, two, tmp_path, "app:1")


FORMS: dict[str, tuple[Callable[..., bytes], str | None]] = {
    "plain": (sample.docker_archive, None),
    "plain, loose": (sample.docker_archive, "never"),
    "gzip": (sample.oci_archive, "now"),
    "gzip, loose": (sample.oci_archive, None),
    "zstd": (lambda *images: sample.docker_archive(*images, pack=zstd.compress), None),
}


@pytest.mark.parametrize(
    ("here", "there", "told"),
    [
        ("plain", "gzip", "have"),
        ("plain, loose", "gzip, loose", "have"),
        ("plain", "zstd", "have"),
        ("gzip", "plain", "have"),
        ("zstd", "gzip", "have"),
        ("plain", "gzip, loose", "have-file"),
        ("plain, loose", "gzip", "have-file"),
        ("plain", "zstd", "have-file"),
        ("gzip", "plain", "have-file"),
        ("gzip", "gzip, loose", "have-file"),
        ("gzip", "zstd", "have-file"),
        ("gzip, loose", "plain, loose", "have-file"),
        ("gzip, loose", "zstd", "have-file"),
        ("zstd", "plain", "have-file"),
    ],
)
def test_a_base_that_is_the_same_inside(
    opened: api.Store, other: api.Store, tmp_path: Path, here: str, there: str, told: str
) -> None:
    """The layers of app:0 are of another form on the other side."""
    images = versions(2)
    make, pack = FORMS[here]
    load(opened, make(*images), tmp_path, pack=pack)
    make, pack = FORMS[there]
    load(other, make(images[0]), tmp_path, pack=pack)
    before = whole(other)
    write(tmp_path / "have", "\n".join(other.base_list()).encode())
    more = {"have": ["app:0"]} if told == "have" else {"have_file": tmp_path / "have"}
    report = opened.bundle(["app:1"], tmp_path / "b", **more)
    if told == "have" and not here.startswith("plain"):
        # What the images share is a layer itself: its compressed bytes are on neither side there.
        with pytest.raises(NotFound, match=r"only its content is, as sha256:.*bundle have"):
            other.load_bundle(tmp_path / "b")
        assert whole(other) == before
        return
    if not here.startswith("zstd"):  # which goes as it is, or not at all
        assert report.size < 25_000
    other.load_bundle(tmp_path / "b")
    same(opened, other, tmp_path, "app:1")


@pytest.mark.parametrize("form", FORMS)
def test_from_a_store_that_nobody_can_write(
    opened: api.Store, other: api.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    images = versions(2)
    make, pack = FORMS[form]
    load(opened, make(*images), tmp_path, pack=pack)
    load(other, make(images[0]), tmp_path, pack=pack)
    opened.close()
    there = sorted(opened.root.rglob("*"))
    with monkeypatch.context() as patched:
        patched.setattr("casstore.store.catalog.os.access", lambda *_: False)
        with api.open(opened.root) as store:
            report = store.bundle(["app:1"], tmp_path / "b", have=["app:0"])
            assert store.base_list()
            with pytest.raises(ReadOnlyStore):
                store.load_bundle(tmp_path / "b")
    assert sorted(opened.root.rglob("*")) == there
    if "loose" not in form and form != "zstd":  # what is loose there goes as it is
        assert report.size < 12_000
    other.load_bundle(tmp_path / "b")
    with api.open(opened.root) as store:
        same(store, other, tmp_path, "app:1")


def test_pipes_from_end_to_end(opened: api.Store, other: api.Store, tmp_path: Path) -> None:
    load(opened, sample.docker_archive(*versions(2)), tmp_path)
    out, into = os.pipe()
    told: list[Any] = []

    def receive() -> None:
        try:
            told.append(other.load_bundle(out).loaded)
        except BaseException as error:
            told.append(error)
        finally:
            os.close(out)

    thread = threading.Thread(target=receive)
    thread.start()
    opened.bundle(["app:0", "app:1"], into)
    os.close(into)
    thread.join()
    assert told == [["Loaded image: app:0", "Loaded image: app:1"]]
    same(opened, other, tmp_path, "app:0", "app:1")


@pytest.mark.parametrize("everything", [False, True])
def test_an_index_goes_with_this_platform_or_with_all(
    opened: api.Store, other: api.Store, tmp_path: Path, everything: bool
) -> None:
    layout, images = sample.platforms()
    load(opened, layout.tar(), tmp_path, all_platforms=True)
    opened.bundle(["many:1"], tmp_path / "b", all_platforms=everything)
    other.load_bundle(tmp_path / "b")
    assert other.identify("many:1") == opened.identify("many:1")
    there = {str(row.config) for row in image_rows(other)}
    assert len(there) == (len(images) if everything else 1)
    if not everything:
        opened.bundle(["many:1"], tmp_path / "rest", all_platforms=True, since=tmp_path / "b")
        other.load_bundle(tmp_path / "rest")
    assert {str(row.config) for row in image_rows(other)} == {one.id for one in images.values()}
    same(opened, other, tmp_path, "many:1")


def image_rows(store: api.Store) -> list[Any]:
    with store.volume.catalog.read() as tx:
        return [Digest.unpack(row[0]) and Row(Digest.unpack(row[0])) for row in tx.rows("SELECT config FROM image")]


class Row:
    def __init__(self, config: Digest) -> None:
        self.config = config


def test_no_tags(opened: api.Store, other: api.Store, tmp_path: Path) -> None:
    one = versions(1)[0]
    load(opened, sample.docker_archive(one), tmp_path)
    opened.bundle(["app:0"], tmp_path / "b")
    told = other.load_bundle(tmp_path / "b", tags=False)
    assert told.loaded == [f"Loaded image ID: {one.id}"]
    assert [(image.repository, str(image.id)) for image in other.images()] == [(None, one.id)]
    other.gc(grace=0)
    assert other.verify(one.id)


def test_a_name_that_moves(opened: api.Store, other: api.Store, tmp_path: Path) -> None:
    one = versions(1)[0]
    former = sample.image("former", ["app:0"])
    load(opened, sample.docker_archive(one), tmp_path)
    load(other, sample.docker_archive(former), tmp_path)
    opened.bundle(["app:0"], tmp_path / "b")
    told = other.load_bundle(tmp_path / "b")
    assert told.notices == [f"The image app:0 already exists, renaming the old one with ID {former.id} to empty string"]


def test_what_says_something_of_an_image_goes_along(opened: api.Store, other: api.Store, tmp_path: Path) -> None:
    one = versions(1)[0]
    load(opened, sample.oci_archive(one), tmp_path)
    subject = opened.identify("app:0")
    signed = sign(opened, subject)
    second = sign(opened, signed)
    opened.bundle(["app:0"], tmp_path / "b")
    assert api.inspect_bundle(tmp_path / "b")["Referrers"] == [
        {"Digest": str(signed), "Subject": str(subject)},
        {"Digest": str(second), "Subject": str(signed)},
    ]
    other.load_bundle(tmp_path / "b")
    other.gc(grace=0)
    for digest in (signed, second):
        assert b"".join(other.blobs.cat(digest)) == b"".join(opened.blobs.cat(digest))
    list(other.remove(["app:0"]))
    other.gc(grace=0)
    with pytest.raises(NotFound):
        list(other.blobs.cat(signed))


def test_a_referrer_alone_to_an_image_that_is_there(opened: api.Store, other: api.Store, tmp_path: Path) -> None:
    one = versions(1)[0]
    load(opened, sample.oci_archive(one), tmp_path)
    load(other, sample.oci_archive(one), tmp_path)
    signed = sign(opened, opened.identify("app:0"))
    opened.bundle(["app:0"], tmp_path / "b", have=["app:0"])
    other.load_bundle(tmp_path / "b")
    other.gc(grace=0)
    assert b"".join(other.blobs.cat(signed))


def sign(store: api.Store, subject: Digest) -> Digest:
    """A manifest about another, in the store as an edge of that."""
    volume = store.volume
    about = b"".join(store.blobs.cat(subject))
    config = Digest.of(b"{}")
    document = {
        "schemaVersion": 2,
        "mediaType": sample.OCI_MANIFEST,
        "artifactType": SIGNATURE,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": str(config), "size": 2},
        "layers": [],
        "subject": {"mediaType": sample.OCI_MANIFEST, "digest": str(subject), "size": len(about)},
    }
    raw = json.dumps(document).encode()
    with volume.catalog.read() as tx:
        below = names.children(tx, subject)
    with Lease(volume.catalog, volume.objects, "sign") as lease:
        ingest = Ingest(volume, lease.id)
        protocol.name_blobs(volume.catalog, lease.id, [subject, *below])
        ingest.take_small(b"{}", "application/vnd.oci.empty.v1+json")
        digest = ingest.take_small(raw, sample.OCI_MANIFEST, (config,))
        ingest.take_small(about, sample.OCI_MANIFEST, (*below, digest))
        written = ingest.finish()
        protocol.commit(volume.catalog, lease.id, written.blobs, objects=written.objects)
        ingest.close()
    return digest


# -- refused


def test_a_store_that_cuts_otherwise(opened: api.Store, tmp_path: Path) -> None:
    load(opened, sample.docker_archive(*versions(1)), tmp_path)
    opened.bundle(["app:0"], tmp_path / "b")
    api.init(tmp_path / "large", chunk_size=64 << 10)
    with api.open(tmp_path / "large") as large:
        with pytest.raises(StoreUnusable, match="sha256 gear32n 4096 16384 65536; this one as sha256 gear32n 16384"):
            large.load_bundle(tmp_path / "b")
        write(tmp_path / "have", "\n".join(large.base_list()).encode())
    with pytest.raises(StoreUnusable, match="cuts chunks as"):
        opened.bundle(["app:0"], tmp_path / "c", have_file=tmp_path / "have")
    assert not (tmp_path / "c").exists()


def test_a_base_that_is_not_there(opened: api.Store, other: api.Store, tmp_path: Path) -> None:
    load(opened, sample.docker_archive(*versions(2)), tmp_path)
    load(other, sample.docker_archive(sample.image("else", ["else:1"])), tmp_path)
    opened.bundle(["app:1"], tmp_path / "b", have=["app:0"])
    before = whole(other)
    base = api.inspect_bundle(tmp_path / "b")["Bases"][0]["Digest"]
    with pytest.raises(NotFound, match=f"base blob {base}"):
        other.load_bundle(tmp_path / "b")
    assert whole(other) == before


def coarsely(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where there are millions of tiny files: no more of them are told apart."""
    monkeypatch.setattr(Pieces, "grant", lambda *_: 0)


@pytest.mark.parametrize("coarse", ["here", "there", "there, once"])
def test_a_base_that_is_split_less_finely_on_one_side(
    opened: api.Store, other: api.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, coarse: str
) -> None:
    files = {f"tiny/{n}": sample.noise(("tiny", n), 3000) for n in range(40)}
    base, less = sample.files(files), sample.files(dict(list(files.items())[:20]))
    one, two = sample.image(0, ["app:0"], [base]), sample.image(1, ["app:1"], [less], comment="1")
    with monkeypatch.context() as patched:
        if coarse == "here":
            coarsely(patched)
        load(opened, sample.docker_archive(one, two), tmp_path)
    with monkeypatch.context() as patched:
        if coarse != "here":
            coarsely(patched)
        load(other, sample.docker_archive(one), tmp_path)
    opened.bundle(["app:1"], tmp_path / "b", have=["app:0"])
    if coarse == "there, once":  # the bundle's loader cuts it up again
        other.load_bundle(tmp_path / "b")
        same(opened, other, tmp_path, "app:1")
        return
    before = whole(other)
    with monkeypatch.context() as patched:
        if coarse == "there":
            coarsely(patched)
        with pytest.raises(NotFound) as caught:
            other.load_bundle(tmp_path / "b")
    told = str(caught.value)
    assert told.startswith(f"{tmp_path / 'b'}: chunk ") and "\n" not in told
    assert told.endswith(f"in base {sample.digest(base)} (make the bundle without this base)")
    assert whole(other) == before


def test_another_bundle_than_expected(opened: api.Store, other: api.Store, tmp_path: Path) -> None:
    load(opened, sample.docker_archive(*versions(1)), tmp_path)
    report = opened.bundle(["app:0"], tmp_path / "b")
    before = whole(other)
    with pytest.raises(DigestMismatch, match="not the one expected"):
        other.load_bundle(tmp_path / "b", expect=Digest.of(b"else"))
    assert whole(other) == before
    other.load_bundle(tmp_path / "b", expect=report.digest)
    same(opened, other, tmp_path, "app:0")


@pytest.fixture
def thin(opened: api.Store, other: api.Store, tmp_path: Path) -> bytes:
    """A bundle of app:1 for the other store, which has app:0."""
    one, two = versions(2)
    load(opened, sample.docker_archive(one, two), tmp_path)
    load(other, sample.docker_archive(one), tmp_path)
    opened.bundle(["app:1"], tmp_path / "b", have=["app:0"])
    return (tmp_path / "b").read_bytes()


def test_any_byte_that_changed_and_any_end_that_came_early(thin: bytes, other: api.Store, tmp_path: Path) -> None:
    before = whole(other)
    for at in range(0, len(thin), max(1, len(thin) // 60)):
        changed = bytearray(thin)
        changed[at] ^= 0x10
        for data in (bytes(changed), thin[:at]):
            with pytest.raises((BadInput, Damaged, NotFound, StoreUnusable)):
                other.load_bundle(write(tmp_path / "bad", data))
    with pytest.raises(Damaged, match="goes on"):
        other.load_bundle(write(tmp_path / "bad", thin + b"\0"))
    assert whole(other) == before


def rewritten(data: bytes, change: Callable[[Part, bytes], bytes]) -> bytes:
    """A bundle with other parts, under checksums that are right."""
    reader = BundleReader(BytesSource(data))
    out = bytearray()
    writer = BundleWriter(out.extend, reader.header)
    for part in list(Part)[:-1]:
        writer.add(part, change(part, b"".join(bytes(piece) for piece in reader.pieces(part))))
    writer.end()
    return bytes(out)


def test_a_bundle_may_be_written_again(thin: bytes, other: api.Store, opened: api.Store, tmp_path: Path) -> None:
    assert rewritten(thin, lambda part, content: content) == thin
    other.load_bundle(write(tmp_path / "again", thin))
    same(opened, other, tmp_path, "app:1")


@pytest.mark.parametrize("part", [Part.HEAD, Part.RECORDS, Part.SOURCES, Part.CHUNKS])
def test_parts_that_lie_under_right_checksums(thin: bytes, other: api.Store, tmp_path: Path, part: Part) -> None:
    before = whole(other)
    for how in (
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: (
            content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 1]) + content[len(content) // 2 + 1 :]
        ),
        lambda content: content + b"\1",
        lambda content: bytes(len(content)),
    ):
        bad = rewritten(thin, lambda which, content, how=how: how(content) if which == part else content)
        with pytest.raises((BadInput, Damaged, NotFound)):
            other.load_bundle(write(tmp_path / "bad", bad))
    assert whole(other) == before


def with_head(data: bytes, **changes: Any) -> bytes:
    def change(part: Part, content: bytes) -> bytes:
        if part != Part.HEAD:
            return content
        head = bundle_format.decode_head(content)
        made = {name: value(getattr(head, name)) for name, value in changes.items()}
        return bundle_format.encode_head(replace(head, **made))

    return rewritten(data, change)


@pytest.mark.parametrize(
    "changes",
    [
        {"chunks": lambda n: n + 1},
        {"chunk_bytes": lambda n: n + 1},
        {"chunk_bytes": lambda n: 1 << 61},
        {"bases": lambda bases: bases[:0]},
        {"blobs": lambda blobs: blobs[:-1]},
        {"blobs": lambda blobs: tuple(one._replace(size=one.size + 1) if one.kind == 2 else one for one in blobs)},
        {"blobs": lambda blobs: tuple(one._replace(length=1 << 60) if one.kind == 2 else one for one in blobs)},
        {"blobs": lambda blobs: tuple(one._replace(digest=Digest.of(b"x")) if one.kind == 2 else one for one in blobs)},
        {"names": lambda names: tuple(one._replace(tag="a b") for one in names)},
        {"names": lambda names: tuple(one._replace(repository="docker.io/library/../x") for one in names)},
        {"names": lambda names: tuple(one._replace(target=Digest.of(b"nowhere")) for one in names)},
        {"roots": lambda roots: (*roots, Digest.of(b"nowhere"))},
        {"roots": lambda roots: (), "referrers": lambda _: ((Digest.of(b"a"), Digest.of(b"b")),)},
    ],
    ids=range(13),
)
def test_heads_that_lie(thin: bytes, other: api.Store, tmp_path: Path, changes: dict[str, Any]) -> None:
    before = whole(other)
    bad = with_head(thin, **changes)
    if set(changes) == {"roots", "referrers"}:  # of nothing that is there: nothing is said of anything
        other.load_bundle(write(tmp_path / "odd", bad))
        return
    with pytest.raises((BadInput, Damaged, NotFound)):
        other.load_bundle(write(tmp_path / "bad", bad))
    assert whole(other) == before


def test_a_size_of_files_that_lies_is_not_believed(
    thin: bytes, opened: api.Store, other: api.Store, tmp_path: Path
) -> None:
    bad = with_head(thin, blobs=lambda blobs: tuple(one._replace(files_size=7) for one in blobs))
    other.load_bundle(write(tmp_path / "odd", bad))
    same(opened, other, tmp_path, "app:1")
    sizes = {image.tag: image.size for image in opened.images()}
    assert {image.tag: image.size for image in other.images()} == sizes


def test_content_beyond_the_limit(opened: api.Store, other: api.Store, tmp_path: Path) -> None:
    load(opened, sample.docker_archive(*versions(1)), tmp_path)
    opened.bundle(["app:0"], tmp_path / "b")
    other.config.set("limit.output", "100KiB")
    with pytest.raises(LimitExceeded):
        other.load_bundle(tmp_path / "b")


def with_recipes(data: bytes, change: Callable[[Recipe], Recipe], times: int = 1) -> bytes:
    """A bundle whose recipes are others; with `times`, so many blobs of each recipe."""
    reader = BundleReader(BytesSource(data))
    head = bundle_format.decode_head(reader.whole(Part.HEAD, 1 << 24))
    blobs, records = [], []
    for one in head.blobs:
        record = bytes(reader.read(Part.RECORDS, one.length))
        if one.kind == Kind.RECIPE:
            record = recipe_format.encode(change(recipe_format.decode(record)))
            size = recipe_format.decode(record).size
            for number in range(times):
                digest = one.digest if not number else Digest.of(b"%d" % number)
                blobs.append(one._replace(digest=digest, length=len(record), size=size))
                records.append(record)
        else:
            blobs.append(one)
            records.append(record)
    new = {Part.HEAD: bundle_format.encode_head(replace(head, blobs=tuple(blobs))), Part.RECORDS: b"".join(records)}
    return rewritten(data, lambda part, content: new.get(part, content))


def repeated(recipe: Recipe) -> Recipe:
    """Half a TiB of the last payload chunk."""
    payloads = recipe.payloads
    repeats = payloads.repeats.copy()
    more = (1 << 39) // int(payloads.lengths[-1])
    repeats[-1] += more
    weave = np.concatenate([recipe.weave, np.array([[0, more * int(payloads.lengths[-1])]], np.uint64)])
    return replace(
        recipe,
        size=int(weave.sum()),
        weave=weave,
        payloads=replace(payloads, repeats=repeats),
    )


def test_recipes_that_become_more_than_anything_may(thin: bytes, other: api.Store, tmp_path: Path) -> None:
    before = whole(other)
    with pytest.raises(LimitExceeded, match="expands by more than 2000"):
        other.load_bundle(write(tmp_path / "bad", with_recipes(thin, repeated)))
    assert whole(other) == before


def test_many_recipes_that_claim_millions_of_rows(thin: bytes, other: api.Store, tmp_path: Path) -> None:
    rows = np.zeros((1 << 20, 2), np.uint64)
    bad = with_recipes(thin, lambda one: replace(one, weave=np.concatenate([one.weave, rows])), times=200)
    assert len(bad) < 4 << 20
    write(tmp_path / "bad", bad)
    tracemalloc.start()
    with pytest.raises(LimitExceeded, match="too many pieces"):
        other.load_bundle(tmp_path / "bad")
    assert tracemalloc.get_traced_memory()[1] < 400 << 20
    tracemalloc.stop()


def test_a_recipe_of_other_chunks_than_the_blob(thin: bytes, other: api.Store, tmp_path: Path) -> None:
    before = whole(other)

    def swapped(one: Recipe) -> Recipe:
        """The content of the first two files, one in the place of the other."""
        order = np.arange(len(one.payloads.lengths))
        order[:2] = 1, 0
        weave = one.weave.copy()
        weave[:2, 1] = weave[1::-1, 1]
        payloads = replace(one.payloads, digests=one.payloads.digests[order], lengths=one.payloads.lengths[order])
        return replace(one, weave=weave, payloads=payloads)

    with pytest.raises((Damaged, BadInput, NotFound)):
        other.load_bundle(write(tmp_path / "bad", with_recipes(thin, swapped)))
    assert whole(other) == before


def test_inspecting_needs_no_store(thin: bytes, tmp_path: Path) -> None:
    facts = api.inspect_bundle(tmp_path / "b")
    assert facts["Names"][0]["Name"] == "app:1" and facts["Size"] == len(thin)
    assert facts["Digest"] == "sha256:" + hashlib.sha256(thin).hexdigest()
    with pytest.raises(BadInput, match="not a bundle"):
        api.inspect_bundle(write(tmp_path / "bad", b"x" * 1000))
    with pytest.raises(BadInput, match="unexpected end"):
        api.inspect_bundle(write(tmp_path / "bad", thin[:-1]))
