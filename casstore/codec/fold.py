"""A gzip blob made by one of our engines, which needs no corrections then: its trace says how the blob is divided, and
no more. The same content makes the same bytes on every machine.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from ..kernels import deflate
from ..model import Buffer, Choice, Member, Segment, Trace
from .gzip import TARGET

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DOCKER = Choice("go", 1, 6)
"""What docker push takes: Go's default level."""
HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
"""Of a member that Go makes: no time, no name, no system."""
_TOKENS = 16384
"""Of one of its blocks, at most."""
_BLOCK = _TOKENS * 258
"""Bytes of content of one, at most."""
_ROOM = 128 << 10
"""Bytes that one takes, at most: 48 bits for each token, and its head."""
_LEVEL = 3
"""Of zstd."""


class Fold:
    """One blob in the making: `add` content as it comes, then `end`; both give what is made by then. `trace` is there
    afterwards. LookupError: the engine is not here."""

    def __init__(self) -> None:
        self._history, self._lookahead = deflate.sight(DOCKER)
        self._engine = deflate.Engine(*DOCKER)
        self._engine.seek(b"", 0, False, 0)
        self._content = bytearray()
        self._begin = 0  # where that begins, in all content
        self._check = 0
        self._out = bytearray(_ROOM)
        self._made = bytearray(HEADER)
        self._segments: list[Segment] = []
        self._bytes = bytearray()  # that the bits of the segment under way are in
        self._phase = 0  # of the first of them, bits that belong to the segment before, …
        self._before = 0  # … and their value
        self._bits = self._blocks = self._start = 0
        self._state = self._engine.save()
        self.trace: Trace | None = None

    def add(self, data: Buffer) -> Iterator[bytes]:
        """More content."""
        self._check = deflate.crc32(data, self._check)
        self._content += data
        enough = _BLOCK + self._lookahead
        while self._begin + len(self._content) - self._engine.position >= enough:
            self._block(False)
            if self._engine.position - self._start >= TARGET:
                self._close()
        yield from self._given()
        gone = self._engine.position - self._history - self._begin
        if gone > 0:
            del self._content[:gone]
            self._begin += gone

    def end(self) -> Iterator[bytes]:
        """There is no more content."""
        size = self._begin + len(self._content)
        while not self._block(True):
            if self._engine.position - self._start >= TARGET and self._engine.position < size:
                self._close()
                yield from self._given()
        self._close()
        trailer = self._check.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little")
        if self._phase:
            self._made.append(self._before)
        self._made += trailer
        yield from self._given()
        self.trace = Trace((DOCKER,), (Member(HEADER, tuple(self._segments), 0, trailer),), b"")

    def _block(self, last: bool) -> bool:
        """One block; was it the final one?"""
        phase = (self._phase + self._bits) & 7
        bits = self._engine.apply(self._content, self._begin, last, 1, b"", self._out, phase, 0)
        piece = self._out[: (phase + bits + 7) >> 3]
        final = bool(piece[0] >> phase & 1)
        if phase and self._bytes:
            self._bytes[-1] |= piece[0]
            del piece[0]
        self._bytes += piece
        self._bits += bits
        self._blocks += 1
        return final

    def _close(self) -> None:
        """The segment under way ends where the engine stands."""
        position = self._engine.position
        content = position - self._start
        check = deflate.crc32(self._bytes)
        tokens = min(content, _TOKENS)
        self._segments.append(Segment(content, self._bits, self._blocks, tokens, 0, self._state, b"", False, check))
        self._bytes[0] |= self._before
        self._phase = (self._phase + self._bits) & 7
        self._before = self._bytes.pop() if self._phase else 0
        self._made += self._bytes
        self._bytes = bytearray()
        self._bits = self._blocks = 0
        self._start = position
        self._state = self._engine.save()

    def _given(self) -> Iterator[bytes]:
        if self._made:
            made, self._made = self._made, bytearray()
            yield bytes(made)


def is_folded(trace: Trace) -> bool:
    """Is the blob of this trace the one that `Fold` makes of its content?"""
    if trace.engines != (DOCKER,) or len(trace.members) != 1 or trace.tail:
        return False
    member = trace.members[0]
    corrected = any(one.exceptions for one in member.segments)
    return member.header == HEADER and not member.padding and not corrected


def zstd_of(content: Iterable[Buffer]) -> Iterator[bytes]:
    """The content as one zstd frame: the same bytes with the same version of the library, and no promise beyond."""
    compressor = zstd.ZstdCompressor(
        options={zstd.CompressionParameter.compression_level: _LEVEL, zstd.CompressionParameter.checksum_flag: 1}
    )
    for piece in content:
        if made := compressor.compress(piece):
            yield made
    yield compressor.flush()


def gzip_of(content: Iterable[Buffer]) -> Iterator[bytes]:
    """The content as `Fold` makes it."""
    fold = Fold()
    for piece in content:
        yield from fold.add(piece)
    yield from fold.end()
