"""`push`, to a registry that behaves and to one that does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import registry
import sample
from registry import Toy, serving
from running import Cas

from casstore import api
from casstore.digest import Digest
from casstore.errors import CasstoreError, Denied, NotFound, RemoteFailure, UsageError
from casstore.image.remote import Remote
from casstore.transport.http import Network

QUICK = Network(backoff=0.01, read_timeout=2.0, connect_timeout=5.0, retries=3)
BIG = sample.noise("big", 3 << 20)


@pytest.fixture
def toy() -> Iterator[Toy]:
    with serving() as made:
        yield made


@pytest.fixture
def remote() -> Iterator[Remote]:
    with Remote(QUICK) as made:
        yield made


def loaded(store: api.Store, tmp_path: Path, name: str, image: sample.Image | None = None) -> sample.Image:
    """An image in the store, under that name, its layers compressed."""
    one = image or sample.image("big", layers=[sample.files({"big": BIG}), sample.files({"small": b"x"})])
    archive = tmp_path / "a.tar"
    archive.write_bytes(sample.docker_archive(sample.Image(one.config, one.layers, (name,)), pack=sample.gz))
    store.load(archive)
    return one


def whole(toy: Toy, name: str, image: sample.Image) -> None:
    """The repository has just what the image is made of."""
    wanted = [image.config, *map(sample.gz, image.layers)]
    assert toy.blobs[name] == {sample.digest(data): data for data in wanted}


def test_everything_arrives_the_name_last(toy: Toy, opened: api.Store, remote: Remote, tmp_path: Path) -> None:
    name = f"{toy.host}/a/b:1"
    image = loaded(opened, tmp_path, name)
    said: list[tuple[str, str]] = []
    report = opened.push(name, remote=remote, say=lambda *what: said.append(what))
    whole(toy, "a/b", image)
    assert str(report.digest) == str(opened.identify(name)) == sample.digest(toy.manifests["a/b"]["1"][1])
    assert report.sent == sum(map(len, toy.blobs["a/b"].values()))
    writes = [one for one in toy.log if one.method in ("PUT", "PATCH", "POST")]
    assert writes[-1].path == "/v2/a/b/manifests/1"
    assert sorted(what for _, what in said) == ["Preparing"] * 3 + ["Pushed"] * 3
    assert {layer for layer, _ in said} >= {sample.sha(layer)[:12] for layer in image.layers}

    toy.log.clear()
    again = opened.push(name, remote=remote)
    assert (again.digest, again.sent) == (report.digest, 0)
    assert toy.count("POST", "uploads") == 0


def test_an_index_after_its_manifests(toy: Toy, opened: api.Store, remote: Remote) -> None:
    with serving() as source:
        made = source.many("m", "1")
        opened.pull(f"{source.host}/m:1", remote=remote, platform="linux/amd64")
        opened.tag(f"{source.host}/m:1", f"{toy.host}/m:1")
        with pytest.raises(NotFound, match=r"is not in the store .*--all-platforms"):
            opened.push(f"{toy.host}/m:1", remote=remote)
        assert not toy.manifests
        one = opened.push(f"{toy.host}/m:1", remote=remote, platform="linux/amd64")
        assert str(one.digest) == made["amd64"]
        opened.pull(f"{source.host}/m:1", remote=remote, all_platforms=True)
        opened.tag(f"{source.host}/m:1", f"{toy.host}/m:1")
        assert str(opened.push(f"{toy.host}/m:1", remote=remote).digest) == made[""]
    puts = [each.path.rpartition("/")[2] for each in toy.log if each.method == "PUT" and "/manifests/" in each.path]
    assert puts == ["1", made["amd64"], made["arm64"], "1"]


def test_something_else_of_the_store_under_the_name(
    toy: Toy, opened: api.Store, remote: Remote, tmp_path: Path
) -> None:
    image = loaded(opened, tmp_path, "app:1")
    digest = opened.identify("app:1")
    for number, source in enumerate((digest, "app:1", image.id, image.id[:12])):
        report = opened.push(f"{toy.host}/b:{number}", source=source, remote=remote)
        assert (report.digest, report.reference.tag) == (digest, str(number))
    whole(toy, "b", image)
    opened.push(f"{toy.host}/c@{digest}", source="app:1", remote=remote)
    assert list(toy.manifests["c"]) == [str(digest)]
    assert opened.images(f"{toy.host}/b") == []
    with pytest.raises(UsageError, match=f"what is pushed is {digest}"):
        opened.push(f"{toy.host}/d@sha256:{'0' * 64}", source="app:1", remote=remote)
    with pytest.raises(NotFound, match="No such image: app:2"):
        opened.push(f"{toy.host}/d:1", source="app:2", remote=remote)
    with pytest.raises(NotFound, match="is not in the store"):
        opened.push(f"{toy.host}/d:1", source=Digest.parse("sha256:" + "0" * 64), remote=remote)
    assert "d" not in toy.manifests


def test_of_an_index_by_its_digest_the_image_that_is_here(toy: Toy, opened: api.Store, remote: Remote) -> None:
    with serving() as source:
        made = source.many("m", "1")
        opened.pull(f"{source.host}/m:1", remote=remote, platform="linux/amd64")
    index = Digest.parse(made[""])
    with pytest.raises(NotFound, match="--all-platforms"):
        opened.push(f"{toy.host}/n:1", source=index, remote=remote)
    report = opened.push(f"{toy.host}/n:1", source=index, platform="linux/amd64", remote=remote)
    assert str(report.digest) == made["amd64"]
    assert toy.manifests["n"].keys() == {"1", made["amd64"]}


@pytest.mark.parametrize("mounts", [True, False])
def test_what_another_repository_has_is_mounted(
    toy: Toy, opened: api.Store, remote: Remote, tmp_path: Path, mounts: bool
) -> None:
    first, second = f"{toy.host}/a:1", f"{toy.host}/b/c:1"
    image = loaded(opened, tmp_path, first)
    opened.push(first, remote=remote)
    opened.tag(first, second)
    toy.mounts = mounts
    report = opened.push(second, remote=remote)
    whole(toy, "b/c", image)
    assert (report.sent == 0) == mounts
    assert {one.query.get("from") for one in toy.log if "mount" in one.query} == {"a"}


@pytest.mark.parametrize("api", [True, False], ids=["by the API", "by a tag"])
def test_what_refers_to_another_is_listed_there(toy: Toy, opened: api.Store, remote: Remote, api: bool) -> None:
    toy.has_referrers = api
    subject = toy.add("a", "1", sample.image())
    size = len(toy.manifests["a"]["1"][1])
    made = []
    for number in range(2):
        document = {
            "mediaType": registry.MANIFEST,
            "artifactType": f"application/x-{number}",
            "config": toy.blob("a", b"{}", "application/vnd.oci.empty.v1+json"),
            "layers": [toy.blob("a", b"signature %d" % number)],
            "subject": {"mediaType": registry.MANIFEST, "digest": subject, "size": size},
            "annotations": {"n": str(number)},
        }
        made.append(toy.put("a", f"s{number}", document))
        opened.pull(f"{toy.host}/a:s{number}", remote=remote)
        del toy.manifests["a"][f"s{number}"], toy.manifests["a"][made[-1]]
        for _ in range(2):
            opened.push(f"{toy.host}/a:s{number}", remote=remote)
    if api:
        assert not [ref for ref in toy.manifests["a"] if ref.startswith("sha256-")]
        return
    found = remote.referrers(f"{toy.host}/a:1")
    assert [(str(one.digest), one.artifact_type, one.annotations) for one in found] == [
        (digest, f"application/x-{number}", {"n": str(number)}) for number, digest in enumerate(made)
    ]


# -- trouble on the way


@pytest.mark.parametrize("kept", [0, 1_000_000])
def test_an_upload_that_breaks_goes_on_where_it_broke(
    toy: Toy, opened: api.Store, remote: Remote, tmp_path: Path, kept: int
) -> None:
    name = f"{toy.host}/a:1"
    image = loaded(opened, tmp_path, name)
    toy.fail("PATCH", "uploads", registry.part_of_upload(kept))
    opened.push(name, remote=remote)
    whole(toy, "a", image)
    big = sample.gz(image.layers[0])
    # What broke off sent nothing that was logged with its body.
    assert [len(one.body) for one in toy.log if one.method == "PATCH" and one.body] == [len(big) - kept]


def test_a_registry_that_lost_count_gets_it_all_again(
    toy: Toy, opened: api.Store, remote: Remote, tmp_path: Path
) -> None:
    name = f"{toy.host}/a:1"
    image = loaded(opened, tmp_path, name)
    toy.fail("PATCH", "uploads", registry.part_of_upload(1))  # which is told as 0-0, as is nothing
    opened.push(name, remote=remote)
    whole(toy, "a", image)


@pytest.mark.parametrize(
    ("method", "pattern", "trouble"),
    [
        ("HEAD", "/blobs/", registry.status(503)),
        ("POST", "/uploads/", registry.reset()),
        ("POST", "/uploads/", registry.status(429, Retry_After="0")),
        ("PATCH", "/uploads/", registry.error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown")),
        ("PATCH", "/uploads/", registry.status(500)),
        ("PUT", "/uploads/", registry.status(502)),
        ("PUT", "/uploads/", registry.error(416, "RANGE_INVALID", "out of order")),
        ("PUT", "/manifests/", registry.reset()),
    ],
)
def test_what_passes_is_waited_for(
    toy: Toy,
    opened: api.Store,
    remote: Remote,
    tmp_path: Path,
    method: str,
    pattern: str,
    trouble: Callable[[registry.Handler], bool],
) -> None:
    name = f"{toy.host}/a:1"
    image = loaded(opened, tmp_path, name)
    toy.fail(method, pattern, _after_body(trouble), times=2)
    opened.push(name, remote=remote)
    whole(toy, "a", image)


def _after_body(trouble: Callable[[registry.Handler], bool]) -> Callable[[registry.Handler], bool]:
    """The trouble, when the body was read: else the connection breaks under whoever still sends it."""

    def do(handler: registry.Handler) -> bool:
        if handler.command in ("PUT", "PATCH"):
            handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        return trouble(handler)

    return do


@pytest.mark.parametrize(
    ("method", "pattern", "trouble", "kind", "problem"),
    [
        ("POST", "/uploads/", registry.error(403, "DENIED", "not yours"), Denied, "push access denied for .*not yours"),
        ("POST", "/uploads/", registry.status(401), Denied, "push access denied"),
        ("PATCH", "/uploads/", registry.status(413), RemoteFailure, "HTTP status 413"),
        ("PATCH", "/uploads/", registry.status(500), RemoteFailure, "the upload broke off: HTTP status 500"),
        ("PUT", "/uploads/", registry.error(400, "DIGEST_INVALID", "no"), RemoteFailure, "HTTP status 400: no"),
        ("PUT", "/manifests/", registry.status(413), RemoteFailure, "HTTP status 413"),
        ("PUT", "/manifests/", registry.reset(), RemoteFailure, "cannot reach it"),
        (
            "PUT",
            "/manifests/",
            registry.status(201, Docker_Content_Digest="sha256:" + "0" * 64),
            RemoteFailure,
            "the registry says that the manifest is sha256:0000",
        ),
        ("POST", "/uploads/", registry.status(202), RemoteFailure, "gives no place for the upload"),
        ("POST", "/uploads/", registry.status(202, Location="file:///etc/passwd"), RemoteFailure, "not an http"),
    ],
)
def test_what_does_not_pass_is_told_and_moves_no_name(
    toy: Toy,
    opened: api.Store,
    remote: Remote,
    tmp_path: Path,
    method: str,
    pattern: str,
    trouble: Callable[[registry.Handler], bool],
    kind: type[CasstoreError],
    problem: str,
) -> None:
    name = f"{toy.host}/a:1"
    loaded(opened, tmp_path, name)
    toy.fail(method, pattern, _after_body(trouble), times=1000)
    with pytest.raises(kind, match=problem):
        opened.push(name, remote=remote)
    assert not toy.manifests


def test_uploads_elsewhere_get_no_password(toy: Toy, opened: api.Store, tmp_path: Path) -> None:
    name = f"{toy.host}/a:1"
    image = loaded(opened, tmp_path, name)
    toy.auth = "basic"
    with serving() as other, Remote(QUICK, [tmp_path / "config.json"]) as remote:
        other.url = other.url.replace("localhost", "127.0.0.1")
        other.uploads["x"] = bytearray()
        remote.login(toy.host, toy.user, toy.password)
        big = sample.digest(sample.gz(image.layers[0]))
        for layer in (*image.layers[1:],):
            toy.blob("a", sample.gz(layer))
        toy.blob("a", image.config)
        toy.fail("POST", "uploads", registry.status(202, Location=f"{other.url}/v2/a/blobs/uploads/x?s=1"))
        with pytest.raises(RemoteFailure, match="HTTP status 400"):  # it went to the other one, and we are asked for it
            opened.push(name, remote=remote)
        assert big in other.blobs["a"]
        assert [one.method for one in other.log] == ["PATCH", "PUT"]
        assert all("authorization" not in one.headers for one in other.log)


# -- the command


def test_what_docker_says(toy: Toy, cas: Cas, tmp_path: Path) -> None:
    image = sample.image(1, (f"{toy.host}/a/b:latest",))
    archive = tmp_path / "a.tar"
    archive.write_bytes(sample.docker_archive(image, pack=sample.gz))
    cas("load", "-i", archive)
    said = cas("push", f"{toy.host}/a/b").lines
    assert said[:2] == ["Using default tag: latest", f"The push refers to repository [{toy.host}/a/b]"]
    kind, raw = toy.manifests["a/b"]["latest"]
    assert kind == registry.MANIFEST
    assert said[-1] == f"latest: digest: {sample.digest(raw)} size: {len(raw)}"
    assert "Layer already exists" in cas("push", f"{toy.host}/a/b:latest").out
    cas("tag", f"{toy.host}/a/b", f"{toy.host}/a/b:2")
    cas("push", "-a", f"{toy.host}/a/b")
    assert {ref for ref in toy.manifests["a/b"] if ":" not in ref} == {"latest", "2"}
    assert cas("manifest", "get", f"{toy.host}/a/b:2").raw == raw
    assert cas("manifest", "digest", f"{toy.host}/a/b:2").lines == [sample.digest(raw)]


def test_what_is_refused(toy: Toy, cas: Cas, opened: api.Store, remote: Remote) -> None:
    name = f"{toy.host}/a"
    assert cas("push", f"{name}:1", ok=False).err == (
        f"Error: An image does not exist locally with the tag: {name}:1\n"
    )
    assert "tag can't be used with --all-tags/-a" in cas("push", "-a", f"{name}:1", ok=False).err
    assert "An image does not exist locally" in cas("push", "-a", name, ok=False).err
    assert "cannot push a digest reference" in cas("push", f"{name}@sha256:{'0' * 64}", ok=False).err
    with pytest.raises(UsageError, match="cannot push a digest reference"):
        opened.push(f"{name}@sha256:{'0' * 64}", remote=remote)
    assert not toy.log
