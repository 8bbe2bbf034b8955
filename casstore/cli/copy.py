"""casstore copy: an image between two places."""

from __future__ import annotations

import json
import os
import threading
from typing import Any

import click

from .base import App, Command, pack_option, pass_app
from .memory import keep_freed
from .network import network_options, remote
from .output import line


@click.command(cls=Command)
@click.option("-a", "--all", "all_platforms", is_flag=True, help="Copy all of an index, not one image of it.")
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Copy the image of this platform of an index.")
@click.option("--referrers", is_flag=True, help="Copy what refers to it too: signatures, SBOMs.")
@click.option("--preserve-digests", is_flag=True, help="Fail where the manifest's digest would not be kept.")
@click.option("--no-store", is_flag=True, help="From registry to registry, without the store between.")
@pack_option
@network_options
@click.option("-q", "--quiet", "quiet", is_flag=True, help="Print the digest only, and show no progress.")
@click.option("--format", "form", type=click.Choice(["json"]), help="Print what was copied as JSON.")
@click.argument("source", metavar="SOURCE")
@click.argument("destination", metavar="DESTINATION")
@pass_app
def copy(
    app: App,
    all_platforms: bool,
    platform: str | None,
    referrers: bool,
    preserve_digests: bool,
    no_store: bool,
    pack: str | None,
    plain_http: bool,
    quiet: bool,
    form: str | None,
    source: str,
    destination: str,
) -> None:
    """Copy an image between two places, as skopeo names them.

    docker://REF, docker-daemon:REF, docker-archive:FILE[:REF], oci-archive:FILE[:NAME], oci:DIR[:NAME], dir:DIR,
    store:REF. Manifests and blobs stay what they are, bit for bit, wherever the destination has a place for them.
    """
    keep_freed()
    app.quiet = quiet = app.quiet or quiet
    if platform and all_platforms:
        raise click.UsageError("--platform and --all exclude each other")
    lock = threading.Lock()

    def say(layer: str, what: str) -> None:
        if not quiet and form is None:
            with lock:
                line(f"{layer}: {what}")

    more: dict[str, Any] = {"platform": platform, "all_platforms": all_platforms, "referrers": referrers, "say": say}
    if no_store:
        from ..distribution import copy_streaming
        from .progress import for_terminal

        progress = click.get_current_context().with_resource(for_terminal(quiet))
        report = copy_streaming(source, destination, remote=remote(plain_http), progress=progress, **more)
    else:
        report = app.open().copy(
            source,
            destination,
            remote=remote(plain_http),
            socket=_socket() if "docker-daemon" in (source.partition(":")[0], destination.partition(":")[0]) else None,
            preserve_digests=preserve_digests,
            pack=pack,
            **more,
        )
    if form == "json":
        value = {
            "Source": report.source,
            "Destination": report.destination,
            "Digest": str(report.digest),
            "MediaType": report.media_type,
            "Size": report.size,
            "Fetched": report.fetched,
            "Sent": report.sent,
        }
        line(json.dumps(value, ensure_ascii=False))
    else:
        line(str(report.digest) if quiet else f"Digest: {report.digest}")


def _socket() -> str | None:
    """Where DOCKER_HOST says that docker's engine is."""
    from ..errors import UsageError

    named = os.environ.get("DOCKER_HOST", "")
    scheme, _, path = named.partition("://")
    if named and (scheme != "unix" or not path):
        raise UsageError("only an engine behind unix:// can be spoken to", what=f"DOCKER_HOST={named[:200]}")
    return path or None
