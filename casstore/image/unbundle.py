"""`bundle load`: what a bundle carries into a store that has its bases. All of it is committed at once, or nothing is.

Its chunks are hashed, and stored unless they are there; its recipes become the store's; every blob is read back and
compared with its digest before the commit.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..codec.compression import LIMIT, Limit
from ..codec.gzip import LIMIT as TRACE_LIMIT
from ..codec.long import Decompressor
from ..digest import Digest
from ..errors import BadInput, Damaged, DigestMismatch, InvalidReference, LimitExceeded, NotFound
from ..flow.ingest import INLINE, Ingest, Written
from ..flow.naming import Names
from ..flow.proof import info_of
from ..flow.restore import BlobReader
from ..flow.source import Buffers, BytesSource, StreamSource, name_of, open_input
from ..flow.step import Step
from ..flow.thin import Wanted, batches, cut_up, entries, pending, unlike
from ..format import bundle as bundle_format
from ..format import recipe as recipe_format
from ..format.bundle import BundleReader, Carried, Kind, Part
from ..kernels import table
from ..model import U8, U32, BlobInfo, ImageRow, Mask, NewBlob, Progress, Recipe
from ..oci import config as oci_config
from ..oci import image as oci_image
from ..oci import manifest as oci_manifest
from ..oci import media, reference
from ..oci.manifest import Index, Manifest
from ..oci.reference import Reference
from ..store import protocol, query
from ..store.leases import Lease
from ..store.volume import Volume
from .bundle_file import Span, check_cutter, read_head
from .content import read_document
from .load import LoadReport, moves
from .resolve import UNTAGGED, is_kept

_LOOK = 1 << 16
"""Chunks looked up at a time."""


def load(
    volume: Volume,
    where: str | Path | int,
    *,
    expect: Digest | None = None,
    tags: bool = True,
    pack: str = "plain",
    codec: str = "zstd:3",
    limit: Limit = LIMIT,
    trace_limit: float = TRACE_LIMIT,
    progress: Progress | None = None,
) -> LoadReport:
    """Load a bundle from a path or an open descriptor. `expect`: the digest of the whole file. Without `tags` the
    images come under their IDs only. StoreUnusable: it is for stores that cut in another way. NotFound: a base is
    missing. Nothing is changed by any error."""
    what = name_of(where)
    with open_input(where) as raw, Lease(volume.catalog, volume.objects, f"bundle load {what}") as lease:
        ingest = Ingest(
            volume, lease.id, pack=pack, codec=codec, limit=limit, trace_limit=trace_limit, progress=progress
        )
        again = Ingest(volume, lease.id, codec=codec, limit=limit, trace_limit=trace_limit, progress=progress)
        try:
            reader = BundleReader(StreamSource(raw), what)
            work = _Load(volume, lease, ingest, again, reader, what, limit, progress)
            return work.run(expect, tags)
        finally:
            ingest.close()
            again.close()


@dataclass(slots=True)
class _Came:
    """A blob that came. `children`: its edges, once they are known."""

    carried: Carried
    data: bytes = b""
    recipe: Recipe | None = None
    document: Manifest | Index | None = None
    children: list[Digest] = field(default_factory=list)


class _Load:
    """One bundle being loaded."""

    def __init__(
        self,
        volume: Volume,
        lease: Lease,
        ingest: Ingest,
        again: Ingest,
        reader: BundleReader,
        what: str,
        limit: Limit,
        progress: Progress | None,
    ) -> None:
        self._volume = volume
        self._lease = lease
        self._ingest = ingest
        self._again = again
        self._reader = reader
        self._what = what
        self._limit = limit
        self._progress = progress
        check_cutter(volume, reader.header, what)
        self._head = read_head(reader, what)
        self._came: dict[Digest, _Came] = {}
        self._present: set[Digest] = set()
        self._alike: dict[Digest, Digest] = {}
        """Bases that are not here → a blob with their content, which is."""
        self._remade: set[Digest] = set()

    def run(self, expect: Digest | None, tags: bool) -> LoadReport:
        self._bases()
        self._records()
        digests, lengths, sources = self._chunk_list()
        self._whole()
        self._reader.done(Part.WHOLE)
        wanted = self._wanted()
        self._chunks(digests, lengths, sources, wanted)
        digest = self._reader.end()
        if expect is not None and digest != expect:
            raise DigestMismatch(f"the bundle is not the one expected: {expect}, but {digest}", what=self._what)
        self._base_chunks(digests, sources, wanted)
        self._documents()
        return self._commit(tags)

    # -- what it says

    def _bases(self) -> None:
        bases = [base.digest for base in self._head.bases]
        found = protocol.name_blobs(self._volume.catalog, self._lease.id, bases)
        self._find_alike(found)
        lost = [digest for digest in bases if digest not in found and digest not in self._alike]
        if lost:
            more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
            raise NotFound(
                f"base blob {lost[0]}{more} is not in this store",
                what=self._what,
                hint="load first what has it, or make the bundle without it",
            )
        blobs = [one.digest for one in self._head.blobs]
        self._present = found | protocol.name_blobs(self._volume.catalog, self._lease.id, blobs)

    def _find_alike(self, here: Container[Digest]) -> None:
        """For bases that are not here: blobs with the same content, named, so that they stay."""
        with self._volume.catalog.read() as tx:
            other = {
                base.digest: [base.diffid, *(info.digest for info in query.find_diffid(tx, base.diffid))]
                for base in self._head.bases
                if base.digest not in here and base.diffid is not None
            }
        ask = [digest for several in other.values() for digest in several]
        kept = protocol.name_blobs(self._volume.catalog, self._lease.id, ask)
        for base, several in other.items():
            for digest in several:
                if digest in kept:
                    self._alike.setdefault(base, digest)

    def _records(self) -> None:
        weight = bundle_format.Weight(self._what)
        for one in self._head.blobs:
            came = self._came[one.digest] = _Came(one)
            if one.kind == Kind.WHOLE:
                continue
            data = bytes(self._reader.read(Part.RECORDS, one.length))
            what = f"{self._what}: {one.digest}"
            if one.kind == Kind.BYTES:
                one.digest.check(Digest.of(data, one.digest.algorithm), what)
                came.data = data
                continue
            recipe = recipe_format.decode(data, what)
            if recipe.encoding not in ("identity", "gzip") or recipe.size != one.size:
                raise Damaged("the recipe is not that of the blob", what=what)
            weight.add(recipe)
            came.recipe = recipe
        self._reader.done(Part.RECORDS)
        self._bound(weight.content, weight.chunks + self._reader.offset)

    def _chunk_list(self) -> tuple[U8, U32, U32]:
        """Names and lengths of the chunks that the recipes name, in order of first use, and their sources."""
        seen = table.ChunkMap()
        names: list[U8] = [np.empty((0, 32), np.uint8)]
        lengths: list[U32] = [np.empty(0, np.uint32)]
        for came in self._came.values():
            if came.recipe is not None:
                every, sizes = entries(came.recipe)
                first = seen.claim(every)
                names.append(every[first])
                lengths.append(sizes[first])
        digests, sizes = np.concatenate(names), np.concatenate(lengths)
        stored = self._reader.whole(Part.SOURCES, 1024 + 8 * len(sizes))
        sources = bundle_format.decode_sources(stored, len(sizes), len(self._head.bases), self._what)
        own = sizes[sources == 0]
        if (len(own), int(own.sum(dtype=np.uint64))) != (self._head.chunks, self._head.chunk_bytes):
            raise Damaged("the bundle has other chunks than it says", what=self._what)
        return digests, sizes, sources

    # -- what it carries

    def _whole(self) -> None:
        for came in self._came.values():
            one = came.carried
            if one.kind != Kind.WHOLE:
                continue
            self._lease.check()
            source = Span(self._reader, one.size)
            if one.digest in self._present:
                view = memoryview(bytearray(1 << 20))
                while source.readinto(view):
                    pass
            else:
                what = f"blob {str(one.digest)[:19]}"
                self._ingest.take(source, expect=one.digest, media_type=one.media_type, what=what)

    def _wanted(self) -> table.ChunkMap:
        """The chunks of the blobs that the store lacks."""
        wanted = table.ChunkMap()
        for came in self._came.values():
            if came.recipe is not None and came.carried.digest not in self._present:
                wanted.claim(entries(came.recipe)[0])
        return wanted

    def _lacking(self, digests: U8, wanted: table.ChunkMap) -> Mask:
        """Of these chunks, those that are to be stored."""
        found = np.zeros(len(digests), np.bool_)
        for at in range(0, len(digests), _LOOK):
            some = np.ascontiguousarray(digests[at : at + _LOOK])
            found[at : at + _LOOK] = (wanted.get(some) != table.MISSING) & self._ingest.lacks(some)
        return found

    def _chunks(self, digests: U8, lengths: U32, sources: U32, wanted: table.ChunkMap) -> None:
        """Hash the chunks that came, and store those that are wanted."""
        own = np.flatnonzero(sources == 0)
        if not len(own):
            self._reader.done(Part.CHUNKS)
            return
        names = Names(self._volume.file.chunk_digest)
        expected, sizes = np.ascontiguousarray(digests[own]), lengths[own]
        lacking = self._lacking(expected, wanted)
        total = self._head.chunk_bytes
        step = Step(self._progress, "bundle", total)
        stream = Decompressor(lambda most: self._reader.some(Part.CHUNKS, most), self._what)
        seen, began = 0, self._reader.offset
        for start, end in batches(sizes):
            self._lease.check()
            some = sizes[start:end]
            ends = np.cumsum(some, dtype=np.uint64)
            starts = ends - some
            buffer = bytearray(int(ends[-1]))
            stream.read_into(memoryview(buffer))
            seen += len(buffer)
            self._bound(seen, self._reader.offset - began)
            if not np.array_equal(names.of(buffer, starts, some), expected[start:end]):
                raise DigestMismatch("a chunk is not what its name says", what=self._what, offset=self._reader.offset)
            mine = np.flatnonzero(lacking[start:end])
            if len(mine):
                self._ingest.add(buffer, starts[mine], some[mine], np.ascontiguousarray(expected[start:end][mine]))
            step.advance(len(buffer))
        stream.end()
        step.done()

    def _bound(self, produced: int, consumed: int) -> None:
        limit = self._limit
        if limit.output is not None and produced > limit.output:
            raise LimitExceeded(f"the bundle becomes more than limit.output ({limit.output} bytes)", what=self._what)
        if limit.ratio is not None and produced > max(limit.free, limit.ratio * consumed):
            raise LimitExceeded(f"the bundle expands by more than {limit.ratio:g}", what=self._what)

    def _base_chunks(self, digests: U8, sources: U32, wanted: table.ChunkMap) -> None:
        """Chunks of bases that the index does not lead to: of a base that is loose here, or was packed in another
        way."""
        based = np.flatnonzero(sources)
        based = based[self._lacking(digests[based], wanted)]
        for number in np.unique(sources[based]).tolist():
            mine = np.ascontiguousarray(digests[based[sources[based] == number]])
            base = self._head.bases[number - 1].digest
            info = self._info(self._alike.get(base, base))
            try:
                cut_up(self._volume, info, Wanted(self._ingest, mine).take, self._limit)
            except BadInput as error:
                raise BadInput(error.message, what=f"{self._what}: base {base}", offset=error.offset) from None
            lost = np.flatnonzero(self._ingest.lacks(mine))
            if len(lost):
                raise NotFound(
                    f"chunk {mine[lost[0]].tobytes().hex()} is not where the bundle has it from, in base {base}",
                    what=self._what,
                    hint="make the bundle without this base",
                )

    def _info(self, digest: Digest) -> BlobInfo:
        info = protocol.read_open(self._volume.catalog, self._lease.id, [digest]).blobs.get(digest)
        if info is None:
            # Named, so it stays; but a blob that is on its way out is for writers only.
            raise NotFound(f"base blob {digest} has no name any more in this store", what=self._what)
        return info

    # -- what it becomes

    def _documents(self) -> None:
        """Manifests and indexes: their edges, then all blobs to the ingest."""
        for came in self._came.values():
            one = came.carried
            if one.media_type in media.MANIFESTS | media.INDEXES:
                if one.kind != Kind.BYTES:
                    raise BadInput("a manifest that is larger than any may be", what=f"{self._what}: {one.digest}")
                what = f"{self._what}: {one.digest}"
                came.document = oci_manifest.parse(came.data, what, one.media_type, one.digest)
        for came in list(self._came.values()):
            if came.document is not None:
                came.children = self._children(came.document)
        self._refer()
        for root in self._head.roots:
            if root not in self._came and root not in self._present:
                raise NotFound(f"image {root} is neither in the bundle nor in the store", what=self._what)
        for came in self._came.values():
            self._take(came)

    def _children(self, document: Manifest | Index) -> list[Digest]:
        below = list(dict.fromkeys(child.digest for child in document.children))
        ask = [digest for digest in below if digest not in self._came and digest not in self._present]
        self._present |= protocol.name_blobs(self._volume.catalog, self._lease.id, ask)
        for child in document.children:
            self._remake(child.digest, child.media_type)
        here = [digest for digest in below if digest in self._came or digest in self._present]
        if isinstance(document, Manifest) and len(here) < len(below):
            lost = next(digest for digest in below if digest not in here)
            raise NotFound(
                f"blob {lost} is neither in the bundle nor in the store"
                + (f", only its content is, as {self._alike[lost]}" if lost in self._alike else ""),
                what=f"{self._what}: {document.digest}",
                hint="make the bundle with --have-file: what `casstore bundle have` prints here",
            )
        return here

    def _remake(self, digest: Digest, media_type: str) -> None:
        """A base that is a plain layer, and here only in compressed form."""
        here = self._alike.get(digest)
        if here is None or digest in self._present or digest in self._came:
            return
        if not any(base.digest == digest == base.diffid for base in self._head.bases):
            return
        self._lease.check()
        source = StreamSource(Buffers(BlobReader(self._volume, self._info(here)).content(self._limit)))
        what = f"blob {str(digest)[:19]}"
        self._ingest.take(source, expect=digest, media_type=media_type, what=what)
        self._present.add(digest)
        self._remade.add(digest)

    def _refer(self) -> None:
        """What says something of a manifest stays as long as that does."""
        for digest, subject in self._head.referrers:
            came = self._came.get(digest)
            if digest not in self._came and digest not in self._present:
                continue
            if came is not None:
                said = came.document.subject if came.document is not None else None
                if said is None or said.digest != subject:
                    raise BadInput(f"{digest} says nothing of {subject}", what=self._what)
            of = self._came.get(subject)
            if of is None and subject in self._present:
                info = self._info(subject)
                one = Carried(Kind.BYTES, subject, info.size, info.size, media_type=info.media_type)
                of = self._came[subject] = _Came(one, read_document(self._volume, info))
                of.document = oci_manifest.parse(of.data, str(subject), info.media_type, subject)
                of.children = self._children(of.document)
            if of is None or of.document is None:
                raise BadInput(f"{digest} is about {subject}, which is not there", what=self._what)
            of.children.append(digest)

    def _take(self, came: _Came) -> None:
        one = came.carried
        # What is there already may have more children now.
        more = isinstance(came.document, Index) or any(of == one.digest for _, of in self._head.referrers)
        if one.digest in self._present and not more:
            return
        children = tuple(came.children)
        if one.kind == Kind.BYTES:
            if one.size <= INLINE and one.digest.algorithm == "sha256":
                self._ingest.take_small(came.data, one.media_type, children)
            else:
                self._ingest.take(
                    BytesSource(came.data), expect=one.digest, media_type=one.media_type, children=children
                )
        elif came.recipe is not None:
            diffid = one.digest if came.recipe.encoding == "identity" else one.diffid
            if diffid is None or diffid.algorithm != "sha256" or one.digest.algorithm != "sha256":
                raise Damaged("a recipe without the digest of its content", what=f"{self._what}: {one.digest}")
            self._ingest.take_recipe(
                pending(one.digest, came.recipe, diffid, one.files_size or 0, one.media_type, children)
            )

    def _written(self) -> Written:
        """Everything on the disk, and read back."""
        only = {digest for digest in self._came if digest not in self._present or self._came[digest].document}
        written = self._ingest.finish(only | self._remade)
        blobs: list[NewBlob] = []
        doubtful: list[NewBlob] = []
        for blob in written.blobs:
            came = self._came.get(blob.digest)
            reason = ""
            if came is not None and came.recipe is not None and blob.place.state == "packed":
                self._lease.check()
                step = Step(self._progress, f"verify {str(blob.digest)[:19]}", None)
                try:
                    reason = unlike(self._volume, blob, self._lease.check)
                except Damaged as error:
                    raise Damaged(
                        f"blob {blob.digest} does not come out of the bundle: {error}", what=self._what
                    ) from error
                step.done()
            (doubtful if reason else blobs).append(blob)
        if not doubtful:
            return Written(blobs, written.objects)
        for blob in doubtful:
            self._lease.check()
            source = StreamSource(Buffers(BlobReader(self._volume, info_of(blob)).read()), blob.size)
            self._again.take(source, expect=blob.digest, media_type=blob.media_type, children=blob.children)
        second = self._again.finish()
        return Written([*blobs, *second.blobs], [*written.objects, *second.objects])

    def _commit(self, tags: bool) -> LoadReport:
        written = self._written()
        named = self._names() if tags else []
        report = LoadReport(notices=moves(self._volume, named))
        pins = [(root, UNTAGGED) for root in self._head.roots if self._nameless(root, named)]
        rows = self._rows(written)
        self._lease.check()
        protocol.commit(
            self._volume.catalog,
            self._lease.id,
            written.blobs,
            objects=written.objects,
            images=rows,
            tags=[(tag.repository, tag.tag, digest) for tag, digest in named],
            pins=pins,
            keep=UNTAGGED,
        )
        report.loaded.extend(f"Loaded image: {tag.familiar()}" for tag, _ in named)
        config_of = {row.manifest: row.config for row in rows}
        report.loaded.extend(f"Loaded image ID: {config_of.get(root, root)}" for root, _ in pins)
        report.images.extend(row.config for row in rows)
        return report

    def _nameless(self, root: Digest, named: Iterable[tuple[Reference, Digest]]) -> bool:
        if any(target == root for _, target in named):
            return False
        with self._volume.catalog.read() as tx:
            return not is_kept(tx, root)

    def _names(self) -> list[tuple[Reference, Digest]]:
        found = []
        for one in self._head.names:
            try:
                name = reference.parse(f"{one.repository}:{one.tag}")
            except InvalidReference as error:
                raise BadInput(f"impossible name: {error}", what=self._what) from None
            came = self._came.get(one.target)
            known = came.document is not None if came is not None else one.target in self._present
            if (name.repository, name.tag) != (one.repository, one.tag) or not known:
                raise BadInput(f"impossible name {name.familiar()}", what=self._what)
            found.append((name, one.target))
        return found

    def _rows(self, written: Written) -> list[ImageRow]:
        """What lists need of the images that came."""
        sizes = {blob.digest: blob.files_size for blob in written.blobs}
        rows = []
        for came in self._came.values():
            manifest = came.document
            if not isinstance(manifest, Manifest) or not manifest.is_image:
                continue
            for layer in manifest.layers:
                if layer.digest not in sizes:
                    with self._volume.catalog.read() as tx:
                        info = query.find_blob(tx, layer.digest)
                    sizes[layer.digest] = info.files_size if info is not None else None
            config = oci_config.parse(self._config(manifest), f"{self._what}: {manifest.config.digest}")
            size = oci_image.total(sizes[layer.digest] for layer in manifest.layers)
            rows.append(oci_image.image_row(manifest, config, size))
        return rows

    def _config(self, manifest: Manifest) -> bytes:
        came = self._came.get(manifest.config.digest)
        if came is not None and came.carried.kind == Kind.BYTES:
            return came.data
        return read_document(self._volume, self._info(manifest.config.digest))
