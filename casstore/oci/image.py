"""The row that lists show of an image, from its manifest and config."""

from __future__ import annotations

from collections.abc import Iterable

from ..model import ImageRow
from .config import Config
from .manifest import Manifest


def total(sizes: Iterable[int | None]) -> int:
    """Σ of the layers' `files_size` in bytes, -1 where one is not known."""
    known = [*sizes]
    return -1 if None in known else sum(size or 0 for size in known)


def image_row(manifest: Manifest, config: Config, size: int, parent: str = "") -> ImageRow:
    """`size`: `total`, which sparse files may claim at will. `parent`: image ID of the parent as the archive has it;
    else the config's own word."""
    return ImageRow(
        manifest.digest,
        manifest.config.digest,  # which may be of another algorithm than that of a config as it was parsed
        config.created,
        min(size, (1 << 63) - 1),
        config.os,
        config.architecture,
        config.variant,
        dict(config.labels),
        parent or config.parent,
    )
