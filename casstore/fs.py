"""Files inside images, for whatever opens files through fsspec: pandas, pyarrow, dask, …

    pandas.read_csv("casstore://app:v1/srv/data.csv", storage_options={"store": "/srv/images"})

Needs `casstore[fsspec]`. Nothing is unpacked: a file is read where it lies, from any offset.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from . import api
from .digest import Digest
from .errors import InvalidReference, NotFound, UsageError
from .image.merged import Merged
from .oci import reference
from .rootfs.node import FILE, FOLDER, SYMLINK, Node

IMAGES = 4
"""Images that stay open when no file of theirs is."""
IDLE = 30.0
"""Seconds that they do: meanwhile `gc` removes nothing that was in use when they were opened."""
_SHORTEST_ID = 12
_LONGEST_NAME = 1024


class _Where(NamedTuple):
    """A path taken apart: the reference as it was written, what it means now, and the path inside of the image."""

    given: str
    image: Digest
    inside: str


class CasstoreFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The images of a store, read-only: `casstore://REFERENCE/PATH`.

    `store`: the store's folder. It may also come last in the URL (`casstore://app:v1/data.csv::/srv/images`) or from
    fsspec's own configuration (`FSSPEC_CASSTORE_STORE=/srv/images`). `images`: how many images stay open (default 4).

    Where the reference ends and the path begins: references may have slashes themselves. The shortest beginning of the
    URL, cut at a slash, that has a tag or a digest (or is `sha256:…`) and is an image of the store is the reference;
    where none is, the shortest beginning that is one by itself: a name whose tag is `latest`, or an image ID of 12
    digits or more. Spell the tag out where one name begins another.

    A path is looked up as a container of the image would, symlinks followed within the image. `ls` has a symlink to a
    file as that file (with `islink`), any other as a "link"; `walk`, `find` and `glob` do not go into folders by way of
    one. `find` and `glob` have only what exists and can be read. The folders above images are those of names with tags.

    A tag that moves is noticed at the next call. Files that are open stay what they were. Thread-safe; may be pickled
    and carried across a fork: each process opens the store for itself.

    FileNotFoundError, IsADirectoryError, OSError as any file system; CasstoreError where the store or an image cannot
    be read.
    """

    protocol = "casstore"
    root_marker = ""

    def __init__(
        self,
        store: str | Path | None = None,
        *,
        images: int = IMAGES,
        fo: str | None = None,
        target_protocol: str | None = None,
        target_options: object = None,
        **more: Any,
    ) -> None:
        super().__init__(**more)
        if store is None and target_protocol in (None, "file", "local"):
            store = fo
        if not store:
            raise UsageError(
                "which store is not said", what="casstore://", hint='storage_options={"store": DIR}, or URL::DIR'
            )
        self.store = Path(store)
        self._images = _Images(self.store, images)
        weakref.finalize(self, self._images.close)

    def close(self) -> None:
        """Close the store and all images; they open again when they are needed. No file may be open."""
        self._images.close()

    # -- paths

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        found = super()._strip_protocol(path)
        return found if isinstance(found, list) else found.lstrip("/")

    def _where(self, path: str) -> _Where | None:
        """What a path names; None where it is no image's."""
        parts = [part for part in path.split("/") if part]
        for explicit in (True, False):
            for count in range(1, len(parts) + 1):
                given = "/".join(parts[:count])
                if len(given) > _LONGEST_NAME:
                    break
                if _is_explicit(parts[count - 1]) == explicit:
                    image = self._images.identify(given)
                    if image is not None:
                        return _Where(given, image, "/".join(parts[count:]))
        return None

    def _names(self, folder: str) -> set[str]:
        """What is below a folder of names, one step; empty where it is none."""
        prefix = f"{folder}/" if folder else ""
        return {name[len(prefix) :].partition("/")[0] for name in self._images.names() if name.startswith(prefix)}

    @contextmanager
    def _at(self, path: str) -> Iterator[tuple[_Where, Merged, Node]]:
        """What a path leads to. FileNotFoundError."""
        where = self._where(path)
        if where is None:
            raise _missing(path, f"{_meant(path)}: no such image in {self.store}")
        with self._images.using(where.image) as merged:
            try:
                node = merged.node(where.inside)
            except NotFound:
                raise _missing(path) from None
            yield where, merged, node

    # -- what is there

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """`name`, `size` (bytes), `type`: file, directory, link or other; and for what is in an image `mode`, `uid`,
        `gid`, `mtime` (seconds since 1970), `islink`, and a symlink's `destination`. Of a symlink: what it leads to."""
        path = self._strip_protocol(path)
        if self._where(path) is None and (not path or self._names(path)):
            return _folder(path)
        with self._at(path) as (where, merged, node):
            named = merged.node(where.inside, follow=False)
            return _info(path, node, named)

    def exists(self, path: str, **_: Any) -> bool:
        """Is there something? Of a symlink: does it lead to something?"""
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """What is in a folder, by name; anything else alone."""
        path = self._strip_protocol(path)
        names = sorted(self._names(path)) if self._where(path) is None else []
        if names or not path:
            found = [_folder(f"{path}/{name}" if path else name) for name in names]
        else:
            with self._at(path) as (where, merged, node):
                if node.kind != FOLDER:
                    found = [_info(path, node, merged.node(where.inside, follow=False))]
                else:
                    found = [
                        _listed(f"{path}/{_text(name)}", merged, f"{where.inside}/{_text(name)}", child)
                        for name, child in sorted((node.children or {}).items())
                    ]
        return found if detail else [one["name"] for one in found]

    def find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, **_: Any
    ) -> Any:
        """The files below a path, and with `withdirs` its folders: names, or with `detail` their `info` by name."""
        if maxdepth is not None and maxdepth < 1:
            raise ValueError("maxdepth must be at least 1")
        path = self._strip_protocol(path)
        found: dict[str, dict[str, Any]] = {}
        try:
            top = self.info(path)
        except FileNotFoundError:
            top = {"type": ""}
        if top["type"] == "file" or (withdirs and path and top["type"] == "directory"):
            found[path] = top
        if top["type"] == "directory":
            for info in self._below(path, maxdepth):
                if info["type"] == "file" or (withdirs and _leads_to_folder(info)):
                    found[info["name"]] = info
        names = sorted(found)
        return {name: found[name] for name in names} if detail else names

    def _below(self, path: str, maxdepth: int | None) -> Iterator[dict[str, Any]]:
        if self._where(path) is None:
            for info in self.ls(path):
                yield info
                if maxdepth is None or maxdepth > 1:
                    yield from self._below(info["name"], None if maxdepth is None else maxdepth - 1)
            return
        with self._at(path) as (where, merged, node):
            for below, child in _walk(node, maxdepth):
                yield _listed(f"{path}/{_text(below)}", merged, f"{where.inside}/{_text(below)}", child)

    def modified(self, path: str) -> datetime:
        """When a file was changed last, as its layer says, in UTC."""
        with self._at(self._strip_protocol(path)) as (_, _, node):
            return datetime.fromtimestamp(node.mtime / 1e9, UTC)

    def ukey(self, path: str) -> str:
        """The same for the same bytes at the same place of the same layer, whatever the image is called."""
        with self._at(self._strip_protocol(path)) as (where, merged, node):
            if node.kind != FILE:
                return hashlib.sha256(f"{where.image} {where.inside}".encode("utf-8", "surrogateescape")).hexdigest()
            layer = merged.contents[node.layer - 1].what
            return hashlib.sha256(f"{layer} {node.data} {node.size} {node.extents}".encode()).hexdigest()

    def checksum(self, path: str) -> int:
        """`ukey` as a number."""
        return int(self.ukey(path), 16)

    # -- bytes

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """A file's bytes [start, end), from its end where negative."""
        path = self._strip_protocol(path)
        with self._at(path) as (_where, merged, node):
            _must_be_file(path, node)
            low, high, _step = slice(start, end).indices(node.size)
            return b"".join(merged.read(node, low, high))

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: dict[str, Any] | None = None,
        **more: Any,
    ) -> CasstoreFile:
        if mode != "rb":
            self._refuse(path)
        return CasstoreFile(self, path, block_size=block_size, cache_options=cache_options, **more)

    def _refuse(self, path: Any, *_: Any, **__: Any) -> NoReturn:
        """What would change an image."""
        raise OSError(errno.EROFS, "images are read-only", str(path))

    mkdir = makedirs = rmdir = rm = rm_file = _rm = _refuse
    cp_file = mv = touch = pipe_file = put_file = _refuse


