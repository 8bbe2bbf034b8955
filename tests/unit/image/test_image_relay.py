"""`copy` from registry to registry, through the store and without it: what arrives, in what order, and what goes wrong
on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import registry
import sample
from registry import Toy, serving
from running import Cas, Rows

from casstore import api
from casstore.errors import (
    BadInput,
    CasstoreError,
    Denied,
    DigestMismatch,
    LimitExceeded,
    NotFound,
    RemoteFailure,
    UsageError,
)
from casstore.image.remote import Remote
from casstore.oci.platform import host
from casstore.transport.http import Network

QUICK = Network(backoff=0.01, read_timeout=1.0, connect_timeout=5.0, retries=3)
BIG = sample.noise("relayed", 3 << 20)
HERE = host().architecture
THROUGH = pytest.mark.parametrize("no_store", [False, True], ids=["store", "no-store"])


@pytest.fixture
def source() -> Iterator[Toy]:
    with serving() as made:
        yield made


@pytest.fixture
def target() -> Iterator[Toy]:
    with serving() as made:
        yield made


@pytest.fixture
def remote() -> Iterator[Remote]:
    with Remote(QUICK) as made:
        yield made


def add(toy: Toy, tag: str = "1") -> str:
    return toy.add("a", tag, sample.image("relayed", layers=[sample.files({"big": BIG}), sample.files({"a": b"1"})]))


@THROUGH
def test_all_of_it_arrives(source: Toy, target: Toy, opened: api.Store, remote: Remote, no_store: bool) -> None:
    digest = add(source)
    ends = f"docker://{source.host}/a:1", f"docker://{target.host}/b/c:2"
    report = opened.copy(*ends, remote=remote, no_store=no_store)
    assert (str(report.digest), report.sent > 3 << 20) == (digest, True)
    assert target.manifests["b/c"]["2"] == source.manifests["a"]["1"]
    assert target.blobs["b/c"] == source.blobs["a"]
    written = [one.path for one in target.log if one.method == "PUT"]
    assert written[-1] == "/v2/b/c/manifests/2" and sum("/manifests/" in one for one in written) == 1
    assert len(opened.images()) == (0 if no_store else 1)
    target.log.clear()
    source.log.clear()
    assert opened.copy(*ends, remote=remote, no_store=no_store).sent == 0
    assert source.count("GET", "/blobs/") == 0 and target.count("POST", "") == 0
    if no_store:
        assert [(one.method, one.path) for one in target.log if "/v2/b" in one.path] == [
            ("HEAD", "/v2/b/c/manifests/2")
        ]


@THROUGH
def test_an_index_and_one_image_of_it(
    source: Toy, target: Toy, opened: api.Store, remote: Remote, no_store: bool
) -> None:
    made = source.many("a", "1")
    more: dict[str, Any] = {"remote": remote, "no_store": no_store}
    ends = f"docker://{source.host}/a:1", f"docker://{target.host}/a"
    assert str(opened.copy(ends[0], f"{ends[1]}:here", **more).digest) == made[HERE]
    assert str(opened.copy(ends[0], f"{ends[1]}:arm", platform="linux/arm64", **more).digest) == made["arm64"]
    assert made[""] not in target.manifests["a"]
    assert str(opened.copy(ends[0], f"{ends[1]}:all", all_platforms=True, **more).digest) == made[""]
    assert set(target.manifests["a"]) >= {made[""], made["amd64"], made["arm64"]}
    with pytest.raises(NotFound, match="no matching manifest for linux/s390x"):
        opened.copy(ends[0], f"{ends[1]}:none", platform="linux/s390x", **more)


@THROUGH
@pytest.mark.parametrize("first", ["x", "y"])
def test_of_two_for_one_platform_the_first_is_taken(
    source: Toy, target: Toy, opened: api.Store, remote: Remote, no_store: bool, first: str
) -> None:
    rows = []
    for tag in (first, *({"x", "y"} - {first})):
        layers = [sample.files({"which": tag.encode()})]
        digest = source.add("a", tag, sample.image(tag, layers=layers, architecture="arm64"))
        size = len(source.manifests["a"][digest][1])
        platform = {"os": "linux", "architecture": "arm64"}
        rows.append({"mediaType": registry.MANIFEST, "digest": digest, "size": size, "platform": platform})
    source.put("a", "both", {"mediaType": registry.INDEX, "manifests": rows})
    ends = f"docker://{source.host}/a:both", f"docker://{target.host}/a"
    opened.copy(ends[0], f"{ends[1]}:all", remote=remote, no_store=no_store, all_platforms=True)
    report = opened.copy(ends[0], f"{ends[1]}:one", remote=remote, no_store=no_store, platform="linux/arm64")
    assert str(report.digest) == rows[0]["digest"]


def test_what_is_no_image(source: Toy, opened: api.Store, remote: Remote, tmp_path: Path) -> None:
    document = {
        "mediaType": registry.MANIFEST,
        "config": source.blob("a", b"{}", "application/vnd.oci.empty.v1+json"),
        "layers": [source.blob("a", b"a chart", "application/x-chart")],
    }
    digest = source.put("a", "chart", document)
    for target in ("store:chart:1", f"dir:{tmp_path}/dir", f"oci:{tmp_path}/oci:1", f"oci-archive:{tmp_path}/a.tar"):
        assert str(opened.copy(f"docker://{source.host}/a:chart", target, remote=remote).digest) == digest
    for target in (f"docker-archive:{tmp_path}/d.tar", "docker-daemon:a:1"):
        with pytest.raises(UsageError, match="it has a place for images only"):
            opened.copy("store:chart:1", target)
    for place in (f"dir:{tmp_path}/dir", f"oci:{tmp_path}/oci", f"oci-archive:{tmp_path}/a.tar"):
        assert str(opened.copy(place, "store:again:1").digest) == digest


@THROUGH
def test_what_refers_to_it(source: Toy, target: Toy, opened: api.Store, remote: Remote, no_store: bool) -> None:
    image = add(source)
    document = {
        "mediaType": registry.MANIFEST,
        "artifactType": "application/x-signature",
        "config": source.blob("a", b"{}", "application/vnd.oci.empty.v1+json"),
        "layers": [source.blob("a", b"signed", "application/x-signature")],
        "subject": {"mediaType": registry.MANIFEST, "digest": image, "size": len(source.manifests["a"][image][1])},
    }
    signature = source.put("a", "only-by-digest", document)
    row = {"mediaType": registry.MANIFEST, "digest": signature, "size": len(source.manifests["a"][signature][1])}
    lost = {"mediaType": registry.MANIFEST, "digest": sample.digest(b"lost"), "size": 4}
    source.referring[image] = [row, lost]
    cosigned = source.put(
        "a", f"{image.replace(':', '-')}.sig", {key: document[key] for key in ("mediaType", "config", "layers")}
    )
    ends = f"docker://{source.host}/a:1", f"docker://{target.host}/b:1"
    opened.copy(*ends, remote=remote, no_store=no_store)
    assert signature not in target.manifests["b"]
    opened.copy(*ends, remote=remote, no_store=no_store, referrers=True)
    assert target.manifests["b"][signature] == source.manifests["a"][signature]
    assert target.manifests["b"][f"{image.replace(':', '-')}.sig"] == source.manifests["a"][cosigned]
    assert sample.digest(b"signed") in target.blobs["b"]


def test_within_one_registry_blobs_are_mounted(source: Toy, opened: api.Store, remote: Remote) -> None:
    add(source)
    assert (
        opened.copy(f"docker://{source.host}/a:1", f"docker://{source.host}/b:1", remote=remote, no_store=True).sent
        == 0
    )
    assert source.count("GET", "/blobs/") == source.count("PATCH", "") == 0
    source.mounts = False
    assert (
        opened.copy(f"docker://{source.host}/a:1", f"docker://{source.host}/c:1", remote=remote, no_store=True).sent
        > 3 << 20
    )
    assert source.blobs["c"] == source.blobs["b"] == source.blobs["a"]


def test_both_may_break_off(source: Toy, target: Toy, opened: api.Store, remote: Remote) -> None:
    """A download goes on in the middle of an upload, without the upload's seeing it."""
    add(source)
    big = max(source.blobs["a"].values(), key=len)
    source.fail("GET", f"/blobs/{sample.digest(big)}", registry.cut(1 << 20))
    source.fail("GET", f"/blobs/{sample.digest(big)}", registry.reset(1 << 20))
    ends = f"docker://{source.host}/a:1", f"docker://{target.host}/b:1"
    opened.copy(*ends, remote=remote, no_store=True)
    assert target.blobs["b"] == source.blobs["a"]
    asked = [one.headers.get("range") for one in source.log if one.method == "GET" and sample.sha(big) in one.path]
    assert asked[0] is None and len(asked) == 3 and all(asked[1:])
    assert target.count("PATCH", "") == 1
    target.fail("PATCH", "", registry.part_of_upload(1 << 20))
    opened.copy(ends[0], f"docker://{target.host}/c:1", remote=remote, no_store=True)
    assert target.blobs["c"] == source.blobs["a"]


