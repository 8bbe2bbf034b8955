"""The line out: a blob's place → exact bytes, whole or a range.

    catalog row → recipe → the packs' tables → frames (coalesced, cached) → weave → digest → caller

The output is made window by window; windows are independent, so a pool makes several ahead while the caller hashes and
writes. Whole blobs are checked by their digest. What vouches for a range: of what is loose, a check for each MiB; of
what is packed, the digests of the chunks that it touches; of what is packed and compressed, the checksums of the frames
and of the recipe, and, of the compressed bytes, those of the trace's stretches (codec/replay).
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

import numpy as np

from ..codec import compression
from ..codec.compression import LIMIT, Limit
from ..digest import Digest
from ..errors import CasstoreError, Damaged, NotFound
from ..format import recipe as recipe_format
from ..kernels import hashing, spans, table
from ..kernels.tarscan import Scanner
from ..model import FRAME_BITS, MAX_FRAME, U8, U32, U64, BlobInfo, Recipe, Used
from ..store import protocol
from ..store.cache import BlobCache, Kept, Making
from ..store.packs import PackCache
from ..store.volume import Volume
from .encoded import replayed
from .layout import Layout, Pieces, Spans
from .loose import SPOT_SIZE, SPOT_SPAN, spot
from .naming import Names
from .source import Buffers

WINDOW = 4 << 20
"""Bytes of output made at a time."""
_HINT = "run casstore check --read-data --repair"


class _Packed:
    """A blob that is a recipe: windows out of frames."""

    def __init__(self, packs: PackCache, names: Names, info: BlobInfo) -> None:
        self._packs = packs
        self._names = names
        recipe = recipe_format.decode(packs.record(info.digest, info.place), f"recipe of {info.digest}")
        if recipe.encoding not in ("identity", "gzip"):
            raise Damaged(f"unknown recipe encoding {recipe.encoding!r}", what=str(info.digest))
        if recipe.size != info.size:
            raise Damaged("recipe and catalog differ in the blob's size", what=str(info.digest))
        self.layout = Layout(recipe.weave, recipe.literals, recipe.payloads)
        self.digests: U8 = np.concatenate([recipe.literals.digests, recipe.payloads.digests])
        self.lengths: U32 = np.concatenate([recipe.literals.lengths, recipe.payloads.lengths])
        self.recipe = recipe
        self.encoded = recipe.encoding != "identity"
        """Do the chunks make the blob's content, and not the blob itself?"""
        self._keys = [use.key for use in info.place.uses]
        values = _places(packs, info.place.uses, self.digests)
        lost = np.flatnonzero(values == table.MISSING)
        if len(lost):
            name = self.digests[lost[0]].tobytes().hex()
            raise Damaged(f"chunk {name} is in none of the blob's packs", what=str(info.digest))
        self.pack_numbers: U32 = (values >> np.uint64(32)).astype(np.uint32)
        self.addresses: U32 = values.astype(np.uint32)

    def window(self, start: int, end: int, *, check: bool) -> bytearray:
        out = bytearray(end - start)
        self.copy(out, self.layout.pieces(Spans.one(start, end)), check=check)
        return out

    def copy(self, out: bytearray, pieces: Pieces, *, check: bool) -> None:
        """Pieces into a buffer. `check`: each chunk is compared with its name first."""
        chunk = pieces.chunk.astype(np.int64)
        self._verify_lengths(pieces)
        frame_of = self.pack_numbers[chunk].astype(np.uint64) << np.uint64(32) | (self.addresses[chunk] >> FRAME_BITS)
        names, which = np.unique(frame_of, return_inverse=True)
        sources: list[bytes] = [b""] * len(names)
        by_pack: dict[int, list[int]] = {}
        for position, name in enumerate(names):
            by_pack.setdefault(int(name) >> 32, []).append(position)
        for pack, positions in by_pack.items():
            numbers = [int(names[p]) & 0xFFFFFFFF for p in positions]
            frames = self._packs.frames(self._keys[pack], numbers)
            for position, number in zip(positions, numbers, strict=True):
                sources[position] = frames[number]
        offset = (self.addresses[chunk] & np.uint32(MAX_FRAME - 1)).astype(np.uint64)
        try:
            spans.copy(out, pieces.to, sources, which.astype(np.uint32), offset + pieces.skip, pieces.length)
            if check:
                self._verify_chunks(chunk, sources, which)
        except ValueError:
            keys = ", ".join(sorted({self._keys[pack] for pack in by_pack}))
            raise Damaged("a chunk lies outside its frame", what=keys) from None

    def content(self, start: int, end: int) -> bytearray:
        """Bytes [start, end) of what the chunks make."""
        return self.window(start, end, check=False) if start < end else bytearray()

    def literals(self, start: int, end: int) -> bytearray:
        """Bytes [start, end) of the literal track."""
        out = bytearray(end - start)
        if out:
            self.copy(out, self.layout.literals.pieces(Spans.one(start, end)), check=False)
        return out

    def _verify_lengths(self, pieces: Pieces) -> None:
        if int(pieces.length.sum()) == 0 and len(pieces.length):
            raise Damaged("empty pieces in a recipe", what="recipe")

    def _verify_chunks(self, chunk: np.ndarray, sources: list[bytes], which: np.ndarray) -> None:
        for position, source in enumerate(sources):
            mine = np.unique(chunk[which == position])
            starts = (self.addresses[mine] & np.uint32(MAX_FRAME - 1)).astype(np.uint64)
            if not np.array_equal(self._names.of(source, starts, self.lengths[mine]), self.digests[mine]):
                key = self._keys[int(self.pack_numbers[mine[0]])]
                raise Damaged("a chunk is not what its name says", what=key)


