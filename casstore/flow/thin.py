"""What two stores have in common, for bundles: the chunks of a blob that is on both sides, and chunks and recipes that
come in without their blobs.

Stores that cut alike find the same chunks in the same blob, be it packed, loose, or compressed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ..codec.compression import LIMIT, Limit
from ..digest import Digest
from ..errors import Damaged
from ..kernels import hashing, table, tarscan
from ..model import FRAME_BITS, MAX_FRAMES, U8, U32, U64, BlobInfo, Buffer, NewBlob, Recipe
from ..store.volume import Volume
from .ingest import Ingest
from .proof import OTHER, doubt, info_of
from .reach import Reach
from .records import Pending
from .restore import BlobReader, Reading
from .source import Buffers, StreamSource
from .split import Split, Splitter

BATCH = 2 << 20
"""Bytes of chunks that are hashed and stored at a time, or one chunk."""

Taker = Callable[[Buffer, U64, U32, U8], None]
"""Told a run of chunks: a buffer, starts, lengths, names."""


class _Told:
    """The sink of a split that only wants to be told."""

    def __init__(self, taker: Taker) -> None:
        self._taker = taker

    def take(self, track: int, buffer: Buffer, starts: U64, lengths: U32, digests: U8, *, force: bool = False) -> bool:
        self._taker(buffer, starts, lengths, digests)
        return True


def cut_up(volume: Volume, info: BlobInfo, taker: Taker, limit: Limit = LIMIT) -> None:
    """Tell the chunks of a blob's content, whether it is packed or not. BadInput: it is not what its encoding says."""
    content = StreamSource(Buffers(BlobReader(volume, info).content(limit)))
    Splitter(volume.file, _Told(taker)).run(content)


def names_of(volume: Volume, info: BlobInfo, limit: Limit = LIMIT) -> U8:
    """The names of a blob's chunks: from its recipe, else by cutting it up. As `cut_up`."""
    if info.place.state == "packed":
        return Reading(volume, info).digests
    found: list[U8] = [np.empty((0, 32), np.uint8)]
    cut_up(volume, info, lambda _, starts, lengths, digests: found.append(digests.copy()), limit)
    return np.concatenate(found)


class Wanted:
    """Chunks that are looked for in blobs, and stored where they are found."""

    def __init__(self, ingest: Ingest, digests: U8) -> None:
        self._ingest = ingest
        self._wanted = table.ChunkMap()
        self._wanted.set(digests, np.zeros(len(digests), np.uint64))

    def take(self, buffer: Buffer, starts: U64, lengths: U32, digests: U8) -> None:
        """A Taker."""
        mine = np.flatnonzero(self._wanted.get(digests) != table.MISSING)
        if len(mine):
            self._ingest.add(buffer, starts[mine], lengths[mine], np.ascontiguousarray(digests[mine]))


def entries(recipe: Recipe) -> tuple[U8, U32]:
    """All chunks of a recipe, the literal track first."""
    digests = np.ascontiguousarray(np.concatenate([recipe.literals.digests, recipe.payloads.digests]).reshape(-1, 32))
    return digests, np.concatenate([recipe.literals.lengths, recipe.payloads.lengths])


def pending(
    digest: Digest,
    recipe: Recipe,
    diffid: Digest,
    files_size: int,
    media_type: str,
    children: tuple[Digest, ...] = (),
) -> Pending:
    """A recipe from outside, as Ingest takes it."""
    split = Split(recipe.content_size, diffid.raw, recipe.weave, recipe.literals, recipe.payloads, files_size)
    own = table.ChunkMap()
    return Pending(digest, recipe.size, split, recipe.encoding, recipe.trace, own, media_type, children)


def batches(lengths: U32) -> Iterator[tuple[int, int]]:
    """Runs [start, end) of chunks of up to BATCH bytes, or of one."""
    ends = np.cumsum(lengths, dtype=np.uint64)
    start = done = 0
    while start < len(lengths):
        end = max(start + 1, int(np.searchsorted(ends, np.uint64(done + BATCH), side="right")))
        yield start, end
        start, done = end, int(ends[end - 1])


def unlike(volume: Volume, blob: NewBlob, check: Callable[[], None]) -> str:
    """Read a blob back that is written and not committed: "" if it is what its row says and reads as well as any, else
    why it is not to stay a recipe. Damaged: it does not come back at all."""
    reader = BlobReader(volume, info_of(blob))
    scanner = tarscan.Scanner()
    if blob.encoding == "identity":
        for piece in reader.read():
            check()
            scanner.feed(piece)
    else:
        refused = doubt(volume, blob, check)
        if refused == OTHER:
            raise Damaged(refused, what=str(blob.digest))
        inside = hashing.Sha256()
        for piece in reader.content():
            check()
            scanner.feed(piece)
            inside.update(piece)
        if refused or blob.diffid != Digest.sha256(inside.digest()):
            return refused or "its content has another digest"
    scanner.finish()
    if blob.files_size != scanner.content_size:
        return "its files have another size"
    return "its chunks are too far from each other" if _too_far(volume, info_of(blob)) else ""


def _too_far(volume: Volume, info: BlobInfo) -> bool:
    """Would reading the blob decode more than flow/reach.py allows?"""
    reading = Reading(volume, info)
    frames = [volume.packs.pack(use.key).frames for use in info.place.uses]
    sizes = [(one["raw"].tolist(), one["base"].tolist()) for one in frames]

    def cost(name: int) -> list[tuple[int, int]]:
        raw, base = sizes[name >> 10]
        number = name & (MAX_FRAMES - 1)
        under = base[number] - 1
        return [(name, raw[number]), *([(name >> 10 << 10 | under, raw[under])] if under >= 0 else [])]

    reach = Reach(cost)
    places = reading.packs.astype(np.uint64) << np.uint64(10) | (reading.addresses >> FRAME_BITS).astype(np.uint64)
    for entries, lengths in reading.runs():
        if reach.judge(places[entries], lengths, np.zeros(len(entries), np.bool_)) is None:
            return True
    return False
