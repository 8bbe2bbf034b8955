"""Every error that casstore raises, on one page.

CasstoreError                  1    anything below
├── UsageError               125    the call itself is wrong (flags, arguments)
├── InvalidReference           1    a name that the reference grammar does not allow
├── NotFound                   1    no such image, blob, file
│   └── AmbiguousPrefix        1    more than one image ID begins so
├── Conflict                   1    the change is refused in the present state (image in use, …)
├── BadInput                   1    foreign bytes that cannot be what they claim: archive, manifest, config
│   ├── DigestMismatch         1    content is not what its digest says
│   └── LimitExceeded          1    a cap of BEHAVIOUR §8 was hit
├── RemoteFailure              1    a server that cannot be reached, breaks off, or answers what it may not
│   └── Denied                 1    it refuses: no credentials, wrong ones, or no right to it
├── Damaged                    1    the store's own bytes are wrong or missing; says what to run
├── StoreUnusable              1    not a store, unknown format, locked away, read-only
│   └── ReadOnlyStore          1
├── LeaseLost                  1    the lease ended under a running command; nothing was changed
├── OutOfSpace                 1    disk full (or below min-free); nothing was changed
└── Interrupted              130    SIGINT/SIGTERM; nothing was changed

Each carries fields rather than prose: `what` (the object: a path, digest, reference), `offset` (bytes, in that object,
where there is one) and `hint` (what to do). `str()` makes the one line that the command line prints.
"""

from __future__ import annotations

_LONGEST = 2000  # characters of a message, and of each field in it


def _short(text: str) -> str:
    """Names come from outside, and may be megabytes long: then their middle is left out."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}…{text[-_LONGEST // 4 :]}"


class CasstoreError(Exception):
    """The root. `message` is one line without trailing period."""

    exit_code = 1

    def __init__(
        self, message: str, *, what: str | None = None, offset: int | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.what = what
        self.offset = offset
        self.hint = hint

    def __str__(self) -> str:
        line = _short(self.message)
        if self.what is not None and self.what not in self.message:
            line = f"{_short(self.what)}: {line}"
        if self.offset is not None:
            line += f" at offset {self.offset}"
        if self.hint:
            line += f" ({_short(self.hint)})"
        return line.replace("\n", "\\n")


class UsageError(CasstoreError):
    exit_code = 125


class InvalidReference(CasstoreError):
    pass


class NotFound(CasstoreError):
    pass


class AmbiguousPrefix(NotFound):
    pass


class Conflict(CasstoreError):
    pass


class BadInput(CasstoreError):
    pass


class DigestMismatch(BadInput):
    pass


class LimitExceeded(BadInput):
    pass


class RemoteFailure(CasstoreError):
    pass


class Denied(RemoteFailure):
    pass


class Damaged(CasstoreError):
    pass


class StoreUnusable(CasstoreError):
    pass


class ReadOnlyStore(StoreUnusable):
    def __init__(self, what: str | None = None) -> None:
        super().__init__("store is read-only", what=what)


class LeaseLost(CasstoreError):
    pass


class OutOfSpace(CasstoreError):
    pass


class Interrupted(CasstoreError):
    exit_code = 130
