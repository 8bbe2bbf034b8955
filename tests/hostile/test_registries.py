"""Registries made to exhaust or to mislead whoever asks them: one line, within a cap of memory and processor time, and
nothing changed."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import registry
import sample
from capped import SECONDS, Attack
from registry import Handler, Toy, serving
from running import Cas, Rows, Spawn

from casstore import api
from casstore.errors import RemoteFailure
from casstore.image.remote import Remote
from casstore.transport.http import Network

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MIB = 1 << 20
CAP = 512 * MIB
DEEP = b"[" * 200_000
DIGEST = "sha256:" + "0" * 64
ONE = sample.rich_image("hostile")
ESCAPE = "\x1b[2J\x07\r\n"

pytestmark = pytest.mark.timeout(2 * SECONDS)


@pytest.fixture
def toy() -> Iterator[Toy]:
    with serving() as made:
        made.add("a", "1", ONE)
        yield made


@pytest.fixture
def named(toy: Toy, opened: api.Store, tmp_path: Path) -> str:
    name = f"{toy.host}/mine:1"
    archive = tmp_path / "mine.tar"
    layers = [*ONE.layers, sample.files({"large": sample.noise("large", 2 * MIB)})]
    archive.write_bytes(sample.docker_archive(sample.image("mine", (name,), layers), pack=sample.gz))
    opened.load(archive)
    return name


def answers(status: int, body: bytes = b"", **headers: str) -> Callable[[Handler], bool]:
    """However often it is asked; the body is not kept in memory by others."""
    return registry.status(status, body, **headers)


def many(count: int) -> Callable[[Handler], bool]:
    """An answer with so many headers."""

    def do(handler: Handler) -> bool:
        handler.answer(200, b"{}", {f"X-{number}": "x" * 100 for number in range(count)})
        return True

    return do


def no_http(handler: Handler) -> bool:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2p1\r\n")
    handler.close_connection = True
    return True


def read_first(answer: Callable[[Handler], bool]) -> Callable[[Handler], bool]:
    """The answer, when all of the request has come."""

    def do(handler: Handler) -> bool:
        if handler.command in ("PUT", "PATCH"):
            handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        return answer(handler)

    return do


def document(value: object) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": registry.MANIFEST} | value).encode()  # type: ignore[operator]


LAYER = {"mediaType": sample.OCI_LAYER, "digest": DIGEST, "size": 1}
PULLS: dict[str, tuple[str, Callable[[Handler], bool], str]] = {
    "html": ("/manifests/", answers(200, b"<html><body>Log in</body></html>"), "invalid JSON|not match its digest"),
    "empty": ("/manifests/", answers(200), "invalid JSON|not match its digest"),
    "deep": ("/manifests/", answers(200, DEEP), "JSON|not match its digest"),
    "huge": ("/manifests/", answers(200, b" " * (5 * MIB)), "larger than"),
    "endless": ("/manifests/", registry.endless, "larger than"),
    "no content": ("/manifests/", answers(204), "HTTP status 204"),
    "partial": ("/manifests/", answers(206, document({})), "HTTP status 206"),
    "both": ("/manifests/", answers(200, document({"layers": [], "manifests": []})), "ambiguous|not match"),
    "many layers": ("/manifests/", answers(200, document({"layers": [LAYER] * 20_000})), "match|length|config"),
    "denied": ("/manifests/", registry.error(403, "DENIED", "no" + ESCAPE), "denied"),
    "deep error": ("/manifests/", answers(400, DEEP), "HTTP status 400"),
    "file": ("/manifests/", answers(302, Location="file:///etc/passwd"), "not an http or https URL"),
    "circle": ("/manifests/", answers(302, Location="/v2/a/manifests/1"), "redirects"),
    "config": ("/blobs/", registry.endless, "size|larger|digest|broke"),
    "blob": ("/blobs/", answers(200, b"x" * 40), "size|digest"),
    "no registry": ("/v2/$", answers(404, b"<html>"), "no registry there"),
    "challenge": ("/manifests/", answers(401, WWW_Authenticate="Bearer " + "a=b," * 15_000), "unauthorized|denied"),
}


@pytest.mark.parametrize("name", PULLS)
def test_pull(toy: Toy, attack: Attack, rows: Rows, opened: api.Store, name: str) -> None:
    pattern, answer, problem = PULLS[name]
    before = rows()
    for says in (True, False):
        toy.says_digest = says
        for method in ("GET", "HEAD"):
            if method == "GET" or name in ("denied", "file", "circle", "challenge"):
                toy.fail(method, pattern, answer, times=10_000)
        spent = attack("pull", "-q", f"{toy.host}/a:1", ok=False)
        assert spent.peak < CAP
        told = spent.err.removeprefix("Error: ")
        assert any(word in told for word in problem.split("|")), told
        assert told[:-1].isprintable()
        toy.faults.clear()
    assert rows() == before


def test_a_layer_of_zeros_without_end(toy: Toy, attack: Attack, rows: Rows, opened: api.Store) -> None:
    """A few KiB that become gigabytes: as much is made of them as of any archive, and no more."""
    bomb = zstd.compress(bytes(128 * MIB), 1) * 16
    config = toy.blob("a", ONE.config, sample.OCI_CONFIG)
    layers = [toy.blob("a", bomb, f"{sample.OCI_LAYER}+zstd") for _ in json.loads(ONE.config)["rootfs"]["diff_ids"]]
    toy.put("a", "bomb", {"mediaType": registry.MANIFEST, "config": config, "layers": layers})
    before = rows()
    spent = attack("pull", "-q", f"{toy.host}/a:bomb", ok=False)
    assert "becomes more than 2000 times its size" in spent.err and spent.peak < CAP
    assert rows() == before


# What is tried again and again: with less patience than a command has.
AGAIN: dict[str, tuple[str, str, Callable[[Handler], bool], str]] = {
    "error page": ("GET", "/manifests/", answers(500, b"<html>" * 100_000), "HTTP status 500"),
    "many headers": ("GET", "/manifests/", many(1000), "cannot reach it"),
    "long header": ("GET", "/manifests/", answers(200, b"", X="x" * 100_000), "cannot reach it"),
    "no http": ("GET", "/v2/", no_http, "cannot reach it"),
    "always lost": ("PATCH", "/uploads/", registry.error(404, "BLOB_UPLOAD_UNKNOWN", "gone"), "broke off"),
    "always elsewhere": ("PATCH", "/uploads/", answers(416), "broke off"),
    "manifest dropped": ("PUT", "/manifests/", registry.reset(), "cannot reach it"),
}


@pytest.mark.parametrize("name", AGAIN)
def test_not_for_ever(toy: Toy, rows: Rows, opened: api.Store, named: str, name: str) -> None:
    method, pattern, answer, problem = AGAIN[name]
    before = rows()
    toy.fail(method, pattern, read_first(answer), times=10_000)
    with Remote(Network(backoff=0.01, retries=2)) as remote, pytest.raises(RemoteFailure, match=problem) as told:
        if method == "GET":
            opened.pull(f"{toy.host}/a:1", remote=remote)
        else:
            opened.push(named, remote=remote)
    assert str(told.value).isprintable()
    assert rows() == before and "mine" not in toy.manifests
    assert len(toy.log) < 100


def test_tokens_that_never_do(toy: Toy, attack: Attack) -> None:
    toy.auth, toy.anonymous = "bearer", True
    toy.fail("GET", "/manifests/", answers(401, WWW_Authenticate=toy.challenge("/v2/", {})), times=10_000)
    toy.fail("HEAD", "/manifests/", answers(401, WWW_Authenticate=toy.challenge("/v2/", {})), times=10_000)
    assert "unauthorized" in attack("pull", "-q", f"{toy.host}/a:1", ok=False).err
    assert toy.count("GET", "/token") < 10


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (registry.endless, "larger than"),
        (answers(200, DEEP), "token"),
        (answers(200, b'{"token": "a\\r\\nX-More: 1"}'), "no usable token"),
        (answers(200, b'{"token": "t", "expires_in": 1e999}'), "unauthorized"),
        (answers(302, Location="/token"), "redirects"),
        (answers(200, b"{}"), "no usable token"),
    ],
    ids=["endless", "deep", "lines", "infinity", "circle", "none"],
)
def test_token_servers(toy: Toy, attack: Attack, answer: Callable[[Handler], bool], problem: str) -> None:
    toy.auth, toy.anonymous = "bearer", True
    toy.fail("GET", "/token", answer, times=10_000)
    spent = attack("pull", "-q", f"{toy.host}/a:1", ok=False)
    assert problem in spent.err and spent.peak < CAP


# -- push


PUSHES: dict[str, tuple[str, str, Callable[[Handler], bool], str]] = {
    "unauthorized": ("POST", "/uploads/", answers(401, WWW_Authenticate='Basic realm="x"'), "denied"),
    "denied": ("POST", "/uploads/", registry.error(403, "DENIED", "no" + ESCAPE), "denied"),
    "too large": ("PATCH", "/uploads/", answers(413), "HTTP status 413"),
    "read-only": ("POST", "/uploads/", registry.error(405, "UNSUPPORTED", "it is unsupported"), "unsupported"),
    "nowhere": ("POST", "/uploads/", answers(202), "no place for the upload"),
    "file": ("POST", "/uploads/", answers(202, Location="file:///etc/passwd"), "not an http or https URL"),
    "another digest": ("PUT", "/uploads/", answers(201, Docker_Content_Digest=DIGEST), "says that the blob is"),
    "another manifest": ("PUT", "/manifests/", answers(201, Docker_Content_Digest=DIGEST), "says that the manifest is"),
    "manifest refused": ("PUT", "/manifests/", registry.error(400, "MANIFEST_INVALID", "no" + ESCAPE), "status 400"),
    "manifest unknown": ("PUT", "/manifests/", answers(404), "does not take it"),
    "endless error": ("PUT", "/manifests/", registry.endless, ""),
    "HEAD": ("HEAD", "/blobs/", answers(400), "HTTP status 400"),
}


@pytest.mark.parametrize("name", PUSHES)
def test_push(toy: Toy, attack: Attack, rows: Rows, named: str, name: str) -> None:
    method, pattern, answer, problem = PUSHES[name]
    before = rows()
    toy.fail(method, pattern, read_first(answer), times=10_000)
    spent = attack("push", "-q", named, ok=not problem)
    assert spent.peak < CAP
    if problem:
        assert any(word in spent.err for word in problem.split("|")), spent.err
        assert spent.err[:-1].isprintable()
        assert "mine" not in toy.manifests or "1" not in toy.manifests["mine"]
    assert rows() == before


# -- login, search, ls-remote


def test_login(toy: Toy, cas: Cas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "docker"
    monkeypatch.setenv("DOCKER_CONFIG", str(home))
    toy.auth = "basic"

    def refused(*argv: str) -> str:
        told = cas("login", *argv, ok=False).err
        assert told[:-1].isprintable() and toy.password not in told
        return told

    for odd in ("na\x1b[2Jme", "na\nme", "na:me"):
        assert "cannot have such characters" in refused(toy.host, "-u", odd, "-p", "x")
    assert "cannot have such characters" in refused(toy.host, "-u", "me", "-p", "x\ny")
    assert not home.exists()
    # What is there and is not understood stays as it is.
    home.mkdir()
    file = home / "config.json"
    for content in ("{", "[]", '{"auths": []}', '{"auths": {}} more', "\xff"):
        file.write_text(content, encoding="latin-1")
        refused(toy.host, "-u", toy.user, "-p", toy.password)
        assert file.read_text(encoding="latin-1") == content
    file.unlink()
    file.mkdir()  # it cannot be read, nor written
    refused(toy.host, "-u", toy.user, "-p", toy.password)
    file.rmdir()
    home.rmdir()
    home.write_text("a file")
    refused(toy.host, "-u", toy.user, "-p", toy.password)
    assert home.read_text() == "a file"


def test_nobody_there(cas: Cas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    with registry.serving() as gone:
        host = gone.host
    for argv in (["login", host, "-u", "x", "-p", "y"], ["search", f"{host}/x"], ["ls-remote", f"{host}/x"]):
        assert "cannot reach it" in cas(*argv, ok=False).err
    assert not (tmp_path / "docker").exists()


def test_search(toy: Toy, attack: Attack) -> None:
    bad = [
        (b"<html>", "invalid JSON"),
        (DEEP, ""),
        (b'{"results": 7}', "results"),
        (b'{"results": [{"star_count": 1}]}', "name"),
        (b'{"results": [{"name": "x", "star_count": "many"}]}', "star_count"),
        (b'{"results": [{"name": "x", "star_count": 1e400}]}', ""),
    ]
    for body, problem in bad:
        toy.fail("GET", "/v1/search", answers(200, body))
        spent = attack("search", f"{toy.host}/x", ok=False)
        assert problem in spent.err and spent.err[:-1].isprintable()
    toy.fail("GET", "/v1/search", registry.endless)
    assert attack("search", f"{toy.host}/x", ok=False).peak < CAP


def test_what_is_found_does_not_steer_a_terminal(toy: Toy, spawn: Spawn) -> None:
    toy.found = [{"name": f"na{ESCAPE}me", "description": f"de{ESCAPE}\tscription", "star_count": 2**70}]
    for argv in (["search", f"{toy.host}/x"], ["search", "--format", "{{.Name}} {{.Description}}", f"{toy.host}/x"]):
        ours, theirs = pty.openpty()
        process = spawn(*argv, stdout=theirs, stderr=theirs)
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # so a terminal tells that nobody writes to it any more
            while part := os.read(ours, 65536):
                shown += part
        os.close(ours)
        assert process.wait() == 0
        assert b"scription" in shown
        assert not re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", shown.replace(b"\r\n", b"\n"))


@pytest.mark.parametrize("tags", [[f"a{ESCAPE}"], ["../../x"], ["x" * 129], [""], [7], "abc"])
def test_tags_that_are_none(toy: Toy, attack: Attack, tags: object) -> None:
    toy.fail("GET", "/tags/list", answers(200, json.dumps({"tags": tags}).encode()))
    spent = attack("ls-remote", f"{toy.host}/a", ok=False)
    assert spent.err[:-1].isprintable()
