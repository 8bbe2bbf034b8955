"""Bits flipped all over the catalog and its log: no wrong bytes, no traceback, and a repair brings every blob back.

DAMAGE_SEED=n: other bits; DAMAGE_SHARE=1: twenty times as many.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import MEMORY, SEED, SHARE, Case, Origin, Run

from casstore import api
from casstore.errors import CasstoreError

ROUNDS = 240 if SHARE >= 1 else 12


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    folder = Path(tempfile.mkdtemp(prefix="casstore-flips-", dir=MEMORY if MEMORY.is_dir() else None))
    yield Origin.make(folder)
    shutil.rmtree(folder)



@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["catalog", "log"])
def test_flips(origin: Origin, kind: str) -> None:
    part = "" if kind == "catalog" else "-wal"
    for number in range(ROUNDS):
        chance = random.Random(f"{SEED} {kind} {number}")
        folder = Path(tempfile.mkdtemp(dir=origin.root))
        run = Run(origin, Case(kind, "longer"), folder)  # it makes the copy; the file is made as it was
        path = run.root / f"catalog.sqlite{part}"
        raw = bytearray((origin.store_for(kind) / path.name).read_bytes())
        for _ in range(chance.choice((1, 1, 3, 30))):
            raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        path.write_bytes(raw)
        told = f"DAMAGE_SEED={SEED} {kind} {number}"
        try:
            run.read()
            run.check()
            for command in ("images", "gc", "df", "tag"):
                attempt(run.root, command)
            run.read()
            run.repair()
            lost = run.read()
            if lost:  # a row that is whole and wrong: the files alone know better
                for name in ("catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm"):
                    (run.root / name).unlink(missing_ok=True)
                run.repair()
                lost = run.read()
            assert not lost, f"{len(lost)} blobs are lost"
        except Exception as error:
            raise AssertionError(f"{told}: {error!r}") from error
        finally:
            shutil.rmtree(folder)


def attempt(root: Path, command: str) -> None:
    """It works, or ends with one line."""
    try:
        with api.open(root) as store:
            if command == "images":
                list(store.images())
            elif command == "gc":
                store.gc()
            elif command == "df":
                store.df()
            else:
                store.tag("one:1", "flipped:1")
    except CasstoreError as error:
        assert "\n" not in str(error)
