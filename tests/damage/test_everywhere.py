"""Every region of every file, in every way: what is read is right or told as damaged, check finds it and says whom it
hurts, a repair loses nothing, good copies heal the rest.

A sample of it; all of it with DAMAGE_SHARE=1. DAMAGE_SEED=n: another sample, and other damage.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import MEMORY, SEED, SHARE, Case, Origin, Run
from spoil import REGIONS


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="casstore-damage-", dir=MEMORY if MEMORY.is_dir() else None))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def origin(place: Path) -> Origin:
    return Origin.make(place)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", REGIONS)
def test_damage(origin: Origin, place: Path, kind: str) -> None:
    cases = [case for case in origin.cases() if case.kind == kind]
    picked = random.Random(f"{SEED} {kind}").sample(cases, min(len(cases), max(4, round(len(cases) * SHARE))))
    failed = [
        f"--- DAMAGE_SEED={SEED} {case}\n{problem}" for case in picked if (problem := play(origin, case, place))
    ]
    assert not failed, f"{len(failed)} of {len(picked)}\n" + "\n".join(failed)


def play(origin: Origin, case: Case, place: Path) -> str:
    """What went wrong in a case, "" if nothing did."""
    folder = Path(tempfile.mkdtemp(dir=place))
    try:
        Run(origin, case, folder).play()
    except Exception:
        return traceback.format_exc(limit=-6)
    finally:
        shutil.rmtree(folder)
    return ""
