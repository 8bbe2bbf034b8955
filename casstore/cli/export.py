"""casstore export: an image's file system as one tar."""

from __future__ import annotations

from pathlib import Path

import click

from .base import App, Command, pass_app
from .memory import keep_freed, many_objects
from .save import check_target
from .streams import output_descriptor


@click.command(cls=Command)
@click.option("-o", "--output", "target", metavar="FILE", help="Write FILE instead of stdout.")
@click.argument("reference", metavar="IMAGE")
@pass_app
def export(app: App, target: str | None, reference: str) -> None:
    """Write an image's merged file system as one tar: no layers, no whiteouts, names in order.

    \b
    Example: casstore export app:v1 | tar -tv
    """
    keep_freed()
    many_objects()
    if target is None or target == "-":
        app.open().export(reference, output_descriptor())
    else:
        check_target(Path(target))
        app.open().export(reference, target)
