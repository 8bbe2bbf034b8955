"""gzip taken apart, losslessly: the content, and a trace from which the same bytes are made again.

    analysis = Analysis(source)
    for piece in analysis:            # the content
        …
    trace = analysis.trace            # None: it stays as it is; analysis.reason says why

    for piece in replay(trace, read): # codec/replay; read(start, end) gives content
        …

A deflate stream is taken in stretches of some MiB of content, each held against an engine (kernels/deflate) that
predicts what the encoder did; what it does not predict is kept as exceptions. Source: RFC 1952; GZIP.md.
"""

from __future__ import annotations

import mmap
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from ..kernels import deflate
from ..model import Buffer, Choice, Member, Segment, Trace
from .replay import TRAILER

TARGET = 2 << 20
"""Content of a stretch, about (bytes)."""
_BODY = 16 << 20
"""Content of one stretch, at most."""
_TOKENS = 9 << 20
"""Tokens of one stretch, at most."""
_HEADER = 64 << 10
"""Bytes of a member's header, at most."""
_TAIL = 64 << 10
"""Bytes after the last member, at most."""
LIMIT = 0.03
"""What a trace may be of its blob."""
_ROUGH = 4
"""How many times that exceptions may be before they are compressed."""
_PATIENCE = 1 << 20
"""Bytes of exceptions that are never too many."""
_SOME = 2 << 10
"""Bytes of exceptions within which the right engine is looked for first: it has hardly any."""
_TRIALS = 8
"""How often engines are looked for anew, before the stream is given up."""
_SEARCHES = 64
"""In how many stretches the best engine is looked for; after that, any that does is taken."""
_MEMBERS = 1 << 18
"""Members of one blob, at most."""
_MAGIC = b"\x1f\x8b\x08"
_NOT_IT = (deflate.TooMuch, deflate.Lost, deflate.ViewTooSmall)
"""What an engine may say of a stretch that another encoder made."""


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
    usual, others = ((1,), ()) if extra == 4 else ((5, 25), (6, 3, 2))
    families["klauspost"] = [Choice("klauspost", version, level) for version in (1, 2, 3, 4, 5) for level in usual]
    families["klauspost"] += [Choice("klauspost", version, level) for level in others for version in (2, 3, 1, 4, 5)]
    families["busybox"] = [Choice("busybox", 1, level) for level in (6, 26, 16)]
    families["go 2"] = [Choice("go", 2, level) for level in levels if level <= 6]
    if system == 255 and mtime == b"\0\x09\x6e\x88":
        order = ["klauspost", "go", "zlib"]
    elif system == 255 and not any(mtime):
        order = ["go", "go 2", "klauspost", "zlib"]
    elif system == 3 and (header[3] & 8 or any(mtime)):
        order = ["gzip", "pigz", "busybox", "zlib", "go", "go 2"]
    else:
        order = ["zlib", "busybox", "gzip", "pigz", "go", "go 2"]
    found = [choice for name in order for choice in families[name][:3]]
    found += [choice for name in order for choice in families[name][3:]]
    return [one for one in found if one[:2] in deflate.engines()]


