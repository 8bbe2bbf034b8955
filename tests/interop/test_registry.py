"""Images to and from a real registry (docker-registry), with skopeo as the witness."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import registries
import sample
from peers import Peer
from registries import raw

from casstore import api
from casstore.digest import Digest
from casstore.errors import Denied
from casstore.image.remote import Remote
from casstore.transport.registry import Registry


@pytest.fixture(scope="module")
def host(scratch: Path) -> Iterator[str]:
    with registries.docker_registry(scratch / "registry") as made:
        yield made


@pytest.fixture(scope="module")
def locked(scratch: Path) -> Iterator[str]:
    with registries.docker_registry(scratch / "locked", **registries.locked(scratch)) as made:
        yield made


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Remote]:
    with Remote(credentials=[tmp_path / "config.json"]) as made:
        yield made


@pytest.mark.parametrize("form", ["v2s2", "oci"])
def test_there_and_back(host: str, skopeo: Peer, opened: api.Store, remote: Remote, tmp_path: Path, form: str) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(sample.docker_archive(sample.rich_image(form, (f"rich:{form}",))))
    name = f"{host}/base/rich:{form}"
    skopeo("copy", "--format", form, "--dest-tls-verify=false", f"docker-archive:{archive}", f"docker://{name}")

    report = opened.pull(name, remote=remote)
    manifest = raw(f"http://{host}/v2/base/rich/manifests/{form}")
    assert str(report.digest) == "sha256:" + hashlib.sha256(manifest).hexdigest()
    value = json.loads(manifest)
    for digest in [value["config"]["digest"], *(layer["digest"] for layer in value["layers"])]:
        assert b"".join(opened.blobs.cat(Digest.parse(digest))) == raw(f"http://{host}/v2/base/rich/blobs/{digest}")
    assert not opened.pull(name, remote=remote).fresh

    # Once mounted from the repository that it came from, once sent.
    for target in ("other/rich", "third/rich"):
        opened.tag(name, f"{host}/{target}:1")
        sent = opened.push(f"{host}/{target}:1", remote=remote)
        assert sent.digest == report.digest and sent.sent == 0
        shown = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{host}/{target}:1"))
        assert shown["Digest"] == str(report.digest)
        assert shown["Layers"] == [layer["digest"] for layer in value["layers"]]
        assert raw(f"http://{host}/v2/{target}/manifests/1") == manifest

    saved = tmp_path / "saved.tar"
    opened.save([name], saved)
    config = skopeo("inspect", "--config", "--raw", f"docker-archive:{saved}")
    assert sample.digest(config.encode()) == value["config"]["digest"]


def test_a_large_layer_is_sent(host: str, skopeo: Peer, opened: api.Store, remote: Remote, tmp_path: Path) -> None:
    big = sample.image("sent", (f"{host}/sent:1",), [sample.files({"big": sample.noise("sent", 5 << 20)})])
    archive = tmp_path / "a.tar"
    archive.write_bytes(sample.docker_archive(big, pack=sample.gz))
    opened.load(archive)
    report = opened.push(f"{host}/sent:1", remote=remote)
    assert report.sent == len(sample.gz(big.layers[0])) + len(big.config)
    back = tmp_path / "back.tar"
    skopeo("copy", "--src-tls-verify=false", f"docker://{host}/sent:1", f"docker-archive:{back}:sent:1")
    assert list(sample.saved_images(back.read_bytes())) == [big.id]
    assert opened.push(f"{host}/sent:1", remote=remote).sent == 0


def test_an_index(host: str, skopeo: Peer, opened: api.Store, remote: Remote, tmp_path: Path) -> None:
    layout, images = sample.platforms("many:1")
    archive = tmp_path / "many.tar"
    archive.write_bytes(layout.tar())
    skopeo("copy", "--all", "--dest-tls-verify=false", f"oci-archive:{archive}", f"docker://{host}/many:1")
    report = opened.pull(f"{host}/many:1", remote=remote, all_platforms=True)
    assert report.digest == remote.digest(f"{host}/many:1")
    opened.tag(f"{host}/many:1", f"{host}/again:1")
    assert opened.push(f"{host}/again:1", remote=remote).digest == report.digest
    shown = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{host}/again:1"))
    assert len(shown["manifests"]) == len(images)


def test_lists(host: str, skopeo: Peer, remote: Remote, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(sample.docker_archive(sample.image("lists", ("lists:1",))))
    for tag in "cab":
        target = f"docker://{host}/lists:{tag}"
        skopeo("copy", "--dest-tls-verify=false", f"docker-archive:{archive}", target)
    assert sorted(remote.tags(f"{host}/lists")) == ["a", "b", "c"]
    assert "lists" in list(Registry(remote.http, host).catalog())
    assert remote.referrers(f"{host}/lists:a") == []


def test_a_registry_with_a_lock(locked: str, opened: api.Store, remote: Remote, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(sample.docker_archive(sample.image("locked", (f"{locked}/a:1",)), pack=sample.gz))
    opened.load(archive)
    with pytest.raises(Denied, match="push access denied"):
        opened.push(f"{locked}/a:1", remote=remote)
    with pytest.raises(Denied, match="login failed"):
        remote.login(locked, "me", "wrong")
    assert remote.login(locked, "me", "secret") == str(tmp_path / "config.json")
    with Remote(credentials=[tmp_path / "config.json"]) as known:
        report = opened.push(f"{locked}/a:1", remote=known)
        assert not opened.pull(f"{locked}/a:1", remote=known).fresh
        assert known.digest(f"{locked}/a:1") == report.digest
