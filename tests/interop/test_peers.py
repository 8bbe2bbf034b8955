"""Images exchanged with the real programs: what casstore saved they load, what they save casstore loads; IDs are equal,
and layers are equal to the byte wherever the other program keeps bytes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import sample
from running import Cas
from sample import members_of, saved_images, sha

FORMS = ["docker-archive", "oci-archive"]
PACKED = pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])


def loaded(cas: Cas, tmp_path: Path, *images: sample.Image, packed: bool) -> None:
    """A store with these images; `packed`: their layers are gzip blobs."""
    data = sample.oci_archive(*images) if packed else sample.docker_archive(*images)
    (tmp_path / "given.tar").write_bytes(data)
    cas("load", "-i", tmp_path / "given.tar")


def saved(cas: Cas, tmp_path: Path, form: str, *references: str) -> Path:
    out = tmp_path / f"casstore-{form}.tar"
    cas("save", "--format", form, "-o", out, *references)
    return out


def taken_back(cas: Cas, store_path: Path, archive: Path, one: sample.Image, tag: str) -> dict[str, bytes]:
    """Load what a peer saved into a new store; the image is the same. Returns what casstore then saves."""
    if store_path.exists():
        store_path.rename(store_path.with_name(f"store-{archive.name}"))
    cas("load", "-i", archive)
    assert cas("images", "-q", "--no-trunc", tag).lines == [one.id]
    cas("verify", tag)
    out = archive.with_suffix(".again")
    cas("save", "-o", out, tag)
    data = out.read_bytes()
    (found,) = saved_images(data).values()
    layers = [gzip.decompress(each) if each[:2] == b"\x1f\x8b" else each for each in found[1]]
    assert [sha(layer) for layer in layers] == [sha(layer) for layer in one.layers]
    return members_of(data)


def blobs_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# -- docker


@PACKED
def test_docker(docker: Callable[..., str], cas: Cas, store_path: Path, tmp_path: Path, packed: bool) -> None:
    one, two = sample.rich_image("docker", ["dock/er:1"]), sample.image("second", ["dock/er:2", "other:x"])
    loaded(cas, tmp_path, one, two, packed=packed)
    archive = saved(cas, tmp_path, "docker-archive", "dock/er:1", "dock/er:2", "other:x")
    told = docker("load", "-i", archive)
    assert sorted(told.split("\n")[:3]) == [f"Loaded image: {tag}" for tag in ("dock/er:1", "dock/er:2", "other:x")]
    for tag, each in (("dock/er:1", one), ("dock/er:2", two), ("other:x", two)):
        assert docker("image", "inspect", "--format", "{{.Id}} {{json .RootFS.Layers}}", tag).split(" ", 1) == [
            each.id,
            json.dumps(each.diff_ids, separators=(",", ":")) + "\n",
        ]
    sizes = docker("image", "inspect", "--format", "{{.Size}}", "dock/er:1", "other:x").split()
    ours = json.loads(f"[{','.join(cas('images', '--format', 'json').lines)}]")
    by_tag = {f"{row['Repository']}:{row['Tag']}": row["Size"] for row in ours}
    human = docker("images", "--format", "{{.Repository}}:{{.Tag}} {{.Size}}").split("\n")
    theirs = dict(line.split(" ") for line in human if line)  # with what other tests have loaded there
    assert by_tag == {tag: theirs.get(tag) for tag in by_tag}, sizes

    docker("save", "-o", tmp_path / "docker.tar", "dock/er:1")
    taken_back(cas, store_path, tmp_path / "docker.tar", one, "dock/er:1")
    docker("save", "-o", tmp_path / "three.tar", "dock/er:1", "dock/er:2", "other:x")
    store_path.rename(tmp_path / "former")
    told = cas("load", "-i", tmp_path / "three.tar").out
    assert sorted(told.split("\n")) == ["", *(f"Loaded image: {tag}" for tag in ("dock/er:1", "dock/er:2", "other:x"))]
    docker("image", "rm", "-f", one.id, two.id)


def test_docker_by_id(docker: Callable[..., str], cas: Cas, store_path: Path, tmp_path: Path) -> None:
    one = sample.image("no name")
    loaded(cas, tmp_path, one, packed=False)
    assert docker("load", "-i", saved(cas, tmp_path, "docker-archive", one.id)) == f"Loaded image ID: {one.id}\n"
    docker("save", "-o", tmp_path / "docker.tar", one.id)
    store_path.rename(tmp_path / "former")
    assert cas("load", "-i", tmp_path / "docker.tar").out == f"Loaded image ID: {one.id}\n"
    docker("image", "rm", one.id)


def test_docker_import_makes_the_same_diffid(docker: Callable[..., str], cas: Cas, tmp_path: Path) -> None:
    root = tmp_path / "root.tar.gz"
    root.write_bytes(sample.gz(sample.rich_layer("import")))
    theirs = docker("import", root, "imported:1").strip()
    ours = cas("import", root, "imported:1").out.strip()
    docker("load", "-i", saved(cas, tmp_path, "docker-archive", "imported:1"))
    assert docker("image", "inspect", "--format", "{{.Id}}", "imported:1").strip() == ours
    layers = {docker("image", "inspect", "--format", "{{.RootFS.Layers}}", each) for each in (theirs, ours)}
    assert layers == {f"[{sample.digest(sample.rich_layer('import'))}]\n"}
    docker("image", "rm", "-f", theirs, ours)


# -- podman


@PACKED
@pytest.mark.parametrize("form", FORMS)
def test_podman(
    podman: Callable[..., str], cas: Cas, store_path: Path, tmp_path: Path, form: str, packed: bool
) -> None:
    one = sample.rich_image(f"podman {form} {packed}", ["pod/man:1"])
    loaded(cas, tmp_path, one, packed=packed)
    podman("load", "-i", saved(cas, tmp_path, form, "pod/man:1"))
    name = "docker.io/pod/man:1" if form == "docker-archive" else one.id
    assert podman("image", "inspect", "--format", "{{.Id}}", name).strip() == one.id[7:]
    for back in FORMS:
        archive = tmp_path / f"podman-{back}.tar"
        podman("save", "-q", "--format", back, "-o", archive, one.id)
        store_path.rename(tmp_path / f"before-{back}")
        cas("load", "-i", archive)
        assert one.id in cas("images", "-q", "--no-trunc").lines
        cas("verify", one.id)
    podman("rmi", "-f", one.id)


# -- skopeo and umoci


@PACKED
@pytest.mark.parametrize("form", FORMS)
def test_skopeo_to_a_layout(skopeo: Callable[..., str], cas: Cas, tmp_path: Path, form: str, packed: bool) -> None:
    one = sample.rich_image("skopeo", ["sko/peo:1"])
    loaded(cas, tmp_path, one, packed=packed)
    archive = saved(cas, tmp_path, form, "sko/peo:1")
    if form == "docker-archive":  # as its own kind it stays what it is; skopeo writes a new config for a layout
        skopeo("copy", f"{form}:{archive}", f"dir:{tmp_path}/dir")
        assert (tmp_path / "dir" / one.id[7:]).read_bytes() == one.config
    skopeo("copy", f"{form}:{archive}", f"oci:{tmp_path}/layout:1")
    folder = blobs_of(tmp_path / "layout")
    cas("load", "-i", tmp_path / "layout")
    manifest = json.loads(folder["index.json"])["manifests"][0]["digest"]
    document = json.loads(folder[f"blobs/sha256/{manifest[7:]}"])
    config = document["config"]["digest"]
    assert config in cas("images", "-q", "--no-trunc").lines
    assert form == "docker-archive" or config == one.id
    assert json.loads(folder[f"blobs/sha256/{config[7:]}"])["rootfs"]["diff_ids"] == one.diff_ids
    assert cas("blob", "cat", manifest).raw == folder[f"blobs/sha256/{manifest[7:]}"]
    for layer in document["layers"]:
        assert cas("blob", "cat", layer["digest"]).raw == folder[f"blobs/sha256/{layer['digest'][7:]}"]


@PACKED
def test_skopeo_keeps_the_manifest_of_an_oci_archive(
    skopeo: Callable[..., str], cas: Cas, tmp_path: Path, packed: bool
) -> None:
    loaded(cas, tmp_path, sample.rich_image("skopeo", ["sko/peo:1"]), packed=packed)
    archive = saved(cas, tmp_path, "oci-archive", "sko/peo:1")
    theirs = skopeo("inspect", "--raw", f"oci-archive:{archive}").encode()
    ours = cas("images", "--digests", "--format", "{{.Digest}}").out.strip()
    assert sample.digest(theirs) == ours
    assert cas("blob", "cat", ours).raw == theirs


@pytest.mark.parametrize("form", FORMS)
def test_skopeo_out_of_a_layout(
    skopeo: Callable[..., str], cas: Cas, store_path: Path, tmp_path: Path, form: str
) -> None:
    one = sample.rich_image("from skopeo", ["sko/peo:1"])
    (tmp_path / "given.tar").write_bytes(sample.oci_archive(one))
    archive = tmp_path / f"skopeo-{form}.tar"
    skopeo("copy", f"oci-archive:{tmp_path}/given.tar", f"{form}:{archive}:docker.io/sko/peo:1")
    taken_back(cas, store_path, archive, one, "sko/peo:1")


def test_skopeo_copies_all_platforms(skopeo: Callable[..., str], cas: Cas, tmp_path: Path) -> None:
    layout, images = sample.platforms()
    (tmp_path / "given.tar").write_bytes(layout.tar())
    cas("load", "--all-platforms", "-i", tmp_path / "given.tar")
    archive = saved(cas, tmp_path, "oci-archive", "many:1")
    skopeo("copy", "--all", f"oci-archive:{archive}", f"oci:{tmp_path}/layout:many")
    folder = blobs_of(tmp_path / "layout")
    assert layout.blobs.items() <= folder.items()
    cas("load", "--platform", "linux/arm64", "-i", tmp_path / "layout")
    assert images["linux/arm64"].id in cas("images", "-q", "--no-trunc").lines


@PACKED
def test_umoci(
    umoci: Callable[..., str], skopeo: Callable[..., str], cas: Cas, tmp_path: Path, packed: bool
) -> None:
    one = sample.rich_image("umoci", ["umo/ci:1"])
    loaded(cas, tmp_path, one, packed=packed)
    layout = tmp_path / "layout"
    skopeo("copy", f"docker-archive:{saved(cas, tmp_path, 'docker-archive', 'umo/ci:1')}", f"oci:{layout}:1")
    umoci("unpack", "--rootless", "--image", f"{layout}:1", tmp_path / "bundle")
    assert (tmp_path / "bundle/rootfs/srv/app").read_bytes() == sample.text("umoci", 30_000)
    assert not (tmp_path / "bundle/rootfs/etc/secret").exists()
    (tmp_path / "bundle/rootfs/srv/more").write_bytes(b"by umoci")
    umoci("repack", "--image", f"{layout}:2", tmp_path / "bundle")
    umoci("tag", "--image", f"{layout}:2", "umo/ci:2")
    cas("load", "-i", layout)
    ids = cas("images", "-a", "-q", "--no-trunc").lines
    assert one.id in ids and len(ids) >= 2
    for each in set(ids):
        cas("verify", each)


# -- containerd


@PACKED
@pytest.mark.parametrize("form", FORMS)
def test_ctr(ctr: Callable[..., str], cas: Cas, store_path: Path, tmp_path: Path, form: str, packed: bool) -> None:
    one = sample.rich_image(f"ctr {form} {packed}", ["con/tainerd:1"])
    loaded(cas, tmp_path, one, packed=packed)
    digest = cas("images", "--digests", "--format", "{{.Digest}}").out.strip()
    ctr("images", "import", "--all-platforms", "--no-unpack", saved(cas, tmp_path, form, "con/tainerd:1"))
    name = "docker.io/con/tainerd:1"
    (row,) = (line for line in ctr("images", "ls").splitlines() if line.startswith(name))
    assert digest in row
    archive = tmp_path / "ctr.tar"
    ctr("images", "export", "--all-platforms", archive, name)
    out = members_of(archive.read_bytes())
    assert out[f"blobs/sha256/{one.id[7:]}"] == one.config
    again = taken_back(cas, store_path, archive, one, "con/tainerd:1")
    assert {k: v for k, v in again.items() if k.startswith("blobs/")} == {
        k: v for k, v in out.items() if k.startswith("blobs/")
    }
    assert cas("images", "--digests", "--format", "{{.Digest}}").out.strip() == digest
    ctr("images", "rm", name)


def test_ctr_takes_an_untagged_image(ctr: Callable[..., str], cas: Cas, tmp_path: Path) -> None:
    one = sample.image("untagged for ctr")
    loaded(cas, tmp_path, one, packed=False)
    archive = saved(cas, tmp_path, "docker-archive", one.id)
    ctr("images", "import", "--all-platforms", "--no-unpack", "--digests", "--base-name", "plain", archive)
    assert f"blobs/sha256/{one.id[7:]}" in members_of(archive.read_bytes())
    assert "plain@sha256:" in ctr("images", "ls", "-q")


def test_ctr_unpacks(ctr: Callable[..., str], cas: Cas, tmp_path: Path) -> None:
    one = sample.rich_image("unpacked", ["unpack:1"])
    loaded(cas, tmp_path, one, packed=False)
    archive = saved(cas, tmp_path, "docker-archive", "unpack:1")
    ctr("images", "import", "--all-platforms", "--snapshotter", "native", archive)
    assert "docker.io/library/unpack:1" in ctr("images", "ls", "-q")


# -- images as they are published


def layouts(shared: Path) -> list[Path]:
    found = sorted(mark.parent for mark in (shared / "data").rglob("oci-layout"))
    if not found:
        pytest.skip("no OCI layouts in the shared data folder")
    return found


def test_published_layouts_come_back_to_the_byte(shared: Path, cas: Cas, tmp_path: Path) -> None:
    ids = {}
    for layout in layouts(shared):
        cas("load", "--all-platforms", "-i", layout)
        ids[layout.name] = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    for layout in layouts(shared):
        for name, data in blobs_of(layout / "blobs").items():
            assert cas("blob", "cat", f"sha256:{name.rpartition('/')[2]}").raw == data, name
    for digest in ids.values():
        assert cas("verify", digest).code == 0
    cas("save", "--format", "oci-archive", "-o", tmp_path / "all.tar", *ids.values())
    out = members_of((tmp_path / "all.tar").read_bytes())
    for layout in layouts(shared):
        assert {f"blobs/{k}": v for k, v in blobs_of(layout / "blobs").items()}.items() <= out.items()
    cas("gc", "--grace", "0")
    cas("check", "--read-data")


def test_a_published_image_goes_to_docker_and_back(
    shared: Path, docker: Callable[..., str], cas: Cas, store_path: Path, tmp_path: Path
) -> None:
    (layout, *_) = (one for one in layouts(shared) if one.name.endswith("musl-amd64"))
    manifest = json.loads((layout / "index.json").read_text())["manifests"][0]
    config = json.loads((layout / "blobs/sha256" / manifest["digest"][7:]).read_text())["config"]["digest"]
    cas("load", "-i", layout)
    cas("tag", config, "published:1")
    archive = saved(cas, tmp_path, "docker-archive", "published:1")
    assert "published:1" in docker("load", "-i", archive)
    assert docker("image", "inspect", "--format", "{{.Id}}", "published:1").strip() == config
    docker("save", "-o", tmp_path / "docker.tar", "published:1")
    store_path.rename(tmp_path / "former")
    cas("load", "-i", tmp_path / "docker.tar")
    assert cas("images", "-q", "--no-trunc", "published:1").lines == [config]
    cas("verify", "published:1")
    docker("image", "rm", "published:1")
