"""One file of a merged tree."""

from __future__ import annotations

from collections.abc import Iterator

FILE, SYMLINK, CHARACTER, BLOCK, FOLDER, FIFO = b"0", b"2", b"3", b"4", b"5", b"6"
"""Kinds of nodes, as in a tar header."""

Extents = tuple[tuple[int, int], ...]
"""(offset in the file, bytes) of what a sparse file holds, in order."""


_NONE: dict[bytes, bytes] = {}
_NO_DEVICE = (0, 0)


class Node:
    """A file, whatever its kind. Names of one node are hard links of each other.

    `mode`: permission bits (0o7777); `mtime`: ns since 1970; `size`: of a file, bytes; `link`: a symlink's target;
    `device`: (major, minor); `layer`, `data`: where a file's bytes begin, in the uncompressed layer of that number;
    `extents`: of a sparse file, which of its bytes these are; `children`: of a folder, by name.
    """

    __slots__ = (
        "children",
        "data",
        "device",
        "extents",
        "gid",
        "kind",
        "layer",
        "link",
        "mode",
        "mtime",
        "size",
        "uid",
        "xattrs",
    )

    def __init__(self, kind: bytes, mode: int, uid: int, gid: int, mtime: int, layer: int) -> None:
        self.kind = kind
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.mtime = mtime
        self.layer = layer
        self.size = 0
        self.data = 0
        self.link = b""
        self.device = _NO_DEVICE
        self.xattrs = _NONE  # shared: replaced, never changed
        self.extents: Extents | None = None
        self.children: dict[bytes, Node] | None = {} if kind == FOLDER else None

    @property
    def stored(self) -> int:
        """Bytes of the file that the layer holds."""
        return self.size if self.extents is None else sum(length for _, length in self.extents)

    def attributes(self) -> tuple[object, ...]:
        """All that a file is besides its bytes and its times."""
        return self.kind, self.mode, self.uid, self.gid, self.size, self.link, self.device, self.xattrs


def walk(node: Node, path: bytes = b"") -> Iterator[tuple[bytes, Node]]:
    """(path, node) of all below a folder, a folder before what is in it, names in order of their bytes. Paths do not
    begin with a slash. A folder's names may be taken away while it is walked: they are listed when it is reached."""
    stack = [iter([(path, node)])]
    while stack:
        found = next(stack[-1], None)
        if found is None:
            stack.pop()
            continue
        where, one = found
        if one is not node:
            yield where, one
        if one.children:
            prefix = where + b"/" if where else b""
            stack.append(iter([(prefix + name, child) for name, child in sorted(one.children.items())]))


def contents(root: Node) -> Iterator[tuple[int, int, int]]:
    """(number of a layer, where in it, how many bytes) of what the files below a folder hold, in the order of `walk`,
    once for a file with several names."""
    seen: set[Node] = set()
    for _, node in walk(root):
        if node.kind == FILE and node.stored and node not in seen:
            seen.add(node)
            yield node.layer - 1, node.data, node.stored
