"""Every fuzz target for a short while, two at a time; seeds and what was ever found, replayed without a fuzzer.

FUZZ_SECONDS: for each target; 15 where CI is set, else 5. FUZZ_SEED: always the same one here, so that a change fails
for what it did only; `make fuzz` takes another each time.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import fuzz
import fuzz_seeds
import pytest

SECONDS = int(os.environ.get("FUZZ_SECONDS", "15" if os.environ.get("CI") else "5"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
PAIRS = [fuzz.TARGETS[i : i + 2] for i in range(0, len(fuzz.TARGETS), 2)]


def inputs(name: str) -> list[Path]:
    folders = [folder / name for folder in (fuzz.SEEDS, fuzz.FOUND)]
    return sorted(path for folder in folders if folder.is_dir() for path in folder.iterdir())


@pytest.mark.parametrize("names", PAIRS, ids="-".join)
@pytest.mark.timeout(2 * SECONDS + 2 * fuzz.GRACE)
def test_fuzz(names: tuple[str, ...], tmp_path: Path) -> None:
    ran = fuzz.fuzz_all(names, SECONDS, tmp_path, SEED, jobs=2)
    for run in ran:
        assert run.finding is None, f"seed {SEED}: {run}\n{run.log[-6000:]}"
        assert run.executions > len(inputs(run.target)), run.log[-6000:]
    if len(ran) < len(names):
        pytest.skip("a fuzzer is not installed here, see above")


@pytest.mark.parametrize("name", fuzz.PYTHON)
def test_replay(name: str) -> None:
    target = fuzz.module(name)
    assert inputs(name)
    for path in inputs(name):
        print(path)
        target.one(path.read_bytes())


@pytest.mark.parametrize("name", fuzz.NATIVE)
def test_replay_native(name: str, tmp_path: Path) -> None:
    try:
        program = fuzz.build(name, tmp_path, fuzzer=False)
    except fuzz.Missing as reason:
        pytest.skip(str(reason))
    assert inputs(name)
    ran = subprocess.run([program, *inputs(name)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_seeds_are_what_the_writers_make() -> None:
    made = {(target, name) for target, seeds in fuzz_seeds.every().items() for name in seeds}
    assert made == {(path.parent.name, path.name) for path in fuzz.SEEDS.glob("*/*")}, "run fuzz_seeds.py"
