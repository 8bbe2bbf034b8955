"""Go's engine beside Go: the same bytes, for contents that change with each run (the seed is told).

Needs a Go toolchain, of 1.7 to 1.26 for the engine's version 1, from 1.27 on for 2: `go` in the path, /usr/local/go, or
CASSTORE_GO (more than one: separated by `:`).
CASSTORE_GO_SECONDS: how long to compare (4).
"""

from __future__ import annotations

import io
import os
import random
import re
import shutil
import subprocess
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from casstore.codec import gzip, replay
from casstore.kernels import deflate

ROOT = Path(__file__).parents[2]
SOURCES = [
    *("engine.c", "engines.c", "engine_huffman.c", "deflate_tables.c", "deflate_write.c"),
    *sorted(path.name for path in (ROOT / "_native").glob("engine_*.c") if path.name != "engine_huffman.c"),
]
FLAGS = ["-std=c11", "-O2", "-fno-strict-aliasing", "-Wall", "-Wextra", "-Werror"]
LEVELS = {1: (-2, -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9), 2: (-2, -1, 0, 1, 2, 3, 4, 5, 6)}
# Bytes of a write (0: all at once): those that version 1 does not depend on, see engine_go.c; 2 depends on none.
WRITES = {1: (0, 1 << 15, 1 << 20), 2: (0, 100, 4096, 1 << 15, 65535, 65536, 99_999, 1 << 20)}
PROGRAM = """
package main

import (
	"compress/flate"
	"io/ioutil"
	"os"
	"strconv"
)

// flate LEVEL SIZE < content > deflate: writes of SIZE bytes, 0: one.
func main() {
	level, _ := strconv.Atoi(os.Args[1])
	size, _ := strconv.Atoi(os.Args[2])
	content, err := ioutil.ReadAll(os.Stdin)
	if err != nil {
		panic(err)
	}
	writer, err := flate.NewWriter(os.Stdout, level)
	if err != nil {
		panic(err)
	}
	for len(content) > 0 {
		n := len(content)
		if size > 0 && size < n {
			n = size
		}
		if _, err := writer.Write(content[:n]); err != nil {
			panic(err)
		}
		content = content[n:]
	}
	if err := writer.Close(); err != nil {
		panic(err)
	}
}
"""


