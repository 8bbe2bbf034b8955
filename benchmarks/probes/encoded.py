"""gzip blobs taken apart and made again, one by one, in memory: probes/encoded.py LIMIT FILE… → a JSON list.

LIMIT: what a trace may be of its blob. Content is kept in memory, so that nothing of a store is measured. All is done
pinned to one core, and the file of the most content then once more on all that there are."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from casstore.codec.gzip import Analysis
from casstore.codec.replay import replay
from casstore.format import trace as trace_format

PIECE = 1 << 20


class _Clock:
    """Wall seconds and CPU seconds of all threads since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def told(self) -> dict[str, float]:
        return {"wall": time.perf_counter() - self._wall, "cpu": time.process_time() - self._cpu}


def main(limit: float, paths: list[Path]) -> list[dict[str, Any]]:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    found = [one(path, limit) for path in paths]
    packed = [(row["content"], number) for number, row in enumerate(found) if row["exact"]]
    if packed and len(cores) > 1:
        os.sched_setaffinity(0, cores)
        _, number = max(packed)
        again = one(paths[number], limit)
        found[number] |= {"cores": len(cores), **{f"{name} on all": again[name] for name in ("apart", "again")}}
    return found


def one(path: Path, limit: float) -> dict[str, Any]:
    """What it took, and whether it came back."""
    size = path.stat().st_size
    content = bytearray()
    row: dict[str, Any] = {"file": path.name, "size": size, "packed": False, "exact": False}
    with path.open("rb", buffering=0) as file:
        analysis = Analysis(file)
        spent = 0.0
        clock = _Clock()
        for piece in analysis:
            copied = time.thread_time()
            content += piece
            spent += time.thread_time() - copied
        row["apart"] = clock.told()
    row["apart"]["cpu"] -= spent
    row["content"] = len(content)
    row["reason"] = analysis.reason
    if analysis.trace is None:
        return row
    kept = trace_format.encode(analysis.trace)
    row["trace"] = len(kept)
    row["engines"] = [f"{choice.name} {choice.version} level {choice.level}" for choice in analysis.trace.engines]
    row["corrections"] = sum(len(part.exceptions) for member in analysis.trace.members for part in member.segments)
    row["goes_on"] = sum(part.goes_on for member in analysis.trace.members for part in member.segments)
    if len(kept) > limit * size:
        row["reason"] = f"its trace would be {100 * len(kept) / size:.1f} % of it"
        return row
    row["packed"] = True
    view = memoryview(content)
    digest = hashlib.sha256()
    clock = _Clock()
    hashing = 0.0
    for made in replay(trace_format.decode(kept), lambda start, end: view[start:end]):
        before = time.thread_time()
        digest.update(made)
        hashing += time.thread_time() - before
    row["again"] = clock.told()
    row["again"]["cpu"] -= hashing
    row["again"]["hashing"] = hashing
    with path.open("rb") as file:
        row["exact"] = digest.digest() == hashlib.file_digest(file, "sha256").digest()
    return row


if __name__ == "__main__":
    print(json.dumps(main(float(sys.argv[1]), [Path(name) for name in sys.argv[2:]])))
