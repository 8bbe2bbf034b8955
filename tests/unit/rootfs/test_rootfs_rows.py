"""Applying layers: every rule of which engines make something, one case each. What is refused names entry and offset.

Rules: OCI image-spec, layer.md; what docker does; and where docker is wrong, what is right.
"""

from __future__ import annotations

from typing import Any

import layered
import pytest
from layered import Layer, applied, only, told
from tarmaker import END, base256, file, header, long_name, octal, padded, pax

from casstore.errors import BadInput, LimitExceeded
from casstore.rootfs import tree as tree_module
from casstore.rootfs.node import Node
from casstore.rootfs.tree import Tree

SECOND = 1_000_000_000
PLAIN = (0o644, 0, 0, 0, {})
OPEN = (0o755, 0, 0, 0, {})


def folder(name: bytes, mode: int = 0o755, **fields: Any) -> bytes:
    return header(name, 0, b"5", mode=mode, **fields)


def link(name: bytes, to: bytes) -> bytes:
    return header(name, 0, b"1", link=to)


def symlink(name: bytes, to: bytes) -> bytes:
    return header(name, 0, b"2", link=to)


def device(name: bytes, major: int, minor: int, kind: bytes = b"3") -> bytes:
    return header(name, 0, kind, patches={329: octal(major, 8), 337: octal(minor, 8)})


def tree(*layers: bytes) -> dict[bytes, Any]:
    """The merged tree by path: bytes of files, "dir", ("link", first name), ("symlink", target)."""
    found: dict[bytes, Any] = {}
    for path, one in told(layers, applied(*layers)).items():
        kind, what = one[0], one[-1]
        shown = {b"0": what, b"5": "dir", b"1": ("link", what), b"2": ("symlink", what)}
        found[path] = shown.get(kind, (kind, what))
    return found


A, B = file(b"a", b"lower"), file(b"b", b"other")
D = folder(b"d") + file(b"d/x", b"x") + file(b"d/y", b"y")
D_TREE = {b"d": "dir", b"d/x": b"x", b"d/y": b"y"}

