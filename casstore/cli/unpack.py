"""casstore unpack: an image's file system in a folder."""

from __future__ import annotations

from pathlib import Path

import click

from .base import App, Command, pass_app
from .memory import keep_freed, many_objects
from .streams import warn


@click.command(cls=Command)
@click.argument("reference", metavar="IMAGE")
@click.argument("target", metavar="DIR", type=click.Path(path_type=Path))
@pass_app
def unpack(app: App, reference: str, target: Path) -> None:
    """Write an image's merged file system into DIR, which is empty or not there yet.

    Root gives files their owners and makes devices; without root the files are the caller's own, and what could not be
    made as the image has it is said.

    \b
    Example: casstore unpack app:v1 ./rootfs
    """
    keep_freed()
    many_objects()
    told = app.open().unpack(reference, target)
    for paths, what in (
        (told.owners, "kept the caller's owner"),
        (told.devices, "devices were not made"),
        (told.xattrs, "extended attributes were not set"),
    ):
        if paths:
            warn(f"{what}: {len(paths)}, first {paths[0]}")
