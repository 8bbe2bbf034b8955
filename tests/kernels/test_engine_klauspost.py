"""The engine of klauspost/compress against the encoder itself, under pgzip, to the byte: where Go and modules are."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[2] / "_native"
MAIN = Path(__file__).with_name("klauspost_main.c")
FLAGS = ["-std=c11", "-O2", "-fno-strict-aliasing", "-Wall", "-Wextra", "-Werror"]
# klauspost/compress and pgzip, and the engine's version.
VERSIONS = [
    ("1.15.12", "1.2.5", 1),
    ("1.18.0", "1.2.6", 1),
    ("1.18.2", "1.2.6", 2),
    ("1.20.3", "1.2.7", 2),
    ("1.20.4", "1.3.0", 3),
    ("1.15.0", "1.2.5", 4),
    ("1.15.9", "1.2.5", 4),
    ("1.14.4", "1.2.5", 5),
]
# The levels that are known, but for 5, by the engine's version.
OTHERS = {1: (1, 2, 3, 6), 2: (1, 2, 3, 4, 6), 3: (1, 2, 3, 4, 6), 4: (6,), 5: (6,)}
PROGRAM = """package main

import (
	"io"
	"os"
	"strconv"

	"github.com/klauspost/pgzip"
)

func main() {
	level, _ := strconv.Atoi(os.Args[2])
	w, err := pgzip.NewWriterLevel(os.Stdout, level)
	if err != nil {
		panic(err)
	}
	if unit, _ := strconv.Atoi(os.Args[1]); unit > 0 {
		if err := w.SetConcurrency(unit, 2); err != nil {
			panic(err)
		}
	}
	if _, err := io.Copy(w, os.Stdin); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
}
"""
SEGMENT, MIB = 65535, 1 << 20

Encode = Callable[[bytes], bytes]


def piped(program: Path, *arguments: str) -> Encode:
    def run(content: bytes) -> bytes:
        return subprocess.run([program, *arguments], input=content, stdout=subprocess.PIPE, check=True).stdout

    return run


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int], Encode]:
    """What the engine of a version makes of a content at a level: raw deflate."""
    compiler = os.environ.get("CC", "cc")
    if not shutil.which(compiler):
        pytest.skip(f"no {compiler} here")
    program = tmp_path_factory.mktemp("engine") / "engine"
    shared = [NATIVE / name for name in ("engine.c", "engine_huffman.c", "deflate_tables.c", "deflate_write.c")]
    made = subprocess.run(
        [compiler, *FLAGS, f"-I{NATIVE}", MAIN, *shared, *NATIVE.glob("engine_klauspost*.c"), "-o", program],
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    return lambda version, level: piped(program, str(version), str(level))


def encoder(compress: str, pgzip: str, folder: Path) -> Callable[[int, int], Encode]:
    """pgzip over a version of klauspost/compress, as a program: by the size of its units (0: the default) and its level
    (-1: the default), what it makes without gzip's head and tail."""
    go = shutil.which("go")
    if not go:
        pytest.skip("no Go here")
    (folder / "main.go").write_text(PROGRAM)
    (folder / "go.mod").write_text(
        "module encoder\n\ngo 1.21\n\nrequire (\n"
        f"\tgithub.com/klauspost/compress v{compress}\n\tgithub.com/klauspost/pgzip v{pgzip}\n)\n"
    )
    environment = {**os.environ, "GOFLAGS": "-mod=mod", "GONOSUMDB": "*"}
    program = folder / "encoder"
    try:
        built = subprocess.run(
            [go, "build", "-o", program, "."],
            cwd=folder, env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        pytest.skip("Go does not finish")
    if built.returncode:
        pytest.skip(f"no klauspost/compress {compress} here: {built.stderr.strip()[-200:]}")
    return lambda unit, level: lambda content: piped(program, str(unit), str(level))(content)[10:-8]


# ---- contents --------------------------------------------------------------------------------------------------------


def noise(rng: random.Random, size: int) -> bytes:
    return rng.randbytes(size)


def text(rng: random.Random, size: int) -> bytes:
    words = [bytes(rng.choices(b"abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(800)]
    out = b""
    while len(out) < size:
        out += b" ".join(rng.choices(words, k=20000))
    return out[:size]


def skewed(rng: random.Random, size: int) -> bytes:
    return bytes(min(255, int(rng.expovariate(0.05))) for _ in range(size))


def tar_like(rng: random.Random, size: int) -> bytes:
    out = bytearray()
    while len(out) < size:
        length = rng.randrange(40000)
        body = rng.choice([noise(rng, length), bytes(length), text(rng, length)])
        out += b"usr/share/doc/%d".ljust(100, b"\0") % rng.randrange(1000) + b"0000644\0" * 3 + bytes(388)
        out += body + bytes(-len(body) % 512)
    return bytes(out[:size])


def repetitive(rng: random.Random, size: int) -> bytes:
    piece = rng.randbytes(rng.choice([1, 3, 258, 32766, 32767, 32768]))
    return (piece * (size // len(piece) + 1))[:size]


def structured(rng: random.Random, size: int) -> bytes:
    out = bytearray()
    while len(out) < size:
        out += rng.choice([noise, text, skewed, tar_like])(rng, rng.choice([10, 100, 1000, 30000, SEGMENT, 70000]))
        if rng.random() < 0.3:
            begin = max(0, len(out) - rng.randint(1, 40000))
            out += out[begin : begin + rng.randint(4, 3000)]
    return bytes(out[:size])


KINDS = [noise, text, skewed, tar_like, repetitive, structured]
SIZES = [
    *(0, 1, 12, 13, 31, 32, 33, 100, 127, 128, 129, 1000),
    *(SEGMENT + more for more in (-1, 0, 1, 13, 32, 33, 127, 128)),
    *(16 * SEGMENT + more for more in (-1, 0, 1)),
    *(MIB + more for more in (-1, 0, 1, 13, 100, SEGMENT)),
    *(2 * MIB, 2 * MIB + 70000),
]


@pytest.mark.parametrize(("compress", "pgzip", "version"), VERSIONS)
def test_against_the_encoder(
    compress: str, pgzip: str, version: int, engine: Callable[[int, int], Encode], tmp_path: Path
) -> None:
    encode = encoder(compress, pgzip, tmp_path)
    rng = random.Random(f"{compress}")
    theirs, mine = encode(0, -1), engine(version, 5)
    for kind in KINDS:
        whole = kind(rng, max(SIZES))
        for size in SIZES:
            begin = rng.randint(0, len(whole) - size)
            content = whole[begin : begin + size]
            assert mine(content) == theirs(content), f"{kind.__name__}, {size} bytes from {begin}"
        for shift in range(1, 6):
            unit = MIB >> shift
            for size in (unit, 2 * unit - 1, 3 * unit + 77):
                content = whole[:size]
                ours = engine(version, 10 * shift + 5)(content)
                assert ours == encode(unit, -1)(content), f"{kind.__name__}, {size} bytes in units of {unit}"
        for level in OTHERS[version]:
            content, shift = whole[: rng.choice(SIZES)], rng.randrange(6)
            ours = engine(version, 10 * shift + level)(content)
            expected = encode(MIB >> shift, level)(content)
            assert ours == expected, f"{kind.__name__}, {len(content)} bytes in units of {MIB >> shift}, level {level}"