def toolchains() -> Iterator[tuple[str, str]]:
    """Go programs and their versions."""
    named = [name for name in os.environ.get("CASSTORE_GO", "").split(":") if name]
    for name in named or filter(None, [shutil.which("go"), "/usr/local/go/bin/go"]):
        try:
            told = subprocess.run([name, "version"], capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            continue
        version = re.search(r"go1\.(\d+)\S*", told)
        if version and int(version[1]) >= 7:
            yield name, version[0]
            if not named:
                return


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engine")


@pytest.fixture(scope="module")
def engine(folder: Path) -> Path:
    program = folder / "engine"
    compiler = os.environ.get("CC", "cc")
    if not shutil.which(compiler):
        pytest.skip(f"no {compiler} here")
    sources = [ROOT / "_native" / name for name in SOURCES]
    main = ROOT / "tests/kernels/engine_main.c"
    command: list[str | Path] = [compiler, *FLAGS, f"-I{ROOT / '_native'}", *sources, main, "-o", program]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return program


@pytest.fixture(scope="module")
def encoders(folder: Path) -> dict[str, Path]:
    """Of each version a program."""
    made = {}
    (folder / "main.go").write_text(PROGRAM)
    for name, version in toolchains():
        program = folder / version
        environment = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOCACHE": str(folder / "cache")}
        environment["GOROOT"] = str(Path(name).resolve().parents[1])
        command: list[str | Path] = [name, "build", "-o", program, folder / "main.go"]
        built = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert built.returncode == 0, built.stderr
        made[version] = program
    return made


def copies(numbers: random.Random, size: int) -> bytes:
    """What came before, at distances and in lengths around the limits, between noise."""
    made = bytearray(numbers.randbytes(64))
    while len(made) < size:
        if numbers.random() < 0.3:
            made += numbers.randbytes(numbers.randrange(1, 40))
            continue
        limit = numbers.choice((1, 2, 3, 4095, 4096, 4097, 32507, 32508, 32600, 32767, 32768, 40000))
        distance = min(len(made), numbers.choice((limit, numbers.randrange(1, len(made) + 1))))
        length = numbers.choice((3, 4, 5, 8, 20, 130, 257, 258, 259, 600))
        piece = bytes(made[-distance:])
        made += (piece * (length // distance + 1))[:length]
    return bytes(made[:size])


def archive(numbers: random.Random, size: int) -> bytes:
    """Like a tar of text, of zeros and of files that are compressed already."""
    words = [numbers.randbytes(numbers.randrange(2, 9)) for _ in range(numbers.choice((10, 300, 5000)))]
    made = bytearray()
    while len(made) < size:
        header = b"usr/lib/%d/file%d" % (numbers.randrange(5), numbers.randrange(10**6))
        made += header.ljust(257, b"\0") + b"ustar\0".ljust(255, b"\0")
        length = numbers.choice((0, 10, 3000, 20000, 70000))
        kind = numbers.randrange(4)
        if kind == 0:
            made += numbers.randbytes(length)
        elif kind == 1:
            made += bytes(length)
        else:
            made += b" ".join(numbers.choice(words) for _ in range(length // 7))
        made += bytes(-len(made) % 512)
    return bytes(made[:size])


def content(numbers: random.Random) -> bytes:
    size = numbers.choice(
        (
            numbers.randrange(300),
            numbers.randrange(5000),
            numbers.randrange(400_000),
            (1 << 15) + numbers.randrange(-300, 300),
            (1 << 16) + numbers.randrange(-300, 300),
            65274 + numbers.randrange(-6, 7),
            65535 * numbers.choice((1, 2)) + numbers.randrange(-20, 150),
            3 * (1 << 15) + numbers.randrange(-300, 300),
            (1 << 20) + numbers.randrange(-300, 300),
        )
    )
    kind = numbers.randrange(7)
    if kind == 0:
        return numbers.randbytes(size)
    if kind == 1:
        few = bytes(numbers.randrange(256) for _ in range(numbers.randrange(1, 20)))
        return bytes(numbers.choices(few, k=size))
    if kind == 2:
        period = numbers.randbytes(numbers.choice((1, 2, 3, 5, 100, 4096, 4097, 32767, 32768, 32769)))
        return (period * (size // len(period) + 1))[:size]
    if kind == 3:
        made = bytearray()
        while len(made) < size:
            length = numbers.randrange(1, 70000)
            made += numbers.choice((bytes(length), numbers.randbytes(length)))
        return bytes(made[:size])
    return (archive, archive, copies)[kind - 4](numbers, size)


@pytest.mark.parametrize("version", LEVELS)
def test_the_same_bytes(version: int, engine: Path, encoders: dict[str, Path]) -> None:
    programs = {of: program for of, program in encoders.items() if version == 1 + (int(of.split(".")[1]) >= 27)}
    if not programs:
        pytest.skip(f"no Go {'of 1.7 to 1.26' if version == 1 else 'from 1.27 on'} here (CASSTORE_GO)")
    seed = int(os.environ.get("CASSTORE_SEED", random.randrange(1 << 32)))
    numbers = random.Random(seed)
    until = time.monotonic() + float(os.environ.get("CASSTORE_GO_SECONDS", "4"))
    while time.monotonic() < until:
        given = content(numbers)
        level = numbers.choice(LEVELS[version])
        size = numbers.choice(WRITES[version])
        command: list[str | Path] = [engine, "go", str(level), str(version)]
        mine = subprocess.run(command, input=given, capture_output=True, check=True)
        for of, program in programs.items():
            command = [program, str(level), str(size)]
            theirs = subprocess.run(command, input=given, capture_output=True, check=True)
            assert mine.stdout == theirs.stdout, f"{of}, level {level}, {len(given)} bytes, seed {seed}"


@pytest.mark.parametrize(("version", "level", "extra"), [(1, 6, 0), (1, 1, 4), (2, 6, 0), (2, 1, 4), (2, 4, 0)])
def test_made_again(version: int, level: int, extra: int, engine: Path) -> None:
    """A layer of several stretches is recognised, and made again whole and in part."""
    if deflate.IMPLEMENTATION != "compiled":
        pytest.skip("not compiled here")
    given = b"".join(archive(random.Random(number), 2_500_000) for number in range(5))
    command: list[str | Path] = [engine, "go", str(level), str(version)]
    made = subprocess.run(command, input=given, stdout=subprocess.PIPE, check=True).stdout
    head = b"\x1f\x8b\x08\0\0\0\0\0" + bytes([extra, 255])
    blob = head + made + zlib.crc32(given).to_bytes(4, "little") + len(given).to_bytes(4, "little")
    analysis = gzip.Analysis(io.BytesIO(blob))
    assert b"".join(analysis) == given
    trace = analysis.trace
    assert trace is not None
    assert list(map(tuple, trace.engines)) == [("go", version, level)]
    segments = [segment for member in trace.members for segment in member.segments]
    assert len(segments) > 2 and not any(segment.exceptions for segment in segments)
    assert not segments[0].goes_on

    def read(start: int, end: int) -> bytes:
        return given[start:end]

    assert b"".join(replay.replay(trace, read)) == blob
    numbers = random.Random(level)
    for _ in range(4):
        start = numbers.randrange(len(blob))
        assert b"".join(replay.replay(trace, read, start, start + 1000)) == blob[start : start + 1000]
