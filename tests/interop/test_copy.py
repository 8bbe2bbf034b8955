"""`copy` between any two places: every pair once, and as skopeo does it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import registries
import sample
from peers import Peer

from casstore import api
from casstore.errors import BadInput, CasstoreError, NotFound, RemoteFailure, UsageError
from casstore.image.remote import Remote

KINDS = ("docker", "docker-daemon", "docker-archive", "oci-archive", "oci", "dir", "store")
EXACT = ("docker", "oci-archive", "oci", "dir", "store")
"""Places that have a manifest's own bytes."""
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
ONE = sample.rich_image("copied", ("copied:1",))


@dataclass
class World:
    """The places that the image is copied between."""

    folder: Path
    host: str
    docker: Peer
    skopeo: Peer
    store: api.Store
    remote: Remote

    @property
    def socket(self) -> str:
        return self.docker.command[-1].removeprefix("unix://")

    def place(self, kind: str, name: str) -> str:
        """A place that nothing else uses."""
        folder = self.folder / name
        return {
            "docker": f"docker://{self.host}/{name}:1",
            "docker-daemon": f"docker-daemon:{name}:1",
            "docker-archive": f"docker-archive:{folder}.docker.tar:{name}:1",
            "oci-archive": f"oci-archive:{folder}.oci.tar:v1",
            "oci": f"oci:{folder}.oci:v1",
            "dir": f"dir:{folder}.dir",
            "store": f"store:{name}:1",
        }[kind]

    def manifest(self, place: str) -> bytes:
        """The manifest that is there, as skopeo or the catalog has it."""
        if place.startswith("store:"):
            (row,) = self.store.images(place[6:])
            return b"".join(self.store.blobs.cat(row.digest))
        options = ["--tls-verify=false"] if place.startswith("docker:") else []
        return self.skopeo("inspect", "--raw", *options, place).encode()

    def config(self, place: str) -> str:
        """The image's ID there."""
        if place.startswith("docker-daemon:"):
            (shown,) = json.loads(self.docker("image", "inspect", place.partition(":")[2]))
            return str(shown["Id"])
        if place.startswith("store:"):
            return str(json.loads(self.manifest(place))["config"]["digest"])
        options = ["--tls-verify=false"] if place.startswith("docker:") else []
        return sample.digest(self.skopeo("inspect", "--config", "--raw", *options, place).encode())

    def copy(self, source: str, target: str, **more: Any) -> str:
        return str(self.store.copy(source, target, remote=self.remote, socket=self.socket, **more).digest)

    def as_skopeo(self, source: str, target: str, *argv: str) -> None:
        options = ["--src-tls-verify=false"] if source.startswith("docker:") else []
        options += ["--dest-tls-verify=false"] if target.startswith("docker:") else []
        self.skopeo("copy", *options, *argv, source, target)


@pytest.fixture(scope="module")
def world(scratch: Path, docker: Peer, skopeo: Peer) -> Iterator[World]:
    folder = scratch / "copies"
    folder.mkdir()
    with (
        registries.docker_registry(scratch / "copied") as host,
        api.open(folder / "store") as store,
        Remote() as remote,
    ):
        made = World(folder, host, docker, skopeo, store, remote)
        archive = folder / "source.docker.tar"
        archive.write_bytes(sample.docker_archive(replace(ONE, tags=("source:1",))))
        docker("load", "-i", archive)
        (folder / "source.oci.tar").write_bytes(sample.oci_archive(replace(ONE, tags=("source:v1",))))
        for kind in ("docker", "oci", "dir"):
            made.as_skopeo(made.place("oci-archive", "source"), made.place(kind, "source"))
        made.copy(made.place("oci", "source"), "store:source:1")
        yield made


