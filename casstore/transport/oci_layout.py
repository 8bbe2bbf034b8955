"""OCI image layouts, in a tar or a folder: index.json → (index →)* manifest → config and layers, all by digest.

Source: OCI image-spec image-layout.md, annotations.md; containerd's names in annotations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from ..digest import Digest
from ..errors import BadInput, InvalidReference, LimitExceeded, NotFound
from ..oci import build, media
from ..oci import config as oci_config
from ..oci import manifest as oci_manifest
from ..oci.document import MAX_ARCHIVE_JSON, MAX_DOCUMENT, decode, encode, strict_json
from ..oci.manifest import Descriptor, Index, Manifest
from ..oci.platform import Platform, host, rank, select
from ..oci.reference import Reference, parse
from . import tar
from .contents import Archive, ArchiveImage, ArchiveIndex, LayerRef, SavedImage, SavedIndex
from .members import Source
from .writing import Content, Member, folders

INDEX = "index.json"
MARK = "oci-layout"
FULL_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"
MARK_BYTES = b'{"imageLayoutVersion": "1.0.0"}'
MAX_DEPTH = 8
"""Deepest nesting of indexes."""
MAX_DOCUMENTS = 50_000
"""Most manifests and indexes read from one archive."""


class _Mark(msgspec.Struct, frozen=True):
    version: str = msgspec.field(default="", name="imageLayoutVersion")


class Layout:
    """The layout in a scanned source. `platform` None: this machine's; `everything`: all platforms, indexes too."""

    def __init__(self, source: Source, platform: Platform | None = None, everything: bool = False) -> None:
        self._source = source
        self._asked = platform
        self._everything = everything
        self._documents: dict[Digest, Manifest | Index] = {}
        self._images: dict[Digest, ArchiveImage] = {}
        self._indexes: dict[Digest, ArchiveIndex] = {}
        self._tags: dict[Digest, dict[Reference, None]] = {}
        check_mark(source.read(MARK, 4096), f"{source.what}: {MARK}")
        self._what = f"{source.what}: {INDEX}"
        found = oci_manifest.parse(source.read(INDEX, MAX_ARCHIVE_JSON), self._what, limit=MAX_ARCHIVE_JSON)
        if not isinstance(found, Index):
            raise BadInput("index.json is not an index", what=self._what)
        self._top = found

    def read(self) -> Archive:
        """All that the layout names, for the platforms asked for."""
        for name, group in self.entries():
            self.take(name, group)
        return self.result()

    def pick(self, label: str) -> Archive:
        """The one image (or index) that bears that name, as index.json has it or as docker would say it; "": the only
        one there is. NotFound; BadInput: there are several."""
        if label:
            group = [each for each in self._top.manifests if label in (each.annotations.get(REF_NAME), _full(each))]
            if not group:
                raise NotFound(f'no image named "{label}"', what=self._what)
        else:
            groups = [group for _, group in self.entries()]
            if len(groups) != 1:
                count = f"{len(groups)} images" if groups else "no image"
                raise BadInput(f"it has {count}, and none was chosen by its name", what=self._what)
            (group,) = groups
        if self._everything and len({each.digest for each in group}) > 1:
            raise BadInput("several images of one name, and no index of them", what=self._what)
        self.take(None, group)
        return self.result()

    def result(self) -> Archive:
        """What was taken."""
        return Archive("oci", self._source, list(self._images.values()), list(self._indexes.values()))

    def entries(self) -> Iterator[tuple[Reference | None, list[Descriptor]]]:
        """What index.json lists, by name. More than one descriptor in a group: one image for several platforms."""
        groups: dict[Reference | None, dict[Digest, Descriptor]] = {}
        for descriptor in self._top.manifests:
            groups.setdefault(_name(descriptor, self._what), {}).setdefault(descriptor.digest, descriptor)
        unnamed = list(groups.pop(None, {}).values())
        for name, group in groups.items():
            yield name, list(group.values())
        platforms = [each.platform.normal() for each in unnamed if each.platform]
        if len(unnamed) > 1 and len(set(platforms)) == len(unnamed):
            yield None, unnamed
        else:
            for descriptor in unnamed:
                yield None, [descriptor]

    def take(self, name: Reference | None, group: list[Descriptor]) -> None:
        """Add what one entry stands for to the result."""
        tags = [name] if name else []
        if self._everything:
            for descriptor in group:
                self._take_all(descriptor, 0)
            self._tag(group[0] if len(group) == 1 else select(group, host()) or group[0], tags)
            return
        whole = self._document(group[0]) if len(group) == 1 else None
        if isinstance(whole, Manifest):
            chosen = group[0]
        else:
            leaves = self._leaves(group, 0) if whole is None else self._leaves(whole.manifests, 1)
            found = select(leaves, self._asked or host())
            if found is None:
                raise BadInput(
                    f"no matching manifest for {self._asked or host()} in the manifest list entries",
                    what=str(name) if name else self._what,
                )
            chosen = found
        image = self._image(chosen)
        if self._asked and image.config and rank(image.config.platform, self._asked) is None:
            raise BadInput(f"no matching manifest for {self._asked} in the manifest list entries", what=image.what)
        if not self._asked and image.config:
            oci_config.check_os(image.config, host().os, image.what)
        self._tag(chosen, tags)

    def present(self, group: Iterable[Descriptor]) -> Iterator[Manifest]:
        """Every manifest that these lead to and that the archive holds, whatever its platform."""
        for descriptor in self._leaves(group, 0, absent_too=False):
            document = self._document(descriptor)
            if isinstance(document, Manifest):
                yield document

    def _take_all(self, descriptor: Descriptor, depth: int) -> None:
        document = self._document(descriptor)
        if isinstance(document, Manifest):
            self._image(descriptor)
        elif document.digest not in self._indexes:
            for child in document.manifests:
                self._take_all(child, _deeper(depth, self._what))
            self._indexes[document.digest] = ArchiveIndex(document)

    def _leaves(
        self,
        group: Iterable[Descriptor],
        depth: int,
        seen: set[Digest] | None = None,
        absent_too: bool = True,
    ) -> Iterator[Descriptor]:
        """The manifests under indexes, each once, however many ways lead to it."""
        seen = set() if seen is None else seen
        for descriptor in group:
            if descriptor.digest in seen:
                continue
            seen.add(descriptor.digest)
            if not absent_too and self._source.find(blob_path(descriptor.digest)) is None:
                continue
            if media.to_oci(descriptor.media_type) != media.OCI_INDEX:
                yield descriptor
                continue
            document = self._document(descriptor)
            if isinstance(document, Index):
                yield from self._leaves(document.manifests, _deeper(depth, self._what), seen, absent_too)

    def _tag(self, target: Descriptor, tags: list[Reference]) -> None:
        owner = self._images.get(target.digest) or self._indexes[target.digest]
        self._tags.setdefault(target.digest, {}).update(dict.fromkeys(tags))
        owner.tags = list(self._tags[target.digest])

    def _image(self, descriptor: Descriptor) -> ArchiveImage:
        """The image of a manifest, once."""
        known = self._images.get(descriptor.digest)
        if known is not None:
            return known
        manifest = self._document(descriptor)
        what = f"{self._source.what}: {descriptor.digest}"
        if not isinstance(manifest, Manifest):
            raise BadInput("an index where a manifest is expected", what=what)
        raw = self._blob(manifest.config, what)
        parsed = None
        if manifest.is_image and not descriptor.is_attestation:
            parsed = oci_config.parse(raw, f"{what}: config", manifest.config.digest)
            oci_config.check_layers(parsed, len(manifest.layers), what)
        diff_ids = parsed.diff_ids if parsed else (None,) * len(manifest.layers)
        layers = [self._layer(layer, diff_id, what) for layer, diff_id in zip(manifest.layers, diff_ids, strict=True)]
        image = ArchiveImage(what, raw, parsed, manifest.config.media_type, layers, manifest)
        self._images[descriptor.digest] = image
        return image

    def _layer(self, descriptor: Descriptor, diff_id: Digest | None, what: str) -> LayerRef:
        member = self._source.find(blob_path(descriptor.digest))
        if member is None:
            return LayerRef("", descriptor.size, descriptor.media_type, descriptor.digest, diff_id)
        if member.size != descriptor.size or member.sparse:
            raise BadInput(
                f"size of {descriptor.digest} is {member.size}, its descriptor says {descriptor.size}",
                what=what,
            )
        if member.landed is not None:
            descriptor.digest.check(member.landed.digest, f"{self._source.what}: {member.name}")
        return LayerRef(member.name, member.size, descriptor.media_type, descriptor.digest, diff_id, member.landed)

    def _document(self, descriptor: Descriptor) -> Manifest | Index:
        known = self._documents.get(descriptor.digest)
        if known is not None:
            return known
        if len(self._documents) >= MAX_DOCUMENTS:
            raise LimitExceeded(f"more than {MAX_DOCUMENTS} manifests", what=self._what)
        what = f"{self._source.what}: {descriptor.digest}"
        raw = self._blob(descriptor, self._what)
        expected = descriptor.media_type if _is_known(descriptor.media_type) else ""
        document = oci_manifest.parse(raw, what, expected, descriptor.digest)
        self._documents[descriptor.digest] = document
        return document

    def _blob(self, descriptor: Descriptor, referrer: str) -> bytes:
        """A manifest, index or config, whole and verified."""
        path = blob_path(descriptor.digest)
        try:
            raw = self._source.read(path, MAX_DOCUMENT)
        except NotFound:
            raise BadInput(f"{descriptor.digest} is missing", what=referrer) from None
        if len(raw) != descriptor.size:
            raise BadInput(
                f"size of {descriptor.digest} is {len(raw)}, its descriptor says {descriptor.size}",
                what=referrer,
            )
        descriptor.digest.check(Digest.of(raw, descriptor.digest.algorithm), f"{self._source.what}: {path}")
        return raw


