"""What a name stands for at its registry: manifests, indexes and configs, down to the layers' descriptors. What the
store has is not asked for again.
"""

from __future__ import annotations

from ..digest import Digest
from ..errors import BadInput, CasstoreError, Denied, LimitExceeded, NotFound
from ..oci import config as oci_config
from ..oci import manifest as oci_manifest
from ..oci import media
from ..oci import platform as oci_platform
from ..oci.config import Config
from ..oci.manifest import Descriptor, Index, Manifest
from ..oci.platform import Platform
from ..oci.reference import Reference
from ..store import protocol, query
from ..store.leases import Lease
from ..store.volume import Volume
from ..transport.registry import Registry
from .content import find_below, read_document

MAX_DEPTH = 8
"""Deepest nesting of indexes."""
MAX_DOCUMENTS = 50_000
"""Most manifests and indexes of one pull."""
MAX_BYTES = 256 << 20
"""All manifests and configs of one pull together, bytes."""


class Walk:
    """From one reference down. `documents`: every manifest and index that was read; `configs`: of each image that was
    chosen, with the manifest and the parsed config (None for an artifact); `about`: manifest → what refers to it;
    `tags`: cosign's, with what they stand for; `fetched`: bytes of configs that came over."""

    def __init__(self, volume: Volume, lease: Lease, registry: Registry, name: Reference, wanted: Platform | None):
        self._volume = volume
        self._lease = lease
        self._registry = registry
        self._name = name
        self._wanted = wanted
        self._bytes = 0
        self.documents: dict[Digest, Manifest | Index] = {}
        self.configs: dict[Digest, tuple[Manifest, Config | None, bytes]] = {}
        self.about: dict[Digest, list[Digest]] = {}
        self.tags: dict[str, Digest] = {}
        self.fetched = 0

    def run(self, *, everything: bool, referrers: bool) -> tuple[Manifest | Index, Manifest]:
        """What the name stands for, and the image of it for the platform that was asked for (or this machine's)."""
        top = self._top()
        if isinstance(top, Index):
            chosen = self._everything_below(top, 0) if everything else self._choose(top)
        else:
            chosen = self._image(top, None)
            self._check_platform(chosen)
        if referrers:
            self._follow([*self.configs, *([top.digest] if top.digest not in self.configs else [])])
        return top, chosen

    def _follow(self, subjects: list[Digest]) -> None:
        """What refers to these, and to that in turn: signatures, SBOMs."""
        path = self._name.path
        seen = set(subjects)
        while subjects:
            subject = subjects.pop()
            found = self._registry.referrers(path, subject)
            for descriptor in found:
                try:
                    one = self._child(descriptor, self.documents[subject])
                except NotFound:
                    continue  # it was listed, and is gone
                if one.subject is None or one.subject.digest != subject:
                    continue  # listed there by whoever may write that tag
                self._keep(one, 0)
                self.about.setdefault(subject, []).append(one.digest)
                if one.digest not in seen:
                    seen.add(one.digest)
                    subjects.append(one.digest)
            for tag in self._registry.cosign(path, subject):
                fetched = self._registry.manifest(path, tag)
                self._keep(self._document(fetched.raw, fetched.digest, fetched.media_type), 0)
                self.tags[tag] = fetched.digest

    def _keep(self, document: Manifest | Index, depth: int) -> None:
        """All of a document."""
        if isinstance(document, Manifest):
            self._image(document, None)
            return
        for descriptor in document.manifests:
            if descriptor.digest not in self.documents:
                self._keep(self._child(descriptor, document), self._deeper(depth))

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
        if len(self.documents) >= MAX_DOCUMENTS or self._bytes > MAX_BYTES:
            raise LimitExceeded("too many manifests", what=what)
        known = media_type if media_type in media.INDEXES | media.MANIFESTS | media.DOCKER_SCHEMA1 else ""
        document = oci_manifest.parse(raw, what, known, digest)
        self.documents[digest] = document
        return document

    def _child(self, descriptor: Descriptor, above: Manifest | Index) -> Manifest | Index:
        """A manifest or index below an index."""
        known = self.documents.get(descriptor.digest) or self._stored(descriptor.digest)
        if known is None:
            try:
                fetched = self._registry.manifest(self._name.path, str(descriptor.digest))
            except NotFound as error:
                what = f"{self._name.repository}@{above.digest}"
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
        if manifest.digest in self.configs:
            return manifest
        what = f"{self._name.repository}@{manifest.digest}"
        raw = self._read(manifest.config.digest)
        if raw is None:
            raw = self._registry.document(self._name.path, manifest.config)
            self.fetched += len(raw)
        self._bytes += len(raw)
        parsed = None
        if manifest.is_image and not (listed and listed.is_attestation):
            parsed = oci_config.parse(raw, f"{what}: config", manifest.config.digest)
            oci_config.check_layers(parsed, len(manifest.layers), what)
        self.configs[manifest.digest] = manifest, parsed, raw
        return manifest

    def _check_platform(self, manifest: Manifest) -> None:
        """A name that stands for one image only: does it suit what was asked for?"""
        config = self.configs[manifest.digest][1]
        if config is None:
            return
        if self._wanted is None:
            oci_config.check_os(config, oci_platform.host().os, self._name.familiar())
        elif oci_platform.rank(config.platform, self._wanted) is None:
            raise NotFound(
                f"image with reference {self._name.familiar()} was found but does not match the specified platform: "
                f"wanted {self._wanted}, actual: {config.platform}"
            )
