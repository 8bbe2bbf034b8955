"""What a store's bytes are made of: probes/space.py STORE → one JSON object, all in bytes."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import casstore
from casstore.store import protocol, query


def main(root: Path) -> dict[str, object]:
    with casstore.open(root, create=False) as store:
        volume = store.volume
        parts: Counter[str] = Counter()
        counts: Counter[str] = Counter()
        with volume.catalog.read() as tx:
            rows = list(query.objects(tx))
            segments = protocol.live_segments(tx)
            for info in query.blobs(tx):
                counts[f"blobs {info.place.state}"] += 1
                parts["recipes (uncompressed)"] += info.place.length if info.place.state == "packed" else 0
        for row in rows:
            name = {"blob": "loose blobs", "data": "data packs", "metadata": "metadata packs"}.get(row.kind, "index")
            counts[name] += 1
            parts[name] += row.size
            if row.kind in ("data", "metadata"):
                pack = volume.packs.pack(row.key)
                stored = int(pack.frames["stored"].sum(dtype="u8"))
                raw = int(pack.frames["raw"].sum(dtype="u8"))
                parts[f"{name}: frames"] += stored
                parts[f"{name}: tables"] += pack.table_bytes
                parts[f"{name}: frames, uncompressed"] += raw
                counts[f"{name}: frames"] += len(pack.frames)
        chunks = len(volume.index(segments))
        chunk_bytes = sum(row.chunk_bytes for row in rows if row.kind == "data" and row.state == "live")
    files = {path.relative_to(root).as_posix(): path.stat().st_size for path in root.rglob("*") if path.is_file()}
    parts["catalog"] = sum(size for name, size in files.items() if name.startswith("catalog."))
    total = sum(files.values())
    objects = ("loose blobs", "data packs", "metadata packs", "index")
    parts["rest"] = total - parts["catalog"] - sum(parts[one] for one in objects)
    return {"total": total, "parts": parts, "counts": counts, "chunks": chunks, "chunk_bytes": chunk_bytes}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
