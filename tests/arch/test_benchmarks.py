"""The benchmarks look inside rooms, from outside: they still find what they look for. No times are tested."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from casstore.kernels import cut

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def run(script: str, *words: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, BENCHMARKS / script, *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_gc_plans_and_collects_on_a_synthetic_store(tmp_path: Path) -> None:
    made = json.loads(run("synthetic.py", "gc", tmp_path / "store", "--layers", "200"))
    assert made["layers"] == 200 and made["edges layer to pack"] > 200
    found = json.loads(run("probes/collection.py", tmp_path / "store", "0.1"))
    # Two products of twenty images; an image is a manifest, a config and five layers of its own.
    assert found["images deleted"] == 4
    assert found["planned"]["blobs"] == found["collected"]["blobs"] == 4 * 7
    assert found["held"]


@pytest.mark.skipif(cut.IMPLEMENTATION != "compiled", reason="benchmarks refuse the pure-Python twins")
def test_the_profile_and_the_probes_know_the_line_in(tmp_path: Path) -> None:
    archive, store = tmp_path / "images.tar", tmp_path / "store"
    run("synthetic.py", "images", archive, "--count", "3")
    figures = tmp_path / "profile.json"
    run("profile_load.py", archive, "--work", tmp_path / "work", "--rounds", "1", "--json", figures)
    calls = {row["stage"]: row["calls"] for row in json.loads(figures.read_text())["rows"]}
    for stage in ("read", "scan", "cut", "hash", "gather frames", "compress", "check: decode", "check: hash", "write"):
        assert calls[stage], stage

    subprocess.run([sys.executable, "-m", "casstore", "--store", store, "load", "-q", "-i", archive], check=True)
    space: dict[str, Any] = json.loads(run("probes/space.py", store))
    assert space["counts"]["data packs"] == 1 and space["parts"]["rest"] < 4096
    layers = [row["Digest"] for row in blobs(store) if row["State"] == "packed" and int(row["Size"]) > 4096]
    decoded = json.loads(run("probes/decoded.py", store, *layers))
    assert [one["digest"] for one in decoded] == layers and all(one["decoded"] for one in decoded)


def blobs(store: Path) -> list[dict[str, Any]]:
    words = [sys.executable, "-m", "casstore", "--store", str(store), "blob", "ls", "--format", "json"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]
