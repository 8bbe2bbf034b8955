"""`load`: an archive of images into the store. All of it is committed at once, or nothing is.

A seekable archive is read in place, its layers in parallel, and a layer that the store has is not read at all. A pipe
is taken in one pass: its layers go in as they come by, and what they belong to is found out at the end.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from ..codec import compression
from ..codec.gzip import LIMIT
from ..digest import Digest
from ..errors import BadInput, CasstoreError, DigestMismatch, NotFound
from ..flow.ingest import INLINE, Ingest, Taken
from ..flow.source import BytesSource, RangeSource, StreamSource
from ..model import ImageRow, Progress
from ..oci import build, media
from ..oci import image as oci_image
from ..oci import manifest as oci_manifest
from ..oci import platform as oci_platform
from ..oci.manifest import Descriptor, Manifest
from ..oci.platform import Platform
from ..oci.reference import Reference
from ..store import names, protocol, query
from ..store.leases import Lease
from ..store.volume import Volume
from ..transport import reading
from ..transport.archive import Landed, Stream, open_source
from ..transport.contents import Archive, ArchiveImage, LayerRef
from ..transport.members import Sink, Source
from .resolve import UNTAGGED, image_of


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What `load` says: a line for each name (or ID), and notices of names that moved. `images`: their IDs; `tops`: the
    manifests and indexes that are below nothing else."""

    loaded: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    images: list[Digest] = field(default_factory=list)
    tops: list[Digest] = field(default_factory=list)


Read = Callable[[Source, Sink | None, Platform | None, bool], Archive]
"""What finds the images in a source that is open: as `reading.read`."""


def load(
    volume: Volume,
    where: str | Path | int | Source,
    *,
    platform: str | None = None,
    all_platforms: bool = False,
    read: Read = reading.read,
    held: Lease | None = None,
    pack: str = "plain",
    codec: str = "zstd:3",
    limit: compression.Limit = compression.LIMIT,
    trace_limit: float = LIMIT,
    progress: Progress | None = None,
) -> LoadReport:
    """Load a path or an open descriptor. Errors name the archive and the member; nothing is changed then. `limit`: what
    may come out of what is compressed. `held`: the lease under which it is done; what has no name is kept only by that,
    then."""
    wanted = oci_platform.parse(platform) if platform else None
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(where if isinstance(where, Source) else open_source(where, limit))
        lease = held or stack.enter_context(Lease(volume.catalog, volume.objects, f"load {source.what}"))
        ingest = Ingest(
            volume, lease.id, pack=pack, codec=codec, limit=limit, trace_limit=trace_limit, progress=progress
        )
        try:
            work = _Load(volume, lease, ingest)
            sink = None if source.seekable else work.land
            archive = read(source, sink, wanted, all_platforms)
            return work.run(archive, pin=held is None)
        finally:
            ingest.close()


@dataclass(slots=True)
class _Layer:
    """A layer as it ended up: its descriptor's fields and the sum that SIZE is made of."""

    digest: Digest
    size: int
    media_type: str
    files_size: int | None


