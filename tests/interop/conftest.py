"""The programs that images are exchanged with, each on private folders; a test that needs one that is not here, or
root where it needs root, is skipped with that reason."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from peers import Peer, daemon, need, need_root, stop

MIB = 1 << 20


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the peers keep things. Its path is short: a unix socket's may have 108 bytes."""
    return tmp_path_factory.mktemp("peers")


@pytest.fixture(scope="session")
def docker(scratch: Path) -> Iterator[Peer]:
    """A docker client on a daemon of its own, without network."""
    need_root("dockerd")
    client, server = need("docker"), need("dockerd")
    home = scratch / "docker"
    (home / "config").mkdir(parents=True)
    address = f"unix://{home}/s"
    peer = Peer((client, "-H", address), {"DOCKER_CONFIG": str(home / "config")})
    options = ["--data-root", f"{home}/data", "--exec-root", f"{home}/exec", "--pidfile", f"{home}/pid"]
    options += ["-H", address, "--iptables=false", "--bridge=none"]

    def ready() -> bool:
        return peer("version", "--format", "{{.Server.Version}}", ok=False).strip()[:1].isdigit()

    process = daemon([server, *options], home / "log", ready)
    try:
        yield peer
    finally:
        stop(process)


@pytest.fixture(scope="session")
def podman(scratch: Path) -> Peer:
    need_root("podman with a folder of its own")
    home = scratch / "podman"
    home.mkdir()
    options = ["--root", f"{home}/root", "--runroot", f"{home}/run", "--storage-driver", "vfs"]
    options += ["--events-backend", "none"]
    return Peer((need("podman"), *options), {"TMPDIR": str(home)})


@pytest.fixture(scope="session")
def skopeo(scratch: Path) -> Peer:
    home = scratch / "skopeo"
    home.mkdir()
    policy = home / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    return Peer((need("skopeo"), "--policy", str(policy), "--tmpdir", str(home)))


@pytest.fixture(scope="session")
def umoci() -> Peer:
    return Peer((need("umoci"),))


@pytest.fixture(scope="session")
def ctr(scratch: Path) -> Iterator[Peer]:
    """ctr on a containerd of its own, without the CRI plugin."""
    need_root("containerd")
    client, server = need("ctr"), need("containerd")
    home = scratch / "containerd"
    home.mkdir()
    config = home / "config.toml"
    config.write_text(
        'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f'root = "{home}/root"\nstate = "{home}/state"\n'
        f'[grpc]\n  address = "{home}/s"\n[ttrpc]\n  address = "{home}/t"\n'
        f'[debug]\n  address = "{home}/d"\n'
        f'[plugins."io.containerd.internal.v1.opt"]\n  path = "{home}/opt"\n'
    )
    peer = Peer((client, "--address", f"{home}/s"))
    process = daemon(
        [server, "--config", str(config)], home / "log", lambda: "Server" in peer("version", ok=False)
    )
    try:
        yield peer
    finally:
        stop(process)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of test data beside the repository."""
    named = os.environ.get("CASSTORE_SHARED")
    found = Path(named) if named else Path(__file__).resolve().parents[3] / "shared"
    if not (found / "data").is_dir():
        pytest.skip("no shared data folder (CASSTORE_SHARED, or ../shared beside the repository)")
    return found
