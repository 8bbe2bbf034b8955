"""Pictures of what images share: `df --plot` and `history --plot`. Data in, SVG out; and the file it goes to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from .progress import decided
from .save import check_target
from .streams import write_bytes
from .svg import Colours, Page, axis
from .units import human_size

if TYPE_CHECKING:
    from ..digest import Digest
    from ..image.history import HistoryLine
    from ..upkeep.df import DfReport
    from ..upkeep.sharing import ImageShare, LayerShare

MOST = 300
"""Images that get a bar of their own."""

_COLOURS: Colours = {
    "alone": ("#e8590c", "#ff8a4c"),
    "chunks": ("#f3bf6b", "#c98a2b"),
    "few": ("#9cc3ea", "#2f5f92"),
    "some": ("#5594d4", "#4a8fd6"),
    "many": ("#1f5c9e", "#9ccbf7"),
}
_MEANINGS = {
    "alone": "only in this image",
    "chunks": "shared below the layer",
    "few": "layer in 2 images",
    "some": "layer in 3 to 9 images",
    "many": "layer in 10 images or more",
}


def plot_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """--plot, for what can be drawn."""
    return click.option(
        "--plot",
        metavar="FILE",
        help="Draw a picture (SVG) of what images share into FILE, or to stdout (-), instead.",
    )(function)


def check_plot(target: str, *others: tuple[str, object]) -> None:
    """What can be refused before anything is measured. `others`: options that make no sense beside it."""
    for name, value in others:
        if value:
            raise UsageError(f"--plot and {name} exclude each other")
    if target != "-":
        check_target(Path(target))


def write_plot(svg: str, target: str) -> None:
    """To stdout, or a file that is replaced by a whole one or stays."""
    from ..flow.step import Step
    from ..image.output import File

    data = svg.encode()
    if target == "-":
        write_bytes([data])
        return
    with File(Path(target), Step(None, "plot", len(data)), decided.set) as file:
        file.write(data)


def _kind(images: int) -> str:
    return "few" if images == 2 else "some" if images < 10 else "many"


def _parts(layer: LayerShare) -> Iterator[tuple[str, int, str]]:
    """(class, stored bytes, what it is) of a layer."""
    if layer.images > 1:
        yield _kind(layer.images), layer.stored, f"in {layer.images} images"
    else:
        yield "chunks", layer.stored - layer.alone, "in chunks that other images have too"
        yield "alone", layer.alone, "only in this image"


def _bar(page: Page, layers: Sequence[LayerShare], x: float, y: float, height: float, scale: float) -> None:
    """The layers side by side, the lowest first, a thin gap after each."""
    for layer in layers:
        end = x + layer.stored * scale
        gap = 1.0 if layer.stored * scale > 3 else 0.0
        for kind, size, what in _parts(layer):
            width = min(size * scale, end - gap - x)
            if size > 0 and width > 0:
                tip = f"{layer.digest.algorithm}:{layer.digest.hex[:12]}, {human_size(layer.size)}: "
                page.box(x, y, max(width, 0.5), height, kind, f"{tip}{human_size(size)} stored, {what}")
                x += width
        x = end


def _legend(page: Page, x: float, y: float, kinds: Iterable[str]) -> None:
    there = set(kinds)
    for kind, meaning in _MEANINGS.items():
        if kind in there:
            page.box(x, y - 11, 13, 13, kind, rounded=2)
            page.text(x + 19, y, meaning)
            x += 19 + 7 * len(meaning) + 26


def _kinds(images: Iterable[ImageShare]) -> set[str]:
    return {kind for image in images for layer in image.layers for kind, size, _ in _parts(layer) if size > 0}


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


# -- df


def plot_df(images: Sequence[ImageShare], report: DfReport) -> str:
    """A bar for each image, the largest first: its layers, coloured by who else has them."""
    width, label, left, span, row, top = 1120, 36, 300, 590, 28, 142
    shown = sorted(images, key=lambda image: (-image.stored, image.reference))[:MOST]
    rest = len(images) - len(shown)
    page = Page(width, "What images share", _COLOURS)
    page.text(32, 46, "What images share", "title")
    facts = [_count(len(images), "image"), f"{human_size(report.blob_bytes)} of blobs"]
    facts.append(f"{human_size(report.stored_bytes)} stored")
    facts.append("bars: what each image takes in the store, its layers from the lowest up")
    page.text(32, 70, " · ".join(facts), "faint")
    _legend(page, 32, 98, _kinds(shown))
    page.text(left + span + 100, top - 6, "stored", "faint", anchor="end")
    page.text(left + span + 190, top - 6, "only here", "faint", anchor="end")
    largest = max((image.stored for image in shown), default=0)
    scale = span / max(largest, 1)
    bottom = top + row * max(len(shown), 1)
    for number in range(1, len(shown), 2):
        page.box(20, top + row * number, width - 40, row, "band")
    if largest:
        axis(page, left, span, top, bottom, largest)
    else:
        page.text(32, top + 19, "no image, nothing to draw", "faint")
    for number, image in enumerate(shown):
        y = top + row * number
        page.group("image", image.reference)
        page.text(32, y + 19, image.reference, columns=label, keep_end=True)
        _bar(page, image.layers, left, y + 5, row - 10, scale)
        page.text(left + span + 100, y + 19, human_size(image.stored), anchor="end")
        page.text(left + span + 190, y + 19, human_size(image.alone), anchor="end")
        page.end()
    if rest:
        alone = sum(image.alone for image in images) - sum(image.alone for image in shown)
        page.group("others", f"{rest} others")
        page.text(32, bottom + 24, f"and {_count(rest, 'smaller image')}", "faint")
        page.text(left + span + 190, bottom + 24, human_size(alone), "faint", anchor="end")
        page.end()
        bottom += row
    return page.render(bottom + 28)


# -- history


def plot_history(name: str, steps: Sequence[HistoryLine], manifest: Digest, images: Sequence[ImageShare]) -> str:
    """The steps of an image, the first at the bottom; of each layer what it takes, and which images have it too."""
    width, label, left, span, numbers, names = 1300, 60, 480, 330, 950, 980
    image = _image_of(manifest, images)
    layers = [layer for layer in image.layers if layer.manifest == manifest] if image else []
    rows = list(_rows(steps, layers))
    stored, alone = sum(layer.stored for layer in layers), sum(layer.alone for layer in layers)
    page = Page(width, f"Layers of {name}", _COLOURS)
    page.text(32, 46, name, "title", columns=80)
    facts = [_count(len(steps), "step"), _count(len(layers), "layer"), f"{human_size(stored)} stored"]
    page.text(32, 70, " · ".join([*facts, f"{human_size(alone)} of it only for this image"]), "faint")
    _legend(page, 32, 98, {kind for layer in layers for kind, size, _ in _parts(layer) if size > 0})
    top = 150
    page.text(32, top - 6, "created by, the newest step on top", "faint")
    page.text(numbers, top - 6, "size", "faint", anchor="end")
    page.text(names, top - 6, "images that have the layer too", "faint")
    heights = [24 if layer is None else 34 for _, layer in rows]
    bottom = top + sum(heights)
    largest = max((layer.stored for layer in layers), default=0)
    bands, y = False, top
    for height in heights:
        if bands:
            page.box(20, y, width - 40, height, "band")
        bands, y = not bands, y + height
    if largest:
        axis(page, left, span, top, bottom, largest)
    others = _holders(images, image)
    y = top
    for (text, layer), height in zip(rows, heights, strict=True):
        middle = y + height / 2 + 4.5
        page.group("step" if layer is None else "layer", "" if layer is None else str(layer.digest))
        page.text(32, middle, text, "faint" if layer is None else "text", columns=label, mono=True)
        if layer is not None:
            _bar(page, [layer], left, y + 8, height - 16, span / max(largest, 1))
            end = left + layer.stored * span / max(largest, 1)
            page.text(end + 6, middle, human_size(layer.stored), "faint")
            page.text(numbers, middle, human_size(layer.size), anchor="end")
            page.text(names, middle, _who(layer, others), columns=40)
        page.end()
        y += height
    return page.render(bottom + 28)


def _rows(steps: Sequence[HistoryLine], layers: Sequence[LayerShare]) -> Iterator[tuple[str, LayerShare | None]]:
    """(created by, its layer) of the steps, newest first; before them the layers that no step tells of."""
    made = sum(step.diffid is not None for step in steps)
    for layer in reversed(layers[made:]):
        yield "(not in the history)", layer
    left = list(layers[:made])
    for step in steps:
        yield _told(step.created_by), left.pop() if step.diffid is not None and left else None


def _told(created_by: str) -> str:
    """A step without what docker's old builder puts before each."""
    return created_by.removeprefix("/bin/sh -c #(nop)").strip() or "(not told)"


def _image_of(manifest: Digest, images: Iterable[ImageShare]) -> ImageShare | None:
    """A name may stand for several images, one a platform: rather what stands for this one alone."""
    having = [image for image in images if any(layer.manifest == manifest for layer in image.layers)]
    return min(having, key=lambda image: len({layer.manifest for layer in image.layers}), default=None)


def _holders(images: Iterable[ImageShare], but: ImageShare | None) -> dict[Digest, list[str]]:
    """Layer → the other images that have it."""
    found: dict[Digest, list[str]] = {}
    for image in images:
        if image is not but:
            for digest in {layer.digest for layer in image.layers}:
                found.setdefault(digest, []).append(image.reference)
    return found


def _who(layer: LayerShare, others: dict[Digest, list[str]]) -> str:
    names = sorted(others.get(layer.digest, ()))
    if not names:
        shared = layer.stored - layer.alone
        return f"none, but {human_size(shared)} in chunks of others" if shared else "none"
    text = names[0]
    for at, name in enumerate(names[1:], 1):
        more = f", and {len(names) - at} more"
        if len(f"{text}, {name}") + len(more) > 40:
            return text + more
        text += f", {name}"
    return text
