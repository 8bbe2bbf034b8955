"""casstore history: the steps that an image was made in, newest first."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from .base import App, Command, format_option, pass_app
from .images import short_id
from .output import lines, show
from .plot import check_plot, plot_history, plot_option, write_plot
from .units import age, known_size, parse_time, shortened

if TYPE_CHECKING:
    from ..image.history import HistoryLine

_CREATED_BY = 45
"""Widest text of a command that is not shown in full."""
_COLUMNS = ("ID", "CreatedSince", "CreatedBy", "Size", "Comment")


@click.command(cls=Command)
@click.option("-H", "--human/--no-human", default=True, help="Sizes and ages for people (the default).")
@click.option("-q", "--quiet", "only_ids", is_flag=True, help="Print image IDs only.")
@click.option("--no-trunc", is_flag=True, help="Print IDs and commands in full.")
@plot_option
@format_option
@click.argument("image")
@pass_app
def history(
    app: App, human: bool, only_ids: bool, no_trunc: bool, plot: str | None, form: str | None, image: str
) -> None:
    """Show how an image was made, newest step first."""
    if plot is not None:
        check_plot(plot, ("--format", form), ("--quiet", only_ids))
        store = app.open()
        write_plot(plot_history(image, store.history(image), store.identify(image), store.sharing()), plot)
        return
    found = app.open().history(image)
    if only_ids and form in (None, "table"):
        lines(_id(step, no_trunc) for step in found)
        return
    headers = {
        "ID": "IMAGE",
        "CreatedSince": "CREATED" if human else "CREATED AT",
        "CreatedAt": "CREATED AT",
        "CreatedBy": "CREATED BY",
        "Size": "SIZE",
        "Comment": "COMMENT",
    }
    now = datetime.now(UTC)
    # A command of several lines must not tear a table apart.
    flat = form is None or form.startswith("table")
    show((_row(step, now, human, no_trunc, flat) for step in found), form, headers, _COLUMNS)


def _row(step: HistoryLine, now: datetime, human: bool, no_trunc: bool, flat: bool) -> Mapping[str, str]:
    at = created_at(step.created)
    by = step.created_by.replace("\t", " ")
    if flat:
        by = " ".join(by.splitlines())
    return {
        "Comment": " ".join(step.comment.split()) if flat else step.comment,
        "CreatedAt": at,
        "CreatedBy": by if no_trunc else shortened(by, _CREATED_BY),
        "CreatedSince": age(step.created, now) if human else at,
        "ID": _id(step, no_trunc),
        "Size": known_size(step.size) if human or step.size < 0 else str(step.size),
    }


def created_at(created: str) -> str:
    """RFC 3339 to the second, in the local zone; `N/A` where none is known."""
    moment = parse_time(created)
    if moment is None:
        return "N/A"
    try:
        return moment.astimezone().replace(microsecond=0).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError):
        return "N/A"


def _id(step: HistoryLine, no_trunc: bool) -> str:
    return "<missing>" if step.id is None else short_id(step.id, no_trunc)
