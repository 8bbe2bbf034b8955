"""Who we are to a registry: challenges read, tokens fetched and kept until they expire.

Source: distribution's token and OAuth2 documents; RFC 9110 §11 (challenges).
"""

from __future__ import annotations

import base64
import re
import threading
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import urlencode

import msgspec
from urllib3.exceptions import HTTPError
from urllib3.util import parse_url

from ..errors import BadInput, Denied, RemoteFailure
from ..flow.source import public_url
from ..oci.document import decode
from .credentials import Credential
from .http import AGENT, MAX_ERROR, Http

MAX_ANSWER = 1 << 20
"""Bytes of a token server's answer."""
_MAX_HEADER = 8 << 10
_LIFETIME, _SHORTEST, _MARGIN = 60.0, 60.0, 10.0
"""Seconds that a token lasts where nobody says how long; at least; and how long before its end it is let go."""

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SCHEME = re.compile(rf"[\s,]*({_WORD})(?:[ \t]+|$|(?=,))")
_PARAMETER = re.compile(rf'[\s,]*({_WORD})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))')
_TOKEN = re.compile(r"[!-~]{1,200000}")


class Challenge(NamedTuple):
    """What a server wants to see: `scheme` in lower case ("basic", "bearer")."""

    scheme: str
    parameters: dict[str, str]


def challenges(headers: Iterable[str]) -> list[Challenge]:
    """WWW-Authenticate headers, each of which may hold several; what cannot be read is left out."""
    found: list[Challenge] = []
    for text in headers:
        at = 0
        text = text[:_MAX_HEADER]
        while scheme := _SCHEME.match(text, at):
            at = scheme.end()
            parameters: dict[str, str] = {}
            while parameter := _PARAMETER.match(text, at):
                quoted, plain = parameter[2], parameter[3]
                value = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
                parameters.setdefault(parameter[1].lower(), value)
                at = parameter.end()
            found.append(Challenge(scheme[1].lower(), parameters))
    return found


def repository_scope(path: str, actions: str) -> str:
    """`repository:library/busybox:pull`."""
    return f"repository:{path}:{actions}"


def basic(username: str, secret: str) -> str:
    """The value of an Authorization header."""
    return "Basic " + base64.b64encode(f"{username}:{secret}".encode()).decode()


class _Token(msgspec.Struct, frozen=True):
    token: str | None = None
    access_token: str | None = None
    expires_in: float | None = None
    refresh_token: str | None = None


class _Kept(NamedTuple):
    value: str
    until: float


