"""Fuzzing layers applied (rootfs/): one to three of them, merged, and written out as one tar.

An input is a byte of flags and tars with SPLIT between them, whose headers get their checksums unless AS_IT_IS; with
OPEN it is a script of entries, two bytes and a length each (see `entries`), so that mutations make stacks that fit.

Checked: BadInput and LimitExceeded, nothing else; what is merged has no `.`, `..`, slash or whiteout among its names,
and owners and depths within limits; its tar is read by Python's tarfile as the same names, and applies again to the
same tree, which gives the same tar.
"""

from __future__ import annotations

import io
import os
import sys
import tarfile
from pathlib import Path
from typing import Any

from casstore.errors import BadInput, LimitExceeded
from casstore.rootfs import archive, entries
from casstore.rootfs.node import FILE, FOLDER, Node, contents, walk
from casstore.rootfs.tree import MAX_DEPTH, Tree

sys.path.append(str(Path(__file__).parent.parent))
from layered import Layer, packed, told
from tarmaker import END, file, header, long_name, octal, padded, pax

AS_IT_IS, OPEN = 1, 2
_ENTRIES = 40
SPLIT = b"\xfeSPLIT\xfe"
_NAMES = (
    b"a",
    b"b",
    b"c",
    b"..",
    b".",
    b"",
    b".wh.a",
    b".wh.b",
    b".wh..wh..opq",
    b".wh..wh.plnk",
    b"n" * 130,
    b"\xff\n",
)
_KINDS = (b"0", b"5", b"1", b"2", b"0", b"5", b"3", b"6", b"S", b"s", b"V", b"7", b"L", b"g", b"x", b"|")


def summed(raw: bytearray) -> bytes:
    for at in range(0, len(raw) - 511, 512):
        if raw[at + 257 : at + 262] == b"ustar":
            raw[at + 148 : at + 156] = b" " * 8
            raw[at + 148 : at + 156] = b"%06o\0 " % sum(raw[at : at + 512])
    return bytes(raw)