class CasstoreFile(AbstractBufferedFile):  # type: ignore[misc]
    """A file inside an image, open for reading: as it was when it was opened, whatever happens to the image's name."""

    DEFAULT_BLOCK_SIZE = 1 << 20

    def __init__(self, fs: CasstoreFileSystem, path: str, mode: str = "rb", **more: Any) -> None:
        with fs._at(path) as (where, merged, node):
            _must_be_file(path, node)
            self._node = node
            self._image = where.image
            self.details = _info(path, node, merged.node(where.inside, follow=False))
            super().__init__(fs, path, mode, **more | {"size": node.size})
            self._hold: _Image | None = fs._images.hold(where.image)

    def _fetch_range(self, start: int, end: int) -> bytes:
        with self.fs._images.using(self._image) as merged:
            return b"".join(merged.read(self._node, start, end))

    def close(self) -> None:
        """Let go of the image."""
        super().close()
        hold, self._hold = getattr(self, "_hold", None), None
        if hold is not None:
            hold.release()


class _Image:
    """An image that is open, or about to be. `users`: who needs it to stay so."""

    def __init__(self, store: api.Store, digest: Digest) -> None:
        self._store = store
        self._digest = digest
        self._opening = threading.Lock()
        self._merged: Merged | None = None
        self._counting = threading.RLock()  # a file that is collected as garbage may let go at any moment
        self._users = 0
        self._since = 0.0

    def merged(self) -> Merged:
        """Its tree, opened by the first who asks."""
        with self._opening:
            if self._merged is None:
                self._merged = self._store.files(str(self._digest))
            return self._merged

    def take(self) -> None:
        with self._counting:
            self._users += 1

    def release(self) -> None:
        with self._counting:
            self._users -= 1
            self._since = time.monotonic()

    def idle(self, seconds: float = 0.0) -> bool:
        """Has nobody used it for so long?"""
        return not self._users and time.monotonic() - self._since >= seconds

    def close(self) -> None:
        if self._merged is not None:
            self._merged.close()
            self._merged = None


