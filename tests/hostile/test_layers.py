"""Layers that an engine would refuse, or be fooled by, when it applies them (BEHAVIOUR §5): here they are bytes. Each
is loaded as a layer of an image, and given back bit for bit however it is asked for, before and after `gc`."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
import sample
from running import Cas
from streams import END, header, member, padded, pax, record

FILE = member(b"f", b"content of f")
FOLDER = header(b"d/", kind=b"5")
GNU = b"ustar  \0"


def broken(block: bytes, at: int) -> bytes:
    """A header whose checksum is wrong."""
    return block[:at] + bytes([block[at] ^ 1]) + block[at + 1 :]


def signed(block: bytes) -> bytes:
    """A header whose checksum is a sum of signed bytes, as some old writers make it."""
    total = sum(byte - 256 * (byte > 127) for byte in block[:148] + block[156:]) + 8 * 32
    return block[:148] + b"%06o\0 " % total + block[156:]


def sparse_pax(version: tuple[int, int], body: bytes, **records: bytes) -> bytes:
    major, minor = version
    keys = [(b"GNU.sparse.major", b"%d" % major), (b"GNU.sparse.minor", b"%d" % minor)]
    keys += [(b"GNU.sparse." + key.encode(), value) for key, value in records.items()]
    return pax(*keys) + member(b"GNUSparseFile.0/s", body)


def sparse_00() -> bytes:
    pairs = [(b"GNU.sparse.offset", b"0"), (b"GNU.sparse.numbytes", b"1"), (b"GNU.sparse.offset", b"9999")]
    pairs += [(b"GNU.sparse.numbytes", b"1")]
    return pax((b"GNU.sparse.size", b"10000"), (b"GNU.sparse.numblocks", b"2"), *pairs) + member(b"s", b"xy")


def raw_pax(body: bytes) -> bytes:
    return member(b"PaxHeaders/x", body, b"x")


def link(name: bytes, target: bytes, kind: bytes = b"2") -> bytes:
    return header(name, kind=kind, link=target)


def number(value: int, width: int = 8) -> bytes:
    """Base-256, as GNU writes what octal cannot."""
    return (
        ((1 << 8 * width - 1) | value).to_bytes(width, "big")
        if value >= 0
        else value.to_bytes(width, "big", signed=True)
    )


LAYERS: dict[str, bytes] = {
    # whiteouts
    "a whiteout": member(b"d/.wh.x"),
    "a whiteout of nothing": member(b".wh.nothing"),
    "a file and then its whiteout": FILE + member(b".wh.f"),
    "a whiteout and then its file": member(b".wh.f") + FILE,
    "whiteouts of no name, of . and of ..": member(b"d/.wh.") + member(b"d/.wh..") + member(b"d/.wh..."),
    "a whiteout that is a folder": header(b".wh.foo/", kind=b"5"),
    "a whiteout that is a symlink": link(b".wh.foo", b"/etc/passwd"),
    "a whiteout with content": member(b".wh.foo", b"not empty"),
    "opaque at the end": FOLDER + member(b"d/f", b"f") + member(b"d/.wh..wh..opq"),
    "opaque at the root": member(b".wh..wh..opq") + FILE,
    "aufs' metadata": header(b".wh..wh.plnk/", kind=b"5")
    + member(b".wh..wh.plnk/234.567", b"linked")
    + link(b"f", b".wh..wh.plnk/234.567", b"1"),
    "overlay's whiteout forged: a device 0:0": header(b"f", kind=b"3", at329=b"0000000\0" * 2),
    "overlay's attributes forged": pax((b"SCHILY.xattr.trusted.overlay.opaque", b"y"))
    + FOLDER
    + pax((b"SCHILY.xattr.user.overlay.redirect", b"/etc"))
    + FOLDER,
    # kinds that change
    "a folder, a file, a symlink of one name": FOLDER + member(b"d", b"file") + link(b"d", b"e") + FOLDER,
    "the same name thrice": FILE + member(b"./f", b"again") + member(b"././/f", b"once more"),
    "a file below a symlink of the same layer": link(b"d", b"e") + header(b"e/", kind=b"5") + member(b"d/x", b"x"),
    # paths that climb (CVE-2014-6407, 2014-9356, 2018-15664, 2021-32760, 2025-47290)
    "a symlink to the root, and a file through it": link(b"out", b"/") + member(b"out/etc/cron.d/x", b"* * * * *"),
    "a symlink upwards, and a file through it": link(b"d", b"../../../..") + member(b"d/etc/passwd", b"root::0:0"),
    "a symlink that is replaced while it is used": link(b"a", b"b") + member(b"a/x", b"1") + link(b"a", b"/etc"),
    "a name that climbs": member(b"../../../../etc/passwd", b"root::0:0"),
    "an absolute name": member(b"/etc/passwd", b"root::0:0"),
    "a PAX path that climbs": pax((b"path", b"../" * 40 + b"etc/passwd")) + FILE,
    "a PAX link that climbs": pax((b"linkpath", b"../" * 40 + b"etc/passwd")) + link(b"l", b"short"),
    "a symlink named . (CVE-2021-29136)": link(b".", b"/etc") + FILE,
    "a symlink named / (CVE-2021-29136)": link(b"/", b"/etc") + FILE,
    "folders .. and .": header(b"../", kind=b"5", at100=b"0000777\0") + header(b"./", kind=b"5", at100=b"0000000\0"),
    "an implicit parent": member(b"nowhere/below/f", b"f"),
    "a hard link that is absolute": FILE + link(b"l", b"/f", b"1"),
    "a hard link that climbs": FILE + link(b"l", b"../../f", b"1"),
    "a hard link through a symlink (CVE-2025-4330)": link(b"d", b"/etc") + link(b"l", b"d/shadow", b"1"),
    "a hard link forward": link(b"l", b"f", b"1") + FILE,
    "a hard link to nothing, to a folder, to itself": link(b"l", b"nothing", b"1")
    + FOLDER
    + link(b"m", b"d/", b"1")
    + link(b"n", b"n", b"1"),
    "symlinks longer than a path may be (CVE-2025-4517)": pax((b"linkpath", b"/".join([b"d" * 247] * 16)))
    + link(b"long", b"x")
    + pax((b"linkpath", b"long/" + b"../" * 16 + b"etc"))
    + link(b"escape", b"x")
    + member(b"escape/f", b"f"),
    "symlinks in a circle": link(b"a", b"b") + link(b"b", b"a") + member(b"a/b/a/f", b"f"),
    # owners, times, modes (CVE-2024-40635, 2026-46680)
    "uid 3,000,000,000": header(b"f", at108=number(3 * 10**9)) + pax((b"uid", b"3000000000")) + FILE,
    "uid 4294967294": header(b"f", at108=number(2**32 - 2)),
    "uid -1": header(b"f", at108=number(-1)) + pax((b"uid", b"-1")) + FILE,
    "uid 4294967295": header(b"f", at108=number(2**32 - 1)),
    "uid 4294967296": header(b"f", at108=number(2**32)) + pax((b"uid", b"4294967296")) + FILE,
    "times before, of nanoseconds, and of later": header(b"f", at136=number(-(10**9), 12))
    + pax((b"mtime", b"1700000000.123456789"))
    + FILE
    + header(b"f", at136=number(10**15, 12)),
    "a mode of all bits": header(b"f", at100=b"7777777\0") + header(b"f", at100=number(2**60 - 1)),
    "a file with capabilities": pax((b"SCHILY.xattr.security.capability", bytes(range(1, 21)))) + FILE,
    # names
    "a PAX path of 5000, parts of 256": pax((b"path", b"/".join([b"n" * 256] * 20))) + FILE,
    "GNU long name and long link": member(b"././@LongLink", b"n/" * 2000 + b"n\0", b"L", magic=GNU)
    + member(b"././@LongLink", b"l/" * 2000 + b"l\0", b"K", magic=GNU)
    + link(b"n", b"l"),
    "names that are no UTF-8, newlines, escapes": member(b"\xff\xfe\n\x1b[31m\\\"'")
    + pax((b"path", b"\xc3\x28\n"))
    + FILE,
    "no name at all": member(b"") + header(b"", kind=b"5"),
    "a NUL in a PAX path": pax((b"path", b"a\0b")) + FILE,
    "a NUL in a PAX key": raw_pax(record(b"pa\0th", b"x")) + FILE,
    "PAX without an end": raw_pax(b"30 path=short") + FILE,
    "PAX of length 0, of -1, of 2^64": raw_pax(b"0 a=b\n")
    + raw_pax(b"-1 a=b\n")
    + raw_pax(b"18446744073709551616 a=b\n")
    + FILE,
    "PAX that says its size again": pax((b"size", b"3")) + FILE + pax((b"size", b"999999999999")) + FILE,
    "PAX sizes that are none": pax((b"size", b"-5")) + FILE + pax((b"size", b"0x10")) + FILE,
    "PAX global": pax((b"path", b"all"), (b"comment", b"c"), kind=b"g") + FILE,
    "a PAX header of a PAX header": pax((b"path", b"a"))
    + pax((b"path", b"b"))
    + pax((b"path", b"c"), kind=b"g")
    + FILE,
    "a PAX header at the end": FILE + pax((b"path", b"nothing follows")),
    # sparse files (CVE-2025-58183)
    "sparse, GNU": header(
        b"s", 2, b"S", magic=GNU, at386=b"%011o\0%011o\0%011o\0%011o\0" % (0, 1, 9999, 1), at483=b"%011o\0" % 10_000
    )
    + padded(b"xy"),
    "sparse, GNU, more pieces than there are": header(
        b"s", 0, b"S", magic=GNU, at386=(b"%011o\0" % 7) * 8, at482=b"\1", at483=b"%011o\0" % 10
    ),
    "sparse, PAX 0.0": sparse_00(),
    "sparse, PAX 0.1": sparse_pax((0, 1), b"xy", map=b"0,1,9999,1", size=b"10000", name=b"s", numblocks=b"2"),
    "sparse, PAX 1.0": sparse_pax((1, 0), padded(b"2\n0\n1\n9999\n1\n") + b"xy", name=b"s", realsize=b"10000"),
    "sparse, PAX 1.0, of more pieces than there are": sparse_pax(
        (1, 0), padded(b"99999999999999\n0\n1\n"), name=b"s", realsize=b"-1"
    ),
    "sparse, PAX 0.1, pieces over each other": sparse_pax(
        (0, 1), b"xy", map=b"5,1,0,9223372036854775807", size=b"1", name=b"s"
    ),
    # kinds
    "types 7, V, Z, and of no ASCII": b"".join(member(b"f", b"content", kind) for kind in (b"7", b"V", b"Z", b"\xff")),
    "a volume label, a multi-volume part": member(b"label", b"", b"V", magic=GNU)
    + member(b"f", b"rest", b"M", magic=GNU),
    "v7 and type NUL": member(b"f", b"old", b"\0", magic=bytes(8)) + header(b"d/", kind=b"\0", magic=bytes(8)),
    "devices, a pipe": header(b"c", kind=b"3") + header(b"b", kind=b"4", at329=number(-1)) + header(b"p", kind=b"6"),
    "a folder, a symlink and links with data": b"".join(
        member(b"x", b"data", kind) for kind in (b"1", b"2", b"5", b"3")
    ),
    # broken tars
    "a wrong checksum": FILE + broken(header(b"g", 5), 3) + padded(b"12345") + FILE,
    "a checksum of letters": FILE + header(b"g")[:148] + b"letters\0" + header(b"g")[156:] + FILE,
    "a checksum of signed bytes": signed(header(b"n\xff" * 20)) + FILE,
    "a negative size": FILE + header(b"g", at124=number(-512, 12)) + FILE,
    "a negative size, octal": FILE + header(b"g", at124=b"-0000001000\0") + FILE,
    "a size of 2^95": FILE + header(b"g", at124=b"\x80" + b"\xff" * 11) + FILE,
    "a size of 2^63": FILE + header(b"g", at124=number(2**63, 12)) + FILE,
    "a size larger than what follows": FILE + header(b"g", 1 << 40) + b"short",
    "cut in a header": FILE + header(b"g")[:300],
    "cut in a padding": FILE[:-1],
    "no end": FILE,
    "one zero block, then more": FILE + bytes(512) + FILE,
    "two zero blocks, then a second tar": FILE + END + member(b"g", b"second"),
    "what lies behind the end": FILE + END + sample.noise("behind", 3001),
    "zeros and nothing else": bytes(10_240),
    "a tar in a tar": member(b"inner.tar", FILE + END) + FILE,
    "a gzip in parts, and what is none": sample.gz(FILE) + sample.gz(FILE) + b"trailing garbage",
    "a gzip of no content": sample.gz(b""),
    "an archive of images": sample.docker_archive(sample.image("inner", ["inner:1"])),
    "what other writers make of it": sample.tar(
        [sample.entry("../" * 30 + "f", b"f"), sample.entry("l", kind=tarfile.LNKTYPE, linkname="/f")]
    ),
}
NAMES = list(LAYERS)
BATCH = 8


def inside(layer: bytes) -> bytes:
    """The uncompressed stream."""
    if layer[:2] != b"\x1f\x8b":
        return layer
    return FILE * 2 if b"trailing" in layer else b""


def archive(name: str, tag: str, layer: bytes) -> bytes:
    """An archive of an image whose top layer it is."""
    one = sample.image(name, [tag], [sample.files({"below": b"below"}), inside(layer)])
    members = sample.docker_members([one])
    return sample.plain_tar({path: layer if data == inside(layer) else data for path, data in members.items()})


@pytest.mark.parametrize("pack", ["now", "later"])
@pytest.mark.parametrize("first", range(0, len(NAMES), BATCH), ids=lambda n: "; ".join(NAMES[n : n + BATCH]))
def test_kept_bit_for_bit(cas: Cas, tmp_path: Path, first: int, pack: str) -> None:
    given: dict[str, bytes] = {}
    for number, name in enumerate(NAMES[first : first + BATCH]):
        tag = f"layer:{number}"
        given[tag] = LAYERS[name]
        (tmp_path / "in.tar").write_bytes(archive(name, tag, given[tag]))
        cas("load", "--pack", pack, "-i", tmp_path / "in.tar")
    archives = {}
    for _ in ("as loaded", "after gc"):
        for tag, layer in given.items():
            assert cas("blob", "cat", sample.digest(layer)).raw == layer
            saved = cas("save", tag).raw
            assert archives.setdefault(tag, saved) == saved
            ((tags, layers),) = sample.saved_images(saved).values()
            assert tags == [tag] and layers[1] == layer
            cas("verify", tag)
        assert cas("check", "--read-data").out == "No problems found\n"
        cas("gc", "--grace", "0")
    cas("rmi", *given)
    cas("gc", "--grace", "0")
    assert cas("blob", "ls", "--format", "{{.Digest}}").lines == []


@pytest.mark.parametrize("name", NAMES)
def test_imported(cas: Cas, tmp_path: Path, name: str) -> None:
    """As a root file system, in a legacy archive too: what is a gzip is unpacked."""
    (tmp_path / "root.tar").write_bytes(LAYERS[name])
    cas("import", tmp_path / "root.tar", "root:1")
    content = inside(LAYERS[name])
    assert cas("blob", "cat", sample.digest(content)).raw == content
    saved = cas("save", "--format", "legacy", "root:1").raw
    ((_, layers),) = sample.saved_images(saved).values()
    assert layers == [content]
