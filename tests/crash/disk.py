"""What a disk may hold after the power went out: a file system of which only the synced is certain.

It is fed with the calls of a traced command. A file's bytes are safe once that file was synced, a name once its folder
was; all else may be there or not, in any mixture, writes also in part. That is less than ext4, XFS or Btrfs promise
(they keep name changes in order), and all that POSIX does.
"""

from __future__ import annotations

import copy
import hashlib
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TypeAlias

from tracing import Call

SECTOR = 512
VOLATILE = ("-shm",)
"""Endings of files that are shared memory and not meant to outlive a process."""


@dataclass(slots=True, eq=False)
class File:
    """`safe`: the bytes as last synced; `later`: (offset, bytes) written and (size, None) cut since."""

    safe: bytes = b""
    later: list[tuple[int, bytes | None]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Folder:
    """`now`: names as the running system sees them; `later`: changes since the last sync, each a whole."""

    now: dict[str, Node] = field(default_factory=dict)
    safe: dict[str, Node] = field(default_factory=dict)
    later: list[dict[str, Node | None]] = field(default_factory=list)

    def change(self, edits: dict[str, Node | None]) -> None:
        _edit(self.now, edits)
        self.later.append(edits)


Node: TypeAlias = File | Folder
Tree: TypeAlias = "dict[str, bytes | Tree]"
Keep: TypeAlias = Callable[[], bool]
"""Decides of one unsynced thing whether it reached the disk."""


class Disk:
    """The content of a folder, all of it synced to begin with: that of `content`, which the calls name `root`."""

    def copy(self, root: Path) -> Disk:
        """The same, which from here on the calls name `root`."""
        other = copy.deepcopy(self)
        other._root = os.path.realpath(root)
        return other

    def __init__(self, root: Path, content: Path) -> None:
        self._root = os.path.realpath(root)
        self._top = _read(content)

    def apply(self, call: Call) -> None:
        """One call that was carried out."""
        if not call.done or call.path.endswith(VOLATILE):
            return
        match call.kind:
            case "write" | "truncate" | "sync":
                self._on_open_file(call)
            case "create":
                folder, name = self._parent(call.path)
                node = folder.now.get(name)
                if node is None:
                    folder.change({name: File()})
                elif call.length:  # O_TRUNC
                    _file(node, call).later.append((0, None))
            case "mkdir":
                folder, name = self._parent(call.path)
                folder.change({name: Folder()})
            case "unlink" | "rmdir":
                folder, name = self._parent(call.path)
                folder.change({name: None})
            case "link":
                here, name = self._parent(call.path)
                there, other = self._parent(call.other)
                there.change({other: here.now[name]})
            case "rename":
                self._rename(call)
            case _:
                raise NotImplementedError(call.kind)

    def _on_open_file(self, call: Call) -> None:
        node = None if call.path.endswith(" (deleted)") else self._find(call.path)
        if node is None:
            return
        if call.kind == "sync" and isinstance(node, Folder):
            node.safe, node.later = dict(node.now), []
        elif call.kind == "sync":
            file = _file(node, call)
            file.safe, file.later = _content(file, lambda: True), []
        else:
            _file(node, call).later.append((call.offset, call.data) if call.kind == "write" else (call.length, None))

    def _rename(self, call: Call) -> None:
        here, name = self._parent(call.path)
        there, other = self._parent(call.other)
        node = here.now[name]
        if here is there:
            here.change({name: None, other: node})
        else:  # may be torn: under both names, or under none
            here.change({name: None})
            there.change({other: node})

    def _parent(self, path: str) -> tuple[Folder, str]:
        pure = PurePath(path)
        node = self._find(str(pure.parent))
        if not isinstance(node, Folder):
            raise KeyError(f"{path} lies in no known folder")
        return node, pure.name

    def _find(self, path: str) -> Node | None:
        node: Node | None = self._top if path == self._root or path.startswith(self._root + "/") else None
        for name in PurePath(path).relative_to(self._root).parts if node is not None else ():
            node = node.now.get(name) if isinstance(node, Folder) else None
        return node

    # -- after the crash

    def left(self, how: str, seed: object = 0) -> Tree:
        """What is found after a crash now. `how`: "none" of what was not synced is there; all "names" but no data;
        all "data" but no names; "some" of both, by `seed`; "all"."""
        chance = random.Random(f"{how} {seed}")
        names: Keep
        data: Keep
        match how:
            case "none" | "names" | "data" | "all":
                names, data = (lambda: how in ("names", "all")), (lambda: how in ("data", "all"))
            case "some":
                names = data = lambda: chance.random() < 0.5
            case _:
                raise ValueError(how)
        return _tree(self._top, names, data)


def digest(tree: Tree) -> bytes:
    """The same for the same content."""
    sha = hashlib.sha256()
    for name in sorted(tree):
        node = tree[name]
        content = node if isinstance(node, bytes) else digest(node)
        sha.update(f"{name}\0{len(content)}\0{isinstance(node, bytes)}".encode())
        sha.update(content)
    return sha.digest()


def write(tree: Tree, target: Path) -> None:
    """Make the files of `tree` in a folder that is not there yet."""
    target.mkdir(parents=True)
    for name, node in tree.items():
        if isinstance(node, bytes):
            (target / name).write_bytes(node)
        else:
            write(node, target / name)


def _read(path: Path) -> Folder:
    folder = Folder()
    for entry in path.iterdir():
        if entry.name.endswith(VOLATILE):
            continue
        folder.now[entry.name] = _read(entry) if entry.is_dir() else File(entry.read_bytes())
    folder.safe = dict(folder.now)
    return folder


def _file(node: Node, call: Call) -> File:
    if not isinstance(node, File):
        raise TypeError(f"{call.name} of a folder: {call.path}")
    return node


def _edit(names: dict[str, Node], edits: dict[str, Node | None]) -> None:
    for name, node in edits.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def _tree(folder: Folder, names: Keep, data: Keep) -> Tree:
    found = dict(folder.safe)
    for edits in folder.later:
        if names():
            _edit(found, edits)
    return {
        name: _content(node, data) if isinstance(node, File) else _tree(node, names, data)
        for name, node in found.items()
    }


def _content(file: File, keep: Keep) -> bytes:
    found = bytearray(file.safe)
    for offset, piece in file.later:
        if piece is None:
            if keep():
                del found[offset:]
                found.extend(bytes(offset - len(found)))
            continue
        end = offset + len(piece)
        at = offset
        while at < end:
            stop = min(end, (at // SECTOR + 1) * SECTOR)
            if keep():
                found.extend(bytes(max(0, stop - len(found))))
                found[at:stop] = piece[at - offset : stop - offset]
            at = stop
    return bytes(found)
