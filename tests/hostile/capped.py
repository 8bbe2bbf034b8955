"""Commands under caps of processor time and memory, and what they took of it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

WHOLE = os.environ.get("HOSTILE_WHOLE") == "1"
"""Attacks at the size they would have, rather than at the size that CI has time for."""
SECONDS = 1800 if WHOLE else 90
SPACE = 8 << 30

# The peak is that of the process as it is: what wait4 tells counts this one, from which it was made, too.
_DRIVER = f"""
import os, re, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, ({SECONDS}, {SECONDS}))
resource.setrlimit(resource.RLIMIT_AS, ({SPACE}, {SPACE}))
from casstore.cli import main
try:
    main()
finally:
    with open("/proc/self/status") as status:
        peak = re.search(r"VmHWM:\\s*(\\d+) kB", status.read())[1]
    used = resource.getrusage(resource.RUSAGE_SELF)
    os.write({{told}}, f"{{{{peak}}}} {{{{used.ru_utime + used.ru_stime}}}}".encode())
"""


@dataclass(frozen=True)
class Spent:
    """A command that ended. `out`: the first 64 KiB of its output, `digest`: of all of it. `peak`: bytes of memory;
    `seconds` of processor time."""

    code: int
    out: bytes
    digest: str
    err: str
    peak: int
    seconds: float


Attack: TypeAlias = Callable[..., Spent]


def run(store: Path, *argv: str | Path, stdin: Iterable[bytes] = (), log: Path) -> Spent:
    """Run a command in a process of its own, feeding it `stdin`; its stderr goes by way of the file `log`."""
    told, tell = os.pipe()
    command = [sys.executable, "-c", _DRIVER.format(told=tell), "--store", str(store), *map(str, argv)]
    with log.open("wb") as err:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err, pass_fds=(tell,))
    os.close(tell)
    feeder = threading.Thread(target=_feed, args=(process, stdin))
    feeder.start()
    assert process.stdout is not None
    digest, out = hashlib.sha256(), b""
    while piece := process.stdout.read1(1 << 20):  # type: ignore[attr-defined]
        digest.update(piece)
        out += piece[: (64 << 10) - len(out)]
    ended = process.wait()
    feeder.join()
    process.stdout.close()
    figures = os.read(told, 100).split()
    os.close(told)
    text = log.read_text()
    assert len(figures) == 2, (argv, ended, text[-500:])
    return Spent(ended, out, f"sha256:{digest.hexdigest()}", text, int(figures[0]) << 10, float(figures[1]))


def _feed(process: subprocess.Popen[bytes], pieces: Iterable[bytes]) -> None:
    assert process.stdin is not None
    try:
        for piece in pieces:
            process.stdin.write(piece)
        process.stdin.close()
    except BrokenPipeError:  # it has seen enough
        pass
