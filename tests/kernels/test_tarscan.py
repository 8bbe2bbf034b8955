"""tarscan: what is payload and what not, in every dialect of tar; the compiled twin against the pure one."""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
import sysconfig
import tarfile
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tarmaker import END, base256, file, header, long_name, octal, padded, pax, record

from casstore.kernels import _tarscan_py as twin
from casstore.kernels import tarscan

compiled = pytest.importorskip("casstore.kernels._tarscan_c", reason="the compiled kernel is not built")
TWINS = [pytest.param(twin, id="python"), pytest.param(compiled, id="compiled")]
SLOW = settings(deadline=None, max_examples=60)


def chopped(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def scan(module: Any, data: bytes, cuts: list[int] | None = None) -> tuple[bytes, Any, list[Any]]:
    """(per byte L or P, the scanner, its entries); every rule that segments obey is checked on the way."""
    scanner = module.Scanner(entries=True)
    kinds, entries = bytearray(), []
    for piece in chopped(data, cuts or []):
        segments = scanner.feed(piece)
        assert [column.dtype for column in segments] == [np.uint8, np.uint64, np.uint64, np.uint8]
        assert int(segments.lengths.sum()) == len(piece)
        before = -1
        for payload, length, total, last in zip(*(column.tolist() for column in segments), strict=True):
            assert length > 0
            assert payload or (before != 0 and not total and not last)
            kinds += (b"P" if payload else b"L") * length
            before = payload
        ends = segments.payload.size and segments.payload[-1] and not segments.last[-1]
        assert bool(ends) <= (scanner.payload_left > 0)
        assert scanner.position == len(kinds)
        entries += scanner.pop_entries()
    scanner.finish()
    return bytes(kinds), scanner, entries


def payloads(kinds: bytes, data: bytes) -> list[bytes]:
    """Runs of payload. (Two payloads have a header between them.)"""
    runs, start = [], None
    for at in range(len(kinds) + 1):
        inside = at < len(kinds) and kinds[at : at + 1] == b"P"
        if inside and start is None:
            start = at
        elif not inside and start is not None:
            runs.append(data[start:at])
            start = None
    return runs


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


# ---- dialects --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", TWINS)
class TestDialects:
    def test_empty_stream(self, module: ModuleType) -> None:
        kinds, scanner, entries = scan(module, b"")
        assert (kinds, entries, scanner.position, scanner.ended) == (b"", [], 0, False)

    def test_ustar(self, module: ModuleType) -> None:
        data = file(b"a", b"x" * 700, mode=0o4755, uid=7, gid=8, mtime=9) + header(b"d/", 0, b"5") + END
        kinds, scanner, entries = scan(module, data)
        assert kinds == b"L" * 512 + b"P" * 700 + b"L" * (324 + 512 + 1024)
        assert entries[0] == (b"a", b"0", 0o4755, 7, 8, 9 * 10**9, 700, b"", 0, 512, 700, None)
        assert entries[1][:2] == (b"d/", b"5") and entries[1].header == 1536
        assert (scanner.content_size, scanner.files, scanner.ended) == (700, 1, True)

    def test_prefix(self, module: ModuleType) -> None:
        star = {508: b"tar\0", 476: b"00000000001 00000000002 "}
        data = header(b"n", prefix=b"p/q") + header(b"n", prefix=b"p/q", magic=b"ustar  \0")
        data += header(b"n", prefix=b"s" * 131, patches=star)
        assert [e.name for e in scan(module, data)[2]] == [b"p/q/n", b"n", b"s" * 131 + b"/n"]

    def test_v7(self, module: ModuleType) -> None:
        data = header(b"f", 3, b"\0", magic=b"") + padded(b"abc") + header(b"d/", 0, b"\0", magic=b"") + END
        kinds, _, entries = scan(module, data)
        assert payloads(kinds, data) == [b"abc"]
        assert [(e.name, e.type) for e in entries] == [(b"f", b"0"), (b"d/", b"5")]

    def test_signed_checksum(self, module: ModuleType) -> None:
        data = header("é".encode("latin-1") * 3, 1, signed=True) + padded(b"x")
        assert payloads(scan(module, data)[0], data) == [b"x"]

    def test_types(self, module: ModuleType) -> None:
        """Links, devices, directories and FIFOs have no data, whatever their size says; all others do."""
        data = b"".join(header(b"n", 5, kind) for kind in (b"1", b"2", b"3", b"4", b"5", b"6"))
        data += b"".join(file(b"n", b"hello", kind) for kind in (b"7", b"Z", b"V", b"D"))
        kinds, scanner, entries = scan(module, data)
        assert payloads(kinds, data) == [b"hello"] * 4
        assert len(entries) == 10 and scanner.files == 1 and scanner.content_size == 5

    def test_base256(self, module: ModuleType) -> None:
        size = base256(600, 12)
        data = header(b"f", size, uid=base256(3_000_000_000, 8), gid=base256(-1, 8), mtime=base256(-5, 12))
        data += padded(bytes(600))
        kinds, _, [entry] = scan(module, data)
        assert kinds.count(b"P") == 600
        assert (entry.uid, entry.gid, entry.mtime_ns) == (3_000_000_000, -1, -5 * 10**9)

    def test_pax_overrides(self, module: ModuleType) -> None:
        records = [(b"path", b"long/" * 40), (b"size", b"700"), (b"mtime", b"-1.25"), (b"uid", b"4294967294")]
        data = (
            pax(*records, (b"linkpath", b"t")) + header(b"short", 0) + padded(bytes(700)) + header(b"after")
        )
        kinds, scanner, [entry, after] = scan(module, data)
        assert kinds.count(b"P") == 700
        assert entry.name == b"long/" * 40 and entry.link == b"t"
        assert (entry.mtime_ns, entry.uid, entry.size, entry.header) == (-1_250_000_000, 4294967294, 700, 0)
        assert entry.pax == {**dict(records), b"linkpath": b"t"}
        assert (after.name, after.pax, scanner.content_size) == (b"after", None, 700)

    def test_pax_global_has_no_effect(self, module: ModuleType) -> None:
        data = pax((b"path", b"p")) + pax((b"path", b"g"), (b"size", b"9"), kind=b"g") + file(b"f", b"abc")
        kinds, _, [entry] = scan(module, data)
        assert payloads(kinds, data) == [b"abc"] and entry.name == b"p" and entry.header == 0

    def test_pax_broken_record_ends_the_reading(self, module: ModuleType) -> None:
        text = record(b"path", b"good") + b"99 path=bad\n"
        data = header(b"x", len(text), b"x") + padded(text) + file(b"f", b"abc")
        assert [e.name for e in scan(module, data)[2]] == [b"good"]

    def test_pax_empty_value_withdraws(self, module: ModuleType) -> None:
        data = pax((b"path", b"x"), (b"path", b""), (b"size", b"")) + file(b"f", b"abc")
        kinds, _, [entry] = scan(module, data)
        assert entry.name == b"f" and payloads(kinds, data) == [b"abc"]

    @pytest.mark.parametrize("value", [b"-1", b"1e3", b" 5", b"9223372036854775808", b"9" * 5000, b"0x5"])
    def test_pax_size_that_is_none(self, module: ModuleType, value: bytes) -> None:
        data = pax((b"size", value)) + file(b"f", b"abc")
        assert payloads(scan(module, data)[0], data) == [b"abc"]

    def test_gnu_long(self, module: ModuleType) -> None:
        data = (
            long_name(b"n" * 300) + long_name(b"t" * 400, b"K") + header(b"n" * 100, 0, b"2", link=b"t" * 100)
        )
        _, scanner, [entry] = scan(module, data)
        assert (entry.name, entry.link, entry.header) == (b"n" * 300, b"t" * 400, 0)
        assert scanner.content_size == 400

    def test_extended_header_beyond_the_cap(self, module: ModuleType) -> None:
        """It is literal and has no effect; what it belongs to keeps its own name and size."""
        text = record(b"path", b"far") + bytes((1 << 20) + 1)
        data = header(b"x", len(text), b"x") + padded(text) + file(b"f", b"abc")
        data += long_name(b"n" * (1 << 20)) + file(b"g", b"de")
        kinds, _, entries = scan(module, data)
        assert payloads(kinds, data) == [b"abc", b"de"]
        assert [(e.name, e.pax) for e in entries] == [(b"f", None), (b"g", None)]
        assert entries[0].header == 0

    def test_gnu_sparse(self, module: ModuleType) -> None:
        """Extension blocks are literal; the entry waits for the last of them."""
        more, last = bytes(504) + b"\1" + bytes(7), bytes(512)
        fields = {482: b"\1", 483: octal(1 << 20, 12)}
        data = (
            header(b"s", 1000, b"S", magic=b"ustar  \0", patches=fields) + more + last + padded(b"y" * 1000)
        )
        for cuts in ([], [512], [512, 513, 1024, 1025, 1536]):
            kinds, scanner, [entry] = scan(module, data, cuts)
            assert kinds == b"L" * 1536 + b"P" * 1000 + b"L" * 24
            assert (entry.type, entry.size, entry.stored, entry.data) == (b"S", 1 << 20, 1000, 1536)
            assert scanner.content_size == 1 << 20

    @pytest.mark.parametrize(
        "records",
        [
            [(b"GNU.sparse.size", b"9000"), (b"GNU.sparse.offset", b"1"), (b"GNU.sparse.numbytes", b"2")],
            [(b"GNU.sparse.size", b"9000"), (b"GNU.sparse.map", b"1,2"), (b"GNU.sparse.name", b"real")],
            [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"9000")],
        ],
        ids=["0.0", "0.1", "1.0"],
    )
    def test_pax_sparse(self, module: ModuleType, records: list[tuple[bytes, bytes]]) -> None:
        data = pax(*records) + file(b"GNUSparseFile.1/f", b"x" * 100)
        kinds, scanner, [entry] = scan(module, data)
        assert payloads(kinds, data) == [b"x" * 100]
        assert (entry.size, entry.stored, scanner.content_size) == (9000, 100, 9000)
        assert entry.name == dict(records).get(b"GNU.sparse.name", b"GNUSparseFile.1/f")
        assert entry.pax is not None and (
            records[0][0] != b"GNU.sparse.size" or entry.pax[b"GNU.sparse.map"] == b"1,2"
        )

    def test_sparse_size_alone_is_no_sparse_file(self, module: ModuleType) -> None:
        data = pax((b"GNU.sparse.size", b"9000")) + file(b"f", b"abc")
        assert scan(module, data)[1].content_size == 3

    def test_size_of_a_layer(self, module: ModuleType) -> None:
        """Docker's SIZE: hard links, devices, directories, whiteouts 0; symlinks their target's length."""
        data = file(b"a", b"12345") + header(b"h", 0, b"1", link=b"a") + header(b"s", 0, b"2", link=b"abc")
        data += header(b"c", 0, b"3") + header(b"p", 0, b"6") + header(b"d/", 0, b"5")
        data += file(b"d/.wh.gone", b"") + file(b".wh..wh..opq", b"ignored") + file(b"d/x.wh.", b"12")
        _, scanner, _ = scan(module, data + END + file(b"later", b"x" * 50) + END)
        assert (scanner.content_size, scanner.files) == (5 + 3 + 2, 2)

    def test_size_does_not_overflow(self, module: ModuleType) -> None:
        scanner = module.Scanner()
        for _ in range(4):
            scanner.feed(header(b"huge", base256((1 << 63) - 1, 12)))
            scanner.skip(scanner.payload_left)
            scanner.feed(b"\0")
        assert scanner.content_size == (1 << 63) - 1


@pytest.mark.parametrize("module", TWINS)
class TestDamage:
    """Nothing is refused; what does not parse is literal."""

    @pytest.mark.parametrize(
        "block",
        [
            header(b"f", 3, checksum=b"000000\0 "),
            header(b"f", 3, checksum=b"zzzzzzzz"),
            header(b"f", b"-3"),
            header(b"f", b"12x"),
            header(b"f", base256(-3, 12)),
            header(b"f", base256(1 << 63, 12)),
            b"\xff" * 512,
        ],
    )
    def test_no_header(self, module: ModuleType, block: bytes) -> None:
        data = block + padded(b"abc") + file(b"g", b"de")
        kinds, _, entries = scan(module, data)
        assert payloads(kinds, data) == [b"de"] and [e.name for e in entries] == [b"g"]

    def test_extended_header_before_junk_is_forgotten(self, module: ModuleType) -> None:
        data = pax((b"path", b"p")) + b"\1" * 512 + file(b"f", b"abc")
        [entry] = scan(module, data)[2]
        assert entry.name == b"f" and entry.header == len(data) - 1024

    def test_no_end_blocks(self, module: ModuleType) -> None:
        assert scan(module, file(b"f", b"abc"))[1].ended is False

    def test_one_zero_block_is_no_end(self, module: ModuleType) -> None:
        _, scanner, entries = scan(module, file(b"f", b"abc") + bytes(512) + file(b"g", b"de") + bytes(512))
        assert len(entries) == 2 and not scanner.ended

    def test_after_the_end(self, module: ModuleType) -> None:
        """A second archive is split like the first, so that it deduplicates; it is not part of the layer."""
        data = file(b"f", b"abc") + END + b"junk".ljust(512) + file(b"g", b"de") + END
        kinds, scanner, entries = scan(module, data)
        assert payloads(kinds, data) == [b"abc", b"de"]
        assert (len(entries), scanner.files, scanner.content_size, scanner.ended) == (1, 1, 3, True)

    def test_cut_short(self, module: ModuleType) -> None:
        scanner = module.Scanner()
        segments = scanner.feed(header(b"f", base256(1 << 40, 12)) + b"abc")
        assert segments.payload.tolist() == [0, 1] and segments.last.tolist() == [0, 0]
        assert segments.totals.tolist() == [0, 1 << 40] and scanner.payload_left == (1 << 40) - 3

    def test_extended_headers_that_claim_all(self, module: ModuleType) -> None:
        """Memory is asked for as bytes arrive, never on a claim."""
        for kind in (b"x", b"g", b"L", b"K"):
            scanner = module.Scanner(entries=True)
            segments = scanner.feed(header(b"x", base256((1 << 63) - 1, 12), kind) + bytes(5000))
            assert segments.payload.tolist() == [0]

    def test_numbers_that_are_none(self, module: ModuleType) -> None:
        data = header(b"f", mode=b"rw-r--r-", uid=b"99", gid=b"0x1", mtime=b"never")
        [entry] = scan(module, data)[2]
        assert (entry.mode, entry.uid, entry.gid, entry.mtime_ns) == (-1, -1, -1, 0)

    def test_time_beyond(self, module: ModuleType) -> None:
        far = [header(mtime=base256(1 << 70, 12)), header(mtime=base256(-(1 << 60), 12))]
        far += [
            pax((b"mtime", value)) + header() for value in (b"9" * 30, b"-" + b"9" * 5000, b"1.9999999999")
        ]
        times = [e.mtime_ns for e in scan(module, b"".join(far))[2]]
        assert times == [0, -(1 << 63), (1 << 63) - 1, -(1 << 63), 1_999_999_999]


@pytest.mark.parametrize("module", TWINS)
class TestCalls:
    def test_skip(self, module: ModuleType) -> None:
        data = file(b"f", b"x" * 700) + file(b"g", b"y") + END
        scanner = module.Scanner(entries=True)
        scanner.feed(data[:600])
        assert scanner.payload_left == 612
        scanner.skip(600)
        scanner.skip(0)
        for n in (13, -1, 1 << 70):
            with pytest.raises(ValueError):
                scanner.skip(n)
        scanner.skip(12)
        scanner.feed(data[1212:])
        assert [e.name for e in scanner.pop_entries()] == [b"f", b"g"]
        assert scanner.pop_entries() == [] and scanner.position == len(data) and scanner.ended

    def test_finished(self, module: ModuleType) -> None:
        scanner = module.Scanner()
        scanner.finish()
        with pytest.raises(ValueError):
            scanner.feed(b"x")

    def test_entries_only_if_asked_for(self, module: ModuleType) -> None:
        scanner = module.Scanner()
        scanner.feed(file(b"f", b"abc"))
        assert scanner.pop_entries() == []

    @pytest.mark.parametrize("make", [bytes, bytearray, memoryview, lambda b: np.frombuffer(b, np.uint8)])
    def test_buffers(self, module: ModuleType, make: Any) -> None:
        data = file(b"f", b"abc")
        assert module.Scanner().feed(make(data)).lengths.tolist() == [512, 3, 509]
        assert module.Scanner().feed(make(b"")).lengths.tolist() == []

    def test_scattered_buffer(self, module: ModuleType) -> None:
        with pytest.raises((ValueError, BufferError)):
            module.Scanner().feed(memoryview(bytes(1024))[::2])