class Authorizer:
    """Authorization for one registry. `secure`: it is reached by https, and so must be whoever gets credentials.
    Thread-safe; a token is fetched once for all threads that want the same."""

    def __init__(self, http: Http, credential: Credential | None, *, secure: bool, what: str) -> None:
        self._http = http
        self._credential = credential
        self._secure = secure
        self._what = what
        self._lock = threading.Lock()
        self._bearer: Challenge | None = None
        self._basic = False
        self._tokens: dict[tuple[str, ...], _Kept] = {}
        self.refresh_token = ""
        """What the token server gave for use instead of a password, where it was asked for that (`login`)."""

    @property
    def anonymous(self) -> bool:
        """Has nobody told us who we are?"""
        return self._credential is None

    def headers(self, scopes: Sequence[str]) -> dict[str, str]:
        """What goes with a request, as far as is known: nothing before the first challenge."""
        with self._lock:
            if self._bearer is not None:
                return {"Authorization": f"Bearer {self._token(self._bearer, scopes)}"}
            if self._basic and self._credential is not None:
                return {"Authorization": basic(self._credential.username, self._credential.secret)}
        return {}

    def learn(self, headers: Iterable[str], scopes: Sequence[str], sent: str) -> bool:
        """A 401 came, to a request with the Authorization `sent` ("" for none). Is another try worth it?"""
        offered = challenges(headers)
        bearer = next((one for one in offered if one.scheme == "bearer" and "realm" in one.parameters), None)
        with self._lock:
            if bearer is not None:
                self._bearer = bearer
                key = tuple(scopes or bearer.parameters.get("scope", "").split())
                kept = self._tokens.get(key)
                if kept is not None and sent == f"Bearer {kept.value}":
                    del self._tokens[key]  # refused, however long it was to last
                return True
            if any(one.scheme == "basic" for one in offered) and self._credential is not None:
                fresh = not sent
                self._basic = True
                return fresh and not self._credential.is_token
        return False

    def _token(self, challenge: Challenge, scopes: Sequence[str]) -> str:
        key = tuple(scopes or challenge.parameters.get("scope", "").split())
        kept = self._tokens.get(key)
        if kept is None or kept.until < time.monotonic():
            kept = self._tokens[key] = self._fetch(challenge, key)
        return kept.value

    def log_in(self) -> None:
        """Fetch a token for nothing in particular, which proves the credentials, and a refresh token if there is one to
        be had. Denied."""
        with self._lock:
            if self._bearer is not None:
                self._fetch(self._bearer, (), offline=True)

    def _fetch(self, challenge: Challenge, scopes: Sequence[str], *, offline: bool = False) -> _Kept:
        realm = challenge.parameters["realm"]
        what = public_url(realm)[:300]
        self._check_realm(realm, what)
        service = challenge.parameters.get("service", "")
        credential = self._credential
        raw: bytes | None = None
        if credential is not None and credential.is_token:
            form = {"grant_type": "refresh_token", "refresh_token": credential.secret, "client_id": AGENT}
            form |= {"service": service, "scope": " ".join(scopes)}
            raw = self._ask("POST", realm, what, {}, urlencode(form).encode())
        if raw is None:
            query: list[tuple[str, str]] = [("service", service)] if service else []
            query += [("scope", scope) for scope in scopes]
            headers = {}
            if credential is not None and not credential.is_token:
                query += [("account", credential.username)]
                headers["Authorization"] = basic(credential.username, credential.secret)
            if offline:
                query += [("client_id", AGENT), ("offline_token", "true")]
            url = realm + ("&" if "?" in realm else "?") + urlencode(query) if query else realm
            raw = self._ask("GET", url, what, headers, None)
        if raw is None:
            raise RemoteFailure("the token server gives no tokens: HTTP status 404", what=what)
        found = decode(_Token, raw, MAX_ANSWER, what)
        value = found.token or found.access_token or ""
        if not _TOKEN.fullmatch(value):
            raise BadInput("the token server's answer has no usable token", what=what)
        if offline and found.refresh_token and _TOKEN.fullmatch(found.refresh_token):
            self.refresh_token = found.refresh_token
        lasts = _LIFETIME if found.expires_in is None else found.expires_in
        lasts = min(max(lasts, _SHORTEST), 86400.0)
        return _Kept(value, time.monotonic() + lasts - _MARGIN)

    def _ask(self, method: str, url: str, what: str, headers: dict[str, str], body: bytes | None) -> bytes | None:
        """The token server's answer; None where it knows no such request (404: OAuth2 is optional)."""
        if body is not None:
            headers = headers | {"Content-Type": "application/x-www-form-urlencoded"}
        answer, raw = self._http.document(
            lambda: self._http.send(method, url, headers=headers, body=body), MAX_ANSWER, what
        )
        if answer.status in (404, 405):
            answer.close()
            return None
        if answer.status in (400, 401, 403):
            answer.close()
            problem = "no anonymous access" if self.anonymous else "incorrect username or password"
            raise Denied(f"unauthorized: {problem}", what=self._what, hint="casstore login")
        if answer.status != 200:
            answer.read(MAX_ERROR, what)
            raise RemoteFailure(f"the token server answers HTTP status {answer.status}", what=what)
        return raw

    def _check_realm(self, realm: str, what: str) -> None:
        try:
            parts = parse_url(realm)
        except HTTPError:
            parts = parse_url("")
        if parts.scheme not in ("http", "https") or not parts.host or not realm.isprintable():
            raise Denied("the registry names a token server that is no http or https URL", what=f"{self._what}: {what}")
        if self._secure and parts.scheme != "https":
            raise Denied("the registry names a token server without https", what=f"{self._what}: {what}")
