"""HTTP as registries need it: kept-alive connections, retries, redirects, and a bound on all that a server may send.

Nothing is read from the environment: `Network` is what the caller found out about the way to the servers.
"""

from __future__ import annotations

import contextlib
import copy
import email.utils
import ipaddress
import random
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, MaxRetryError, NameResolutionError, NewConnectionError, ProxyError, SSLError
from urllib3.util import make_headers, parse_url

from ..errors import LimitExceeded, RemoteFailure
from ..flow.source import public_url
from ..model import Buffer
from .download import reason
from .watch import Watch

AGENT = "casstore"
MAX_REDIRECTS = 10
MAX_ERROR = 64 << 10
"""Bytes of an error's body that are read."""
MAX_WAIT = 120.0
"""Seconds that a server may ask us to wait (Retry-After)."""
SLOWEST = 1024
"""Bytes a second, over a span of the read timeout: what is slower than that counts as stalled."""

METERED = 64 << 10
"""Bytes that are moved at once where a rate is kept."""

_REDIRECTS = (301, 302, 303, 307, 308)
_TRANSIENT = (408, 429, 500, 502, 503, 504)
_CONNECT_TRIES = 2
_LEFTOVER, _LEFTOVER_TIME = 8 << 10, 2.0  # bytes and seconds that a connection is worth
_POOL = 64  # idle connections that are kept for each host
_DOCUMENT_SPANS = 4  # of the read timeout, for all of a small body


@dataclass(frozen=True, slots=True)
class Network:
    """The way to servers. `proxies`: URL's scheme → the proxy's URL; `no_proxy`: hosts, domains, networks without one;
    `certificates`: folders laid out as docker's certs.d (HOST/*.crt, HOST/x.cert with HOST/x.key); `plain_http`: speak
    http to registries that are not on this machine; `insecure`: believe any certificate, and speak http where there is
    no https; `own_certificates`: a folder whose authorities and certificates serve for every host. Times are seconds;
    `retries`: tries after the first; `max_rate`: bytes a second over all connections, each way, 0 for any number."""

    proxies: Mapping[str, str] = field(default_factory=dict)
    no_proxy: tuple[str, ...] = ()
    certificates: tuple[Path, ...] = ()
    plain_http: bool = False
    connect_timeout: float = 20.0
    read_timeout: float = 60.0
    retries: int = 5
    backoff: float = 0.5
    parallel: int = 4
    insecure: bool = False
    own_certificates: Path | None = None
    max_rate: float = 0.0

    def proxy(self, scheme: str, host: str, port: int | None) -> str | None:
        """The proxy on the way to a host, None for the straight way."""
        found = self.proxies.get(scheme)
        if not found or is_loopback(host) or any(_covers(rule, host, port) for rule in self.no_proxy):
            return None
        return found


def is_loopback(host: str) -> bool:
    """Is this name or address (no port) this machine itself?"""
    host = host.strip("[]").lower().rstrip(".")
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


