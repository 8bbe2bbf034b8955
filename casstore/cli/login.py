"""casstore login: credentials for a registry, tried and kept."""

from __future__ import annotations

import sys

import click

from ..errors import CasstoreError
from .base import App, Command, pass_app
from .network import network_options, remote
from .output import line
from .streams import warn

MAX_PASSWORD = 64 << 10


@click.command(cls=Command)
@click.option("-u", "--username", metavar="NAME", help="The username.")
@click.option("-p", "--password", metavar="PASSWORD", help="The password; seen by all who list processes.")
@click.option("--password-stdin", is_flag=True, help="Take the password from stdin.")
@network_options
@click.argument("server", metavar="[SERVER]", default="docker.io")
@pass_app
def login(
    app: App, username: str | None, password: str | None, password_stdin: bool, plain_http: bool, server: str
) -> None:
    """Log in to a registry: the credentials are tried, then kept as docker keeps them.

    They go to a credential helper where docker's config.json names one, else into that file.
    """
    if password is not None and password_stdin:
        raise click.UsageError("--password and --password-stdin are mutually exclusive")
    if password_stdin:
        if not username:
            raise click.UsageError("Must provide --username with --password-stdin")
        password = _from_stdin()
    shown = password is not None and not password_stdin
    if username is None or password is None:
        if sys.stdin is None or not sys.stdin.isatty():
            raise CasstoreError("cannot ask for what is missing: stdin is not a terminal", hint="--password-stdin")
        username = username or click.prompt("Username", err=True)
        password = password or click.prompt("Password", hide_input=True, err=True)
    where = remote(plain_http).login(server, str(username), str(password))
    if shown:
        warn("using --password via the CLI is insecure, use --password-stdin")
    if not where.startswith("helper "):
        warn(f"your credentials are stored unencrypted in '{where}'")
    line("Login Succeeded")


def _from_stdin() -> str:
    if sys.stdin is None:
        raise CasstoreError("stdin is closed")
    raw = sys.stdin.buffer.read(MAX_PASSWORD + 1)
    if len(raw) > MAX_PASSWORD:
        raise CasstoreError(f"the password is longer than {MAX_PASSWORD} bytes", what="standard input")
    try:
        return raw.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise CasstoreError("the password is not UTF-8", what="standard input") from None
