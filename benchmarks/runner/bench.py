"""What every job gets: where things are, who takes part, where results go."""

from __future__ import annotations

import json
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .process import Ran, run
from .programs import Casstore, Program
from .report import Report

PROBES = Path(__file__).resolve().parent.parent / "probes"


def names_of(archive: Path) -> list[str]:
    """The image names in a docker archive."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile("manifest.json")
        listed = json.load(member) if member else []
    return [name for image in listed for name in image["RepoTags"] or ()]


@dataclass
class Bench:
    """One run of the benchmarks."""

    corpus: Path
    work: Path
    rounds: int
    layers: int
    """Layers of the synthetic store of `gc`."""
    every: int
    """Each how-many-th layer of the corpus every encoder packs."""
    encoders: Sequence[str]
    """Of which programs: what their names begin with; none: all."""
    layouts: Path | None
    """OCI layouts of other images, if there are any."""
    casstore: Casstore
    peers: list[Program]
    report: Report

    @property
    def apps(self) -> Path:
        return self.corpus / "apps.tar"

    @property
    def bases(self) -> Path:
        return self.corpus / "bases.tar"

    def peer(self, name: str) -> Program | None:
        """A peer by name, None where this machine has none."""
        return next((one for one in self.peers if one.name == name), None)

    def probe(self, name: str, *words: str | Path) -> tuple[Any, Ran]:
        """Run probes/NAME.py in a process of its own: (what it printed, JSON decoded; what it took)."""
        ran = run([sys.executable, PROBES / f"{name}.py", *words], keep=True)
        return json.loads(ran.out), ran

    def script(self, name: str, *words: str | Path) -> Ran:
        """Run a script of this folder."""
        return run([sys.executable, PROBES.parent / f"{name}.py", *words], keep=True)


Names = Sequence[str]
