"""`push --referrers`: what refers to an image (signatures, SBOMs) goes along with it, before its name moves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import registry
import sample
from registry import Toy, serving
from running import Cas

from casstore import api
from casstore.image.remote import Remote
from casstore.transport.http import Network

QUICK = Network(backoff=0.01, read_timeout=2.0, connect_timeout=5.0, retries=3)


@pytest.fixture
def source() -> Iterator[Toy]:
    with serving() as made:
        yield made


@pytest.fixture(params=[True, False], ids=["referrers API", "fallback tag"])
def toy(request: pytest.FixtureRequest) -> Iterator[Toy]:
    with serving(has_referrers=request.param) as made:
        yield made


@pytest.fixture
def remote() -> Iterator[Remote]:
    with Remote(QUICK) as made:
        yield made


def refer(source: Toy, subject: str, text: bytes) -> str:
    """A signature of `subject` at the source; its manifest's digest."""
    size = len(source.manifests["a"][subject][1])
    document: dict[str, Any] = {
        "mediaType": registry.MANIFEST,
        "artifactType": "application/x-signature",
        "config": source.blob("a", b"{}", "application/vnd.oci.empty.v1+json"),
        "layers": [source.blob("a", text, "application/x-signature")],
        "subject": {"mediaType": registry.MANIFEST, "digest": subject, "size": size},
    }
    digest = source.put("a", "only-by-digest", document)
    row = {"mediaType": registry.MANIFEST, "digest": digest, "size": len(source.manifests["a"][digest][1])}
    source.referring.setdefault(subject, []).append(row)
    return digest


def cosign(source: Toy, subject: str, kind: str) -> tuple[str, str]:
    """What cosign keeps under a tag; tag and digest."""
    tag = f"{subject.replace(':', '-')}.{kind}"
    text = f"{kind} of {subject}".encode()
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [sample.digest(text)]}})
    document = {
        "mediaType": registry.MANIFEST,
        "config": source.blob("a", config.encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [source.blob("a", text, "application/vnd.dev.cosign.simplesigning.v1+json")],
    }
    return tag, source.put("a", tag, document)


def puts(toy: Toy) -> list[str]:
    """Manifests in the order in which they came, but for the lists of what refers to them."""
    found = [one.path.rpartition("/")[2] for one in toy.log if one.method == "PUT" and "/manifests/" in one.path]
    return [one for one in found if not one.startswith("sha256-") or "." in one]


def test_they_go_after_it_and_before_its_name(source: Toy, toy: Toy, opened: api.Store, remote: Remote) -> None:
    image = source.add("a", "1", sample.image("x", layers=[sample.files({"a": b"1"})]))
    signature = refer(source, image, b"signed")
    again = refer(source, signature, b"signed again")
    opened.pull(f"{source.host}/a:1", remote=remote, referrers=True)

    opened.push(f"{toy.host}/b:1", source=f"{source.host}/a:1", remote=remote)
    assert puts(toy) == ["1"]
    toy.log.clear()
    report = opened.push(f"{toy.host}/b:1", source=f"{source.host}/a:1", remote=remote, referrers=True)
    assert str(report.digest) == image
    assert puts(toy) == [image, signature, again, "1"]
    for one in (image, signature, again):
        assert toy.manifests["b"][one] == source.manifests["a"][one]
    if not toy.has_referrers:
        for subject, about in ((image, signature), (signature, again)):
            assert [str(one.digest) for one in remote.referrers(f"{toy.host}/b@{subject}")] == [about]


def test_of_an_index_and_of_the_images_in_it(source: Toy, toy: Toy, opened: api.Store, remote: Remote) -> None:
    made = source.many("a", "1")
    of_index, of_image, of_other = (refer(source, made[key], key.encode()) for key in ("", "amd64", "arm64"))
    opened.pull(f"{source.host}/a:1", remote=remote, all_platforms=True, referrers=True)
    name = f"{toy.host}/b:1"
    opened.push(name, source=f"{source.host}/a:1", remote=remote, referrers=True, platform="linux/amd64")
    assert puts(toy) == [made["amd64"], of_image, "1"]
    toy.log.clear()
    opened.push(name, source=f"{source.host}/a:1", remote=remote, referrers=True)
    sent = puts(toy)
    assert sent[-1] == "1"
    assert set(sent[:-1]) == {*made.values(), of_index, of_image, of_other}
    assert sent.index(made[""]) == len(made) - 1


@pytest.mark.parametrize("by", ["name", "digest"])
def test_cosigns_tags(source: Toy, toy: Toy, opened: api.Store, remote: Remote, by: str) -> None:
    image = source.add("a", "1", sample.image("x", layers=[sample.files({"a": b"1"})]))
    other = source.add("a", "2", sample.image("y", layers=[sample.files({"a": b"2"})]))
    tags = [cosign(source, image, kind) for kind in ("sig", "att", "sbom")]
    cosign(source, other, "sig")
    for tag in "12":
        opened.pull(f"{source.host}/a:{tag}", remote=remote, referrers=True)
    given = opened.identify(f"{source.host}/a:1") if by == "digest" else f"{source.host}/a:1"
    opened.push(f"{toy.host}/b:1", source=given, remote=remote, referrers=True)
    for tag, digest in tags:
        assert toy.manifests["b"][tag] == source.manifests["a"][digest]
    wanted = {"1", image, *(one for pair in tags for one in pair)}
    assert {ref for ref in toy.manifests["b"] if not ref.startswith("sha256-") or "." in ref} == wanted
    assert puts(toy)[-1] == "1"


def test_what_is_signed_stays_as_it_is(
    source: Toy, toy: Toy, opened: api.Store, remote: Remote, tmp_path: Path
) -> None:
    layer = sample.files({"a": b"1"})
    one = sample.image("plain", layers=[layer])
    document = {
        "mediaType": registry.MANIFEST,
        "config": source.blob("a", one.config, sample.OCI_CONFIG),
        "layers": [source.blob("a", layer, sample.OCI_LAYER)],
    }
    image = source.put("a", "1", document)
    signature = refer(source, image, b"signed")
    opened.pull(f"{source.host}/a:1", remote=remote, referrers=True)
    assert str(opened.push(f"{toy.host}/b:1", source=f"{source.host}/a:1", remote=remote).digest) != image
    report = opened.push(f"{toy.host}/b:2", source=f"{source.host}/a:1", remote=remote, referrers=True)
    assert str(report.digest) == image
    assert signature in toy.manifests["b"]


def test_the_command(source: Toy, toy: Toy, cas: Cas) -> None:
    image = source.add("a", "1", sample.image("x", layers=[sample.files({"a": b"1"})]))
    signature = refer(source, image, b"signed")
    cas("pull", "--referrers", f"{source.host}/a:1")
    cas("tag", f"{source.host}/a:1", f"{toy.host}/b:1")
    cas("push", "--referrers", f"{toy.host}/b:1")
    assert puts(toy) == [image, signature, "1"]
