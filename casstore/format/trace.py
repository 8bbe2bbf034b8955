"""A gzip trace as bytes: what a recipe keeps beside the content. FORMATS.md says what each byte means.

Numbers are columns; exceptions, headers and trailers, of which one is like the next, are compressed together, and the
tail with them.
"""

from __future__ import annotations

import struct

import numpy as np

from ..errors import Damaged
from ..model import U64, Buffer, Choice, Member, Segment, Trace
from .encoding import decode_columns, deflated, encode_columns, inflated

VERSION = 1
_MAGIC = b"CSTGZ"
# magic, version, engines, members, segments, length of the texts, of them compressed, of the tail
_HEADER = struct.Struct("<5sBBIIQQI")
_ENGINE = struct.Struct("<HBb")
_LEVEL = 19
_STATE = 4
MAX_SEGMENTS = 1 << 18
"""Of one blob: 1 TiB of content in stretches as they are made. As many members."""
MAX_CONTENT = 16 << 20
"""Bytes of content of one segment."""
PER_SEGMENT = 1 << 14
"""Bytes of content for each segment, at least, but for two of each member: what it costs to begin one is paid for."""
MAX_BLOCKS = 1 << 15
"""Blocks of one segment."""
BITS_PER_BYTE = 16
"""At most, of a stream for a byte of content: a match of three takes 15 + 15 + 13 bits and fewer than 48."""
BITS_PER_BLOCK = 5120
"""At most, of a block for its head and end: 3 + 14 + 19 * 3 + 316 * 14 + 15 bits and fewer than 4700."""
MAX_TEXTS = 96 << 20
"""Bytes of exceptions, headers, trailers and the tail."""
MAX_NAME = 32
TRAILER = 8
"""Bytes of a member's trailer."""


def encode(trace: Trace) -> bytes:
    """The trace in a recipe. ValueError: more than a trace may hold."""
    segments = [one for member in trace.members for one in member.segments]
    if len(segments) > MAX_SEGMENTS or len(trace.members) > MAX_SEGMENTS or len(trace.engines) > 255:
        raise ValueError("too many parts for a trace")
    texts = b"".join(
        [
            *(member.header for member in trace.members),
            *(member.trailer for member in trace.members),
            *(one.exceptions for one in segments),
            trace.tail,
        ]
    )
    if len(texts) > MAX_TEXTS:
        raise ValueError("more exceptions than a trace may hold")
    stored = deflated(texts, _LEVEL) if texts else b""
    names = b"".join(_ENGINE.pack(one.version, len(one.name), one.level) + one.name.encode() for one in trace.engines)
    members = [
        [len(member.segments) for member in trace.members],
        [member.padding for member in trace.members],
        [len(member.header) for member in trace.members],
    ]
    rows = [
        [one.content for one in segments],
        [one.bits for one in segments],
        [one.blocks for one in segments],
        [one.tokens for one in segments],
        [one.engine for one in segments],
        *([one.state[i] for one in segments] for i in range(_STATE)),
        [int(one.goes_on) for one in segments],
        [one.check for one in segments],
        [len(one.exceptions) for one in segments],
    ]
    columns = encode_columns([_column(one) for one in (*members, *rows)], _LEVEL)
    header = _HEADER.pack(
        _MAGIC,
        VERSION,
        len(trace.engines),
        len(trace.members),
        len(segments),
        len(texts),
        len(stored),
        len(trace.tail),
    )
    return b"".join((header, names, columns, stored))


def _column(values: list[int]) -> U64:
    return np.array(values, np.uint64)


def decode(data: Buffer, what: str = "trace") -> Trace:
    """The trace in a recipe. Damaged: its parts contradict each other. Memory follows what is there."""
    view = memoryview(data)
    if len(view) < _HEADER.size:
        raise Damaged("trace ends early", what=what)
    magic, version, engines, members, count, length, stored, tail = _HEADER.unpack_from(view)
    if magic != _MAGIC or version != VERSION:
        raise Damaged(f"unknown trace format (version {version})", what=what)
    if max(count, members) > MAX_SEGMENTS or length > MAX_TEXTS:
        raise Damaged("trace claims more than any that is written", what=what)
    at = _HEADER.size
    choices: list[Choice] = []
    for _ in range(engines):
        if at + _ENGINE.size > len(view):
            raise Damaged("trace ends early", what=what)
        number, name_length, level = _ENGINE.unpack_from(view, at)
        name = bytes(view[at + _ENGINE.size : at + _ENGINE.size + name_length])
        if not 0 < len(name) == name_length <= MAX_NAME or not name.isascii():
            raise Damaged("trace with an impossible engine", what=what)
        choices.append(Choice(name.decode(), number, level))
        at += _ENGINE.size + name_length
    counts = [members] * 3 + [count] * (8 + _STATE)
    columns, at = decode_columns(view, at, counts, what, 8 * sum(counts))
    if at + stored != len(view) or tail > length:
        raise Damaged("trace contradicts itself", what=what)
    texts = inflated(view[at : at + stored], length, what) if stored else b""
    if len(texts) != length:
        raise Damaged("trace contradicts itself", what=what)
    _check(columns, len(choices), count, length - tail, what)
    numbers, paddings, headers, *rows = (column.tolist() for column in columns)
    heads = _cut(texts, 0, headers)
    ends = _cut(texts, sum(headers), [TRAILER] * members)
    exceptions = _cut(texts, sum(headers) + TRAILER * members, rows[-1])
    segments = [
        Segment(content, bits, blocks, tokens, engine, tuple(state), text, bool(goes_on), check)
        for content, bits, blocks, tokens, engine, *state, goes_on, check, text in zip(
            *rows[:-1], exceptions, strict=True
        )
    ]
    found: list[Member] = []
    begin = 0
    for number, padding, head, end in zip(numbers, paddings, heads, ends, strict=True):
        found.append(Member(head, tuple(segments[begin : begin + number]), padding, end))
        begin += number
    return Trace(tuple(choices), tuple(found), bytes(texts[length - tail :]))


def _check(columns: list[U64], engines: int, count: int, length: int, what: str) -> None:
    numbers, paddings, headers, content, bits, blocks, tokens, engine, *states, goes_on, checks, exceptions = columns
    fine = (
        _sum(numbers) == count
        and _sum(headers, exceptions) + TRAILER * len(numbers) == length
        and _below(paddings, 128)
        and _below(engine, engines)
        and _below(goes_on, 2)
        and all(_below(one, 1 << 32) for one in (tokens, checks, *states))
        and _below(content, MAX_CONTENT + 1)
        and count <= 2 * len(numbers) + _sum(content) // PER_SEGMENT
        and _below(blocks, MAX_BLOCKS + 1)
        and bool(np.all(tokens <= content))
        and bool(np.all(bits <= BITS_PER_BYTE * content + BITS_PER_BLOCK * blocks))
    )
    if not fine:
        raise Damaged("trace contradicts itself", what=what)


def _below(column: U64, limit: int) -> bool:
    return not len(column) or int(column.max()) < limit


def _sum(*columns: U64) -> int:
    """The sum of all values, exact; -1 where it is beyond 2^63."""
    total = 0
    for column in columns:
        if len(column) and int(column.max()) > (1 << 62) // len(column):
            return -1
        total += int(column.sum(dtype=np.uint64))
    return total


def _cut(texts: bytes, at: int, lengths: list[int]) -> list[bytes]:
    found = []
    for length in lengths:
        found.append(texts[at : at + length])
        at += length
    return found