@pytest.mark.parametrize(("kind", "other"), list(itertools.product(KINDS, KINDS)))
def test_every_pair(world: World, kind: str, other: str) -> None:
    source, target = world.place(kind, "source"), world.place(other, f"{kind}-to-{other}")
    digest = world.copy(source, target)
    assert world.config(target) == ONE.id
    if other in EXACT:
        assert sample.digest(world.manifest(target)) == digest
    if kind in EXACT and other in EXACT:
        assert world.manifest(target) == world.manifest(source)
    if other not in ("store", "docker-daemon"):
        # Every blob is what its digest says: skopeo looks.
        world.as_skopeo(target, f"dir:{world.folder}/{kind}-to-{other}.seen")
    assert world.copy(source, target) == digest if other != "docker-archive" else True


@pytest.mark.parametrize("kind", [kind for kind in EXACT if kind != "store"])
@pytest.mark.parametrize("other", ["docker", "oci-archive", "oci", "dir"])
def test_the_digests_are_those_of_skopeo(world: World, kind: str, other: str) -> None:
    source, theirs = world.place(kind, "source"), world.place(other, f"skopeo-{kind}-{other}")
    world.as_skopeo(source, theirs)
    assert sample.digest(world.manifest(theirs)) == world.copy(source, world.place(other, f"ours-{kind}-{other}"))
    assert world.copy(theirs, world.place(other, f"back-{kind}-{other}")) == sample.digest(world.manifest(source))


def test_docker_manifests(world: World) -> None:
    """They stay what they are, but in a layout, where many readers know OCI's only: there it is said anew."""
    source = f"docker://{world.host}/schema2:1"
    world.as_skopeo(world.place("oci", "source"), source, "--format", "v2s2")
    theirs = json.loads(world.manifest(source))
    assert theirs["mediaType"] == DOCKER_MANIFEST
    for other in ("docker", "dir", "store"):
        target = world.place(other, f"schema2-{other}")
        world.copy(source, target, preserve_digests=True)
        assert world.manifest(target) == world.manifest(source)
    for other in ("oci-archive", "oci"):
        target = world.place(other, f"schema2-{other}")
        with pytest.raises(UsageError, match="docker's manifests become OCI's in a layout"):
            world.copy(source, target, preserve_digests=True)
        with pytest.raises(AssertionError):
            world.manifest(target)
        digest = world.copy(source, target)
        found = json.loads(world.manifest(target))
        assert sample.digest(world.manifest(target)) == digest
        assert (found["mediaType"], found["config"]["mediaType"]) == (sample.OCI_MANIFEST, sample.OCI_CONFIG)
        blobs = [[one["digest"] for one in [each["config"], *each["layers"]]] for each in (theirs, found)]
        assert blobs[0] == blobs[1]
        world.as_skopeo(target, f"dir:{world.folder}/schema2-{other}.seen")


def test_from_registry_to_registry_without_the_store(world: World, rows_of: Callable[[], Any]) -> None:
    big = sample.image("streamed", ("big:1",), [sample.files({"noise": sample.noise("streamed", 5 << 20)})])
    archive = world.folder / "streamed.tar"
    archive.write_bytes(sample.docker_archive(big, pack=sample.gz))
    source = f"docker://{world.host}/streamed:1"
    world.as_skopeo(f"docker-archive:{archive}", source)
    before = rows_of()
    with registries.docker_registry(world.folder / "second") as second:
        target = f"docker://{second}/elsewhere/streamed:1"
        whole = world.store.copy(source, target, remote=world.remote, no_store=True)
        assert whole.sent > 5 << 20
        assert world.manifest(target) == world.manifest(source)
        world.as_skopeo(target, f"dir:{world.folder}/streamed.seen")
        assert world.store.copy(source, target, remote=world.remote, no_store=True).sent == 0
        # On the same registry blobs are mounted.
        mounted = world.store.copy(target, f"docker://{second}/mounted:1", remote=world.remote, no_store=True)
        assert (mounted.digest, mounted.sent) == (whole.digest, 0)
    assert rows_of() == before


@pytest.fixture
def rows_of(world: World) -> Callable[[], Any]:
    """All names and blobs of the world's store."""
    return lambda: (sorted(map(str, world.store.images())), sorted(str(one.digest) for one in world.store.blobs.ls()))


