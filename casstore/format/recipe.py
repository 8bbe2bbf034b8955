"""Recipe records: model.Recipe ⇄ bytes. Specified in FORMATS.md.

Digests are kept once each, in order of first use, raw; all else is columns of integers, shaped so that what a
tar makes predictable costs nothing: a row of the weave keeps how many chunks its payload has (their lengths
say the bytes), and its literal bytes less the padding that the payload before it needs.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from ..errors import Damaged, LimitExceeded
from ..kernels import table
from ..model import U8, U32, U64, Buffer, ChunkList, Recipe
from .encoding import checksum, decode_columns, encode_columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

VERSION = 1
#: How many rows of weave, and how many entries of both tracks, a recipe may have for nothing, and how many
#: more for each distinct digest: so what decoding costs is a constant and a multiple of the record's bytes.
FREE_ROWS = 1 << 21
ROWS_PER_DIGEST = 32
#: Largest chunk, longest name of an encoding, largest trace (bytes).
MAX_CHUNK = 1 << 22
MAX_NAME = 255
MAX_TRACE = 1 << 30

# magic, version, 0, length of the encoding's name, size, length of the trace, rows of the weave, entries of
# the literal track, of the payload track, distinct digests
_HEADER = struct.Struct("<4sBBHQQIIII")
_MAGIC = b"cRc\xf1"
_CHECKSUM = 16
_BLOCK = np.uint64(512)
_LEVEL = 6


def encode(recipe: Recipe) -> bytes:
    """The record. LimitExceeded: more rows or a larger trace than a record may have (such a blob stays
    loose). ValueError: the recipe breaks the rules of model.Recipe."""
    name = recipe.encoding.encode()
    weave = np.ascontiguousarray(recipe.weave, np.uint64).reshape(-1, 2)
    literals, payloads = recipe.literals, recipe.payloads
    _check(recipe, weave, len(name))
    digests = np.concatenate((literals.digests, payloads.digests)).reshape(-1, 32)
    lengths = np.concatenate((literals.lengths, payloads.lengths)).astype(np.uint64)
    repeats = np.concatenate((literals.repeats, payloads.repeats)).astype(np.uint64)
    firsts, back = _distinct(digests)
    if max(len(weave), len(digests)) > _most(len(firsts)) or len(recipe.trace) > MAX_TRACE:
        raise LimitExceeded("too many pieces for one recipe")
    if np.any(lengths[firsts][_resolve(back, len(firsts), "recipe")] != lengths):
        raise ValueError("one digest with two lengths")
    counts = _payload_counts(weave[:, 1], payloads)
    literal_rows = _zigzag(weave[:, 0].astype(np.int64) - _padding(weave[:, 1]))
    body = encode_columns([literal_rows, counts, back, lengths[firsts], repeats], _LEVEL)
    header = _HEADER.pack(
        _MAGIC,
        VERSION,
        0,
        len(name),
        recipe.size,
        len(recipe.trace),
        len(weave),
        len(literals.digests),
        len(payloads.digests),
        len(firsts),
    )
    record = b"".join((header, name, digests[firsts].tobytes(), body, recipe.trace))
    return record + checksum(record)


def decode(data: Buffer, what: str = "recipe") -> Recipe:
    """The recipe in one whole record. Damaged: any byte differs from what was written, or the parts
    contradict each other. Memory is bounded by FREE_ROWS and `len(data)`, whatever the record claims."""
    view = memoryview(data)
    if len(view) < _HEADER.size + _CHECKSUM or checksum(view[:-_CHECKSUM]) != view[-_CHECKSUM:]:
        raise Damaged("recipe fails its checksum", what=what)
    view = view[:-_CHECKSUM]
    magic, version, reserved, name_length, size, trace_length, rows, literals, payloads, distinct = (
        _HEADER.unpack_from(view)
    )
    if magic != _MAGIC or version != VERSION or reserved:
        raise Damaged(f"unknown recipe format (version {version})", what=what)
    at = _HEADER.size + name_length
    entries = literals + payloads
    if not 0 < name_length <= MAX_NAME or at + 32 * distinct + trace_length > len(view):
        raise Damaged("recipe ends early", what=what)
    if max(rows, entries) > _most(distinct) or distinct > entries or trace_length > MAX_TRACE:
        raise Damaged("recipe claims more than any that is written", what=what)
    try:
        encoding = bytes(view[_HEADER.size : at]).decode()
    except UnicodeDecodeError:
        raise Damaged("recipe with an impossible encoding", what=what) from None
    digests = np.frombuffer(view, np.uint8, 32 * distinct, at).reshape(distinct, 32)
    (literal_rows, counts, back, lengths, repeats), end = decode_columns(
        view, at + 32 * distinct, [rows, rows, entries, distinct, entries], what, 40 * _most(distinct)
    )
    if end + trace_length != len(view):
        raise Damaged("recipe contradicts itself", what=what)
    if distinct and not 1 <= int(lengths.min()) <= int(lengths.max()) <= MAX_CHUNK:
        raise Damaged("chunk of impossible length", what=what)
    if entries and not 1 <= int(repeats.min()) <= int(repeats.max()) < 1 << 32:
        raise Damaged("impossible repeat count", what=what)
    which = _resolve(back, distinct, what)
    every = ChunkList(digests[which], lengths[which].astype(np.uint32), repeats.astype(np.uint32))
    tracks = [_part(every, slice(0, literals)), _part(every, slice(literals, None))]
    weave = _weave(literal_rows, counts, tracks, what)
    recipe = Recipe(size, weave, tracks[0], tracks[1], encoding, bytes(view[end:]))
    try:
        _check(recipe, weave, name_length)
    except ValueError as error:
        raise Damaged(f"recipe contradicts itself: {error}", what=what) from None
    return recipe


def _check(recipe: Recipe, weave: U64, name_length: int) -> None:
    """ValueError: a rule of model.Recipe is broken; all but the one that rows end where chunks do."""
    tracks = recipe.literals, recipe.payloads
    for track in tracks:
        if not len(track.digests) == len(track.lengths) == len(track.repeats):
            raise ValueError("columns of different length")
        if len(track.lengths) and not 1 <= int(track.lengths.min()) <= int(track.lengths.max()) <= MAX_CHUNK:
            raise ValueError("chunk of impossible length")
        if len(track.repeats) and int(track.repeats.min()) < 1:
            raise ValueError("impossible repeat count")
    totals = [_total(track.lengths, track.repeats) for track in tracks]
    if None in totals or [_total(weave[:, 0]), _total(weave[:, 1])] != totals:
        raise ValueError("weave and tracks differ in size")
    if not 0 < name_length <= MAX_NAME or not 0 <= recipe.size < 1 << 63:
        raise ValueError("impossible encoding or size")
    if recipe.encoding == "identity" and (recipe.size != int(weave.sum()) or recipe.trace):
        raise ValueError("size is not that of the tracks")


def _most(distinct: int) -> int:
    """Rows of weave, or entries, that a recipe with so many distinct digests may have."""
    return FREE_ROWS + ROWS_PER_DIGEST * distinct


def _total(values: U64 | U32, times: U32 | None = None) -> int | None:
    """Their sum (of products), or None where it is 2^62 or more: what may be hostile must not wrap."""
    products = values.astype(np.float64) if times is None else values.astype(np.float64) * times
    if float(products.sum()) >= 2.0**62:
        return None
    exact = values.astype(np.uint64) if times is None else values.astype(np.uint64) * times
    return int(exact.sum())


def _part(chunks: ChunkList, part: slice) -> ChunkList:
    return ChunkList(chunks.digests[part], chunks.lengths[part], chunks.repeats[part])


def _distinct(digests: U8) -> tuple[NDArray[np.int64], U64]:
    """(the entries that bring a digest for the first time; for each entry 0 if it is one of these, else how
    many distinct digests ago, counting back from 1, its own was new)."""
    order = table.order(digests)
    rows = np.ascontiguousarray(digests[order]).view("<u8")
    leads = np.ones(len(order), bool)
    leads[1:] = np.any(rows[1:] != rows[:-1], axis=1)
    leaders = order[leads].astype(np.int64)  # the sort is stable: of equal ones, the first leads
    fresh = np.zeros(len(order), bool)
    fresh[leaders] = True
    seen = np.cumsum(fresh)
    back = np.empty(len(order), np.uint64)
    back[order] = (seen[order] - (seen[leaders] - 1)[np.cumsum(leads) - 1]).astype(np.uint64)
    back[leaders] = 0
    return np.flatnonzero(fresh), back


def _resolve(back: U64, distinct: int, what: str) -> NDArray[np.int64]:
    """Which distinct digest each entry has. Undoes `_distinct`."""
    fresh = back == 0
    seen = np.cumsum(fresh)
    if (int(seen[-1]) if len(seen) else 0) != distinct or np.any(back > seen.astype(np.uint64)):
        raise Damaged("recipe refers to a digest that it does not have", what=what)
    return np.where(fresh, seen - 1, seen - back.astype(np.int64))


def _weave(literal_rows: U64, counts: U64, tracks: list[ChunkList], what: str) -> U64:
    """The weave from its columns, whose sums are yet to be compared with the tracks'."""
    weave = np.empty((len(counts), 2), np.uint64)
    weave[:, 1] = _payload_bytes(counts, tracks[1], what)
    signed = _unzigzag(literal_rows)
    if len(signed) and int(signed.max()) >= 1 << 62:
        raise Damaged("recipe with an impossible row", what=what)
    signed = signed + _padding(weave[:, 1])
    if len(signed) and int(signed.min()) < 0:
        raise Damaged("recipe with an impossible row", what=what)
    weave[:, 0] = signed.astype(np.uint64)
    return weave


