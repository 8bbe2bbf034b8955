"""Digest: the value that names every blob, and the reader that checks what it reads.

Source: OCI image-spec, descriptor.md, "Digests". Registered algorithms only: sha256, sha512.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, NamedTuple, Self

from .errors import Damaged, DigestMismatch, InvalidReference

_SIZES = {"sha256": 32, "sha512": 64}
_TEXT = re.compile(r"(sha256):([0-9a-f]{64})|(sha512):([0-9a-f]{128})")


class Digest(NamedTuple):
    """An algorithm (`sha256`, `sha512`) and the raw digest bytes. Orders and compares as a tuple."""

    algorithm: str
    raw: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """`sha256:<64 lower-case hex>` → Digest. Anything else: InvalidReference (a digest may become a path)."""
        found = _TEXT.fullmatch(text)
        if not found:
            raise InvalidReference("invalid digest", what=repr(text[:160]))
        algorithm = found[1] or found[3]
        return cls(algorithm, bytes.fromhex(found[2] or found[4]))

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview, algorithm: str = "sha256") -> Self:
        """The digest of bytes in memory."""
        return cls(algorithm, hashlib.new(algorithm, data).digest())

    @classmethod
    def sha256(cls, raw: bytes) -> Self:
        """From 32 raw bytes."""
        return cls("sha256", raw)

    @classmethod
    def unpack(cls, stored: bytes) -> Self:
        """From the form kept in the catalog: the raw bytes, whose length tells the algorithm. Damaged: it is none."""
        if not isinstance(stored, bytes) or len(stored) not in (32, 64):
            raise Damaged("what should be a digest is none", what="catalog.sqlite", hint="run casstore check --repair")
        return cls("sha512" if len(stored) == 64 else "sha256", stored)

    @property
    def hex(self) -> str:
        return self.raw.hex()

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.raw.hex()}"

    def hasher(self) -> Any:
        """A fresh hashlib object of this digest's algorithm."""
        return hashlib.new(self.algorithm)

    def check(self, actual: Digest | bytes, what: str) -> None:
        """Raise DigestMismatch unless `actual` (raw bytes or Digest) is this digest."""
        raw = actual.raw if isinstance(actual, Digest) else actual
        if raw != self.raw:
            raise DigestMismatch(
                f"content does not match its digest: expected {self}, got {self.algorithm}:{raw.hex()}", what=what
            )
