"""gzip taken apart, losslessly: the content, and a trace from which the same bytes are made again.

    analysis = Analysis(source)
    for piece in analysis:            # the content
        …
    trace = analysis.trace            # None: it stays as it is; analysis.reason says why

    for piece in replay(trace, read): # read(start, end) gives content; replay(trace, read, 10, 20): a range
        …

A deflate stream is taken in stretches of some MiB of content, each held against an engine (kernels/deflate) that
predicts what the encoder did; what it does not predict is kept as exceptions. Stretches depend on nothing but the
content, so they are made again in parallel, and a range costs only those that it touches. Source: RFC 1952; GZIP.md.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from ..kernels import deflate
from ..model import Buffer, Choice, Member, Segment, Trace

TARGET = 4 << 20
"""Content of a stretch, about (bytes)."""
_BODY = 16 << 20
"""Content of one stretch, at most."""
_TOKENS = 9 << 20
"""Tokens of one stretch, at most."""
_HEADER = 64 << 10
"""Bytes of a member's header, at most."""
_TAIL = 64 << 10
"""Bytes after the last member, at most."""
_TRAILER = 8
_MAGIC = b"\x1f\x8b\x08"


FAILURES = (deflate.BadTrace, deflate.Lost, deflate.TooMuch, deflate.ViewTooSmall, LookupError)
"""What a replay may raise: a trace that is not of this content, or of an engine that is not here."""


class NoTrace(ValueError):
    """A blob that is not to be taken apart: its message says why."""


class Readable(Protocol):
    """Where bytes come from: none only at the end."""

    def read(self, size: int, /) -> Buffer: ...


def candidates(header: bytes) -> list[Choice]:
    """Engines to be tried, the likeliest first, by what a member's header tells. Fingerprints: GZIP.md."""
    mtime, extra, system = header[4:8], header[8], header[9]
    likely = {2: 9, 4: 1}.get(extra, 6)
    levels = [likely, *(level for level in (6, 9, 1) if level != likely), *(2, 3, 4, 5, 7, 8)]
    families = {name: [Choice(name, 1, level) for level in levels] for name in ("go", "zlib", "gzip", "pigz")}
    # pgzip's level tells its unit too: 5 is 1 MiB, 25 (as umoci has it) 256 KiB.
    families["klauspost"] = [Choice("klauspost", version, level) for version in (1, 2, 3, 4, 5) for level in (5, 25)]
    families["busybox"] = [Choice("busybox", 1, level) for level in (6, 26, 16)]
    if system == 255 and mtime == b"\0\x09\x6e\x88":
        order = ["klauspost", "go", "zlib"]
    elif system == 255 and not any(mtime):
        order = ["go", "klauspost", "zlib"]
    elif system == 3 and (header[3] & 8 or any(mtime)):
        order = ["gzip", "pigz", "busybox", "zlib", "go"]
    else:
        order = ["zlib", "busybox", "gzip", "pigz", "go"]
    found = [choice for name in order for choice in families[name][:3]]
    found += [choice for name in order for choice in families[name][3:]]
    return [one for one in found if one[:2] in deflate.engines()]


class _Input:
    """A source, read in pieces; what was taken too much can be given back."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self.data = memoryview(b"")
        self._recent = b""
        self.last = False

    def more(self) -> None:
        """Another piece, where there is one."""
        piece = self._source.read(1 << 20)
        self.data = memoryview(bytes(self.data) + bytes(piece)) if self.data else memoryview(bytes(piece))
        self.last = not len(piece)

    def use(self, count: int) -> None:
        """So many bytes of `data` are taken."""
        self._recent = (self._recent + bytes(self.data[max(0, count - 8) : count]))[-8:]
        self.data = self.data[count:]

    def back(self, count: int) -> None:
        """The last few of them were not wanted."""
        if count:
            self.data = memoryview(self._recent[-count:] + bytes(self.data))

    def want(self, count: int) -> bool:
        """Have so many bytes in `data`; False: there are not so many left."""
        while len(self.data) < count and not self.last:
            self.more()
        return len(self.data) >= count


class _Body:
    """One stretch and the content around it: what came before, its own, and what comes next."""

    def __init__(self, before: _Body | None) -> None:
        self.stretch = deflate.Stretch(_TOKENS)
        kept = b"" if before is None else bytes(before.buffer[: before.end][-deflate.HISTORY :])
        self.buffer: bytearray = bytearray(len(kept) + _BODY + deflate.LOOKAHEAD)
        self.buffer[: len(kept)] = kept
        self.at: int = len(kept)
        self.end: int = len(kept)
        self.start: int = 0 if before is None else before.start + before.size
        """Where the content begins, counted from the member's."""

    @property
    def size(self) -> int:
        return self.end - self.at

    @property
    def content(self) -> memoryview:
        return memoryview(self.buffer)[self.at : self.end]


