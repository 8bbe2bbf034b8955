"""Images that overlap: layers of a common stock of files, images of a common stock of layers, each in several forms."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sample

from casstore.digest import Digest
from casstore.oci import build
from casstore.oci.manifest import Descriptor

FORMS = ("docker", "oci", "gzip", "index")
"""docker: plain layers, no manifest of its own; oci: plain layers; gzip: layers that gc packs; index: the
gzip one and a sibling for another machine."""


@dataclass(frozen=True, repr=False)
class Kept:
    """An image in one form: what the store must give back for it."""

    image: sample.Image
    form: str
    name: str
    sibling: sample.Image

    def __repr__(self) -> str:
        return f"{self.name} {self.form}"

    @property
    def id(self) -> str:
        return self.image.id

    @cached_property
    def layers(self) -> list[bytes]:
        return [sample.gz(layer) if self.form in ("gzip", "index") else layer for layer in self.image.layers]

    @cached_property
    def layout(self) -> tuple[sample.Layout, dict[str, Any]]:
        """As an OCI layout, and the descriptor of what a tag points at. Of the docker form: what the store makes of it,
        for the archive has no manifest."""
        layout = sample.Layout()
        if self.form == "docker":
            rows = [descriptor("application/vnd.oci.image.layer.v1.tar", layer) for layer in self.layers]
            raw = build.manifest(descriptor("application/vnd.oci.image.config.v1+json", self.image.config), rows)
            for data in (self.image.config, *self.layers):
                layout.blob(data, "")
            return layout, layout.blob(raw, sample.OCI_MANIFEST)
        if self.form != "index":
            return layout, layout.manifest(self.image, packed=self.form == "gzip")
        both = zip((self.image, self.sibling), ("amd64", "arm64"), strict=True)
        children = [layout.manifest(one, platform={"os": "linux", "architecture": machine}) for one, machine in both]
        return layout, layout.index(children)

    @property
    def digest(self) -> str:
        return str(self.layout[1]["digest"])

    @cached_property
    def blobs(self) -> dict[str, bytes]:
        """All its blobs by digest."""
        return {sample.digest(one): one for one in self.layout[0].blobs.values()}

    def archive(self, tags: Sequence[str] = ()) -> bytes:
        """As `load --all-platforms` takes it."""
        if self.form == "docker":
            return sample.docker_archive(sample.Image(self.image.config, self.image.layers, tuple(tags)))
        layout, top = self.layout
        named = sample.Layout()
        named.blobs = layout.blobs
        for tag in tags:
            named.name(top, f"docker.io/{tag}" if "/" in tag else f"docker.io/library/{tag}")
        if not tags:
            named.top.append(top)
        return named.tar()

    def differs(self, saved: bytes, tags: Sequence[str]) -> str:
        """What is wrong with an archive that should hold this image under these tags, "" where nothing is."""
        found = sample.members_of(saved)
        blobs = {
            f"sha256:{name.removeprefix('blobs/sha256/')}": data
            for name, data in found.items()
            if name.startswith("blobs/")
        }
        if blobs != self.blobs:
            lost, strange = self.blobs.keys() - blobs.keys(), blobs.keys() - self.blobs.keys()
            return f"lost {sorted(lost)}, strange {sorted(strange)}" if lost or strange else "other bytes"
        if "manifest.json" in found:
            has = sample.saved_images(saved)
            if has != {self.id: (list(tags), self.layers)}:
                return f"manifest.json has {has}"
        return ""


def descriptor(media_type: str, data: bytes) -> Descriptor:
    return Descriptor(media_type, Digest.of(data), len(data))


def layers(seed: object, count: int, scale: int) -> list[bytes]:
    """Layers over a common stock of files: some differ in an mtime only, some in a file's end. `scale`: bytes of a
    middling file."""
    chance = random.Random(f"layers {seed}")
    sizes = [1, 511, scale // 7, scale // 3, scale, scale + 1, 2 * scale, 5 * scale]
    stock = [
        (sample.noise if n % 3 == 0 else sample.text)((seed, n), sizes[n % len(sizes)]) for n in range(3 * len(sizes))
    ]
    made = []
    for _ in range(count):
        chosen = chance.sample(range(len(stock)), chance.randint(1, 6))
        fields = {"mtime": 1_700_000_000 + chance.randint(0, 3)}
        entries = [sample.entry(f"stock/{n:03}", stock[n], **fields) for n in sorted(chosen)]
        if chance.random() < 0.4:
            changed = stock[chosen[0]] + sample.noise(chance.random(), chance.randint(1, scale))
            entries.append(sample.entry("changed", changed))
        made.append(sample.tar(entries))
    return made


def population(seed: object, images: int, scale: int, owners: Sequence[str] = ("",)) -> list[Kept]:
    """`images` images of each owner in all forms. All share layers, none shares an image with another."""
    chance = random.Random(f"images {seed}")
    stock = layers(seed, 2 * images, scale)
    made = []
    for owner in owners:
        for number in range(images):
            chosen = chance.sample(stock, chance.randint(1, 4))
            labels = {"Cmd": ["/bin/tool"], "Labels": {"owner": owner, "number": str(number)}}
            one = sample.image(number, layers=chosen, config=labels)
            other = sample.image(number, layers=chosen[:1] + stock[:1], config=labels, architecture="arm64")
            made += [Kept(one, form, f"{owner}{number}", other) for form in FORMS]
    return made
