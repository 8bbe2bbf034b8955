"""Blobs that were made again, kept for the next reader in STORE/cache. Nothing depends on it: whoever wants the room
may delete any of it at any time, and a read that finds nothing there, or something rotten, makes the blob anew.

    cache/sha256-<hex>           a blob, whole: its digest was right
    cache/sha256-<hex>.<size>    one of so many bytes in the making; its maker holds a lock on it

Both hold the blob in pieces of 1 MiB, each followed by its check: so a reader can follow one that is still growing, and
believes no byte that it did not check. One makes a blob, and who else wants it meanwhile follows; who does not get on
like that (the maker was stopped, or whoever reads from it is slow) goes on alone. The kernel lets go of the lock of a
maker that is killed, and the next one takes its file over.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from ..digest import Digest
from ..errors import CasstoreError
from ..model import Buffer
from . import query, settings
from .catalog import Catalog
from .disk import write_all
from .objects import Objects

SPAN = 1 << 20
"""Bytes of a blob in one piece; the last may have less."""
CHECK = 8
LEAST = 64 << 10
"""A blob of fewer bytes is made again as fast as it is looked for."""
STALL = 2.0
"""Seconds that a reader waits for a maker, in all, …"""
PACE = 1 << 20
"""… and one more for each so many bytes that it has got."""
_POLL = 0.02
_NAME = re.compile(r"(?P<digest>sha256-[0-9a-f]{64}|sha512-[0-9a-f]{128})(\.(?P<size>[0-9]{1,18}))?")


def stored_size(size: int) -> int:
    """Bytes of the file that holds a blob of so many."""
    return size + -(-size // SPAN) * CHECK


def _check(digest: Digest, number: int, piece: Buffer) -> bytes:
    """Of the piece of this number of this blob: of no other, wherever its file was copied from."""
    key = blake3(digest.raw + number.to_bytes(8, "little")).digest()
    return bytes(blake3(piece, key=key).digest(CHECK))


class _Entry(NamedTuple):
    """A file of the cache. `size`: what it takes, or will; `used`: when it was read last; `growing`: in the making."""

    path: Path
    digest: Digest
    size: int
    used: float
    growing: bool


class Kept:
    """A blob in the cache, open, whole or in the making. One reader."""

    def __init__(self, path: Path, handle: int, digest: Digest, size: int, *, growing: bool) -> None:
        self._path = path
        self._handle = handle
        self._digest = digest
        self._size = size
        self._growing = growing
        self._waited = 0.0

    def read(self, start: int, stop: int) -> Iterator[memoryview]:
        """Bytes [start, stop), checked. It ends early where there are no more to be had. Can be read once."""
        first, at = start, start
        try:
            while at < stop:
                number = at // SPAN
                begin = number * SPAN
                length = min(SPAN, self._size - begin)
                place = number * (SPAN + CHECK)
                if self._growing and not self._there(place + length + CHECK, at - first):
                    return
                data = self._pread(place, length + CHECK)
                piece = memoryview(data)[:length]
                if len(data) != length + CHECK or _check(self._digest, number, piece) != data[length:]:
                    self.discard()
                    return
                yield piece[at - begin : stop - begin]
                at = begin + length
        finally:
            self._close()

    def discard(self) -> None:
        """It is rotten: nobody else is to find it."""
        if not self._growing:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _pread(self, place: int, length: int) -> bytes:
        try:
            return os.pread(self._handle, length, place)
        except OSError:
            return b""

    def _there(self, end: int, got: int) -> bool:
        """Wait until the file has so many bytes. False: it does not come to it, or too slowly."""
        while True:
            let_go = self._let_go()
            state = os.fstat(self._handle)
            if state.st_size >= end:
                return True
            still = abs(time.time() - state.st_mtime) > STALL
            if let_go or still or self._waited > STALL + got / PACE:
                return False
            time.sleep(_POLL)
            self._waited += _POLL

    def _let_go(self) -> bool:
        """Has its maker ended?"""
        try:
            fcntl.flock(self._handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return False
        fcntl.flock(self._handle, fcntl.LOCK_UN)
        return True

    def _close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __del__(self) -> None:
        self._close()


class Making:
    """A blob that goes into the cache as it is made, from its begin to its end. What fails here fails silently, and
    then nothing is kept. One writer."""

    def __init__(self, path: Path, final: Path, handle: int, digest: Digest, size: int) -> None:
        self._path = path
        self._final = final
        self._handle = handle
        self._digest = digest
        self._size = size
        self._done = 0
        self._pending = bytearray()

    def write(self, data: Buffer) -> None:
        """The next bytes."""
        if self._handle < 0:
            return
        self._pending += data
        while len(self._pending) >= SPAN and self._handle >= 0:
            self._piece(SPAN)

    def finish(self) -> None:
        """All bytes were written, and the blob's digest is right: from now on it can be found."""
        if self._handle >= 0 and self._pending:
            self._piece(len(self._pending))
        if self._handle < 0:
            return
        try:
            state = os.fstat(self._handle)
            if self._done == self._size and os.path.samestat(state, self._path.stat(follow_symlinks=False)):
                self._path.rename(self._final)
                self._close()
        except OSError:
            pass
        self.abort()

    def abort(self) -> None:
        """Nothing comes of it. Does nothing after `finish`."""
        if self._handle >= 0:
            with contextlib.suppress(OSError):
                self._path.unlink()
            self._close()

    def _piece(self, length: int) -> None:
        piece = self._pending[:length]
        number = self._done // SPAN
        try:
            write_all(self._handle, piece + _check(self._digest, number, piece))
        except OSError:
            self.abort()
            return
        self._done += length
        del self._pending[:length]

    def _close(self) -> None:
        os.close(self._handle)
        self._handle = -1

    def __del__(self) -> None:
        self.abort()


