"""`check`: is everything there that the catalog names, and is it what it should be; and what can be mended, mended.

Findings name the object and whom it hurts. Nothing is deleted here: what is rotten is marked, so that it answers
"missing" and the next good copy heals it; what still can be read of a damaged pack is written anew elsewhere; so is the
index, which is derived, from the packs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ..digest import Digest
from ..errors import CasstoreError, Damaged, NotFound
from ..flow.naming import Names
from ..flow.restore import BlobReader
from ..format import pack as pack_format
from ..format.index import IndexSegment
from ..format.pack import DataTable, PackKind
from ..model import FRAME_BITS, MAX_FRAME, BlobInfo, Progress
from ..store import collector, names, protocol, query, rewrite
from ..store.index import encode_segment
from ..store.leases import Lease
from ..store.objects import ObjectReader, index_key, pack_id
from ..store.packs import Pack
from ..store.protocol import NewObject
from ..store.query import ObjectRow
from ..store.volume import Volume
from .pack import batches
from .rescue import rescue


@dataclass(frozen=True, slots=True)
class Finding:
    """`severity`: "error" (something cannot be read) or "warning"; `what`: the object; `repaired`: by this run."""

    severity: str
    what: str
    problem: str
    repaired: bool = False


@dataclass(slots=True)
class CheckReport:
    """All findings, and how much was looked at."""

    findings: list[Finding] = field(default_factory=list)
    objects: int = 0
    blobs: int = 0
    read_bytes: int = 0

    @property
    def ok(self) -> bool:
        """Nothing is wrong (any more)."""
        return all(one.repaired or one.severity == "warning" for one in self.findings)


def check(
    volume: Volume,
    *,
    read_data: bool = False,
    repair: bool = False,
    codec: str = "zstd:3",
    stop: Callable[[], None] = lambda: None,
    progress: Progress | None = None,
) -> CheckReport:
    """Look at every object and every blob; with `read_data` at every byte; with `repair` mend what can be."""
    return _Check(volume, read_data, repair, codec, stop, progress).run()


class _Check:
    """One check at work."""

    def __init__(
        self,
        volume: Volume,
        read_data: bool,
        repair: bool,
        codec: str,
        stop: Callable[[], None],
        progress: Progress | None,
    ) -> None:
        self._volume = volume
        self._codec = codec
        self._read_data = read_data
        self._repair = repair
        self._stop = stop
        self._progress = progress
        self._report = CheckReport()
        self._bad: set[str] = set()
        self._sound: dict[str, DataTable] = {}
        self._lease: Lease | None = None

    def run(self) -> CheckReport:
        volume = self._volume
        self._epoch()
        with Lease(volume.catalog, volume.objects, "check") as lease:
            self._lease = lease
            with volume.catalog.read() as tx:
                rows = [row for row in query.objects(tx) if row.state == "live"]
            total = sum(row.size for row in rows)
            done = 0
            for row in rows:
                self._stop()
                self._object(row)
                done += row.size
                if self._progress is not None:
                    self._progress("check objects", done, total)
            self._index(lease, [row for row in rows if row.kind == "index"])
            readable = self._blobs(lease)
            if self._repair:
                self._rescue(lease, readable, {row.key for row in rows if row.damaged} | self._bad)
            self._settle()
        return self._report

    def _found(self, severity: str, what: str, problem: str, repaired: bool = False) -> None:
        if self._lease is not None:
            self._lease.check()  # without it things may go while we look at them
        self._report.findings.append(Finding(severity, what, problem, repaired))

    # -- the catalog and the files together

    def _epoch(self) -> None:
        volume = self._volume
        with volume.catalog.read() as tx:
            fits = collector.epoch_matches(tx, volume.objects)
        if fits:
            return
        if self._repair:
            collector.set_epoch(volume.catalog, volume.objects)
        self._found(
            "error",
            "catalog",
            "does not belong to the store's files (restored from a backup?); gc deletes nothing until this is repaired",
            self._repair,
        )

    def _object(self, row: ObjectRow) -> None:
        self._report.objects += 1
        size = self._volume.objects.stat(row.key)
        if size is None and self._gone(row.key):
            return
        problem = ""
        if size is None:
            problem = "the file is missing"
        elif size != row.size:
            problem = f"the file has {size} bytes instead of {row.size}"
        elif row.kind in ("data", "metadata"):
            problem = self._pack(row)
        if problem:
            self._bad.add(row.key)
            if row.kind == "index":
                return  # told, and mended, with the index
            if self._repair:
                protocol.mark_damaged(self._volume.catalog, keys=[row.key])
            self._found("error", row.key, problem)

    def _gone(self, key: str) -> bool:
        """Was the object collected while we looked?"""
        with self._volume.catalog.read() as tx:
            return bool(tx.value("SELECT state FROM object WHERE key = ?", (key,)) != "live")

    def _pack(self, row: ObjectRow) -> str:
        try:
            with self._volume.objects.open(row.key) as reader:
                self._header(row, reader)
                pack = Pack(reader, row.key)
                if isinstance(pack.table, DataTable):
                    self._sound[row.key] = pack.table
                if self._read_data:
                    self._frames(pack)
        except (Damaged, NotFound) as error:
            self._sound.pop(row.key, None)
            return str(error)
        return ""

    def _header(self, row: ObjectRow, reader: ObjectReader) -> None:
        """Readers go by the table; the header is for whoever has nothing but the pack."""
        head = pack_format.decode_header(reader.pread(0, min(pack_format.HEADER_SIZE, reader.size)), row.key)
        kind = PackKind.DATA if row.kind == "data" else PackKind.METADATA
        if head != (kind, pack_id(row.key), self._volume.file.chunk_digest):
            raise Damaged("the header is that of another pack", what=row.key, offset=0)

    def _frames(self, pack: Pack) -> None:
        """Every frame decoded; in a data pack every chunk compared with its name."""
        table = pack.table if isinstance(pack.table, DataTable) else None
        name = Names(self._volume.file.chunk_digest)
        raw_of: dict[int, bytes] = {}
        bases = {base for n in range(len(pack.frames)) if (base := pack.base(n)) is not None}
        for number in sorted(range(len(pack.frames)), key=lambda n: pack.base(n) is not None):
            self._stop()
            base = pack.base(number)
            raw = pack.decode(number, pack.stored([number])[number], None if base is None else raw_of[base])
            self._report.read_bytes += len(raw)
            if number in bases:
                raw_of[number] = raw
            if table is None:
                continue
            mine = table.addresses >> np.uint32(FRAME_BITS) == number
            starts = (table.addresses[mine] & np.uint32(MAX_FRAME - 1)).astype(np.uint64)
            if not np.array_equal(name.of(raw, starts, table.lengths[mine]), table.digests[mine]):
                raise Damaged(f"a chunk of frame {number} is not what its name says", what=pack.key)

    # -- the index

    def _index(self, lease: Lease, rows: list[ObjectRow]) -> None:
        """Each segment must be sound, and each chunk of each sound pack in one of them."""
        volume = self._volume
        sound: list[IndexSegment] = []
        broken: list[str] = []
        for row in rows:
            try:
                with volume.objects.open(row.key) as reader:
                    sound.append(IndexSegment.open(reader.pread(0, reader.size), what=row.key))
            except NotFound:
                if not self._gone(row.key):
                    broken.append(row.key)
            except Damaged:
                broken.append(row.key)
        lacking = [key for key, table in self._sound.items() if not self._covered(sound, key, table)]
        if not broken and not lacking:
            return
        mended = self._rebuild(lease, broken, lacking) if self._repair else False
        for key in broken:
            self._found("error", key, "index segment is missing or damaged", mended)
        for key in lacking:
            if not any(True for _ in broken):
                self._found("error", key, "chunks of this pack are not in the index", mended)

    def _covered(self, segments: list[IndexSegment], key: str, table: DataTable) -> bool:
        mine = pack_id(key)
        todo = np.ones(len(table.digests), np.bool_)
        for segment in segments:
            if mine not in segment.pack_ids or not todo.any():
                continue
            ordinal = segment.pack_ids.index(mine)
            at = np.flatnonzero(todo)
            first, count = segment.find_range(table.digests[at])
            for rank in range(int(count.max()) if len(count) else 0):
                some = np.flatnonzero(count > rank)
                packs, addresses = segment.entry(first[some] + np.uint32(rank))
                todo[at[some[(packs == ordinal) & (addresses == table.addresses[at[some]])]]] = False
        return not todo.any()

    def _rebuild(self, lease: Lease, broken: list[str], lacking: list[str]) -> bool:
        """One new segment over the packs that need one, in the place of the broken ones."""
        volume = self._volume
        with volume.catalog.read() as tx:
            wanted = sorted(set(lacking) | {k for k in query.covered_packs(tx, broken) if k in self._sound})
            gone = query.gone_packs(tx, broken)
        unsure = [k for k in self._bad if k.startswith("packs/") and k not in gone]
        key = index_key()
        protocol.put_begin(volume.catalog, lease.id, [(key, "index")])
        staged = volume.objects.stage(lease.id, key)
        tables = [(pack_id(one), self._sound[one].digests, self._sound[one].addresses) for one in wanted]
        staged.write(encode_segment(tables, volume.file.chunk_digest))
        volume.objects.publish([staged])
        # A damaged pack keeps its cover: its chunks answer "missing" all the same, and nothing hides that it was there.
        made = NewObject(key, staged.size, packs=tuple(wanted + [k for k in unsure if k not in wanted]))
        if not broken:
            rewrite.repack_commit(volume.catalog, lease.id, [made])
            return True
        return rewrite.merge_commit(volume.catalog, lease.id, broken, made)

    # -- blobs

    def _blobs(self, lease: Lease) -> list[BlobInfo]:
        """Look at every blob; returns those in which nothing was found."""
        volume = self._volume
        readable = []
        with volume.catalog.read() as tx:
            infos = list(query.blobs(tx))
        total = sum(info.size for info in infos)
        done = 0
        for info in infos:
            self._stop()
            lease.check()
            self._report.blobs += 1
            problem = self._blob(info)
            done += info.size
            if self._progress is not None:
                self._progress("check blobs", done, total)
            if not problem or self._moved(info):
                readable.append(info)
                continue
            if self._repair:
                protocol.mark_damaged(volume.catalog, [info])
            self._found("error", str(info.digest), f"{problem}{self._whom(info.digest)}")
        return readable

    def _rescue(self, lease: Lease, readable: list[BlobInfo], bad: set[str]) -> None:
        """Write anew what lies in a damaged object and can be read all the same."""
        with self._volume.catalog.read() as tx:
            marked = {row[0] for row in tx.rows("SELECT digest FROM blob WHERE state = 'live' AND damaged = 1")}
        hurt = [
            info
            for info in readable
            if info.digest.raw in marked or info.place.key in bad or any(use.key in bad for use in info.place.uses)
        ]
        for batch in batches(hurt):
            lease.check()
            rescue(self._volume, lease.id, batch, self._codec, self._stop)

    def _settle(self) -> None:
        """Damaged objects that nothing needs (any more) only wait for gc."""
        for at, finding in enumerate(self._report.findings):
            if finding.what not in self._bad or finding.repaired:
                continue
            with self._volume.catalog.read() as tx:
                needed = any(True for _ in query.users(tx, finding.what))
            if not needed and not finding.what.startswith("index/"):
                problem = f"{finding.problem}; nothing needs it, gc takes it"
                self._report.findings[at] = Finding("warning", finding.what, problem, self._repair)

    def _moved(self, info: BlobInfo) -> bool:
        """Did the blob go, or move elsewhere, while we looked? Then look at it once more where it is now."""
        with self._volume.catalog.read() as tx:
            now = query.find_blob(tx, info.digest)
        if now is None:
            return True
        same = now.place.key == info.place.key and [u.key for u in now.place.uses] == [u.key for u in info.place.uses]
        return not same and not self._blob(now)

    def _blob(self, info: BlobInfo) -> str:
        volume = self._volume
        try:
            reader = BlobReader(volume, info)
            if self._read_data:
                for _ in reader.read():
                    self._stop()
                self._report.read_bytes += info.size
            elif info.place.state == "inline":
                volume.packs.record(info.digest, info.place)
            elif info.place.state == "loose" and volume.objects.stat(info.place.key) != info.size:
                return "the loose file is missing or of another size"
        except CasstoreError as error:
            return error.message
        return ""

    def _whom(self, digest: Digest) -> str:
        """Which images a damaged blob hurts."""
        with self._volume.catalog.read() as tx:
            queue, seen = [digest], {digest}
            tags: list[str] = []
            while queue and len(tags) < 8:
                one = queue.pop()
                tags += [f"{row.repository}:{row.tag}" for row in names.tags(tx, target=one)]
                fresh = [p for p in names.parents(tx, one) if p not in seen]
                seen.update(fresh)
                queue += fresh
        return f"; needed by {', '.join(sorted(set(tags)))}" if tags else ""
