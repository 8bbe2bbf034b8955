"""`bundle create`: images into a file that carries only what the other side lacks.

The other side's blobs are the *bases*: it has them, so it has their chunks. Of the blobs that it lacks the bundle has
recipes, and of their chunks those that no base has, in one long compressed stream. What is loose here is taken apart
for it, in packs that nobody commits; what cannot be is carried as it is.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..codec.compression import LIMIT, Limit
from ..codec.gzip import LIMIT as TRACE_LIMIT
from ..codec.gzip import NoTrace
from ..codec.long import LEVELS, Compressor
from ..digest import Digest
from ..errors import BadInput, Damaged, UsageError
from ..flow.encoded import packable
from ..flow.ingest import Ingest
from ..flow.proof import doubt, info_of
from ..flow.restore import BlobReader, Reading
from ..flow.source import Buffers, StreamSource, name_of
from ..flow.step import Step
from ..flow.thin import batches, names_of
from ..format import bundle as bundle_format
from ..format.bundle import Base, BundleWriter, Carried, Head, Header, Kind, Name, Part
from ..kernels import table
from ..model import U8, U32, BlobInfo, Progress
from ..oci import manifest as oci_manifest
from ..oci import media, reference
from ..oci.manifest import Index, Manifest
from ..store import names, protocol, query
from ..store.leases import Lease
from ..store.protocol import NO_LEASE
from ..store.volume import Volume
from .bundle_file import carried, check_cutter, read_bases
from .content import closure, protect, read_document
from .output import opened
from .resolve import Found

_WORKERS = 8
"""Blobs taken apart or cut up at once, at most: each needs some tens of MiB."""
_REFERENCE = "vnd.docker.reference.digest"


@dataclass(frozen=True, slots=True)
class BundleReport:
    """What was made. `digest`: of the whole file, as sha256sum prints it; sizes in bytes."""

    digest: Digest
    size: int
    blobs: int
    bases: int
    chunks: int
    chunk_bytes: int


def create(
    volume: Volume,
    given: Sequence[str],
    out: str | Path | int,
    *,
    have: Sequence[str] = (),
    have_file: str | Path | int | None = None,
    since: str | Path | int | None = None,
    all_platforms: bool = False,
    level: int | None = None,
    pack: str = "plain",
    codec: str = "zstd:3",
    limit: Limit = LIMIT,
    trace_limit: float = TRACE_LIMIT,
    progress: Progress | None = None,
) -> BundleReport:
    """Write a bundle of images to a path or an open descriptor. The other side has the images `have`, the blobs listed
    in `have_file`, and what the bundle `since` brought; of blobs that are not in this store nothing is known.
    `all_platforms`: all that the store has of an index, not only what this machine would run. `level`: 1 (fast)
    to 19 (small); None: 19 for what is short, else one that takes no minutes. UsageError: no such level."""
    if level is not None and level not in LEVELS:
        raise UsageError(f"no level of a bundle is {level}: they are {LEVELS[0]} to {LEVELS[-1]}")
    there = {} if have_file is None else read_bases(volume, have_file)
    if since is not None:
        header, brought = carried(since)
        check_cutter(volume, header, name_of(since))
        there.update(brought)
    with Lease(volume.catalog, volume.objects, "bundle create", reading=True) as lease:
        found, infos = protect(volume, lease, [*given, *have])
        wanted, others = found[: len(given)], found[len(given) :]
        for one in others:
            there |= _of_image(volume, infos, one.target)
        infos |= protocol.read_open(volume.catalog, lease.id, sorted(there.keys() - infos.keys())).blobs
        alike = _alike(volume, there, infos)
        infos |= protocol.read_open(volume.catalog, lease.id, sorted(alike - infos.keys())).blobs
        selection = _Selection(volume, lease, infos, all_platforms)
        for one in wanted:
            selection.take(one)
        selection.take_referrers()
        work = _Create(volume, lease, selection, there.keys(), alike, level, limit, progress)
        ingest = Ingest(
            volume, lease.id, pack=pack, codec=codec, limit=limit, trace_limit=trace_limit, progress=progress
        )
        try:
            if lease.id != NO_LEASE:
                work.take_apart(ingest)
            return work.write(out, _names(given, wanted), [one.target for one in wanted])
        finally:
            ingest.close()


def _of_image(volume: Volume, infos: dict[Digest, BlobInfo], target: Digest) -> dict[Digest, Digest | None]:
    """What an image or index consists of here. What refers to it does not count: that may have come later."""
    found: dict[Digest, Digest | None] = {}
    queue = [target]
    while queue:
        digest = queue.pop()
        info = infos.get(digest)
        if info is None or digest in found:
            continue
        found[digest] = info.diffid
        if info.media_type in media.MANIFESTS | media.INDEXES:
            document = oci_manifest.parse(read_document(volume, info), str(digest), info.media_type, digest)
            queue += [child.digest for child in document.children]
    return found


def _alike(volume: Volume, there: dict[Digest, Digest | None], here: Container[Digest]) -> set[Digest]:
    """Blobs of this store that have the content of those that the other has, where this one lacks these: its layer is
    compressed, ours is not, or the other way round."""
    found: set[Digest] = set()
    with volume.catalog.read() as tx:
        for digest, diffid in there.items():
            if digest not in here:
                inside = diffid or digest
                found.update([inside, *(info.digest for info in query.find_diffid(tx, inside))])
    return found - there.keys()


def _names(given: Sequence[str], found: Sequence[Found]) -> list[Name]:
    """The tags that were asked for; none where an ID was given."""
    result = []
    for text, one in zip(given, found, strict=True):
        if one.tag is not None and not reference.is_full_id(text):
            name = Name(one.tag.repository, one.tag.tag, one.target)
            if name not in result:
                result.append(name)
    return result


class _Selection:
    """The blobs that are to be on the other side in the end, in order: what refers before what it refers to."""

    def __init__(self, volume: Volume, lease: Lease, infos: dict[Digest, BlobInfo], all_platforms: bool) -> None:
        self._volume = volume
        self._lease = lease
        self._all = all_platforms
        self.infos = infos
        self.blobs: dict[Digest, BlobInfo] = {}
        self.documents: dict[Digest, Manifest | Index] = {}
        self.texts: set[Digest] = set()
        """Documents and configs: what is read before the rest is there, and so carried as it is."""
        self.referrers: list[tuple[Digest, Digest]] = []

    def take(self, found: Found) -> None:
        """An image, with what its index has beside it."""
        self._take(found.target, None if self._all else found.image.manifest)

    def _take(self, digest: Digest, only: Digest | None) -> None:
        if digest in self.documents and only is not None:
            return
        info = self._known(digest)
        document = oci_manifest.parse(read_document(self._volume, info), str(digest), info.media_type, digest)
        self.blobs[digest] = info
        self.documents[digest] = document
        self.texts.add(digest)
        if isinstance(document, Manifest):
            if document.is_image:
                self.texts.add(document.config.digest)
            for child in document.children:
                self.blobs[child.digest] = self._known(child.digest)
            return
        for child in document.manifests:
            if child.digest not in self.infos:
                continue
            about = child.annotations.get(_REFERENCE)
            if only is None or child.digest == only or about == str(only) or self._leads(child.digest, only):
                self._take(child.digest, only if about != str(only) else None)

    def _leads(self, digest: Digest, to: Digest) -> bool:
        with self._volume.catalog.read() as tx:
            return to in closure(tx, digest)

    def _known(self, digest: Digest) -> BlobInfo:
        info = self.infos.get(digest)
        if info is None:
            raise Damaged("a blob that should be in the store is not", what=str(digest), hint="run casstore check")
        return info

    def take_referrers(self) -> None:
        """Signatures and the like: what has an edge from what it is about, as all that bring them here leave it (`load`
        takes images only), or stands in an index beside it; and what is about these."""
        known: dict[Digest, list[Digest]] = {}
        queue = list(self.documents)
        for digest in queue:
            self._find_referrers(digest, known)
        while queue:
            subject = queue.pop()
            for digest in known.get(subject, ()):
                self.referrers.append((digest, subject))
                if digest not in self.documents:
                    self._take(digest, None)
                    queue.append(digest)
                    self._find_referrers(digest, known)

    def _find_referrers(self, parent: Digest, known: dict[Digest, list[Digest]]) -> None:
        """Of what has an edge from `parent`: subject → what is about it."""
        with self._volume.catalog.read() as tx:
            below = names.children(tx, parent)
        for digest in below:
            info = self.infos.get(digest)
            if info is None or info.media_type not in media.MANIFESTS | media.INDEXES:
                continue
            document = self.documents.get(digest)
            if document is None:
                try:
                    document = oci_manifest.parse(read_document(self._volume, info), str(digest), info.media_type)
                except BadInput:
                    continue  # a child that nobody asked for
            if document.subject is not None:
                about = known.setdefault(document.subject.digest, [])
                if digest not in about:
                    about.append(digest)


@dataclass(slots=True)
class _Sent:
    """A blob that is sent. `entries`: of its recipe, the chunks that go along with it."""

    info: BlobInfo
    kind: Kind
    record: bytes = b""
    entries: U32 = field(default_factory=lambda: np.empty(0, np.uint32))


class _Create:
    """One bundle being made."""

    def __init__(
        self,
        volume: Volume,
        lease: Lease,
        selection: _Selection,
        there: Collection[Digest],
        alike: set[Digest],
        level: int | None,
        limit: Limit,
        progress: Progress | None,
    ) -> None:
        self._volume = volume
        self._lease = lease
        self._selection = selection
        self._level = level
        self._limit = limit
        self._progress = progress
        self._bases: list[Base] = []
        self._send: list[BlobInfo] = []
        for digest, info in selection.blobs.items():
            # An index is sent again: more of what it lists may be there now.
            if digest in there and not isinstance(selection.documents.get(digest), Index):
                self._bases.append(_base(info))
            else:
                self._send.append(info)
        needed = {base.digest for base in self._bases}
        self._near = [selection.infos[base.digest] for base in self._bases]
        """Bases that the images need themselves; the rest may be left out."""
        self._weight = bundle_format.Weight("bundle")
        far = (alike | set(there)) - needed
        self._far = [info for digest, info in selection.infos.items() if digest in far]

    def take_apart(self, ingest: Ingest) -> None:
        """Recipes for what is loose here, in packs that nobody commits."""
        loose = [
            info
            for info in self._send
            if info.place.state == "loose" and packable(info) and info.digest not in self._selection.texts
        ]
        if not loose:
            return
        with ThreadPoolExecutor(_workers(len(loose)), thread_name_prefix="bundle") as pool:
            done = pool.map(lambda info: self._take_apart(ingest, info), loose)
            tried = [info.digest for info, taken in zip(loose, done, strict=True) if taken]
        made = {blob.digest: blob for blob in ingest.finish(tried).blobs}
        for at, info in enumerate(self._send):
            blob = made.get(info.digest)
            if blob is not None and blob.place.state == "packed" and not doubt(self._volume, blob, self._lease.check):
                self._send[at] = info_of(blob)

    def _take_apart(self, ingest: Ingest, info: BlobInfo) -> bool:
        self._lease.check()
        source = StreamSource(Buffers(BlobReader(self._volume, info).read()), info.size)
        what = f"pack {str(info.digest)[:19]}"
        try:
            if info.encoding == "identity":
                ingest.take(source, expect=info.digest, media_type=info.media_type, what=what)
            else:
                ingest.take_apart(source, info.digest, media_type=info.media_type, what=what)
        except NoTrace:
            return False
        return True

    def write(self, out: str | Path | int, given: Sequence[Name], roots: Sequence[Digest]) -> BundleReport:
        """Write it."""
        chunks = _Chunks(self._volume, self._lease, [*self._near, *self._far], self._limit, self._progress)
        sent = [self._sent(info, chunks) for info in self._send]
        used, sources = chunks.sources()
        bases = [_base(info) for info in used]
        bases += [base for base in self._bases if base.digest not in {one.digest for one in bases}]
        head = Head(
            tuple(bases),
            tuple(_carried(one) for one in sent),
            tuple(given),
            tuple(dict.fromkeys(roots)),
            tuple(self._selection.referrers),
            chunks.count,
            chunks.size,
        )
        whole = sum(one.info.size for one in sent if one.kind == Kind.WHOLE)
        step = Step(self._progress, "bundle", chunks.size + whole)
        quiet = Step(None, "", None)
        with opened(out, quiet, self._volume.catalog.decided) as target:
            header = Header(self._volume.file.chunk_digest, self._volume.file.cutter)
            writer = BundleWriter(target.write, header)
            writer.add(Part.HEAD, bundle_format.encode_head(head))
            for one in sent:
                writer.add(Part.RECORDS, one.record)
            writer.add(Part.SOURCES, bundle_format.encode_sources(sources))
            for one in sent:
                if one.kind == Kind.WHOLE:
                    self._lease.check()
                    for piece in step.over(BlobReader(self._volume, one.info).read()):
                        writer.add(Part.WHOLE, piece)
            self._write_chunks(writer, sent, chunks.size, step)
            digest = writer.end()
        step.done()
        return BundleReport(digest, writer.size, len(sent), len(bases), chunks.count, chunks.size)

    def _write_chunks(self, writer: BundleWriter, sent: Sequence[_Sent], size: int, step: Step) -> None:
        if not size:
            return
        stream = Compressor(size, len(os.sched_getaffinity(0)), self._level)
        for one in sent:
            if not len(one.entries):
                continue
            self._lease.check()
            reading = Reading(self._volume, one.info)
            for start, end in batches(reading.lengths[one.entries]):
                content = reading.chunks(one.entries[start:end])
                writer.add(Part.CHUNKS, stream.add(content))
                step.advance(len(content))
        writer.add(Part.CHUNKS, stream.end())

    def _sent(self, info: BlobInfo, chunks: _Chunks) -> _Sent:
        small = info.size <= bundle_format.MAX_DOCUMENT
        if small and (info.place.state == "inline" or info.digest in self._selection.texts):
            return _Sent(info, Kind.BYTES, read_document(self._volume, info))
        if info.place.state == "packed":
            record = self._volume.packs.record(info.digest, info.place)
            reading = Reading(self._volume, info)
            self._weight.add(reading.recipe)
            return _Sent(info, Kind.RECIPE, bytes(record), chunks.take(reading))
        return _Sent(info, Kind.WHOLE)


def _workers(tasks: int) -> int:
    return max(1, min(tasks, _WORKERS, len(os.sched_getaffinity(0))))


def _base(info: BlobInfo) -> Base:
    plain = info.digest if info.encoding == "identity" else None
    return Base(info.digest, info.size, info.diffid or plain)


def _carried(one: _Sent) -> Carried:
    info = one.info
    return Carried(
        one.kind,
        info.digest,
        info.size,
        len(one.record),
        info.encoding,
        info.media_type,
        info.diffid,
        info.content_size,
        info.files_size,
    )


class _Chunks:
    """Which chunks go along: of all that the recipes name, in order of first use, those that no base has. Bases are
    asked in order, and only once a chunk is wanted."""

    def __init__(
        self, volume: Volume, lease: Lease, bases: Sequence[BlobInfo], limit: Limit, progress: Progress | None
    ) -> None:
        self._bases = [info for info in bases if info.media_type not in media.MANIFESTS | media.INDEXES]
        self._base_of = table.ChunkMap()
        told = [number for number, info in enumerate(self._bases) if info.place.state != "inline"]

        def names(number: int) -> U8 | None:
            info = self._bases[number]
            lease.check()
            step = Step(progress, f"base {str(info.digest)[:19]}", None)
            try:
                return names_of(volume, info, limit)
            except BadInput:
                return None  # what is inside is not what its first bytes say
            finally:
                step.done()

        with ThreadPoolExecutor(_workers(len(told)), thread_name_prefix="bundle") as pool:
            for number, found in zip(told, pool.map(names, told), strict=True):
                if found is not None:
                    fresh = found[self._base_of.claim(found)]
                    self._base_of.set(fresh, np.full(len(fresh), number, np.uint64))
        self._seen = table.ChunkMap()
        self._sources: list[np.ndarray] = []
        self.count = 0
        self.size = 0

    def take(self, reading: Reading) -> U32:
        """The chunks of one more recipe; returns the entries that go along."""
        first = np.flatnonzero(self._seen.claim(reading.digests))
        base = self._base_of.get(np.ascontiguousarray(reading.digests[first]))
        new = base == table.MISSING
        self._sources.append(np.where(new, 0, base + np.uint64(1)))
        entries = first[new]
        self.count += len(entries)
        self.size += int(reading.lengths[entries].sum(dtype=np.uint64))
        taken: U32 = entries.astype(np.uint32)
        return taken

    def sources(self) -> tuple[list[BlobInfo], U32]:
        """The bases that are used, and for each chunk the number of its base there, from 1, or 0."""
        all_of_them = np.concatenate([np.empty(0, np.uint64), *self._sources]).astype(np.int64)
        used, numbers = np.unique(all_of_them, return_inverse=True)
        if not len(used) or used[0] != 0:
            numbers = numbers + 1
        return [self._bases[one - 1] for one in used.tolist() if one], numbers.reshape(-1).astype(np.uint32)
