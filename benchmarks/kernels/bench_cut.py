"""cut: content-defined cut points of the store's default cutter."""

from __future__ import annotations

import numpy as np
import pytest

from casstore.kernels import cut
from casstore.model import Cutter


@pytest.mark.parametrize("kind", ["real", "random"])
def test_cut(kind, content, rate):
    # In one segment, as one large file: small files are not cut at all.
    data = content if kind == "real" else np.random.default_rng(1).bytes(len(content))
    c = Cutter()
    starts, lengths, whole = np.zeros(1, np.uint64), np.array([len(data)], np.uint64), np.zeros(1, np.uint8)
    chunks, _, tail = rate(
        cut.cut, data, starts, lengths, whole, True, c.minimum, c.average, c.maximum, amount=len(data), bar=3000.0
    )
    assert tail == 0 and len(chunks) > len(data) // c.maximum
