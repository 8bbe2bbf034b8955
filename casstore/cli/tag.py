"""casstore tag: one more name for an image."""

from __future__ import annotations

import click

from .base import App, Command, pass_app


@click.command(cls=Command)
@click.argument("source", metavar="SOURCE_IMAGE[:TAG]")
@click.argument("target", metavar="TARGET_IMAGE[:TAG]")
@pass_app
def tag(app: App, source: str, target: str) -> None:
    """Create the tag TARGET_IMAGE that refers to SOURCE_IMAGE."""
    app.open().tag(source, target)
