"""Where a file can be hurt, by its format, and how."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from casstore.format import pack as pack_format
from casstore.store.objects import ObjectReader
from casstore.store.packs import table_extent


class Region(NamedTuple):
    """Bytes [start, end) of a file, and what they are."""

    name: str
    start: int
    end: int


def pack_regions(path: Path) -> Iterator[Region]:
    """FORMATS.md: packs."""
    with ObjectReader(path, path.name) as reader:
        table, length = table_extent(reader, path.name)
        numbers, frames = pack_format.scan_frames(reader)
        yield Region("header", 0, pack_format.HEADER_SIZE)
        for at in sorted({0, len(numbers) - 1}):
            begin = int(frames[at]["offset"])
            body = begin + pack_format.FRAME_HEADER_SIZE
            yield Region(f"frame {at} header", begin, body)
            yield Region(f"frame {at}", body, body + int(frames[at]["stored"]))
        end = table + length - pack_format.TRAILER_SIZE
        rows = table + 32 + len(numbers) * pack_format.Frame.itemsize
        yield Region("table head", table, table + 32)
        yield Region("frame rows", table + 32, rows)
        yield Region("table body", rows, end)
        yield Region("trailer", end, table + length)


def index_regions(path: Path) -> Iterator[Region]:
    """FORMATS.md: index segments; not to the byte, for the middle is either fanout or entries."""
    size = path.stat().st_size
    yield Region("header", 0, 64)
    yield Region("pack ids", 64, 80)
    for at in (1, 2, 3):
        yield Region(f"quarter {at}", max(80, size * at // 5), size * (at + 1) // 5)
    yield Region("checksum", size - 32, size)


def plain_regions(path: Path) -> Iterator[Region]:
    """A file without parts."""
    size = path.stat().st_size
    for number, name in enumerate(("first", "second", "third", "last")):
        yield Region(f"{name} quarter", size * number // 4, max(size * (number + 1) // 4, 1))


def catalog_regions(path: Path) -> Iterator[Region]:
    """SQLite: the header, then pages."""
    size = path.stat().st_size
    yield Region("header", 0, 100)
    yield Region("schema", 100, 4096)
    for page in range(1, size // 4096):
        yield Region(f"page {page + 1}", page * 4096, (page + 1) * 4096)


REGIONS: dict[str, Callable[[Path], Iterator[Region]]] = {
    "data": pack_regions,
    "metadata": pack_regions,
    "index": index_regions,
    "blob": plain_regions,
    "catalog": catalog_regions,
    "log": plain_regions,
    "shared memory": plain_regions,
    "store.json": plain_regions,
    "references.json": plain_regions,
    "epoch": plain_regions,
}


# -- how. Each is given the bytes, the region, a source of chance and another file's bytes; None: the file goes.

Spoil = Callable[[bytes, Region, random.Random, bytes], bytes | None]


def flip(raw: bytes, region: Region, chance: random.Random, _: bytes) -> bytes:
    at = chance.randrange(region.start, region.end)
    return raw[:at] + bytes([raw[at] ^ 1 << chance.randrange(8)]) + raw[at + 1 :]


def cut(raw: bytes, region: Region, chance: random.Random, _: bytes) -> bytes:
    return raw[: chance.randrange(region.start, region.end)]


def zero(raw: bytes, region: Region, chance: random.Random, _: bytes) -> bytes:
    """A page of zeroes, as a file system leaves it after a crash."""
    begin = chance.randrange(region.start, region.end) // 4096 * 4096
    end = min(begin + 4096, len(raw))
    return raw[:begin] + bytes(end - begin) + raw[end:]


def garbage(raw: bytes, region: Region, chance: random.Random, _: bytes) -> bytes:
    end = min(region.end, region.start + 4096)
    return raw[: region.start] + chance.randbytes(end - region.start) + raw[end:]


def mixed(raw: bytes, region: Region, _: random.Random, other: bytes) -> bytes:
    """The region as another file of the kind has it there."""
    piece = other[region.start : region.end]
    return raw[: region.start] + piece + raw[region.start + len(piece) :]


IN_A_REGION: dict[str, Spoil] = {"flip": flip, "cut": cut, "zero": zero, "garbage": garbage, "mixed": mixed}

WHOLE: dict[str, Spoil] = {
    "missing": lambda raw, region, chance, other: None,
    "empty": lambda raw, region, chance, other: b"",
    "longer": lambda raw, region, chance, other: raw + chance.randbytes(100),
    "swapped": lambda raw, region, chance, other: other,
    "noise": lambda raw, region, chance, other: chance.randbytes(len(raw)),
}
