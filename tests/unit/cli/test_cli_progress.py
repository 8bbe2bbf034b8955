"""Progress: nothing for quick commands, lines every few seconds for logs, bars for eyes."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading

import pytest

from casstore.cli import progress

MB = 1_000_000


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def test_lines_come_every_five_seconds(clock: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    with progress.Lines() as lines:
        lines("layer a", 10 * MB, 100 * MB)
        lines("\x1b", 5, None)
        clock.now += 4.9
        lines("layer a", 20 * MB, 100 * MB)
        assert capfd.readouterr().err == ""
        clock.now += 0.2
        lines("layer a", 25 * MB, 100 * MB)
        assert capfd.readouterr() == ("", "layer a: 25MB of 100MB (25%)\n\\x1b: 5B\n")
        clock.now += 1
        lines("layer a", 26 * MB, 100 * MB)
        assert capfd.readouterr().err == ""
        clock.now += 5
        lines("layer a", 100 * MB, 100 * MB)
        assert capfd.readouterr().err == "\\x1b: 5B\n"
        lines("empty", 0, 0)


def test_bars_do_not_flash(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_display", lambda: pytest.fail("too early"))
    with progress.Bars() as bars:
        clock.now += 0.4
        bars("layer", 1, 10)
        bars("layer", 10, 10)


def test_many_threads_may_report(clock: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    lines = progress.Lines()

    def work(name: str) -> None:
        for done in range(0, 1001, 10):
            clock.now += 0.01
            lines(name, done, 1000)

    threads = [threading.Thread(target=work, args=(f"layer {i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lines._tasks == {}


def test_a_terminal_sees_bars() -> None:
    code = """
import time
from casstore.cli import progress
progress._PATIENCE = 0
with progress.for_terminal() as bars:
    for done in range(0, 101, 20):
        bars("layer [red]a[/red]", done, 100)
        bars("other", done, None)
        time.sleep(0.15)
    bars("other", 100, 100)
"""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, "-c", code], stderr=theirs, stdout=subprocess.PIPE, timeout=30, env=environment
    )
    os.close(theirs)
    seen = b""
    try:
        while part := os.read(ours, 65536):
            seen += part
    except OSError:
        pass  # the other end is closed
    os.close(ours)
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"layer [red]a[/red]" in seen
    assert b"Traceback" not in seen
