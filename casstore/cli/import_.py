"""casstore import: a root file system becomes an image."""

from __future__ import annotations

import click

from .base import App, Command, pass_app
from .output import line
from .streams import input_descriptor


@click.command("import", cls=Command)
@click.option(
    "-c", "--change", "changes", multiple=True, metavar="INSTRUCTION", help="Dockerfile instruction."
)
@click.option("-m", "--message", default="", metavar="TEXT", help="Comment of the image.")
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="The image's platform.")
@click.argument("source", metavar="FILE|-")
@click.argument("reference", metavar="[REPOSITORY[:TAG]]", required=False)
@pass_app
def import_(
    app: App, changes: tuple[str, ...], message: str, platform: str | None, source: str, reference: str | None
) -> None:
    """Make an image of one layer from a tar of a root file system, under any compression.

    Prints the image's ID.
    """
    given = input_descriptor() if source == "-" else source
    store = app.open()
    line(store.import_image(given, reference, message=message, changes=changes, platform=platform))