class Analysis:
    """One blob being taken apart: iterate for its content. `trace` is there afterwards; None, and `reason`, where it is
    not to be taken apart: then the content given may be all, or not."""

    def __init__(self, source: Readable) -> None:
        self._input = _Input(source)
        self._engines: list[Choice] = []
        self.trace: Trace | None = None
        self.reason = ""

    def __iter__(self) -> Iterator[memoryview]:
        members: list[Member] = []
        try:
            with ThreadPoolExecutor(1, thread_name_prefix="gzip") as pool:
                while self._input.want(2) and (not members or bytes(self._input.data[:2]) == _MAGIC[:2]):
                    members.append((yield from self._member(pool)))
            if not members:
                raise NoTrace("not gzip")
            while not self._input.last and len(self._input.data) <= _TAIL:
                self._input.more()
            if len(self._input.data) > _TAIL:
                raise NoTrace("too much after the last member")
            self.trace = Trace(tuple(self._engines), tuple(members), bytes(self._input.data))
        except (NoTrace, deflate.BadStream, deflate.NotCompiled) as error:
            self.reason = str(error)

    def _header(self) -> bytes:
        """A member's header, whole (RFC 1952, 2.3)."""
        taken = self._input
        if not taken.want(10) or bytes(taken.data[:3]) != _MAGIC or taken.data[3] & 0xE0:
            raise NoTrace("not gzip")
        flags, size = taken.data[3], 10
        if flags & 4:
            if not taken.want(12):
                raise NoTrace("unexpected EOF")
            size += 2 + int.from_bytes(taken.data[10:12], "little")
        for flag in (8, 16):
            if flags & flag:
                while True:
                    if size >= _HEADER or not taken.want(size + 1):
                        raise NoTrace("a header without an end")
                    size += 1
                    if not taken.data[size - 1]:
                        break
        if flags & 2:
            size += 2
        if size > _HEADER or not taken.want(size):
            raise NoTrace("a header without an end")
        header = bytes(taken.data[:size])
        taken.use(size)
        return header

    def _member(self, pool: ThreadPoolExecutor) -> Generator[memoryview, None, Member]:
        header = self._header()
        parser = deflate.Parser()
        held = _Held(self._engines, candidates(header))
        jobs: list[Future[Segment]] = []
        before: _Body | None = None
        crc, told = 0, ""
        while told != "end":
            body = _Body(before)
            parser.begin(body.stretch)
            told = self._fill(parser, body)
            if before is not None:
                jobs.append(pool.submit(held.against, before, body, told == "end"))
            crc = deflate.crc32(body.content, crc)
            yield body.content
            before = body
            if len(jobs) > 1:
                jobs[-2].result()  # what cannot be followed is known soon, and little is kept
        if before is not None:
            jobs.append(pool.submit(held.against, before, None, True))
        padding = parser.padding
        self._input.back(parser.surplus)
        if not self._input.want(8):
            raise NoTrace("unexpected EOF")
        trailer = bytes(self._input.data[:8])
        self._input.use(8)
        expected = crc.to_bytes(4, "little") + (parser.content & 0xFFFFFFFF).to_bytes(4, "little")
        segments = tuple(job.result() for job in jobs)
        return Member(header, segments, padding, b"" if trailer == expected else trailer)

    def _fill(self, parser: deflate.Parser, body: _Body) -> str:
        taken = self._input
        while True:
            told, used, made = parser.parse(
                body.stretch, taken.data, taken.last, memoryview(body.buffer)[: body.at + _BODY], body.end, TARGET
            )
            taken.use(used)
            body.end += made
            if told != "input":
                break
            taken.more()
        if told == "room":
            raise NoTrace("a block larger than is kept in memory")
        return str(told)