#: name → (layers, the merged tree)
APPLIED: dict[str, tuple[list[bytes], dict[bytes, Any]]] = {
    # whiteouts
    "whiteout hides what is below": ([A + B + END, file(b".wh.a", b"")], {b"b": b"other"}),
    "whiteout of a folder": ([D + B, file(b".wh.d", b"")], {b"b": b"other"}),
    "whiteout in a folder": ([D, file(b"d/.wh.x", b"")], {b"d": "dir", b"d/y": b"y"}),
    "whiteout two layers up": ([A, B, file(b".wh.a", b"")], {b"b": b"other"}),
    "whiteout of what is absent": ([A, file(b".wh.z", b"") + file(b"no/.wh.z", b"")], {b"a": b"lower"}),
    "whiteout in the first layer": ([file(b".wh.a", b"") + B], {b"b": b"other"}),
    "whiteout through a symlink hides nothing": (
        [D + symlink(b"s", b"d"), file(b"s/.wh.x", b"")],
        D_TREE | {b"s": ("symlink", b"d")},
    ),
    "whiteout clamped to the root": ([A + B, file(b"../../.wh.a", b"")], {b"b": b"other"}),
    "file, then its whiteout": ([A, file(b"a", b"new") + file(b".wh.a", b"")], {b"a": b"new"}),
    "whiteout, then the file": ([A, file(b".wh.a", b"") + file(b"a", b"new")], {b"a": b"new"}),
    "folder anew": ([D, file(b".wh.d", b"") + file(b"d/z", b"z")], {b"d": "dir", b"d/z": b"z"}),
    "whiteout hides no other name": ([A + link(b"l", b"a"), file(b".wh.a", b"")], {b"l": b"lower"}),
    "whiteout, then the name again": ([A, file(b".wh.a", b""), A], {b"a": b"lower"}),
    "whiteout as a folder": ([A + B, folder(b".wh.a/")], {b"b": b"other"}),
    "whiteout as a symlink": ([A + B, symlink(b".wh.a", b"b")], {b"b": b"other"}),
    "only a prefix is a whiteout": ([A, file(b"x.wh.a", b"1")], {b"a": b"lower", b"x.wh.a": b"1"}),
    "whiteout of a whiteout's name": ([A, file(b".wh..wha", b"")], {b"a": b"lower"}),
    # opaque folders
    "opaque first": ([D, file(b"d/.wh..wh..opq", b"") + file(b"d/z", b"z")], {b"d": "dir", b"d/z": b"z"}),
    "opaque last": ([D, file(b"d/z", b"z") + file(b"d/.wh..wh..opq", b"")], {b"d": "dir", b"d/z": b"z"}),
    "opaque keeps the same layer's own": (
        [D, file(b"d/x", b"2") + file(b"d/.wh..wh..opq", b"")],
        {b"d": "dir", b"d/x": b"2"},
    ),
    "opaque in the first layer": ([D + file(b"d/.wh..wh..opq", b"")], D_TREE),
    "opaque of what is absent": ([A, file(b"no/.wh..wh..opq", b"")], {b"a": b"lower"}),
    "opaque at the root": ([A + D, file(b".wh..wh..opq", b"") + B], {b"b": b"other"}),
    "opaque at the root, spelled otherwise": ([A + D, B + file(b"./.wh..wh..opq", b"")], {b"b": b"other"}),
    # aufs
    "aufs keeps its own to itself": (
        [
            A
            + folder(b".wh..wh.orph")
            + file(b".wh..wh.aufs", b"")
            + file(b".wh..wh.orph/x", b"1")
            + file(b"d/.wh..wh.q", b"")
        ],
        {b"a": b"lower"},
    ),
    "aufs links": (
        [
            folder(b".wh..wh.plnk")
            + file(b".wh..wh.plnk/7.1", b"shared")
            + link(b"one", b".wh..wh.plnk/7.1")
            + link(b"two", b".wh..wh.plnk/7.1")
        ],
        {b"one": b"shared", b"two": ("link", b"one")},
    ),
    # kinds in place of one another
    "folder → file": ([D, file(b"d", b"1")], {b"d": b"1"}),
    "file → folder": ([A, folder(b"a") + file(b"a/x", b"1")], {b"a": "dir", b"a/x": b"1"}),
    "symlink → folder": ([D + symlink(b"s", b"d"), folder(b"s")], D_TREE | {b"s": "dir"}),
    "folder → symlink": ([D, symlink(b"d", b"z")], {b"d": ("symlink", b"z")}),
    "folder → hard link": ([D + A, link(b"d", b"a")], {b"a": b"lower", b"d": ("link", b"a")}),
    "folder + folder": ([D, folder(b"d") + file(b"d/z", b"z")], D_TREE | {b"d/z": b"z"}),
    "file below what was a file": ([A, file(b"a/x", b"1")], {b"a": "dir", b"a/x": b"1"}),
    # symlinks on the way
    "a symlink below gives way": (
        [folder(b"e") + symlink(b"d", b"e"), file(b"d/x", b"1")],
        {b"e": "dir", b"d": "dir", b"d/x": b"1"},
    ),
    "a symlink of the same layer is followed": (
        [folder(b"e") + symlink(b"d", b"e") + file(b"d/x", b"1")],
        {b"e": "dir", b"e/x": b"1", b"d": ("symlink", b"e")},
    ),
    "over two links": (
        [folder(b"e/f") + symlink(b"d", b"c/f") + symlink(b"c", b"/e") + file(b"d/x", b"1")],
        {b"e": "dir", b"e/f": "dir", b"e/f/x": b"1", b"c": ("symlink", b"/e"), b"d": ("symlink", b"c/f")},
    ),
    "an absolute symlink ends in the root": (
        [folder(b"e") + symlink(b"d", b"/e") + file(b"d/x", b"1")],
        {b"e": "dir", b"e/x": b"1", b"d": ("symlink", b"/e")},
    ),
    "a symlink with .. ends in the root": (
        [folder(b"e") + symlink(b"d", b"../../../e") + file(b"d/x", b"1")],
        {b"e": "dir", b"e/x": b"1", b"d": ("symlink", b"../../../e")},
    ),
    "a hard link to a symlink of below is of the layer": (
        [folder(b"e") + symlink(b"s", b"e"), link(b"d", b"s") + file(b"d/x", b"1")],
        {b"e": "dir", b"e/x": b"1", b"s": ("link", b"d"), b"d": ("symlink", b"e")},
    ),
    # paths
    ".. and / end at the root": (
        [file(b"../../x", b"1") + file(b"/y", b"2") + pax((b"path", b"../../../z")) + file(b"", b"3")],
        {b"x": b"1", b"y": b"2", b"z": b"3"},
    ),
    "spelled with dots": ([file(b"./a/.//b/../c", b"1")], {b"a": "dir", b"a/c": b"1"}),
    "parents of nothing": ([file(b"a/b/c", b"1")], {b"a": "dir", b"a/b": "dir", b"a/b/c": b"1"}),
    "the root itself": ([folder(b"./") + A], {b"a": b"lower"}),
    # hard links
    "hard link": ([A + link(b"l", b"a")], {b"a": b"lower", b"l": ("link", b"a")}),
    "hard link, absolute": ([A + link(b"l", b"/a")], {b"a": b"lower", b"l": ("link", b"a")}),
    "hard link with ..": ([A + link(b"d/l", b"../../a")], {b"a": b"lower", b"d": "dir", b"d/l": ("link", b"a")}),
    "hard link to a lower layer": ([A, link(b"l", b"a")], {b"a": b"lower", b"l": ("link", b"a")}),
    "hard link to what is then replaced": (
        [A, link(b"l", b"a") + file(b"a", b"new")],
        {b"a": b"new", b"l": b"lower"},
    ),
    "hard link over its own name": ([A, link(b"a", b"a")], {b"a": b"lower"}),
    "hard link to a symlink": (
        [symlink(b"s", b"a") + link(b"t", b"s")],
        {b"s": ("symlink", b"a"), b"t": ("link", b"s")},
    ),
    "hard link to a hard link": (
        [A + link(b"l", b"a") + link(b"m", b"l")],
        {b"a": b"lower", b"l": ("link", b"a"), b"m": ("link", b"a")},
    ),
    "hard link beyond a symlink of below": (
        [D + symlink(b"s", b"d"), link(b"l", b"s/x")],
        D_TREE | {b"s": ("symlink", b"d"), b"l": ("link", b"d/x")},
    ),
    # kinds
    "types 0, 7, NUL": (
        [file(b"a", b"1") + file(b"b", b"2", b"7") + file(b"c", b"3", b"\0")],
        dict(zip([b"a", b"b", b"c"], [b"1", b"2", b"3"], strict=True)),
    ),
    "v7": (
        [header(b"a", 1, b"\0", magic=b"") + padded(b"1") + header(b"d/", 0, b"\0", magic=b"")],
        {b"a": b"1", b"d": "dir"},
    ),
    "a volume's label is no file": ([header(b"label", 0, b"V") + A], {b"a": b"lower"}),
    "FIFO, devices": (
        [header(b"p", 0, b"6") + device(b"c", 1, 3) + device(b"b", 8, 1, b"4")],
        {b"p": (b"6", (0, 0)), b"c": (b"3", (1, 3)), b"b": (b"4", (8, 1))},
    ),
    # ends
    "no end": ([A], {b"a": b"lower"}),
    "one zero block at the end": ([A + bytes(512)], {b"a": b"lower"}),
    "half a zero block more": ([A + bytes(512 + 100)], {b"a": b"lower"}),
    "what follows the end": ([A + END + B + b"junk"], {b"a": b"lower"}),
    "a second tar": ([A + END + B + END], {b"a": b"lower"}),
    "nothing at all": ([b""], {}),
    "an end alone": ([END], {}),
    "global headers": (
        [
            pax((b"comment", b"x"), kind=b"g")
            + A
            + pax((b"path", b"z"), kind=b"g")
            + B
            + pax((b"c", b"d"), kind=b"g")
            + END
        ],
        {b"a": b"lower", b"b": b"other"},
    ),
    "a global header inside": ([pax((b"path", b"z")) + pax((b"path", b"q"), kind=b"g") + A], {b"z": b"lower"}),
    # names
    "no UTF-8": (
        [file(b"\xff\xfe", b"1") + pax((b"path", b"caf\xe9")) + file(b"", b"2")],
        {b"\xff\xfe": b"1", b"caf\xe9": b"2"},
    ),
    "a newline": ([file(b"a\nb", b"1") + pax((b"path", b"c\nd")) + file(b"", b"2")], {b"a\nb": b"1", b"c\nd": b"2"}),
    "GNU's long name": ([long_name(b"n" * 250) + file(b"n", b"1")], {b"n" * 250: b"1"}),
    "GNU's long link": ([long_name(b"l" * 4095, b"K") + symlink(b"s", b"l")], {b"s": ("symlink", b"l" * 4095)}),
    "PAX link of 4095": (
        [pax((b"linkpath", b"k/" * 2047 + b"k")) + symlink(b"s", b"l")],
        {b"s": ("symlink", b"k/" * 2047 + b"k")},
    ),
    "ustar's prefix": ([file(b"x", b"1", prefix=b"p/q")], {b"p": "dir", b"p/q": "dir", b"p/q/x": b"1"}),
}


