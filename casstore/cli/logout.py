"""casstore logout: credentials forgotten."""

from __future__ import annotations

import click

from .base import App, Command, pass_app
from .network import remote
from .output import line


@click.command(cls=Command)
@click.argument("server", metavar="[SERVER]", default="docker.io")
@pass_app
def logout(app: App, server: str) -> None:
    """Forget the credentials for a registry."""
    if remote().logout(server):
        line(f"Removing login credentials for {server}")
    else:
        line(f"Not logged in to {server}")
