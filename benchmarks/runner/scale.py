"""Jobs about many images: how long the list takes, and what gc does on a store of 100,000 layers."""

from __future__ import annotations

import json
import shutil
import statistics
import sys
from typing import Any

from .bench import Bench
from .process import Ran, run, settle
from .programs import Casstore
from .report import MiB
from .rounds import alternate, median

IMAGES = 10_000
LIST_ROUNDS = 9
DELETED = 0.01


def images(bench: Bench) -> None:
    """`images` on a store of 10,000, start-up included, beside an empty Python."""
    archive = bench.work / "images.tar"
    casstore = Casstore(bench.work / "store-images")
    casstore.empty()
    bench.script("synthetic", "images", archive, "--count", str(IMAGES))
    casstore.ensure(archive)
    archive.unlink()
    listed = len(run(casstore.command("images", "-q"), keep=True).out.split())
    commands = {
        "images": casstore.command("images"),
        "images --format json": casstore.command("images", "--format", "json"),
        "empty python": [sys.executable, "-c", "pass"],
    }
    rounds = max(bench.rounds, LIST_ROUNDS)
    runs = alternate("images", rounds, {name: lambda argv=argv: [argv] for name, argv in commands.items()})
    casstore.close()
    bench.report.keep("images", runs)
    wall = median(runs["images"])
    bench.report.add(
        f"images on a store of {listed} images, start-up included",
        "<= 0.6 s",
        f"{wall:.3f} s (CPU {statistics.median(one.cpu for one in runs['images']):.3f} s;"
        f" json {median(runs['images --format json']):.3f} s; an empty Python {median(runs['empty python']):.3f} s)",
        wall <= 0.6 and listed == IMAGES,
        listed=listed,
    )


def gc(bench: Bench) -> None:
    """gc's plan and transactions on a synthetic store; 1 % of its images deleted since the last gc."""
    made = bench.work / f"synthetic-{bench.layers}"
    told = made.with_suffix(".json")
    if not told.exists():
        shutil.rmtree(made, ignore_errors=True)
        told.write_text(bench.script("synthetic", "gc", made, "--layers", str(bench.layers)).out)
    content: dict[str, Any] = json.loads(told.read_text())
    bench.report.note(
        f"gc's store is synthetic: the catalog of {content['layers']} layers x 6000 chunk references (16 KiB each), "
        f"{content['images']} images, {content['packs']} packs, {content['edges layer to pack']} edges with "
        f"{content['intervals']} intervals, {content['catalog bytes'] / 1e6:.0f} MB; "
        "without pack files, so nothing is rewritten"
    )
    casstore = Casstore(bench.work / "store-gc")
    found: list[dict[str, Any]] = []
    taken: list[Ran] = []
    for _ in range(bench.rounds):
        casstore.empty()
        shutil.copytree(made, casstore.home)
        settle()
        one, ran = bench.probe("collection", casstore.home, str(DELETED))
        found.append(one)
        taken.append(ran)
    casstore.close()
    bench.report.keep("gc", {"casstore": taken})
    _rows(bench, found)


def holds(held: list[tuple[str, float]]) -> dict[str, dict[str, float]]:
    """For each kind of transaction, and for all: how long (ms) they held the write lock."""
    kinds: dict[str, list[float]] = {}
    for name, seconds in held:
        for kind in ("all", name):
            kinds.setdefault(kind, []).append(seconds * 1e3)
    return {
        kind: {
            "count": len(values),
            "median": statistics.median(values),
            "p99": sorted(values)[int((len(values) - 1) * 0.99)],
            "worst": max(values),
        }
        for kind, values in kinds.items()
    }


def _rows(bench: Bench, found: list[dict[str, Any]]) -> None:
    add = bench.report.add
    what = f"gc, {bench.layers} layers, {DELETED:.0%} deleted"
    plans = [one["plan"] + one["plan rewriting"] + one["plan merging"] for one in found]
    last = found[-1]
    parts = ", ".join(f"{name} {statistics.median(one[key] for one in found):.2f} s" for name, key in _PARTS.items())
    seconds = statistics.median(plans)
    add(f"{what}: plan", "<= 10 s", f"{seconds:.2f} s ({parts})", seconds <= 10, rounds=found)
    peak = max(one["peak"] for one in found)
    before = max(one["peak before"] for one in found)
    add(f"{what}: peak memory", "<= 1 GiB", f"{peak / MiB:.0f} MiB ({before / MiB:.0f} at begin)", peak <= 1 << 30)
    kinds = holds([pair for one in found for pair in one["held"]])
    every = kinds["all"]
    add(
        f"{what}: write lock held",
        "p99 <= 20 ms",
        f"p99 {every['p99']:.1f} ms, median {every['median']:.1f} ms, worst {every['worst']:.1f} ms;"
        f" {len(last['held'])} transactions in {last['collect']:.2f} s",
        every["p99"] <= 20,
        kinds=kinds,
    )
    add(
        f"{what}: what it took",
        "",
        f"{last['images deleted']} images untagged; {last['collected']['blobs']} blobs and"
        f" {last['collected']['objects']} packs collected; {last['packs to measure']} packs measured,"
        f" {last['packs to rewrite']} to be rewritten",
    )


_PARTS = {"garbage": "plan", "rewriting": "plan rewriting", "merging": "plan merging"}
