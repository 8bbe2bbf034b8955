"""What the catalog is asked about blobs and objects. Read-only, on a transaction of the caller's.

Only live blobs exist for a reader. (Writers ask through `protocol.name_blobs`, which also holds what it
finds.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..digest import Digest
from ..errors import Damaged
from ..model import U32, BlobInfo, Place, Used
from .catalog import Tx
from .objects import is_loose_key_of

_BLOB = (
    "SELECT b.id, b.digest, b.size, b.loc_state, o.key, b.loc_frame, b.loc_offset, b.loc_length, b.encoding,"
    " b.media_type, b.diffid, b.content_size, b.files_size, b.spot, b.created, b.loc"
    " FROM blob b JOIN object o ON o.id = b.loc"
)


# -- intervals of chunk addresses


def pack_intervals(intervals: U32) -> bytes:
    """(m, 2) uint32 → the bytes kept in place.used."""
    return np.ascontiguousarray(intervals, dtype="<u4").tobytes()


def unpack_intervals(used: bytes) -> U32:
    """The inverse of `pack_intervals`. Bytes that are none: Damaged."""
    if not isinstance(used, bytes) or len(used) % 8:
        raise _spoilt("an edge")
    return np.frombuffer(used, dtype="<u4").astype(np.uint32).reshape(-1, 2)


def merge_intervals(intervals: U32) -> U32:
    """Sorted and merged: touching and overlapping intervals become one."""
    if not len(intervals):
        return np.empty((0, 2), np.uint32)
    ordered = intervals[np.argsort(intervals[:, 0], kind="stable")]
    reach = np.maximum.accumulate(ordered[:, 1])
    heads = np.flatnonzero(np.concatenate([[True], ordered[1:, 0] > reach[:-1]]))
    tails = np.append(heads[1:] - 1, len(ordered) - 1)
    return np.stack([ordered[heads, 0], reach[tails]], axis=1).astype(np.uint32)


# -- blobs


def _info(tx: Tx, row: tuple[Any, ...]) -> BlobInfo:
    if not _is_blob(row):
        raise _spoilt("a blob's row")
    digest = Digest.unpack(row[1])
    if row[3] == "loose" and not is_loose_key_of(digest, row[4]):
        raise _spoilt("a blob's place")  # its file is another's: a range of it is under no digest of the whole
    uses: tuple[Used, ...] = ()
    if row[3] == "packed":
        uses = tuple(
            Used(key, unpack_intervals(used))
            for key, used in tx.rows(
                "SELECT o.key, e.used FROM place e JOIN object o ON o.id = e.object"
                " WHERE e.blob = ? AND e.object <> ? ORDER BY e.object",
                (row[0], row[15]),
            )
        )
    return BlobInfo(
        digest,
        row[2],
        Place(row[3], row[4], row[5], row[6], row[7], uses),
        row[8],
        row[9],
        None if row[10] is None else Digest.unpack(row[10]),
        row[11],
        row[12],
        row[13],
        row[14],
    )


def _is_blob(row: tuple[Any, ...]) -> bool:
    """Are the columns of `_BLOB` of the types and in the bounds that were written? SQLite keeps whatever the bytes of a
    damaged page say."""
    numbers = [row[0], row[2], *row[5:8], row[15]]
    numbers += [value for value in row[11:13] if value is not None]
    return (
        all(isinstance(value, int) and value >= 0 for value in numbers)
        and row[3] in ("loose", "inline", "packed")
        and all(isinstance(value, str) for value in (row[4], row[8], row[9]))
        and isinstance(row[13], bytes)
        and isinstance(row[14], int | float)
    )


def _spoilt(what: str) -> Damaged:
    return Damaged(f"{what} is damaged", what="catalog.sqlite", hint="run casstore check --repair")


def find_blob(tx: Tx, digest: Digest) -> BlobInfo | None:
    """A live blob, with all that it uses (rule 11: a reader counts index hits only in those packs)."""
    row = tx.row(f"{_BLOB} WHERE b.digest = ? AND b.state = 'live'", (digest.raw,))
    if row is None:
        return None
    info = _info(tx, row)
    if info.digest != digest:  # the index of the column points at another row
        raise _spoilt("a blob's row")
    return info


def find_diffid(tx: Tx, diffid: Digest) -> list[BlobInfo]:
    """Live blobs whose uncompressed stream has this digest, the uncompressed ones first, then the oldest."""
    rows = tx.rows(
        f"{_BLOB} WHERE b.diffid = ? AND b.state = 'live' AND b.damaged = 0 ORDER BY b.encoding <> 'identity', b.id",
        (diffid.raw,),
    )
    return [_info(tx, row) for row in rows]


def blobs(tx: Tx) -> Iterator[BlobInfo]:
    """All live blobs, by digest; only while the transaction is open."""
    for row in tx.each(f"{_BLOB} WHERE b.state = 'live' ORDER BY b.digest"):
        yield _info(tx, row)


def retired_blobs(tx: Tx) -> list[BlobInfo]:
    """What is on its way out: for `check`, nobody else sees it."""
    return [_info(tx, row) for row in tx.rows(f"{_BLOB} WHERE b.state = 'retired' ORDER BY b.id")]


def loose_blobs(tx: Tx, *, idle_before: float, engines: str = "") -> list[BlobInfo]:
    """Live loose blobs last read before that time (seconds since 1970), those first that nobody read for the longest
    time: what may be packed. `engines`: by what they would be tried; one that was refused by the same is not among
    them, nor one that is to stay as it is."""
    rows = tx.rows(
        f"{_BLOB} WHERE b.loc_state = 'loose' AND b.state = 'live' AND b.last_read <= ?"
        " AND (b.pack_refused IS NULL OR (b.pack_refused LIKE '%(engines %)' AND b.pack_refused NOT LIKE ?))"
        " ORDER BY b.last_read, b.id",
        (idle_before, f"%(engines {engines})"),
    )
    return [_info(tx, row) for row in rows]


def unknown_blobs(tx: Tx) -> list[BlobInfo]:
    """Live compressed blobs that nobody has looked into, and nobody was told not to."""
    rows = tx.rows(
        f"{_BLOB} WHERE b.encoding <> 'identity' AND b.content_size IS NULL AND b.state = 'live' AND b.damaged = 0"
        " AND (b.pack_refused IS NULL OR b.pack_refused LIKE '%(engines %)') ORDER BY b.id"
    )
    return [_info(tx, row) for row in rows]


def pack_refused(tx: Tx, digest: Digest) -> str:
    """Why a loose blob is not packed; "" where nobody said so."""
    return str(tx.value("SELECT pack_refused FROM blob WHERE digest = ?", (digest.raw,)) or "")


class ObjectRow(NamedTuple):
    """An object as the catalog knows it (bytes). `dirty`: edges lost since its live bytes were measured."""

    key: str
    kind: str
    state: str
    size: int
    chunk_bytes: int
    deep: bool
    dirty: int
    damaged: bool


_OBJECT = "SELECT key, kind, state, size, chunk_bytes, deep, dirty, damaged FROM object"


def objects(tx: Tx, kind: str | None = None) -> Iterator[ObjectRow]:
    """All objects, oldest first; only while the transaction is open."""
    where, values = ("", ()) if kind is None else (" WHERE kind = ?", (kind,))
    for row in tx.each(f"{_OBJECT}{where} ORDER BY id", values):
        yield ObjectRow(*row)


def find_object(tx: Tx, key: str) -> ObjectRow | None:
    """One object, whatever its state."""
    row = tx.row(f"{_OBJECT} WHERE key = ?", (key,))
    return None if row is None else ObjectRow(*row)


def worn_packs(tx: Tx, kind: str, small: int) -> list[ObjectRow]:
    """Live packs of a kind that may be worth rewriting: those not packed hard, those that lost an edge since
    they were measured, those smaller than `small` bytes. The oldest first."""
    rows = tx.rows(
        f"{_OBJECT} WHERE kind = ? AND state = 'live' AND damaged = 0"
        " AND (deep = 0 OR dirty > 0 OR size < ?) ORDER BY id",
        (kind, small),
    )
    return [ObjectRow(*row) for row in rows]


def covered_packs(tx: Tx, segments: Sequence[str]) -> set[str]:
    """Keys of the packs that these index segments have entries of and that have a row."""
    return {
        row[0]
        for key in segments
        for row in tx.rows(
            "SELECT p.key FROM object s JOIN covers v ON v.segment = s.id JOIN object p ON p.id = v.pack"
            " WHERE s.key = ?",
            (key,),
        )
    }


def gone_packs(tx: Tx, segments: Sequence[str]) -> set[str]:
    """Those of `covered_packs` that are on their way out for good (rule 9: a retired one may yet be
    revived)."""
    return {
        row[0]
        for key in segments
        for row in tx.rows(
            "SELECT p.key FROM object s JOIN covers v ON v.segment = s.id JOIN object p ON p.id = v.pack"
            " WHERE s.key = ? AND p.state = 'deleting'",
            (key,),
        )
    }


def users(tx: Tx, key: str) -> Iterator[tuple[Digest, U32]]:
    """Live blobs that use an object, with the intervals of it that they use."""
    for raw, used in tx.each(
        "SELECT b.digest, e.used FROM object o JOIN place e ON e.object = o.id JOIN blob b ON b.id = e.blob"
        " WHERE o.key = ? AND b.state = 'live' ORDER BY b.id",
        (key,),
    ):
        yield Digest.unpack(raw), unpack_intervals(used)


def live_intervals(tx: Tx, key: str) -> U32:
    """The chunk addresses of a data pack that live blobs use, as merged intervals."""
    # The few retired blobs are looked up once; to look up each edge's blob would take half as long again.
    rows = tx.rows(
        "SELECT e.used FROM place e WHERE e.object = (SELECT id FROM object WHERE key = ?)"
        " AND e.blob NOT IN (SELECT id FROM blob WHERE state = 'retired')",
        (key,),
    )
    return merge_intervals(unpack_intervals(b"".join(row[0] for row in rows)))
