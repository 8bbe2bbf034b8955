"""Random stacks of layers: the merged tree is that of a naive oracle, its tar is read by others as the same tree, and
so is the folder that it is written into."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layered import Layer, applied, content, joined, packed, told
from tarmaker import base256, file, header, octal, padded, pax

from casstore.errors import BadInput
from casstore.rootfs import folder
from casstore.rootfs.node import FILE, Node, walk
from casstore.rootfs.tree import Tree

SECOND = 1_000_000_000

# -- what layers are made of


@dataclass(frozen=True)
class One:
    """An entry. `what`: bytes of a file, target of a link, numbers of a device; `holes`: (offset, bytes)."""

    path: bytes
    kind: bytes
    what: Any = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    extents: tuple[tuple[int, int], ...] | None = None
    size: int = 0

    def raw(self) -> bytes:
        records = [(b"path", self.path), (b"mtime", f"{Decimal(self.mtime) / SECOND:f}".encode())]
        records += [(b"SCHILY.xattr." + key, value) for key, value in self.xattrs]
        fields: dict[str, Any] = {"mode": self.mode, "uid": base256(self.uid, 8), "gid": base256(self.gid, 8)}
        data = b""
        if self.kind in (b"1", b"2"):
            records.append((b"linkpath", self.what))
        elif self.kind in (b"3", b"4"):
            fields["patches"] = {329: octal(self.what[0], 8), 337: octal(self.what[1], 8)}
        elif self.kind == b"0":
            data = self.what
            if self.extents is not None:
                flat = b",".join(b"%d,%d" % each for each in self.extents)
                records += [(b"GNU.sparse.size", b"%d" % self.size), (b"GNU.sparse.map", flat)]
        return pax(*records) + header(b"x", len(data), self.kind, **fields) + padded(data)


NAMES = st.sampled_from([*[b"a"] * 4, *[b"b"] * 3, b"c", b"\xff\n", b"n" * 120])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(b"/".join)
SPELLED = st.tuples(st.sampled_from([b"", b"./", b"/", b"../", b"a/../"]), PATHS, st.sampled_from([b"", b"/"]))
LINKED = st.tuples(st.sampled_from([b"", b"/", b"../", b"../../"]), PATHS).map(b"".join)
TIMES = st.one_of(
    st.integers(-(10**18), 4 * 10**18), st.integers(0, 4_000_000_000).map(lambda s: s * SECOND), st.just(0)
)
ATTRIBUTES = st.dictionaries(
    st.sampled_from([b"user.a", b"user.b", b"trusted.t", b"user.nul"]), st.binary(max_size=20), max_size=2
)


@st.composite
def entries(draw: st.DrawFn) -> One:
    before, path, after = draw(SPELLED)
    kind = draw(st.sampled_from([b"0", b"0", b"0", b"5", b"5", b"1", b"1", b"2", b"3", b"6", b"w", b"o", b"s"]))
    if kind in (b"w", b"o"):
        head, slash, name = path.rpartition(b"/")
        hidden = b".wh..wh..opq" if kind == b"o" else b".wh." + name
        return One(head + slash + hidden, b"0")
    one = One(
        before + path + (after if kind == b"5" else b""),
        b"0" if kind == b"s" else kind,
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(st.sampled_from([0, 1, 65534, 2_097_152, 4_294_967_294])),
        gid=draw(st.sampled_from([0, 5, 3_000_000_000])),
        mtime=draw(TIMES),
        xattrs=tuple(draw(ATTRIBUTES).items()) if kind != b"1" else (),
    )
    if kind == b"0":
        return replace(one, what=draw(st.one_of(st.binary(max_size=20), st.binary(min_size=500, max_size=1100))))
    if kind == b"s":
        gaps = draw(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 700)), max_size=4))
        extents, at = [], 0
        for gap, length in gaps:
            extents.append((at + gap, length))
            at += gap + length
        held = draw(st.binary(min_size=1, max_size=1)) * sum(length for _, length in gaps)
        return replace(one, what=held, extents=tuple(extents), size=at + draw(st.integers(0, 3000)))
    if kind in (b"1", b"2"):
        return replace(one, what=draw(LINKED))
    return replace(one, what=draw(st.sampled_from([(1, 3), (4095, 1048575)])) if kind == b"3" else b"")


STACKS = st.lists(st.lists(entries(), max_size=9), min_size=1, max_size=3)


# -- the oracle: a dictionary of paths


class Refused(Exception):
    pass


@dataclass
class Oracle:
    """Every path, as a tuple of names, with the entry that stands there; a hard link stands with the first one's."""

    found: dict[tuple[bytes, ...], One] = field(default_factory=dict)
    mine: set[tuple[bytes, ...]] = field(default_factory=set)

    def apply(self, layer: list[One]) -> None:
        self.mine = set()
        for one in layer:
            *head, name = self.clean(one.path)
            if name.startswith(b".wh."):
                where = tuple(head)
                if all(self.is_folder(where[: n + 1]) for n in range(len(where))):
                    opaque = name == b".wh..wh..opq"
                    target = where if opaque else (*where, name[4:])
                    self.clear(target, itself=not opaque)
        for one in layer:
            names = self.clean(one.path)
            if not names[-1].startswith(b".wh."):
                self.place(one, names)

    @staticmethod
    def clean(path: bytes) -> list[bytes]:
        names: list[bytes] = []
        for name in path.split(b"/"):
            if name == b"..":
                names = names[:-1]
            elif name not in (b"", b"."):
                names.append(name)
        return names

    def is_folder(self, path: tuple[bytes, ...]) -> bool:
        return not path or (path in self.found and self.found[path].kind == b"5")

    def clear(self, path: tuple[bytes, ...], *, itself: bool) -> None:
        for each in [p for p in self.found if p[: len(path)] == path and (itself or p != path)]:
            del self.found[each]

    def follow(self, at: tuple[bytes, ...], names: list[bytes], budget: list[int]) -> tuple[bytes, ...]:
        for n, name in enumerate(names):
            if name == b"..":
                at = at[:-1]
                continue
            if not self.is_folder(at) or (*at, name) not in self.found:
                raise Refused
            there = self.found[(*at, name)]
            if there.kind != b"2":
                at = (*at, name)
                continue
            budget[0] -= 1
            if budget[0] < 0:
                raise Refused
            target = [each for each in there.what.split(b"/") if each not in (b"", b".")]
            return self.follow(() if there.what[:1] == b"/" else at, target + names[n + 1 :], budget)
        return at

    def place(self, one: One, names: list[bytes]) -> None:
        at: tuple[bytes, ...] = ()
        for name in names[:-1]:
            here = (*at, name)
            if here not in self.found or (self.found[here].kind != b"5" and here not in self.mine):
                self.found[here] = One(b"", b"5", mode=0o755)
            if self.found[here].kind == b"2":
                here = self.follow(at, [name], [40])
            if not self.is_folder(here):
                raise Refused
            at = here
        here = (*at, names[-1])
        if here in self.mine:
            raise Refused
        if one.kind == b"1":
            target = self.clean(one.what)
            if not target:
                raise Refused
            end = (*self.follow((), target[:-1], [40]), target[-1])
            if end not in self.found or self.is_folder(end):
                raise Refused
            one = self.found[end]
        if one.kind != b"5" and self.is_folder(here):
            if any(each[: len(here)] == here for each in self.mine):
                raise Refused
            self.clear(here, itself=True)
        self.found[here] = one
        self.mine.add(here)

    def told(self) -> dict[bytes, tuple[Any, ...]]:
        result: dict[bytes, tuple[Any, ...]] = {}
        first: dict[int, bytes] = {}
        for path in sorted(self.found):
            one, joined_path = self.found[path], b"/".join(path)
            if one.kind != b"5" and first.setdefault(id(one), joined_path) is not joined_path:
                result[joined_path] = (b"1", first[id(one)])
                continue
            what = one.what if one.kind in (b"0", b"2", b"3") else b"" if one.kind == b"5" else one.what
            if one.extents is not None:
                whole, begin = bytearray(one.size), 0
                for offset, length in one.extents:
                    whole[offset : offset + length] = one.what[begin : begin + length]
                    begin += length
                what = bytes(whole)
            if one.kind in (b"5", b"6"):
                what = (0, 0)
            mtime = max(-(1 << 63), min(one.mtime, (1 << 63) - 1))
            result[joined_path] = (one.kind, one.mode, one.uid, one.gid, mtime, dict(one.xattrs), what)
        return result