def _literal_windows(weave: U64) -> Iterator[tuple[int, int, U64]]:
    """Spans of the literal track of up to WINDOW bytes, each with the rows of the weave that they are."""
    rows = weave.copy()
    ends = np.cumsum(rows[:, 0], dtype=np.uint64)
    row = done = 0
    while row < len(rows):
        beyond = int(np.searchsorted(ends, np.uint64(done + WINDOW), side="right"))
        if beyond > row:
            start, done = done, int(ends[beyond - 1])
            yield start, done, rows[row:beyond]
            row = beyond
        else:  # one run of literals, larger than a window
            rows[row, 0] -= np.uint64(WINDOW)
            done += WINDOW
            yield done - WINDOW, done, np.array([[WINDOW, 0]], np.uint64)


def _places(packs: PackCache, uses: Sequence[Used], digests: U8) -> U64:
    """Where chunks lie: number in `uses` << 32 | address; table.MISSING where they are in none. Only what the blob's
    edges name counts (rule 11 of PROTOCOL.md), and the packs' own tables say it: no index is asked."""
    found = table.ChunkMap()
    for number, use in enumerate(uses):
        names, addresses, _ = packs.pack(use.key).within(use.intervals)
        found.set(names, np.uint64(number << 32) | addresses.astype(np.uint64))
    return found.get(digests)


class Reading:
    """How a packed blob is read: which chunks its reader wants together, from its begin to its end, and where they are.

    Damaged, NotFound: its recipe, or the table of a pack that it uses, cannot be read."""

    def __init__(self, volume: Volume, info: BlobInfo) -> None:
        self._packed = _Packed(volume.packs, Names(volume.file.chunk_digest), info)
        self.packs: U32 = self._packed.pack_numbers
        """For each entry of the recipe, literals first: which of the blob's uses it is in."""
        self.addresses: U32 = self._packed.addresses

    @property
    def recipe(self) -> Recipe:
        """The blob's recipe."""
        return self._packed.recipe

    @property
    def digests(self) -> U8:
        """The chunk of each entry."""
        return self._packed.digests

    @property
    def lengths(self) -> U32:
        """Its bytes."""
        return self._packed.lengths

    def chunks(self, entries: np.ndarray) -> bytearray:
        """The chunks of these entries, one after the other, each compared with its name. Damaged."""
        lengths = self.lengths[entries].astype(np.uint64)
        ends = np.cumsum(lengths, dtype=np.uint64)
        out = bytearray(int(ends[-1]) if len(ends) else 0)
        if out:
            whole = Pieces(ends - lengths, entries.astype(np.uint64), np.zeros(len(entries), np.uint64), lengths)
            self._packed.copy(out, whole, check=True)
        return out

    def runs(self) -> Iterator[tuple[np.ndarray, U32]]:
        """Window by window: numbers of entries, each once, and how many bytes of each are wanted."""
        size = self._packed.layout.size
        for start in range(0, size, WINDOW):
            pieces = self._packed.layout.pieces(Spans.one(start, min(start + WINDOW, size)))
            entries, which = np.unique(pieces.chunk.astype(np.int64), return_inverse=True)
            yield entries, np.bincount(which, weights=pieces.length).astype(np.uint32)


