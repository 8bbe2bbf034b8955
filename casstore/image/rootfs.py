"""`export` and `unpack`: an image's merged file system as one tar, or in a folder."""

from __future__ import annotations

from pathlib import Path

from ..codec.compression import LIMIT, Limit
from ..flow.step import Step
from ..model import Progress
from ..rootfs import archive, folder
from ..rootfs.folder import Bytes, Unpacked
from ..rootfs.node import Node, contents
from ..store.volume import Volume
from .merged import Merged
from .output import opened


def export(
    volume: Volume,
    given: str,
    out: str | Path | int,
    *,
    limit: Limit = LIMIT,
    progress: Progress | None = None,
) -> None:
    """An image's file system as a tar, to a path (which appears whole or not at all) or an open descriptor."""
    with Merged(volume, given, purpose="export", limit=limit, progress=progress) as merged:
        root = merged.tree.root
        step = Step(progress, "export", _total(root, progress))
        with opened(out, step, volume.catalog.decided) as writer:
            for buffer in merged.gather(archive.parts(root)):
                writer.write(buffer)
        step.done()


def unpack(
    volume: Volume, given: str, target: str | Path, *, limit: Limit = LIMIT, progress: Progress | None = None
) -> Unpacked:
    """An image's file system into an empty folder (see rootfs.folder.write)."""
    with Merged(volume, given, purpose="unpack", limit=limit, progress=progress) as merged:
        root = merged.tree.root
        step = Step(progress, "unpack", _total(root, progress))
        content = Bytes(step.over(merged.gather(contents(root))))
        told = folder.write(root, target, content)
        step.done()
        return told


def _total(root: Node, progress: Progress | None) -> int | None:
    """Bytes of the files, if anybody wants to see how far they are."""
    return None if progress is None else sum(size for _, _, size in contents(root))
