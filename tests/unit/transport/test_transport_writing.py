"""`save`: what is written, to the byte, and that it reads back as it was."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from archives import Way, config, layer

from casstore.digest import Digest
from casstore.errors import Conflict, Damaged
from casstore.model import Buffer
from casstore.oci import build, manifest, media
from casstore.oci import config as oci_config
from casstore.oci.manifest import Descriptor, Index, Manifest
from casstore.oci.platform import host
from casstore.oci.reference import parse
from casstore.transport import docker_archive, legacy, oci_layout, reading, writing
from casstore.transport.archive import open_source
from casstore.transport.contents import SavedImage, SavedIndex
from casstore.transport.writing import Content, Member

A, B, C = layer("a"), layer("b", 200_000), layer("c")


class Blobs:
    """A store in memory."""

    def __init__(self) -> None:
        self.packed: dict[Digest, bytes] = {}
        self.plain: dict[Digest, bytes] = {}

    def image(
        self,
        layers: list[bytes],
        tags: list[str],
        packed: bool = False,
        parent: Digest | None = None,
        **changes: Any,
    ) -> SavedImage:
        raw = config(layers, **changes)
        found = []
        for data in layers:
            blob = gzip.compress(data, mtime=0) if packed else data
            digest = Digest.of(blob)
            self.packed[digest], self.plain[digest] = blob, data
            kind = media.OCI_LAYER_GZIP if packed else media.OCI_LAYER
            found.append(Descriptor(kind, digest, len(blob)))
        document = build.manifest(Descriptor(media.OCI_CONFIG, Digest.of(raw), len(raw)), found)
        parsed = manifest.parse(document, "m")
        assert isinstance(parsed, Manifest)
        settings = oci_config.parse(raw, "c")
        sizes = tuple(len(each) for each in layers)
        names = [parse(tag) for tag in tags]
        return SavedImage(parsed, raw, settings.diff_ids, settings.created, names, parent, sizes)

    def open(self, content: Content) -> tuple[int, Iterator[Buffer]]:
        data = (self.plain if content.unpacked else self.packed)[content.digest]
        return len(data), (memoryview(data)[at : at + 7000] for at in range(0, len(data), 7000))

    def written(self, plan: list[Member]) -> bytes:
        out = io.BytesIO()
        writing.write(out, plan, self.open)
        return out.getvalue()


@pytest.fixture
def blobs() -> Blobs:
    return Blobs()


def some_images(blobs: Blobs) -> list[SavedImage]:
    one = blobs.image([A, B], ["one:1", "example.com/one:x"])
    return [
        blobs.image([A, B, C], ["four:latest"], parent=one.manifest.config.digest),
        blobs.image([A, C], ["two:1"], packed=True),
        one,
        blobs.image([B, A], [], architecture="arm64", created="2023-01-02T03:04:05Z"),
        blobs.image([A, A, B], ["five:latest"]),
        blobs.image([], ["empty:latest"]),
    ]


def members(data: bytes) -> list[tarfile.TarInfo]:
    return tarfile.open(fileobj=io.BytesIO(data)).getmembers()


def content(data: bytes, name: str) -> bytes:
    file = tarfile.open(fileobj=io.BytesIO(data)).extractfile(name)  # noqa: SIM115
    assert file is not None
    return file.read()


def shown(archive: Any) -> list[tuple[Digest, list[str], Digest | None]]:
    return sorted(
        (image.config_digest, sorted(tag.familiar() for tag in image.tags), image.parent) for image in archive.images
    )


def test_hybrid_reads_back(blobs: Blobs, way: Way) -> None:
    images = some_images(blobs)
    archive = way(blobs.written(docker_archive.plan(images)))
    assert shown(archive) == sorted(
        (image.manifest.config.digest, sorted(tag.familiar() for tag in image.tags), image.parent) for image in images
    )
    by_id = {image.manifest.config.digest: image for image in images}
    for image in archive.images:
        assert image.manifest is not None
        assert image.manifest.raw == by_id[image.config_digest].manifest.raw


def test_hybrid_to_the_byte(blobs: Blobs) -> None:
    """What its readers look at: each member, its header, the JSON files."""
    image = blobs.image([A, B], ["a:1", "example.com/b:2"])
    data = blobs.written(docker_archive.plan([image]))
    found = members(data)
    digests = [
        Digest.of(A).hex,
        Digest.of(B).hex,
        image.manifest.digest.hex,
        image.manifest.config.digest.hex,
    ]
    assert [member.name for member in found] == [
        "blobs",
        "blobs/sha256",
        *sorted(f"blobs/sha256/{each}" for each in digests),
        "index.json",
        "manifest.json",
        "oci-layout",
        "repositories",
    ]
    created = 1704164645  # 2024-01-02T03:04:05Z
    dated = {f"blobs/sha256/{each}" for each in (digests[0], digests[1], digests[3])}
    for member in found:
        raw = data[member.offset : member.offset + 512]
        assert raw[257:265] == b"ustar\x0000"
        assert raw[100:108] == (b"0040755\0" if member.isdir() else b"0100644\0")
        assert raw[108:124] == b"0000000\0" * 2
        assert raw[265:329] == b"root".ljust(32, b"\0") * 2
        assert member.mtime == (created if member.name in dated else 0)
        assert member.isdir() or member.isreg()
    assert data.endswith(bytes(1024))
    assert content(data, "oci-layout") == b'{"imageLayoutVersion": "1.0.0"}'
    assert content(data, "repositories") == (
        f'{{"a":{{"1":"{digests[1]}"}},"example.com/b":{{"2":"{digests[1]}"}}}}\n'.encode()
    )
    (item,) = json.loads(content(data, "manifest.json"))
    assert list(item) == ["Config", "RepoTags", "Layers", "LayerSources"]
    assert item["Config"] == f"blobs/sha256/{digests[3]}"
    assert item["RepoTags"] == ["a:1", "example.com/b:2"]
    assert item["Layers"] == [f"blobs/sha256/{each}" for each in digests[:2]]
    assert item["LayerSources"][f"sha256:{digests[0]}"] == {
        "mediaType": media.OCI_LAYER,
        "digest": f"sha256:{digests[0]}",
        "size": len(A),
    }
    assert content(data, "manifest.json").endswith(b"]\n")
    index = json.loads(content(data, "index.json"))
    assert index["mediaType"] == media.OCI_INDEX
    assert [each["annotations"] for each in index["manifests"]] == [
        {"io.containerd.image.name": "docker.io/library/a:1", "org.opencontainers.image.ref.name": "1"},
        {"io.containerd.image.name": "example.com/b:2", "org.opencontainers.image.ref.name": "2"},
    ]


def test_untagged(blobs: Blobs) -> None:
    data = blobs.written(docker_archive.plan([blobs.image([A], [])]))
    (item,) = json.loads(content(data, "manifest.json"))
    assert item["RepoTags"] is None
    assert "repositories" not in {member.name for member in members(data)}
    (entry,) = json.loads(content(data, "index.json"))["manifests"]
    assert "annotations" not in entry


@pytest.mark.parametrize("plan", [docker_archive.plan, legacy.plan, oci_layout.plan])
def test_same_bytes_whatever_the_order(blobs: Blobs, plan: Any) -> None:
    once = blobs.written(plan(some_images(blobs)))
    again = some_images(blobs)[::-1]
    for image in again:
        image.tags.reverse()
    assert blobs.written(plan(again + some_images(blobs)[:2])) == once


def test_images_by_id_tags_lexical(blobs: Blobs) -> None:
    data = blobs.written(docker_archive.plan(some_images(blobs)))
    items = json.loads(content(data, "manifest.json"))
    assert [item["Config"] for item in items] == sorted(item["Config"] for item in items)
    assert all(item["RepoTags"] == sorted(item["RepoTags"]) for item in items if item["RepoTags"])


def test_plan_tells_the_places(blobs: Blobs) -> None:
    plan = docker_archive.plan(some_images(blobs))
    data = blobs.written(plan)
    spans, total = writing.offsets(plan)
    assert total == len(data)
    placed = bytearray(total)
    for span in reversed(spans):
        placed[span.start : span.data] = span.member.header()
        body = b"".join(bytes(piece) for piece in writing.contents(span.member, blobs.open))
        placed[span.data : span.data + span.member.size] = body
    assert placed == data


def test_a_layer_shared_takes_the_older_date(blobs: Blobs) -> None:
    plan = docker_archive.plan(some_images(blobs))
    dates = {member.name: member.mtime for member in plan}
    assert dates[f"blobs/sha256/{Digest.of(A).hex}"] == 1672628645


def test_legacy_form(blobs: Blobs, way: Way) -> None:
    images = some_images(blobs)
    data = blobs.written(legacy.plan(images))
    archive = way(data)
    assert archive.form == "docker"
    assert shown(archive) == shown(way(blobs.written(docker_archive.plan(images))))
    found = {member.name: member for member in members(data)}
    assert not any(member.islnk() for member in found.values())
    for item in json.loads(content(data, "manifest.json")):
        for path in item["Layers"]:
            assert found[path].isreg(), "readers that follow no links get by"
    repositories = json.loads(content(data, "repositories"))
    top = repositories["two"]["1"]
    assert content(data, f"{top}/VERSION") == b"1.0"
    assert content(data, f"{top}/layer.tar") == C, "unpacked"
    assert json.loads(content(data, f"{top}/json"))["id"] == top
    links = [member for member in found.values() if member.issym()]
    assert links
    for member in links:
        assert content(data, member.name)[:1], "the link leads somewhere"
    assert "empty" not in repositories


def test_legacy_form_of_old_readers(blobs: Blobs, way: Way) -> None:
    """Without manifest.json, as docker 1.8 sees it, the chain of parents is there."""
    data = blobs.written(legacy.plan([blobs.image([A, B, C], ["x:1"])]))
    kept = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(data)) as source,
        tarfile.open(fileobj=kept, mode="w", format=tarfile.USTAR_FORMAT) as target,
    ):
        for member in source:
            if not member.name.endswith(".json"):
                target.addfile(member, source.extractfile(member) if member.isreg() else None)
    archive = way(kept.getvalue())
    assert archive.form == "legacy"
    assert [len(image.layers) for image in archive.images] == [1, 2, 3]
    assert [tag.familiar() for tag in archive.images[-1].tags] == ["x:1"]


def saved_index(*images: SavedImage, tags: list[str]) -> SavedIndex:
    raw = build.index(
        [
            Descriptor(
                each.manifest.media_type,
                each.manifest.digest,
                len(each.manifest.raw),
                oci_config.parse(each.config_bytes, "c").platform,
            )
            for each in images
        ]
    )
    found = manifest.parse(raw, "i")
    assert isinstance(found, Index)
    return SavedIndex(found, [parse(tag) for tag in tags])


@pytest.mark.parametrize("plan", [docker_archive.plan, oci_layout.plan])
def test_index(blobs: Blobs, way: Way, plan: Any) -> None:
    here = blobs.image([A], [], architecture=host().architecture)
    other = blobs.image([B], [], architecture="s390x")
    index = saved_index(here, other, tags=["a:1"])
    data = blobs.written(plan([here, other], [index]))
    (entry,) = json.loads(content(data, "index.json"))["manifests"]
    assert entry["digest"] == str(index.index.digest)
    if plan is docker_archive.plan:
        (item,) = json.loads(content(data, "manifest.json"))
        assert item["RepoTags"] == ["a:1"]
    archive = way(data, everything=True)
    assert [each.index.raw for each in archive.indexes] == [index.index.raw]
    assert [tag.familiar() for tag in archive.indexes[0].tags] == ["a:1"]
    assert {image.config_digest for image in archive.images} == {
        image.manifest.config.digest for image in (here, other)
    }


def test_index_of_other_platforms_only(blobs: Blobs, way: Way) -> None:
    """Old readers get one of them all the same."""
    images = [blobs.image([data], [], architecture=arch) for data, arch in ((A, "s390x"), (B, "mips64le"))]
    for plan in (docker_archive.plan, legacy.plan):
        data = blobs.written(plan(images, [saved_index(*images, tags=["a:1", "b:1"])]))
        (item,) = json.loads(content(data, "manifest.json"))
        assert item["RepoTags"] == ["a:1", "b:1"]
        assert images[0].manifest.config.digest.hex in item["Config"]
        assert [len(image.tags) for image in way(data).images] == [2]


def test_index_in_an_index(blobs: Blobs, way: Way) -> None:
    image = blobs.image([A], [])
    inner = saved_index(image, tags=[])
    raw = build.index([Descriptor(media.OCI_INDEX, inner.index.digest, len(inner.index.raw))])
    outer = manifest.parse(raw, "o")
    assert isinstance(outer, Index)
    data = blobs.written(docker_archive.plan([image], [inner, SavedIndex(outer, [parse("a:1")])]))
    assert len(json.loads(content(data, "index.json"))["manifests"]) == 1
    archive = way(data, everything=True)
    assert [each.index.digest for each in archive.indexes] == [inner.index.digest, outer.digest]
    assert [[tag.familiar() for tag in image.tags] for image in way(data).images] == [["a:1"]]


def test_oci_folder(blobs: Blobs, tmp_path: Path) -> None:
    images = some_images(blobs)
    target = tmp_path / "layout"
    writing.write_folder(target, oci_layout.plan(images), blobs.open)
    archive = reading.read(open_source(target))
    assert len(archive.images) == len(images)
    assert {path.name for path in target.iterdir()} == {"blobs", "index.json", "oci-layout"}
    assert [path.name for path in tmp_path.iterdir()] == ["layout"]
    with pytest.raises(Conflict, match="exists already"):
        writing.write_folder(target, oci_layout.plan(images), blobs.open)


def test_a_failure_leaves_no_folder(blobs: Blobs, tmp_path: Path) -> None:
    def fail(_: Content) -> tuple[int, list[bytes]]:
        raise Damaged("rotten")

    with pytest.raises(Damaged):
        writing.write_folder(tmp_path / "x", oci_layout.plan(some_images(blobs)), fail)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("size", "pieces"),
    [(len(A), [A[:-1]]), (len(A), [A, b"x"]), (len(A) + 1, [A]), (len(A), [])],
)
def test_blob_of_another_length(blobs: Blobs, size: int, pieces: list[bytes]) -> None:
    plan = docker_archive.plan([blobs.image([A], [])])
    with pytest.raises(Damaged, match=f"{Digest.of(A)}: blob is not as long"):
        writing.write(io.BytesIO(), plan, lambda _: (size, pieces))


@pytest.mark.parametrize(
    ("created", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2024-01-02T03:04:05.999999999Z", 1704164645),
        ("2024-01-02T04:04:05+01:00", 1704164645),
        ("1969-12-31T23:59:59Z", 0),
        ("0001-01-01T00:00:00Z", 0),
        ("0000-01-01T00:00:00Z", 0),
        ("10000-01-01T00:00:00Z", 0),
        ("yesterday", 0),
        ("", 0),
    ],
)
def test_dates(created: str, seconds: int) -> None:
    assert oci_layout.unix_seconds(created) == seconds
