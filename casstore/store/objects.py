"""The only door to what lies under STORE: immutable objects under keys that are never used twice.

    STORE/objects/<key>        blobs/sha256/ab/<hex>.<8 hex> · packs/ab/<32 hex> · index/<32 hex>
    STORE/tmp/<lease id>/      staging, one folder per lease

One write ritual: stage in the lease's folder, write, check the size, fsync, rename, fsync the folders.
Everything goes by path, never by a handle on a folder: when the collector has removed a lease's folder,
whatever that lease still tries to create or to rename ends in ENOENT (LeaseLost), and no file appears that no
row knows (rule 12 of PROTOCOL.md).

Nothing here knows the catalog. Errors of the operating system come out as OutOfSpace, ReadOnlyStore,
LeaseLost or StoreUnusable, naming the key.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from ..digest import Digest
from ..errors import (
    Damaged,
    LeaseLost,
    NotFound,
    ReadOnlyStore,
    StoreUnusable,
    UsageError,
)
from ..model import Buffer
from .disk import PIECE, replace_file, sync_folder, translate, write_all

_KEY = re.compile(
    # "put": the digest was not known when the object was begun, the name is random
    r"blobs/sha256/[0-9a-f]{2}/[0-9a-f]{64}\.([0-9a-f]{8}|put)"
    r"|blobs/sha512/[0-9a-f]{2}/[0-9a-f]{128}\.[0-9a-f]{8}"
    r"|packs/(?P<c>[0-9a-f]{2})/(?P=c)[0-9a-f]{30}"
    r"|index/[0-9a-f]{32}"
)
_NAME = re.compile(r"[a-z][a-z.]{0,31}")


def loose_prefix(digest: Digest) -> str:
    """How the keys of a blob kept verbatim begin."""
    return f"blobs/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}."


def is_loose_key_of(digest: Digest, key: str) -> bool:
    """May a blob be kept verbatim under this key? Where the digest was not known in time, the key tells nothing."""
    return key.startswith(loose_prefix(digest)) or key.endswith(".put")


def loose_key(digest: Digest) -> str:
    """A fresh key for a blob kept verbatim."""
    return loose_prefix(digest) + secrets.token_hex(4)


def pack_key(pack_id: bytes) -> str:
    """The key of the pack whose header carries these 16 random bytes."""
    return f"packs/{pack_id.hex()[:2]}/{pack_id.hex()}"


def pack_id(key: str) -> bytes:
    """The inverse of `pack_key`."""
    if not (_KEY.fullmatch(key) and key.startswith("packs/")):
        raise UsageError("not the key of a pack", what=key[:200])
    return bytes.fromhex(key.rpartition("/")[2])


def index_key() -> str:
    """A fresh key for an index segment."""
    return f"index/{secrets.token_hex(16)}"


def check_key(key: str) -> str:
    """The key itself if it is one (keys become paths); else UsageError."""
    if not _KEY.fullmatch(key):
        raise UsageError("not an object key", what=repr(key[:200]))
    return key


class Staged:
    """An object being written in the staging folder of a lease. One writer; `push` may run in another
    thread."""

    def __init__(self, path: Path, key: str | None) -> None:
        self.path = path
        self.key = key
        """May be set until `publish`: a blob from a pipe learns its digest at the end. Its row must exist by
        then."""
        self.size = 0
        self._pushed = 0
        self._handle = -1
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
        except FileNotFoundError as error:
            raise LeaseLost("the staging folder is gone: the lease has ended", what=key) from error
        except OSError as error:
            raise translate(error, key or str(path)) from error

    def fileno(self) -> int:
        return self._handle

    def write(self, data: Buffer) -> int:
        """Append all of `data`; returns the offset (bytes) where it begins."""
        offset = self.size
        try:
            self.size += write_all(self._handle, data)
        except OSError as error:
            raise translate(error, self.key or str(self.path)) from error
        return offset

    def pread(self, offset: int, length: int) -> bytes:
        """Read back exactly `length` bytes of what was written."""
        return _pread(self._handle, self.key or str(self.path), self.size, offset, length)

    def push(self) -> None:
        """Have the kernel begin to write out what was written so far, so that `publish` has little left to wait for."""
        try:
            # "Not needed" begins the write-out, without waiting, and drops no page that is not written yet.
            os.posix_fadvise(self._handle, self._pushed, self.size - self._pushed, os.POSIX_FADV_DONTNEED)
            self._pushed = self.size
        except OSError as error:
            raise translate(error, self.key or str(self.path)) from error

    def close(self) -> None:
        """Close the file; its content stays in the staging folder and goes with it."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def abort(self) -> None:
        """Close and forget the file."""
        self.close()
        with contextlib.suppress(OSError):
            self.path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle >= 0:
            self.abort()

    def __del__(self) -> None:
        self.close()