def test_an_index(world: World) -> None:
    """Of an index one image arrives, or all of it with its digest, as with skopeo."""
    layout, _ = sample.platforms("many:1")
    archive = world.folder / "many.tar"
    archive.write_bytes(layout.tar())
    source = f"docker://{world.host}/many:1"
    world.as_skopeo(f"oci-archive:{archive}", source, "--all")
    index = sample.digest(world.manifest(source))
    chosen = {
        str(one["platform"]["architecture"]): one["digest"] for one in json.loads(world.manifest(source))["manifests"]
    }
    for other in ("docker", "oci-archive", "oci", "dir", "store"):
        whole = world.place(other, f"whole-{other}")
        assert world.copy(source, whole, all_platforms=True, preserve_digests=True) == index
        assert sample.digest(world.manifest(whole)) == index
        assert world.copy(source, world.place(other, f"arm-{other}"), platform="linux/arm64") == chosen["arm64"]
        # And on from there.
        assert world.copy(whole, world.place("oci", f"again-{other}"), all_platforms=True) == index
        assert world.copy(whole, world.place("dir", f"one-{other}"), platform="linux/arm64") == chosen["arm64"]
        if other != "store":
            theirs = f"dir:{world.folder}/theirs-{other}"
            world.as_skopeo(whole, theirs, "--all")
            assert sample.digest(world.manifest(theirs)) == index
    for more, wanted in (({"all_platforms": True}, index), ({"platform": "linux/arm64"}, chosen["arm64"])):
        target = f"docker://{world.host}/streamed/many:{len(more)}{next(iter(more))}"
        assert world.copy(source, target, no_store=True, **more) == wanted
        assert sample.digest(world.manifest(target)) == wanted
    for other in ("docker-archive", "docker-daemon"):
        target = world.place(other, "cannot")
        with pytest.raises(UsageError, match="no place for an index"):
            world.copy(source, target, all_platforms=True)
        world.copy(source, target, platform="linux/amd64")
    with pytest.raises(NotFound, match="no matching manifest for linux/s390x"):
        world.copy(source, world.place("oci", "none"), platform="linux/s390x")


def test_a_layout_keeps_what_it_has(world: World) -> None:
    target = world.place("oci", "shelf")
    path = world.folder / "shelf.oci"
    other = world.folder / "other.tar"
    other.write_bytes(sample.docker_archive(sample.image("other", ("other:1",))))
    world.as_skopeo(world.place("oci", "source"), f"oci:{path}:theirs")
    world.copy(world.place("oci", "source"), target)
    second = world.copy(f"docker-archive:{other}", f"oci:{path}:second/name")
    assert world.copy(f"docker-archive:{other}", target) == second
    world.copy(f"docker-archive:{other}", f"oci:{path}")
    world.copy(f"docker-archive:{other}", f"oci:{path}")
    listed = json.loads((path / "index.json").read_bytes())["manifests"]
    named = [one.get("annotations", {}).get("org.opencontainers.image.ref.name") for one in listed]
    assert sorted(map(str, named)) == ["None", "second/name", "theirs", "v1"]
    for label in ("theirs", "v1", "second/name"):
        world.as_skopeo(f"oci:{path}:{label}", f"dir:{world.folder}/from-shelf")
    with pytest.raises(BadInput, match="none was chosen by its name"):
        world.copy(f"oci:{path}", "store:nothing:1")
    with pytest.raises(NotFound, match='no image named "nothing"'):
        world.copy(f"oci:{path}:nothing", "store:nothing:1")


def test_docker_says_why_not(world: World, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="No such image: nosuch:latest"):
        world.copy("docker-daemon:nosuch", f"dir:{tmp_path}/x")
    image = json.loads(world.docker("image", "inspect", "source:1"))[0]["Id"]
    assert world.copy(f"docker-daemon:{image}", f"dir:{tmp_path}/byid")
    with pytest.raises(RemoteFailure, match="is the docker daemon running"):
        world.store.copy("docker-daemon:a:1", f"dir:{tmp_path}/x", socket=tmp_path / "nosocket")
    with pytest.raises(CasstoreError, match="no such file or directory"):
        world.copy("docker-daemon:source:1", f"docker-archive:{tmp_path}/no/where.tar")
