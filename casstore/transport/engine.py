"""Docker's engine, by its socket on this machine: images out of it and into it as archives that go by.

Source: docker's Engine API, GET /images/get, POST /images/load. Neither side of a transfer lands in a file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlencode

import msgspec
import urllib3
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError

from ..errors import BadInput, CasstoreError, NotFound, RemoteFailure
from .download import reason

SOCKET = Path("/var/run/docker.sock")
"""Where the engine listens, where nobody says otherwise."""
PATIENCE = 900.0
"""Seconds without a byte: the engine says nothing while it unpacks a layer."""
MAX_ANSWER = 1 << 20
"""Bytes of what it says of a load, or of a failure."""
_PIECE = 1 << 20


class _Said(msgspec.Struct, frozen=True):
    """A line of an answer, or the body of an error."""

    message: str = ""
    error: str = ""
    stream: str = ""


class _Connection(HTTPConnection):
    """By a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("docker", timeout=PATIENCE)
        self._path = path

    def _new_conn(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.settimeout(PATIENCE)
            made.connect(str(self._path))
        except BaseException:
            made.close()
            raise
        return made


class Engine:
    """The engine behind a socket. Each transfer has a connection of its own."""

    def __init__(self, path: Path = SOCKET) -> None:
        self.path = path

    def saving(self, name: str) -> Saving:
        """An image as the archive that `docker save` would write. NotFound, RemoteFailure."""
        connection, response = self._send("GET", f"/images/get?{urlencode({'names': name})}")
        if response.status != 200:
            with contextlib.closing(connection):
                said = _problem(response)
            if response.status == 404 or "No such image" in said or "does not exist" in said:
                raise NotFound(f"No such image: {name}", what=f"docker-daemon:{name}")
            raise RemoteFailure(f"the engine says: {said}", what=f"docker-daemon:{name}")
        return Saving(connection, response, name)

    def loading(self, name: str) -> Loading:
        """Somewhere to write an archive to, which the engine loads. `name`: what errors call it."""
        return Loading(self._connect(), name)

    def _connect(self) -> _Connection:
        connection = _Connection(self.path)
        try:
            connection.connect()
        except (HTTPError, OSError) as error:
            connection.close()
            denied = getattr(error, "errno", None) in (errno.EACCES, errno.EPERM)
            why = "permission denied" if denied else "is the docker daemon running?"
            raise RemoteFailure(f"cannot connect to the Docker daemon: {why}", what=f"unix://{self.path}") from None
        return connection

    def _send(self, method: str, url: str) -> tuple[_Connection, urllib3.BaseHTTPResponse]:
        connection = self._connect()
        try:
            connection.request(method, url, preload_content=False, decode_content=False)
            return connection, connection.getresponse()
        except (HTTPError, OSError) as error:
            connection.close()
            raise RemoteFailure(f"the engine does not answer: {reason(error)}", what=f"unix://{self.path}") from None
        except BaseException:
            connection.close()
            raise


class _Pump:
    """A pipe, and a thread between it and a connection. Whatever ends this ends that."""

    def __init__(self, connection: _Connection, what: str, name: str) -> None:
        self._connection = connection
        self.what = f"docker-daemon:{what}"
        self._failure: BaseException | None = None
        self._out, self._in = os.pipe()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._failure = error
        finally:
            self._done.set()
            self._close_mine()

    def _work(self) -> None:
        raise NotImplementedError

    def _close_mine(self) -> None:
        raise NotImplementedError

    def _close_yours(self) -> None:
        raise NotImplementedError

    def wait(self) -> None:
        """Until the other side has ended too. RemoteFailure: why it failed."""
        while not self._done.wait(0.5):
            pass
        failure = self._failure
        if isinstance(failure, CasstoreError):
            raise failure
        if failure is not None:
            raise RemoteFailure(f"the engine broke off: {reason(failure)}", what=self.what)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sock = self._connection.sock
        if not self._done.is_set() and sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._close_yours()
        self._thread.join()
        self._connection.close()


class Saving(_Pump):
    """An archive on its way from the engine. `fd`: to read it from."""

    def __init__(self, connection: _Connection, response: urllib3.BaseHTTPResponse, name: str) -> None:
        self._response = response
        super().__init__(connection, name, "from docker")

    @property
    def fd(self) -> int:
        return self._out

    def _work(self) -> None:
        while data := self._response.read1(_PIECE):
            view = memoryview(data)
            while view:
                view = view[os.write(self._in, view) :]

    def _close_mine(self) -> None:
        os.close(self._in)

    def _close_yours(self) -> None:
        os.close(self._out)


class Loading(_Pump):
    """An archive on its way to the engine. `fd`: to write it to; then `finish`, or it is given up."""

    def __init__(self, connection: _Connection, name: str) -> None:
        self._whole = False
        self._open = True
        super().__init__(connection, name, "to docker")

    @property
    def fd(self) -> int:
        return self._in

    def finish(self) -> None:
        """All of it is written: wait for what the engine says, which it also does where nobody waits. RemoteFailure."""
        self._whole = True
        self._close_yours()
        self.wait()

    def _pieces(self) -> Iterator[bytes]:
        while data := os.read(self._out, _PIECE):
            yield data
        if not self._whole:
            raise RemoteFailure("the archive was given up", what=self.what)

    def _work(self) -> None:
        # When the engine breaks off while we send, it may have said why.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._connection.request(
                "POST",
                "/images/load?quiet=1",
                body=self._pieces(),
                headers={"Content-Type": "application/x-tar"},
                chunked=True,
                preload_content=False,
                decode_content=False,
            )
        response = self._connection.getresponse()
        said = _lines(response, self.what)
        wrong = next((line.error or line.message for line in said if line.error or line.message), "")
        if wrong or response.status != 200:
            raise RemoteFailure(f"the engine says: {_short(wrong) or f'status {response.status}'}", what=self.what)

    def _close_mine(self) -> None:
        os.close(self._out)

    def _close_yours(self) -> None:
        if self._open:
            self._open = False
            os.close(self._in)


def _lines(response: urllib3.BaseHTTPResponse, what: str) -> list[_Said]:
    body = bytearray()
    while data := response.read1(64 << 10):
        body += data
        if len(body) > MAX_ANSWER:
            raise BadInput(f"the engine's answer is larger than {MAX_ANSWER} bytes", what=what)
    try:
        return msgspec.json.Decoder(_Said).decode_lines(bytes(body))
    except msgspec.MsgspecError:
        raise BadInput("the engine's answer is not what an engine says", what=what) from None


def _problem(response: urllib3.BaseHTTPResponse) -> str:
    """Why it refuses, in its words."""
    try:
        said = _lines(response, "")
    except (BadInput, HTTPError, OSError):
        said = []
    return _short(next((line.message or line.error for line in said), "")) or f"status {response.status}"


def _short(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text).strip()[:300]