def _covers(rule: str, host: str, port: int | None) -> bool:
    """One entry of NO_PROXY: `*`, a name with its subdomains, an address, a network; with a port, that port only."""
    rule, host = rule.strip().lower(), host.strip("[]").lower().rstrip(".")
    if rule in ("", "*"):
        return rule == "*"
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host) in ipaddress.ip_network(rule.strip("[]"), strict=False)
    name, colon, number = rule.rpartition(":")
    if colon and number.isdecimal() and "]" not in number:
        if port is None or int(number) != port:
            return False
        rule = name
    rule = rule.strip("[]").removeprefix("*").removeprefix(".")
    return host == rule or host.endswith("." + rule)


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: what an Authorization header belongs to."""
    parts = parse_url(url)
    scheme = parts.scheme or ""
    return scheme, (parts.host or "").lower(), parts.port or (443 if scheme == "https" else 80)


class Stalled(Exception):
    """So few bytes in so long a time that the connection is as good as broken."""


class _BrokeOff(Exception):
    """A body ended too early: why, and after how many bytes."""


class Answer:
    """A server's answer. Its body is read by `read` (whole, bounded) or `readinto` (as it comes), then it is closed."""

    def __init__(
        self, response: urllib3.BaseHTTPResponse, url: str, patience: float, meter: Callable[[int], None] | None = None
    ) -> None:
        self._response = response
        self._patience = patience
        self._meter = meter
        self._since, self._few = time.monotonic(), 0
        self.url = url
        self.status = response.status
        length = response.headers.get("Content-Length", "")
        self.size = int(length) if length.isdecimal() and len(length) < 19 else None
        """What the server promises (bytes), None where it does not say."""

    def header(self, name: str) -> str:
        """A header's value, "" where there is none; what could not stand in one line of ours is not believed."""
        value = self._response.headers.get(name, "")
        return value if value.isprintable() else ""

    def headers(self, name: str) -> list[str]:
        """All values of a header that may stand several times."""
        return [value for value in self._response.headers.getlist(name) if value.isprintable()]

    def readinto(self, view: memoryview) -> int:
        """Whatever has come, 0 at the end. OSError, HTTPError or Stalled: the connection broke."""
        data = self._response.read1(len(view) if self._meter is None else min(len(view), METERED))
        view[: len(data)] = data
        self._few += len(data)
        if self._meter is not None:
            since = time.monotonic()
            self._meter(len(data))
            self._since += time.monotonic() - since  # we, not the server, were slow
        now = time.monotonic()
        if now - self._since > self._patience:
            if self._few < SLOWEST * self._patience and data:
                raise Stalled(f"{self._few} bytes in {now - self._since:.0f} seconds")
            self._since, self._few = now, 0
        return len(data)

    def read(self, limit: int, what: str) -> bytes:
        """The whole body. LimitExceeded: more than `limit` bytes; RemoteFailure: it broke off, or took too long."""
        try:
            return self._read(limit, what)
        except _BrokeOff as error:
            why, offset = error.args
            raise RemoteFailure(f"the answer broke off: {why}", what=what, offset=offset) from None

    def _read(self, limit: int, what: str) -> bytes:
        if self.size is not None and self.size > limit:
            self.close()
            raise LimitExceeded(f"the answer is larger than {limit} bytes", what=what)
        end = time.monotonic() + _DOCUMENT_SPANS * self._patience
        body = bytearray()
        try:
            while data := self._response.read1(64 << 10):
                body += data
                if len(body) > limit:
                    raise LimitExceeded(f"the answer is larger than {limit} bytes", what=what)
                if time.monotonic() > end:
                    raise RemoteFailure("the answer takes too long", what=what, offset=len(body))
        except (HTTPError, OSError) as error:
            raise _BrokeOff(reason(error), len(body)) from None
        finally:
            self.close()
        return bytes(body)

    def wake(self) -> None:
        """Whoever waits for bytes of it, in another thread, finds the connection broken."""
        with contextlib.suppress(OSError, ValueError, RuntimeError, AttributeError):  # it has ended just now
            self._response.shutdown()

    def close(self) -> None:
        """Done with it: a connection whose body was read to its end, or nearly, goes back to the pool; any other is
        dropped."""
        left = getattr(self._response, "length_remaining", None)
        if left is not None and left <= _LEFTOVER:
            end = time.monotonic() + _LEFTOVER_TIME
            with contextlib.suppress(HTTPError, OSError):
                while self._response.read1(_LEFTOVER) and time.monotonic() < end:
                    pass
                if getattr(self._response, "length_remaining", None) == 0:
                    self._response.release_conn()
                    return
        self._response.close()


Body = bytes | Callable[[], Iterable[Buffer]]
"""What is sent: bytes, or something that makes them; that is then tried once only."""


