"""What can be seen of a store, for comparison before and after; and what a store must not hold on to."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from casstore import api
from casstore.digest import Digest
from casstore.errors import CasstoreError
from casstore.image.content import closure
from casstore.store.catalog import Catalog, Tx

KNOWN = {"store.json", "catalog.sqlite", "epoch", "references.json", "objects", "tmp"}
"""All that lies in STORE while nobody works on it."""

USUAL = ("sha256", 16 << 10)
"""How chunks are named, and bytes of one on average, where nobody chose."""

Rows = list[tuple[Any, ...]]


@dataclass(frozen=True)
class Seen:
    """What chunks are like; tags, pins, former tags, settings and lines of `images`; and every blob that they lead to,
    read back."""

    choices: tuple[str, int]
    tags: Rows
    pins: Rows
    history: Rows
    config: Rows
    images: Rows
    blobs: dict[str, int]

    @classmethod
    def nothing(cls) -> Seen:
        """An empty store, or none, which becomes one with the usual choices."""
        return cls(USUAL, [], [], [], [], [], {})

    def differs(self, other: Seen) -> str:
        """In what; "" where not."""
        parts = [name for name in self.__dataclass_fields__ if getattr(self, name) != getattr(other, name)]
        return ", ".join(parts)


def is_store(root: Path) -> bool:
    """Not before its making came to an end."""
    return (root / "store.json").exists()


class Unsound(Exception):
    """Something that was kept does not come back byte for byte."""


def look(root: Path, volatile: Sequence[str] = ()) -> Seen:
    """What the store at `root` holds. Of an image named in `volatile` (as repository:tag),
    whose config holds the time at which it was made, only the layers are told."""
    if not is_store(root):
        return Seen.nothing()
    with api.open(root, create=False) as store:
        with store._site.catalog.read() as tx:
            changing = _changing(tx, volatile)
            seen = _names(tx, changing)
            targets = [
                Digest.unpack(row[0])
                for row in tx.rows(
                    "SELECT target.digest FROM blob target WHERE "
                    "id IN (SELECT target FROM tag) OR digest IN (SELECT digest FROM pin) AND state = 'live'"
                )
            ]
            held = {digest for target in targets for digest in closure(tx, target)}
        choices = (store._site.file.chunk_digest, store._site.file.cutter.average)
        blobs = {}
        for digest in sorted(held):
            sha, size = hashlib.sha256(), 0
            try:
                for piece in store.blobs.cat(digest):
                    sha.update(piece)
                    size += len(piece)
            except CasstoreError as error:
                raise Unsound(f"{digest}: {error}") from error
            if sha.hexdigest() != digest.hex:
                raise Unsound(f"{digest} reads back as {sha.hexdigest()}")
            if digest not in changing:
                blobs[str(digest)] = size
    return Seen(choices, *seen, blobs=blobs)


def _changing(tx: Tx, volatile: Sequence[str]) -> set[Digest]:
    """Manifests and configs of the images named so."""
    found: set[Digest] = set()
    for name in volatile:
        repository, tag = name.rsplit(":", 1)
        rows = tx.rows(
            "SELECT b.digest, i.config FROM tag t JOIN blob b ON b.id = t.target JOIN image i ON i.manifest = b.id"
            " WHERE t.repository = ? AND t.tag = ?",
            (repository, tag),
        )
        found |= {Digest.unpack(digest) for row in rows for digest in row}
    return found


def _names(tx: Tx, changing: set[Digest]) -> tuple[Rows, Rows, Rows, Rows, Rows]:
    def hidden(rows: Rows) -> Rows:
        names = {digest.raw: b"*" for digest in changing}
        return [tuple(names.get(value, value) if isinstance(value, bytes) else value for value in row) for row in rows]

    return (
        hidden(tx.rows("SELECT repository, tag, b.digest FROM tag t JOIN blob b ON b.id = t.target ORDER BY 1, 2")),
        hidden(tx.rows("SELECT digest, name FROM pin ORDER BY digest, name")),
        hidden(tx.rows("SELECT repository, tag, target FROM tag_history ORDER BY id")),
        tx.rows("SELECT key, value FROM config ORDER BY key"),
        # Lines of images that no name leads to any more go with the next gc.
        sorted(
            hidden(
                tx.rows(
                    "SELECT b.digest, i.config, i.os, i.architecture, i.parent"
                    " FROM image i JOIN blob b ON b.id = i.manifest"
                    " WHERE b.id IN (SELECT target FROM tag) OR b.digest IN (SELECT digest FROM pin)"
                )
            )
        ),
    )


def problems(root: Path) -> list[str]:
    """What `check --read-data` finds."""
    with api.open(root, create=False) as store:
        report = store.check(read_data=True)
    return [f"check: {one.severity}: {one.what}: {one.problem}" for one in report.findings]


def age(root: Path) -> None:
    """Let so much time pass that all leases of the killed have run out."""
    catalog = Catalog(root)
    with catalog.write() as tx:
        tx.run("UPDATE lease SET expires = 0")
    catalog.close()


def collect(root: Path) -> None:
    """`gc --grace 0`."""
    with api.open(root, create=False) as store:
        store.gc(grace=0)


@dataclass(frozen=True)
class Weight:
    """Bytes of the store's files: objects by kind, the catalog."""

    objects: dict[str, int]
    catalog: int

    def exceeds(self, other: Weight, slack: float = 0.03, pages: int = 32) -> str:
        """By how much this store is heavier than another of the same content; "" where it is not. Frames are filled by
        threads, and the catalog keeps its free pages (4 KiB): hence the slack."""
        mine, theirs = sum(self.objects.values()), sum(other.objects.values())
        if mine > theirs * (1 + slack) + 4096:
            return f"objects take {self.objects} bytes, after an untouched run {other.objects}"
        if self.catalog > other.catalog + pages * 4096:
            return f"the catalog takes {self.catalog} bytes, after an untouched run {other.catalog}"
        return ""


