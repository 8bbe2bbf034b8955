"""casstore image prune: images that nobody needs lose their names; gc gives back the space."""

from __future__ import annotations

import sys

import click

from .base import App, Command, pass_app
from .images import parse_filters
from .output import line, lines
from .streams import printing
from .units import human_size

_WARNINGS = {
    False: "WARNING! This will remove all dangling images.",
    True: "WARNING! This will remove all images without at least one container associated to them.",
}


@click.command(cls=Command)
@click.option("-a", "--all", "everything", is_flag=True, help="Remove all images, not only those without a name.")
@click.option(
    "--filter", "filters", multiple=True, metavar="NAME=VALUE", help="until, label, label! or dangling; all must hold."
)
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Print what would go and change nothing.")
@pass_app
def prune(app: App, everything: bool, filters: tuple[str, ...], force: bool, dry_run: bool) -> None:
    """Remove images without a name.

    The space told is docker's: the sizes of the layers that no image needs any more. What is stored of them, and is not
    part of something else, is freed by gc.
    """
    wanted = parse_filters(filters)
    if not force and not dry_run and not _sure(_WARNINGS[everything]):
        line("Total reclaimed space: 0B")
        return
    report = app.open().prune(all=everything, filters=wanted, dry_run=dry_run)
    if report.steps:
        lines(["Deleted Images:", *(f"{verb.lower()}: {text}" for verb, text in report.steps), ""])
    line(f"Total reclaimed space: {human_size(report.reclaimed, 4)}")
    if dry_run:
        line("Nothing was changed: this was a dry run.")


def _sure(warning: str) -> bool:
    with printing():
        print(f"{warning}\nAre you sure you want to continue? [y/N] ", end="", flush=True)
    answer = sys.stdin.readline() if sys.stdin is not None else ""
    return answer.strip().lower() == "y"
