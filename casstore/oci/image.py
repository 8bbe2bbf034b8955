"""The row that lists show of an image, from its manifest and config."""

from __future__ import annotations

from ..model import ImageRow
from .config import Config
from .manifest import Manifest


def image_row(manifest: Manifest, config: Config, size: int, parent: str = "") -> ImageRow:
    """`size`: Σ of the layers' `files_size` in bytes, which sparse files may claim at will. `parent`: image ID of the
    parent as the archive has it; else the config's own word."""
    return ImageRow(
        manifest.digest,
        config.digest,
        config.created,
        min(size, (1 << 63) - 1),
        config.os,
        config.architecture,
        config.variant,
        dict(config.labels),
        parent or config.parent,
    )