class _Load:
    """One archive being loaded."""

    def __init__(self, volume: Volume, lease: Lease, ingest: Ingest) -> None:
        self._volume = volume
        self._lease = lease
        self._ingest = ingest
        self._layers: dict[tuple[str, Digest | None, Digest | None], _Layer] = {}
        self._landed: dict[Digest, Taken] = {}
        self._documents: dict[Digest, tuple[bytes, str, tuple[Digest, ...]]] = {}

    # -- layers

    def land(self, name: str, stream: Stream, size: int) -> Landed:
        """The sink of a one-pass archive: a large member goes in as it comes by."""
        taken = self._ingest.take(StreamSource(stream, size), what=name[-72:])
        self._landed[taken.digest] = taken
        return Landed(taken.digest, taken.diffid)

    def run(self, archive: Archive, *, pin: bool) -> LoadReport:
        # Of a chain of images the named ones and its end count; what stands between them is in their layers.
        images = archive.heads
        refs = {_key(layer): layer for image in images for layer in image.layers}
        depth = {_key(layer): n for image in reversed(images) for n, layer in enumerate(image.layers)}
        present = self._present(refs.values())
        missing = [key for key in refs if key not in present]
        self._layers.update(present)
        missing.sort(key=lambda key: -refs[key].size)
        workers = max(1, min(len(missing), len(os.sched_getaffinity(0))))
        with ThreadPoolExecutor(workers, thread_name_prefix="layers") as pool:
            found = pool.map(lambda key: self._layer(archive, refs[key], depth[key]), missing)
            self._layers.update(zip(missing, found, strict=True))
        return self._commit(archive, images, pin)

    def _present(self, refs: Iterable[LayerRef]) -> dict[tuple[str, Digest | None, Digest | None], _Layer]:
        """Layers that the store has, by digest, else by the digest of what is inside: named, so that they stay."""
        wanted = {_key(ref): ref.digest or ref.diff_id for ref in refs if ref.landed is None}
        digests = [digest for digest in wanted.values() if digest is not None]
        named = protocol.name_blobs(self._volume.catalog, self._lease.id, digests)
        found = {}
        with self._volume.catalog.read() as tx:
            for key, digest in wanted.items():
                info = query.find_blob(tx, digest) if digest in named and digest is not None else None
                if info is not None:
                    media_type = _layer_type(info.encoding)
                    found[key] = _Layer(info.digest, info.size, media_type, info.files_size)
        return found

    def _layer(self, archive: Archive, ref: LayerRef, number: int) -> _Layer:
        """A layer that is not in the store yet: read, verified, taken. `number`: its place in its image."""
        self._lease.check()
        what = f"{archive.source.what}: {ref.path or ref.digest or ref.diff_id}"
        if ref.landed is not None:
            blob = self._landed[ref.landed.digest]
            if blob.diffid is None and ref.diff_id is not None:
                raise BadInput(f"undecodable or too large {blob.encoding} stream", what=what)
        elif not ref.present:
            raise NotFound("layer is neither in the archive nor in the store", what=what)
        else:
            other = ref.digest is not None and ref.digest.algorithm != "sha256"
            try:
                blob = self._ingest.take(
                    RangeSource(archive.open(ref.path)),
                    expect=ref.digest if ref.diff_id is None or other else None,
                    inside=ref.diff_id is not None,
                    what=ref.path[-72:],
                )
            except BadInput as error:
                raise _named(error, what) from None
        if ref.diff_id is not None and blob.diffid is not None and blob.diffid != ref.diff_id:
            raise DigestMismatch(
                f'invalid diffID for layer {number}: expected "{ref.diff_id}", got "{blob.diffid}"', what=what
            )
        if ref.digest is not None and blob.digest != ref.digest:
            raise DigestMismatch(f"expected {ref.digest}, got {blob.digest}", what=what)
        return _Layer(blob.digest, blob.size, _layer_type(blob.encoding), blob.files_size)

    # -- the commit

    def _commit(self, archive: Archive, images: list[ArchiveImage], pin: bool) -> LoadReport:
        rows: list[ImageRow] = []
        tags: list[tuple[Reference, Digest]] = []
        pins: list[tuple[Digest, str]] = []
        ids: list[Digest] = []
        untagged: list[Digest] = []
        taken: set[Digest] = set()
        tops: list[Digest] = []
        inside = {d.digest for entry in archive.indexes for d in entry.index.manifests}
        for image in images:
            manifest = self._image(image)
            taken.add(manifest.digest)
            if manifest.digest not in inside:
                tops.append(manifest.digest)
            if image.config is not None:
                size = oci_image.total(self._layers[_key(layer)].files_size for layer in image.layers)
                parent = str(image.parent) if image.parent else ""
                rows.append(oci_image.image_row(manifest, image.config, size, parent))
                ids.append(image.config_digest)
            tags += [(tag, manifest.digest) for tag in image.tags]
            if not image.tags and manifest.digest not in inside:
                pins.append((manifest.digest, UNTAGGED))
                untagged.append(image.config_digest)
        for entry in archive.indexes:
            index = entry.index
            here = tuple(d.digest for d in index.manifests if d.digest in taken)
            self._documents[index.digest] = index.raw, index.media_type, here
            taken.add(index.digest)
            if index.digest not in inside:
                tops.append(index.digest)
            tags += [(tag, index.digest) for tag in entry.tags]
            if not entry.tags and index.digest not in inside:
                pins.append((index.digest, UNTAGGED))
        self._take_documents()
        only = {one.digest for one in self._layers.values()} | set(self._documents)
        written = self._ingest.finish(only)
        notices = moves(self._volume, tags)
        self._lease.check()
        protocol.commit(
            self._volume.catalog,
            self._lease.id,
            written.blobs,
            objects=written.objects,
            images=rows,
            tags=[(tag.repository, tag.tag, digest) for tag, digest in tags],
            pins=pins if pin else [],
            keep=UNTAGGED,
        )
        loaded = [f"Loaded image: {tag.familiar()}" for tag, _ in tags]
        loaded += [f"Loaded image ID: {image_id}" for image_id in untagged]
        return LoadReport(loaded, notices, ids, tops)

    def _image(self, image: ArchiveImage) -> Manifest:
        """The image's manifest, made where the archive has none; it and the config are taken."""
        layers = [self._layers[_key(layer)] for layer in image.layers]
        self._documents[image.config_digest] = image.config_bytes, image.config_media_type, ()
        if image.manifest is None:
            config = Descriptor(image.config_media_type, image.config_digest, len(image.config_bytes))
            raw = build.manifest(config, [Descriptor(one.media_type, one.digest, one.size) for one in layers])
            made = oci_manifest.parse(raw, image.what)
            if not isinstance(made, Manifest):
                raise CasstoreError("made an index where a manifest was meant", what=image.what)
            manifest = made
        else:
            manifest = image.manifest
            for one, descriptor in zip(layers, manifest.layers, strict=True):
                if one.digest != descriptor.digest:
                    raise DigestMismatch(
                        f"manifest wants {descriptor.digest}, archive has {one.digest}", what=image.what
                    )
        children = tuple(dict.fromkeys([image.config_digest, *(one.digest for one in layers)]))
        self._documents[manifest.digest] = manifest.raw, manifest.media_type, children
        return manifest

    def _take_documents(self) -> None:
        """Manifests and configs that the store lacks. Indexes always: one may have more of its children now."""
        lasting = [d for d, (_, media_type, _) in self._documents.items() if media_type not in media.INDEXES]
        present = protocol.name_blobs(self._volume.catalog, self._lease.id, lasting)
        for digest, (data, media_type, children) in self._documents.items():
            if digest in present:
                continue
            if len(data) <= INLINE and digest.algorithm == "sha256":
                self._ingest.take_small(data, media_type, children)
            else:
                self._ingest.take(BytesSource(data), expect=digest, media_type=media_type, children=children)


def moves(volume: Volume, tags: Iterable[tuple[Reference, Digest]]) -> list[str]:
    """Docker's notice for each name that will point elsewhere."""
    lines = []
    with volume.catalog.read() as tx:
        for tag, digest in tags:
            former = names.find_tag(tx, tag.repository, tag.tag)
            if former is None or former == digest:
                continue
            image = image_of(tx, former)
            lines.append(
                f"The image {tag.familiar()} already exists, renaming the old one with ID "
                f"{image.config if image else former} to empty string"
            )
    return lines


def _key(layer: LayerRef) -> tuple[str, Digest | None, Digest | None]:
    return layer.path, layer.digest, layer.diff_id


def _layer_type(encoding: str) -> str:
    return f"{media.OCI_LAYER}+{encoding}" if encoding in ("gzip", "zstd") else media.OCI_LAYER


def _named(error: BadInput, what: str) -> BadInput:
    return type(error)(error.message, what=what, offset=error.offset, hint=error.hint)
