"""Downloads, from a server that behaves and from some that do not."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from casstore.errors import BadInput
from casstore.flow.source import public_url
from casstore.transport import download
from casstore.transport.download import MAX_REDIRECTS, open_url

BODY = bytes(range(256)) * 20_000


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        type(self).seen.append((self.path, self.headers.get("Authorization")))
        verb, _, rest = self.path.strip("/").partition("/")
        match verb:
            case "file":
                self.answer(200, BODY)
            case "empty":
                self.answer(200, b"")
            case "short":
                self.answer(200, BODY, length=len(BODY) + 1)
                self.close_connection = True
            case "endless":  # neither length nor chunks: the end of the connection is the end
                self.send_response(200)
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(BODY)
                self.close_connection = True
            case "chunked" | "cut":
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.wfile.write(
                    b"%x\r\n%s\r\n" % (len(BODY), BODY) + (b"0\r\n\r\n" if verb == "chunked" else b"99\r\n")
                )
                self.close_connection = True
            case "hops":
                left = int(rest)
                self.answer(302, b"moved", location=f"/hops/{left - 1}" if left else "/file")
            case "loop":
                self.answer(307, b"", location="/loop")
            case "to":
                self.answer(301, b"", location=rest.replace("=", "/"))
            case _:
                self.answer(int(verb) if verb.isdigit() else 404, b"what?")

    def answer(self, status: int, body: bytes, *, location: str | None = None, length: int | None = None) -> None:
        self.send_response(status)
        if location is not None:
            self.send_header("Location", location)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Handler.seen = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


def fetched(url: str) -> bytes:
    with open_url(url) as opened:
        parts = []
        while part := opened.read(100_000):
            parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("path", ["file", "endless", "chunked", "hops/0", f"hops/{MAX_REDIRECTS - 1}"])
def test_the_bytes_arrive(server: str, path: str) -> None:
    assert fetched(f"{server}/{path}") == BODY


def test_a_length_is_told_before_the_bytes(server: str) -> None:
    with open_url(f"{server}/file") as opened:
        assert opened.size == len(BODY)
    with open_url(f"{server}/chunked") as opened:
        assert opened.size is None
    assert fetched(f"{server}/empty") == b""


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("404", "got HTTP status 404 Not Found"),
        ("503/x", "got HTTP status 503 Service Unavailable"),
        ("206", "got HTTP status 206"),
        ("loop", f"stopped after {MAX_REDIRECTS} redirects"),
        (f"hops/{MAX_REDIRECTS}", f"stopped after {MAX_REDIRECTS} redirects"),
        ("to/file:===etc=passwd", "redirected to what is not an http or https URL: file:///etc/passwd"),
        ("to/ftp:==127.0.0.1=x", "not an http or https URL: ftp://"),
        ("to/http:==[x]:y", "not a URL"),
    ],
)
def test_what_is_no_file_is_told(server: str, path: str, problem: str) -> None:
    with pytest.raises(BadInput) as told:
        fetched(f"{server}/{path}")
    assert problem in str(told.value) and "\n" not in str(told.value)
    assert str(told.value).startswith("http://")


@pytest.mark.parametrize("path", ["short", "cut"])
def test_what_ends_too_early_is_an_error(server: str, path: str) -> None:
    with pytest.raises(BadInput, match="the download broke off") as told:
        fetched(f"{server}/{path}")
    assert told.value.offset is not None and told.value.offset <= len(BODY)


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(BadInput, match=f"^http://127.0.0.1:{port}/x: cannot download: Connection refused$"):
        fetched(f"http://127.0.0.1:{port}/x")
    with pytest.raises(BadInput, match=r"^http://nosuch\.invalid/: cannot download: "):
        fetched("http://nosuch.invalid/")
    for text in ("http://", "file:///etc/passwd", "http://[x", "/etc/passwd"):
        with pytest.raises(BadInput, match=r"not (a|an http or https) URL"):
            fetched(text)


def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "READ_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(BadInput, match="timed out"):
        fetched(f"http://127.0.0.1:{silent.getsockname()[1]}/x")


def test_a_password_goes_to_its_host_only_and_into_no_message(server: str) -> None:
    port = server.rpartition(":")[2]
    secret = f"http://me:p%40ss@127.0.0.1:{port}"
    assert fetched(f"{secret}/hops/0") == BODY
    assert [sent for _, sent in Handler.seen] == ["Basic bWU6cEBzcw=="] * 2
    Handler.seen.clear()
    assert fetched(f"{secret}/to/http:==localhost:{port}=file") == BODY
    assert [sent for _, sent in Handler.seen] == ["Basic bWU6cEBzcw==", None]
    with pytest.raises(BadInput) as told:
        fetched(f"{secret}/404")
    assert "p%40ss" not in str(told.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://h/a@b", "http://h/a@b"),
        ("https://u:p@h:1/x?y=z@", "https://h:1/x?y=z@"),
        ("http://u@h", "http://h"),
        ("nothing", "nothing"),
    ],
)
def test_what_is_shown_of_a_url(url: str, shown: str) -> None:
    assert public_url(url) == shown
