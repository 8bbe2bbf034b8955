"""`pull`: an image from a registry into the store. What the store has is not fetched; the rest comes in parallel, each
blob compared with its digest, and all of it is committed at once, or nothing is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..digest import Digest
from ..errors import BadInput, DigestMismatch, NotFound, OutOfSpace
from ..flow.ingest import INLINE, Ingest, Taken
from ..flow.source import BytesSource, Chained, RangeSource, Source
from ..model import ImageRow, Progress
from ..oci import image as oci_image
from ..oci import media
from ..oci import platform as oci_platform
from ..oci.manifest import Descriptor, Index, Manifest
from ..oci.reference import Reference
from ..store import names, protocol
from ..store.catalog import Tx
from ..store.leases import Lease
from ..store.transfers import Part
from ..store.volume import Volume
from ..transport.blob_lanes import download
from ..transport.registry import Registry
from .content import find_below
from .crew import Crew
from .resolve import UNTAGGED
from .walk import Walk

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
    files_size: int | None


def pull(
    volume: Volume,
    registry: Registry,
    name: Reference,
    *,
    platform: str | None = None,
    all_platforms: bool = False,
    referrers: bool = False,
    tags: Sequence[Reference] | None = None,
    look: bool = True,
    say: Say = lambda layer, what: None,
    progress: Progress | None = None,
    **writing: Any,
) -> PullReport:
    """Pull one reference (with a tag or a digest). `platform`: of an index, else this machine's; `referrers`: what
    refers to it comes along, and stays as long as it does; `tags`: the names that it gets here, else its own. NotFound,
    Denied, BadInput; nothing is changed then. What came of a pull that ended early need not come again. `look`: into
    layers that are compressed; else that is left to gc. `writing`: as Ingest takes it."""
    wanted = oci_platform.parse(platform) if platform else None
    if tags is None:
        tags = [name] if name.tag and name.digest is None else []
    with Lease(volume.catalog, volume.objects, f"pull {name}") as lease:
        ingest = Ingest(volume, lease.id, progress=progress, **writing)
        try:
            walk = Walk(volume, lease, registry, name, wanted)
            top, chosen = walk.run(everything=all_platforms, referrers=referrers)
            return _Pull(volume, lease, ingest, registry, name, walk, tags, look, say).run(top, chosen)
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
        walk: Walk,
        tags: Sequence[Reference],
        look: bool,
        say: Say,
    ) -> None:
        self._volume = volume
        self._lease = lease
        self._ingest = ingest
        self._registry = registry
        self._name = name
        self._walk = walk
        self._tags = [(one.repository, one.tag) for one in tags]
        self._look = look
        self._lanes = 1
        self._say = say
        self._took: dict[Digest, tuple[bytes, str, tuple[Digest, ...]]] = {}
        self._fetched = walk.fetched
        self._crew = Crew(registry.http.network.parallel, registry.http.wake)

    def run(self, top: Manifest | Index, chosen: Manifest) -> PullReport:
        """Fetch the layers, and commit all of it. What another pull of this process fetches is waited for."""
        layers = {one.digest for manifest, _, _ in self._walk.configs.values() for one in manifest.layers}
        with self._volume.catalog.read() as tx:
            missing = [digest for digest in layers if not names.is_live(tx, digest)]
        with self._registry.turns.alone(missing):
            return self._commit(top, chosen, self._layers())

    # -- layers

    def _layers(self) -> dict[Digest, _Layer]:
        """Every layer of every image: found in the store, or fetched."""
        wanted: dict[Digest, tuple[Descriptor, Digest | None]] = {}
        for manifest, config, _ in self._walk.configs.values():
            diff_ids: Iterable[Digest | None] = config.diff_ids if config else (None,) * len(manifest.layers)
            for descriptor, diff_id in zip(manifest.layers, diff_ids, strict=True):
                if wanted.setdefault(descriptor.digest, (descriptor, diff_id))[0].size != descriptor.size:
                    raise BadInput(f"{descriptor.digest} has two sizes", what=f"{self._name.repository}")
        present = protocol.name_blobs(self._volume.catalog, self._lease.id, wanted)
        found: dict[Digest, _Layer] = {}
        with self._volume.catalog.read() as tx:
            for digest in present:
                info = find_below(tx, digest)
                found[digest] = _Layer(info.diffid, info.files_size)
        for digest in wanted:
            self._say(digest.hex[:12], "Already exists" if digest in present else "Pulling fs layer")
        missing = sorted((digest for digest in wanted if digest not in found), key=lambda one: -wanted[one][0].size)
        self._lanes = max(1, self._registry.http.network.parallel // max(1, len(missing)))
        size = sum(wanted[digest][0].size for digest in missing)
        if size > (free := self._volume.objects.free()):
            raise OutOfSpace(f"its layers take {size} bytes, only {free} are free", what=self._name.familiar())
        for taken in self._crew.each(lambda digest: self._fetch(*wanted[digest]), missing, size=size):
            found[taken.digest] = _Layer(taken.diffid, taken.files_size)
        self._check_diff_ids(found)
        return found

    def _fetch(self, descriptor: Descriptor, diff_id: Digest | None) -> Taken:
        """A layer that the store lacks, through the verifier."""
        self._lease.check()
        digest, short = descriptor.digest, descriptor.digest.hex[:12]
        part = self._volume.transfers.part(digest, descriptor.size)
        begun = part.begun if part is not None else 0
        try:
            taken = self._take(descriptor, diff_id, part)
        except DigestMismatch as error:
            if part is not None:
                part.drop()
            if not begun:
                problem = f"filesystem layer verification failed for digest {digest}: {error.message}"
                raise DigestMismatch(problem) from None
            return self._fetch(descriptor, diff_id)  # what had come before has rotted, or was wrong: all of it again
        except BaseException as error:
            if part is not None and isinstance(error, OutOfSpace):
                part.drop()  # the room is worth more
            elif part is not None:
                part.close()
            raise
        self._fetched += descriptor.size - begun
        self._say(short, "Pull complete")
        return taken

    def _take(self, descriptor: Descriptor, diff_id: Digest | None, part: Part | None) -> Taken:
        digest, size = descriptor.digest, descriptor.size
        begun = part.begun if part is not None else 0
        way, lanes = self._registry, self._lanes
        with download(way, self._name.path, digest, size, begun, lanes=lanes, check=self._crew.check) as rest:
            source: Source = Chained(RangeSource(part, 0, begun), rest) if part is not None else rest
            inside, short = diff_id is not None, digest.hex[:12]
            return self._ingest.take(
                source, expect=digest, inside=inside, what=short, look=self._look, part=part
            )

    def _check_diff_ids(self, layers: dict[Digest, _Layer]) -> None:
        for manifest, config, _ in self._walk.configs.values():
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
        for manifest, config, raw in self._walk.configs.values():
            self._took[manifest.config.digest] = raw, manifest.config.media_type, ()
            children = tuple(dict.fromkeys(one.digest for one in manifest.children))
            self._took[manifest.digest] = manifest.raw, manifest.media_type, children
            if config is not None:
                size = oci_image.total(layers[one.digest].files_size for one in manifest.layers)
                rows.append(oci_image.image_row(manifest, config, size))
        indexes = [one for one in self._walk.documents.values() if isinstance(one, Index)]
        taken = {*self._walk.configs, *(one.digest for one in indexes)}
        for index in indexes:
            here = tuple(one.digest for one in index.manifests if one.digest in taken and one.digest != index.digest)
            self._took[index.digest] = index.raw, index.media_type, tuple(dict.fromkeys(here))
        for subject, about in self._walk.about.items():
            raw, media_type, children = self._took[subject]
            self._took[subject] = raw, media_type, tuple(dict.fromkeys((*children, *about)))
        image = chosen.config.digest if chosen.is_image else None
        with self._volume.catalog.read() as tx:
            whole = self._is_whole(tx, top)
        if whole and not self._fetched:
            return PullReport(self._name, top.digest, image, False, 0)
        self._take_documents()
        written = self._ingest.finish({*layers, *self._took})
        self._lease.check()
        more = [(self._name.repository, tag, digest) for tag, digest in self._walk.tags.items()]
        protocol.commit(
            self._volume.catalog,
            self._lease.id,
            written.blobs,
            objects=written.objects,
            images=rows,
            tags=[*((*name, top.digest) for name in self._tags), *more],
            pins=[] if self._tags else [(top.digest, UNTAGGED)],
            keep=UNTAGGED,
        )
        self._ingest.committed()
        return PullReport(self._name, top.digest, image, True, self._fetched)

    def _is_whole(self, tx: Tx, top: Manifest | Index) -> bool:
        """Does the store have just this under that name, with all edges?"""
        if self._tags:
            named = all(names.find_tag(tx, *name) == top.digest for name in self._tags)
        else:
            named = bool(names.pins(tx, top.digest) or names.tags(tx, target=top.digest))
        more = self._walk.tags.items()
        named = named and all(names.find_tag(tx, self._name.repository, tag) == digest for tag, digest in more)
        return named and all(
            names.is_live(tx, digest) and set(children) <= set(names.children(tx, digest))
            for digest, (_, _, children) in self._took.items()
        )

    def _take_documents(self) -> None:
        """Manifests and configs that the store lacks. Others too where they may have more children now."""
        growing = {digest for digest, (_, media_type, _) in self._took.items() if media_type in media.INDEXES}
        lasting = self._took.keys() - growing - self._walk.about.keys()
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
