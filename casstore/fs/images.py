"""Images that are open, shared by all who read from them: few, and not for long."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .. import api
from ..digest import Digest
from ..errors import Damaged, InvalidReference, NotFound
from ..image.merged import Merged
from ..oci import reference

IMAGES = 4
"""Images that stay open when no file of theirs is."""
IDLE = 30.0
"""Seconds that they do: meanwhile `gc` removes nothing that was in use when they were opened."""
_SHORTEST_ID = 12


class Image:
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


class Images:
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
        self._open: OrderedDict[Digest, Image] = OrderedDict()
        self._dropped: list[Image] = []
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
                _ = self._store.volume  # made once, whatever threads come
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

    def hold(self, digest: Digest) -> Image:
        """An image that stays open until it is released."""
        store = self._here()
        with self._lock:
            image = self._open.get(digest)
            if image is None:
                image = self._open[digest] = Image(store, digest)
            self._open.move_to_end(digest)
            image.take()
            spare = [key for key, one in self._open.items() if one.idle()][: max(len(self._open) - self._most, 0)]
            closing = [self._open.pop(key) for key in spare]
            closing += [self._dropped.pop(at) for at, one in reversed(list(enumerate(self._dropped))) if one.idle()]
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
        except (Damaged, NotFound):
            # Its lease may have ended under it, as where the machine slept: whoever comes next opens it anew.
            with self._lock:
                if self._open.get(digest) is image:
                    self._dropped.append(self._open.pop(digest))
            raise
        finally:
            image.release()

    def _sweep(self) -> None:
        """Close images that nobody has used for a while, until none is open."""
        while True:
            time.sleep(IDLE / 2)
            with self._lock:
                closing = [self._open.pop(key) for key, one in list(self._open.items()) if one.idle(IDLE)]
                closing += [self._dropped.pop(at) for at, one in reversed(list(enumerate(self._dropped))) if one.idle()]
                if not self._open and not self._dropped:
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
            closing, store = [*self._open.values(), *self._dropped], self._store
            self._open.clear()
            self._dropped.clear()
            self._store = None
        for one in closing:
            one.close()
        if store is not None:
            store.close()
