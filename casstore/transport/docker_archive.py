"""`docker save` archives with a manifest.json: docker 1.10 to 24, and since 25 the hybrid with an OCI layout inside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from ..digest import Digest
from ..errors import BadInput, InvalidReference, LimitExceeded, NotFound
from ..oci import config as oci_config
from ..oci import media
from ..oci.config import Config
from ..oci.document import MAX_ARCHIVE_JSON, MAX_DOCUMENT, convert, encode, strict_json
from ..oci.manifest import MAX_CHILDREN, Descriptor, Index, Manifest
from ..oci.platform import host, select
from ..oci.reference import Reference, parse_repo_tag
from . import oci_layout, tar
from .contents import Archive, ArchiveImage, LayerRef, SavedImage, SavedIndex
from .members import Source
from .oci_layout import blob_path
from .writing import Member

MANIFEST = "manifest.json"
REPOSITORIES = "repositories"


class _Item(msgspec.Struct, frozen=True):
    config: str = msgspec.field(default="", name="Config")
    repo_tags: list[str] | None = msgspec.field(default=None, name="RepoTags")
    layers: list[str] | None = msgspec.field(default=None, name="Layers")
    parent: str | None = msgspec.field(default=None, name="Parent")
    sources: dict[str, msgspec.Raw | object] | None = msgspec.field(default=None, name="LayerSources")


def read(source: Source) -> Archive:
    """A scanned source that has a manifest.json → its images, validated: names, counts, paths, operating system."""
    what = f"{source.what}: {MANIFEST}"
    value = strict_json(source.read(MANIFEST, MAX_ARCHIVE_JSON), MAX_ARCHIVE_JSON, what)
    if not isinstance(value, list):
        raise BadInput("invalid manifest.json: expected an array of images", what=what)
    items = convert(list[_Item], value, what)
    tags = [[_tag(text, what) for text in item.repo_tags or ()] for item in items]
    images: dict[tuple[Digest, tuple[str, ...]], ArchiveImage] = {}
    names: dict[int, dict[Reference, None]] = {}
    configs: dict[str, Config] = {}
    for item, given in zip(items, tags, strict=True):
        image = _image(source, item, configs)
        image = images.setdefault((image.config_digest, tuple(layer.path for layer in image.layers)), image)
        names.setdefault(id(image), {}).update(dict.fromkeys(given))
        image.parent = _parent(item.parent, what)
    for image in images.values():
        image.tags = list(names[id(image)])
    ids = {image.config_digest for image in images.values()}
    for image in images.values():
        image.parent = image.parent if image.parent in ids else None
    return Archive("docker", source, list(images.values()))


def attach_manifest(image: ArchiveImage, manifest: Manifest) -> bool:
    """Give an image the manifest that the same archive, as an OCI layout, has for it.

    False, and nothing is changed, where the two do not lead to the same members.
    """
    paths = [blob_path(descriptor.digest) for descriptor in manifest.layers]
    if [layer.path for layer in image.layers if layer.present] != paths:
        return False
    image.manifest = manifest
    image.config_media_type = manifest.config.media_type
    for layer, descriptor in zip(image.layers, manifest.layers, strict=True):
        layer.media_type, layer.digest = descriptor.media_type, descriptor.digest
    return True


def _image(source: Source, item: _Item, configs: dict[str, Config]) -> ArchiveImage:
    """`configs`: those read already, by path."""
    what = f"{source.what}: {item.config or MANIFEST}"
    if not item.config:
        raise BadInput("invalid manifest.json: an image without Config", what=what)
    config = configs.get(item.config)
    if config is None:
        config = configs[item.config] = oci_config.parse(_document(source, item.config), what)
    oci_config.check_os(config, host().os, what)
    paths = item.layers or []
    if len(paths) > MAX_CHILDREN:
        raise LimitExceeded(f"invalid manifest: more than {MAX_CHILDREN} layers", what=what)
    oci_config.check_layers(config, len(paths), what)
    layers = [layer_ref(source, path, diff_id) for path, diff_id in zip(paths, config.diff_ids, strict=True)]
    return ArchiveImage(what, config.raw, config, media.OCI_CONFIG, layers)


def layer_ref(source: Source, path: str, diff_id: Digest | None) -> LayerRef:
    """Where a path of the archive leads."""
    member = source.find(path)
    if member is None:
        return LayerRef("", 0, media.OCI_LAYER, diff_id=diff_id)
    if member.sparse:
        raise BadInput("sparse members are not supported", what=f"{source.what}: {path}")
    digest = member.landed.digest if member.landed else None
    return LayerRef(member.name, member.size, media.OCI_LAYER, digest, diff_id, member.landed)


def _document(source: Source, path: str) -> bytes:
    try:
        return source.read(path, MAX_DOCUMENT)
    except NotFound:
        raise BadInput("config is missing", what=f"{source.what}: {path}") from None


def _tag(text: str, what: str) -> Reference:
    try:
        return parse_repo_tag(text)
    except InvalidReference as error:
        if error.what is None:
            raise InvalidReference(error.message, hint=f"in {what}") from None
        raise InvalidReference(error.message, what=error.what, hint=f"in {what}") from None


def _parent(text: str | None, what: str) -> Digest | None:
    if not text:
        return None
    try:
        return Digest.parse(text)
    except InvalidReference:
        raise BadInput(f"invalid Parent {text[:160]!r}", what=what) from None


def plan(images: Sequence[SavedImage], indexes: Sequence[SavedIndex] = ()) -> list[Member]:
    """The hybrid of docker ≥ 25: an OCI layout, with manifest.json and repositories for older readers.

    The same images give the same bytes: images by ID, tags and members in lexical order, no links.
    """
    shown = listed(images, indexes)
    ids = {image.manifest.config.digest for image in shown}
    items: list[dict[str, Any]] = []
    for image in shown:
        item: dict[str, Any] = {
            "Config": blob_path(image.manifest.config.digest),
            "RepoTags": sorted(tag.familiar() for tag in image.tags) or None,
            "Layers": [blob_path(layer.digest) for layer in image.manifest.layers],
        }
        if image.parent in ids:
            item["Parent"] = str(image.parent)
        item["LayerSources"] = {
            str(diff_id): {"mediaType": layer.media_type, "digest": str(layer.digest), "size": layer.size}
            for diff_id, layer in sorted(zip(image.diff_ids, image.manifest.layers, strict=True))
        }
        items.append(item)
    extra = [json_member(MANIFEST, items)]
    tops = {tag: image.diff_ids[-1].hex for image in shown if image.diff_ids for tag in image.tags}
    if tops:
        extra.append(json_member(REPOSITORIES, repositories(tops)))
    return oci_layout.plan(images, indexes, extra)


def listed(images: Sequence[SavedImage], indexes: Sequence[SavedIndex]) -> list[SavedImage]:
    """What readers of manifest.json see, in order: of an index one image, under the index's names.

    That is the one for this machine, else the first.
    """
    ordered = oci_layout.in_order(images)
    known = {image.manifest.digest: image for image in ordered if image.manifest.is_image}
    below = {each.index.digest: each.index for each in indexes}
    inside = {child.digest for index in below.values() for child in index.manifests}
    chosen: dict[Digest, list[Reference]] = {}
    for each in indexes:
        if each.index.digest in inside and not each.tags:
            continue
        offers = [child for child in _leaves(each.index, below, set()) if child.digest in known]
        if offers:
            chosen.setdefault((select(offers, host()) or offers[0]).digest, []).extend(each.tags)
    found: list[SavedImage] = []
    for image in ordered:
        tags = list(dict.fromkeys([*image.tags, *chosen.get(image.manifest.digest, ())]))
        if image.manifest.digest in chosen or (image.listed and (tags or image.manifest.digest not in inside)):
            found.append(replace(image, tags=tags))
    return found


def _leaves(index: Index, below: dict[Digest, Index], seen: set[Digest]) -> Iterator[Descriptor]:
    for child in index.manifests:
        if child.digest in seen or child.is_attestation:
            continue
        seen.add(child.digest)
        if child.digest in below:
            yield from _leaves(below[child.digest], below, seen)
        else:
            yield child


def repositories(tops: dict[Reference, str]) -> dict[str, dict[str, str]]:
    """What the file `repositories` says: repository → tag → ID of the top layer."""
    found: dict[str, dict[str, str]] = {}
    for tag, top in sorted(tops.items(), key=lambda pair: pair[0].familiar()):
        found.setdefault(tag.familiar_name, {})[tag.tag] = top
    return dict(sorted(found.items()))


def json_member(name: str, value: Any) -> Member:
    """A JSON file of an archive, ending in a newline as docker's do."""
    data = encode(value) + b"\n"
    return Member(name, tar.FILE, len(data), 0, data)
