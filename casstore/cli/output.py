"""Rows to stdout: a table, JSON lines or a template."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .streams import printing
from .template import Template, to_json
from .units import visible

#: docker's tab writer: a column is at least ten wide, and three spaces end it.
_NARROWEST, _GAP = 10, 3


def show(
    rows: Iterable[Mapping[str, Any]], form: str | None, headers: Mapping[str, str], columns: Sequence[str]
) -> None:
    """Print `rows` as --format asks.

    `headers` names every field that a template may use, with its column title; `columns` are those of the
    plain table. JSON and templates stream; a table is aligned, so it is gathered.
    """
    if form in ("json", "{{json .}}"):
        for row in rows:
            line(to_json(row))
        return
    kind, _, source = (form or "table").partition(" ")
    if kind == "table":
        template = Template(source or "\t".join(f"{{{{.{name}}}}}" for name in columns))
        lines = [template.render(headers), *(template.render(row) for row in rows)]
        for text in aligned(lines):
            line(text)
        return
    template = Template(form or "")
    template.render(headers)  # an unknown field is an error even where there is no row
    for row in rows:
        line(template.render(row))


def aligned(lines: Sequence[str]) -> list[str]:
    """Lines with tabs → columns under each other."""
    cells = [text.split("\t") for text in lines]
    widths: dict[int, int] = {}
    for row in cells:
        for column, text in enumerate(row[:-1]):
            widths[column] = max(widths.get(column, _NARROWEST), len(text) + _GAP)
    return ["".join(text.ljust(widths[i]) for i, text in enumerate(row[:-1])) + row[-1] for row in cells]


def line(text: str) -> None:
    """One line (or more, where a template says so) to stdout; what a terminal might obey is made visible."""
    with printing():
        print(visible(text) if sys.stdout.isatty() else text)
