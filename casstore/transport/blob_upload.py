"""Blobs onto the wire, taken up again where a connection broke."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import urlencode

from ..digest import Digest
from ..errors import BadInput, Denied, NotFound, RemoteFailure
from ..model import Buffer
from .auth import repository_scope
from .blob_download import ENOUGH
from .http import Answer, led_to
from .registry import Registry, problem

AT_ONCE = 1 << 20
"""Blobs up to this many bytes are uploaded by one request."""

_FORGOTTEN = 0.2
"""What an upload counts, as a failure, that broke after ENOUGH bytes and is then unknown: docker-registry forgets each
that breaks, and over a bad link a large blob needs more than a few tries."""
_PASSING = (401, 408, 416, 429)  # 401: the token has ended while we sent; the next request renews it
_UPLOADED = re.compile(r"(?:bytes=)?0-(\d{1,19})")


class BlobUpload:
    """One blob on its way into a repository. `read(start)` makes its bytes from there on; it may be called again.
    `check` is called now and then, and may raise; `remember` is told where the upload goes on, should it break off."""

    def __init__(
        self,
        registry: Registry,
        path: str,
        digest: Digest,
        size: int,
        read: Callable[[int], Iterable[Buffer]],
        *,
        check: Callable[[], None] = lambda: None,
        remember: Callable[[str], None] = lambda location: None,
    ) -> None:
        self._check = check
        self._remember = remember
        self._registry = registry
        self._path = path
        self._digest = digest
        self._size = size
        self._read = read
        self._scopes = (repository_scope(path, registry.actions),)
        self._what = f"{registry.domain}/{path}@{digest}"
        self._location = ""
        self._sent = 0
        self._begun = -1  # bytes that the registry had when it was taken up again

    def resume(self, location: str) -> bool:
        """Take up an upload that another run began there ("": none did), if the registry has something of it."""
        if not location:
            return False
        try:
            self._location = led_to(location, self._registry.base)
            self._begun = self._status()
        except (NotFound, Denied, RemoteFailure, BadInput):
            self._begun = -1
        if self._begun <= 0:
            self._location, self._begun = "", -1
        return self._begun > 0

    def mount(self, source: str) -> bool:
        """Take it over from another repository of the registry, which may not want to: then False, and an upload has
        begun."""
        scopes = (*self._scopes, repository_scope(source, "pull"))
        query = urlencode({"mount": str(self._digest), "from": source})
        answer = self._registry.send("POST", f"/v2/{self._path}/blobs/uploads/?{query}", scopes)
        if answer.status == 201:
            answer.close()
            return True
        if answer.status == 202:
            self._move(answer)
        answer.close()
        return False

    def run(self) -> int:
        """Upload it; bytes of it that went over at last. RemoteFailure, Denied."""
        failures, good, resumed = 0.0, self._begun, False
        while True:
            self._check()
            told: Answer | None = None
            try:
                if not self._location:
                    self._begin()
                    start = 0
                elif good < 0:
                    start = 0  # an upload that `mount` began
                else:
                    try:
                        start = self._status()
                    except NotFound:  # that it broke has been counted
                        failures -= 1 - _FORGOTTEN if self._sent >= ENOUGH else 0
                        self._location, good = "", -1
                        continue
                    resumed = True
                if start > good:
                    failures, good = (0 if start - good >= ENOUGH else failures), start
                self._send(start)
                return self._size - start
            except NotFound:
                self._location, good = "", -1  # the upload is lost: once more from its beginning
                why = "the registry forgot the upload"
            except _Interrupted as error:
                good = max(good, 0)
                why, told = str(error), error.answer
            except Denied:
                raise
            except RemoteFailure as error:
                if not resumed:
                    raise
                # What we took for the place to go on from was not: once more from the beginning.
                self._location, good, resumed = "", -1, False
                why = error.message
            failures += 1
            if failures > self._registry.http.network.retries:
                raise RemoteFailure(f"the upload broke off: {why}", what=self._what)
            self._registry.http.wait(int(max(failures - 1, 0)), told)

    def _begin(self) -> None:
        answer = self._registry.send("POST", f"/v2/{self._path}/blobs/uploads/", self._scopes)
        if answer.status != 202:
            failure = problem(answer, self._what)
            if isinstance(failure, NotFound):
                raise RemoteFailure(failure.message, what=self._what)
            raise failure
        self._move(answer)
        answer.close()

    def _send(self, start: int) -> None:
        finish = self._with_digest
        if self._size <= AT_ONCE and not start:
            self._put(finish(), b"".join(bytes(piece) for piece in self._read(0)))
            return
        if start < self._size:
            # Content-Range is for chunks: the first and only one goes without, as a stream.
            headers = {"Content-Type": "application/octet-stream"}
            if start:
                headers["Content-Range"] = f"{start}-{self._size - 1}"
            try:
                answer = self._registry.send(
                    "PATCH",
                    self._location,
                    self._scopes,
                    headers=headers,
                    body=lambda: self._exactly(start),
                    size=self._size - start,
                )
            except RemoteFailure as error:
                raise _Interrupted(error.message) from None
            if answer.status == 416 and not start:
                answer.close()
                raise NotFound("it has something of it already", what=self._what)  # one byte, or none: see _status
            if answer.status in _PASSING or answer.status >= 500:
                answer.close()
                raise _Interrupted(f"HTTP status {answer.status}", answer)
            if answer.status not in (201, 202, 204):
                raise problem(answer, self._what)
            self._move(answer)
            answer.close()
        self._put(finish(), b"")

    def _put(self, url: str, body: bytes) -> None:
        headers = {"Content-Type": "application/octet-stream"}
        # What is sent twice may be added to what came the first time: so only where nothing is.
        once = (lambda: [body]) if body else body
        try:
            answer = self._registry.send("PUT", url, self._scopes, headers=headers, body=once, size=len(body))
        except RemoteFailure as error:
            raise _Interrupted(error.message) from None
        if answer.status in _PASSING or answer.status >= 500:
            answer.close()
            raise _Interrupted(f"HTTP status {answer.status}", answer)
        if answer.status not in (200, 201, 204):
            raise problem(answer, self._what)
        said = answer.header("Docker-Content-Digest")
        answer.close()
        if said and said != str(self._digest) and said.partition(":")[0] == self._digest.algorithm:
            raise RemoteFailure(f"the registry says that the blob is {said[:200]}", what=self._what)

    def _exactly(self, start: int) -> Iterator[Buffer]:
        self._sent = start
        for piece in self._read(start):
            self._sent += len(piece)
            yield piece
        if self._sent != self._size:
            raise BadInput(f"the blob has {self._sent} bytes instead of {self._size}", what=self._what)

    def _status(self) -> int:
        """How many bytes the registry has. NotFound: it knows nothing of the upload."""
        answer = self._registry.send("GET", self._location, self._scopes)
        if answer.status in (400, 416):  # distribution, of an upload that broke: it has other bytes than it believes
            answer.close()
            raise NotFound("the upload cannot go on", what=self._what)
        if answer.status not in (200, 202, 204):
            raise problem(answer, self._what)
        self._move(answer)
        found = _UPLOADED.fullmatch(answer.header("Range"))
        answer.close()
        # "0-0" is one byte to the specification, and none to older registries.
        have = int(found[1]) + 1 if found else 0
        have = 0 if have == 1 else have
        if have > self._size:
            raise NotFound("the registry has more than was sent", what=self._what)
        return have

    def _move(self, answer: Answer) -> None:
        """The upload goes on where the answer says."""
        location = answer.header("Location")
        if not location and not self._location:
            raise RemoteFailure("the registry gives no place for the upload", what=self._what)
        if location:
            self._location = led_to(location, answer.url)
            self._remember(self._location)

    def _with_digest(self) -> str:
        return self._location + ("&" if "?" in self._location else "?") + urlencode({"digest": str(self._digest)})


class _Interrupted(Exception):
    """The upload stopped on its way and may be taken up again; `answer` may say when."""

    def __init__(self, why: str, answer: Answer | None = None) -> None:
        super().__init__(why)
        self.answer = answer
