"""A small SVG writer: boxes, lines and texts on a page that is light or dark as the reader's screen is. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape

from .units import human_size, shortened, visible

Colours = Mapping[str, tuple[str, str]]
"""Class → (on a light page, on a dark one)."""

_PAGE: Colours = {
    "page": ("#ffffff", "#16191d"),
    "title": ("#1b1f24", "#f0f3f6"),
    "text": ("#2d333b", "#d5dbe1"),
    "faint": ("#6a737d", "#8d97a3"),
    "line": ("#e1e4e8", "#2f353c"),
    "band": ("#f6f8fa", "#1c2025"),
}
_FONTS = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue','DejaVu Sans',Arial,sans-serif"
_MONO = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_STEPS = (1, 2, 2.5, 5, 10)


class Page:
    """What is drawn, in order. Lengths are pixels, `y` of a text its base line."""

    def __init__(self, width: int, title: str, colours: Colours) -> None:
        self.width = width
        self._title = title
        self._colours = {**_PAGE, **colours}
        self._body: list[str] = []

    def box(self, x: float, y: float, width: float, height: float, kind: str, tip: str = "", rounded: int = 0) -> None:
        """A filled box; `tip` is shown where the pointer rests on it."""
        corner = f' rx="{rounded}"' if rounded else ""
        inner = f"><title>{plain(tip)}</title></rect>" if tip else "/>"
        place = f'x="{_number(x)}" y="{_number(y)}" width="{_number(width)}" height="{_number(height)}"'
        self._body.append(f'<rect class="{kind}" {place}{corner}{inner}')

    def line(self, x1: float, y1: float, x2: float, y2: float) -> None:
        """A thin line."""
        place = f'x1="{_number(x1)}" y1="{_number(y1)}" x2="{_number(x2)}" y2="{_number(y2)}"'
        self._body.append(f'<line class="line" {place}/>')

    def text(
        self,
        x: float,
        y: float,
        text: str,
        kind: str = "text",
        *,
        anchor: str = "start",
        columns: int = 0,
        keep_end: bool = False,
        mono: bool = False,
    ) -> None:
        """A line of text, cut to so many `columns` at its end, or with `keep_end` at its beginning; the whole of what
        was cut is its tip."""
        whole = shown = visible(" ".join(text.split()))
        if columns:
            shown = shortened(whole[::-1], columns)[::-1] if keep_end else shortened(whole, columns)
        tip = "" if shown == whole else f"<title>{plain(whole)}</title>"
        more = ("" if anchor == "start" else f' text-anchor="{anchor}"') + (' font-size="12"' if mono else "")
        names = f"{kind} mono" if mono else kind
        place = f'x="{_number(x)}" y="{_number(y)}"'
        self._body.append(f'<text class="{names}" {place}{more}>{plain(shown)}{tip}</text>')

    def group(self, kind: str, name: str) -> None:
        """What follows, up to `end`, is one thing."""
        self._body.append(f'<g class="{kind}" data-name="{plain(name)}">')

    def end(self) -> None:
        self._body.append("</g>")

    def render(self, height: float) -> str:
        """The whole document."""
        size = f'width="{self.width}" height="{_number(height)}" viewBox="0 0 {self.width} {_number(height)}"'
        return "\n".join(
            [
                '<?xml version="1.0" encoding="UTF-8"?>',
                f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" class="casstore">',
                f"<title>{plain(self._title)}</title>",
                f"<style>{escape(''.join(self._style()), quote=False)}</style>",
                '<rect class="page" width="100%" height="100%"/>',
                *self._body,
                "</svg>",
                "",
            ]
        )

    def _style(self) -> str:
        return escape("".join(self._rules()), quote=False)

    def _rules(self) -> Iterator[str]:
        yield f".casstore text{{font:13px {_FONTS}}}.casstore .title{{font-size:20px;font-weight:600}}"
        yield f".casstore .mono{{font:12px {_MONO}}}"
        for scheme in (0, 1):
            yield "@media (prefers-color-scheme:dark){" if scheme else ""
            for kind, pair in self._colours.items():
                paint = "stroke" if kind == "line" else "fill"
                yield f".casstore .{kind}{{{paint}:{pair[scheme]}}}"
            yield "}" if scheme else ""


def plain(text: str) -> str:
    """Any text, such as XML takes it."""
    return escape(_printable(text))


def _printable(text: str) -> str:
    return _NOT_XML.sub("\ufffd", visible(text))


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def ticks(largest: float, about: int = 5) -> Sequence[int]:
    """Round numbers of bytes from 0 on, some `about`, none above `largest`."""
    if largest < about:
        return [0]
    raw = largest / about
    power = 10 ** (len(str(int(raw))) - 1)
    step = next(int(power * one) for one in _STEPS if power * one >= raw)
    return range(0, int(largest) + 1, max(step, 1))


def axis(page: Page, left: float, width: float, top: float, bottom: float, largest: float) -> None:
    """A scale of bytes from `left` on: its lines from `top` to `bottom`, its numbers above them."""
    for tick in ticks(largest):
        x = left + tick / max(largest, 1) * width
        page.line(x, top, x, bottom)
        page.text(x, top - 6, human_size(tick), "faint", anchor="middle")
