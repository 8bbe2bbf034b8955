"""What the catalog is asked: blobs, tags, images, statistics. Read-only, on a transaction of the caller's.

Only live blobs exist for a reader. (Writers ask through `protocol.name_blobs`, which also holds what it
finds.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np

from ..digest import Digest
from ..errors import Damaged, InvalidReference
from ..model import U32, BlobInfo, ImageRow, Place, TagRow, Used
from .catalog import Tx

_BLOB = (
    "SELECT b.id, b.digest, b.size, b.loc_state, o.key, b.loc_frame, b.loc_offset, b.loc_length, b.encoding,"
    " b.media_type, b.diffid, b.content_size, b.files_size, b.spot, b.created, b.loc"
    " FROM blob b JOIN object o ON o.id = b.loc"
)
_IMAGE = (
    "SELECT b.digest, i.config, i.created, i.size, i.os, i.architecture, i.variant, i.labels, i.parent"
    " FROM image i JOIN blob b ON b.id = i.manifest AND b.state = 'live'"
)
_PREFIX = re.compile(r"[0-9a-f]{1,64}")


# -- intervals of chunk addresses


def pack_intervals(intervals: U32) -> bytes:
    """(m, 2) uint32 → the bytes kept in place.used."""
    return np.ascontiguousarray(intervals, dtype="<u4").tobytes()


def unpack_intervals(used: bytes) -> U32:
    """The inverse of `pack_intervals`. Bytes that are none: Damaged."""
    if len(used) % 8:
        raise Damaged("an edge's intervals are damaged", what="catalog", hint="run casstore check --repair")
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
        Digest.unpack(row[1]),
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


def find_blob(tx: Tx, digest: Digest) -> BlobInfo | None:
    """A live blob, with all that it uses (rule 11: a reader counts index hits only in those packs)."""
    row = tx.row(f"{_BLOB} WHERE b.digest = ? AND b.state = 'live'", (digest.raw,))
    return None if row is None else _info(tx, row)


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


def loose_blobs(tx: Tx, *, idle_before: float, retry_refused: bool = False) -> list[BlobInfo]:
    """Live loose blobs last read before that time (seconds since 1970), largest first: what may be packed."""
    refused = "" if retry_refused else " AND b.pack_refused IS NULL"
    rows = tx.rows(
        f"{_BLOB} WHERE b.loc_state = 'loose' AND b.state = 'live' AND b.last_read <= ?{refused} ORDER BY b.size DESC",
        (idle_before,),
    )
    return [_info(tx, row) for row in rows]


def children(tx: Tx, digest: Digest) -> list[Digest]:
    """The blobs that a live manifest or index has edges to."""
    rows = tx.rows(
        "SELECT b.digest FROM blob p JOIN child c ON c.parent = p.id JOIN blob b ON b.id = c.child"
        " WHERE p.digest = ? AND p.state = 'live' ORDER BY b.id",
        (digest.raw,),
    )
    return [Digest.unpack(row[0]) for row in rows]


def parents(tx: Tx, digest: Digest) -> list[Digest]:
    """The live manifests and indexes that have an edge to a blob."""
    rows = tx.rows(
        "SELECT p.digest FROM blob b JOIN child c ON c.child = b.id JOIN blob p ON p.id = c.parent"
        " WHERE b.digest = ? AND p.state = 'live' ORDER BY p.id",
        (digest.raw,),
    )
    return [Digest.unpack(row[0]) for row in rows]


def pins(tx: Tx, digest: Digest | None = None) -> list[tuple[Digest, str]]:
    """(digest, name) of all pins, or of one digest's."""
    where, values = ("", ()) if digest is None else (" WHERE digest = ?", (digest.raw,))
    return [
        (Digest.unpack(row[0]), row[1])
        for row in tx.rows(f"SELECT digest, name FROM pin{where} ORDER BY digest, name", values)
    ]


# -- tags


def find_tag(tx: Tx, repository: str, tag: str) -> Digest | None:
    """What repository:tag points at."""
    raw = tx.value(
        "SELECT b.digest FROM tag t JOIN blob b ON b.id = t.target WHERE t.repository = ? AND t.tag = ?",
        (repository, tag),
    )
    return None if raw is None else Digest.unpack(raw)


def tags(tx: Tx, repository: str | None = None, target: Digest | None = None) -> list[TagRow]:
    """All tags in order, or those of one repository, or those that point at `target`."""
    where, values = [], []
    if repository is not None:
        where.append("t.repository = ?")
        values.append(repository)
    if target is not None:
        where.append("b.digest = ?")
        values.append(target.raw)  # type: ignore[arg-type]
    condition = f" WHERE {' AND '.join(where)}" if where else ""
    rows = tx.rows(
        "SELECT t.repository, t.tag, b.digest, t.created FROM tag t JOIN blob b ON b.id = t.target"
        f"{condition} ORDER BY t.repository, t.tag",
        values,
    )
    return [TagRow(row[0], row[1], Digest.unpack(row[2]), row[3]) for row in rows]


# -- images