@pytest.mark.parametrize("layers, expected", APPLIED.values(), ids=APPLIED)
def test_applied(layers: list[bytes], expected: dict[bytes, Any]) -> None:
    assert tree(*layers) == expected


def at(*before: bytes) -> int:
    return sum(map(len, before))


NUL_RECORD = pax((b"path", b"a\0b"))
BAD = header(b"b", 0, checksum=b"000001\0 ")
DEEP = b"/".join([b"n"] * 600)

#: name → (layers, of which the last is refused; in the error: the entry or what is wrong; offset)
REFUSED: dict[str, tuple[list[bytes], str, int]] = {
    "whiteout of nothing": ([A, B + file(b".wh.", b"")], ".wh.: invalid whiteout", at(B)),
    "whiteout of .": ([B + file(b"no/.wh..", b"")], "no/.wh..: invalid whiteout", at(B)),
    "whiteout of ..": ([B + file(b".wh...", b"")], ".wh...: invalid whiteout", at(B)),
    "something below a whiteout": ([B + file(b".wh.a/x", b"")], ".wh.a/x: invalid whiteout", at(B)),
    "something below an opaque": ([B + file(b".wh..wh..opq/x", b"")], ".wh..wh..opq/x: invalid whiteout", at(B)),
    "write through a symlink to nowhere": (
        [symlink(b"s", b"/etc") + file(b"s/x", b"1")],
        "s/x: its folder s is a symlink to nothing",
        at(b"0" * 512),
    ),
    "write through .. to nowhere": (
        [symlink(b"s", b"../../etc") + file(b"s/x", b"1")],
        "s/x: its folder s is a symlink",
        512,
    ),
    "write through a loop": (
        [symlink(b"s", b"t") + symlink(b"t", b"s") + file(b"s/x", b"1")],
        "s/x: its folder s is a symlink",
        1024,
    ),
    "write through a file": ([A + file(b"a/x", b"1")], "a/x: its folder a is a file of this layer", at(A)),
    "write through a symlink to a file": (
        [A + symlink(b"s", b"a") + file(b"s/x", b"1")],
        "s/x: its folder s is a symlink",
        at(A) + 512,
    ),
    "root as a symlink": ([symlink(b".", b"x")], ".: the root must be a folder", 0),
    "root as a symlink, absolute": ([symlink(b"/", b"x")], "/: the root must be a folder", 0),
    "root as a file": ([file(b"..", b"x")], "..: the root must be a folder", 0),
    "root as a hard link": ([A + link(b"./", b"a")], "./: the root must be a folder", at(A)),
    "root twice": ([folder(b"./") + folder(b"/")], "/: duplicates of file paths not supported", 512),
    "hard link forward": ([link(b"l", b"a") + A], "l: hard link to a, which is not there", 0),
    "hard link to nothing": ([A + link(b"l", b"d/z")], "l: hard link to d/z, which is not there", at(A)),
    "hard link to a folder": ([folder(b"d") + link(b"l", b"d")], "l: hard link to d, which is a folder", 512),
    "hard link to the root": ([link(b"l", b"/")], "l: hard link to /, which is not there", 0),
    "hard link to what is hidden": (
        [A, file(b".wh.a", b"") + link(b"l", b"a")],
        "l: hard link to a, which is not there",
        512,
    ),
    "hard link to aufs' nothing": ([link(b"l", b".wh..wh.plnk/7.1")], "l: hard link to .wh..wh.plnk/7.1", 0),
    "twice": (
        [A + B + file(b"./a", b"2")],
        "./a: duplicates of file paths not supported",
        at(A, B),
    ),
    "folder twice": ([folder(b"d") + folder(b"d/")], "d/: duplicates of file paths not supported", 512),
    "twice, by way of a symlink": (
        [folder(b"e") + symlink(b"d", b"e") + file(b"e/x", b"1") + file(b"d/x", b"2")],
        "d/x: duplicates",
        2048,
    ),
    "a file where the layer has a folder in use": (
        [D, file(b"d/z", b"z") + file(b"d", b"1")],
        "d: no folder, but entries before it are in it",
        1024,
    ),
    "a symlink where the layer has a folder in use": (
        [file(b"d/e/z", b"z") + symlink(b"d", b"e")],
        "d: no folder, but entries before it",
        1024,
    ),
    "a hard link where the layer has a folder in use": (
        [A, file(b"d/e/z", b"z") + link(b"d", b"a")],
        "d: no folder, but",
        1024,
    ),
    "device 0:0": ([A + device(b"c", 0, 0)], "c: a device 0:0 would be a whiteout", at(A)),
    "device out of range": ([device(b"c", 4096, 0)], "c: device number out of range", 0),
    "device of no number": ([header(b"c", 0, b"3", patches={329: b"x"})], "c: device number out of range", 0),
    "uid -1": ([A + header(b"b", uid=base256(-1, 8))], "b: owner out of range (-1:0)", at(A)),
    "uid of no number": ([header(b"b", uid=b"zzz")], "b: owner out of range", 0),
    "uid 2^32-1": ([header(b"b", uid=base256((1 << 32) - 1, 8))], "b: owner out of range (4294967295:0)", 0),
    "gid 2^32": ([pax((b"gid", b"4294967296")) + B], "b: owner out of range (0:4294967296)", 0),
    "uid -1 by PAX": ([pax((b"uid", b"-1")) + B], "b: owner out of range", 0),
    "mode of no number": ([header(b"b", mode=b"rwx")], "b: invalid tar header: the mode is no number", 0),
    "type unknown": ([A + header(b"b", 0, b"D")], "b: unhandled tar header type 68", at(A)),
    "multi-volume": ([header(b"b", 0, b"M")], "b: unhandled tar header type 77", 0),
    "no target": ([symlink(b"s", b"")], "s: a symlink to nothing", 0),
    "bad checksum first": ([BAD + B], "invalid tar header", 0),
    "bad checksum between": ([A + BAD + B], "invalid tar header", at(A)),
    "bad checksum last": ([A + BAD], "invalid tar header", at(A)),
    "bad checksum, then an end": ([A + BAD + END], "invalid tar header", at(A)),
    "negative size": ([A + header(b"b", base256(-1, 12)) + B], "invalid tar header", at(A)),
    "size of no number": ([A + header(b"b", b"9z")], "invalid tar header", at(A)),
    "NUL in a PAX path": ([A + NUL_RECORD + B], "invalid tar header: a name with a zero byte", at(A)),
    "NUL in a PAX link": (
        [pax((b"linkpath", b"a\0b")) + symlink(b"s", b"x")],
        "s: invalid tar header: a name with a zero byte",
        0,
    ),
    "folder with data": ([header(b"d", 5, b"5") + padded(b"12345")], "invalid tar header", 512),
    "symlink with data": ([header(b"s", 5, b"2", link=b"a") + padded(b"12345") + A], "invalid tar header", 512),
    "hard link with data": (
        [A + header(b"l", 5, b"1", link=b"a") + padded(b"12345")],
        "invalid tar header",
        at(A) + 512,
    ),
    "part of a header": ([A + B[:100]], "unexpected EOF", at(A)),
    "part of a zero block": ([A + bytes(100)], "unexpected EOF", at(A)),
    "less data than said": ([A + header(b"b", 1000) + bytes(999)], "unexpected EOF", at(A) + 512 + 999),
    "no padding": ([A + header(b"b", 1000) + bytes(1000)], "unexpected EOF", at(A) + 512 + 1000),
    "no data at all": ([header(b"b", 1)], "unexpected EOF", 512),
    "extended header cut off": ([A + pax((b"path", b"x"))[:600]], "", at(A)),
    "extended header for nothing": ([A + pax((b"path", b"x")) + END], "invalid tar header", at(A)),
    "global header cut off": ([A + pax((b"path", b"x" * 600), kind=b"g")[:1024]], "unexpected EOF", at(A) + 1024),
    "one zero block, then a header": ([A + bytes(512) + B], "invalid tar header", at(A)),
    "one zero block, then junk": ([A + bytes(512) + b"junk" * 128], "invalid tar header", at(A) + 512),
    "a name too long": ([A + pax((b"path", b"n" * 256)) + B], "file name too long", at(A)),
    "a path too long": ([pax((b"path", b"nn/" * 1366)) + B], "file name too long", 0),
    "a link too long": ([pax((b"linkpath", b"n" * 4096)) + symlink(b"s", b"x")], "s: link target too long", 0),
    "a link of 5000": ([long_name(b"n" * 5000, b"K") + symlink(b"s", b"x")], "s: link target too long", 0),
    "too deep": ([pax((b"path", DEEP)) + B], "more than 500 folders deep", 0),
    "attribute without a name": ([pax((b"SCHILY.xattr.", b"1")) + B], "b: an attribute that no file can have", 0),
    "attribute with a NUL": ([pax((b"SCHILY.xattr.user.a\0b", b"1")) + B], "b: an attribute that no file can have", 0),
    "attribute too long": (
        [pax((b"SCHILY.xattr.user." + b"n" * 251, b"1")) + B],
        "b: an attribute that no file can have",
        0,
    ),
    "attribute too large": (
        [pax((b"SCHILY.xattr.user.a", b"1" * 65537)) + B],
        "b: an attribute that no file can have",
        0,
    ),
}


