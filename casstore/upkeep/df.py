"""`df`: what the store holds, what it takes, and what each image shares with the others, down to the chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from ..digest import Digest
from ..errors import Damaged, NotFound
from ..format.pack import DataTable
from ..model import U32, U64, BlobInfo
from ..store import names, query
from ..store.volume import Volume

Images = Iterable[tuple[str, Iterable[BlobInfo]]]
"""(reference, blobs) of each image."""


@dataclass(frozen=True, slots=True)
class ImageUse:
    """One image's part (bytes): `size` of its blobs; of the distinct content below them, `shared` with other images and
    `unique` to this one."""

    reference: str
    size: int
    shared: int
    unique: int


@dataclass(frozen=True, slots=True)
class DfReport:
    """`blob_bytes`: sizes of all blobs. `chunks`, `chunk_bytes`: the distinct content below the packed ones,
    uncompressed. `stored_bytes`: the files of the store, but for `cache_bytes`: blobs that were made again, kept until
    the room is wanted. `saved_bytes`: blob_bytes less stored_bytes."""

    images: int
    blobs: int
    blob_bytes: int
    chunks: int
    chunk_bytes: int
    stored_bytes: int
    cache_bytes: int = 0
    per_image: list[ImageUse] = field(default_factory=list)

    @property
    def saved_bytes(self) -> int:
        return self.blob_bytes - self.stored_bytes


def df(volume: Volume, images: Callable[[], Images] | None = None) -> DfReport:
    """Measure. `images`, where given, adds a row for each image."""
    with volume.catalog.read() as tx:
        stats = names.stats(tx)
        packs = [row.key for row in query.objects(tx, "data") if row.state == "live"]
    chunks, chunk_bytes = distinct(volume, packs)
    cached = volume.cache.usage()
    return DfReport(
        stats.images,
        stats.blob_count,
        stats.blob_bytes,
        chunks,
        chunk_bytes,
        volume.objects.usage() - cached,
        cached,
        per_image(images()) if images is not None else [],
    )


def distinct(volume: Volume, packs: Iterable[str]) -> tuple[int, int]:
    """How many different chunks these packs hold, and their bytes. The packs' own tables tell: gc may store a chunk
    twice, and the index lists those of packs that are gone until it is merged."""
    names_: list[U64] = [np.empty(0, np.uint64)]
    lengths: list[U32] = [np.empty(0, np.uint32)]
    for key in packs:
        try:
            table = volume.packs.pack(key).table
        except (Damaged, NotFound):
            continue  # check tells
        if isinstance(table, DataTable):
            # Eight bytes of a name will do: two of 10**9 chunks are taken for one in one of forty such stores.
            names_.append(np.ascontiguousarray(table.digests[:, :8]).view("<u8").reshape(-1))
            lengths.append(table.lengths)
    _, first = np.unique(np.concatenate(names_), return_index=True)
    return len(first), int(np.concatenate(lengths)[first].sum(dtype=np.uint64))


def per_image(images: Images) -> list[ImageUse]:
    """Sweeps each object once: what only one image covers is unique to it."""
    sizes: list[tuple[str, int]] = []
    covers: dict[str, list[tuple[int, U32]]] = {}
    for number, (reference, blobs) in enumerate(images):
        seen: dict[Digest, BlobInfo] = {info.digest: info for info in blobs}
        sizes.append((reference, sum(info.size for info in seen.values())))
        parts: dict[str, list[U32]] = {}
        for info in seen.values():
            if info.place.state == "packed":
                for use in info.place.uses:
                    parts.setdefault(use.key, []).append(use.intervals)
            else:
                # A span of its own: no two blobs share these bytes.
                span = np.array([[0, min(info.size, 0xFFFFFFFF)]], np.uint32)
                parts.setdefault(str(info.digest), []).append(span)
        for key, found in parts.items():
            covers.setdefault(key, []).append((number, query.merge_intervals(np.concatenate(found))))
    unique = np.zeros(len(sizes), np.int64)
    total = np.zeros(len(sizes), np.int64)
    for users in covers.values():
        _sweep(users, unique, total)
    return [
        ImageUse(reference, size, int(total[i] - unique[i]), int(unique[i]))
        for i, (reference, size) in enumerate(sizes)
    ]


def _sweep(users: list[tuple[int, U32]], unique: np.ndarray, total: np.ndarray) -> None:
    """Add to each image what it covers of one object, and what only it covers."""
    points = np.concatenate([spans.astype(np.int64).T.reshape(-1) for _, spans in users])
    steps = np.concatenate([np.repeat([1, -1], len(spans)) for _, spans in users])
    whose = np.concatenate([np.full(2 * len(spans), number) for number, spans in users])
    order = np.argsort(points, kind="stable")
    points, steps, whose = points[order], steps[order], whose[order]
    depth = np.cumsum(steps)
    # The sum of the numbers of the images that cover a place: where there is one only, that is its number.
    owner = np.cumsum(steps * whose)
    length = np.diff(points, append=points[-1:])
    alone = depth == 1
    np.add.at(unique, owner[alone], length[alone])
    for number, spans in users:
        total[number] += int((spans[:, 1].astype(np.int64) - spans[:, 0]).sum())
