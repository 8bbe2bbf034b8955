"""The programs that are compared: casstore, and the peers that this machine has. Each keeps to its own folder of the
work folder, and a daemon that was started is ended by its pid."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .process import Failed, run

Command = list[str]


class Program:
    """Something that loads and saves image archives. `loaded`: the archives it holds now; `note`: what a reader of its
    figures should know."""

    name = ""
    saves = True

    def __init__(self, home: Path) -> None:
        self.home = home
        self.note = ""
        self.loaded: set[Path] = set()

    def version(self) -> str:
        """For the report."""
        raise NotImplementedError

    def load(self, archive: Path) -> Sequence[Command]:
        """Commands that load every image of an archive."""
        raise NotImplementedError

    def save(self, out: Path, names: Sequence[str]) -> Command:
        """A command that saves images into a docker archive."""
        raise NotImplementedError

    def empty(self) -> None:
        """Forget all images, so that the next load starts from nothing."""
        raise NotImplementedError

    def ensure(self, *archives: Path) -> None:
        """Have these loaded, without measuring."""
        for archive in archives:
            if archive not in self.loaded:
                for command in self.load(archive):
                    run(command)
                self.loaded.add(archive)

    def close(self) -> None:
        """End what was started and remove the folder."""
        shutil.rmtree(self.home, ignore_errors=True)


class Casstore(Program):
    """This project, as a whole command: Python's start-up is part of every figure."""

    name = "casstore"

    def command(self, *words: str | Path) -> Command:
        return [sys.executable, "-m", "casstore", "--store", str(self.home), *(str(word) for word in words)]

    def version(self) -> str:
        return run(self.command("version"), keep=True).out.splitlines()[0]

    def load(self, archive: Path) -> Sequence[Command]:
        return [self.command("load", "-i", archive)]

    def save(self, out: Path, names: Sequence[str]) -> Command:
        return self.command("save", "-o", out, *names)

    def empty(self) -> None:
        self.loaded.clear()
        shutil.rmtree(self.home, ignore_errors=True)


