"""Programs that images are exchanged with, as a test calls them; one that is not here skips it with that reason."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest


def need(program: str) -> str:
    """The path of a program, daemons' folders included."""
    found = shutil.which(program, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def need_root(what: str) -> None:
    if os.geteuid() != 0:
        pytest.skip(f"{what} needs root")


@dataclass(frozen=True)
class Peer:
    """A program with the options that keep it off the machine's own data: peer("load", "-i", path) → stdout."""

    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)

    def __call__(self, *argv: str | Path, ok: bool = True) -> str:
        out, err, code = self.whole(*argv)
        assert not ok or code == 0, (argv, code, out, err)
        return out

    def whole(self, *argv: str | Path, stdin: str = "") -> tuple[str, str, int]:
        """stdout, stderr and exit code."""
        done = subprocess.run(
            [*self.command, *map(str, argv)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, **self.environment},
        )
        return done.stdout, done.stderr, done.returncode


def daemon(command: list[str], log: Path, ready: Callable[[], bool]) -> subprocess.Popen[bytes]:
    """Start one and wait for it; pytest.skip with the end of its log where it does not come up."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        if ready():
            return process
        time.sleep(0.1)
    stop(process)
    pytest.skip(f"{Path(command[0]).name} does not start here: {log.read_text()[-300:].strip()!r}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End our own process, by its id."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
