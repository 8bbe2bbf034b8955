"""`ls`, `cat` and `diff`: looking into images without unpacking them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ..codec.compression import LIMIT, Limit
from ..errors import BadInput
from ..model import Progress
from ..rootfs.entries import shown
from ..rootfs.node import FILE, FOLDER, SYMLINK, Node, walk
from ..store.volume import Volume
from .merged import Merged


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file of an image. `path`: its bytes, without a leading slash; `kind`: as in a tar header ("0" a file, …);
    `size`: bytes, of a symlink the length of its target; `mtime`: ns since 1970."""

    path: bytes
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    link: bytes
    device: tuple[int, int]
    xattrs: dict[bytes, bytes]
    layer: int
    """The number of the layer that it comes from, the lowest being 0."""


def info(path: bytes, node: Node) -> FileInfo:
    """What there is to say of a file."""
    return FileInfo(
        path,
        node.kind.decode(),
        node.mode,
        node.uid,
        node.gid,
        node.size if node.kind == FILE else len(node.link),
        node.mtime,
        node.link,
        node.device,
        node.xattrs,
        max(node.layer - 1, 0),
    )


def ls(merged: Merged, path: str | bytes = "/", *, recursive: bool = False) -> Iterator[FileInfo]:
    """What is in a folder, in order of names; anything else alone. A symlink is followed where it leads to a folder.
    NotFound."""
    raw = path if isinstance(path, bytes) else path.encode("utf-8", "surrogateescape")
    itself = merged.node(raw, follow=raw.endswith(b"/"))
    node = (merged.tree.find(raw) if itself.kind == SYMLINK else None) or itself
    raw = raw.strip(b"/")
    if node.kind != FOLDER:
        yield info(raw, itself)
    elif recursive:
        for where, one in walk(node, raw):
            yield info(where, one)
    else:
        for name, one in sorted((node.children or {}).items()):
            yield info(raw + b"/" + name if raw else name, one)


def cat(merged: Merged, path: str | bytes, start: int = 0, end: int | None = None) -> Iterator[memoryview]:
    """A file's bytes, verified. NotFound; BadInput where it is something else."""
    node = merged.node(path)
    if node.kind != FILE:
        raw = path if isinstance(path, bytes) else path.encode("utf-8", "surrogateescape")
        raise BadInput("is a directory" if node.kind == FOLDER else "is not a regular file", what=shown(raw))
    return merged.read(node, start, end)


class Change(NamedTuple):
    """`kind`: A added, C changed, D deleted, as docker's `diff` has them."""

    kind: str
    path: bytes


def diff(
    volume: Volume, old: str, new: str, *, times: bool = False, limit: Limit = LIMIT, progress: Progress | None = None
) -> list[Change]:
    """What differs between the file systems of two images, by path. A file has changed where its kind, mode, owner,
    attributes or bytes have, or the map of its holes; with `times` also where its time has."""
    with contextlib.ExitStack() as stack:
        first, second = (
            stack.enter_context(Merged(volume, one, purpose="diff", limit=limit, progress=progress))
            for one in (old, new)
        )
        before, after = (dict(walk(one.tree.root)) for one in (first, second))
        changes = [Change("D", path) for path in before.keys() - after.keys()]
        changes += [Change("A", path) for path in after.keys() - before.keys()]
        unsure: list[tuple[bytes, Node, Node]] = []
        for path in before.keys() & after.keys():
            a, b = before[path], after[path]
            if a.attributes() != b.attributes() or a.extents != b.extents or (times and a.mtime != b.mtime):
                changes.append(Change("C", path))
            elif a.kind == FILE and not _same_place(first, a, second, b):
                unsure.append((path, a, b))
        unsure.sort(key=lambda one: (one[2].layer, one[2].data))
        changes += [Change("C", path) for path in _differing(first, second, unsure)]
        return sorted(changes, key=lambda one: one.path)


def _same_place(first: Merged, a: Node, second: Merged, b: Node) -> bool:
    contents = first.contents[a.layer - 1], second.contents[b.layer - 1]
    return a.data == b.data and contents[0].what == contents[1].what


def _differing(first: Merged, second: Merged, pairs: list[tuple[bytes, Node, Node]]) -> Iterator[bytes]:
    """Of pairs of files of the same size, those whose bytes differ. Both sides are read as one stream, cut alike."""
    left = first.gather((a.layer - 1, a.data, a.stored) for _, a, _ in pairs)
    right = second.gather((b.layer - 1, b.data, b.stored) for _, _, b in pairs)
    ends = iter(pairs)
    path, rest, told = b"", 0, False
    for mine, theirs in zip(left, right, strict=True):
        at = 0
        while at < len(mine):
            while not rest:
                path, node, _ = next(ends)
                rest, told = node.stored, False
            step = min(rest, len(mine) - at)
            if not told and mine[at : at + step] != theirs[at : at + step]:
                told = True
                yield path
            rest -= step
            at += step