@pytest.mark.parametrize(
    ("pattern", "method", "do", "error", "message"),
    [
        ("/blobs/", "GET", registry.changed(lambda data: data[:-1] + b"?"), DigestMismatch, "verification failed"),
        ("/blobs/", "GET", registry.changed(lambda data: data + b"?"), CasstoreError, "its size is|broke off"),
        (
            "/manifests/1",
            "GET",
            registry.changed(lambda data: data + b" "),
            DigestMismatch,
            "does not match its digest",
        ),
        ("/manifests/1", "GET", registry.error(404, "MANIFEST_UNKNOWN", "unknown"), NotFound, "not found"),
        ("/manifests/1", "GET", registry.error(403, "DENIED", "no"), Denied, "pull access denied for"),
        ("/blobs/", "GET", registry.status(404), CasstoreError, "not found"),
    ],
    ids=["changed", "longer", "other", "unknown", "denied", "gone"],
)
def test_a_source_that_does_not_do_its_part(
    source: Toy,
    target: Toy,
    opened: api.Store,
    remote: Remote,
    rows: Rows,
    pattern: str,
    method: str,
    do: Any,
    error: type[CasstoreError],
    message: str,
) -> None:
    add(source)
    source.fail(method, pattern, do, times=100)
    before = rows()
    with pytest.raises(error, match=message) as caught:
        opened.copy(f"docker://{source.host}/a:1", f"docker://{target.host}/b:1", remote=remote, no_store=True)
    assert "\n" not in str(caught.value) and "a" in str(caught.value)
    assert "b" not in target.manifests and rows() == before
    assert not set(target.blobs.get("b", {})) - set(source.blobs["a"])


