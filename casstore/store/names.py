"""What the catalog is asked about names: tags, pins, images, and the sums over everything. Needs no arrays,
so that listing starts fast. Read-only, on a transaction of the caller's; only live manifests exist for a
reader."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from ..digest import Digest
from ..errors import Damaged, InvalidReference
from ..model import ImageRow, TagRow
from .catalog import Tx

_COLUMNS = "b.digest, i.config, i.created, i.size, i.os, i.architecture, i.variant, i.labels, i.parent"
_IMAGE = f"SELECT {_COLUMNS} FROM image i JOIN blob b ON b.id = i.manifest AND b.state = 'live'"
UNTAGGED = "untagged"
"""The name of the pin that keeps an image which has no tag (it was loaded so, or its tag moved on)."""
PIN = "blob"
"""The name of the pin that `blob put` leaves."""
_PREFIX = re.compile(r"[0-9a-f]{1,64}")


def state(tx: Tx) -> str:
    """A word for the tags, pins and settings as they are: another one as soon as any of them changes."""
    return str(tx.value("SELECT value FROM meta WHERE key = 'references'") or "")


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


def pins(tx: Tx, digest: Digest | None = None) -> list[tuple[Digest, str]]:
    """(digest, name) of all pins, or of one digest's."""
    where, values = ("", ()) if digest is None else (" WHERE digest = ?", (digest.raw,))
    return [
        (Digest.unpack(row[0]), row[1])
        for row in tx.rows(f"SELECT digest, name FROM pin{where} ORDER BY digest, name", values)
    ]


# -- edges


def is_live(tx: Tx, digest: Digest) -> bool:
    """Is this blob here?"""
    return tx.row("SELECT 1 FROM blob WHERE digest = ? AND state = 'live'", (digest.raw,)) is not None


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


# -- images


def _image(row: tuple[Any, ...]) -> ImageRow:
    try:
        labels = msgspec.json.decode(row[7], type=dict[str, str]) if row[7] != "{}" else {}
    except (msgspec.MsgspecError, TypeError):
        labels = None
    _, _, created, size, os, architecture, variant, _, parent = row
    if labels is None or not (
        isinstance(created, str)
        and isinstance(size, int)
        and isinstance(os, str)
        and isinstance(architecture, str)
        and isinstance(variant, str)
        and isinstance(parent, str)
    ):
        raise Damaged("an image's row is damaged", what="catalog.sqlite", hint="run casstore check --repair")
    manifest, config = Digest.unpack(row[0]), Digest.unpack(row[1])
    return ImageRow(manifest, config, created, size, os, architecture, variant, labels, parent)


def tagged(tx: Tx) -> Iterator[tuple[str, str, Digest, ImageRow | None]]:
    """(repository, tag, target, its row, None where it is no image's manifest) of all tags, in order; only while the
    transaction is open."""
    for row in tx.each(
        f"SELECT t.repository, t.tag, i.manifest, {_COLUMNS} FROM tag t JOIN blob b ON b.id = t.target"
        " LEFT JOIN image i ON i.manifest = b.id ORDER BY t.repository, t.tag"
    ):
        image = None if row[2] is None else _image(row[3:])
        yield row[0], row[1], Digest.unpack(row[3]) if image is None else image.manifest, image


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
    # The second condition is what lets SQLite use the index, which has only the rows with a parent.
    return [_image(row) for row in tx.rows(f"{_IMAGE} WHERE i.parent = ? AND i.parent <> ''", (str(image_id),))]


def images_with(tx: Tx, diffid: Digest) -> list[Digest]:
    """The live image manifests with a layer of this uncompressed digest, in whatever form."""
    rows = tx.rows(
        "SELECT DISTINCT m.digest FROM blob l JOIN child c ON c.child = l.id JOIN image i ON i.manifest = c.parent"
        " JOIN blob m ON m.id = i.manifest AND m.state = 'live' WHERE l.diffid = ?",
        (diffid.raw,),
    )
    return [Digest.unpack(row[0]) for row in rows]


def files_size(tx: Tx, diffid: Digest) -> int:
    """docker's SIZE of the layer with this uncompressed digest (bytes); -1 where it is not known here."""
    found = tx.value("SELECT max(files_size) FROM blob WHERE diffid = ? AND state = 'live'", (diffid.raw,))
    return -1 if found is None else int(found)


def unmeasured(tx: Tx) -> list[Digest]:
    """The live image manifests of a size that is not known."""
    sql = "SELECT b.digest FROM image i JOIN blob b ON b.id = i.manifest WHERE i.size < 0 AND b.state = 'live'"
    return [Digest.unpack(row[0]) for row in tx.rows(sql)]


# -- statistics and settings


class Sum(NamedTuple):
    """A sum over rows: how many, their bytes, and for data packs the uncompressed bytes of their chunks."""

    number: int
    size: int
    chunk_bytes: int = 0


class Stats(NamedTuple):
    """What `df` adds up. `blobs` is keyed by (state of place, encoding), `objects` by (kind, state)."""

    images: int
    tags: int
    blobs: dict[tuple[str, str], Sum]
    objects: dict[tuple[str, str], Sum]

    @property
    def blob_count(self) -> int:
        return sum(one.number for one in self.blobs.values())

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
        (row[0], row[1]): Sum(row[2], row[3])
        for row in tx.rows(
            "SELECT loc_state, encoding, count(*), sum(size) FROM blob WHERE state = 'live'"
            " GROUP BY loc_state, encoding"
        )
    }
    objects_ = {
        (row[0], row[1]): Sum(row[2], row[3], row[4])
        for row in tx.rows("SELECT kind, state, count(*), sum(size), sum(chunk_bytes) FROM object GROUP BY kind, state")
    }
    return Stats(images_, tx.value("SELECT count(*) FROM tag"), blobs_, objects_)
