"""The engines of the zlib family against the encoders themselves, to the byte.

zlib (Python's; libarchive's under bsdtar), GNU gzip, pigz, BusyBox.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[2] / "_native"
MAIN = Path(__file__).with_name("engine_main.c")

Encode = Callable[[str, int, bytes], bytes]


@pytest.fixture(scope="module")
def encode(tmp_path_factory: pytest.TempPathFactory) -> Encode:
    """What an engine makes of a content: raw deflate."""
    compiler = os.environ.get("CC", "cc")
    if not shutil.which(compiler):
        pytest.skip(f"no {compiler} here")
    program = tmp_path_factory.mktemp("engine") / "engine"
    sources = [*NATIVE.glob("engine*.c"), *NATIVE.glob("deflate_*.c")]
    flags = ["-std=c11", "-O2", "-fno-strict-aliasing", "-ffp-contract=off"]
    made = subprocess.run(
        [compiler, *flags, f"-I{NATIVE}", MAIN, *sources, "-o", program], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr

    def run(name: str, level: int, content: bytes) -> bytes:
        return subprocess.run([program, name, str(level)], input=content, stdout=subprocess.PIPE, check=True).stdout

    return run


# ---- contents --------------------------------------------------------------------------------------------------------


def tar_like(rng: random.Random, size: int) -> bytes:
    out = bytearray()
    while len(out) < size:
        body = rng.choice([rng.randbytes(400), b"int main(void) { return 0; }\n" * rng.randrange(60), b""])
        out += b"usr/share/doc/%d".ljust(100, b"\0") % rng.randrange(1000) + b"0000644\0" * 3 + bytes(388)
        out += body + bytes(-len(body) % 512)
    return bytes(out[:size])


def structured(rng: random.Random, size: int) -> bytes:
    """New bytes, repeats from near and far (around the window's reach), runs, text."""
    out = bytearray(rng.randbytes(40))
    while len(out) < size:
        length, kind = rng.randrange(1, rng.choice([20, 300, 5000])), rng.randrange(5)
        if kind == 0:
            out += rng.randbytes(length)
        elif kind == 1:
            out += bytes(rng.choices(b"etaoin shrdlu\n", k=length))
        elif kind == 2:
            out += bytes([rng.randrange(256)]) * length
        else:
            distance = rng.choice([rng.randrange(1, 40000), rng.randrange(32500, 32512), rng.randrange(1, 9)])
            begin = max(0, len(out) - distance)
            out += (bytes(out[begin:]) * (length // (len(out) - begin) + 1))[:length]
    return bytes(out[:size])


def repetitive(rng: random.Random, size: int) -> bytes:
    piece = rng.randbytes(rng.choice([1, 3, 258, 32506, 32507]))
    return (piece * (size // len(piece) + 1))[:size]


def noise(rng: random.Random, size: int) -> bytes:
    return rng.randbytes(size)


def few(rng: random.Random, size: int) -> bytes:
    return bytes(rng.choices(b"aaaaaaaaaaaabcd", k=size))


PATTERNS = [tar_like, structured, repetitive, noise, few]
EDGES = [0, 32768, 65274, 65536, 98304, 131072, 262144, 1 << 20]


def contents(seed: int) -> list[bytes]:
    """One of each pattern, their sizes around where windows, blocks and pieces end."""
    rng = random.Random(seed)
    sizes = [max(0, rng.choice(EDGES) + rng.choice([0, 1, -1, rng.randrange(-300, 300)])) for _ in PATTERNS]
    return [make(rng, size) for make, size in zip(PATTERNS, sizes, strict=True)]


# ---- the encoders ----------------------------------------------------------------------------------------------------


def raw(content: bytes, level: int, piece: int) -> bytes:
    """By the zlib that Python runs with, fed in pieces."""
    stream = zlib.compressobj(level, zlib.DEFLATED, -15, 8)
    view = memoryview(content)
    return b"".join(stream.compress(view[at : at + piece]) for at in range(0, len(view), piece)) + stream.flush()


def by_program(command: list[str], content: bytes) -> bytes:
    """A gzip member's deflate stream."""
    member = subprocess.run(command, input=content, stdout=subprocess.PIPE, check=True).stdout
    assert member[:4] == b"\x1f\x8b\x08\0"
    return member[10:-8]


def program(name: str, *told: str) -> None:
    """Skips unless `name` is here and says what it is."""
    path = shutil.which(name)
    option = "--help" if name == "busybox" else "--version"
    said = path and subprocess.run([path, option], capture_output=True, text=True)
    if not said or not all(word in said.stdout + said.stderr for word in told):
        pytest.skip(f"no {' '.join(told)} here")


@pytest.mark.parametrize("level", range(1, 10))
def test_zlib(encode: Encode, level: int) -> None:
    version = zlib.ZLIB_RUNTIME_VERSION
    numbers = version.split(".")
    if not all(number.isdecimal() for number in numbers) or not (1, 2, 3) <= tuple(map(int, numbers)) < (1, 4):
        pytest.skip(f"Python's zlib is {version}: none that the engine covers")
    for content in contents(level):
        made = encode("zlib", level, content)
        for piece in (1 << 30, 65536):
            assert made == raw(content, level, piece), (len(content), piece)


@pytest.mark.parametrize("level", [1, 3, 4, 6, 9])
def test_gzip(encode: Encode, level: int, tmp_path: Path) -> None:
    program("gzip", "gzip 1.")
    for content in contents(100 + level):
        (tmp_path / "content").write_bytes(content)
        expected = by_program(["gzip", "-n", "-c", f"-{level}", str(tmp_path / "content")], b"")
        assert encode("gzip", level, content) == expected, len(content)


@pytest.mark.parametrize("level", [1, 6, 9])
def test_pigz(encode: Encode, level: int) -> None:
    program("pigz", "pigz 2.")
    for content in contents(200 + level):
        # With one process only it would be no pieces.
        expected = by_program(["pigz", "-n", "-c", "-p", "2", f"-{level}"], content)
        assert encode("pigz", level, content) == expected, len(content)


def test_busybox(encode: Encode) -> None:
    program("busybox", "BusyBox v1.")
    command = ["busybox", "gzip", "-c"]
    # How it was built is not to be seen but in blocks: of letters that do not repeat, 8191 and so on fit into one.
    probe = b"".join(bytes([i // 256, i % 256]) for i in range(1 << 15))
    expected = by_program(command, probe)
    fast = [fast for fast in (0, 10, 20) if encode("busybox", fast + 6, probe) == expected]
    assert fast
    for content in contents(300):
        assert encode("busybox", fast[0] + 6, content) == by_program(command, content), len(content)


def test_libarchive(encode: Encode, tmp_path: Path) -> None:
    program("bsdtar", "zlib/1.2")
    (tmp_path / "content").write_bytes(structured(random.Random(400), 300_000))
    tar = ["bsdtar", "-C", str(tmp_path), "--format=ustar", "--uid=0", "--gid=0", "--uname=", "--gname="]
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    subprocess.run([*tar, "-cf", plain, "content"], check=True)
    for level in (1, 6, 9):
        # Into a file: what goes into a pipe is padded to whole records.
        options = f"--options=gzip:compression-level={level}"
        subprocess.run([*tar, "-czf", packed, options, "content"], check=True)
        assert packed.read_bytes()[10:-8] == encode("zlib", level, plain.read_bytes()), level
