"""table: digests looked up in a sorted table of 10 M entries, thousands per call; the map of new chunks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from casstore.kernels import table

ENTRIES = 10_000_000
BATCH = 8192
BATCHES = 128
"""Queries go round: a batch comes again only after a million others, so that the cache does not know the answer."""


@pytest.fixture(scope="module")
def sorted_table():
    """(entries buffer, fanout, bits, digests (ENTRIES, 32))."""
    rng = np.random.default_rng(1)
    entries = np.frombuffer(bytearray(rng.bytes(ENTRIES * 40)), np.uint8).reshape(-1, 40)
    # Sorted by construction: eight leading bytes in order tell 10 M random digests apart.
    entries[:, :8] = np.sort(rng.integers(0, 1 << 64, ENTRIES, np.uint64)).astype(">u8").view(np.uint8).reshape(-1, 8)
    bits = table.pick_bits(ENTRIES)
    fanout = np.asarray(table.build_fanout(entries[:, :32], bits), np.uint32)
    return memoryview(entries).cast("B"), memoryview(fanout).cast("B"), bits, entries[:, :32]


@pytest.mark.parametrize("kind", ["hits", "misses", "half"])
def test_table_find(kind, sorted_table, rate):
    entries, fanout, bits, digests = sorted_table
    rng = np.random.default_rng(2)
    queries = np.frombuffer(rng.bytes(BATCH * BATCHES * 32), np.uint8).reshape(-1, 32).copy()
    wanted = {"hits": len(queries), "misses": 0, "half": len(queries) // 2}[kind]
    chosen = rng.permutation(len(queries))[:wanted]
    queries[chosen] = digests[rng.integers(0, ENTRIES, wanted)]
    batches = itertools.cycle([queries[at : at + BATCH] for at in range(0, len(queries), BATCH)])
    found, _, _ = rate(
        lambda: table.find(entries, ENTRIES, fanout, bits, next(batches)), amount=BATCH, unit="M look-ups", bar=5.0
    )
    assert kind == "half" or found.all() == (kind == "hits")


def test_table_map_claim(rate):
    digests = np.frombuffer(np.random.default_rng(3).bytes(BATCH * BATCHES * 32), np.uint8).reshape(-1, 32)

    def claim():
        known = table.ChunkMap()
        for at in range(0, len(digests), BATCH):
            known.claim(digests[at : at + BATCH])
        return len(known)

    assert rate(claim, amount=len(digests), unit="M look-ups") == len(digests)
