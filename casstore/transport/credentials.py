"""Who we are, as docker and podman keep it: config.json, credential helpers, auth.json. Whatever else is in these files
stays as it is.

Source: docker/cli config file and credential-helpers protocol; containers-auth.json(5).
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BadInput, CasstoreError, NotFound
from ..oci.document import strict_json

HUB = "docker.io"
HUB_KEY = "https://index.docker.io/v1/"
"""What docker calls its own registry in these files."""
MAX_FILE = 4 << 20
MAX_HELPER = 1 << 20
"""Bytes of a credential file, and of a helper's answer."""
HELPER_TIMEOUT = 120.0
"""Seconds: a helper may ask somebody."""
TOKEN_USER = "<token>"

_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Credential:
    """A name and its password; `is_token`: the secret is a refresh token, and the name says nothing."""

    username: str
    secret: str
    is_token: bool = False

    def __repr__(self) -> str:
        return f"Credential({self.username!r})"


def key_of(host: str) -> str:
    """The key that docker writes for a registry."""
    return HUB_KEY if _plain(host) == HUB else host


def _plain(key: str) -> str:
    """A key without scheme, version and slashes, docker's registry under its one name: so two keys are compared."""
    host = key.partition("://")[2] if "://" in key else key
    host = re.sub(r"/v[12]/?$", "", host).rstrip("/").lower()
    return HUB if host in ("index.docker.io", "registry-1.docker.io") else host


class CredentialStore:
    """The files in the order in which they are asked; the first is docker's config.json, which login writes."""

    def __init__(self, files: Sequence[Path] = ()) -> None:
        self._files = tuple(files)

    def find(self, host: str, path: str = "") -> Credential | None:
        """What we are to a registry (host, with its port), or to a repository `path` there. BadInput: a file that
        cannot be read as what it should be."""
        for file in self._files:
            value = _load(file)
            if value is None:
                continue
            helper = _helper(value, host)
            found = _ask_helper(helper, host) if helper else None
            found = found or _from_auths(value.get("auths"), host, path, str(file))
            if found is not None:
                return found
        return None

    def put(self, host: str, credential: Credential) -> str:
        """Keep it, where a helper is named there, else in the file (mode 0600). Returns where it went: the file, or
        `helper NAME`."""
        file, value = self._own()
        helper = _helper(value, host)
        if helper:
            name = TOKEN_USER if credential.is_token else credential.username
            entry = {"ServerURL": key_of(host), "Username": name, "Secret": credential.secret}
            _run(helper, "store", json.dumps(entry))
            return f"helper {helper}"
        auths = _auths(value, str(file))
        name, secret = credential.username, "" if credential.is_token else credential.secret
        new = {"auth": base64.b64encode(f"{name}:{secret}".encode()).decode()}
        if credential.is_token:
            new["identitytoken"] = credential.secret
        for key in [key for key in auths if _plain(key) == _plain(host)]:
            del auths[key]
        auths[key_of(host)] = new
        _save(file, value)
        return str(file)

    def erase(self, host: str) -> bool:
        """Forget it; was there anything?"""
        if not self._files:
            return False
        file, value = self._own()
        helper = _helper(value, host)
        found = False
        if helper and _ask_helper(helper, host) is not None:
            _run(helper, "erase", key_of(host))
            found = True
        auths = _auths(value, str(file)) if value.get("auths") else {}
        gone = [key for key in auths if _plain(key) == _plain(host)]
        for key in gone:
            del auths[key]
        if gone:
            _save(file, value)
        return found or bool(gone)

    def _own(self) -> tuple[Path, dict[str, Any]]:
        if not self._files:
            raise NotFound("no file to keep credentials in")
        return self._files[0], _load(self._files[0]) or {}


def _load(file: Path) -> dict[str, Any] | None:
    try:
        raw = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise BadInput(f"cannot read it: {error.strerror}", what=str(file)) from None
    value = strict_json(raw, MAX_FILE, str(file)) if raw.strip() else {}
    if not isinstance(value, dict):
        raise BadInput("not a JSON object", what=str(file))
    return value


