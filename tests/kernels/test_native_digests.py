"""The plain-C suites of sha256, table and spans, under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[2] / "_native"
SANITIZE = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> str:
    name = os.environ.get("CC", "cc")
    folder = tmp_path_factory.mktemp("probe")
    (folder / "probe.c").write_text("int main(void) { return 0; }\n")
    try:
        subprocess.run(
            [name, *SANITIZE, "probe.c", "-o", "probe"], cwd=folder, check=True, capture_output=True
        )
        subprocess.run(["./probe"], cwd=folder, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"{name} cannot make sanitized programs here: {error}")
    return name


@pytest.mark.parametrize("kernel", ["sha256", "table", "spans"])
def test_native_suite(kernel: str, compiler: str, tmp_path: Path) -> None:
    suite, source, program = NATIVE / "tests" / f"test_{kernel}.c", NATIVE / f"{kernel}.c", tmp_path / kernel
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", *SANITIZE]
    built = subprocess.run([compiler, *flags, suite, source, "-o", program], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    # memory that cannot be had is part of the suite
    environment = {**os.environ, "ASAN_OPTIONS": "allocator_may_return_null=1"}
    ran = subprocess.run([program], capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr
