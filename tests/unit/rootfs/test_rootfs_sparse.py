"""Sparse files in layers: GNU's old form, PAX 0.0, 0.1 and 1.0, by hand and as GNU tar makes them; wrong maps."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from layered import Layer, applied, content, only
from tarmaker import END, base256, file, header, long_name, octal, padded, pax, record

from casstore.errors import BadInput, LimitExceeded

A = file(b"a", b"other")
DATA = b"1" * 512 + b"2" * 100
HOLED = bytes(1024) + b"1" * 512 + bytes(464) + b"2" * 100 + bytes(900)
EXTENTS = ((1024, 512), (2000, 100))


def old_sparse(pairs: list[tuple[int, int]], data: bytes, real: int, *, name: bytes = b"f") -> bytes:
    """GNU's header of type S, its map going on in blocks of 21."""
    table = [octal(offset, 12) + octal(length, 12) for offset, length in pairs]
    first, rest = b"".join(table[:4]), table[4:]
    patches = {386: first, 482: bytes([bool(rest)]), 483: octal(real, 12)}
    out = header(name, len(data), b"S", magic=b"ustar  \0", patches=patches)
    while rest:
        out += b"".join(rest[:21]).ljust(504, b"\0") + bytes([len(rest) > 21]) + bytes(7)
        rest = rest[21:]
    return out + padded(data)


def pax_00() -> bytes:
    records = [(b"GNU.sparse.size", b"3000"), (b"GNU.sparse.numblocks", b"2")]
    for offset, length in EXTENTS:
        records += [(b"GNU.sparse.offset", b"%d" % offset), (b"GNU.sparse.numbytes", b"%d" % length)]
    return pax(*records) + file(b"f", DATA)


def pax_01(text: bytes = b"1024,512,2000,100", data: bytes = DATA, size: bytes = b"3000", **fields: Any) -> bytes:
    named = [(b"GNU.sparse.name", b"f"), (b"GNU.sparse.size", size), (b"GNU.sparse.map", text)]
    return pax(*named) + file(b"GNUSparseFile.1/f", data, **fields)


def pax_10(text: bytes = b"2\n1024\n512\n2000\n100\n", data: bytes = DATA, size: bytes = b"3000") -> bytes:
    named = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", b"f")]
    return pax(*named, (b"GNU.sparse.realsize", size)) + file(b"GNUSparseFile.0/f", padded(text) + data)


MANY = [(1024 * n, 7) for n in range(60)]
SPARSE = {
    "old": old_sparse([*EXTENTS, (3000, 0)], DATA, 3000),
    "old, extended headers before it": long_name(b"f")
    + pax((b"c", b"d"), kind=b"g")
    + old_sparse(list(EXTENTS), DATA, 3000, name=b"z"),
    "0.0": pax_00(),
    "0.1": pax_01(),
    "1.0": pax_10(),
    "1.0, ended": pax_10(b"3\n1024\n512\n2000\n100\n3000\n0\n"),
}


@pytest.mark.parametrize("data", SPARSE.values(), ids=SPARSE)
def test_sparse(data: bytes) -> None:
    for after in (b"", A + END):
        node = only(data + after)
        assert content([data], node) == HOLED and node.size == 3000
        assert [one for one in node.extents or () if one[1]] == list(EXTENTS)


def test_sparse_with_many_extents() -> None:
    held = b"".join(b"%07d" % n for n in range(60))
    flat = b",".join(b"%d,%d" % one for one in MANY)
    lines = b"60\n" + b"".join(b"%d\n%d\n" % one for one in MANY)
    for data in (
        old_sparse(MANY, held, 70000),
        pax_01(flat, held, b"70000"),
        pax_10(lines, held, b"70000"),
    ):
        node = only(data)
        assert node.extents == tuple(MANY) and node.size == 70000
        assert content([data], node)[1024 * 59 :][:8] == b"0000059\0"


def test_sparse_of_holes_only() -> None:
    for data in (pax_01(b"", b"", b"5000"), pax_10(b"0\n", b"", b"5000"), pax_10(b"1\n5000\n0\n", b"", b"5000")):
        assert content([data], only(data)) == bytes(5000)


