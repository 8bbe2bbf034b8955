"""casstore diff: what differs between two images' file systems."""

from __future__ import annotations

import click

from ..rootfs.entries import shown
from .base import App, Command, format_option, pass_app
from .memory import keep_freed, many_objects
from .output import lines, show

_HEADERS = {"Kind": "KIND", "Path": "PATH"}


@click.command(cls=Command)
@click.option("--times", is_flag=True, help="A file of which only the time differs has changed too.")
@format_option
@click.argument("old", metavar="IMAGE")
@click.argument("new", metavar="IMAGE")
@pass_app
def diff(app: App, times: bool, form: str | None, old: str, new: str) -> None:
    """List the files that were added (A), changed (C) or deleted (D) from one image to another.

    \b
    Example: casstore diff app:v1 app:v2
    """
    keep_freed()
    many_objects()
    found = app.open().diff(old, new, times=times)
    if form is None:
        lines(f"{one.kind} /{shown(one.path)}" for one in found)
    else:
        show(({"Kind": one.kind, "Path": "/" + shown(one.path)} for one in found), form, _HEADERS, tuple(_HEADERS))
