"""casstore rmi: references go, and images that have none left."""

from __future__ import annotations

import sys

import click

from .base import App, Command, pass_app
from .output import line
from .units import visible

_MISSING = "No such image"


@click.command(cls=Command)
@click.option("-f", "--force", is_flag=True, help="Also of several repositories; missing ones are no failure.")
@click.option("--no-prune", is_flag=True, help="Keep untagged parents.")
@click.argument("references", metavar="IMAGE...", nargs=-1, required=True)
@click.pass_context
@pass_app
def rmi(app: App, context: click.Context, force: bool, no_prune: bool, references: tuple[str, ...]) -> None:
    """Remove one or more images. Each is tried; the exit code is 1 if any failed.

    Space is given back by gc.
    """
    failed = False
    for verb, text in app.open().remove(references, force=force, prune=not no_prune):
        if verb == "Error":
            print(f"Error: {visible(text)}", file=sys.stderr, flush=True)
            failed = failed or not (force and _MISSING in text)
        else:
            line(f"{verb}: {text}")
    if failed:
        context.exit(1)
