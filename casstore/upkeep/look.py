"""The look at everything: is all there that the catalog names, and is it what it should be. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..digest import Digest
from ..errors import Damaged, NotFound
from ..flow.restore import BlobReader
from ..format.index import IndexSegment, LargeSegment
from ..format.pack import DataTable
from ..model import BlobInfo, Progress
from ..store import damage, query, references
from ..store import index as store_index
from ..store.catalog import Tx
from ..store.damage import Rot
from ..store.epoch import epoch_matches
from ..store.leases import Lease
from ..store.objects import pack_id
from ..store.query import ObjectRow
from ..store.site import STORE_FILE, kept_copy
from ..store.volume import Volume
from . import documents
from .findings import CheckReport, Finding, images_of
from .named import Difference, differences
from .survey import Survey, survey


@dataclass(slots=True)
class Seen:
    """What was found, in a form that can be mended."""

    report: CheckReport = field(default_factory=CheckReport)
    lost: str = ""
    """Why the catalog is a new one that is yet to be filled."""
    fits: bool = True
    """Does the catalog belong to the store's files?"""
    older: bool = False
    """Is the catalog of a state before the copy of the references?"""
    copies: list[str] = field(default_factory=list)
    """Copies of the references that are damaged, or another store's."""
    names: list[Difference] = field(default_factory=list)
    """Names that are not what their copy says, which is of the same state."""
    rots: dict[str, Rot] = field(default_factory=dict)
    """What is bad, by object."""
    surveys: dict[str, Survey] = field(default_factory=dict)
    """Packs in which something was found."""
    segments: list[str] = field(default_factory=list)
    """Index segments that are missing, damaged, or not the ones that are meant."""
    lacking: list[str] = field(default_factory=list)
    """Data packs with chunks that no segment lists."""
    unknown: list[str] = field(default_factory=list)
    """Files that no row knows."""
    blobs: list[BlobInfo] = field(default_factory=list)
    """Blobs that cannot be read, or were found so before."""
    documents: list[Digest] = field(default_factory=list)
    """Manifests whose edges or rows in lists are not what they say."""

    @property
    def astray(self) -> bool:
        """Is this not the catalog of these files, in their present state?"""
        return bool(self.lost or self.unknown or self.older or not self.fits)