def _save(file: Path, value: dict[str, Any]) -> None:
    """Written beside it and renamed; a symlink stays one."""
    target = Path(os.path.realpath(file))
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd, temporary = tempfile.mkstemp(dir=target.parent, prefix=target.name)  # mode 0600
        try:
            with os.fdopen(fd, "w", encoding="utf-8") as out:
                json.dump(value, out, indent="\t", ensure_ascii=False)
                out.flush()
                os.fsync(out.fileno())
            Path(temporary).replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise
    except OSError as error:
        raise CasstoreError(f"cannot write it: {error.strerror}", what=str(file)) from None


def _auths(value: dict[str, Any], what: str) -> dict[str, Any]:
    found = value.setdefault("auths", {})
    if not isinstance(found, dict):
        raise BadInput('"auths" is not an object', what=what)
    return found


def _from_auths(auths: object, host: str, path: str, what: str) -> Credential | None:
    """The entry of a registry; podman's may be of a namespace in it, and the longest that fits counts."""
    if not isinstance(auths, dict):
        return None
    whole = f"{_plain(host)}/{path}" if path else _plain(host)
    fitting = [key for key in auths if whole == _plain(key) or whole.startswith(_plain(key) + "/")]
    for key in sorted(fitting, key=lambda one: -len(_plain(one))):
        entry = auths[key]
        if not isinstance(entry, dict):
            continue
        token = entry.get("identitytoken")
        if isinstance(token, str) and token:
            return Credential(TOKEN_USER, token, True)
        name, secret = entry.get("username"), entry.get("password")
        if isinstance(entry.get("auth"), str) and entry["auth"]:
            try:
                name, _, secret = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
            except ValueError:  # of base64 as of UTF-8
                raise BadInput(f"the entry of {key[:200]} is not base64 of a name and a password", what=what) from None
            secret = secret.rstrip("\0")
        if isinstance(name, str) and isinstance(secret, str) and name and secret:
            return Credential(name, secret)
    return None


def _helper(value: dict[str, Any], host: str) -> str:
    """The name of the program that keeps this registry's credentials; "" for none."""
    given = value.get("credHelpers")
    for key, name in given.items() if isinstance(given, dict) else ():
        if _plain(key) == _plain(host) and isinstance(name, str):
            return name
    name = value.get("credsStore")
    return name if isinstance(name, str) else ""


def _ask_helper(helper: str, host: str) -> Credential | None:
    raw = _run(helper, "get", key_of(host))
    if raw is None:
        return None
    what = f"docker-credential-{helper}"
    value = strict_json(raw, MAX_HELPER, what)
    name, secret = (value.get("Username"), value.get("Secret")) if isinstance(value, dict) else (None, None)
    if not isinstance(name, str) or not isinstance(secret, str):
        raise BadInput("the credential helper's answer has no Username and Secret", what=what)
    return Credential(name, secret, name == TOKEN_USER) if secret else None


def _run(helper: str, verb: str, given: str) -> bytes | None:
    """A helper's stdout; None where `get` or `erase` finds nothing."""
    what = f"docker-credential-{helper}"
    if not _HELPER.fullmatch(helper):
        raise BadInput("not the name of a credential helper", what=what[:200])
    try:
        done = subprocess.run([what, verb], input=given.encode(), capture_output=True, timeout=HELPER_TIMEOUT)
    except FileNotFoundError:
        raise NotFound("there is no such credential helper on the path", what=what) from None
    except OSError as error:
        raise CasstoreError(f"cannot run the credential helper: {error.strerror}", what=what) from None
    except subprocess.TimeoutExpired:
        raise CasstoreError("the credential helper does not answer", what=what) from None
    if done.returncode == 0:
        return done.stdout[: MAX_HELPER + 1]
    said = " ".join((done.stdout + b" " + done.stderr).decode(errors="replace").split())[:300]
    if verb != "store" and "not found" in said:
        return None
    raise CasstoreError(f"the credential helper fails: {said}", what=what)
