"""A merged tree written into a folder.

Every name is created relative to a descriptor of its parent that was opened without following links; the tree itself
has no links on its paths. So nothing is ever written outside, whoever else works in that folder meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ..errors import BadInput, CasstoreError, Conflict, OutOfSpace
from ..model import Buffer
from .entries import shown
from .node import BLOCK, CHARACTER, FIFO, FILE, FOLDER, SYMLINK, Node, walk

_TYPES = {CHARACTER: stat.S_IFCHR, BLOCK: stat.S_IFBLK, FIFO: stat.S_IFIFO}
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_REFUSED = (errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EINVAL)
"""What a file system, or the lack of a privilege, answers to owners, devices and attributes that it does not take."""
_TOO_MUCH = (errno.ENOSPC, errno.E2BIG, errno.ERANGE)
"""And to an attribute for which a file has no room."""


@dataclass(slots=True)
class Unpacked:
    """What was written (files of all kinds, bytes), and the paths of what could not be made as the image has it:
    owners, devices, extended attributes."""

    files: int = 0
    size: int = 0
    owners: list[str] = field(default_factory=list)
    devices: list[str] = field(default_factory=list)
    xattrs: list[str] = field(default_factory=list)


class Bytes:
    """The files' bytes as one stream, to be taken in pieces."""

    def __init__(self, buffers: Iterator[memoryview]) -> None:
        self._buffers = buffers
        self._left = memoryview(b"")

    def take(self, count: int) -> Iterator[memoryview]:
        """The next `count` bytes."""
        while count:
            if not self._left:
                self._left = next(self._buffers, memoryview(b""))
                if not self._left:
                    raise BadInput("unexpected EOF")
            piece = self._left[:count]
            self._left = self._left[len(piece) :]
            count -= len(piece)
            yield piece


def wanted(root: Node) -> Iterator[tuple[int, int, int]]:
    """(layer, where, bytes) of the files' content, in the order in which `write` takes it."""
    seen: set[Node] = set()
    for _, node in walk(root):
        if node.kind == FILE and node.stored and node not in seen:
            seen.add(node)
            yield node.layer - 1, node.data, node.stored


