"""A small registry for tests, which does as the specification says, except where a test tells it to misbehave."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import json
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import sample

INDEX = sample.OCI_INDEX
MANIFEST = sample.OCI_MANIFEST


class Seen(NamedTuple):
    """A request that came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass
class Fault:
    """What goes wrong with the next `times` requests that fit, after `skip` of them. `do` answers (True), or changes
    how the handler goes on (False)."""

    method: str
    pattern: str
    do: Callable[[Handler], bool]
    times: int = 1
    skip: int = 0

    def fits(self, method: str, path: str) -> bool:
        if method != self.method or not re.search(self.pattern, path):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return self.times >= 0


def status(code: int, body: bytes = b"", **headers: str) -> Callable[[Handler], bool]:
    def do(handler: Handler) -> bool:
        handler.answer(code, body, {name.replace("_", "-"): value for name, value in headers.items()})
        return True

    return do


def error(code: int, name: str, message: str) -> Callable[[Handler], bool]:
    return status(code, json.dumps({"errors": [{"code": name, "message": message}]}).encode())


def reset(after: int = 0) -> Callable[[Handler], bool]:
    """The connection breaks after so many bytes of the body; 0: before the answer."""

    def do(handler: Handler) -> bool:
        if not after:
            handler.break_off()
            return True
        handler.limit = after
        return False

    return do


def cut(after: int) -> Callable[[Handler], bool]:
    """The connection ends, in good order, after so many bytes of the body."""

    def do(handler: Handler) -> bool:
        handler.limit, handler.gently = after, True
        return False

    return do


def stall(after: int) -> Callable[[Handler], bool]:
    """Nothing more comes after so many bytes."""

    def do(handler: Handler) -> bool:
        handler.limit, handler.stalls = after, True
        return False

    return do


def changed(change: Callable[[bytes], bytes]) -> Callable[[Handler], bool]:
    """The body is another."""

    def do(handler: Handler) -> bool:
        handler.change = change
        return False

    return do


