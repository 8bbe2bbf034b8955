"""Archives made to exhaust whoever reads them: refused with one line and nothing changed, or stored and given back bit
for bit; either way within a cap of memory and of processor time.

By default at a size that CI has time for; with HOSTILE_WHOLE=1 at the size of the attack.
"""

from __future__ import annotations

import bz2
import hashlib
import json
import lzma
import os
import shutil
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, repeat
from pathlib import Path

import pytest
import sample
from capped import SECONDS, WHOLE, Attack
from running import Rows
from streams import BLOCK, END, Archive, Flow, entries, flow, header, joined, member, noise, padded, pax, repeated

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MIB, GIB = 1 << 20, 1 << 30
CAP = GIB if WHOLE else 512 * MIB
"""Memory that no command may take more of. An honest load takes a quarter of it, a gc of a large store most."""
DEEP = b"[" * 200_000
LAYER = sample.files({"a": b"a"})
ONE = sample.image("one", ["one:1"], [LAYER])

pytestmark = pytest.mark.timeout(2 * SECONDS)


def size(whole: int, less: int) -> int:
    return whole if WHOLE else less


def tar(*members: bytes) -> Iterable[bytes]:
    return [*members, END]


def huge(name: bytes, begin: bytes = b"[") -> Iterable[bytes]:
    """A member of 1 GiB of JSON."""
    data = repeated(b'{"a":"b"},', GIB - len(begin))
    return chain([header(name, GIB), begin], data.pieces(), [END])


