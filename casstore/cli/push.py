"""casstore push: images to a registry."""

from __future__ import annotations

import threading

import click

from .base import App, Command, pass_app
from .memory import keep_freed
from .network import network_options, remote
from .output import line


@click.command(cls=Command)
@click.option("-a", "--all-tags", is_flag=True, help="Push every tag of the repository.")
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Push the image of this platform of an index alone.")
@click.option("--referrers", is_flag=True, help="Push along what refers to it: signatures, SBOMs, attestations.")
@click.option(
    "--compression",
    type=click.Choice(["gzip", "zstd", "none"]),
    default="gzip",
    help="What plain layers become on the way (gzip: as docker makes it).",
)
@network_options
@click.option("-q", "--quiet", "quiet", is_flag=True, help="Print the name only, and show no progress.")
@click.argument("references", metavar="NAME[:TAG]...", nargs=-1, required=True)
@pass_app
def push(
    app: App,
    all_tags: bool,
    platform: str | None,
    referrers: bool,
    compression: str,
    plain_http: bool,
    quiet: bool,
    references: tuple[str, ...],
) -> None:
    """Push images, or with -a whole repositories, to their registries.

    Blobs that the registry has are not sent; the name there is moved last.
    """
    from ..errors import NotFound, UsageError
    from ..oci.reference import parse

    keep_freed()
    app.quiet = quiet = app.quiet or quiet
    names = [parse(reference) for reference in references]
    if all_tags and any(name.tag or name.digest for name in names):
        raise click.UsageError("tag can't be used with --all-tags/-a")
    if any(name.digest is not None for name in names):
        raise UsageError("cannot push a digest reference")
    way, store, lock = remote(plain_http), app.open(), threading.Lock()

    def say(text: str) -> None:
        if not quiet:
            with lock:
                line(text)

    for name in names:
        wanted = [name.or_latest()]
        if all_tags:
            wanted = [parse(f"{one.repository}:{one.tag}") for one in store.images(name.familiar_name) if one.tag]
            wanted = [one for one in dict.fromkeys(wanted) if one.repository == name.repository]
            if not wanted:
                raise NotFound(f"An image does not exist locally with the tag: {name.familiar_name}")
        elif wanted[0] != name:
            say(f"Using default tag: {wanted[0].tag}")
        say(f"The push refers to repository [{name.repository}]")
        for one in wanted:
            report = store.push(
                str(one),
                remote=way,
                platform=platform,
                referrers=referrers,
                compression=compression,
                say=lambda layer, what: say(f"{layer}: {what}"),
            )
            say(f"{one.tag}: digest: {report.digest} size: {report.size}")
        if quiet:
            line(name.repository if all_tags else str(wanted[0]))
