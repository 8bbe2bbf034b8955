"""A registry: manifests, blobs, tags and referrers of its repositories.

Source: OCI distribution-spec 1.1; docker's Registry HTTP API V2, which answers the same requests.
"""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlencode, urljoin

import msgspec

from ..digest import Digest
from ..errors import BadInput, Conflict, Denied, InvalidReference, LimitExceeded, NotFound, RemoteFailure
from ..oci import build, media
from ..oci import manifest as oci_manifest
from ..oci.document import MAX_DOCUMENT, decode
from ..oci.manifest import Descriptor, Index, Manifest
from .auth import Authorizer, repository_scope
from .credentials import Credential
from .http import MAX_ERROR, Answer, Body, Http, is_loopback, led_to, origin
from .turns import Turns

ACCEPT = ", ".join((media.OCI_INDEX, media.DOCKER_LIST, media.OCI_MANIFEST, media.DOCKER_MANIFEST))
MAX_PAGE, MAX_PAGES = 4 << 20, 4096
"""Bytes of one page of a list, and pages of one list."""
PAGE = 1000
"""Entries that are asked for at a time."""
MAX_LISTED = 1_000_000
"""Entries of one list."""
COSIGN = ("sig", "att", "sbom")
"""What cosign keeps under tags made of a digest: `sha256-<hex>.sig`."""

_HUB = {"docker.io": "registry-1.docker.io"}
_HUB_SEARCH = {"docker.io": "https://index.docker.io"}
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_NEXT = re.compile(r'<([^<>]{1,4096})>\s*;[^<>]*?\brel="?next"?', re.IGNORECASE)
_KNOWN = media.INDEXES | media.MANIFESTS | media.DOCKER_SCHEMA1


class Fetched(NamedTuple):
    """A manifest or index off the wire: exact bytes, their digest, and the type that the registry gives them ("" where
    it says none that is known)."""

    raw: bytes
    digest: Digest
    media_type: str


class Head(NamedTuple):
    """What a registry says of a manifest without giving it."""

    digest: Digest | None
    media_type: str
    size: int | None


class SearchResult(msgspec.Struct, frozen=True):
    """A repository that a search found."""

    name: str
    description: str | None = ""
    star_count: int = 0
    is_official: bool = False
    is_automated: bool = False


class _Found(msgspec.Struct, frozen=True):
    results: list[SearchResult] | None = None


class _Tags(msgspec.Struct, frozen=True):
    tags: list[str] | None = None


class _Catalog(msgspec.Struct, frozen=True):
    repositories: list[str] | None = None


class _Error(msgspec.Struct, frozen=True):
    code: str | None = None
    message: str | None = None
    detail: Any = None


class _Errors(msgspec.Struct, frozen=True):
    errors: list[_Error] | None = None


