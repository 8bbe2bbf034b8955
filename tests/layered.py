"""Layers as `rootfs.tree` takes them, made from bytes, and what becomes of them, told in plain values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from casstore.kernels.tarscan import Entry, Scanner
from casstore.rootfs import archive
from casstore.rootfs.node import FILE, FOLDER, Node, walk
from casstore.rootfs.tree import Tree


class Layer:
    """One uncompressed layer; the attributes are those of rootfs.entries.LayerContent."""

    def __init__(self, data: bytes, what: str = "layer") -> None:
        scanner = Scanner(entries=True)
        scanner.feed(data)
        scanner.finish()
        self.data, self.what, self.size = data, what, len(data)
        self.ended, self.missing = scanner.ended, scanner.payload_left
        self.entries: Sequence[Entry] = scanner.pop_entries()

    def read(self, start: int, end: int) -> bytes:
        assert 0 <= start <= end <= self.size, "read beyond the layer"
        return self.data[start:end]


def applied(*layers: bytes) -> Tree:
    """The layers on one another, the lowest first."""
    tree = Tree()
    for number, data in enumerate(layers):
        tree.apply(Layer(data, f"layer {number}"))
    return tree


def stored(layers: Sequence[bytes], node: Node) -> bytes:
    """The bytes that a layer holds of a file."""
    return layers[node.layer - 1][node.data : node.data + node.stored]


def content(layers: Sequence[bytes], node: Node) -> bytes:
    """A file's bytes, holes filled."""
    held = stored(layers, node)
    if node.extents is None:
        return held
    whole, at = bytearray(node.size), 0
    for offset, length in node.extents:
        whole[offset : offset + length] = held[at : at + length]
        at += length
    return bytes(whole)


def told(layers: Sequence[bytes], tree: Tree) -> dict[bytes, tuple[Any, ...]]:
    """The tree by path: (kind, mode, uid, gid, mtime, xattrs, what it is), the last being bytes of a file, target of a
    symlink, numbers of a device; of a further name of a file (hard links) the first name."""
    names: dict[Node, bytes] = {}
    found: dict[bytes, tuple[Any, ...]] = {}
    for path, node in walk(tree.root):
        first = path if node.kind == FOLDER else names.setdefault(node, path)
        if first is not path:
            found[path] = (b"1", first)
            continue
        what = content(layers, node) if node.kind == FILE else node.link or node.device
        found[path] = (node.kind, node.mode, node.uid, node.gid, node.mtime, node.xattrs, what)
    return found


def packed(layers: Sequence[bytes], tree: Tree) -> bytes:
    """The tree as one tar."""
    return joined(layers, archive.parts(tree.root))


def joined(layers: Sequence[bytes], parts: Iterable[archive.Part]) -> bytes:
    """What parts of layers make."""
    pieces = (one if isinstance(one, bytes) else layers[one[0]][one[1] : one[1] + one[2]] for one in parts)
    return b"".join(pieces)


def only(*layers: bytes, at: bytes = b"f") -> Node:
    """What layers, merged, have at a path."""
    found = applied(*layers).find(at, follow=False)
    assert found is not None
    return found
