"""A gzip blob made again from its content and its trace: whole, or a range, by as many threads as there are cores.

Stretches depend on nothing but the content (and, where an engine cannot begin in the middle, on the stretch before), so
several are made at once, and a range costs only those that it touches. Every stretch is held against the checksum that
its trace keeps of it before any byte of it is given out.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeAlias

from ..kernels import deflate
from ..model import Buffer, Choice, Member, Segment, Trace

TRAILER = 8
"""Bytes after a member's stream."""
FAILURES = (deflate.BadTrace, deflate.Lost, deflate.TooMuch, deflate.ViewTooSmall, LookupError)
"""What a replay may raise: a trace that is not of this content, or of an engine that is not here."""

Read: TypeAlias = Callable[[int, int], Buffer]
"""Bytes [start, end) of the content; called in any thread."""
_Made: TypeAlias = tuple[bytearray, deflate.Engine]


class _Stretch(NamedTuple):
    """What makes one stretch. `start`: where its member's content begins, of `size` bytes, and `at`: where in that its
    own does; `bit`: where its bits begin, in the member's stream; `follows`: it comes from the stretch before."""

    segment: Segment
    choice: Choice
    start: int
    size: int
    at: int
    bit: int
    follows: bool


class _Fill(NamedTuple):
    """What fills the last byte of a member's stream, from `bit` on."""

    padding: int
    bit: int


class _Job(NamedTuple):
    """A stretch under way. `shares`: its last byte is the next one's first, too."""

    made: Future[_Made]
    shares: bool


_Part: TypeAlias = tuple[int, bytes | _Stretch | _Fill]
"""Where in the blob it begins, and what is there."""
_Coming: TypeAlias = tuple[int, bytes | _Job | _Fill]


def replay(
    trace: Trace, read: Read, start: int = 0, stop: int | None = None, *, threads: int | None = None
) -> Iterator[memoryview]:
    """Bytes [start, stop) of the blob. FAILURES: the trace is not of this content, or its engine not here."""
    threads = threads or len(os.sched_getaffinity(0))
    pool = ThreadPoolExecutor(threads, thread_name_prefix="gzip")
    try:
        for at, piece in _joined(_ahead(_parts(trace, start, stop), read, pool, threads + 1)):
            low = max(start - at, 0)
            high = len(piece) if stop is None else min(stop - at, len(piece))
            if low < high:
                yield memoryview(piece)[low:high]
    finally:
        pool.shutdown(cancel_futures=True)


def _ahead(parts: Iterator[_Part], read: Read, pool: ThreadPoolExecutor, most: int) -> Iterator[_Coming]:
    """The parts in order, up to `most` stretches of them under way beyond the one that is waited for."""
    queue: deque[_Coming] = deque()
    under_way = 0
    before: Future[_Made] | None = None
    for at, part in parts:
        if isinstance(part, _Stretch):
            # A stretch that another comes from was asked for earlier, so that it is being made, or is.
            before = pool.submit(_again, part, read, before if part.follows else None)
            queue.append((at, _Job(before, bool((part.bit + part.segment.bits) & 7))))
            under_way += 1
        else:
            queue.append((at, part))
        while under_way > most:
            under_way -= isinstance(queue[0][1], _Job)
            yield queue.popleft()
    while queue:
        yield queue.popleft()


def _joined(parts: Iterator[_Coming]) -> Iterator[tuple[int, Buffer]]:
    """(offset, bytes): where one stretch ends within a byte, the next one begins in it."""
    carry = 0
    for at, part in parts:
        if isinstance(part, bytes):
            yield at, part
        elif isinstance(part, _Fill):
            yield at, bytes([carry | (part.padding << (part.bit & 7)) & 0xFF])
            carry = 0
        else:
            piece, _ = part.made.result()
            if piece:
                piece[0] |= carry
                carry = piece.pop() if part.shares else 0
            yield at, piece


def _parts(trace: Trace, start: int, stop: int | None) -> Iterator[_Part]:
    """All that the range touches, in order."""
    at = content = 0
    for member in trace.members:
        size = sum(one.content for one in member.segments)
        bits = sum(one.bits for one in member.segments)
        first = at + len(member.header)
        end = first + (bits + 7) // 8
        if end + TRAILER > start and (stop is None or at < stop):
            yield at, member.header
            yield from _stretches(trace, member, first, bits, content, size, start, stop)
            if bits & 7 and end > start and (stop is None or end <= stop):
                yield end - 1, _Fill(member.padding, bits)
            yield end, member.trailer
        at = end + TRAILER
        content += size
    yield at, trace.tail


def _stretches(
    trace: Trace, member: Member, first: int, bits: int, content: int, size: int, start: int, stop: int | None
) -> Iterator[_Part]:
    """Of a member's stream, which begins at `first` of the blob, what the range touches, and what leads there where an
    engine can only come from before."""
    reach: list[int] = []  # for each stretch, the bit up to which what follows must come from it
    bit = far = bits
    for segment in reversed(member.segments):
        reach.append(far)
        bit -= segment.bits
        if not segment.goes_on:
            far = bit
    at, before = 0, -1
    for segment in member.segments:
        if first + ((reach.pop() + 7) >> 3) > start and (stop is None or first + (bit >> 3) < stop):
            if segment.goes_on and before != segment.engine:
                raise deflate.BadTrace("a stretch that comes from nowhere")
            choice = trace.engines[segment.engine]
            yield first + (bit >> 3), _Stretch(segment, choice, content, size, at, bit, segment.goes_on)
        before = segment.engine
        bit, at = bit + segment.bits, at + segment.content


def _again(stretch: _Stretch, read: Read, before: Future[_Made] | None) -> _Made:
    """The bytes that a stretch's bits are in, and the engine. `before`: the stretch that it comes from."""
    segment, at = stretch.segment, stretch.at
    history, lookahead = deflate.sight(stretch.choice)
    begin = max(0, at - history)
    end = min(at + segment.content + lookahead, stretch.size)
    view = read(stretch.start + begin, stretch.start + end)
    if before is not None:
        _, engine = before.result()
    else:
        engine = deflate.Engine(*stretch.choice)
        engine.seek(view, begin, end == stretch.size, at, segment.state)
    if engine.position != at:
        raise deflate.BadTrace("a stretch that comes from elsewhere")
    phase = stretch.bit & 7
    out = bytearray((phase + segment.bits + 7) // 8)
    made = engine.apply(
        view, begin, end == stretch.size, segment.blocks, segment.exceptions, out, phase, segment.tokens
    )
    if made != segment.bits or engine.position != at + segment.content:
        raise deflate.BadTrace("other bits than told")
    if deflate.crc32(out) != segment.check:
        raise deflate.BadTrace("other bytes than it was made of")
    return out, engine
