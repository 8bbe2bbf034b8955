"""hashing: the stream's SHA-256, chunk names, both in one pass; BLAKE3 names; hashlib beside them."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from casstore.kernels import hashing

AVERAGE = 16 << 10
FEED = 4 << 20


@pytest.fixture(scope="module")
def spans(content):
    """Chunks of 16 KiB over one feed, as ingest hands them over."""
    starts = np.arange(0, min(len(content), FEED) - AVERAGE, AVERAGE, dtype=np.uint64)
    return starts, np.full(len(starts), AVERAGE, np.uint32)


def test_hashing_stream(content, rate):
    feed = memoryview(content)[:FEED]
    rate(lambda: hashing.Sha256().update(feed), amount=FEED)


def test_hashing_hashlib_stream(content, rate):
    feed = memoryview(content)[:FEED]
    rate(lambda: hashlib.sha256(feed).digest(), amount=FEED)


def test_hashing_names(content, spans, rate):
    names = rate(hashing.names, content, *spans, amount=int(spans[1].sum()))
    assert names[0].tobytes() == hashlib.sha256(content[:AVERAGE]).digest()


def test_hashing_stream_and_names(content, spans, rate):
    # Both digests count: every byte is hashed twice, and the bar is for the two together.
    def both():
        return hashing.stream_and_names(hashing.Sha256(), content, 0, FEED, *spans)

    rate(both, amount=FEED + int(spans[1].sum()), bar=2600.0)


def test_hashing_blake3_names(content, spans, rate):
    rate(hashing.blake3_names, content, *spans, amount=int(spans[1].sum()))
