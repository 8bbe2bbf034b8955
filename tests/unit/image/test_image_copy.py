"""`copy`: what places are called, folders and engines that are not what they should be, and registries in between."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socketserver
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import sample
from running import Cas, Rows, Spawn

from casstore import api
from casstore.errors import (
    BadInput,
    CasstoreError,
    Conflict,
    InvalidReference,
    LimitExceeded,
    NotFound,
    RemoteFailure,
    UsageError,
)
from casstore.image import place

ONE = sample.rich_image("copied", ("copied:1",))
BIG = sample.image("big", ("big:1",), [sample.files({"noise": sample.noise("big", 3 << 20)})])


# -- what they are called


@pytest.mark.parametrize(
    ("text", "kind", "path", "name", "label"),
    [
        ("docker://app", "docker", ".", "docker.io/library/app:latest", ""),
        ("docker://host:5/a/b:1", "docker", ".", "host:5/a/b:1", ""),
        (f"docker://a@sha256:{'0' * 64}", "docker", ".", f"docker.io/library/a@sha256:{'0' * 64}", ""),
        ("docker-daemon:app:1", "docker-daemon", ".", "docker.io/library/app:1", ""),
        ("docker-daemon:sha256:" + "0" * 64, "docker-daemon", ".", None, ""),
        ("store:app", "store", ".", "docker.io/library/app:latest", ""),
        ("docker-archive:/a.tar", "docker-archive", "/a.tar", None, ""),
        ("docker-archive:a.tar:host:5/b:2", "docker-archive", "a.tar", "host:5/b:2", "host:5/b:2"),
        ("docker-archive:a.tar:@3", "docker-archive", "a.tar", None, "@3"),
        ("oci-archive:a.tar:any/name:of-it", "oci-archive", "a.tar", None, "any/name:of-it"),
        ("oci:dir:v1", "oci", "dir", None, "v1"),
        ("dir:/with:colon", "dir", "/with:colon", None, ""),
    ],
)
def test_names_of_places(text: str, kind: str, path: str, name: str | None, label: str) -> None:
    found = place.parse(text)
    assert (found.kind, str(found.path), found.label, str(found)) == (kind, path, label, text)
    assert (str(found.name) if found.name else None) == name


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("app", UsageError, "expected TRANSPORT:REFERENCE"),
        ("ostree:a", UsageError, 'unknown transport "ostree"'),
        ("docker:a", UsageError, 'begins with "docker://"'),
        ("docker://A", InvalidReference, "must be lowercase"),
        ("docker://", InvalidReference, "invalid reference format"),
        ("dir:", UsageError, "no path"),
        ("oci::x", UsageError, "no path"),
        ("oci:a:b c", InvalidReference, 'invalid image "b c"'),
        ("oci:a\0b", UsageError, "such characters"),
        (f"docker-archive:a:b@sha256:{'0' * 64}", UsageError, "not by digest"),
        ("store:", UsageError, "no image"),
        ("docker-daemon:", UsageError, "no image"),
    ],
)
def test_what_is_no_place(text: str, error: type[CasstoreError], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        place.parse(text)


@pytest.mark.parametrize(
    "text", ["store:", "store:" + "0" * 64, "docker-daemon:", f"store:a@sha256:{'0' * 64}", "docker-archive:a:@0"]
)
def test_what_is_no_destination(text: str) -> None:
    with pytest.raises(UsageError):
        place.parse(text, destination=True)


# -- what does not go together


@pytest.fixture
def held(opened: api.Store, tmp_path: Path) -> api.Store:
    archive = tmp_path / "one.tar"
    archive.write_bytes(sample.oci_archive(ONE))
    opened.load(archive)
    return opened


@pytest.mark.parametrize(
    ("source", "target", "more", "message"),
    [
        ("store:copied:1", "dir:x", {"no_store": True}, "only what goes from docker:// to docker://"),
        ("store:copied:1", "docker-archive:x", {"preserve_digests": True}, "no place for the manifest"),
        ("store:copied:1", "docker-daemon:x", {"preserve_digests": True}, "no place for the manifest"),
        ("store:copied:1", "dir:x", {"referrers": True}, "between registries and the store only"),
        ("store:copied:1", "dir:x", {"platform": "linux/arm64", "all_platforms": True}, "exclude each other"),
    ],
)
def test_refused_before_anything(
    held: api.Store, tmp_path: Path, source: str, target: str, more: dict[str, Any], message: str
) -> None:
    with contextlib.chdir(tmp_path), pytest.raises(UsageError, match=message):
        held.copy(source, target, **more)
    assert not (tmp_path / "x").exists()


def test_what_is_there_is_not_written_over(held: api.Store, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").write_text("dear")
    for kind in ("oci", "dir"):
        with pytest.raises(Conflict, match="is neither empty nor has it a file"):
            held.copy("store:copied:1", f"{kind}:{tmp_path}/full")
    (tmp_path / "full" / "version").write_text("Version 3 of the letter")
    (tmp_path / "full" / "manifest.json").write_text("mine")
    with pytest.raises(BadInput, match="unknown version"):
        held.copy("store:copied:1", f"dir:{tmp_path}/full")
    assert (tmp_path / "full" / "manifest.json").read_text() == "mine"
    held.copy("store:copied:1", f"docker-archive:{tmp_path}/a.tar")
    with pytest.raises(Conflict, match="cannot be added to a docker archive"):
        held.copy("store:copied:1", f"docker-archive:{tmp_path}/a.tar")
    with pytest.raises(CasstoreError, match="must be a regular file"):
        held.copy("store:copied:1", f"oci-archive:{tmp_path}/full")
    with pytest.raises(CasstoreError, match="no such file or directory"):
        held.copy("store:copied:1", f"oci-archive:{tmp_path}/none/a.tar")
    held.copy("store:copied:1", f"oci:{tmp_path}/layout")
    (tmp_path / "layout" / "index.json").write_text("[")
    with pytest.raises(BadInput, match="invalid JSON"):
        held.copy("store:copied:1", f"oci:{tmp_path}/layout:v2")
    assert (tmp_path / "layout" / "index.json").read_text() == "["
    assert sorted(one.name for one in (tmp_path / "full").iterdir()) == ["letter", "manifest.json", "version"]


# -- folders


@pytest.fixture
def folder(held: api.Store, tmp_path: Path) -> Path:
    """A good `dir:`, whose image the store does not have any longer."""
    target = tmp_path / "folder"
    held.copy("store:copied:1", f"dir:{target}")
    for _ in held.remove(["copied:1"]):
        pass
    held.gc(grace=0)
    return target


def manifest_of(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
    return value


def _layer(folder: Path) -> Path:
    return folder / manifest_of(folder)["layers"][0]["digest"].removeprefix("sha256:")


def _no_version(folder: Path) -> None:
    (folder / "version").unlink()


def _other_version(folder: Path) -> None:
    (folder / "version").write_text("Directory Transport Version: 2.0\n")


def _no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def _huge_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(b" " * (5 << 20))


def _schema1(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"schemaVersion": 1, "fsLayers": []}')


def _climbing(folder: Path) -> None:
    value = manifest_of(folder)
    value["layers"][0]["digest"] = "sha256:../../../../etc/passwd"
    (folder / "manifest.json").write_text(json.dumps(value))


def _no_layer(folder: Path) -> None:
    _layer(folder).unlink()


def _linked_layer(folder: Path) -> None:
    outside = folder.parent / "outside"
    _layer(folder).rename(outside)
    _layer(folder).symlink_to(outside)


def _short_layer(folder: Path) -> None:
    _layer(folder).write_bytes(_layer(folder).read_bytes()[:-1])


def _wrong_layer(folder: Path) -> None:
    data = bytearray(_layer(folder).read_bytes())
    data[-20] ^= 1
    _layer(folder).write_bytes(data)


def _no_config(folder: Path) -> None:
    (folder / manifest_of(folder)["config"]["digest"].removeprefix("sha256:")).unlink()


def _half_an_index(folder: Path) -> None:
    raw = (folder / "manifest.json").read_bytes()
    (folder / f"{sample.sha(raw)}.manifest.json").write_bytes(raw)
    there = {"mediaType": sample.OCI_MANIFEST, "digest": sample.digest(raw), "size": len(raw)}
    gone = there | {"digest": sample.digest(b"gone")}
    index = {"schemaVersion": 2, "mediaType": sample.OCI_INDEX, "manifests": [there, gone]}
    (folder / "manifest.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (_no_version, BadInput, "no image folder"),
        (_other_version, BadInput, "version: unknown version"),
        (_no_manifest, BadInput, "no image folder"),
        (_huge_manifest, LimitExceeded, "manifest.json: larger than"),
        (_schema1, BadInput, "schema 1 is not supported"),
        (_climbing, BadInput, "invalid digest"),
        (_no_layer, NotFound, "neither in the archive nor in the store"),
        (_linked_layer, NotFound, "neither in the archive nor in the store"),
        (_short_layer, BadInput, "its descriptor says"),
        (_wrong_layer, BadInput, "digest|gzip"),
        (_no_config, BadInput, "is missing"),
        (_half_an_index, BadInput, "is missing"),
    ],
)
def test_a_spoilt_folder(
    held: api.Store,
    folder: Path,
    rows: Rows,
    spoil: Callable[[Path], None],
    error: type[CasstoreError],
    message: str,
) -> None:
    spoil(folder)
    before = rows()
    with pytest.raises(error, match=message) as caught:
        held.copy(f"dir:{folder}", "store:copied:2", all_platforms=True)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    assert rows() == before


def test_a_folder_has_one_image(held: api.Store, tmp_path: Path) -> None:
    """The next takes the place of the one before, and nothing else's."""
    target = tmp_path / "folder"
    held.copy("store:copied:1", f"dir:{target}")
    (target / "signature-1").write_text("of the former")
    (target / "notes.txt").write_text("mine")
    archive = tmp_path / "big.tar"
    archive.write_bytes(sample.docker_archive(BIG))
    report = held.copy(f"docker-archive:{archive}", f"dir:{target}")
    value = manifest_of(target)
    blobs = [one["digest"].removeprefix("sha256:") for one in [value["config"], *value["layers"]]]
    assert sorted(one.name for one in target.iterdir()) == sorted([*blobs, "manifest.json", "notes.txt", "version"])
    assert sample.digest((target / "manifest.json").read_bytes()) == str(report.digest)
    assert (target / "version").read_bytes() == b"Directory Transport Version: 1.1\n"


