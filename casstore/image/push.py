"""`push`: what a name stands for, to its registry. Blobs that are there are not sent, those of another repository there
are mounted; manifests come after their blobs, indexes after their manifests, the name last.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..digest import Digest
from ..errors import CasstoreError, Damaged, Denied, NotFound, UsageError
from ..flow.restore import BlobReader
from ..flow.step import Step
from ..model import BlobInfo, Buffer, Progress
from ..oci import manifest as oci_manifest
from ..oci import media
from ..oci import platform as oci_platform
from ..oci.manifest import Descriptor, Index, Manifest
from ..oci.reference import Reference
from ..store import names, protocol
from ..store.catalog import Tx
from ..store.leases import Lease
from ..store.volume import Volume
from ..transport.blob_upload import AT_ONCE, BlobUpload
from ..transport.registry import COSIGN, Registry, fallback_tag
from .content import closure, read_document
from .crew import Crew
from .pressed import COMPRESSIONS, Press, Writing
from .resolve import artifact, resolve
from .upload_note import UploadNote

MAX_MOUNTS = 3
"""Repositories that a blob is asked to be mounted from, at most."""

Say = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class PushReport:
    """What was pushed: the manifest or index that the name now stands for, its size in bytes; `sent`: bytes of blobs
    that went over."""

    reference: Reference
    digest: Digest
    size: int
    sent: int


def push(
    volume: Volume,
    registry: Registry,
    name: Reference,
    *,
    source: Digest | str | None = None,
    platform: str | None = None,
    referrers: bool = False,
    compression: str = "gzip",
    writing: Writing = dict,
    say: Say = lambda layer, what: None,
    progress: Progress | None = None,
) -> PushReport:
    """Push under a name with a tag (or with the digest of what is pushed). `source`: what of the store, a manifest or
    index by its digest, a name or ID as `resolve` takes it; else what has that name here. `platform`: of an index, that
    image alone. `referrers`: what refers to it goes along. `compression` (one of COMPRESSIONS): what plain layers
    become on the way, and then their manifest is another; they stay plain where something goes along that refers to it.
    NotFound: the store has no such thing; Denied; RemoteFailure. The name at the registry is moved last, or not at
    all."""
    if compression not in COMPRESSIONS:
        raise UsageError(f"unknown compression {compression!r}: {', '.join(COMPRESSIONS)}")
    if name.digest is not None and source is None:
        raise UsageError("cannot push a digest reference")
    with Lease(volume.catalog, volume.objects, f"push {name}", reading=True) as lease:
        work = _Push(volume, lease, registry, name, source, platform, referrers, say, progress)
        if compression != "none":
            work.press(compression, writing)
        return work.run()


class _Push:
    """One name being pushed."""

    def __init__(
        self,
        volume: Volume,
        lease: Lease,
        registry: Registry,
        name: Reference,
        source: Digest | str | None,
        platform: str | None,
        referrers: bool,
        say: Say,
        progress: Progress | None,
    ) -> None:
        self._volume = volume
        self._lease = lease
        self._registry = registry
        self._name = name
        self._wanted = oci_platform.parse(platform) if platform else None
        self._say = say
        self._progress = progress
        self._crew = Crew(registry.http.network.parallel, registry.http.wake)
        self._engines = threading.Semaphore(len(os.sched_getaffinity(0)))
        self._cosign: dict[str, Digest] = {}  # tags of the repository here that tell about something else
        target, self._infos = self._protect(source, referrers)
        self._documents: list[Manifest | Index] = []  # each after what is below it
        self._about: list[Manifest | Index] = []  # what refers to these
        self._tags: list[tuple[str, Digest]] = []  # cosign's, of what is pushed
        self._top = self._take(target)
        if self._wanted is not None and isinstance(self._top, Index):
            self._top = self._only(self._top)
        if referrers:
            self._follow()

    def press(self, compression: str, writing: Writing) -> None:
        """Compress the layers that are plain. What refers to a manifest would refer to another one then."""
        if self._about:
            return
        made = Press(self._volume, self._lease, self._infos, compression, writing, self._progress).run(self._documents)
        self._documents = [made[one.digest] for one in self._documents]
        self._top = made[self._top.digest]

    def run(self) -> PushReport:
        """Send what is not there yet, and give it its name."""
        if self._name.digest is not None and self._name.digest != self._top.digest:
            raise UsageError(f"what is pushed is {self._top.digest}, and cannot have the name {self._name.familiar()}")
        infos = sorted(self._blobs().values(), key=lambda info: -info.size)
        for info in infos:
            self._say(_short(info), "Preparing")
        try:
            sent = self._crew.each(self._blob, infos, size=sum(info.size for info in infos))
            for document in self._documents:
                if document is not self._top or self._about:
                    self._put(document, str(document.digest))
            for document in self._about:
                self._put(document, str(document.digest))
            about = {document.digest: document for document in self._about}
            for tag, digest in self._tags:
                self._put(about[digest], tag)
            self._lease.check()
            self._put(self._top, self._name.tag or str(self._top.digest))
        except Denied as error:
            problem = f"push access denied for {self._name.familiar_name}, or it may require 'casstore login'"
            raise Denied(f"{problem}: {error.message}") from None
        return PushReport(self._name, self._top.digest, len(self._top.raw), sum(sent))

    # -- what is to be pushed

    def _protect(self, source: Digest | str | None, referrers: bool) -> tuple[Digest, dict[Digest, BlobInfo]]:
        """What is to be pushed, and all blobs below it, which the lease keeps."""
        while True:
            with self._volume.catalog.read() as tx:
                target, repository = self._find(tx, source)
                wanted = closure(tx, target)
                if referrers:
                    self._cosign = _cosign(tx, repository, wanted)
            opened = protocol.read_open(self._volume.catalog, self._lease.id, wanted)
            if wanted.keys() == opened.blobs.keys():
                return target, opened.blobs

    def _find(self, tx: Tx, source: Digest | str | None) -> tuple[Digest, str | None]:
        """What is to be pushed, and the repository that it has here, where that is told."""
        if isinstance(source, Digest):
            if not names.is_live(tx, source):
                raise NotFound(f"{source} is not in the store", what=self._name.familiar())
            return source, None
        if source is not None:
            tag = artifact(tx, source)
            if tag is not None:
                return tag.target, tag.repository
            found = resolve(tx, source)
            return found.target, found.tag.repository if found.tag is not None else None
        target = names.find_tag(tx, self._name.repository, self._name.tag)
        if target is None:
            raise NotFound(f"An image does not exist locally with the tag: {self._name.familiar()}")
        return target, self._name.repository

    def _take(self, digest: Digest) -> Manifest | Index:
        """A manifest or index into the plan, after what is below it."""
        info = self._infos[digest]
        document = oci_manifest.parse(read_document(self._volume, info), str(digest), info.media_type, digest)
        if isinstance(document, Index) and self._wanted is None:
            for child in document.manifests:
                if child.digest not in self._infos:
                    raise NotFound(
                        f"its manifest {child.digest} ({child.platform or 'no platform'}) is not in the store",
                        what=self._name.familiar(),
                        hint="pull it with --all-platforms, or push with --platform",
                    )
                self._take_once(child.digest)
        self._documents.append(document)
        return document

    def _take_once(self, digest: Digest) -> None:
        if all(one.digest != digest for one in self._documents):
            self._take(digest)

    def _follow(self) -> None:
        """What refers to what is pushed, and to that in turn: into `about`."""
        pushed, self._documents = self._documents, []
        subjects = [one.digest for one in pushed]
        seen = set(subjects)
        with self._volume.catalog.read() as tx:
            edges = {digest: names.children(tx, digest) for digest in self._infos}
        while subjects:
            subject = subjects.pop()
            tags = [f"{fallback_tag(subject)}.{kind}" for kind in COSIGN]
            told = [(tag, self._cosign[tag]) for tag in tags if tag in self._cosign]
            referring = [digest for digest in edges.get(subject, ()) if self._refers(digest, subject)]
            for digest in dict.fromkeys((*referring, *(digest for _, digest in told))):
                if digest not in seen:
                    seen.add(digest)
                    self._take_once(digest)
                    subjects.append(digest)
            self._tags += told
        self._documents, self._about = pushed, self._documents

    def _refers(self, digest: Digest, subject: Digest) -> bool:
        info = self._infos.get(digest)
        if info is None or info.media_type not in media.MANIFESTS | media.INDEXES:
            return False
        document = oci_manifest.parse(read_document(self._volume, info), str(digest), info.media_type, digest)
        return document.subject is not None and document.subject.digest == subject

    def _blobs(self) -> dict[Digest, BlobInfo]:
        """All blobs of all manifests, but those that are not to be handed on."""
        found: dict[Digest, BlobInfo] = {}
        for document in (*self._documents, *self._about):
            for child in document.children if isinstance(document, Manifest) else ():
                if not media.is_distributable(child.media_type):
                    continue
                info = self._infos.get(child.digest)
                if info is None:
                    hint = "run casstore check"
                    raise Damaged(f"blob {child.digest} is missing", what=str(document.digest), hint=hint)
                found[child.digest] = info
        return found

    def _only(self, index: Index) -> Manifest | Index:
        """The image of an index for the platform that was asked for."""
        wanted = self._wanted or oci_platform.host()
        here = [one for one in index.manifests if one.digest in self._infos]
        found = oci_platform.select(here, wanted)
        if found is None:
            raise NotFound(f"no image for {wanted} is in the store", what=self._name.familiar())
        self._documents = []
        self._wanted = None  # all below it
        return self._take(found.digest)

    # -- sending

    def _blob(self, info: BlobInfo) -> int:
        """One blob to where it is not yet; bytes sent. Never two of the same at once: the second finds it there."""
        with self._registry.turns.alone([info.digest]):
            sent = self._bring(info)
        places = self._registry.places.setdefault(info.digest, [])
        if self._name.path not in places:
            places.append(self._name.path)
        return sent

    def _bring(self, info: BlobInfo) -> int:
        self._crew.check()
        self._lease.check()
        path = self._name.path
        absent = info.digest in self._registry.absent and info.size <= AT_ONCE
        if self._registry.has(path, info.digest) or (not absent and self._registry.has_blob(path, info.digest)):
            self._say(_short(info), "Layer already exists")
            return 0
        with UploadNote(self._volume, self._name.domain, path, info) as note:
            upload = BlobUpload(
                self._registry,
                path,
                info.digest,
                info.size,
                lambda start: self._read(info, start),
                check=self._crew.check,
                remember=note.write,
            )
            sent, mounted = 0, ""
            if not upload.resume(note.location):
                mounted = self._mount(info, upload)
            if not mounted:
                # What must be made again takes a core and some 200 MiB: no more of it at once than there are cores.
                with self._engines if self._must_be_made(info) else contextlib.nullcontext():
                    sent = upload.run()
            note.drop()
        self._say(_short(info), f"Mounted from {mounted}" if mounted else "Pushed")
        return sent

    def _must_be_made(self, info: BlobInfo) -> bool:
        if info.place.state != "packed" or info.encoding == "identity":
            return False
        return self._volume.cache.find(info.digest, info.size) is None

    def _mount(self, info: BlobInfo, upload: BlobUpload) -> str:
        """The repository that the blob was taken over from, "" for none."""
        with self._volume.catalog.read() as tx:
            sources = mounts(tx, info.digest, self._name)
        sources = [*self._registry.places.get(info.digest, ())[:1], *sources]
        for source in [one for one in dict.fromkeys(sources) if one != self._name.path][:MAX_MOUNTS]:
            try:
                if upload.mount(source):
                    return source
            except Denied:
                continue  # we may not read there; that says nothing of here
        return ""

    def _read(self, info: BlobInfo, start: int) -> Iterator[Buffer]:
        step = Step(self._progress, _short(info), info.size)
        step.advance(start)
        reader = BlobReader(self._volume, info, cached=True)
        for buffer in step.over(reader.read(start)):
            self._crew.check()
            yield buffer
        step.done()

    def _put(self, document: Manifest | Index, ref: str) -> None:
        put_document(self._registry, self._name, document, ref)


def put_document(registry: Registry, name: Reference, document: Manifest | Index, ref: str) -> None:
    """A manifest or index into the repository of `name`, and into the list of what refers to its subject."""
    path = name.path
    try:
        known = registry.put_manifest(path, ref, document.raw, document.media_type)
    except NotFound as error:
        raise CasstoreError(f"the registry does not take it: {error.message}", what=str(name)) from None
    if document.subject is not None and not known:
        artifact = document.artifact_type if isinstance(document, Manifest) else ""
        kind = artifact or (document.config.media_type if isinstance(document, Manifest) else "")
        referring = Descriptor(
            document.media_type, document.digest, len(document.raw), None, document.annotations, kind
        )
        registry.refer(path, referring, document.subject.digest)


def _cosign(tx: Tx, repository: str | None, wanted: dict[Digest, BlobInfo]) -> dict[str, Digest]:
    """cosign's tags about any of `wanted`, in that repository of the store (in any, for None), and what they stand for,
    which is added to `wanted`."""
    tags = {row.tag: row.target for row in names.tags(tx, repository) if row.tag.startswith("sha256-")}
    found: dict[str, Digest] = {}
    queue = list(wanted)
    while queue:
        subject = fallback_tag(queue.pop())
        for tag in (f"{subject}.{kind}" for kind in COSIGN):
            if tag in tags and tag not in found:
                found[tag] = tags[tag]
                below = closure(tx, tags[tag])
                queue += [digest for digest in below if digest not in wanted]
                wanted |= below
    return found


def _short(info: BlobInfo) -> str:
    return (info.diffid or info.digest).hex[:12]


def mounts(tx: Tx, digest: Digest, name: Reference) -> list[str]:
    """Other repositories of the same registry that should have a blob, because an image here with it is named so."""
    found: dict[str, None] = {}
    queue, seen = names.parents(tx, digest), {digest}
    while queue and len(seen) < 256:
        one = queue.pop(0)
        if one in seen:
            continue
        seen.add(one)
        for tag in names.tags(tx, target=one):
            domain, _, path = tag.repository.partition("/")
            if domain == name.domain and path != name.path:
                found[path] = None
        queue += names.parents(tx, one)
    return list(found)
