"""Sieges: what befalls a scenario's command, at which of its calls; and the verdict on what is left.

kill       SIGKILL instead of the n-th call            eio, enospc   the n-th call fails, once
torn       SIGKILL in the middle of the n-th write     dead, full    the n-th call and all after it fail
interrupt  SIGINT at the n-th call                     power         all that was not synced is lost, or some of it
terminate  SIGTERM at the n-th call                     twice         as kill, and then the repeated command once more
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import disk
import seen
import tracing
from disk import Disk, Tree
from scenarios import ENVIRONMENT, Place, Scenario
from seen import Seen, Unsound, Weight
from tracing import Call, Run, Strike

from casstore.cli import run as cli

SIEGES = ("kill", "torn", "eio", "enospc", "dead", "full", "interrupt", "terminate", "twice", "power")
SCRATCH = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
"""Where to work, else the usual folder. What is synced is seen from the calls, so memory will do, and is many times
faster."""
GROWS = ("write", "create", "mkdir", "rename", "link", "sync")
"""Calls that may want space: of these ENOSPC is a possible answer."""


class Point(NamedTuple):
    """One try. `call`: which of the command's calls, from 1; `name`, `what`: the system call and its files.
    `how`, `tree`: of "power", what is left of the disk."""

    siege: str
    call: int
    name: str = ""
    what: str = ""
    how: str = ""
    tree: Tree | None = None


@dataclass(frozen=True)
class Outcome:
    """`name`, `what`: the system call, and the files that it was for. `state`: which state was found, before or after,
    and how the command had ended. `problem`: "" where all held."""

    scenario: str
    siege: str
    call: int
    name: str
    what: str
    state: str
    problem: str
    seconds: float


@dataclass(frozen=True)
class Rehearsal:
    """A scenario as it runs untouched: the place to copy, the folder in which the copy ran, what is seen before and
    after, all its calls, what the store weighs once it was collected, and what lies in {out}."""

    scenario: Scenario
    place: Place
    run: Path
    before: Seen
    after: Seen
    calls: list[Call]
    weight: Weight
    out_before: dict[str, str]
    out_after: dict[str, str]
    command: tuple[str, ...]
    disk: Disk
    """What the commands that prepared the store had made durable by their end."""

    def points(self, siege: str, spread: int = 1, seeds: int = 1) -> Iterator[Point]:
        """All points of a siege; of the writes every `spread`-th. `seeds`: random mixtures per call of "power"."""
        writes = [call.number for call in self.calls if call.kind == "write"]
        spared = set(writes) - set(writes[::spread])
        if siege == "power":
            yield from self._outages(spared, seeds)
            return
        if siege == "twice" and self.scenario.once:
            return
        for call in self.calls:
            if call.number in spared or (siege == "torn" and call.kind != "write"):
                continue
            if siege not in ("enospc", "full") or call.kind in GROWS:
                yield Point(siege, call.number, call.name, self._what(call))

    def _what(self, call: Call) -> str:
        names = [os.path.relpath(path, self.run) for path in (call.path, call.other) if path]
        return " ".join(names)

    def _outages(self, spared: set[int], seeds: int) -> Iterator[Point]:
        """The power goes out before each call, and after the last; no two points leave the same."""
        known = self.disk.copy(self.run)
        found: set[bytes] = set()
        for call in [*self.calls, None]:
            number, name, what = len(self.calls) + 1, "end", ""
            if call is not None:
                number, name, what = call.number, call.name, self._what(call)
            # The least comes first: at the end, it must be all of the command's work.
            hows = [("none", 0)]
            if number not in spared:
                hows += [("names", 0), ("data", 0), *(("some", seed) for seed in range(seeds))]
            for how, seed in hows:
                tree = known.left(how, (seed, number))
                mark = disk.digest(tree) + (b"end" if call is None else b"")
                if mark not in found:
                    found.add(mark)
                    yield Point("power", number, name, what, how, tree)
            if call is not None:
                known.apply(call)


def rehearse(scenario: Scenario, base: Path, command: tuple[str, ...] = ()) -> Rehearsal:
    """Prepare a scenario in the folder `base` and run it untouched. `command`: what to run instead, as a process of its
    own; else casstore runs in a fork."""
    place = Place(base / "in", base / "whole", traced=True)
    for folder in (place.inputs, place.store, place.out):
        folder.mkdir(parents=True)
    scenario.prepare(place)
    known = place.disk or Disk(place.here, place.here)
    # Whoever looks may leave traces too: at a copy.
    before = Seen.nothing()
    if not scenario.broken:
        looked = place.copy(base / "looked")
        before = seen.look(looked.store, scenario.volatile)
        shutil.rmtree(looked.here)
    played = place.copy(base / "run")
    ran = play(scenario, played, command, record=True)
    if ran.code != 0:
        raise AssertionError(f"{scenario.name}: untouched, it ends with {ran.code}: {ran.err.decode()}")
    replayed = known.copy(played.here)
    for call in ran.calls:
        replayed.apply(call)
    if replayed.left("all") != Disk(played.here, played.here).left("all"):
        raise AssertionError(f"{scenario.name}: the calls that were seen do not tell all that was done")
    out_after = _files(played.out)
    after = seen.look(played.store, scenario.volatile)
    seen.collect(played.store)
    wrong = seen.leaks(played.store, mended=scenario.broken) + seen.problems(played.store)
    if wrong:
        raise AssertionError(f"{scenario.name}: untouched, it leaves {wrong}")
    weight = seen.weigh(played.store)
    shutil.rmtree(played.here)
    place = Place(place.inputs, place.here)
    return Rehearsal(
        scenario, place, played.here, before, after, ran.calls, weight, _files(place.out), out_after, command, known
    )


def play(
    scenario: Scenario,
    place: Place,
    command: tuple[str, ...],
    strike: tuple[int, Strike, bool] | None = None,
    *,
    record: bool = False,
) -> Run:
    """Run the scenario's command under the tracer. `strike`: (number of the call, what befalls it, and all later ones
    too?)."""

    def decide(call: Call) -> Strike | None:
        if strike is None:
            return None
        number, what, lasting = strike
        if call.number == number:
            return what
        grows = call.kind in GROWS or what.value != errno.ENOSPC
        return what if lasting and call.number > number and grows else None

    argv = ["--quiet", "--store", str(place.store), *place.filled(scenario.argv)]
    stdin = None if scenario.stdin is None else _pipe(place.inputs / scenario.stdin)
    try:
        return tracing.run(
            [*command, *argv] if command else lambda: _patched(scenario.patch + scenario.around, argv),
            roots=[place.here],
            decide=decide,
            record=record,
            stdin=stdin,
            environment=ENVIRONMENT,
        )
    finally:
        if stdin is not None:
            os.close(stdin)


def _patched(patch: str, argv: Sequence[str]) -> int:
    """A command in a fork: the interpreter and its modules are there already, which saves most of a point's time."""
    exec(patch, {})
    return cli.run(argv)


