"""Archives that are made as they are written into a pipe: however large, they take no memory and no disk here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

BLOCK = 512
PIECE = 1 << 20
END = bytes(2 * BLOCK)


def header(
    name: bytes, size: int = 0, kind: bytes = b"0", *, link: bytes = b"", magic: bytes = b"ustar\x0000", **fields: bytes
) -> bytes:
    """One header with a good checksum and any bytes in its fields: `at124=…` puts bytes at offset 124."""
    number = b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    block = bytearray(BLOCK)
    for at, data in {0: name[:100], 100: b"0000644\0" + b"0000000\0" * 2 + number + b"00000000000\0"}.items():
        block[at : at + len(data)] = data
    block[156:157] = kind
    block[157 : 157 + len(link[:100])] = link[:100]
    block[257:265] = magic
    for place, data in fields.items():
        at = int(place.removeprefix("at"))
        block[at : at + len(data)] = data
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def member(name: bytes, data: bytes = b"", kind: bytes = b"0", **fields: bytes) -> bytes:
    return header(name, len(data), kind, **fields) + padded(data)


def record(key: bytes, value: bytes) -> bytes:
    """One record of an extended header."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest + len(str(rest))))
    return b"%d %s=%s\n" % (length, key, value)


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    """An extended header."""
    return member(b"PaxHeaders/x", b"".join(record(key, value) for key, value in records), kind)


@dataclass(frozen=True)
class Flow:
    """Bytes to come: how many, and the pieces, made anew each time."""

    size: int
    pieces: Callable[[], Iterable[bytes]]


def flow(data: bytes) -> Flow:
    return Flow(len(data), lambda: [data])


def repeated(pattern: bytes, size: int) -> Flow:
    """The pattern over and over, cut at `size`."""

    def pieces() -> Iterator[bytes]:
        block = pattern * (PIECE // len(pattern) or 1)
        for at in range(0, size, len(block)):
            yield block[: size - at]

    return Flow(size, pieces)


def joined(*flows: Flow) -> Flow:
    def pieces() -> Iterator[bytes]:
        for one in flows:
            yield from one.pieces()

    return Flow(sum(one.size for one in flows), pieces)


def entries(count: int, size: int = 0, *, alike: bool = True) -> Flow:
    """A tar of `count` files of `size` bytes (up to 512), all the same or none."""

    def pieces() -> Iterator[bytes]:
        random = np.random.default_rng(count)
        plain = np.frombuffer(header(b"%08d" % 0, size), np.uint8)
        rest = int(plain.sum()) - int(plain[:8].sum()) - int(plain[148:156].sum()) + 8 * 32
        blocks = BLOCK * (1 + bool(size))
        for first in range(0, count, 2048):
            numbers = np.arange(first, min(first + 2048, count))
            made = np.zeros((len(numbers), blocks), np.uint8)
            made[:, :BLOCK] = plain
            made[:, :8] = digits = (numbers[:, None] // 10 ** np.arange(7, -1, -1) % 10 + ord("0")).astype(np.uint8)
            check = rest + digits.sum(axis=1)
            made[:, 148:154] = (check[:, None] // 8 ** np.arange(5, -1, -1) % 8 + ord("0")).astype(np.uint8)
            if size:
                content = np.uint8(ord("x")) if alike else random.integers(0, 256, (len(numbers), size), np.uint8)
                made[:, BLOCK : BLOCK + size] = content
            yield made.tobytes()
        yield END

    return Flow(count * BLOCK * (1 + bool(size)) + len(END), pieces)


def noise(order: Iterable[int], size: int) -> Flow:
    """A tar of files of `size` bytes that do not compress: the same number, the same content."""
    numbers = list(order)

    def pieces() -> Iterator[bytes]:
        for place, number in enumerate(numbers):
            content = np.random.default_rng(number).integers(0, 256, size, np.uint8).tobytes()
            yield member(b"%d/%d" % (place, number), content)
        yield END

    return Flow(len(numbers) * (BLOCK + size + -size % BLOCK) + len(END), pieces)


@dataclass
class Archive:
    """A docker archive going by: layers first, what names them last. `diff_ids`: said instead of the digests of what
    went by; `digests`: of what went by."""

    layers: Iterable[Flow]
    tag: str = "bad:1"
    diff_ids: list[str] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[bytes]:
        self.digests = []
        paths = []
        for number, layer in enumerate(self.layers):
            paths.append(f"{number}/layer.tar")
            yield header(paths[-1].encode(), layer.size)
            whole = hashlib.sha256()
            for piece in layer.pieces():
                whole.update(piece)
                yield piece
            yield bytes(-layer.size % BLOCK)
            self.digests.append(f"sha256:{whole.hexdigest()}")
        config = {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": self.diff_ids or self.digests},
        }
        yield member(b"config.json", json.dumps(config).encode())
        item = {"Config": "config.json", "RepoTags": [self.tag], "Layers": paths}
        yield member(b"manifest.json", json.dumps([item]).encode())
        yield END
