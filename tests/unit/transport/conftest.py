from __future__ import annotations

import gzip
import lzma
import sys
from pathlib import Path

import pytest
from archives import Way

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

import bz2

SKIPPABLE = b"\x50\x2a\x4d\x18\x04\0\0\0skip"
PACKERS = {
    "gzip": gzip.compress,
    "gzip members": lambda data: gzip.compress(data[:1000]) + gzip.compress(data[1000:]),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd.compress,
    "zstd after a skippable frame": lambda data: SKIPPABLE + zstd.compress(data),
}


@pytest.fixture
def file(tmp_path: Path) -> Way:
    return Way("file", tmp_path / "a.tar")


@pytest.fixture(params=["file", "pipe"])
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Way:
    return Way(request.param, tmp_path / "a.tar")


@pytest.fixture(params=["file", "pipe", *PACKERS])
def any_way(request: pytest.FixtureRequest, tmp_path: Path) -> Way:
    return Way(request.param, tmp_path / "a.tar", PACKERS.get(request.param))
