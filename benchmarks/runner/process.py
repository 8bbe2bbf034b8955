"""Running one command and measuring it from outside."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

#: As for an installed program: bytecode of Python modules is kept, and so not made anew at each start.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


class Failed(Exception):
    """A command that was to be measured ended with an error; the text ends with what it said."""


@dataclass(frozen=True)
class Ran:
    """What one run took: `wall` and `cpu` seconds (of the process itself and its children), `peak` bytes of memory,
    `faults` (pages first touched). `out`: its standard output."""

    wall: float
    cpu: float
    peak: int
    faults: int
    out: str = ""


def run(argv: Sequence[str | Path], *, cpus: set[int] | None = None, keep: bool = False) -> Ran:
    """Run a command to its end; `cpus` pins it, `keep` returns its standard output. Failed on a non-zero exit."""
    words = [str(word) for word in argv]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
        pin = (lambda: os.sched_setaffinity(0, cpus)) if cpus else None
        began = time.perf_counter()
        child = subprocess.Popen(
            words,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=out if keep else subprocess.DEVNULL,
            stderr=error,
            preexec_fn=pin,  # one thread here, so it is safe
        )
        # Not child.wait(): this also tells what the child used.
        _, status, used = os.wait4(child.pid, 0)
        wall = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            error.seek(0)
            said = error.read().decode("utf-8", "replace").strip().splitlines()[-5:]
            raise Failed(f"{' '.join(words[:12])}: exit {child.returncode}: {' | '.join(said)}")
        out.seek(0)
        text = out.read().decode("utf-8", "replace") if keep else ""
    return Ran(wall, used.ru_utime + used.ru_stime, used.ru_maxrss << 10, used.ru_minflt, text)


def settle() -> None:
    """Let what earlier runs left in memory reach the disk, so that the next one does not pay for it."""
    os.sync()


def warm(*paths: Path) -> None:
    """Have files in the page cache: input is read from memory by everybody alike."""
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.read(8 << 20):
                pass
