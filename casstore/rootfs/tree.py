"""Layers applied one on the other, in memory: the merged tree that a container would see. O(entries).

Whiteouts of a layer go first and hide only what lies below it; then its entries are placed. Nothing is ever outside of
the tree: paths are taken apart here, `..` ends at the root, and a link is followed only where an entry is placed below
a symlink of its own layer, and then inside the tree. Rules: OCI image-spec, layer.md; BEHAVIOUR §5.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import LimitExceeded
from ..kernels.tarscan import Entry
from .entries import VOLUME, LayerContent, check_path, components, node_of, refuse, shown, strict
from .node import FOLDER, SYMLINK, Node

MAX_ENTRIES = 1 << 22
"""Of all layers of one image."""
MAX_DEPTH = 500
"""Folders in one another: each takes a descriptor while a tree is written."""
MAX_FOLLOWED = 255
"""Symlinks on one path."""

_WHITEOUT = b".wh."
_META = b".wh..wh."
_OPAQUE = b".wh..wh..opq"
_LINKS = b".wh..wh.plnk"
"""Where aufs kept files with several names; the names are hard links to it."""


class Tree:
    """A merged tree; `apply` layers from the lowest up. `root` is its folder."""

    def __init__(self) -> None:
        self.root = _implicit(0)
        self.layers = 0
        self._entries = 0

    def apply(self, content: LayerContent) -> None:
        """One more layer on top. BadInput, LimitExceeded: it cannot be applied; the tree is not to be used then."""
        _Applied(self, content).run()
        self.layers += 1

    def count(self, content: LayerContent, entry: Entry) -> None:
        """One more entry was read."""
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            raise LimitExceeded(f"more than {MAX_ENTRIES} entries", what=content.what, offset=entry.header)

    def find(self, path: bytes, *, follow: bool = True) -> Node | None:
        """What a path leads to, symlinks followed inside the tree; the last one only with `follow`. None: nothing."""
        names = components_kept(path)
        stack = _walk(self.root, [self.root], names if follow else names[:-1])
        if stack is None or follow or not names:
            return stack[-1] if stack else None
        last = names[-1]
        if last == b"..":
            return stack[-2] if len(stack) > 1 else stack[-1]
        return (stack[-1].children or {}).get(last)


def components_kept(path: bytes) -> list[bytes]:
    """The names on a path, with `..`: what it means depends on the symlink before it."""
    return [one for one in path.split(b"/") if one not in (b"", b".")]


def _implicit(layer: int) -> Node:
    """A folder that no entry describes."""
    return Node(FOLDER, 0o755, 0, 0, 0, layer)


def _walk(root: Node, stack: list[Node], names: Sequence[bytes]) -> list[Node] | None:
    """The folders on the way, and at the end what is there, symlinks followed within the root; None: nothing there."""
    left = list(reversed(names))
    followed = 0
    while left:
        name = left.pop()
        children = stack[-1].children
        if children is None:
            return None
        if name == b"..":
            if len(stack) > 1:
                stack.pop()
            continue
        child = children.get(name)
        if child is None:
            return None
        if child.kind == SYMLINK:
            followed += 1
            if followed > MAX_FOLLOWED:
                return None
            if child.link.startswith(b"/"):
                stack = [root]
            left += reversed(components_kept(child.link))
        else:
            stack = [*stack, child]
    return stack


class _Applied:
    """One layer on its way into a tree."""

    def __init__(self, tree: Tree, content: LayerContent) -> None:
        self._tree = tree
        self._content = content
        self._layer = tree.layers + 1
        self._folders: dict[bytes, Node] = {}  # by the path as an entry spells it
        self._placed: dict[tuple[Node, bytes], int] = {}  # (folder, name) → where the layer placed it
        self._links: dict[bytes, Node] = {}  # aufs: what several names share

    def run(self) -> None:
        added: list[tuple[Entry, list[bytes]]] = []
        for entry in strict(self._content):
            self._tree.count(self._content, entry)
            if entry.type == VOLUME:
                continue
            names = components(entry.name)
            check_path(self._content, entry, names)
            if len(names) > MAX_DEPTH:
                raise refuse(self._content, entry, f"more than {MAX_DEPTH} folders deep")
            hidden = [name for name in names if name.startswith(_WHITEOUT)] if _WHITEOUT in entry.name else ()
            if not hidden:
                added.append((entry, names))
            elif names[0] == _LINKS and len(names) == 2 and entry.type in (b"0", b"7"):
                self._links[names[1]] = node_of(self._content, entry, self._layer)
            elif len(hidden) > 1 or not names[-1].startswith(_WHITEOUT):
                if not hidden[0].startswith(_META):
                    raise refuse(self._content, entry, "invalid whiteout: it has entries below it")
            else:
                self._whiteout(entry, names)
        for entry, names in added:
            self._place(entry, names)

    def _whiteout(self, entry: Entry, names: list[bytes]) -> None:
        """Hide what lies below the layer. What was hidden already, or never there, is no error."""
        name = names[-1]
        if name.startswith(_META) and name != _OPAQUE:
            return  # aufs' own
        folder = self._tree.root
        for one in names[:-1]:
            child = (folder.children or {}).get(one)
            if child is None or child.kind != FOLDER:
                return  # also below a symlink: the path names no file of the layers below
            folder = child
        if folder.children is None:
            return
        if name == _OPAQUE:
            folder.children.clear()
            return
        target = name[len(_WHITEOUT) :]
        if target in (b"", b".", b".."):
            raise refuse(self._content, entry, "invalid whiteout")
        folder.children.pop(target, None)

    def _place(self, entry: Entry, names: list[bytes]) -> None:
        if not names:
            self._place_root(entry)
            return
        folder = self._folder(entry, names[:-1])
        name = names[-1]
        if (folder, name) in self._placed:
            first = self._placed[folder, name]
            raise refuse(
                self._content, entry, f"duplicates of file paths not supported: the first is at offset {first}"
            )
        self._placed[folder, name] = entry.header
        children = folder.children
        if children is None:
            raise refuse(self._content, entry, "a name below something that is no folder")
        old = children.get(name)
        if entry.type == b"1":
            node = self._linked(entry)
        else:
            node = node_of(self._content, entry, self._layer)
            if node.kind == FOLDER and old is not None and old.kind == FOLDER:
                node.children = old.children
        if old is not None and old.kind == FOLDER:
            self._folders.clear()  # it may be one of them
            if node.kind == FOLDER:
                _overwrite(old, node)
                return
        children[name] = node

    def _place_root(self, entry: Entry) -> None:
        if entry.type != FOLDER:
            raise refuse(self._content, entry, "the root must be a folder")
        if (self._tree.root, b"") in self._placed:
            raise refuse(self._content, entry, "duplicates of file paths not supported")
        self._placed[self._tree.root, b""] = entry.header
        node = node_of(self._content, entry, self._layer)
        _overwrite(self._tree.root, node)

    def _folder(self, entry: Entry, names: list[bytes]) -> Node:
        """The folder that an entry belongs to; made where there is none."""
        if not names:
            return self._tree.root
        path = b"/".join(names)
        found = self._folders.get(path)
        if found is not None:
            return found
        stack = [self._tree.root]
        for name in names:
            children = stack[-1].children
            if children is None:
                raise refuse(self._content, entry, "a name below something that is no folder")
            child = children.get(name)
            if child is None or (child.kind != FOLDER and child.layer != self._layer):
                child = children[name] = _implicit(self._layer)  # what lies below gives way
            elif child.kind == SYMLINK:
                end = _walk(self._tree.root, list(stack), [name])
                if end is None or end[-1].kind != FOLDER:
                    raise refuse(self._content, entry, f"its folder {shown(path)} is a symlink to nothing")
                stack = end
                continue
            elif child.kind != FOLDER:
                raise refuse(self._content, entry, f"its folder {shown(path)} is a file of this layer")
            stack.append(child)
        self._folders[path] = stack[-1]
        return stack[-1]

    def _linked(self, entry: Entry) -> Node:
        """What a hard link leads to, in this layer or below."""
        names = components(entry.link)
        if len(names) == 2 and names[0] == _LINKS and names[1] in self._links:
            return self._links[names[1]]
        found: Node | None = None
        if names:
            stack = _walk(self._tree.root, [self._tree.root], names[:-1])
            found = (stack[-1].children or {}).get(names[-1]) if stack else None
        if found is None:
            raise refuse(self._content, entry, f"hard link to {shown(entry.link)}, which is not there")
        if found.kind == FOLDER:
            raise refuse(self._content, entry, f"hard link to {shown(entry.link)}, which is a folder")
        return found


def _overwrite(folder: Node, node: Node) -> None:
    """A folder keeps what is in it and takes another's attributes."""
    folder.mode, folder.uid, folder.gid, folder.mtime = node.mode, node.uid, node.gid, node.mtime
    folder.xattrs, folder.layer = node.xattrs, node.layer
