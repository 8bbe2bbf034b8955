"""Any archive or folder of images → an `Archive`: which form it has is found out from its members."""

from __future__ import annotations

from dataclasses import replace

from ..digest import Digest
from ..errors import BadInput
from ..oci.manifest import Manifest
from ..oci.platform import Platform, rank
from . import docker_archive, legacy, oci_layout
from .contents import Archive, ArchiveImage
from .members import Sink, Source


def read(
    source: Source, sink: Sink | None = None, platform: Platform | None = None, everything: bool = False
) -> Archive:
    """Scan and validate `source`: every name, path, count and document, before anything is committed.

    `sink` gets the large members of a source that is not seekable, in the order in which they come.
    `platform`: which image of an index (None: this machine's). `everything`: all of them, and the indexes too.
    """
    source.scan(sink)
    has_layout = source.find(oci_layout.MARK) is not None and source.find(oci_layout.INDEX) is not None
    if source.find(docker_archive.MANIFEST) is not None:
        archive = docker_archive.read(source)
        if has_layout:
            archive = _hybrid(archive, platform, everything)
        return _suiting(archive, platform)
    if has_layout:
        return oci_layout.read(source, platform, everything)
    if legacy.is_legacy(source):
        return _suiting(legacy.read(source), platform)
    raise BadInput("no archive of images: it has no manifest.json, index.json or repositories", what=source.what)


def _suiting(archive: Archive, platform: Platform | None) -> Archive:
    """Without the images that do not run on the platform asked for."""
    if platform is None:
        return archive
    images = [
        image for image in archive.images if image.config is None or rank(image.config.platform, platform) is not None
    ]
    if archive.images and not images:
        raise BadInput(f"no matching manifest for {platform} in the archive", what=archive.source.what)
    return replace(archive, images=images)


def _hybrid(archive: Archive, platform: Platform | None, everything: bool) -> Archive:
    """Docker's view and the layout's in one: manifests from the layout, names from both; they must agree."""
    layout = oci_layout.Layout(archive.source, platform, everything)
    named = {tag: image.config_digest for image in archive.images for tag in image.tags}
    by_config: dict[Digest, list[ArchiveImage]] = {}
    for image in archive.images:
        by_config.setdefault(image.config_digest, []).append(image)
    for name, group in layout.entries():
        manifests = list(layout.present(group))
        configs = dict.fromkeys(manifest.config.digest for manifest in manifests)
        if name in named and named[name] not in configs:
            raise BadInput(f"manifest.json and index.json disagree about {name.familiar()}", what=archive.source.what)
        ours = [image for config in configs for image in by_config.get(config, ())]
        if not everything and _attach(ours, manifests):
            if name is not None and name not in named:
                ours[0].tags.append(name)
        else:
            layout.take(name, group)
    return _joined(archive, layout.result())


def _attach(images: list[ArchiveImage], manifests: list[Manifest]) -> bool:
    """Give the images their manifests; True if any of these found its image."""
    found = False
    for manifest in manifests:
        for image in images:
            if image.config_digest == manifest.config.digest and image.manifest in (None, manifest):
                found |= docker_archive.attach_manifest(image, manifest)
    return found


def _joined(archive: Archive, layout: Archive) -> Archive:
    """What the layout has goes first; docker's view adds the names and the images that only it has."""
    placed = {tag for image in layout.images for tag in image.tags}
    placed |= {tag for index in layout.indexes for tag in index.tags}
    twins = {image.config_digest: image for image in layout.images}
    images = list(layout.images)
    for image in archive.images:
        tags = [tag for tag in image.tags if tag not in placed]
        twin = twins.get(image.config_digest)
        if twin is None or image.manifest is not None:
            images.append(image)
        else:
            twin.tags.extend(tags)
    return Archive(archive.form, archive.source, images, layout.indexes)
