"""From one registry to another, or from one repository to the next, without landing: blobs stream through, several at
once, what is there already is not sent, and what the same registry has elsewhere is mounted. Manifests come after their
blobs, indexes after their manifests, the name last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from ..digest import Digest
from ..errors import BadInput, CasstoreError, Denied, DigestMismatch, LimitExceeded, NotFound
from ..flow.source import chunks
from ..flow.step import Step
from ..model import Buffer, Progress
from ..oci import manifest as oci_manifest
from ..oci import media
from ..oci import platform as oci_platform
from ..oci.manifest import Descriptor, Index, Manifest
from ..oci.platform import Platform
from ..oci.reference import Reference
from ..transport.blob_download import BlobDownload
from ..transport.blob_upload import BlobUpload
from ..transport.registry import Registry
from .crew import Crew
from .push import put_document
from .walk import MAX_BYTES, MAX_DEPTH, MAX_DOCUMENTS

Say = Callable[[str, str], None]
_PIECE = 1 << 20


class End(NamedTuple):
    """One end: a registry, and a name there."""

    registry: Registry
    name: Reference


class Relayed(NamedTuple):
    """What arrived. `sent`: bytes of blobs that went over the wire."""

    top: Manifest | Index
    sent: int


class Documents:
    """Manifests and indexes of a repository, verified and bounded."""

    def __init__(self, end: End) -> None:
        self._registry, self._name = end
        self._bytes = 0
        self._count = 0

    def top(self) -> Manifest | Index:
        """What the name stands for. NotFound, Denied."""
        try:
            return self.get(str(self._name.digest or self._name.tag), "")
        except NotFound as error:
            raise NotFound(f"manifest for {self._name.familiar()} not found: {error.message}") from None
        except Denied as error:
            what = self._name.familiar_name
            problem = f"pull access denied for {what}, repository does not exist or may require 'casstore login'"
            raise Denied(f"{problem}: {error.message}") from None

    def below(self, descriptor: Descriptor) -> Manifest | Index:
        """What a descriptor points at."""
        found = self.get(str(descriptor.digest), descriptor.media_type)
        if len(found.raw) != descriptor.size:
            problem = f"its size is {len(found.raw)}, its descriptor says {descriptor.size}"
            raise BadInput(problem, what=f"{self._name.repository}@{descriptor.digest}")
        return found

    def get(self, ref: str, media_type: str) -> Manifest | Index:
        """By tag or digest."""
        fetched = self._registry.manifest(self._name.path, ref)
        self._count, self._bytes = self._count + 1, self._bytes + len(fetched.raw)
        what = f"{self._name.repository}@{fetched.digest}"
        if self._count > MAX_DOCUMENTS or self._bytes > MAX_BYTES:
            raise LimitExceeded("too many manifests", what=what)
        kind = fetched.media_type or media_type
        known = kind if kind in media.INDEXES | media.MANIFESTS | media.DOCKER_SCHEMA1 else ""
        return oci_manifest.parse(fetched.raw, what, known, fetched.digest)

    def choose(self, top: Manifest | Index, wanted: Platform | None) -> Manifest:
        """The image of an index for a platform (None: this machine's). NotFound."""
        if isinstance(top, Manifest):
            return top
        platform = wanted or oci_platform.host()
        found = oci_platform.select(self._leaves(top, 0, {top.digest}), platform)
        if found is None:
            problem = f"no matching manifest for {platform} in the manifest list entries"
            raise NotFound(problem, what=self._name.familiar())
        chosen = self.below(found)
        if isinstance(chosen, Index):
            what = f"{self._name.repository}@{found.digest}"
            raise BadInput("an index where a manifest is expected", what=what)
        return chosen

    def _leaves(self, index: Index, depth: int, seen: set[Digest]) -> Iterator[Descriptor]:
        for descriptor in index.manifests:
            if media.to_oci(descriptor.media_type) != media.OCI_INDEX:
                yield descriptor
            elif descriptor.digest not in seen:
                seen.add(descriptor.digest)
                inner = self.below(descriptor)
                if isinstance(inner, Index):
                    yield from self._leaves(inner, self.deeper(depth), seen)

    def deeper(self, depth: int) -> int:
        """One more level of indexes. LimitExceeded."""
        if depth + 1 >= MAX_DEPTH:
            raise LimitExceeded(f"indexes are nested deeper than {MAX_DEPTH}", what=self._name.familiar())
        return depth + 1


def relay(
    source: End,
    target: End,
    *,
    platform: Platform | None = None,
    everything: bool = False,
    referrers: bool = False,
    say: Say = lambda layer, what: None,
    progress: Progress | None = None,
) -> Relayed:
    """Copy an image, or (`everything`) a whole index. `referrers`: what refers to it too. NotFound, Denied,
    RemoteFailure, DigestMismatch; the name at the target is moved last, or not at all."""
    return _Relay(source, target, say, progress).run(platform, everything=everything, referrers=referrers)


class _Relay:
    """One name on its way."""

    def __init__(self, source: End, target: End, say: Say, progress: Progress | None) -> None:
        self._source, self._from = source
        self._target, self._to = target
        self._say = say
        self._progress = progress
        self._documents = Documents(source)
        self._plan: dict[Digest, Manifest | Index] = {}
        self._tags: dict[str, Digest] = {}
        self._blobs: dict[Digest, Descriptor] = {}
        self._crew = Crew(self._target.http.network.parallel, self._wake)

    def _wake(self) -> None:
        self._source.http.wake()
        self._target.http.wake()

    def run(self, platform: Platform | None, *, everything: bool, referrers: bool) -> Relayed:
        top = self._documents.top()
        if not everything:
            top = self._documents.choose(top, platform)
        if self._to.digest is not None and self._to.digest != top.digest:
            raise CasstoreError(f"what is copied is {top.digest}, and cannot have the name {self._to.familiar()}")
        try:
            if not referrers and self._is_there(top):
                return Relayed(top, 0)
            self._take(top, 0)
            if referrers:
                self._follow()
            blobs = sorted(self._blobs.values(), key=lambda one: -one.size)
            for one in blobs:
                self._say(one.digest.hex[:12], "Preparing")
            sent = sum(self._crew.each(self._blob, blobs))
            for document in self._plan.values():
                if document.digest != top.digest:
                    self._put(document, str(document.digest))
            for tag, digest in self._tags.items():
                self._put(self._plan[digest], tag)
            self._put(top, self._to.tag or str(top.digest))
        except Denied as error:
            if error.what is not None and not error.what.startswith(self._to.repository):
                raise
            problem = f"push access denied for {self._to.familiar_name}, or it may require 'casstore login'"
            raise Denied(f"{problem}: {error.message}") from None
        return Relayed(top, sent)

    def _is_there(self, top: Manifest | Index) -> bool:
        """Does the name stand for this already? A registry that has a manifest has what is below it."""
        head = self._target.head(self._to.path, self._to.tag or str(top.digest))
        return head is not None and head.digest == top.digest

    # -- what is to be copied

    def _take(self, document: Manifest | Index, depth: int) -> None:
        """A manifest or index into the plan, after what is below it."""
        if isinstance(document, Index):
            for child in document.manifests:
                if child.digest not in self._plan:
                    below = self._documents.below(child)
                    deeper = self._documents.deeper(depth) if isinstance(below, Index) else depth
                    self._take(below, deeper)
        else:
            for child in document.children:
                if not media.is_distributable(child.media_type):
                    continue
                if self._blobs.setdefault(child.digest, child).size != child.size:
                    raise BadInput(f"{child.digest} has two sizes", what=self._from.repository)
        self._plan.setdefault(document.digest, document)

    def _follow(self) -> None:
        """What refers to these, and to that in turn."""
        queue = list(self._plan)
        while queue:
            subject = queue.pop()
            for descriptor in self._source.referrers(self._from.path, subject):
                if descriptor.digest in self._plan:
                    continue
                try:
                    one = self._documents.below(descriptor)
                except NotFound:
                    continue  # it was listed, and is gone
                if one.subject is not None and one.subject.digest == subject:
                    self._take(one, 0)
                    queue.append(one.digest)
            for tag in self._source.cosign(self._from.path, subject):
                one = self._documents.get(tag, "")
                self._take(one, 0)
                self._tags[tag] = one.digest

    # -- sending

    def _blob(self, one: Descriptor) -> int:
        """One blob to where it is not yet; bytes sent."""
        self._crew.check()
        short, path = one.digest.hex[:12], self._to.path
        if self._target.has_blob(path, one.digest):
            self._say(short, "Layer already exists")
            return 0
        upload = BlobUpload(
            self._target, path, one.digest, one.size, lambda start: self._read(one, start), check=self._crew.check
        )
        if self._from.domain == self._to.domain and self._from.path != path and self._mounted(upload):
            self._say(short, f"Mounted from {self._from.path}")
            return 0
        try:
            upload.run()
        except _Source as failure:
            raise failure.error from None
        self._say(short, "Copied")
        return one.size

    def _mounted(self, upload: BlobUpload) -> bool:
        try:
            return upload.mount(self._from.path)
        except Denied:
            return False  # we may not read there with what we may do here; that says nothing of here

    def _read(self, one: Descriptor, start: int) -> Iterator[Buffer]:
        """A blob's bytes from `start` on, all of it hashed: the last piece is given only when it is right."""
        step = Step(self._progress, one.digest.hex[:12], one.size)
        hasher, at = one.digest.hasher(), 0
        with BlobDownload(self._source, self._from.path, one.digest, one.size, check=self._crew.check) as rest:
            for piece in _blamed(chunks(rest, _PIECE)):
                hasher.update(piece)
                at += len(piece)
                if at == one.size:
                    self._check(one, hasher.digest())
                step.advance(len(piece))
                if at > start:
                    yield piece[max(0, len(piece) - (at - start)) :]
        if not one.size:
            self._check(one, hasher.digest())
        step.done()

    def _check(self, one: Descriptor, actual: bytes) -> None:
        try:
            one.digest.check(actual, f"{self._from.repository}@{one.digest}")
        except DigestMismatch as error:
            problem = f"filesystem layer verification failed for digest {one.digest}: {error.message}"
            raise DigestMismatch(problem, what=self._from.repository) from None

    def _put(self, document: Manifest | Index, ref: str) -> None:
        put_document(self._target, self._to, document, ref)


class _Source(Exception):
    """The source has failed in the middle of an upload, which is not to take it for a trouble of its own."""

    def __init__(self, error: CasstoreError) -> None:
        super().__init__(str(error))
        self.error = error


def _blamed(pieces: Iterator[memoryview]) -> Iterator[memoryview]:
    try:
        yield from pieces
    except CasstoreError as error:
        raise _Source(error) from None