def weigh(root: Path) -> Weight:
    found: Counter[str] = Counter()
    for folder, _, names in os.walk(root / "objects"):
        kind = Path(folder).relative_to(root / "objects").parts[:1]
        for name in names:
            found[kind[0] if kind else ""] += (Path(folder) / name).stat().st_size
    return Weight(dict(found), (root / "catalog.sqlite").stat().st_size)


def leaks(root: Path, *, mended: bool = False) -> list[str]:
    """What is left over once all leases have ended and gc has run: rows without files, files without rows. `mended`:
    what was broken was put into quarantine."""
    found = []
    catalog = Catalog(root)
    with catalog.read() as tx:
        rows = {str(key): int(size) for key, size in tx.rows("SELECT key, size FROM object WHERE state = 'live'")}
        for what, sql in {
            "objects": "SELECT state, key FROM object WHERE state <> 'live'",
            "blobs": "SELECT state, id FROM blob WHERE state <> 'live'",
            "leases": "SELECT id, purpose FROM lease",
            "names": "SELECT lease, object FROM named_object UNION ALL SELECT lease, blob FROM named_blob",
            "orphans": "SELECT p.blob, p.object FROM place p WHERE p.blob NOT IN (SELECT id FROM blob)",
            "covers": "SELECT segment, pack FROM covers WHERE pack NOT IN (SELECT id FROM object)"
            " AND NOT EXISTS (SELECT 1 FROM covers c JOIN object o ON o.id = c.pack WHERE c.segment = covers.segment)",
        }.items():
            found += [f"left in the catalog: {what}: {row}" for row in tx.rows(sql)]
        unneeded = tx.rows(
            "SELECT key FROM object o WHERE kind <> 'index'"
            " AND NOT EXISTS (SELECT 1 FROM place p WHERE p.object = o.id)"
        )
        found += [f"left in the catalog: object that no blob uses: {key}" for (key,) in unneeded]
    catalog.close()
    files = {}
    for folder, _, names in os.walk(root / "objects"):
        for name in names:
            path = Path(folder) / name
            files[path.relative_to(root / "objects").as_posix()] = path.stat().st_size
    found += [f"file without row: {key}" for key in sorted(files.keys() - rows.keys())]
    found += [f"row without file: {key}" for key in sorted(rows.keys() - files.keys())]
    found += [f"size of {k} is not {rows[k]}: {files[k]}" for k in files.keys() & rows.keys() if files[k] != rows[k]]
    known = KNOWN | {"cache", "transfers"} | ({"quarantine"} if mended else set())
    found += [f"left half made in cache/: {path.name}" for path in (root / "cache").glob("*.*")]
    found += [f"left in transfers/: {path.name}" for path in (root / "transfers").glob("*")]
    found += [f"left in tmp/: {path.name}" for path in (root / "tmp").iterdir()]
    found += [f"left in STORE: {path.name}" for path in root.iterdir() if path.name not in known]
    return found
