"""The catalog from the packs: rows for files that it does not know, blobs by the records of metadata packs and by the
names of loose files, edges and lists by the manifests, names by their rolling copy.

For a catalog that was lost, and for one that is older than the files (from a backup). What was in a lost catalog alone
cannot come back: leases, times, the history of tags, whether a blob was meant to go. So what has no name is pinned.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..digest import Digest
from ..errors import BadInput, Damaged, DigestMismatch, NotFound
from ..flow.ingest import INLINE
from ..flow.loose import known_loose
from ..flow.proof import info_of
from ..flow.records import intervals
from ..flow.restore import BlobReader
from ..flow.source import RangeSource
from ..format import recipe as recipe_format
from ..format.pack import DataTable, MetadataTable, Record, RecordKind
from ..model import BlobInfo, NewBlob, Place, Progress, Used
from ..oci import media
from ..oci.manifest import Index
from ..oci.reference import familiar_repository
from ..store import collector, damage, names, protocol, query, references
from ..store.index import IndexSet
from ..store.leases import Lease
from ..store.objects import loose_prefix, pack_key
from ..store.packs import Pack
from ..store.protocol import NewObject
from ..store.volume import Volume
from . import documents, segments
from .findings import Finding
from .survey import Survey, recover_data, survey

BATCH = 64
"""Blobs in one commit."""
DEEP_FRAME = 2 << 20
"""A data pack with a frame larger than this (bytes uncompressed) was packed hard."""


@dataclass(slots=True)
class Rebuilt:
    """What came back, and what is to be said of it. `spoilt`: surveys of files that are bad in part and got a row all
    the same, for what can be read of them."""

    blobs: int = 0
    images: int = 0
    nameless: int = 0
    findings: list[Finding] = field(default_factory=list)
    spoilt: list[Survey] = field(default_factory=list)


class Rebuild:
    """One rebuild at work, under a lease and while the catalog is distrusted."""

    def __init__(
        self, volume: Volume, lease: Lease, stop: Callable[[], None] = lambda: None, progress: Progress | None = None
    ) -> None:
        self._volume = volume
        self._lease = lease
        self._stop = stop
        self._progress = progress
        self._result = Rebuilt()
        self._garbage: set[str] = set()
        """Objects that the catalog takes for garbage, or whose writer may not have ended."""

    def run(self, unknown: Sequence[str], lost: str) -> Rebuilt:
        """Take in these files; then names, if the catalog is older than their copy."""
        volume = self._volume
        with volume.catalog.read() as tx:
            retired = query.retired_blobs(tx)
            self._garbage = damage.doubtful(tx, volume.objects)
            complete = references.complete(tx, volume.objects)
        if not complete:  # who carries this on must still know which blobs may have got a name
            unknown = [*unknown, *(info.place.key for info in retired)]
        unknown = damage.distrust(volume.catalog, volume.objects, unknown)
        # What processes of before have staged must not be published into a store that counts anew.
        collector.gc_tmp(volume.catalog, volume.objects)
        packs = [self._pack(key) for key in unknown if key.startswith("packs/")]
        tables = {found.key: found for found in packs if found is not None}
        segments.rebuild(volume, self._lease, stop=self._stop)
        self._records([key for key, found in tables.items() if isinstance(found.table, MetadataTable)])
        self._loose([key for key in unknown if key.startswith("blobs/")])
        self._retired(retired)
        came = self._came(unknown) | {info.digest for info in retired if not self._wanted(info.digest)}
        self._result.blobs = len(came)
        self._documents(came)
        # What was on its way out already, and has got no name that is known since, goes on its way.
        self._names(lost, came, self._came([key for key in unknown if key not in self._garbage]) if complete else came)
        for key in unknown:
            with volume.catalog.read() as tx:
                known = tx.row("SELECT 1 FROM object WHERE key = ?", (key,)) is not None
            if not known:
                volume.objects.quarantine(key)
        return self._result

    # -- packs

    def _pack(self, key: str) -> Survey | None:
        """A row for a pack; None where nothing of it can be read."""
        self._stop()
        volume = self._volume
        try:
            reader = volume.objects.open(key)
        except NotFound:
            return None
        kind, found = "data", Survey(key)
        for kind in ("data", "metadata"):
            found = survey(volume, reader, kind, frames=False)
            if found.table is not None:
                break
        if found.problems and found.table is not None:
            found = survey(volume, reader, kind, frames=True, stop=self._stop)
        size = reader.size
        if found.table is None:
            kind = "data"
            pack = recover_data(volume, reader, segments.entries(volume, key), self._stop)
            if pack is None:
                self._result.findings.append(Finding("error", key, found.problem))
                return None
            found.table, found.recovered = pack.table, True
            volume.packs.put(pack)
        else:
            reader.close()
        raw, deep = 0, False
        if isinstance(found.table, DataTable):
            raw = int(found.table.lengths.sum(dtype=np.uint64))
            frames = found.table.frames
            deep = bool(len(frames)) and bool(np.any(frames["base"]) or int(frames["raw"].max()) > DEEP_FRAME)
        one = NewObject(key, size, raw, deep=deep)
        damage.adopt(volume.catalog, self._lease.id, [(kind, one)])
        if found.problems:
            self._result.spoilt.append(found)
        return found

    # -- blobs

    def _wanted(self, digest: Digest) -> bool:
        """Is the blob absent, or known to be damaged?"""
        with self._volume.catalog.read() as tx:
            row = tx.row("SELECT state, damaged FROM blob WHERE digest = ?", (digest.raw,))
        return row is None or row[0] != "live" or bool(row[1])

    def _records(self, keys: Sequence[str]) -> None:
        places = Places(self._volume)
        batch: dict[Digest, NewBlob] = {}
        for at, key in enumerate(keys):
            pack = self._volume.packs.pack(key)
            table = pack.table
            for record in table.records if isinstance(table, MetadataTable) else ():
                self._stop()
                if record.digest in batch or not self._wanted(record.digest):
                    continue
                blob = places.blob_of(pack, record)
                if blob is not None:
                    batch[record.digest] = blob
                if len(batch) >= BATCH:
                    self._commit(batch)
            if self._progress is not None:
                self._progress("rebuild catalog", at + 1, len(keys))
        self._commit(batch)

    def _retired(self, infos: Sequence[BlobInfo]) -> None:
        """Blobs that the catalog takes for garbage, as far as they can be read yet: a commit that it has lost may have
        put them to use again."""
        places = Places(self._volume) if infos else None
        batch: dict[Digest, NewBlob] = {}
        for info in infos:
            self._stop()
            blob = places.again(info, self._stop) if places is not None and self._wanted(info.digest) else None
            if blob is not None:
                batch[info.digest] = blob
            if len(batch) >= BATCH:
                self._commit(batch)
        self._commit(batch)

    def _commit(self, batch: dict[Digest, NewBlob]) -> None:
        self._lease.check()
        if batch:
            protocol.commit(self._volume.catalog, self._lease.id, list(batch.values()))
            batch.clear()

    def _loose(self, keys: Sequence[str]) -> None:
        """Loose blobs, by the digest in their file's name; each is read, as all else that is known of it is inside."""
        for key in keys:
            self._stop()
            algorithm, name = key.split("/")[1], key.rpartition("/")[2]
            digest = Digest(algorithm, bytes.fromhex(name.partition(".")[0]))
            if not self._wanted(digest):
                continue
            try:
                with self._volume.objects.open(key) as reader:
                    blob = known_loose(RangeSource(reader), digest, key)
            except (DigestMismatch, NotFound, Damaged, BadInput):
                self._result.findings.append(Finding("error", key, "its bytes do not have the digest of its name"))
                continue
            damage.adopt(self._volume.catalog, self._lease.id, [("blob", NewObject(key, blob.size))])
            self._commit({digest: replace(blob, media_type=self._sniffed(blob))})

    def _sniffed(self, blob: NewBlob) -> str:
        """The media type of a manifest that was large and loose; its record would have said it."""
        if blob.encoding != "identity" or blob.size <= INLINE:
            return ""
        one = documents.read(self._volume, info_of(blob))
        return "" if one is None else one.content.media_type

    def _came(self, keys: Sequence[str]) -> set[Digest]:
        """The blobs that came back with these files, now or in a rebuild before that was cut off."""
        with self._volume.catalog.read() as tx:
            return {digest for key in keys for digest, _ in query.users(tx, key)}

    # -- manifests and names

    def _documents(self, came: set[Digest]) -> None:
        """Edges of manifests to what is here, their rows in lists."""
        for one in documents.manifests(self._volume):
            self._stop()
            if one.digest in came or documents.problem_of(self._volume, one):
                relink(self._volume, one)
                self._result.images += one.digest in came and not isinstance(one.content, Index)

    def _names(self, lost: str, came: set[Digest], held: set[Digest]) -> None:
        """Names from their copies; of what came back, `held` is pinned where it has none."""
        volume = self._volume
        with volume.catalog.read() as tx:
            copies = references.to_take(tx, volume.objects, everything=bool(lost))
            copied = bool(copies) or references.same_state(tx, volume.objects) is not None
        left: dict[str, Digest] = {}
        for copy in copies:
            everything = bool(lost) and copy is copies[0]
            for repository, tag, target in damage.restore_names(volume.catalog, copy, everything=everything):
                left.setdefault(f"{familiar_repository(repository)}:{tag}", target)
        for name, target in left.items():
            self._result.findings.append(
                Finding("error", name, f"{target}, which it named, is lost", images=(name,))
            )
        nameless = damage.hold_nameless(volume.catalog, self._nameless(held & came, copied))
        self._result.nameless = len(nameless)

    def _nameless(self, came: set[Digest], copied: bool) -> list[tuple[Digest, str]]:
        """(digest, name of pin) of all that came back, what keeps others first. Where names have a copy, a manifest
        that has none there and lacks blobs was collected long ago: its record only shared a pack with others."""
        with self._volume.catalog.read() as tx:
            infos = [info for digest in sorted(came) if (info := query.find_blob(tx, digest)) is not None]
            lacking = {
                info.digest
                for info in infos
                if copied and tx.value("SELECT damaged FROM blob WHERE digest = ?", (info.digest.raw,))
            }
        kinds = (media.INDEXES, media.MANIFESTS)
        infos.sort(key=lambda info: next((n for n, kind in enumerate(kinds) if info.media_type in kind), 2))
        return [
            (info.digest, names.UNTAGGED if info.media_type in media.MANIFESTS | media.INDEXES else names.PIN)
            for info in infos
            if info.digest not in lacking
        ]


