"""Headers of the outer tar: what is made reads back everywhere, what is broken is told with its place."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casstore.errors import BadInput, CasstoreError, LimitExceeded
from casstore.transport import tar
from casstore.transport.archive import TarFile, open_source


class Cursor:
    """Over bytes; payloads may be absent beyond the end if `sparse`."""

    def __init__(self, data: bytes, lenient: bool = False) -> None:
        self._data = data
        self._lenient = lenient
        self.position = 0

    def read(self, length: int) -> bytes:
        data = self._data[self.position : self.position + length]
        self.position += len(data)
        return data

    def skip(self, length: int) -> None:
        self.position += length
        if self.position > len(self._data) and not self._lenient:
            raise BadInput("unexpected EOF", offset=len(self._data))


def walk(data: bytes, lenient: bool = False) -> list[tar.Header]:
    return list(tar.walk(Cursor(data, lenient), "x.tar"))


def packed(format: int, *infos: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for info in infos:
            archive.addfile(info, io.BytesIO(b"x" * info.size) if info.isreg() else None)
    return out.getvalue()


def info(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.size, found.type, found.linkname = size, kind, link
    return found


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=300).filter(
    lambda name: name == name.rstrip("/")
)


@given(
    NAMES,
    st.sampled_from([tar.FILE, tar.FOLDER, tar.SYMLINK]),
    st.integers(0, 1 << 40),
    st.integers(-9, 1 << 40),
)
def test_made_headers_read_back(name: str, kind: str, size: int, mtime: int) -> None:
    size = size if kind == tar.FILE else 0
    link = name[::-1] if kind == tar.SYMLINK else ""
    made = tar.make_header(name, kind, size, mtime, link)
    assert len(made) % 512 == 0
    (header,) = walk(made, lenient=True)
    assert (header.name, header.kind, header.size, header.link) == (name, kind, size, link)
    assert (header.start, header.data, header.sparse) == (0, len(made), False)
    theirs = tarfile.open(fileobj=io.BytesIO(made + bytes(1024))).next()  # noqa: SIM115
    assert theirs is not None
    if "/" not in name[-1:] and not name.endswith("/"):
        assert theirs.name == name
    assert theirs.size == size
    assert theirs.linkname == link
    assert (theirs.uid, theirs.gid, theirs.uname, theirs.gname) == (0, 0, "root", "root")
    assert theirs.mtime == min(max(0, mtime), 8**11 - 1)


def test_eight_gibibytes() -> None:
    edge = 8 << 30
    assert len(tar.make_header("a", tar.FILE, edge - 1, 0)) == 512
    made = tar.make_header("a", tar.FILE, edge, 0)
    assert len(made) == 512 * 3
    assert b"19 size=8589934592\n" in made
    assert walk(made, lenient=True)[0].size == edge


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_other_writers(format: int) -> None:
    long = "d/" * 40 + "x" * 90 if format == tarfile.USTAR_FORMAT else "d/" * 200 + "x" * 200
    data = packed(
        format,
        info("a", 700),
        info(long, 3),
        info("s", kind=tarfile.SYMTYPE, link="t" * 90),
        info("h", kind=tarfile.LNKTYPE, link="a"),
        info("d/", kind=tarfile.DIRTYPE),
        info("dev", kind=tarfile.CHRTYPE),
    )
    found = walk(data)
    assert [header.name.rstrip("/") for header in found] == ["a", long, "s", "h", "d", "dev"]
    assert [header.size for header in found] == [700, 3, 0, 0, 0, 0]
    assert [header.kind for header in found] == ["file", "file", "symlink", "hard link", "folder", "other"]
    assert found[2].link == "t" * 90
    assert data[found[0].data : found[0].data + 700] == b"x" * 700


def test_base_256_size() -> None:
    found = walk(packed(tarfile.GNU_FORMAT, info("a"))[:512], lenient=True)
    assert found[0].size == 0
    big = info("a")
    big.size = 9 << 30
    assert walk(big.tobuf(tarfile.GNU_FORMAT), lenient=True)[0].size == 9 << 30


def sealed(block: bytes, **at: bytes) -> bytes:
    """A header with bytes replaced (`o124=…`) and its checksum made good."""
    changed = bytearray(block)
    for place, data in at.items():
        changed[int(place[1:]) : int(place[1:]) + len(data)] = data
    changed[148:156] = b" " * 8
    changed[148:156] = b"%06o\0 " % sum(changed)
    return bytes(changed)


PLAIN = tar.make_header("a", tar.FILE, 0, 0)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (PLAIN[:500], "unexpected EOF at offset 500"),
        (b"\1" + PLAIN[1:], "invalid tar header at offset 0"),
        (PLAIN + b"\1" + PLAIN[1:], "invalid tar header at offset 512"),
        (sealed(PLAIN, o124=b"\xff" * 12), "invalid tar header"),
        (sealed(PLAIN, o124=b"-0000000001\0"), "invalid tar header"),
        (sealed(PLAIN, o124=b"9"), "invalid tar header"),
        (sealed(PLAIN, o156=b"5", o124=b"00000000001\0") + bytes(512), "a folder with data"),
        (sealed(PLAIN, o156=b"2", o124=b"00000000001\0") + bytes(512), "a symlink with data"),
        (sealed(PLAIN, o156=b"1", o124=b"00000000001\0") + bytes(512), "a hard link with data"),
        (sealed(PLAIN, o156=b"Z"), "unhandled tar header type 90"),
        (sealed(PLAIN, o124=b"00000001000\0") + b"x", "unexpected EOF"),
        (sealed(PLAIN, o156=b"x", o124=b"00000000010\0") + b"99 a=b\n\0".ljust(512), "PAX record"),
        (sealed(PLAIN, o156=b"x", o124=b"00000000010\0") + b"x".ljust(512), "PAX record"),
        (sealed(PLAIN, o156=b"x", o124=b"00000000050\0") + (b"6 a=b\n" + b"x" * 34).ljust(512), "PAX record"),
        (sealed(PLAIN, o156=b"x", o124=b"00000000012\0") + b"10 path=\0\n".ljust(512), "NUL in a PAX record"),
        (
            sealed(PLAIN, o156=b"x", o124=b"00000000012\0") + b"10 size=-\n".ljust(512, b"\0") + PLAIN,
            "PAX size",
        ),
        (
            sealed(PLAIN, o156=b"x", o124=b"00000000012\0") + b"10 size=1\n".ljust(512, b"\0"),
            "unexpected EOF",
        ),
        (bytes(512) + PLAIN, "one zero block"),
    ],
)
def test_broken(data: bytes, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        walk(data)


def test_extensions_are_bounded() -> None:
    with pytest.raises(LimitExceeded):
        walk(sealed(PLAIN, o156=b"L", o124=b"00010000000\0"), lenient=True)
    with pytest.raises(LimitExceeded):
        walk(sealed(PLAIN, o156=b"g") * 100 + PLAIN)
    with pytest.raises(LimitExceeded, match="path is longer"):
        walk(packed(tarfile.GNU_FORMAT, info("x" * 5000)))


def test_sparse_members_are_marked() -> None:
    (header,) = walk(sealed(PLAIN, o156=b"S", o257=b"ustar  \0"))
    assert header.sparse
    with_more = sealed(PLAIN, o156=b"S", o482=b"\1") + bytes(504) + b"\1" + bytes(7) + bytes(512) + PLAIN
    assert [header.name for header in walk(with_more)] == ["a", "a"]
    pax = info("a")
    pax.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.name": "real"}
    (header,) = walk(packed(tarfile.PAX_FORMAT, pax))
    assert (header.name, header.sparse) == ("real", True)


@given(st.binary(max_size=2000), st.integers(0, 4000), st.integers(0, 255))
def test_any_bytes(noise: bytes, at: int, value: int) -> None:
    good = bytearray(packed(tarfile.PAX_FORMAT, info("a" * 150, 700), info("s", kind=tarfile.SYMTYPE, link="a")))
    good[at] = value
    for data in (noise, bytes(good), noise + bytes(good)):
        try:
            for header in walk(data):
                assert header.data + header.size <= len(data)
        except CasstoreError as error:
            assert "\n" not in str(error)


def test_a_file_is_read_from_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"shell header" + packed(tarfile.USTAR_FORMAT, info("a", 5)))
    with open(path, "rb") as file:
        file.seek(12)
        with open_source(file.fileno()) as source:
            assert isinstance(source, TarFile)
            source.scan()
            assert source.read("a", 9) == b"xxxxx"
        assert not file.closed
