"""docker-registry behind certificates, passwords and tokens: who may, and who may not."""

from __future__ import annotations

import json
import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import registries
import sample
from peers import Peer
from registries import PASSWORD, USER, Authority, TokenServer, raw
from running import Cas

from casstore import api
from casstore.errors import Denied, RemoteFailure
from casstore.image.remote import Remote
from casstore.transport.http import Network


@pytest.fixture(scope="module")
def authority(scratch: Path) -> Authority:
    return Authority(scratch / "authority")


def certificates(root: Path, host: str, *files: Path) -> tuple[Path, ...]:
    """A folder laid out as certs.d, with these for a host."""
    folder = root / "certs.d" / host
    folder.mkdir(parents=True)
    for file in files:
        shutil.copy(file, folder)
    return (folder.parent,)


def loaded(store: api.Store, tmp_path: Path, name: str) -> sample.Image:
    one = sample.rich_image(name, (name,))
    (tmp_path / "given.tar").write_bytes(sample.docker_archive(one, pack=sample.gz))
    store.load(tmp_path / "given.tar")
    return one


# -- certificates


@pytest.fixture(scope="module")
def tls(scratch: Path, authority: Authority) -> Iterator[str]:
    certificate, key = authority.sign("server")
    http = {"tls": {"certificate": str(certificate), "key": str(key)}}
    with registries.docker_registry(scratch / "tls", http=http, **registries.locked(scratch)) as host:
        yield host


@pytest.fixture(scope="module")
def mutual(scratch: Path, authority: Authority) -> Iterator[str]:
    certificate, key = authority.sign("mutual")
    http = {
        "tls": {"certificate": str(certificate), "key": str(key), "clientcas": [str(authority.folder / "ca.crt")]}
    }
    with registries.docker_registry(scratch / "mutual", http=http) as host:
        yield host


def test_an_authority_of_ones_own(
    tls: str, authority: Authority, skopeo: Peer, opened: api.Store, tmp_path: Path
) -> None:
    name = f"{tls}/own/a:1"
    loaded(opened, tmp_path, name)
    network = Network(certificates=certificates(tmp_path, tls, authority.folder / "ca.crt"))
    with Remote(network, [tmp_path / "config.json"]) as remote:
        with pytest.raises(Denied, match="push access denied"):
            opened.push(name, remote=remote)
        remote.login(tls, USER, PASSWORD)
    with Remote(network, [tmp_path / "config.json"]) as remote:
        digest = str(opened.push(name, remote=remote).digest)
        assert str(remote.digest(name)) == digest
    options = ["--cert-dir", str(tmp_path / "certs.d" / tls), "--creds", f"{USER}:{PASSWORD}"]
    assert sample.digest(skopeo("inspect", "--raw", *options, f"docker://{name}").encode()) == digest


@pytest.mark.parametrize("known", ["nobody", "another"])
def test_an_authority_that_is_not_ours(
    tls: str, opened: api.Store, scratch: Path, tmp_path: Path, known: str
) -> None:
    network = Network(backoff=0.01)
    if known == "another":
        other = Authority(tmp_path / "another")
        network = Network(certificates=certificates(tmp_path, tls, other.folder / "ca.crt"), backoff=0.01)
    (tmp_path / "config.json").write_text(json.dumps({"auths": {tls: {"username": USER, "password": PASSWORD}}}))
    with Remote(network, [tmp_path / "config.json"]) as remote:
        with pytest.raises(RemoteFailure, match=r"cannot reach it: .*certificate verify failed"):
            opened.pull(f"{tls}/own/a:1", remote=remote)
        with pytest.raises(RemoteFailure, match="cannot reach it"):
            remote.login(tls, USER, PASSWORD)


