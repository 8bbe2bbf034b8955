"""Recipe records: model.Recipe ⇄ bytes. Specified in FORMATS.md.

Digests are kept once each, in order of first use, raw; all else is columns of integers, shaped so that what a tar
makes predictable costs nothing: a row of the weave keeps how many chunks its payload has (their lengths say the
bytes), and its literal bytes less the padding that the payload before it needs.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from ..errors import Damaged, LimitExceeded
from ..model import U8, U32, U64, Buffer, ChunkList, Recipe
from .encoding import checksum, decode_columns, encode_columns

VERSION = 1
#: Most rows of weave and most entries of a track in one recipe: what decoding one may cost stays bounded.
MAX_ROWS = 1 << 24
#: Largest chunk (bytes), longest name of an encoding, largest trace.
MAX_CHUNK = 1 << 22
MAX_NAME = 255
MAX_TRACE = 1 << 30

_HEADER = struct.Struct("<4sBBHQQIIII")  # magic, version, 0, name, size, trace, rows, literals, payloads, distinct
_MAGIC = b"cRc\xf1"
_CHECKSUM = 16
_BLOCK = np.uint64(512)
_LEVEL = 6


def encode(recipe: Recipe) -> bytes:
    """The record. LimitExceeded: more rows or a larger trace than a record may have (such a blob stays loose).
    ValueError: a recipe that breaks the rules of model.Recipe."""
    name = recipe.encoding.encode()
    weave = np.ascontiguousarray(recipe.weave, np.uint64).reshape(-1, 2)
    tracks = recipe.literals, recipe.payloads
    if max(len(weave), *(len(track.digests) for track in tracks)) > MAX_ROWS or len(recipe.trace) > MAX_TRACE:
        raise LimitExceeded("too many pieces for one recipe")
    if not 0 < len(name) <= MAX_NAME or not 0 <= recipe.size < 1 << 63:
        raise ValueError("impossible encoding or size")
    for track in tracks:
        _check_track(track)
    totals = [recipe.literals.size, recipe.payloads.size]
    if [int(weave[:, 0].sum()), int(weave[:, 1].sum())] != totals or np.any(weave >= 1 << 62):
        raise ValueError("weave and tracks differ in size")
    if recipe.encoding == "identity" and recipe.size != sum(totals):
        raise ValueError("size is not that of the tracks")

    digests = np.concatenate((recipe.literals.digests, recipe.payloads.digests)).reshape(-1, 32)
    lengths = np.concatenate((recipe.literals.lengths, recipe.payloads.lengths)).astype(np.uint64)
    repeats = np.concatenate((recipe.literals.repeats, recipe.payloads.repeats)).astype(np.uint64)
    firsts, back = _distinct(digests)
    if np.any(lengths[firsts][_resolve(back, len(firsts), "recipe")] != lengths):
        raise ValueError("one digest with two lengths")
    counts = _payload_counts(weave[:, 1], recipe.payloads)
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
        len(recipe.literals.digests),
        len(recipe.payloads.digests),
        len(firsts),
    )
    record = b"".join((header, name, np.ascontiguousarray(digests[firsts]).tobytes(), body, recipe.trace))
    return record + checksum(record)


def decode(data: Buffer, what: str = "recipe") -> Recipe:
    """The recipe in one whole record. Damaged: any byte differs from what was written, or the parts contradict each
    other. Memory is bounded by `len(data)` and MAX_ROWS, whatever the record claims."""
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
    if max(rows, literals, payloads) > MAX_ROWS or distinct > entries or trace_length > MAX_TRACE:
        raise Damaged("recipe claims more than any that is written", what=what)
    if not 0 < name_length <= MAX_NAME or at + 32 * distinct + trace_length > len(view):
        raise Damaged("recipe ends early", what=what)
    digests = np.frombuffer(view, np.uint8, 32 * distinct, at).reshape(distinct, 32)
    try:
        encoding = bytes(view[_HEADER.size : at]).decode()
    except UnicodeDecodeError:
        raise Damaged("recipe with an impossible encoding", what=what) from None
    (literal_rows, counts, back, lengths, repeats), end = decode_columns(
        view, at + 32 * distinct, [rows, rows, entries, distinct, entries], what, 8 * 8 * MAX_ROWS
    )
    if end + trace_length != len(view):
        raise Damaged("recipe contradicts itself", what=what)
    if distinct and not 1 <= int(lengths.min()) <= int(lengths.max()) <= MAX_CHUNK:
        raise Damaged("chunk of impossible length", what=what)
    if entries and not 1 <= int(repeats.min()) <= int(repeats.max()) < 1 << 32:
        raise Damaged("impossible repeat count", what=what)
    which = _resolve(back, distinct, what)
    tracks = [
        ChunkList(digests[part], lengths[part].astype(np.uint32), repeats[own].astype(np.uint32))
        for own in (slice(0, literals), slice(literals, None))
        for part in (which[own],)
    ]
    totals = [_track_size(track, what) for track in tracks]
    weave = np.empty((rows, 2), np.uint64)
    weave[:, 1] = _payload_bytes(counts, tracks[1], what)
    signed = _unzigzag(literal_rows)
    if rows and not -512 <= int(signed.min()) <= int(signed.max()) < 1 << 62:
        raise Damaged("recipe with an impossible row", what=what)
    rows_of_literals = signed + _padding(weave[:, 1])
    if rows and int(rows_of_literals.min()) < 0:
        raise Damaged("recipe with an impossible row", what=what)
    weave[:, 0] = rows_of_literals.astype(np.uint64)
    if rows and float(weave[:, 0].astype(np.float64).sum()) >= 2.0**63:
        raise Damaged("recipe with an impossible row", what=what)
    if [int(weave[:, 0].sum()), int(weave[:, 1].sum())] != totals:
        raise Damaged("recipe contradicts itself", what=what)
    if size >= 1 << 63 or (encoding == "identity" and size != sum(totals)):
        raise Damaged("recipe of another size than it claims", what=what)
    return Recipe(size, weave, tracks[0], tracks[1], encoding, bytes(view[end:]))


def _check_track(track: ChunkList) -> None:
    if not len(track.digests) == len(track.lengths) == len(track.repeats):
        raise ValueError("columns of different length")
    if len(track.lengths) and not 1 <= int(track.lengths.min()) <= int(track.lengths.max()) <= MAX_CHUNK:
        raise ValueError("chunk of impossible length")
    if len(track.repeats) and int(track.repeats.min()) < 1:
        raise ValueError("impossible repeat count")


def _track_size(track: ChunkList, what: str) -> int:
    """As ChunkList.size, for one that may be hostile: its sum must not wrap."""
    if float(np.dot(track.lengths.astype(np.float64), track.repeats.astype(np.float64))) >= 2.0**62:
        raise Damaged("recipe of impossible size", what=what)
    return track.size


def _distinct(digests: U8) -> tuple[NDArray[np.int64], U64]:
    """(entries that bring a digest for the first time, for each entry 0 if it is one of these, else 1 + how many
    distinct digests ago the same was)."""
    rows = np.ascontiguousarray(digests).view("V32").reshape(-1)
    _, first, inverse = np.unique(rows, return_index=True, return_inverse=True)
    firsts = np.sort(first)
    ordinal = np.searchsorted(firsts, first)[inverse.reshape(-1)]
    seen = np.cumsum(np.isin(np.arange(len(rows)), firsts, assume_unique=True))
    back = (seen - ordinal).astype(np.uint64)
    back[firsts] = 0
    return firsts, back


def _resolve(back: U64, distinct: int, what: str) -> NDArray[np.int64]:
    """Which distinct digest each entry has. Undoes `_distinct`."""
    fresh = back == 0
    seen = np.cumsum(fresh)
    if (int(seen[-1]) if len(seen) else 0) != distinct or np.any(back > seen.astype(np.uint64)):
        raise Damaged("recipe refers to a digest that it does not have", what=what)
    return np.where(fresh, seen - 1, seen - back.astype(np.int64))


def _payload_counts(row_bytes: U64, track: ChunkList) -> U64:
    """How many chunks, repeats counted, each row's payload has. ValueError: a row ends inside a chunk."""
    lengths = track.lengths.astype(np.uint64)
    repeats = track.repeats.astype(np.uint64)
    ends = np.cumsum(lengths * repeats)
    marks = np.cumsum(row_bytes)
    entry = np.searchsorted(ends, marks)  # the entry in which, or at whose end, each row ends
    if not len(ends):
        return np.zeros(len(row_bytes), np.uint64)
    inside = marks - (ends - lengths * repeats)[entry] if len(marks) else marks
    if np.any(inside % lengths[entry]):
        raise ValueError("a row of the weave ends inside a chunk")
    chunks = (np.cumsum(repeats) - repeats)[entry] + inside // lengths[entry]
    return np.diff(chunks, prepend=np.uint64(0))


def _payload_bytes(counts: U64, track: ChunkList, what: str) -> U64:
    """Undoes `_payload_counts`."""
    repeats = track.repeats.astype(np.uint64)
    lengths = track.lengths.astype(np.uint64)
    ends = np.cumsum(repeats)
    total = int(ends[-1]) if len(ends) else 0
    if len(counts) and int(counts.max()) > total:
        raise Damaged("recipe row outside of its payload", what=what)
    marks = np.cumsum(counts)
    if len(marks) and (int(marks[-1]) != total or float(counts.astype(np.float64).sum()) >= 2.0**63):
        raise Damaged("recipe rows do not fill its payload", what=what)
    if not len(ends):
        return np.zeros(len(counts), np.uint64)
    entry = np.searchsorted(ends, marks)
    begins = np.cumsum(lengths * repeats) - lengths * repeats
    places = begins[entry] + (marks - (ends - repeats)[entry]) * lengths[entry]
    return np.diff(places, prepend=np.uint64(0))


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
