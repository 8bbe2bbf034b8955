"""Rounds of A B A B, and the ratios of what was measured in one round: shared machines drift, only ratios count."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .process import Ran, run, settle

Commands = Sequence[Sequence[str]]


def alternate(
    what: str,
    rounds: int,
    runners: Mapping[str, Callable[[], Commands]],
    *,
    cpus: Mapping[str, set[int]] | None = None,
) -> dict[str, list[Ran]]:
    """Run everybody once a round, in turn. A runner prepares (not timed) and returns the commands to be timed."""
    taken: dict[str, list[Ran]] = {name: [] for name in runners}
    for number in range(rounds):
        for name, prepare in runners.items():
            commands = prepare()
            settle()
            runs = [run(command, cpus=(cpus or {}).get(name)) for command in commands]
            one = Ran(
                sum(r.wall for r in runs),
                sum(r.cpu for r in runs),
                max(r.peak for r in runs),
                sum(r.faults for r in runs),
            )
            taken[name].append(one)
            told = f"{one.wall:8.2f} s  cpu {one.cpu:6.2f} s  peak {one.peak / 2**20:5.0f} MiB"
            print(f"  {what} · round {number + 1}/{rounds} · {name:<16}{told}", file=sys.stderr, flush=True)
    return taken


@dataclass(frozen=True)
class Ratio:
    """How many times longer A took than B, round by round."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f}x ({self.low:.2f} to {self.high:.2f})"


def ratio(a: Sequence[Ran], b: Sequence[Ran]) -> Ratio:
    """The wall seconds of A over those of B, paired by round."""
    pairs = [one.wall / other.wall for one, other in zip(a, b, strict=True)]
    return Ratio(statistics.median(pairs), min(pairs), max(pairs))


def median(runs: Sequence[Ran]) -> float:
    """Wall seconds."""
    return statistics.median(one.wall for one in runs)
