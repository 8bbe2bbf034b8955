"""Connections that are watched while they wait for the head of an answer.

A socket's timeout begins anew with every byte, so that a server which sends one now and then, or one `100 Continue`
after another, would be waited for without end.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

_LOOKS = 16  # in the time that is waited


class Watch:
    """The connections that wait now. `patience`: seconds for the head of an answer."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._lock = threading.Lock()
        self._waiting: dict[socket.socket, tuple[object, float]] = {}
        self._asks = threading.local()
        self._watching = False

    @contextlib.contextmanager
    def asking(self, who: object) -> Iterator[None]:
        """What this thread waits for inside, it waits for on behalf of `who`."""
        self._asks.who = who
        try:
            yield
        finally:
            self._asks.who = None

    @contextlib.contextmanager
    def over(self, waits: socket.socket | None) -> Iterator[None]:
        """Around the wait: after that time it ends as if the server had gone."""
        if waits is None:
            yield
            return
        entry = getattr(self._asks, "who", None), time.monotonic() + self._patience
        with self._lock:
            self._waiting[waits] = entry
            if not self._watching:
                self._watching = True
                threading.Thread(target=self._watch, name="watch", daemon=True).start()
        try:
            yield
        finally:
            with self._lock:
                self._waiting.pop(waits, None)

    def _watch(self) -> None:
        """End what has waited for too long; this thread ends when there was nothing to watch for long."""
        idle = 0
        while True:
            time.sleep(self._patience / _LOOKS)
            with self._lock:
                idle = 0 if self._waiting else idle + 1
                if idle > _LOOKS:
                    self._watching = False
                    return
                now = time.monotonic()
                late = [one for one, (_, until) in self._waiting.items() if until < now]
            for one in late:
                _shut(one)

    def wake(self, who: object) -> None:
        """End all waits on behalf of `who` now."""
        with self._lock:
            waiting = [one for one, (owner, _) in self._waiting.items() if owner is who]
        for one in waiting:
            _shut(one)

    def pools(self) -> dict[str, Any]:
        """What urllib3's managers make their connections from: their `pool_classes_by_scheme`."""
        watch = self

        class Plain(HTTPConnection):
            def getresponse(self) -> Any:
                with watch.over(self.sock):
                    return super().getresponse()

        class Secure(HTTPSConnection):
            def getresponse(self) -> Any:
                with watch.over(self.sock):
                    return super().getresponse()

        class PlainPool(urllib3.HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(urllib3.HTTPSConnectionPool):
            ConnectionCls = Secure

        return {"http": PlainPool, "https": SecurePool}


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError, ValueError):
        one.shutdown(socket.SHUT_RDWR)