def test_what_came_from_an_archive_leaves_no_name(opened: api.Store, rows: Rows, tmp_path: Path) -> None:
    archive = tmp_path / "big.tar"
    archive.write_bytes(sample.docker_archive(ONE, BIG))
    assert opened.copy(f"docker-archive:{archive}:big:1", f"oci:{tmp_path}/layout").digest
    assert opened.images(all=True) == [] and rows()["tags"] == rows()["pins"] == []
    opened.gc(grace=0)
    assert rows()["blobs"] == []
    opened.copy(f"docker-archive:{archive}:@1", "store:second:1")
    assert [(one.repository, str(one.id)) for one in opened.images()] == [("second", BIG.id)]
    for label, message in (("", "none was chosen"), (":@2", "it has 2 images"), (":none:1", "no image named none:1")):
        with pytest.raises(CasstoreError, match=message):
            opened.copy(f"docker-archive:{archive}{label}", "store:third:1")
    with pytest.raises(BadInput, match="no OCI layout"):
        opened.copy(f"oci-archive:{archive}", "store:third:1")
    with pytest.raises(BadInput, match="no docker archive"):
        opened.copy(f"docker-archive:{tmp_path}/layout", "store:third:1")


# -- docker's engine


@dataclass
class Engine:
    """Something behind a socket. `archive`: what it gives; `says`: what it answers to a load; `loaded`: what came."""

    socket: Path
    archive: bytes = b""
    status: int = 200
    cut: int | None = None
    says: bytes = b'{"stream":"Loaded image: big:1\\n"}\r\n'
    refuse_at: int | None = None
    stalls: str = ""
    asked: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    loaded: list[bytes] = field(default_factory=list)


