"""What each layer of each image takes in the store, and how much of it only this image needs, down to the chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..digest import Digest
from ..errors import Damaged, NotFound
from ..format.pack import DataTable
from ..model import FRAME_BITS, MAX_FRAME, U32, BlobInfo
from ..store import query
from ..store.volume import Volume

Stacks = Iterable[tuple[str, Iterable[tuple[Digest, BlobInfo]]]]
"""(reference, its layers in order: (manifest, layer)) of each image."""


@dataclass(frozen=True, slots=True)
class LayerShare:
    """One layer of one image (bytes). `manifest`: what lists it; `diffid`: digest of it uncompressed, where known;
    `size`: of the blob; `images`: how many of the images have this very blob.

    `stored`: what its content takes in the store, every chunk at the mean compression of its frame, without what lower
    layers of the same image have counted already; `alone`: the part of it that no other image needs."""

    manifest: Digest
    digest: Digest
    diffid: Digest | None
    size: int
    images: int
    stored: int
    alone: int


@dataclass(frozen=True, slots=True)
class ImageShare:
    """One image, its layers from the lowest up."""

    reference: str
    layers: tuple[LayerShare, ...]

    @property
    def size(self) -> int:
        """Bytes of its layers, each counted once."""
        return sum({layer.digest: layer.size for layer in self.layers}.values())

    @property
    def stored(self) -> int:
        return sum(layer.stored for layer in self.layers)

    @property
    def alone(self) -> int:
        return sum(layer.alone for layer in self.layers)


_Stored = Callable[[np.ndarray], np.ndarray]
"""Of one object: places in it → stored bytes of what lies before them."""


class _Cover(NamedTuple):
    """What one layer uses of one object: merged intervals."""

    key: str
    intervals: U32


def sharing(volume: Volume, stacks: Stacks) -> list[ImageShare]:
    """Measure. What two images have in common is found by the places of chunks: a chunk that is stored twice, as until
    the next gc may happen, is not."""
    images = [(reference, list(layers)) for reference, layers in stacks]
    having: dict[Digest, int] = {}
    for _, layers in images:
        for digest in {info.digest for _, info in layers}:
            having[digest] = having.get(digest, 0) + 1
    scales: dict[str, _Stored] = {}
    fresh = [_fresh([_covers(volume, info, scales) for _, info in layers]) for _, layers in images]
    only = _only(fresh)
    return [
        ImageShare(
            reference,
            tuple(
                LayerShare(
                    manifest,
                    info.digest,
                    info.diffid,
                    info.size,
                    having[info.digest],
                    round(sum(_length(cover.intervals, scales[cover.key]) for cover in covers)),
                    round(sum(_within(only[cover.key], cover.intervals, scales[cover.key]) for cover in covers)),
                )
                for (manifest, info), covers in zip(layers, parts, strict=True)
            ),
        )
        for (reference, layers), parts in zip(images, fresh, strict=True)
    ]


def _covers(volume: Volume, info: BlobInfo, scales: dict[str, _Stored]) -> list[_Cover]:
    """What a blob uses; how the objects are scaled is noted."""
    place = info.place
    if place.state == "packed":
        for use in place.uses:
            if use.key not in scales:
                scales[use.key] = _scale(volume, use.key)
        return [_Cover(use.key, query.merge_intervals(use.intervals)) for use in place.uses]
    # A span of its own: no two blobs share these bytes.
    key, span = str(info.digest), max(1, min(info.size, 0xFFFFFFFF))
    stored = place.length if place.state == "inline" else info.size
    scales[key] = lambda places: places * (stored / span)
    return [_Cover(key, np.array([[0, span]], np.uint32))]


def _scale(volume: Volume, key: str) -> _Stored:
    """By the sizes of a pack's frames, from its own table; where that cannot be read, as if nothing was compressed."""
    try:
        table = volume.packs.pack(key).table
    except (Damaged, NotFound):
        return lambda places: places.astype(float)  # check tells
    if not isinstance(table, DataTable):
        return lambda places: places.astype(float)
    before = np.concatenate([[0], np.cumsum(table.frames["stored"], dtype=np.int64)])
    # One more, of nothing: an interval may end where the last frame does.
    density = np.append(table.frames["stored"] / np.maximum(table.frames["raw"], 1), 0.0)
    last = len(density) - 1

    def stored(places: np.ndarray) -> np.ndarray:
        frames = np.minimum(places >> FRAME_BITS, last)
        return np.asarray(before[frames] + (places & (MAX_FRAME - 1)) * density[frames])

    return stored


def _fresh(layers: list[list[_Cover]]) -> list[list[_Cover]]:
    """The same without what a lower layer covers."""
    covered: dict[str, U32] = {}
    result = []
    for covers in layers:
        kept = []
        for cover in covers:
            below = covered.get(cover.key)
            mine = cover.intervals if below is None else _without(cover.intervals, below)
            both = cover.intervals if below is None else np.concatenate([below, cover.intervals])
            covered[cover.key] = query.merge_intervals(both)
            kept.append(_Cover(cover.key, mine))
        result.append(kept)
    return result


def _depths(sets: list[U32]) -> tuple[np.ndarray, np.ndarray]:
    """Points in order, and how many of the sets cover what follows each."""
    points = np.concatenate([one.astype(np.int64).T.reshape(-1) for one in sets])
    steps = np.concatenate([np.repeat([1, -1], len(one)) for one in sets])
    order = np.argsort(points, kind="stable")
    return points[order], np.cumsum(steps[order])


def _without(intervals: U32, taken: U32) -> U32:
    """The parts of merged intervals that others do not cover."""
    points, depth = _depths([intervals, taken, taken])  # 1: only the first covers it
    keep = np.flatnonzero((depth[:-1] == 1) & (points[:-1] < points[1:]))
    return query.merge_intervals(np.stack([points[keep], points[keep + 1]], axis=1).astype(np.uint32))


_Only = tuple[np.ndarray, np.ndarray]
"""Points in order; 1 where one image alone covers what follows, else 0."""


def _only(images: list[list[list[_Cover]]]) -> dict[str, _Only]:
    """Of each object, what one image alone covers."""
    users: dict[str, list[U32]] = {}
    for layers in images:
        mine: dict[str, list[U32]] = {}
        for covers in layers:
            for cover in covers:
                mine.setdefault(cover.key, []).append(cover.intervals)
        for key, parts in mine.items():
            users.setdefault(key, []).append(query.merge_intervals(np.concatenate(parts)))
    found = {}
    for key, sets in users.items():
        points, depth = _depths(sets)
        found[key] = points, (depth == 1).astype(np.int64)
    return found


def _within(only: _Only, intervals: U32, stored: _Stored) -> float:
    """How much of some intervals one image alone covers, in stored bytes."""
    points, alone = only
    if not len(points) or not len(intervals):
        return 0.0
    begins = stored(points)
    before = np.concatenate([[0.0], np.cumsum(np.diff(begins) * alone[:-1])])
    ends = intervals.astype(np.int64)
    at = np.clip(np.searchsorted(points, ends, side="right") - 1, 0, None)
    sums = before[at] + (stored(ends) - begins[at]) * alone[at]
    return float((sums[:, 1] - sums[:, 0]).sum())


def _length(intervals: U32, stored: _Stored) -> float:
    places = stored(intervals.astype(np.int64))
    return float((places[:, 1] - places[:, 0]).sum())
