"""What is written of a blob beside its chunks: its recipe, and its record in a metadata pack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..digest import Digest
from ..errors import Damaged
from ..format import recipe as recipe_format
from ..format.pack import Record, RecordKind
from ..kernels import table
from ..model import U32, U64, ChunkList, NewBlob, Place, Recipe, Used
from ..store import query
from .split import Split


class Taken(NamedTuple):
    """What is known of a blob that was taken, as in NewBlob."""

    digest: Digest
    size: int
    encoding: str
    diffid: Digest | None
    content_size: int | None
    files_size: int | None


@dataclass(slots=True)
class Pending:
    """A packed blob whose recipe waits for the addresses of its chunks. `split`: of its content; `trace`: of what is
    compressed; `own`: chunks that were stored again for it."""

    digest: Digest
    size: int
    split: Split
    encoding: str
    trace: bytes
    own: table.ChunkMap
    media_type: str
    children: tuple[Digest, ...]


def recipe_of(pending: Pending, uses: tuple[Used, ...]) -> tuple[NewBlob, tuple[Record, bytes]]:
    """A packed blob as its commit names it, and its recipe's record. Damaged: that does not read back as written."""
    split = pending.split
    recipe = Recipe(pending.size, split.weave, split.literals, split.payloads, pending.encoding, pending.trace)
    encoded = recipe_format.encode(recipe)
    if not _same(recipe_format.decode(encoded), recipe):
        raise Damaged("a recipe does not read back as written", what=str(pending.digest))
    blob = NewBlob(
        pending.digest,
        pending.size,
        Place("packed", "", uses=uses),
        encoding=pending.encoding,
        media_type=pending.media_type,
        children=pending.children,
        diffid=Digest.sha256(split.digest),
        content_size=split.size,
        files_size=split.files_size,
    )
    return blob, (record_of(RecordKind.RECIPE, blob), encoded)


def record_of(kind: RecordKind, blob: NewBlob) -> Record:
    """What a metadata pack says of a blob."""
    return Record(
        kind,
        blob.digest,
        blob.size,
        0,
        0,
        0,
        blob.encoding,
        blob.media_type,
        blob.diffid,
        blob.content_size,
        blob.files_size,
    )


def _same(a: Recipe, b: Recipe) -> bool:
    def chunks(x: ChunkList, y: ChunkList) -> bool:
        return (
            np.array_equal(x.digests, y.digests)
            and np.array_equal(x.lengths, y.lengths)
            and np.array_equal(x.repeats, y.repeats)
        )

    return (
        a.size == b.size
        and a.content_size == b.content_size == b.literals.size + b.payloads.size
        and np.array_equal(a.weave, b.weave)
        and chunks(a.literals, b.literals)
        and chunks(a.payloads, b.payloads)
        and (a.encoding, a.trace) == (b.encoding, b.trace)
    )


def intervals(addresses: U64, lengths: U32) -> U32:
    """Sorted, merged half-open intervals (m, 2) of the addresses that chunks take up."""
    # The last frame of a pack may end at 2**32; its end is kept one byte short, which nothing depends on.
    ends = np.minimum(addresses + lengths, np.uint64(0xFFFFFFFF))
    return query.merge_intervals(np.stack([addresses, ends], axis=1).astype(np.uint32))
