"""What the kernel benchmarks share: real-looking content, the check that the compiled twin is measured, the rates.

A figure is bytes (or look-ups) per second of one core's CPU time. Bars are shown beside it and never asserted.
"""

from __future__ import annotations

import importlib
import io
import os
import sysconfig
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CONTENT = 64 << 20
"""Bytes of tar that the benchmarks run on."""
KERNELS = ("tarscan", "cut", "hashing", "table", "spans", "deflate")
LIBRARIES = 24 << 20
"""How much of the content is shared libraries, the rest being Python's own files."""

Rate = Callable[..., Any]


@pytest.fixture(scope="module", autouse=True)
def compiled(request: pytest.FixtureRequest) -> None:
    """A benchmark of a twin that nobody meant to measure is worse than none. (On a CPU without SHA instructions hashlib
    does the hashing: that fails here, too.)"""
    name = request.module.__name__.removeprefix("bench_")
    if name in KERNELS:
        kernel = importlib.import_module(f"casstore.kernels.{name}")
        if kernel.IMPLEMENTATION != "compiled":
            pytest.fail(f"kernel {name} is {kernel.IMPLEMENTATION}, not compiled: make build")


def _files() -> list[Path]:
    """This machine's own files: shared libraries up to a share, then Python's library."""
    library = Path(sysconfig.get_paths()["stdlib"])
    folders = [Path(sysconfig.get_paths()["platlib"]), library / "lib-dynload", Path("/usr/lib")]
    found: list[Path] = []
    total = 0
    for folder in folders:
        for path in sorted(folder.rglob("*.so*")):
            if total < LIBRARIES and path.is_file() and not path.is_symlink():
                found.append(path)
                total += path.stat().st_size
    return found + [path for path in sorted(library.rglob("*.py")) if path.is_file()]


@pytest.fixture(scope="session")
def content() -> bytes:
    """A tar of real files, CONTENT bytes or a little less; never repeated, so that nothing is compressed twice."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in _files():
            if out.tell() + path.stat().st_size > CONTENT:
                continue
            archive.add(path, arcname=os.fspath(path).lstrip("/"), recursive=False)
    return out.getvalue()


@pytest.fixture
def rate(benchmark: Any) -> Rate:
    """Runs a function and notes how fast it was: `amount` of `unit`s a call (bytes, unless told), and the bar."""

    def run(function: Callable[..., Any], *args: Any, amount: int, unit: str = "MB", bar: float | None = None) -> Any:
        result = benchmark(function, *args)
        scale = 1e6 if unit in ("MB", "M look-ups") else 1.0
        best = benchmark.stats.stats.min
        benchmark.extra_info.update(
            {"amount": amount, "unit": f"{unit}/s per core", "rate": amount / scale / best, "bar": bar}
        )
        return result

    return run


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The table that matters: rates, not times."""
    session = getattr(config, "_benchmarksession", None)
    rows = [one for one in getattr(session, "benchmarks", []) if "rate" in one.extra_info]
    if not rows:
        return
    terminalreporter.write_sep("-", "rates: best round, CPU time of one core")
    for one in sorted(rows, key=lambda row: str(row.fullname)):
        info = one.extra_info
        name = one.name.removeprefix("test_")
        bar = ""
        if info["bar"] is not None:
            bar = f"  bar {info['bar']:,.1f}: {'met' if info['rate'] >= info['bar'] else 'MISSED'}"
        more = f"  ratio {info['ratio']:.3f}" if "ratio" in info else ""
        terminalreporter.write_line(f"{name:<34}{info['rate']:>10,.1f} {info['unit']}{more}{bar}")