def test_chosen() -> None:
    assert tarscan.IMPLEMENTATION == "compiled" and tarscan.Scanner is compiled.Scanner


# ---- twin against twin -----------------------------------------------------------------------------------

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
    + [
        b"GNU.sparse." + k
        for k in (b"name", b"size", b"realsize", b"major", b"minor", b"map", b"offset", b"numbytes")
    ]
)
values = st.one_of(
    st.integers(-3, 3000).map(lambda n: b"%d" % n),
    st.sampled_from(
        [b"", b"0", b"1", b"-", b"-1.5", b"1.", b".5", b"1.2.3", b"00000000000000000000000000012", b"d/"]
    ),
    st.binary(max_size=12),
)


@st.composite
def blocks(draw: st.DrawFn) -> bytes:
    """Blocks with right checksums and wild fields, and what may follow them."""
    parts = []
    for _ in range(draw(st.integers(1, 8))):
        match draw(st.sampled_from(["header", "pax", "long", "junk", "zero", "data"])):
            case "header":
                kind = draw(
                    st.sampled_from([b"0", b"\0", b"1", b"2", b"5", b"7", b"S", b"S", b"V", b"x", b"L", b"g"])
                )
                patches = (
                    {482: draw(st.sampled_from([b"\0", b"\1"])), 483: draw(digits)} if kind == b"S" else {}
                )
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
                text += draw(
                    st.sampled_from([b"", b"", b"5 a=\n", b"6 =bc\n", b"99999999999 a=b\n", b"4 ab\n"])
                )
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
@given(
    archives(KINDS)
)  # of type NUL tarfile takes those for directories whose *truncated* name ends in a slash
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
