"""casstore gc: what nothing needs goes; what is loose or sparse is packed anew."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from .base import App, Command, format_option, pass_app
from .output import line, show
from .units import human_size, parse_duration, parse_size

if TYPE_CHECKING:
    from ..upkeep.gc import GcReport

_HEADERS = {"Action": "ACTION", "Kind": "KIND", "Name": "NAME", "Size": "SIZE", "Reason": "REASON"}


@click.command(cls=Command)
@click.option("--dry-run", is_flag=True, help="Print the plan and change nothing.")
@click.option("--grace", metavar="DURATION", help="Spare blobs younger than this (such as 10m, 24h).")
@click.option("--max-time", metavar="DURATION", help="Pack and repack no longer than this (else pack.budget).")
@click.option("--max-bytes", metavar="SIZE", help="Pack and repack no more than this (such as 500M, 10GiB).")
@format_option
@pass_app
def gc(
    app: App, dry_run: bool, grace: str | None, max_time: str | None, max_bytes: str | None, form: str | None
) -> None:
    """Collect what no tag, pin or running command needs, then pack and repack.

    Safe beside any other command. --format is for the lines of the plan with --dry-run, else for the totals.
    """
    spared = None if grace is None else parse_duration(grace)
    longest = None if max_time is None else parse_duration(max_time)
    most = None if max_bytes is None else parse_size(max_bytes)
    report = app.open().gc(dry_run=dry_run, grace=spared, max_time=longest, max_bytes=most)
    if dry_run:
        _plan(report, form)
    elif form is not None:
        totals = dataclasses.asdict(report.totals)
        show([totals], form, {name: name.replace("_", " ").upper() for name in totals}, tuple(totals))
    if form is None:
        _totals(report)
        if dry_run:
            _outlook(report)


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


def _totals(report: GcReport) -> None:
    did = report.totals
    line(f"Deleted:    {did.blobs_deleted} blobs, {did.objects_deleted} objects")
    line(f"Freed:      {human_size(did.freed_bytes)}")
    line(f"Packed:     {did.blobs_packed} blobs")
    for name, tally in sorted(did.encoders.items()):
        trace = f", traces {human_size(tally.trace)}" if name else ""
        line(f"            {tally.blobs} of {name or 'plain content'}: {human_size(tally.size)}{trace}")
    for reason, count in sorted(did.refused.items()):
        line(f"Stay loose: {count} blobs: {reason}")
    line(f"Rewritten:  {did.packs_rewritten} packs")
    if did.blobs_left or did.packs_left:
        line(f"Left:       {did.blobs_left} blobs, {did.packs_left} packs, for a run with more time or bytes")


def _outlook(report: GcReport) -> None:
    saving = report.saving
    if saving is not None:
        share = f", estimated from {human_size(saving.looked)}" if saving.looked < saving.total else ""
        line(f"Packing saves about {human_size(saving.bytes)} of {human_size(saving.total)}{share}.")
    line("Nothing was changed: this was a dry run, and these are upper bounds.")
