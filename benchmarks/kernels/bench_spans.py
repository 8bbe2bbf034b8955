"""spans: many pieces copied or compared in one call."""

from __future__ import annotations

import numpy as np
import pytest

from casstore.kernels import spans

WINDOW = 4 << 20


@pytest.mark.parametrize("piece", [512, 16 << 10])
def test_spans_copy(piece, content, rate):
    # Scattered over 16 frames of 1 MiB and gathered into one window: what restoring does.
    frames = [content[at : at + (1 << 20)] for at in range(0, 16 << 20, 1 << 20)]
    n = WINDOW // piece
    rng = np.random.default_rng(1)
    to = np.arange(n, dtype=np.uint64) * np.uint64(piece)
    which = rng.integers(0, len(frames), n).astype(np.uint32)
    starts = rng.integers(0, (1 << 20) - piece, n).astype(np.uint64)
    lengths = np.full(n, piece, np.uint32)
    rate(spans.copy, bytearray(WINDOW), to, frames, which, starts, lengths, amount=WINDOW)


def test_spans_equal(content, rate):
    n = WINDOW // (16 << 10)
    starts = np.arange(n, dtype=np.uint64) * np.uint64(16 << 10)
    lengths = np.full(n, 16 << 10, np.uint32)
    other = bytes(bytearray(content[:WINDOW]))
    assert rate(spans.equal, content, starts, other, starts, lengths, amount=WINDOW) == -1
