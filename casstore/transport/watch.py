"""Connections that are watched while they wait for the head of an answer.

A socket's timeout begins anew with every byte, so that a server which sends one now and then, or one `100 Continue`
after another, would be waited for without end.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection


class Watch:
    """The connections that wait now. `patience`: seconds for the head of an answer."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._lock = threading.Lock()
        self._waiting: dict[socket.socket, object] = {}
        self._asks = threading.local()

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
        timer = threading.Timer(self._patience, _shut, (waits,))
        timer.daemon = True
        timer.start()
        with self._lock:
            self._waiting[waits] = getattr(self._asks, "who", None)
        try:
            yield
        finally:
            timer.cancel()
            with self._lock:
                self._waiting.pop(waits, None)

    def wake(self, who: object) -> None:
        """End all waits on behalf of `who` now."""
        with self._lock:
            waiting = [one for one, owner in self._waiting.items() if owner is who]
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
