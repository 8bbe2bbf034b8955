"""What a store should hold: the model that commands are compared with."""

from __future__ import annotations

from dataclasses import dataclass, field

from population import Kept


@dataclass
class Expected:
    """`tags`: name → what it points at; `bare`: what is kept without a tag; `pinned`: blobs put by hand, by digest."""

    tags: dict[str, Kept] = field(default_factory=dict)
    bare: set[Kept] = field(default_factory=set)
    pinned: dict[str, bytes] = field(default_factory=dict)

    def copy(self) -> Expected:
        return Expected(dict(self.tags), set(self.bare), dict(self.pinned))

    # -- what commands do

    def load(self, one: Kept, names: list[str]) -> None:
        for name in names:
            self.point(name, one)
        if not names:
            self.bare.add(one)

    def point(self, name: str, target: Kept) -> None:
        """The name moves; what no name is left for stays without one."""
        former = self.tags.get(name)
        self.tags[name] = target
        self.bare.discard(target)
        if former is not None and former not in self.tags.values():
            self.bare.add(former)

    def untag(self, name: str) -> None:
        """rmi by name: with an image's last name all of it goes."""
        gone = self.tags.pop(name)
        if not self.named(gone.id):
            self._forget(gone.id)

    def remove(self, image_id: str) -> None:
        """rmi -f by ID."""
        for name in self.named(image_id):
            del self.tags[name]
        self._forget(image_id)

    def _forget(self, image_id: str) -> None:
        self.bare = {one for one in self.bare if one.id != image_id}

    # -- what is asked

    def named(self, image_id: str) -> list[str]:
        return [name for name, one in self.tags.items() if one.id == image_id]

    @property
    def kept(self) -> set[Kept]:
        return {*self.tags.values(), *self.bare}

    @property
    def ids(self) -> set[str]:
        return {one.id for one in self.kept}

    @property
    def nameless(self) -> set[str]:
        """IDs that `images` shows without a name."""
        return {one.id for one in self.bare if not self.named(one.id)}

    @property
    def blobs(self) -> dict[str, bytes]:
        """Every blob that something needs."""
        found = dict(self.pinned)
        for one in self.kept:
            found |= one.blobs
        return found