class Ahead:
    """Threads that make windows before they are asked for, shared by the readers of one command."""

    def __init__(self, threads: int | None = None) -> None:
        """`threads`: as many as there are cores by default; with 0 each window is made when it is asked for."""
        self.threads = len(os.sched_getaffinity(0)) if threads is None else threads
        self.pool = ThreadPoolExecutor(max(1, self.threads), thread_name_prefix="windows")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)


class _Windows:
    """The windows of a span of one blob, in order, a few of them ahead."""

    def __init__(self, packed: _Packed, start: int, stop: int, check: bool, ahead: Ahead) -> None:
        self._packed = packed
        self._next = start
        self._stop = stop
        self._check = check
        self._ahead = ahead
        self._queue: deque[Future[bytearray]] = deque()

    def fill(self) -> None:
        """Ask for windows until there are enough under way."""
        while self._next < self._stop and len(self._queue) <= self._ahead.threads:
            end = min(self._next + WINDOW, self._stop)
            self._queue.append(self._ahead.pool.submit(self._packed.window, self._next, end, check=self._check))
            self._next = end

    def __iter__(self) -> Iterator[memoryview]:
        while True:
            self.fill()
            if not self._queue:
                return
            yield memoryview(self._queue.popleft().result())

    def cancel(self) -> None:
        """Ask for no more."""
        self._next = self._stop
        for future in self._queue:
            future.cancel()