WRONG_MAPS = {
    "overlap": pax_01(b"0,300,200,312"),
    "backwards": pax_01(b"2000,100,0,512"),
    "beyond the end": pax_01(b"0,512,2950,100"),
    "more than is there": pax_01(b"0,512"),
    "less than is there": pax_01(b"0,512,600,200"),
    "odd": pax_01(b"0,512,600"),
    "no number": pax_01(b"0,512,x,100"),
    "a sign": pax_01(b"0,512,-600,100"),
    "a number too large": pax_01(b"0,512,99999999999999999999,100"),
    "1.0 without its end": pax_10(b"9\n1024\n512\n"),
    "1.0 without a count": pax_10(b"x\n"),
    "1.0, a negative count": pax_10(b"-1\n"),
    "1.0, no map": pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"9"))
    + header(b"f"),
    "0.0, no map": pax((b"GNU.sparse.major", b"0"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.size", b"9"))
    + file(b"f", b"1"),
    "old, overlap": old_sparse([(0, 300), (200, 312)], bytes(612), 3000),
    "old, base-256 negative": header(b"f", 0, b"S", patches={386: base256(-5, 12) + octal(5, 12), 483: octal(9, 12)}),
    "old, no number": header(b"f", 0, b"S", patches={386: b"zz".ljust(24, b"1"), 483: octal(9, 12)}),
}


@pytest.mark.parametrize("data", WRONG_MAPS.values(), ids=WRONG_MAPS)
def test_wrong_maps(data: bytes) -> None:
    with pytest.raises(BadInput, match=r"f: (invalid sparse map|a sparse file without a map)") as caught:
        applied(A + data)
    assert caught.value.offset == len(A)


def test_versions_unknown_are_plain_files() -> None:
    odd = pax((b"GNU.sparse.major", b"2"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.map", b"0,1")) + file(
        b"f", b"123"
    )
    assert content([odd], only(odd)) == b"123"


def test_maps_end_at_a_mebibyte() -> None:
    lines = b"%d\n" % (1 << 40) + b"0\n" * (1 << 20)
    with pytest.raises(LimitExceeded, match="f: a sparse map of more than 1 MiB"):
        applied(pax_10(lines, b"", b"5000"))
    block = (octal(0, 12) + octal(1, 12)) * 21 + b"\1" + bytes(7)
    first = header(b"f", 0, b"S", magic=b"ustar  \0", patches={386: octal(0, 12) * 2, 482: b"\1", 483: octal(9, 12)})
    with pytest.raises(LimitExceeded, match="f: a sparse map of more than 1 MiB"):
        applied(first + block * 2100 + bytes(512))
    huge = record(b"comment", b"x" * (1 << 20) + b"xx")
    with pytest.raises(BadInput, match="f: an extended header of more than 1 MiB"):
        applied(header(b"x", len(huge), b"x") + padded(huge) + file(b"f", b""))


@pytest.mark.parametrize(
    "options",
    [["--format=gnu"], *(["--format=pax", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0"))],
    ids=" ".join,
)
@pytest.mark.parametrize("pieces", [0, 3, 50])
def test_gnu_tar(options: list[str], pieces: int, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    made = tmp_path / "in" / ("long" * 40)
    with made.open("wb") as out:
        for n in range(pieces):
            out.seek(n * (1 << 18) + 100)
            out.write(b"%04d" % n * 500)
        out.truncate(16 << 20)
    command = ["tar", "--sparse", *options, "-C", tmp_path / "in", "-cf", tmp_path / "made.tar", made.name, "."]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as reason:
        pytest.skip(f"no GNU tar here: {reason}")
    data = (tmp_path / "made.tar").read_bytes()
    # What tar was given twice is a hard link to itself, or the same file once more: up to its first entry.
    end = Layer(data).entries[1].header
    node = only(data[:end], at=made.name.encode())
    assert content([data], node) == made.read_bytes() and node.extents is not None
    assert node.stored < 1 << 20
