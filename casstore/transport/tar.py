"""Headers of the tar that an archive is: read strictly, written the one way that gives the same bytes at each run.

Strict, because this tar only carries files that must be found by name: unlike a layer, which is kept whatever it holds,
an archive that two readers could unpack in two ways is refused. Source: POSIX pax, GNU tar's manual.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from ..errors import BadInput, LimitExceeded

BLOCK = 512
MAX_EXTENSION = 1 << 20
"""Largest extended header (PAX records, GNU long name), bytes."""
MAX_EXTENSIONS = 64 << 20
"""All extended headers of one archive together, bytes."""
MAX_NAME = 4096

FILE, HARD_LINK, SYMLINK, FOLDER, OTHER = "file", "hard link", "symlink", "folder", "other"

_KINDS = {
    b"0": FILE,
    b"\0": FILE,
    b"7": FILE,
    b"S": FILE,
    b"1": HARD_LINK,
    b"2": SYMLINK,
    b"5": FOLDER,
    b"3": OTHER,
    b"4": OTHER,
    b"6": OTHER,
    b"V": OTHER,
}
_PAX_KEYS = frozenset({b"path", b"linkpath", b"size", b"GNU.sparse.name"})
_SPARSE, _SPARSE_NAME = "GNU.sparse", "GNU.sparse.name"
_MAX_OCTAL = 8**11 - 1
_MAX_EXTENSIONS = 64


class Header(NamedTuple):
    """One member. Names are text with undecodable bytes escaped. `size` are the bytes that lie in the archive at
    offset `data`; `sparse`: they are not the file's content, but a map and pieces of it."""

    name: str
    kind: str
    size: int
    link: str
    sparse: bool
    start: int
    data: int


class Cursor(Protocol):
    """Bytes of an archive, read forward."""

    position: int

    def read(self, length: int) -> bytes:
        """Up to `length` bytes; fewer only at the end."""
        ...

    def skip(self, length: int) -> None:
        """Pass over `length` bytes; BadInput "unexpected EOF" if the archive is shorter."""
        ...


def walk(cursor: Cursor, what: str) -> Iterator[Header]:
    """The members in order. Between two, the caller may read the payload through the cursor, up to `size` bytes.

    BadInput with an offset: broken header, archive that ends inside a member.
    """
    extended: dict[str, str] = {}
    extensions = extension_bytes = 0
    start = cursor.position
    while True:
        at = cursor.position
        block = cursor.read(BLOCK)
        if not block and not extended:
            return
        if len(block) < BLOCK:
            raise BadInput("unexpected EOF", what=what, offset=at + len(block))
        if not any(block):
            _check_end(cursor, what, at)
            return
        kind, size = _check(block, what, at)
        if kind in (b"x", b"L", b"K", b"g"):
            extensions += 1
            extension_bytes += size
            too_many = extensions > _MAX_EXTENSIONS or extension_bytes > MAX_EXTENSIONS
            if size > MAX_EXTENSION or too_many:
                raise LimitExceeded("extended tar header too large", what=what, offset=at)
            payload = cursor.read(size)
            if len(payload) < size:
                raise BadInput("unexpected EOF", what=what, offset=cursor.position)
            cursor.skip(-size % BLOCK)
            if kind == b"x":
                extended |= _pax(payload, what, at)
            elif kind != b"g":
                extended["path" if kind == b"L" else "linkpath"] = _text(payload.rstrip(b"\0"))
            continue
        header = _header(block, kind, size, extended, what, start, cursor)
        yield header
        cursor.skip(header.data + header.size + -header.size % BLOCK - cursor.position)
        extended, extensions, start = {}, 0, cursor.position


def _header(
    block: bytes, kind: bytes, size: int, extended: dict[str, str], what: str, start: int, cursor: Cursor
) -> Header:
    name = extended.get(_SPARSE_NAME) or extended.get("path")
    if name is None:
        name = _text(block[:100].split(b"\0", 1)[0])
        if block[257:263] == b"ustar\0" and (prefix := _text(block[345:500].split(b"\0", 1)[0])):
            name = f"{prefix}/{name}"
    link = extended.get("linkpath")
    if link is None:
        link = _text(block[157:257].split(b"\0", 1)[0])
    if len(name) > MAX_NAME or len(link) > MAX_NAME:
        raise LimitExceeded(f"path is longer than {MAX_NAME}", what=what, offset=start)
    if "size" in extended:
        size = _decimal(extended["size"], what, start)
    sparse = kind == b"S" or _SPARSE in extended or _SPARSE_NAME in extended
    if kind == b"S" and block[482]:
        while (more := cursor.read(BLOCK)) and len(more) == BLOCK and more[504]:
            pass
    meant = _KINDS.get(kind)
    if meant is None:
        raise BadInput(f"unhandled tar header type {kind[0]}", what=what, offset=start)
    if meant == FILE and kind == b"\0" and name.endswith("/"):
        meant = FOLDER
    if size and meant in (HARD_LINK, SYMLINK, FOLDER):
        raise BadInput(f"invalid tar header: a {meant} with data", what=what, offset=start)
    return Header(name, meant, size, link, sparse, start, cursor.position)


