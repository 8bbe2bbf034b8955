"""Fuzzing gzip traces: format/trace.py, codec/gzip.py and codec/replay.py.

An input is, by its first byte: a gzip file, to be taken apart; a trace as a recipe has it; or a trace that lies open,
with the content that it is to make a file of.

Checked: a file is taken apart and made again, whole and in a range, or there is a reason why not; a trace is Damaged,
or read, written and read as the same; from a trace comes nothing but what its numbers tell, or one of replay.FAILURES.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

from casstore.codec import gzip, replay
from casstore.errors import Damaged
from casstore.format import trace as trace_format
from casstore.kernels import deflate
from casstore.model import Buffer, Choice, Member, Segment, Trace

FILE, RECORD, FITTING, MANY = 1, 2, 4, 8
LEVELS = {
    ("go", 1): (1, 6, 9),
    ("zlib", 1): (1, 6, 9),
    ("gzip", 1): (1, 6),
    ("pigz", 1): (9,),
    ("busybox", 1): (6,),
    **{("klauspost", version): (5, 25) for version in (1, 2, 3, 4, 5)},
}
"""What makes the seeds, which do not change with another engine."""
ENGINES = [*LEVELS, *sorted(deflate.engines().keys() - LEVELS)]
_SEGMENT = struct.Struct("<IIIIBBI4IH")
_MEMBER = struct.Struct("<BBB8s")


class Open:
    """A trace that lies open, read: zeros where it has ended."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def bytes(self, size: int) -> bytes:
        piece = self._data[self._at : self._at + size]
        self._at += len(piece)
        return piece

    def numbers(self, form: struct.Struct) -> tuple[Any, ...]:
        return form.unpack(self.bytes(form.size).ljust(form.size, b"\0"))

    def rest(self) -> bytes:
        return self._data[self._at :]


_ENGINE = struct.Struct("<Bb")
_COUNTS = struct.Struct("<BBBH")


def read_open(data: bytes) -> tuple[Trace, bytes]:
    """(trace, content)"""
    source = Open(data)
    engines, members, tail, more = source.numbers(_COUNTS)
    choices = []
    for _ in range(engines % 8):
        which, level = source.numbers(_ENGINE)
        choices.append(Choice(*ENGINES[which % len(ENGINES)], level))
    found = []
    for _ in range(members % 8):
        count, padding, header, trailer = source.numbers(_MEMBER)
        head = source.bytes(header)
        segments = []
        for _ in range(count % 16):
            *numbers, engine, goes_on, check, a, b, c, d, size = source.numbers(_SEGMENT)
            text, state = source.bytes(size), (a, b, c, d)
            segments.append(Segment(*numbers, engine, state, text, bool(goes_on), check))
        found.append(Member(head, tuple(segments), padding, trailer))
    last = source.bytes(tail)
    content = source.rest()
    return Trace(tuple(choices), tuple(found), last), content + content[:4096] * (more & 63)


def write_open(trace: Trace, content: bytes, flags: int = 0) -> bytes:
    out = [bytes([flags]), _COUNTS.pack(len(trace.engines), len(trace.members), len(trace.tail), 0)]
    out += [_ENGINE.pack(ENGINES.index(one[:2]), one.level) for one in trace.engines]
    for member in trace.members:
        out.append(_MEMBER.pack(len(member.segments), member.padding, len(member.header), member.trailer))
        out.append(member.header)
        for one in member.segments:
            numbers = (one.content, one.bits, one.blocks, one.tokens, one.engine, one.goes_on, one.check, *one.state)
            out += [_SEGMENT.pack(*numbers, len(one.exceptions)), one.exceptions]
    return b"".join([*out, trace.tail, content])


def fitted(trace: Trace, size: int) -> Trace:
    """The last segment has what the others leave of the content."""
    members = []
    for number, member in enumerate(trace.members):
        segments = []
        for at, segment in enumerate(member.segments):
            last = number == len(trace.members) - 1 and at == len(member.segments) - 1
            content = size if last else min(segment.content, size)
            size -= content
            segments.append(segment._replace(content=content))
        members.append(member._replace(segments=tuple(segments)))
    return trace._replace(members=tuple(members))


