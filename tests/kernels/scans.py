"""One scan of an archive by either twin, and what must be true of every scan."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from casstore.kernels import _tarscan_py as twin

compiled = pytest.importorskip("casstore.kernels._tarscan_c", reason="the compiled kernel is not built")
TWINS = [pytest.param(twin, id="python"), pytest.param(compiled, id="compiled")]


def chopped(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def scan(module: Any, data: bytes, cuts: list[int] | None = None) -> tuple[bytes, Any, list[Any]]:
    """(per byte L or P, the scanner, its entries); every rule that segments obey is checked on the way."""
    scanner = module.Scanner(entries=True)
    kinds, entries = bytearray(), []
    for piece in chopped(data, cuts or []):
        segments = scanner.feed(piece)
        assert [column.dtype for column in segments] == [np.uint8, np.uint64, np.uint64, np.uint8]
        assert int(segments.lengths.sum()) == len(piece)
        before = -1
        for payload, length, total, last in zip(*(column.tolist() for column in segments), strict=True):
            assert length > 0
            assert payload or (before != 0 and not total and not last)
            kinds += (b"P" if payload else b"L") * length
            before = payload
        ends = segments.payload.size and segments.payload[-1] and not segments.last[-1]
        assert bool(ends) <= (scanner.payload_left > 0)
        assert scanner.position == len(kinds)
        entries += scanner.pop_entries()
    scanner.finish()
    return bytes(kinds), scanner, entries


def payloads(kinds: bytes, data: bytes) -> list[bytes]:
    """Runs of payload. (Two payloads have a header between them.)"""
    runs, start = [], None
    for at in range(len(kinds) + 1):
        inside = at < len(kinds) and kinds[at : at + 1] == b"P"
        if inside and start is None:
            start = at
        elif not inside and start is not None:
            runs.append(data[start:at])
            start = None
    return runs
