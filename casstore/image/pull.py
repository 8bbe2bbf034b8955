"""`pull`: an image from a registry into the store. What the store has is not fetched; the rest comes in parallel, each
blob compared with its digest, and all of it is committed at once, or nothing is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..digest import Digest
from ..errors import BadInput, CasstoreError, Denied, DigestMismatch, LimitExceeded, NotFound
from ..flow.ingest import INLINE, Ingest, Taken
from ..flow.source import BytesSource
from ..model import ImageRow, Progress
from ..oci import config as oci_config
from ..oci import image as oci_image
from ..oci import manifest as oci_manifest
from ..oci import media
from ..oci import platform as oci_platform
from ..oci.config import Config
from ..oci.manifest import Descriptor, Index, Manifest
from ..oci.platform import Platform
from ..oci.reference import Reference
from ..store import names, protocol, query
from ..store.catalog import Tx
from ..store.leases import Lease
from ..store.volume import Volume
from ..transport.blob_download import BlobDownload
from ..transport.registry import Registry
from .content import find_below, read_document
from .crew import Crew
from .resolve import UNTAGGED

MAX_DEPTH = 8
"""Deepest nesting of indexes."""
MAX_DOCUMENTS = 50_000
"""Most manifests and indexes of one pull."""
MAX_BYTES = 256 << 20
"""All manifests and configs of one pull together, bytes."""

Say = Callable[[str, str], None]
"""(12 digits of a layer, what became of it), from any thread."""


@dataclass(frozen=True, slots=True)
class PullReport:
    """What was pulled. `digest`: what the name stands for at the registry; `image`: the ID, None for an artifact;
    `fresh`: False where the store had it all, under that name; `fetched`: bytes of the blobs that came over."""

    reference: Reference
    digest: Digest
    image: Digest | None
    fresh: bool
    fetched: int


class _Layer(NamedTuple):
    """A layer that is in the store or was taken: what its image's row and check need."""

    diffid: Digest | None
    files_size: int


def pull(
    volume: Volume,
    registry: Registry,
    name: Reference,
    *,
    platform: str | None = None,
    all_platforms: bool = False,
    say: Say = lambda layer, what: None,
    progress: Progress | None = None,
    **writing: Any,
) -> PullReport:
    """Pull one reference (with a tag or a digest). `platform`: of an index, else this machine's. NotFound, Denied,
    BadInput; nothing is changed then. `writing`: as Ingest takes it."""
    wanted = oci_platform.parse(platform) if platform else None
    with Lease(volume.catalog, volume.objects, f"pull {name}") as lease:
        ingest = Ingest(volume, lease.id, progress=progress, **writing)
        try:
            return _Pull(volume, lease, ingest, registry, name, wanted, all_platforms, say).run()
        finally:
            ingest.close()


