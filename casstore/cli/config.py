"""casstore config: the store's settings."""

from __future__ import annotations

import click

from .base import App, Command, Group, format_option, pass_app
from .output import line, show

_HEADERS = {"Key": "KEY", "Value": "VALUE"}


@click.group(cls=Group)
def config() -> None:
    """Read and change the store's settings (config.toml)."""


@config.command(cls=Command)
@click.argument("key")
@pass_app
def get(app: App, key: str) -> None:
    """Print one setting."""
    line(str(app.open().config.get(key)))


@config.command("set", cls=Command)
@click.argument("key")
@click.argument("value")
@pass_app
def set_(app: App, key: str, value: str) -> None:
    """Change one setting."""
    app.open().config.set(key, value)


@config.command(cls=Command)
@format_option
@pass_app
def ls(app: App, form: str | None) -> None:
    """List all settings with their values."""
    settings = app.open().config.ls()
    rows = ({"Key": key, "Value": str(value)} for key, value in sorted(dict(settings).items()))
    show(rows, form, _HEADERS, ("Key", "Value"))
