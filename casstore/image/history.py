"""`history`: the steps that an image was made in."""

from __future__ import annotations

from typing import NamedTuple

from ..digest import Digest
from ..model import ImageRow
from ..oci import config as oci_config
from ..store import names
from ..store.catalog import Tx
from ..store.volume import Volume
from .content import ask_image
from .resolve import Found, is_kept, parents_of


class HistoryLine(NamedTuple):
    """A step. `id`: the image as it was after it, where the store has that image; `created`: RFC 3339 or ""; `size`:
    bytes of the layer that the step made, 0 where it made none, -1 where that is not known; `diffid`: that layer's."""

    id: Digest | None
    created: str
    created_by: str
    size: int
    comment: str
    diffid: Digest | None = None


def history(volume: Volume, text: str) -> list[HistoryLine]:
    """The steps of an image, newest first. NotFound as `resolve`."""
    return ask_image(volume, text, _lines)


def _lines(tx: Tx, found: Found, raw: bytes) -> list[HistoryLine]:
    config = oci_config.parse(raw, str(found.image.config))
    layers = iter(config.diff_ids)
    made = [None if step.empty_layer else next(layers) for step in config.history]
    sizes = [0 if one is None else names.files_size(tx, one) for one in made]
    ids = _ids(tx, found.image)
    steps = list(zip(config.history, sizes, made, strict=True))[::-1]
    ids += [None] * (len(steps) - len(ids))
    return [
        HistoryLine(one, step.created, step.created_by, size, step.comment, diffid)
        for one, (step, size, diffid) in zip(ids, steps, strict=False)
    ]


def _ids(tx: Tx, image: ImageRow) -> list[Digest | None]:
    """The image and its parents as far as they are here: docker made one with each step."""
    found: list[Digest | None] = [image.config]
    while True:
        rows = [row for row in parents_of(tx, image) if is_kept(tx, row.manifest)]
        if not rows or rows[0].config in found:
            return found
        image = rows[0]
        found.append(image.config)
