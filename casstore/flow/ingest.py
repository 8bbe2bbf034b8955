"""The line in: bytes → verified, chunked, packed, staged under a lease, ready for one commit.

    source → outer digest → tar split → cut → names → index.missing → frames → packs → seal → recipes → (commit)

One `Ingest` serves one command. Blobs may be taken by several threads at once; frames are compressed on a pool of their
own, so that a single large layer uses all cores. Nothing is visible before the commit that names what `finish` returns.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..digest import Digest
from ..errors import Damaged
from ..format import recipe as recipe_format
from ..format.pack import Record, RecordKind
from ..kernels import table
from ..model import U8, U32, U64, Buffer, ChunkList, Mask, NewBlob, Place, Recipe, Used
from ..store import protocol
from ..store.index import IndexSet, encode_segment
from ..store.objects import Staged, index_key, pack_key
from ..store.packs import PackShelf, write_metadata_pack
from ..store.volume import Volume
from .frames import FrameBuilder, FramePool
from .loose import take_loose
from .source import Source
from .split import Split, Splitter

INLINE = 64 << 10
"""Manifests and configs up to this many bytes are kept in metadata packs as they are."""


@dataclass(slots=True)
class _Pending:
    """A packed blob whose recipe waits for the addresses of its chunks."""

    digest: Digest
    split: Split
    media_type: str


class Ingest:
    """Takes blobs for one commit. `pack`: "now" packs what is not compressed, "later" and "never" keep it loose."""

    def __init__(
        self,
        volume: Volume,
        lease: int,
        *,
        pack: str = "now",
        compression: str = "zstd:3",
        workers: int | None = None,
        progress: object = None,
    ) -> None:
        self._volume = volume
        self._lease = lease
        self._pack = pack
        self._progress = progress
        self._workers = workers or len(os.sched_getaffinity(0))
        with volume.catalog.read() as tx:
            self._index = IndexSet(volume.objects, protocol.live_segments(tx))
        self._map = table.ChunkMap()
        self._lock = threading.Lock()
        self._shelf = PackShelf(volume.objects, lease, self._begin)
        self._pool = FramePool(self._shelf, compression, self._workers)
        self._local = threading.local()
        self._builders: list[FrameBuilder] = []
        self._pending: dict[Digest, _Pending] = {}
        self._inline: dict[Digest, tuple[bytes, str, tuple[Digest, ...]]] = {}
        self._loose: dict[Digest, NewBlob] = {}
        self._staged: list[Staged] = []
        self._old_packs: dict[int, str] = {}  # value slot in the map → key of a pack that was there before
        self._slot_of: dict[int, int] = {}  # number in the index set → value slot

    # -- taking blobs

    def _begin(self, key: str, kind: str) -> None:
        protocol.put_begin(self._volume.catalog, self._lease, [(key, kind)])

    def take(self, source: Source, *, expect: Digest | None = None, media_type: str = "") -> Digest:
        """Take an uncompressed blob; returns its sha256. `expect` is compared (DigestMismatch)."""
        if self._pack != "now":
            return self.take_loose(source, expect=expect, media_type=media_type).digest
        split = Splitter(self._volume.file.cutter, _Chunks(self)).run(source, self._progress)
        digest = Digest.sha256(split.digest)
        if expect is not None:
            expect.check(digest, str(expect))
        with self._lock:
            self._pending.setdefault(digest, _Pending(digest, split, media_type))
        return digest

    def take_loose(
        self, source: Source, *, expect: Digest | None = None, media_type: str = "", diffid: Digest | None = None
    ) -> NewBlob:
        """Keep a blob's bytes as they are. A compressed blob is also decompressed for its diffID, compared with
        `diffid` where given."""
        blob, staged = take_loose(
            self._volume.objects, self._lease, self._begin, source, expect, media_type, diffid, self._progress
        )
        with self._lock:
            if blob.digest not in self._loose:
                self._loose[blob.digest] = blob
                self._staged.append(staged)
        return blob

    def take_small(self, data: bytes, media_type: str, children: tuple[Digest, ...] = ()) -> Digest:
        """Take a manifest or config that is in memory (at most a few MiB); `children` are its edges."""
        digest = Digest.of(data)
        with self._lock:
            self._inline.setdefault(digest, (data, media_type, children))
        return digest

    # -- chunks

    def _builder(self, track: int) -> FrameBuilder:
        pair: list[FrameBuilder] | None = getattr(self._local, "pair", None)
        if pair is None:
            pair = self._local.pair = [FrameBuilder(self._pool), FrameBuilder(self._pool)]
            with self._lock:
                self._builders += pair
        return pair[track]

    def _present(self, digests: U8) -> Mask:
        """Which of these chunks the store has, in packs that are now named under our lease; their addresses are noted."""
        located = self._index.locate(digests, self._name)
        hits = np.flatnonzero(located.found)
        if len(hits):
            slots = np.array([self._slot(int(p)) for p in located.packs[hits]], np.uint64)
            self._map.set(digests[hits], slots << np.uint64(32) | located.addresses[hits])
        return located.found

    def _slot(self, number: int) -> int:
        # Packs that were there before count down from the top of the slot space, new ones up from 0.
        with self._lock:
            slot = self._slot_of.get(number)
            if slot is None:
                slot = self._slot_of[number] = 0x7FFFFFFF - len(self._slot_of)
                self._old_packs[slot] = pack_key(self._index.packs[number])
            return slot

    def _name(self, numbers: U32) -> Mask:
        # PROTOCOL rule 2: a hit counts only once the pack is named under our lease, its state tested in that transaction.
        keys = [pack_key(self._index.packs[int(n)]) for n in numbers]
        seen = protocol.name_objects(self._volume.catalog, self._lease, keys)
        return np.array([key in seen for key in keys], np.bool_)

    # -- finishing

    def finish(self) -> list[NewBlob]:
        """Write out everything that was taken; all objects are durable when it returns, none has a name yet."""
        for builder in self._builders:
            builder.close()
        self._pool.join()
        sealed = self._shelf.seal()
        staged = [*self._staged, *(pack.staged for pack in sealed)]
        result = [*self._loose.values()]
        records: list[tuple[Record, bytes]] = []
        blobs: list[NewBlob] = []
        for pending in self._pending.values():
            blob, record = self._recipe(pending)
            blobs.append(blob)
            records.append(record)
        for digest, (data, media_type, children) in self._inline.items():
            if digest in self._pending or digest in self._loose:
                continue
            place = Place("inline", "")
            blobs.append(NewBlob(digest, len(data), place, media_type=media_type, children=children))
            records.append((_record(RecordKind.BLOB, blobs[-1]), data))
        if records:
            pack_id = secrets.token_bytes(16)
            key = pack_key(pack_id)
            self._begin(key, "metadata")
            meta = self._volume.objects.stage(self._lease, key)
            positions, _ = write_metadata_pack(meta, pack_id, records)
            staged.append(meta)
            for blob, at in zip(blobs, positions, strict=True):
                place = replace(blob.place, key=key, frame=at.frame, offset=at.offset, length=at.length)
                result.append(replace(blob, place=place))
        if sealed:
            key = index_key()
            self._begin(key, "index")
            segment = self._volume.objects.stage(self._lease, key)
            segment.write(encode_segment([(p.pack_id, p.digests, p.addresses) for p in sealed]))
            staged.append(segment)
            self.segments = [(key, [p.key for p in sealed])]
        self._volume.objects.publish(staged)
        return result

    segments: Sequence[tuple[str, list[str]]] = ()
    """Index segments written: (key, keys of the packs that it covers); known after `finish`."""

    def _recipe(self, pending: _Pending) -> tuple[NewBlob, tuple[Record, bytes]]:
        split = pending.split
        recipe = Recipe(split.size, split.weave, split.literals, split.payloads)
        encoded = recipe_format.encode(recipe)
        if not _same(recipe_format.decode(encoded), recipe):
            raise Damaged("a recipe does not read back as written", what=str(pending.digest))
        place = Place("packed", "", uses=tuple(self._uses(split)))
        blob = NewBlob(
            pending.digest,
            split.size,
            place,
            media_type=pending.media_type,
            diffid=pending.digest,
            content_size=split.size,
            files_size=split.files_size,
        )
        return blob, (_record(RecordKind.RECIPE, blob), encoded)

    def _uses(self, split: Split) -> list[Used]:
        digests = np.concatenate([split.literals.digests, split.payloads.digests])
        lengths = np.concatenate([split.literals.lengths, split.payloads.lengths])
        values = self._map.get(digests)
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

    def close(self) -> None:
        """Stop the pools; what was staged dies with the lease unless it was committed."""
        self._pool.shutdown()
        for staged in self._staged:
            staged.close()


class _Chunks:
    """The sink of one blob's split: sends new chunks into frames."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest

    def take(self, track: int, buffer: Buffer, starts: U64, lengths: U32, digests: U8) -> None:
        ingest = self._ingest
        fresh = np.flatnonzero(ingest._map.claim(digests))
        if not len(fresh):
            return
        new = fresh[~ingest._present(digests[fresh])]
        if len(new):
            slots, addresses = ingest._builder(track).add(buffer, starts[new], lengths[new], digests[new])
            ingest._map.set(digests[new], slots << np.uint64(32) | addresses)


