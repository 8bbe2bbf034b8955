"""casstore gc: what nothing needs goes; what is loose or sparse is packed anew."""

from __future__ import annotations

import dataclasses

import click

from .base import App, Command, format_option, pass_app
from .output import line, show
from .units import human_size, parse_duration

_HEADERS = {"Action": "ACTION", "Kind": "KIND", "Name": "NAME", "Size": "SIZE", "Reason": "REASON"}


@click.command(cls=Command)
@click.option("--dry-run", is_flag=True, help="Print the plan and change nothing.")
@click.option("--grace", metavar="DURATION", help="Spare blobs younger than this (such as 10m, 24h).")
@click.option("--budget", metavar="DURATION", help="Longest time to spend on packing (else pack.budget).")
@format_option
@pass_app
def gc(app: App, dry_run: bool, grace: str | None, budget: str | None, form: str | None) -> None:
    """Collect what no tag, pin or running command needs, then pack and repack.

    Safe beside any other command.
    """
    spared = None if grace is None else parse_duration(grace)
    longest = None if budget is None else parse_duration(budget)
    report = app.open().gc(dry_run=dry_run, grace=spared, budget=longest)
    size = human_size if form is None or form.startswith("table") else int
    rows = (
        {
            "Action": row.action,
            "Kind": row.kind,
            "Name": row.name,
            "Size": size(row.size),
            "Reason": row.reason,
        }
        for row in report.rows
    )
    if dry_run or form is not None:
        show(rows, form, _HEADERS, tuple(_HEADERS))
    if form is None:
        for name, value in dataclasses.asdict(report.totals).items():
            text = human_size(value) if name.endswith("bytes") else f"{value:g}"
            line(f"{name.replace('_', ' ').capitalize()}: {text}")