@pytest.mark.parametrize("layers, message, offset", REFUSED.values(), ids=REFUSED)
def test_refused(layers: list[bytes], message: str, offset: int) -> None:
    found = Tree()
    for data in layers[:-1]:
        found.apply(Layer(data))
    with pytest.raises(BadInput) as caught:
        found.apply(Layer(layers[-1], "layer sha256:top"))
    assert message in str(caught.value) and "layer sha256:top" in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.offset == offset


def test_errors_show_odd_names_on_one_line() -> None:
    with pytest.raises(BadInput, match=r"a\\nb\\x1b\\xff: hard link to c\\nd"):
        applied(link(b"a\nb\x1b\xff", b"c\nd"))


# -- attributes


def attributes(node: Node) -> tuple[Any, ...]:
    return node.mode, node.uid, node.gid, node.mtime, node.xattrs


def test_folders_merge_and_take_the_upper_attributes() -> None:
    lower = pax((b"SCHILY.xattr.user.a", b"1")) + folder(b"d", 0o700, uid=1, gid=2, mtime=3) + file(b"d/x", b"x")
    upper = pax((b"SCHILY.xattr.user.b", b"2")) + folder(b"d", 0o1777, uid=4, gid=5, mtime=6)
    assert attributes(only(lower, upper, at=b"d")) == (0o1777, 4, 5, 6 * SECOND, {b"user.b": b"2"})
    assert only(lower, upper, at=b"d/x").size == 1


