"""Splitting one stream of content into the two tracks of a recipe: tar scan, cut, names, stream digest, in one pass.

Feeds of a few MiB go through four kernel calls each; nothing here is per chunk. What is left of a payload after its
last certain cut stays at the front of the window for the next feed (at most one chunk).

What was made to be expensive is taken apart less finely, never refused: small payloads beyond what pieces.py grants
stay among the literals, and what the sink refuses (reach.py) is kept in literal chunks as large as a frame.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from ..format.storefile import StoreFile
from ..kernels import cut, hashing, spans, tarscan
from ..model import U8, U32, U64, Buffer, ChunkList
from .frames import FRAME_TARGET
from .naming import Names
from .pieces import Pieces
from .source import Source, fill
from .step import Step

FEED = 4 << 20
"""Bytes read at a time."""
LITERAL_FLUSH = 1 << 20
"""Literal bytes gathered before they are cut."""

LITERAL, PAYLOAD = 0, 1


class Sink(Protocol):
    """Takes the chunks of a track as they are found. The buffer is valid only during the call.

    False: none was taken, the same bytes are to come in larger chunks; not with `force`."""

    def take(
        self, track: int, buffer: Buffer, starts: U64, lengths: U32, digests: U8, *, force: bool = False
    ) -> bool: ...


class Track:
    """The chunks of one track so far, runs of equal chunks folded."""

    def __init__(self) -> None:
        self._digests: list[U8] = []
        self._lengths: list[U32] = []
        self._repeats: list[U32] = []

    def append(self, digests: U8, lengths: U32) -> None:
        n = len(lengths)
        if not n:
            return
        fresh = np.ones(n, np.bool_)
        np.any(digests[1:] != digests[:-1], axis=1, out=fresh[1:])
        if self._digests and np.array_equal(self._digests[-1][-1], digests[0]):
            fresh[0] = False
        heads = np.flatnonzero(fresh)
        lead = int(heads[0]) if len(heads) else n
        if lead:
            self._repeats[-1][-1] += lead
        if len(heads):
            self._digests.append(digests[heads])
            self._lengths.append(lengths[heads].astype(np.uint32))
            self._repeats.append(np.diff(heads, append=n).astype(np.uint32))

    def chunks(self) -> ChunkList:
        if not self._digests:
            return ChunkList(np.empty((0, 32), np.uint8), np.empty(0, np.uint32), np.empty(0, np.uint32))
        return ChunkList(np.concatenate(self._digests), np.concatenate(self._lengths), np.concatenate(self._repeats))


class Weave:
    """The order of literal and payload bytes, as alternating lengths (literal first)."""

    def __init__(self) -> None:
        self._parts: list[U64] = []
        self._last = 0  # length of the piece that is still growing
        self._kind = LITERAL

    def append(self, kinds: U8, lengths: U64) -> None:
        if not len(kinds):
            return
        heads = np.flatnonzero(np.diff(kinds, prepend=kinds[0] ^ 1))
        sums = np.add.reduceat(lengths, heads)
        if int(kinds[0]) == self._kind:
            sums[0] += self._last
        else:
            self._parts.append(np.array([self._last], np.uint64))
        self._parts.append(sums[:-1])
        self._last = int(sums[-1])
        self._kind = int(kinds[-1])

    def rows(self) -> U64:
        flat = np.concatenate([*self._parts, np.array([self._last], np.uint64)])
        if len(flat) % 2:
            flat = np.append(flat, np.uint64(0))
        return flat.astype(np.uint64).reshape(-1, 2)


class Split(NamedTuple):
    """What is known of a stream after its last byte."""

    size: int
    digest: bytes
    weave: U64
    literals: ChunkList
    payloads: ChunkList
    files_size: int


class Splitter:
    """Reads a source to its end, gives chunks to a sink, and returns the Split. One use. `pieces`: shared with what the
    same command takes apart besides."""

    def __init__(self, file: StoreFile, sink: Sink, pieces: Pieces | None = None) -> None:
        cutter = self._cutter = file.cutter
        self._names = Names(file.chunk_digest)
        self._sink = sink
        self._pieces = pieces or Pieces()
        self._inside = False  # does the last payload go on in the next feed, and is it told apart
        self._apart = False
        self._scanner = tarscan.Scanner()
        self._stream = hashing.Sha256()
        self._tracks = (Track(), Track())
        self._weave = Weave()
        self._window = bytearray(FEED + 2 * cutter.maximum)
        self._carry = 0
        self._whole = 0
        self._literals = bytearray(LITERAL_FLUSH + FEED + cutter.maximum)
        self._literal_length = 0

    def run(self, source: Source, step: Step | None = None) -> Split:
        view = memoryview(self._window)
        size = 0
        while got := fill(source, view[self._carry : self._carry + FEED]):
            size += got
            self._feed(got)
            if step is not None:
                step.advance(got)
        self._scanner.finish()
        self._finish()
        return Split(
            size,
            self._stream.digest(),
            self._weave.rows(),
            self._tracks[LITERAL].chunks(),
            self._tracks[PAYLOAD].chunks(),
            self._scanner.content_size,
        )

    def _feed(self, got: int) -> None:
        carry, end = self._carry, self._carry + got
        window = memoryview(self._window)[:end]
        segments = self._scanner.feed(window[carry:])
        kinds = self._told_apart(segments, got)
        ends = np.cumsum(segments.lengths, dtype=np.uint64) + np.uint64(carry)
        starts = ends - segments.lengths
        is_payload = kinds.astype(np.bool_)

        payload_starts, payload_ends = starts[is_payload], ends[is_payload]
        whole = (segments.totals[is_payload] <= 2 * self._cutter.average).astype(np.uint8)
        last = segments.last[is_payload]
        if carry:  # the scanner is inside the payload whose tail was carried over: its first piece goes on from there
            payload_starts[0] = 0
        final = not len(last) or bool(last[-1])
        chunk_starts, chunk_lengths, tail = self._cut(
            window, payload_starts, payload_ends - payload_starts, whole, final
        )
        digests = self._names.with_stream(self._stream, window, carry, end, chunk_starts, chunk_lengths)
        if not self._emit(PAYLOAD, window, chunk_starts, chunk_lengths, digests):
            self._all_literal(window, carry)
            return
        self._weave.append(kinds, segments.lengths)
        self._gather_literals(window, starts[~is_payload], segments.lengths[~is_payload])
        self._window[:tail] = window[end - tail :] if tail else b""
        self._carry = tail
        self._whole = int(whole[-1]) if tail else 0

    def _told_apart(self, segments: tarscan.Segments, got: int) -> U8:
        """The segments' kinds, small payloads that are not told apart being literal."""
        at = np.flatnonzero(segments.payload)
        if not len(at):
            self._pieces.grant(got, 0)
            return segments.payload
        small = segments.totals[at] < self._cutter.average
        apart = np.ones(len(at), np.bool_)
        begin = 0
        if self._inside:
            apart[0], begin = self._apart, 1
        wanted = np.flatnonzero(small[begin:]) + begin
        apart[wanted[self._pieces.grant(got, len(wanted)) :]] = False
        self._inside = not segments.last[at[-1]]
        self._apart = bool(apart[-1])
        if apart.all():
            return segments.payload
        kinds = segments.payload.copy()
        kinds[at[~apart]] = LITERAL
        return kinds

    def _all_literal(self, window: memoryview, carry: int) -> None:
        """A feed whose payloads were refused: all of it is literal, but for what was carried over, which has its place
        in the payload track."""
        if carry:
            start, length = np.zeros(1, np.uint64), np.array([carry], np.uint32)
            digests = self._names.of(window, start, length)
            self._emit(PAYLOAD, window, start, length, digests, force=True)
        start, rest = np.array([carry], np.uint64), np.array([len(window) - carry], np.uint64)
        self._weave.append(np.array([LITERAL], np.uint8), rest)
        self._gather_literals(window, start, rest)
        self._carry = 0

    def _cut(self, buffer: Buffer, starts: U64, lengths: U64, whole: U8, final: bool) -> tuple[U64, U32, int]:
        c = self._cutter
        return cut.cut(buffer, starts, lengths, whole, final, c.minimum, c.average, c.maximum)

    def _gather_literals(self, window: memoryview, starts: U64, lengths: U64) -> None:
        total = int(lengths.sum())
        if not total:
            return
        at = np.cumsum(lengths, dtype=np.uint64) - lengths + np.uint64(self._literal_length)
        spans.copy(self._literals, at, [window], np.zeros(len(starts), np.uint32), starts, lengths)
        self._literal_length += total
        if self._literal_length >= LITERAL_FLUSH:
            self._flush_literals(final=False)

    def _flush_literals(self, *, final: bool) -> None:
        length = self._literal_length
        if not length:
            return
        buffer = memoryview(self._literals)[:length]
        one = np.zeros(1, np.uint64)
        starts, lengths, tail = self._cut(buffer, one, np.array([length], np.uint64), np.zeros(1, np.uint8), final)
        if not self._emit(LITERAL, buffer, starts, lengths, self._names.of(buffer, starts, lengths)):
            starts, lengths = _large(length - tail)
            self._emit(LITERAL, buffer, starts, lengths, self._names.of(buffer, starts, lengths), force=True)
        self._literals[:tail] = bytes(buffer[length - tail :])
        self._literal_length = tail

    def _finish(self) -> None:
        if self._carry:
            window = memoryview(self._window)[: self._carry]
            starts, lengths, _ = self._cut(
                window,
                np.zeros(1, np.uint64),
                np.array([self._carry], np.uint64),
                np.array([self._whole], np.uint8),
                True,
            )
            digests = self._names.of(window, starts, lengths)
            self._emit(PAYLOAD, window, starts, lengths, digests, force=True)
        self._flush_literals(final=True)

    def _emit(self, track: int, buffer: Buffer, starts: U64, lengths: U32, digests: U8, *, force: bool = False) -> bool:
        if len(starts):
            if not self._sink.take(track, buffer, starts, lengths, digests, force=force):
                return False
            self._tracks[track].append(digests, lengths)
        return True


def _large(size: int) -> tuple[U64, U32]:
    """(starts, lengths) of pieces that take a frame each."""
    ends = np.linspace(0, size, max(1, size // FRAME_TARGET) + 1).astype(np.uint64)
    return ends[:-1], np.diff(ends).astype(np.uint32)
