"""Which image of an archive or a folder is meant: `copy` takes one, where `load` takes all."""

from __future__ import annotations

from dataclasses import replace

from ..errors import BadInput, NotFound
from ..oci.platform import Platform
from ..oci.reference import Reference
from ..transport import oci_layout, reading
from ..transport.contents import Archive, ArchiveImage, ArchiveIndex
from ..transport.members import Sink, Source
from . import place
from .place import Place


def one(source: Place, opened: Source, sink: Sink | None, platform: Platform | None, everything: bool) -> Archive:
    """The one image, or index, that is meant."""
    if source.kind in (place.OCI, place.OCI_ARCHIVE, place.DIR):
        opened.scan(sink)
        if source.kind != place.DIR and opened.find(oci_layout.MARK) is None:
            raise BadInput(f"no OCI layout: it has no file {oci_layout.MARK}", what=opened.what)
        return oci_layout.Layout(opened, platform, everything).pick(source.label)
    archive = reading.read(opened, sink, platform, everything)
    if archive.form == "oci":
        raise BadInput("no docker archive: it has no manifest.json", what=opened.what, hint="is it an oci-archive:?")
    if source.label.startswith("@"):
        heads, number = archive.heads, int(source.label[1:])
        if number >= len(heads):
            raise NotFound(f"it has {len(heads)} images", what=str(source))
        return _only(archive, heads[number])
    if source.kind == place.DAEMON or source.name is None:
        return archive
    for entry in archive.indexes:
        if source.name in entry.tags:
            return _below(archive, entry)
    for image in archive.images:
        if source.name in image.tags:
            return _only(archive, image)
    raise NotFound(f"no image named {source.name.familiar()}", what=opened.what)


def _below(archive: Archive, top: ArchiveIndex) -> Archive:
    """An index and all that is below it, of an archive that has more."""
    known = {entry.index.digest: entry for entry in archive.indexes}
    wanted, queue = {top.index.digest}, [top]
    while queue:
        for child in queue.pop().index.manifests:
            if child.digest not in wanted:
                wanted.add(child.digest)
                queue += [known[child.digest]] if child.digest in known else []
    images = [one for one in archive.images if one.manifest is not None and one.manifest.digest in wanted]
    return replace(archive, images=images, indexes=[entry for entry in archive.indexes if entry.index.digest in wanted])


def _only(archive: Archive, image: ArchiveImage) -> Archive:
    return replace(archive, images=[replace(image, parent=None)], indexes=[])


def rename(archive: Archive, tags: list[Reference], source: Place) -> None:
    """Other names than those that it came with, for what is below nothing else: one thing, or BadInput."""
    inside = {child.digest for entry in archive.indexes for child in entry.index.manifests}
    tops: list[ArchiveImage | ArchiveIndex] = [one for one in archive.indexes if one.index.digest not in inside]
    tops += [one for one in archive.heads if one.manifest is None or one.manifest.digest not in inside]
    if len(tops) != 1:
        raise BadInput(f"it has {len(tops)} images, and none was chosen by its name", what=str(source))
    everything: list[ArchiveImage | ArchiveIndex] = [*archive.images, *archive.indexes]
    for each in everything:
        each.tags = []
    tops[0].tags = [*tags]