def _check(block: bytes, what: str, at: int) -> tuple[bytes, int]:
    """(type, size) of a header whose checksum holds."""
    said = _number(block[148:156])
    summed = block[:148] + block[156:]
    plain = sum(summed) + 8 * 32
    right = said == plain or said == plain - 256 * sum(byte > 127 for byte in summed)
    size = _number(block[124:136])
    if not right or size is None or size < 0:
        raise BadInput("invalid tar header", what=what, offset=at)
    return block[156:157], size


def _check_end(cursor: Cursor, what: str, at: int) -> None:
    second = cursor.read(BLOCK)
    if any(second):
        raise BadInput("invalid tar header: one zero block only", what=what, offset=at)


def _number(raw: bytes) -> int | None:
    """Octal text or base-256; None where it is neither."""
    if raw[0] in (0x80, 0xFF):
        value = int.from_bytes(raw[1:], "big")
        return value if raw[0] == 0x80 else value - (1 << 8 * (len(raw) - 1))
    digits = raw.split(b"\0", 1)[0].strip(b" ")
    if not digits:
        return 0
    return int(digits, 8) if all(0x30 <= digit < 0x38 for digit in digits) else None


def _decimal(text: str, what: str, at: int) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise BadInput("invalid tar header: PAX size", what=what, offset=at)
    return int(text)


def _pax(payload: bytes, what: str, at: int) -> dict[str, str]:
    """Of `length key=value\\n` records those that matter here. (All of them could take a hundred times their bytes.)"""
    records: dict[str, str] = {}
    position = 0
    while position < len(payload):
        space = payload.find(b" ", position, position + 20)
        digits = payload[position:space]
        length = int(digits) if space > 0 and digits.isdigit() else 0
        record = payload[space + 1 : position + length]
        key, equals, value = record.partition(b"=")
        if not length or not equals or position + length > len(payload) or record[-1:] != b"\n":
            raise BadInput("invalid tar header: PAX record", what=what, offset=at)
        if b"\0" in key or (b"\0" in value and key in (b"path", b"linkpath")):
            raise BadInput("invalid tar header: NUL in a PAX record", what=what, offset=at)
        if key in _PAX_KEYS:
            records[_text(key)] = _text(value[:-1])
        elif key.startswith(b"GNU.sparse."):
            records[_SPARSE] = ""
        position += length
    return records


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def make_header(name: str, kind: str, size: int, mtime: int, link: str = "") -> bytes:
    """The USTAR header of one member, with a PAX header before it where USTAR has no room.

    Mode 0644 or 040755 with the type bits that docker writes, owner 0/0 root. `mtime`: whole seconds, clamped.
    """
    mode = {FILE: 0o100644, FOLDER: 0o040755, SYMLINK: 0o120777}[kind]
    flag = {FILE: b"0", FOLDER: b"5", SYMLINK: b"2"}[kind]
    raw, target = name.encode("utf-8", "surrogateescape"), link.encode("utf-8", "surrogateescape")
    records: dict[bytes, bytes] = {}
    prefix = b""
    if len(raw) > 100:
        cut = raw.rfind(b"/", 0, 156)
        if cut > 0 and len(raw) - cut - 1 <= 100:
            prefix, raw = raw[:cut], raw[cut + 1 :]
        else:
            records[b"path"] = raw
    if len(target) > 100:
        records[b"linkpath"] = target
    if size > _MAX_OCTAL:
        records[b"size"] = b"%d" % size
    seconds = min(max(mtime, 0), _MAX_OCTAL)
    before = b""
    if records:
        payload = b"".join(_pax_record(key, value) for key, value in sorted(records.items()))
        before = _ustar(b"PaxHeaders.0/member", 0o644, len(payload), 0, b"x", b"", b"")
        before += payload + bytes(-len(payload) % BLOCK)
    return before + _ustar(raw[:100], mode, 0 if b"size" in records else size, seconds, flag, target[:100], prefix)


def _ustar(name: bytes, mode: int, size: int, mtime: int, flag: bytes, link: bytes, prefix: bytes) -> bytes:
    head = b"%s%07o\0%07o\0%07o\0%011o\0%011o\0" % (name.ljust(100, b"\0"), mode, 0, 0, size, mtime)
    tail = flag + link.ljust(100, b"\0") + b"ustar\0" + b"00" + b"root".ljust(32, b"\0") * 2
    tail += b"%07o\0%07o\0" % (0, 0) + prefix.ljust(155, b"\0") + bytes(12)
    checksum = sum(head) + 8 * 32 + sum(tail)
    return head + b"%06o\0 " % checksum + tail


def _pax_record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + len(str(len(body)))
    length = len(body) + len(str(length))
    return b"%d" % length + body
