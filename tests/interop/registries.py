"""Registries that are real programs, each on a port of this machine and with a folder of its own."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import socket
import ssl
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import sample
from peers import daemon, need, stop

# bcrypt of `secret`
HTPASSWD = "me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"
USER, PASSWORD = "me", "secret"
ACCEPT = ", ".join((sample.OCI_INDEX, sample.OCI_MANIFEST, "application/vnd.docker.distribution.manifest.v2+json"))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


@contextlib.contextmanager
def served(command: list[str], port: int, log: Path) -> Iterator[str]:
    """A server's process, once it listens; the registry's host."""

    def ready() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            return False
        return True

    process = daemon(command, log, ready)
    try:
        yield f"localhost:{port}"
    finally:
        stop(process)


@contextlib.contextmanager
def docker_registry(folder: Path, *, program: str = "", **settings: Any) -> Iterator[str]:
    """Debian's docker-registry, or another build of it. `settings`: more of its configuration, by section."""
    program = program or need("docker-registry")
    folder.mkdir()
    port = free_port()
    config: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": f"{folder}/data"}, "delete": {"enabled": True}},
    } | settings
    config["http"] = {"addr": f"127.0.0.1:{port}"} | settings.get("http", {})
    file = folder / "config.yml"
    file.write_text(json.dumps(config))  # which is YAML too
    with served([program, "serve", str(file)], port, folder / "log") as host:
        yield host


def locked(folder: Path) -> dict[str, Any]:
    """The setting for basic authentication."""
    passwords = folder / "htpasswd"
    passwords.write_text(HTPASSWD)
    return {"auth": {"htpasswd": {"realm": "toy", "path": str(passwords)}}}


def raw(url: str, context: ssl.SSLContext | None = None) -> bytes:
    """What is there, as a client of Python's own sees it."""
    asked = urllib.request.Request(url, headers={"Accept": ACCEPT})
    with urllib.request.urlopen(asked, timeout=30, context=context) as answer:
        data: bytes = answer.read()
    return data


# -- certificates


class Authority:
    """A certificate authority in a folder, which has ca.crt; by openssl."""

    def __init__(self, folder: Path) -> None:
        self._openssl = need("openssl")
        self.folder = folder
        folder.mkdir()
        self._make("ca", "-x509", "-subj", "/CN=authority of a test", out="ca.crt")

    def _make(self, key: str, *options: str, out: str) -> None:
        command = [self._openssl, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-days", "2", "-keyout", f"{key}.key", "-out", out, *options]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True)

    def sign(self, name: str) -> tuple[Path, Path]:
        """A certificate for this machine, and its key."""
        names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
        plain = ["-addext", "basicConstraints=CA:FALSE", "-addext", names, "-subj", f"/CN={name}"]
        self._make(name, "-x509", "-CA", "ca.crt", "-CAkey", "ca.key", *plain, out=f"{name}.cert")
        return self.folder / f"{name}.cert", self.folder / f"{name}.key"


# -- a token server


class TokenServer:
    """Gives the tokens that docker-registry believes: signed by a certificate of its own. It knows USER; others may
    pull. Refresh tokens are given where asked for."""

    ISSUER, SERVICE, REFRESH = "a test", "a registry", "refresh-token"

    def __init__(self, folder: Path) -> None:
        self._openssl = need("openssl")
        folder.mkdir()
        self._folder = folder
        command = [self._openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tokens"]
        subprocess.run([*command, "-keyout", "key", "-out", "crt"], cwd=folder, check=True, capture_output=True)
        self.asked: list[dict[str, str]] = []
        self.url = ""

    def settings(self) -> dict[str, Any]:
        """What docker-registry has to be told."""
        token = {"realm": f"{self.url}/token", "service": self.SERVICE, "issuer": self.ISSUER}
        return {"auth": {"token": token | {"rootcertbundle": str(self._folder / "crt")}}}

    @contextlib.contextmanager
    def serving(self) -> Iterator[TokenServer]:
        tokens = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = {key: " ".join(value) for key, value in parse_qs(urlsplit(self.path).query).items()}
                given = self.headers.get("Authorization", "")
                right = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
                if given and given != right:
                    self.send_error(401)
                else:
                    self._give(query | {"method": "GET"}, known=bool(given))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                form = {key: " ".join(value) for key, value in parse_qs(body).items()}
                if form.get("refresh_token") != tokens.REFRESH:
                    self.send_error(401)
                else:
                    self._give(form | {"method": "POST"}, known=True)

            def _give(self, asked: dict[str, str], *, known: bool) -> None:
                tokens.asked.append(asked)
                answer = {"access_token" if asked["method"] == "POST" else "token": tokens.token(asked, known)}
                if asked.get("offline_token"):
                    answer["refresh_token"] = tokens.REFRESH
                data = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # who asked may have given up
                    self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            self.url = f"http://localhost:{server.server_port}"
            thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()

    def token(self, asked: dict[str, str], known: bool) -> str:
        """A JSON web token (RS256) for what is asked, as far as it may be had."""
        access = []
        for scope in asked.get("scope", "").split():
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            granted = [one for one in actions.split(",") if known or one == "pull"]
            access.append({"type": kind, "name": name, "actions": granted})
        certificate = ssl.PEM_cert_to_DER_cert((self._folder / "crt").read_text())
        head = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(certificate).decode()]}
        now = int(time.time())
        body: dict[str, Any] = {"iss": self.ISSUER, "aud": asked.get("service", ""), "sub": USER, "access": access}
        body |= {"nbf": now - 5, "iat": now, "exp": now + 300, "jti": hashlib.sha256(repr(asked).encode()).hexdigest()}
        text = ".".join(_url64(json.dumps(part).encode()) for part in (head, body))
        command = [self._openssl, "dgst", "-sha256", "-sign", str(self._folder / "key")]
        signature = subprocess.run(command, input=text.encode(), capture_output=True, check=True).stdout
        return f"{text}.{_url64(signature)}"


def _url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