def _pipe(path: Path) -> int:
    """The reading end of a pipe that all of a small file is in."""
    data = path.read_bytes()
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, max(len(data), 4096))
    if os.write(writer, data) != len(data):
        raise AssertionError(f"{path} does not fit into a pipe")
    os.close(writer)
    return reader


_STRIKES = {
    "kill": (Strike("kill"), False),
    "twice": (Strike("kill"), False),
    "torn": (Strike("torn"), False),
    "eio": (Strike("fail", errno.EIO), False),
    "enospc": (Strike("fail", errno.ENOSPC), False),
    "dead": (Strike("fail", errno.EIO), True),
    "full": (Strike("fail", errno.ENOSPC), True),
    "interrupt": (Strike("signal", signal.SIGINT), False),
    "terminate": (Strike("signal", signal.SIGTERM), False),
}


def besiege(rehearsal: Rehearsal, point: Point, here: Path) -> Outcome:
    """One point in the folder `here`, from a copy of the store to the verdict."""
    began = time.monotonic()
    scenario = rehearsal.scenario
    name, what = point.name, point.what
    if point.tree is not None:
        shutil.rmtree(here, ignore_errors=True)
        disk.write(point.tree, here)
        place = Place(rehearsal.place.inputs, here)
        ended = None if point.call <= len(rehearsal.calls) else 0
        what = f"{point.how}: {what}"
        verdict = _Verdict(rehearsal, place, ended)
    else:
        place = rehearsal.place.copy(here)
        strike, lasting = _STRIKES[point.siege]
        if point.siege == "twice":
            second = random.Random(f"{scenario.name} {point.call}").randint(1, len(rehearsal.calls))
            play(scenario, place, rehearsal.command, (second, strike, lasting))
        ran = play(scenario, place, rehearsal.command, (point.call, strike, lasting))
        unsure = False
        if len(ran.calls) >= point.call:
            call = ran.calls[point.call - 1]
            name, what = call.name, os.path.relpath(call.path, here)
            # The target of `save` has its new content by then; only whether it will last is not known.
            unsure = scenario.outside and call.kind == "sync" and call.path == str(place.out)
            unsure |= lasting and call.kind == "sync"
        verdict = _Verdict(rehearsal, place, ran.code, unsure, gone=point.siege in ("dead", "twice"))
        verdict.message(ran, point.siege)
    verdict.run()
    seconds = time.monotonic() - began
    return Outcome(scenario.name, point.siege, point.call, name, what, verdict.state, verdict.problem, seconds)


