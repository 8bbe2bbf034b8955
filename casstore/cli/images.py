"""casstore images: what is in the store, newest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from ..errors import UsageError
from .base import App, Command, format_option, pass_app
from .output import lines, show
from .units import age, known_size, local_time

if TYPE_CHECKING:
    from ..image.listing import ImageSummary

_HEADERS = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
    "VirtualSize": "SIZE",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
    "Containers": "CONTAINERS",
}
_COLUMNS = ("Repository", "Tag", "ID", "CreatedSince", "Size")
_WITH_DIGESTS = ("Repository", "Tag", "Digest", "ID", "CreatedSince", "Size")


@click.command(cls=Command)
@click.option("-a", "--all", "everything", is_flag=True, help="Show intermediate images too.")
@click.option("-q", "--quiet", "only_ids", is_flag=True, help="Print image IDs only.")
@click.option("--digests", is_flag=True, help="Show digests.")
@click.option("--no-trunc", is_flag=True, help="Print IDs in full.")
@click.option(
    "-f",
    "--filter",
    "filters",
    multiple=True,
    metavar="NAME=VALUE",
    help="dangling, label, before, since or reference.",
)
@format_option
@click.argument("repository", metavar="[REPOSITORY[:TAG]]", required=False)
@pass_app
def images(
    app: App,
    everything: bool,
    only_ids: bool,
    digests: bool,
    no_trunc: bool,
    filters: tuple[str, ...],
    form: str | None,
    repository: str | None,
) -> None:
    """List images, newest first."""
    wanted = parse_filters(filters)
    found = app.open().images(repository, all=everything, filters=wanted)
    if only_ids and form in (None, "table"):
        lines(short_id(image.id, no_trunc) for image in found)
        return
    now = datetime.now(UTC)
    rows = (_Row(image, now, no_trunc) for image in found)
    show(rows, form, _HEADERS, _WITH_DIGESTS if digests else _COLUMNS)


def parse_filters(filters: tuple[str, ...]) -> list[tuple[str, str]]:
    """`name=value` each."""
    pairs = []
    for text in filters:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError("bad format of filter (expected name=value)")
        pairs.append((name.strip().lower(), value.strip()))
    return pairs


class _Row(Mapping[str, str]):
    """A line of the list; of its fields only those that are asked for are made."""

    def __init__(self, image: ImageSummary, now: datetime, no_trunc: bool) -> None:
        self._given = image, now, no_trunc

    def __getitem__(self, name: str) -> str:
        return _FIELDS[name](*self._given)

    def __iter__(self) -> Iterator[str]:
        return iter(_FIELDS)

    def __len__(self) -> int:
        return len(_FIELDS)

    def __contains__(self, name: object) -> bool:
        return name in _FIELDS


def _size(image: ImageSummary, now: datetime, no_trunc: bool) -> str:
    return known_size(image.size)


_FIELDS: dict[str, Callable[[ImageSummary, datetime, bool], str]] = {
    "Containers": lambda image, now, full: "N/A",
    "CreatedAt": lambda image, now, full: local_time(image.created),
    "CreatedSince": lambda image, now, full: age(image.created, now),
    "Digest": lambda image, now, full: str(image.digest or "<none>"),
    "ID": lambda image, now, full: short_id(image.id, full),
    "Repository": lambda image, now, full: image.repository or "<none>",
    "SharedSize": lambda image, now, full: "N/A",
    "Size": _size,
    "Tag": lambda image, now, full: image.tag or "<none>",
    "UniqueSize": lambda image, now, full: "N/A",
    "VirtualSize": _size,
}


def short_id(full: object, no_trunc: bool) -> str:
    """An ID as lists show it: twelve digits, or all of it."""
    return str(full) if no_trunc else str(full).rpartition(":")[2][:12]
