"""`copy`: an image from one place to another, by way of the store: what a place has is read as `pull` and `load` do,
and written as `push` and `save` do.

What a registry gave keeps its name in the store, as after a pull. What came from elsewhere gets none: it is kept for as
long as the copy lasts, and left to gc. Only between two registries, and where that is asked for, nothing lands.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..digest import Digest
from ..errors import BadInput, Conflict, NotFound, UsageError
from ..model import BlobInfo, Progress
from ..oci import manifest as oci_manifest
from ..oci import media
from ..oci import platform as oci_platform
from ..oci.document import MAX_ARCHIVE_JSON
from ..oci.manifest import Descriptor, Index, Manifest
from ..oci.platform import Platform
from ..oci.reference import Reference
from ..store import names, protocol
from ..store.leases import Lease
from ..store.volume import Volume
from ..transport import directory, docker_archive, engine, oci_layout, tar
from ..transport.archive import LIMIT
from ..transport.contents import Archive, SavedImage, SavedIndex
from ..transport.members import Sink, Source
from ..transport.writing import Member
from . import output, pick, place
from .content import protect_below, read_document
from .load import load
from .place import Place
from .pull import pull
from .push import push
from .relay import Documents, End, relay
from .remote import Remote
from .resolve import UNTAGGED, artifact, resolve
from .save import Plan, save, save_into

Say = Callable[[str, str], None]

_LAYOUTS = (place.OCI, place.OCI_ARCHIVE)
_LOSSY = (place.DOCKER_ARCHIVE, place.DAEMON)
_WITH_REFERRERS = (place.DOCKER, place.STORE)


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What was copied: the digest of the manifest or index, its type and size in bytes. `fetched`, `sent`: bytes of
    blobs that came from a registry, and that went to one."""

    source: str
    destination: str
    digest: Digest
    media_type: str
    size: int
    fetched: int = 0
    sent: int = 0


@dataclass(frozen=True, slots=True)
class _Options:
    """What was asked for. `exactly`: the digest is to be kept."""

    platform: str | None
    everything: bool
    referrers: bool
    exactly: bool
    look: bool | None

    @property
    def wanted(self) -> Platform | None:
        return oci_platform.parse(self.platform) if self.platform else None


def copy(
    volume: Volume,
    source: str,
    destination: str,
    *,
    remote: Remote | None = None,
    socket: Path = engine.SOCKET,
    platform: str | None = None,
    all_platforms: bool = False,
    referrers: bool = False,
    preserve_digests: bool = False,
    look: bool | None = None,
    say: Say = lambda layer, what: None,
    progress: Progress | None = None,
    **writing: Any,
) -> CopyReport:
    """Copy between two places (see `place`). Of an index one image is copied, that for `platform` or for this machine;
    with `all_platforms` all of it. `socket`: of docker's engine. `look`: as `pull` has it; None: only where it goes to
    the store. `writing`: as Ingest takes it. UsageError: the two do not go together, or cannot keep what is asked for;
    else as pull, load, push and save. What is there already stays as it is until all of the image has arrived."""
    ends = place.parse(source), place.parse(destination, destination=True)
    options = _Options(platform, all_platforms, referrers, preserve_digests, look)
    _check(*ends, options)
    with contextlib.ExitStack() as stack:
        way = remote or stack.enter_context(Remote())
        reading_only = ends[0].kind == place.STORE and ends[1].kind != place.STORE
        purpose = f"copy {source} {destination}"
        lease = stack.enter_context(Lease(volume.catalog, volume.objects, purpose, reading=reading_only))
        work = _Copy(volume, lease, way, socket, options, say, progress, writing)
        return work.run(*ends)


def stream(
    source: str,
    destination: str,
    *,
    remote: Remote,
    platform: str | None = None,
    all_platforms: bool = False,
    referrers: bool = False,
    say: Say = lambda layer, what: None,
    progress: Progress | None = None,
) -> CopyReport:
    """Copy from registry to registry without a store. As `copy`; all digests are kept."""
    ends = place.parse(source), place.parse(destination, destination=True)
    if any(one.kind != place.DOCKER for one in ends):
        raise UsageError("only what goes from docker:// to docker:// can go without the store")
    options = _Options(platform, all_platforms, referrers, True, None)
    _check(*ends, options)
    top, sent = relay(
        _end(remote, ends[0]),
        _end(remote, ends[1], push=True),
        platform=options.wanted,
        everything=all_platforms,
        referrers=referrers,
        say=say,
        progress=progress,
    )
    return CopyReport(source, destination, top.digest, top.media_type, len(top.raw), sent, sent)


