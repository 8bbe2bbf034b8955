"""One file by HTTP, read as it arrives: redirects followed, its length held against what was promised."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from urllib.parse import unquote, urljoin

import urllib3
from urllib3.exceptions import HTTPError, IncompleteRead
from urllib3.util import Url, make_headers, parse_url

from ..errors import BadInput
from ..flow.source import public_url

MAX_REDIRECTS = 10
CONNECT_TIMEOUT, READ_TIMEOUT = 30.0, 60.0
"""Seconds without an answer, and without a byte."""

EARLY = "it ended too early"

_REDIRECTS = (301, 302, 303, 307, 308)


class Download:
    """The body of an answer. `size` is what the server promises, or None."""

    def __init__(self, response: urllib3.BaseHTTPResponse, what: str) -> None:
        self._response = response
        self._what = what
        self._seen = 0
        length = response.headers.get("Content-Length", "")
        self.size = int(length) if length.isdecimal() else None

    def read(self, length: int) -> bytes:
        """Up to `length` bytes, none at the end. BadInput where the connection breaks before it."""
        try:
            data: bytes = self._response.read(length)
        except (HTTPError, OSError) as error:
            raise BadInput(f"the download broke off: {reason(error)}", what=self._what, offset=self._seen) from None
        self._seen += len(data)
        return data


@contextlib.contextmanager
def open_url(url: str) -> Iterator[Download]:
    """Download `url` (http or https). BadInput where there is no such server or file, or no end of redirects."""
    with contextlib.ExitStack() as cleanup:
        pool = cleanup.enter_context(
            urllib3.PoolManager(timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT, read=READ_TIMEOUT), retries=False)
        )
        first = _parsed(url, url)
        where, here = url, first
        for _ in range(MAX_REDIRECTS + 1):
            headers = {"User-Agent": "casstore", "Accept-Encoding": "identity"}
            if first.auth and (here.scheme, here.host, here.port) == (first.scheme, first.host, first.port):
                headers |= make_headers(basic_auth=unquote(first.auth))
            try:
                response = pool.request(
                    "GET", _bare(here), headers=headers, preload_content=False, decode_content=False, redirect=False
                )
            except (HTTPError, OSError) as error:
                raise BadInput(f"cannot download: {reason(error)}", what=public_url(where)) from None
            cleanup.callback(response.close)
            if response.status in _REDIRECTS and response.headers.get("Location"):
                where = urljoin(where, response.headers["Location"])
                here = _parsed(where, url)
                continue
            if response.status != 200:
                why = f" {response.reason}" if response.reason else ""
                raise BadInput(f"got HTTP status {response.status}{why}", what=public_url(where))
            yield Download(response, public_url(url))
            return
        raise BadInput(f"stopped after {MAX_REDIRECTS} redirects", what=public_url(url))


def _parsed(url: str, begin: str) -> Url:
    try:
        found = parse_url(url)
    except HTTPError:
        raise BadInput("not a URL", what=public_url(url)) from None
    if found.scheme not in ("http", "https") or not found.host:
        problem = "not an http or https URL"
        raise BadInput(
            problem if url == begin else f"redirected to what is {problem}: {url[:200]}", what=public_url(begin)
        )
    return found


def _bare(url: Url) -> str:
    return url._replace(auth=None, fragment=None).url


def reason(error: BaseException) -> str:
    """The innermost cause in a few words: urllib3's own are full of addresses of objects."""
    innermost, cause = error, error.__cause__ or error.__context__
    while cause is not None:
        innermost, cause = cause, cause.__cause__ or cause.__context__
    if isinstance(innermost, TimeoutError) or "timed out" in str(error):
        return "timed out"
    if isinstance(innermost, IncompleteRead):
        return EARLY
    text = (isinstance(innermost, OSError) and innermost.strerror) or str(innermost) or type(innermost).__name__
    return " ".join(text.split())[:200]
