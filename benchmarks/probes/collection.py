"""gc on a store of which only the catalog is there: probes/collection.py STORE SHARE → one JSON object.

Untags that share of the images (half of it single versions at random, half whole products), then does what `casstore
gc` does as far as the catalog goes: plans, collects, and plans what to rewrite, for which the live bytes of every pack
that lost a layer are measured. Rewriting itself needs packs and is left out. Times in seconds; `held`: each write
transaction's name and how long it held the lock."""

from __future__ import annotations

import json
import random
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import casstore
from casstore.store import collector, names, protocol
from casstore.upkeep import gc, records, repack


def peak() -> int:
    """Most memory that this process has had so far (bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def chosen(tags: list[tuple[str, str]], share: float) -> list[tuple[str, str]]:
    """The tags to be deleted: products whose versions arrived side by side, so that packs die whole; and any others."""
    count = max(2, round(len(tags) * share))
    number = {repository: int(repository.rpartition("-")[2]) for repository, _ in tags}
    whole = sorted(tags, key=lambda tag: number[tag[0]])[: count // 2]
    rest = sorted(set(tags) - set(whole))
    return whole + random.Random(1).sample(rest, count - len(whole))


def main(root: Path, share: float) -> dict[str, Any]:
    result: dict[str, Any] = {"peak before": peak()}
    with casstore.open(root, create=False) as store:
        volume = store.volume
        with volume.catalog.read() as tx:
            tags = [(tag.repository, tag.tag) for tag in names.tags(tx)]
        going = chosen(tags, share)
        protocol.untag(volume.catalog, going)
        result["images deleted"] = len(going)

        def timed(name: str, work: Callable[[], Any]) -> Any:
            began = time.perf_counter()
            made = work()
            result[name] = time.perf_counter() - began
            return made

        held: list[tuple[str, float]] = []
        plan = timed("plan", lambda: gc.make_plan(volume, 0.0))
        result["planned"] = {"blobs": len(plan.garbage.blobs), "objects": len(plan.garbage.objects)}
        result["peak after plan"] = peak()
        volume.catalog.on_write.append(lambda name, seconds: held.append((name, seconds)))
        done = timed("collect", lambda: collector.collect(volume.catalog, volume.objects, grace=0.0))
        result["collected"] = {"blobs": done.blobs_purged, "objects": done.objects_deleted}
        with volume.catalog.read() as tx:
            result["packs to measure"] = int(tx.value("SELECT count(*) FROM object WHERE kind = 'data' AND dirty > 0"))
        worn, fine = timed("plan rewriting", lambda: repack.plan(volume))
        result["packs to rewrite"] = len(worn)
        timed("note measured", lambda: collector.gc_clean(volume.catalog, fine))
        timed("plan merging", lambda: (records.metadata_groups(volume), records.segment_plan(volume)))
        result["held"] = held
    result["peak"] = peak()
    return result


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), float(sys.argv[2]))))
