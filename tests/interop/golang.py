"""Programs made from Go modules, where a Go toolchain is: built once into a cache folder, skipped with the reason where
they cannot be had."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

CRANE = "github.com/google/go-containerregistry", "v0.22.1"
ORAS = "oras.land/oras", "v1.3.6"
DISTRIBUTION = "github.com/distribution/distribution/v3", "v3.0.0"

REFERRERS = """package main

import (
	"log"
	"net/http"
	"os"

	"github.com/google/go-containerregistry/pkg/registry"
)

func main() {
	handler := registry.New(registry.WithReferrersSupport(true), registry.Logger(log.Default()))
	log.Fatal(http.ListenAndServe(os.Args[1], handler))
}
"""
"""A registry with the referrers API, in memory: `crane registry serve` without it."""

BUILD_TIME = 240
"""Seconds after which a build is given up: nobody waits that long for a test."""


def installed(module: tuple[str, str], package: str) -> str:
    """The program of a package (`cmd/crane`) of a module."""
    path, version = module
    return str(_built(f"{package.rpartition('/')[2]}-{version}", ["install", f"{path}/{package}@{version}"]))


def compiled(name: str, module: tuple[str, str], source: str) -> str:
    """A program of our own that uses a module."""
    path, version = module
    return str(_built(f"{name}-{version}", ["build", "-o", name, "."], f"require {path} {version}\n", source))


def _built(name: str, command: list[str], requires: str = "", source: str = "") -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "casstore-tests"
    go = shutil.which("go")
    if go is None:
        pytest.skip("no Go here")
    kept = cache / name
    if kept.exists():
        return kept
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as made:
        folder = Path(made)
        flags = {}
        if source:
            (folder / "main.go").write_text(source)
            (folder / "go.mod").write_text(f"module peer\n\ngo 1.24\n\n{requires}")
            flags = {"GOFLAGS": "-mod=mod"}
        environment = {**os.environ, "GOBIN": str(folder), "GONOSUMDB": "*", "GOTOOLCHAIN": "local", **flags}
        try:
            done = subprocess.run(
                [go, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=BUILD_TIME
            )
        except subprocess.TimeoutExpired:
            pytest.skip(f"Go does not finish {name}")
        if done.returncode:
            pytest.skip(f"Go makes no {name} here: {done.stderr.strip()[-300:]}")
        (program,) = (each for each in folder.iterdir() if not each.name.startswith(("main.go", "go.")))
        program.replace(kept)  # as another test run may do just now
    return kept