def document(value: bytes, begin: bytes = b"") -> Iterable[bytes]:
    """A manifest.json as large as may be, of many such values."""
    return tar(member(b"manifest.json", b"[" + begin + value * ((20 * MIB - 200) // len(value)) + b"0]"))


def squeezed(make: Callable[[], object], pieces: Iterable[bytes]) -> Iterator[bytes]:
    packer = make()
    for piece in pieces:
        yield packer.compress(piece)  # type: ignore[attr-defined]
    yield packer.flush()  # type: ignore[attr-defined]


def gzip() -> object:
    return zlib.compressobj(9, wbits=31)


ZEROS = repeated(bytes(1), size(8 * GIB, 1280 * MIB))
FRAME = zstd.compress(bytes(128 * MIB))
"""A frame that becomes 30,000 times its size."""


def named(layer: bytes, content: bytes) -> Iterable[bytes]:
    """A docker archive with these bytes as its layer, and a config that says that `content` is in it."""
    return Archive([flow(layer)], diff_ids=[sample.digest(content)])


def layout(document: bytes) -> Iterable[bytes]:
    """An OCI layout whose only manifest is these bytes."""
    one = sample.Layout()
    one.name(one.blob(document, sample.OCI_MANIFEST), "docker.io/library/one:1")
    return [one.tar()]


def bomb_linked(count: int, *, old: bool) -> Iterator[bytes]:
    """So many layers, each a link to one that becomes a thousand times its size."""
    content = repeated(bytes(1), 64 * MIB)
    yield member(b"bomb", b"".join(squeezed(gzip, content.pieces())))
    for number in range(count):
        yield header(b"%064x/layer.tar" % number, kind=b"1", link=b"bomb")
        if old:
            yield member(b"%064x/json" % number, b'{"id":"%064x"}' % number)
    if not old:
        ids = [f"sha256:{zeros_digest(content.size)}"] * count
        yield member(b"c.json", json.dumps({"os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}}).encode())
        item = {"Config": "c.json", "RepoTags": ["one:1"], "Layers": [f"{n:064x}/layer.tar" for n in range(count)]}
        yield member(b"manifest.json", json.dumps([item]).encode())
    yield END


def many_layers(count: int, config_too: bool = True, images: int = 1) -> Iterable[bytes]:
    ids = [sample.digest(LAYER)] * (count if config_too else 1)
    members, items = [member(b"l/layer.tar", LAYER)], []
    for number in range(images):
        config = {"os": "linux", "author": str(number), "rootfs": {"type": "layers", "diff_ids": ids}}
        name = f"{number}.json" if number else "c.json"
        members.append(member(name.encode(), json.dumps(config).encode()))
        items.append({"Config": name, "RepoTags": [f"one:{number + 1}"], "Layers": ["l/layer.tar"] * count})
    return tar(*members, member(b"manifest.json", json.dumps(items).encode()))


def many_descriptors(count: int) -> Iterable[bytes]:
    layer = {"mediaType": sample.OCI_LAYER, "digest": sample.digest(LAYER), "size": len(LAYER)}
    config = {"mediaType": sample.OCI_CONFIG, "digest": ONE.id, "size": len(ONE.config)}
    return layout(json.dumps({"schemaVersion": 2, "config": config, "layers": [layer] * count}).encode())


def legacy(count: int) -> Iterator[bytes]:
    """A chain of so many layers of docker 1.8."""
    for number in range(count):
        parent = f',"parent":"{number - 1:064x}"' if number else ""
        yield member(b"%064x/json" % number, b'{"id":"%064x"%s}' % (number, parent.encode()))
        yield member(b"%064x/layer.tar" % number, header(b"a"))
    yield END


def xz_that_wants_memory() -> bytes:
    """An xz stream whose dictionary is 1.5 GiB, by its header."""
    made = bytearray(lzma.compress(sample.docker_archive(ONE), format=lzma.FORMAT_XZ, check=lzma.CHECK_NONE))
    assert made[14:16] == b"\x21\x01"  # the filter LZMA2, one byte of properties
    made[16] = 37
    length = 4 * made[12]
    made[12 + length : 16 + length] = zlib.crc32(made[12 : 12 + length]).to_bytes(4, "little")
    return bytes(made)


def windowed(exponent: int) -> bytes:
    """A zstd frame of a window of 1 KiB << exponent, by its header: one raw block that is its last."""
    return b"\x28\xb5\x2f\xfd\x00" + bytes([exponent << 3]) + (1 | 5 << 3).to_bytes(3, "little") + b"hello"


REFUSED: dict[str, tuple[Callable[[], Iterable[bytes]], str]] = {
    "manifest.json of 1 GiB": (lambda: huge(b"manifest.json"), "manifest.json: larger than"),
    "index.json of 1 GiB": (lambda: huge(b"index.json", b'{"manifests":['), "index.json: larger than"),
    "oci-layout of 1 GiB (CVE-2023-25153)": (lambda: huge(b"oci-layout"), "oci-layout: larger than"),
    "repositories of 1 GiB": (lambda: huge(b"repositories", b"{"), "repositories: larger than"),
    "v1 json of 1 GiB": (lambda: huge(b"0" * 64 + b"/json", b"{"), "0" * 64),
    "nesting, manifest.json": (lambda: tar(member(b"manifest.json", DEEP)), "manifest.json: JSON is nested"),
    "nesting, index.json": (
        lambda: tar(member(b"oci-layout", sample.MARK), member(b"index.json", DEEP)),
        "index.json: JSON is nested",
    ),
    "nesting, repositories": (lambda: tar(member(b"repositories", DEEP)), "repositories: JSON is nested"),
    "nesting, v1 json": (lambda: tar(member(b"0" * 64 + b"/json", b'{"a":' + DEEP)), "/json: JSON has more than"),
    "nesting, config": (
        lambda: tar(
            member(b"c.json", b'{"rootfs":' + DEEP), member(b"manifest.json", b'[{"Config":"c.json","Layers":[]}]')
        ),
        "c.json: JSON has more than",
    ),
    "nesting, OCI manifest": (lambda: layout(b'{"a":' + DEEP), "JSON has more than"),
    "values": (lambda: document(b"0,"), "manifest.json: JSON has more than"),
    "values, texts": (lambda: document(b'"",'), "manifest.json: JSON has more than"),
    "values, objects": (lambda: document(b'{"":{}},'), "manifest.json: JSON has more than"),
    "texts without commas": (lambda: document(b'""', b"," * 100), "manifest.json: JSON has more than"),
    "values, as many as may be": (lambda: document(b'"%s",' % (b"x" * 29)), "manifest.json: invalid JSON"),
    "objects, as many as may be": (
        lambda: document(b'{"Config":"c"%s},' % (b" " * 82)),
        "manifest.json: invalid JSON: expected `object`, got `int`",
    ),
    "entries": (lambda: entries(size(10_000_000, 300_000)).pieces(), "more than 200000 members"),
    "entries with long names": (
        lambda: chain.from_iterable(
            (member(b"x", b"%06d" % n + b"n" * 4000, b"L"), header(b"x")) for n in range(size(200_000, 20_000))
        ),
        "names are longer than",
    ),
    "small members": (
        lambda: chain.from_iterable((header(b"%d" % n, 60_000), bytes(60_416)) for n in range(2000)),
        "small members take more than",
    ),
    "a claim of 10 TB": (
        lambda: [header(b"l/layer.tar", 10 << 40), bytes(size(GIB, 64 * MIB))],
        "l/layer.tar: unexpected EOF",
    ),
    "a sparse claim of 10 TB, GNU": (
        lambda: tar(
            header(b"manifest.json", 0, b"S", magic=b"ustar  \0", at483=b"\x80" + (10 << 40).to_bytes(11, "big"))
        ),
        "manifest.json: sparse members are not supported",
    ),
    "a sparse claim of 10 TB, PAX": (
        lambda: tar(
            pax(
                (b"GNU.sparse.major", b"1"),
                (b"GNU.sparse.minor", b"0"),
                (b"GNU.sparse.name", b"manifest.json"),
                (b"GNU.sparse.realsize", b"%d" % (10 << 40)),
            ),
            member(b"x", b"0\n"),
        ),
        "manifest.json: sparse members are not supported",
    ),
    "a sparse map that goes on and on (CVE-2025-58183)": (
        lambda: chain(
            [header(b"manifest.json", 0, b"S", magic=b"ustar  \0", at482=b"\1")],
            repeated(bytes(504) + b"\1" + bytes(7), size(4 * GIB, 128 * MIB)).pieces(),
        ),
        "standard input",
    ),
    "PAX records of many MiB": (lambda: [pax((b"comment", bytes(64 * MIB)))], "extended tar header too large"),
    "PAX headers one after another": (
        lambda: repeat(pax((b"comment", bytes(1000))), 100_000),
        "extended tar header too large",
    ),
    "GNU long names of many MiB": (lambda: [header(b"x", 8 * GIB, b"L")], "extended tar header too large"),
    "a gzip bomb (CVE-2017-14992)": (
        lambda: squeezed(gzip, chain([header(b"manifest.json", ZEROS.size)], ZEROS.pieces())),
        "manifest.json: larger than",
    ),
    "a gzip bomb after the end": (lambda: squeezed(gzip, chain([END], ZEROS.pieces())), "no archive of images"),
    "a zstd bomb": (lambda: repeat(FRAME, ZEROS.size // (128 * MIB)), "becomes more than 2000 times its size"),
    "an xz bomb": (
        lambda: [lzma.compress(bytes(128 * MIB))] * (ZEROS.size // (128 * MIB)),
        "becomes more than 2000 times its size",
    ),
    "a bzip2 bomb": (
        lambda: [bz2.compress(bytes(128 * MIB))] * (ZEROS.size // (128 * MIB)),
        "becomes more than 2000 times its size",
    ),
    "an xz dictionary of 1.5 GiB": (lambda: [xz_that_wants_memory()], "undecodable xz stream"),
    "a zstd window of 2 GiB": (lambda: [windowed(21)], "undecodable zstd stream"),
    "a layer that is a zstd bomb": (lambda: named(FRAME * 16, b""), "0/layer.tar"),
    "a layer that wants 2 GiB of window": (lambda: named(windowed(21), b"hello"), "zstd stream"),
    "65 k layers": (lambda: many_layers(65_536), "c.json"),
    "65 k layers, said by manifest.json only": (lambda: many_layers(65_536, False), "more than 10000 layers"),
    "65 k layers, OCI": (lambda: many_descriptors(65_536), "larger than 4194304 bytes"),
    "20 k layers, OCI": (lambda: many_descriptors(20_000), "more than 10000 layers"),
    "65 k layers, legacy": (lambda: legacy(size(65_536, 12_000)), "more than 10000 layers"),
    "a name of many MiB": (
        lambda: tar(member(b"manifest.json", json.dumps([{"Config": "c" * (9 * MIB), "Layers": []}]).encode())),
        "config is missing",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(attack: Attack, rows: Rows, held: Path, store_path: Path, case: str) -> None:
    shutil.copytree(held, store_path)
    before = rows()
    make, words = REFUSED[case]
    spent = attack("load", "-q", stdin=make(), ok=False)
    assert words in spent.err
    assert spent.peak < CAP
    assert rows() == before
    assert not list((store_path / "tmp").iterdir())


ON_DISK = [
    "manifest.json of 1 GiB",
    "v1 json of 1 GiB",
    "nesting, manifest.json",
    "values",
    "entries",
    "entries with long names",
    "a claim of 10 TB",
    "a sparse map that goes on and on (CVE-2025-58183)",
    "PAX headers one after another",
    "65 k layers, said by manifest.json only",
    "65 k layers, legacy",
]
"""Cases that are read in another way from a file."""


@pytest.mark.parametrize("case", ON_DISK)
def test_refused_in_a_file(attack: Attack, rows: Rows, held: Path, store_path: Path, tmp_path: Path, case: str) -> None:
    shutil.copytree(held, store_path)
    before = rows()
    make, _ = REFUSED[case]
    with (tmp_path / "bad.tar").open("wb") as bad:
        for piece in make():
            if len(piece) > BLOCK and not any(piece):
                bad.seek(len(piece), os.SEEK_CUR)  # a hole
            else:
                bad.write(piece)
        bad.truncate()
    spent = attack("load", "-q", "-i", tmp_path / "bad.tar", ok=False)
    assert spent.err.startswith(f"Error: {tmp_path / 'bad.tar'}: ")
    assert spent.peak < CAP
    assert rows() == before


def sparse_map(count: int) -> bytes:
    """A file of 10 TB, by its header, in so many pieces of one byte: PAX 1.0."""
    numbers = b"".join(b"%d\n1\n" % (n << 20) for n in range(count))
    return pax(
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.name", b"sparse"),
        (b"GNU.sparse.realsize", b"%d" % (10 << 40)),
    ) + member(b"x", padded(b"%d\n" % count + numbers) + b"x" * count)


def gnu_sparse_map(count: int) -> Flow:
    """The same, GNU's older form: headers that go on and on."""
    piece = (b"%011o\0" % 0 + b"%011o\0" % 1) * 21 + b"\1" + bytes(7)
    large = b"\x80" + (10 << 40).to_bytes(11, "big")
    first = header(b"x", 0, b"S", magic=b"ustar  \0", at482=b"\1", at483=large)
    return joined(flow(first), repeated(piece, count * BLOCK), flow(bytes(BLOCK) + END))


STORED: dict[str, Callable[[], list[Flow]]] = {
    "empty files": lambda: [entries(size(10_000_000, 200_000))],
    "files of a byte, all the same": lambda: [entries(size(4_000_000, 50_000), 1)],
    "files of 8 bytes, all different": lambda: [entries(size(4_000_000, 50_000), 8, alike=False)],
    "one file after another of nothing but a long name": lambda: [
        repeated(member(b"x", b"n" * 4000, b"L") + header(b"x"), size(GIB, 32 * MIB))
    ],
    "JSON": lambda: [repeated(b'{"a":["b"]},', size(GIB, 64 * MIB)), flow(DEEP)],
    "zeros": lambda: [repeated(bytes(1), size(8 * GIB, 256 * MIB))],
    "claims of 10 TB": lambda: [
        joined(entries(3), flow(header(b"x", 10 << 40)), repeated(b"cut", 5 * MIB)),
        flow(sparse_map(1) + END),
        joined(
            flow(header(b"x", 0, b"S", magic=b"ustar  \0", at483=b"\x80" + (10 << 40).to_bytes(11, "big"))), flow(END)
        ),
    ],
    "sparse maps that go on and on (CVE-2025-58183)": lambda: [
        flow(sparse_map(size(4_000_000, 400_000)) + END),
        gnu_sparse_map(size(2_000_000, 50_000)),
    ],
    "PAX records of many MiB": lambda: [
        flow(pax((b"comment", b"c" * (64 * MIB))) + header(b"a") + END),
        flow(pax(*((b"SCHILY.xattr.user.%d" % n, b"v") for n in range(size(2_000_000, 200_000)))) + header(b"a") + END),
        flow(pax((b"path", b"p/" * (16 * MIB))) + header(b"a") + END),
        flow(member(b"x", b"n/" * (16 * MIB), b"L") + header(b"a") + END),
    ],
    "a layer that touches every frame": lambda: [
        noise(range(size(150_000, 8_000)), 9_000),
        noise(range(0, size(150_000, 8_000), 90), 9_000),
        noise((n for start in range(90) for n in range(start, size(150_000, 8_000), 90)), 9_000),
    ],
    "bombs": lambda: [
        flow(b"".join(squeezed(gzip, repeated(bytes(1), 256 * MIB).pieces()))),
        flow(sample.gz(b"") * size(1_000_000, 100_000)),
    ],
}
"""Layers as they are in archives."""


@pytest.mark.parametrize("case", STORED)
def test_stored_and_given_back(attack: Attack, store_path: Path, case: str) -> None:
    archive = Archive(STORED[case]())
    if case == "bombs":
        archive.diff_ids = [f"sha256:{zeros_digest(256 * MIB)}", sample.digest(b"")]
    spent = [attack("load", "-q", stdin=archive)]
    assert archive.digests
    for after in ((), ("gc", "--grace", "0")):
        if after:
            spent.append(attack(*after))
        for digest in archive.digests:
            spent.append(attack("blob", "cat", digest))
            assert spent[-1].digest == digest
    spent += [attack("check", "--read-data"), attack("save", "bad:1"), attack("rmi", "bad:1")]
    spent.append(attack("gc", "--grace", "0"))
    assert max(one.peak for one in spent) < CAP
    assert attack("blob", "ls", "--format", "{{.Digest}}").out == b""


def zeros_digest(length: int) -> str:
    digest = hashlib.sha256()
    for piece in repeated(bytes(1), length).pieces():
        digest.update(piece)
    return digest.hexdigest()


def test_as_many_layers_as_may_be(attack: Attack) -> None:
    """10,000 times one layer: in, listed, checked, out, away."""
    spent = [attack("load", "-q", stdin=many_layers(10_000, images=size(60, 6)))]
    spent += [attack("images"), attack("save", "one:1"), attack("verify", "one:1"), attack("df", "-v")]
    spent += [attack("check"), attack("rmi", "one:1"), attack("gc", "--grace", "0")]
    assert max(one.peak for one in spent) < CAP


@pytest.mark.parametrize("old", [False, True], ids=["docker archive", "legacy"])
def test_many_links_to_one_bomb(attack: Attack, tmp_path: Path, old: bool) -> None:
    """What is inside is found out once."""
    (tmp_path / "in.tar").write_bytes(b"".join(bomb_linked(9_000, old=old)))
    assert attack("load", "-q", "-i", tmp_path / "in.tar").peak < CAP


@pytest.mark.parametrize("packed", ["gzip", "zstd", "bzip2", "xz"])
def test_import_of_a_bomb(attack: Attack, rows: Rows, held: Path, store_path: Path, packed: str) -> None:
    """What may be a honest image of nothing much is taken; what may not is refused."""
    shutil.copytree(held, store_path)
    before = rows()
    pieces = {
        "gzip": lambda: squeezed(gzip, ZEROS.pieces()),
        "zstd": lambda: repeat(FRAME, ZEROS.size // (128 * MIB)),
        "bzip2": lambda: [bz2.compress(bytes(128 * MIB))] * (ZEROS.size // (128 * MIB)),
        "xz": lambda: [lzma.compress(bytes(128 * MIB))] * (ZEROS.size // (128 * MIB)),
    }[packed]
    spent = attack("import", "--quiet", "-", "one:1", stdin=pieces(), ok=packed == "gzip")
    assert spent.peak < CAP
    if packed != "gzip":
        assert "standard input: stream becomes more than 2000 times its size" in spent.err
        assert rows() == before
