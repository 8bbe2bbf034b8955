"""What reading an archive yields: images with exact bytes, layers by where they are, names by what they point at."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..digest import Digest
from ..oci.config import Config
from ..oci.manifest import Index, Manifest
from ..oci.reference import Reference
from .members import Landed, Reader, Source


@dataclass(slots=True)
class LayerRef:
    """A layer as the archive refers to it.

    `path`: the member with its bytes, "" if the archive has none (it must be in the store then, by digest or diffID).
    `size`: of that member in bytes; of the descriptor where there is no member. `digest`: of the bytes as they lie
    there, where the archive says so or the sink found out. `landed`: what the sink made of it (one-pass input);
    otherwise `Archive.open(layer.path)` reads it.
    """

    path: str
    size: int
    media_type: str
    digest: Digest | None = None
    diff_id: Digest | None = None
    landed: Landed | None = None

    @property
    def present(self) -> bool:
        return self.path != ""


@dataclass(slots=True)
class ArchiveImage:
    """An image. `manifest` is None where the archive has none (docker-archive): one is to be made then.

    `what` names it in errors. `config` is None for an artifact, whose `config_bytes` are no image config.
    `tags`: names that point at it. `parent`: image ID of its parent, where that is in the archive too.
    """

    what: str
    config_bytes: bytes
    config: Config | None
    config_media_type: str
    layers: list[LayerRef]
    manifest: Manifest | None = None
    tags: list[Reference] = field(default_factory=list)
    parent: Digest | None = None

    @property
    def config_digest(self) -> Digest:
        """The image ID."""
        if self.config is not None:
            return self.config.digest
        return self.manifest.config.digest if self.manifest else Digest.of(self.config_bytes)


@dataclass(slots=True)
class ArchiveIndex:
    """An image index, to be kept with all its children. `tags`: names that point at it."""

    index: Index
    tags: list[Reference] = field(default_factory=list)


@dataclass(slots=True)
class Archive:
    """All that is to be loaded; nothing has been committed yet, everything but the layers' bytes was validated.

    `indexes`: children before parents. `form`: "docker", "oci", "legacy".
    """

    form: str
    source: Source
    images: list[ArchiveImage]
    indexes: list[ArchiveIndex] = field(default_factory=list)

    @property
    def heads(self) -> list[ArchiveImage]:
        """The images to speak of: those with a name, and those that no other one here has as its parent."""
        parents = {image.parent for image in self.images}
        return [image for image in self.images if image.tags or image.config_digest not in parents]

    def open(self, path: str) -> Reader:
        """A member as something to read at offsets: `.size`, `.pread(offset, length)`, `.pread_into(offset, view)`."""
        return self.source.open(path)


@dataclass(slots=True)
class SavedImage:
    """An image to be written. Digests and sizes of its layers come from its manifest.

    `diff_ids`: of the layers. `content_sizes`: their uncompressed bytes, needed by the legacy form only. `created`:
    RFC 3339 or "". `listed`: shown to readers that know no layouts (host platform, no artifacts).
    """

    manifest: Manifest
    config_bytes: bytes
    diff_ids: tuple[Digest, ...]
    created: str = ""
    tags: list[Reference] = field(default_factory=list)
    parent: Digest | None = None
    content_sizes: tuple[int, ...] = ()
    listed: bool = True


@dataclass(slots=True)
class SavedIndex:
    """An index to be written; its children are given as images and indexes of their own."""

    index: Index
    tags: list[Reference] = field(default_factory=list)