def _check(source: Place, target: Place, options: _Options) -> None:
    """What cannot be, before anything is done."""
    if options.wanted and options.everything:
        raise UsageError("a platform and all of them exclude each other")
    if options.exactly and target.kind in _LOSSY:
        raise UsageError("it has no place for the manifest, whose digest cannot be preserved", what=str(target))
    if options.referrers:
        for one in (source, target):
            if one.kind not in _WITH_REFERRERS:
                raise UsageError(
                    "what refers to an image is copied between registries and the store only", what=str(one)
                )
    archive = target.kind in (place.DOCKER_ARCHIVE, place.OCI_ARCHIVE)
    if archive and output.in_the_way(target.path) and target.kind == place.DOCKER_ARCHIVE:
        raise Conflict("exists already: an image cannot be added to a docker archive", what=str(target.path))
    if target.kind in (place.OCI, place.DIR):
        _check_folder(target, output.listing(target.path))


def _check_folder(target: Place, found: Sequence[str]) -> None:
    """A folder that is full of something else is not written to."""
    mark = oci_layout.MARK if target.kind == place.OCI else directory.VERSION
    if found and mark not in found:
        raise Conflict(f"is neither empty nor has it a file {mark}", what=str(target.path))


def _end(way: Remote, one: Place, *, push: bool = False) -> End:
    name = _named(one)
    return End(way.registry(name, push=push), name)


def _named(one: Place) -> Reference:
    if one.name is None:
        raise UsageError("a name is needed there", what=str(one))
    return one.name


