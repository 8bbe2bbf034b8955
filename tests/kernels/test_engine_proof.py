"""Engines prove themselves: their vectors are what the encoders at hand make now, and what is broken does not pass."""

from __future__ import annotations

import importlib
import io
import os
import random
import re
import shutil
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from casstore.codec import gzip, replay
from casstore.kernels import deflate

NATIVE = Path(__file__).parents[2] / "_native"
SUITE = "test_engine_proof.c"
FLAGS = ["-std=c11", "-O1", "-fno-strict-aliasing"]
SOURCES = [
    *("deflate_tables.c", "deflate_write.c"),
    *sorted(path.name for path in NATIVE.glob("engine*.c")),
]
VECTOR = re.compile(r'^\{"(\w+)", (\d+), (-?\d+), (\d+), (\d+), 0x([0-9a-f]{16})\},$', re.MULTILINE)
VECTORS = [
    (found[1], int(found[2]), int(found[3]), int(found[4]), int(found[5]), int(found[6], 16))
    for found in VECTOR.finditer((NATIVE / "engine_proof_vectors.h").read_text())
]


def compiled(folder: Path, source: Path) -> Path:
    made = folder / f"{source.stem}.o"
    command = [os.environ.get("CC", "cc"), *FLAGS, f"-I{NATIVE}", "-c", str(source), "-o", str(made)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return made


def linked(program: Path, objects: list[Path]) -> Path:
    command = [os.environ.get("CC", "cc"), *map(str, objects), "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return program


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """All of it, compiled: by source."""
    if not shutil.which(os.environ.get("CC", "cc")):
        pytest.skip("no C compiler here")
    folder = tmp_path_factory.mktemp("proof")
    made = {name: compiled(folder, NATIVE / name) for name in SOURCES}
    return {**made, SUITE: compiled(folder, NATIVE / "tests" / SUITE)}


@pytest.fixture(scope="module")
def content(objects: dict[str, Path]) -> Callable[[int], bytes]:
    program = linked(objects[SUITE].with_name("proof"), list(objects.values()))
    return lambda size: subprocess.run([program, str(size)], stdout=subprocess.PIPE, check=True).stdout


# ---- the encoders themselves -----------------------------------------------------------------------------------------


def digest(made: bytes) -> int:
    number = 0xCBF29CE484222325
    for byte in made:
        number = (number ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return number


def said(*command: str) -> str:
    """What a program says of itself; nothing where it is not here."""
    if not shutil.which(command[0]):
        return ""
    ran = subprocess.run(command, capture_output=True, text=True)
    return ran.stdout + ran.stderr


def member(*command: str, given: bytes) -> bytes:
    made = subprocess.run(command, input=given, stdout=subprocess.PIPE, check=True).stdout
    assert made[:4] == b"\x1f\x8b\x08\0"
    return made[10:-8]


def by_zlib(level: int, given: bytes, folder: Path) -> bytes:
    if not re.fullmatch(r"1\.(2|3)[.\d]*", zlib.ZLIB_RUNTIME_VERSION):
        pytest.skip(f"Python's zlib is {zlib.ZLIB_RUNTIME_VERSION}")
    stream = zlib.compressobj(level, zlib.DEFLATED, -15, 8)
    return stream.compress(given) + stream.flush()


def by_gzip(level: int, given: bytes, folder: Path) -> bytes:
    if "gzip 1." not in said("gzip", "--version"):
        pytest.skip("no GNU gzip here")
    (folder / "content").write_bytes(given)
    return member("gzip", "-n", "-c", f"-{level}", str(folder / "content"), given=b"")


def by_pigz(level: int, given: bytes, folder: Path) -> bytes:
    if "pigz 2." not in said("pigz", "--version"):
        pytest.skip("no pigz here")
    return member("pigz", "-n", "-c", "-p", "2", f"-{level}", given=given)


ENCODERS = {"zlib": by_zlib, "gzip": by_gzip, "pigz": by_pigz}


@pytest.mark.parametrize("name", ENCODERS)
def test_vectors(name: str, content: Callable[[int], bytes], tmp_path: Path) -> None:
    vectors = [one for one in VECTORS if one[0] == name]
    assert [level for _, _, level, *_ in vectors] == list(range(1, 10))
    for _, _, level, size, expected, expected_digest in vectors:
        made = ENCODERS[name](level, content(size), tmp_path)
        assert (len(made), digest(made)) == (expected, expected_digest), f"{name} level {level}"


# ---- what is broken --------------------------------------------------------------------------------------------------

# A source, what is changed in it, and what, among others, does not prove itself then.
CHANGES = [
    ("engine_go_chain.c", "{16, 128, 128, 0}", "{17, 128, 128, 0}", {"go 1 6"}),
    ("engine_go_fast.c", "#define TABLE_BITS 14", "#define TABLE_BITS 13", {"go 1 1"}),
    ("engine_zlib.c", "{8, 16, 128, 128}", "{8, 17, 128, 128}", {f"{of} 1 6" for of in ("zlib", "gzip", "pigz")}),
    ("engine_huffman.c", "weights[leaf] < sums[inner]", "weights[leaf] <= sums[inner]", {"go 1 6", "klauspost 1 5"}),
    ("engine_klauspost_match.c", "(repeat ? 7 : 6)", "(repeat ? 6 : 7)", {"klauspost 1 5", "klauspost 3 5", "go 2 6"}),
    ("engine_klauspost_fast.c", "two ? 17 : 15", "two ? 17 : 14", {"go 2 1"}),
    ("deflate_tables.c", "24577", "24576", {"go 1 6", "zlib 1 6", "klauspost 1 5"}),
]


def test_what_is_broken_fails(objects: dict[str, Path], tmp_path: Path) -> None:
    for number, (name, old, new, expected) in enumerate(CHANGES):
        text = (NATIVE / name).read_text()
        assert old in text, (name, old)
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / name).write_text(text.replace(old, new, 1))
        changed = {**objects, name: compiled(folder, folder / name)}
        program = linked(folder / "proof", list(changed.values()))
        failing = subprocess.run([program, "failing"], stdout=subprocess.PIPE, text=True, check=True).stdout
        assert expected <= set(failing.splitlines()), (name, old, failing)
        assert subprocess.run([program], capture_output=True).returncode == 1, (name, old)


def test_nothing_is_done_on_its_word(monkeypatch: pytest.MonkeyPatch) -> None:
    if deflate.IMPLEMENTATION != "compiled":
        pytest.skip("not compiled here")
    proofs = importlib.import_module("casstore.kernels._deflate_c")._PROOFS
    content = b"".join(b"%d, " % number for number in range(20_000)) + random.Random(3).randbytes(1000)
    stream = zlib.compressobj(6, zlib.DEFLATED, 31)
    blob = stream.compress(content) + stream.flush()

    def analysed() -> gzip.Analysis:
        analysis = gzip.Analysis(io.BytesIO(blob))
        assert b"".join(analysis)[: len(content)] == content
        return analysis

    trace = analysed().trace
    assert trace is not None
    engine = trace.engines[0]
    assert proofs[tuple(engine)] is True
    monkeypatch.setitem(proofs, tuple(engine), False)
    with pytest.raises(LookupError, match="does not prove itself on this machine"):
        deflate.Engine(*engine)
    with pytest.raises(LookupError, match="does not prove itself"):
        b"".join(replay.replay(trace, lambda start, end: content[start:end]))
    another = analysed().trace
    assert another is None or engine not in another.engines