def no_ranges(handler: Handler) -> bool:
    """Range is ignored."""
    handler.ranges = False
    return False


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        super().setup()
        self.clean()

    def clean(self) -> None:
        self.limit: int | None = None
        self.gently = self.stalls = False
        self.ranges = True
        self.change: Callable[[bytes], bytes] = bytes

    def log_message(self, *_: object) -> None:
        pass

    # -- out

    def answer(self, code: int, body: bytes = b"", headers: dict[str, str] | None = None, start: int = 0) -> None:
        body = self.change(body)
        self.send_response(code)
        given = {"Content-Length": str(len(body) - start)} | (headers or {})
        for name, value in given.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        body = body[start:]
        if self.limit is not None and len(body) > self.limit:
            self.wfile.write(body[: self.limit])
            self.wfile.flush()
            if self.stalls:
                self.server.toy.ended.wait(200)
            self.close_connection = True
            if not self.gently:
                self.break_off()
            return
        self.wfile.write(body)

    def break_off(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def json(self, value: Any, headers: dict[str, str] | None = None) -> None:
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"} | (headers or {}))

    def error(self, code: int, name: str) -> None:
        message = name.lower().replace("_", " ")
        self.answer(code, json.dumps({"errors": [{"code": name, "message": message}]}).encode())

    # -- in

    def handle_one_request(self) -> None:
        with contextlib.suppress(ConnectionError, ValueError, OSError):
            super().handle_one_request()
            return
        self.close_connection = True

    def serve(self) -> None:
        toy = self.server.toy
        self.clean()
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        fault = next((one for one in toy.faults if one.fits(self.command, self.path)), None)
        body = b""
        if fault is None or self.command not in ("PATCH", "PUT"):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        toy.log.append(Seen(self.command, parts.path, query, headers, body))
        if fault is not None and fault.do(self):
            return
        if parts.path == "/token":
            self.token(query, body)
        elif not self.allowed(parts.path, query):
            self.answer(401, b"", {"WWW-Authenticate": toy.challenge(parts.path, query)})
        else:
            self.route(parts.path, query, body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_CONNECT = serve  # noqa: N815

    def allowed(self, path: str, query: dict[str, str]) -> bool:
        toy = self.server.toy
        given = self.headers.get("Authorization", "")
        if toy.auth == "basic":
            return given == "Basic " + base64.b64encode(f"{toy.user}:{toy.password}".encode()).decode()
        if toy.auth == "bearer":
            return given.removeprefix("Bearer ") in toy.tokens
        return True

    def token(self, query: dict[str, str], body: bytes) -> None:
        toy = self.server.toy
        if self.command == "POST":
            form = {key: values[0] for key, values in parse_qs(body.decode()).items()}
            if not toy.oauth:
                self.error(404, "NOT_FOUND")
            elif form.get("refresh_token") == toy.refresh:
                self.json({"access_token": toy.new_token(), "expires_in": 300})
            else:
                self.error(401, "UNAUTHORIZED")
            return
        given = self.headers.get("Authorization")
        right = "Basic " + base64.b64encode(f"{toy.user}:{toy.password}".encode()).decode()
        if given != right and (given or not toy.anonymous):
            self.error(401, "UNAUTHORIZED")
            return
        answer: dict[str, Any] = {"token": toy.new_token()}
        if query.get("offline_token") and toy.oauth:
            answer["refresh_token"] = toy.refresh
        self.json(answer)

    def route(self, path: str, query: dict[str, str], body: bytes) -> None:
        toy = self.server.toy
        if path == "/v2/":
            self.json({})
        elif path == "/v2/_catalog":
            self.page("repositories", sorted(toy.manifests), path, query)
        elif path == "/v1/search":
            self.json({"results": toy.found})
        elif found := re.fullmatch(r"/v2/(.+)/tags/list", path):
            tags = sorted(ref for ref in toy.manifests.get(found[1], {}) if ":" not in ref)
            self.page("tags", tags, path, query) if tags else self.error(404, "NAME_UNKNOWN")
        elif found := re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", path):
            self.manifest(found[1], found[2], body)
        elif found := re.fullmatch(r"/v2/(.+)/referrers/([^/]+)", path):
            self.referrers(found[1], found[2])
        elif found := re.fullmatch(r"/v2/(.+)/blobs/uploads/(.*)", path):
            self.upload(found[1], found[2], query, body)
        elif found := re.fullmatch(r"/v2/(.+)/blobs/([^/]+)", path):
            self.blob(found[1], found[2])
        else:
            self.error(404, "UNSUPPORTED")

    def page(self, key: str, entries: list[str], path: str, query: dict[str, str]) -> None:
        rest = [one for one in entries if one > query.get("last", "")]
        shown = rest[: self.server.toy.page]
        link = {}
        if len(rest) > len(shown):
            link = {"Link": f'<{path}?n={query.get("n")}&last={shown[-1]}>; rel="next"'}
        self.json({key: shown}, link)

    def manifest(self, name: str, ref: str, body: bytes) -> None:
        toy = self.server.toy
        if self.command == "PUT":
            digest = digest_like(ref, body)
            if ":" in ref and digest != ref:
                self.error(400, "DIGEST_INVALID")
                return
            missing = [one for one in blobs_of(body) if one not in toy.blobs.get(name, {})]
            missing += [one for one in children_of(body) if one not in toy.manifests.get(name, {})]
            if missing:
                self.error(400, "MANIFEST_BLOB_UNKNOWN")
                return
            for key in (ref, digest):
                toy.manifests.setdefault(name, {})[key] = (self.headers["Content-Type"], body)
            subject = json.loads(body).get("subject", {}).get("digest", "")
            heads = {"Docker-Content-Digest": digest, "Location": self.path}
            if subject and toy.has_referrers:
                heads["OCI-Subject"] = subject
            self.answer(201, b"", heads)
            return
        found = toy.manifests.get(name, {}).get(ref)
        if found is None:
            self.error(404, "MANIFEST_UNKNOWN")
            return
        if self.command == "DELETE":
            self.delete(toy.manifests[name], ref, found[1])
            return
        headers = {"Content-Type": found[0]}
        if toy.says_digest:
            headers["Docker-Content-Digest"] = digest_like(ref, found[1])
        self.answer(200, found[1], headers)

    def delete(self, refs: dict[str, tuple[str, bytes]], ref: str, raw: bytes) -> None:
        toy = self.server.toy
        if toy.deletes == "nothing" or (toy.deletes == "digests" and ":" not in ref):
            self.error(405, "UNSUPPORTED")
            return
        for one in [one for one, (_, other) in refs.items() if one == ref or (":" in ref and other == raw)]:
            del refs[one]
        self.answer(202)

    def referrers(self, name: str, digest: str) -> None:
        toy = self.server.toy
        if not toy.has_referrers:
            self.error(404, "NOT_FOUND")
            return
        raw = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": toy.referring.get(digest, [])})
        self.answer(200, raw.encode(), {"Content-Type": INDEX})

    def blob(self, name: str, digest: str) -> None:
        data = self.server.toy.blobs.get(name, {}).get(digest)
        if data is None:
            self.error(404, "BLOB_UNKNOWN")
            return
        start = 0
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and self.ranges:
            start = int(wanted[1])
            stop = min(int(wanted[2] or len(data)) + 1, len(data))
            headers = {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}
            self.answer(206, data[:stop], headers, start)
        else:
            self.answer(200, data)

    def upload(self, name: str, session: str, query: dict[str, str], body: bytes) -> None:
        toy = self.server.toy
        if self.command == "POST" and "mount" in query:
            data = toy.blobs.get(query.get("from", ""), {}).get(query["mount"])
            if data is not None and toy.mounts:
                toy.blobs.setdefault(name, {})[query["mount"]] = data
                self.answer(201, b"", {"Location": f"/v2/{name}/blobs/{query['mount']}"})
                return
        if self.command == "POST":
            session = str(next(toy.sessions))
            toy.uploads[session] = bytearray()
            self.answer(202, b"", {"Location": f"/v2/{name}/blobs/uploads/{session}?state=a%2Fb", "Range": "0-0"})
            return
        kept = toy.uploads.get(session)
        if kept is None:
            self.error(404, "BLOB_UPLOAD_UNKNOWN")
            return
        place = {"Location": f"/v2/{name}/blobs/uploads/{session}?state=b", "Range": f"0-{max(0, len(kept) - 1)}"}
        if self.command == "GET":
            self.answer(204, b"", place)
            return
        begin = re.match(r"(\d+)-", self.headers.get("Content-Range", ""))
        if self.command == "PATCH" and (int(begin[1]) if begin else 0) != len(kept):
            self.answer(416, b"", place)
            return
        kept += body
        if self.command == "PATCH":
            self.answer(202, b"", place | {"Range": f"0-{len(kept) - 1}"})
            return
        if digest_like(query.get("digest", ""), kept) != query.get("digest"):
            self.error(400, "DIGEST_INVALID")
            return
        toy.blobs.setdefault(name, {})[query["digest"]] = bytes(kept)
        del toy.uploads[session]
        self.answer(201, b"", {"Docker-Content-Digest": query["digest"], "Location": "x"})


def digest_like(other: str, data: bytes | bytearray) -> str:
    """The digest of data, by the algorithm of another; of a tag: sha256."""
    algorithm = "sha512" if other.startswith("sha512:") else "sha256"
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def part_of_upload(count: int) -> Callable[[Handler], bool]:
    """The registry keeps so many bytes of what is sent, and breaks off."""

    def do(handler: Handler) -> bool:
        session = urlsplit(handler.path).path.rpartition("/")[2]
        handler.server.toy.uploads[session] += handler.rfile.read(count)
        handler.break_off()
        return True

    return do


def blobs_of(manifest: bytes) -> list[str]:
    value = json.loads(manifest)
    return [one["digest"] for one in [*value.get("layers", []), *([value["config"]] if "config" in value else [])]]


def children_of(manifest: bytes) -> list[str]:
    return [one["digest"] for one in json.loads(manifest).get("manifests", [])]


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    toy: Toy

    def handle_error(self, *_: object) -> None:
        pass


@dataclass
class Toy:
    """The registry: what it holds, what it is to do, and what it saw."""

    auth: str = ""
    """"", "basic" or "bearer"."""
    user: str = "me"
    password: str = "p:ä ss"
    anonymous: bool = False
    oauth: bool = True
    refresh: str = "refresh-me"
    realm: str = ""
    tokens: set[str] = field(default_factory=set)
    manifests: dict[str, dict[str, tuple[str, bytes]]] = field(default_factory=dict)
    blobs: dict[str, dict[str, bytes]] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    referring: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    found: list[dict[str, Any]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    log: list[Seen] = field(default_factory=list)
    page: int = 1000
    mounts: bool = True
    has_referrers: bool = True
    says_digest: bool = True
    deletes: str = "tags"
    """"tags" and digests, "digests" alone, or "nothing"."""
    url: str = ""
    sessions: Iterator[int] = field(default_factory=itertools.count)
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    def new_token(self) -> str:
        token = f"token{len(self.tokens)}"
        self.tokens.add(token)
        return token

    def challenge(self, path: str, query: dict[str, str]) -> str:
        if self.auth == "basic":
            return 'Basic realm="toy"'
        found = re.fullmatch(r"/v2/(.+)/(manifests|blobs|tags|referrers)/.*", path)
        scope = f',scope="repository:{found[1]}:pull"' if found else ""
        return f'Bearer realm="{self.realm or self.url + "/token"}",service="toy"{scope}'

    def fail(self, method: str, pattern: str, do: Callable[[Handler], bool], **more: int) -> None:
        self.faults.append(Fault(method, pattern, do, **more))

    def count(self, method: str, pattern: str) -> int:
        return sum(one.method == method and re.search(pattern, one.path) is not None for one in self.log)

    def add(self, name: str, tag: str, image: sample.Image, pack: Callable[[bytes], bytes] = sample.gz) -> str:
        """An image; the digest of its manifest."""
        config = self.blob(name, image.config, sample.OCI_CONFIG)
        kind = sample.OCI_LAYER if pack is bytes else f"{sample.OCI_LAYER}+gzip"
        layers = [self.blob(name, pack(layer), kind) for layer in image.layers]
        return self.put(name, tag, {"mediaType": MANIFEST, "config": config, "layers": layers})

    def blob(
        self, name: str, data: bytes, media_type: str = "application/octet-stream", algorithm: str = "sha256"
    ) -> dict[str, Any]:
        """A blob; its descriptor."""
        digest = digest_like(f"{algorithm}:", data)
        self.blobs.setdefault(name, {})[digest] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def put(
        self, name: str, tag: str, document: dict[str, Any], media_type: str = "", algorithm: str = "sha256"
    ) -> str:
        """A manifest or index, whatever it says; its digest."""
        raw = json.dumps({"schemaVersion": 2} | document).encode()
        kind = media_type or document.get("mediaType", MANIFEST)
        digest = digest_like(f"{algorithm}:", raw)
        for ref in (tag, digest):
            self.manifests.setdefault(name, {})[ref] = (kind, raw)
        return digest

    def many(self, name: str, tag: str) -> dict[str, str]:
        """An index of images for two platforms; architecture → digest of its manifest, "" → of the index."""
        made: dict[str, str] = {}
        children = []
        for architecture in ("amd64", "arm64"):
            layers = [sample.files({"arch": architecture.encode() + sample.text(architecture, 20_000)})]
            made[architecture] = self.add(
                name, architecture, sample.image(architecture, layers=layers, architecture=architecture)
            )
            size = len(self.manifests[name][architecture][1])
            platform = {"os": "linux", "architecture": architecture}
            children.append({"mediaType": MANIFEST, "digest": made[architecture], "size": size, "platform": platform})
        made[""] = self.put(name, tag, {"mediaType": INDEX, "manifests": children})
        return made


@contextlib.contextmanager
def serving(toy: Toy | None = None, certificate: Path | None = None, **more: Any) -> Iterator[Toy]:
    """A registry on a port of its own. `certificate`: a file with its certificate and key, for https."""
    toy = toy or Toy(**more)
    with Server(("127.0.0.1", 0), Handler) as server:
        server.toy = toy
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        toy.url = f"{'https' if certificate else 'http'}://localhost:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield toy
        finally:
            toy.ended.set()
            server.shutdown()
            thread.join()


def drip(seconds: float, length: int) -> Callable[[Handler], bool]:
    """A byte now and then, for as long as somebody listens."""

    def do(handler: Handler) -> bool:
        handler.answer(200, b"", {"Content-Length": str(length)})
        with contextlib.suppress(OSError):
            while not handler.server.toy.ended.is_set():
                handler.wfile.write(b"x")
                time.sleep(seconds)
        handler.close_connection = True
        return True

    return do


def silence(handler: Handler) -> bool:
    """No answer at all."""
    handler.server.toy.ended.wait(200)
    handler.close_connection = True
    return True


def slow_head(text: bytes) -> Callable[[Handler], bool]:
    """The head of an answer does not end: the same again and again."""

    def do(handler: Handler) -> bool:
        with contextlib.suppress(OSError):
            while not handler.server.toy.ended.is_set():
                handler.wfile.write(text)
                time.sleep(0.02)
        handler.close_connection = True
        return True

    return do


def endless(handler: Handler) -> bool:
    """A body without length that does not end."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    with contextlib.suppress(OSError):
        while not handler.server.toy.ended.is_set():
            handler.wfile.write(b" " * 65536)
    handler.close_connection = True
    return True