def intervals(addresses: U64, lengths: U32) -> U32:
    """Sorted, merged half-open intervals (m, 2) of chunk addresses."""
    order = np.argsort(addresses, kind="stable")
    start = addresses[order].astype(np.uint64)
    end = start + lengths[order]
    if not len(start):
        return np.empty((0, 2), np.uint32)
    reach = np.maximum.accumulate(end)
    heads = np.flatnonzero(np.concatenate([[True], start[1:] > reach[:-1]]))
    tails = np.append(heads[1:] - 1, len(start) - 1)
    # The last frame of a pack may end at 2**32: its end is kept as 2**32 - 1, one byte short, which no sum depends on.
    return np.stack([start[heads], np.minimum(reach[tails], 0xFFFFFFFF)], axis=1).astype(np.uint32)


def _record(kind: RecordKind, blob: NewBlob) -> Record:
    return Record(
        kind,
        blob.digest,
        blob.size,
        0,
        0,
        0,
        blob.encoding,
        blob.media_type,
        blob.diffid,
        blob.content_size,
        blob.files_size,
    )


def _same(a: Recipe, b: Recipe) -> bool:
    def chunks(x: ChunkList, y: ChunkList) -> bool:
        return (
            np.array_equal(x.digests, y.digests)
            and np.array_equal(x.lengths, y.lengths)
            and np.array_equal(x.repeats, y.repeats)
        )

    return (
        a.size == b.size
        and a.content_size == b.size == b.literals.size + b.payloads.size
        and np.array_equal(a.weave, b.weave)
        and chunks(a.literals, b.literals)
        and chunks(a.payloads, b.payloads)
        and (a.encoding, a.trace) == (b.encoding, b.trace)
    )

