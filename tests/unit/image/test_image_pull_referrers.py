"""What refers to an image (signatures, SBOMs) comes along with it, and stays as long as it does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import registry
import sample
from registry import Toy, serving

from casstore import api
from casstore.digest import Digest
from casstore.image.remote import Remote
from casstore.transport.http import Network

QUICK = Network(backoff=0.01, read_timeout=2.0, connect_timeout=5.0, retries=3)


@pytest.fixture(params=[True, False], ids=["referrers API", "fallback tag"])
def toy(request: pytest.FixtureRequest) -> Iterator[Toy]:
    with serving(has_referrers=request.param) as made:
        yield made


@pytest.fixture
def remote() -> Iterator[Remote]:
    with Remote(QUICK) as made:
        yield made


def refer(toy: Toy, subject: str, text: bytes, *, about: str = "") -> str:
    """A signature of `subject` in the registry's lists; its manifest's digest. `about`: what it says it is of."""
    signed = about or subject
    size = len(toy.manifests["a"][signed][1])
    document: dict[str, Any] = {
        "mediaType": registry.MANIFEST,
        "artifactType": "application/x-signature",
        "config": toy.blob("a", b"{}", "application/vnd.oci.empty.v1+json"),
        "layers": [toy.blob("a", text, "application/x-signature")],
        "subject": {"mediaType": registry.MANIFEST, "digest": signed, "size": size},
    }
    digest = toy.put("a", "only-by-digest", document)
    raw = toy.manifests["a"][digest][1]
    row = {"mediaType": registry.MANIFEST, "digest": digest, "size": len(raw)}
    listed = toy.referring.setdefault(subject, [])
    listed.append(row)
    if not toy.has_referrers:
        toy.put("a", subject.replace(":", "-"), {"mediaType": registry.INDEX, "manifests": listed})
    return digest


def test_they_come_and_go_with_it(toy: Toy, opened: api.Store, remote: Remote) -> None:
    image = toy.add("a", "1", sample.image("x", layers=[sample.files({"a": b"1"})]))
    signature = refer(toy, image, b"signed")
    again = refer(toy, signature, b"signed again")
    assert opened.pull(f"{toy.host}/a:1", remote=remote, referrers=True).fresh
    assert not opened.pull(f"{toy.host}/a:1", remote=remote, referrers=True).fresh
    for one in (signature, again):
        assert b"".join(opened.blobs.cat(Digest.parse(one))) == toy.manifests["a"][one][1]
    opened.gc(grace=0)
    assert b"".join(opened.blobs.cat(Digest.parse(sample.digest(b"signed again")))) == b"signed again"
    assert not opened.check().findings
    assert len(opened.images(all=True)) == 1
    for _ in opened.remove([f"{toy.host}/a:1"]):
        pass
    opened.gc(grace=0)
    opened.gc(grace=0)
    assert [*opened.blobs.ls()] == []


def test_one_that_comes_later_is_fetched_alone(toy: Toy, opened: api.Store, remote: Remote) -> None:
    image = toy.add("a", "1", sample.image("x", layers=[sample.files({"a": b"1"})]))
    opened.pull(f"{toy.host}/a:1", remote=remote)
    signature = refer(toy, image, b"signed")
    toy.log.clear()
    assert opened.pull(f"{toy.host}/a:1", remote=remote, referrers=True).fresh
    assert toy.count("GET", "/blobs/") == 2  # its config and its only layer
    assert b"".join(opened.blobs.cat(Digest.parse(signature)))


def test_what_is_about_another_or_gone_is_left(toy: Toy, opened: api.Store, remote: Remote) -> None:
    image = toy.add("a", "1", sample.image("x", layers=[sample.files({"a": b"1"})]))
    other = toy.add("a", "2", sample.image("y", layers=[sample.files({"a": b"2"})]))
    false = refer(toy, image, b"of another", about=other)
    gone = refer(toy, image, b"gone")
    del toy.manifests["a"][gone]
    opened.pull(f"{toy.host}/a:1", remote=remote, referrers=True)
    here = {str(one.digest) for one in opened.blobs.ls()}
    assert not here & {false, gone, sample.digest(b"of another"), sample.digest(b"gone")}


def test_cosigns_tags(toy: Toy, opened: api.Store, remote: Remote) -> None:
    image = toy.add("a", "1", sample.image("x", layers=[sample.files({"a": b"1"})]))
    tag = image.replace(":", "-") + ".sig"
    diff_ids = [sample.digest(b"signature")]
    config = json.dumps({"architecture": "", "os": "", "rootfs": {"type": "layers", "diff_ids": diff_ids}})
    document = {
        "mediaType": registry.MANIFEST,
        "config": toy.blob("a", config.encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [toy.blob("a", b"signature", "application/vnd.dev.cosign.simplesigning.v1+json")],
    }
    toy.put("a", tag, document)
    opened.pull(f"{toy.host}/a:1", remote=remote, referrers=True)
    assert b"".join(opened.blobs.cat(Digest.parse(sample.digest(b"signature")))) == b"signature"
    opened.gc(grace=0)
    assert not opened.pull(f"{toy.host}/a:{tag}", remote=remote).fetched