def read(source: Source, platform: Platform | None = None, everything: bool = False) -> Archive:
    """A scanned source that is an OCI layout → its images (and indexes, with `everything`)."""
    return Layout(source, platform, everything).read()


def blob_path(digest: Digest) -> str:
    """Where a layout keeps a blob."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _is_known(media_type: str) -> bool:
    return media_type in media.INDEXES or media_type in media.MANIFESTS or media_type in media.DOCKER_SCHEMA1


def _deeper(depth: int, what: str) -> int:
    if depth >= MAX_DEPTH:
        raise LimitExceeded(f"indexes are nested deeper than {MAX_DEPTH}", what=what)
    return depth + 1


def _full(descriptor: Descriptor) -> str:
    """The name that containerd and docker gave it, as people write it; "" where they gave none."""
    try:
        return parse(descriptor.annotations.get(FULL_NAME, "")).or_latest().familiar()
    except InvalidReference:
        return ""


def _name(descriptor: Descriptor, what: str) -> Reference | None:
    """The name that a descriptor of index.json bears. A bare tag, as `ref.name` may be, names no repository."""
    full = descriptor.annotations.get(FULL_NAME)
    if full is not None:
        try:
            found = parse(full).or_latest().to_give()
        except InvalidReference as error:
            raise InvalidReference(error.message, what=error.what, hint=f"in {what}") from None
        return found if found.tag and not found.digest else None
    text = descriptor.annotations.get(REF_NAME, "")
    if ":" not in text and "/" not in text:
        return None
    try:
        found = parse(text).or_latest().to_give()
    except InvalidReference:
        return None  # the specification allows names there that are none here
    return found if found.tag and not found.digest else None


def plan(
    images: Sequence[SavedImage],
    indexes: Sequence[SavedIndex] = (),
    extra: Sequence[Member] = (),
    top: Sequence[Descriptor] | None = None,
) -> list[Member]:
    """The members of an OCI archive, in lexical order; `extra`: further ones that another format adds; `top`: what
    index.json lists, where that is not every tag."""
    members = {member.name: member for member in extra}
    for index in indexes:
        _put(members, index.index.digest, 0, index.index.raw)
    for image in in_order(images):
        created = unix_seconds(image.created)
        _put(members, image.manifest.digest, 0, image.manifest.raw)
        _put(members, image.manifest.config.digest, created, image.config_bytes)
        for layer in image.manifest.layers:
            name = blob_path(layer.digest)
            known = members.get(name)
            mtime = min(created, known.mtime) if known else created
            members[name] = Member(name, tar.FILE, layer.size, mtime, Content(layer.digest))
    listing = build.index(_top_descriptors(images, indexes) if top is None else top)
    members[INDEX] = Member(INDEX, tar.FILE, len(listing), 0, listing)
    members[MARK] = Member(MARK, tar.FILE, len(MARK_BYTES), 0, MARK_BYTES)
    for folder in folders(members):
        members[folder] = Member(folder, tar.FOLDER, 0, 0)
    return [members[name] for name in sorted(members)]


def listed(raw: bytes | None, descriptor: Descriptor, what: str) -> bytes:
    """index.json with one more entry: instead of that of the same name, else of the same digest without one. The others
    stay as they are. `raw`: what is there, None for a new one. BadInput."""
    if raw is None:
        return build.index([descriptor])
    if not isinstance(oci_manifest.parse(raw, what, limit=MAX_ARCHIVE_JSON), Index):
        raise BadInput("index.json is not an index", what=what)
    value = strict_json(raw, MAX_ARCHIVE_JSON, what)
    entry = oci_manifest.plain(descriptor)
    label = descriptor.annotations.get(REF_NAME)

    def is_former(one: dict[str, Any]) -> bool:
        named = (one.get("annotations") or {}).get(REF_NAME)
        return bool(named == label and (label is not None or one["digest"] == entry["digest"]))

    value["manifests"] = [*(one for one in value["manifests"] if not is_former(one)), entry]
    return encode(value)


def check_mark(raw: bytes, what: str) -> None:
    """BadInput unless this is the oci-layout file of a version that we know."""
    version = decode(_Mark, raw, 4096, what).version
    if not version.startswith("1."):
        raise BadInput(f"unknown imageLayoutVersion {version[:40]!r}", what=what)


def as_oci(
    images: Sequence[SavedImage], indexes: Sequence[SavedIndex]
) -> tuple[list[SavedImage], list[SavedIndex], dict[Digest, Digest]]:
    """The same with OCI manifests and indexes instead of docker's, which many readers of layouts do not know; configs
    and layers stay. `indexes`: children before parents. Also: which digest became which."""
    changed: dict[str, Descriptor] = {}

    def made(document: Manifest | Index) -> Manifest | Index:
        stays = media.to_oci(document.media_type) == document.media_type
        if stays and not any(str(child.digest) in changed for child in document.children):
            return document
        raw = build.as_oci(document.raw, changed, str(document.digest))
        found = oci_manifest.parse(raw, str(document.digest))
        changed[str(document.digest)] = Descriptor(found.media_type, found.digest, len(raw))
        return found

    new_images, new_indexes = list[SavedImage](), list[SavedIndex]()
    for image in images:
        manifest = made(image.manifest)
        new_images.append(replace(image, manifest=manifest) if isinstance(manifest, Manifest) else image)
    for entry in indexes:
        index = made(entry.index)
        new_indexes.append(replace(entry, index=index) if isinstance(index, Index) else entry)
    return new_images, new_indexes, {Digest.parse(old): new.digest for old, new in changed.items()}


def in_order(images: Sequence[SavedImage]) -> list[SavedImage]:
    """By image ID, then manifest; each manifest once, with all its tags."""
    found: dict[Digest, SavedImage] = {}
    for image in sorted(images, key=lambda image: (image.manifest.config.digest, image.manifest.digest)):
        known = found.get(image.manifest.digest, image)
        tags = list(dict.fromkeys([*known.tags, *image.tags]))
        found[image.manifest.digest] = replace(known, tags=tags, listed=known.listed or image.listed)
    return list(found.values())


def unix_seconds(created: str) -> int:
    """RFC 3339 → whole seconds since 1970, at least 0; 0 where it is absent or unreadable."""
    try:
        moment = datetime.fromisoformat(created)
        return max(0, int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()))
    except (ValueError, OverflowError):
        return 0


def _put(members: dict[str, Member], digest: Digest, mtime: int, data: bytes) -> None:
    name = blob_path(digest)
    known = members.get(name)
    members[name] = Member(name, tar.FILE, len(data), min(mtime, known.mtime) if known else mtime, data)


def _top_descriptors(images: Sequence[SavedImage], indexes: Sequence[SavedIndex]) -> list[Descriptor]:
    """What index.json lists: every tag of every index and image, and what has neither tag nor parent."""
    inside = {child.digest for index in indexes for child in index.index.manifests}
    taken = {tag for index in indexes for tag in index.tags}
    listed: list[Descriptor] = []
    for index in sorted(indexes, key=lambda each: each.index.digest):
        found = Descriptor(index.index.media_type, index.index.digest, len(index.index.raw))
        listed += _named(found, index.tags, found.digest in inside)
    for image in in_order(images):
        found = Descriptor(image.manifest.media_type, image.manifest.digest, len(image.manifest.raw))
        tags = [tag for tag in image.tags if tag not in taken]
        listed += _named(found, tags, found.digest in inside or len(tags) < len(image.tags))
    return listed


def _named(found: Descriptor, tags: list[Reference], reachable: bool) -> list[Descriptor]:
    named = [
        replace(found, annotations={FULL_NAME: str(tag), REF_NAME: tag.tag})
        for tag in sorted(tags, key=Reference.familiar)
    ]
    return named or ([] if reachable else [found])
