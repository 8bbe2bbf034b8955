"""OCI layouts, as a tar, through a pipe, as a folder; and the real busybox ones where they are at hand."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from archives import LayoutBuilder, Way, layer, sha, tar_of

from casstore.codec import compression
from casstore.digest import Digest
from casstore.errors import BadInput, CasstoreError, DigestMismatch, InvalidReference, LimitExceeded
from casstore.oci import media
from casstore.oci.platform import acceptable, host, parse
from casstore.transport import oci_layout, reading
from casstore.transport.archive import open_source
from casstore.transport.contents import Archive

ONE, TWO = layer("one", 100_000), layer("two")
HEX = "ab" * 32
HOST = str(host())
OTHER = "linux/s390x"
SHARED = Path(os.environ.get("CASSTORE_SHARED") or Path(__file__).parents[4] / "shared")


def names(archive: Archive) -> list[list[str]]:
    return [[tag.familiar() for tag in image.tags] for image in archive.images]


def architectures(archive: Archive) -> list[str]:
    return [image.config.architecture if image.config else "artifact" for image in archive.images]


@pytest.fixture
def layout() -> LayoutBuilder:
    return LayoutBuilder()


@pytest.mark.parametrize("packed", [False, True])
def test_one_image(any_way: Way, layout: LayoutBuilder, packed: bool) -> None:
    layout.add(layout.image([ONE, TWO], packed=packed), "example.com/a:1")
    archive = any_way(layout.tar())
    (image,) = archive.images
    assert archive.form == "oci"
    assert names(archive) == [["example.com/a:1"]]
    assert image.manifest is not None
    assert image.manifest.raw == layout.files[f"blobs/sha256/{image.manifest.digest.hex}"]
    assert [str(each.diff_id) for each in image.layers] == [f"sha256:{sha(ONE)}", f"sha256:{sha(TWO)}"]
    assert {each.media_type for each in image.layers} == {media.OCI_LAYER_GZIP if packed else media.OCI_LAYER}
    assert Digest.of(any_way.layer_bytes(archive)) == image.layers[0].digest


def test_folder(layout: LayoutBuilder, tmp_path: Path) -> None:
    layout.add(layout.image([ONE]), "a:1")
    with open_source(layout.write(tmp_path / "x")) as source:
        archive = reading.read(source)
        reader = archive.open(archive.images[0].layers[0].path)
        assert reader.pread(0, reader.size) == ONE
        assert names(archive) == [["a:1"]]


def test_folder_with_links(layout: LayoutBuilder, tmp_path: Path) -> None:
    layout.add(layout.image([TWO]), "a:1")
    root = layout.write(tmp_path / "x")
    (root / "blobs").rename(root / "elsewhere")
    (root / "blobs").symlink_to("elsewhere")
    assert names(reading.read(open_source(root))) == [["a:1"]]
    (root / "blobs").unlink()
    (root / "blobs").symlink_to(tmp_path)
    with pytest.raises(BadInput, match="link leaves the archive"):
        reading.read(open_source(root))


@pytest.mark.parametrize(
    ("annotations", "name"),
    [
        ({"io.containerd.image.name": "busybox:1"}, ["busybox:1"]),
        ({"io.containerd.image.name": "docker.io/library/busybox"}, ["busybox:latest"]),
        ({"io.containerd.image.name": f"busybox@sha256:{HEX}"}, []),
        ({oci_layout.REF_NAME: "v1"}, []),
        ({oci_layout.REF_NAME: "example.com/x:v1"}, ["example.com/x:v1"]),
        ({oci_layout.REF_NAME: "x:v1"}, ["x:v1"]),
        ({oci_layout.REF_NAME: "a:b:c"}, []),
        ({oci_layout.REF_NAME: "v1", "io.containerd.image.name": "x:v1"}, ["x:v1"]),
        ({}, []),
    ],
)
def test_names(layout: LayoutBuilder, way: Way, annotations: dict[str, str], name: list[str]) -> None:
    layout.add(layout.image([ONE]), **annotations)
    assert names(way(layout.tar())) == [name]


def test_bad_name(layout: LayoutBuilder, way: Way) -> None:
    layout.add(layout.image([ONE]), "good:1")
    layout.add(layout.image([TWO]), "Bad:1")
    with pytest.raises(InvalidReference, match=r"must be lowercase .*index.json"):
        way(layout.tar())


def test_two_names_one_image(layout: LayoutBuilder, way: Way) -> None:
    image = layout.image([ONE])
    layout.add(image, "a:1")
    layout.add(image, "b:1")
    assert names(way(layout.tar())) == [["a:1", "b:1"]]


# -- platforms


def test_host_platform_by_default(layout: LayoutBuilder, way: Way) -> None:
    layout.add(layout.index(layout.for_platform(OTHER), layout.for_platform(HOST)), "a:1")
    archive = way(layout.tar())
    assert architectures(archive) == [host().architecture]
    assert names(archive) == [["a:1"]]
    assert archive.indexes == []


def test_chosen_platform(layout: LayoutBuilder, way: Way) -> None:
    layout.add(layout.index(layout.for_platform(OTHER), layout.for_platform(HOST)), "a:1")
    assert architectures(way(layout.tar(), platform=parse(OTHER))) == ["s390x"]
    layout.add(layout.index(layout.for_platform("linux/arm/v6")), "b:1")
    with pytest.raises(BadInput) as caught:
        way(layout.tar(), platform=parse("linux/mips64le"))
    assert "no matching manifest for linux/mips64le in the manifest list entries" in str(caught.value)
    assert "a:1" in str(caught.value)


def test_variants(layout: LayoutBuilder, way: Way) -> None:
    layout.add(layout.index(*(layout.for_platform(f"linux/arm/v{v}") for v in (5, 6, 7))), "a:1")
    image = way(layout.tar(), platform=parse("linux/arm/v6")).images[0]
    assert image.config is not None
    assert image.config.variant == "v6"


def test_nothing_for_this_platform(layout: LayoutBuilder, way: Way) -> None:
    layout.add(layout.index(layout.for_platform(OTHER)), "a:1")
    if acceptable(host())[0] == parse(OTHER):
        pytest.skip("runs on s390x")
    with pytest.raises(BadInput, match=f"no matching manifest for {HOST}"):
        way(layout.tar())


def test_all_platforms(layout: LayoutBuilder, way: Way) -> None:
    inner = layout.index(layout.for_platform("linux/arm/v7"))
    attestation = layout.image([b"{}"], os="unknown", architecture="unknown") | {
        "platform": {"os": "unknown", "architecture": "unknown"},
        "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
    }
    outer = layout.index(layout.for_platform(OTHER), layout.for_platform(HOST), inner, attestation)
    layout.add(outer, "a:1")
    archive = way(layout.tar(), everything=True)
    assert [str(each.index.digest) for each in archive.indexes] == [inner["digest"], outer["digest"]]
    assert [tag.familiar() for each in archive.indexes for tag in each.tags] == ["a:1"]
    assert architectures(archive) == ["s390x", host().architecture, "arm", "artifact"]
    assert names(archive) == [[], [], [], []]
    # by default the attestation is no candidate
    assert architectures(way(layout.tar())) == [host().architecture]


def test_absent_child_is_named(layout: LayoutBuilder, way: Way) -> None:
    absent = {"mediaType": media.OCI_MANIFEST, "digest": f"sha256:{HEX}", "size": 9}
    mine = layout.for_platform(HOST)
    layout.add(layout.index(mine, absent | {"platform": {"os": "linux", "architecture": "s390x"}}), "a:1")
    assert architectures(way(layout.tar())) == [host().architecture]
    for options in ({"everything": True}, {"platform": parse(OTHER)}):
        with pytest.raises(BadInput, match=f"sha256:{HEX} is missing"):
            way(layout.tar(), **options)


def test_platforms_side_by_side_in_index_json(layout: LayoutBuilder, way: Way) -> None:
    layout.add(layout.for_platform(OTHER), "a:1")
    layout.add(layout.for_platform(HOST), "a:1")
    archive = way(layout.tar())
    assert (architectures(archive), names(archive)) == ([host().architecture], [["a:1"]])
    archive = way(layout.tar(), everything=True)
    assert (architectures(archive), names(archive)) == (["s390x", host().architecture], [[], ["a:1"]])


def test_unnamed_images(layout: LayoutBuilder, way: Way) -> None:
    layout.add(layout.for_platform(OTHER))
    layout.add(layout.for_platform(HOST))
    assert architectures(way(layout.tar())) == [host().architecture]
    layout.top.clear()
    layout.add(layout.image([ONE]))
    layout.add(layout.image([TWO]))
    assert len(way(layout.tar()).images) == 2


def test_a_lone_image_of_another_architecture(layout: LayoutBuilder, way: Way) -> None:
    layout.add(layout.for_platform(OTHER), "a:1")
    assert architectures(way(layout.tar())) == ["s390x"]
    with pytest.raises(BadInput, match="no matching manifest"):
        way(layout.tar(), platform=parse("linux/riscv64"))


def test_windows(layout: LayoutBuilder, way: Way) -> None:
    layout.add(layout.for_platform("windows/amd64"), "a:1")
    with pytest.raises(BadInput, match="cannot load windows image"):
        way(layout.tar())
    assert len(way(layout.tar(), platform=parse("windows/amd64")).images) == 1
    assert len(way(layout.tar(), everything=True).images) == 1


# -- bad layouts


def corrupt(layout: LayoutBuilder, way: Way, descriptor: dict[str, Any], data: bytes, **options: Any) -> None:
    path = "blobs/" + descriptor["digest"].replace(":", "/")
    layout.files[path] = data
    way(layout.tar(), **options)


def test_changed_documents(layout: LayoutBuilder, way: Way) -> None:
    image = layout.image([ONE])
    layout.add(image, "a:1")
    path = "blobs/" + image["digest"].replace(":", "/")
    good = layout.files[path]
    with pytest.raises(DigestMismatch):
        corrupt(layout, way, image, good.replace(b"2", b"3", 1))
    with pytest.raises(BadInput, match="descriptor says"):
        corrupt(layout, way, image, good + b" ")
    layout.files[path] = good
    settings = json.loads(good)["config"]
    with pytest.raises(DigestMismatch):
        corrupt(
            layout,
            way,
            settings,
            layout.files["blobs/" + settings["digest"].replace(":", "/")].replace(b"amd64", b"arm64"),
        )


def test_changed_layers(layout: LayoutBuilder, way: Way) -> None:
    layout.add(layout.image([ONE]), "a:1")
    layout.files[f"blobs/sha256/{sha(ONE)}"] = ONE + b"!"
    with pytest.raises(BadInput, match="descriptor says"):
        way(layout.tar())
    layout.files[f"blobs/sha256/{sha(ONE)}"] = ONE.replace(b"one", b"two")
    if way.name == "pipe":
        with pytest.raises(DigestMismatch):
            way(layout.tar())
    else:  # found out when the layer is read
        assert way(layout.tar()).images[0].layers[0].digest == Digest.of(ONE)
    del layout.files[f"blobs/sha256/{sha(ONE)}"]
    found = way(layout.tar()).images[0].layers[0]
    assert not found.present
    assert (found.digest, found.diff_id, found.size) == (Digest.of(ONE), Digest.of(ONE), len(ONE))


def test_manifest_missing(layout: LayoutBuilder, way: Way) -> None:
    layout.add({"mediaType": media.OCI_MANIFEST, "digest": f"sha256:{HEX}", "size": 3}, "a:1")
    with pytest.raises(BadInput, match=f"sha256:{HEX} is missing"):
        way(layout.tar())


@pytest.mark.parametrize(
    ("file", "data", "words"),
    [
        ("oci-layout", b'{"imageLayoutVersion":"2.0.0"}', "unknown imageLayoutVersion"),
        ("oci-layout", b"{}", "unknown imageLayoutVersion"),
        ("oci-layout", b"x", "invalid JSON"),
        ("index.json", b"{}", "schemaVersion"),
        ("index.json", b'{"schemaVersion":2,"manifests":[],"layers":[]}', "both manifests and layers"),
        (
            "index.json",
            b'{"schemaVersion":2,"manifests":[{"digest":"sha256:../..","size":1}]}',
            "invalid digest",
        ),
        ("index.json", b"[" * 200_000, "nested deeper"),
        ("index.json", b" " * (21 << 20), "larger than 20971520"),
    ],
)
def test_bad_documents(layout: LayoutBuilder, way: Way, file: str, data: bytes, words: str) -> None:
    files = layout.all_files() | {file: data}
    with pytest.raises(BadInput, match=words):
        way(tar_of(files.items()))


def test_manifest_that_is_an_index_too(layout: LayoutBuilder, way: Way) -> None:
    layout.add(layout.index(layers=[], config={}), "a:1")
    with pytest.raises(BadInput, match="both manifests and layers"):
        way(layout.tar())


def test_media_type_of_descriptor_and_document_differ(layout: LayoutBuilder, way: Way) -> None:
    layout.add(layout.image([ONE]) | {"mediaType": media.DOCKER_MANIFEST}, "a:1")
    with pytest.raises(BadInput, match="mediaType"):
        way(layout.tar())


def test_deeply_nested_indexes(layout: LayoutBuilder, way: Way) -> None:
    image = layout.for_platform(HOST)
    for _ in range(9):
        image = layout.index(image)
    layout.add(image, "a:1")
    for everything in (False, True):
        with pytest.raises(LimitExceeded, match="nested deeper than 8"):
            way(layout.tar(), everything=everything)


def test_index_that_fans_out(layout: LayoutBuilder, file: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each level names the one below many times: every path through it would be walked but for the cap."""
    image = layout.for_platform(OTHER)
    for _ in range(7):
        image = layout.index(*[image] * 50)
    layout.add(image, "a:1")
    with pytest.raises(CasstoreError):
        file(layout.tar())
    assert len(file(layout.tar(), everything=True).indexes) == 7


# -- real ones

BUSYBOX = sorted((SHARED / "data" / "busybox").glob("*/index.json"))


@pytest.mark.skipif(not BUSYBOX, reason="no OCI layouts of busybox under CASSTORE_SHARED/data/busybox")
@pytest.mark.parametrize("index", BUSYBOX or [None], ids=lambda path: path.parent.name if path else "none")
def test_busybox(index: Path) -> None:
    with open_source(index.parent) as source:
        archive = reading.read(source)
        (image,) = archive.images
        assert image.manifest is not None
        assert image.config is not None
        assert image.tags[0].repository == "docker.io/library/busybox"
        for each in image.layers:
            reader = archive.open(each.path)
            data = reader.pread(0, reader.size)
            assert Digest.of(data) == each.digest

            class Once:
                def __init__(self, data: bytes) -> None:
                    self._data = data

                def read(self, size: int) -> bytes:
                    piece, self._data = self._data[:size], self._data[size:]
                    return piece

            assert Digest.of(compression.open_stream(Once(data)).read(1 << 30)) == each.diff_id