class Http:
    """Requests to any number of hosts, from any number of threads. `alive` is called while waiting and may raise."""

    def __init__(self, network: Network | None = None, alive: Callable[[], None] = lambda: None) -> None:
        self.network = network or Network()
        self._alive = alive
        self._lock = threading.Lock()
        self._managers: dict[tuple[str | None, Path | None], urllib3.PoolManager] = {}
        self._watch = Watch(self.network.read_timeout)
        self._pools = self._watch.pools()
        self._answers: weakref.WeakSet[Answer] = weakref.WeakSet()
        self._parts: weakref.WeakSet[Http] = weakref.WeakSet()
        rate = self.network.max_rate
        self._down = Rate(rate, self._alive).take if rate else None
        self._up = Rate(rate, self._alive).take if rate else None

    def part(self) -> Http:
        """The same, connections and all, for one task among several: its `wake` breaks only what was asked for by it,
        while that of the whole breaks everything."""
        one = copy.copy(self)
        one._answers = weakref.WeakSet()
        one._parts = weakref.WeakSet()
        with self._lock:
            self._parts.add(one)
        return one

    def other(self, network: Network) -> Http:
        """Another way to servers, with connections of its own, and the same rate for both together."""
        one = Http(network, self._alive)
        one._down, one._up = self._down, self._up
        with self._lock:
            self._parts.add(one)
        return one

    def close(self) -> None:
        """Let all connections go."""
        with self._lock:
            for manager in self._managers.values():
                manager.clear()
            self._managers.clear()

    def wake(self) -> None:
        """Break what is under way, so that nobody waits for a server any longer."""
        with self._lock:
            answers, parts = list(self._answers), list(self._parts)
        self._watch.wake(self)
        for answer in answers:
            answer.wake()
        for part in parts:
            part.wake()

    def wait(self, attempt: int, answer: Answer | None = None) -> None:
        """Sleep before the next try (`attempt` counts from 0): longer each time, spread, or as the server asks."""
        delay = self.network.backoff * 2 ** min(attempt, 6) * random.uniform(0.5, 1.5)
        asked = _retry_after(answer.header("Retry-After")) if answer is not None else None
        end = time.monotonic() + (delay if asked is None else min(asked, MAX_WAIT) + delay / 10)
        while (left := end - time.monotonic()) > 0:
            self._alive()
            time.sleep(min(left, 0.2))

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        size: int | None = None,
        retries: int | None = None,
    ) -> Answer:
        """One request; its answer, whatever the status, once there is one that is not passing trouble. Redirects of
        GET and HEAD are followed. `size`: bytes of a body that is made. RemoteFailure: no answer could be had."""
        tries = 1 + (self.network.retries if retries is None else retries)
        if callable(body):
            tries = 1
        for attempt in range(tries):
            self._alive()
            try:
                answer = self._follow(method, url, dict(headers or {}), body, size)
            except (HTTPError, OSError) as error:
                last = attempt + 1 == tries or (_unreached(error) and attempt + 1 >= _CONNECT_TRIES)
                if last or _hopeless(error):
                    raise RemoteFailure(f"cannot reach it: {reason(error)}", what=public_url(url)) from None
                self.wait(attempt)
                continue
            if answer.status not in _TRANSIENT or attempt + 1 == tries:
                return answer
            answer.close()
            self.wait(attempt, answer)
        raise RemoteFailure("cannot reach it", what=public_url(url))

    def document(self, ask: Callable[[], Answer], limit: int, what: str) -> tuple[Answer, bytes]:
        """The answer to `ask` and all of its body (see Answer.read), asked for again where that breaks off. An answer
        that is not 200 comes unread, with b""."""
        attempt = 0
        while True:
            answer = ask()
            if answer.status != 200:
                return answer, b""
            try:
                return answer, answer._read(limit, what)
            except _BrokeOff as error:
                why, offset = error.args
                if attempt == self.network.retries:
                    raise RemoteFailure(f"the answer broke off: {why}", what=what, offset=offset) from None
            self.wait(attempt)
            attempt += 1

    def _follow(self, method: str, url: str, headers: dict[str, str], body: Body | None, size: int | None) -> Answer:
        headers = {"User-Agent": AGENT, "Accept-Encoding": "identity"} | headers
        where = url
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._once(method, where, headers, body, size)
            if answer.status not in _REDIRECTS or method not in ("GET", "HEAD") or not answer.header("Location"):
                return answer
            answer.close()
            target = led_to(answer.header("Location"), where)
            if origin(target) != origin(where):
                headers.pop("Authorization", None)  # and it stays away, whereto it may lead from there
            where = target
        raise RemoteFailure(f"stopped after {MAX_REDIRECTS} redirects", what=public_url(url))

    def _once(self, method: str, url: str, headers: dict[str, str], body: Body | None, size: int | None) -> Answer:
        parts = parse_url(url)
        if callable(body):
            headers = headers | {"Content-Length": str(size)} if size is not None else headers
        elif body is not None or method in ("POST", "PUT", "PATCH"):
            body = body or b""
            headers = headers | {"Content-Length": str(len(body))}
        sent = body() if callable(body) else body
        if self._up is not None and sent is not None:
            sent = _metered([sent] if isinstance(sent, bytes) else sent, self._up)
        with self._watch.asking(self):
            response = self._manager(parts.scheme or "", parts.host or "", parts.port).request(
                method,
                parts._replace(auth=None, fragment=None).url,
                headers=headers,
                body=sent,  # type: ignore[arg-type]  # any buffers will do
                preload_content=False,
                decode_content=False,
                redirect=False,
                retries=False,
            )
        answer = Answer(response, url, self.network.read_timeout, self._down)
        with self._lock:
            self._answers.add(answer)
        return answer

    def _manager(self, scheme: str, host: str, port: int | None) -> urllib3.PoolManager:
        proxy = self.network.proxy(scheme, host, port)
        own = self.network.own_certificates
        folder = (own or self._certificates(host, port)) if scheme == "https" else None
        with self._lock:
            manager = self._managers.get((proxy, folder))
            if manager is None:
                manager = self._managers[proxy, folder] = self._connect(proxy, folder)
                manager.pool_classes_by_scheme = self._pools
            return manager

    def _connect(self, proxy: str | None, folder: Path | None) -> urllib3.PoolManager:
        network = self.network
        context = _tls(folder, verify=not network.insecure)
        timeout = urllib3.Timeout(connect=network.connect_timeout, read=network.read_timeout)
        if proxy is None:
            return urllib3.PoolManager(
                num_pools=32, maxsize=_POOL, timeout=timeout, retries=False, ssl_context=context
            )
        try:
            found = parse_url(proxy if "://" in proxy else f"http://{proxy}")
        except HTTPError:
            raise RemoteFailure("not a proxy's URL", what=public_url(proxy)) from None
        if found.scheme not in ("http", "https") or not found.host:
            raise RemoteFailure("only http and https proxies are supported", what=public_url(proxy))
        login = make_headers(proxy_basic_auth=unquote(found.auth)) if found.auth else None
        return urllib3.ProxyManager(
            found._replace(auth=None).url,
            proxy_headers=login,
            maxsize=_POOL,
            timeout=timeout,
            retries=False,
            ssl_context=context,
        )

    def _certificates(self, host: str, port: int | None) -> Path | None:
        names = [f"{host}:{port or 443}", host] if port in (None, 443) else [f"{host}:{port}"]
        for folder in self.network.certificates:
            for name in names:
                if (folder / name).is_dir():
                    return folder / name
        return None


