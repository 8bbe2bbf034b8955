"""skopeo's `dir:`: the files of one image in one folder, named by what they are.

    version                 "Directory Transport Version: 1.1"
    manifest.json           the manifest, or the index
    HEX.manifest.json       a manifest of the index
    HEX                     a config or layer

Source: containers/image, directory transport. It is read as the OCI layout that it holds: what is checked there is
checked here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..digest import Digest
from ..errors import BadInput
from ..oci import build
from ..oci import manifest as oci_manifest
from ..oci.document import MAX_DOCUMENT
from ..oci.manifest import Descriptor, Index, Manifest
from ..oci.platform import Platform
from . import oci_layout, tar
from .archive import Folder
from .contents import Archive, SavedImage, SavedIndex
from .members import Member as Found
from .members import Sink, Source
from .oci_layout import blob_path
from .writing import Content, Member

VERSION, MANIFEST = "version", "manifest.json"
MARK = b"Directory Transport Version: 1.1\n"

_ALGORITHMS = {"sha256": 64, "sha512": 128}
_FILE = re.compile(r"(?:(sha256|sha512)-)?([0-9a-f]{64}(?:[0-9a-f]{64})?)(\.manifest\.json)?")
_OTHER = re.compile(r"(?:[0-9a-f]{64}-)?signature-[0-9]{1,6}")
_VERSION = re.compile(rb"Directory Transport Version: 1\.[0-9]{1,3}\n?")


class Directory(Folder):
    """Such a folder, seen as a layout whose index.json lists its manifest."""

    def scan(self, sink: Sink | None = None) -> None:
        super().scan(sink)
        if self.find(VERSION) is None or self.find(MANIFEST) is None:
            raise BadInput(f"no image folder: it has no {VERSION} or no {MANIFEST}", what=self.what)
        check_version(self.read(VERSION, 256), f"{self.what}: {VERSION}")
        raw = self.read(MANIFEST, MAX_DOCUMENT)
        top = oci_manifest.parse(raw, f"{self.what}: {MANIFEST}")
        for name, member in list(self.members.items()):
            digest = digest_of(name)
            if digest is not None:
                self.members[blob_path(digest)] = member
        self.members[blob_path(top.digest)] = Found(MANIFEST, len(raw), data=raw)
        self._put(oci_layout.MARK, oci_layout.MARK_BYTES)
        self._put(oci_layout.INDEX, build.index([Descriptor(top.media_type, top.digest, len(raw))]))

    def _put(self, name: str, data: bytes) -> None:
        self.members[name] = Found(name, len(data), data=data)


def read(source: Source, platform: Platform | None = None, everything: bool = False) -> Archive:
    """A scanned `Directory` → its image, or all of its index."""
    return oci_layout.read(source, platform, everything)


def plan(images: Sequence[SavedImage], indexes: Sequence[SavedIndex], top: Digest) -> list[Member]:
    """The files of one image, or of one index: `top`, which comes last."""
    members = {VERSION: Member(VERSION, tar.FILE, len(MARK), 0, MARK)}
    last: list[Member] = []
    documents: list[Manifest | Index] = [*(one.index for one in indexes), *(one.manifest for one in images)]
    for document in documents:
        name = MANIFEST if document.digest == top else f"{_hex(document.digest)}.manifest.json"
        member = Member(name, tar.FILE, len(document.raw), 0, document.raw)
        if document.digest == top:
            last.append(member)
        else:
            members[name] = member
    for image in images:
        config = image.manifest.config.digest
        members[_hex(config)] = Member(_hex(config), tar.FILE, len(image.config_bytes), 0, image.config_bytes)
        for layer in image.manifest.layers:
            members[_hex(layer.digest)] = Member(_hex(layer.digest), tar.FILE, layer.size, 0, Content(layer.digest))
    return [*members.values(), *last]


def check_version(raw: bytes, what: str) -> None:
    """BadInput unless this is the version file of such a folder, and one that we know."""
    if not _VERSION.fullmatch(raw):
        raise BadInput("unknown version", what=what)


def digest_of(name: str) -> Digest | None:
    """What the content of a file must hash to, by its name; None for a name of another kind."""
    found = _FILE.fullmatch(name)
    if found is None:
        return None
    algorithm = found[1] or "sha256"
    return Digest.parse(f"{algorithm}:{found[2]}") if len(found[2]) == _ALGORITHMS[algorithm] else None


def is_ours(name: str) -> bool:
    """May a file of that name be part of such a folder?"""
    return name in (VERSION, MANIFEST) or digest_of(name) is not None or _OTHER.fullmatch(name) is not None


def _hex(digest: Digest) -> str:
    return digest.hex if digest.algorithm == "sha256" else f"{digest.algorithm}-{digest.hex}"
