"""tarscan: the compiled twin against the pure one, Python's tarfile and what GNU tar makes."""

from __future__ import annotations

import io
import itertools
import os
import random
import shutil
import subprocess
import sysconfig
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scans import TWINS, compiled, payloads, scan, twin
from tarmaker import base256, header, long_name, octal, padded, record

SLOW = settings(deadline=None, max_examples=60)


def both(data: bytes, cuts: list[int]) -> None:
    """The compiled twin, chopped, sees what the pure one, chopped otherwise, sees."""
    kinds, scanner, entries = scan(twin, data)
    assert scan(twin, data, cuts)[::2] == (kinds, entries)
    for pieces in ([], cuts):
        kinds_c, scanner_c, entries_c = scan(compiled, data, pieces)
        assert kinds_c == kinds
        assert entries_c == entries
        for name in ("position", "payload_left", "content_size", "files", "ended"):
            assert getattr(scanner_c, name) == getattr(scanner, name), name


names = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20),
    st.integers(90, 300).map(lambda n: "long/" * (n // 5)),
    st.sampled_from([".wh.a", "d/.wh..wh..opq", "d/"]),
)


KINDS = (b"0", b"1", b"2", b"3", b"5", b"6", b"7")


@st.composite
def archives(draw: st.DrawFn, kinds: tuple[bytes, ...] = (b"\0", *KINDS)) -> bytes:
    """What Python's tarfile writes, in any of its formats."""
    form = draw(st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for _ in range(draw(st.integers(0, 6))):
            info = tarfile.TarInfo(draw(names))
            info.type = draw(st.sampled_from(kinds))
            info.linkname = draw(names) if info.type in b"12" else ""
            info.uid, info.mtime = draw(st.integers(0, 1 << 40)), draw(st.sampled_from([0, 1 << 31, 1.5, -3]))
            data = b""
            if info.type in (b"0", b"\0", b"7"):
                data = draw(st.sampled_from([b"", b"x", b"y" * 511, b"z" * 512, b"w" * 2000]))
            info.size = len(data)
            try:
                archive.addfile(info, io.BytesIO(data))
            except (ValueError, OverflowError):
                pass  # more than ustar can say
    return out.getvalue()


digits = st.one_of(
    st.integers(0, 2000).map(lambda n: octal(n, 12)),
    st.integers(-5, 2000).map(lambda n: base256(n, 12)),
    st.integers(0, 1 << 95).map(lambda n: base256(n, 12)),
    st.binary(max_size=12),
    st.text("01234567 \0", max_size=12).map(str.encode),
)
keys = st.sampled_from(
    [b"path", b"linkpath", b"size", b"mtime", b"uid", b"gid", b"comment"]
    + [b"GNU.sparse." + k for k in (b"name", b"size", b"realsize", b"major", b"minor", b"map", b"offset", b"numbytes")]
)
values = st.one_of(
    st.integers(-3, 3000).map(lambda n: b"%d" % n),
    st.sampled_from([b"", b"0", b"1", b"-", b"-1.5", b"1.", b".5", b"1.2.3", b"00000000000000000000000000012", b"d/"]),
    st.binary(max_size=12),
)


@st.composite
def blocks(draw: st.DrawFn) -> bytes:
    """Blocks with right checksums and wild fields, and what may follow them."""
    parts = []
    for _ in range(draw(st.integers(1, 8))):
        match draw(st.sampled_from(["header", "pax", "long", "junk", "zero", "data"])):
            case "header":
                kind = draw(st.sampled_from([b"0", b"\0", b"1", b"2", b"5", b"7", b"S", b"S", b"V", b"x", b"L", b"g"]))
                patches = {482: draw(st.sampled_from([b"\0", b"\1"])), 483: draw(digits)} if kind == b"S" else {}
                parts.append(
                    header(
                        draw(st.sampled_from([b"a", b"d/", b".wh.x", b"d/.wh.y", b"n" * 100])),
                        draw(digits),
                        kind,
                        uid=draw(digits)[-8:],
                        mtime=draw(digits),
                        link=draw(st.sampled_from([b"", b"target"])),
                        magic=draw(st.sampled_from([b"ustar\x0000", b"ustar  \0", b""])),
                        prefix=draw(st.sampled_from([b"", b"p", b"q" * 155])),
                        patches=patches,
                    )
                )
            case "pax":
                text = b"".join(record(k, v) for k, v in draw(st.lists(st.tuples(keys, values), max_size=5)))
                text += draw(st.sampled_from([b"", b"", b"5 a=\n", b"6 =bc\n", b"99999999999 a=b\n", b"4 ab\n"]))
                kind = draw(st.sampled_from([b"x", b"x", b"X", b"g"]))
                parts.append(header(b"x", len(text), kind) + padded(text))
            case "long":
                parts.append(long_name(draw(st.binary(max_size=700)), draw(st.sampled_from([b"L", b"K"]))))
            case "junk":
                parts.append(draw(st.binary(min_size=1, max_size=600)))
            case "zero":
                parts.append(bytes(512))
            case "data":
                parts.append(bytes([draw(st.integers(0, 255))]) * (512 * draw(st.integers(1, 4))))
    return b"".join(parts)


cut_lists = st.lists(st.integers(0, 1 << 20), max_size=12)


@SLOW
@given(archives(), cut_lists)
def test_twins_on_archives(data: bytes, cuts: list[int]) -> None:
    both(data, cuts)


@pytest.mark.parametrize("module", TWINS)
@settings(deadline=None, max_examples=100)
@given(st.one_of(archives(), blocks()), st.data())
def test_following_what_is_known_sees_the_same(module: ModuleType, data: bytes, draws: st.DataObject) -> None:
    kinds, whole, entries = scan(compiled, data)
    told = draws.draw(st.sets(st.integers(0, 20)))  # runs of payload that are fed all the same
    rows, fed, number, at = [[0, 0]], b"", 0, 0
    for kind, run in ((kind, len(list(group))) for kind, group in itertools.groupby(kinds)):
        skipped = kind == ord("P") and number not in told
        number += kind == ord("P")
        if not skipped:
            fed += data[at : at + run]
            rows.append([run, 0])
        else:
            rows[-1][1] = run
        at += run
    scanner = module.Scanner(entries=True)
    scanner.follow(fed, np.array(rows, np.uint64))
    assert scanner.pop_entries() == entries and scanner.position == len(data)
    assert (scanner.content_size, scanner.ended) == (whole.content_size, whole.ended)


@pytest.mark.parametrize("module", TWINS)
def test_following_something_else_is_refused(module: ModuleType) -> None:
    for rows in ([[512, 1]], [[513, 0]], [[511, 0]], [[600, 0]], [[1 << 63, 0]], [[0, 1 << 63]]):
        with pytest.raises(ValueError, match=r"payload|buffer"):
            module.Scanner().follow(bytes(512), np.array(rows, np.uint64))
    scanner = module.Scanner()
    scanner.finish()
    with pytest.raises(ValueError, match="finished"):
        scanner.follow(b"", np.zeros((1, 2), np.uint64))


@SLOW
@given(archives(), st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=8), cut_lists)
def test_twins_on_mutations(data: bytes, changes: list[tuple[int, int]], cuts: list[int]) -> None:
    mutated = bytearray(data)
    for at, value in changes:
        mutated[at % len(mutated)] = value
    both(bytes(mutated), cuts)


@settings(deadline=None, max_examples=300)
@given(blocks(), cut_lists)
def test_twins_on_wild_blocks(data: bytes, cuts: list[int]) -> None:
    both(data, cuts)


@SLOW
@given(st.one_of(archives(), blocks()))
def test_skipping_payloads_sees_the_same(data: bytes) -> None:
    _, whole, entries = scan(compiled, data)
    scanner, at = compiled.Scanner(entries=True), 0
    while at < len(data):
        if scanner.payload_left:
            step = min(scanner.payload_left, len(data) - at)
            scanner.skip(step)
        else:
            step = min(512 - at % 512, len(data) - at)
            scanner.feed(data[at : at + step])
        at += step
    assert scanner.pop_entries() == entries and scanner.content_size == whole.content_size


@SLOW
@given(archives(KINDS))  # of type NUL tarfile takes those for directories whose *truncated* name ends in a slash
def test_payloads_are_what_tarfile_reads(data: bytes) -> None:
    kinds, _, entries = scan(compiled, data)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = archive.getmembers()
        expected = [archive.extractfile(m).read() for m in members if m.isreg() and m.size]  # type: ignore[union-attr]
    assert payloads(kinds, data) == expected
    assert [e.data for e in entries] == [m.offset_data for m in members]
    assert [e.name.rstrip(b"/") for e in entries] == [os.fsencode(m.name).rstrip(b"/") for m in members]


# ---- real archives ---------------------------------------------------------------------------------------


def docker_size(data: bytes) -> int:
    """SIZE by tarfile: regular files and lengths of symlinks' targets."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return sum(m.size if m.isreg() else len(os.fsencode(m.linkname)) * m.issym() for m in archive)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_size_of_the_standard_library(form: int) -> None:
    out = io.BytesIO()
    folder = Path(sysconfig.get_path("stdlib"))
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name in ("json", "email", "tarfile.py", "os.py", "encodings"):
            archive.add(folder / name, arcname=f"usr/lib/{name}")
        link = tarfile.TarInfo("usr/lib/link")
        link.type, link.linkname = tarfile.SYMTYPE, "json/" * 30 if form != tarfile.USTAR_FORMAT else "json"
        archive.addfile(link)
    data = out.getvalue()
    rng = random.Random(form)
    _, scanner, _ = scan(compiled, data, [rng.randrange(len(data)) for _ in range(200)])
    assert scanner.content_size == docker_size(data) > 1 << 20


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")
@pytest.mark.parametrize(
    "options",
    [["--format=gnu"], *(["--format=posix", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0"))],
    ids=str,
)
@pytest.mark.parametrize("module", TWINS)
def test_sparse_files_of_gnu_tar(module: ModuleType, options: list[str], tmp_path: Path) -> None:
    """Thirty islands: more than an old GNU header holds."""
    with open(tmp_path / "holes", "wb") as holes:
        for i in range(30):
            holes.seek(i * 200_000)
            holes.write(b"island %d" % i)
        holes.truncate(7_000_000)
    (tmp_path / "plain").write_bytes(b"plain")
    made = subprocess.run(
        ["tar", "-cSf", "-", *options, "holes", "plain"], cwd=tmp_path, capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"this tar cannot: {made.stderr.decode()}")
    kinds, scanner, entries = scan(module, made.stdout)
    assert [(e.name, e.size) for e in entries] == [(b"holes", 7_000_000), (b"plain", 5)]
    assert scanner.content_size == 7_000_005 and scanner.ended
    island, plain = payloads(kinds, made.stdout)
    assert len(island) == entries[0].stored < 1_000_000 and plain == b"plain"
    assert made.stdout[entries[0].data :].startswith(island)


def test_corpus() -> None:
    """Real layers, where there are any: CASSTORE_CORPUS names a folder of tars."""
    folder = os.environ.get("CASSTORE_CORPUS")
    if not folder:
        pytest.skip("CASSTORE_CORPUS is not set")
    for path in sorted(Path(folder).rglob("*.tar"))[:8]:
        data = path.read_bytes()[: 64 << 20]
        kinds = [scan_whole(module, data) for module in (twin, compiled)]
        assert kinds[0] == kinds[1]


def scan_whole(module: Any, data: bytes) -> tuple[Any, ...]:
    scanner = module.Scanner(entries=True)
    segments = scanner.feed(data)
    return [c.tolist() for c in segments], scanner.pop_entries(), scanner.content_size, scanner.files