@pytest.fixture
def engine() -> Iterator[Engine]:
    with tempfile.TemporaryDirectory() as scratch:
        made = Engine(Path(scratch, "s"))

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def wait(self, at: str) -> None:
                if made.stalls == at:
                    made.asked.set()
                    made.ended.wait(60)

            def do_GET(self) -> None:
                self.wait("get")
                self.send_response(made.status)
                self.send_header("Content-Length", str(len(made.archive)))
                self.end_headers()
                self.wfile.write(made.archive[: made.cut])
                self.wait("body")
                self.close_connection = True

            def do_POST(self) -> None:
                self.wait("post")
                body = bytearray()
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                    if made.refuse_at is not None and len(body) > made.refuse_at:
                        break
                self.wait("load")
                made.loaded.append(bytes(body))
                self.send_response(made.status)
                self.send_header("Content-Length", str(len(made.says)))
                self.end_headers()
                self.wfile.write(made.says)
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
            daemon_threads = True

            def get_request(self) -> tuple[Any, Any]:
                return super().get_request()[0], ("docker", 0)

            def handle_error(self, *_: object) -> None:
                pass  # whoever asked has gone

        with Server(str(made.socket), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
            thread.start()
            try:
                yield made
            finally:
                made.ended.set()
                server.shutdown()
                thread.join()


def test_out_of_an_engine(opened: api.Store, engine: Engine) -> None:
    engine.archive = sample.docker_archive(BIG)
    opened.copy("docker-daemon:big:1", "store:here:1", socket=engine.socket)
    assert str(opened.images()[0].id) == BIG.id


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"archive": b'{"message":"No such image: big:1"}', "status": 404}, NotFound, "No such image: big:1"),
        ({"archive": b'{"message":"disk\\u001b[0m\\nburnt"}', "status": 500}, RemoteFailure, r"disk \[0m burnt"),
        ({"archive": b"<html>", "status": 500}, RemoteFailure, "status 500"),
        ({"archive": b"x" * (3 << 20), "status": 500}, RemoteFailure, "status 500"),
        ({"cut": 1 << 20}, RemoteFailure, "the engine broke off"),
        ({"cut": 0}, RemoteFailure, "the engine broke off"),
        ({"cut": -1100}, RemoteFailure, "the engine broke off"),  # in the end blocks: nothing of it is missing
        ({"archive": sample.docker_archive(ONE, BIG)}, BadInput, "it has 2 images"),
        ({"archive": sample.oci_archive(BIG)}, BadInput, "no docker archive"),
        ({"archive": b"no tar" * 4000}, BadInput, "docker-daemon|descriptor"),
    ],
    ids=["nosuch", "controls", "html", "long", "short", "none", "tail", "two", "oci", "notar"],
)
def test_an_engine_that_gives_something_else(
    opened: api.Store,
    engine: Engine,
    rows: Rows,
    change: dict[str, Any],
    error: type[CasstoreError],
    message: str,
) -> None:
    engine.archive = sample.docker_archive(BIG)
    for name, value in change.items():
        setattr(engine, name, value)
    before = rows()
    with pytest.raises(error, match=message) as caught:
        opened.copy("docker-daemon:big:1", "store:here:1", socket=engine.socket)
    assert "\n" not in str(caught.value) and str(caught.value).isprintable()
    assert rows() == before


