"""Stores that are made, not loaded, for what only shows at scale.

    python benchmarks/synthetic.py images ARCHIVE [--count 1000]     a docker archive of tiny images
    python benchmarks/synthetic.py gc STORE [--layers 100000]        a store of which only the catalog is there

The second has every row that a real store of that size would have, and no packs: what gc plans and what its
transactions do is all in the catalog. Its content is modelled on what loading and repacking versions of real images
leaves:

- a layer is 6,000 chunks of 16 KiB (98 MB); a product has five layers an image and twenty versions of it
- from version to version a tenth of a layer's chunks is new, in 30 runs; a fifth of the first version is shared with
  other products (a popular base)
- versions of all products arrive by turns, so a layer's chunks lie in about as many packs as it has had versions;
  packs are 64 MiB stored (11,776 chunks), packed hard and measured: as the last gc left them
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tarfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np

import casstore
from casstore.model import U32
from casstore.store.catalog import Catalog, WriteTx
from casstore.store.query import pack_intervals

CHUNK = 16 << 10
CHUNKS = 6_000
"""Chunks of a layer."""
LAYERS = 5
"""Layers of an image."""
VERSIONS = 20
FRESH_RUNS, FRESH_RUN = 30, 20
"""What is new in a version: runs of chunks."""
POPULAR, POPULAR_RUN = 40, CHUNKS // 5
"""Runs of chunks that many products share, and their length."""
PACK_CHUNKS = 46 * 256
"""46 frames of 4 MiB: about 64 MiB stored."""
PACK_SIZE = 64 << 20
RECIPE = 250 << 10
"""Stored bytes of a recipe of 6,000 chunks; a metadata pack of 64 MiB holds 262 of them."""
SEGMENTS = 6
LONG_AGO = 1.0


class Growing:
    """The state of all layers at one version: for each of them the chunks that it is made of, by number of arrival."""

    def __init__(self, lineages: int) -> None:
        self.random = np.random.default_rng(1)
        self.chunks = np.empty((lineages, CHUNKS), np.int64)
        self.arrived = POPULAR * POPULAR_RUN  # the popular runs came first

    def first(self, one: int) -> None:
        start = int(self.random.integers(POPULAR)) * POPULAR_RUN
        self.chunks[one, :POPULAR_RUN] = np.arange(start, start + POPULAR_RUN)
        self.chunks[one, POPULAR_RUN:] = self._arrive(CHUNKS - POPULAR_RUN)

    def next(self, one: int) -> None:
        for at in self.random.integers(0, CHUNKS - FRESH_RUN, FRESH_RUNS):
            self.chunks[one, at : at + FRESH_RUN] = self._arrive(FRESH_RUN)

    def _arrive(self, count: int) -> np.ndarray:
        first, self.arrived = self.arrived, self.arrived + count
        return np.arange(first, self.arrived)

    def uses(self, one: int) -> Iterator[tuple[int, U32]]:
        """(pack number, intervals of addresses) of a layer as it is now."""
        chunks = np.unique(self.chunks[one])
        packs = chunks // PACK_CHUNKS
        # Frames are full, so neighbours in a pack are neighbours in the address space.
        heads = np.flatnonzero(np.diff(chunks, prepend=-2) != 1)
        heads = np.union1d(heads, np.flatnonzero(np.diff(packs, prepend=-1)))
        tails = np.append(heads[1:], len(chunks)) - 1
        within = np.stack([chunks[heads] % PACK_CHUNKS, chunks[tails] % PACK_CHUNKS + 1], axis=1) * CHUNK
        pack = packs[heads]
        bounds = np.flatnonzero(np.diff(pack, prepend=-1))
        for begin, end in zip(bounds, np.append(bounds[1:], len(pack)), strict=True):
            yield int(pack[begin]), within[begin:end].astype(np.uint32)


class Rows:
    """Writes catalog rows; ids are given out here, packs get theirs as they are first used."""

    def __init__(self, tx: WriteTx) -> None:
        self.tx = tx
        self.pack_ids: dict[int, int] = {}
        self.meta: list[int] = []
        self.blobs = 0

    def pack(self, number: int) -> int:
        if number not in self.pack_ids:
            self.pack_ids[number] = self._object("data", PACK_SIZE, PACK_CHUNKS * CHUNK)
        return self.pack_ids[number]

    def metadata(self) -> int:
        """The metadata pack that the next record goes into."""
        if self.blobs * RECIPE >= len(self.meta) * PACK_SIZE:
            self.meta.append(self._object("metadata", PACK_SIZE, 0))
        return self.meta[-1]

    def _object(self, kind: str, size: int, chunk_bytes: int) -> int:
        key = os.urandom(16).hex()
        name = f"index/{key}" if kind == "index" else f"packs/{key[:2]}/{key}"
        return self.tx.insert(
            "INSERT INTO object (key, kind, state, lease, size, chunk_bytes, deep) VALUES (?, ?, 'live', 0, ?, ?, ?)",
            (name, kind, size, chunk_bytes, int(kind == "data")),
        )

    def blob(self, state: str, size: int, length: int, media_type: str) -> tuple[int, bytes]:
        """A blob under a digest of its own, and its edge to its metadata pack; (id, digest)."""
        digest = os.urandom(32)
        pack = self.metadata()
        self.blobs += state == "packed"
        blob = self.tx.insert(
            "INSERT INTO blob (digest, size, state, loc_state, loc, loc_frame, loc_offset, loc_length, encoding,"
            " media_type, diffid, created, last_read, spot)"
            " VALUES (?, ?, 'live', ?, ?, 0, 0, ?, 'identity', ?, ?, ?, ?, x'')",
            (digest, size, state, pack, length, media_type, digest if state == "packed" else None, LONG_AGO, LONG_AGO),
        )
        self.tx.run("INSERT INTO place (blob, object, used) VALUES (?, ?, x'')", (blob, pack))
        return blob, digest

    def segments(self) -> None:
        """Index segments over all packs, each about half as large as the one before."""
        packs = sorted(self.pack_ids.values())
        for number in range(SEGMENTS):
            share = packs[len(packs) - (len(packs) >> number) : len(packs) - (len(packs) >> (number + 1))]
            share = packs[len(packs) - (len(packs) >> number) :] if number == SEGMENTS - 1 else share
            segment = self._object("index", len(share) * PACK_CHUNKS * 48, 0)
            self.tx.many("INSERT INTO covers (segment, pack) VALUES (?, ?)", ((segment, pack) for pack in share))


def store(root: Path, layers: int) -> dict[str, int]:
    """Make the store at `root`, which must be empty; returns what it holds."""
    casstore.init(root)
    products = max(1, layers // (LAYERS * VERSIONS))
    growing = Growing(products * LAYERS)
    catalog = Catalog(root)
    edges = intervals = 0
    with catalog.write() as tx:
        rows = Rows(tx)
        for version in range(VERSIONS):
            for product in range(products):
                below = []
                for one in range(product * LAYERS, (product + 1) * LAYERS):
                    growing.next(one) if version else growing.first(one)
                    blob, _ = rows.blob("packed", CHUNKS * CHUNK, RECIPE, "application/vnd.oci.image.layer.v1.tar")
                    uses = [(blob, rows.pack(number), pack_intervals(used)) for number, used in growing.uses(one)]
                    tx.many("INSERT INTO place (blob, object, used) VALUES (?, ?, ?)", uses)
                    edges += len(uses)
                    intervals += sum(len(used) for _, _, used in uses) // 8
                    below.append(blob)
                _image(rows, product, version, below)
        rows.segments()
    catalog.checkpoint()
    catalog.close()
    return {
        "layers": products * LAYERS * VERSIONS,
        "images": products * VERSIONS,
        "chunk references": products * LAYERS * VERSIONS * CHUNKS,
        "chunks": growing.arrived,
        "packs": len(rows.pack_ids),
        "edges layer to pack": edges,
        "intervals": intervals,
        "catalog bytes": (root / "catalog.sqlite").stat().st_size,
    }


def _image(rows: Rows, product: int, version: int, layers: list[int]) -> None:
    config, digest = rows.blob("inline", 4 << 10, 4 << 10, "application/vnd.oci.image.config.v1+json")
    manifest, _ = rows.blob("inline", 1 << 10, 1 << 10, "application/vnd.oci.image.manifest.v1+json")
    tx = rows.tx
    tx.many("INSERT INTO child (parent, child) VALUES (?, ?)", ((manifest, one) for one in (config, *layers)))
    tx.run(
        "INSERT INTO image (manifest, config, created, size, os, architecture, variant, labels, parent)"
        " VALUES (?, ?, '2024-01-01T00:00:00Z', ?, 'linux', 'amd64', '', '{}', '')",
        (manifest, digest, LAYERS * CHUNKS * CHUNK),
    )
    tx.run(
        "INSERT INTO tag (repository, tag, target, created) VALUES (?, ?, ?, ?)",
        (f"docker.io/library/product-{product}", f"v{version}", manifest, LONG_AGO),
    )


def archive(out: Path, count: int) -> None:
    """A docker archive of `count` images, each with one tiny layer of its own."""
    listed = []
    with tarfile.open(out, "w") as target:

        def add(name: str, data: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            target.addfile(member, io.BytesIO(data))

        for number in range(count):
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as tar:
                member = tarfile.TarInfo("etc/number")
                data = f"{number}\n".encode()
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
            layer = inner.getvalue()
            config = {
                "architecture": "amd64",
                "os": "linux",
                "created": f"2024-01-{1 + number % 28:02}T00:00:{number % 60:02}Z",
                "config": {"Cmd": ["/bin/true"], "Labels": {"number": str(number)}},
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(layer).hexdigest()}"]},
            }
            raw = json.dumps(config).encode()
            name = f"{sha256(raw).hexdigest()}.json"
            add(f"{number}/layer.tar", layer)
            add(name, raw)
            tag = f"tiny/{number % 100}:{number}"
            listed.append({"Config": name, "RepoTags": [tag], "Layers": [f"{number}/layer.tar"]})
        add("manifest.json", json.dumps(listed).encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    images = verbs.add_parser("images")
    images.add_argument("out", type=Path)
    images.add_argument("--count", type=int, default=1000)
    gc = verbs.add_parser("gc")
    gc.add_argument("out", type=Path)
    gc.add_argument("--layers", type=int, default=100_000)
    given = parser.parse_args()
    if given.verb == "images":
        archive(given.out, given.count)
    else:
        print(json.dumps(store(given.out, given.layers)))


if __name__ == "__main__":
    main()