class Look:
    """One look at a store, under a lease."""

    def __init__(
        self,
        volume: Volume,
        lease: Lease,
        *,
        read_data: bool,
        stop: Callable[[], None] = lambda: None,
        progress: Progress | None = None,
    ) -> None:
        self._volume = volume
        self._lease = lease
        self._read_data = read_data
        self._stop = stop
        self._progress = progress
        self.seen = Seen()

    def run(self) -> Seen:
        self._catalog()
        # Files first, then their rows: a row is there before its file.
        files = [key for key, _ in self._volume.objects.list()]
        with self._volume.catalog.read() as tx:
            rows = list(query.objects(tx))
            covers = _covers(tx, (row.key for row in rows if row.kind == "index" and row.state == "live"))
        known = {row.key for row in rows}
        self.seen.unknown = [key for key in files if key not in known and self._volume.objects.stat(key) is not None]
        for key in self.seen.unknown if not self.seen.lost else ():
            self._found("error", key, "the catalog does not know this file")
        if self.seen.astray:
            self._stranded(set(files))
        live = [row for row in rows if row.state == "live"]
        segments = self._segments([row for row in live if row.kind == "index"], covers)
        self._objects([row for row in live if row.kind != "index"], segments)
        self._blobs()
        self._documents()
        return self.seen

    def _stranded(self, files: set[str]) -> None:
        """What a catalog that was set back takes for the beginning of a commit, or for garbage, may be in use since."""
        with self._volume.catalog.read() as tx:
            keys = [key for key in damage.stranded(tx) if key in files]
        for key in keys:
            self._found("error", key, "the catalog does not know whether this file came to be used")
        self.seen.unknown += keys

    def _found(self, severity: str, what: str, problem: str, images: Iterable[str] = ()) -> None:
        self._lease.check()  # without it things may go while we look at them
        self.seen.report.findings.append(Finding(severity, what, problem, images=tuple(images)))

    def _gone(self, key: str) -> bool:
        """Was the object collected while we looked?"""
        with self._volume.catalog.read() as tx:
            return bool(tx.value("SELECT state FROM object WHERE key = ?", (key,)) != "live")

    # -- the catalog

    def _catalog(self) -> None:
        volume, seen = self._volume, self.seen
        problem = volume.catalog.examine()
        if problem:
            self._found("error", "catalog.sqlite", f"is damaged: {problem}")
        # Catalog and files change together under the write lock only.
        with volume.catalog.read() if volume.catalog.read_only else volume.catalog.write("look") as tx:
            seen.lost = damage.why_lost(tx)
            seen.fits = epoch_matches(tx, volume.objects)
            seen.older = references.later(tx, volume.objects)
        with volume.catalog.read() as tx:
            seen.names = differences(tx, volume.objects)
        if seen.lost:
            self._found("error", "catalog.sqlite", f"is a new one and not filled yet: {seen.lost}")
        elif not seen.fits:
            self._found(
                "error", "catalog.sqlite", "does not belong to the store's files; was it restored from a backup?"
            )
        elif seen.older:
            self._found("error", "catalog.sqlite", f"is older than {references.FILE}; was it restored from a backup?")
        with volume.catalog.read() as tx:
            copies = references.problems(tx, volume.objects)
            kept = kept_copy(tx)
        seen.copies = list(copies)
        for name, problem in copies.items():
            severity = "error" if seen.older or seen.lost else "warning"
            self._found(severity, name, f"{problem}; names have no other copy")
        if kept is not None and kept != volume.file:
            self._found("error", STORE_FILE, "is not what the catalog keeps of it")
        for what, problem, images in seen.names:
            self._found("error", what, problem, images)

    # -- the index

    def _segments(
        self, rows: Sequence[ObjectRow], covers: dict[str, set[bytes]]
    ) -> list[IndexSegment | LargeSegment]:
        """The sound segments; each must be whole, and be the one that covers what the catalog says."""
        sound = []
        for row in rows:
            self._stop()
            self.seen.report.objects += 1
            try:
                segment = store_index.open_segment(self._volume.objects.open(row.key))
                if segment.chunk_digest != self._volume.file.chunk_digest or not covers[row.key] <= set(
                    segment.pack_ids
                ):
                    raise Damaged("is another segment than the one that is meant", what=row.key)
                if isinstance(segment, LargeSegment):
                    segment.verify(self._stop)
            except (Damaged, NotFound) as error:
                if not self._gone(row.key):
                    self.seen.segments.append(row.key)
                    problem = "the file is missing" if isinstance(error, NotFound) else error.message
                    self._found("error", row.key, f"{problem}; what it lists would be stored again")
            else:
                sound.append(segment)
        return sound

    def _covered(self, segments: Sequence[IndexSegment | LargeSegment], key: str, table: DataTable) -> bool:
        """Is each chunk of a pack in one of the segments?"""
        mine = pack_id(key)
        todo = np.ones(len(table.digests), np.bool_)
        for segment in segments:
            if mine not in segment.pack_ids or not todo.any():
                continue
            ordinal = segment.pack_ids.index(mine)
            try:
                for part, at in store_index.parts(segment, table.digests, np.flatnonzero(todo)):
                    first, count = part.find_range(table.digests[at])
                    for rank in range(int(count.max()) if len(count) else 0):
                        some = np.flatnonzero(count > rank)
                        packs, addresses = part.entry(first[some] + np.uint32(rank))
                        todo[at[some[(packs == ordinal) & (addresses == table.addresses[at[some]])]]] = False
            except Damaged:
                continue
        return not todo.any()

    # -- packs and loose blobs

    def _objects(self, rows: Sequence[ObjectRow], segments: Sequence[IndexSegment | LargeSegment]) -> None:
        total = sum(row.size for row in rows)
        done = 0
        for row in rows:
            self._stop()
            self.seen.report.objects += 1
            self._object(row, segments)
            done += row.size
            if self._progress is not None:
                self._progress("check objects", done, total)

    def _object(self, row: ObjectRow, segments: Sequence[IndexSegment | LargeSegment]) -> None:
        problem, rot, found = "", Rot(row.key), None
        try:
            with self._volume.objects.open(row.key) as reader:
                if row.kind != "blob":
                    found = survey(self._volume, reader, row.kind, frames=self._read_data, stop=self._stop)
                    self.seen.report.read_bytes += found.read_bytes
                    problem, rot = found.problem, found.rot()
                if reader.size != row.size and not problem:
                    problem = f"the file has {reader.size} bytes instead of {row.size}"
        except NotFound:
            problem = "the file is missing" + (" (moved to quarantine?)" if row.damaged else "")
        if found is not None and isinstance(found.table, DataTable) and not found.problems and not row.damaged:
            if not self._covered(segments, row.key, found.table) and not self._gone(row.key):
                self.seen.lacking.append(row.key)
                if not self.seen.segments:
                    self._found("error", row.key, "chunks of this pack are not in the index: would be stored again")
        elif row.damaged and not problem:
            problem = "was found damaged; --read-data --repair looks again"
        if not problem or self._gone(row.key):
            return
        if found is not None:
            self.seen.surveys[row.key] = found
        self.seen.rots[row.key] = rot
        with self._volume.catalog.read() as tx:
            needed = any(True for _ in query.users(tx, row.key))
            images = images_of(tx, (digest for _, digest in damage.hurt_by(tx, rot)))
        if needed:
            self._found("error", row.key, problem, images)
        elif not row.damaged:
            self._found("warning", row.key, f"{problem}; nothing needs it, gc takes it")

    # -- blobs

    def _blobs(self) -> None:
        with self._volume.catalog.read() as tx:
            infos = list(query.blobs(tx))
            marked = {row[0] for row in tx.rows("SELECT digest FROM blob WHERE state = 'live' AND damaged = 1")}
        total = sum(info.size for info in infos)
        done = 0
        for info in infos:
            self._stop()
            self._lease.check()
            self.seen.report.blobs += 1
            problem = self.problem_of(info)
            if problem and self._moved(info):
                problem = ""
            elif not problem and info.digest.raw in marked:
                problem = "was found damaged, but reads right" if self._read_data else "was found damaged"
            if problem:
                self.seen.blobs.append(info)
                self._blame(info.digest, problem)
            done += info.size
            if self._progress is not None:
                self._progress("check blobs", done, total)

    def _blame(self, digest: Digest, problem: str) -> None:
        with self._volume.catalog.read() as tx:
            images, kept = images_of(tx, [digest]), damage.is_kept(tx, digest)
        if kept:
            self._found("error", str(digest), problem, images)
        else:
            self._found("warning", str(digest), f"{problem}; nothing needs it, gc takes it")

    def _moved(self, info: BlobInfo) -> bool:
        """Did the blob go, or move elsewhere, while we looked? Then look at it once more where it is now."""
        with self._volume.catalog.read() as tx:
            now = query.find_blob(tx, info.digest)
        if now is None:
            return True
        return damage.place_keys(now) != damage.place_keys(info) and not self.problem_of(now)

    def problem_of(self, info: BlobInfo) -> str:
        """Why a blob cannot be read, "" if it can, as far as is looked."""
        try:
            reader = BlobReader(self._volume, info)
            if self._read_data:
                for _ in reader.read():
                    self._stop()
                self.seen.report.read_bytes += info.size
            elif info.place.state == "inline":
                for _ in reader.read(ahead=0):
                    pass
            elif info.place.state == "loose" and self._volume.objects.stat(info.place.key) != info.size:
                return f"{info.place.key} is missing or of another size"
        except (Damaged, NotFound) as error:
            return str(Damaged(error.message, what=error.what, offset=error.offset))
        return ""

    # -- manifests

    def _documents(self) -> None:
        hurt = {info.digest for info in self.seen.blobs}
        for one in documents.manifests(self._volume, skip=hurt):
            self._stop()
            problem = documents.problem_of(self._volume, one)
            if problem:
                self.seen.documents.append(one.digest)
                self._blame(one.digest, problem)


def _covers(tx: Tx, segments: Iterable[str]) -> dict[str, set[bytes]]:
    return {key: {pack_id(pack) for pack in query.covered_packs(tx, [key])} for key in segments}