class _Pull:
    """One reference being pulled."""

    def __init__(
        self,
        volume: Volume,
        lease: Lease,
        ingest: Ingest,
        registry: Registry,
        name: Reference,
        wanted: Platform | None,
        all_platforms: bool,
        say: Say,
    ) -> None:
        self._volume = volume
        self._lease = lease
        self._ingest = ingest
        self._registry = registry
        self._name = name
        self._wanted = wanted
        self._everything = all_platforms
        self._say = say
        self._documents: dict[Digest, Manifest | Index] = {}
        self._configs: dict[Digest, tuple[Manifest, Config | None, bytes]] = {}  # by manifest
        self._took: dict[Digest, tuple[bytes, str, tuple[Digest, ...]]] = {}
        self._bytes = 0
        self._fetched = 0
        self._crew = Crew(registry.http.network.parallel, registry.http.wake)

    def run(self) -> PullReport:
        top = self._top()
        if isinstance(top, Index):
            chosen = self._everything_below(top, 0) if self._everything else self._choose(top)
        else:
            chosen = self._image(top, None)
            self._check_platform(chosen)
        layers = self._layers()
        return self._commit(top, chosen, layers)

    # -- manifests and configs

    def _top(self) -> Manifest | Index:
        """What the name stands for: asked for by its digest where the registry tells it, so that what is here need not
        come again."""
        ref = str(self._name.digest or self._name.tag)
        try:
            head = None if self._name.digest else self._registry.head(self._name.path, ref)
            digest = self._name.digest or (head.digest if head else None)
            if digest is not None and (here := self._stored(digest)) is not None:
                return here
            fetched = self._registry.manifest(self._name.path, str(digest or ref))
        except NotFound as error:
            raise NotFound(f"manifest for {self._name.familiar()} not found: {error.message}") from None
        except Denied as error:
            what = self._name.familiar_name
            problem = f"pull access denied for {what}, repository does not exist or may require 'casstore login'"
            raise Denied(f"{problem}: {error.message}") from None
        return self._document(fetched.raw, fetched.digest, fetched.media_type)

    def _stored(self, digest: Digest) -> Manifest | Index | None:
        """A manifest or index that the store has, and now keeps for us."""
        raw = self._read(digest)
        if raw is None:
            return None
        with self._volume.catalog.read() as tx:
            media_type = find_below(tx, digest).media_type
        return self._document(raw, digest, media_type)

    def _read(self, digest: Digest) -> bytes | None:
        if not protocol.name_blobs(self._volume.catalog, self._lease.id, [digest]):
            return None
        with self._volume.catalog.read() as tx:
            info = query.find_blob(tx, digest)
        if info is None:
            return None
        try:
            return read_document(self._volume, info)
        except CasstoreError:
            return None  # rotten: it comes again

    def _document(self, raw: bytes, digest: Digest, media_type: str) -> Manifest | Index:
        what = f"{self._name.repository}@{digest}"
        self._bytes += len(raw)
        if len(self._documents) >= MAX_DOCUMENTS or self._bytes > MAX_BYTES:
            raise LimitExceeded("too many manifests", what=what)
        known = media_type if media_type in media.INDEXES | media.MANIFESTS | media.DOCKER_SCHEMA1 else ""
        document = oci_manifest.parse(raw, what, known, digest)
        self._documents[digest] = document
        return document

    def _child(self, descriptor: Descriptor, index: Index) -> Manifest | Index:
        """A manifest or index below an index."""
        known = self._documents.get(descriptor.digest) or self._stored(descriptor.digest)
        if known is None:
            try:
                fetched = self._registry.manifest(self._name.path, str(descriptor.digest))
            except NotFound as error:
                what = f"{self._name.repository}@{index.digest}"
                raise NotFound(f"its manifest {descriptor.digest} is not there: {error.message}", what=what) from None
            if descriptor.size != len(fetched.raw):
                raise BadInput(
                    f"its size is {len(fetched.raw)}, its descriptor says {descriptor.size}",
                    what=f"{self._name.repository}@{descriptor.digest}",
                )
            known = self._document(fetched.raw, fetched.digest, fetched.media_type or descriptor.media_type)
        return known

    def _choose(self, top: Index) -> Manifest:
        """The image for the platform, and the indexes on the way to it."""
        leaves = dict[Digest, tuple[Descriptor, Index]]()
        self._gather(top, 0, leaves, set())
        wanted = self._wanted or oci_platform.host()
        found = oci_platform.select([descriptor for descriptor, _ in leaves.values()], wanted)
        if found is None:
            raise NotFound(
                f"no matching manifest for {wanted} in the manifest list entries", what=self._name.familiar()
            )
        chosen = self._child(*leaves[found.digest])
        if not isinstance(chosen, Manifest):
            raise BadInput("an index where a manifest is expected", what=f"{self._name.repository}@{found.digest}")
        return self._image(chosen, found)

    def _gather(
        self, index: Index, depth: int, leaves: dict[Digest, tuple[Descriptor, Index]], seen: set[Digest]
    ) -> None:
        seen.add(index.digest)
        for descriptor in index.manifests:
            if media.to_oci(descriptor.media_type) != media.OCI_INDEX:
                leaves.setdefault(descriptor.digest, (descriptor, index))
            elif descriptor.digest not in seen:
                inner = self._child(descriptor, index)
                if isinstance(inner, Index):
                    self._gather(inner, self._deeper(depth), leaves, seen)

    def _everything_below(self, index: Index, depth: int) -> Manifest:
        """All images of an index; returns that for this machine, or the first."""
        found: list[tuple[Descriptor, Manifest]] = []
        seen = {index.digest}

        def walk(index: Index, depth: int) -> None:
            for descriptor in index.manifests:
                if descriptor.digest in seen:
                    continue
                seen.add(descriptor.digest)
                child = self._child(descriptor, index)
                if isinstance(child, Index):
                    walk(child, self._deeper(depth))
                else:
                    found.append((descriptor, self._image(child, descriptor)))

        walk(index, depth)
        if not found:
            raise NotFound("the index lists no manifests", what=self._name.familiar())
        best = oci_platform.select([descriptor for descriptor, _ in found], self._wanted or oci_platform.host())
        return next((one for descriptor, one in found if descriptor is best), found[0][1])

    def _deeper(self, depth: int) -> int:
        if depth + 1 >= MAX_DEPTH:
            raise LimitExceeded(f"indexes are nested deeper than {MAX_DEPTH}", what=self._name.familiar())
        return depth + 1

    def _image(self, manifest: Manifest, listed: Descriptor | None) -> Manifest:
        """A manifest's config, read and checked."""
        if manifest.digest in self._configs:
            return manifest
        what = f"{self._name.repository}@{manifest.digest}"
        raw = self._read(manifest.config.digest)
        if raw is None:
            raw = self._registry.document(self._name.path, manifest.config)
            self._fetched += len(raw)
        self._bytes += len(raw)
        parsed = None
        if manifest.is_image and not (listed and listed.is_attestation):
            parsed = oci_config.parse(raw, f"{what}: config", manifest.config.digest)
            oci_config.check_layers(parsed, len(manifest.layers), what)
        self._configs[manifest.digest] = manifest, parsed, raw
        return manifest

    def _check_platform(self, manifest: Manifest) -> None:
        """A name that stands for one image only: does it suit what was asked for?"""
        config = self._configs[manifest.digest][1]
        if config is None:
            return
        if self._wanted is None:
            oci_config.check_os(config, oci_platform.host().os, self._name.familiar())
        elif oci_platform.rank(config.platform, self._wanted) is None:
            raise NotFound(
                f"image with reference {self._name.familiar()} was found but does not match the specified platform: "
                f"wanted {self._wanted}, actual: {config.platform}"
            )

    # -- layers

    def _layers(self) -> dict[Digest, _Layer]:
        """Every layer of every image: found in the store, or fetched."""
        wanted: dict[Digest, tuple[Descriptor, Digest | None]] = {}
        for manifest, config, _ in self._configs.values():
            diff_ids: Iterable[Digest | None] = config.diff_ids if config else (None,) * len(manifest.layers)
            for descriptor, diff_id in zip(manifest.layers, diff_ids, strict=True):
                if wanted.setdefault(descriptor.digest, (descriptor, diff_id))[0].size != descriptor.size:
                    raise BadInput(f"{descriptor.digest} has two sizes", what=f"{self._name.repository}")
        present = protocol.name_blobs(self._volume.catalog, self._lease.id, wanted)
        found: dict[Digest, _Layer] = {}
        with self._volume.catalog.read() as tx:
            for digest in present:
                info = find_below(tx, digest)
                found[digest] = _Layer(info.diffid, info.files_size or 0)
        for digest in wanted:
            self._say(digest.hex[:12], "Already exists" if digest in present else "Pulling fs layer")
        missing = sorted((digest for digest in wanted if digest not in found), key=lambda one: -wanted[one][0].size)
        for taken in self._crew.each(lambda digest: self._fetch(*wanted[digest]), missing):
            found[taken.digest] = _Layer(taken.diffid, taken.files_size or 0)
            self._fetched += taken.size
        self._check_diff_ids(found)
        return found

    def _fetch(self, descriptor: Descriptor, diff_id: Digest | None) -> Taken:
        """A layer that the store lacks, through the verifier."""
        self._lease.check()
        short = descriptor.digest.hex[:12]
        path, digest, size = self._name.path, descriptor.digest, descriptor.size
        with BlobDownload(self._registry, path, digest, size, check=self._crew.check) as source:
            try:
                taken = self._ingest.take(source, expect=digest, inside=diff_id is not None, what=short)
            except DigestMismatch as error:
                raise DigestMismatch(
                    f"filesystem layer verification failed for digest {digest}: {error.message}"
                ) from None
        self._say(short, "Pull complete")
        return taken

    def _check_diff_ids(self, layers: dict[Digest, _Layer]) -> None:
        for manifest, config, _ in self._configs.values():
            for number, descriptor in enumerate(manifest.layers if config else ()):
                inside, said = layers[descriptor.digest].diffid, config.diff_ids[number] if config else None
                if inside is not None and inside != said:
                    raise DigestMismatch(
                        f'layers from manifest don\'t match image configuration: layer {number} is "{inside}" inside, '
                        f'not "{said}"',
                        what=f"{self._name.repository}@{manifest.digest}",
                    )

    # -- the commit

    def _commit(self, top: Manifest | Index, chosen: Manifest, layers: dict[Digest, _Layer]) -> PullReport:
        rows: list[ImageRow] = []
        for manifest, config, raw in self._configs.values():
            self._took[manifest.config.digest] = raw, manifest.config.media_type, ()
            children = tuple(dict.fromkeys(one.digest for one in manifest.children))
            self._took[manifest.digest] = manifest.raw, manifest.media_type, children
            if config is not None:
                size = sum(layers[one.digest].files_size for one in manifest.layers)
                rows.append(oci_image.image_row(manifest, config, size))
        indexes = [one for one in self._documents.values() if isinstance(one, Index)]
        taken = {*self._configs, *(one.digest for one in indexes)}
        for index in indexes:
            here = tuple(one.digest for one in index.manifests if one.digest in taken and one.digest != index.digest)
            self._took[index.digest] = index.raw, index.media_type, tuple(dict.fromkeys(here))
        image = chosen.config.digest if chosen.is_image else None
        with self._volume.catalog.read() as tx:
            whole = self._is_whole(tx, top)
        if whole and not self._fetched:
            return PullReport(self._name, top.digest, image, False, 0)
        self._take_documents()
        written = self._ingest.finish({*layers, *self._took})
        self._lease.check()
        tagged = bool(self._name.tag) and self._name.digest is None
        protocol.commit(
            self._volume.catalog,
            self._lease.id,
            written.blobs,
            objects=written.objects,
            images=rows,
            tags=[(self._name.repository, self._name.tag, top.digest)] if tagged else [],
            pins=[] if tagged else [(top.digest, UNTAGGED)],
            keep=UNTAGGED,
        )
        return PullReport(self._name, top.digest, image, True, self._fetched)

    def _is_whole(self, tx: Tx, top: Manifest | Index) -> bool:
        """Does the store have just this under that name, with all edges?"""
        if self._name.digest is None:
            named = names.find_tag(tx, self._name.repository, self._name.tag) == top.digest
        else:
            named = bool(names.pins(tx, top.digest) or names.tags(tx, target=top.digest))
        return named and all(
            names.is_live(tx, digest) and set(children) <= set(names.children(tx, digest))
            for digest, (_, _, children) in self._took.items()
        )

    def _take_documents(self) -> None:
        """Manifests and configs that the store lacks. Indexes always: one may have more of its children now."""
        lasting = [digest for digest, (_, media_type, _) in self._took.items() if media_type not in media.INDEXES]
        present = protocol.name_blobs(self._volume.catalog, self._lease.id, lasting)
        for digest, (raw, media_type, children) in self._took.items():
            if digest in present:
                continue
            if len(raw) <= INLINE and digest.algorithm == "sha256":
                self._ingest.take_small(raw, media_type, children)
            else:
                self._ingest.take(BytesSource(raw), expect=digest, media_type=media_type, children=children)


def tags_of(registry: Registry, name: Reference) -> list[Reference]:
    """Every tag of a repository, for `pull -a`."""
    with contextlib.suppress(NotFound):
        return [name.with_tag(tag) for tag in registry.tags(name.path)]
    raise NotFound(f"repository {name.familiar_name} not found: does not exist or no pull access")
