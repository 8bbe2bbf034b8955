"""`tag` and `rmi`: names given and taken, with docker's rules for when an image goes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..digest import Digest
from ..errors import CasstoreError, Conflict
from ..model import ImageRow, TagRow
from ..oci import config as oci_config
from ..oci import ids, reference
from ..store import names, protocol, query
from ..store.catalog import Catalog, Tx
from ..store.volume import Volume
from .content import read_document
from .resolve import UNTAGGED, Found, is_kept, references, resolve, targets


def tag(catalog: Catalog, source: str, target: str) -> None:
    """Give the image `source` the name `target`; the name's former image stays, without a name if it was its last."""
    name = reference.parse_target(target)
    with catalog.read() as tx:
        found = resolve(tx, source)
    protocol.tag(catalog, name.repository, name.tag, found.target, keep=UNTAGGED)


class Step(NamedTuple):
    """A line of `rmi`: "Untagged", "Deleted" or "Error", and what."""

    verb: str
    text: str


def remove(volume: Volume, given: Iterable[str], *, force: bool = False, prune: bool = True) -> Iterator[Step]:
    """Remove references, and images that have none left. Each name is tried; a failure is a Step "Error"."""
    for name in given:
        try:
            yield from _Removal(volume, name, force, prune).run()
        except CasstoreError as error:
            yield Step("Error", str(error))


class _Removal:
    """One name to be removed: planned in one snapshot, carried out by one transaction."""

    def __init__(self, volume: Volume, name: str, force: bool, prune: bool) -> None:
        self._volume = volume
        self._name = name
        self._force = force
        self._prune = prune
        self._tags: list[TagRow] = []
        self._pins: list[tuple[Digest, str]] = []
        self._hidden: list[Digest] = []
        self._gone: set[Digest] = set()
        self._steps: list[Step] = []

    def run(self) -> list[Step]:
        with self._volume.catalog.read() as tx:
            found = resolve(tx, self._name)
            refs = references(tx, found.image.config)
            if found.tag is not None:
                self._untag(tx, found, found.tag, refs)
            else:
                self._by_id(tx, found, refs)
        protocol.untag(
            self._volume.catalog,
            [(one.repository, one.tag) for one in self._tags],
            pins=self._pins,
            kept=[(digest, UNTAGGED) for digest in self._hidden],
        )
        return self._steps

    def _untag(self, tx: Tx, found: Found, name: TagRow, refs: list[TagRow]) -> None:
        left = [one for one in refs if (one.repository, one.tag) != (name.repository, name.tag)]
        self._take(name)
        if left:
            return
        if names.image_children(tx, found.image.config):
            # A parent stays, hidden, for as long as it has children.
            self._hidden.append(found.target)
            return
        self._delete(tx, found.image)

    def _by_id(self, tx: Tx, found: Found, refs: list[TagRow]) -> None:
        short = found.image.config.hex[:12]
        children = [row for row in names.image_children(tx, found.image.config) if is_kept(tx, row.manifest)]
        if children:
            raise Conflict(f"conflict: unable to delete {short} (cannot be forced) - image has dependent child images")
        if len(refs) > 1 and not self._force:
            raise Conflict(
                f"conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
            )
        for one in refs:
            self._take(one)
        self._delete(tx, found.image)

    def _take(self, one: TagRow) -> None:
        self._tags.append(one)
        self._steps.append(Step("Untagged", f"{reference.familiar_repository(one.repository)}:{one.tag}"))

    def _delete(self, tx: Tx, image: ImageRow) -> None:
        """The image goes: its pins, its lines, then its parents as far as nothing else holds them."""
        current: ImageRow | None = image
        while current is not None:
            going = {*targets(tx, current.config), *(one.target for one in self._tags)}
            self._gone |= going
            for digest in going:
                self._pins += [pin for pin in names.pins(tx, digest) if pin[1] == UNTAGGED]
            self._steps.append(Step("Deleted", str(current.config)))
            self._steps += [Step("Deleted", str(chain)) for chain in self._released(tx, current)]
            current = self._parent(tx, current) if self._prune else None

    def _parent(self, tx: Tx, image: ImageRow) -> ImageRow | None:
        if not image.parent:
            return None
        parent_id = Digest.parse(image.parent)
        rows = [row for row in names.manifests_of(tx, parent_id) if row.manifest not in self._gone]
        if not rows or references(tx, parent_id):
            return None
        others = [r for r in names.image_children(tx, parent_id) if r.manifest not in self._gone]
        return None if any(is_kept(tx, row.manifest) for row in others) else rows[0]

    def _released(self, tx: Tx, image: ImageRow) -> list[Digest]:
        """chainIDs of the layers that no other kept image has, from the top."""
        own = self._diff_ids(tx, image)
        chains = ids.chain_ids(own)
        rivals = self._rivals(tx, image)
        released = []
        for depth in range(len(own), 0, -1):
            if any(other[:depth] == own[:depth] for other in rivals):
                break
            released.append(chains[depth - 1])
        return released

    def _rivals(self, tx: Tx, image: ImageRow) -> list[list[Digest]]:
        bottom = names.children(tx, image.manifest)
        seen: set[Digest] = set()
        result = []
        for blob in bottom:
            for manifest in names.parents(tx, blob):
                row = names.find_image(tx, manifest)
                if manifest in self._gone or row is None or manifest in seen:
                    continue
                seen.add(manifest)
                if self._kept_otherwise(tx, manifest):
                    result.append(self._diff_ids(tx, row))
        return result

    def _kept_otherwise(self, tx: Tx, manifest: Digest) -> bool:
        taken = {(one.repository, one.tag) for one in self._tags}
        queue, seen = [manifest], {manifest}
        while queue:
            one = queue.pop()
            if any((t.repository, t.tag) not in taken for t in names.tags(tx, target=one)):
                return True
            if any(pin not in self._pins for pin in names.pins(tx, one)):
                return True
            fresh = [parent for parent in names.parents(tx, one) if parent not in seen]
            seen.update(fresh)
            queue += fresh
        return False

    def _diff_ids(self, tx: Tx, image: ImageRow) -> list[Digest]:
        info = query.find_blob(tx, image.config)
        if info is None:
            return []
        try:
            return list(oci_config.parse(read_document(self._volume, info, leased=False), str(image.config)).diff_ids)
        except CasstoreError:
            return []  # an image whose config is damaged can still be removed