class _Images:
    """A store and the images of it that are open, those used last at the end. Each process has its own."""

    def __init__(self, path: Path, most: int) -> None:
        self._path = path
        self._most = most
        self._forked: list[object] = []
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._store: api.Store | None = None
        self._open: OrderedDict[Digest, _Image] = OrderedDict()
        self._sweeper: threading.Thread | None = None

    def _here(self) -> api.Store:
        """The store of this process."""
        if self._process != os.getpid():
            # What the parent opened is neither used nor closed here: connections do not survive a fork.
            self._forked += [self._store, self._open]
            self._begin()
        with self._lock:
            if self._store is None:
                self._store = api.open(self._path, create=False)
            return self._store

    def identify(self, given: str) -> Digest | None:
        """The manifest of an image; None where there is none of that name."""
        prefix = reference.id_prefix(given)
        if prefix is not None and not given.startswith("sha256:") and len(prefix) < _SHORTEST_ID:
            given += ":latest"  # a name, and no ID
        try:
            return self._here().identify(given)
        except (NotFound, InvalidReference):
            return None

    def names(self) -> list[str]:
        """All images' names."""
        return [f"{row.repository}:{row.tag}" for row in self._here().images() if row.repository is not None]

    def hold(self, digest: Digest) -> _Image:
        """An image that stays open until it is released."""
        store = self._here()
        with self._lock:
            image = self._open.get(digest)
            if image is None:
                image = self._open[digest] = _Image(store, digest)
            self._open.move_to_end(digest)
            image.take()
            spare = [key for key, one in self._open.items() if one.idle()][: max(len(self._open) - self._most, 0)]
            closing = [self._open.pop(key) for key in spare]
            if self._sweeper is None:
                self._sweeper = threading.Thread(target=self._sweep, name="idle images", daemon=True)
                self._sweeper.start()
        for one in closing:
            one.close()
        return image

    @contextmanager
    def using(self, digest: Digest) -> Iterator[Merged]:
        """An image, open meanwhile."""
        image = self.hold(digest)
        try:
            yield image.merged()
        finally:
            image.release()

    def _sweep(self) -> None:
        """Close images that nobody has used for a while, until none is open."""
        while True:
            time.sleep(IDLE / 2)
            with self._lock:
                closing = [self._open.pop(key) for key, one in list(self._open.items()) if one.idle(IDLE)]
                if not self._open:
                    self._sweeper = None
            for one in closing:
                one.close()
            if self._sweeper is not threading.current_thread():
                return

    def close(self) -> None:
        """Close everything."""
        if self._process != os.getpid():
            return
        with self._lock:
            closing, store = list(self._open.values()), self._store
            self._open.clear()
            self._store = None
        for one in closing:
            one.close()
        if store is not None:
            store.close()


