"""Compressed streams from outside, told apart by their first bytes and read as what is inside. Streaming:
memory does not grow with the stream.

gzip (all members; what follows the last one and is not a member is skipped and counted), zstd (all frames,
skippable ones too), bzip2 and xz (all streams). Sources: RFC 1952, RFC 8878, the .xz file format 1.2.1.
"""

from __future__ import annotations

import bz2
import lzma
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from isal import igzip_lib

from ..errors import BadInput, LimitExceeded
from ..model import Buffer

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: How many of a stream's first bytes `detect` wants to see.
DETECT_SIZE = 10

_BLOCK = 1 << 20
# A decoder hands back, as a copy, what it was fed beyond its end: with many tiny members large pieces would
# cost the square of their length.
_PIECE = 64 << 10
_ZSTD_WINDOW_LOG = 27
_XZ_MEMORY = 128 << 20
_ERRORS: Any = (igzip_lib.IsalError, zstd.ZstdError, lzma.LZMAError, OSError, EOFError, ValueError)


class Readable(Protocol):
    """What a stream comes from: `read(n)` gives up to n bytes, none only at the end."""

    def read(self, size: int, /) -> Buffer: ...


@dataclass(frozen=True, slots=True)
class Limit:
    """Caps on what one stream may become: `output` bytes in all; `ratio` of output to input, once there are
    more than `free` bytes of output (sparse content is small for honest reasons)."""

    output: int | None = None
    ratio: float | None = None
    free: int = 64 << 20


LIMIT = Limit(ratio=2000, free=1 << 30)
"""What comes from outside may become, unless told otherwise. (gzip cannot exceed a ratio of about 1030.)"""


def detect(first: Buffer) -> str | None:
    """The compression (gzip, zstd, bzip2, xz), or None, by the first DETECT_SIZE bytes (fewer where there are
    no more)."""
    head = bytes(first[:DETECT_SIZE])
    if head[:3] == b"\x1f\x8b\x08":
        return "gzip"
    if head[:4] == b"\x28\xb5\x2f\xfd" or _skippable(head):
        return "zstd"
    if head[:3] == b"BZh" and head[3:4] in b"123456789" and head[4:] in (b"1AY&SY", b"\x17rE8P\x90"):
        return "bzip2"
    if head[:6] == b"\xfd7zXZ\x00":
        return "xz"
    return None


def open_stream(source: Readable, limit: Limit | None = None, what: str | None = None) -> Stream:
    """What is inside `source`, whatever of these it is compressed by; itself where by none. `what` names the
    source in errors."""
    return Stream(source, limit or Limit(), what)


class Stream:
    """Bytes out of a compressed stream.

    `kind` as `detect` says; `consumed`: compressed bytes taken from the source; `produced`: bytes out;
    `trailing`: bytes skipped after the last gzip member (known once the end is reached).
    """

    def __init__(self, source: Readable, limit: Limit, what: str | None) -> None:
        self._source = source
        self._limit = limit
        self._what = what
        self._block = memoryview(b"")
        self._at = 0  # in the block: what comes before has been decoded
        self._begin = 0  # of the block, in the source
        self._ended = False
        self._decoder: Any = None
        self.produced = 0
        self.trailing = 0
        self._fill(DETECT_SIZE)
        self.kind = detect(self._block)
        self._makes: Callable[[], Any] | None = _DECODERS[self.kind] if self.kind else None

    @property
    def consumed(self) -> int:
        return self._begin + self._at

    def read(self, size: int) -> bytes:
        """Exactly `size` (≥ 1) bytes, fewer only at the end of the stream.

        BadInput: the stream is cut short or undecodable; the offset is in the compressed stream, and of a
        member that is undecodable, close before the fault. LimitExceeded: `limit` was hit.
        """
        parts = []
        while size > 0:
            part = self._some(size)
            if not part:
                break
            parts.append(part)
            size -= len(part)
            self.produced += len(part)
            self._check_limit()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _some(self, size: int) -> bytes:
        """Between 1 and `size` bytes; none at the end."""
        if self._makes is None:
            return self._verbatim(size)
        while True:
            if self._decoder is None:
                if not self._next_member():
                    return b""
                self._decoder = self._makes()
            piece = self._piece() if self._decoder.needs_input else memoryview(b"")
            try:
                part = bytes(self._decoder.decompress(piece, size))
            except _ERRORS as error:
                where = self.consumed - len(piece)
                raise BadInput(
                    f"undecodable {self.kind} stream: {error}", what=self._what, offset=where
                ) from None
            if self._decoder.eof:
                self._at -= len(self._decoder.unused_data)
                self._decoder = None
            if part:
                return part

    def _verbatim(self, size: int) -> bytes:
        self._fill(1)
        part = bytes(self._block[self._at : self._at + size])
        self._at += len(part)
        return part

    def _piece(self) -> memoryview:
        """The next bytes for a decoder that wants more."""
        if not self._fill(1):
            raise BadInput(f"{self.kind} stream is cut short", what=self._what, offset=self.consumed)
        piece = self._block[self._at : self._at + _PIECE]
        self._at += len(piece)
        return piece

    def _next_member(self) -> bool:
        """Whether another member (frame, stream) begins here. Takes what may stand between and after them."""
        if self.kind == "xz":
            self._skip_xz_padding()
        if not self._fill(DETECT_SIZE):
            return False
        if self._at + self._begin == 0 or detect(self._block[self._at :]) == self.kind:
            return True
        if self.kind != "gzip":
            raise BadInput(f"junk after the {self.kind} stream", what=self._what, offset=self.consumed)
        # To the end: who digests the source by reading it through us must have seen all of it.
        while rest := self._fill(1):
            self._at += rest
            self.trailing += rest
        return False

    def _skip_xz_padding(self) -> None:
        while self._fill(4) >= 4 and not any(self._block[self._at : self._at + 4]):
            self._at += 4

    def _fill(self, least: int) -> int:
        """How many bytes of the block are still to be taken, after having tried to make them `least` or
        more."""
        while len(self._block) - self._at < least and not self._ended:
            fresh = self._source.read(_BLOCK)
            self._ended = not len(fresh)
            rest = bytes(self._block[self._at :])
            self._begin += self._at
            self._at = 0
            self._block = memoryview(rest + bytes(fresh) if rest else fresh)
        return len(self._block) - self._at

    def _check_limit(self) -> None:
        output, ratio = self._limit.output, self._limit.ratio
        if output is not None and self.produced > output:
            problem = f"stream holds more than {output} bytes"
        elif ratio is not None and self.produced > max(self._limit.free, ratio * self.consumed):
            problem = f"stream becomes more than {ratio:g} times its size"
        else:
            return
        raise LimitExceeded(problem, what=self._what, offset=self.consumed)


def _skippable(head: bytes) -> bool:
    return len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50


def _gzip() -> Any:
    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)


def _zstd() -> Any:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})


def _xz() -> Any:
    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)


_DECODERS: dict[str, Callable[[], Any]] = {
    "gzip": _gzip,
    "zstd": _zstd,
    "bzip2": bz2.BZ2Decompressor,
    "xz": _xz,
}
