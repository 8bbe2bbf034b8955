"""Rows to stdout: a table, JSON lines or a template."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .streams import printing
from .units import visible

#: docker's tab writer: a column is at least ten wide, and three spaces end it.
_NARROWEST, _GAP = 10, 3
_BATCH = 16 << 10
"""Characters that are printed at once."""


def show(
    rows: Iterable[Mapping[str, Any]], form: str | None, headers: Mapping[str, str], columns: Sequence[str]
) -> None:
    """Print `rows` as --format asks.

    `headers` names every field that a template may use, with its column title; `columns` are those of the
    plain table. JSON and templates stream; a table is aligned, so it is gathered.
    """
    from .template import Template, to_json  # what prints no rows starts without it

    if form in ("json", "{{json .}}"):
        lines(to_json(dict(row)) for row in rows)
        return
    kind, _, source = (form or "table").partition(" ")
    if kind == "table" and not source:
        lines(aligned([[_cell(row[name]) for name in columns] for row in _chain(headers, rows)]))
    elif kind == "table":
        template = Template(source)
        template.check(headers)
        titles = Template(source, header=True).render(headers)
        lines(aligned([titles.split("\t"), *(template.render(row).split("\t") for row in rows)]))
    else:
        template = Template(form or "")
        template.check(headers)  # an unknown field is an error even where there is no row
        lines(template.render(row) for row in rows)


def _cell(value: object) -> str:
    """As a template prints it."""
    return value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)


def _chain(headers: Mapping[str, str], rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    yield headers
    yield from rows


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Cells → lines with columns under each other."""
    widths: list[int] = []
    for row in rows:
        for column, text in enumerate(row[:-1]):
            if column == len(widths):
                widths.append(_NARROWEST)
            if len(text) + _GAP > widths[column]:
                widths[column] = len(text) + _GAP
    for row in rows:
        yield "".join(map(str.ljust, row[:-1], widths)) + (row[-1] if row else "")


def line(text: str) -> None:
    """One line (or more, where a template says so) to stdout; what a terminal might obey is made visible."""
    lines([text])


def lines(texts: Iterable[str]) -> None:
    """Many at once."""
    seen = visible if sys.stdout.isatty() else str
    gathered: list[str] = []
    size = 0
    for text in texts:
        gathered.append(seen(text))
        size += len(text)
        if size >= _BATCH:
            _print(gathered)
            size = 0
    _print(gathered)


def _print(gathered: list[str]) -> None:
    if gathered:
        with printing():
            print("\n".join(gathered))
        gathered.clear()
