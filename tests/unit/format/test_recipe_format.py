from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest

from casstore.errors import Damaged, LimitExceeded
from casstore.format import encoding, recipe
from casstore.model import ChunkList, Recipe


def chunks(lengths: list[int], repeats: list[int] | None = None, seed: int = 0) -> ChunkList:
    digests = np.random.default_rng(seed).integers(0, 256, (len(lengths), 32), dtype=np.uint8)
    times = [1] * len(lengths) if repeats is None else repeats
    return ChunkList(digests, np.array(lengths, np.uint32), np.array(times, np.uint32))


def weave(*rows: tuple[int, int]) -> np.ndarray:
    return np.array(rows, np.uint64).reshape(-1, 2)


def test_a_tar_of_small_files_costs_its_digests_and_their_lengths() -> None:
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, 32768, 5000).astype(np.uint32)
    rows = np.empty((5001, 2), np.uint64)
    rows[:5000, 1] = lengths
    rows[0, 0] = 512
    rows[1:5000, 0] = 512 + (-lengths[:-1].astype(np.int64)) % 512
    rows[5000] = 1024, 0
    literal_size = int(rows[:, 0].sum())
    literals = chunks([16384] * (literal_size // 16384) + [literal_size % 16384], seed=2)
    payloads = ChunkList(chunks([1] * 5000).digests, lengths, np.ones(5000, np.uint32))
    record = recipe.encode(Recipe(int(rows.sum()), rows, literals, payloads))
    assert len(record) / (len(literals.digests) + 5000) < 34.2


def test_repeats_may_be_split_by_rows() -> None:
    payloads = chunks([100, 7], [2**32 - 1, 3])
    rows = weave((0, 100 * 5), (0, 0), (0, 100 * (2**32 - 7) + 7), (0, 100 * 0 + 14), (0, 0))
    payloads = ChunkList(payloads.digests, payloads.lengths, np.array([2**32 - 2, 3], np.uint32))
    kept = recipe.decode(recipe.encode(Recipe(int(rows.sum()), rows, chunks([]), payloads)))
    np.testing.assert_array_equal(kept.weave, rows)
    assert kept.payloads.repeats.tolist() == [2**32 - 2, 3]


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (Recipe(15, weave((0, 5), (0, 10)), chunks([]), chunks([10, 5])), "inside a chunk"),
        (Recipe(11, weave((1, 10)), chunks([]), chunks([10])), "differ in size"),
        (Recipe(9, weave((0, 10)), chunks([]), chunks([10])), "size"),
        (Recipe(10, weave((0, 10)), chunks([]), chunks([10]), "", b""), "encoding"),
        (Recipe(10, weave((0, 10)), chunks([]), chunks([10]), "x" * 256, b""), "encoding"),
        (Recipe(10, weave((0, 10)), chunks([]), chunks([10]), "identity", b"trace"), "size"),
        (Recipe(1 << 63, weave((0, 10)), chunks([]), chunks([10]), "gzip"), "size"),
        (Recipe(10, weave((0, 10)), chunks([]), chunks([10], [0])), "repeat"),
        (Recipe(0, weave((0, 0)), chunks([]), chunks([0])), "length"),
        (Recipe(20, weave((10, 10)), chunks([10]), chunks([10])), None),
    ],
)
def test_recipes_that_break_the_rules_are_not_written(model: Recipe, why: str | None) -> None:
    if why is None:
        recipe.encode(model)
        return
    with pytest.raises(ValueError, match=why):
        recipe.encode(model)


def test_one_digest_has_one_length() -> None:
    twice = np.repeat(chunks([1]).digests, 2, axis=0)
    payloads = ChunkList(twice, np.array([5, 6], np.uint32), np.ones(2, np.uint32))
    with pytest.raises(ValueError, match="two lengths"):
        recipe.encode(Recipe(11, weave((0, 11)), chunks([]), payloads))


def test_rows_for_nothing_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "FREE_ROWS", 10)
    payloads = chunks([1], [100])

    def made(rows: int) -> Recipe:
        counts = [(0, 1)] * (rows - 1) + [(0, 100 - rows + 1)]
        return Recipe(100, weave(*counts), chunks([]), payloads)

    record = recipe.encode(made(10 + recipe.ROWS_PER_DIGEST))
    recipe.decode(record)
    with pytest.raises(LimitExceeded):
        recipe.encode(made(11 + recipe.ROWS_PER_DIGEST))
    monkeypatch.setattr(recipe, "FREE_ROWS", 9)
    with pytest.raises(Damaged):
        recipe.decode(record)


@pytest.mark.parametrize("field", range(5))
def test_claims_cost_nothing(field: int) -> None:
    """rows, literals, payloads, distinct, trace: each claimed to be as large as its field allows."""
    record = bytearray(recipe.encode(Recipe(10, weave((0, 10)), chunks([]), chunks([10]))))
    if field == 4:
        struct.pack_into("<Q", record, 16, 2**64 - 1)
    else:
        struct.pack_into("<I", record, 24 + 4 * field, 2**32 - 1)
    record[-16:] = encoding.checksum(record[:-16])
    tracemalloc.start()
    try:
        with pytest.raises(Damaged):
            recipe.decode(record)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_record_is_whole() -> None:
    record = recipe.encode(Recipe(10, weave((0, 10)), chunks([]), chunks([10])))
    for other in (record + b"\0", record[1:], b"", record * 2):
        with pytest.raises(Damaged):
            recipe.decode(other)
