"""`pull`, from a registry that behaves and from one that does not."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import registry
import sample
from registry import Toy, serving
from running import Cas, Rows, Spawn

from casstore import api
from casstore.digest import Digest
from casstore.errors import BadInput, CasstoreError, Denied, DigestMismatch, LimitExceeded, NotFound, RemoteFailure
from casstore.image.remote import Remote
from casstore.oci.platform import host
from casstore.transport.http import Network

QUICK = Network(backoff=0.01, read_timeout=1.0, connect_timeout=5.0, retries=3)
BIG = sample.noise("big", 3 << 20)
HERE = host().architecture


@pytest.fixture
def toy() -> Iterator[Toy]:
    with serving() as made:
        yield made


@pytest.fixture
def remote() -> Iterator[Remote]:
    with Remote(QUICK) as made:
        yield made


def big_image() -> sample.Image:
    return sample.image("big", layers=[sample.files({"big": BIG}), sample.files({"small": b"x"})])


def holds(store: api.Store, toy: Toy, name: str) -> None:
    """Every blob of the repository is in the store, byte for byte."""
    for digest, data in toy.blobs[name].items():
        assert b"".join(store.blobs.cat(Digest.parse(digest))) == data


def test_every_byte_arrives_and_the_second_time_none(toy: Toy, opened: api.Store, remote: Remote) -> None:
    digest = toy.add("a/b", "1", sample.rich_image())
    said: list[tuple[str, str]] = []
    report = opened.pull(f"{toy.host}/a/b:1", remote=remote, say=lambda *what: said.append(what))
    assert (str(report.digest), report.fresh) == (digest, True)
    assert report.fetched == sum(map(len, toy.blobs["a/b"].values()))
    holds(opened, toy, "a/b")
    layers = [sample.sha(sample.gz(layer))[:12] for layer in sample.rich_image().layers]
    assert sorted(said) == sorted([(layer, what) for layer in layers for what in ("Pulling fs layer", "Pull complete")])
    (shown,) = opened.images()
    assert (shown.repository, shown.tag, str(shown.id)) == (f"{toy.host}/a/b", "1", sample.rich_image().id)

    toy.log.clear()
    again = opened.pull(f"{toy.host}/a/b:1", remote=remote)
    assert (str(again.digest), again.fresh, again.fetched) == (digest, False, 0)
    assert [one.method for one in toy.log] == ["HEAD"]  # nor is it asked again who we are


def test_layers_that_are_here_do_not_come_again(toy: Toy, opened: api.Store, remote: Remote) -> None:
    toy.add("a", "1", sample.rich_image(1))
    toy.add("a", "2", sample.rich_image(2))
    opened.pull(f"{toy.host}/a:1", remote=remote)
    toy.log.clear()
    opened.pull(f"{toy.host}/a:2", remote=remote)
    shared = sample.digest(sample.gz(sample.rich_image(1).layers[0]))
    assert toy.count("GET", "/blobs/") == 3
    assert toy.count("GET", shared) == 0


@pytest.mark.parametrize("pack", [bytes, sample.gz], ids=["plain", "gzip"])
def test_plain_layers_too(toy: Toy, opened: api.Store, remote: Remote, pack: Callable[[bytes], bytes]) -> None:
    toy.add("a", "1", sample.rich_image(), pack)
    opened.pull(f"{toy.host}/a:1", remote=remote)
    holds(opened, toy, "a")


def test_of_an_index_the_image_of_a_platform(toy: Toy, opened: api.Store, remote: Remote) -> None:
    made = toy.many("a", "1")
    name = f"{toy.host}/a:1"
    first = opened.pull(name, remote=remote, platform="linux/amd64")
    assert str(first.digest) == made[""]
    assert str(opened.identify(name)) == made["amd64"]
    other = opened.pull(name, remote=remote, platform="linux/arm64")
    assert other.fresh and other.digest == first.digest and other.image != first.image
    assert not opened.pull(name, remote=remote, all_platforms=True).fresh
    with pytest.raises(NotFound, match="no matching manifest for linux/s390x in the manifest list entries"):
        opened.pull(name, remote=remote, platform="linux/s390x")
    holds(opened, toy, "a")


def test_all_platforms_at_once(toy: Toy, opened: api.Store, remote: Remote) -> None:
    toy.many("a", "1")
    opened.pull(f"{toy.host}/a:1", remote=remote, all_platforms=True)
    holds(opened, toy, "a")


def test_by_digest(toy: Toy, opened: api.Store, remote: Remote) -> None:
    digest = toy.add("a", "1", sample.rich_image())
    report = opened.pull(f"{toy.host}/a@{digest}", remote=remote)
    assert str(report.digest) == digest and toy.count("HEAD", "/manifests/") == 0
    assert str(opened.identify(sample.rich_image().id)) == digest
    assert not opened.pull(f"{toy.host}/a@{digest}", remote=remote).fresh


def test_a_registry_that_does_not_tell_digests(toy: Toy, opened: api.Store, remote: Remote) -> None:
    toy.says_digest = False
    digest = toy.add("a", "1", sample.rich_image())
    assert str(opened.pull(f"{toy.host}/a:1", remote=remote).digest) == digest
    assert not opened.pull(f"{toy.host}/a:1", remote=remote).fresh


def test_a_tag_that_moves(toy: Toy, opened: api.Store, remote: Remote) -> None:
    toy.add("a", "1", sample.image(1))
    opened.pull(f"{toy.host}/a:1", remote=remote)
    toy.add("a", "1", sample.image(2))
    assert opened.pull(f"{toy.host}/a:1", remote=remote).fresh
    assert {(one.tag, str(one.id)) for one in opened.images(all=True)} == {
        ("1", sample.image(2).id),
        (None, sample.image(1).id),
    }


def test_an_artifact(toy: Toy, opened: api.Store, remote: Remote) -> None:
    document = {
        "mediaType": registry.MANIFEST,
        "artifactType": "application/x-thing",
        "config": toy.blob("a", b"{}", "application/vnd.oci.empty.v1+json"),
        "layers": [toy.blob("a", b"\x1f\x8bno gzip at all", "application/x-thing")],
    }
    digest = toy.put("a", "1", document)
    report = opened.pull(f"{toy.host}/a:1", remote=remote)
    assert (str(report.digest), report.image) == (digest, None)
    holds(opened, toy, "a")
    assert not opened.pull(f"{toy.host}/a:1", remote=remote).fresh
    # It has names as an image has.
    opened.tag(f"{toy.host}/a:1", "thing:2")
    assert [*opened.remove([f"{toy.host}/a:1"])] == [("Untagged", f"{toy.host}/a:1")]
    assert opened.images(all=True) == []
    assert [*opened.remove(["thing:2"])] == [("Untagged", "thing:2"), ("Deleted", digest)]
    assert [one.verb for one in opened.remove(["thing:2"])] == ["Error"]


# -- trouble on the way


@pytest.mark.parametrize(
    "trouble",
    [
        registry.reset(),
        registry.reset(100_000),
        registry.cut(1_500_000),
        registry.stall(2_000_000),
        registry.status(503),
        registry.status(429, Retry_After="0"),
        registry.status(500, b"<html>" * 1000),
    ],
    ids=["reset", "reset inside", "cut", "stall", "503", "429", "500"],
)
@pytest.mark.parametrize("times", [1, 3])
def test_what_passes_is_waited_for(
    toy: Toy, opened: api.Store, remote: Remote, trouble: Callable[[registry.Handler], bool], times: int
) -> None:
    toy.add("a", "1", big_image(), bytes)
    toy.fail("GET", "/blobs/", trouble, times=times)
    opened.pull(f"{toy.host}/a:1", remote=remote)
    holds(opened, toy, "a")


def test_what_came_is_not_asked_for_again(toy: Toy, opened: api.Store, remote: Remote) -> None:
    toy.add("a", "1", big_image(), bytes)
    layer = sample.digest(big_image().layers[0])
    toy.fail("GET", layer, registry.cut(1_000_000))
    toy.fail("GET", layer, registry.cut(700_000))
    opened.pull(f"{toy.host}/a:1", remote=remote)
    asked = [one.headers.get("range") for one in toy.log if one.path.endswith(layer)]
    assert asked == [None, "bytes=1000000-", "bytes=1700000-"]
    holds(opened, toy, "a")


def test_a_server_that_ignores_ranges(toy: Toy, opened: api.Store, remote: Remote) -> None:
    toy.add("a", "1", big_image(), bytes)
    layer = sample.digest(big_image().layers[0])
    toy.fail("GET", layer, registry.cut(1_000_000))
    toy.fail("GET", layer, registry.no_ranges, times=9)
    opened.pull(f"{toy.host}/a:1", remote=remote)
    holds(opened, toy, "a")


def test_what_does_not_pass_is_told(toy: Toy, opened: api.Store, remote: Remote, rows: Rows) -> None:
    toy.add("a", "1", big_image(), bytes)
    before = rows()
    toy.fail("GET", "/blobs/", registry.cut(1000), times=1000)
    with pytest.raises(RemoteFailure, match="the download broke off: it ended too early"):
        opened.pull(f"{toy.host}/a:1", remote=remote)
    toy.faults.clear()
    toy.fail("GET", "/manifests/", registry.status(503), times=1000)
    with pytest.raises(RemoteFailure, match="HTTP status 503"):
        opened.pull(f"{toy.host}/a:1", remote=remote)
    assert rows() == before


def test_blobs_come_from_elsewhere_without_our_password(toy: Toy, opened: api.Store, tmp_path: Any) -> None:
    toy.auth = "basic"
    toy.add("a", "1", big_image(), bytes)
    file = tmp_path / "config.json"
    with serving() as cdn, Remote(QUICK, [file]) as remote:
        cdn.blobs = toy.blobs
        remote.login(toy.host, toy.user, toy.password)
        elsewhere = registry.Fault("GET", "/blobs/", lambda handler: _moved(handler, cdn), times=1000)
        toy.faults.append(elsewhere)
        cdn.fail("GET", sample.digest(big_image().layers[0]), registry.cut(1_000_000))
        opened.pull(f"{toy.host}/a:1", remote=remote)
        assert cdn.log and all("authorization" not in one.headers for one in cdn.log)
        assert any(one.headers.get("range") == "bytes=1000000-" for one in cdn.log)
    holds(opened, toy, "a")


def _moved(handler: registry.Handler, to: Toy) -> bool:
    handler.answer(307, b"", {"Location": f"{to.url.replace('localhost', '127.0.0.1')}{handler.path}"})
    return True


# -- what may not be believed


def flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    ("pattern", "change", "kind", "problem"),
    [
        ("/blobs/", flip, BadInput, "verification failed|does not match its digest"),
        ("/blobs/", lambda data: data + b"x", BadInput, "its size is"),
        ("/blobs/", lambda data: data[:-1], BadInput, "its size is"),
        ("/manifests/", flip, DigestMismatch, "content does not match its digest"),
        ("/manifests/", lambda data: b"<html>hello</html>", DigestMismatch, "content does not match"),
        ("/manifests/", lambda data: b" " * (5 << 20), LimitExceeded, "larger than"),
    ],
)
def test_wrong_bytes_get_no_name(
    toy: Toy,
    opened: api.Store,
    remote: Remote,
    rows: Rows,
    pattern: str,
    change: Callable[[bytes], bytes],
    kind: type[CasstoreError],
    problem: str,
) -> None:
    toy.add("a", "1", sample.rich_image())
    before = rows()
    toy.fail("GET", pattern, registry.changed(change), times=1000)
    with pytest.raises(kind, match=problem):
        opened.pull(f"{toy.host}/a:1", remote=remote)
    assert rows() == before


def _documents(toy: Toy) -> dict[str, tuple[str, str]]:
    """Tag → (kind of trouble): manifests that may not be loaded, each under a tag."""
    image = sample.image()
    config = toy.blob("a", image.config, sample.OCI_CONFIG)
    layer = toy.blob("a", image.layers[0], sample.OCI_LAYER)
    other = toy.blob("a", sample.files({"other": b""}), sample.OCI_LAYER)
    good = {"mediaType": registry.MANIFEST, "config": config, "layers": [layer]}
    gone = {"mediaType": registry.MANIFEST, "digest": "sha256:" + "0" * 64, "size": 7} | {
        "platform": {"os": "linux", "architecture": HERE}
    }
    toy.put("a", "type", good, registry.INDEX)
    toy.put("a", "both", good | {"manifests": []})
    toy.put("a", "schema1", {"fsLayers": []})
    toy.put("a", "count", good | {"layers": [layer, layer]})
    toy.put("a", "diffid", good | {"layers": [other]})
    toy.put("a", "size", good | {"layers": [layer | {"size": 1}]})
    toy.put("a", "config size", good | {"config": config | {"size": 1}})
    toy.put("a", "huge config", good | {"config": config | {"size": 5 << 20}})
    toy.put("a", "child", {"mediaType": registry.INDEX, "manifests": [gone]})
    toy.put("a", "missing", good | {"layers": [layer | {"digest": gone["digest"]}]})
    toy.put("a", "path", good | {"layers": [layer | {"digest": "sha256:../../etc/passwd"}]})
    return {
        "type": ("BadInput", "mediaType"),
        "both": ("BadInput", "ambiguous"),
        "schema1": ("BadInput", "schema 1 is not supported"),
        "count": ("BadInput", "layers length mismatch: expected 2, got 1"),
        "diffid": ("DigestMismatch", "layers from manifest don't match image configuration"),
        "size": ("BadInput", "its descriptor says 1"),
        "config size": ("BadInput", "its descriptor says 1"),
        "huge config": ("LimitExceeded", "larger than"),
        "child": ("NotFound", "its manifest sha256:0000"),
        "missing": ("NotFound", "blob unknown"),
        "path": ("BadInput", "invalid digest"),
    }


def test_manifests_that_contradict_themselves(toy: Toy, opened: api.Store, remote: Remote, rows: Rows) -> None:
    troubles = _documents(toy)
    before = rows()
    for tag, (kind, problem) in troubles.items():
        digest = sample.digest(toy.manifests["a"][tag][1])
        with pytest.raises(CasstoreError, match=problem) as told:
            opened.pull(f"{toy.host}/a@{digest}", remote=remote)
        assert type(told.value).__name__ == kind, tag
    assert rows() == before


def test_indexes_too_deep(toy: Toy, opened: api.Store, remote: Remote) -> None:
    raw = toy.put("a", "0", {"mediaType": registry.INDEX, "manifests": []})
    for depth in range(1, 12):
        size = len(toy.manifests["a"][str(depth - 1)][1])
        below = {"mediaType": registry.INDEX, "digest": raw, "size": size}
        raw = toy.put("a", str(depth), {"mediaType": registry.INDEX, "manifests": [below]})
    with pytest.raises(LimitExceeded, match="nested deeper"):
        opened.pull(f"{toy.host}/a:11", remote=remote)


def test_endless_and_dripping_answers(toy: Toy, opened: api.Store, rows: Rows) -> None:
    toy.add("a", "1", sample.rich_image())
    before = rows()
    impatient = Network(backoff=0.01, read_timeout=0.2, retries=1)
    with Remote(impatient) as remote:
        toy.fail("GET", "/manifests/", registry.endless, times=9)
        with pytest.raises(LimitExceeded, match="larger than"):
            opened.pull(f"{toy.host}/a:1", remote=remote)
        toy.faults.clear()
        config = sample.rich_image().config
        toy.fail("GET", sample.digest(config), registry.drip(0.02, len(config)), times=9)
        with pytest.raises(RemoteFailure, match="the answer takes too long"):
            opened.pull(f"{toy.host}/a:1", remote=remote)
        toy.faults.clear()
        layer = sample.gz(sample.rich_image().layers[0])
        toy.fail("GET", sample.digest(layer), registry.drip(0.02, len(layer)), times=9)
        with pytest.raises(RemoteFailure, match="the download broke off"):
            opened.pull(f"{toy.host}/a:1", remote=remote)
        toy.faults.clear()
    assert rows() == before


def test_where_one_layer_fails_nobody_waits_for_the_others(toy: Toy, opened: api.Store, rows: Rows) -> None:
    toy.add("a", "1", big_image(), bytes)
    before = rows()
    big, small = (sample.digest(layer) for layer in big_image().layers)
    toy.fail("GET", big, registry.stall(1000), times=99)
    toy.fail("GET", small, _when(toy, big, registry.status(403)), times=99)
    with Remote(Network(read_timeout=1000.0, retries=3)) as remote, pytest.raises(Denied):
        opened.pull(f"{toy.host}/a:1", remote=remote)
    assert rows() == before


def _when(toy: Toy, path: str, do: Callable[[registry.Handler], bool]) -> Callable[[registry.Handler], bool]:
    """Only when something else was asked for."""

    def later(handler: registry.Handler) -> bool:
        while not toy.count("GET", path):
            time.sleep(0.01)
        return do(handler)

    return later


@pytest.mark.parametrize("after", [None, 0, 1000])
def test_ctrl_c_ends_a_pull_that_waits(
    toy: Toy, spawn: Spawn, rows: Rows, opened: api.Store, after: int | None
) -> None:
    toy.add("a", "1", big_image(), bytes)
    before = rows()
    big = sample.digest(big_image().layers[0])
    toy.fail("GET", big, registry.silence if after is None else registry.stall(after), times=99)
    process = spawn("pull", f"{toy.host}/a:1")
    while not toy.count("GET", big):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=50)
    assert (process.returncode, err) == (130, b"Error: interrupted\n")
    assert rows() == before


def test_descriptors_urls_are_never_fetched(toy: Toy, opened: api.Store, remote: Remote) -> None:
    image = sample.image()
    config = toy.blob("a", image.config, sample.OCI_CONFIG)
    layer = toy.blob("elsewhere", image.layers[0], sample.OCI_LAYER)
    layer["urls"] = [f"{toy.url}/v2/elsewhere/blobs/{layer['digest']}"]
    toy.put("a", "1", {"mediaType": registry.MANIFEST, "config": config, "layers": [layer]})
    with pytest.raises(NotFound, match="blob unknown"):
        opened.pull(f"{toy.host}/a:1", remote=remote)
    assert toy.count("GET", "/elsewhere/") == 0


# -- the command


def test_what_docker_says(toy: Toy, cas: Cas) -> None:
    digest = toy.add("a/b", "latest", sample.rich_image())
    name = f"{toy.host}/a/b"
    first = cas("pull", name).lines
    assert first[:2] == ["Using default tag: latest", "latest: Pulling from a/b"]
    assert first[-3:] == [
        f"Digest: {digest}",
        f"Status: Downloaded newer image for {name}:latest",
        f"{name}:latest",
    ]
    assert cas("pull", f"{name}:latest").lines[-2] == f"Status: Image is up to date for {name}:latest"
    assert cas("pull", "-q", name).lines == [f"{name}:latest"]
    assert json.loads(cas("inspect", name).out)[0]["Id"] == sample.rich_image().id


def test_all_tags(toy: Toy, cas: Cas) -> None:
    toy.page = 2
    for tag in "12345":
        toy.add("a", tag, sample.image(tag))
    assert cas("ls-remote", f"{toy.host}/a").lines == list("12345")
    said = cas("pull", "-a", f"{toy.host}/a").lines
    assert [line for line in said if "Pulling from" in line] == [f"{tag}: Pulling from a" for tag in "12345"]
    assert len(cas("images", "-q").lines) == 5


def test_what_is_refused(toy: Toy, cas: Cas) -> None:
    toy.add("a", "1", sample.image())
    assert "tag can't be used with --all-tags/-a" in cas("pull", "-a", f"{toy.host}/a:1", ok=False).err
    told = cas("pull", f"{toy.host}/a:2", ok=False)
    assert told.err == f"Error: manifest for {toy.host}/a:2 not found: manifest unknown\n" and told.code == 1
    assert "not found: does not exist" in cas("pull", "-a", f"{toy.host}/nosuch", ok=False).err
    toy.auth = "bearer"
    told = cas("pull", f"{toy.host}/a:1", ok=False)
    assert f"pull access denied for {toy.host}/a, repository does not exist or may require" in told.err


def test_denied_is_denied(toy: Toy, opened: api.Store, remote: Remote) -> None:
    toy.fail("HEAD", "/manifests/", registry.status(403), times=9)
    with pytest.raises(Denied, match="pull access denied"):
        opened.pull(f"{toy.host}/a:1", remote=remote)
    toy.faults.clear()
    toy.add("a", "1", sample.image())
    toy.fail("GET", "/blobs/", registry.error(403, "DENIED", "not\x1b[2J for you\n"), times=9)
    with pytest.raises(Denied, match=r"not \[2J for you"):
        opened.pull(f"{toy.host}/a:1", remote=remote)


# -- many at once, and killed


def test_six_at_once(toy: Toy, spawn: Spawn, opened: api.Store) -> None:
    toy.add("a", "1", sample.rich_image())
    crowd = [spawn("pull", "-q", f"{toy.host}/a:1") for _ in range(6)]
    ends = [(each.communicate(timeout=100), each.returncode) for each in crowd]
    assert [code for _, code in ends] == [0] * 6, ends
    holds(opened, toy, "a")
    assert opened.check(read_data=True).findings == []


def test_killed_it_changes_nothing_and_can_be_done_again(
    toy: Toy, spawn: Spawn, rows: Rows, opened: api.Store, remote: Remote
) -> None:
    toy.add("a", "1", big_image(), bytes)
    before = rows()
    big = sample.digest(big_image().layers[0])
    toy.fail("GET", big, registry.stall(2_000_000))
    process = spawn("pull", f"{toy.host}/a:1")
    while not toy.count("GET", big):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.communicate()
    assert rows() == before
    opened.pull(f"{toy.host}/a:1", remote=remote)
    holds(opened, toy, "a")