class _Input:
    """A source, read in pieces; what was taken too much can be given back."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._piece = memoryview(b"")
        self._at = 0
        self.data = self._piece
        self._before = b""  # the last bytes that were taken of the piece before
        self.last = False

    def more(self) -> None:
        """Another piece, where there is one."""
        piece = self._source.read(1 << 20)
        self._before = (self._before + bytes(self._piece[max(0, self._at - 8) : self._at]))[-8:]
        self._piece = self.data = memoryview(bytes(self.data) + bytes(piece) if self.data else bytes(piece))
        self._at = 0
        self.last = not len(piece)

    def use(self, count: int) -> None:
        """So many bytes of `data` are taken."""
        self._at += count
        self.data = self._piece[self._at :]

    def back(self, count: int) -> None:
        """The last few of them were not wanted."""
        if count > self._at:
            self._piece = memoryview(self._before[self._at - count :] + bytes(self._piece))
            self._at = count
        self.use(-count)

    def want(self, count: int) -> bool:
        """Have so many bytes in `data`; False: there are not so many left."""
        while len(self.data) < count and not self.last:
            self.more()
        return len(self.data) >= count


class _Body:
    """One stretch and the content around it: what came before, its own, and what comes next."""

    def __init__(self, before: _Body | None) -> None:
        self.stretch = deflate.Stretch(_TOKENS)
        kept = memoryview(b"" if before is None else before.buffer)[: 0 if before is None else before.end]
        kept = kept[-deflate.HISTORY :] if deflate.HISTORY else kept[:0]
        # Pages that nothing comes to take no memory, and no time: members may be small, and many.
        self.buffer: mmap.mmap = mmap.mmap(-1, len(kept) + _BODY + deflate.LOOKAHEAD)
        self.buffer[: len(kept)] = kept
        self.at: int = len(kept)
        self.end: int = len(kept)
        self.start: int = 0 if before is None else before.start + before.size
        """Where the content begins, counted from the member's."""
        self.check = 0
        """Of the bytes that its bits are in (model.Segment)."""

    @property
    def size(self) -> int:
        return self.end - self.at

    @property
    def content(self) -> memoryview:
        return memoryview(self.buffer)[self.at : self.end]


class _Raw:
    """A deflate stream's own bytes, for as long as they belong to a stretch that is not whole."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._phase = 0  # bits of the first byte that belong to the stretch before

    def add(self, data: Buffer) -> None:
        """More of them."""
        self._bytes += data

    def check(self, bits: int) -> int:
        """The checksum of the next stretch, of so many bits; its bytes are let go of."""
        end = self._phase + bits
        mine = self._bytes[: (end + 7) >> 3]
        if mine:
            mine[0] &= 0xFF << self._phase & 0xFF
            mine[-1] &= 0xFF >> (-end & 7)
        del self._bytes[: end >> 3]
        self._phase = end & 7
        return deflate.crc32(mine)


class Analysis:
    """One blob being taken apart: iterate for its content. `trace` is there afterwards; None, and `reason`, where it is
    not to be taken apart: then the content given may be all, or not. `limit`: what a trace may be of the blob; far
    beyond it the rest is not looked at."""

    def __init__(self, source: Readable, limit: float = LIMIT) -> None:
        self._input = _Input(source)
        self._account = _Account(limit)
        self._engines: list[Choice] = []
        self.trace: Trace | None = None
        self.reason = ""

    def __iter__(self) -> Iterator[memoryview]:
        members: list[Member] = []
        try:
            with ThreadPoolExecutor(1, thread_name_prefix="gzip") as pool:
                while self._input.want(2) and (not members or bytes(self._input.data[:2]) == _MAGIC[:2]):
                    if len(members) == _MEMBERS:
                        raise NoTrace("more members than are taken apart")
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
        held = _Held(self._engines, header, self._account)
        jobs: list[Future[Segment]] = []
        before: _Body | None = None
        told, raw = "", _Raw()
        while told != "end":
            body = _Body(before)
            parser.begin(body.stretch)
            told = self._fill(parser, body, raw)
            body.check = raw.check(body.stretch.bits)
            if before is not None:
                jobs.append(pool.submit(held.against, before, body, told == "end"))
            yield body.content
            before = body
            if len(jobs) > 1:
                jobs[-2].result()  # what cannot be followed is known soon, and little is kept
        if before is not None:
            jobs.append(pool.submit(held.against, before, None, True))
        padding = parser.padding
        self._input.back(parser.surplus)
        if not self._input.want(TRAILER):
            raise NoTrace("unexpected EOF")
        trailer = bytes(self._input.data[:TRAILER])
        self._input.use(TRAILER)
        return Member(header, tuple(job.result() for job in jobs), padding, trailer)

    def _fill(self, parser: deflate.Parser, body: _Body, raw: _Raw) -> str:
        taken = self._input
        while True:
            told, used, made = parser.parse(
                body.stretch, taken.data, taken.last, memoryview(body.buffer)[: body.at + _BODY], body.end, TARGET
            )
            raw.add(taken.data[:used])
            taken.use(used)
            body.end += made
            if told != "input":
                break
            taken.more()
        if told == "room":
            raise NoTrace("a block larger, or more small ones, than are kept in memory")
        return str(told)


class _Account:
    """What exceptions have cost so far, and how often an engine was looked for: both have an end."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._bytes = 0
        self._bits = 0
        self._trials = 0
        self._searches = 0

    def search(self) -> bool:
        """An engine is to be looked for; is the best one worth it? Members may be many, and a search takes longer than
        they do."""
        self._searches += 1
        return self._searches <= _SEARCHES

    def trial(self) -> None:
        """Engines are looked for. NoTrace: too often."""
        self._trials += 1
        if self._trials > _TRIALS:
            raise NoTrace("no engine follows its encoder for long")

    def paid(self, exceptions: int, bits: int) -> None:
        """So many bytes for a stretch of so many bits. NoTrace: that is too much."""
        self._bytes += exceptions
        self._bits += bits
        if self._bytes > max(_PATIENCE, _ROUGH * self._limit * self._bits / 8):
            raise NoTrace("too much of it is not what its encoder was expected to do")


