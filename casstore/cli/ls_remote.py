"""casstore ls-remote: the tags of a repository at its registry."""

from __future__ import annotations

import click

from .base import App, Command, pass_app
from .network import network_options, remote
from .output import lines


@click.command("ls-remote", cls=Command)
@network_options
@click.argument("repository", metavar="NAME")
@pass_app
def ls_remote(app: App, plain_http: bool, repository: str) -> None:
    """List the tags of a repository at its registry."""
    lines(remote(plain_http).tags(repository))
