"""casstore import: a root file system becomes an image."""

from __future__ import annotations

import click

from .base import App, Command, pack_option, pass_app
from .memory import keep_freed
from .output import line
from .streams import input_descriptor


@click.command("import", cls=Command)
@click.option("-m", "--message", default="", metavar="TEXT", help="Comment of the image.")
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="The image's platform.")
@pack_option
@click.argument("source", metavar="FILE|-")
@click.argument("reference", metavar="[REPOSITORY[:TAG]]", required=False)
@pass_app
def import_(app: App, message: str, platform: str | None, pack: str | None, source: str, reference: str | None) -> None:
    """Make an image of one layer from a tar of a root file system, under any compression.

    Prints the image's ID.
    """
    keep_freed()
    given = input_descriptor() if source == "-" else source
    line(str(app.open().import_image(given, reference, message=message, platform=platform, pack=pack)))
