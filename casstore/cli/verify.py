"""casstore verify: one image, read back whole."""

from __future__ import annotations

import click

from .base import App, Command, format_option, pass_app
from .output import line, show
from .units import human_size

_HEADERS = {"Digest": "DIGEST", "Kind": "KIND", "Size": "SIZE", "Problem": "PROBLEM"}


@click.command(cls=Command)
@format_option
@click.argument("reference", metavar="IMAGE")
@click.pass_context
@pass_app
def verify(app: App, context: click.Context, form: str | None, reference: str) -> None:
    """Rebuild every blob of an image and compare it with its digest; the exit code is 1 if one differs."""
    report = app.open().verify(reference)
    size = human_size if form is None or form.startswith("table") else int
    rows = [
        {
            "Digest": str(row.digest),
            "Kind": row.kind,
            "Size": size(row.size),
            "Problem": row.problem,
        }
        for row in report.rows
    ]
    columns = ("Digest", "Kind", "Size") if report.ok else tuple(_HEADERS)
    show(rows, form, _HEADERS, columns)
    if form is None and report.ok:
        line(f"{reference}: {len(rows)} blobs verified")
    if not report.ok:
        context.exit(1)