def write(root: Node, path: str | os.PathLike[str], content: Bytes) -> Unpacked:
    """All of a tree into an empty folder, which is made where it is not there. Conflict: it is not empty.

    Owners, devices and attributes need root; without it the caller owns the files, and what could not be made is told.
    What was written before an error stays.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        top = os.open(path, _OPEN_FOLDER & ~os.O_NOFOLLOW)
    except OSError as error:
        raise CasstoreError(error.strerror or "cannot be made", what=str(path)) from error
    try:
        with os.scandir(top) as found:
            if any(found):
                raise Conflict("the folder is not empty", what=str(path))
        return _Writer(root, top, content).run()
    finally:
        os.close(top)


class _Writer:
    def __init__(self, root: Node, top: int, content: Bytes) -> None:
        self._root = root
        self._top = top
        self._content = content
        self._privileged = os.geteuid() == 0
        self._names: dict[Node, bytes] = {}  # files that have one already
        self._shut: list[tuple[bytes, int]] = []  # folders whose mode would shut out their owner, and that mode
        self._told = Unpacked()

    def run(self) -> Unpacked:
        """Folder by folder, each finished (its mode and time set) when all in it is there."""
        open_folders = [(b"", self._root, self._top)]
        try:
            for path, node in walk(self._root):
                parent, _, name = path.rpartition(b"/")
                while open_folders[-1][0] != parent:
                    self._leave(*open_folders.pop())
                folder = open_folders[-1][2]
                try:
                    if node.kind == FOLDER:
                        os.mkdir(name, 0o700, dir_fd=folder)
                        open_folders.append((path, node, os.open(name, _OPEN_FOLDER, dir_fd=folder)))
                    else:
                        self._make(path, name, node, folder)
                except OSError as error:
                    raise _failed(error, path) from error
                self._told.files += 1
            while len(open_folders) > 1:
                self._leave(*open_folders.pop())
            self._finish_folder(b"", self._root, self._top)
            self._shut_folders()
        finally:
            for _, _, descriptor in open_folders[1:]:
                os.close(descriptor)
        return self._told

    def _leave(self, path: bytes, node: Node, descriptor: int) -> None:
        try:
            self._finish_folder(path, node, descriptor)
        finally:
            os.close(descriptor)

    def _finish_folder(self, path: bytes, node: Node, descriptor: int) -> None:
        try:
            self._attributes(path, node, descriptor)
        except OSError as error:
            raise _failed(error, path) from error

    def _make(self, path: bytes, name: bytes, node: Node, folder: int) -> None:
        told = self._names.get(node)
        if told is not None:
            *folders, last = told.split(b"/")
            with self._opened(folders) as there:
                os.link(last, name, src_dir_fd=there, dst_dir_fd=folder, follow_symlinks=False)
            return
        if node.kind == FILE:
            handle = os.open(name, _NEW_FILE, 0o600, dir_fd=folder)
            try:
                self._write(handle, node)
                self._attributes(path, node, handle)
            finally:
                os.close(handle)
        elif node.kind == SYMLINK:
            os.symlink(node.link, name, dir_fd=folder)
            self._by_name(path, name, node, folder)
        else:
            try:
                os.mknod(name, 0o600 | _TYPES[node.kind], os.makedev(*node.device), dir_fd=folder)
            except OSError as error:
                if error.errno not in _REFUSED or node.kind == FIFO:
                    raise
                self._told.devices.append(_name(path))
                return
            self._by_name(path, name, node, folder)
        self._names[node] = path

    @contextmanager
    def _opened(self, folders: Sequence[bytes]) -> Iterator[int]:
        """A folder that was left, found again from the top, step by step."""
        at = self._top
        try:
            for one in folders:
                step = os.open(one, _OPEN_FOLDER, dir_fd=at)
                if at != self._top:
                    os.close(at)
                at = step
            yield at
        finally:
            if at != self._top:
                os.close(at)

    def _shut_folders(self) -> None:
        """The modes that were put off."""
        for path, mode in self._shut:  # what is below was left first
            try:
                with self._opened(path.split(b"/") if path else ()) as folder:
                    os.fchmod(folder, mode)
            except OSError as error:
                raise _failed(error, path) from error

    def _write(self, handle: int, node: Node) -> None:
        self._told.size += node.stored
        if node.extents is None:
            for piece in self._content.take(node.size):
                _all(handle, piece)
            return
        for offset, length in node.extents:
            os.lseek(handle, offset, os.SEEK_SET)
            for piece in self._content.take(length):
                _all(handle, piece)
        os.ftruncate(handle, node.size)

    def _attributes(self, path: bytes, node: Node, handle: int) -> None:
        """Owner, attributes, mode and times, in this order: a new owner clears setuid and capabilities."""
        if self._privileged:
            self._allowed(self._told.owners, path, os.fchown, handle, node.uid, node.gid)
        elif (node.uid, node.gid) != (os.geteuid(), os.getegid()):
            self._told.owners.append(_name(path))
        for key, value in node.xattrs.items():
            self._allowed(self._told.xattrs, path, os.setxattr, handle, key, value)
        mode = node.mode
        if node.kind == FOLDER and not self._privileged and mode & 0o700 != 0o700:
            self._shut.append((path, mode))  # names of files in it may still be looked up
            mode |= 0o700
        os.fchmod(handle, mode)
        os.utime(handle, ns=(node.mtime, node.mtime))

    def _by_name(self, path: bytes, name: bytes, node: Node, folder: int) -> None:
        """The same for what cannot be opened: a symlink, a device, a FIFO."""
        if self._privileged:
            chown = partial(os.chown, dir_fd=folder, follow_symlinks=False)
            self._allowed(self._told.owners, path, chown, name, node.uid, node.gid)
        elif (node.uid, node.gid) != (os.geteuid(), os.getegid()):
            self._told.owners.append(_name(path))
        if node.xattrs:
            setxattr = partial(os.setxattr, follow_symlinks=False)
            for key, value in node.xattrs.items():
                self._allowed(self._told.xattrs, path, setxattr, b"/proc/self/fd/%d/%s" % (folder, name), key, value)
        if node.kind != SYMLINK:
            handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            try:
                Path(f"/proc/self/fd/{handle}").chmod(node.mode)
            finally:
                os.close(handle)
        os.utime(name, ns=(node.mtime, node.mtime), dir_fd=folder, follow_symlinks=False)

    def _allowed(self, told: list[str], path: bytes, function: Callable[..., None], *arguments: object) -> None:
        """Do it; what is not allowed here is told."""
        try:
            function(*arguments)
        except OSError as error:
            if error.errno not in _REFUSED and not (told is self._told.xattrs and error.errno in _TOO_MUCH):
                raise
            if not told or told[-1] != _name(path):
                told.append(_name(path))


def _all(handle: int, data: Buffer) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def _name(path: bytes) -> str:
    return shown(path) or "/"


def _failed(error: OSError, path: bytes) -> CasstoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutOfSpace("no space left", what=_name(path))
    return CasstoreError(error.strerror or "cannot be made", what=_name(path))