def path(number: int) -> bytes:
    """Up to three names."""
    return b"/".join(_NAMES[number // 12**n % 12] for n in range(number // 12**3 % 3 + 1))


def number(*names: bytes) -> bytes:
    """The two bytes that `path` reads as these names."""
    digits = [_NAMES.index(name) * 12**n for n, name in enumerate(names)]
    return (sum(digits) + 12**3 * (len(names) - 1)).to_bytes(2)


def script(data: bytes) -> list[bytes]:
    """Layers of entries: kind and attributes, path (two bytes), what (two bytes), each. An entry that is refused is
    left out, so that one of them does not hide what others do."""
    layers = [b""]
    for at in range(0, min(len(data), 5 * _ENTRIES) - 4, 5):
        kind, name, what = data[at], path(int.from_bytes(data[at + 1 : at + 3])), int.from_bytes(data[at + 3 : at + 5])
        if _KINDS[kind & 15] == b"|" and len(layers) < 3:
            layers.append(b"")
        made = entry(_KINDS[kind & 15], kind >> 4, name, what)
        try:
            merged([*layers[:-1], layers[-1] + made])
        except BadInput:
            continue
        layers[-1] += made
    return layers


def merged(layers: list[bytes]) -> Tree:
    tree = Tree()
    for number, each in enumerate(layers):
        tree.apply(Layer(each, f"layer {number}"))
    return tree


def entry(kind: bytes, how: int, name: bytes, what: int) -> bytes:
    fields: dict[str, Any] = {"mode": 0o644 | how << 8, "uid": what & 3, "mtime": what}
    before = pax((b"path", name)) if how & 1 else b""
    if how & 2:
        before += pax((b"mtime", b"-%d.%d" % (what, what)), (b"SCHILY.xattr.user.x", name))
    if kind in (b"0", b"7"):
        return before + file(name, bytes([how]) * (what % 1200), kind, **fields)
    if kind in (b"1", b"2"):
        return before + header(name, 0, kind, link=path(what), **fields)
    if kind in (b"3", b"6"):
        return before + header(name, 0, kind, patches={329: octal(what & 15, 8), 337: octal(what >> 4, 8)}, **fields)
    if kind == b"S":
        table = octal(what, 12) + octal(20, 12)
        patches = {386: table, 482: bytes([how & 1]), 483: octal(what + 20 + how, 12)}
        return before + header(name, 20, b"S", patches=patches) + bytes(512 * (how & 1)) + padded(b"x" * 20)
    if kind == b"s":
        records = [(b"GNU.sparse.size", b"%d" % (what + 20)), (b"GNU.sparse.map", b"%d,20" % what)]
        return pax(*records, (b"path", name)) + file(name, b"y" * 20, **fields)
    if kind == b"L":
        return long_name(name * 3, b"LK"[how & 1 : (how & 1) + 1])
    if kind in (b"g", b"x"):
        return pax((b"linkpath", path(what)), kind=kind)
    if kind == b"|":
        return bytes(512 * (what & 3))
    return header(name, 0, kind, **fields)


def check(tree: Tree) -> None:
    for where, node in walk(tree.root):
        names = where.split(b"/")
        assert len(names) <= MAX_DEPTH and not {b"", b".", b".."} & {*names} and b"\0" not in where
        assert not any(name.startswith(b".wh.") for name in names) and max(map(len, names)) <= entries.MAX_NAME
        assert 0 <= node.uid <= entries.MAX_ID and 0 <= node.gid <= entries.MAX_ID and 0 <= node.mode <= 0o7777
        assert (node.children is not None) == (node.kind == FOLDER) and 1 <= max(node.layer, 1) <= tree.layers
        assert not any(name.startswith((b"trusted.overlay.", b"user.overlay.")) for name in node.xattrs)


def plain(layers: list[bytes], tree: Tree) -> dict[bytes, tuple[Any, ...]]:
    """What `told` tells, but of files with holes the map and the bytes held: a file may be all hole, and huge."""
    sparse: list[tuple[Node, Any]] = []
    for _, node in walk(tree.root):
        if node.kind == FILE and node.extents is not None and node not in (each for each, _ in sparse):
            sparse.append((node, (node.size, node.extents)))
            node.size, node.extents = node.stored, None
    found = told(layers, tree)
    maps = {id(node): what for node, what in sparse}
    for where, node in walk(tree.root):
        if id(node) in maps:
            found[where] = (*found[where], maps[id(node)])
    for node, (size, extents) in sparse:
        node.size, node.extents = size, extents
    return found


def one(data: bytes) -> None:
    if len(data) < 2:
        return
    flags, rest = data[0], data[1:]
    layers = script(rest) if flags & OPEN else rest.split(SPLIT)[:3]
    if not flags & (AS_IT_IS | OPEN):
        layers = [summed(bytearray(each)) for each in layers]
    try:
        tree = merged(layers)
        check(tree)
        made = packed(layers, tree)
    except LimitExceeded:
        return
    except BadInput as error:
        assert "\n" not in str(error)
        return
    before = plain(layers, tree)
    assert [each for each in archive.parts(tree.root) if not isinstance(each, bytes)] == [*contents(tree.root)]
    with tarfile.open(fileobj=io.BytesIO(made), errors="surrogateescape", encoding="utf-8") as read:
        assert [os.fsencode(each.name) for each in read] == [*before]
    again = Tree()
    again.apply(Layer(made))
    assert plain([made], again) == before
    assert packed([made], again) == made


TOKENS = ["ustar\x00", ".wh.", ".wh..wh..opq", ".wh..wh.plnk/", "GNU.sparse.map=", "GNU.sparse.major=1\n"]
TOKENS += ["SCHILY.xattr.", "path=", "linkpath=", "mtime=", "uid=", "../", "\xfeSPLIT\xfe"]


def seeds() -> dict[str, bytes]:
    lower = header(b"d", 0, b"5") + file(b"d/f", b"12345") + header(b"s", 0, b"2", link=b"d") + file(b"s/g", b"6")
    upper = file(b"d/.wh.f", b"") + header(b"h", 0, b"1", link=b"d/g") + header(b"p", 0, b"6")
    opaque = file(b"d/.wh..wh..opq", b"") + pax((b"SCHILY.xattr.user.a", b"1"), (b"mtime", b"1.5")) + file(b"d/z", b"")
    held = b"2\n100\n3\n2000\n1\n".ljust(512, b"\0") + b"abcd"
    named = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"3000")]
    sparse = pax(*named, (b"GNU.sparse.name", b"holes")) + file(b"x", held)
    numbers = bytes(range(250))
    a, ab, ba, hidden = number(b"a"), number(b"a", b"b"), number(b"b", b"a"), number(b"a", b".wh.b")
    files = b"\x10" + ab + a + b"\x24" + ba + b"\1\0" + b"\x0f\0\0\0\0" + b"\0" + hidden + a + b"\1" + number(b"c") + a
    links = (
        b"\3" + number(b"c") + a + b"\0" + number(b"c", b"b") + ab + b"\2" + ba + ab + b"\x0f\0\0\0\0" + b"\2" + a + ba
    )
    holes = b"\x18" + a + b"\2\0" + b"\x09" + ba + b"\3\0" + b"\2" + number(b"c") + a + b"\x2c" + ab + a + b"\0" + a + a
    return {
        "stack": bytes([0]) + SPLIT.join([lower + END, upper, opaque + END]),
        "sparse": bytes([0]) + sparse + entry(b"S", 1, b"old", 700) + entry(b"s", 0, b"pax", 900) + END,
        "aufs": bytes([0]) + file(b".wh..wh.plnk/1.2", b"x") + header(b"a", 0, b"1", link=b".wh..wh.plnk/1.2"),
        "long": bytes([0])
        + long_name(b"n/" * 120)
        + file(b"n", b"1")
        + pax((b"path", b"\xff" * 200))
        + file(b"n", b"2"),
        "script-files": bytes([OPEN]) + files,
        "script-links": bytes([OPEN]) + links,
        "script-holes": bytes([OPEN]) + holes,
        "script-all": bytes([OPEN]) + numbers,
        "junk": bytes([AS_IT_IS]) + lower[:700] + numbers,
    }
