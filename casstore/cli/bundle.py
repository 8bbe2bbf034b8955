"""casstore bundle: images carried to a store that has some of their content already."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .. import api
from ..digest import Digest
from .base import App, Command, Group, format_option, pass_app
from .memory import keep_freed
from .output import line, lines, show
from .save import check_target
from .streams import input_descriptor, output_descriptor

_HAVE = {"Digest": "DIGEST", "Size": "SIZE", "DiffID": "DIFF ID"}


@click.group(cls=Group)
def bundle() -> None:
    """Carry images over an air gap, without what the other side has."""


@bundle.command(cls=Command)
@click.option("--have", metavar="IMAGE", multiple=True, help="The other side has this image (may be repeated).")
@click.option("--have-file", metavar="FILE", help="The other side has these blobs: what its `bundle have` printed.")
@click.option("--since", metavar="FILE", help="The other side has loaded this bundle.")
@click.option("--all-platforms", is_flag=True, help="Take every platform of an index, not only this machine's.")
@click.option("--level", metavar="N", type=click.IntRange(1, 19), help="1 (fast) to 19 (small); else by the size.")
@click.argument("target", metavar="FILE|-")
@click.argument("references", metavar="IMAGE...", nargs=-1, required=True)
@pass_app
def create(
    app: App,
    have: tuple[str, ...],
    have_file: str | None,
    since: str | None,
    all_platforms: bool,
    level: int | None,
    target: str,
    references: tuple[str, ...],
) -> None:
    """Write a bundle of images; prints the digest of the file.

    What the other side has is left out: it must be in this store too. Without --have, --have-file or --since the
    bundle can be loaded anywhere.
    """
    keep_freed()
    out: str | int = target
    if target == "-":
        out = output_descriptor()
    else:
        check_target(Path(target))
    report = app.open().bundle(
        references,
        out,
        have=have,
        have_file=input_descriptor() if have_file == "-" else have_file,
        since=input_descriptor() if since == "-" else since,
        all_platforms=all_platforms,
        level=level,
    )
    if target == "-":
        if not app.quiet:
            click.echo(str(report.digest), err=True)
        return
    line(str(report.digest))


@bundle.command(cls=Command)
@click.option("--expect", metavar="DIGEST", help="Load only the bundle whose file has this digest.")
@click.option("--no-tags", is_flag=True, help="Give no names: the images come under their IDs.")
@click.option("-q", "--quiet", "quiet", is_flag=True, help="Show no progress.")
@click.argument("source", metavar="FILE|-")
@pass_app
def load(app: App, expect: str | None, no_tags: bool, quiet: bool, source: str) -> None:
    """Load a bundle: all of its images, or none.

    What the bundle leans on must be in this store; what is missing is named. Every chunk and blob is hashed before
    anything becomes visible.
    """
    keep_freed()
    app.quiet = app.quiet or quiet
    digest = Digest.parse(expect) if expect is not None else None
    given = input_descriptor() if source == "-" else source
    report = app.open().load_bundle(given, expect=digest, tags=not no_tags)
    for text in (*report.notices, *report.loaded):
        line(text)


@bundle.command(cls=Command)
@format_option
@click.argument("source", metavar="FILE|-")
def inspect(form: str | None, source: str) -> None:
    """Print what a bundle holds and what it leans on; it is checked on the way. Needs no store."""
    facts = api.inspect_bundle(input_descriptor() if source == "-" else source)
    if form is None:
        line(json.dumps([facts], indent=4))
    else:
        show([facts], form, {name: name.upper() for name in facts}, ("Digest", "Size", "Chunks", "ChunkBytes"))


@bundle.command(cls=Command)
@format_option
@pass_app
def have(app: App, form: str | None) -> None:
    """List the blobs that this store has, for `bundle create --have-file` on the other side."""
    store = app.open(create=False)
    if form is None:
        lines(store.base_list())
        return
    rows = (
        {"Digest": str(digest), "Size": size, "DiffID": str(diffid) if diffid else None}
        for digest, size, diffid in store.bases()
    )
    show(rows, form, _HAVE, ("Digest", "Size"))
