"""casstore search: repositories of a registry by a word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from .base import App, Command, format_option, pass_app
from .network import network_options, remote
from .output import show

if TYPE_CHECKING:
    from ..transport.registry import SearchResult

_HEADERS = {
    "Name": "NAME",
    "Description": "DESCRIPTION",
    "StarCount": "STARS",
    "IsOfficial": "OFFICIAL",
    "IsAutomated": "AUTOMATED",
}
_WIDTH = 45
_TRUE, _FALSE = ("1", "t", "T", "true", "True", "TRUE"), ("0", "f", "F", "false", "False", "FALSE")


@click.command(cls=Command)
@click.option("-f", "--filter", "filters", multiple=True, metavar="KEY=VALUE", help="is-official, is-automated, stars.")
@click.option("--limit", type=int, default=25, show_default=True, help="Most results, up to 100.")
@click.option("--no-trunc", is_flag=True, help="Show whole descriptions.")
@format_option
@network_options
@click.argument("term", metavar="[HOST/]TERM")
@pass_app
def search(
    app: App, filters: tuple[str, ...], limit: int, no_trunc: bool, form: str | None, plain_http: bool, term: str
) -> None:
    """Search a registry, docker's where none is named, for repositories."""
    wanted = [_filter(text) for text in filters]
    found = remote(plain_http).search(term, limit)
    rows = [_row(one, no_trunc) for one in found if all(_passes(one, key, value) for key, value in wanted)]
    show(rows, form, _HEADERS, list(_HEADERS))


def _filter(text: str) -> tuple[str, int]:
    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError("bad format of filter (expected name=value)")
    if key == "stars" and value.isdecimal() and len(value) < 10:
        return key, int(value)
    if key in ("is-official", "is-automated") and value in _TRUE + _FALSE:
        return key, int(value in _TRUE)
    if key in ("stars", "is-official", "is-automated"):
        raise UsageError(f"Invalid filter '{text}'")
    raise UsageError(f"Invalid filter '{key}'")


def _passes(one: SearchResult, key: str, value: int) -> bool:
    if key == "stars":
        return one.star_count >= value
    return (one.is_official if key == "is-official" else one.is_automated) == bool(value)


def _row(one: SearchResult, whole: bool) -> dict[str, Any]:
    text = " ".join((one.description or "").split())
    return {
        "Name": one.name,
        "Description": text if whole or len(text) <= _WIDTH else text[: _WIDTH - 1] + "…",
        "StarCount": one.star_count,
        "IsOfficial": "[OK]" if one.is_official else "",
        "IsAutomated": "[OK]" if one.is_automated else "",
    }
