"""One Python target under atheris: `python fuzz_worker.py NAME [options of libFuzzer] [folders of inputs]`.

Whatever a target lets out that is not an error of casstore's own tree ends the run, and the input is kept; so does
memory beyond MEMORY.
"""

from __future__ import annotations

import importlib
import os
import resource
import sys
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # threads of numpy's that nobody uses would reserve most of the memory

import atheris

MEMORY = 1 << 30
"""Bytes that a target may take beyond what the interpreter had when it was loaded."""


def bound_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main() -> None:
    name = sys.argv.pop(1)
    atheris.enabled_hooks.add("str")
    with atheris.instrument_imports(include=["casstore"]):
        target = importlib.import_module(f"fuzz_{name}")
    atheris.Setup(sys.argv, target.one)
    bound_memory()
    atheris.Fuzz()


main()
