"""The pure-Python twin of hashing: hashlib, one span at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from blake3 import blake3

from ..model import U8, Buffer
from ._arrays import columns, octets, within

IMPLEMENTATION = "python"
ENGINE = "hashlib"


class Sha256:
    """The SHA-256 of a stream. `length`: bytes so far."""

    def __init__(self) -> None:
        self._hash: Any = hashlib.sha256()
        self.length = 0

    def update(self, buf: Buffer) -> None:
        """Take the bytes that follow."""
        view = octets(buf)
        self._hash.update(view)
        self.length += len(view)

    def digest(self) -> bytes:
        """Of the bytes so far (32 bytes); the stream may go on."""
        return bytes(self._hash.digest())

    def copy(self) -> Sha256:
        """An independent stream with the same bytes behind it."""
        twin = Sha256()
        twin._hash, twin.length = self._hash.copy(), self.length
        return twin


def _spans(view: memoryview, starts: Any, lengths: Any) -> Iterator[memoryview]:
    """Each span; all are checked before the first is given."""
    starts, lengths = columns(np.uint64, starts, lengths)
    pairs = list(zip(starts.tolist(), lengths.tolist(), strict=True))
    for index, (start, length) in enumerate(pairs):
        if start + length > len(view):
            raise ValueError(f"span {index} reaches outside of its buffer")
    return (view[start : start + length] for start, length in pairs)


def _named(function: Callable[[memoryview], Any], view: memoryview, starts: Any, lengths: Any) -> U8:
    joined = b"".join(function(span).digest() for span in _spans(view, starts, lengths))
    return np.frombuffer(bytearray(joined), np.uint8).reshape(-1, 32)


def names(buf: Buffer, starts: Any, lengths: Any) -> U8:
    """The SHA-256 of every span, (n, 32)."""
    return _named(hashlib.sha256, octets(buf), starts, lengths)


def stream_and_names(stream: Sha256, buf: Buffer, begin: int, end: int, starts: Any, lengths: Any) -> U8:
    """`stream.update(buf[begin:end])` and `names(buf, starts, lengths)` in one pass. ValueError, and nothing
    done, unless 0 ≤ begin ≤ end ≤ len(buf) and all spans fit. The spans need not lie in begin … end."""
    view = octets(buf)
    within("begin", begin, within("end", end, len(view)))
    digests = names(view, starts, lengths)
    stream.update(view[begin:end])
    return digests


def blake3_names(buf: Buffer, starts: Any, lengths: Any) -> U8:
    """The BLAKE3 (256 bits) of every span, (n, 32)."""
    return _named(blake3, octets(buf), starts, lengths)