def led_to(url: str, base: str) -> str:
    """Where a server sends us from `base`: a URL, or a path beside it. RemoteFailure unless that is http or https, and
    https where `base` is."""
    try:
        target = urljoin(base, url)
        parts = parse_url(target)
        valid = (
            parts.scheme in ("http", "https") and bool(parts.host) and bool(urlsplit(url).netloc or "://" not in url)
        )
    except (HTTPError, ValueError):
        raise RemoteFailure("redirected to what is no URL", what=public_url(base)) from None
    shown = public_url(target)[:200]
    if not valid:
        raise RemoteFailure(f"redirected to what is not an http or https URL: {shown}", what=public_url(base))
    if base.startswith("https:") and parts.scheme != "https":
        raise RemoteFailure(f"redirected from https to {shown}", what=public_url(base))
    return target


class Rate:
    """A token bucket: so many bytes a second, over all that take from it, a tenth of a second's at once."""

    def __init__(self, rate: float, alive: Callable[[], None] = lambda: None) -> None:
        self._rate = rate
        self._alive = alive
        self._lock = threading.Lock()
        self._free = time.monotonic()  # when all that was taken is paid for

    def take(self, count: int) -> None:
        """So many bytes have passed: wait until they may have."""
        with self._lock:
            now = time.monotonic()
            self._free = max(self._free, now - 0.1) + count / self._rate
            until = self._free
        while (left := until - time.monotonic()) > 0:
            self._alive()
            time.sleep(min(left, 0.2))


def _metered(buffers: Iterable[Buffer], meter: Callable[[int], None]) -> Iterator[Buffer]:
    """The same buffers in pieces, as fast as the meter lets them."""
    for buffer in buffers:
        view = memoryview(buffer).cast("B")
        for at in range(0, len(view), METERED):
            piece = view[at : at + METERED]
            meter(len(piece))
            yield piece


def _tls(folder: Path | None, *, verify: bool = True) -> ssl.SSLContext:
    """Verifying, with the machine's authorities and those of a folder of certs.d; or believing anybody."""
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if folder is None:
        return context
    try:
        for path in sorted(folder.iterdir()):
            if path.suffix == ".crt":
                context.load_verify_locations(path)
            elif path.suffix == ".cert":
                context.load_cert_chain(path, path.with_suffix(".key"))
    except (OSError, ssl.SSLError) as error:
        why = (isinstance(error, OSError) and error.strerror) or "not a certificate"
        raise RemoteFailure(f"cannot use its certificates: {why}", what=str(folder)) from None
    return context


def _retry_after(value: str) -> float | None:
    """Seconds, from a number of them or a date."""
    if value.isascii() and value.isdecimal():
        return float(value[:9])
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    return max(0.0, moment.timestamp() - time.time())


def _unreached(error: BaseException) -> bool:
    """Was nobody there, rather than somebody who broke off?"""
    cause = error.reason if isinstance(error, MaxRetryError) else error
    return isinstance(cause, NewConnectionError | NameResolutionError | ProxyError)


def _hopeless(error: BaseException) -> bool:
    """A certificate that is not believed now will not be in a second."""
    return isinstance(error, SSLError) and "CERTIFICATE" in str(error).upper()
