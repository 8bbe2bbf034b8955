"""casstore manifest: a manifest or its digest, as a registry has it."""

from __future__ import annotations

import click

from .base import App, Command, Group, pass_app
from .network import network_options, remote
from .output import line
from .streams import write_bytes


@click.group(cls=Group)
def manifest() -> None:
    """Look at manifests at their registry."""


@manifest.command(cls=Command)
@network_options
@click.argument("reference", metavar="NAME[:TAG|@DIGEST]")
@pass_app
def get(app: App, plain_http: bool, reference: str) -> None:
    """Print a manifest or index, byte for byte."""
    write_bytes([remote(plain_http).manifest(reference).raw])


@manifest.command(cls=Command)
@network_options
@click.argument("reference", metavar="NAME[:TAG]")
@pass_app
def digest(app: App, plain_http: bool, reference: str) -> None:
    """Print what a name stands for at its registry."""
    line(str(remote(plain_http).digest(reference)))
