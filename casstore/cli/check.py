"""casstore check: is everything there, and what it should be."""

from __future__ import annotations

import click

from .base import App, Command, format_option, pass_app
from .output import line, show

_HEADERS = {
    "Severity": "SEVERITY",
    "What": "WHAT",
    "Problem": "PROBLEM",
    "Images": "IMAGES",
    "Repaired": "REPAIRED",
}


@click.command(cls=Command)
@click.option("--read-data", is_flag=True, help="Read and verify every byte.")
@click.option("--repair", is_flag=True, help="Mend what can be mended.")
@format_option
@click.pass_context
@pass_app
def check(app: App, context: click.Context, read_data: bool, repair: bool, form: str | None) -> None:
    """Check the store. The exit code is 1 if anything is wrong and was not repaired."""
    store = app.open(remake=True) if repair else app.open()
    report = store.check(read_data=read_data, repair=repair)
    rows = [
        {
            "Severity": finding.severity,
            "What": finding.what,
            "Problem": finding.problem,
            "Images": ", ".join(finding.images),
            "Repaired": finding.repaired,
        }
        for finding in report.findings
    ]
    if rows or form is not None:
        show(rows, form, _HEADERS, tuple(_HEADERS))
    elif form is None:
        line("No problems found")
    if not report.ok:
        context.exit(1)
