"""Every form of archive in, the same images out: no other program needed."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import sys
import tarfile
from pathlib import Path
from subprocess import PIPE

import pytest
import sample
from running import Cas, Spawn

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

OUTER = {"plain": bytes, "gzip": sample.gz, "bzip2": bz2.compress, "xz": lzma.compress, "zstd": zstd.compress}
ARCHIVES = {
    "docker": sample.docker_archive,
    "docker, gzip layers": lambda *images: sample.docker_archive(*images, pack=sample.gz),
    "docker, zstd layers": lambda *images: sample.docker_archive(*images, pack=zstd.compress),
    "oci": lambda *images: sample.oci_archive(*images, packed=False),
    "oci, gzip layers": sample.oci_archive,
}
TWO = (sample.rich_image(1, ["one:1", "one:latest"]), sample.rich_image(2, ["two:1"]))


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def unpacked(layer: bytes) -> bytes:
    if layer[:2] == b"\x1f\x8b":
        return gzip.decompress(layer)
    return zstd.decompress(layer) if layer[:4] == b"\x28\xb5\x2f\xfd" else layer


def check_images(cas: Cas, tmp_path: Path, *images: sample.Image) -> bytes:
    """These images are in the store: IDs and tags in the list, verified, and saved with the same content."""
    tags = sorted(tag for one in images for tag in one.tags)
    listed = cas("images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").lines
    assert sorted(listed) == sorted(f"{tag} {one.id}" for one in images for tag in one.tags)
    for tag in tags:
        cas("verify", tag)
    out = tmp_path / "checked.tar"
    cas("save", "-o", out, *tags)
    archive = out.read_bytes()
    saved = sample.saved_images(archive)
    assert saved.keys() == {one.id for one in images}
    for one in images:
        assert saved[one.id][0] == sorted(one.tags)
        assert [unpacked(layer) for layer in saved[one.id][1]] == list(one.layers)
    return archive


@pytest.mark.parametrize("outer", OUTER)
@pytest.mark.parametrize("form", ARCHIVES)
def test_loads_each_form_under_each_compression(cas: Cas, tmp_path: Path, form: str, outer: str) -> None:
    archive = put(tmp_path / "in.tar", OUTER[outer](ARCHIVES[form](*TWO)))
    told = cas("load", "-i", archive).lines
    assert sorted(told) == ["Loaded image: one:1", "Loaded image: one:latest", "Loaded image: two:1"]
    check_images(cas, tmp_path, *TWO)


@pytest.mark.parametrize("outer", ["plain", "gzip"])
@pytest.mark.parametrize("form", ARCHIVES)
def test_a_pipe_makes_the_same_store_as_a_file(
    cas: Cas, spawn: Spawn, store_path: Path, tmp_path: Path, form: str, outer: str
) -> None:
    archive = OUTER[outer](ARCHIVES[form](*TWO))
    piped = spawn("load", stdin=PIPE)
    out, err = piped.communicate(archive)
    assert piped.returncode == 0, err
    from_pipe = check_images(cas, tmp_path, *TWO)
    blobs = cas("blob", "ls", "--format", "{{.Digest}} {{.Size}} {{.Encoding}}").out
    store_path.rename(tmp_path / "former")
    assert cas("load", "-i", put(tmp_path / "in.tar", archive)).raw == out
    assert check_images(cas, tmp_path, *TWO) == from_pipe
    assert cas("blob", "ls", "--format", "{{.Digest}} {{.Size}} {{.Encoding}}").out == blobs


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
@pytest.mark.parametrize("source", ARCHIVES)
def test_save_load_save_are_the_same_bytes(
    cas: Cas, store_path: Path, tmp_path: Path, form: str, source: str
) -> None:
    cas("load", "-i", put(tmp_path / "in.tar", ARCHIVES[source](*TWO)))
    tags = ["two:1", "one:latest", "one:1"]
    cas("save", "--format", form, "-o", tmp_path / "a.tar", *tags)
    cas("save", "--format", form, "-o", tmp_path / "b.tar", *reversed(tags))
    store_path.rename(tmp_path / "former")
    cas("load", "-i", tmp_path / "a.tar")
    piped = cas("save", "--format", form, *tags)
    first = (tmp_path / "a.tar").read_bytes()
    assert (tmp_path / "b.tar").read_bytes() == first
    assert piped.raw == first


def test_save_is_the_same_after_gc_and_from_loose_blobs(cas: Cas, store_path: Path, tmp_path: Path) -> None:
    archive = put(tmp_path / "in.tar", sample.docker_archive(*TWO))
    cas("load", "-i", archive)
    cas("save", "-o", tmp_path / "a.tar", "one:1", "two:1")
    cas("gc", "--grace", "0")
    cas("save", "-o", tmp_path / "b.tar", "one:1", "two:1")
    store_path.rename(tmp_path / "former")
    cas("load", "--pack", "later", "-i", archive)
    cas("save", "-o", tmp_path / "c.tar", "one:1", "two:1")
    first = (tmp_path / "a.tar").read_bytes()
    assert (tmp_path / "b.tar").read_bytes() == first
    assert (tmp_path / "c.tar").read_bytes() == first


def test_a_saved_archive_is_what_tools_expect(cas: Cas, tmp_path: Path) -> None:
    cas("load", "-i", put(tmp_path / "in.tar", sample.docker_archive(*TWO)))
    cas("save", "-o", tmp_path / "out.tar", "one:1", "two:1")
    with tarfile.open(tmp_path / "out.tar") as archive:
        infos = archive.getmembers()
    names = [info.name + "/" * info.isdir() for info in infos]
    assert names == sorted(names) and len(set(names)) == len(names)
    assert all(info.isreg() or info.isdir() for info in infos)
    assert {(info.uid, info.gid, info.uname, info.gname) for info in infos} == {(0, 0, "root", "root")}
    assert (tmp_path / "out.tar").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("size", [0, 1, 511, 512, 1024, 70_000])
def test_layers_that_are_no_tar_are_kept_byte_for_byte(cas: Cas, tmp_path: Path, size: int) -> None:
    odd = sample.image("odd", ["odd:1"], [sample.noise(size, size), sample.files({"f": b"1"}) + b"junk at the end"])
    cas("load", "-i", put(tmp_path / "in.tar", sample.docker_archive(odd)))
    check_images(cas, tmp_path, odd)


def test_dialects_of_tar_are_kept_byte_for_byte(cas: Cas, tmp_path: Path) -> None:
    whole = sample.rich_layer("x")
    layers = [
        sample.rich_layer("gnu", kind=tarfile.GNU_FORMAT),
        whole[:-1024],
        whole[: len(whole) // 2],
        whole + whole,
        bytes(10_240),
        whole.replace(b"ustar\x0000", b"ustar  \0"),
        b"".join([whole[:512], bytes([whole[512] ^ 1]), whole[513:]]),
    ]
    dialects = sample.image("dialects", ["dialects:1"], layers)
    cas("load", "-i", put(tmp_path / "in.tar", sample.docker_archive(dialects)))
    check_images(cas, tmp_path, dialects)


def test_untagged_images_go_out_and_come_in_by_id(cas: Cas, store_path: Path, tmp_path: Path) -> None:
    untagged = sample.image("untagged")
    told = cas("load", "-i", put(tmp_path / "in.tar", sample.docker_archive(untagged)))
    assert told.lines == [f"Loaded image ID: {untagged.id}"]
    cas("save", "-o", tmp_path / "out.tar", untagged.id)
    store_path.rename(tmp_path / "former")
    assert cas("load", "-i", tmp_path / "out.tar").lines == told.lines
    assert cas("images", "-q", "--no-trunc").lines == [untagged.id]


def test_one_image_under_two_tags_and_a_layer_twice(cas: Cas, tmp_path: Path) -> None:
    layer = sample.files({"twice": b"2" * 5000})
    double = sample.image("double", ["double:a", "double:b"], [layer, layer])
    cas("load", "-i", put(tmp_path / "in.tar", sample.docker_archive(double)))
    check_images(cas, tmp_path, double)


def test_layer_tars_that_are_links_inside_the_archive(cas: Cas, tmp_path: Path) -> None:
    one = sample.image("links", ["links:1"], [sample.files({"a": b"a"}), sample.files({"b": b"b"})])
    members = sample.docker_members([one])
    paths = [name for name in members if name.endswith("layer.tar")]
    entries = [sample.entry(name, data) for name, data in members.items() if name not in paths]
    soft, hard = paths
    before = sample.entry(soft, kind=tarfile.SYMTYPE, linkname="../hop")
    hop = sample.entry("hop", kind=tarfile.SYMTYPE, linkname="./real-a")
    entries = [before, hop, sample.entry("real-a", members[soft]), sample.entry("real-b", members[hard]), *entries]
    entries.append(sample.entry(hard, kind=tarfile.LNKTYPE, linkname="real-b"))
    cas("load", "-i", put(tmp_path / "in.tar", sample.tar(entries)))
    check_images(cas, tmp_path, one)


def test_members_named_with_dots_and_folders_between(cas: Cas, tmp_path: Path) -> None:
    one = sample.image("dots", ["dots:1"])
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in sample.docker_members([one]).items():
            info, _ = sample.entry("./" + name, data)
            archive.addfile(info, io.BytesIO(data))
    cas("load", "-i", put(tmp_path / "in.tar", buffer.getvalue()))
    check_images(cas, tmp_path, one)


# -- platforms


def test_the_host_platform_is_taken_of_an_index(cas: Cas, tmp_path: Path) -> None:
    layout, images = sample.platforms()
    cas("load", "-i", put(tmp_path / "in.tar", layout.tar()), "--platform", "linux/amd64")
    listed = cas("images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").lines
    assert listed == [f"many:1 {images['linux/amd64'].id}"]
    assert cas("images", "-q").lines == [images["linux/amd64"].id.removeprefix("sha256:")[:12]]


@pytest.mark.parametrize("platform", ["linux/arm64", "linux/arm/v7", "linux/arm"])
def test_another_platform_of_an_index(cas: Cas, tmp_path: Path, platform: str) -> None:
    layout, images = sample.platforms()
    cas("load", "--platform", platform, "-i", put(tmp_path / "in.tar", layout.tar()))
    wanted = images[platform if platform != "linux/arm" else "linux/arm/v7"]
    assert cas("images", "-q", "--no-trunc").lines == [wanted.id]
    cas("verify", "many:1")


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
@pytest.mark.parametrize("packed", [True, False])
def test_all_platforms_keep_the_index_and_its_digest(
    cas: Cas, store_path: Path, tmp_path: Path, form: str, packed: bool
) -> None:
    layout, _ = sample.platforms(packed=packed)
    cas("load", "--all-platforms", "-i", put(tmp_path / "in.tar", layout.tar()))
    assert cas("images", "--digests", "--format", "{{.Digest}}").lines == [layout.top[0]["digest"]]
    verified = cas("verify", "--format", "{{.Digest}}", "many:1").lines
    assert set(verified) == {f"sha256:{path.rpartition('/')[2]}" for path in layout.blobs}
    cas("save", "--format", form, "-o", tmp_path / "out.tar", "many:1")
    out = sample.members_of((tmp_path / "out.tar").read_bytes())
    assert layout.blobs.items() <= out.items()
    store_path.rename(tmp_path / "former")
    cas("load", "--all-platforms", "-i", tmp_path / "out.tar")
    assert cas("images", "--digests", "--format", "{{.Digest}}").lines == [layout.top[0]["digest"]]
    again = cas("save", "--format", form, "many:1")
    assert again.raw == (tmp_path / "out.tar").read_bytes()


def test_an_absent_platform_and_an_absent_child_are_named(cas: Cas, tmp_path: Path) -> None:
    layout, _ = sample.platforms()
    archive = put(tmp_path / "in.tar", layout.tar())
    failed = cas("load", "--platform", "linux/s390x", "-i", archive, ok=False)
    assert "no matching manifest for linux/s390x" in failed.err
    index = json.loads(layout.blobs[f"blobs/sha256/{layout.top[0]['digest'][7:]}"])
    child = index["manifests"][1]["digest"]
    del layout.blobs[f"blobs/sha256/{child[7:]}"]
    failed = cas("load", "--all-platforms", "-i", put(archive, layout.tar()), ok=False)
    assert child in failed.err
    assert cas("images", "-q").lines == []