class ObjectReader:
    """A published object, open for reads at offsets. Any number of threads may read at once."""

    def __init__(self, path: Path, key: str) -> None:
        self.key = key
        self._handle = -1
        try:
            self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise NotFound("no such object", what=key) from error
        except OSError as error:
            raise StoreUnusable(error.strerror or "cannot open", what=key) from error
        self.size = os.fstat(self._handle).st_size

    def fileno(self) -> int:
        return self._handle

    def pread(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`. A span past the end, or a file that shrank: Damaged."""
        return _pread(self._handle, self.key, self.size, offset, length)

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def _pread(handle: int, what: str, size: int, offset: int, length: int) -> bytes:
    if offset < 0 or length < 0 or offset + length > size:
        raise Damaged("object ends early", what=what, offset=size, hint="run casstore check")
    try:
        data = os.pread(handle, min(length, PIECE), offset)
        if len(data) == length:
            return data
        parts = [data]
        got = len(data)
        while got < length and parts[-1]:
            parts.append(os.pread(handle, min(length - got, PIECE), offset + got))
            got += len(parts[-1])
    except OSError as error:
        raise Damaged(error.strerror or "cannot read", what=what, offset=offset, hint="run casstore check") from error
    if got < length:
        raise Damaged("object was cut short", what=what, offset=offset + got, hint="run casstore check")
    return b"".join(parts)


class Objects:
    """The objects of one store. `root` is STORE; a read-only one refuses everything that would write."""

    def __init__(self, root: Path, *, read_only: bool = False) -> None:
        self.root = Path(root)
        self.read_only = read_only
        self._objects = self.root / "objects"
        self._tmp = self.root / "tmp"

    @classmethod
    def make(cls, root: Path) -> Self:
        """Make the folders where they are missing; several may do it at once. STORE is private (0700) if made
        here."""
        self = cls(root)
        try:
            fresh = [self.root, *(folder for folder in self.root.parents if not folder.exists())]
            self.root.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                self.root.mkdir(mode=0o700)
            for folder in fresh:
                with contextlib.suppress(PermissionError):  # was there already, in a folder that we may not read
                    sync_folder(folder.parent)
            for folder in (
                self._objects,
                self._tmp,
                *(self._objects / kind for kind in ("blobs", "packs", "index")),
            ):
                with contextlib.suppress(FileExistsError):
                    folder.mkdir()
            sync_folder(self._objects)
            sync_folder(self.root)
        except OSError as error:
            raise translate(error, str(self.root)) from error
        return self

    # -- staging

    def make_staging(self, lease: int) -> None:
        """Make tmp/<lease>/. The lease's row comes first, so that the collector knows whose folder it is."""
        self._writable()
        try:
            (self._tmp / str(int(lease))).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise translate(error, str(self._tmp)) from error

    def has_staging(self, lease: int) -> bool:
        return (self._tmp / str(int(lease))).is_dir()

    def stagings(self) -> list[int]:
        """The leases that have a staging folder, whether or not they still have a row."""
        try:
            return sorted(int(entry.name) for entry in os.scandir(self._tmp) if entry.name.isdecimal())
        except FileNotFoundError:
            return []

    def remove_staging(self, lease: int) -> None:
        """Remove tmp/<lease>/ and all in it; nothing can be created in or renamed from it afterwards."""
        self._writable()
        folder = self._tmp / str(int(lease))
        try:
            while True:
                try:
                    for entry in folder.iterdir():
                        entry.unlink(missing_ok=True)
                    folder.rmdir()
                except OSError as error:
                    if error.errno == errno.ENOTEMPTY:  # its writer is still at it: once more
                        continue
                    raise
                break
        except FileNotFoundError:
            return
        except OSError as error:
            raise translate(error, str(folder)) from error

    def stage(self, lease: int, key: str | None = None) -> Staged:
        """Begin an object in the lease's staging folder. The folder is gone: LeaseLost."""
        self._writable()
        if key is not None:
            check_key(key)
        return Staged(self._tmp / str(int(lease)) / secrets.token_hex(8), key)

    def staging(self, lease: int) -> Path:
        """The lease's staging folder, which may be gone."""
        return self._tmp / str(int(lease))

    def publish(self, staged: Sequence[Staged]) -> None:
        """Make staged objects durable under their keys, in order; closes them. Rows must exist (put_begin).

        After an error some may be published: their pending rows die with the lease.
        """
        self._writable()
        folders: dict[Path, None] = {}
        for one in staged:
            key = check_key(one.key or "")
            target = self._objects / key
            try:
                if os.fstat(one.fileno()).st_size != one.size:
                    raise Damaged("size differs from what was written", what=key)
                os.fsync(one.fileno())
                one.close()
                folder = target.parent
                with contextlib.suppress(FileExistsError):
                    folder.mkdir(parents=True)
                one.path.rename(target)
            except FileNotFoundError as error:
                raise LeaseLost("the staging folder is gone: the lease has ended", what=key) from error
            except OSError as error:
                raise translate(error, key) from error
            # Ancestors too: another process may have made the folder and not yet have synced the entry for
            # it.
            folders.update(dict.fromkeys((folder, *folder.parents[: len(folder.relative_to(self._objects).parts)])))
        self._sync(folders)

    # -- published objects

    def open(self, key: str) -> ObjectReader:
        """Open a published object; NotFound where its file is missing."""
        return ObjectReader(self._objects / check_key(key), key)

    def stat(self, key: str) -> int | None:
        """Bytes of the object's file, None where it is missing."""
        try:
            return (self._objects / check_key(key)).stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreUnusable(error.strerror or "cannot stat", what=key) from error

    def all_keys(self, prefix: str = "") -> Iterator[str]:
        """The key of every published object that begins with `prefix`, in no order."""
        for kind in ("blobs", "packs", "index"):
            if not (kind.startswith(prefix) or prefix.startswith(kind)):
                continue
            inner = prefix.rpartition("/")[0] if prefix.startswith(kind) else kind
            for folder, _, names in os.walk(self._objects / (inner or kind)):
                where = Path(folder).relative_to(self._objects).as_posix()
                for name in names:
                    key = f"{where}/{name}"
                    if key.startswith(prefix) and _KEY.fullmatch(key):
                        yield key

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """(key, bytes) of every published object whose key begins with `prefix`, in no order."""
        for key in self.all_keys(prefix):
            size = self.stat(key)
            if size is not None:
                yield key, size

    def delete(self, keys: Iterable[str]) -> None:
        """Unlink (a missing file is fine), then fsync the folders: the caller may drop the rows (rule 13)."""
        self._writable()
        folders: dict[Path, None] = {}
        for key in keys:
            path = self._objects / check_key(key)
            try:
                path.unlink()
            except FileNotFoundError:
                if not path.parent.is_dir():
                    continue  # never published
            except OSError as error:
                raise translate(error, key) from error
            folders[path.parent] = None
        self._sync(folders)

    def quarantine(self, key: str) -> bool:
        """Move an object's file out of the way, below STORE/quarantine; False where it is missing."""
        self._writable()
        source = self._objects / check_key(key)
        target = self.root / "quarantine" / key
        try:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            while target.exists():  # a file that was brought back once: no copy of it is lost
                target = target.with_name(target.name + "~")
            source.rename(target)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise translate(error, key) from error
        self._sync([source.parent, target.parent])
        return True

    def quarantine_file(self, name: str) -> bool:
        """The same for a small file at the root (see `read_file`)."""
        self._writable()
        source, folder = self._named(name), self.root / "quarantine"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            source.rename(folder / f"{source.stem}.{secrets.token_hex(4)}{source.suffix}")
        except FileNotFoundError:
            return False
        except OSError as error:
            raise translate(error, str(source)) from error
        self._sync([self.root, folder])
        return True

    # -- small named files at the root

    def read_file(self, name: str, limit: int = 1 << 20, *, part: bool = False) -> bytes | None:
        """The content of STORE/<name> (store.json, epoch, …), None where missing. More than `limit` bytes: Damaged, or
        with `part` left out."""
        path = self._named(name)
        try:
            with path.open("rb") as file:
                data = file.read(limit if part else limit + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreUnusable(error.strerror or "cannot read", what=str(path)) from error
        if len(data) > limit:
            raise Damaged("file is too large", what=str(path))
        return data

    def write_file(self, name: str, data: bytes) -> None:
        """Replace STORE/<name> durably and atomically."""
        self._writable()
        replace_file(self._named(name), data)

    def usage(self) -> int:
        """Bytes of all files below STORE."""
        total = 0
        for folder, _, files in os.walk(self.root):
            for file in files:
                with contextlib.suppress(OSError):
                    total += os.lstat(os.path.join(folder, file)).st_size  # noqa: PTH118 (hot for millions of files)
        return total

    def scratch(self) -> BinaryIO:
        """A file without a name, for what a command needs while it runs: under STORE, or in the system's temporary
        folder (TMPDIR) where the store cannot be written to."""
        with contextlib.suppress(OSError):
            handle = os.open(self._tmp, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
            return os.fdopen(handle, "w+b", buffering=0)
        try:
            return tempfile.TemporaryFile(buffering=0)
        except OSError as error:
            raise translate(error, tempfile.gettempdir()) from error

    def free(self) -> int:
        """Bytes that this user may still write to the file system of the store."""
        try:
            state = os.statvfs(self.root)
        except OSError as error:
            raise StoreUnusable(error.strerror or "cannot stat", what=str(self.root)) from error
        return state.f_bavail * state.f_frsize

    def _named(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise UsageError("not the name of a file of the store", what=repr(name[:64]))
        return self.root / name

    def _writable(self) -> None:
        if self.read_only:
            raise ReadOnlyStore(str(self.root))

    def _sync(self, folders: Iterable[Path]) -> None:
        for folder in folders:
            try:
                sync_folder(folder)
            except OSError as error:
                raise translate(error, str(folder)) from error
