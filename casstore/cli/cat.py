"""casstore cat: a file out of an image."""

from __future__ import annotations

import click

from .base import App, Command, pass_app
from .memory import many_objects
from .streams import write_bytes


@click.command(cls=Command)
@click.argument("reference", metavar="IMAGE")
@click.argument("path")
@pass_app
def cat(app: App, reference: str, path: str) -> None:
    """Print a file inside an image, without unpacking it; symlinks are followed inside the image.

    \b
    Example: casstore cat app:v1 /etc/os-release
    """
    many_objects()
    write_bytes(app.open().cat(reference, path))
