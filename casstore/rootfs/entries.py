"""The entries of one layer as they may be applied: strict where storing a layer is lenient.

A layer is stored whatever is in it; to apply it, every block must be what it claims. What is refused is BadInput that
names the layer, the entry and the offset in the uncompressed layer. Rules: BEHAVIOUR §5; OCI image-spec, layer.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Protocol

from ..errors import BadInput, LimitExceeded
from ..kernels.tarscan import Entry
from .node import BLOCK, CHARACTER, FIFO, FILE, FOLDER, SYMLINK, Extents, Node

_BLOCK = 512
MAX_PATH = 4096
MAX_NAME = 255
MAX_MAP = 1 << 20
"""Bytes of a sparse file's map (CVE-2025-58183)."""
MAX_XATTR = 1 << 16
"""Bytes of an extended attribute, as Linux has it."""
MAX_ID = (1 << 32) - 2
"""The last number that an owner may have: the one after it means "leave it"."""
_KINDS = {b"0": FILE, b"7": FILE, b"S": FILE, b"1": FILE}
_KINDS |= {one: one for one in (SYMLINK, CHARACTER, BLOCK, FOLDER, FIFO)}
VOLUME = b"V"
"""A volume's label: no file."""
_OVERLAY = re.compile(rb"(trusted|user)\.overlay\.")
"""Attributes by which a layer would forge whiteouts for the file system that it is unpacked on."""
_XATTR = b"SCHILY.xattr."


class LayerContent(Protocol):
    """One layer, uncompressed: its entries, and its bytes."""

    what: str
    size: int
    ended: bool
    missing: int
    entries: Sequence[Entry]

    def read(self, start: int, end: int) -> bytes: ...


def shown(name: bytes) -> str:
    """A path for the eye: one line, whatever its bytes."""
    text = name.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def refuse(content: LayerContent, entry: Entry, why: str) -> BadInput:
    """The error that names an entry."""
    return BadInput(f"{shown(entry.name)}: {why}", what=content.what, offset=entry.header)


def strict(content: LayerContent) -> Iterator[Entry]:
    """The entries, in order; BadInput as soon as what lies between two of them is not what may lie there."""
    at = 0
    for entry in content.entries:
        if entry.header != at:
            _only_globals(content, at, entry.header)
        if entry.data - entry.header > (1 << 20) + 2 * _BLOCK and entry.type != b"S":
            raise refuse(content, entry, "an extended header of more than 1 MiB")
        at = entry.data + (entry.stored + _BLOCK - 1) // _BLOCK * _BLOCK
        yield entry
    if content.missing or content.size < at:
        raise BadInput("unexpected EOF", what=content.what, offset=content.size)
    _end(content, at)


def _only_globals(content: LayerContent, at: int, end: int) -> None:
    """Global extended headers have no effect; nothing else may stand between entries."""
    while at < end:
        at = _after_global(content, at, content.read(at, min(at + _BLOCK, end)))
    if at != end:
        raise BadInput("invalid tar header", what=content.what, offset=at)


def _end(content: LayerContent, at: int) -> None:
    """After the last entry: nothing, zero blocks, or global headers and then these."""
    while at < content.size:
        block = content.read(at, min(at + _BLOCK, content.size))
        if len(block) < _BLOCK:
            raise BadInput("unexpected EOF", what=content.what, offset=at)
        if not any(block):
            rest = content.read(at + _BLOCK, min(at + 2 * _BLOCK, content.size))
            if any(rest):
                raise BadInput("invalid tar header", what=content.what, offset=at + _BLOCK)
            return
        at = _after_global(content, at, block)
    if at > content.size:
        raise BadInput("unexpected EOF", what=content.what, offset=content.size)


def _after_global(content: LayerContent, at: int, block: bytes) -> int:
    """Where what follows a global header begins; BadInput where the block is none."""
    size = number(block[124:136]) if len(block) == _BLOCK else None
    if size is None or size < 0 or block[156:157] != b"g" or not _checksum_ok(block):
        raise BadInput("invalid tar header", what=content.what, offset=at)
    return at + _BLOCK + (size + _BLOCK - 1) // _BLOCK * _BLOCK


