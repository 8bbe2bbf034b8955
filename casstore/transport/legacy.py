"""Archives of docker 1.8 and older: a folder per layer (VERSION, json, layer.tar), `repositories` for the names.

There every layer is an image, its JSON names its parent. Reading makes each of them an image of today, with the
config, and so the ID, that docker makes of it. Writing (`--format legacy`) makes what docker 1.10 to 24 writes: the
same folders, and manifest.json and the config beside them. Source: moby v20.10 image/tarexport, image/v1.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..codec import compression
from ..digest import Digest
from ..errors import BadInput, InvalidReference, LimitExceeded
from ..oci import config as oci_config
from ..oci import ids, media
from ..oci.document import MAX_ARCHIVE_JSON, MAX_DOCUMENT, strict_json
from ..oci.platform import host
from ..oci.reference import Reference, parse
from . import tar
from .contents import Archive, ArchiveImage, LayerRef, SavedImage, SavedIndex
from .docker_archive import MANIFEST, REPOSITORIES, json_member, layer_ref, listed, repositories
from .members import Source
from .oci_layout import unix_seconds
from .writing import Content, Member, folders

MAX_CHAIN = 128
"""Most layers on top of each other."""
MAX_IMAGES = 10_000
MAX_CONFIGS = 64 << 20
"""All configs made for the images of one archive together, bytes: each tells the history of all layers below."""

_ID = re.compile(r"[0-9a-f]{64}")
_JSON = re.compile(r"([0-9a-f]{64})/json")


@dataclass(slots=True)
class _Step:
    """One layer folder."""

    value: dict[str, Any]
    layer: LayerRef
    diff_id: Digest
    parent: str
    image: ArchiveImage | None = None
    tags: list[Reference] = field(default_factory=list)


def is_legacy(source: Source) -> bool:
    """Does a scanned source without manifest.json look like such an archive?"""
    return source.find(REPOSITORIES) is not None or any(_JSON.fullmatch(name) for name in source.names())


def read(source: Source) -> Archive:
    """A scanned source → an image for every layer folder, parents first; their layers are hashed to find diffIDs."""
    found = sorted(match[1] for name in source.names() if (match := _JSON.fullmatch(name)))
    if len(found) > MAX_IMAGES:
        raise LimitExceeded(f"more than {MAX_IMAGES} layers", what=source.what)
    documents = {each: _document(source, each) for each in found}
    chains = {each: _chain(source, documents, each) for each in found}
    tags = _tags(source, documents)
    hashed: dict[str, Digest] = {}
    steps = {each: _step(source, each, documents[each], hashed) for each in found}
    images: list[ArchiveImage] = []
    made = 0
    for each in sorted(found, key=lambda each: (len(chains[each]), each)):
        step = steps[each]
        chain = [steps[name] for name in chains[each]]
        step.image = _image(f"{source.what}: {each}", chain)
        step.image.tags = tags.get(each, [])
        if step.parent:
            below = steps[step.parent].image
            step.image.parent = below.config_digest if below else None
        images.append(step.image)
        made += len(step.image.config_bytes)
        if made > MAX_CONFIGS:
            raise LimitExceeded(f"configs of the layers take more than {MAX_CONFIGS} bytes", what=source.what)
    return Archive("legacy", source, images)


def _document(source: Source, name: str) -> dict[str, Any]:
    what = f"{source.what}: {name}/json"
    value = strict_json(source.read(f"{name}/json", MAX_DOCUMENT), MAX_DOCUMENT, what)
    if not isinstance(value, dict):
        raise BadInput("invalid image JSON, not an object", what=what)
    if not isinstance(value.get("parent") or "", str):
        raise BadInput("invalid image JSON, parent is not an ID", what=what)
    return value


def _chain(source: Source, documents: dict[str, dict[str, Any]], top: str) -> list[str]:
    """IDs from the bottom layer to `top`."""
    chain: list[str] = []
    seen: set[str] = set()
    name = top
    while name:
        what = f"{source.what}: {top}/json"
        if name in seen:
            raise BadInput(f"parents of the image go in a circle, at {name}", what=what)
        if name not in documents:
            raise BadInput(f"parent {name[:80]} is missing", what=what)
        if len(chain) >= MAX_CHAIN:
            raise LimitExceeded(f"more than {MAX_CHAIN} layers on top of each other", what=what)
        seen.add(name)
        chain.append(name)
        name = documents[name].get("parent") or ""
    return chain[::-1]


def _tags(source: Source, documents: dict[str, dict[str, Any]]) -> dict[str, list[Reference]]:
    """Layer ID → its names."""
    what = f"{source.what}: {REPOSITORIES}"
    found: dict[str, list[Reference]] = {}
    if source.find(REPOSITORIES) is None:
        return found
    value = strict_json(source.read(REPOSITORIES, MAX_ARCHIVE_JSON), MAX_ARCHIVE_JSON, what)
    if not isinstance(value, dict) or not all(isinstance(tags, dict) for tags in value.values()):
        raise BadInput("invalid repositories: expected names → tags → IDs", what=what)
    for repository, tags in value.items():
        try:
            name = parse(repository)
            if name.tag or name.digest:
                raise BadInput(f"invalid repository name {repository[:160]!r}", what=what)
            for tag, target in tags.items():
                if not isinstance(target, str) or target not in documents:
                    raise BadInput(f"{repository}:{tag} names a missing layer", what=what)
                found.setdefault(target, []).append(name.with_tag(tag).to_give())
        except InvalidReference as error:
            raise InvalidReference(error.message, what=error.what, hint=f"in {what}") from None
    return found


def _step(source: Source, name: str, value: dict[str, Any], hashed: dict[str, Digest]) -> _Step:
    """`hashed`: members that were read already. Many layers may be links to one."""
    layer = layer_ref(source, f"{name}/layer.tar", None)
    if not layer.present:
        raise BadInput("layer is missing", what=f"{source.what}: {name}/layer.tar")
    if layer.path not in hashed:
        hashed[layer.path] = _diff_id(source, layer)
    layer.diff_id = hashed[layer.path]
    return _Step(value, layer, layer.diff_id, value.get("parent") or "")


def _diff_id(source: Source, layer: LayerRef) -> Digest:
    """Digest of the uncompressed stream: told by the sink, or read here."""
    if layer.landed is not None:
        return layer.landed.diff_id or layer.landed.digest
    stream = compression.open_stream(_Forward(source, layer.path), source.limit, f"{source.what}: {layer.path}")
    digest = hashlib.sha256()
    while data := stream.read(1 << 20):
        digest.update(data)
    return Digest("sha256", digest.digest())


class _Forward:
    """A member read from its start."""

    def __init__(self, source: Source, path: str) -> None:
        self._reader = source.open(path)
        self._position = 0

    def read(self, length: int) -> bytes:
        data = self._reader.pread(self._position, length)
        self._position += len(data)
        return data


def _image(what: str, chain: Sequence[_Step]) -> ArchiveImage:
    diff_ids = [step.diff_id for step in chain]
    raw = ids.config_from_v1(chain[-1].value, [step.value for step in chain], diff_ids)
    config = oci_config.parse(raw, what)
    oci_config.check_os(config, host().os, what)
    return ArchiveImage(what, raw, config, media.OCI_CONFIG, [step.layer for step in chain])


def plan(images: Sequence[SavedImage], indexes: Sequence[SavedIndex] = ()) -> list[Member]:
    """What docker 1.10 to 24 writes, with nothing left to chance: uncompressed layers, v1 IDs, relative symlinks where
    a layer stands under two IDs. Of an index, one image goes in."""
    members: dict[str, Member] = {}
    first_place: dict[Digest, str] = {}
    items: list[dict[str, Any]] = []
    tops: dict[Reference, str] = {}
    ordered = _by_id(listed(images, indexes))
    known = {image.manifest.config.digest for image in ordered}
    for image in ordered:
        created = unix_seconds(image.created)
        what = str(image.manifest.config.digest)
        value = strict_json(image.config_bytes, MAX_DOCUMENT, what)
        v1 = ids.v1_layers(value, image.diff_ids)
        paths: list[str] = []
        for (name, document), diff_id, (digest, size) in zip(v1, image.diff_ids, _sources(image), strict=True):
            path = f"{name}/layer.tar"
            if path not in members:
                place = first_place.setdefault(diff_id, path)
                _add(members, Member(f"{name}/VERSION", tar.FILE, 3, created, b"1.0"))
                _add(members, Member(f"{name}/json", tar.FILE, len(document), created, document))
                if place == path:
                    _add(members, Member(path, tar.FILE, size, created, Content(digest, unpacked=True)))
                else:
                    _add(members, Member(path, tar.SYMLINK, 0, created, link=f"../{place}"))
            paths.append(first_place[diff_id])
        config = f"{image.manifest.config.digest.hex}.json"
        _add(members, Member(config, tar.FILE, len(image.config_bytes), created, image.config_bytes))
        item: dict[str, Any] = {
            "Config": config,
            "RepoTags": sorted(tag.familiar() for tag in image.tags) or None,
            "Layers": paths,
        }
        if image.parent in known:
            item["Parent"] = str(image.parent)
        items.append(item)
        if v1:
            tops |= dict.fromkeys(image.tags, v1[-1][0])
    for folder in folders(members):
        members[folder] = Member(folder, tar.FOLDER, 0, members[f"{folder}json"].mtime)
    _add(members, json_member(MANIFEST, items))
    if tops:
        _add(members, json_member(REPOSITORIES, repositories(tops)))
    return [members[name] for name in sorted(members)]


def _by_id(images: Iterable[SavedImage]) -> list[SavedImage]:
    """One image per ID: its forms (plain, compressed) are the same when unpacked."""
    found: dict[Digest, SavedImage] = {}
    for image in images:
        known = found.get(image.manifest.config.digest, image)
        found[image.manifest.config.digest] = replace(known, tags=list(dict.fromkeys([*known.tags, *image.tags])))
    return list(found.values())


def _sources(image: SavedImage) -> list[tuple[Digest, int]]:
    """(blob, uncompressed size) of every layer."""
    layers = image.manifest.layers
    sizes = image.content_sizes or tuple(layer.size for layer in layers)
    return [(layer.digest, size) for layer, size in zip(layers, sizes, strict=True)]


def _add(members: dict[str, Member], member: Member) -> None:
    members[member.name] = member