class BlobCache:
    """The cache of one store, bounded by its setting cache.size (0: there is none). Thread-safe; raises nothing that a
    reader would have to know of."""

    def __init__(self, objects: Objects, catalog: Catalog) -> None:
        self._objects = objects
        self._catalog = catalog
        self._folder = objects.root / "cache"

    def find(self, digest: Digest, size: int) -> Kept | None:
        """A blob, if it is there whole."""
        return self._open(digest, size) if self._bounds()[0] else None

    def take(self, digest: Digest, size: int) -> Kept | Making | None:
        """A blob, if it is there or in the making; else the caller may make it, if it has a place here."""
        limit, least = self._bounds()
        needed = stored_size(size)
        if not limit:
            return None
        found = self._open(digest, size)
        if found is not None or size < LEAST or needed > limit or self._objects.read_only:
            return found
        try:
            if self._objects.free() - needed < least:
                return None
            return self._make(digest, size, limit)
        except (OSError, CasstoreError):
            return None

    def sweep(self) -> None:
        """Remove what belongs to no blob that is made again, what was left half made, and what is beyond cache.size."""
        if self._objects.read_only:
            return
        limit, _ = self._bounds()
        for entry in self._entries():
            if entry.growing:
                self._take_away(entry.path)
                continue
            with self._catalog.read() as tx:
                info = query.find_blob(tx, entry.digest)
            if info is None or info.place.state != "packed" or info.encoding == "identity":
                _remove(entry.path)
        self._fit(limit)

    def usage(self) -> int:
        """Bytes of all its files."""
        total = 0
        for entry in self._entries():
            with contextlib.suppress(OSError):
                total += entry.path.stat(follow_symlinks=False).st_size
        return total

    def _bounds(self) -> tuple[int, int]:
        """cache.size, and min-free (bytes)."""
        try:
            with self._catalog.read() as tx:
                kept = settings.everything(tx)
            return settings.size(kept["cache.size"]), settings.size(kept["min-free"])
        except (CasstoreError, ValueError):
            return 0, 0

    def _final(self, digest: Digest) -> Path:
        return self._folder / f"{digest.algorithm}-{digest.hex}"

    def _open(self, digest: Digest, size: int) -> Kept | None:
        path = self._final(digest)
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        kept = Kept(path, handle, digest, size, growing=False)
        if os.fstat(handle).st_size != stored_size(size):
            kept.discard()
            return None
        with contextlib.suppress(OSError):
            os.utime(handle)
        return kept

    def _make(self, digest: Digest, size: int, limit: int) -> Kept | Making | None:
        """Begin to make a blob, or follow who does."""
        final = self._final(digest)
        path = final.with_name(f"{final.name}.{size}")
        with contextlib.suppress(FileExistsError):
            self._folder.mkdir(mode=0o700)
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            if not _lock(handle):
                return Kept(path, handle, digest, size, growing=True)
            if _is_at(handle, path):
                break
            os.close(handle)  # it was finished, or given up, since we opened it
        making = Making(path, final, handle, digest, size)
        found = self._open(digest, size)
        if found is None:
            os.ftruncate(handle, 0)
            # Its own file tells the others how much it will take, before it looks at theirs.
            if self._fit(limit):
                return making
        making.abort()
        return found

    def _fit(self, limit: int) -> bool:
        """Remove what was not read for the longest time until all takes no more than `limit`; False: it cannot be."""
        entries = sorted(self._entries(), key=lambda one: one.used)
        total = sum(one.size for one in entries)
        for entry in entries:
            if total <= limit:
                break
            if self._take_away(entry.path) if entry.growing else _remove(entry.path):
                total -= entry.size
        return total <= limit

    def _entries(self) -> list[_Entry]:
        found: list[_Entry] = []
        try:
            paths = list(self._folder.iterdir())
        except OSError:
            return found
        for path in paths:
            match = _NAME.fullmatch(path.name)
            if match is None:
                continue
            with contextlib.suppress(OSError):
                state = path.stat(follow_symlinks=False)
                digest = Digest.parse(match["digest"].replace("-", ":"))
                size = state.st_size if match["size"] is None else stored_size(int(match["size"]))
                found.append(_Entry(path, digest, size, state.st_mtime, match["size"] is not None))
        return found

    def _take_away(self, path: Path) -> bool:
        """Remove a file that was in the making, unless it still is."""
        try:
            handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return _lock(handle) and _is_at(handle, path) and _remove(path)
        finally:
            os.close(handle)


def _lock(handle: int) -> bool:
    """Have it for ourselves, if nobody else has."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat(follow_symlinks=False))
    except OSError:
        return False


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False
    return True
