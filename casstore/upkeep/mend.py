"""`check --repair`: what a look found is marked, so that it answers "missing" and the next good copy heals it; what is
derived is made again; what can still be read of damaged objects is written anew; and the broken files are moved out of
the way, never deleted.

Every step is a transaction of the protocol, or several: the store is in use meanwhile, and a repair that is cut off has
done no harm and is repeated.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from ..digest import Digest
from ..errors import BadInput, Damaged, DigestMismatch, NotFound
from ..flow.loose import known_loose
from ..flow.source import RangeSource
from ..format.pack import DataTable, Record, RecordKind
from ..model import BlobInfo, Progress
from ..store import damage, protocol, query, references
from ..store.damage import Rot
from ..store.epoch import turn_epoch
from ..store.leases import Lease
from ..store.objects import ObjectReader
from ..store.packs import Pack
from ..store.volume import Volume
from . import documents, segments
from .findings import Finding
from .look import Seen
from .pack import batches
from .rebuild import Places, Rebuild, Rebuilt, reads, relink
from .rescue import rescue
from .survey import Survey, recover_data, recover_metadata, survey


class Mend:
    """One repair at work, under a lease."""

    def __init__(
        self,
        volume: Volume,
        lease: Lease,
        codec: str,
        stop: Callable[[], None] = lambda: None,
        progress: Progress | None = None,
    ) -> None:
        self._volume = volume
        self._lease = lease
        self._codec = codec
        self._stop = stop
        self._progress = progress
        self._opaque: set[str] = set()
        """Damaged objects of which nothing can be read."""

    def run(self, seen: Seen) -> Rebuilt:
        """Mend what `seen` tells; what is to be said beyond it."""
        volume = self._volume
        astray = seen.astray
        if astray:
            damage.distrust(volume.catalog, volume.objects)
        for key, rot in seen.rots.items():
            self._stop()
            self._mark(key, rot)
        protocol.mark_damaged(volume.catalog, seen.blobs)
        built = Rebuilt()
        if astray:
            built = Rebuild(volume, self._lease, self._stop, self._progress).run(seen.unknown, seen.lost)
            for found in built.spoilt:
                damage.mark_rot(volume.catalog, found.rot())
        if seen.segments or seen.lacking:
            segments.rebuild(volume, self._lease, seen.segments, seen.lacking, self._stop)
        self._blobs()
        for digest in seen.documents:
            self._document(digest)
        if seen.names:
            damage.reset_names(volume.catalog, volume.objects)
        self._set_aside(seen.segments, astray)
        for name in seen.copies:
            volume.objects.quarantine_file(name)
        if astray:
            damage.found_again(volume.catalog, volume.objects)
        if seen.copies:
            references.refresh(volume.catalog, volume.objects, now=True)
        return built

    # -- marking

    def _mark(self, key: str, rot: Rot) -> None:
        """Mark an object; of a pack, what is bad is looked for byte by byte."""
        with self._volume.catalog.read() as tx:
            row = query.find_object(tx, key)
        if row is None or row.state not in ("live", "retired"):
            return
        try:
            reader = self._volume.objects.open(key)
        except NotFound:
            damage.mark_rot(self._volume.catalog, rot)
            return
        if row.kind == "blob":
            sound = reader.size == row.size and any(self._is_verbatim(reader, info) for info in self._users(key))
            self._opaque.update(() if sound else (key,))
        else:
            found = survey(self._volume, reader, row.kind, frames=True, stop=self._stop)
            sound = reader.size == row.size and not found.problems
            if found.table is None:
                found = self._recovered(found, row.kind)
            if found.table is None:
                self._opaque.add(key)
            rot = found.rot()
        if sound:
            damage.mark_sound(self._volume.catalog, (), [key])
        else:
            damage.mark_rot(self._volume.catalog, rot)

    def _is_verbatim(self, reader: ObjectReader, info: BlobInfo) -> bool:
        """Is the file this blob, whatever the catalog says of its parts?"""
        with contextlib.suppress(DigestMismatch, Damaged, NotFound, BadInput):
            known_loose(RangeSource(reader), info.digest, reader.key)
            return True
        return False

    def _recovered(self, found: Survey, kind: str) -> Survey:
        """A pack whose table is lost, with another in its place as far as one can be made."""
        key = found.key
        reader = self._volume.objects.open(key)
        pack: Pack | None
        if kind == "data":
            pack = recover_data(self._volume, reader, segments.entries(self._volume, key), self._stop)
        else:
            infos = self._users(key)
            pack = recover_metadata(reader, [_record(info) for info in infos if info.place.key == key])
        if pack is None:
            return found
        found.table, found.recovered = pack.table, isinstance(pack.table, DataTable)
        if not found.recovered:
            found.bad = {number for number, row in enumerate(pack.frames) if not row["stored"]}
        self._volume.packs.put(pack)
        return found

    def _users(self, key: str) -> list[BlobInfo]:
        """The live blobs that depend on an object."""
        with self._volume.catalog.read() as tx:
            found = [query.find_blob(tx, digest) for digest, _ in query.users(tx, key)]
        return [info for info in found if info is not None]

    # -- blobs

    def _blobs(self) -> None:
        """Every blob that is marked, or lies in an object that is: sound after all, or elsewhere too, or written anew;
        else it stays marked."""
        volume = self._volume
        with volume.catalog.read() as tx:
            hurt = damage.suspects(tx)
        places = Places(volume) if hurt else None
        rewrite: list[BlobInfo] = []
        for info in hurt:
            self._stop()
            self._lease.check()
            with volume.catalog.read() as tx:
                clean = not damage.lies_in_damaged(tx, info.digest)
            if not self._reads(info):
                other = places.elsewhere(info, self._stop) if places is not None else None
                if other is not None:
                    if other.place.state == "loose":  # all of it was read; who read it by a wrong row blamed the file
                        damage.mark_sound(volume.catalog, (), [other.place.key])
                    protocol.commit(volume.catalog, self._lease.id, [other])
            elif clean:
                damage.mark_sound(volume.catalog, [info])
            else:
                rewrite.append(info)
        for batch in batches(rewrite):
            self._lease.check()
            rescue(volume, self._lease.id, batch, self._codec, self._stop)

    def _reads(self, info: BlobInfo) -> bool:
        """Can all of a blob be read, and is a manifest complete?"""
        if not reads(self._volume, info, self._stop):
            return False
        one = documents.read(self._volume, info) if documents.is_listed(info) else None
        return one is None or not documents.lacking(self._volume, one)

    def _document(self, digest: Digest) -> None:
        with self._volume.catalog.read() as tx:
            info = query.find_blob(tx, digest)
        one = None if info is None else documents.read(self._volume, info)
        if one is not None:
            relink(self._volume, one)

    # -- files

    def _set_aside(self, broken: Sequence[str], astray: bool) -> None:
        """Move the files of what is damaged into quarantine. Blobs that still lie in them answer "missing" from then
        on; who opened a lease before the sound ones left may be reading them there yet: such a file waits."""
        volume = self._volume
        gen = damage.stamp(volume.catalog)
        with volume.catalog.read() as tx:
            rows = [row for row in query.objects(tx) if row.damaged and row.state in ("live", "retired")]
        if (broken or rows) and not astray:
            turn_epoch(volume.catalog, volume.objects)
        for key in broken:
            volume.objects.quarantine(key)
        for row in rows:
            if row.key in self._opaque or damage.unread_since(volume.catalog, gen, self._lease.id):
                damage.mark_rot(volume.catalog, Rot(row.key))
                volume.objects.quarantine(row.key)


def summary(built: Rebuilt, lost: str) -> Finding | None:
    """What came back, in one line."""
    if not built.blobs:
        return None
    why = f"was new ({lost})" if lost else "did not know all files"
    text = f"{why}: {built.blobs} blobs and {built.images} images came back"
    if built.nameless:
        text += f", {built.nameless} of them without a name"
    return Finding("warning", "catalog.sqlite", text, True)


def _record(info: BlobInfo) -> Record:
    place = info.place
    return Record(
        RecordKind.BLOB if place.state == "inline" else RecordKind.RECIPE,
        info.digest,
        info.size,
        place.frame,
        place.offset,
        place.length,
        info.encoding,
        info.media_type,
        info.diffid,
        info.content_size,
        info.files_size,
    )
