"""The line in: bytes → verified, chunked, packed, staged under a lease, ready for one commit.

    source → outer digest → tar split → cut → names → index.missing → frames → packs → seal → recipes → (commit)

One `Ingest` serves one command. Blobs may be taken by several threads at once; frames are compressed on a pool of their
own, so that a single large layer uses all cores. Nothing is visible before the commit that names what `finish` returns.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..codec import compression
from ..codec.gzip import LIMIT, NoTrace
from ..digest import Digest
from ..errors import Damaged, NotFound
from ..format import recipe as recipe_format
from ..format.pack import Record, RecordKind
from ..kernels import table
from ..model import (
    FRAME_BITS,
    MAX_FRAME,
    MAX_FRAMES,
    U8,
    U32,
    U64,
    Buffer,
    Mask,
    NewBlob,
    Place,
    Progress,
    Used,
)
from ..store import protocol, rewrite
from ..store.index import IndexSet, Tables, encode_segment
from ..store.objects import Staged, index_key, pack_key
from ..store.packs import PackShelf, Sealed, write_metadata_pack
from ..store.protocol import NewObject
from ..store.transfers import Part
from ..store.volume import Volume
from .encoded import Encoder, Unfolded, engines_here, packable
from .frames import FRAME_TARGET, FrameBuilder, FramePool
from .loose import UNREADABLE, take_loose
from .naming import Names
from .pieces import Pieces
from .proof import doubt
from .reach import NOWHERE, Reach
from .records import Pending, intervals, recipe_of, record_of
from .records import Taken as Taken
from .source import RangeSource, Resumed, Source, fill
from .split import Split, Splitter
from .step import Counted, Step

_HEAD, _MARKS = 512, 1 << 20
INLINE = 64 << 10
"""Manifests and configs up to this many bytes are kept in metadata packs as they are."""


class Written(NamedTuple):
    """What a commit names, all of it durable: blobs, and the objects that they lie in."""

    blobs: list[NewBlob]
    objects: list[NewObject]


class Ingest:
    """Takes blobs for one commit. `pack`: "plain" packs what is not compressed, "now" also what gzip has inside;
    "later" leaves both to gc, "never" forbids it to gc. `limit`: how far into what is compressed we look;
    `trace_limit`: what a trace may be of its blob."""

    def __init__(
        self,
        volume: Volume,
        lease: int,
        *,
        pack: str = "plain",
        codec: str = "zstd:3",
        limit: compression.Limit = compression.LIMIT,
        trace_limit: float = LIMIT,
        workers: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._volume = volume
        self._limit = limit
        self._trace_limit = trace_limit
        self._lease = lease
        self._pack = pack
        self._progress = progress
        self._workers = workers or len(os.sched_getaffinity(0))
        with volume.catalog.read() as tx:
            tables = Tables(volume.objects, self._spoilt)
            self._index = IndexSet(volume.objects, protocol.live_segments(tx), tables)
        self._engines = threading.Semaphore(self._workers)  # each takes 100 MiB, and all of a core
        self._map = table.ChunkMap()
        self._lock = threading.Lock()
        self._shelf = PackShelf(volume.objects, lease, self._begin, chunk_digest=volume.file.chunk_digest)
        self._pool = FramePool(self._shelf, Names(volume.file.chunk_digest), codec, self._workers)
        self._pieces = Pieces()
        self._local = threading.local()
        self._builders: list[FrameBuilder] = []
        self._pending: dict[Digest, Pending] = {}
        self._inline: dict[Digest, tuple[bytes, str, tuple[Digest, ...]]] = {}
        self._loose: dict[Digest, tuple[NewBlob, Staged]] = {}
        self._unproved: dict[Digest, tuple[NewBlob, Staged]] = {}  # packed too, if that comes back
        self._parts: list[Part] = []
        self._old_packs: dict[int, str] = {}  # value slot in the map → key of a pack that was there before
        self._verdict: dict[int, bool] = {}  # number in the index set → may its pack be used
        self._slot_of: dict[int, int] = {}  # number in the index set → value slot
        self._costs: dict[int, tuple[list[int], list[int]]] = {}  # value slot of an old pack → its frames' sizes, bases

    def _begin(self, key: str, kind: str) -> None:
        protocol.put_begin(self._volume.catalog, self._lease, [(key, kind)])

    def take(
        self,
        source: Source,
        *,
        expect: Digest | None = None,
        inside: bool = False,
        media_type: str = "",
        children: tuple[Digest, ...] = (),
        what: str = "blob",
        look: bool = True,
        part: Part | None = None,
    ) -> Taken:
        """Take a blob. What is not compressed is taken apart; the rest is kept as it is and only looked into, and
        without `look` not even that.

        `expect` is compared with the digest (DigestMismatch). `inside`: what looks compressed must be (BadInput); else
        it is kept all the same. `what` names the blob for progress. `part`: see take_loose; what has come of a blob
        whose taking fails stays there.
        """
        head = bytearray(_HEAD)
        got = fill(source, memoryview(head))
        encoding = compression.detect(bytes(head[:got]))
        whole = Resumed(bytes(head[:got]), source)
        step = Step(self._progress, what, source.size)
        other = expect is not None and expect.algorithm != "sha256"
        if encoding is not None or self._pack not in ("plain", "now") or other:
            taken = self._loosely(whole, expect, inside, media_type, children, step, look, part)
        else:
            split, own = self.split(whole, step)
            digest = Digest.sha256(split.digest)
            if expect is not None:
                expect.check(digest, str(expect))
            taken = Taken(digest, split.size, "identity", digest, split.size, split.files_size)
            if part is not None:
                part.drop()  # what is taken apart on its way in is not kept as it comes
            with self._lock:
                pending = Pending(digest, split.size, split, "identity", b"", own, media_type, children)
                self._pending.setdefault(digest, pending)
        step.done()
        return taken

    def take_apart(
        self,
        source: Source,
        expect: Digest,
        *,
        media_type: str = "",
        children: tuple[Digest, ...] = (),
        what: str = "blob",
    ) -> Encoder:
        """Take a blob that is compressed as its content and a trace. NoTrace: why it cannot be; it is not taken then.
        DigestMismatch: it is another blob. Thread-safe, as `take`."""
        step = Step(self._progress, what, source.size)
        unfolded = Unfolded(Counted(source, step), self._trace_limit)
        split, own = self.split(unfolded)
        step.done()
        trace, encoder = unfolded.finish()
        expect.check(Digest.sha256(unfolded.digest), str(expect))
        pending = Pending(expect, unfolded.outer_size, split, "gzip", trace, own, media_type, children)
        with self._lock:
            self._pending.setdefault(expect, pending)
        return encoder

    def _loosely(
        self,
        source: Source,
        expect: Digest | None,
        inside: bool,
        media_type: str,
        children: tuple[Digest, ...],
        step: Step,
        look: bool,
        part: Part | None,
    ) -> Taken:
        blob, staged = take_loose(
            self._volume.objects,
            self._lease,
            self._begin,
            source,
            expect,
            media_type,
            step,
            limit=self._limit,
            strict=inside,
            look=look,
            part=part,
        )
        if part is not None:
            self._parts.append(part)
        blob = replace(blob, children=children)
        to = self._loose
        if look and blob.encoding != "identity" and blob.content_size is None:
            blob = replace(blob, pack_refused=UNREADABLE)
        elif self._pack == "never":
            blob = replace(blob, pack_refused="was to stay as it came")
        elif self._pack == "now" and blob.encoding == "gzip" and packable(blob):
            try:
                what = f"pack {str(blob.digest)[:19]}"
                with self._engines:
                    source = RangeSource(staged)
                    self.take_apart(source, blob.digest, media_type=media_type, children=children, what=what)
                to = self._unproved
            except NoTrace as reason:
                blob = replace(blob, pack_refused=rewrite.refusal(str(reason), engines_here(self._trace_limit)))
        with self._lock:
            if blob.digest in self._loose or blob.digest in self._unproved:
                staged.abort()
            else:
                to[blob.digest] = blob, staged
        return Taken(blob.digest, blob.size, blob.encoding, blob.diffid, blob.content_size, blob.files_size)

    def take_small(self, data: bytes, media_type: str, children: tuple[Digest, ...] = ()) -> Digest:
        """Take a manifest or config that is in memory (some MiB at most); `children` are its edges."""
        digest = Digest.of(data)
        with self._lock:
            self._inline.setdefault(digest, (data, media_type, children))
        return digest

    # -- chunks

    def lacks(self, digests: U8) -> Mask:
        """Which of these chunks are new to the store and to this command. All others stay while the lease does."""
        lacking: Mask = self._lookup(digests) == table.MISSING
        return lacking

    def add(self, buffer: Buffer, starts: U64, lengths: U32, digests: U8) -> None:
        """Store chunks that come without their blob, named already; those that are there are left out."""
        new = np.flatnonzero(self.lacks(digests))
        new = new[self._map.claim(digests[new])]
        if len(new):
            slots, addresses = self._builder(1).add(buffer, starts[new], lengths[new], digests[new])
            self._map.set(digests[new], slots << np.uint64(32) | addresses)

    def split(self, source: Source, step: Step | None = None) -> tuple[Split, table.ChunkMap]:
        """Store the chunks of content, for a `take_recipe`; and which of them were stored again for it."""
        sink = _Chunks(self)
        return Splitter(self._volume.file, sink, self._pieces).run(source, step), sink.own

    def take_recipe(self, pending: Pending) -> None:
        """Take a blob by its recipe, whose chunks are all there by then. Nothing has replayed it yet: that is for the
        caller, once all is written."""
        with self._lock:
            self._pending.setdefault(pending.digest, pending)

    def _builder(self, track: int) -> FrameBuilder:
        pair: list[FrameBuilder] | None = getattr(self._local, "pair", None)
        if pair is None:
            pair = self._local.pair = [FrameBuilder(self._pool), FrameBuilder(self._pool)]
            with self._lock:
                self._builders += pair
        return pair[track]

    def _lookup(self, digests: U8) -> U64:
        """Where these chunks are, as the map has it. Those that the store has, in packs now named under our lease, are
        noted there; table.MISSING: new."""
        values = self._map.get(digests)
        unknown = np.flatnonzero(values == table.MISSING)
        if len(unknown):
            located = self._index.locate(digests[unknown], self._name)
            hits = np.flatnonzero(located.found)
            if len(hits):
                slots = np.array([self._slot(int(p)) for p in located.packs[hits]], np.uint64)
                values[unknown[hits]] = slots << np.uint64(32) | located.addresses[hits]
                self._map.set(digests[unknown[hits]], values[unknown[hits]])
        return values

    def _cost(self, name: int) -> list[tuple[int, int]]:
        """What is decoded for a chunk in the frame `name` (value >> FRAME_BITS): see reach.Cost."""
        slot, number = name >> 10, name & (MAX_FRAMES - 1)
        key = self._old_packs.get(slot)
        if key is None:
            return [(name, FRAME_TARGET)]
        known = self._costs.get(slot)
        if known is None:
            try:
                frames = self._volume.packs.pack(key).frames
                known = frames["raw"].tolist(), frames["base"].tolist()
            except (Damaged, NotFound):
                known = [], []  # as bad as can be
            self._costs[slot] = known
        sizes, bases = known
        if number >= len(sizes):
            return [(name, 2 * MAX_FRAME)]
        base = bases[number] - 1
        return [(name, sizes[number]), *([(slot << 10 | base, sizes[base])] if base >= 0 else [])]

    def _slot(self, number: int) -> int:
        # Packs that were there before count down from the top of the slot space, new ones up from 0.
        with self._lock:
            slot = self._slot_of.get(number)
            if slot is None:
                slot = self._slot_of[number] = 0x7FFFFFFF - len(self._slot_of)
                self._old_packs[slot] = pack_key(self._index.packs[number])
            return slot

    def _name(self, numbers: U32, _: U32) -> Mask:
        # PROTOCOL rule 2: a hit counts only once the pack is named under our lease, its state tested in the same
        # transaction.
        fresh = [int(n) for n in np.unique(numbers) if int(n) not in self._verdict]
        if fresh:
            keys = {n: pack_key(self._index.packs[n]) for n in fresh}
            seen = protocol.name_objects(self._volume.catalog, self._lease, keys.values())
            self._verdict.update((n, key in seen) for n, key in keys.items())
        return np.array([self._verdict[int(n)] for n in numbers], np.bool_)

    def _spoilt(self, key: str) -> None:
        # A pack that cannot be read answers "missing" from now on, as when a reader finds it.
        protocol.mark_damaged(self._volume.catalog, keys=[key])

    # -- finishing

    def finish(self, only: Collection[Digest] | None = None) -> Written:
        """Write out what was taken (of the blobs `only` these, where given); all of it is durable when this returns,
        and nothing has a name yet."""
        digest_kind = self._volume.file.chunk_digest
        for builder in self._builders:
            builder.close()
        self._pool.join()
        sealed = self._shelf.seal()
        loose = {d: one for d, one in self._loose.items() if only is None or d in only}
        staged = [*(one for _, one in loose.values()), *(pack.staged for pack in sealed)]
        objects = [NewObject(blob.place.key, blob.size) for blob, _ in loose.values()]
        objects += [NewObject(pack.key, pack.size, pack.chunk_bytes) for pack in sealed]
        result = [blob for blob, _ in loose.values()]
        records: list[tuple[Record, bytes]] = []
        blobs: list[NewBlob] = []
        packed = set(self._pending)
        wanted = deque(
            (pending, tuple(self._uses(pending)))
            for pending in self._pending.values()
            if pending.digest not in loose and (only is None or pending.digest in only)
        )
        # What is large goes as soon as it has been used: with many chunks, every copy of their names counts.
        self._map = table.ChunkMap()
        self._pending.clear()
        index = self._write_index(sealed)
        while wanted:
            blob, record = recipe_of(*wanted.popleft())
            blobs.append(blob)
            records.append(record)
        for digest, (data, media_type, children) in self._inline.items():
            if digest in packed or digest in loose:
                continue
            place = Place("inline", "")
            blobs.append(NewBlob(digest, len(data), place, media_type=media_type, children=children))
            records.append((record_of(RecordKind.BLOB, blobs[-1]), data))
        if records:
            pack_id = secrets.token_bytes(16)
            key = pack_key(pack_id)
            self._begin(key, "metadata")
            meta = self._volume.objects.stage(self._lease, key)
            positions, size = write_metadata_pack(meta, pack_id, records, chunk_digest=digest_kind)
            staged.append(meta)
            objects.append(NewObject(key, size))
            for blob, at in zip(blobs, positions, strict=True):
                place = replace(blob.place, key=key, frame=at.frame, offset=at.offset, length=at.length)
                result.append(replace(blob, place=place))
        if index is not None:
            segment, row = index
            staged.append(segment)
            objects.append(row)
        self._volume.objects.publish(staged)
        return self._proved(Written(result, objects))

    def _proved(self, written: Written) -> Written:
        """What was written, but loose blobs in the place of those recipes that do not make them again."""
        blobs, objects, staged = [], list(written.objects), []
        for blob in written.blobs:
            loose, file = self._unproved.pop(blob.digest, (None, None))
            if loose is not None and file is not None:
                refused = doubt(self._volume, blob, progress=self._progress)
                if refused:
                    staged.append(file)
                    objects.append(NewObject(loose.place.key, loose.size))
                    blob = replace(loose, pack_refused=rewrite.refusal(refused, engines_here(self._trace_limit)))
                else:
                    file.abort()
            blobs.append(blob)
        if staged:
            self._volume.objects.publish(staged)
        return Written(blobs, objects)

    def _write_index(self, sealed: Sequence[Sealed]) -> tuple[Staged, NewObject] | None:
        """The index segment of the new packs, staged. Their tables are let go with it."""
        if not sealed:
            return None
        key = index_key()
        self._begin(key, "index")
        segment = self._volume.objects.stage(self._lease, key)
        tables = [(pack.pack_id, pack.digests, pack.addresses) for pack in sealed]
        segment.write(encode_segment(tables, self._volume.file.chunk_digest))
        for pack in sealed:
            pack.digests, pack.addresses = pack.digests[:0].copy(), pack.addresses[:0].copy()
        return segment, NewObject(key, segment.size, packs=tuple(pack.key for pack in sealed))

    def _uses(self, pending: Pending) -> list[Used]:
        split = pending.split
        digests = np.concatenate([split.literals.digests, split.payloads.digests])
        lengths = np.concatenate([split.literals.lengths, split.payloads.lengths])
        values = _over(pending.own, digests, self._map.get(digests))
        if len(values) and int(values.max()) >= table.MISSING:
            raise Damaged("a chunk has no address", what="ingest")
        slots = values >> np.uint64(32)
        addresses = (values & np.uint64(0xFFFFFFFF)).astype(np.uint64)
        uses = []
        for slot in np.unique(slots):
            mine = slots == slot
            key = self._old_packs.get(int(slot)) or self._shelf.key_of(int(slot))
            uses.append(Used(key, intervals(addresses[mine], lengths[mine])))
        return uses

    def committed(self) -> None:
        """What `finish` returned has its names: what had come of it before is of no use any more."""
        for part in self._parts:
            part.drop()

    def close(self) -> None:
        """Stop the pools; what was staged dies with the lease unless it was committed."""
        self._pool.shutdown()
        for _, staged in (*self._loose.values(), *self._unproved.values()):
            staged.close()
        self._shelf.close()


class _Chunks:
    """The sink of one blob's split: sends new chunks into frames, and others again where the blob reached too far."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest
        self._reach = Reach(ingest._cost)
        self._used = np.zeros(_MARKS, np.bool_)  # by the first bits of a digest: may this blob have used it before
        self._given = 0
        self._distinct = 0  # at least
        self.own = table.ChunkMap()

    def take(self, track: int, buffer: Buffer, starts: U64, lengths: U32, digests: U8, *, force: bool = False) -> bool:
        ingest = self._ingest
        # Half of what a recipe may have: the rest is for what comes in larger chunks, or has to be taken.
        most = recipe_format.FREE_ROWS + recipe_format.ROWS_PER_DIGEST * self._distinct
        if self._given + len(lengths) > most // 2 and not force:
            return False
        values = _over(self.own, digests, ingest._lookup(digests))
        marks = np.ascontiguousarray(digests[:, :4]).view("<u4").reshape(-1) & np.uint32(_MARKS - 1)
        frames = np.where(values < table.MISSING, values >> np.uint64(FRAME_BITS), NOWHERE)
        again = self._reach.judge(frames, lengths, ~self._used[marks], force=force)
        if again is None:
            return False
        self._given += len(lengths)
        fresh = np.unique(marks[~self._used[marks]])
        self._distinct += len(fresh)
        self._used[fresh] = True
        new = np.flatnonzero(values == table.MISSING)
        new = new[ingest._map.claim(digests[new])]
        self._store(track, buffer, starts, lengths, digests, new, ingest._map)
        if again.any():
            copies = np.flatnonzero(again)
            self._store(track, buffer, starts, lengths, digests, copies[self.own.claim(digests[copies])], self.own)
        return True

    def _store(
        self, track: int, buffer: Buffer, starts: U64, lengths: U32, digests: U8, which: np.ndarray, to: table.ChunkMap
    ) -> None:
        if not len(which):
            return
        slots, addresses = self._ingest._builder(track).add(buffer, starts[which], lengths[which], digests[which])
        values = slots << np.uint64(32) | addresses
        to.set(digests[which], values)
        self._reach.wrote(values >> np.uint64(FRAME_BITS))


def _over(own: table.ChunkMap, digests: U8, values: U64) -> U64:
    """`values`, but those of `own` where it has them."""
    if not len(own):
        return values
    mine = own.get(digests)
    return np.where(mine < table.MISSING, mine, values)