class Registry:
    """One registry, by the domain that references name. `push`: it is to be written to. `namespace`: it stands for that
    other registry, as its mirror. Thread-safe; nothing is sent before the first question."""

    def __init__(
        self,
        http: Http,
        domain: str,
        credential: Credential | None = None,
        *,
        push: bool = False,
        namespace: str = "",
    ) -> None:
        self.http = http
        self.turns = Turns()
        """Who is at which blob."""
        self.places: dict[Digest, list[str]] = {}
        """Repositories that blobs are in: they were sent there, or found."""
        self.asked: set[Digest] = set()
        """Of a part: blobs that were fetched."""
        self.absent: set[Digest] = set()
        """Blobs that are hardly there: those that are small are sent unasked."""
        self.domain = domain
        self.actions = "pull,push" if push else "pull"
        self._credential = credential
        self._namespace = namespace
        self._lock = threading.Lock()
        self._base = ""
        self._auth: Authorizer | None = None

    def part(self, turns: Turns) -> Registry:
        """The same, with what it has learnt, for one task among several: see `Http.part`. `turns`: those that all of
        them take."""
        self._ready()
        one = copy.copy(self)
        one.http = self.http.part()
        one.turns = turns
        one.asked, one.absent = set(), set()
        return one

    def has(self, path: str, digest: Digest) -> bool:
        """Is it known already that the repository has this blob?"""
        return self.turns.sure and path in self.places.get(digest, ())

    # -- asking

    def _ready(self) -> tuple[str, Authorizer]:
        """The address and who we are there, found out once."""
        with self._lock:
            if self._auth is None:
                self._base, challenge = self._find()
                secure = self._base.startswith("https:")
                self._auth = Authorizer(self.http, self._credential, secure=secure, what=self.domain)
                if challenge:
                    self._auth.learn(challenge, (), "")
            return self._base, self._auth

    def _find(self) -> tuple[str, list[str]]:
        """The base URL that answers, and what it challenges us with."""
        host = _HUB.get(self.domain, self.domain)
        if is_loopback(host.rpartition(":")[0] if re.search(r":\d+$", host) else host):
            # Nothing is confided before it is known which of the two is spoken there.
            schemes = ["http", "https"]
        else:
            network = self.http.network
            schemes = ["http"] if network.plain_http else ["https", "http"] if network.insecure else ["https"]
        failure: RemoteFailure | None = None
        for scheme in schemes:
            base = f"{scheme}://{host}"
            more = scheme != schemes[-1]
            try:
                answer = self.http.send("GET", f"{base}/v2/", retries=1 if more else None)
                if more and answer.status >= 500:  # it does speak this
                    answer.close()
                    answer = self.http.send("GET", f"{base}/v2/")
            except RemoteFailure as error:
                failure = failure or error
                continue
            status, challenge = answer.status, answer.headers("WWW-Authenticate")
            answer.close()
            if status == 400 and more:
                continue
            if status == 404 or status >= 500:
                raise RemoteFailure(f"no registry there: HTTP status {status}", what=f"{base}/v2/")
            return base, challenge if status == 401 else []
        raise failure or RemoteFailure("no registry there", what=host)

    @property
    def base(self) -> str:
        """Its address, found out with the first question."""
        return self._ready()[0]

    def send(
        self,
        method: str,
        path: str,
        scopes: Sequence[str],
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        size: int | None = None,
    ) -> Answer:
        """A request with what the registry wants to see of us. `path`: below the registry, or a URL that it gave, which
        gets no Authorization where it leads elsewhere. A 401 is answered once, unless the body cannot be sent twice."""
        base, auth = self._ready()
        url = urljoin(base, path)
        if self._namespace and origin(url) == origin(base):
            url += ("&" if "?" in url else "?") + urlencode({"ns": self._namespace})
        own = origin(url) == origin(base)
        for again in (False, True):
            given = auth.headers(scopes) if own else {}
            answer = self.http.send(method, url, headers={**(headers or {}), **given}, body=body, size=size)
            if answer.status != 401 or again or callable(body) or origin(answer.url) != origin(base):
                return answer
            worth = auth.learn(answer.headers("WWW-Authenticate"), scopes, given.get("Authorization", ""))
            if not worth:
                return answer
            answer.close()
        raise RemoteFailure("no answer", what=self.domain)

    def _scopes(self, path: str) -> tuple[str, ...]:
        return (repository_scope(path, self.actions),)

    def ping(self) -> None:
        """Is there a registry, and does it take our credentials? Denied, RemoteFailure."""
        answer = self.send("GET", "/v2/", ())
        if answer.status != 200:
            raise problem(answer, self.domain)
        answer.close()

    def log_in(self) -> str:
        """`ping`, with the credentials at work; a refresh token to be kept instead of the password, "" for none."""
        _, auth = self._ready()
        auth.log_in()
        self.ping()
        return auth.refresh_token

    # -- manifests

    def manifest(self, path: str, ref: str, limit: int = MAX_DOCUMENT) -> Fetched:
        """A manifest or index by tag or digest. NotFound; Denied; DigestMismatch: the bytes are others than those that
        `ref`, or the registry itself, says."""
        what = f"{self.domain}/{path}{'@' if ':' in ref else ':'}{ref}"
        url, scopes = f"/v2/{path}/manifests/{ref}", self._scopes(path)
        answer, raw = self.http.document(lambda: self.send("GET", url, scopes, headers={"Accept": ACCEPT}), limit, what)
        if answer.status != 200:
            raise problem(answer, what)
        kind, said = _media_type(answer), _digest(answer)
        wanted = Digest.parse(ref) if ":" in ref else said
        actual = Digest.of(raw, wanted.algorithm if wanted else "sha256")
        if wanted is not None:
            wanted.check(actual, what)
        return Fetched(raw, actual, kind)

    def head(self, path: str, ref: str) -> Head | None:
        """Whether there is a manifest of that tag or digest. None: there is none."""
        answer = self.send("HEAD", f"/v2/{path}/manifests/{ref}", self._scopes(path), headers={"Accept": ACCEPT})
        if answer.status == 404:
            answer.close()
            return None
        if answer.status != 200:
            raise problem(answer, f"{self.domain}/{path}:{ref}")
        answer.close()
        return Head(_digest(answer), _media_type(answer), answer.size)

    def put_manifest(self, path: str, ref: str, raw: bytes, media_type: str) -> bool:
        """Give a manifest to the registry, under a tag or its digest; does it know now to what subject the manifest
        refers (else `refer` is to say so)? RemoteFailure: it keeps other bytes."""
        what = f"{self.domain}/{path}{'@' if ':' in ref else ':'}{ref}"
        answer = self.send(
            "PUT", f"/v2/{path}/manifests/{ref}", self._scopes(path), headers={"Content-Type": media_type}, body=raw
        )
        if answer.status not in (200, 201, 202):
            raise problem(answer, what)
        answer.close()
        said = _digest(answer)
        actual = Digest.of(raw, said.algorithm if said else "sha256")
        if said is not None and said != actual:
            raise RemoteFailure(f"the registry says that the manifest is {said}, but it is {actual}", what=what)
        return bool(answer.header("OCI-Subject"))

    def delete_manifest(self, path: str, ref: str) -> None:
        """Take away a tag, or a manifest by its digest and every tag of it. Conflict: the registry does not do that;
        NotFound, Denied."""
        scopes = (repository_scope(path, f"{self.actions},delete"),)
        answer = self.send("DELETE", f"/v2/{path}/manifests/{ref}", scopes)
        if answer.status in (200, 202, 204):
            answer.close()
            return
        what = f"{self.domain}/{path}{'@' if ':' in ref else ':'}{ref}"
        unsupported = answer.status in (400, 405, 501)
        failure = problem(answer, what)
        if unsupported:
            raise Conflict(f"the registry does not delete it: {failure.message}", what=what)
        raise failure

    def refer(self, path: str, referring: Descriptor, subject: Digest) -> None:
        """List a manifest under the tag that stands in for the referrers API: where the registry has none."""
        tag = fallback_tag(subject)
        try:
            found = oci_manifest.parse(self.manifest(path, tag).raw, f"{self.domain}/{path}:{tag}")
        except NotFound:
            found = None
        if isinstance(found, Manifest):
            raise BadInput("the tag that stands in for the referrers API is no index", what=f"{path}:{tag}")
        listed = found.manifests if found else ()
        if all(one.digest != referring.digest for one in listed):
            self.put_manifest(path, tag, build.index([*listed, referring]), media.OCI_INDEX)

    # -- blobs

    def has_blob(self, path: str, digest: Digest) -> bool:
        """Does the repository have this blob?"""
        answer = self.send("HEAD", f"/v2/{path}/blobs/{digest}", self._scopes(path))
        if answer.status not in (200, 404):
            raise problem(answer, f"{self.domain}/{path}@{digest}")
        answer.close()
        return answer.status == 200

    def open_blob(self, path: str, digest: Digest, start: int = 0, stop: int | None = None) -> Answer:
        """The answer that gives a blob's bytes: from `start` on, up to `stop` (206), or from its beginning (200)."""
        if self.turns.sure:
            self.asked.add(digest)
        asked = f"bytes={start}-{'' if stop is None else stop - 1}"
        headers = {"Range": asked} if start or stop is not None else {}
        answer = self.send("GET", f"/v2/{path}/blobs/{digest}", self._scopes(path), headers=headers)
        if answer.status != 200 and (answer.status != 206 or not headers):
            raise problem(answer, f"{self.domain}/{path}@{digest}")
        return answer

    def document(self, path: str, descriptor: Descriptor, limit: int = MAX_DOCUMENT) -> bytes:
        """A small blob (a config) whole, verified."""
        what = f"{self.domain}/{path}@{descriptor.digest}"
        if descriptor.size > limit:
            raise LimitExceeded(f"a document of {descriptor.size} bytes is larger than {limit}", what=what)
        _, raw = self.http.document(lambda: self.open_blob(path, descriptor.digest), limit, what)
        if len(raw) != descriptor.size:
            raise BadInput(f"its size is {len(raw)}, its descriptor says {descriptor.size}", what=what)
        descriptor.digest.check(Digest.of(raw, descriptor.digest.algorithm), what)
        return raw

    # -- lists

    def tags(self, path: str) -> list[str]:
        """All tags of a repository, as the registry orders them. NotFound."""
        found: list[str] = []
        what = f"{self.domain}/{path}"
        for raw in self._pages(f"/v2/{path}/tags/list?n={PAGE}", self._scopes(path), what):
            found += decode(_Tags, raw, MAX_PAGE, what).tags or ()
            _bound(found, what)
        for tag in found:
            if not _TAG.fullmatch(tag):
                raise BadInput(f"the registry lists {tag[:160]!r}, which is no tag", what=what)
        return list(dict.fromkeys(found))

    def catalog(self) -> Iterator[str]:
        """The names of all repositories, where the registry tells."""
        count = 0
        for raw in self._pages(f"/v2/_catalog?n={PAGE}", ("registry:catalog:*",), self.domain):
            names = decode(_Catalog, raw, MAX_PAGE, self.domain).repositories or ()
            count += len(names)
            if count > MAX_LISTED:
                raise LimitExceeded(f"more than {MAX_LISTED} entries", what=self.domain)
            yield from names

    def referrers(self, path: str, digest: Digest, artifact_type: str = "") -> list[Descriptor]:
        """What names this manifest as its subject; by the API, else under the tag that stands in for it."""
        what = f"{self.domain}/{path}@{digest}"
        query = "?" + urlencode({"artifactType": artifact_type}) if artifact_type else ""
        found: list[Descriptor] = []
        try:
            for raw in self._pages(f"/v2/{path}/referrers/{digest}{query}", self._scopes(path), what):
                found += _descriptors(raw, what)
                _bound(found, what)
        except NotFound:
            try:
                found = [*_descriptors(self.manifest(path, fallback_tag(digest)).raw, what)]
            except NotFound:
                return []
        return [one for one in found if not artifact_type or one.artifact_type == artifact_type]

    def cosign(self, path: str, digest: Digest) -> list[str]:
        """The tags under which cosign keeps something about this manifest."""
        names = [f"{fallback_tag(digest)}.{kind}" for kind in COSIGN]
        return [name for name in names if self.head(path, name) is not None]

    def search(self, term: str, limit: int = 25) -> list[SearchResult]:
        """Repositories by a word in their name or description."""
        base = _HUB_SEARCH.get(self.domain) or self._ready()[0]
        query = urlencode({"q": term, "n": limit})
        answer, raw = self.http.document(
            lambda: self.send("GET", f"{base}/v1/search?{query}", ()), MAX_PAGE, self.domain
        )
        if answer.status != 200:
            raise problem(answer, self.domain)
        return decode(_Found, raw, MAX_PAGE, self.domain).results or []

    def _pages(self, path: str, scopes: Sequence[str], what: str) -> Iterator[bytes]:
        """The pages of a list, for as long as each names another one that is new."""
        base, _ = self._ready()
        url, seen = urljoin(base, path), set[str]()
        while url not in seen:
            if len(seen) >= MAX_PAGES:
                raise LimitExceeded(f"more than {MAX_PAGES} pages", what=what)
            seen.add(url)
            answer, raw = self.http.document(partial(self.send, "GET", url, scopes), MAX_PAGE, what)
            if answer.status != 200:
                raise problem(answer, what)
            link = _NEXT.search(", ".join(answer.headers("Link"))[: 16 << 10])
            yield raw
            if link is None:
                return
            url = led_to(link[1], url)
            if origin(url) != origin(base):
                raise BadInput("the registry's list goes on at another server", what=what)
        raise BadInput("the registry's list goes round in a circle", what=what)


