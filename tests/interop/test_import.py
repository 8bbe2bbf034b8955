"""`import`, row by row, and what docker makes of the same changes."""

from __future__ import annotations

import bz2
import json
import lzma
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sample
from changes import BEYOND, DOCKERS, Outcome
from running import Cas, Rows

from casstore import api
from casstore.errors import BadInput

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from conftest import Peer

ROOT = sample.rich_layer("root")
PACKED = {
    "plain": ROOT,
    "gzip": sample.gz(ROOT),
    "members": sample.gz(ROOT[:5000]) + sample.gz(ROOT[5000:]),
    "bzip2": bz2.compress(ROOT),
    "xz": lzma.compress(ROOT),
    "zstd": zstd.compress(ROOT),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root.tar"
    path.write_bytes(ROOT)
    return path


def config_of(cas: Cas, image: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cas("blob", "cat", image).raw)
    return found


# -- changes


def test_changes_are_the_images_configuration(cas: Cas, root: Path) -> None:
    made = cas(
        "import", "-c", "ENV A=1\nENV B=$A", "-c", 'CMD ["x"]', "-c", "HEALTHCHECK NONE", root, "one:1"
    ).out.strip()
    config = config_of(cas, made)
    assert config["config"] == {"Env": ["A=1", "B=1"], "Cmd": ["x"], "Healthcheck": {"Test": ["NONE"]}}
    assert "config" not in config_of(cas, cas("import", root).out.strip())
    assert config["comment"] == "Imported from -" == config["history"][0]["comment"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (changes[0], expected)
        for changes, expected in DOCKERS + BEYOND
        if len(changes) == 1 and isinstance(expected, str)
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_bad_change_is_told_before_anything_is_read(store: api.Store, change: str, problem: str) -> None:
    fetched: list[str] = []
    for source in ("/nosuch", "http://127.0.0.1:1/nosuch"):
        with pytest.raises(BadInput) as told:
            store.import_image(source, "a:1", changes=[change], downloading=fetched.append)
        assert str(told.value) == problem
    assert fetched == []


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[api.Store]:
    with api.open(tmp_path_factory.mktemp("import") / "store") as opened:
        yield opened


def test_bad_changes_and_names_from_the_command_line(cas: Cas, rows: Rows, root: Path) -> None:
    cas("images")
    before = rows()
    for argv, problem in (
        (("-c", "RUN x", "/nosuch"), "Error: run is not a valid change command\n"),
        (("-c", "", "/nosuch"), "Error: file with no instructions\n"),
        (("-c", "CMD x", "/nosuch", "a@sha256:" + "0" * 64), "Error: cannot import digest reference\n"),
    ):
        done = cas("import", *argv, ok=False)
        assert (done.code, done.err) == (1, problem)
    assert cas("import", root, "a:1", "third", ok=False).code == 125
    assert cas("import", ok=False).code == 125
    assert rows() == before


@pytest.mark.parametrize("rows", [DOCKERS[i::4] for i in range(4)], ids=["1 of 4", "2 of 4", "3 of 4", "4 of 4"])
def test_docker_makes_the_same_of_changes(docker: Peer, tmp_path: Path, rows: list[tuple[list[str], Outcome]]) -> None:
    tiny = tmp_path / "tiny.tar"
    tiny.write_bytes(sample.files({"a": b""}))
    wrong = []
    for changes, ours in rows:
        flags = [word for change in changes for word in ("-c", change)]
        out, err, code = docker.whole("import", *flags, tiny)
        theirs: Outcome = err.strip().removeprefix("Error response from daemon: ")
        if code == 0:
            told = json.loads(docker("image", "inspect", out.strip()))[0]["Config"]
            theirs = {key: value for key, value in told.items() if value not in (None, "", False, [], {})}
        if theirs != ours:
            wrong.append((changes, theirs, ours))
    assert not wrong


# -- where from


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        where = self.path.strip("/")
        if where == "loop":
            self.send_response(302)
            self.send_header("Location", "/loop")
            self.end_headers()
            return
        data = PACKED.get(where.removeprefix("short-"), b"not found")
        self.send_response(200 if where.removeprefix("short-") in PACKED else 404)
        self.send_header("Content-Length", str(len(data) + where.startswith("short-")))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


@pytest.mark.parametrize("form", PACKED)
def test_from_a_url(cas: Cas, server: str, form: str) -> None:
    done = cas("import", f"{server}/{form}", "u:1")
    assert done.err == f"Downloading from {server}/{form}\n"
    config = config_of(cas, done.out.strip())
    assert config["rootfs"]["diff_ids"] == [sample.digest(ROOT)]
    assert config["comment"] == f"Imported from {server}/{form}"
    assert sample.saved_images(cas("save", "u:1").raw)[done.out.strip()][1] == [ROOT]


def test_from_a_url_that_fails(cas: Cas, server: str, rows: Rows, store_path: Path) -> None:
    cas("images")
    before = rows()
    for where, problem in (
        ("nosuch", "got HTTP status 404 Not Found"),
        ("loop", "stopped after 10 redirects"),
        ("short-plain", "the download broke off"),
        ("short-gzip", "the download broke off"),
    ):
        done = cas("--quiet", "import", f"{server}/{where}", "u:1", ok=False)
        assert done.code == 1 and problem in done.err and f"{server}/{where}" in done.err
    assert rows() == before
    assert not list((store_path / "tmp").iterdir())


@pytest.mark.parametrize("form", PACKED)
def test_from_a_file_under_any_compression(cas: Cas, tmp_path: Path, form: str) -> None:
    (tmp_path / "root").write_bytes(PACKED[form])
    made = cas("import", "-m", "why", tmp_path / "root", "f:1").out.strip()
    config = config_of(cas, made)
    assert config["rootfs"]["diff_ids"] == [sample.digest(ROOT)] and config["comment"] == "why"
    cas("verify", "f:1")


def test_docker_loads_what_was_imported(cas: Cas, docker: Peer, root: Path, tmp_path: Path) -> None:
    made = cas(
        "import", "-c", "ENV A=1", "-c", "CMD x", "-c", "VOLUME /v", "-m", "why", root, "from-casstore:1"
    ).out.strip()
    cas("save", "-o", tmp_path / "saved.tar", "from-casstore:1")
    docker("load", "-i", tmp_path / "saved.tar")
    told = json.loads(docker("image", "inspect", "from-casstore:1"))[0]
    assert told["Id"] == made and told["Comment"] == "why"
    assert told["Config"]["Env"] == ["A=1"] and told["Config"]["Cmd"] == ["/bin/sh", "-c", "x"]
    assert told["Config"]["Volumes"] == {"/v": {}}
