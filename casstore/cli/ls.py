"""casstore ls: what is in a folder of an image."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from ..rootfs.entries import shown
from .base import App, Command, format_option, pass_app
from .memory import many_objects
from .output import show

if TYPE_CHECKING:
    from ..image.inside import FileInfo

_HEADERS = {
    "Mode": "MODE",
    "Owner": "OWNER",
    "Size": "SIZE",
    "Modified": "MODIFIED",
    "Path": "PATH",
    "Link": "LINK",
    "Layer": "LAYER",
    "Xattrs": "XATTRS",
}
_TYPES = {"2": stat.S_IFLNK, "3": stat.S_IFCHR, "4": stat.S_IFBLK, "5": stat.S_IFDIR, "6": stat.S_IFIFO}


@click.command(cls=Command)
@click.option("-R", "--recursive", is_flag=True, help="With all that is below it.")
@format_option
@click.argument("reference", metavar="IMAGE")
@click.argument("path", default="/")
@pass_app
def ls(app: App, recursive: bool, form: str | None, reference: str, path: str) -> None:
    """List a folder inside an image, without unpacking it; only the frames with its headers are read.

    \b
    Example: casstore ls -R app:v1 /etc
    """
    many_objects()
    found = app.open().ls(reference, path, recursive=recursive)
    show(_rows(found, plain=form is None), form, _HEADERS, ("Mode", "Owner", "Size", "Modified", "Path"))


def _rows(found: list[FileInfo], *, plain: bool) -> Iterator[dict[str, Any]]:
    for one in found:
        name, link = shown(one.path), shown(one.link)
        size = f"{one.device[0]},{one.device[1]}" if one.kind in "34" and plain else one.size
        yield {
            "Mode": stat.filemode(_TYPES.get(one.kind, stat.S_IFREG) | one.mode),
            "Owner": f"{one.uid}:{one.gid}",
            "Size": str(size) if plain else size,
            "Modified": _time(one.mtime),
            "Path": f"{name} -> {link}" if plain and link else name,
            "Link": link,
            "Layer": one.layer,
            "Xattrs": {shown(key): value.hex() for key, value in one.xattrs.items()},
        }


def _time(ns: int) -> str:
    """RFC 3339, to the second; the number itself where no calendar has it."""
    try:
        return datetime.fromtimestamp(ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return str(ns)