class Docker(Program):
    """A dockerd of our own: private paths, no network, overlay2."""

    name = "docker"
    _choices = ("--iptables=false", "--bridge=none", "--storage-driver", "overlay2")

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self._daemon: subprocess.Popen[bytes] | None = None
        self._client = shutil.which("docker") or "docker"
        self._socket = home / "docker.sock"

    def start(self) -> None:
        """Start the daemon; Failed where it does not answer."""
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(parents=True)
        server = shutil.which("dockerd") or "/usr/sbin/dockerd"
        with (self.home / "log").open("wb") as log:
            self._daemon = subprocess.Popen(
                [server, "-H", self._host(), "--pidfile", self.home / "pid", *self._paths(), *self._choices],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        for _ in range(120):
            if self._daemon.poll() is not None:
                break
            with contextlib.suppress(Failed):
                run(self._docker("version"))
                return
            time.sleep(0.5)
        last = (self.home / "log").read_text("utf-8", "replace").strip().splitlines()[-1:]
        self.close()
        raise Failed(f"dockerd does not start: {' '.join(last)}")

    def _paths(self) -> list[str | Path]:
        return ["--data-root", self.home / "data", "--exec-root", self.home / "exec"]

    def _host(self) -> str:
        return f"unix://{self._socket}"

    def _docker(self, *words: str | Path) -> Command:
        return [self._client, "-H", self._host(), *(str(word) for word in words)]

    def version(self) -> str:
        return "docker " + run(self._docker("version", "--format", "{{.Server.Version}}"), keep=True).out.strip()

    def load(self, archive: Path) -> Sequence[Command]:
        return [self._docker("load", "-i", archive)]

    def save(self, out: Path, names: Sequence[str]) -> Command:
        return self._docker("save", "-o", out, *names)

    @contextlib.contextmanager
    def container(self, name: str) -> Iterator[str]:
        """A container of an image, never started: its ID."""
        made = run(self._docker("create", name, "true"), keep=True).out.strip()
        try:
            yield made
        finally:
            run(self._docker("rm", made))

    def export(self, out: Path, container: str) -> Command:
        """A command that writes a container's file system into a tar."""
        return self._docker("export", "-o", out, container)

    def empty(self) -> None:
        self.loaded.clear()
        ids = sorted(set(run(self._docker("image", "ls", "-aq", "--no-trunc"), keep=True).out.split()))
        if ids:
            with contextlib.suppress(Failed):  # parents go with their children, and are then reported missing
                run(self._docker("rmi", "-f", *ids))
        run(self._docker("image", "prune", "-af"))
        left = run(self._docker("image", "ls", "-aq"), keep=True).out.split()
        if left:
            raise Failed(f"docker keeps {len(left)} images: the next load would not be a first one")

    def close(self) -> None:
        if self._daemon is not None and self._daemon.poll() is None:
            with contextlib.suppress(Failed):
                self.empty()
            self._daemon.terminate()
            try:
                self._daemon.wait(60)
            except subprocess.TimeoutExpired:
                self._daemon.kill()
                self._daemon.wait()
        super().close()


class Podman(Program):
    """podman with storage of its own; overlay where that can be mounted, else vfs, which copies every layer."""

    name = "podman"
    saves = False

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self._driver = "overlay"
        home.mkdir(parents=True, exist_ok=True)
        try:
            run(self._podman("info"))
        except Failed:
            self.close()
            self._driver = "vfs"
            self.note = "podman runs on vfs, which copies every layer: overlay cannot be mounted here"
            run(self._podman("info"))

    def _podman(self, *words: str | Path) -> Command:
        given = ["--root", self.home / "root", "--runroot", self.home / "run", "--storage-driver", self._driver, *words]
        return ["podman", *(str(word) for word in given)]

    def version(self) -> str:
        return run(["podman", "--version"], keep=True).out.strip() + f" ({self._driver})"

    def load(self, archive: Path) -> Sequence[Command]:
        return [self._podman("load", "-q", "-i", archive)]

    def empty(self) -> None:
        self.loaded.clear()
        run(self._podman("rmi", "-a", "-f"))

    def close(self) -> None:
        with contextlib.suppress(Failed):
            self.empty()
        # podman leaves its storage bound onto itself.
        subprocess.run(["umount", self.home / "root" / "overlay"], stderr=subprocess.DEVNULL, check=False)
        super().close()


class Skopeo(Program):
    """skopeo has no store: archive to OCI layout, one image at a time."""

    name = "skopeo"
    saves = False

    def __init__(self, home: Path, names: dict[str, list[str]]) -> None:
        super().__init__(home)
        self._names = names

    def version(self) -> str:
        return run(["skopeo", "--version"], keep=True).out.strip()

    def load(self, archive: Path) -> Sequence[Command]:
        names = self._names.get(archive.name, ())
        pairs = [(f"docker-archive:{archive}:{one}", f"oci:{self.home}/oci:{one.replace(':', '-')}") for one in names]
        return [["skopeo", "copy", "-q", source, target] for source, target in pairs]

    def empty(self) -> None:
        self.loaded.clear()
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(parents=True)


def peers(work: Path, names: dict[str, list[str]], without: set[str]) -> tuple[list[Program], list[str]]:
    """The peers that are installed and work here, started; and a line for each that is left out or handicapped."""
    found: list[Program] = []
    notes: list[str] = []

    def offer(name: str, start: Callable[[], Program]) -> None:
        if name in without:
            return
        if shutil.which(name) is None:
            notes.append(f"{name} is not installed: left out")
            return
        try:
            program = start()
        except (Failed, OSError) as error:
            notes.append(f"{name} does not work here, left out: {error}")
            return
        if program.note:
            notes.append(program.note)
        found.append(program)

    def docker() -> Docker:
        program = Docker(work / "docker")
        program.start()
        return program

    offer("docker", docker)
    offer("podman", lambda: Podman(work / "podman"))
    offer("skopeo", lambda: Skopeo(work / "skopeo", names))
    return found, notes
