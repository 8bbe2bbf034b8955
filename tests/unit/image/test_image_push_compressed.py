"""`push` of plain layers: compressed on the way, always to the same bytes, and once only."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sample
from registry import Toy, serving
from running import Cas

from casstore import api
from casstore.codec.fold import gzip_of
from casstore.digest import Digest
from casstore.errors import CasstoreError, UsageError
from casstore.flow.encoded import replayed
from casstore.image.remote import Remote
from casstore.kernels import deflate
from casstore.store import names, query
from casstore.transport.http import Network

QUICK = Network(backoff=0.01, read_timeout=5.0, connect_timeout=5.0, retries=3)
LAYERS = [
    sample.files({"big": sample.text("big", 3 << 20), "x": sample.noise("x", 100_000)}),
    sample.files({"a": b"a"}),
]

pytestmark = pytest.mark.skipif(deflate.IMPLEMENTATION != "compiled", reason="the compiled kernel is not built")


@pytest.fixture
def toy() -> Iterator[Toy]:
    with serving() as made:
        yield made


@pytest.fixture
def remote() -> Iterator[Remote]:
    with Remote(QUICK) as made:
        yield made


def loaded(store: api.Store, tmp_path: Path, *tags: str, layers: list[bytes] = LAYERS, **more: Any) -> sample.Image:
    """An image in the store, its layers plain, as docker saves them."""
    image = sample.image("plain", tags, layers)
    archive = tmp_path / "a.tar"
    archive.write_bytes(sample.docker_archive(image))
    store.load(archive, **more)
    return image


def packed(layer: bytes) -> bytes:
    return b"".join(gzip_of([layer]))


def never(*_: object) -> None:
    raise AssertionError("it is compressed again")


def pushed(toy: Toy, name: str, tag: str = "1") -> Any:
    return json.loads(toy.manifests[name][tag][1])


def test_the_registry_gets_gzip_and_a_manifest_that_says_so(
    toy: Toy, opened: api.Store, remote: Remote, tmp_path: Path
) -> None:
    image = loaded(opened, tmp_path, f"{toy.host}/a:1")
    report = opened.push(f"{toy.host}/a:1", remote=remote)
    made = [packed(layer) for layer in image.layers]
    assert toy.blobs["a"] == {sample.digest(data): data for data in (image.config, *made)}
    assert [gzip.decompress(one) for one in made] == list(image.layers)
    manifest = pushed(toy, "a")
    assert manifest["layers"] == [
        {"mediaType": sample.OCI_LAYER + "+gzip", "digest": sample.digest(one), "size": len(one)} for one in made
    ]
    assert manifest["config"]["digest"] == image.id
    assert str(report.digest) == sample.digest(toy.manifests["a"]["1"][1])
    # What the store says of the image is what it was.
    assert [one.digest for one in opened.images()] == [opened.identify(image.id)] != [report.digest]
    with serving() as other:
        opened.pull(f"{toy.host}/a:1", remote=remote)
        assert str(opened.push(f"{other.host}/b:1", source=report.digest, remote=remote).digest) == str(report.digest)
        assert other.blobs["b"] == toy.blobs["a"]


def test_the_second_push_asks_and_makes_nothing(
    toy: Toy, opened: api.Store, remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded(opened, tmp_path, f"{toy.host}/a:1")
    first = opened.push(f"{toy.host}/a:1", remote=remote)
    toy.log.clear()
    monkeypatch.setattr("casstore.codec.fold.Fold.add", never)
    with opened.volume.catalog.read() as tx:
        before = {info.digest for info in query.blobs(tx)}
    with api.open(opened.root) as again:
        second = again.push(f"{toy.host}/a:1", remote=remote)
    assert (second.digest, second.sent) == (first.digest, 0)
    assert {one.method for one in toy.log} == {"HEAD", "PUT"}
    with opened.volume.catalog.read() as tx:
        assert {info.digest for info in query.blobs(tx)} == before


def test_it_is_kept_as_a_recipe_for_as_long_as_the_image(
    toy: Toy, opened: api.Store, remote: Remote, tmp_path: Path
) -> None:
    image = loaded(opened, tmp_path, f"{toy.host}/a:1")
    before = sum(row.size or 0 for row in objects(opened) if row.kind == "data")
    opened.push(f"{toy.host}/a:1", remote=remote)
    assert sum(row.size or 0 for row in objects(opened) if row.kind == "data") == before
    forms = [Digest.parse(sample.digest(packed(layer))) for layer in image.layers]
    manifest = opened.identify(image.id)
    with opened.volume.catalog.read() as tx:
        infos = [query.find_blob(tx, form) for form in forms]
        assert set(forms) < set(names.children(tx, manifest))
    assert [(one.place.state, one.encoding) for one in infos if one is not None] == [("packed", "gzip")] * 2
    opened.gc(grace=0.0)
    for layer, form in zip(image.layers, forms, strict=True):
        assert b"".join(opened.blobs.cat(form)) == packed(layer)
    assert opened.check(read_data=True).findings == []
    list(opened.remove([image.id], force=True))
    opened.gc(grace=0.0)
    with opened.volume.catalog.read() as tx:
        assert list(query.blobs(tx)) == []


def objects(store: api.Store) -> list[Any]:
    with store.volume.catalog.read() as tx:
        return [row for row in query.objects(tx) if row.state == "live"]


def test_a_layer_that_another_image_pushed_is_not_made_again(
    toy: Toy, opened: api.Store, remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = loaded(opened, tmp_path, f"{toy.host}/a:1")
    opened.push(f"{toy.host}/a:1", remote=remote)
    second = loaded(opened, tmp_path, f"{toy.host}/b:1", layers=[LAYERS[0]])
    monkeypatch.setattr("casstore.codec.fold.Fold.add", never)
    report = opened.push(f"{toy.host}/b:1", remote=remote)
    assert report.sent == len(second.config)  # the layer was mounted
    list(opened.remove([first.id], force=True))
    opened.gc(grace=0.0)
    assert opened.push(f"{toy.host}/b:1", remote=remote).digest == report.digest


@pytest.mark.parametrize("pack", ["later", "never"])
def test_a_layer_that_is_kept_as_a_file(toy: Toy, opened: api.Store, remote: Remote, tmp_path: Path, pack: str) -> None:
    image = loaded(opened, tmp_path, f"{toy.host}/a:1", pack=pack)
    first = opened.push(f"{toy.host}/a:1", remote=remote)
    assert set(toy.blobs["a"]) == {image.id, *(sample.digest(packed(layer)) for layer in image.layers)}
    opened.gc(grace=0.0)
    assert opened.push(f"{toy.host}/a:1", remote=remote).digest == first.digest
    assert opened.check(read_data=True).findings == []


def test_an_index_lists_what_its_images_became(toy: Toy, opened: api.Store, remote: Remote, tmp_path: Path) -> None:
    layout, images = sample.platforms(packed=False)
    archive = tmp_path / "m.tar"
    archive.write_bytes(layout.tar())
    opened.load(archive, all_platforms=True)
    opened.push(f"{toy.host}/m:1", source="many:1", remote=remote)
    index = pushed(toy, "m")
    assert len(index["manifests"]) == len(images)
    wanted = {sample.digest(packed(layer)) for image in images.values() for layer in image.layers}
    found = set()
    for entry in index["manifests"]:
        kind, raw = toy.manifests["m"][entry["digest"]]
        assert (kind, len(raw)) == (entry["mediaType"], entry["size"])
        assert json.loads(raw)["annotations"] == {"kept": "byte for byte"}
        assert "platform" in entry
        found |= {layer["digest"] for layer in json.loads(raw)["layers"]}
    assert found == wanted
    assert found < set(toy.blobs["m"])


def test_none_leaves_the_image_as_it_is(toy: Toy, opened: api.Store, remote: Remote, tmp_path: Path) -> None:
    image = loaded(opened, tmp_path, f"{toy.host}/a:1")
    report = opened.push(f"{toy.host}/a:1", remote=remote, compression="none")
    assert report.digest == opened.identify(image.id)
    assert set(toy.blobs["a"]) == {image.id, *image.diff_ids}


def test_zstd_for_those_who_ask(
    toy: Toy, opened: api.Store, remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded(opened, tmp_path, f"{toy.host}/a:1")
    first = opened.push(f"{toy.host}/a:1", remote=remote, compression="zstd")
    manifest = pushed(toy, "a")
    assert {layer["mediaType"] for layer in manifest["layers"]} == {sample.OCI_LAYER + "+zstd"}
    monkeypatch.setattr("casstore.flow.folded.Folder.press", never)
    assert opened.push(f"{toy.host}/a:1", remote=remote, compression="zstd").digest == first.digest
    with api.open(tmp_path / "other") as other:
        other.pull(f"{toy.host}/a:1", remote=remote)
        assert str(other.images()[0].id) == manifest["config"]["digest"]


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_types_that_docker_gave(toy: Toy, opened: api.Store, remote: Remote, tmp_path: Path, compression: str) -> None:
    with serving() as source:
        image = sample.image("typed", (), LAYERS)
        plain, typed = LAYERS
        layers = [
            source.blob("s", plain, "application/vnd.docker.image.rootfs.diff.tar"),
            source.blob("s", sample.gz(typed), "application/vnd.docker.image.rootfs.diff.tar.gzip"),
        ]
        kind = "application/vnd.docker.distribution.manifest.v2+json"
        document = {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": source.blob("s", image.config, "application/vnd.docker.container.image.v1+json"),
            "layers": layers,
        }
        source.put("s", "1", document)
        opened.pull(f"{source.host}/s:1", remote=remote)
        opened.push(f"{toy.host}/s:1", source=f"{source.host}/s:1", remote=remote, compression=compression)
    said, raw = toy.manifests["s"]["1"]
    manifest = json.loads(raw)
    types = [layer["mediaType"] for layer in manifest["layers"]]
    assert said == manifest["mediaType"]
    assert manifest["layers"][1]["digest"] == layers[1]["digest"]
    if compression == "gzip":
        assert said == kind
        assert types == [layers[1]["mediaType"]] * 2
    else:
        assert said == sample.OCI_MANIFEST
        assert types == [sample.OCI_LAYER + "+zstd", sample.OCI_LAYER + "+gzip"]
        assert manifest["config"]["mediaType"] == sample.OCI_CONFIG


def test_what_comes_back_too_slowly_is_kept_as_bytes(
    toy: Toy, opened: api.Store, remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = loaded(opened, tmp_path, f"{toy.host}/a:1")
    monkeypatch.setattr("casstore.image.pressed.doubt", lambda *_, **__: "too slow")
    opened.push(f"{toy.host}/a:1", remote=remote)
    assert set(toy.blobs["a"]) == {image.id, *(sample.digest(packed(layer)) for layer in image.layers)}
    with opened.volume.catalog.read() as tx:
        found = [info.place.state for info in query.blobs(tx) if info.encoding == "gzip"]
    assert found == ["loose"] * 2


def test_what_cannot_be(toy: Toy, opened: api.Store, remote: Remote, tmp_path: Path) -> None:
    loaded(opened, tmp_path, f"{toy.host}/a:1")
    with pytest.raises(UsageError, match="unknown compression 'xz': gzip, zstd, none"):
        opened.push(f"{toy.host}/a:1", remote=remote, compression="xz")


def test_a_store_that_nobody_can_write(
    toy: Toy, opened: api.Store, remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{toy.host}/a:1"
    loaded(opened, tmp_path, name, "other:1")
    opened.close()
    with monkeypatch.context() as patched:
        patched.setattr("casstore.store.catalog.os.access", lambda *_: False)
        with api.open(opened.root) as store:
            with pytest.raises(CasstoreError, match=r"read-only store .*--compression none"):
                store.push(name, remote=remote)
            assert not toy.manifests
            store.push(name, remote=remote, compression="none")
    with api.open(opened.root) as store:
        report = store.push(name, remote=remote)
    with monkeypatch.context() as patched:
        patched.setattr("casstore.store.catalog.os.access", lambda *_: False)
        with api.open(opened.root) as store:
            assert store.push(f"{toy.host}/b:1", source=name, remote=remote).digest == report.digest


def test_the_command(toy: Toy, cas: Cas, tmp_path: Path) -> None:
    image = sample.image("cli", (f"{toy.host}/a:1",), LAYERS)
    archive = tmp_path / "a.tar"
    archive.write_bytes(sample.docker_archive(image))
    cas("load", "-i", archive)
    cas("push", "--compression", "none", f"{toy.host}/a:1")
    assert set(toy.blobs["a"]) == {image.id, *image.diff_ids}
    said = cas("push", f"{toy.host}/a:1").lines
    assert said[-1].startswith(f"1: digest: {sample.digest(toy.manifests['a']['1'][1])} ")
    assert {line.partition(":")[0] for line in said[1:-1]} >= {one[7:19] for one in image.diff_ids}
    assert pushed(toy, "a")["layers"][0]["digest"] == sample.digest(packed(image.layers[0]))
    assert "invalid value for '--compression'" in cas("push", "--compression", "xz", "a", ok=False).err.lower()


def test_what_is_proved_is_sent_without_being_made_once_more(
    toy: Toy, opened: api.Store, remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = sample.files({"big": sample.noise("big", 3 << 20)})
    image = loaded(opened, tmp_path, f"{toy.host}/a:1", layers=[layer])
    made: list[str] = []

    def counted(recipe: Any, content: Any, what: str, start: int, stop: int) -> Iterator[memoryview]:
        made.append(what)
        return replayed(recipe, content, what, start, stop)

    monkeypatch.setattr("casstore.flow.restore.replayed", counted)
    opened.push(f"{toy.host}/a:1", remote=remote)
    form = sample.digest(packed(layer))
    assert set(toy.blobs["a"]) == {image.id, form}
    assert made == [form]


def test_a_catalog_made_anew_knows_whose_it_is(
    toy: Toy, store_path: Path, remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{toy.host}/a:1"
    with api.open(store_path) as store:
        image = loaded(store, tmp_path, name)
        first = store.push(name, remote=remote)
    (store_path / "catalog.sqlite").unlink()
    with api.open(store_path, remake=True) as store:
        store.check(repair=True)
        with store.volume.catalog.read() as tx:
            assert names.pins(tx) == []
        monkeypatch.setattr("casstore.codec.fold.Fold.add", never)
        assert store.push(name, remote=remote).digest == first.digest
        list(store.remove([image.id], force=True))
        store.gc(grace=0.0)
        store.gc(grace=0.0)
        assert list(store.blobs.ls()) == []