def _checksum_ok(block: bytes) -> bool:
    rest = block[:148] + b" " * 8 + block[156:]
    # Historic tars summed signed bytes.
    return number(block[148:156]) in (sum(rest), sum(rest) - 256 * sum(byte > 127 for byte in rest))


def number(field: bytes) -> int | None:
    """A number of a tar header, octal or base-256; None where it is none."""
    if field[0] & 0x80:
        bits = len(field) * 8 - 1
        value = int.from_bytes(field, "big") & ((1 << bits) - 1)
        return value - (1 << bits) if field[0] & 0x40 else value
    digits = field.strip(b" \0").partition(b"\0")[0].partition(b" ")[0]
    if digits.strip(b"01234567"):
        return None
    return int(digits or b"0", 8)


def normal(name: bytes) -> bytes:
    """A path without `.`, `..` and needless slashes; what would lead above the root ends there. Empty: the root."""
    path = name.removeprefix(b"./").strip(b"/")
    if path and b"//" not in path and b"./" not in path and path[-1] != 46:
        return path
    found: list[bytes] = []
    for one in path.split(b"/"):
        if one == b"..":
            if found:
                found.pop()
        elif one not in (b"", b"."):
            found.append(one)
    return b"/".join(found)


def check_names(content: LayerContent, entry: Entry) -> None:
    """BadInput for names that no file system takes."""
    if b"\0" in entry.name or b"\0" in entry.link:
        raise refuse(content, entry, "invalid tar header: a name with a zero byte")
    if len(entry.name) > MAX_NAME and (
        len(entry.name) > MAX_PATH or max(map(len, normal(entry.name).split(b"/"))) > MAX_NAME
    ):
        raise refuse(content, entry, "file name too long")
    if len(entry.link) >= MAX_PATH:
        raise refuse(content, entry, "link target too long")


def node_of(content: LayerContent, entry: Entry, layer: int) -> Node:
    """The node that an entry describes (of a hard link: one that is not used)."""
    _, form, mode, uid, gid, mtime, size, link, _, data, stored, pax = entry
    kind = _KINDS.get(form)
    if kind is None:
        raise refuse(content, entry, f"unhandled tar header type {form[0]}")
    if mode < 0:
        raise refuse(content, entry, "invalid tar header: the mode is no number")
    if not (0 <= uid <= MAX_ID and 0 <= gid <= MAX_ID):
        raise refuse(content, entry, f"owner out of range ({uid}:{gid})")
    node = Node(kind, mode & 0o7777, uid, gid, mtime, layer)
    if kind == FILE:
        node.size, node.data = size, data
        if form == b"S" or pax:
            _take_map(content, entry, node)
        if node.extents is None and size != stored:
            raise refuse(content, entry, "a sparse file without a map")
    elif kind == SYMLINK:
        if not link:
            raise refuse(content, entry, "a symlink to nothing")
        node.link = link
    elif kind in (CHARACTER, BLOCK):
        block = content.read(data - _BLOCK, data)
        major, minor = number(block[329:337]), number(block[337:345])
        if major is None or minor is None or not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
            raise refuse(content, entry, "device number out of range")
        if kind == CHARACTER and (major, minor) == (0, 0):
            raise refuse(content, entry, "a device 0:0 would be a whiteout of the file system")
        node.device = major, minor
    if entry.pax:
        _take_xattrs(content, entry, node, entry.pax)
    return node


def _take_xattrs(content: LayerContent, entry: Entry, node: Node, pax: dict[bytes, bytes]) -> None:
    found: dict[bytes, bytes] = {}
    for key, value in pax.items():
        if key.startswith(_XATTR):
            name = key[len(_XATTR) :]
            if not 0 < len(name) <= MAX_NAME or b"\0" in name or len(value) > MAX_XATTR:
                raise refuse(content, entry, f"an attribute that no file can have ({shown(name[:40])})")
            if not _OVERLAY.match(name):
                found[name] = value
    if found:
        node.xattrs = found


