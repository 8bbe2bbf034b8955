"""Registries and clients in Go, built from their modules: go-containerregistry (crane), distribution 3, oras."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import golang
import pytest
import registries
import sample
from peers import Peer
from registries import raw
from running import Cas

from casstore import api
from casstore.digest import Digest
from casstore.image.remote import Remote

Serve = Callable[[Path], contextlib.AbstractContextManager[str]]


@contextlib.contextmanager
def crane_serve(folder: Path) -> Iterator[str]:
    program = golang.installed(golang.CRANE, "cmd/crane")
    folder.mkdir()
    port = registries.free_port()
    command = [program, "registry", "serve", "--address", f"127.0.0.1:{port}", "--disk", str(folder)]
    with registries.served(command, port, folder.with_suffix(".log")) as host:
        yield host


@contextlib.contextmanager
def with_referrers(folder: Path) -> Iterator[str]:
    program = golang.compiled("referrers", golang.CRANE, golang.REFERRERS)
    port = registries.free_port()
    with registries.served([program, f"127.0.0.1:{port}"], port, folder.with_suffix(".log")) as host:
        yield host


@contextlib.contextmanager
def distribution(folder: Path) -> Iterator[str]:
    program = golang.installed(golang.DISTRIBUTION, "cmd/registry")
    with registries.docker_registry(folder, program=program) as host:
        yield host


SERVERS: dict[str, Serve] = {
    "crane": crane_serve,
    "referrers": with_referrers,
    "distribution": distribution,
    "docker-registry": registries.docker_registry,
}


@pytest.fixture(scope="module", params=SERVERS)
def host(request: pytest.FixtureRequest, scratch: Path) -> Iterator[str]:
    with SERVERS[request.param](scratch / f"go-{request.param}") as made:
        yield made


@pytest.fixture(scope="module")
def crane() -> Peer:
    return Peer((golang.installed(golang.CRANE, "cmd/crane"),))


@pytest.fixture(scope="module")
def oras(scratch: Path) -> Peer:
    home = scratch / "oras"
    home.mkdir()
    return Peer((golang.installed(golang.ORAS, "cmd/oras"),), {"HOME": str(home)})


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Remote]:
    with Remote(credentials=[tmp_path / "config.json"]) as made:
        yield made


def loaded(store: api.Store, tmp_path: Path, one: sample.Image) -> None:
    (tmp_path / "given.tar").write_bytes(sample.docker_archive(one, pack=sample.gz))
    store.load(tmp_path / "given.tar")


def test_there_and_back(host: str, crane: Peer, opened: api.Store, remote: Remote, tmp_path: Path) -> None:
    name = f"{host}/there/back:1"
    big = sample.files({"big": sample.noise("big", 5 << 20)})  # more than one request carries
    one = sample.image("back", (name,), [*sample.rich_image("back").layers, big])
    loaded(opened, tmp_path, one)
    report = opened.push(name, remote=remote)
    assert opened.push(name, remote=remote).sent == 0
    assert crane("digest", name).strip() == str(report.digest) == str(remote.digest(name))
    crane("validate", "--remote", name)  # every layer, its digest and diffID
    assert crane("config", name).encode() == one.config
    with api.open(tmp_path / "other") as other:
        assert str(other.pull(name, remote=remote).image) == one.id
        assert other.verify(name).ok
        assert not other.pull(name, remote=remote).fresh
        by_digest = f"{host}/there/back@{report.digest}"
        assert not other.pull(by_digest, remote=remote).fetched
    # From one repository into another, by mount where the registry does that.
    opened.tag(name, f"{host}/there/other:1")
    assert opened.push(f"{host}/there/other:1", remote=remote).digest == report.digest
    crane("validate", "--remote", f"{host}/there/other:1")


def test_what_crane_pushes(host: str, crane: Peer, opened: api.Store, remote: Remote, tmp_path: Path) -> None:
    name = f"{host}/by/crane:1"
    one = sample.rich_image("crane")
    (tmp_path / "a.tar").write_bytes(sample.docker_archive(one))
    crane("push", tmp_path / "a.tar", name)
    report = opened.pull(name, remote=remote)
    assert (str(report.digest), str(report.image)) == (crane("digest", name).strip(), one.id)
    manifest = remote.manifest(name)
    assert manifest.raw == raw(f"http://{host}/v2/by/crane/manifests/1")
    for layer in json.loads(manifest.raw)["layers"]:
        assert b"".join(opened.blobs.cat(Digest.parse(layer["digest"]))) == raw(
            f"http://{host}/v2/by/crane/blobs/{layer['digest']}"
        )


def test_an_index(host: str, crane: Peer, opened: api.Store, remote: Remote, tmp_path: Path) -> None:
    layout, images = sample.platforms("many:1")
    (tmp_path / "many.tar").write_bytes(layout.tar())
    with api.open(tmp_path / "other") as other:
        other.load(tmp_path / "many.tar", all_platforms=True)
        other.tag("many:1", f"{host}/many:1")
        pushed = other.push(f"{host}/many:1", remote=remote)
    crane("validate", "--remote", f"{host}/many:1")
    assert crane("digest", f"{host}/many:1").strip() == str(pushed.digest)
    report = opened.pull(f"{host}/many:1", remote=remote, platform="linux/arm64")
    assert str(report.image) == images["linux/arm64"].id
    assert opened.pull(f"{host}/many:1", remote=remote, all_platforms=True).digest == pushed.digest


def test_lists(host: str, cas: Cas, crane: Peer, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(sample.docker_archive(sample.image("lists")))
    for tag in ("b", "a", "c-1.0"):
        crane("push", tmp_path / "a.tar", f"{host}/lists:{tag}")
    assert sorted(cas("ls-remote", f"{host}/lists").lines) == ["a", "b", "c-1.0"]
    assert cas("manifest", "digest", f"{host}/lists:a").lines == crane("digest", f"{host}/lists:a").splitlines()
    assert cas("manifest", "get", f"{host}/lists:a").raw == crane("manifest", f"{host}/lists:a").encode()
    cas("pull", "-a", f"{host}/lists")
    assert len(set(cas("images", "--no-trunc", "--format", "{{.ID}} {{.Tag}}").lines)) == 3
    assert "not found" in cas("pull", f"{host}/lists:nosuch", ok=False).err
    assert re.search("(?i)unknown|not known", cas("ls-remote", f"{host}/nosuch", ok=False).err)


def test_referrers(host: str, oras: Peer, opened: api.Store, remote: Remote, tmp_path: Path) -> None:
    """What oras attaches is found here, by the API or under the tag that stands in for it."""
    name = f"{host}/signed/a:1"
    loaded(opened, tmp_path, sample.image("signed", (name,)))
    digest = str(opened.push(name, remote=remote).digest)
    paper = tmp_path / "paper.txt"
    for kind in ("sig", "sbom"):
        paper.write_text(kind)
        options = ["--plain-http", "--disable-path-validation", "--artifact-type", f"application/x-{kind}"]
        oras("attach", *options, "--annotation", f"kind={kind}", name, f"{paper}:text/plain")
    listed = json.loads(oras("discover", "--plain-http", "--format", "json", name))
    said = listed.get("referrers") or listed.get("manifests")
    found = remote.referrers(name)
    assert {(str(one.digest), one.artifact_type) for one in found} == {
        (one["digest"], one["artifactType"]) for one in said
    }
    assert len(found) == 2
    assert {one.annotations["kind"] for one in found} == {"sig", "sbom"}
    # go-containerregistry lists the type of the config instead of the artifact's, as oras shows it too.
    kind = found[0].artifact_type
    chosen = {one.digest for one in found if one.artifact_type == kind}
    assert {one.digest for one in remote.referrers(name, kind)} == chosen  # in any order: it has them in a map
    assert remote.referrers(name, "application/x-nothing") == []
    assert remote.referrers(f"{host}/signed/a@{found[0].digest}") == []
    with api.open(tmp_path / "other") as other:
        other.pull(name, remote=remote, referrers=True)
        for one in found:
            assert b"".join(other.blobs.cat(one.digest)) == remote.manifest(f"{host}/signed/a@{one.digest}").raw
    assert str(remote.digest(name)) == digest
