"""casstore df: what the store holds, and what it takes."""

from __future__ import annotations

import click

from .base import App, Command, format_option, pass_app
from .output import line, show
from .plot import check_plot, plot_df, plot_option, write_plot
from .units import human_size

_TOTALS = ("images", "blobs", "blob_bytes", "chunks", "chunk_bytes", "stored_bytes", "cache_bytes", "saved_bytes")
_HEADERS = {"Reference": "REFERENCE", "Size": "SIZE", "Shared": "SHARED SIZE", "Unique": "UNIQUE SIZE"}


@click.command(cls=Command)
@click.option("-v", "--verbose", is_flag=True, help="Show each image too.")
@plot_option
@format_option
@pass_app
def df(app: App, verbose: bool, plot: str | None, form: str | None) -> None:
    """Show what the store holds and how much space it takes."""
    if plot is not None:
        check_plot(plot, ("--format", form), ("--verbose", verbose))
        store = app.open()
        write_plot(plot_df(store.sharing(), store.df(verbose=False)), plot)
        return
    report = app.open().df(verbose=verbose)
    totals = {name: getattr(report, name) for name in _TOTALS}
    if form is not None:
        if verbose:
            totals["per_image"] = [
                {"reference": each.reference, "size": each.size, "shared": each.shared, "unique": each.unique}
                for each in report.per_image
            ]
        show([totals], form, {name: name.replace("_", " ").upper() for name in totals}, _TOTALS)
        return
    ratio = f" ({report.saved_bytes / report.blob_bytes:.0%})" if report.blob_bytes else ""
    line(f"Images:  {report.images}")
    line(f"Blobs:   {report.blobs}, {human_size(report.blob_bytes)}")
    line(f"Chunks:  {report.chunks}, {human_size(report.chunk_bytes)} of distinct content")
    line(f"Stored:  {human_size(report.stored_bytes)}")
    line(f"Cache:   {human_size(report.cache_bytes)}")
    line(f"Saved:   {human_size(report.saved_bytes)}{ratio}")
    if verbose:
        line("")
        rows = (
            {
                "Reference": each.reference,
                "Size": human_size(each.size),
                "Shared": human_size(each.shared),
                "Unique": human_size(each.unique),
            }
            for each in report.per_image
        )
        show(rows, None, _HEADERS, tuple(_HEADERS))
