"""Jobs about bytes: what the corpus takes in a store, before and after gc, whether it comes back, and at what cost."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Any

from .bench import Bench
from .process import run
from .programs import Casstore
from .report import MiB
from .speed import saved_beside_docker

PIECE = 1 << 20


def store(bench: Bench) -> None:
    """apps.tar and bases.tar: stored bytes, every layer compared; then gc, and the same; then save beside docker."""
    casstore = Casstore(bench.work / "store-space")
    casstore.empty()
    casstore.ensure(bench.apps, bench.bases)
    gzip = sum(path.stat().st_size for path in (bench.corpus / "layers").iterdir())
    layers = raw_layers(bench.corpus / "raw")
    stored(bench, casstore, gzip, "after loading apps and bases", 0.42)
    identical(bench, casstore, layers, "after loading")
    decoded(bench, casstore, layers, "before gc", barred=False)

    ran = run(casstore.command("gc", "--max-time", "1h", "--format", "json"), keep=True)
    bench.report.keep("gc of the corpus", {"casstore": [ran]})
    bench.report.add("gc of that store, all of it repacked", "", f"{ran.wall:.1f} s, {ran.cpu:.1f} s of CPU")
    bench.report.add("peak memory of that gc", "", f"{ran.peak / MiB:.0f} MiB")

    stored(bench, casstore, gzip, "after gc", 0.34)
    identical(bench, casstore, layers, "after gc")
    decoded(bench, casstore, layers, "after gc", barred=True)
    saved_beside_docker(bench, "save after gc", casstore, 3.0)
    casstore.close()


def raw_layers(folder: Path) -> dict[str, Path]:
    """The corpus's layers by the digest of their uncompressed bytes."""
    found = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            found[f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"] = path
    return found


def stored(bench: Bench, casstore: Casstore, gzip: int, when: str, bar: float) -> None:
    """Rows: bytes of the whole folder against the registry's, and what they are made of."""
    found, _ = bench.probe("space", casstore.home)
    share = found["total"] / gzip
    bench.report.add(
        f"stored bytes {when}",
        f"<= {bar:.2f} of the registry's gzip layers",
        f"{share:.3f} ({found['total'] / 1e6:.1f} of {gzip / 1e6:.1f} MB)",
        share <= bar,
        share=share,
        registry=gzip,
        **found,
    )
    bench.report.add(f"... made of, {when}", "", made_of(found))


def made_of(found: dict[str, Any]) -> str:
    """One line for the table."""
    parts, counts = found["parts"], found["counts"]

    def megabytes(name: str) -> str:
        return f"{parts.get(name, 0) / 1e6:.2f}"

    packs = f"frames {megabytes('data packs: frames')}, tables {megabytes('data packs: tables')}"
    average = found["chunk_bytes"] / max(1, found["chunks"])
    return (
        f"{counts.get('data packs', 0)} data packs {megabytes('data packs')} MB ({packs}),"
        f" metadata packs {megabytes('metadata packs')}, index {megabytes('index')}, catalog {megabytes('catalog')},"
        f" loose {megabytes('loose blobs')}, rest {megabytes('rest')}; {found['chunks']} chunks of {average:.0f} bytes"
        f" on average, {found['chunk_bytes'] / 1e6:.1f} MB in all"
    )


def identical(bench: Bench, casstore: Casstore, layers: dict[str, Path], when: str) -> None:
    """A row: how many layers `blob cat` gives back byte for byte."""
    good = [digest for digest, path in layers.items() if same(casstore.command("blob", "cat", digest), path)]
    wrong = sorted(set(layers) - set(good))
    bench.report.add(
        f"blob cat equals its bytes, {when}",
        "every layer",
        f"{len(good)} of {len(layers)} layers",
        not wrong,
        wrong=wrong,
    )


def same(command: list[str], path: Path) -> bool:
    """Whether a command succeeds and prints exactly the bytes of a file."""
    with path.open("rb") as file, subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        if child.stdout is None:
            return False
        equal = True
        while equal:
            expected = file.read(PIECE)
            equal = child.stdout.read(len(expected) or 1) == expected
            if not expected:
                break
        child.stdout.close()
        return child.wait() == 0 and equal


def decoded(bench: Bench, casstore: Casstore, layers: dict[str, Path], when: str, *, barred: bool) -> None:
    """Rows: bytes decoded to restore each layer alone, relative to its size."""
    found, ran = bench.probe("decoded", casstore.home, *layers)
    shares = sorted(one["decoded"] / one["size"] for one in found)
    mean = sum(shares) / len(shares)
    what = f"bytes decoded to restore a layer, {when}"
    many = f"{len(shares)} layers"
    bench.report.add(
        f"{what}, mean of {many}", "<= 1.3x its size" if barred else "", f"{mean:.2f}x", mean <= 1.3 if barred else None
    )
    bench.report.add(
        f"{what}, worst",
        "<= 2x its size" if barred else "",
        f"{shares[-1]:.2f}x",
        shares[-1] <= 2.0 if barred else None,
        layers=found,
        peak=ran.peak / MiB,
    )
