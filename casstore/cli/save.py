"""casstore save: images into an archive."""

from __future__ import annotations

import stat
from pathlib import Path

import click

from ..errors import CasstoreError
from .base import App, Command, pass_app
from .memory import keep_freed
from .streams import output_descriptor


@click.command(cls=Command)
@click.option("-o", "--output", "target", metavar="FILE", help="Write FILE instead of stdout.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["docker-archive", "oci-archive", "legacy"]),
    default="docker-archive",
    show_default=True,
    help="docker-archive is for docker, podman, skopeo and ctr; legacy for docker before 1.10 too.",
)
@click.argument("references", metavar="IMAGE...", nargs=-1, required=True)
@pass_app
def save(app: App, target: str | None, form: str, references: tuple[str, ...]) -> None:
    """Save one or more images to an archive, verified as it is read.

    The same images make the same bytes every time.
    """
    keep_freed()
    if target is None or target == "-":
        descriptor = output_descriptor()
        app.open().save(references, descriptor, format=form)
    else:
        check_target(Path(target))
        app.open().save(references, target, format=form)


def check_target(path: Path) -> None:
    """What docker refuses before it asks for the first byte."""
    if not path.parent.is_dir():
        raise CasstoreError(f'invalid output path: directory "{path.parent}" does not exist')
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise CasstoreError(f'invalid output path: "{path}" is a directory')
    if not stat.S_ISREG(mode):
        raise CasstoreError(f'invalid output path: "{path}" must be a regular file')
