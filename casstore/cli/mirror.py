"""casstore mirror: what a plan names, from its registries into the store and on to another registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import CasstoreError
from .base import App, Command, format_option, pass_app
from .memory import keep_freed
from .network import network_options, remote
from .output import line, show
from .units import human_size, parse_size

if TYPE_CHECKING:
    from ..image.mirror import MirrorReport, Row

_HEADERS = {
    "Source": "SOURCE",
    "Target": "TARGET",
    "Status": "STATUS",
    "Size": "SIZE",
    "Outcome": "OUTCOME",
    "Digest": "DIGEST",
    "Error": "ERROR",
    "Warning": "WARNING",
    "Fetched": "FETCHED",
    "Sent": "SENT",
}


@click.command(cls=Command)
@click.option("--to", metavar="REGISTRY[/PREFIX]", default="", help="Push it there too, every path below the prefix.")
@click.option("--dry-run", is_flag=True, help="Print what is new, changed and gone, with the bytes to fetch.")
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Take this platform of indexes alone.")
@click.option("--all-platforms", is_flag=True, help="Take every platform (which is so anyway).")
@click.option("--referrers", is_flag=True, help="Take what refers to an image too: signatures, SBOMs.")
@click.option("--keep-going", is_flag=True, help="Begin others after one has failed.")
@click.option("--prune", is_flag=True, help="Take names away that the source has no longer, here and there.")
@click.option("--recheck", is_flag=True, help="Ask the target what it has; do not believe the state.")
@click.option("--jobs", type=click.IntRange(1, 64), default=4, show_default=True, help="Images at once.")
@click.option("--min-free", metavar="SIZE", help="Stop before less than this is free on the disk.")
@click.option("--max-rate", metavar="RATE", help="Bytes a second over all connections, each way: 10MB.")
@click.option("--state", type=click.Path(path_type=Path), metavar="FILE", help="What remembers what was put where.")
@format_option
@network_options
@click.option("-q", "--quiet", "quiet", is_flag=True, help="Print what failed and the summary, and show no progress.")
@click.argument("plan", nargs=-1, required=True, metavar="FILE|SOURCE...")
@pass_app
def mirror(
    app: App,
    to: str,
    dry_run: bool,
    platform: str | None,
    all_platforms: bool,
    referrers: bool,
    keep_going: bool,
    prune: bool,
    recheck: bool,
    jobs: int,
    min_free: str | None,
    max_rate: str | None,
    state: Path | None,
    form: str | None,
    plain_http: bool,
    quiet: bool,
    plan: tuple[str, ...],
) -> None:
    """Bring what a plan names into the store, and on to a registry.

    FILE is skopeo-sync's YAML or a TOML of [[image]] tables; SOURCE is NAME:TAG, or NAME for all its tags. A run
    that finds nothing new costs one HEAD a tag; one that was killed is gone on with by the next.
    """
    keep_freed()
    app.quiet = quiet = app.quiet or quiet
    if platform and all_platforms:
        raise click.UsageError("--platform and --all-platforms exclude each other")
    rate = parse_size((max_rate or "0").removesuffix("/s"))
    if max_rate is not None and not rate:
        raise click.UsageError("--max-rate is no rate")

    def say(row: Row) -> None:
        if form is None and (row.failed or row.warning or not quiet):
            line(_told(row))

    report = app.open().mirror(
        plan,
        remote=remote(plain_http, max_rate=float(rate)),
        to=to,
        platform=platform,
        referrers=referrers,
        dry_run=dry_run,
        keep_going=keep_going,
        prune=prune,
        recheck=recheck,
        jobs=jobs,
        min_free=None if min_free is None else parse_size(min_free),
        state=state,
        say=say,
    )
    if form is not None:
        show((row.plain() for row in report.rows), form, _HEADERS, ("Source", "Status", "Outcome"))
    else:
        if dry_run:
            for row in report.rows:
                if row.status != "same" and (row.failed or not quiet):
                    line(_planned(row))
        line(_summary(report))
    if report.failed:
        first = next(row for row in report.rows if row.failed)
        more = f"{report.failed} of {len(report.rows)} tags failed, the first because: " if len(report.rows) > 1 else ""
        raise CasstoreError(f"{more}{first.error}", what=first.source.familiar())


def _told(row: Row) -> str:
    if row.failed:
        return f"{row.source.familiar()}: failed: {row.error}"
    done = row.status if row.outcome == "done" else row.outcome
    text = f"{row.source.familiar()}: {done}" + (f", {human_size(row.fetched)} fetched" if row.fetched else "")
    text += f", {human_size(row.sent)} sent" if row.sent else ""
    return text + (f"; {row.warning}" if row.warning else "")


def _planned(row: Row) -> str:
    if row.failed:
        return f"{row.source.familiar()}: failed: {row.error}"
    size = "" if row.size is None else f", {human_size(row.size)} to fetch"
    return f"{row.source.familiar()}: {row.status}{size}"


def _summary(report: MirrorReport) -> str:
    if report.dry_run:
        found = [(report.count(status=status), status) for status in ("new", "changed", "same", "gone")]
        size = f"; {human_size(report.size)} to fetch"
    else:
        found = [(report.count(status=status, outcome="done"), status) for status in ("new", "changed")]
        found += [(report.count(status="same"), "same"), (report.count(outcome="removed"), "removed")]
        found += [(report.count(outcome="not begun"), "not begun")]
        size = f"; {human_size(report.fetched)} fetched, {human_size(report.sent)} sent"
    found.append((report.failed, "failed"))
    tags = len(report.rows)
    told = ", ".join(f"{count} {what}" for count, what in found if count)
    return f"{tags} tag{'' if tags == 1 else 's'}: {told or 'nothing'}{size}"
