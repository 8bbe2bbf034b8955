"""Who we are to a registry: challenges, tokens, credential files and helpers."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import registry
import sample
from registry import Toy, serving
from running import Cas

from casstore.errors import BadInput, CasstoreError, Denied, NotFound
from casstore.image.remote import Remote, domain_of
from casstore.transport.auth import Challenge, challenges
from casstore.transport.credentials import HUB_KEY, Credential, CredentialStore
from casstore.transport.http import Network

QUICK = Network(backoff=0.01, read_timeout=2.0, connect_timeout=5.0, retries=2)


@pytest.fixture
def toy() -> Iterator[Toy]:
    with serving() as made:
        made.add("a/b", "1", sample.image())
        yield made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "docker" / "config.json"


# -- challenges


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ('Basic realm="x"', [("basic", {"realm": "x"})]),
        ("BASIC", [("basic", {})]),
        (
            'Bearer realm="https://a/t?x=1,2",service="s",scope="repository:a:pull,push repository:b:pull"',
            [
                (
                    "bearer",
                    {
                        "realm": "https://a/t?x=1,2",
                        "service": "s",
                        "scope": "repository:a:pull,push repository:b:pull",
                    },
                )
            ],
        ),
        ('Bearer realm = "a" , Service=s', [("bearer", {"realm": "a", "service": "s"})]),
        (
            'Negotiate, Basic realm="x, y", Bearer realm="z"',
            [("negotiate", {}), ("basic", {"realm": "x, y"}), ("bearer", {"realm": "z"})],
        ),
        (r'Basic realm="say \"hi\" \\"', [("basic", {"realm": r'say "hi" \\'[:-1]})]),
        ('Bearer realm="a",realm="b"', [("bearer", {"realm": "a"})]),
        ('Bearer realm="never closed', [("bearer", {"realm": ""})]),
        ("", []),
        ('="', []),
        (", ,", []),
    ],
)
def test_challenges(header: str, found: list[tuple[str, dict[str, str]]]) -> None:
    assert challenges([header]) == [Challenge(*one) for one in found]


def test_a_long_header_is_no_burden() -> None:
    hostile = ["Bearer " + "a=b," * 100_000, "x " * 100_000, '"' * 100_000, "a=" * 100_000]
    assert all(len(one.parameters) <= 8192 for one in challenges(hostile))


# -- basic


def test_nobody_is_told_who_we_are_before_they_ask(toy: Toy, file: Path) -> None:
    CredentialStore([file]).put(toy.host, Credential(toy.user, toy.password))
    with Remote(QUICK, [file]) as remote:
        assert remote.tags(f"{toy.host}/a/b") == ["1"]
        assert all("authorization" not in one.headers for one in toy.log)
        toy.auth = "basic"
    with Remote(QUICK, [file]) as remote:
        assert remote.tags(f"{toy.host}/a/b") == ["1"]
    assert sum("authorization" in one.headers for one in toy.log) == 1


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_wrong_passwords_are_tried_once(toy: Toy, file: Path, auth: str) -> None:
    toy.auth = auth
    with Remote(QUICK, [file]) as remote:
        with pytest.raises(Denied, match="login failed"):
            remote.login(toy.host, toy.user, "wrong")
        assert not file.exists()
        assert sum("authorization" in one.headers for one in toy.log) == 1
        with pytest.raises(Denied):
            remote.tags(f"{toy.host}/a/b")


# -- tokens


def test_a_token_is_fetched_once_for_a_repository(toy: Toy, file: Path) -> None:
    toy.auth = "bearer"
    toy.oauth = False
    with Remote(QUICK, [file]) as remote:
        remote.login(toy.host, toy.user, toy.password)
        for _ in range(3):
            remote.tags(f"{toy.host}/a/b")
            remote.manifest(f"{toy.host}/a/b:1")
    asked = [one.query for one in toy.log if one.path == "/token"]
    assert [one.get("scope") for one in asked] == [None, None, "repository:a/b:pull"]
    assert asked[0]["offline_token"] == "true" and asked[0]["client_id"] == "casstore"
    assert {one["service"] for one in asked} == {"toy"} and asked[2]["account"] == toy.user


def test_without_a_password_too(toy: Toy) -> None:
    toy.auth, toy.anonymous = "bearer", True
    with Remote(QUICK) as remote:
        assert remote.tags(f"{toy.host}/a/b") == ["1"]
    assert all(not one.headers.get("authorization", "").startswith("Basic") for one in toy.log)
    toy.anonymous = False
    toy.tokens.clear()
    with Remote(QUICK) as remote, pytest.raises(Denied, match="no anonymous access"):
        remote.tags(f"{toy.host}/a/b")


def test_a_token_that_is_refused_is_renewed_and_not_for_ever(toy: Toy) -> None:
    toy.auth, toy.anonymous = "bearer", True
    with Remote(QUICK) as remote:
        remote.tags(f"{toy.host}/a/b")
        toy.tokens.clear()
        assert remote.tags(f"{toy.host}/a/b") == ["1"]
        toy.fail("GET", "/tags/", registry.status(401, WWW_Authenticate=toy.challenge("/", {})), times=1000)
        toy.log.clear()
        with pytest.raises(Denied, match="unauthorized"):
            remote.tags(f"{toy.host}/a/b")
        assert toy.count("GET", "/tags/") == 2


def test_a_refresh_token_stands_for_the_password(toy: Toy, file: Path) -> None:
    toy.auth = "bearer"
    with Remote(QUICK, [file]) as remote:
        remote.login(toy.host, toy.user, toy.password)
    kept = json.loads(file.read_text())["auths"][toy.host]
    assert kept["identitytoken"] == toy.refresh and toy.password not in file.read_text()
    toy.log.clear()
    with Remote(QUICK, [file]) as remote:
        assert remote.tags(f"{toy.host}/a/b") == ["1"]
    assert toy.count("POST", "/token") == 1 and toy.count("GET", "/token") == 0


def test_where_there_is_no_oauth_get_does(toy: Toy, file: Path) -> None:
    toy.auth, toy.oauth, toy.anonymous = "bearer", False, True
    CredentialStore([file]).put(toy.host, Credential("<token>", "old", True))
    with Remote(QUICK, [file]) as remote:
        assert remote.tags(f"{toy.host}/a/b") == ["1"]
    assert [one.method for one in toy.log if one.path == "/token"] == ["POST", "GET"]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"<html>", "invalid JSON"),
        (b"{}", "no usable token"),
        (b'{"token": "a\\r\\nX-Evil: 1"}', "no usable token"),
        (b'{"token": "a", "token": "b"}', "duplicate key"),
        (b'{"token": "' + b"x" * (2 << 20) + b'"}', "larger than"),
        (b'{"token": 5}', "invalid JSON"),
    ],
)
def test_answers_that_are_no_tokens(toy: Toy, answer: bytes, problem: str) -> None:
    toy.auth = "bearer"
    toy.fail("GET", "/token", registry.status(200, answer), times=9)
    with Remote(QUICK) as remote, pytest.raises(BadInput, match=problem):
        remote.tags(f"{toy.host}/a/b")


@pytest.mark.parametrize(
    "realm", ["file:///etc/passwd", "//x/token", "gopher://x/", "http://", "http://[", "https://h:99999999/"]
)
def test_token_servers_that_are_none(toy: Toy, realm: str) -> None:
    toy.auth, toy.realm = "bearer", realm
    with Remote(QUICK) as remote, pytest.raises(Denied, match="no http or https URL"):
        remote.tags(f"{toy.host}/a/b")


def test_a_token_servers_redirect_takes_no_password_along(toy: Toy, file: Path) -> None:
    toy.auth, toy.oauth = "bearer", False
    CredentialStore([file]).put(toy.host, Credential(toy.user, toy.password))
    with serving(anonymous=True) as other, Remote(QUICK, [file]) as remote:
        toy.fail("GET", "/token", registry.status(307, Location=f"{other.url}/token"), times=9)
        with pytest.raises(Denied):
            remote.tags(f"{toy.host}/a/b")
        assert other.log and all("authorization" not in one.headers for one in other.log)


# -- files


def test_whatever_else_is_in_the_file_stays(file: Path) -> None:
    file.parent.mkdir()
    before = {
        "HttpHeaders": {"X": "y"},
        "auths": {"https://other.example/v1/": {"auth": "b3RoZXI6MQ==", "email": "e"}},
        "psFormat": "table",
    }
    file.write_text(json.dumps(before))
    store = CredentialStore([file])
    store.put("r.example:5000", Credential("me", "p:w"))
    store.put("docker.io", Credential("hub", "1"))
    after = json.loads(file.read_text())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert after["HttpHeaders"] == before["HttpHeaders"] and list(after)[:1] == ["HttpHeaders"]
    assert after["auths"].keys() == {"https://other.example/v1/", "r.example:5000", HUB_KEY}
    assert store.find("r.example:5000") == Credential("me", "p:w")
    assert store.find("docker.io", "library/x") == Credential("hub", "1")
    assert store.find("other.example") == Credential("other", "1")
    assert store.find("r.example") is None
    assert store.erase("https://r.example:5000") and not store.erase("r.example:5000")
    assert store.erase("index.docker.io")
    assert json.loads(file.read_text()) == before


def test_a_link_stays_a_link(file: Path, tmp_path: Path) -> None:
    file.parent.mkdir()
    file.symlink_to(tmp_path / "real.json")
    CredentialStore([file]).put("r.example", Credential("me", "1"))
    assert file.is_symlink() and "r.example" in (tmp_path / "real.json").read_text()
    assert [one.name for one in sorted(tmp_path.iterdir())] == ["docker", "real.json"]


def test_podmans_namespaces(tmp_path: Path) -> None:
    def auth(text: str) -> dict[str, str]:
        return {"auth": base64.b64encode(text.encode()).decode()}

    docker, podman = tmp_path / "config.json", tmp_path / "auth.json"
    podman.write_text(
        json.dumps(
            {"auths": {"r.example/team": auth("team:1"), "r.example": auth("all:2"), "r.example/te": auth("x:3")}}
        )
    )
    store = CredentialStore([docker, podman])
    assert store.find("r.example", "team/app") == Credential("team", "1")
    assert store.find("r.example", "team") == Credential("team", "1")
    assert store.find("r.example", "other/app") == Credential("all", "2")
    assert store.find("example", "r.example") is None
    docker.write_text(json.dumps({"auths": {"r.example": auth("mine:4")}}))
    assert store.find("r.example", "team/app") == Credential("mine", "4")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "invalid JSON"),
        ("[]", "not a JSON object"),
        ('{"auths": {"r.example": {"auth": "???"}}}', "not base64"),
        ('{"auths": {"r.example": {"auth": "/////w=="}}}', "not base64"),
        ('{"auths": {"r.example": {"auth": "bWU\u029c"}}}', "not base64"),
        ('{"credsStore": "../../evil"}', "not the name of a credential helper"),
        ('{"credsStore": "nosuch-helper"}', "no such credential helper"),
    ],
)
def test_files_that_are_wrong_are_told_and_kept(file: Path, content: str, problem: str) -> None:
    file.parent.mkdir()
    file.write_text(content)
    with pytest.raises(CasstoreError, match=problem):
        CredentialStore([file]).find("r.example")
    assert file.read_text() == content


HELPER = """#!/bin/sh
case "$1" in
store) cat > "$KEPT" ;;
get) read server
     if [ "$server" = broken.example ]; then echo "cannot open the keyring"; exit 1; fi
     if [ -f "$KEPT" ] && grep -q "\\"$server\\"" "$KEPT"; then cat "$KEPT"
     else echo "credentials not found in native keychain"; exit 1; fi ;;
