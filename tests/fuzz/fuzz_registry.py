"""Fuzzing what a registry answers: transport/http.py, registry.py, auth.py, blob_download.py, blob_upload.py.

An input: a byte that says what is asked, a byte of flags, then the answers in the order in which requests come, parted
by 0x1e. An answer: `status`, lines `Name: value`, an empty line, the body; `status!`: the body breaks off at its end;
no number: the connection breaks. `@B` in it stands for the digest of BLOB, `@M` for that of its body, or of the last.

Checked: errors that are documented, in one line; passwords go to the registry and to a token server as safe as it,
tokens to the registry only; what is fetched has its digest and size; what is listed is what may be listed.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import ProtocolError

from casstore.digest import Digest
from casstore.errors import BadInput, CasstoreError, InvalidReference, NotFound, RemoteFailure
from casstore.oci import manifest as oci_manifest
from casstore.oci import media
from casstore.oci.manifest import Descriptor
from casstore.transport.blob_download import BlobDownload
from casstore.transport.blob_upload import BlobUpload
from casstore.transport.credentials import Credential
from casstore.transport.http import Answer, Http, Network, origin
from casstore.transport.registry import Registry

LOOPBACK, TOKEN, PASSWORD, PUSH, NAMESPACE = 1, 2, 4, 8, 16
BLOB = b"the content of a blob, " * 7
SECRET = "s3cret-s3cret"
BASIC = base64.b64encode(f"me:{SECRET}".encode()).decode()
_REFUSALS = (BadInput, NotFound, RemoteFailure, InvalidReference)  # Denied is a RemoteFailure
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
MOST = 300
"""Requests that an input may lead to: more are without end."""


class Response:
    """What urllib3 would make of an answer."""

    def __init__(self, text: bytes, head: bool) -> None:
        top, _, body = text.partition(b"\n\n")
        first, *lines = top.split(b"\n")
        found = re.fullmatch(rb"(\d{3})(!?)", first)
        if found is None:
            raise ProtocolError("Connection aborted.", ConnectionResetError("reset"))
        self.status = int(found[1])
        self._breaks = bool(found[2])
        body = b"" if head else body
        self.headers = urllib3.HTTPHeaderDict()
        for line in lines:
            name, colon, value = line.decode("latin-1").partition(":")
            if colon:
                self.headers.add(name, value.strip())
        self._body = memoryview(body)
        self.length_remaining = None

    def read1(self, amount: int) -> bytes:
        piece, self._body = self._body[: max(1, amount // 3)], self._body[max(1, amount // 3) :]
        if not piece and self._breaks:
            raise ProtocolError("Connection broken", ConnectionResetError("reset"))
        return bytes(piece)

    def close(self) -> None:
        self._body = memoryview(b"")

    release_conn = shutdown = close


class Manager:
    def __init__(self, http: FakeHttp) -> None:
        self._http = http

    def request(self, method: str, url: str, *, headers: dict[str, str], body: Any, **_: Any) -> Response:
        return self._http.answer(method, url, headers, body)


class FakeHttp(Http):
    """Answers from the input instead of from the wire."""

    def __init__(self, texts: list[bytes], secure: bool) -> None:
        super().__init__(Network(retries=2))
        self._texts = texts
        self._secure = secure
        self._last = b""
        self.asked = 0
        self.home: tuple[str, str, int] | None = None

    def wait(self, attempt: int, answer: Answer | None = None) -> None:
        assert attempt >= 0
        if answer is not None:
            answer.header("Retry-After")

    def _manager(self, scheme: str, host: str, port: int | None) -> Any:
        assert scheme in ("http", "https") and host
        return Manager(self)

    def answer(self, method: str, url: str, headers: dict[str, str], body: Any) -> Response:
        self.asked += 1
        assert self.asked <= MOST, "requests without end"
        for name, value in headers.items():
            assert value.isprintable() and value.isascii() and name.isascii(), (name, value)
        assert url.isprintable() and "\n" not in url
        if self.home is None:
            self.home = origin(url)
        self._judge(url, headers)
        if isinstance(body, Iterable) and not isinstance(body, bytes | str):
            body = b"".join(bytes(piece) for piece in body)
        if body is not None:
            assert int(headers["Content-Length"]) == len(body)
        if not self._texts:
            raise ProtocolError("Connection aborted.", ConnectionResetError("reset"))
        text = self._texts.pop(0)
        content = text.partition(b"\n\n")[2]
        text = text.replace(b"@B", str(Digest.of(BLOB)).encode())
        text = text.replace(b"@M", str(Digest.of(content or self._last)).encode())
        if content:
            self._last = content
        return Response(text, method == "HEAD")

    def _judge(self, url: str, headers: dict[str, str]) -> None:
        """Who is told what."""
        given = headers.get("Authorization", "")
        # On this machine http is tried before https; nothing is confided before one of them has answered.
        home = self.home is not None and origin(url)[1:2] == self.home[1:2]
        if given.startswith("Bearer "):
            assert home, url
        elif given:
            assert given == f"Basic {BASIC}" and (home or urlsplit(url).scheme in ("http", "https"))
            if self._secure:
                assert urlsplit(url).scheme == "https", url
        assert SECRET not in url


def one(data: bytes) -> None:
    if len(data) < 2:
        return
    flags = data[1]
    http = FakeHttp(data[2:].split(b"\x1e"), not flags & LOOPBACK)
    credential = None
    if flags & PASSWORD:
        credential = Credential("me", SECRET, bool(flags & TOKEN))
    registry = Registry(
        http,
        "localhost:5000" if flags & LOOPBACK else "registry.test",
        credential,
        push=bool(flags & PUSH),
        namespace="other.test" if flags & NAMESPACE else "",
    )
    try:
        QUESTIONS[data[0] % len(QUESTIONS)](registry)
    except _REFUSALS as error:
        text = str(error)
        assert "\n" not in text and len(text) < 20_000 and SECRET not in text, text
    except CasstoreError as error:
        raise AssertionError(f"not documented: {error!r}") from error


# -- what is asked


def manifest_by_tag(registry: Registry) -> None:
    found = registry.manifest("a/b", "1")
    assert Digest.of(found.raw, found.digest.algorithm) == found.digest
    oci_manifest.parse(found.raw, "m", found.media_type, found.digest)


def manifest_by_digest(registry: Registry) -> None:
    found = registry.manifest("a/b", str(Digest.of(BLOB)))
    assert found.raw == BLOB


def head(registry: Registry) -> None:
    found = registry.head("a/b", "1")
    assert found is None or found.size is None or found.size >= 0
    registry.has_blob("a/b", Digest.of(BLOB))


def tags(registry: Registry) -> None:
    found = registry.tags("a/b")
    assert all(_TAG.fullmatch(tag) for tag in found) and len(set(found)) == len(found)


def catalog(registry: Registry) -> None:
    for name in registry.catalog():
        assert isinstance(name, str)


def referrers(registry: Registry) -> None:
    for artifact_type in ("", "application/x"):
        for one in registry.referrers("a/b", Digest.of(BLOB), artifact_type):
            assert isinstance(one, Descriptor) and one.size >= 0
            assert not artifact_type or one.artifact_type == artifact_type


def search(registry: Registry) -> None:
    for one in registry.search("word", 5):
        assert isinstance(one.name, str)


def document(registry: Registry) -> None:
    assert registry.document("a/b", Descriptor(media.OCI_CONFIG, Digest.of(BLOB), len(BLOB))) == BLOB


def download(registry: Registry) -> None:
    with BlobDownload(registry, "a/b", Digest.of(BLOB), len(BLOB)) as source:
        got = 0
        room = memoryview(bytearray(64))
        while piece := source.readinto(room):
            got += piece
        assert got == len(BLOB)


def upload(registry: Registry) -> None:
    made = BlobUpload(registry, "a/b", Digest.of(BLOB), len(BLOB), lambda start: [BLOB[start:]])
    if not made.mount("c"):
        made.run()


def upload_large(registry: Registry) -> None:
    data = BLOB * 6600
    BlobUpload(registry, "a/b", Digest.of(BLOB), len(data), lambda start: [data[start:]]).run()


def put(registry: Registry) -> None:
    raw = BLOB
    known = registry.put_manifest("a/b", "1", raw, media.OCI_MANIFEST)
    if not known:
        registry.refer("a/b", Descriptor(media.OCI_MANIFEST, Digest.of(raw), len(raw)), Digest.of(b"subject"))


def log_in(registry: Registry) -> None:
    registry.log_in()
    registry.cosign("a/b", Digest.of(BLOB))


QUESTIONS: tuple[Callable[[Registry], None], ...] = (
    manifest_by_tag,
    manifest_by_digest,
    head,
    tags,
    catalog,
    referrers,
    search,
    document,
    download,
    upload,
    upload_large,
    put,
    log_in,
)


# -- seeds

TOKENS = [
    *("\x1e", "200\n", "201\n", "202\n", "206\n", "307\n", "401\n", "404\n", "416\n", "429\n", "503\n", "200!\n"),
    *("@B", "@M", "WWW-Authenticate: ", "Bearer realm=", "Basic realm=", "service=", "scope=", "Location: ", "Link: "),
    *("Content-Range: bytes ", "Docker-Content-Digest: ", "Content-Length: ", "Content-Type: ", "Retry-After: "),
    *("Range: 0-", "OCI-Subject: ", "https://", "http://", "registry.test", "localhost:5000", 'rel="next"', "sha512:"),
    *("file:///", '"token":', '"access_token":', '"refresh_token":', '"expires_in":', '"errors":[{"code":'),
    *('"tags":', '"results":'),
]


def _said(status: int | str, body: bytes | str = b"", *headers: str) -> bytes:
    data = body.encode() if isinstance(body, str) else body
    return "\n".join([str(status), *headers]).encode() + b"\n\n" + data


def _input(question: Callable[[Registry], None], flags: int, *answers: bytes) -> bytes:
    return bytes([QUESTIONS.index(question), flags]) + b"\x1e".join(answers)


def seeds() -> dict[str, bytes]:
    home = _said(200, "{}")
    bearer = _said(
        401, "", 'WWW-Authenticate: Bearer realm="https://auth.test/token",service="s",scope="repository:a/b:pull"'
    )
    basic = _said(401, "", 'WWW-Authenticate: Basic realm="r", Negotiate')
    token = _said(200, '{"token":"abc","expires_in":300,"refresh_token":"r"}')
    layer = Descriptor(media.OCI_LAYER_GZIP, Digest.of(BLOB), len(BLOB))
    entry = f'"mediaType":"{layer.media_type}","digest":"{layer.digest}","size":{layer.size}'
    manifest = f'{{"schemaVersion":2,"mediaType":"{media.OCI_MANIFEST}","config":{{{entry}}},"layers":[{{{entry}}}]}}'
    index = f'{{"schemaVersion":2,"manifests":[{{{entry},"artifactType":"application/x"}}]}}'
    kind = f"Content-Type: {media.OCI_MANIFEST}"
    place = "Location: /v2/a/b/blobs/uploads/1?state=x"
    error = '{"errors":[{"code":"DENIED","message":"not yours","detail":{}}]}'
    half = len(BLOB) // 2
    return {
        "manifest": _input(manifest_by_tag, 0, home, _said(200, manifest, kind, "Docker-Content-Digest: @M")),
        "bearer": _input(manifest_by_tag, PASSWORD, bearer, token, _said(200, manifest, kind)),
        "refresh": _input(
            manifest_by_tag, PASSWORD | TOKEN, bearer, _said(200, '{"access_token":"x"}'), _said(404, error)
        ),
        "by-digest": _input(manifest_by_digest, LOOPBACK, _said("x"), _said("x"), home, _said(200, BLOB)),
        "head": _input(head, 0, home, _said(200, "", kind, "Docker-Content-Digest: @B"), _said(404)),
        "tags": _input(
            tags,
            NAMESPACE,
            home,
            _said(200, '{"tags":["a","b"]}', 'Link: </v2/a/b/tags/list?n=2&last=b>; rel="next"'),
            _said(200, '{"name":"a/b","tags":null}'),
        ),
        "catalog": _input(catalog, PASSWORD, basic, _said(200, '{"repositories":["a/b"]}')),
        "referrers": _input(referrers, 0, home, _said(200, index), _said(404, error), _said(200, index)),
        "search": _input(
            search, 0, home, _said(200, '{"results":[{"name":"a","star_count":3,"is_official":true}]}')
        ),
        "document": _input(document, 0, home, _said("200!", BLOB[:9]), _said(429), _said(200, BLOB)),
        "download": _input(
            download,
            0,
            home,
            _said(307, "", "Location: https://cdn.test/x?signed=1"),
            _said("200!", BLOB[:half]),
            _said(206, BLOB[half:], f"Content-Range: bytes {half}-{len(BLOB) - 1}/{len(BLOB)}"),
        ),
        "ignored-range": _input(download, 0, home, _said("200!", BLOB[:half]), _said(200, BLOB)),
        "upload": _input(upload, PUSH, home, _said(202, "", place), _said(201, "", "Docker-Content-Digest: @B")),
        "mounted": _input(upload, PUSH | PASSWORD, bearer, token, _said(201)),
        "upload-large": _input(
            upload_large,
            PUSH,
            home,
            _said(202, "", place),
            _said("x"),
            _said(204, "", place, "Range: 0-1000"),
            _said(202, "", place),
            _said(201),
        ),
        "put": _input(put, PUSH, home, _said(201, "", "Docker-Content-Digest: @B"), _said(404, error), _said(201)),
        "log-in": _input(log_in, PASSWORD, bearer, token, token, home, _said(404), _said(404), _said(200)),
    }
