"""The plain-C suites of tarscan, cut and the engines, under sanitizers. (Fuzzing: tests/fuzz.)"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[2] / "_native"
SOURCES = {"tarscan": ["tarscan.c", "tar_header.c"], "cut": ["cut.c"]}
# Engines: what they share, and their own.
ENGINE = ["engine.c", "engine_huffman.c", "deflate_tables.c", "deflate_write.c"]
SOURCES["engine_go"] = [*ENGINE, "engine_go.c", "engine_go_chain.c", "engine_go_fast.c"]
SOURCES["engine_zlib"] = [*ENGINE, "engine_zlib.c", "engine_zlib_chains.c", "engine_zlib_trees.c"]
KLAUSPOST = [f"engine_klauspost{part}.c" for part in ("", "_blocks", "_fast", "_match")]
SOURCES["engine_klauspost"] = [*ENGINE, *KLAUSPOST, "deflate_parse.c", "trace.c"]
SOURCES["trace"] = ["trace.c", "stretch.c", "deflate_parse.c", "deflate_tables.c", "deflate_write.c"]
SOURCES["engine_go_1_27"] = [*ENGINE, *KLAUSPOST]
SOURCES["engine_proof"] = [
    *dict.fromkeys([*SOURCES["engine_go"], *SOURCES["engine_zlib"], *KLAUSPOST]),
    *("engines.c", "engine_proof.c"),
]
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


def run(*command: str | Path, most: int = 4) -> None:
    # No allocation may be large (in MiB), whatever an archive claims.
    environment = {**os.environ, "ASAN_OPTIONS": f"max_allocation_size_mb={most}:allocator_may_return_null=1"}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("kernel", SOURCES)
def test_suite(kernel: str, tmp_path: Path) -> None:
    program = build(kernel, [f"tests/test_{kernel}.c", *SOURCES[kernel]], tmp_path)
    # One's blocks have no end; 32768 heads are kept of a stretch.
    run(program, most={"engine_go_1_27": 16, "trace": 40}.get(kernel, 4))
