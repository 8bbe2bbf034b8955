"""Layers applied one on the other, in memory: the merged tree that a container would see. O(entries).

Whiteouts of a layer go first and hide only what lies below it; then its entries are placed. Nothing is ever outside of
the tree: paths are taken apart here, `..` ends at the root, and a link is followed only where an entry is placed below
a symlink of its own layer, and then inside the tree. Rules: OCI image-spec, layer.md; BEHAVIOUR §5.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import LimitExceeded
from ..kernels.tarscan import Entry
from .entries import MAX_NAME, VOLUME, LayerContent, check_names, node_of, normal, refuse, shown, strict
from .node import FOLDER, SYMLINK, Node, walk

MAX_ENTRIES = 1 << 22
"""Of all layers of one image, folders that no entry describes included."""
MAX_DEPTH = 500
"""Folders in one another: each takes a descriptor while a tree is written."""
MAX_FOLLOWED = 40
"""Symlinks on one path, as Linux has it."""

_WHITEOUT = b".wh."
_META = b".wh..wh."
_OPAQUE = b".wh..wh..opq"
_LINKS = b".wh..wh.plnk"
"""Where aufs kept files with several names; the names are hard links to it."""


class Tree:
    """A merged tree; `apply` layers from the lowest up. `root` is its folder."""

    def __init__(self) -> None:
        self.root = _implicit()
        self.layers = 0
        self._entries = 0

    def apply(self, content: LayerContent) -> None:
        """One more layer on top. BadInput, LimitExceeded: it cannot be applied; the tree is not to be used then."""
        _Applied(self, content).run()
        self.layers += 1

    def count(self, content: LayerContent, more: int) -> None:
        """So many more entries are there, or folders made."""
        self._entries += more
        if self._entries > MAX_ENTRIES:
            raise LimitExceeded(f"more than {MAX_ENTRIES} entries", what=content.what)

    def find(self, path: bytes, *, follow: bool = True) -> Node | None:
        """What a path leads to, symlinks followed inside the tree; the last one only with `follow`. None: nothing."""
        names = _components(path)
        stack = _walk(self.root, [self.root], names if follow else names[:-1])
        if stack is None or follow or not names:
            return stack[-1] if stack else None
        last = names[-1]
        if last == b"..":
            return stack[-2] if len(stack) > 1 else stack[-1]
        return (stack[-1].children or {}).get(last)


def _components(path: bytes) -> list[bytes]:
    """The names on a path, with `..`: what it means depends on the symlink before it."""
    return [one for one in path.split(b"/") if one not in (b"", b".")]


def _implicit() -> Node:
    """A folder that no entry describes."""
    return Node(FOLDER, 0o755, 0, 0, 0, 0)


def _walk(root: Node, stack: list[Node], names: Sequence[bytes]) -> list[Node] | None:
    """The folders on the way, and at the end what is there, symlinks followed within the root; None: nothing there."""
    stack = list(stack)
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
            left += reversed(_components(child.link))
        else:
            stack.append(child)
    return stack


class _Applied:
    """One layer on its way into a tree."""

    def __init__(self, tree: Tree, content: LayerContent) -> None:
        self._tree = tree
        self._root = tree.root
        self._content = content
        self._layer = tree.layers + 1
        self._folders: dict[bytes, Node] = {}  # by normal path
        self._linked: set[tuple[Node, bytes]] = set()  # (folder, name) of hard links
        self._shared: dict[bytes, Node] = {}  # aufs: what several names share

    def run(self) -> None:
        self._tree.count(self._content, len(self._content.entries))
        added: list[tuple[Entry, bytes]] = []
        for entry in strict(self._content):
            name, link = entry.name, entry.link
            if len(name) > MAX_NAME or link or b"\0" in name:
                check_names(self._content, entry)
            path = normal(name)
            if _WHITEOUT in path and self._meant(entry, path):
                continue
            if entry.type != VOLUME:
                added.append((entry, path))
        for entry, path in added:
            self._place(entry, path)

    def _meant(self, entry: Entry, path: bytes) -> bool:
        """Is this an entry that hides another, or one of aufs' own? Then it has its effect."""
        names = path.split(b"/")
        hidden = [name for name in names if name.startswith(_WHITEOUT)]
        if not hidden:
            return False
        if names[0] == _LINKS and len(names) == 2 and entry.type in (b"0", b"7"):
            self._shared[names[1]] = node_of(self._content, entry, self._layer)
        elif len(hidden) == 1 and names[-1] is hidden[0]:
            self._whiteout(entry, names)
        elif not hidden[0].startswith(_META) or hidden[0] == _OPAQUE:
            raise refuse(self._content, entry, "invalid whiteout: an entry below it")
        return True

    def _whiteout(self, entry: Entry, names: list[bytes]) -> None:
        """Hide what lies below the layer. What was hidden already, or never there, is no error."""
        name = names[-1]
        if name.startswith(_META) and name != _OPAQUE:
            return  # aufs' own
        target = name[len(_WHITEOUT) :]
        if target in (b"", b".", b".."):
            raise refuse(self._content, entry, "invalid whiteout")
        folder = self._root
        for one in names[:-1]:
            child = (folder.children or {}).get(one)
            if child is None or child.kind != FOLDER:
                return  # also below a symlink: the path names no file of the layers below
            folder = child
        if folder.children is None:
            return
        if name == _OPAQUE:
            folder.children.clear()
        else:
            folder.children.pop(target, None)

    def _place(self, entry: Entry, path: bytes) -> None:
        if not path:
            self._place_root(entry)
            return
        head, _, name = path.rpartition(b"/")
        folder = self._folders.get(head) or self._folder(entry, head)
        children = folder.children
        if children is None:
            raise refuse(self._content, entry, "a name below something that is no folder")
        old = children.get(name)
        if old is not None and self._is_mine(folder, name, old):
            raise refuse(self._content, entry, "duplicates of file paths not supported")
        if entry.type == b"1":
            node = self._target(entry)
            self._linked.add((folder, name))
        else:
            node = node_of(self._content, entry, self._layer)
        if old is not None and old.kind == FOLDER:
            if node.kind == FOLDER:
                _overwrite(old, node)
                return
            if self._in_use(old):
                raise refuse(self._content, entry, "no folder, but entries before it are in it")
            self._folders.clear()  # it, or what is in it, may be among them
        children[name] = node

    def _is_mine(self, folder: Node, name: bytes, node: Node) -> bool:
        """Whether an entry of this layer placed what is there."""
        return node.layer == self._layer or (folder, name) in self._linked

    def _in_use(self, folder: Node) -> bool:
        """Whether this layer has placed something in a folder or below."""
        folders = [folder, *(node for _, node in walk(folder) if node.kind == FOLDER)]
        return any(self._is_mine(one, name, node) for one in folders for name, node in (one.children or {}).items())

    def _place_root(self, entry: Entry) -> None:
        if entry.type != FOLDER:
            raise refuse(self._content, entry, "the root must be a folder")
        if self._root.layer == self._layer:
            raise refuse(self._content, entry, "duplicates of file paths not supported")
        _overwrite(self._root, node_of(self._content, entry, self._layer))

    def _folder(self, entry: Entry, path: bytes) -> Node:
        """The folder of that path; made where there is none."""
        if not path:
            return self._root
        stack = [self._root]
        for name in path.split(b"/"):
            children = stack[-1].children
            if children is None:
                raise refuse(self._content, entry, "a name below something that is no folder")
            child = children.get(name)
            if child is None or (child.kind != FOLDER and not self._is_mine(stack[-1], name, child)):
                self._tree.count(self._content, 1)
                child = children[name] = _implicit()  # what lies below gives way
            elif child.kind == SYMLINK:
                end = _walk(self._root, stack, [name])
                if end is None or end[-1].kind != FOLDER:
                    raise refuse(self._content, entry, f"its folder {shown(path)} is a symlink to nothing")
                stack = end
                continue
            elif child.kind != FOLDER:
                raise refuse(self._content, entry, f"its folder {shown(path)} is a file of this layer")
            stack.append(child)
        if len(stack) > MAX_DEPTH:  # also by way of symlinks
            raise refuse(self._content, entry, f"more than {MAX_DEPTH} folders deep")
        self._folders[path] = stack[-1]
        return stack[-1]

    def _target(self, entry: Entry) -> Node:
        """What a hard link leads to, in this layer or below."""
        path = normal(entry.link)
        head, _, name = path.rpartition(b"/")
        if head == _LINKS and name in self._shared:
            return self._shared[name]
        found: Node | None = None
        if name:
            stack = _walk(self._root, [self._root], head.split(b"/") if head else [])
            found = (stack[-1].children or {}).get(name) if stack else None
        if found is None:
            raise refuse(self._content, entry, f"hard link to {shown(entry.link)}, which is not there")
        if found.kind == FOLDER:
            raise refuse(self._content, entry, f"hard link to {shown(entry.link)}, which is a folder")
        return found


def _overwrite(folder: Node, node: Node) -> None:
    """A folder keeps what is in it and takes another's attributes."""
    folder.mode, folder.uid, folder.gid, folder.mtime = node.mode, node.uid, node.gid, node.mtime
    folder.xattrs, folder.layer = node.xattrs, node.layer