class _Held:
    """Holds the stretches of one member against engines, one after the other."""

    def __init__(self, engines: list[Choice], header: bytes, account: _Account) -> None:
        self._engines = engines
        self._header = header
        self._account = account
        self._now: tuple[Choice, deflate.Engine] | None = None

    def _candidates(self) -> Iterator[Choice]:
        # What did for the member before does for this one, nearly always.
        yield from self._engines[-1:]
        yield from (one for one in candidates(self._header) if one not in self._engines[-1:])

    def against(self, body: _Body, after: _Body | None, ended: bool) -> Segment:
        """The segment of a stretch. `after`: the one that follows, whose content may be wanted ahead; `ended`: that is
        the last."""
        ahead = b"" if after is None else bytes(after.content[: deflate.LOOKAHEAD])
        body.buffer[body.end : body.end + len(ahead)] = ahead
        last = after is None or (ended and len(ahead) == after.size)
        view = memoryview(body.buffer)[: body.end + len(ahead)]
        segment = self._follow(body, view, last)
        self._account.paid(len(segment.exceptions), segment.bits)
        return segment

    def _follow(self, body: _Body, view: memoryview, last: bool) -> Segment:
        begin, stretch = body.start - body.at, body.stretch
        limit = max(64 << 10, stretch.bits // 8 // 16)
        if self._now is not None:
            choice, engine = self._now
            state = engine.save()
            try:
                found = engine.make(stretch, view, begin, last, limit)
                return self._segment(body, choice, state, found, not _begins(choice, view, begin, last, body, state))
            except _NOT_IT:
                self._now = None
        if body.start:
            self._account.trial()
        thorough = self._account.search()
        for most in (_SOME, limit):
            best: tuple[bytes, Choice, deflate.Engine] | None = None
            for choice in self._candidates():
                try:
                    engine = deflate.Engine(*choice)
                    engine.seek(view, begin, last, body.start)
                    found = engine.make(stretch, view, begin, last, most)
                except (LookupError, *_NOT_IT):
                    continue
                if best is None or len(found) < len(best[0]):
                    best = found, choice, engine
                    most = len(found)
                if not found or not thorough:
                    break
            if best is not None:
                found, choice, engine = best
                self._now = choice, engine
                return self._segment(body, choice, (0, 0, 0, 0), found)
        raise NoTrace("no engine follows its encoder")

    def _segment(
        self, body: _Body, choice: Choice, state: tuple[int, ...], found: bytes, goes_on: bool = False
    ) -> Segment:
        if choice not in self._engines:
            self._engines.append(choice)
        stretch = body.stretch
        number = self._engines.index(choice)
        return Segment(
            stretch.size,
            stretch.bits,
            stretch.blocks,
            stretch.most_tokens,
            number,
            state,
            found,
            goes_on,
            body.check,
        )


def _begins(choice: Choice, view: Buffer, begin: int, last: bool, body: _Body, state: tuple[int, ...]) -> bool:
    """Could an engine begin at this stretch?"""
    try:
        deflate.Engine(*choice).seek(view, begin, last, body.start, state)
    except deflate.Lost:
        return False
    return True