def _take_map(content: LayerContent, entry: Entry, node: Node) -> None:
    """Of a sparse file, what is where."""
    if entry.type == b"S":
        node.extents = _old_map(content, entry)
    elif entry.pax and any(key.startswith(b"GNU.sparse.") for key in entry.pax):
        node.extents, node.data = _pax_map(content, entry)
    if node.extents is None:
        return
    at = 0
    for offset, length in node.extents or ():
        if offset < at or length < 0 or offset + length > node.size:
            raise refuse(content, entry, "invalid sparse map")
        at = offset + length
    if node.data - entry.data + node.stored != entry.stored:
        raise refuse(content, entry, "invalid sparse map: it does not cover what the archive holds")
    node.extents = tuple(one for one in node.extents if one[1])  # some end with an empty one


def _pairs(content: LayerContent, entry: Entry, numbers: Sequence[int]) -> Extents:
    if len(numbers) % 2:
        raise refuse(content, entry, "invalid sparse map")
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def _decimals(content: LayerContent, entry: Entry, fields: Sequence[bytes]) -> list[int]:
    if any(not one.isdigit() or len(one) > 19 for one in fields):
        raise refuse(content, entry, "invalid sparse map")
    return [int(one) for one in fields]


def _pax_map(content: LayerContent, entry: Entry) -> tuple[Extents | None, int]:
    """The map of GNU's sparse formats 0.0, 0.1 (in the header) and 1.0 (before the data), and where the data begins.
    GNU tar manual, "Storing Sparse Files"."""
    pax = entry.pax or {}
    version = pax.get(b"GNU.sparse.major", b""), pax.get(b"GNU.sparse.minor", b"")
    if version == (b"1", b"0"):
        return _map_before_data(content, entry)
    if b"GNU.sparse.map" not in pax or version not in ((b"", b""), (b"0", b"0"), (b"0", b"1")):
        return None, entry.data
    text = pax[b"GNU.sparse.map"]
    fields = [one for one in text.split(b",") if one]
    return _pairs(content, entry, _decimals(content, entry, fields)), entry.data


def _map_before_data(content: LayerContent, entry: Entry) -> tuple[Extents, int]:
    text = b""
    limit = min(MAX_MAP, entry.stored)
    wanted: int | None = None
    while True:
        lines = text.split(b"\n")
        if wanted is None and len(lines) > 1:
            wanted = 1 + 2 * _decimals(content, entry, lines[:1])[0]
        if wanted is not None and len(lines) > wanted:
            numbers = _decimals(content, entry, lines[1:wanted])
            return _pairs(content, entry, numbers), entry.data + len(text)
        if len(text) >= limit:
            if limit == MAX_MAP:
                raise LimitExceeded(
                    f"{shown(entry.name)}: a sparse map of more than 1 MiB", what=content.what, offset=entry.header
                )
            raise refuse(content, entry, "invalid sparse map")
        # As many blocks as the map is sure to have: a number and its newline take at least two bytes each.
        least = _BLOCK if wanted is None else max(_BLOCK, 2 * (wanted - len(lines)) // _BLOCK * _BLOCK)
        text += content.read(entry.data + len(text), entry.data + min(len(text) + least, limit))


def _old_map(content: LayerContent, entry: Entry) -> Extents:
    """The map of an old GNU sparse header and of the blocks that extend it."""
    raw = content.read(max(entry.header, entry.data - MAX_MAP), entry.data)
    if entry.data - entry.header > MAX_MAP:
        raise LimitExceeded(
            f"{shown(entry.name)}: a sparse map of more than 1 MiB", what=content.what, offset=entry.header
        )
    at = 0
    while raw[at + 156 : at + 157] in (b"x", b"X", b"g", b"L", b"K"):
        size = number(raw[at + 124 : at + 136]) or 0
        at += _BLOCK + (size + _BLOCK - 1) // _BLOCK * _BLOCK
    tables = [raw[at + 386 : at + 482]]
    for block in range(at + _BLOCK, len(raw), _BLOCK):
        tables.append(raw[block : block + 504])
    found: list[tuple[int, int]] = []
    for table in tables:
        for place in range(0, len(table) - 23, 24):
            fields = table[place : place + 12], table[place + 12 : place + 24]
            if not any(fields[0] + fields[1]):
                break
            offset, length = (number(one) for one in fields)
            if offset is None or length is None:
                raise refuse(content, entry, "invalid sparse map")
            found.append((offset, length))
    return tuple(found)
