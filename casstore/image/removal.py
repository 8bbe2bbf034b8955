"""What goes when names go, by docker's rules: planned in one snapshot, carried out by one transaction.

Steps are told in docker's words: names taken, then image IDs and the chainIDs of the layers that no other image has,
from the top. What a plan has taken counts as gone for all that it plans after that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ..digest import Digest
from ..errors import CasstoreError, Conflict
from ..model import ImageRow, TagRow
from ..oci import config as oci_config
from ..oci import ids, reference
from ..store import names, protocol, query
from ..store.catalog import Tx
from ..store.volume import Volume
from .content import read_document
from .resolve import UNTAGGED, Found, is_kept, parents_of, references, targets


class Step(NamedTuple):
    """A line of `rmi` or `image prune`: "Untagged", "Deleted" or "Error", and what."""

    verb: str
    text: str


TURNS = 4
"""How often a plan is made beside others who change names meanwhile, before it is made with the lock that they need."""


def carry_out(volume: Volume, plan: Callable[[Tx], Removal]) -> Removal:
    """Plan and execute; what is told of it is what was done."""
    for _ in range(TURNS):
        with volume.catalog.read() as tx:
            state = names.state(tx)
            made = plan(tx)
        if not made.steps:
            return made
        with contextlib.suppress(Conflict):
            made.execute(state)
            return made

    def last(tx: Tx) -> protocol.Going:
        nonlocal made
        made = plan(tx)
        return made.going()

    protocol.untag_planned(volume.catalog, last)
    return made


class Removal:
    """A plan to remove images, one after the other, over the snapshot `tx`; `prune`: untagged parents go too."""

    def __init__(self, volume: Volume, tx: Tx, *, prune: bool = True) -> None:
        self._volume = volume
        self._tx = tx
        self._prune = prune
        self._tags: dict[tuple[str, str], TagRow] = {}
        self._pins: dict[tuple[Digest, str], None] = {}
        self._hidden: dict[Digest, None] = {}
        self._gone: set[Digest] = set()
        self._holders: dict[Digest, Iterator[Digest]] = {}
        self._holder: dict[Digest, Digest] = {}
        self._diffs: dict[Digest, list[Digest]] = {}
        self.steps: list[Step] = []
        self.reclaimed = 0
        """Bytes, as docker counts them: Σ SIZE of the layers that no image needs any more."""

    # -- what is to be removed

    def by_tag(self, found: Found, name: TagRow) -> None:
        """One name; the image too, if it was its last and no child needs it."""
        self._take(name)
        if self.references(found.image.config):
            return
        if self.children(found.image.config):
            # A parent stays, hidden, for as long as it has children.
            self._hidden[found.target] = None
            return
        self._delete(found.image, {name.target})

    def by_name(self, name: TagRow) -> None:
        """The name of something that is no image; it goes with its last name."""
        self._take(name)
        if not is_kept(self._tx, name.target, but_tags=self._tags.keys(), but_pins=[(name.target, UNTAGGED)]):
            self._pins.update((pin, None) for pin in names.pins(self._tx, name.target) if pin[1] == UNTAGGED)
            self.steps.append(Step("Deleted", str(name.target)))

    def by_id(self, image: ImageRow, *, force: bool = False) -> None:
        """An image with all its names. Conflict where it has children, or several names and no `force`."""
        short = image.config.hex[:12]
        if self.children(image.config):
            raise Conflict(f"conflict: unable to delete {short} (cannot be forced) - image has dependent child images")
        refs = self.references(image.config)
        if len(refs) > 1 and not force:
            raise Conflict(
                f"conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
            )
        for one in refs:
            self._take(one)
        self._delete(image, {one.target for one in refs})

    def execute(self, planned: str | None) -> None:
        """Carry it out, in one transaction. `planned`: see `protocol.untag`."""
        tags, pins, kept = self.going()
        protocol.untag(self._volume.catalog, tags, pins=pins, kept=kept, planned=planned)

    def going(self) -> protocol.Going:
        """What it takes away."""
        return protocol.Going(self._tags, self._pins, [(digest, UNTAGGED) for digest in self._hidden])

    # -- the state of things, once what is planned so far is done

    def references(self, image_id: Digest) -> list[TagRow]:
        """All tags that lead to an image."""
        return [one for one in references(self._tx, image_id) if (one.repository, one.tag) not in self._tags]

    def children(self, image_id: Digest) -> list[ImageRow]:
        """The images whose parent it is, and that a name or pin still leads to."""
        return [row for row in names.image_children(self._tx, image_id) if self._kept(row.manifest)]

    def _kept(self, manifest: Digest) -> bool:
        return manifest not in self._gone and is_kept(
            self._tx, manifest, but_tags=self._tags.keys(), but_pins=self._pins.keys()
        )

    # -- steps

    def _take(self, one: TagRow) -> None:
        self._tags[one.repository, one.tag] = one
        self.steps.append(Step("Untagged", f"{reference.familiar_repository(one.repository)}:{one.tag}"))

    def _delete(self, image: ImageRow, named: set[Digest]) -> None:
        """The image goes: its pins, its lines, then its parents as far as nothing else holds them."""
        current: ImageRow | None = image
        while current is not None:
            going = {*targets(self._tx, current.config), *named}
            named = set()
            self._gone |= going
            for digest in going:
                self._pins.update((pin, None) for pin in names.pins(self._tx, digest) if pin[1] == UNTAGGED)
            self.steps.append(Step("Deleted", str(current.config)))
            self._release(current)
            current = self._parent(current) if self._prune else None

    def _parent(self, image: ImageRow) -> ImageRow | None:
        rows = [row for row in parents_of(self._tx, image) if self._kept(row.manifest)]
        if not rows or self.references(rows[0].config) or self.children(rows[0].config):
            return None
        return rows[0]

    # -- layers

    def _release(self, image: ImageRow) -> None:
        """The layers that no other kept image has, from the top."""
        own = self._diff_ids(image.config)
        chains = ids.chain_ids(own)
        for depth in range(len(own), 0, -1):
            if self._is_held(chains[depth - 1], own[:depth]):
                return
            self.steps.append(Step("Deleted", str(chains[depth - 1])))
            self.reclaimed += max(0, names.files_size(self._tx, own[depth - 1]))

    def _is_held(self, chain: Digest, diffs: list[Digest]) -> bool:
        """Is there an image left with these layers at its bottom? The one that was found last is asked first, and who
        was passed over is not asked again: images only go."""
        holder = self._holder.get(chain)
        if holder is not None and self._kept(holder):
            return True
        if chain not in self._holders:
            self._holders[chain] = iter(names.images_with(self._tx, diffs[-1]))
        for manifest in self._holders[chain]:
            if self._kept(manifest):
                row = names.find_image(self._tx, manifest)
                if row is not None and self._diff_ids(row.config)[: len(diffs)] == diffs:
                    self._holder[chain] = manifest
                    return True
        return False

    def _diff_ids(self, image_id: Digest) -> list[Digest]:
        if image_id not in self._diffs:
            self._diffs[image_id] = self._read_diff_ids(image_id)
        return self._diffs[image_id]

    def _read_diff_ids(self, image_id: Digest) -> list[Digest]:
        info = query.find_blob(self._tx, image_id)
        if info is None:
            return []
        try:
            raw = read_document(self._volume, info, leased=False)
            return list(oci_config.parse(raw, str(image_id)).diff_ids)
        except CasstoreError:
            return []  # an image whose config is damaged can still be removed
