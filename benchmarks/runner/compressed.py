"""Jobs about gzip: every encoder that is here packs layers of the corpus, and each file is taken apart and made again;
and the registry's own blobs in a store, whole commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .bench import Bench
from .process import Ran, run, settle
from .programs import Casstore
from .report import MiB
from .space import same

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))
from encoders import ENCODERS, Absent, Encoder, Workshop

LIMIT = 0.03
"""What a trace may be of its blob: trace.limit."""
KNOWN = 0.0001
"""What it may be where the encoder is known."""
FOREIGN = 0.01
"""And where it is not, in images of a real registry."""
USUAL = (0, 1, 5, 6, 9, 25)
"""Levels of known encoders that are measured: the fastest, the usual, the best, and pgzip's two."""
SLOW = 8 << 20
"""Bytes of each layer for encoders that would take too long."""


def encoders(bench: Bench) -> None:
    """A row for each encoder at its usual levels, over one of every so many layers of the corpus by size; and for what
    real registries had: the corpus's own gzip layers, and images in OCI layouts."""
    folder = bench.work / "encoders"
    folder.mkdir(exist_ok=True)
    workshop = Workshop(folder.resolve())
    if not bench.encoders:
        row(bench, "who pushed the corpus", sorted((bench.corpus / "layers").iterdir()), KNOWN)
    if bench.layouts is not None:
        row(bench, f"who pushed {bench.layouts.name}", layers_in(bench.layouts), FOREIGN)
    layers = sorted((bench.corpus / "raw").iterdir(), key=lambda path: (-path.stat().st_size, path.name))
    for encoder in ENCODERS:
        if encoder.engine is not None and encoder.engine[2] not in USUAL:
            continue
        if bench.encoders and not encoder.name.startswith(tuple(bench.encoders)):
            continue
        try:
            paths = [made(workshop, encoder, layer, folder) for layer in layers[bench.every // 2 :: bench.every]]
        except Absent as error:
            bench.report.note(f"{encoder.name}: {error}")
            continue
        row(bench, encoder.name, paths, KNOWN if encoder.engine else None)
        for path in paths:
            path.unlink()


def layers_in(layouts: Path) -> list[Path]:
    """gzip blobs of all OCI layouts below a folder."""
    found = []
    for path in sorted(layouts.glob("**/blobs/sha256/*")):
        with path.open("rb") as file:
            if file.read(2) == b"\x1f\x8b":
                found.append(path)
    return found


def made(workshop: Workshop, encoder: Encoder, layer: Path, folder: Path) -> Path:
    """A layer as an encoder packs it."""
    source = layer
    if encoder.slow:
        source = folder / "part.tar"
        with layer.open("rb") as file:
            source.write_bytes(file.read(SLOW))
    out = folder / f"{layer.stem[:12]}.gz"
    encoder.make(workshop, source, out)
    return out


def row(bench: Bench, name: str, paths: Sequence[Path], bar: float | None) -> None:
    found, ran = bench.probe("encoded", str(LIMIT), *paths)
    bench.report.add(
        f"gzip by {name}",
        "packed, exact" + (f", trace <= {100 * bar:g} %" if bar else ", or loose"),
        told(found),
        met(found, bar),
        files=found,
        peak=ran.peak / MiB,
    )


def met(found: list[dict[str, Any]], bar: float | None) -> bool:
    """Is every file exact, and within the bar; or, without one, loose?"""
    if bar is None:
        return all(one["exact"] or not one["packed"] for one in found)
    traces, sizes = sum(one.get("trace", 0) for one in found), sum(one["size"] for one in found)
    return all(one["packed"] and one["exact"] for one in found) and traces <= bar * sizes


def told(found: list[dict[str, Any]]) -> str:
    """One line for the table."""
    size = sum(one["size"] for one in found)
    packed = [one for one in found if one["packed"]]
    text = f"{len(found)} files, {size / 1e6:.1f} MB; {len(packed)} packed, {sum(one['exact'] for one in found)} exact"
    if not packed:
        reasons = sorted({one["reason"] for one in found})
        return f"{text}: {'; '.join(reasons)}"
    inside = sum(one["size"] for one in packed)
    trace = sum(one["trace"] for one in packed)
    corrections = sum(one["corrections"] for one in packed)
    text += f"; trace {trace:,} B ({100 * trace / inside:.4f} %), corrections {corrections:,} B"
    for name, key in (("apart", "apart"), ("again", "again")):
        content = sum(one["content"] for one in packed)
        cpu, wall = (sum(one[key][clock] for one in packed) for clock in ("cpu", "wall"))
        text += f"; {name} {content / 1e6 / cpu:.0f} MB/s of CPU, {content / 1e6 / wall:.0f} of a core's wall"
        both = [one for one in packed if f"{key} on all" in one]
        if both:
            text += f", {both[0]['cores']} cores {both[0][key]['wall'] / both[0][key + ' on all']['wall']:.2f}x"
    engines = sorted({engine for one in packed for engine in one["engines"]})
    return f"{text} [{', '.join(engines)}]"


def mirror(bench: Bench) -> None:
    """The corpus's gzip layers as blobs: what gc makes of them, what that costs, whether they come back."""
    casstore = Casstore(bench.work / "store-mirror")
    casstore.empty()
    layers = sorted((bench.corpus / "layers").iterdir())
    size = sum(path.stat().st_size for path in layers)
    digests: dict[str, Path] = {}
    for path in layers:
        digests[run(casstore.command("blob", "put", path), keep=True).out.strip()] = path
    run(casstore.command("config", "set", "pack.after", "0s"))
    run(casstore.command("config", "set", "cache.size", "0"))  # what is made again is made again each time
    settle()
    ran = run(casstore.command("gc", "--grace", "0s", "--max-time", "1h", "--format", "json"), keep=True)
    bench.report.keep("gc of gzip layers", {"casstore": [ran]})
    many = f"{len(layers)} gzip layers, {size / 1e6:.1f} MB"
    took = f"{ran.wall:.1f} s, {ran.cpu:.1f} s of CPU, {size / 1e6 / ran.wall:.1f} MB/s of gzip"
    bench.report.add(f"gc packs {many}", "", f"{took}; peak {ran.peak / MiB:.0f} MiB")
    found, _ = bench.probe("space", casstore.home)
    share = found["total"] / size
    bench.report.add(
        "stored bytes of them, the whole folder", "<= 0.35 of the gzip", f"{share:.3f} ({found['total'] / 1e6:.1f} MB)",
        share <= 0.35, **found,
    )  # fmt: skip
    good = sum(same(casstore.command("blob", "cat", digest), path) for digest, path in digests.items())
    every = good == len(digests)
    bench.report.add("blob cat equals its bytes", "every layer", f"{good} of {len(digests)} layers", every)
    digest, path = max(digests.items(), key=lambda pair: pair[1].stat().st_size)
    restored(bench, casstore, digest, path.stat().st_size)
    casstore.close()


def restored(bench: Bench, casstore: Casstore, digest: str, size: int) -> None:
    """The largest one by `blob cat`, on all cores and on one; and a MiB from its middle."""
    command = casstore.command("blob", "cat", digest)
    middle = [*command, "--range", f"{size // 2}-{size // 2 + MiB - 1}"]
    core = {max(os.sched_getaffinity(0))}
    ways: dict[str, tuple[list[str], set[int] | None]] = {
        "all cores": (command, None),
        "one core": (command, core),
        "a MiB of it": (middle, None),
    }
    runs: dict[str, list[Ran]] = {name: [] for name in ways}
    for _ in range(bench.rounds):
        for name, (words, cpus) in ways.items():
            runs[name].append(run(words, cpus=cpus))
    bench.report.keep("cat of a gzip layer", runs)
    best = {name: sorted(runs[name], key=lambda ran: ran.wall)[bench.rounds // 2] for name in ways}
    bench.report.add(
        f"blob cat of a packed gzip layer of {size / 1e6:.1f} MB",
        "",
        "; ".join(f"{name} {ran.wall:.2f} s ({ran.cpu:.2f} s of CPU)" for name, ran in best.items())
        + f"; peak {max(ran.peak for ran in runs['all cores']) / MiB:.0f} MiB",
    )