class BlobReader:
    """One blob, readable. `read` without bounds checks the blob's digest at the end."""

    def __init__(self, volume: Volume, info: BlobInfo, *, leased: bool = True, cached: bool = False) -> None:
        """`leased`: the caller's lease names the blob. Its files stay then, and one that is missing is Damaged; without
        a lease that is NotFound, and the caller looks the blob up again.

        `cached`: what is packed and compressed may come from the store's cache, and is put there when it is read whole.
        Not for who wants to know whether it can be made again."""
        self._volume = volume
        self._leased = leased
        self.info = info
        self.size = info.size
        self._recipe: _Packed | None = None
        self._begun: _Windows | None = None
        self._cache: BlobCache | None = None
        if info.place.state == "packed":
            if cached and info.encoding != "identity":
                self._cache = volume.cache  # then it may be that nobody asks for the recipe
            else:
                self._recipe = self._open()

    @property
    def _packed(self) -> _Packed | None:
        if self._recipe is None and self.info.place.state == "packed":
            self._recipe = self._open()
        return self._recipe

    def _open(self) -> _Packed:
        with self._blaming():
            return _Packed(self._volume.packs, Names(self._volume.file.chunk_digest), self.info)

    @contextlib.contextmanager
    def _blaming(self) -> Iterator[None]:
        """What is found rotten answers "missing" from now on, the blob and the object that is to blame: the next good
        copy heals them."""
        try:
            yield
        except NotFound as error:
            if not self._leased:
                raise
            failure = Damaged("the file is missing", what=error.what, hint=_HINT)
            self._mark(failure)
            raise failure from None
        except Damaged as error:
            self._mark(error)
            raise Damaged(error.message, what=error.what, offset=error.offset, hint=_HINT) from None

    def _mark(self, error: Damaged) -> None:
        place = self.info.place
        keys = {place.key, *(use.key for use in place.uses)} & {error.what or ""}
        if place.state == "loose":
            keys = {place.key}
        with contextlib.suppress(CasstoreError):  # a store that is read-only stays as it is
            protocol.mark_damaged(self._volume.catalog, [self.info], keys)

    def begin(self, ahead: Ahead) -> None:
        """Have the first windows made already; `read`, of the whole blob and with the same `ahead`, goes on from
        there."""
        if self._cache is None and self._packed is not None and self.size and not self._packed.encoded:
            self._begun = _Windows(self._packed, 0, self.size, False, ahead)
            self._begun.fill()

    def read(self, start: int = 0, end: int | None = None, *, ahead: Ahead | int | None = None) -> Iterator[memoryview]:
        """Buffers of bytes [start, end). Raises Damaged before the last buffer of a whole blob whose digest is wrong.

        `ahead`: threads shared with other readers, or how many to have for itself (see Ahead).
        """
        stop = self.size if end is None else min(end, self.size)
        with self._blaming():
            if start == 0 and stop == self.size:
                yield from self._whole(ahead)
            elif self._cache is not None and (kept := self._cache.find(self.info.digest, self.size)) is not None:
                yield from self._kept(kept, start, stop, ahead)
            else:
                yield from self._buffers(start, stop, check=True, ahead=ahead)

    def content(
        self, limit: Limit = LIMIT, start: int = 0, end: int | None = None, *, ahead: Ahead | int | None = None
    ) -> Iterator[memoryview]:
        """Buffers of bytes [start, end) of what is inside the blob: itself, if it is not compressed. What is packed
        needs no replay, and for a range only what it touches. Verified: whole by the digest of the content, where that
        is known, else by those of the chunks; what is compressed and loose as in `read`. BadInput: it is not what its
        encoding says."""
        if self._packed is not None and self._packed.encoded:
            size = self._packed.layout.size
            stop = size if end is None else min(end, size)
            diffid = self.info.diffid
            with self._blaming():
                if diffid is not None and (start, stop) == (0, size):
                    buffers = self._windows(0, size, check=False, ahead=ahead)
                    yield from self._digested(buffers, size, diffid)
                else:
                    yield from self._windows(start, stop, check=True, ahead=ahead)
        elif self.info.encoding == "identity":
            yield from self.read(start, end, ahead=ahead)
        else:
            stream = compression.open_stream(Buffers(self.read(ahead=ahead)), limit, str(self.info.digest))
            at = 0
            while (end is None or at < end) and (data := stream.read(1 << 20)):
                if at + len(data) > start:
                    yield memoryview(data)[max(start - at, 0) : None if end is None else end - at]
                at += len(data)

    def copy(self, out: bytearray, spans: Spans) -> None:
        """Spans of the content of a blob that is packed into a buffer; what vouches for them are the checksums of the
        frames, of the packs' tables and of the recipe, which was replayed before it was committed. Thread-safe."""
        if self._packed is None:
            raise ValueError("only a packed blob can be read in spans")
        with self._blaming():
            self._packed.copy(out, self._packed.layout.pieces(spans), check=False)

    def scan(self, scanner: Scanner, ahead: Ahead) -> None:
        """Show a scanner all content of a blob that is packed, but for the payloads, of which no chunk is read."""
        packed = self._packed
        if packed is None:
            raise ValueError("only a packed blob can be read without its payloads")
        queue: deque[tuple[Future[bytearray], U64]] = deque()
        with self._blaming():
            for start, end, rows in _literal_windows(packed.recipe.weave):
                queue.append((ahead.pool.submit(packed.literals, start, end), rows))
                if len(queue) > ahead.threads:
                    self._follow(scanner, *queue.popleft())
            for one in queue:
                self._follow(scanner, *one)

    def _follow(self, scanner: Scanner, literals: Future[bytearray], rows: U64) -> None:
        try:
            scanner.follow(literals.result(), rows)
        except ValueError:
            raise Damaged("the recipe is not that of a tar", what=str(self.info.digest)) from None

    def _whole(self, ahead: Ahead | int | None) -> Iterator[memoryview]:
        found = self._cache.take(self.info.digest, self.size) if self._cache is not None else None
        if isinstance(found, Making):
            try:
                buffers = self._buffers(0, self.size, check=False, ahead=ahead)
                yield from self._digested(buffers, self.size, self.info.digest, found.write, found.finish)
            finally:
                found.abort()
        elif found is not None:
            try:
                buffers = self._kept(found, 0, self.size, ahead)
                yield from self._digested(buffers, self.size, self.info.digest)
            except Damaged:
                found.discard()
                raise
        else:
            buffers = self._buffers(0, self.size, check=False, ahead=ahead)
            yield from self._digested(buffers, self.size, self.info.digest)

    def _kept(self, kept: Kept, start: int, stop: int, ahead: Ahead | int | None) -> Iterator[memoryview]:
        """From the cache, and what that does not give made again."""
        for piece in kept.read(start, stop):
            yield piece
            start += len(piece)
        if start < stop:
            yield from self._buffers(start, stop, check=True, ahead=ahead)

    def _digested(
        self,
        buffers: Iterator[memoryview],
        size: int,
        digest: Digest,
        see: Callable[[memoryview], None] = lambda data: None,
        right: Callable[[], None] = lambda: None,
    ) -> Iterator[memoryview]:
        """The buffers, which must have this size and digest in all: Damaged before the last one else. `see` is shown
        each; `right` is called when they are."""
        hasher = digest.hasher() if digest.algorithm != "sha256" else hashing.Sha256()

        def take(data: memoryview) -> None:
            hasher.update(data)
            see(data)

        held: memoryview | None = None
        seen = 0
        # One thread hashes what the caller already writes; the last buffer waits for the verdict.
        hashed: Future[None] | None = None
        with ThreadPoolExecutor(1, thread_name_prefix="digest") as pool:  # its thread starts with the first submit
            for buffer in buffers:
                if held is not None:
                    yield held
                if hashed is not None:
                    hashed.result()
                if size > WINDOW:
                    hashed = pool.submit(take, buffer)
                else:
                    take(buffer)
                seen += len(buffer)
                held = buffer
            if hashed is not None:
                hashed.result()
        if seen != size or hasher.digest() != digest.raw:
            raise Damaged("the stored bytes do not have the blob's digest", what=str(self.info.digest))
        right()
        if held is not None:
            yield held

    def _buffers(self, start: int, stop: int, *, check: bool, ahead: Ahead | int | None) -> Iterator[memoryview]:
        place = self.info.place
        if place.state == "inline":
            data = self._volume.packs.record(self.info.digest, place)
            if check and (len(data) != self.size or Digest.of(data, self.info.digest.algorithm) != self.info.digest):
                raise Damaged("the stored bytes do not have the blob's digest", what=str(self.info.digest))
            yield memoryview(data)[start:stop]
        elif place.state == "loose":
            yield from self._loose(start, stop)
        elif self._packed is not None and self._packed.encoded:
            yield from replayed(self._packed.recipe, self._packed.content, str(self.info.digest), start, stop)
        else:
            yield from self._windows(start, stop, check=check, ahead=ahead)

    def _loose(self, start: int, stop: int) -> Iterator[memoryview]:
        # Checked in a whole read too: its digest tells at the end only, and wrong bytes are out by then.
        place = self.info.place
        reader = self._volume.objects.open(place.key)
        try:
            # The size is the catalog's word; were it too small, a range would end early.
            if reader.size != self.size or len(self.info.spot) != -(-self.size // SPOT_SPAN) * SPOT_SIZE:
                raise Damaged(
                    f"the file has {reader.size} bytes instead of {self.size}", what=place.key, offset=reader.size
                )
            first = start // SPOT_SPAN * SPOT_SPAN
            for at in range(first, stop, SPOT_SPAN):
                piece = reader.pread(at, min(SPOT_SPAN, self.size - at))
                if len(piece) != min(SPOT_SPAN, self.size - at):
                    raise Damaged("loose blob is cut short", what=str(self.info.digest), offset=at + len(piece))
                mark = at // SPOT_SPAN * SPOT_SIZE
                if spot(piece) != self.info.spot[mark : mark + SPOT_SIZE]:
                    raise Damaged("the stored bytes are wrong", what=str(self.info.digest), offset=at)
                yield memoryview(piece)[max(start - at, 0) : stop - at]
        finally:
            reader.close()

    def _windows(self, start: int, stop: int, *, check: bool, ahead: Ahead | int | None) -> Iterator[memoryview]:
        packed = self._packed
        if packed is None or start >= stop:
            return
        begun, self._begun = self._begun, None
        if begun is None and stop - start <= WINDOW:
            yield memoryview(packed.window(start, stop, check=check))
            return
        with contextlib.ExitStack() as stack:
            if begun is None:
                if not isinstance(ahead, Ahead):
                    ahead = stack.enter_context(Ahead(ahead))
                begun = _Windows(packed, start, stop, check, ahead)
            stack.callback(begun.cancel)
            yield from begun
