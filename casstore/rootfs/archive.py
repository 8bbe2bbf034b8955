"""A merged tree as one tar: PAX where ustar does not suffice, names in order, the same bytes every time.

Source: POSIX.1-2017, pax; GNU tar manual, "Storing Sparse Files" (format 1.0).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from ..errors import BadInput
from .entries import shown
from .node import BLOCK, CHARACTER, FILE, FOLDER, SYMLINK, Node, walk

Part = bytes | tuple[int, int, int]
"""Bytes of the tar, or (number of a layer, where in it, how many bytes)."""

_BATCH = 1024
_SIZE_MAX = 8**11
_ID_MAX = 8**7
_FIELDS = np.dtype(
    [
        ("name", "S100"),
        ("mode", "S8"),
        ("uid", "S8"),
        ("gid", "S8"),
        ("size", "S12"),
        ("mtime", "S12"),
        ("checksum", "S8"),
        ("type", "S1"),
        ("link", "S100"),
        ("magic", "S8"),
        ("user", "S32"),
        ("group", "S32"),
        ("major", "S8"),
        ("minor", "S8"),
        ("prefix", "S155"),
        ("rest", "S12"),
    ]
)
_MAGIC = b"ustar\x0000"
_SECOND = 1_000_000_000


def parts(root: Node) -> Iterator[Part]:
    """The whole tar of all below a folder, in order."""
    first: dict[Node, bytes] = {}  # of files with several names: the name under which the bytes stand
    entries = walk(root)
    while batch := list(islice(entries, _BATCH)):
        yield from _batch(batch, first)
    yield bytes(1024)


def size(root: Node) -> int:
    """Bytes of file content that `parts` asks layers for."""
    seen: set[Node] = set()
    total = 0
    for _, node in walk(root):
        if node.kind == FILE and node not in seen:
            seen.add(node)
            total += node.stored
    return total


def _batch(batch: list[tuple[bytes, Node]], first: dict[Node, bytes]) -> Iterator[Part]:
    rows = []
    before: list[bytes] = []  # what stands before each header
    after: list[tuple[bytes, Node | None]] = []  # a sparse map, and whose bytes follow
    for path, node in batch:
        records: dict[bytes, bytes] = {}
        name, prefix = _name(path + b"/" if node.kind == FOLDER else path, records)
        kind, link, length, sparse = node.kind, node.link, 0, b""
        content: Node | None = None
        told = first.setdefault(node, path) if kind != FOLDER else path
        if told is not path:
            kind, link = b"1", told
        elif kind == FILE:
            content, length = node, node.stored
            if node.extents is not None:
                sparse = _map(node, path, records)
                name, prefix = b"GNUSparseFile.0/" + path.rpartition(b"/")[2][-80:], b""
                records.pop(b"path", None)
                length += len(sparse)
        if len(link) > 100:
            records[b"linkpath"] = link
        if length >= _SIZE_MAX:
            records[b"size"] = b"%d" % length
        if node.uid >= _ID_MAX:
            records[b"uid"] = b"%d" % node.uid
        if node.gid >= _ID_MAX:
            records[b"gid"] = b"%d" % node.gid
        seconds, ns = divmod(node.mtime, _SECOND)
        if ns or not 0 <= seconds < _SIZE_MAX:
            records[b"mtime"] = _decimal(node.mtime)
        if kind != b"1":
            for key in sorted(node.xattrs):
                records[b"SCHILY.xattr." + key] = node.xattrs[key]
        major, minor = (b"%07o" % one for one in node.device) if kind in (CHARACTER, BLOCK) else (b"", b"")
        rows.append(
            (
                name,
                b"%07o" % node.mode,
                b"%07o" % min(node.uid, _ID_MAX - 1),
                b"%07o" % min(node.gid, _ID_MAX - 1),
                b"%011o" % min(length, _SIZE_MAX - 1),
                b"%011o" % min(max(seconds, 0), _SIZE_MAX - 1),
                b"        ",
                kind,
                link[:100] if kind in (SYMLINK, b"1") else b"",
                _MAGIC,
                b"",
                b"",
                major,
                minor,
                prefix,
                b"",
            )
        )
        before.append(_extended(records) if records else b"")
        after.append((sparse, content))
    raw = _summed(rows)
    for at, (head, (sparse, content)) in enumerate(zip(before, after, strict=True)):
        header = raw[512 * at : 512 * at + 512]
        yield head + header + sparse if head or sparse else header
        if content is not None and content.stored:
            yield content.layer - 1, content.data, content.stored
            if (padding := -(content.stored + len(sparse)) % 512) > 0:
                yield bytes(padding)


def _summed(rows: Sequence[tuple[bytes, ...]]) -> bytes:
    """Headers, with their checksums."""
    table = np.array(list(rows), _FIELDS)
    blocks = table.view(np.uint8).reshape(len(rows), 512)
    table["checksum"] = [b"%06o\0 " % total for total in blocks.sum(axis=1, dtype=np.int64).tolist()]
    return blocks.tobytes()


def _name(path: bytes, records: dict[bytes, bytes]) -> tuple[bytes, bytes]:
    """A path as ustar's name and prefix; as a record where it does not fit."""
    if len(path) <= 100:
        return path, b""
    if len(path) <= 256:
        at = path.rfind(b"/", 0, 156)
        if at > 0 and len(path) - at - 1 <= 100 and path[at + 1 :]:
            return path[at + 1 :], path[:at]
    records[b"path"] = path
    return path[:100], b""


def _decimal(ns: int) -> bytes:
    sign, value = (b"-", -ns) if ns < 0 else (b"", ns)
    seconds, rest = divmod(value, _SECOND)
    return sign + b"%d" % seconds + ((b".%09d" % rest).rstrip(b"0") if rest else b"")


def _extended(records: dict[bytes, bytes]) -> bytes:
    """A PAX extended header."""
    body = b"".join(_record(key, value) for key, value in records.items())
    row = (
        b"PaxHeaders.0/entry",
        b"%07o" % 0o644,
        b"%07o" % 0,
        b"%07o" % 0,
        b"%011o" % len(body),
        b"%011o" % 0,
        b"        ",
        b"x",
        b"",
        _MAGIC,
        b"",
        b"",
        b"",
        b"",
        b"",
        b"",
    )
    return _summed([row]) + body + bytes(-len(body) % 512)


def _record(key: bytes, value: bytes) -> bytes:
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) != len(str(rest)):
        length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _map(node: Node, path: bytes, records: dict[bytes, bytes]) -> bytes:
    """A sparse file's map, as it stands before the data, and the records that tell of it."""
    extents = node.extents or ()
    records[b"GNU.sparse.major"] = b"1"
    records[b"GNU.sparse.minor"] = b"0"
    records[b"GNU.sparse.name"] = path
    records[b"GNU.sparse.realsize"] = b"%d" % node.size
    if not extents or sum(extents[-1]) < node.size:
        extents = (*extents, (node.size, 0))  # as GNU tar ends it, so that the file has its length
    text = b"%d\n" % len(extents) + b"".join(b"%d\n%d\n" % one for one in extents)
    if len(text) > 1 << 20:
        raise BadInput(f"{shown(path)}: a sparse map of more than 1 MiB")
    return text + bytes(-len(text) % 512)
