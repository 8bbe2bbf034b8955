"""The crowd: processes of every kind on one store, for a time. `make siege`, or

    python tests/crowd/crowd.py [--seconds 3600] [--seed N] [--json report.json]

Some are suspended past their leases and resumed, some killed and started again. At the end all that should be there is
there byte for byte, `check --read-data` finds nothing, and when all is removed nothing is left.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parent.parent))

import worker
from expected import Expected
from population import Kept

import casstore
from casstore.digest import Digest

CAST = {
    "ann": "owner",
    "bob": "owner",
    "cyd": "owner",
    "dan": "cli",
    "eve": "sleeper",
    "gil": "gc",
    "guy": "drowsy",
    "hal": "check",
}
"""Who plays what."""
STUCK = 150.0
"""Seconds without a word after which a worker counts as stuck."""
HOLD = 0.020
"""Seconds that the collector may hold the write lock, at the 99th percentile."""


@dataclass
class Report:
    """What a crowd did: commands that were done and that were refused, signals, seconds that the collector held the
    write lock by transaction; `still`: the longest time (seconds) for which this process, which only looks on, did not
    run: the machine stood still; `problems`: what must not be."""

    seed: int
    seconds: float = 0.0
    done: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    signals: Counter[str] = field(default_factory=Counter)
    still: float = 0.0
    hold: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def held(self, share: float, name: str | None = None, which: int = 0) -> float:
        """Seconds that the collector's transactions, or those of one name, held the lock at most, for this share of
        them; with `which` 1 seconds at work in that time, the rest was waiting for a processor or a disk."""
        found = sorted(one[which] for key, each in self.hold.items() if name in (None, key) for one in each)
        return found[min(int(share * len(found)), len(found) - 1)] if found else 0.0

    def __str__(self) -> str:
        lines = [f"seed {self.seed}, {self.seconds:.0f} s"]
        for title, counted in (("done", self.done), ("refused", self.refused), ("signals", self.signals)):
            lines.append(f"{title}: " + " · ".join(f"{name} {n}" for name, n in sorted(counted.items())))
        if self.still > 0.5:
            lines.append(f"the machine stood still for {self.still:.1f} s at a time")
        lines.append("the collector held the write lock, in ms (p50, p99, most), and was at work in that time:")
        for name in [None, *sorted(self.hold)]:
            count = sum(len(each) for key, each in self.hold.items() if name in (None, key))
            marks = [
                "".join(f"{1000 * self.held(share, name, which):9.2f}" for share in (0.5, 0.99, 1.0))
                for which in (0, 1)
            ]
            lines.append(f"  {name or 'all':20} {count:7} times {marks[0]}   {marks[1]}")
        if self.held(0.99) > HOLD:
            lines.append(
                f"  that is over the limit of {1000 * HOLD:.0f} ms at the 99th percentile"
                + (", but waiting for a core or a disk, not work" if self.held(0.99, which=1) < HOLD else "")
            )
        lines += [f"PROBLEM: {one}" for one in self.problems]
        return "\n".join(lines)


class Worker:
    """A process of the crowd, started again after it was killed."""

    def __init__(self, folder: Path, name: str, seed: int, deadline: float) -> None:
        self.folder = folder
        self.name = name
        self.role = CAST[name]
        self.seed = seed
        self.deadline = deadline
        self.starts = 0
        self.start()

    def start(self) -> None:
        here = Path(__file__).parent
        path = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
        environment = {key: value for key, value in os.environ.items() if not key.startswith("CASSTORE_")}
        numbers = str(self.seed + self.starts), str(self.deadline)
        self.log = self.folder / f"{self.name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, here / "worker.py", self.folder, self.name, self.role, *numbers],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment | {"PYTHONPATH": path},
            )
        self.starts += 1

    @property
    def journal(self) -> Path:
        return self.folder / f"{self.name}.json"

    def silent(self) -> float:
        """Seconds since its last word."""
        try:
            return time.time() - self.journal.stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def problem(self) -> str:
        """What is wrong with it now, "" where nothing is."""
        code = self.process.poll()
        if code not in (None, 0):
            return f"{self.name} ({self.role}) ended with {code}: {self.log.read_text()[-4000:]}"
        if code is None and self.silent() > STUCK:
            self.process.send_signal(signal.SIGUSR1)
            time.sleep(2)
            return f"{self.name} ({self.role}) is stuck: {self.log.read_text()[-6000:]}"
        return ""


class Crowd:
    """One run, in a folder of its own."""

    def __init__(self, folder: Path, seconds: float, seed: int) -> None:
        self.folder = folder
        self.seconds = seconds
        self.chance = random.Random(seed)
        self.report = Report(seed)
        self.workers: list[Worker] = []
        prepare(folder, seed, [name for name, role in CAST.items() if role in worker.OWNERS])

    def run(self) -> Report:
        began = time.time()
        deadline = began + self.seconds
        try:
            self.workers = [Worker(self.folder, name, self.chance.randrange(1 << 30), deadline) for name in CAST]
            while time.time() < deadline and not self.look():
                self.disturb(deadline)
            self.wait()
        finally:
            for one in self.workers:
                if one.process.poll() is None:
                    one.process.kill()
                one.process.wait()
        self.gather()
        if not self.report.problems:
            settle(self.folder, self.report)
        self.report.seconds = time.time() - began
        return self.report

    def look(self) -> bool:
        """Has anything gone wrong?"""
        found = [problem for one in self.workers if (problem := one.problem())]
        self.report.problems += found
        return bool(found)

    def disturb(self, deadline: float) -> None:
        """Suspend one that has short leases, at any moment, until they have ended; or kill it and start it again."""
        self.sleep(self.chance.uniform(0.05, 1.5))
        one = self.chance.choice([w for w in self.workers if w.role in ("sleeper", "drowsy")])
        if one.process.poll() is not None or time.time() > deadline - 4 * worker.TTL:
            return
        if self.chance.random() < 0.15:
            one.process.kill()
            one.process.wait()
            one.start()
            self.report.signals["SIGKILL"] += 1
            return
        one.process.send_signal(signal.SIGSTOP)
        self.sleep(self.chance.uniform(0.2, 2.5) * worker.TTL)
        one.process.send_signal(signal.SIGCONT)
        self.report.signals["SIGSTOP, SIGCONT"] += 1

    def sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            time.sleep(min(0.05, end - now))
            self.report.still = max(self.report.still, time.monotonic() - now - 0.05)

    def wait(self) -> None:
        """Let all end their last command."""
        while not self.look() and any(one.process.poll() is None for one in self.workers):
            self.sleep(0.2)

    def gather(self) -> None:
        for one in self.workers:
            if one.journal.exists():
                told = json.loads(one.journal.read_bytes())
                self.report.done.update(told["done"])
                self.report.refused.update(told["refused"])
                for name, held in told["hold"].items():
                    self.report.hold.setdefault(name, []).extend(held)


def prepare(folder: Path, seed: int, owners: list[str]) -> None:
    """What each worker has to know of the others."""
    (folder / "run.json").write_text(json.dumps({"seed": seed, "owners": owners}))


def settle(folder: Path, report: Report) -> None:
    """When all have gone home: all that should be there is, and when it is removed, nothing is left."""
    run = json.loads((folder / "run.json").read_bytes())
    images = worker.everything(run["seed"], run["owners"])
    try:
        with casstore.open(folder / "store", create=False) as store:
            for name in run["owners"]:
                (state,) = json.loads((folder / f"{name}.json").read_bytes())["states"]
                expected = worker.restored(state, {one.digest: one for one in images[name]})
                owned(store, folder, report, name, expected)
            shared(store, folder, report, images[worker.COMMON])
            findings = store.check(read_data=True).findings
            if findings:
                report.problems.append(f"check --read-data: {findings}")
            empty(store, folder / "store", report)
    except Exception as error:
        report.problems.append(f"at the end: {type(error).__name__}: {error}")


def owned(store: casstore.Store, folder: Path, report: Report, name: str, expected: Expected) -> None:
    rows = store.images(f"{name}/*")
    found = {f"{row.repository}:{row.tag}": str(row.digest) for row in rows if row.tag}
    if found != {tag: one.digest for tag, one in expected.tags.items()}:
        report.problems.append(f"{name} has {found}, should have {expected.tags}")
    for tag, one in expected.tags.items():
        saved(store, folder, report, tag, [one])
    for digest, content in expected.blobs.items():
        if b"".join(store.blobs.cat(Digest.parse(digest))) != content:
            report.problems.append(f"{name}: other bytes in {digest}")
    report.done["blobs compared at the end"] += len(expected.blobs)


def shared(store: casstore.Store, folder: Path, report: Report, images: list[Kept]) -> None:
    for row in store.images(f"{worker.COMMON}/*"):
        kept = [one for one in images if one.digest == str(row.digest)]
        saved(store, folder, report, f"{row.repository}:{row.tag}", kept)


def saved(store: casstore.Store, folder: Path, report: Report, name: str, kept: list[Kept]) -> None:
    store.save([name], folder / "out")
    problem = worker.one_of(kept, (folder / "out").read_bytes(), [name])
    if problem:
        report.problems.append(f"{name}: {problem}")
    report.done["images compared at the end"] += 1


def empty(store: casstore.Store, root: Path, report: Report) -> None:
    for image_id in {str(row.id) for row in store.images(all=True)}:
        failed = [step.text for step in store.remove([image_id], force=True) if step.verb == "Error"]
        report.problems += [f"rmi at the end: {text}" for text in failed]
    for row in list(store.blobs.ls()):
        store.blobs.rm([row.digest])
    time.sleep(worker.TTL + 0.5)  # the leases of those who were killed
    store.gc(grace=0.0)
    left = [str(path.relative_to(root)) for path in (root / "objects").rglob("*") if path.is_file()]
    left += [str(path.relative_to(root)) for path in (root / "tmp").iterdir()]
    with store.volume.catalog.read() as tx:
        tables = ("lease", "object", "blob", "place", "covers", "child", "tag", "pin", "image")
        left += [name for name in tables if tx.value(f"SELECT count(*) FROM {name}")]
    if left:
        report.problems.append(f"left when all was removed: {left}")


def main() -> int:
    parser = argparse.ArgumentParser(description="A crowd of processes on one store.")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 30))
    parser.add_argument("--json", type=Path, help="write the report to this file")
    parser.add_argument("--keep", action="store_true", help="keep the folder of a run that fails")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="casstore-crowd-"))
    print(f"a crowd of {len(CAST)} for {given.seconds:.0f} s, seed {given.seed}", flush=True)
    report = Crowd(folder, given.seconds, given.seed).run()
    print(report)
    if given.json is not None:
        summary = vars(report) | {"hold": {n: [report.held(share, n) for share in (0.5, 0.99, 1)] for n in report.hold}}
        given.json.write_text(json.dumps(summary, indent=1))
    if report.problems and given.keep:
        print(f"kept: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