erase) rm "$KEPT" ;;
esac
"""


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "bin" / "docker-credential-toy"
    program.parent.mkdir()
    program.write_text(HELPER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("KEPT", str(tmp_path / "kept"))
    return tmp_path / "kept"


@pytest.mark.parametrize("setting", ['{"credsStore": "toy"}', '{"credHelpers": {"r.example": "toy"}}'])
def test_helpers_keep_what_they_are_for(file: Path, helper: Path, setting: str) -> None:
    file.parent.mkdir()
    file.write_text(setting)
    store = CredentialStore([file])
    assert store.find("r.example") is None
    assert store.put("r.example", Credential("me", "1")) == "helper toy"
    assert file.read_text() == setting and "me" in helper.read_text()
    assert store.find("r.example") == Credential("me", "1")
    store.put("r.example", Credential("<token>", "t", True))
    assert store.find("r.example") == Credential("<token>", "t", True)
    assert store.erase("r.example") and not helper.exists() and not store.erase("r.example")


def test_a_helper_that_fails_is_told(file: Path, helper: Path) -> None:
    file.parent.mkdir()
    file.write_text('{"credsStore": "toy"}')
    with pytest.raises(
        CasstoreError, match="docker-credential-toy: the credential helper fails: cannot open the keyring"
    ):
        CredentialStore([file]).find("broken.example")


# -- the commands


@pytest.mark.parametrize(
    ("given", "domain"),
    [
        ("", "docker.io"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("R.example:5000", "r.example:5000"),
        ("http://r.example/v2/", "r.example"),
        ("localhost", "localhost"),
        ("registry", "registry"),
        ("[::1]:5000", "[::1]:5000"),
    ],
)
def test_how_people_name_a_registry(given: str, domain: str) -> None:
    assert domain_of(given) == domain


@pytest.mark.parametrize("given", ["a b", "-x.y", "r.example:port", "r.example\x1b[2J", "a..b"])
def test_what_names_no_registry(given: str) -> None:
    with pytest.raises(CasstoreError, match="not the name of a registry"):
        domain_of(given)


def test_login_and_logout(toy: Toy, cas: Cas, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(file.parent))
    toy.auth = "basic"
    assert cas("pull", f"{toy.host}/a/b:1", ok=False).code == 1
    told = cas("login", toy.host, "-u", toy.user, "-p", toy.password)
    assert told.lines == ["Login Succeeded"] and "insecure" in told.err and str(file) in told.err
    cas("pull", f"{toy.host}/a/b:1")
    assert cas("logout", toy.host).lines == [f"Removing login credentials for {toy.host}"]
    assert cas("logout", toy.host).lines == [f"Not logged in to {toy.host}"]
    assert json.loads(file.read_text()) == {"auths": {}}
    assert "login failed: unauthorized" in cas("login", toy.host, "-u", "x", "-p", "y", ok=False).err
    assert "Must provide --username" in cas("login", toy.host, "--password-stdin", ok=False).err
    assert "mutually exclusive" in cas("login", toy.host, "-p", "y", "--password-stdin", ok=False).err
    file.write_text("{not json")
    assert "invalid JSON" in cas("login", toy.host, "-u", toy.user, "-p", toy.password, ok=False).err
    assert file.read_text() == "{not json"


def test_nobody_to_log_in_to(cas: Cas) -> None:
    assert "not the name of a registry" in cas("login", "a b", "-u", "x", "-p", "y", ok=False).err
    with pytest.raises(NotFound), Remote(QUICK) as remote, serving() as toy:
        remote.login(toy.host, "x", "y")