@pytest.mark.parametrize(
    ("pattern", "method", "do", "error", "message"),
    [
        ("/uploads/", "POST", registry.error(403, "DENIED", "no"), Denied, "push access denied for"),
        ("/manifests/", "PUT", registry.error(400, "MANIFEST_INVALID", "bad"), RemoteFailure, "bad"),
        ("/uploads/", "PATCH", registry.status(500), RemoteFailure, "500"),
    ],
    ids=["denied", "invalid", "broken"],
)
def test_a_target_that_does_not_do_its_part(
    source: Toy,
    target: Toy,
    opened: api.Store,
    remote: Remote,
    pattern: str,
    method: str,
    do: Any,
    error: type[CasstoreError],
    message: str,
) -> None:
    add(source)
    target.fail(method, pattern, do, times=100)
    with pytest.raises(error, match=message):
        opened.copy(f"docker://{source.host}/a:1", f"docker://{target.host}/b:1", remote=remote, no_store=True)
    assert "1" not in target.manifests.get("b", {})


def test_indexes_without_end(source: Toy, target: Toy, opened: api.Store, remote: Remote) -> None:
    made = add(source, "0")
    kind, size = registry.MANIFEST, len(source.manifests["a"][made][1])
    for level in range(1, 12):
        child = {"mediaType": kind, "digest": made, "size": size}
        made = source.put("a", str(level), {"mediaType": registry.INDEX, "manifests": [child]})
        kind, size = registry.INDEX, len(source.manifests["a"][made][1])
    for all_platforms in (False, True):
        with pytest.raises(LimitExceeded, match="nested deeper"):
            opened.copy(
                f"docker://{source.host}/a:11",
                f"docker://{target.host}/b:1",
                remote=remote,
                no_store=True,
                all_platforms=all_platforms,
            )
    wrong = {"mediaType": registry.MANIFEST, "digest": add(source, "0"), "size": 7}
    source.put("a", "wrong", {"mediaType": registry.INDEX, "manifests": [wrong]})
    with pytest.raises(BadInput, match="its descriptor says 7"):
        opened.copy(
            f"docker://{source.host}/a:wrong",
            f"docker://{target.host}/b:1",
            remote=remote,
            no_store=True,
            all_platforms=True,
        )
    assert target.manifests == {}


def test_names_in_the_store(source: Toy, opened: api.Store, remote: Remote, tmp_path: Path) -> None:
    """What passes through keeps its own name; what is brought gets the one that was asked for, for the image alone."""
    made = source.many("a", "1")
    opened.copy(f"docker://{source.host}/a:1", "store:mine:1", remote=remote)
    assert [(one.repository, one.tag, str(one.digest)) for one in opened.images(all=True)] == [
        ("mine", "1", made[HERE])
    ]
    opened.copy(f"docker://{source.host}/a:1", "store:whole:1", remote=remote, all_platforms=True)
    assert {(one.repository, str(one.digest)) for one in opened.images()} == {("mine", made[HERE]), ("whole", made[""])}
    opened.copy(f"docker://{source.host}/a:1", f"dir:{tmp_path}/dir", remote=remote)
    names = {(one.repository, str(one.digest)) for one in opened.images()}
    assert (f"{source.host}/a", made[""]) in names and len(names) == 3


def test_the_command(source: Toy, target: Toy, cas: Cas, store_path: Path) -> None:
    digest = add(source)
    ends = f"docker://{source.host}/a:1", f"docker://{target.host}/b:1"
    said = cas("copy", "--no-store", *ends).lines
    assert said[-1] == f"Digest: {digest}" and any(line.endswith(": Copied") for line in said)
    assert not store_path.exists()
    (shown,) = cas("copy", "--format", "json", *ends).lines
    value = json.loads(shown)
    assert (value["Digest"], value["Source"], value["Destination"], value["Sent"]) == (digest, *ends, 0)
    assert cas("copy", "-q", "--no-store", *ends).lines == [digest]
    for wrong in (["--no-store", ends[0], "dir:x"], ["--all", "--platform", "linux/arm64", *ends], ["x", "dir:y"]):
        assert cas("copy", *wrong, ok=False).code == 125
