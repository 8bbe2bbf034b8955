"""The pure-Python twin of `_native/tarscan.c`, its oracle: the same results from other code."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from ..model import U8, U64, Buffer
from ._arrays import octets

IMPLEMENTATION = "python"

_BLOCK = 512
_EXTENDED_MAX = 1 << 20
_INT64_MAX = (1 << 63) - 1
_SECOND = 1_000_000_000
_SECONDS_MAX = _INT64_MAX // _SECOND - 1
_RECORD = re.compile(rb"([0-9]{1,9}) ")
_OCTAL = re.compile(rb"[ \0]*+([0-7]*)(?:[ \0]|\Z)")
_TIME = re.compile(rb"(-?)([0-9]+)(?:\.([0-9]*))?")


class Segments(NamedTuple):
    """Runs of bytes of one kind, in order; all arrays are (n,), and `lengths` sums up to what was fed.

    `payload` is 1 for a run of bytes of a payload, 0 for literal ones. `totals` is the size that the
    payload's header claims, on each of its runs, and `last` is 1 on the run that ends it; both are 0 for
    literals. No two literals of one call are neighbours."""

    payload: U8
    lengths: U64
    totals: U64
    last: U8


class Entry(NamedTuple):
    """One entry of the archive, known when its headers are.

    Nothing here is safe: names may be absolute, hold `..` or NULs. `type` is the header's, but NUL (v7)
    becomes `0`, or `5` where the name ends in a slash. `size` is the file's, `stored` what the archive
    holds of it (they differ when sparse). `mode`, `uid`, `gid` are −1 where they are no numbers;
    `mtime_ns` counts from 1970, clamped to 64 bits. `header` and `data` are offsets in the stream: of its
    first block, extended headers included, and of its payload. `pax`: the records of its own extended
    header, None without one."""

    name: bytes
    type: bytes
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    link: bytes
    header: int
    data: int
    stored: int
    pax: dict[bytes, bytes] | None


def parse_pax(data: bytes) -> dict[bytes, bytes]:
    """The records of a PAX extended header, up to the first that is none. Of equal keys the last counts; but
    the offsets and lengths of sparse format 0.0, repeated by design, are joined as its successor's
    GNU.sparse.map."""
    records: dict[bytes, bytes] = {}
    sparse: list[bytes] = []
    at = 0
    while found := _RECORD.match(data, at):
        end = at + int(found[1])
        record = data[found.end() : end]
        key, equals, value = record[:-1].partition(b"=")
        if end > len(data) or end <= found.end() or record[-1:] != b"\n" or not equals or not key:
            break
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            sparse.append(value)
        records[key] = value
        at = end
    if sparse:
        records.setdefault(b"GNU.sparse.map", b",".join(sparse))
    return records


def _octal(field: bytes) -> int | None:
    found = _OCTAL.match(field)
    return int(found[1] or b"0", 8) if found else None


def number(field: bytes) -> int | None:
    """A number of a tar header, octal or base-256; None where it is none, or beyond 64 bits."""
    if not field[0] & 0x80:
        return _octal(field)
    bits = len(field) * 8 - 1
    value = int.from_bytes(field, "big") & ((1 << bits) - 1)
    if field[0] & 0x40:
        value -= 1 << bits
    return value if -_INT64_MAX - 1 <= value <= _INT64_MAX else None


def _decimal(value: bytes) -> int | None:
    digits = value.lstrip(b"0")
    if not re.fullmatch(rb"[0-9]+", value) or len(digits) > 19:
        return None
    number = int(digits or b"0")
    return number if number <= _INT64_MAX else None


def _identity(value: bytes) -> int:
    number = _decimal(value.removeprefix(b"-"))
    if number is None:
        return -1
    return -number if value.startswith(b"-") else number


def _time(value: bytes) -> int | None:
    found = _TIME.fullmatch(value)
    if not found:
        return None
    digits = found[2].lstrip(b"0")
    seconds = int(digits or b"0") if len(digits) < 20 else _INT64_MAX
    negative = bool(found[1])
    if seconds > _SECONDS_MAX:
        return -_INT64_MAX - 1 if negative else _INT64_MAX
    ns = seconds * _SECOND + int((found[3] or b"")[:9].ljust(9, b"0"))
    return -ns if negative else ns


def _text(field: bytes | bytearray) -> bytes:
    return bytes(field).partition(b"\0")[0]


def checksum_ok(block: bytes) -> bool:
    """Is this block's checksum what it says, summed as unsigned bytes or, as by historic tars, signed ones?"""
    claimed = _octal(block[148:156])
    summed = np.frombuffer(block[:148] + b"        " + block[156:], np.uint8)
    return bool(claimed) and claimed in (int(summed.sum()), int(summed.view(np.int8).sum()))