def fallback_tag(digest: Digest) -> str:
    """The tag that stands in for the referrers API: `sha256-<hex>`."""
    return f"{digest.algorithm}-{digest.hex}"[:128]


def problem(answer: Answer, what: str) -> NotFound | Denied | RemoteFailure:
    """An answer that is none of those hoped for, as an error; the answer is closed."""
    said = codes = ""
    try:
        raw = answer.read(MAX_ERROR, what)
        errors = decode(_Errors, raw, MAX_ERROR, what).errors or []
        codes = " ".join(one.code or "" for one in errors)
        said = next((text for one in errors for text in (one.message, one.code) if text), "")
    except (BadInput, RemoteFailure):
        pass
    said = "".join(each if each.isprintable() else " " for each in said)[:300]
    if answer.status == 404:
        return NotFound(said or "not found", what=what)
    if answer.status in (401, 403) or "DENIED" in codes or "UNAUTHORIZED" in codes:
        denied = "denied" if answer.status == 403 else "unauthorized"
        return Denied(f"{denied}: {said}" if said else denied, what=what, hint="casstore login")
    return RemoteFailure(f"HTTP status {answer.status}{f': {said}' if said else ''}", what=what)


def _bound(found: Sequence[object], what: str) -> None:
    if len(found) > MAX_LISTED:
        raise LimitExceeded(f"more than {MAX_LISTED} entries", what=what)


def _descriptors(raw: bytes, what: str) -> Iterable[Descriptor]:
    found = oci_manifest.parse(raw, what)
    if not isinstance(found, Index):
        raise BadInput("the list of referrers is no index", what=what)
    return found.manifests


def _media_type(answer: Answer) -> str:
    kind = answer.header("Content-Type").partition(";")[0].strip().lower()
    return kind if kind in _KNOWN else ""


def _digest(answer: Answer) -> Digest | None:
    try:
        return Digest.parse(answer.header("Docker-Content-Digest").strip())
    except InvalidReference:
        return None
