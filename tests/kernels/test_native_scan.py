"""The plain-C suites of tarscan and cut, and tarscan under the fuzzer, under sanitizers."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[2] / "_native"
SOURCES = {"tarscan": ["tarscan.c", "tar_header.c"], "cut": ["cut.c"]}
FLAGS = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-g", "-O1"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def build(name: str, sources: list[str], folder: Path, *more: str) -> Path:
    """A program of `sources` (in `_native`); skips where there is no compiler with sanitizers."""
    compiler = os.environ.get("CC", "cc")
    program = folder / name
    (folder / "probe.c").write_text("int main(void) { return 0; }\n")
    try:
        subprocess.run(
            [compiler, *SANITIZE, folder / "probe.c", "-o", program], check=True, capture_output=True
        )
        subprocess.run([program], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"{compiler} cannot make sanitized programs here: {error}")
    paths = [NATIVE / source for source in sources]
    made = subprocess.run(
        [compiler, *FLAGS, *SANITIZE, *more, *paths, "-o", program], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    return program


def run(*command: str | Path) -> None:
    # No allocation may be large, whatever an archive claims.
    environment = {**os.environ, "ASAN_OPTIONS": "max_allocation_size_mb=4:allocator_may_return_null=1"}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("kernel", ["tarscan", "cut"])
def test_suite(kernel: str, tmp_path: Path) -> None:
    run(build(kernel, [f"tests/test_{kernel}.c", *SOURCES[kernel]], tmp_path))


def test_fuzz_tarscan(tmp_path: Path) -> None:
    """A fixed number of runs from fixed seeds: archives of every format, mutated."""
    program = build("fuzz", ["tests/fuzz_tarscan.c", *SOURCES["tarscan"]], tmp_path, "-DFUZZ_MAIN")
    seeds = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / f"{form}.tar", "w", format=form) as archive:
            for name, kind in (("file", b"0"), ("long/" * 25 + "é", b"0"), ("link", b"2"), ("dir", b"5")):
                info = tarfile.TarInfo(name)
                info.type, info.size, info.mtime = kind, 600 * (kind == b"0"), 1.5 if form != 0 else 1
                info.linkname = "to/" * 50 if kind == b"2" and form != tarfile.USTAR_FORMAT else ""
                archive.addfile(info, io.BytesIO(bytes(600)))
        seeds.append(tmp_path / f"{form}.tar")
    run(program, "1000", "1", *seeds)
