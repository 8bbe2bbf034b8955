"""casstore pull: images from a registry."""

from __future__ import annotations

import threading

import click

from .base import App, Command, pack_option, pass_app
from .memory import keep_freed
from .network import network_options, remote
from .output import line


@click.command(cls=Command)
@click.option("-a", "--all-tags", is_flag=True, help="Pull every tag of the repository.")
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Take this platform of an index.")
@click.option("--all-platforms", is_flag=True, help="Take every platform of an index.")
@click.option("--referrers", is_flag=True, help="Take what refers to it too: signatures, SBOMs.")
@pack_option
@click.option("--mirror", "mirrors", multiple=True, metavar="HOST", help="Ask this registry first; may be repeated.")
@network_options
@click.option("-q", "--quiet", "quiet", is_flag=True, help="Print the name only, and show no progress.")
@click.argument("references", metavar="NAME[:TAG|@DIGEST]...", nargs=-1, required=True)
@pass_app
def pull(
    app: App,
    all_tags: bool,
    platform: str | None,
    all_platforms: bool,
    referrers: bool,
    pack: str | None,
    mirrors: tuple[str, ...],
    plain_http: bool,
    quiet: bool,
    references: tuple[str, ...],
) -> None:
    """Pull images, or with -a whole repositories, from registries.

    What the store has is not fetched again; a connection that breaks is taken up where it broke.
    """
    from ..image.pull import tags_of
    from ..oci.reference import parse

    keep_freed()
    app.quiet = quiet = app.quiet or quiet
    if platform and all_platforms:
        raise click.UsageError("--platform and --all-platforms exclude each other")
    names = [parse(reference) for reference in references]
    if all_tags and any(name.tag or name.digest for name in names):
        raise click.UsageError("tag can't be used with --all-tags/-a")
    way = remote(plain_http, mirrors={name.domain: mirrors for name in names})
    store, lock = app.open(), threading.Lock()

    def say(text: str) -> None:
        if not quiet:
            with lock:
                line(text)

    for name in names:
        if all_tags:
            wanted = tags_of(way.registry(name), name)
        else:
            wanted = [name.or_latest()]
            if wanted[0] != name:
                say(f"Using default tag: {wanted[0].tag}")
        fresh = False
        for one in wanted:
            say(f"{one.digest or one.tag}: Pulling from {one.path}")
            report = store.pull(
                str(one),
                remote=way,
                platform=platform,
                all_platforms=all_platforms,
                referrers=referrers,
                pack=pack,
                say=lambda layer, what: say(f"{layer}: {what}"),
            )
            fresh = fresh or report.fresh
            say(f"Digest: {report.digest}")
        shown = name.familiar_name if all_tags else wanted[0].familiar()
        say(f"Status: {'Downloaded newer image' if fresh else 'Image is up to date'} for {shown}")
        line(name.repository if all_tags else str(wanted[0]))