def test_the_root_takes_the_attributes_of_its_entry() -> None:
    found = applied(folder(b".", 0o700, uid=7, mtime=8) + A, B)
    assert attributes(found.root) == (0o700, 7, 0, 8 * SECOND, {})
    assert attributes(applied(A).root) == OPEN


def test_an_implicit_parent_keeps_the_lower_attributes() -> None:
    lower = folder(b"d", 0o700, uid=1000, gid=1000, mtime=9)
    assert attributes(only(lower, file(b"d/x", b"1"), at=b"d")) == (0o700, 1000, 1000, 9 * SECOND, {})


def test_a_parent_missing_everywhere_is_roots() -> None:
    assert attributes(only(file(b"d/e/x", b"1", uid=5), at=b"d/e")) == OPEN


def test_a_late_folder_describes_the_implicit_one() -> None:
    late = file(b"d/x", b"1") + folder(b"d", 0o711, uid=3)
    assert attributes(only(late, at=b"d")) == (0o711, 3, 0, 0, {}) and only(late, at=b"d/x").size == 1


def test_type_bits_are_no_permissions() -> None:
    assert only(file(b"f", b"", mode=0o104755)).mode == 0o4755


def test_a_symlink_has_the_one_mode_that_linux_knows() -> None:
    assert only(header(b"f", 0, b"2", link=b"x", mode=0o600)).mode == 0o777