class _Copy:
    """One image on its way through the store."""

    def __init__(
        self,
        volume: Volume,
        lease: Lease,
        way: Remote,
        socket: Path,
        options: _Options,
        say: Say,
        progress: Progress | None,
        writing: dict[str, Any],
    ) -> None:
        self._volume = volume
        self._lease = lease
        self._way = way
        self._socket = socket
        self._options = options
        self._wanted = options.wanted
        self._say = say
        self._progress = progress
        self._writing = writing
        self._fetched = self._sent = 0

    def run(self, source: Place, target: Place) -> CopyReport:
        """Bring it in, hold it, write it out."""
        tags = [_named(target)] if target.kind == place.STORE else []
        top = self._choose(self._bring(source, tags), source)
        infos = protect_below(self._volume, self._lease, [top])
        self._check_whole(top, infos, source)
        if target.kind in _LOSSY and infos[top].media_type in media.INDEXES:
            raise UsageError("it has no place for an index", what=str(target), hint="without --all one image is copied")
        if target.kind in _LOSSY and not self._is_image(top):
            raise UsageError("it has a place for images only", what=str(target))
        if target.kind in _LAYOUTS and self._options.exactly and any(_is_dockers(info) for info in infos.values()):
            problem = "docker's manifests become OCI's in a layout, and their digests others"
            raise UsageError(problem, what=str(target), hint="dir: keeps them")
        media_type, digest, size = self._write(top, infos[top], source, target)
        return CopyReport(str(source), str(target), digest, media_type, size, self._fetched, self._sent)

    def _is_image(self, top: Digest) -> bool:
        with self._volume.catalog.read() as tx:
            return names.find_image(tx, top) is not None

    # -- into the store

    def _bring(self, source: Place, tags: list[Reference]) -> Digest:
        """What the source has, in the store: the manifest or index. `tags`: names that it gets here."""
        if source.kind == place.STORE:
            with self._volume.catalog.read() as tx:
                other = artifact(tx, source.given)
                return other.target if other is not None else resolve(tx, source.given).target
        if source.kind == place.DOCKER:
            return self._pull(_named(source), tags)
        if source.kind == place.DAEMON:
            name = source.name.familiar() if source.name else source.given
            with engine.Engine(self._socket).saving(name) as saving:
                try:
                    return self._load(saving.fd, source, tags, saving.wait)
                except BadInput:
                    saving.wait()
                    raise
        if source.kind == place.DIR:
            limit = self._writing.get("limit", LIMIT)
            return self._load(directory.Directory(source.path, limit), source, tags)
        return self._load(source.path, source, tags)

    def _pull(self, name: Reference, tags: list[Reference]) -> Digest:
        registry = self._way.registry(name)
        if tags and not self._options.everything:
            # The name is to stand for the image alone, not for the index that it is in.
            documents = Documents(End(registry, name))
            chosen = documents.choose(documents.top(), self._wanted)
            name = Reference(name.domain, name.path, "", chosen.digest)
        report = pull(
            self._volume,
            registry,
            name,
            platform=self._options.platform,
            all_platforms=self._options.everything,
            referrers=self._options.referrers,
            tags=tags or None,
            look=bool(tags) if self._options.look is None else self._options.look,
            say=self._say,
            **self._writing | {"progress": self._progress},
        )
        self._fetched = report.fetched
        return report.digest

    def _load(
        self,
        where: Path | int | Source,
        source: Place,
        tags: list[Reference],
        arrived: Callable[[], None] = lambda: None,
    ) -> Digest:
        def read(opened: Source, sink: Sink | None, platform: Platform | None, everything: bool) -> Archive:
            archive = pick.one(source, opened, sink, platform, everything)
            arrived()
            pick.rename(archive, tags, source)
            return archive

        report = load(
            self._volume,
            where,
            platform=self._options.platform,
            all_platforms=self._options.everything,
            read=read,
            held=self._lease,
            **self._writing | {"progress": self._progress},
        )
        (top,) = report.tops
        return top

    def _choose(self, top: Digest, source: Place) -> Digest:
        """The image of an index, unless all of it is to be copied: the one that its registry would have given."""
        infos = protect_below(self._volume, self._lease, [top])
        if self._options.everything or infos[top].media_type not in media.INDEXES:
            return top
        wanted = self._wanted or oci_platform.host()
        found = oci_platform.select(self._leaves(top, infos, set()), wanted)
        if found is None:
            raise NotFound(f"no matching manifest for {wanted} in the manifest list entries", what=str(source))
        if found.digest not in infos:
            hint = "pull it with --platform, or --all-platforms"
            raise NotFound(f"its manifest for {wanted} is not in the store", what=str(source), hint=hint)
        return found.digest

    def _leaves(self, top: Digest, infos: dict[Digest, BlobInfo], seen: set[Digest]) -> Iterator[Descriptor]:
        """The manifests of an index, here or not, and of the indexes in it that are here."""
        seen.add(top)
        for child in self._document(infos[top]).children:
            info = infos.get(child.digest)
            if info is None or info.media_type not in media.INDEXES:
                yield child
            elif child.digest not in seen:
                yield from self._leaves(child.digest, infos, seen)

    def _document(self, info: BlobInfo) -> Manifest | Index:
        raw = read_document(self._volume, info)
        return oci_manifest.parse(raw, str(info.digest), info.media_type or "", info.digest)

    def _check_whole(self, top: Digest, infos: dict[Digest, BlobInfo], source: Place) -> None:
        """All of an index, if it is one."""
        queue = [top]
        while queue:
            digest = queue.pop()
            info = infos.get(digest)
            if info is None:
                hint = "pull it with --all-platforms, or copy without --all"
                raise NotFound(f"its manifest {digest} is not in the store", what=str(source), hint=hint)
            if info.media_type in media.INDEXES:
                queue += [one.digest for one in self._document(info).children]

    # -- out of the store

    def _write(self, top: Digest, info: BlobInfo, source: Place, target: Place) -> tuple[str, Digest, int]:
        """Write it out; type, digest and size of the manifest or index as it arrived."""
        came = info.media_type or "", top, info.size
        if target.kind == place.STORE:
            self._tag(top, _named(target), source)
        elif target.kind == place.DOCKER:
            name = _named(target)
            registry = self._way.registry(name, push=True)
            pushed = push(
                self._volume,
                registry,
                name,
                source=top,
                referrers=self._options.referrers,
                compression="none" if self._options.exactly else "gzip",
                writing=lambda: self._writing | {"progress": self._progress},
                say=self._say,
                progress=self._progress,
            )
            self._sent = pushed.sent
            return came[0], pushed.digest, pushed.size
        elif target.kind in _LAYOUTS:
            return self._layout(top, target)
        elif target.kind == place.DIR:
            self._directory(top, target)
        else:
            self._archive(top, target)
        return came

    def _tag(self, top: Digest, name: Reference, source: Place) -> None:
        with self._volume.catalog.read() as tx:
            if names.find_tag(tx, name.repository, name.tag) == top and source.kind != place.STORE:
                return
        protocol.tag(self._volume.catalog, name.repository, name.tag, top, keep=UNTAGGED)

    def _archive(self, top: Digest, target: Place) -> None:
        """A docker archive, into a file or into docker."""

        def plan(images: Sequence[SavedImage], indexes: Sequence[SavedIndex]) -> list[Member]:
            return docker_archive.plan([replace(image, listed=True) for image in images], indexes)

        wanted = {top: [target.name] if target.name else []}
        if target.kind == place.DOCKER_ARCHIVE:
            save(self._volume, wanted, target.path, format=plan, progress=self._progress)
            return
        with engine.Engine(self._socket).loading(target.given) as loading:
            try:
                save(self._volume, wanted, loading.fd, format=plan, progress=self._progress)
            except BrokenPipeError:
                loading.wait()  # it says why
                raise
            loading.finish()

    def _layout(self, top: Digest, target: Place) -> tuple[str, Digest, int]:
        """An OCI layout: a new archive, or into a folder that may have others."""
        listed: list[Descriptor] = []

        def plan(images: Sequence[SavedImage], indexes: Sequence[SavedIndex]) -> list[Member]:
            images, indexes, changed = oci_layout.as_oci(images, indexes)
            digest = changed.get(top, top)
            documents: list[Manifest | Index] = [*(one.manifest for one in images), *(one.index for one in indexes)]
            (found,) = [one for one in documents if one.digest == digest]
            named = {oci_layout.REF_NAME: target.label} if target.label else {}
            listed.append(Descriptor(found.media_type, digest, len(found.raw), None, named))
            return oci_layout.plan(images, indexes, top=listed)

        if target.kind == place.OCI_ARCHIVE:
            save(self._volume, {top: []}, target.path, format=plan, progress=self._progress)
        else:
            self._folder(top, target, plan, listed)
        (entry,) = listed
        return entry.media_type, entry.digest, entry.size

    def _folder(self, top: Digest, target: Place, plan: Plan, listed: list[Descriptor]) -> None:
        with output.Folder(target.path, self._volume.catalog.decided) as folder:
            found = folder.names()
            _check_folder(target, found)
            if oci_layout.MARK in found:
                mark = folder.read(oci_layout.MARK, 4096)
                oci_layout.check_mark(mark or b"", str(target.path / oci_layout.MARK))
            before = folder.read(oci_layout.INDEX, MAX_ARCHIVE_JSON)

            def ordered(images: Sequence[SavedImage], indexes: Sequence[SavedIndex]) -> list[Member]:
                members = {member.name: member for member in plan(images, indexes)}
                index = oci_layout.listed(before, listed[0], str(target.path / oci_layout.INDEX))
                mark = members.pop(oci_layout.MARK)
                del members[oci_layout.INDEX]
                return [mark, *members.values(), Member(oci_layout.INDEX, tar.FILE, len(index), 0, index)]

            save_into(self._volume, top, folder, ordered, progress=self._progress)

    def _directory(self, top: Digest, target: Place) -> None:
        """A folder of one image, instead of what it had."""
        wanted = set[str]()

        def plan(images: Sequence[SavedImage], indexes: Sequence[SavedIndex]) -> list[Member]:
            members = directory.plan(images, indexes, top)
            wanted.update(member.name for member in members)
            return members

        with output.Folder(target.path, self._volume.catalog.decided) as folder:
            found = folder.names()
            _check_folder(target, found)
            if found:
                version = folder.read(directory.VERSION, 256)
                directory.check_version(version or b"", str(target.path / directory.VERSION))
            save_into(self._volume, top, folder, plan, progress=self._progress)
            for name in found:
                if name not in wanted and directory.is_ours(name):
                    folder.remove(name)


def _is_dockers(info: BlobInfo) -> bool:
    kind = info.media_type or ""
    return kind in media.INDEXES | media.MANIFESTS and media.to_oci(kind) != kind
