"""Jobs about registries: pull, push, mirror, beside skopeo, with docker-registry on this machine at the other end."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .bench import Bench, names_of
from .process import Failed, Ran, run
from .programs import Command
from .report import MiB
from .rounds import Commands, alternate, median, ratio

SMALL = 2000
"""Images of `many`, …"""
LOOP = 200
"""… and how many of them skopeo copies: its loop takes as long for each."""


class Registry:
    """Debian's docker-registry, empty, on a port of its own."""

    def __init__(self, home: Path) -> None:
        program = shutil.which("docker-registry")
        if program is None:
            raise Failed("docker-registry is not installed")
        self.home = home
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.host = f"localhost:{port}"
        settings = {
            "version": "0.1",
            "log": {"accesslog": {"disabled": False}, "level": "error"},
            "storage": {"filesystem": {"rootdirectory": str(home / "data")}, "delete": {"enabled": True}},
            "http": {"addr": f"127.0.0.1:{port}"},
        }
        (home / "config.yml").write_text(json.dumps(settings))
        with (home / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [program, "serve", home / "config.yml"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        for _ in range(100):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                return
            time.sleep(0.1)
        self.close()
        raise Failed("docker-registry does not start")

    def asked(self) -> list[str]:
        """Method and path of each request that came."""
        time.sleep(0.5)  # it writes its log a little later
        lines = (self.home / "log").read_text("utf-8", "replace").splitlines()
        return [line.split('"')[1].rsplit(" ", 1)[0] for line in lines if '"' in line and " HTTP/1." in line]

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        shutil.rmtree(self.home, ignore_errors=True)


@contextlib.contextmanager
def _registry(bench: Bench, name: str) -> Iterator[Registry]:
    made = Registry(bench.work / f"registry-{name}")
    try:
        yield made
    finally:
        made.close()


def _named(bench: Bench, host: str) -> list[str]:
    return [f"{host}/{name}" for archive in (bench.apps, bench.bases) for name in names_of(archive)]


def _fill(bench: Bench, there: Registry) -> list[str]:
    """The corpus' images in a registry, their layers as gzip."""
    bench.casstore.ensure(bench.apps, bench.bases)
    plain = [name for archive in (bench.apps, bench.bases) for name in names_of(archive)]
    names = _named(bench, there.host)
    for one, name in zip(plain, names, strict=True):
        run(bench.casstore.command("tag", one, name))
        run(bench.casstore.command("push", "-q", name))
    return names


def _layouts(source: str, folder: Path, names: list[str]) -> list[Command]:
    """skopeo: a registry's images into OCI layouts."""
    short = [name.removeprefix(f"{source}/") for name in names]
    return [_skopeo(f"docker://{source}/{one}", f"oci:{folder}/{_flat(one)}") for one in short]


def _skopeo(source: str, target: str) -> Command:
    return ["skopeo", "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false", source, target]


def _flat(name: str) -> str:
    return name.replace("/", "-").replace(":", "-") + ":x"


def _casstore(bench: Bench, store: Path, *words: str | Path) -> Command:
    return [*bench.casstore.command()[:-2], "--store", str(store), *(str(word) for word in words)]


def _compare(bench: Bench, what: str, bar: str, runs: dict[str, list[Ran]], mine: str, least: float | None) -> None:
    found = ratio(runs["skopeo"], runs[mine])
    seconds = f"{median(runs[mine]):.2f} s against {median(runs['skopeo']):.2f} s"
    met = None if least is None else found.median >= least
    bench.report.add(what, bar, f"{found}; {seconds}", met, ratio=found.median, low=found.low, high=found.high)


def pull(bench: Bench) -> None:
    """All images of the corpus, from a registry into an empty store; skopeo's into empty OCI layouts."""
    home = bench.work / "pulled"
    with _registry(bench, "source") as there:
        names = _fill(bench, there)

        def anew(command: Callable[[], Commands]) -> Callable[[], Commands]:
            def prepare() -> Commands:
                shutil.rmtree(home, ignore_errors=True)
                home.mkdir()
                return command()

            return prepare

        runs = alternate(
            "pull",
            bench.rounds,
            {
                "skopeo": anew(lambda: _layouts(there.host, home, names)),
                "casstore": anew(lambda: [_casstore(bench, home / "store", "pull", "-q", *names)]),
                "later": anew(lambda: [_casstore(bench, home / "store", "pull", "--pack", "later", "-q", *names)]),
                "again": lambda: [_casstore(bench, home / "store", "pull", "-q", *names)],
            },
        )
        blobs = [path for path in (home / "store/objects/blobs").rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in blobs)
        began = time.process_time()
        for path in blobs:
            hashlib.sha256(path.read_bytes()).digest()
        hashing = time.process_time() - began
    bench.report.keep("pull", runs)
    bar = ">= 1x skopeo"
    _compare(bench, f"pull of {len(names)} images ({size / 1e6:.0f} MB), looked into", bar, runs, "casstore", 1.0)
    _compare(bench, "the same with --pack later", bar, runs, "later", 1.0)
    used = min(one.cpu for one in runs["later"]) - min(one.cpu for one in runs["again"]) - hashing
    share = used / (size / 1e9)
    bench.report.add(
        "its CPU beside the sha256 and what a pull of nothing takes", "<= 1 s per GB", f"{share:.2f} s", share <= 1
    )
    shutil.rmtree(home, ignore_errors=True)


def push(bench: Bench) -> None:
    """The same to an empty registry, from a store that gc has packed; skopeo's from OCI layouts."""
    home = bench.work / "pushed"
    store = home / "store"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    with _registry(bench, "source") as there:
        names = _fill(bench, there)
        run(_casstore(bench, store, "pull", "--pack", "later", "-q", *names))
        run(_casstore(bench, store, "config", "set", "cache.size", "4GB"))
        run(_casstore(bench, store, "gc", "--max-time", "1h"))
        for command in _layouts(there.host, home, names):
            run(command)
        short = [name.removeprefix(f"{there.host}/") for name in names]
        source = there.host
    with contextlib.ExitStack() as stack:
        opened: list[Registry] = []

        def to() -> str:
            while opened:
                opened.pop().close()
            opened.append(Registry(bench.work / "registry-target"))
            return opened[0].host

        def ours(cold: bool) -> Callable[[], Commands]:
            def prepare() -> Commands:
                host = to()
                if cold:
                    shutil.rmtree(store / "cache", ignore_errors=True)
                for one in short:
                    run(_casstore(bench, store, "tag", f"{source}/{one}", f"{host}/{one}"))
                return [_casstore(bench, store, "push", "-q", *(f"{host}/{one}" for one in short))]

            return prepare

        def theirs() -> Commands:
            host = to()
            return [_skopeo(f"oci:{home}/{_flat(one)}", f"docker://{host}/{one}") for one in short]

        stack.callback(lambda: [one.close() for one in opened])
        runs = alternate("push", bench.rounds, {"cold": ours(True), "cached": ours(False), "skopeo": theirs})
    bench.report.keep("push", runs)
    _compare(bench, f"push of {len(short)} images, blobs cached", ">= 1x skopeo", runs, "cached", 1.0)
    _compare(bench, "the same, made again from packs", "", runs, "cold", None)
    shutil.rmtree(home, ignore_errors=True)


def sync(bench: Bench) -> None:
    """mirror from registry to registry, and again with nothing new."""
    store = bench.work / "synced"
    shutil.rmtree(store, ignore_errors=True)
    with _registry(bench, "source") as there, _registry(bench, "target") as target:
        names = _fill(bench, there)
        command = _casstore(bench, store, "mirror", "-q", *names, "--to", target.host)
        first = run(command)
        before = len(there.asked()), len(target.asked())
        again = [run(command) for _ in range(max(3, bench.rounds))]
        asked = [*there.asked()[before[0] :], *target.asked()[before[1] :]]
        best = min(one.wall for one in again)
    heads = sum(one.startswith("HEAD") for one in asked) / len(again)
    others = sum(not one.startswith(("HEAD", "GET /v2/ ")) and one != "GET /v2/" for one in asked) / len(again)
    told = f"{best:.2f} s, {heads:g} HEADs, {others:g} other requests (first run {first.wall:.1f} s)"
    met = best <= 0.3 and heads <= len(names) and not others
    bench.report.add(f"mirror of {len(names)} tags with nothing new", "<= 0.3 s, one HEAD per tag", told, met)
    shutil.rmtree(store, ignore_errors=True)


def _small_images(out: Path, repository: str) -> None:
    """A docker archive of many images: a base in common, and a small layer each."""

    def layer(name: str, data: bytes) -> bytes:
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as tar:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        return made.getvalue()

    with tarfile.open(out, "w") as tar:

        def add(name: str, data: bytes) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

        base = layer("base", b"a base in common " * 4000)
        add("base/layer.tar", base)
        listed = []
        for number in range(SMALL):
            own = layer(f"own-{number}", f"image {number} ".encode() * 500)
            diff_ids = [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in (base, own)]
            config = {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Labels": {"number": str(number)}},
                "rootfs": {"type": "layers", "diff_ids": diff_ids},
            }
            add(f"{number}/layer.tar", own)
            add(f"{number}.json", json.dumps(config).encode())
            layers = ["base/layer.tar", f"{number}/layer.tar"]
            listed.append({"Config": f"{number}.json", "RepoTags": [f"{repository}:{number}"], "Layers": layers})
        add("manifest.json", json.dumps(listed).encode())


def many(bench: Bench) -> None:
    """mirror of many small images, beside a loop of skopeo's copies."""
    home = bench.work / "many"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    with _registry(bench, "source") as there, _registry(bench, "target") as target, _registry(bench, "loop") as loop:
        _small_images(home / "small.tar", f"{there.host}/small")
        run(_casstore(bench, home / "made", "load", "-q", "-i", home / "small.tar"))
        run(_casstore(bench, home / "made", "push", "-a", "-q", f"{there.host}/small"))
        ours = run(_casstore(bench, home / "store", "mirror", "-q", f"{there.host}/small", "--to", target.host))
        began = time.perf_counter()
        for number in range(LOOP):
            run(_skopeo(f"docker://{there.host}/small:{number}", f"docker://{loop.host}/small:{number}"))
        theirs = (time.perf_counter() - began) / LOOP * SMALL
    times = theirs / ours.wall
    told = f"{times:.1f}x; {ours.wall:.0f} s against {theirs:.0f} s (from {LOOP} of them), {ours.peak / MiB:.0f} MiB"
    bar = ">= 3x a loop of skopeo copies, <= 500 MiB"
    bench.report.add(f"mirror of {SMALL} small images", bar, told, times >= 3 and ours.peak <= 500 * MiB)
    shutil.rmtree(home, ignore_errors=True)
