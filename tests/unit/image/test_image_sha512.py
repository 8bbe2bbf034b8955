"""Images whose digests are of sha512: pulled by them, pushed, verified; with sha256 mixed in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import registry
import sample
from registry import Toy, digest_like, serving
from running import Cas, Rows

from casstore import api
from casstore.digest import Digest
from casstore.errors import BadInput
from casstore.image.remote import Remote
from casstore.oci.platform import host
from casstore.transport.http import Network

QUICK = Network(backoff=0.01, read_timeout=2.0, retries=3)
BIG = sample.files({"big": sample.noise("sha512", 2 << 20)})
ONE = sample.image("sha512", layers=[BIG, sample.files({"small": b"x"})])
KINDS = pytest.mark.parametrize(
    ("config", "layers", "manifest"),
    [("sha512", "sha512", "sha512"), ("sha256", "sha512", "sha256"), ("sha512", "sha256", "sha512")],
)


@pytest.fixture
def toy() -> Iterator[Toy]:
    with serving() as made:
        yield made


@pytest.fixture
def remote() -> Iterator[Remote]:
    with Remote(QUICK) as made:
        yield made


def added(toy: Toy, config: str, layers: str, manifest: str) -> str:
    """The image in repository a, by these algorithms; the digest of its manifest."""
    described = toy.blob("a", ONE.config, sample.OCI_CONFIG, config)
    kind = f"{sample.OCI_LAYER}+gzip"
    parts = [toy.blob("a", sample.gz(layer), kind, layers) for layer in ONE.layers]
    document = {"mediaType": registry.MANIFEST, "config": described, "layers": parts}
    return toy.put("a", "1", document, algorithm=manifest)


def same(store: api.Store, blobs: dict[str, bytes]) -> None:
    for digest, data in blobs.items():
        assert b"".join(store.blobs.cat(Digest.parse(digest))) == data


@KINDS
def test_there_and_back(
    toy: Toy, opened: api.Store, remote: Remote, config: str, layers: str, manifest: str
) -> None:
    digest = added(toy, config, layers, manifest)
    name = f"{toy.host}/a@{digest}"
    report = opened.pull(name, remote=remote)
    assert (str(report.digest), report.fresh) == (digest, True)
    assert not opened.pull(name, remote=remote).fresh
    same(opened, toy.blobs["a"])
    assert opened.verify(digest).ok
    assert opened.check(read_data=True).findings == []

    opened.tag(digest, f"{toy.host}/b:1")
    sent = opened.push(f"{toy.host}/b:1", remote=remote)
    assert toy.blobs["b"] == toy.blobs["a"]
    assert toy.manifests["b"]["1"][1] == toy.manifests["a"]["1"][1]
    assert str(sent.digest) == digest
    assert opened.push(f"{toy.host}/b:1", remote=remote).sent == 0


def test_by_tag_it_is_sha256(toy: Toy, opened: api.Store, remote: Remote) -> None:
    """So a registry says of it."""
    added(toy, "sha512", "sha512", "sha256")
    report = opened.pull(f"{toy.host}/a:1", remote=remote)
    assert report.digest.algorithm == "sha256"
    assert opened.verify(f"{toy.host}/a:1").ok


def test_an_upload_that_breaks(toy: Toy, opened: api.Store, remote: Remote) -> None:
    opened.pull(f"{toy.host}/a@{added(toy, 'sha512', 'sha512', 'sha512')}", remote=remote)
    (image,) = opened.images()
    opened.tag(str(image.id), f"{toy.host}/b:1")
    toy.mounts = False
    toy.fail("PATCH", "uploads", registry.part_of_upload(1_000_000))
    opened.push(f"{toy.host}/b:1", remote=remote)
    assert toy.blobs["b"] == toy.blobs["a"]


def test_an_index(toy: Toy, opened: api.Store, remote: Remote) -> None:
    child = added(toy, "sha512", "sha512", "sha512")
    size = len(toy.manifests["a"]["1"][1])
    platform = {"os": "linux", "architecture": host().architecture}
    entry = {"mediaType": registry.MANIFEST, "digest": child, "size": size, "platform": platform}
    top = toy.put("a", "many", {"mediaType": registry.INDEX, "manifests": [entry]}, algorithm="sha512")
    report = opened.pull(f"{toy.host}/a@{top}", remote=remote, all_platforms=True)
    assert str(report.digest) == top
    opened.tag(top, f"{toy.host}/b:many")
    assert str(opened.push(f"{toy.host}/b:many", remote=remote).digest) == top
    assert child in toy.manifests["b"] and toy.blobs["b"] == toy.blobs["a"]


@pytest.mark.parametrize("pattern", ["/blobs/", "/manifests/"])
def test_wrong_bytes(toy: Toy, opened: api.Store, remote: Remote, rows: Rows, pattern: str) -> None:
    digest = added(toy, "sha512", "sha512", "sha512")
    before = rows()
    toy.fail("GET", pattern, registry.changed(lambda data: data[:-1] + bytes([data[-1] ^ 1])), times=99)
    with pytest.raises(BadInput, match=r"does not match its digest|verification failed"):
        opened.pull(f"{toy.host}/a@{digest}", remote=remote)
    assert rows() == before


def test_in_a_bundle(toy: Toy, opened: api.Store, remote: Remote, tmp_path: Path) -> None:
    digest = added(toy, "sha512", "sha512", "sha512")
    opened.pull(f"{toy.host}/a@{digest}", remote=remote)
    opened.tag(digest, "given:1")
    opened.bundle(["given:1"], tmp_path / "bundle")
    with api.open(tmp_path / "other") as other:
        other.load_bundle(tmp_path / "bundle")
        same(other, toy.blobs["a"])
        (image,) = other.images()
        assert image.id == opened.images()[0].id and image.id.algorithm == "sha512"
        assert other.check(read_data=True).findings == []


def test_in_an_archive(toy: Toy, opened: api.Store, remote: Remote, tmp_path: Path) -> None:
    digest = added(toy, "sha512", "sha512", "sha512")
    opened.pull(f"{toy.host}/a@{digest}", remote=remote)
    opened.tag(digest, "given:1")
    opened.save(["given:1"], tmp_path / "a.tar", format="oci-archive")
    with api.open(tmp_path / "other") as other:
        other.load(tmp_path / "a.tar")
        same(other, toy.blobs["a"])
        assert other.images()[0].id == opened.images()[0].id
        assert other.check(read_data=True).findings == []


def test_the_commands(toy: Toy, cas: Cas) -> None:
    digest = added(toy, "sha512", "sha512", "sha512")
    name = f"{toy.host}/a@{digest}"
    assert cas("pull", "-q", name).lines == [name]
    raw = toy.manifests["a"][digest][1]
    assert cas("manifest", "get", name).raw == raw and cas("manifest", "digest", name).lines == [digest]
    assert digest_like(digest, raw) == digest
    cas("tag", cas("images", "-q", "--no-trunc", "-a").lines[0], f"{toy.host}/c:1")
    assert digest in cas("push", f"{toy.host}/c:1").out