def _image(row: tuple[Any, ...]) -> ImageRow:
    labels = msgspec.json.decode(row[7], type=dict[str, str]) if row[7] != "{}" else {}
    return ImageRow(
        Digest.unpack(row[0]), Digest.unpack(row[1]), row[2], row[3], row[4], row[5], row[6], labels, row[8]
    )


def images(tx: Tx) -> list[ImageRow]:
    """Every live image manifest, in no order."""
    return [_image(row) for row in tx.rows(_IMAGE)]


def find_image(tx: Tx, manifest: Digest) -> ImageRow | None:
    """The row of one manifest."""
    row = tx.row(f"{_IMAGE} WHERE b.digest = ?", (manifest.raw,))
    return None if row is None else _image(row)


def manifests_of(tx: Tx, config: Digest) -> list[ImageRow]:
    """All live manifests of the image with this ID, the oldest first."""
    return [_image(row) for row in tx.rows(f"{_IMAGE} WHERE i.config = ? ORDER BY i.manifest", (config.raw,))]


def image_ids(tx: Tx, prefix: str, limit: int = 16) -> list[Digest]:
    """IDs of images that begin with these lower-case hex digits (no `sha256:`), at most `limit`, in order."""
    if not _PREFIX.fullmatch(prefix):
        raise InvalidReference("not the beginning of an image ID", what=repr(prefix[:80]))
    low = bytes.fromhex(prefix + "0" * (len(prefix) % 2))
    high = bytes.fromhex(prefix + "f" * (len(prefix) % 2)) + b"\xff" * 64
    rows = tx.rows(
        "SELECT DISTINCT i.config FROM image i JOIN blob b ON b.id = i.manifest AND b.state = 'live'"
        " WHERE i.config >= ? AND i.config <= ? ORDER BY i.config LIMIT ?",
        (low, high, limit),
    )
    return [Digest.unpack(row[0]) for row in rows]


def image_children(tx: Tx, image_id: Digest) -> list[ImageRow]:
    """Live images whose parent is the image with this ID."""
    return [_image(row) for row in tx.rows(f"{_IMAGE} WHERE i.parent = ?", (str(image_id),))]


# -- statistics and settings


class Kind(NamedTuple):
    """A sum over rows: how many, their bytes, and for data packs the uncompressed bytes of their chunks."""

    count: int
    size: int
    chunk_bytes: int = 0


class Stats(NamedTuple):
    """What `df` adds up. `blobs` is keyed by (state of place, encoding), `objects` by (kind, state)."""

    images: int
    tags: int
    blobs: dict[tuple[str, str], Kind]
    objects: dict[tuple[str, str], Kind]

    @property
    def blob_count(self) -> int:
        return sum(one.count for one in self.blobs.values())

    @property
    def blob_bytes(self) -> int:
        """Sum of the sizes of all live blobs."""
        return sum(one.size for one in self.blobs.values())

    @property
    def object_bytes(self) -> int:
        """Sum of the sizes of all objects that have a size (pending ones have none yet)."""
        return sum(one.size for one in self.objects.values())


def stats(tx: Tx) -> Stats:
    """Counts and sums over the whole catalog, of one moment."""
    images_ = tx.value(
        "SELECT count(DISTINCT i.config) FROM image i JOIN blob b ON b.id = i.manifest AND b.state = 'live'"
    )
    blobs_ = {
        (row[0], row[1]): Kind(row[2], row[3])
        for row in tx.rows(
            "SELECT loc_state, encoding, count(*), sum(size) FROM blob WHERE state = 'live' GROUP BY loc_state, encoding"
        )
    }
    objects_ = {
        (row[0], row[1]): Kind(row[2], row[3], row[4])
        for row in tx.rows(
            "SELECT kind, state, count(*), sum(size), sum(chunk_bytes) FROM object GROUP BY kind, state"
        )
    }
    return Stats(images_, tx.value("SELECT count(*) FROM tag"), blobs_, objects_)


class ObjectRow(NamedTuple):
    """An object as the catalog knows it (bytes)."""

    key: str
    kind: str
    state: str
    size: int
    chunk_bytes: int


def objects(tx: Tx, kind: str | None = None) -> Iterator[ObjectRow]:
    """All objects, oldest first; only while the transaction is open."""
    where, values = ("", ()) if kind is None else (" WHERE kind = ?", (kind,))
    for row in tx.each(f"SELECT key, kind, state, size, chunk_bytes FROM object{where} ORDER BY id", values):
        yield ObjectRow(*row)


def users(tx: Tx, key: str) -> Iterator[tuple[Digest, U32]]:
    """Live blobs that use an object, with the intervals of it that they use."""
    for raw, used in tx.each(
        "SELECT b.digest, e.used FROM object o JOIN place e ON e.object = o.id JOIN blob b ON b.id = e.blob"
        " WHERE o.key = ? AND b.state = 'live' ORDER BY b.id",
        (key,),
    ):
        yield Digest.unpack(raw), unpack_intervals(used)


def settings(tx: Tx) -> dict[str, str]:
    """All of `casstore config`."""
    return dict(tx.rows("SELECT key, value FROM config ORDER BY key"))
