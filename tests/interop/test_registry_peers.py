"""Images through one registry between casstore, docker, podman and skopeo: all agree on every digest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import registries
import sample
from peers import Peer
from registries import raw

from casstore import api
from casstore.digest import Digest
from casstore.image.remote import Remote

PACKED = pytest.mark.parametrize("pack", [bytes, sample.gz], ids=["plain", "gzip"])
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@pytest.fixture(scope="module")
def host(scratch: Path) -> Iterator[str]:
    with registries.docker_registry(scratch / "between") as made:
        yield made


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Remote]:
    with Remote(credentials=[tmp_path / "config.json"]) as made:
        yield made


@pytest.fixture
def pushed(
    opened: api.Store, remote: Remote, host: str, tmp_path: Path, pack: Callable[[bytes], bytes]
) -> tuple[sample.Image, str, str]:
    """An image that casstore pushed: the image, its name, the digest of its manifest."""
    name = f"{host}/ours/{'gzip' if pack is sample.gz else 'plain'}:1"
    one = sample.rich_image(name, (name,))
    archive = tmp_path / "given.tar"
    archive.write_bytes(sample.docker_archive(one, pack=pack))
    opened.load(archive)
    report = opened.push(name, remote=remote)
    return one, name, str(report.digest)


def manifest_of(name: str) -> bytes:
    host, _, rest = name.partition("/")
    path, _, tag = rest.rpartition(":")
    return raw(f"http://{host}/v2/{path}/manifests/{tag}")


def same_elsewhere(store: api.Store, remote: Remote, skopeo: Peer, name: str, digest: str) -> None:
    """What casstore has of it goes to another repository, and is the same there."""
    other = name.replace("/theirs/", "/again/")
    store.tag(name, other)
    assert str(store.push(other, remote=remote).digest) == digest
    assert sample.digest(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{other}").encode()) == digest


def all_bytes(store: api.Store, name: str) -> None:
    """Every blob of a manifest in the store is the registry's."""
    host, _, rest = name.partition("/")
    path = rest.rpartition(":")[0]
    value = json.loads(manifest_of(name))
    for each in [value["config"], *value["layers"]]:
        assert b"".join(store.blobs.cat(Digest.parse(each["digest"]))) == raw(
            f"http://{host}/v2/{path}/blobs/{each['digest']}"
        )


@PACKED
def test_docker_pulls_what_was_pushed(docker: Peer, pushed: tuple[sample.Image, str, str]) -> None:
    one, name, digest = pushed
    said = docker("pull", name)
    assert f"Digest: {digest}" in said
    (shown,) = json.loads(docker("image", "inspect", name))
    assert shown["Id"] == one.id
    assert shown["RootFS"]["Layers"] == one.diff_ids
    assert shown["RepoDigests"] == [f"{name.rpartition(':')[0]}@{digest}"]
    assert f"Digest: {digest}" in docker("pull", f"{name.rpartition(':')[0]}@{digest}")


@PACKED
def test_podman_pulls_what_was_pushed(podman: Peer, pushed: tuple[sample.Image, str, str]) -> None:
    one, name, digest = pushed
    podman("pull", "--tls-verify=false", name)
    (shown,) = json.loads(podman("image", "inspect", name))
    assert "sha256:" + shown["Id"] == one.id
    assert shown["Digest"] == digest
    assert shown["RootFS"]["Layers"] == one.diff_ids


@PACKED
def test_skopeo_reads_what_was_pushed(skopeo: Peer, pushed: tuple[sample.Image, str, str], tmp_path: Path) -> None:
    one, name, digest = pushed
    said = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}")
    assert sample.digest(said.encode()) == digest == sample.digest(manifest_of(name))
    shown = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{name}"))
    assert shown["Digest"] == digest
    assert skopeo("inspect", "--config", "--raw", "--tls-verify=false", f"docker://{name}").encode() == one.config
    # Every blob is what its digest says: skopeo looks.
    skopeo("copy", "--src-tls-verify=false", "--preserve-digests", f"docker://{name}", f"dir:{tmp_path}/dir")
    assert sample.digest((tmp_path / "dir" / "manifest.json").read_bytes()) == digest


def test_what_docker_pushed(
    docker: Peer, skopeo: Peer, opened: api.Store, remote: Remote, host: str, tmp_path: Path
) -> None:
    name = f"{host}/theirs/docker:1"
    one = sample.rich_image("docker pushes", (name,))
    archive = tmp_path / "given.tar"
    archive.write_bytes(sample.docker_archive(one))
    docker("load", "-i", archive)
    said = docker("push", name)
    report = opened.pull(name, remote=remote)
    assert (str(report.image), report.fresh) == (one.id, True)
    assert f"digest: {report.digest} size: {len(manifest_of(name))}" in said
    assert json.loads(manifest_of(name))["mediaType"] == DOCKER_MANIFEST
    all_bytes(opened, name)
    same_elsewhere(opened, remote, skopeo, name, str(report.digest))
    # docker believes that it has it already, under the other name too.
    docker("pull", name.replace("/theirs/", "/again/"))
    shown = json.loads(docker("image", "inspect", name.replace("/theirs/", "/again/")))
    assert shown[0]["Id"] == one.id and len(shown[0]["RepoDigests"]) == 2


@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_what_podman_pushed(
    podman: Peer, skopeo: Peer, opened: api.Store, remote: Remote, host: str, tmp_path: Path, form: str
) -> None:
    name = f"{host}/theirs/podman-{form}:1"
    one = sample.rich_image(f"podman pushes {form}", (name,))
    archive = tmp_path / "given.tar"
    archive.write_bytes(sample.docker_archive(one))
    podman("load", "-i", archive)
    said = tmp_path / "digest"
    podman("push", "--tls-verify=false", "--format", form, "--digestfile", said, name)
    report = opened.pull(name, remote=remote)
    assert str(report.digest) == said.read_text() == sample.digest(manifest_of(name))
    all_bytes(opened, name)
    same_elsewhere(opened, remote, skopeo, name, str(report.digest))
    podman("pull", "--tls-verify=false", name.replace("/theirs/", "/again/"))
    shown = json.loads(podman("image", "inspect", name.replace("/theirs/", "/again/")))
    assert "sha256:" + shown[0]["Id"] == str(report.image)


def test_layers_by_other_encoders(
    podman: Peer, skopeo: Peer, opened: api.Store, remote: Remote, host: str, tmp_path: Path
) -> None:
    """zstd layers, as podman makes them."""
    name = f"{host}/theirs/zstd:1"
    one = sample.image("zstd", (name,))  # with no layer that the registry has from another encoder
    archive = tmp_path / "given.tar"
    archive.write_bytes(sample.docker_archive(one))
    podman("load", "-i", archive)
    podman("push", "--tls-verify=false", "--format", "oci", "--compression-format", "zstd", name)
    assert json.loads(manifest_of(name))["layers"][0]["mediaType"].endswith("+zstd")
    report = opened.pull(name, remote=remote)
    all_bytes(opened, name)
    assert opened.verify(name).ok
    same_elsewhere(opened, remote, skopeo, name, str(report.digest))
