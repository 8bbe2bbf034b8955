"""The codecs of frames: bytes ⇄ stored bytes, one frame at a time, in memory.

Codecs by name: "none", "lz4", "zstd:1" … "zstd:19". A frame says only its codec's number, which is all that
decompressing needs. With a *prefix* (the raw bytes of one other frame; zstd only) what both have in common is
stored as references. All of them release the GIL while they work.
"""

from __future__ import annotations

import sys
from typing import Any

import lz4.block

from ..errors import Damaged
from ..model import MAX_FRAME, Buffer

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

NONE, LZ4, ZSTD = 0, 1, 2
NUMBERS = {"none": NONE, "lz4": LZ4, "zstd": ZSTD}
MAX_LEVEL = 19
_LEVELS = {str(level) for level in range(1, MAX_LEVEL + 1)}

# A frame and its prefix are up to 8 MiB together: a window of that size reaches from the end of one to the
# begin of the other, and no frame of ours needs a larger one.
_WINDOW_LOG = 23
_DECODER: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG}


def parse(codec: str) -> tuple[int, int]:
    """(number, level) of a codec's name. ValueError: no such codec."""
    name, _, level = codec.partition(":")
    if name == "zstd" and level in _LEVELS:
        return ZSTD, int(level)
    if codec in ("none", "lz4"):
        return NUMBERS[codec], 0
    raise ValueError(f"unknown codec {codec!r}: none, lz4, or zstd:1 to zstd:{MAX_LEVEL}")


def compress(codec: str, raw: Buffer, prefix: Buffer | None = None) -> tuple[int, Buffer]:
    """(codec number, stored bytes) of a frame of 1 to MAX_FRAME bytes. What does not shrink is stored under
    "none", as `raw` itself, not a copy; then it leans on no prefix either: look at the number.

    ValueError: no such codec, a prefix for a codec without, an impossible length.
    """
    number, level = parse(codec)
    length = len(memoryview(raw))
    if not 0 < length <= MAX_FRAME:
        raise ValueError(f"a frame has 1 to {MAX_FRAME} bytes, not {length}")
    stored: Buffer
    if number == ZSTD:
        stored = bytes(zstd.compress(raw, level)) if prefix is None else _zstd_leaning(raw, level, prefix)
    elif prefix is not None:
        raise ValueError("only zstd takes a prefix")
    elif number == LZ4:
        stored = lz4.block.compress(raw, store_size=False)
    else:
        return NONE, raw
    return (number, stored) if len(stored) < length else (NONE, raw)


def decompress(
    number: int, stored: Buffer, raw_length: int, prefix: Buffer | None = None, what: str = "frame"
) -> bytes:
    """The `raw_length` bytes of a frame. Damaged: `stored` is not exactly that under this codec, whatever it
    claims; never are more than a few bytes beyond `raw_length` made."""
    if not 0 < raw_length <= MAX_FRAME:
        raise Damaged("frame of impossible length", what=what)
    if prefix is not None and number != ZSTD:
        raise Damaged("frame leans on another without a codec that can", what=what)
    if number == ZSTD:
        raw, whole = _unzstd(stored, raw_length, prefix, what)
    elif number == LZ4:
        try:
            raw, whole = lz4.block.decompress(stored, uncompressed_size=raw_length), True
        except lz4.block.LZ4BlockError as error:
            raise Damaged(f"undecodable frame: {error}", what=what) from None
    elif number == NONE:
        raw, whole = bytes(stored), True
    else:
        raise Damaged(f"frame of an unknown codec ({number})", what=what, hint="a newer casstore made it")
    if len(raw) != raw_length or not whole:
        raise Damaged("frame of another length than claimed", what=what)
    return raw


def _zstd_leaning(raw: Buffer, level: int, prefix: Buffer) -> bytes:
    parameter = zstd.CompressionParameter
    compressor = zstd.ZstdCompressor(
        options={
            parameter.compression_level: level,
            parameter.window_log: _WINDOW_LOG,
            parameter.enable_long_distance_matching: 1,
        },
        zstd_dict=_dictionary(prefix),
    )
    return bytes(compressor.compress(raw, compressor.FLUSH_FRAME))


def _dictionary(prefix: Buffer | None) -> Any:
    """Under 8 bytes no prefix helps, and the library takes none: on both sides it counts as absent."""
    if prefix is None or len(memoryview(prefix)) < 8:
        return None
    return zstd.ZstdDict(prefix, is_raw=True).as_prefix


def _unzstd(stored: Buffer, raw_length: int, prefix: Buffer | None, what: str) -> tuple[bytes, bool]:
    decoder = zstd.ZstdDecompressor(zstd_dict=_dictionary(prefix), options=_DECODER)
    try:
        raw = bytes(decoder.decompress(stored, raw_length + 1))
    except zstd.ZstdError as error:
        raise Damaged(f"undecodable frame: {error}", what=what) from None
    return raw, decoder.eof and not decoder.unused_data
