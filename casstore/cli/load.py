"""casstore load: images from an archive."""

from __future__ import annotations

import click

from .base import App, Command, pack_option, pass_app
from .memory import keep_freed
from .output import line
from .streams import input_descriptor


@click.command(cls=Command)
@click.option("-i", "--input", "source", metavar="FILE", help="Read FILE instead of stdin.")
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Take this platform of an index.")
@click.option("--all-platforms", is_flag=True, help="Take every platform of an index.")
@pack_option
@click.option("-q", "--quiet", "quiet", is_flag=True, help="Show no progress.")
@pass_app
def load(
    app: App, source: str | None, platform: str | None, all_platforms: bool, pack: str | None, quiet: bool
) -> None:
    """Load images from a docker archive or an OCI archive, compressed or not.

    All of the archive's images are loaded, or none.
    """
    keep_freed()
    app.quiet = app.quiet or quiet
    if platform and all_platforms:
        raise click.UsageError("--platform and --all-platforms exclude each other")
    given = input_descriptor() if source is None or source == "-" else source
    report = app.open().load(
        given,
        platform=platform,
        all_platforms=all_platforms,
        pack=pack,
    )
    for text in (*report.notices, *report.loaded):
        line(text)
