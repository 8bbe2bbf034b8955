"""Tar archives made block by block, right ones and wrong ones, for the tests of tarscan."""

from __future__ import annotations


def octal(value: int, size: int) -> bytes:
    return b"%0*o\0" % (size - 1, value)


def base256(value: int, size: int) -> bytes:
    """GNU's form for numbers that octal has no room for; negative ones too."""
    raw = bytearray((value % (1 << (8 * size))).to_bytes(size, "big"))
    raw[0] |= 0x80
    return bytes(raw)


def header(
    name: bytes = b"name",
    size: int | bytes = 0,
    kind: bytes = b"0",
    *,
    mode: int | bytes = 0o644,
    uid: int | bytes = 0,
    gid: int | bytes = 0,
    mtime: int | bytes = 0,
    link: bytes = b"",
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
    signed: bool = False,
    checksum: bytes | None = None,
    patches: dict[int, bytes] | None = None,
) -> bytes:
    """One block. Numbers given as bytes are put as they are; `patches` go in at their offsets."""

    def number(value: int | bytes, width: int) -> bytes:
        return (octal(value, width) if isinstance(value, int) else value).ljust(width, b"\0")

    block = bytearray(512)
    block[0:100] = name[:100].ljust(100, b"\0")
    block[100:108], block[108:116], block[116:124] = number(mode, 8), number(uid, 8), number(gid, 8)
    block[124:136], block[136:148] = number(size, 12), number(mtime, 12)
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[157:257] = link[:100].ljust(100, b"\0")
    block[257:265] = magic.ljust(8, b"\0")
    block[345:500] = prefix[:155].ljust(155, b"\0")
    for at, patch in (patches or {}).items():
        block[at : at + len(patch)] = patch
    total = sum(byte - 256 if signed and byte > 127 else byte for byte in block)
    block[148:156] = checksum if checksum is not None else b"%06o\0 " % (total % (1 << 18))
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def record(key: bytes, value: bytes) -> bytes:
    """A PAX record, its length counting itself."""
    body = b" " + key + b"=" + value + b"\n"
    length = len(body)
    while length != len(b"%d" % length) + len(body):
        length = len(b"%d" % length) + len(body)
    return b"%d" % length + body


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    data = b"".join(record(key, value) for key, value in records)
    return header(b"PaxHeaders/x", len(data), kind) + padded(data)


def long_name(text: bytes, kind: bytes = b"L") -> bytes:
    data = text + b"\0"
    return header(b"././@LongLink", len(data), kind, magic=b"ustar  \0") + padded(data)


def file(name: bytes, data: bytes, kind: bytes = b"0", **fields: object) -> bytes:
    return header(name, len(data), kind, **fields) + padded(data)  # type: ignore[arg-type]


END = bytes(1024)
