"""From what people type to what the store has: names, IDs, prefixes; and from an index to its image for this machine.

Resolution (BEHAVIOUR §2): a full ID or digest; else a name (`:latest` where no tag is given); else the beginning of an
ID. A name beats a prefix; name:tag@digest goes by the digest.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from ..digest import Digest
from ..errors import AmbiguousPrefix, Damaged, InvalidReference, NotFound
from ..model import ImageRow, TagRow
from ..oci import reference
from ..oci.platform import Platform, host, rank
from ..store import names
from ..store.catalog import Tx
from ..store.names import UNTAGGED as UNTAGGED


class Found(NamedTuple):
    """An image that was asked for. `target`: the manifest or index meant; `image`: its row for this platform.
    `tag`: the tag that named it, if one did."""

    target: Digest
    image: ImageRow
    tag: TagRow | None = None


def no_such_image(text: str) -> NotFound:
    """In docker's words."""
    return NotFound(f"No such image: {text}")


def image_of(tx: Tx, target: Digest, wanted: Platform | None = None) -> ImageRow | None:
    """The image that a manifest or index stands for: for an index the best child for the platform, else the first."""
    row = names.find_image(tx, target)
    if row is not None:
        return row
    rows: list[ImageRow] = []
    seen = {target}
    queue = names.children(tx, target)
    while queue:
        child = queue.pop(0)
        if child in seen:
            continue
        seen.add(child)
        found = names.find_image(tx, child)
        if found is not None:
            rows.append(found)
        elif len(seen) < 4096:
            queue += [one for one in names.children(tx, child) if one not in seen]
    if not rows:
        return None
    platform = wanted or host()

    def badness(row: ImageRow) -> int:
        place = rank(Platform(row.os, row.architecture, row.variant), platform)
        return 1 << 30 if place is None else place

    return min(rows, key=badness)


def _at(tx: Tx, target: Digest, text: str, tag: TagRow | None = None) -> Found:
    image = image_of(tx, target)
    if image is None:
        if tag is None:
            raise no_such_image(text)
        raise Damaged("the tag points at something that is no image", what=text)
    return Found(target, image, tag)


def _by_id(tx: Tx, image_id: Digest) -> Found | None:
    rows = names.manifests_of(tx, image_id)
    if not rows:
        return None
    for row in rows:
        if is_kept(tx, row.manifest):
            return Found(row.manifest, row)
    return None


def is_kept(
    tx: Tx,
    digest: Digest,
    *,
    but_tags: Collection[tuple[str, str]] = (),
    but_pins: Collection[tuple[Digest, str]] = (),
) -> bool:
    """Does a tag or a pin lead to this blob, other than these? (If not, it only waits for gc.)"""
    queue, seen = [digest], {digest}
    while queue:
        one = queue.pop()
        if any((row.repository, row.tag) not in but_tags for row in names.tags(tx, target=one)):
            return True
        if any(pin not in but_pins for pin in names.pins(tx, one)):
            return True
        fresh = [parent for parent in names.parents(tx, one) if parent not in seen]
        seen.update(fresh)
        queue += fresh
    return False


def parents_of(tx: Tx, image: ImageRow) -> list[ImageRow]:
    """The rows of an image's parent, where it has one that is here. Configs may say anything there."""
    try:
        parent = Digest.parse(image.parent)
    except InvalidReference:
        return []
    return names.manifests_of(tx, parent)


def resolve(tx: Tx, text: str) -> Found:
    """The image that `text` means. NotFound `No such image: …`; AmbiguousPrefix names the candidates."""
    if reference.is_full_id(text):
        digest = Digest.parse(text if ":" in text else f"sha256:{text}")
        found = _by_id(tx, digest)
        if found is None:
            if names.is_live(tx, digest) and is_kept(tx, digest):
                return _at(tx, digest, text)
            raise no_such_image(text)
        return found
    problem: InvalidReference | None = None
    try:
        name = reference.parse(text).or_latest()
    except InvalidReference as error:
        problem = error
    else:
        if name.digest is not None:
            if not names.is_live(tx, name.digest) or not is_kept(tx, name.digest):
                raise no_such_image(text)
            tags = [row for row in names.tags(tx, name.repository) if row.target == name.digest]
            return _at(tx, name.digest, text, tags[0] if tags else None)
        target = names.find_tag(tx, name.repository, name.tag)
        if target is not None:
            return _at(tx, target, text, TagRow(name.repository, name.tag, target, 0.0))
    prefix = reference.id_prefix(text)
    if prefix is not None:
        ids = [one for one in names.image_ids(tx, prefix) if _by_id(tx, one) is not None]
        if len(ids) > 1:
            matches = ", ".join(one.hex[:12] for one in ids)
            raise AmbiguousPrefix(f'ambiguous image ID prefix "{prefix}": matches {matches}')
        if ids:
            found = _by_id(tx, ids[0])
            if found is not None:
                return found
    if problem is not None and prefix is None:
        raise problem
    raise no_such_image(text)


def artifact(tx: Tx, text: str) -> TagRow | None:
    """The name of something that is here and no image (a signature, a chart), if `text` is one."""
    try:
        name = reference.parse(text).or_latest()
    except InvalidReference:
        return None
    target = None if name.digest else names.find_tag(tx, name.repository, name.tag)
    if target is None or image_of(tx, target) is not None or names.children(tx, target) == []:
        return None
    return TagRow(name.repository, name.tag, target, 0.0)


def references(tx: Tx, image_id: Digest) -> list[TagRow]:
    """All tags that lead to any manifest of an image, directly or by way of an index whose image for this machine it
    is."""
    rows = {row for target in targets(tx, image_id) for row in names.tags(tx, target=target)}
    return sorted(rows, key=lambda one: (one.repository, one.tag))


def targets(tx: Tx, image_id: Digest) -> list[Digest]:
    """What stands for an image: all its manifests, and the indexes whose image for this machine it is."""
    found = [row.manifest for row in names.manifests_of(tx, image_id)]
    for one in found:  # which grows
        for index in names.parents(tx, one):
            shown = image_of(tx, index)
            if index not in found and shown is not None and shown.config == image_id:
                found.append(index)
    return found