def accepted(stack: list[list[One]]) -> list[list[One]]:
    """The stack without the entries that are refused."""
    kept: list[list[One]] = []
    for layer in stack:
        kept.append([])
        for one in layer:
            kept[-1].append(one)
            oracle = Oracle()
            try:
                for each in kept:
                    oracle.apply(each)
            except Refused:
                kept[-1].pop()
    return kept


SOUND = st.lists(st.lists(entries(), max_size=14), min_size=1, max_size=3).map(accepted)


def stacked(stack: list[list[One]]) -> list[bytes]:
    return [b"".join(one.raw() for one in layer) for layer in stack]


def merged(stack: list[list[One]]) -> tuple[list[bytes], Tree]:
    """The layers and their tree."""
    layers = stacked(stack)
    return layers, applied(*layers)


@settings(max_examples=600, deadline=None)
@given(st.one_of(STACKS, SOUND))
def test_the_tree_is_the_oracles(stack: list[list[One]]) -> None:
    oracle, tree = Oracle(), Tree()
    layers = stacked(stack)
    for layer, data in zip(stack, layers, strict=True):
        try:
            oracle.apply(layer)
        except Refused:
            with pytest.raises(BadInput):
                tree.apply(Layer(data))
            return
        tree.apply(Layer(data))
    assert told(layers, tree) == oracle.told()


