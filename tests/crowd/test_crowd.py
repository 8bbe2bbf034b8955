"""Crowds on one store, of processes and of threads. CROWD_SECONDS: how long (2 minutes); CROWD_SEED: which."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

import crowd
import pytest
import worker
from client import Api
from shrink import shrink

import casstore

SECONDS = float(os.environ.get("CROWD_SECONDS", 120))
SEED = int(os.environ.get("CROWD_SEED", secrets.randbelow(1 << 30)))


@pytest.mark.timeout(SECONDS + 300)
def test_processes(tmp_path: Path) -> None:
    report = crowd.Crowd(tmp_path, SECONDS, SEED).run()
    print(report)
    assert not report.problems
    assert report.done["packs rewritten"] and report.done["objects deleted"]


@pytest.mark.timeout(SECONDS + 200)
def test_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in one process, on one Store: three owners, two collectors, a checker."""
    shrink(monkeypatch.setattr)
    owners = ["ann", "bob", "cyd"]
    crowd.prepare(tmp_path, SEED, owners)
    deadline = time.time() + SECONDS / 6
    journals = {name: worker.Journal(tmp_path / f"{name}.json") for name in [*owners, "gil", "guy", "hal"]}
    report = crowd.Report(SEED, SECONDS / 6)

    def run(name: str, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:
            report.problems.append(f"{name}: {type(error).__name__}: {error}")
        finally:
            journals[name].write()

    with casstore.open(tmp_path / "store") as store:
        made = [worker.Owner(tmp_path, name, SEED, journals[name], Api(store), False) for name in owners]
        acts = {one.name: lambda one=one: worker.own(one, deadline) for one in made}
        for name in ("gil", "guy"):
            acts[name] = lambda name=name: worker.collect(store, SEED, deadline, journals[name])
        acts["hal"] = lambda: worker.check(store, SEED, deadline, journals["hal"])
        threads = [threading.Thread(target=run, args=item, name=item[0], daemon=True) for item in acts.items()]
        for one in threads:
            one.start()
        for one in threads:
            one.join(SECONDS / 6 + 120)
        assert not any(one.is_alive() for one in threads)
    for journal in journals.values():
        report.done.update(journal.done)
        report.refused.update(journal.refused)
    if not report.problems:
        crowd.settle(tmp_path, report)
    print(report)
    assert not report.problems