def test_who_must_show_a_certificate(mutual: str, authority: Authority, opened: api.Store, tmp_path: Path) -> None:
    name = f"{mutual}/own/a:1"
    one = loaded(opened, tmp_path, name)
    known = authority.folder / "ca.crt"
    without = Network(certificates=certificates(tmp_path / "without", mutual, known), backoff=0.01)
    with Remote(without) as remote, pytest.raises(RemoteFailure, match=r"cannot reach it: .*certificate"):
        opened.push(name, remote=remote)
    strangers = Authority(tmp_path / "strangers")
    strange = certificates(tmp_path / "strange", mutual, known, *strangers.sign("me"))
    with Remote(Network(certificates=strange, backoff=0.01)) as remote, pytest.raises(RemoteFailure):
        opened.push(name, remote=remote)
    right = certificates(tmp_path / "right", mutual, known, *authority.sign("me"))
    with Remote(Network(certificates=right)) as remote:
        digest = str(opened.push(name, remote=remote).digest)
        assert remote.tags(f"{mutual}/own/a") == ["1"]
    context = ssl.create_default_context(cafile=str(known))
    context.load_cert_chain(*authority.sign("me"))
    manifest = raw(f"https://{mutual}/v2/own/a/manifests/1", context)
    assert sample.digest(manifest) == digest
    assert json.loads(manifest)["config"]["digest"] == one.id
    with api.open(tmp_path / "other") as other, Remote(Network(certificates=right)) as remote:
        assert str(other.pull(name, remote=remote).image) == one.id


def test_the_commands_find_what_they_need(
    tls: str, authority: Authority, cas: Cas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Certificates and passwords where docker and podman keep them; the file says nothing in clear to others."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    certificates(tmp_path / ".docker", tls, authority.folder / "ca.crt")
    name = f"{tls}/commands/a:1"
    (tmp_path / "a.tar").write_bytes(sample.docker_archive(sample.image("commands", (name,)), pack=sample.gz))
    cas("load", "-i", tmp_path / "a.tar")
    assert "login failed: unauthorized" in cas("login", "-u", USER, "-p", "wrong", tls, ok=False).err
    assert not (tmp_path / "docker").exists()
    assert cas("login", "-u", USER, "-p", PASSWORD, tls).lines == ["Login Succeeded"]
    assert (tmp_path / "docker" / "config.json").stat().st_mode & 0o777 == 0o600
    digest = cas("push", name).lines[-1].split()[2]
    assert cas("manifest", "digest", name).lines == [digest]
    assert cas("ls-remote", f"{tls}/commands/a").lines == ["1"]
    cas("logout", tls)
    assert "denied" in cas("pull", name, ok=False).err


# -- tokens


def test_tokens(scratch: Path, skopeo: Peer, opened: api.Store, tmp_path: Path) -> None:
    with (
        TokenServer(scratch / "tokens").serving() as tokens,
        registries.docker_registry(scratch / "tokened", **tokens.settings()) as host,
    ):
        name, other = f"{host}/own/a:1", f"{host}/own/b:1"
        loaded(opened, tmp_path, name)
        config = tmp_path / "config.json"
        with Remote(credentials=[config]) as remote:
            with pytest.raises(Denied, match="push access denied"):
                opened.push(name, remote=remote)
            with pytest.raises(Denied, match="login failed"):
                remote.login(host, USER, "wrong")
            remote.login(host, USER, PASSWORD)
        kept = json.loads(config.read_text())["auths"][host]
        assert kept["identitytoken"] == TokenServer.REFRESH and PASSWORD not in config.read_text()

        tokens.asked.clear()
        with Remote(credentials=[config]) as remote:
            digest = str(opened.push(name, remote=remote).digest)
            assert {one["method"] for one in tokens.asked} == {"POST"}
            assert {one["scope"] for one in tokens.asked} == {"repository:own/a:pull,push"}
            opened.tag(name, other)
            assert opened.push(other, remote=remote).sent == 0  # mounted: with a token for both
            assert "repository:own/b:pull,push repository:own/a:pull" in {one["scope"] for one in tokens.asked}
            assert str(remote.digest(other)) == digest
        # Nobody in particular may pull, and is the same to skopeo.
        tokens.asked.clear()
        with Remote() as remote, api.open(tmp_path / "another") as another:
            assert str(another.pull(name, remote=remote).digest) == digest
        assert [one["scope"] for one in tokens.asked] == ["repository:own/a:pull"]
        shown = skopeo("inspect", "--raw", "--tls-verify=false", "--no-creds", f"docker://{other}")
        assert sample.digest(shown.encode()) == digest
