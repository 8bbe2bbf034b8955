"""The whole siege: every scenario, every siege, every point. Run by `make siege`, or as

`PYTHONPATH=tests python tests/crash/siege.py --json report.json [--scenario load] [--siege kill] [--spread 4]`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import pickle
import random
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

import tracing
from scenarios import SCENARIOS, Scenario
from sieges import SCRATCH, SIEGES, Outcome, Point, Rehearsal, besiege, rehearse

_rehearsals: dict[Path, Rehearsal] = {}


def _task(path: Path, point: Point) -> Outcome:
    """In a worker: one point, in a folder of this process."""
    if path not in _rehearsals:
        _rehearsals.clear()
        _rehearsals[path] = pickle.loads(path.read_bytes())
    here = path.parent / f"point-{os.getpid()}"
    try:
        return besiege(_rehearsals[path], point, here)
    finally:
        shutil.rmtree(here, ignore_errors=True)


Choose = Callable[[str, list[Point]], list[Point]]


def siege(
    base: Path, scenarios: Iterable[Scenario], sieges: Iterable[str], jobs: int, spread: int, seeds: int, choose: Choose
) -> Iterator[Outcome]:
    """Outcomes as they come. `choose` picks points of a siege; `spread`, `seeds`: see Rehearsal.points."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        for scenario in scenarios:
            rehearsal = rehearse(scenario, base / scenario.name)
            path = base / scenario.name / "rehearsal"
            path.write_bytes(pickle.dumps(rehearsal))
            tasks = []
            for kind in sieges:
                # Of a killed command every write; elsewhere what matters is which kind of call it is.
                points = rehearsal.points(kind, 1 if kind == "kill" else spread, seeds)
                tasks += [pool.submit(_task, path, point) for point in choose(kind, list(points))]
            print(f"{scenario.name}: {len(tasks)} points", flush=True)
            for done in as_completed(tasks):
                yield done.result()
            shutil.rmtree(base / scenario.name)


def table(outcomes: list[Outcome]) -> str:
    """Scenarios × sieges: points survived / tried."""
    tried: Counter[tuple[str, str]] = Counter((one.scenario, one.siege) for one in outcomes)
    held: Counter[tuple[str, str]] = Counter((one.scenario, one.siege) for one in outcomes if not one.problem)
    rows = list(dict.fromkeys(one.scenario for one in outcomes))
    columns = [name for name in SIEGES if any(one.siege == name for one in outcomes)]
    width = max(len(name) for name in [*rows, "scenario"]) + 2
    lines = ["scenario".ljust(width) + "".join(name.rjust(12) for name in columns)]
    for row in rows:
        cells = [f"{held[row, c]}/{tried[row, c]}" if tried[row, c] else "-" for c in columns]
        lines.append(row.ljust(width) + "".join(cell.rjust(12) for cell in cells))
    total = [f"{sum(held[r, c] for r in rows)}/{sum(tried[r, c] for r in rows)}" for c in columns]
    lines.append("all".ljust(width) + "".join(cell.rjust(12) for cell in total))
    return "\n".join(lines)


def ends(outcomes: list[Outcome]) -> str:
    """Of each scenario and siege: at how many calls of which kinds, how the command ended there, and in which state
    the store was found."""
    calls: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    states: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for one in outcomes:
        calls[one.scenario, one.siege][one.name] += 1
        states[one.scenario, one.siege][one.state if not one.problem else f"FAILED ({one.state})"] += 1

    def told(counter: Counter[str]) -> str:
        return " · ".join(f"{name} {n}" for name, n in counter.most_common())

    return "\n".join(f"{' · '.join(key)}: {told(calls[key])} → {told(states[key])}" for key in calls)


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill, fail and cut off casstore at each of its calls.")
    parser.add_argument("--json", type=Path, help="write all outcomes to this file")
    parser.add_argument("--read", type=Path, nargs="+", help="try nothing: report what such files of earlier runs hold")
    parser.add_argument("--scenario", action="append", help="only this one (may be given more than once)")
    parser.add_argument("--siege", action="append", choices=SIEGES)
    parser.add_argument("--spread", type=int, default=4, help="of writes take every n-th; they are killed at every one")
    parser.add_argument("--seeds", type=int, default=2, help="random mixtures of what a power loss leaves, per call")
    parser.add_argument("--sample", type=int, help="at most so many points of each scenario and siege, at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    if given.read:
        return report([Outcome(**one) for path in given.read for one in json.loads(path.read_bytes())])
    reason = tracing.unavailable()
    if reason:
        print(f"no siege: {reason}", file=sys.stderr)
        return 2
    chosen = [one for one in SCENARIOS if given.scenario is None or one.name in given.scenario]
    chance = random.Random(given.seed)

    def choose(_: str, points: list[Point]) -> list[Point]:
        if given.sample is None or len(points) <= given.sample:
            return points
        return chance.sample(points, given.sample)

    began = time.monotonic()
    outcomes: list[Outcome] = []
    base = Path(tempfile.mkdtemp(prefix="casstore-siege-", dir=SCRATCH))
    try:
        for one in siege(base, chosen, given.siege or SIEGES, given.jobs, given.spread, given.seeds, choose):
            outcomes.append(one)
            if one.problem:
                print(f"{one.scenario} · {one.siege} {one.call} ({one.name} {one.what}): {one.problem}", flush=True)
    finally:
        shutil.rmtree(base, ignore_errors=True)
        if given.json is not None:
            given.json.parent.mkdir(parents=True, exist_ok=True)
            given.json.write_text(json.dumps([asdict(one) for one in outcomes], indent=0))
    print(f"{time.monotonic() - began:.0f} s")
    return report(outcomes)


def report(outcomes: list[Outcome]) -> int:
    """Print it; 1 where anything failed."""
    failed = sum(bool(one.problem) for one in outcomes)
    print(f"\n{ends(outcomes)}\n\n{table(outcomes)}\n\n{len(outcomes)} points, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
