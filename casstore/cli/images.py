"""casstore images: what is in the store, newest first."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from ..errors import UsageError
from .base import App, Command, format_option, pass_app
from .output import line, show
from .units import age, human_size, local_time

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
    if only_ids and form is None:
        for image in found:
            line(_id(image.id, no_trunc))
        return
    now = datetime.now(UTC)
    rows = (_row(image, now, no_trunc) for image in found)
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


def _row(image: ImageSummary, now: datetime, no_trunc: bool) -> dict[str, str]:
    size = human_size(image.size)
    return {
        "Containers": "N/A",
        "CreatedAt": local_time(image.created),
        "CreatedSince": age(image.created, now),
        "Digest": str(image.digest or "<none>"),
        "ID": _id(image.id, no_trunc),
        "Repository": image.repository or "<none>",
        "SharedSize": "N/A",
        "Size": size,
        "Tag": image.tag or "<none>",
        "UniqueSize": "N/A",
        "VirtualSize": size,
    }


def _id(full: object, no_trunc: bool) -> str:
    return str(full) if no_trunc else str(full).rpartition(":")[2][:12]
