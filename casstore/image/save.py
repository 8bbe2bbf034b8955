"""`save`: images into an archive, each blob verified as it is written.

Into a file: written beside it under a temporary name, mode 0600, and renamed when all of it is there. Into a pipe: as
it comes. The same images make the same bytes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ..digest import Digest
from ..errors import Damaged, InvalidReference
from ..flow.restore import Ahead, BlobReader
from ..flow.step import Step
from ..model import Buffer, Progress
from ..oci import config as oci_config
from ..oci import manifest as oci_manifest
from ..oci import platform as oci_platform
from ..oci import reference
from ..oci.manifest import Index, Manifest
from ..oci.reference import Reference
from ..store.leases import Lease
from ..store.volume import Volume
from ..transport import docker_archive, legacy, oci_layout, tar, writing
from ..transport.contents import SavedImage, SavedIndex
from ..transport.writing import Content, Member, OpenBlob
from ..upkeep.learn import learn
from .content import protect, protect_below, read_document
from .crew import Crew
from .output import Folder, opened
from .resolve import Found

_WRITERS = 4  # one waits for the disk while others read and hash
Plan = Callable[[Sequence[SavedImage], Sequence[SavedIndex]], list[Member]]
"""What the members of an archive, or of a folder, are."""
FORMATS: dict[str, Plan] = {
    "docker-archive": docker_archive.plan,
    "oci-archive": oci_layout.plan,
    "legacy": legacy.plan,
}


def save(
    volume: Volume,
    given: Sequence[str] | Mapping[Digest, Sequence[Reference]],
    out: str | Path | int,
    *,
    format: str | Plan = "docker-archive",
    progress: Progress | None = None,
) -> None:
    """Save images, by name or ID (or manifests and indexes, with the names that they get), to a path or an open
    descriptor."""
    with Lease(volume.catalog, volume.objects, "save", reading=True) as lease, Ahead() as ahead:
        if format == "legacy" and not isinstance(given, Mapping):  # whose layers are unpacked
            infos = protect(volume, lease, given)[1].values()
            learn(volume, [info for info in infos if info.encoding != "identity" and info.content_size is None])
        source = _Saved(volume, lease, given, ahead)
        plan = source.plan(format)
        _, total = writing.offsets(plan)
        step = Step(progress, "save", total)
        with opened(out, step, volume.catalog.decided) as writer:
            writing.write(writer, plan, source.open)
        step.done()


def save_into(volume: Volume, target: Digest, folder: Folder, plan: Plan, *, progress: Progress | None = None) -> None:
    """Save what is below a manifest or index as files of a folder: the first and the last of the plan first and last,
    all else between, several at once. What has a digest for its name and lies there in its size is not written
    again, nor is what is there already as it should be."""
    with Lease(volume.catalog, volume.objects, "save", reading=True) as lease, Ahead() as ahead:
        source = _Saved(volume, lease, {target: ()}, ahead)
        first, *rest = [member for member in source.plan(plan) if member.kind == tar.FILE]
        source.order([])
        *rest, last = rest
        missing = [one for one in rest if not _is_there(folder, one)]
        missing.sort(key=lambda one: -one.size)
        crew = Crew(_WRITERS)

        def put(member: Member) -> None:
            folder.put(member.name, _counted(member, source.open, progress, crew))

        if not _is_there(folder, first):
            put(first)
        crew.each(put, missing, size=sum(one.size for one in missing))
        if not _is_there(folder, last):
            folder.put(last.name, writing.contents(last, source.open), last=True)


def _is_there(folder: Folder, member: Member) -> bool:
    if folder.size(member.name) != member.size:
        return False
    return isinstance(member.source, Content) or folder.read(member.name, member.size) == member.source


def _counted(member: Member, open_blob: OpenBlob, progress: Progress | None, crew: Crew) -> Iterator[Buffer]:
    step = Step(progress, member.name[-64:][:12], member.size)
    for buffer in writing.contents(member, open_blob):
        crew.check()
        yield buffer
        step.advance(len(memoryview(buffer).cast("B")))
    step.done()


class _Saved:
    """What was asked for, resolved, and protected by a lease for as long as it is read."""

    def __init__(
        self,
        volume: Volume,
        lease: Lease,
        given: Sequence[str] | Mapping[Digest, Sequence[Reference]],
        ahead: Ahead,
    ) -> None:
        self._ahead = ahead
        self._next: dict[Content, Content] = {}
        self._begun: dict[Content, BlobReader] = {}
        self._volume = volume
        self._lease = lease
        self.images: list[SavedImage] = []
        self.indexes: list[SavedIndex] = []
        self._taken: dict[Digest, SavedImage | SavedIndex] = {}
        if isinstance(given, Mapping):
            self._infos = protect_below(volume, lease, given)
            for digest, tags in given.items():
                self._take(digest, [*tags])
        else:
            found, self._infos = protect(volume, lease, given)
            for text, one in zip(given, found, strict=True):
                self._take(one.target, self._names(text, one))

    def plan(self, format: str | Plan) -> list[Member]:
        """The members to be written, whose blobs `open` will be asked for in this order."""
        plan = (FORMATS[format] if isinstance(format, str) else format)(self.images, self.indexes)
        self.order([member.source for member in plan if isinstance(member.source, Content)])
        return plan

    def _names(self, text: str, found: Found) -> list[Reference]:
        """The tags to be saved: the one that was asked for; none where an ID was given."""
        if found.tag is None or reference.is_full_id(text):
            return []
        try:
            name = reference.parse(text)
        except InvalidReference:
            return []
        return [name.with_tag(found.tag.tag)] if name.repository == found.tag.repository else []

    def _take(self, digest: Digest, tags: list[Reference]) -> None:
        known = self._taken.get(digest)
        if known is not None:
            known.tags.extend(tag for tag in tags if tag not in known.tags)
            return
        info = self._infos.get(digest)
        if info is None:
            raise Damaged("a manifest is missing", what=str(digest), hint="run casstore check")
        document = oci_manifest.parse(read_document(self._volume, info), str(digest), info.media_type, digest)
        if isinstance(document, Index):
            index = SavedIndex(document, tags)
            self._taken[digest] = index
            for child in document.manifests:
                if child.digest in self._infos:
                    self._take(child.digest, [])
            self.indexes.append(index)
            return
        image = self._image(document, tags)
        self._taken[digest] = image
        self.images.append(image)

    def _image(self, manifest: Manifest, tags: list[Reference]) -> SavedImage:
        for child in manifest.children:
            if child.digest not in self._infos:
                raise Damaged(f"blob {child.digest} is missing", what=str(manifest.digest), hint="run casstore check")
        raw = read_document(self._volume, self._infos[manifest.config.digest])
        if not manifest.is_image:
            return SavedImage(manifest, raw, (), tags=tags, listed=False)
        config = oci_config.parse(raw, str(manifest.config.digest))
        here = oci_platform.rank(config.platform, oci_platform.host()) is not None or not config.os
        return SavedImage(
            manifest,
            raw,
            config.diff_ids,
            config.created,
            tags,
            content_sizes=tuple(self._infos[one.digest].content_size or 0 for one in manifest.layers),
            listed=here or bool(tags),
        )

    def order(self, contents: Sequence[Content]) -> None:
        """The blobs in the order in which they will be asked for: each is begun while the one before is read."""
        self._next = dict(itertools.pairwise(contents))

    def open(self, content: Content) -> tuple[int, Iterable[Buffer]]:
        """A blob's bytes for the writer."""
        self._lease.check()
        reader = self._begun.pop(content, None) or self._begin(content)
        follower = self._next.get(content)
        if follower is not None:
            self._begun[follower] = self._begin(follower)
        info = reader.info
        if not content.unpacked or info.encoding == "identity":
            return reader.size, reader.read(ahead=self._ahead)
        if info.content_size is None:
            raise Damaged(f"cannot be unpacked: {info.encoding}", what=str(info.digest))
        return info.content_size, reader.content(ahead=self._ahead)

    def _begin(self, content: Content) -> BlobReader:
        reader = BlobReader(self._volume, self._infos[content.digest], cached=True)
        reader.begin(self._ahead)
        return reader
