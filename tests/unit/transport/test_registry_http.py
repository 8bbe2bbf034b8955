"""The way to registries: retries, redirects, proxies, certificates; and what a registry says of itself."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest
import registry
import sample
from registry import Toy, serving
from running import Cas

from casstore.cli import network as cli_network
from casstore.digest import Digest
from casstore.errors import BadInput, CasstoreError, Interrupted, LimitExceeded, NotFound, RemoteFailure
from casstore.image.remote import Remote
from casstore.oci import media
from casstore.transport.http import MAX_REDIRECTS, MAX_WAIT, Http, Network, is_loopback
from casstore.transport.registry import Registry, fallback_tag

QUICK = Network(backoff=0.01, read_timeout=2.0, connect_timeout=5.0, retries=3)


@pytest.fixture
def toy() -> Iterator[Toy]:
    with serving() as made:
        made.add("a/b", "1", sample.image())
        yield made


@pytest.fixture
def remote() -> Iterator[Remote]:
    with Remote(QUICK) as made:
        yield made


# -- retries


class Clock:
    """Time that passes only while somebody sleeps."""

    now = 1_700_000_000.0

    def monotonic(self) -> float:
        return self.now

    time = monotonic

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("7", 7, 8),
        ("100000", MAX_WAIT, MAX_WAIT + 1),
        (formatdate(Clock.now + 30, usegmt=True), 30, 31),
        (formatdate(Clock.now - 30, usegmt=True), 0, 1),
        ("Mon, 99 Foo", 0, 1),
        ("soon", 0, 1),
        ("-1", 0, 1),
        ("", 0, 1),
    ],
)
def test_as_long_as_the_server_asks(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, value: str, least: float, most: float
) -> None:
    clock = Clock()
    monkeypatch.setattr("casstore.transport.http.time", clock)
    toy.fail("GET", "/v2/$", registry.status(503, Retry_After=value))
    answer = Http(QUICK).send("GET", f"{toy.url}/v2/")
    answer.close()
    assert answer.status == 200 and least <= clock.now - Clock.now <= most


def test_who_waits_can_be_interrupted(toy: Toy) -> None:
    stopped = threading.Event()

    def alive() -> None:
        if stopped.is_set():
            raise Interrupted("interrupted")

    toy.fail("GET", "/v2/$", registry.status(429, Retry_After="100000"), times=99)
    threading.Timer(0.3, stopped.set).start()
    with pytest.raises(Interrupted):
        Http(QUICK, alive).send("GET", f"{toy.url}/v2/")


def test_connections_are_used_again(toy: Toy) -> None:
    http = Http(QUICK)
    ports = set()
    real = registry.Handler.setup

    def setup(handler: registry.Handler) -> None:
        ports.add(handler.client_address)
        real(handler)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry.Handler, "setup", setup)
        for path in ("/v2/", "/v2/a/b/manifests/1", "/v2/a/b/tags/list", "/nothing"):
            answer = http.send("GET", toy.url + path)
            if path != "/nothing":
                answer.read(1 << 20, path)
            answer.close()
        http.send("HEAD", f"{toy.url}/v2/a/b/manifests/1").close()
        http.send("GET", f"{toy.url}/v2/").close()
    assert len(ports) == 1


@pytest.mark.parametrize("text", [b"HTTP/1.1 100 Continue\r\n\r\n", b"H", b"X-More: 1\r\n"])
def test_a_head_that_does_not_end(toy: Toy, text: bytes) -> None:
    toy.fail("GET", "/v2/$", registry.slow_head(text), times=9)
    with pytest.raises(RemoteFailure, match="cannot reach it"):
        Http(Network(read_timeout=0.5, retries=1, backoff=0.01)).send("GET", f"{toy.url}/v2/")


# -- redirects


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("/v2/", f"stopped after {MAX_REDIRECTS} redirects"),
        ("file:///etc/passwd", "not an http or https URL: file:///etc/passwd"),
        ("ftp://h/", "not an http or https URL"),
        ("http://[", "no URL"),
        ("http://", "not an http or https URL"),
    ],
)
def test_redirects_to_nowhere(toy: Toy, target: str, problem: str) -> None:
    toy.fail("GET", "/v2/$", registry.status(302, Location=target), times=1000)
    with pytest.raises(RemoteFailure, match=problem):
        Http(QUICK).send("GET", f"{toy.url}/v2/")


def test_a_password_does_not_come_back_from_elsewhere(toy: Toy) -> None:
    with serving() as other:
        toy.fail("GET", "^/v2/$", registry.status(307, Location=f"{other.url}/v2/"))
        other.fail("GET", "^/v2/$", registry.status(307, Location=f"{toy.url}/v2/a/b/tags/list"))
        answer = Http(QUICK).send("GET", f"{toy.url}/v2/", headers={"Authorization": "Basic eDp5"})
        assert answer.status == 200
        answer.close()
    seen = [one.headers.get("authorization") for one in (*toy.log, *other.log)]
    assert seen == ["Basic eDp5", None, None]


def test_what_is_posted_is_not_sent_on(toy: Toy) -> None:
    with serving() as other:
        toy.fail("POST", "/token", registry.status(307, Location=f"{other.url}/token"))
        answer = Http(QUICK).send("POST", f"{toy.url}/token", body=b"refresh_token=secret")
        assert answer.status == 307 and not other.log
        answer.close()


# -- proxies


@pytest.mark.parametrize(
    ("rules", "host", "port", "straight"),
    [
        ("*", "r.example", None, True),
        ("r.example", "r.example", None, True),
        ("r.example", "sub.r.example", 5000, True),
        (".r.example", "sub.r.example", None, True),
        ("*.r.example", "sub.r.example", None, True),
        ("r.example", "notr.example", None, False),
        ("r.example:5000", "r.example", 5000, True),
        ("r.example:5000", "r.example", 5001, False),
        ("10.0.0.0/8", "10.1.2.3", None, True),
        ("10.0.0.0/8", "11.1.2.3", None, False),
        ("10.1.2.3", "10.1.2.3", 80, True),
        ("fd00::/8", "[fd00::1]", None, True),
        ("R.Example", "r.example.", None, True),
        ("", "r.example", None, False),
        ("", "localhost", 5000, True),
        ("", "127.3.2.1", None, True),
        ("", "[::1]", None, True),
    ],
)
def test_who_is_reached_without_a_proxy(rules: str, host: str, port: int | None, straight: bool) -> None:
    network = Network(proxies={"https": "http://proxy:1"}, no_proxy=tuple(rules.split(",")))
    assert (network.proxy("https", host, port) is None) == straight
    assert network.proxy("http", host, port) is None


def test_what_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cli_network.proxies() == {}
    assert cli_network.credential_files()[0] == tmp_path / ".docker" / "config.json"
    monkeypatch.setenv("ALL_PROXY", "http://all")
    monkeypatch.setenv("HTTP_PROXY", "http://large")
    assert cli_network.proxies() == {"http": "http://large", "https": "http://all"}
    monkeypatch.setenv("http_proxy", "http://small")
    assert cli_network.proxies()["http"] == "http://small"
    monkeypatch.delenv("http_proxy")
    monkeypatch.setenv("REQUEST_METHOD", "GET")
    assert cli_network.proxies()["http"] == "http://all"
    monkeypatch.setenv("DOCKER_CONFIG", "/d")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/r")
    monkeypatch.setenv("REGISTRY_AUTH_FILE", "/f")
    assert cli_network.credential_files()[:3] == (
        Path("/f"),
        Path("/d/config.json"),
        Path("/r/containers/auth.json"),
    )


def test_through_a_proxy(toy: Toy) -> None:
    """The toy takes whole URLs, as a proxy does."""
    proxy = f"http://me:p%40ss@{toy.host}"
    network = Network(proxies={"http": proxy}, plain_http=True, backoff=0.01)
    with Remote(network) as remote:
        assert remote.tags("registry.test/a/b") == ["1"]
    assert {one.headers["host"] for one in toy.log} == {"registry.test"}
    assert {one.headers["proxy-authorization"] for one in toy.log} == {"Basic bWU6cEBzcw=="}


def test_proxies_that_are_none() -> None:
    for proxy in ("socks5://h:1", "http://", "http://[x"):
        network = Network(proxies={"https": proxy}, backoff=0.01)
        with Remote(network) as remote, pytest.raises(RemoteFailure, match="prox"):
            remote.tags("registry.test/a/b")


# -- certificates


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both.pem (certificate and key), ca.crt, client.cert, client.key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    names = "subjectAltName=DNS:localhost,DNS:registry.test,IP:127.0.0.1"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days"]
    command += ["2", "-subj", "/CN=toy", "-addext", names, "-keyout", "client.key", "-out", "ca.crt"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (folder / "client.cert").write_bytes((folder / "ca.crt").read_bytes())
    (folder / "both.pem").write_bytes((folder / "ca.crt").read_bytes() + (folder / "client.key").read_bytes())
    return folder


def trusting(certificate: Path, tmp_path: Path, name: str) -> Network:
    folder = tmp_path / "certs.d" / name
    folder.mkdir(parents=True)
    for each in ("ca.crt", "client.cert", "client.key"):
        shutil.copy(certificate / each, folder)
    return Network(certificates=(tmp_path / "nosuch", tmp_path / "certs.d"), backoff=0.01, retries=2)


def test_a_certificate_must_be_known(certificate: Path, tmp_path: Path) -> None:
    with serving(certificate=certificate / "both.pem") as toy:
        toy.add("a", "1", sample.image())
        with Remote(QUICK) as remote, pytest.raises(RemoteFailure, match="cannot reach it"):
            remote.tags(f"{toy.host}/a")
        assert not toy.log
        with Remote(trusting(certificate, tmp_path, toy.host)) as remote:
            assert remote.tags(f"{toy.host}/a") == ["1"]


def test_certificates_that_are_none_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "registry.test"
    folder.mkdir()
    (folder / "ca.crt").write_text("nothing")
    told = pytest.raises(RemoteFailure, match=r"registry\.test: cannot use its certificates")
    with Remote(Network(certificates=(tmp_path,))) as remote, told:
        remote.tags("registry.test/a")


def test_https_through_a_proxy(certificate: Path, tmp_path: Path) -> None:
    network = trusting(certificate, tmp_path, "registry.test")
    with serving(certificate=certificate / "both.pem") as toy, serving() as proxy:
        toy.add("a", "1", sample.image())
        port = int(toy.host.rpartition(":")[2])
        proxy.fail("CONNECT", "^registry.test:443$", lambda handler: _tunnel(handler, port), times=9)
        through = Network(
            proxies={"https": proxy.url}, certificates=network.certificates, backoff=0.01, read_timeout=5.0
        )
        with Remote(through) as remote:
            assert remote.tags("registry.test/a") == ["1"]
        assert {one.method for one in proxy.log} == {"CONNECT"}
        # What came by https is not to be had by http.
        toy.fail("GET", "/manifests/", registry.status(302, Location="http://registry.test/x"), times=9)
        with Remote(through) as remote, pytest.raises(RemoteFailure, match="redirected from https to http"):
            remote.manifest("registry.test/a:1")
        # Nor does a password go there.
        toy.auth, toy.realm = "bearer", "http://registry.test/token"
        with Remote(through) as remote, pytest.raises(CasstoreError, match="a token server without https"):
            remote.tags("registry.test/a")


def _tunnel(handler: registry.Handler, port: int) -> bool:
    handler.send_response(200)
    handler.end_headers()
    handler.close_connection = True
    with socket.create_connection(("127.0.0.1", port)) as there:

        def pump(source: socket.socket, target: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while data := source.recv(1 << 16):
                    target.sendall(data)
                target.shutdown(socket.SHUT_WR)

        back = threading.Thread(target=pump, args=(there, handler.connection), daemon=True)
        back.start()
        pump(handler.connection, there)
        back.join(5)
    return True


def test_plain_http_only_where_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        host = f"r.example:{nobody.getsockname()[1]}"
    network = Network(proxies={"http": "http://127.0.0.1:1", "https": "http://127.0.0.1:1"}, backoff=0.01)
    with Remote(network) as remote, pytest.raises(RemoteFailure, match=f"^https://{host}/v2/: "):
        remote.tags(f"{host}/a")
    assert [is_loopback(host) for host in ("localhost", "a.localhost", "127.9.9.9", "::1", "[::1]")] == [True] * 5
    assert not any(is_loopback(host) for host in ("localhost.example", "128.0.0.1", "registry", "127.0.0.1.nip.io", ""))


# -- what a registry says of itself


def test_what_is_no_registry(toy: Toy, remote: Remote) -> None:
    toy.fail("GET", "/v2/$", registry.status(404, b"<html>"), times=9)
    with pytest.raises(RemoteFailure, match="no registry there: HTTP status 404"):
        remote.tags(f"{toy.host}/a")


def test_pages(toy: Toy, remote: Remote, cas: Cas) -> None:
    for number in range(7):
        toy.add("many", f"t{number}", sample.image(number))
    toy.page = 3
    assert remote.tags(f"{toy.host}/many") == [f"t{number}" for number in range(7)]
    assert toy.count("GET", "/tags/list") == 3
    assert list(Registry(Http(QUICK), toy.host).catalog()) == ["a/b", "many"]
    assert cas("ls-remote", f"{toy.host}/many").lines == [f"t{number}" for number in range(7)]
    assert "name unknown" in cas("ls-remote", f"{toy.host}/nosuch", ok=False).err


@pytest.mark.parametrize(
    ("body", "link", "problem"),
    [
        (b'{"tags": ["1"]}', "</v2/a/b/tags/list?n=1000>; rel=next", "in a circle"),
        (b'{"tags": ["1"]}', '<http://other.example/v2/a/b/tags/list>; rel="next"', "at another server"),
        (b'{"tags": ["1"]}', '<//other.example/x>; rel="next"', "at another server"),
        (b'{"tags": ["../1"]}', "", "which is no tag"),
        (b'{"tags": [1]}', "", "invalid JSON"),
        (b"[" * 100_000, "", "nested|values|invalid"),
        (b'{"tags": "' + b"x" * (5 << 20) + b'"}', "", "larger than"),
        (b"<html>", "", "invalid JSON"),
    ],
)
def test_lists_that_may_not_be_believed(toy: Toy, remote: Remote, body: bytes, link: str, problem: str) -> None:
    toy.fail("GET", "/tags/", registry.status(200, body, **({"Link": link} if link else {})), times=99)
    with pytest.raises(BadInput, match=problem):
        remote.tags(f"{toy.host}/a/b")


def test_a_list_without_end(toy: Toy, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("casstore.transport.registry.MAX_PAGES", 20)
    count = iter(range(10_000))

    def more(handler: registry.Handler) -> bool:
        number = next(count)
        handler.json({"tags": [f"t{number}"]}, {"Link": f'</v2/a/b/tags/list?last={number}>; rel="next"'})
        return True

    toy.fail("GET", "/tags/", more, times=10_000)
    with pytest.raises(LimitExceeded, match="more than 20 pages"):
        remote.tags(f"{toy.host}/a/b")


@pytest.mark.parametrize("api", [True, False], ids=["by the API", "by a tag"])
def test_referrers(toy: Toy, remote: Remote, api: bool) -> None:
    name, subject = f"{toy.host}/a/b:1", sample.digest(toy.manifests["a/b"]["1"][1])
    assert remote.referrers(name) == []
    entries = [
        {"mediaType": registry.MANIFEST, "digest": f"sha256:{number:064x}", "size": 9, "artifactType": kind}
        for number, kind in enumerate(["sig", "sbom", "sig"])
    ]
    toy.has_referrers = api
    if api:
        toy.referring[subject] = entries
    else:
        toy.put("a/b", fallback_tag(Digest.parse(subject)), {"mediaType": media.OCI_INDEX, "manifests": entries})
    assert [one.artifact_type for one in remote.referrers(name)] == ["sig", "sbom", "sig"]
    assert [str(one.digest)[-1] for one in remote.referrers(name, "sig")] == ["0", "2"]


def test_what_cosign_left(toy: Toy) -> None:
    subject = Digest.parse(sample.digest(toy.manifests["a/b"]["1"][1]))
    found = Registry(Http(QUICK), toy.host)
    assert found.cosign("a/b", subject) == []
    toy.add("a/b", f"{fallback_tag(subject)}.sig", sample.image("sig"))
    assert found.cosign("a/b", subject) == [f"sha256-{subject.hex}.sig"]


def test_a_mirror_is_told_for_whom_it_stands(toy: Toy) -> None:
    Registry(Http(QUICK), toy.host, namespace="docker.io").manifest("a/b", "1")
    assert [one.query.get("ns") for one in toy.log if "/manifests/" in one.path] == ["docker.io"]


# -- search


FOUND = [
    {"name": "few", "description": "x" * 60, "star_count": 3, "is_official": False, "is_automated": True},
    {"name": "many", "description": "evil\x1b[2J\nline", "star_count": 900, "is_official": True},
    {"name": "none", "description": None, "star_count": 0},
]


def test_search(toy: Toy, cas: Cas) -> None:
    toy.found = FOUND
    lines = cas("search", f"{toy.host}/word").lines
    assert lines[0].split() == ["NAME", "DESCRIPTION", "STARS", "OFFICIAL", "AUTOMATED"]
    assert [line.split()[0] for line in lines[1:]] == ["many", "few", "none"]
    assert f"{'x' * 44}…" in lines[2] and "[OK]" in lines[1]
    assert toy.log[-1].query == {"q": "word", "n": "25"}
    assert "x" * 60 in cas("search", "--no-trunc", f"{toy.host}/word").out
    assert cas("search", "-f", "stars=3", "--format", "{{.Name}}", f"{toy.host}/w").lines == ["many", "few"]
    assert cas("search", "-f", "is-official=true", "--format", "{{.Name}}", f"{toy.host}/w").lines == ["many"]
    row = json.loads(cas("search", "--format", "json", "--limit", "1", f"{toy.host}/w").out)
    assert row["Name"] == "few" and toy.log[-1].query["n"] == "1"


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["--limit", "0"], "Limit 0 is outside the range of [1, 100]"),
        (["--limit", "101"], "Limit 101 is outside the range of [1, 100]"),
        (["-f", "stars=x"], "Invalid filter 'stars=x'"),
        (["-f", "is-official=maybe"], "Invalid filter 'is-official=maybe'"),
        (["-f", "nothing=1"], "Invalid filter 'nothing'"),
        (["-f", "stars"], "bad format of filter (expected name=value)"),
    ],
)
def test_searches_that_are_refused(toy: Toy, cas: Cas, argv: list[str], problem: str) -> None:
    told = cas("search", *argv, f"{toy.host}/word", ok=False)
    assert problem in told.err and told.code == 125 and not toy.log


def test_a_search_that_fails(toy: Toy, cas: Cas) -> None:
    toy.fail("GET", "/v1/search", registry.status(200, b"<html>"))
    assert "invalid JSON" in cas("search", f"{toy.host}/word", ok=False).err
    toy.fail("GET", "/v1/search", registry.status(404))
    assert "not found" in cas("search", f"{toy.host}/word", ok=False).err


def test_manifests_as_they_are(toy: Toy, cas: Cas, remote: Remote) -> None:
    raw = toy.manifests["a/b"]["1"][1]
    assert cas("manifest", "get", f"{toy.host}/a/b:1").raw == raw
    assert cas("manifest", "get", f"{toy.host}/a/b@{sample.digest(raw)}").raw == raw
    assert cas("manifest", "digest", f"{toy.host}/a/b:1").lines == [sample.digest(raw)]
    toy.says_digest = False
    assert cas("manifest", "digest", f"{toy.host}/a/b:1").lines == [sample.digest(raw)]
    assert "not found" in cas("manifest", "digest", f"{toy.host}/a/b:2", ok=False).err
    toy.put("a/b", "both", {"manifests": [], "layers": []})
    assert "ambiguous" in cas("manifest", "get", f"{toy.host}/a/b:both", ok=False).err
    with pytest.raises(NotFound):
        remote.manifest(f"{toy.host}/a/b:2")
