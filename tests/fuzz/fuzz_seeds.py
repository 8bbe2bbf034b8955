"""Writes seeds/: the inputs that every target begins with, from the project's own writers. Same code, same bytes.

`python tests/fuzz/fuzz_seeds.py`; test_fuzz.py asks that what is committed is what this makes.
"""

from __future__ import annotations

import io
import shutil
import tarfile

from fuzz import PYTHON, SEEDS, module

from casstore.kernels import hashing


def noise(number: int, size: int) -> bytes:
    """Bytes that are the same on every machine."""
    stream = hashing.Sha256()
    out = b""
    while len(out) < size:
        stream.update(bytes([number]))
        out += stream.digest()
    return out[:size]


def archives() -> dict[str, bytes]:
    """Small tars of every format, with what tells them apart."""
    made = {}
    for name, form in {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}.items():
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=form) as archive:
            rich = form != tarfile.USTAR_FORMAT
            for path, kind, size in (
                ("file", b"0", 700),
                ("dir", b"5", 0),
                ("link", b"2", 0),
                ("long/" * 25 + "x", b"0", 3),
                (".wh.gone", b"0", 0),
            ):
                info = tarfile.TarInfo(path)
                info.type, info.size, info.mtime = kind, size, 1.5 if form == tarfile.PAX_FORMAT else 1
                info.linkname = ("to/" * 50 if rich else "to") if kind == b"2" else ""
                info.uid = 1 << 22 if rich else 0
                archive.addfile(info, io.BytesIO(bytes(size)))
        whole = out.getvalue()
        made[name] = whole[: -(-len(whole.rstrip(b"\0")) // 512) * 512 + 1024]
    return made


def sparse() -> bytes:
    """GNU's old sparse header with an extension block, then PAX's format 1.0."""
    old = tarfile.TarInfo("sparse")
    old.type, old.size = b"S", 100
    block = bytearray(old.tobuf(tarfile.GNU_FORMAT))
    block[482:495] = b"\1" + b"00000100000\0"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    extension = bytearray(512)
    extension[504] = 1
    new = tarfile.TarInfo("holes")
    new.size = 512
    new.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9000"}
    return bytes(block + extension + bytes(1024)) + new.tobuf(tarfile.PAX_FORMAT) + bytes(512 + 1024)


def native() -> dict[str, dict[str, bytes]]:
    tars = {name: b"\5" + each for name, each in (archives() | {"sparse": sparse()}).items()}
    return {
        "tarscan": tars,
        "cut": {f"flags-{flags}": bytes([flags]) + noise(flags, 400) for flags in (5, 36, 37, 45, 61, 6)},
        "table": {f"bits-{bits}": bytes([bits, 20, 15]) + noise(bits, 500) for bits in (0, 2, 8)}
        | {"alike": bytes([3, 60, 40]) + b"\0\1" * 300},
        "spans": {f"flags-{flags}": bytes([flags]) + noise(flags, 600) for flags in (0x63, 0xA7, 0x45, 0x71)},
    } | module("gzip").native()


def every() -> dict[str, dict[str, bytes]]:
    return native() | {name: module(name).seeds() for name in PYTHON}


def main() -> None:
    shutil.rmtree(SEEDS, ignore_errors=True)
    for target, seeds in every().items():
        (SEEDS / target).mkdir(parents=True)
        for name, data in seeds.items():
            (SEEDS / target / name).write_bytes(data)


if __name__ == "__main__":
    main()