@pytest.mark.parametrize("owner", [0, 3_000_000_000, 4_294_967_294])
@pytest.mark.parametrize("by", ["base-256", "pax"])
def test_owners(owner: int, by: str) -> None:
    if by == "pax":
        made = pax((b"uid", b"%d" % owner), (b"gid", b"%d" % owner)) + file(b"f", b"")
    else:
        made = file(b"f", b"", uid=base256(owner, 8), gid=base256(owner, 8))
    assert attributes(only(made))[1:3] == (owner, owner)


def test_what_overlay_reads_is_stripped() -> None:
    names = [b"trusted.overlay.opaque", b"trusted.overlay.redirect", b"user.overlay.opaque", b"user.kept", b"trusted.k"]
    made = pax(*((b"SCHILY.xattr." + name, b"y=\n\0") for name in names)) + folder(b"f")
    assert only(made).xattrs == {b"user.kept": b"y=\n\0", b"trusted.k": b"y=\n\0"}


@pytest.mark.parametrize(
    "said, expected",
    {
        b"1.000000001": SECOND + 1,
        b"1.5": SECOND + SECOND // 2,
        b"1.1234567899": SECOND + 123456789,
        b"-1": -SECOND,
        b"-1.25": -SECOND - SECOND // 4,
        b"253402300800": (1 << 63) - 1,
        b"9999999999": (1 << 63) - 1,
        b"9000000000": 9_000_000_000 * SECOND,
        b"-99999999999": -(1 << 63),
    }.items(),
)
def test_times_by_pax(said: bytes, expected: int) -> None:
    assert only(pax((b"mtime", said)) + file(b"f", b"")).mtime == expected


