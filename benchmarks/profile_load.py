"""Where the CPU time of `load` goes, by stage, in seconds per GB of archive.

    python benchmarks/profile_load.py ARCHIVE --work DIR [--rounds N] [--codec zstd:N] [--json FILE]

The stage functions are wrapped from outside, in this process only. A stage's time is that of the thread it runs in,
less that of stages called from within; `wall` is how long threads stood in it, waiting for the disk, a lock or the
interpreter included. What no stage counts is the Python between them (and SQLite).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import casstore
from casstore.codec import frame as frame_codec
from casstore.flow import frames as flow_frames
from casstore.flow import ingest as flow_ingest
from casstore.flow import source as flow_source
from casstore.flow import split as flow_split
from casstore.format import pack as pack_format
from casstore.kernels import cut, hashing, spans, table, tarscan
from casstore.store import index as store_index
from casstore.store import objects as store_objects
from casstore.store import packs as store_packs

Timed = Callable[..., Any]

STAGES = (
    "read",
    "scan",
    "cut",
    "hash",
    "dedup, index",
    "gather frames",
    "compress",
    "check: decode",
    "check: hash",
    "checksum frames",
    "write",
    "fsync",
    "seal, recipes",
)


class Clock:
    """Counts CPU and wall time by stage; nested stages are taken off the one around them."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._lock = threading.Lock()
        self.cpu: dict[str, float] = defaultdict(float)
        self.wall: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)

    def timed(self, stage: str, function: Timed, inside: dict[str, str] | None = None) -> Timed:
        """The function, counted under `stage`; or under inside[s] where it is called within stage s."""

        def name_of(stack: list[Any]) -> str:
            if not inside:
                return stage
            return next((inside[outer[0]] for outer in reversed(stack) if outer[0] in inside), stage)

        @wraps(function)
        def counted(*args: Any, **named: Any) -> Any:
            stack = self._local.__dict__.setdefault("stack", [])
            name = name_of(stack)
            frame = [name, 0.0, 0.0]
            stack.append(frame)
            cpu, wall = time.thread_time(), time.perf_counter()
            try:
                return function(*args, **named)
            finally:
                cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
                stack.pop()
                if stack:
                    stack[-1][1] += cpu
                    stack[-1][2] += wall
                with self._lock:
                    self.cpu[name] += cpu - frame[1]
                    self.wall[name] += wall - frame[2]
                    self.calls[name] += 1

        return counted

    def wrap(self, stage: str, owner: Any, *names: str, inside: dict[str, str] | None = None) -> None:
        """Replace functions of a module or class by counted ones."""
        for name in names:
            setattr(owner, name, self.timed(stage, getattr(owner, name), inside))

    def proxy(self, owner: Any, name: str, **methods: str) -> None:
        """Replace a compiled class, whose methods cannot be replaced, by one that counts them."""
        made = getattr(owner, name)
        clock = self

        class Counted:
            def __init__(self, *args: Any, **named: Any) -> None:
                self._inner = made(*args, **named)
                for method, stage in methods.items():
                    setattr(self, method, clock.timed(stage, getattr(self._inner, method)))

            def __getattr__(self, attribute: str) -> Any:
                return getattr(self._inner, attribute)

            def __len__(self) -> int:
                return len(self._inner)

        setattr(owner, name, Counted)


def install(clock: Clock) -> None:
    """Wrap every stage of the line in."""
    clock.wrap("read", flow_source.RangeSource, "readinto")
    clock.wrap("read", flow_source.StreamSource, "readinto")
    clock.proxy(tarscan, "Scanner", feed="scan", finish="scan")
    clock.wrap("cut", cut, "cut")
    # The check of a frame hashes its chunks again; it is told apart by where it is called.
    checking = {"frame": "check: hash"}
    clock.wrap("hash", hashing, "names", "blake3_names", inside=checking)
    stream_and_names = hashing.stream_and_names
    hashing.stream_and_names = clock.timed("hash", stream_and_names)
    clock.proxy(table, "ChunkMap", claim="dedup, index", set="dedup, index", get="dedup, index")
    clock.wrap("dedup, index", store_index.IndexSet, "locate", "__init__")
    clock.wrap("gather frames", spans, "copy")
    clock.wrap("frame", flow_frames.FramePool, "_make")
    clock.wrap("compress", frame_codec, "compress")
    clock.wrap("check: decode", frame_codec, "decompress")
    clock.wrap("checksum frames", pack_format, "encode_frame")
    clock.wrap("write", store_objects.Staged, "write")
    clock.wrap("fsync", store_objects.Staged, "push")
    clock.wrap("fsync", store_objects, "sync_folder")
    store_objects.os.fsync = clock.timed("fsync", os.fsync)
    clock.wrap("seal, recipes", store_packs.PackShelf, "seal")
    clock.wrap("seal, recipes", flow_ingest, "write_metadata_pack", "encode_segment")
    clock.wrap("seal, recipes", flow_ingest, "recipe_of")
    clock.wrap("split, python", flow_split.Splitter, "_feed", "_told_apart", "_all_literal")
    clock.wrap("split, python", flow_split.Splitter, "_gather_literals", "_emit", "_finish")
    clock.wrap("frames, python", flow_frames.FrameBuilder, "add", "close")


