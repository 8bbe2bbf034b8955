"""One long zstd stream, for what is written once and read front to back: the chunks of a bundle.

A window of up to 128 MiB finds what is far behind; a decoder needs as much memory, whatever the stream holds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from ..errors import Damaged
from ..model import Buffer

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LEVELS = range(1, 20)
"""zstd's, from fast to small."""
_SMALL = 32 << 20
_BEST, _QUICK = 19, 9
MAX_WINDOW_LOG = 27
_MIN_WINDOW_LOG = 20
_JOB = 16 << 20
"""Bytes of one thread's turn, where several share the work."""
_OVERLAP = 6
"""A turn looks back at an eighth of the window for short matches. Long ones are found in all of it."""
_PIECE = 1 << 20


def level_for(size: int) -> int:
    """The level for a stream of `size` bytes: what is short is made as small as it can be, at 2 to 3 MB/s; beyond,
    that would take minutes."""
    return _BEST if size <= _SMALL else _QUICK


class Compressor:
    """Makes a stream of `size` bytes, with `workers` threads where it is long. `level`: one of LEVELS, else that of
    `level_for`. The same bytes and level make the same stream, however many threads there are."""

    def __init__(self, size: int, workers: int, level: int | None = None) -> None:
        parameter = zstd.CompressionParameter
        window = min(max(size.bit_length(), _MIN_WINDOW_LOG), MAX_WINDOW_LOG)
        options: dict[int, int] = {
            parameter.compression_level: level_for(size) if level is None else level,
            parameter.window_log: window,
            parameter.enable_long_distance_matching: 1,
        }
        if size > 2 * _JOB:
            options |= {
                parameter.nb_workers: max(1, workers),
                parameter.job_size: _JOB,
                parameter.overlap_log: _OVERLAP,
            }
        self._zstd = zstd.ZstdCompressor(options=options)

    def add(self, data: Buffer) -> bytes:
        """More content; what is ready of the stream."""
        return bytes(self._zstd.compress(data))

    def end(self) -> bytes:
        """The rest of the stream."""
        return bytes(self._zstd.flush())


class Decompressor:
    """Reads such a stream. `some(most)` gives up to `most` bytes of it, none at its end."""

    def __init__(self, some: Callable[[int], Buffer], what: str) -> None:
        self._some = some
        self._what = what
        self._zstd = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: MAX_WINDOW_LOG})

    def read_into(self, out: memoryview) -> None:
        """Fill `out`. Damaged: the stream ends before, or is none."""
        at = 0
        while at < len(out):
            data: Buffer = b""
            if self._zstd.needs_input:
                data = self._some(_PIECE)
                if not len(data):
                    raise self._wrong("ends early")
            if self._zstd.eof:
                raise self._wrong("ends early")
            got = self._decompress(data, len(out) - at)
            out[at : at + len(got)] = got
            at += len(got)

    def end(self) -> None:
        """Damaged: the stream has more than was read, or something stands behind it."""
        while not self._zstd.eof:
            data = self._some(_PIECE) if self._zstd.needs_input else b""
            if self._zstd.needs_input and not len(data):
                raise self._wrong("ends early")
            if self._decompress(data, 1):
                raise self._wrong("is longer than it should be")
        if self._zstd.unused_data or len(self._some(1)):
            raise self._wrong("is longer than it should be")

    def _decompress(self, data: Buffer, most: int) -> bytes:
        try:
            return bytes(self._zstd.decompress(data, most))
        except zstd.ZstdError as error:
            raise Damaged(f"undecodable zstd data: {error}", what=self._what) from None

    def _wrong(self, how: str) -> Damaged:
        return Damaged(f"its compressed content {how}", what=self._what)
