"""`pull` and `push` over links and registries that fail in the middle of what they do: what passes is waited for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import registry
import sample
from registry import Handler, Toy, serving

from casstore import api
from casstore.digest import Digest
from casstore.errors import CasstoreError, RemoteFailure
from casstore.image.remote import Remote
from casstore.transport.http import Answer, Network

QUICK = Network(backoff=0.01, read_timeout=1.0, connect_timeout=1.0, retries=3)
BIG = sample.files({"big": sample.noise("big", 3 << 20)})
SMALL = sample.files({"small": sample.noise("small", 200_000)})
ONE = sample.image("faults", layers=[BIG, SMALL])


@pytest.fixture
def toy() -> Iterator[Toy]:
    with serving() as made:
        yield made


@pytest.fixture
def remote() -> Iterator[Remote]:
    with Remote(QUICK) as made:
        yield made


def holds(store: api.Store, toy: Toy) -> None:
    for digest, data in toy.blobs["a"].items():
        assert b"".join(store.blobs.cat(Digest.parse(digest))) == data


@pytest.fixture
def pushed(opened: api.Store, toy: Toy, tmp_path: Path) -> str:
    """A name, of an image in the store that is not at the registry."""
    name = f"{toy.host}/a:1"
    archive = tmp_path / "a.tar"
    archive.write_bytes(sample.docker_archive(sample.Image(ONE.config, ONE.layers, (name,)), pack=sample.gz))
    opened.load(archive)
    return name


def whole(toy: Toy) -> None:
    """The repository has what the image is made of, and the name."""
    assert toy.blobs["a"] == {sample.digest(data): data for data in (ONE.config, *map(sample.gz, ONE.layers))}
    assert "1" in toy.manifests["a"]


# -- pull


BROKEN = {
    "reset": registry.reset(),
    "reset inside": registry.reset(10),
    "cut": registry.cut(10),
    "stall": registry.stall(10),
    "silence": registry.silence,
    "503": registry.status(503),
    "429": registry.status(429, Retry_After="0"),
}


@pytest.mark.parametrize("trouble", BROKEN)
@pytest.mark.parametrize("pattern", ["/v2/$", "/manifests/", "/token", sample.digest(ONE.config)])
def test_documents_that_break_off_come_again(
    toy: Toy, opened: api.Store, remote: Remote, pattern: str, trouble: str
) -> None:
    toy.add("a", "1", ONE, bytes)
    if pattern == "/token":
        toy.auth, toy.anonymous = "bearer", True
    # Of a registry on this machine it is not known yet what it speaks: that is tried twice only.
    toy.fail("GET", pattern, BROKEN[trouble], times=1 if pattern == "/v2/$" else 2)
    opened.pull(f"{toy.host}/a:1", remote=remote)
    holds(opened, toy)


@pytest.mark.parametrize("pattern", ["/tags/list", "/referrers/"])
def test_lists_too(toy: Toy, remote: Remote, pattern: str) -> None:
    digest = toy.add("a", "1", ONE, bytes)
    toy.fail("GET", pattern, registry.reset(10), times=2)
    assert remote.tags(f"{toy.host}/a") == ["1"]
    assert remote.referrers(f"{toy.host}/a@{digest}") == []


def test_tokens_that_end_on_the_way(toy: Toy, opened: api.Store, remote: Remote) -> None:
    toy.auth, toy.anonymous = "bearer", True
    toy.add("a", "1", ONE, bytes)
    big = sample.digest(BIG)

    def ended(handler: Handler) -> bool:
        toy.tokens.clear()
        return False

    toy.fail("GET", big, registry.cut(1_000_000))
    toy.fail("GET", big, ended)
    opened.pull(f"{toy.host}/a:1", remote=remote)
    holds(opened, toy)
    asked = [one.headers.get("range") for one in toy.log if one.path.endswith(big)]
    assert asked == [None, "bytes=1000000-", "bytes=1000000-"] and toy.count("GET", "/token") >= 2


def other_range(handler: Handler) -> bool:
    data = toy_blob(handler)
    handler.answer(206, data, {"Content-Range": f"bytes 7-{len(data) - 1}/{len(data)}"}, 7)
    return True


def no_range_said(handler: Handler) -> bool:
    data = toy_blob(handler)
    handler.answer(206, data, {}, 1_000_000)
    return True


def longer(handler: Handler) -> bool:
    data = toy_blob(handler) + b"x"
    handler.answer(206, data, {"Content-Range": f"bytes 1000000-{len(data) - 1}/{len(data)}"}, 1_000_000)
    return True


def wrong_bytes(handler: Handler) -> bool:
    data = bytearray(toy_blob(handler))
    data[-1] ^= 1
    handler.answer(206, bytes(data), {"Content-Range": f"bytes 1000000-{len(data) - 1}/{len(data)}"}, 1_000_000)
    return True


def toy_blob(handler: Handler) -> bytes:
    return handler.server.toy.blobs["a"][sample.digest(BIG)]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (other_range, "another range"),
        (no_range_said, "another range"),
        (longer, "its size is"),
        (wrong_bytes, "verification failed"),
        (registry.status(416), "HTTP status 416"),
        (registry.status(204), "HTTP status 204"),
        (registry.status(206), "another range"),
        (registry.status(200, b"<html>log in</html>"), "its size is"),
        (registry.error(404, "BLOB_UNKNOWN", "gone"), "gone"),
        (registry.status(302, Location="file:///etc/passwd"), "not an http or https URL"),
        (registry.status(302, Location="http://[::1"), "no URL|cannot reach"),
        (registry.status(302), "HTTP status 302"),
    ],
)
def test_ranges_that_are_not_what_was_asked_for(
    toy: Toy, opened: api.Store, remote: Remote, answer: Callable[[Handler], bool], problem: str
) -> None:
    toy.add("a", "1", ONE, bytes)
    toy.fail("GET", sample.digest(BIG), registry.cut(1_000_000))
    toy.fail("GET", sample.digest(BIG), answer, times=99)
    with pytest.raises(CasstoreError, match=problem):
        opened.pull(f"{toy.host}/a:1", remote=remote)
    assert opened.images() == []
    toy.faults.clear()
    opened.pull(f"{toy.host}/a:1", remote=remote)
    holds(opened, toy)


def test_blobs_that_move_in_a_circle(toy: Toy, opened: api.Store, remote: Remote) -> None:
    toy.add("a", "1", ONE, bytes)
    toy.fail("GET", "/blobs/", lambda handler: registry.status(307, Location=handler.path)(handler), times=999)
    with pytest.raises(RemoteFailure, match="redirects"):
        opened.pull(f"{toy.host}/a:1", remote=remote)


def test_another_host_that_fails_is_asked_again_by_way_of_the_registry(
    toy: Toy, opened: api.Store, remote: Remote
) -> None:
    """A URL that a registry signed may have ended when the connection breaks."""
    toy.add("a", "1", ONE, bytes)
    big = sample.digest(BIG)
    with serving() as other:
        other.blobs = toy.blobs

        def moved(handler: Handler) -> bool:
            number = toy.count("GET", big)
            return registry.status(307, Location=f"{other.url}{handler.path}?signed={number}")(handler)

        toy.fail("GET", big, moved, times=99)
        other.fail("GET", "signed=1", registry.cut(1_000_000))
        other.fail("GET", "signed=1", registry.status(403), times=99)
        other.fail("GET", "signed=2", registry.status(503))
        opened.pull(f"{toy.host}/a:1", remote=remote)
        assert [one.query["signed"] for one in other.log] == ["1", "2", "3"]
    holds(opened, toy)


# -- push


def lost_answer(handler: Handler) -> bool:
    """It is done, but nobody is told."""
    toy = handler.server.toy
    body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
    session = handler.path.partition("?")[0]
    kept = toy.uploads.pop(session.rpartition("/")[2], bytearray()) + body
    toy.blobs.setdefault("a", {})[sample.digest(bytes(kept))] = bytes(kept)
    handler.break_off()
    return True


def deaf(handler: Handler) -> bool:
    """Takes no more of what is sent."""
    handler.server.toy.ended.wait(20)
    handler.close_connection = True
    return True


def taken_and_silent(handler: Handler) -> bool:
    """Takes all of it, and says nothing."""
    handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
    return registry.silence(handler)


@pytest.mark.parametrize(
    ("method", "pattern", "trouble"),
    [
        ("PUT", "/uploads/", registry.part_of_upload(1000)),  # of a small blob: what came stays
        ("PUT", "/uploads/", registry.part_of_upload(0)),
        ("PUT", "/uploads/", lost_answer),
        ("PUT", "/uploads/", taken_and_silent),
        ("PATCH", "/uploads/", registry.part_of_upload(2_000_000)),
        ("PATCH", "/uploads/", taken_and_silent),
        ("PATCH", "/uploads/", registry.reset()),
        ("GET", "/uploads/", registry.reset()),
        ("GET", "/uploads/", registry.error(416, "RANGE_INVALID", "invalid content range")),  # distribution 3
        ("GET", "/uploads/", registry.error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown")),  # distribution 2
        ("POST", "/uploads/", registry.silence),
        ("HEAD", "/blobs/", registry.reset()),
        ("PUT", "/manifests/", taken_and_silent),
        ("PUT", "/manifests/", registry.part_of_upload(0)),
        ("HEAD", "/blobs/", registry.status(429, Retry_After="0")),
    ],
)
@pytest.mark.parametrize("times", [1, 3])
def test_what_is_sent_arrives(
    toy: Toy,
    opened: api.Store,
    remote: Remote,
    pushed: str,
    method: str,
    pattern: str,
    trouble: Callable[[Handler], bool],
    times: int,
) -> None:
    if pattern == "/manifests/" and method == "PUT":
        toy.uploads["1"] = bytearray()  # for part_of_upload
    toy.fail(method, pattern, trouble, times=times)
    if method == "GET":
        toy.fail("PATCH", pattern, registry.part_of_upload(2_000_000), times=times)
    opened.push(pushed, remote=remote)
    whole(toy)


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
def test_as_long_as_the_registry_asks(
    toy: Toy, opened: api.Store, remote: Remote, pushed: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    wait = remote.http.wait

    def noted(attempt: int, answer: Answer | None = None) -> None:
        asked.append(answer.header("Retry-After") if answer is not None else "")
        wait(attempt)

    monkeypatch.setattr(remote.http, "wait", noted)

    def busy(handler: Handler) -> bool:
        handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        return registry.status(429, Retry_After="77")(handler)

    toy.fail(method, "/uploads/", busy, times=2)
    opened.push(pushed, remote=remote)
    whole(toy)
    assert asked.count("77") == 2


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
def test_tokens_that_end_while_it_is_sent(
    toy: Toy, opened: api.Store, remote: Remote, pushed: str, method: str
) -> None:
    toy.auth, toy.anonymous = "bearer", True

    def ended(handler: Handler) -> bool:
        handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        toy.tokens.clear()
        handler.answer(401, b"", {"WWW-Authenticate": toy.challenge(handler.path, {})})
        return True

    toy.fail(method, "/uploads/", ended)
    opened.push(pushed, remote=remote)
    whole(toy)


def test_a_registry_that_forgets_what_breaks(toy: Toy, opened: api.Store, remote: Remote, pushed: str) -> None:
    """As docker-registry does: then a large blob needs more tries than anything else, but not without end."""

    def breaks(handler: Handler) -> bool:
        registry.part_of_upload(2_000_000)(handler)
        toy.uploads.clear()
        return True

    toy.fail("PATCH", "/uploads/", breaks, times=8)
    opened.push(pushed, remote=remote)
    whole(toy)
    toy.blobs.clear()
    toy.fail("PATCH", "/uploads/", breaks, times=1000)
    with pytest.raises(RemoteFailure, match="the upload broke off"):
        opened.push(pushed, remote=remote)
    assert toy.count("PATCH", "/uploads/") < 50


def test_nobody_takes_what_is_sent(toy: Toy, opened: api.Store, pushed: str) -> None:
    """A server that reads no further is given up, as one that says nothing."""
    with Remote(Network(backoff=0.01, read_timeout=0.5, connect_timeout=0.5, retries=1)) as remote:
        toy.fail("PATCH", "/uploads/", deaf, times=99)
        with pytest.raises(RemoteFailure, match="the upload broke off"):
            opened.push(pushed, remote=remote)
        assert "a" not in toy.manifests
