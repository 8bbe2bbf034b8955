"""All C of the kernels, cross-compiled for 64-bit ARM; their plain-C suites run in an emulator.

Undefined behaviour traps; alignment counts. Needs aarch64-linux-gnu-gcc and qemu-aarch64 (packages of Debian:
gcc-aarch64-linux-gnu, qemu-user).
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[2] / "_native"
COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
FLAGS = [
    *("-std=c11", "-O2", "-fno-strict-aliasing", "-Wall", "-Wextra", "-Werror"),
    *("-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"),
]


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Every kernel's object file."""
    for program in (COMPILER, EMULATOR):
        if not shutil.which(program):
            pytest.skip(f"no {program} here")
    folder, made = tmp_path_factory.mktemp("aarch64"), []
    for source in sorted(NATIVE.glob("*.c")):
        made.append(folder / f"{source.stem}.o")
        built = subprocess.run(
            [COMPILER, *FLAGS, "-c", source, "-o", made[-1]], capture_output=True, text=True
        )
        assert built.returncode == 0, built.stderr
    assert made
    return made


@pytest.mark.parametrize("suite", sorted(path.name for path in (NATIVE / "tests").glob("test_*.c")))
def test_suite_in_the_emulator(suite: str, objects: list[Path], tmp_path: Path) -> None:
    command = [COMPILER, *FLAGS, "-static", NATIVE / "tests" / suite, *objects, "-o", tmp_path / "suite"]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    ran = subprocess.run([EMULATOR, tmp_path / "suite"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
