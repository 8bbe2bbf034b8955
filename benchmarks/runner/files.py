"""Jobs about the file systems inside images: one tar, a folder, one file."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

from .bench import Bench, names_of
from .process import Failed, run
from .programs import Docker
from .rounds import Commands, alternate, median
from .speed import compare, memory

FILE = "/etc/os-release"
CAT_BAR = 0.3


def export(bench: Bench) -> None:
    """The first image of apps.tar as one tar; docker's is that of a container made of it before."""
    name = names_of(bench.apps)[0]
    bench.casstore.ensure(bench.apps)
    ours, theirs = bench.work / "export-casstore.tar", bench.work / "export-docker.tar"

    def into(out: Path, command: list[str]) -> Callable[[], Commands]:
        def prepare() -> Commands:
            out.unlink(missing_ok=True)
            return [command]

        return prepare

    runners = {"casstore": into(ours, bench.casstore.command("export", "-o", ours, name))}
    docker = bench.peer("docker")
    with contextlib.ExitStack() as stack:
        stack.callback(ours.unlink, missing_ok=True)
        if isinstance(docker, Docker):
            docker.ensure(bench.apps)
            container = stack.enter_context(docker.container(name))
            stack.callback(theirs.unlink, missing_ok=True)
            runners["docker"] = into(theirs, docker.export(theirs, container))
        runs = alternate("export", bench.rounds, runners)
    bench.report.keep("export", runs)
    compare(bench, "export one image", runs, {"docker": 3.0}, "casstore")
    memory(bench, "export", runs["casstore"])


def unpack(bench: Bench) -> None:
    """The same image into a folder; umoci's is out of an OCI layout that skopeo made of the same archive before."""
    name = names_of(bench.apps)[0]
    bench.casstore.ensure(bench.apps)
    work = bench.work / "unpack"
    layout = work / "layout"
    work.mkdir(exist_ok=True)

    def anew(make: Callable[[Path], list[str]]) -> Callable[[], Commands]:
        # Nothing is removed between rounds: ext4 gives what was just deleted to nobody, and searches past it each time.
        return lambda: [make(work / str(len(list(work.iterdir()))))]

    runners = {"casstore": anew(lambda target: bench.casstore.command("unpack", name, target))}
    try:
        if shutil.which("umoci") is None or shutil.which("skopeo") is None:
            bench.report.note("umoci or skopeo is not installed: unpack runs alone")
        else:
            run(["skopeo", "copy", "-q", f"docker-archive:{bench.apps}:{name}", f"oci:{layout}:1"])
            runners["umoci"] = anew(lambda target: ["umoci", "unpack", "--image", f"{layout}:1", str(target)])
        runs = alternate("unpack", bench.rounds, runners)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    bench.report.keep("unpack", runs)
    compare(bench, "unpack one image", runs, {"umoci": 2.0}, "casstore")
    memory(bench, "unpack", runs["casstore"])


def cat(bench: Bench) -> None:
    """One small file out of an image."""
    name = names_of(bench.apps)[0]
    bench.casstore.ensure(bench.apps)
    command = bench.casstore.command("cat", name, FILE)
    if not run(command, keep=True).out:
        raise Failed(f"{FILE} of {name} is empty: nothing would be measured")
    runs = alternate("cat", bench.rounds, {"casstore": lambda: [command]})["casstore"]
    bench.report.keep("cat", {"casstore": runs})
    took = median(runs)
    bench.report.add(f"cat of {FILE}", f"<= {CAT_BAR:g} s", f"{took:.2f} s", took <= CAT_BAR, seconds=took)