def relink(volume: Volume, one: documents.Document) -> None:
    """Write a manifest's edges to what is here, and its row in lists, anew. One that lacks something answers "missing":
    a load then brings it again together with what it lacks."""
    wanted = [*documents.children(one.content), *documents.pressed(volume, one)]
    damage.relink(volume.catalog, one.digest, wanted, documents.row_of(volume, one))
    if documents.lacking(volume, one):
        protocol.mark_damaged(volume.catalog, [one.info])


def as_new(info: BlobInfo) -> NewBlob:
    """A blob as a commit names it, at the place where it is."""
    return NewBlob(
        info.digest,
        info.size,
        info.place,
        info.encoding,
        info.media_type,
        info.diffid,
        info.content_size,
        info.files_size,
        spot=info.spot,
    )


def reads(volume: Volume, info: BlobInfo, stop: Callable[[], None]) -> bool:
    """Can all of a blob be read at its place?"""
    try:
        for _ in BlobReader(volume, info).read():
            stop()
    except (Damaged, NotFound):
        return False
    return True


class Places:
    """Finds where the chunks of recipes lie, by the index, in packs that are live and sound."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        with volume.catalog.read() as tx:
            self._index = IndexSet(volume.objects, protocol.live_segments(tx))
            live = [row for row in query.objects(tx) if row.state == "live" and not row.damaged]
        self._sound = {row.key for row in live}
        self._metadata = {row.key for row in live if row.kind == "metadata"}
        self._by_digest: dict[Digest, list[tuple[Pack, Record]]] | None = None
        self._usable = np.array([pack_key(one) in self._sound for one in self._index.packs], np.bool_)

    def blob_of(self, pack: Pack, record: Record) -> NewBlob | None:
        """What a commit needs of the blob of a record; None where it cannot be read there."""
        place = Place("inline", pack.key, record.frame, record.offset, record.length)
        try:
            if record.kind == RecordKind.RECIPE:
                place = replace(place, state="packed", uses=self._uses(pack.record_of(record.digest, place)))
            blob = NewBlob(
                record.digest,
                record.size,
                place,
                record.encoding,
                record.media_type,
                record.diffid,
                record.content_size,
                record.files_size,
            )
            reader = BlobReader(self._volume, info_of(blob))
            if place.state == "inline":
                for _ in reader.read(ahead=0):
                    pass
        except (Damaged, NotFound):
            return None
        return blob

    def again(self, info: BlobInfo, stop: Callable[[], None]) -> NewBlob | None:
        """A blob where the catalog says that it is, else `elsewhere`."""
        if damage.place_keys(info) <= self._sound and reads(self._volume, info, stop):
            return as_new(info)
        return self.elsewhere(info, stop)

    def elsewhere(self, info: BlobInfo, stop: Callable[[], None]) -> NewBlob | None:
        """A blob that cannot be read as the catalog says, as the files say: over other copies of its chunks, by a
        record of it in any metadata pack, or verbatim in a file of its own. None where it is nowhere."""
        if info.place.state == "packed":
            with contextlib.suppress(Damaged, NotFound):
                uses = self._uses(self._volume.packs.record(info.digest, info.place))
                found = replace(info, place=replace(info.place, uses=uses))
                BlobReader(self._volume, found)
                return as_new(found)
        for pack, record in self._records().get(info.digest, ()):
            blob = self.blob_of(pack, record)
            if blob is not None and reads(self._volume, info_of(blob), stop):
                return blob
        for key in self._volume.objects.all_keys(loose_prefix(info.digest)):
            if key in self._sound:
                with contextlib.suppress(DigestMismatch, Damaged, NotFound, BadInput):
                    with self._volume.objects.open(key) as reader:
                        blob = known_loose(RangeSource(reader), info.digest, key)
                    return replace(blob, media_type=info.media_type)
        return None

    def _records(self) -> dict[Digest, list[tuple[Pack, Record]]]:
        """The records of all metadata packs, by blob. Read when a blob is first looked for."""
        if self._by_digest is None:
            self._by_digest = {}
            for key in sorted(self._metadata):
                with contextlib.suppress(Damaged, NotFound):
                    pack = self._volume.packs.pack(key)
                    for record in pack.table.records if isinstance(pack.table, MetadataTable) else ():
                        self._by_digest.setdefault(record.digest, []).append((pack, record))
        return self._by_digest

    def _uses(self, record: bytes) -> tuple[Used, ...]:
        recipe = recipe_format.decode(record)
        digests = np.concatenate([recipe.literals.digests, recipe.payloads.digests])
        lengths = np.concatenate([recipe.literals.lengths, recipe.payloads.lengths])
        located = self._index.locate(digests, lambda numbers, _: self._usable[numbers])
        if not located.found.all():
            raise Damaged("a chunk is nowhere", what="recipe")
        return tuple(
            Used(
                pack_key(self._index.packs[int(number)]),
                intervals(located.addresses[mine].astype(np.uint64), lengths[mine]),
            )
            for number, mine in _by_value(located.packs)
        )


def _by_value(values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for value in np.unique(values):
        yield int(value), values == value
