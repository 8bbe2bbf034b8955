"""casstore init: a store with choices of its own."""

from __future__ import annotations

import click

from .base import App, Command, pass_app
from .output import line
from .units import parse_size


@click.command(cls=Command)
@click.option(
    "--chunk-digest",
    type=click.Choice(["sha256", "blake3"]),
    default="sha256",
    show_default=True,
    help="How chunks are named; blake3 suits CPUs without SHA extensions.",
)
@click.option("--chunk-size", default="16KiB", show_default=True, metavar="SIZE", help="Average size of a chunk.")
@pass_app
def init(app: App, chunk_digest: str, chunk_size: str) -> None:
    """Make an empty store. Its choices are for ever.

    Other commands make a store with the defaults on first use.
    """
    from .. import api
    from .progress import decided

    average = parse_size(chunk_size)
    api.init(app.location, chunk_digest=chunk_digest, chunk_size=average, decided=decided.set)
    line(f"Initialized empty store in {app.location}")