def told(trace: Trace) -> tuple[int, int]:
    """Bytes of content, and of the file at most, that the numbers of a trace tell."""
    segments = [one for member in trace.members for one in member.segments]
    frame = sum(len(member.header) + 8 for member in trace.members) + len(trace.tail)
    streams = sum((sum(one.bits for one in member.segments) + 7) // 8 for member in trace.members)
    return sum(one.content for one in segments), frame + streams


def made(trace: Trace, content: bytes, start: int = 0, stop: int | None = None) -> bytes:
    def read(begin: int, end: int) -> Buffer:
        assert 0 <= begin <= end <= len(content)
        return memoryview(content)[begin:end]

    return b"".join(bytes(one) for one in replay.replay(trace, read, start, stop, threads=1))


def take_apart(data: bytes) -> None:
    analysis = gzip.Analysis(io.BytesIO(data))
    content = b"".join(bytes(piece) for piece in analysis)
    if analysis.trace is None:
        assert analysis.reason and "\n" not in analysis.reason
        return
    trace = trace_format.decode(trace_format.encode(analysis.trace))
    assert trace == analysis.trace
    assert told(trace) == (len(content), len(data))
    assert made(trace, content) == data
    start, stop = len(data) // 3, len(data) // 2
    assert made(trace, content, start, stop) == data[start:stop]
    first = trace.members[0]
    inflated = zlib.decompressobj(-15).decompress(data[len(first.header) :])
    assert inflated == content[: sum(one.content for one in first.segments)]


def make(trace: Trace, content: bytes) -> None:
    expected, most = told(trace)
    if expected != len(content):
        return
    try:
        assert len(made(trace, content)) <= most
    except replay.FAILURES:
        return


def one(data: bytes) -> None:
    if not data or deflate.IMPLEMENTATION != "compiled":
        return
    flags, rest = data[0], data[1:]
    if flags & FILE:
        before = gzip.TARGET
        gzip.TARGET = trace_format.PER_SEGMENT << (flags >> 4) if flags & MANY else before
        try:
            take_apart(rest)
        finally:
            gzip.TARGET = before
        return
    if flags & RECORD:
        record, content = rest, b""
    else:
        trace, content = read_open(rest)
        if flags & FITTING:
            trace = fitted(trace, len(content))
        record = trace_format.encode(trace)
    try:
        trace = trace_format.decode(record)
    except Damaged:
        return
    assert trace_format.decode(trace_format.encode(trace)) == trace
    size = told(trace)[0]
    make(trace, bytes(size) if flags & RECORD and size < 1 << 20 else content)


def encoded(choice: Choice, content: bytes) -> bytes:
    """A deflate stream, by an engine alone."""
    room = len(content) * 2 + 1000
    for blocks in range(1, 100):
        engine = deflate.Engine(*choice)
        engine.seek(content, 0, True, 0)
        out = bytearray(room)
        bits = engine.apply(content, 0, True, blocks, b"", out, 0, len(content))
        stream = bytes(out[: (bits + 7) // 8])
        inflater = zlib.decompressobj(-15)
        inflater.decompress(stream)
        if inflater.eof:
            return stream
    raise AssertionError(choice)


def packed(stream: bytes, content: bytes, header: bytes = b"\x1f\x8b\x08\0\0\0\0\0\0\x03") -> bytes:
    return header + stream + struct.pack("<II", zlib.crc32(content), len(content))


def text(size: int) -> bytes:
    """Text-like, the same on every machine."""
    words, at, out = [b"layer", b"of", b"an", b"image", b"/usr/lib/", b"\0\0\0", b"0755", b"\n"], 1, b""
    while len(out) < size:
        at = at * 1103515245 + 12345 & 0x7FFFFFFF
        out += words[at >> 16 & 7] + (bytes([at >> 19 & 255]) if at >> 12 & 3 == 0 else b"")
    return out[:size]


def files() -> dict[str, tuple[bytes, bytes]]:
    """(gzip file, content) of every engine, and some that none made."""
    found = {}
    for (name, version), levels in LEVELS.items():
        for level in levels:
            content = text(1400 + 100 * level)
            stream = encoded(Choice(name, version, level), content)
            header = b"\x1f\x8b\x08\0" + (b"\0\x09\x6e\x88\0\xff" if name == "klauspost" else b"\0\0\0\0\0\x03")
            found[f"{name}-{version}-{level}"] = packed(stream, content, header), content
    content = text(900)
    stored = b"".join(bytes([at == 896, 128, 0, 127, 255]) + content[at : at + 128] for at in range(0, 896, 128))
    stored += bytes([1, 4, 0, 251, 255]) + content[896:]
    found["stored"] = packed(stored, content, b"\x1f\x8b\x08\x08\1\2\3\4\0\x03name\0"), content
    fixed = b"".join(b"\x03\0" for _ in range(1))
    found["members"] = packed(fixed, b"") + found["go-1-6"][0] + found["zlib-1-6"][0] + b"\0end", b""
    found["flushed"] = packed(b"\0\0\0\xff\xff" * 5 + stored, content), content
    return found


def number(engine: Choice) -> bytes:
    """Which one it is for the targets in C: its place among them, which they count as deflate.engines does, and its
    level."""
    return bytes([list(deflate.engines()).index(engine[:2]), engine.level + 2])


def native() -> dict[str, dict[str, bytes]]:
    """Inputs of the targets in C, which read them as told there: streams, content for engines, content and tokens; and
    exceptions to an engine's predictions, with the content they are of."""
    streams: dict[str, bytes] = {}
    exceptions: dict[str, bytes] = {}
    for which, (name, (data, content)) in enumerate(files().items()):
        if not content:
            continue
        own = name in ("stored", "flushed")
        choice = Choice("go", 1, 6) if own else _choice(name)
        stream = data[15 if name == "stored" else 10 : -replay.TRAILER]
        streams[f"as-it-is-{name}"] = bytes([0x80]) + number(choice) + b"\x10\x03" + stream
        if own:
            continue
        streams[f"engine-{name}"] = bytes([0x46]) + number(choice) + b"\x07\x40" + b"\x01\x20\0" + content[:200]
        if which % 4 == 0:
            streams[f"any-{name}"] = bytes([0x41]) + number(choice) + b"\x01\x20\x01\x20\0\xc8" + content[:1200]
        short = content[:255]
        for other in (name, "zlib-1-9", "go-1-6"):
            try:
                blocks, text_ = foreign(choice, encoded(_choice(other), short), short)
            except deflate.Lost:
                continue
            head = b"\x80" + number(choice) + bytes([blocks << 2]) + b"\x01\x04\0" + b"\0\0" + b"\0" + b"\xff"
            exceptions[f"{name}-of-{other}"] = head + short + text_
    return {"deflate": streams, "trace": exceptions}


def _choice(name: str) -> Choice:
    family, version, level = name.rsplit("-", 2)
    return Choice(family, int(version), int(level))


def foreign(choice: Choice, stream: bytes, content: bytes) -> tuple[int, bytes]:
    """Blocks, and exceptions, of a stream that another encoder made. Lost: the engine cannot follow it."""
    parser, stretch = deflate.Parser(), deflate.Stretch(1 << 12)
    parser.begin(stretch)
    parser.parse(stretch, stream, True, bytearray(1 << 12), 0, 1 << 12)
    engine = deflate.Engine(*choice)
    engine.seek(content, 0, True, 0)
    return stretch.blocks, engine.make(stretch, content, 0, True, 1 << 12)


def seeds() -> dict[str, bytes]:
    out = {}
    for name, (data, content) in files().items():
        out[f"file-{name}"] = bytes([FILE]) + data
        if not content:
            continue
        analysis = gzip.Analysis(io.BytesIO(data))
        assert b"".join(bytes(piece) for piece in analysis) == content and analysis.trace is not None
        out[f"open-{name}"] = write_open(analysis.trace, content, FITTING)
        if name in ("stored", "klauspost-1-5"):
            out[f"record-{name}"] = bytes([RECORD]) + trace_format.encode(analysis.trace)
    content = bytes(text(300)) * 300
    out["many"] = bytes([FILE | MANY]) + packed(encoded(Choice("zlib", 1, 6), content), content)
    return out
