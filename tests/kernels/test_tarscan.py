"""tarscan: what is payload and what is not, in every dialect of tar, damaged ones too."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scans import TWINS, compiled, payloads, scan
from tarmaker import END, base256, file, header, long_name, octal, padded, pax, record

from casstore.kernels import tarscan


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
        data = pax(*records, (b"linkpath", b"t")) + header(b"short", 0) + padded(bytes(700)) + header(b"after")
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
        data = long_name(b"n" * 300) + long_name(b"t" * 400, b"K") + header(b"n" * 100, 0, b"2", link=b"t" * 100)
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
        data = header(b"s", 1000, b"S", magic=b"ustar  \0", patches=fields) + more + last + padded(b"y" * 1000)
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
        assert entry.pax is not None and (records[0][0] != b"GNU.sparse.size" or entry.pax[b"GNU.sparse.map"] == b"1,2")

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
        far += [pax((b"mtime", value)) + header() for value in (b"9" * 30, b"-" + b"9" * 5000, b"1.9999999999")]
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