def _payload_counts(row_bytes: U64, track: ChunkList) -> U64:
    """How many chunks, repeats counted, each row's payload has. ValueError: a row ends inside a chunk."""
    if not len(track.lengths):
        return np.zeros(len(row_bytes), np.uint64)
    lengths = track.lengths.astype(np.uint64)
    repeats = track.repeats.astype(np.uint64)
    ends = np.cumsum(lengths * repeats)
    marks = np.cumsum(row_bytes)
    entry = np.searchsorted(ends, marks)  # the entry in which, or at whose end, each row ends
    inside = marks - (ends - lengths * repeats)[entry]
    if np.any(inside % lengths[entry]):
        raise ValueError("a row of the weave ends inside a chunk")
    counts: U64 = np.diff(
        (np.cumsum(repeats) - repeats)[entry] + inside // lengths[entry], prepend=np.uint64(0)
    )
    return counts


def _payload_bytes(counts: U64, track: ChunkList, what: str) -> U64:
    """Undoes `_payload_counts`."""
    repeats = track.repeats.astype(np.uint64)
    lengths = track.lengths.astype(np.uint64)
    ends = np.cumsum(repeats)
    total = int(ends[-1]) if len(ends) else 0
    if _total(counts) != total or _total(track.lengths, track.repeats) is None:
        raise Damaged("recipe rows do not fill its payload", what=what)
    if not total:
        return np.zeros(len(counts), np.uint64)
    marks = np.cumsum(counts)
    entry = np.searchsorted(ends, marks)
    begins = np.cumsum(lengths * repeats) - lengths * repeats
    places = begins[entry] + (marks - (ends - repeats)[entry]) * lengths[entry]
    row_bytes: U64 = np.diff(places, prepend=np.uint64(0))
    return row_bytes


def _padding(payload_rows: U64) -> NDArray[np.int64]:
    """The bytes that pad, in a tar, the payload of the row before each row."""
    padding = np.zeros(len(payload_rows), np.int64)
    padding[1:] = ((_BLOCK - payload_rows[:-1] % _BLOCK) % _BLOCK).astype(np.int64)
    return padding


def _zigzag(signed: NDArray[np.int64]) -> U64:
    return ((signed << 1) ^ (signed >> 63)).astype(np.uint64)


def _unzigzag(values: U64) -> NDArray[np.int64]:
    half = (values >> np.uint64(1)).astype(np.int64)
    return np.where(values & np.uint64(1), ~half, half)