def _header_name(block: bytes) -> bytes:
    name = _text(block[:100])
    if block[257:263] == b"ustar\0":
        prefix = _text(block[345 : 476 if block[508:511] == b"tar" else 500])
        if prefix:
            return prefix + b"/" + name
    return name


def _is_pax_sparse(pax: dict[bytes, bytes]) -> bool:
    version = pax.get(b"GNU.sparse.major", b""), pax.get(b"GNU.sparse.minor", b"")
    return version in ((b"0", b"0"), (b"0", b"1"), (b"1", b"0")) or (version == (b"", b"") and b"GNU.sparse.map" in pax)


class Scanner:
    """One scan of one stream, used by one thread at a time. `entries`: keep them, until `pop_entries`.

    - `position`: bytes seen.
    - `payload_left`: bytes of the current payload, padding apart, still to come.
    - `content_size`: Docker's SIZE by the headers seen: Σ sizes of regular files (sparse ones at their real
      size) and lengths of symlinks' targets; whiteouts, hard links and devices are 0. At most 2⁶³−1.
    - `files`: regular files seen, whiteouts apart.
    - `ended`: two zero blocks were seen, the archive's end. What follows is split alike, but neither counted
      nor listed: Docker does not read it.
    """

    def __init__(self, entries: bool = False) -> None:
        self.position = 0
        self.payload_left = 0
        self.content_size = 0
        self.files = 0
        self.ended = False
        self._finished = False
        self._entries: list[Entry] | None = [] if entries else None
        self._block = bytearray()
        self._in_extensions = False  # the next block extends an old GNU sparse header
        self._half: Entry | None = None  # that header's entry
        self._literal = 0  # bytes to come that are literal whatever they are
        self._extended = 0  # of them, those of an extended header's data
        self._kind = b""  # that header's type
        self._kept: dict[bytes, bytearray] = {}  # by type, the extended headers of the next entry
        self._first: int | None = None  # offset of the first of them
        self._total = 0  # of the current payload
        self._zeros = 0  # zero blocks in a row

    def feed(self, buf: Buffer) -> Segments:
        """The segments of exactly these bytes. Never fails on content; ValueError after `finish`."""
        if self._finished:
            raise ValueError("the scanner is finished")
        view = octets(buf)
        rows: list[list[int]] = []
        at = 0
        while at < len(view):
            rest = len(view) - at
            if self.payload_left:
                step = min(rest, self.payload_left)
                self.skip(step)
                rows.append([1, step, self._total, int(not self.payload_left)])
            else:
                step = self._literal_step(view[at:])
                if rows and not rows[-1][0]:
                    rows[-1][1] += step
                else:
                    rows.append([0, step, 0, 0])
            at += step
        table = np.array(rows, np.uint64).reshape(len(rows), 4)
        columns = [np.ascontiguousarray(table[:, i]) for i in range(4)]
        return Segments(columns[0].astype(np.uint8), columns[1], columns[2], columns[3].astype(np.uint8))

    def skip(self, n: int) -> None:
        """Go on by `n` bytes of the current payload without them. ValueError if it has not so many left."""
        if not 0 <= n <= self.payload_left:
            raise ValueError("skip goes beyond the payload")
        if self._finished:
            raise ValueError("the scanner is finished")
        self.position += n
        self.payload_left -= n
        if n and not self.payload_left:
            self._literal = -self._total % _BLOCK

    def follow(self, buf: Buffer, lengths: U64) -> None:
        """Feed and skip in turn, for a stream whose segments are known: row i of `lengths`, (n, 2), is how many of the
        bytes of `buf` come next, and how many of a payload are passed over after them. ValueError where these are not
        all of `buf`, or where no payload of that size is."""
        view = octets(buf)
        at = 0
        for fed, skipped in lengths.tolist():
            if fed > len(view) - at:
                raise ValueError("the lengths reach beyond the buffer")
            self.feed(view[at : at + fed])
            at += fed
            self.skip(skipped)
        if at != len(view):
            raise ValueError("the lengths do not cover the buffer")

    def finish(self) -> None:
        """The stream has ended. A payload cut short is one whose `last` piece never came."""
        self._finished = True

    def pop_entries(self) -> list[Entry]:
        """The entries completed since the last call, in order (none unless asked for)."""
        found, self._entries = self._entries or [], None if self._entries is None else []
        return found

    def _literal_step(self, view: memoryview) -> int:
        """Take the literal bytes at the start of `view`, at most one block of them: how many."""
        if self._literal:
            step = min(len(view), self._literal)
            data = min(step, self._extended)
            if data and self._kind in self._kept:
                self._kept[self._kind] += view[:data]
            self._extended -= data
            self._literal -= step
            self.position += step
            return step
        step = min(len(view), _BLOCK - len(self._block))
        self._block += view[:step]
        self.position += step
        if len(self._block) == _BLOCK:
            block = bytes(self._block)
            self._block.clear()
            self._take_block(block, self.position - _BLOCK)
        return step

    def _take_block(self, block: bytes, at: int) -> None:
        """A whole block where a header may be."""
        if self._in_extensions:
            if self._half is not None:
                self._half = self._half._replace(data=at + _BLOCK)
            if not block[504]:
                self._in_extensions = False
                self._begin_payload(self._half)
            return
        size = number(block[124:136])
        if size is None or size < 0 or not checksum_ok(block):
            self._forget()
            self._zeros = 0 if any(block) else self._zeros + 1
            self.ended = self.ended or self._zeros == 2
            return
        self._zeros = 0
        kind = block[156:157]
        if kind in (b"x", b"X", b"g", b"L", b"K"):
            self._take_extended(kind, at, size)
        else:
            self._take_entry(block, at, size)

    def _forget(self) -> None:
        self._kept.clear()
        self._first = None

    def _take_extended(self, kind: bytes, at: int, size: int) -> None:
        self._kind = kind.lower() if kind == b"X" else kind
        self._literal = size + -size % _BLOCK
        self._extended = size
        if kind == b"g":
            return
        if self._first is None:
            self._first = at
        self._kept.pop(self._kind, None)
        if size <= _EXTENDED_MAX:
            self._kept[self._kind] = bytearray()

    def _take_entry(self, block: bytes, at: int, size: int) -> None:
        raw = self._kept.get(b"x")
        records = None if raw is None else parse_pax(bytes(raw))
        pax = records or {}
        sparse = _is_pax_sparse(pax)
        name = (
            (sparse and pax.get(b"GNU.sparse.name"))
            or _text(self._kept.get(b"L", b""))
            or pax.get(b"path")
            or _header_name(block)
        )
        link = _text(self._kept.get(b"K", b"")) or pax.get(b"linkpath") or _text(block[157:257])
        kind = block[156:157]
        if kind == b"\0":
            kind = b"5" if name.endswith(b"/") else b"0"
        regular = kind in (b"0", b"7", b"S")

        override = _decimal(pax.get(b"size", b""))
        size = size if override is None else override
        if kind in (b"1", b"2", b"3", b"4", b"5", b"6"):
            size = 0
        claims: list[int | None] = []
        if kind == b"S":
            claims = [number(block[483:495])]
        elif regular and sparse:
            claims = [_decimal(pax.get(b"GNU.sparse." + key, b"")) for key in (b"size", b"realsize")]
        real = next((claim for claim in claims if claim is not None and claim >= 0), size)

        if not self.ended and not name.rpartition(b"/")[2].startswith(b".wh."):
            self.files += regular
            content = real if regular else len(link) if kind == b"2" else 0
            self.content_size = min(self.content_size + content, _INT64_MAX)
        entry = None
        if self._entries is not None and not self.ended:
            entry = self._entry(block, pax)._replace(
                name=name,
                type=kind,
                size=real,
                link=link,
                header=at if self._first is None else self._first,
                data=at + _BLOCK,
                stored=size,
                pax=records,
            )
        self._forget()
        self._total = size
        if kind == b"S" and block[482]:
            self._in_extensions, self._half = True, entry
        else:
            self._begin_payload(entry)

    def _entry(self, block: bytes, pax: dict[bytes, bytes]) -> Entry:
        """An Entry of mode, owner and time; the rest is for the caller to fill in."""

        def identity(keyword: bytes, field: bytes) -> int:
            if pax.get(keyword):
                return _identity(pax[keyword])
            value = number(field)
            return -1 if value is None else value

        mtime = _time(pax.get(b"mtime", b""))
        if mtime is None:
            seconds = number(block[136:148]) or 0
            mtime = seconds * _SECOND
            if abs(seconds) > _SECONDS_MAX:
                mtime = _INT64_MAX if seconds > 0 else -_INT64_MAX - 1
        mode = identity(b"", block[100:108])
        uid, gid = identity(b"uid", block[108:116]), identity(b"gid", block[116:124])
        return Entry(b"", b"", mode, uid, gid, mtime, 0, b"", 0, 0, 0, None)

    def _begin_payload(self, entry: Entry | None) -> None:
        if entry is not None and self._entries is not None:
            self._entries.append(entry)
        self._half = None
        self.payload_left = self._total
