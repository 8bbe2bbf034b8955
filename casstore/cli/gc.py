"""casstore gc: what nothing needs goes; what is loose or sparse is packed anew."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from .base import App, Command, format_option, pass_app
from .output import line, show
from .units import human_size, parse_duration

if TYPE_CHECKING:
    from ..upkeep.gc import GcReport

_HEADERS = {"Action": "ACTION", "Kind": "KIND", "Name": "NAME", "Size": "SIZE", "Reason": "REASON"}


@click.command(cls=Command)
@click.option("--dry-run", is_flag=True, help="Print the plan and change nothing.")
@click.option("--grace", metavar="DURATION", help="Spare blobs younger than this (such as 10m, 24h).")
@click.option("--budget", metavar="DURATION", help="Longest time to spend on packing (else pack.budget).")
@format_option
@pass_app
def gc(app: App, dry_run: bool, grace: str | None, budget: str | None, form: str | None) -> None:
    """Collect what no tag, pin or running command needs, then pack and repack.

    Safe beside any other command. --format is for the lines of the plan with --dry-run, else for the totals.
    """
    spared = None if grace is None else parse_duration(grace)
    longest = None if budget is None else parse_duration(budget)
    report = app.open().gc(dry_run=dry_run, grace=spared, budget=longest)
    if dry_run:
        _plan(report, form)
    elif form is not None:
        totals = dataclasses.asdict(report.totals)
        show([totals], form, {name: name.replace("_", " ").upper() for name in totals}, tuple(totals))
    if form is None:
        _totals(report, dry_run)


def _plan(report: GcReport, form: str | None) -> None:
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
    if report.rows or form is not None:
        show(rows, form, _HEADERS, tuple(_HEADERS))


def _totals(report: GcReport, dry_run: bool) -> None:
    did = report.totals
    line(f"Deleted:    {did.blobs_deleted} blobs, {did.objects_deleted} objects")
    line(f"Freed:      {human_size(did.freed_bytes)}")
    line(f"Packed:     {did.blobs_packed} blobs")
    line(f"Rewritten:  {did.packs_rewritten} packs")
    if did.packs_left and not dry_run:
        line(f"Left:       {did.packs_left}, for a run with more budget")
    if dry_run:
        line("Nothing was changed: this was a dry run, and these are upper bounds.")