def test_times_of_headers() -> None:
    assert only(file(b"f", b"", mtime=base256(-5, 12))).mtime == -5 * SECOND
    assert only(file(b"f", b"", mtime=8**11 - 1)).mtime == (8**11 - 1) * SECOND if 8**11 < 9 * 10**9 else True
    assert only(file(b"f", b"", mtime=base256(1 << 62, 12))).mtime == (1 << 63) - 1


# -- limits


def test_more_entries_than_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_module, "MAX_ENTRIES", 3)
    assert tree(A + B, file(b"c", b"3")) == {b"a": b"lower", b"b": b"other", b"c": b"3"}
    with pytest.raises(LimitExceeded, match="more than 3 entries"):
        applied(A + B, file(b"c", b"3") + file(b"d", b"4"))


def test_folders_that_no_entry_describes_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_module, "MAX_ENTRIES", 3)
    assert len(tree(file(b"a/b/c", b"1"))) == 3
    with pytest.raises(LimitExceeded, match="more than 3 entries"):
        applied(file(b"a/b/c/d", b"1"))


def test_as_deep_as_it_may_be() -> None:
    path = b"/".join([b"n"] * 500)
    assert only(pax((b"path", path)) + B, at=path).size == 5


def test_symlinks_lead_no_deeper() -> None:
    deep = b"/".join([b"n"] * 500)
    made = pax((b"path", deep)) + folder(b"x") + pax((b"linkpath", deep)) + symlink(b"s", b"x")
    with pytest.raises(BadInput, match="s/t: more than 500 folders deep"):
        applied(made + folder(b"s/t"))


