"""What comes out: a table of bars, and all that was measured as JSON."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .process import Ran

MiB = 1 << 20


@dataclass(frozen=True)
class Row:
    """A line of the table. `met` is None where there is no bar: told for comparison."""

    what: str
    bar: str
    measured: str
    met: bool | None = None
    data: dict[str, Any] = field(default_factory=dict)


class Report:
    """Collects rows, raw runs and notes as the jobs end."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds
        self.rows: list[Row] = []
        self.runs: dict[str, dict[str, list[Ran]]] = {}
        self.notes: list[str] = []
        self.versions: list[str] = []
        self.began = time.strftime("%Y-%m-%d %H:%M:%S")
        self.load_before = os.getloadavg()

    def add(self, what: str, bar: str, measured: str, met: bool | None = None, **data: Any) -> None:
        self.rows.append(Row(what, bar, measured, met, data))
        print(f"= {what}: {measured} [{bar or 'no bar'}] {_verdict(met)}", file=sys.stderr, flush=True)

    def keep(self, job: str, runs: Mapping[str, list[Ran]]) -> None:
        """Keep raw runs for the JSON and for rows that look at several jobs."""
        self.runs.setdefault(job, {}).update(runs)

    def note(self, text: str) -> None:
        self.notes.append(text)
        print(f"! {text}", file=sys.stderr, flush=True)

    def machine(self) -> str:
        cpu = "unknown CPU"
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith(("model name", "cpu implementer")):
                cpu = line.partition(":")[2].strip()
                break
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        busy = ", ".join(f"{a:.1f}" for a in (self.load_before[0], os.getloadavg()[0]))
        return (
            f"{cpu}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, Linux {platform.release()}, "
            f"Python {platform.python_version()}; load average at begin and end {busy}"
        )

    def text(self) -> str:
        """The table, in Markdown."""
        rows = [("what", "bar", "measured", "")]
        rows += [(row.what, row.bar or "-", row.measured, _verdict(row.met)) for row in self.rows]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = [_line(rows[0], widths), "|" + "|".join("-" * (width + 2) for width in widths) + "|"]
        lines += [_line(row, widths) for row in rows[1:]]
        lines += ["", f"{self.began}; {self.rounds} rounds. {self.machine()}.", f"{'; '.join(self.versions)}."]
        lines += [f"- {note}" for note in self.notes]
        return "\n".join(lines)

    def json(self) -> str:
        return json.dumps(
            {
                "began": self.began,
                "machine": self.machine(),
                "versions": self.versions,
                "rounds": self.rounds,
                "rows": [asdict(row) for row in self.rows],
                "runs": {
                    job: {name: [asdict(one) | {"out": ""} for one in runs] for name, runs in by.items()}
                    for job, by in self.runs.items()
                },
                "notes": self.notes,
            },
            indent=1,
            ensure_ascii=False,
        )


def _verdict(met: bool | None) -> str:
    return "" if met is None else "met" if met else "NOT MET"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
