"""casstore import: a root file system becomes an image."""

from __future__ import annotations

import sys

import click

from .base import App, Command, pack_option, pass_app
from .memory import keep_freed
from .output import line
from .streams import input_descriptor
from .units import visible


@click.command("import", cls=Command)
@click.option(
    "-c",
    "--change",
    "changes",
    multiple=True,
    metavar="INSTRUCTION",
    help="Change the image's configuration by a Dockerfile instruction: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, "
    "LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR.",
)
@click.option("-m", "--message", default="", metavar="TEXT", help="Comment of the image.")
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="The image's platform.")
@pack_option
@click.argument("source", metavar="FILE|URL|-")
@click.argument("reference", metavar="[REPOSITORY[:TAG]]", required=False)
@pass_app
def import_(
    app: App,
    changes: tuple[str, ...],
    message: str,
    platform: str | None,
    pack: str | None,
    source: str,
    reference: str | None,
) -> None:
    """Make an image of one layer from a tar of a root file system, under any compression.

    Prints the image's ID.
    """
    keep_freed()
    given = input_descriptor() if source == "-" else source

    def downloading(url: str) -> None:
        if not app.quiet and sys.stderr is not None:
            print(visible(f"Downloading from {url}"), file=sys.stderr, flush=True)

    made = app.open().import_image(
        given, reference, changes=changes, message=message, platform=platform, pack=pack, downloading=downloading
    )
    line(str(made))