def read_by_tarfile(data: bytes) -> dict[bytes, tuple[Any, ...]]:
    """As `layered.told`, by Python's tarfile."""
    found: dict[bytes, tuple[Any, ...]] = {}
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as archive:
        for info in archive:
            path = os.fsencode(info.name)
            if info.type == tarfile.LNKTYPE:
                found[path] = (b"1", os.fsencode(info.linkname))
                continue
            what: Any = (info.devmajor, info.devminor) if info.ischr() or info.isblk() else (0, 0)
            if info.isfile():
                held = archive.extractfile(info)
                assert held is not None
                what = held.read()
            elif info.issym():
                what = os.fsencode(info.linkname)
            xattrs = {
                os.fsencode(key[13:]): os.fsencode(value)
                for key, value in info.pax_headers.items()
                if key.startswith("SCHILY.xattr.")
            }
            kind = b"0" if info.isfile() else info.type
            mtime = int(Decimal(info.pax_headers.get("mtime", str(info.mtime))) * SECOND)
            found[path] = (kind, info.mode, info.uid, info.gid, mtime, xattrs, what)
    return found


@settings(max_examples=300, deadline=None)
@given(SOUND)
def test_the_tar_is_read_as_the_tree(stack: list[list[One]]) -> None:
    layers, tree = merged(stack)
    data = packed(layers, tree)
    expected = told(layers, tree)
    assert read_by_tarfile(data) == expected
    assert list(read_by_tarfile(data)) == list(expected)  # in the same order
    assert told([data], applied(data)) == expected
    assert packed([data], applied(data)) == data


# -- written into a folder


def shown_attributes(path: bytes) -> dict[bytes, bytes]:
    return {
        os.fsencode(k): os.getxattr(path, k, follow_symlinks=False) for k in os.listxattr(path, follow_symlinks=False)
    }


def check_written(layers: list[bytes], tree: Tree, top: bytes, unpacked: folder.Unpacked) -> None:
    """What lies in a folder is the tree, or was told not to be."""
    nodes = dict(walk(tree.root))
    there = sorted((at + b"/" + name)[len(top) + 1 :] for at, ds, fs in os.walk(top) for name in ds + fs)
    told_devices = {path for path, node in nodes.items() if node.kind in (b"3", b"4")} - set(there)
    assert sorted(set(nodes) - told_devices) == there and len(unpacked.devices) == len(told_devices)
    inodes: dict[Node, int] = {}
    missing_xattrs = 0
    for path, node in [*nodes.items(), (b"", tree.root)]:
        if path in told_devices:
            continue
        at = top + b"/" + path if path else top
        found = os.lstat(at)
        kinds = {b"0": stat.S_IFREG, b"2": stat.S_IFLNK, b"3": stat.S_IFCHR, b"5": stat.S_IFDIR, b"6": stat.S_IFIFO}
        assert stat.S_IFMT(found.st_mode) == kinds[node.kind]
        if node.kind != b"2":
            assert stat.S_IMODE(found.st_mode) == node.mode, path
        assert (found.st_uid, found.st_gid) == (node.uid, node.gid)
        assert found.st_mtime_ns == node.mtime, path
        assert inodes.setdefault(node, found.st_ino) == found.st_ino
        missing_xattrs += shown_attributes(at) != node.xattrs
        if node.kind == FILE:
            with open(at, "rb") as held:
                assert held.read() == content(layers, node)
        elif node.kind == b"2":
            assert os.fsencode(Path(os.fsdecode(at)).readlink()) == node.link
        elif node.kind == b"3":
            assert (os.major(found.st_rdev), os.minor(found.st_rdev)) == node.device
    assert len(set(inodes.values())) == len(inodes)
    assert missing_xattrs == 0 or unpacked.xattrs
    assert unpacked.files == len(nodes)


def streamed(layers: list[bytes], tree: Tree) -> folder.Bytes:
    """The bytes of the files, in pieces that end anywhere."""

    def pieces() -> Iterator[memoryview]:
        whole = memoryview(joined(layers, folder.wanted(tree.root)))
        for at in range(0, len(whole), 700):
            yield whole[at : at + 700]

    return folder.Bytes(pieces())


@pytest.mark.skipif(os.geteuid() != 0, reason="owners and devices need root")
@settings(max_examples=150, deadline=None)
@given(SOUND)
def test_the_folder_is_the_tree(stack: list[list[One]]) -> None:
    layers, tree = merged(stack)
    for node in dict(walk(tree.root)).values():  # within what every file system keeps
        node.mtime = max(min(node.mtime, 4 * 10**18), -(10**18))
    with tempfile.TemporaryDirectory() as base:
        top = Path(base) / "rootfs"
        unpacked = folder.write(tree.root, top, streamed(layers, tree))
        try:
            check_written(layers, tree, os.fsencode(top), unpacked)
        finally:
            shutil.rmtree(top)


def test_one_sparse_layer_for_sure() -> None:
    """That the generator above makes sparse files at all, and the helpers fill them."""
    data = One(b"s", b"0", b"xy", extents=((10, 1), (3000, 1)), size=5000).raw() + file(b"z", b"1")
    ((_, node), _) = walk(applied(data).root)
    assert content([data], node) == bytes(10) + b"x" + bytes(2989) + b"y" + bytes(1999)