# -- paths and rows


def _is_explicit(part: str) -> bool:
    """Does a reference that ends so say which tag or digest?"""
    return ":" in part or "@" in part


def _meant(path: str) -> str:
    """The image that a path most likely names, where none is found: for people."""
    parts = [part for part in path.split("/") if part]
    for count in range(len(parts), 0, -1):
        given = "/".join(parts[:count])
        if _is_explicit(parts[count - 1]):
            try:
                reference.parse(given)
            except InvalidReference:
                continue
            return given
    return parts[0] if parts else '""'


def _missing(path: str, why: str = "") -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, why or os.strerror(errno.ENOENT), path)


def _must_be_file(path: str, node: Node) -> None:
    if node.kind == FOLDER:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if node.kind != FILE:
        raise OSError(errno.EINVAL, "is not a regular file", path)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _walk(folder: Node, maxdepth: int | None) -> Iterator[tuple[bytes, Node]]:
    """(path, node) of what is below a folder, in no order."""
    left = [(b"", folder, 1)]
    while left:
        prefix, node, depth = left.pop()
        for name, child in (node.children or {}).items():
            yield prefix + name, child
            if child.kind == FOLDER and (maxdepth is None or depth < maxdepth):
                left.append((prefix + name + b"/", child, depth + 1))


_TYPES = {FILE: "file", FOLDER: "directory", SYMLINK: "link"}


def _folder(name: str) -> dict[str, Any]:
    return {"name": name, "size": 0, "type": "directory"}


def _leads_to_folder(row: dict[str, Any]) -> bool:
    return "directory" in (row["type"], row.get("leads_to"))


def _info(name: str, node: Node, named: Node) -> dict[str, Any]:
    """A row. `named`: what has the name, a symlink where it is one; `node`: what that leads to."""
    row = {
        "name": name,
        "size": node.size if node.kind == FILE else 0,
        "type": _TYPES.get(node.kind, "other"),
        "mode": node.mode,
        "uid": node.uid,
        "gid": node.gid,
        "mtime": node.mtime / 1e9,
        "islink": named.kind == SYMLINK,
    }
    if named.kind == SYMLINK:
        row["destination"] = _text(named.link)
    return row


def _listed(name: str, merged: Merged, inside: str, child: Node) -> dict[str, Any]:
    """A row of a folder: a symlink is a file where it leads to one, else a link."""
    if child.kind != SYMLINK:
        return _info(name, child, child)
    try:
        node = merged.node(inside)
    except NotFound:
        return _info(name, child, child) | {"leads_to": ""}
    row = _info(name, node, child)
    return row if row["type"] == "file" else row | {"type": "link", "leads_to": row["type"]}