def profile(archive: Path, root: Path, codec: str | None, clock: Clock) -> dict[str, float]:
    """One load into an empty store: what it took as a whole."""
    shutil.rmtree(root, ignore_errors=True)
    with casstore.open(root) as store:
        if codec is not None:
            store.config.set("compression", codec)
        os.sync()
        before = resource.getrusage(resource.RUSAGE_SELF)
        cpu, wall, serial = time.process_time(), time.perf_counter(), time.thread_time()
        store.load(archive)
        cpu, wall, serial = time.process_time() - cpu, time.perf_counter() - wall, time.thread_time() - serial
        after = resource.getrusage(resource.RUSAGE_SELF)
    shutil.rmtree(root)
    return {
        "cpu": cpu,
        "wall": wall,
        "serial": serial,
        "system": after.ru_stime - before.ru_stime,
        "faults": after.ru_minflt - before.ru_minflt,
    }


def table_of(clock: Clock, runs: list[dict[str, float]], size: int) -> list[dict[str, Any]]:
    """Rows of the table: stage, CPU and wall seconds per GB, calls a run."""
    scale = 1e9 / size / len(runs)
    names = [*STAGES, *sorted(set(clock.cpu) - set(STAGES) - {"frame"})]
    rows = [
        {"stage": name, "cpu": clock.cpu[name] * scale, "wall": clock.wall[name] * scale, "calls": clock.calls[name]}
        for name in names
    ]
    total = sum(run["cpu"] for run in runs) * scale
    rest = total - sum(row["cpu"] for row in rows)
    rows.append({"stage": "rest (Python, SQLite)", "cpu": rest, "wall": 0.0, "calls": 0})
    rows.append({"stage": "all", "cpu": total, "wall": sum(run["wall"] for run in runs) * scale, "calls": 0})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("archive", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--codec", help="instead of the store's default")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    for kernel in (tarscan, cut, hashing, table, spans):
        if kernel.IMPLEMENTATION != "compiled":
            raise SystemExit(f"{kernel.__name__} is not compiled: make build")
    given.work.mkdir(parents=True, exist_ok=True)
    size = given.archive.stat().st_size
    with given.archive.open("rb") as file:
        while file.read(8 << 20):
            pass
    clock = Clock()
    install(clock)
    runs = [profile(given.archive, given.work / "store-profile", given.codec, clock) for _ in range(given.rounds)]
    rows = table_of(clock, runs, size)
    print(f"{given.archive.name}, {size / 1e9:.3f} GB, {given.codec or 'default codec'}, mean of {given.rounds} loads")
    print(f"{'stage':<24}{'CPU s/GB':>10}{'share':>8}{'wall s/GB':>11}{'calls':>8}")
    for row in rows:
        share, calls = row["cpu"] / rows[-1]["cpu"], row["calls"] // given.rounds
        print(f"{row['stage']:<24}{row['cpu']:>10.3f}{share:>8.1%}{row['wall']:>11.3f}{calls:>8}")
    system = statistics.mean(run["system"] for run in runs) * 1e9 / size
    faults = statistics.mean(run["faults"] for run in runs) * 1e9 / size
    serial = statistics.mean(run["serial"] for run in runs) * 1e9 / size
    print(f"of it in the kernel {system:.3f}, in the main thread {serial:.3f} CPU s/GB; {faults:,.0f} page faults a GB")
    if given.json is not None:
        given.json.write_text(json.dumps({"size": size, "codec": given.codec, "rows": rows, "runs": runs}, indent=1))


if __name__ == "__main__":
    main()