def test_symlinks_on_one_path_end() -> None:
    chain = folder(b"0") + b"".join(symlink(b"%d" % n, b"%d" % (n - 1)) for n in range(1, 50))
    found = applied(chain)
    assert found.find(b"40") is found.find(b"0") is not None
    assert found.find(b"41") is None and found.find(b"41", follow=False) is not None


# -- finding


FIND = (
    D
    + symlink(b"s", b"d")
    + symlink(b"up", b"../..")
    + symlink(b"d/abs", b"/d/x")
    + symlink(b"dead", b"no")
    + symlink(b"d/back", b"../s/y")
)


@pytest.mark.parametrize(
    "path, at",
    {
        b"": b"",
        b"/": b"",
        b"d/x": b"d/x",
        b"/d//./x": b"d/x",
        b"s/x": b"d/x",
        b"up/d/x": b"d/x",
        b"d/abs": b"d/x",
        b"d/back": b"d/y",
        b"s/..": b"",
        b"d/../s/x": b"d/x",
        b"../../d": b"d",
        b"dead": None,
        b"d/x/y": None,
        b"s/z": None,
    }.items(),
)
def test_find(path: bytes, at: bytes | None) -> None:
    found = applied(FIND)
    expected = None
    if at is not None:
        expected = found.root
        for name in at.split(b"/") if at else ():
            expected = (expected.children or {})[name]
    assert found.find(path) is expected


@pytest.mark.parametrize("path, link", {b"s": b"d", b"dead": b"no", b"s/abs": b"/d/x"}.items())
def test_find_the_link_itself(path: bytes, link: bytes) -> None:
    node = applied(FIND).find(path, follow=False)
    assert node is not None and node.link == link


def test_find_a_parent_without_following() -> None:
    found = applied(FIND)
    assert found.find(b"d/..", follow=False) is found.root and found.find(b"..", follow=False) is found.root


def test_helper_reads_what_was_merged() -> None:
    layers = [A, file(b"a", b"upper")]
    assert told(layers, applied(*layers)) == {b"a": (b"0", *PLAIN, b"upper")}
    assert layered.stored(layers, only(*layers, at=b"a")) == b"upper"
