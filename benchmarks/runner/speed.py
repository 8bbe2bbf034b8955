"""Jobs about time: load, load again, save, one layer on all cores; and the memory that loading and saving takes."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

from .bench import Bench, names_of
from .process import Ran, warm
from .programs import Program
from .report import MiB
from .rounds import Commands, alternate, median, ratio

MEMORY_BAR = 400 * MiB
LAYER_IMAGE = "base/bookworm-py:1"
LAYER_ROUNDS = 5


def compare(bench: Bench, what: str, runs: Mapping[str, list[Ran]], bars: Mapping[str, float], mine: str) -> None:
    """A row for each peer: how many times longer than ours its runs took."""
    for name, taken in runs.items():
        if name == mine:
            continue
        found = ratio(taken, runs[mine])
        bar = bars.get(name)
        bench.report.add(
            f"{what}, against {name}",
            "" if bar is None else f">= {bar:g}x faster",
            f"{found}; {median(runs[mine]):.2f} s against {median(taken):.2f} s",
            None if bar is None else found.median >= bar,
            ratio=found.median,
            low=found.low,
            high=found.high,
        )


def memory(bench: Bench, what: str, runs: list[Ran]) -> None:
    """A row for the most memory that any of these runs took."""
    peak = max(one.peak for one in runs)
    bench.report.add(f"peak memory of {what}", "<= 400 MiB", f"{peak / MiB:.0f} MiB", peak <= MEMORY_BAR, peak=peak)


def load(bench: Bench) -> None:
    """apps.tar into an empty store, durable; every round anew."""
    warm(bench.apps)

    def anew(program: Program) -> Callable[[], Commands]:
        def prepare() -> Commands:
            program.empty()
            program.loaded.add(bench.apps)
            return program.load(bench.apps)

        return prepare

    everybody = [bench.casstore, *bench.peers]
    runs = alternate("load", bench.rounds, {one.name: anew(one) for one in everybody})
    bench.report.keep("load", runs)
    compare(bench, "load apps.tar into an empty store", runs, {"docker": 9.0, "podman": 5.5}, "casstore")
    memory(bench, "load", runs["casstore"])


def again(bench: Bench) -> None:
    """apps.tar where it is already."""
    warm(bench.apps)
    everybody = [one for one in (bench.casstore, *bench.peers) if one.name != "skopeo"]
    for one in everybody:
        one.ensure(bench.apps)
    runs = alternate("again", bench.rounds, {one.name: lambda one=one: one.load(bench.apps) for one in everybody})
    bench.report.keep("again", runs)
    compare(bench, "load apps.tar again", runs, {"docker": 4.0}, "casstore")


def save(bench: Bench) -> None:
    """The five images of apps.tar into one archive."""
    saved_beside_docker(bench, "save", bench.casstore, 6.0)


def saved_beside_docker(bench: Bench, job: str, casstore: Program, bar: float) -> None:
    """Save the five out of a casstore store, beside the peers that save."""
    names = names_of(bench.apps)
    everybody = {"casstore": casstore, **{one.name: one for one in bench.peers if one.saves}}

    def anew(name: str, program: Program) -> Callable[[], Commands]:
        out = bench.work / f"{job}-{name}.tar"

        def prepare() -> Commands:
            program.ensure(bench.apps)
            out.unlink(missing_ok=True)
            return [program.save(out, names)]

        return prepare

    runs = alternate(job, bench.rounds, {name: anew(name, one) for name, one in everybody.items()})
    for name in everybody:
        (bench.work / f"{job}-{name}.tar").unlink(missing_ok=True)
    bench.report.keep(job, runs)
    what = "save the five" if job == "save" else "save the five after gc"
    compare(bench, what, runs, {"docker": bar}, "casstore")
    memory(bench, what, runs["casstore"])


def layer(bench: Bench) -> None:
    """One image of one layer of about 250 MB: on all cores, and pinned to one."""
    archive = bench.work / "layer.tar"
    size = extract(bench.bases, LAYER_IMAGE, archive)
    warm(archive)
    program = type(bench.casstore)(bench.work / "store-layer")

    def anew() -> Commands:
        program.empty()
        return program.load(archive)

    cores = sorted(os.sched_getaffinity(0))
    both, one = f"{len(cores)} cores", "1 core"
    runs = alternate("layer", max(bench.rounds, LAYER_ROUNDS), {both: anew, one: anew}, cpus={one: {cores[0]}})
    program.close()
    archive.unlink()
    bench.report.keep("layer", runs)
    found = ratio(runs[one], runs[both])
    bench.report.add(
        f"load of one layer of {size / 1e6:.0f} MB, {both} against pinned to one",
        ">= 1.5x faster",
        f"{found}; {median(runs[both]):.2f} s against {median(runs[one]):.2f} s",
        found.median >= 1.5 if len(cores) > 1 else None,
        ratio=found.median,
        low=found.low,
        high=found.high,
    )


def extract(archive: Path, name: str, out: Path) -> int:
    """Copy one image of a docker archive into an archive of its own; returns the bytes of its layers."""
    total = 0
    with tarfile.open(archive) as source, tarfile.open(out, "w") as target:
        listed = json.load(source.extractfile("manifest.json") or io.BytesIO())
        image = next(one for one in listed if name in (one["RepoTags"] or ()))
        for path in (image["Config"], *image["Layers"]):
            member = source.getmember(path)
            target.addfile(member, source.extractfile(member))
            total += member.size if path in image["Layers"] else 0
        raw = json.dumps([image]).encode()
        member = tarfile.TarInfo("manifest.json")
        member.size = len(raw)
        target.addfile(member, io.BytesIO(raw))
    return total
