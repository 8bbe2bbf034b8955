"""casstore blob: the plumbing below images."""

from __future__ import annotations

import json
import re

import click

from ..digest import Digest
from ..errors import UsageError
from .base import App, Command, Group, format_option, pack_option, pass_app
from .output import line, show
from .streams import input_descriptor, write_bytes
from .units import human_size

_HEADERS = {
    "Digest": "DIGEST",
    "Size": "SIZE",
    "State": "STATE",
    "Encoding": "ENCODING",
    "StoredSize": "STORED SIZE",
}


@click.group(cls=Group)
def blob() -> None:
    """Put, read and list blobs by digest."""


@blob.command(cls=Command)
@pack_option
@click.argument("source", metavar="FILE|-")
@pass_app
def put(app: App, pack: str | None, source: str) -> None:
    """Keep the bytes of FILE or stdin; prints their digest.

    The blob is pinned: only `blob rm` lets gc take it.
    """
    given = input_descriptor() if source == "-" else source
    line(str(app.open().blobs.put(given, pack=pack)))


@blob.command(cls=Command)
@click.option("--range", "span", metavar="A-B", help="Bytes A to B, both included; also A- and -N.")
@click.option("--content", is_flag=True, help="What is inside it, uncompressed.")
@click.argument("digest")
@pass_app
def cat(app: App, span: str | None, content: bool, digest: str) -> None:
    """Write a blob's exact bytes to stdout, verified.

    With --content: what it holds, uncompressed, also where its compressed bytes cannot be made again.
    """
    name = Digest.parse(digest)
    start, end = parse_range(span) if span is not None else (0, None)
    blobs = app.open().blobs
    if start < 0:
        size = blobs.inspect(name)["ContentSize" if content else "Size"]
        if size is None:
            raise UsageError("how many bytes are inside is not known", what=digest, hint="such as 0-499 or 500-")
        start = max(0, int(size) + start)
    write_bytes(blobs.cat(name, start, end, content=content))


@blob.command(cls=Command)
@format_option
@pass_app
def ls(app: App, form: str | None) -> None:
    """List the blobs. Sizes are for people in a table, and bytes otherwise."""
    table = (form or "table").partition(" ")[0] == "table"
    size = human_size if table else int
    rows = (
        {
            "Digest": str(each.digest),
            "Size": size(each.size),
            "State": each.state,
            "Encoding": each.encoding,
            "StoredSize": size(each.stored_size),
        }
        for each in app.open().blobs.ls()
    )
    show(rows, form, _HEADERS, tuple(_HEADERS))


@blob.command(cls=Command)
@format_option
@click.argument("digests", metavar="DIGEST...", nargs=-1, required=True)
@pass_app
def inspect(app: App, form: str | None, digests: tuple[str, ...]) -> None:
    """Print what the store knows of blobs, as JSON."""
    blobs = app.open().blobs
    facts = [blobs.inspect(Digest.parse(digest)) for digest in digests]
    if form is None:
        line(json.dumps(facts, indent=4, default=str))
    else:
        show(facts, form, {name: name.upper() for name in facts[0]}, tuple(facts[0]))


@blob.command(cls=Command)
@click.argument("digests", metavar="DIGEST...", nargs=-1, required=True)
@pass_app
def rm(app: App, digests: tuple[str, ...]) -> None:
    """Unpin blobs; gc takes those that no image needs."""
    names = [Digest.parse(digest) for digest in digests]
    app.open().blobs.rm(names)
    for name in names:
        line(str(name))


def parse_range(text: str) -> tuple[int, int | None]:
    """`A-B` → (A, B + 1); `A-` → (A, None); `-N` → (-N, None): the last N bytes."""
    found = re.fullmatch(r"([0-9]*)-([0-9]*)", text)
    if not found or not (found[1] or found[2]):
        raise UsageError(f'invalid range "{text}"', hint="such as 0-499, 500- or -500")
    if not found[1]:
        if int(found[2]) == 0:
            raise UsageError(f'invalid range "{text}"', hint="it is empty")
        return -int(found[2]), None
    start = int(found[1])
    if not found[2]:
        return start, None
    if int(found[2]) < start:
        raise UsageError(f'invalid range "{text}"', hint="its end lies before its start")
    return start, int(found[2]) + 1
