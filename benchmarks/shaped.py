"""Images over a link of a given rate that breaks again and again: from a docker-registry, and to an empty one.

    python benchmarks/shaped.py STORAGE --work DIR [--rate 100e6] [--resets 0.01] …

STORAGE: what a docker-registry keeps (its `rootdirectory`), with the images; nothing in it is changed. Every image is
pulled over the link, by one command each, into an empty store, which is then checked with all its data; then all are
pushed over a link to an empty registry, whose blobs are compared with their digests and with STORAGE's, byte for byte.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from link import linked


@contextlib.contextmanager
def registry(storage: Path, folder: Path) -> Iterator[str]:
    """docker-registry over a folder: where it listens."""
    program = shutil.which("docker-registry")
    if program is None:
        sys.exit("docker-registry is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        there = f"127.0.0.1:{free.getsockname()[1]}"
    config = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(storage)},
            "maintenance": {"uploadpurging": {"enabled": False}},
        },
        "http": {"addr": there},
    }
    file = folder / f"{storage.name}.json"
    file.write_text(json.dumps(config))
    with (folder / f"{storage.name}.log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(file)], stdout=log, stderr=log)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", int(there.rpartition(":")[2])), timeout=1).close()
                break
            time.sleep(0.1)
        yield there
    finally:
        process.terminate()
        process.wait()


def listed(there: str) -> list[str]:
    """All names with their tags."""
    found = []
    for name in _json(f"http://{there}/v2/_catalog?n=1000")["repositories"]:
        found += [f"{name}:{tag}" for tag in _json(f"http://{there}/v2/{name}/tags/list")["tags"] or ()]
    return sorted(found)


def _json(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=30) as answer:
        value: dict[str, Any] = json.load(answer)
    return value


def casstore(store: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "casstore", "--store", str(store), *words], capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"casstore {' '.join(words)}: {done.stderr[-2000:]}")
    return done.stdout


def blobs(storage: Path) -> dict[str, Path]:
    return {path.parent.name: path for path in storage.glob("docker/registry/v2/blobs/sha256/*/*/data")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("storage", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rate", default="100e6", help="bytes a second, each way (100e6)")
    parser.add_argument("--resets", default="0.01", help="share of units that break their connection (0.01)")
    parser.add_argument("--unit", default=str(1 << 20), help="bytes of such a unit (1 MiB)")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    work = asked.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    shape = ["--rate", asked.rate, "--resets", asked.resets, "--unit", asked.unit, "--seed", asked.seed]
    store, target = work / "store", work / "target"
    rows: list[dict[str, Any]] = []

    def row(job: str, began: float, counts: Any, carried: int) -> None:
        wall = time.perf_counter() - began
        rows.append({"job": job, "seconds": wall, "blob bytes": carried} | asdict(counts))
        extra = max(counts.up, counts.down) / carried - 1
        print(
            f"{job}: {carried / 1e6:.0f} MB of blobs in {wall:.1f} s ({carried / wall / 1e6:.0f} MB/s), "
            f"{counts.resets} resets, {counts.connections} connections, {extra:+.1%} bytes more than that went over",
            flush=True,
        )

    with registry(asked.storage.resolve(), work) as there:
        names = listed(there)
        began = time.perf_counter()
        with linked(there, *shape) as (near, counts):
            for name in names:
                casstore(store, "pull", "-q", f"{near}/{name}")
        pulled = sum(path.stat().st_size for path in blobs(asked.storage).values())
        row("pull", began, counts, pulled)
    casstore(store, "check", "--read-data")
    target.mkdir()
    with registry(target, work) as there:
        with linked(there, *shape) as (far, counts):
            for name in names:
                casstore(store, "tag", f"{near}/{name}", f"{far}/{name}")
            began = time.perf_counter()
            for name in names:
                casstore(store, "push", "-q", f"{far}/{name}")
        row("push", began, counts, sum(path.stat().st_size for path in blobs(target).values()))
        assert listed(there) == names
    before, after = blobs(asked.storage), blobs(target)
    assert before.keys() == after.keys(), before.keys() ^ after.keys()
    for digest, path in after.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    print(f"{len(after)} blobs of {len(names)} images at the other end, each with its digest")
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
