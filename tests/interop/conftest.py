"""The programs that images are exchanged with, each on private folders; a test that needs one that is not here, or
root where it needs root, is skipped with that reason."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

MIB = 1 << 20


def need(program: str) -> str:
    """The path of a program, daemons' folders included."""
    found = shutil.which(program, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def need_root(what: str) -> None:
    if os.geteuid() != 0:
        pytest.skip(f"{what} needs root")


@dataclass(frozen=True)
class Peer:
    """A program with the options that keep it off the machine's own data: peer("load", "-i", path) → stdout."""

    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)

    def __call__(self, *argv: str | Path, ok: bool = True) -> str:
        out, err, code = self.whole(*argv)
        assert not ok or code == 0, (argv, code, out, err)
        return out

    def whole(self, *argv: str | Path, stdin: str = "") -> tuple[str, str, int]:
        """stdout, stderr and exit code."""
        done = subprocess.run(
            [*self.command, *map(str, argv)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, **self.environment},
        )
        return done.stdout, done.stderr, done.returncode


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the peers keep things. Its path is short: a unix socket's may have 108 bytes."""
    return tmp_path_factory.mktemp("peers")


def daemon(command: list[str], log: Path, ready: Callable[[], bool]) -> subprocess.Popen[bytes]:
    """Start one and wait for it; pytest.skip with the end of its log where it does not come up."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        if ready():
            return process
        time.sleep(0.1)
    stop(process)
    pytest.skip(f"{Path(command[0]).name} does not start here: {log.read_text()[-300:].strip()!r}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End our own process, by its id."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


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