class _Verdict:
    """What is left after a point, held against what must hold. `ended`: the exit code, None where it was killed.

    `unsure`: a failed command may have made its change nevertheless, in whole. So it is with a disk that takes a commit
    but does not confirm it, and then takes nothing more: SQLite cannot undo what it wrote to its log. `gone`: on the
    disk as it was then, nothing could be taken away, or one before was killed.
    """

    def __init__(
        self, rehearsal: Rehearsal, place: Place, ended: int | None, unsure: bool = False, *, gone: bool = False
    ) -> None:
        self._unsure = unsure
        self._gone = gone or ended is None
        self._rehearsal = rehearsal
        self._scenario = rehearsal.scenario
        self._place = place
        self._ended = ended
        self.state = "killed" if ended is None else f"exit {ended}"
        self.problem = ""

    def message(self, ran: Run, siege: str) -> None:
        """Exit code, and one clear line on stderr."""
        text = ran.err.decode(errors="replace")
        fine: tuple[int | None, ...] = (None, 0)
        if siege in ("eio", "enospc", "dead", "full"):
            fine = (0, 1)
        elif siege in ("interrupt", "terminate"):
            fine = (0, 130)
        if ran.timed_out:
            self._wrong("it hangs")
        elif ran.code not in fine:
            self._wrong(f"exit code {ran.code}: {text}")
        elif ran.code and (not text.startswith("Error: ") or text.count("\n") != 1 or "internal error" in text):
            self._wrong(f"not one clear line: {text!r}")
        elif ran.code == 0 and text and siege != "twice":  # where the first did all, the second may say so
            self._wrong(f"exit code 0, but: {text!r}")

    def run(self) -> None:
        try:
            self._first()
            if not self.problem:
                self._again()
        except Unsound as error:
            self._wrong(f"lost: {error}")
        except Exception as error:  # whatever fails here is a finding
            self._wrong(f"{type(error).__name__}: {error}")

    def _wrong(self, problem: str) -> None:
        self.problem = self.problem or " ".join(problem.split())

    def _first(self) -> None:
        """Atomic: the state before or the state after; where the command said so, the one that it said."""
        scenario, place = self._scenario, self._place
        if scenario.broken:
            return
        found = seen.look(place.store, scenario.volatile)
        states = []
        if found == self._rehearsal.before:
            states.append("before")
        if found == self._rehearsal.after:
            states.append("after")
        if scenario.outside:
            states = self._outside(states)
        if not states:
            ways = {"before": self._rehearsal.before, "after": self._rehearsal.after}
            told = [f"{name} in {one.differs(found)}" for name, one in ways.items()]
            self._wrong(f"neither before nor after: differs from {'; from '.join(told)}")
            return
        self.state += f", {'/'.join(states)}"
        if self._ended == 0 and "after" not in states:
            self._wrong("exit code 0, but nothing was done")
        elif self._ended and "before" not in states and not self._unsure:
            self._wrong(f"exit code {self._ended}, but the change was made")
        if seen.is_store(place.store):
            self._wrong("; ".join(seen.problems(place.store)))

    def _outside(self, states: list[str]) -> list[str]:
        found = _files(self._place.out)
        # A killed command cannot take away its temporary file, which lies beside the target.
        left = {name for name in found if name.startswith(".")}
        if left and not self._gone:
            self._wrong(f"left in {{out}}: {sorted(left)}")
        found = {name: sum_ for name, sum_ in found.items() if name not in left}
        ways = {"before": self._rehearsal.out_before, "after": self._rehearsal.out_after}
        return [name for name, files in ways.items() if files == found] if states else []

    def _again(self) -> None:
        """The command succeeds when repeated, and nothing is left over in the end."""
        scenario, place = self._scenario, self._place
        if not (scenario.once and self.state.endswith("after")):
            ran = self._repeat()
            if ran.code != 0:
                self._wrong(f"repeated, it ends with {ran.code}: {ran.err.decode(errors='replace')}")
                return
        seen.age(place.store)
        seen.collect(place.store)
        found = seen.look(place.store, scenario.volatile)
        if found != self._rehearsal.after:
            self._wrong(f"repeated, it leads elsewhere: {found.differs(self._rehearsal.after)}")
        if scenario.outside and "after" not in self._outside(["after"]):
            self._wrong("repeated, it writes something else")
        self._wrong("; ".join(seen.leaks(place.store, mended=scenario.broken)))
        self._wrong(seen.weigh(place.store).exceeds(self._rehearsal.weight))
        self._wrong("; ".join(seen.problems(place.store)))

    def _repeat(self) -> Run:
        argv = ["--quiet", "--store", str(self._place.store), *self._place.filled(self._scenario.argv)]
        stdin = None if self._scenario.stdin is None else _pipe(self._place.inputs / self._scenario.stdin)
        try:
            return forked(argv, stdin, around=self._scenario.around)
        finally:
            if stdin is not None:
                os.close(stdin)


def forked(argv: Sequence[str], stdin: int | None = None, timeout: float = 120.0, *, around: str = "") -> Run:
    """`casstore ARGV…`, untraced, in a fork of this process: the interpreter and its modules are there already.
    `around`: Python that is run before."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if not pid:
            code = 70
            try:
                null = os.open(os.devnull, os.O_RDWR)
                for target, source in enumerate((null if stdin is None else stdin, out.fileno(), err.fileno())):
                    os.dup2(source, target)
                sys.stdin, sys.stdout, sys.stderr = (open(fd, mode) for fd, mode in enumerate(("r", "w", "w")))  # noqa: SIM115
                exec(around, {})
                code = cli.run(argv)
                sys.stdout.flush()
            finally:
                os._exit(code)
        watchdog = threading.Timer(timeout, os.kill, (pid, signal.SIGKILL))
        watchdog.start()
        _, status = os.waitpid(pid, 0)
        watchdog.cancel()
        out.seek(0)
        err.seek(0)
        return Run(os.waitstatus_to_exitcode(status), out.read(), err.read())


def _files(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