class _Held:
    """Holds stretch after stretch against engines."""

    def __init__(self, engines: list[Choice], candidates: list[Choice]) -> None:
        self._engines = engines
        self._candidates = candidates
        self._now: tuple[Choice, deflate.Engine] | None = None

    def against(self, body: _Body, after: _Body | None, ended: bool) -> Segment:
        """The segment of a stretch. `after`: the one that follows, whose content may be wanted ahead; `ended`: that is
        the last."""
        ahead = b"" if after is None else bytes(after.content[: deflate.LOOKAHEAD])
        body.buffer[body.end : body.end + len(ahead)] = ahead
        last = after is None or (ended and len(ahead) == after.size)
        view = memoryview(body.buffer)[: body.end + len(ahead)]
        begin = body.start - body.at
        stretch = body.stretch
        limit = max(64 << 10, stretch.bits // 8 // 16)
        if self._now is not None:
            choice, engine = self._now
            state = engine.save()
            try:
                found = engine.make(stretch, view, begin, last, limit)
                return self._segment(body, choice, state, found, not _begins(choice, view, begin, last, body, state))
            except (deflate.TooMuch, deflate.Lost):
                self._now = None
        best: tuple[bytes, Choice, deflate.Engine] | None = None
        for choice in self._candidates:
            try:
                engine = deflate.Engine(*choice)
                engine.seek(view, begin, last, body.start)
                found = engine.make(stretch, view, begin, last, limit)
            except (LookupError, deflate.TooMuch, deflate.Lost):
                continue
            if best is None or len(found) < len(best[0]):
                best = found, choice, engine
                limit = min(limit, len(found))
            if not found:
                break
        if best is None:
            raise NoTrace("no engine follows its encoder")
        found, choice, engine = best
        self._now = choice, engine
        return self._segment(body, choice, (0, 0, 0, 0), found)

    def _segment(
        self, body: _Body, choice: Choice, state: tuple[int, ...], found: bytes, goes_on: bool = False
    ) -> Segment:
        if choice not in self._engines:
            self._engines.append(choice)
        stretch = body.stretch
        number = self._engines.index(choice)
        return Segment(stretch.size, stretch.bits, stretch.blocks, stretch.most_tokens, number, state, found, goes_on)


def _begins(choice: Choice, view: Buffer, begin: int, last: bool, body: _Body, state: tuple[int, ...]) -> bool:
    """Could an engine begin at this stretch?"""
    try:
        deflate.Engine(*choice).seek(view, begin, last, body.start, state)
    except deflate.Lost:
        return False
    return True


def replay(
    trace: Trace,
    read: Callable[[int, int], Buffer],
    start: int = 0,
    stop: int | None = None,
    *,
    threads: int | None = None,
) -> Iterator[memoryview]:
    """Bytes [start, stop) of the blob. `read(start, end)` gives bytes of its content, in any thread. BadTrace, Lost,
    LookupError: a trace that is not of it."""
    with ThreadPoolExecutor(threads or len(os.sched_getaffinity(0)), thread_name_prefix="gzip") as pool:
        for at, piece in _pieces(trace, read, start, stop, pool):
            low = max(start - at, 0)
            high = len(piece) if stop is None else min(stop - at, len(piece))
            if low < high:
                yield memoryview(piece)[low:high]


def _pieces(
    trace: Trace, read: Callable[[int, int], Buffer], start: int, stop: int | None, pool: ThreadPoolExecutor
) -> Iterator[tuple[int, Buffer]]:
    """(offset, bytes) of all pieces that the range touches, in order."""
    at = content = 0
    for member in trace.members:
        size = sum(one.content for one in member.segments)
        length = (sum(one.bits for one in member.segments) + 7) // 8
        end = at + len(member.header) + length + _TRAILER
        if end > start and (stop is None or at < stop):
            yield at, member.header
            first = at + len(member.header)
            for offset, piece in _stream(trace, member, read, content, size, start - first, stop, pool, first):
                yield first + offset, piece
            if stop is None or first + length < stop:
                yield first + length, member.trailer or _trailer(read, content, size)
        at = end
        content += size
    yield at, trace.tail


def _stream(
    trace: Trace,
    member: Member,
    read: Callable[[int, int], Buffer],
    content: int,
    size: int,
    start: int,
    stop: int | None,
    pool: ThreadPoolExecutor,
    first: int,
) -> Iterator[tuple[int, Buffer]]:
    """Of a member's deflate stream, which begins at `first` of the blob, what the range touches; `start` counts from
    there."""
    queue: deque[tuple[Future[tuple[bytearray, deflate.Engine]], int, int]] = deque()
    bit = at = carry = 0

    def joined(job: Future[tuple[bytearray, deflate.Engine]], begin: int, end: int) -> tuple[int, Buffer]:
        # Where one stretch ends within a byte, the next one begins in it.
        nonlocal carry
        piece, _ = job.result()
        if piece:
            piece[0] |= carry
            carry = piece.pop() if end & 7 else 0
        return begin >> 3, piece

    before: Future[tuple[bytearray, deflate.Engine]] | None = None
    for number, segment in enumerate(member.segments):
        end = bit + segment.bits
        # What the range touches, and where an engine can only come from before, what leads there.
        ahead = end
        for later in member.segments[number + 1 :]:
            if not later.goes_on or (ahead + 7) >> 3 > start:
                break
            ahead += later.bits
        if (ahead + 7) >> 3 > start and (stop is None or first + (bit >> 3) < stop):
            came = before if segment.goes_on else None
            before = pool.submit(_again, trace, segment, read, content, size, at, bit & 7, came)
            queue.append((before, bit, end))
            if len(queue) > 3:
                yield joined(*queue.popleft())
        bit, at = end, at + segment.content
    ended = bit
    while queue:
        bit = queue[0][2]
        yield joined(*queue.popleft())
    if bit == ended and bit & 7:
        yield bit >> 3, bytes([carry | (member.padding << (bit & 7)) & 0xFF])


def _again(
    trace: Trace,
    segment: Segment,
    read: Callable[[int, int], Buffer],
    start: int,
    size: int,
    at: int,
    phase: int,
    before: Future[tuple[bytearray, deflate.Engine]] | None,
) -> tuple[bytearray, deflate.Engine]:
    """The bits of one stretch, which begins at `at` of a member's `size` bytes of content, these at `start` of all; and
    the engine. `before`: the stretch that it comes from (it was asked for earlier, so that it is being made)."""
    begin = max(0, at - deflate.HISTORY)
    end = min(at + segment.content + deflate.LOOKAHEAD, size)
    view = read(start + begin, start + end)
    if before is not None:
        _, engine = before.result()
    else:
        engine = deflate.Engine(*trace.engines[segment.engine])
        engine.seek(view, begin, end == size, at, segment.state)
    if engine.position != at:
        raise deflate.BadTrace("a stretch that comes from elsewhere")
    out = bytearray((phase + segment.bits + 7) // 8)
    made = engine.apply(view, begin, end == size, segment.blocks, segment.exceptions, out, phase, segment.tokens)
    if made != segment.bits or engine.position != at + segment.content:
        raise deflate.BadTrace("other bits than told")
    return out, engine


def _trailer(read: Callable[[int, int], Buffer], start: int, size: int) -> bytes:
    crc = 0
    for at in range(0, size, 1 << 22):
        crc = deflate.crc32(read(start + at, start + min(at + (1 << 22), size)), crc)
    return crc.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little")
