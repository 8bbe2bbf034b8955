"""Fuzzing credential files (docker's config.json, podman's auth.json) and what credential helpers say.

The first byte of an input: is the rest a file, or a helper's answer (and what it ended with)?

Checked: the errors that are documented, in one line, without what is secret; what is kept is found again, what is
erased is not; nothing else of a file changes, and one that cannot be read is left as it is.
"""

from __future__ import annotations

import atexit
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from casstore.errors import BadInput, CasstoreError, NotFound
from casstore.transport import credentials
from casstore.transport.auth import basic
from casstore.transport.credentials import Credential, CredentialStore

HELPER, FAILED = 1, 2
HOSTS = ("registry.test", "docker.io", "localhost:5000", "[::1]:5000")
OURS = Credential("me", "s3cret: with a colon")

_folder: list[Path] = []
_answer: list[tuple[int, bytes]] = [(1, b"credentials not found")]


class _Programs:
    """`subprocess`, as far as credentials.py needs it: helpers say what the input says."""

    TimeoutExpired = subprocess.TimeoutExpired

    @staticmethod
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        assert command[0].startswith("docker-credential-") and command[1] in ("get", "store", "erase"), command
        assert "/" not in command[0]
        code, said = _answer[0]
        return subprocess.CompletedProcess(command, code, said, b"")


def file(content: bytes) -> Path:
    if not _folder:
        shm = "/dev/shm" if Path("/dev/shm").is_dir() else None
        _folder.append(Path(tempfile.mkdtemp(prefix="fuzz-credentials-", dir=shm)))
        atexit.register(shutil.rmtree, _folder[0], ignore_errors=True)
    path = _folder[0] / "config.json"
    path.write_bytes(content)
    return path


def refused(error: CasstoreError) -> None:
    text = str(error)
    assert isinstance(error, BadInput | NotFound) or type(error) is CasstoreError, repr(error)
    assert "\n" not in text and len(text) < 5000 and OURS.secret not in text, text


def one(data: bytes) -> None:
    if data:
        with mock.patch.object(credentials, "subprocess", _Programs):
            _one(data)


def _one(data: bytes) -> None:
    flags, rest = data[0], data[1:]
    if flags & HELPER:
        _answer[0] = int(bool(flags & FAILED)), rest
        read(file(b'{"credHelpers": {"registry.test": "one"}, "credsStore": "two", "auths": {}}'))
    else:
        _answer[0] = 1, b"credentials not found in native keychain"
        read(file(rest))


def read(path: Path) -> None:
    before = path.read_bytes()
    store = CredentialStore([path])
    for host in HOSTS:
        for repository in ("", "a/b"):
            try:
                found = store.find(host, repository)
            except CasstoreError as error:
                refused(error)
                continue
            if found is not None:
                assert found.secret and isinstance(found.is_token, bool)
                assert basic(found.username, found.secret).isprintable()
    assert path.read_bytes() == before
    for host in HOSTS:
        write(path, store, host)


def write(path: Path, store: CredentialStore, host: str) -> None:
    before = path.read_bytes()
    try:
        where = store.put(host, OURS)
    except CasstoreError as error:
        refused(error)
        assert path.read_bytes() == before
        return
    if where.startswith("helper "):
        assert path.read_bytes() == before
        return
    assert path.stat().st_mode & 0o777 == 0o600
    old, new = json.loads(before or b"{}") if before.strip() else {}, json.loads(path.read_bytes())
    kept = credentials.key_of(host)
    others = old.get("auths") or {}
    assert {key: value for key, value in new.items() if key != "auths"} == {
        key: value for key, value in old.items() if key != "auths"
    }
    for key, value in new["auths"].items():
        assert key == kept or others[key] == value
    assert store.find(host) == OURS
    assert store.erase(host)
    assert kept not in json.loads(path.read_bytes())["auths"]
    assert not store.erase(host)


TOKENS = [
    *('{"auths":{', '"auth":"', '"identitytoken":', '"username":', '"password":', '"credHelpers":{', '"credsStore":'),
    *("registry.test", "https://index.docker.io/v1/", "https://", "/v2/", "localhost:5000", "/a/b", "docker.io"),
    *("bWU6cA==", '"ServerURL":', '"Username":', '"Secret":', "<token>", "credentials not found", "\\u0000", "null"),
]


def seeds() -> dict[str, bytes]:
    auth = "bWU6c2VjcmV0"
    docker: dict[str, Any] = {
        "auths": {
            "https://index.docker.io/v1/": {"auth": auth},
            "registry.test": {"auth": "", "identitytoken": "refresh"},
            "http://localhost:5000/v2/": {"username": "me", "password": "p", "email": "m@e"},
        },
        "HttpHeaders": {"User-Agent": "x"},
        "psFormat": "table",
    }
    podman = {"auths": {"registry.test/a/b": {"auth": auth}, "registry.test/a": {"auth": auth + "AA"}}}
    helpers = {"credHelpers": {"registry.test": "ecr-login"}, "credsStore": "pass", "auths": {"registry.test": {}}}
    given = {"ServerURL": "registry.test", "Username": "me", "Secret": "s"}
    made = {
        "docker": json.dumps(docker, indent="\t"),
        "podman": json.dumps(podman),
        "helpers": json.dumps(helpers),
        "empty": "",
        "odd": '{"auths": {"registry.test": null, "docker.io": [], "localhost:5000": {"auth": 7}}, "credsStore": {}}',
    }
    return {name: b"\0" + text.encode() for name, text in made.items()} | {
        "helper": bytes([HELPER]) + json.dumps(given).encode(),
        "helper-token": bytes([HELPER]) + json.dumps(given | {"Username": "<token>"}).encode(),
        "helper-fails": bytes([HELPER | FAILED]) + b"cannot open the keychain",
    }