def test_into_an_engine(held: api.Store, engine: Engine) -> None:
    held.copy("store:copied:1", "docker-daemon:other:2", socket=engine.socket)
    (archive,) = engine.loaded
    assert sample.saved_images(archive)[ONE.id][0] == ["other:2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"says": b'{"errorDetail":{"message":"no room"},"error":"no room"}\r\n'}, "the engine says: no room"),
        ({"says": b'{"message":"bad"}', "status": 500}, "the engine says: bad"),
        ({"says": b"", "status": 500}, "status 500"),
        ({"says": b"{"}, "not what an engine says"),
        ({"says": b" " * (2 << 20)}, "larger than"),
        ({"says": b'{"message":"enough"}', "status": 400, "refuse_at": 10_000}, "enough|broke off"),
    ],
    ids=["error", "bad", "silent", "half", "endless", "early"],
)
def test_an_engine_that_does_not_take_it(
    opened: api.Store, engine: Engine, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    for name, value in change.items():
        setattr(engine, name, value)
    archive = tmp_path / "big.tar"
    archive.write_bytes(sample.docker_archive(BIG))
    with pytest.raises(CasstoreError, match=message):
        opened.copy(f"docker-archive:{archive}", "docker-daemon:big:1", socket=engine.socket)


def test_an_archive_that_breaks_off_is_not_loaded(held: api.Store, engine: Engine, monkeypatch: Any) -> None:
    """The engine must not take what has come for all of it."""
    from casstore.transport import writing

    def fail(*_: object) -> Iterator[bytes]:
        yield b"x" * 100_000
        raise CasstoreError("broken")

    monkeypatch.setattr(writing, "contents", fail)
    with pytest.raises(CasstoreError, match="broken"):
        held.copy("store:copied:1", "docker-daemon:other:2", socket=engine.socket)
    assert engine.loaded == []


@pytest.fixture
def docker_host(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{engine.socket}")


@pytest.mark.parametrize("at", ["get", "body", "post", "load"])
@pytest.mark.usefixtures("docker_host")
def test_a_signal_ends_the_wait(held: api.Store, engine: Engine, rows: Rows, spawn: Spawn, at: str) -> None:
    """Whatever the engine is at; and there is nothing left of it."""
    engine.stalls = at
    engine.archive, engine.cut = sample.docker_archive(BIG), 1 << 20
    before = rows()
    here, there = "store:copied:1", "docker-daemon:big:1"
    with spawn("copy", *((there, "store:got:1") if at in ("get", "body") else (here, there))) as process:
        assert engine.asked.wait(60)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, b"Error: interrupted\n")
    assert rows() == before
    assert held.gc(grace=0).totals.blobs_deleted == 0


def test_no_engine(held: api.Store, cas: Cas, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nosuch")
    why = "cannot connect to the Docker daemon: is the docker daemon running?"
    for pair in (("docker-daemon:a:1", f"dir:{tmp_path}/x"), ("store:copied:1", "docker-daemon:a:1")):
        assert cas("copy", *pair, ok=False).err == f"Error: unix://{tmp_path}/nosuch: {why}\n"
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:2375")
    said = cas("copy", "store:copied:1", "docker-daemon:a:1", ok=False)
    assert said.code == 125 and "only an engine behind unix://" in said.err
    assert cas("copy", "-q", "store:copied:1", f"dir:{tmp_path}/y").out.startswith("sha256:")
