from __future__ import annotations

import numpy as np
import pytest

from casstore.errors import Damaged
from casstore.format import encoding, index
from casstore.format.index import IndexSegment

PACK_ID = bytes(range(16))


def random_columns(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(count)
    return (
        rng.integers(0, 256, (count, 32), dtype=np.uint8),
        rng.integers(0, 3, count, dtype=np.uint32),
        rng.integers(0, 2**32, count, dtype=np.uint32),
    )


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 100, 20_000])
def test_all_are_found_and_others_are_not(count: int) -> None:
    digests, packs, addresses = random_columns(count)
    ids = [b"c" * 16, b"a" * 16, b"b" * 16]
    segment = IndexSegment.open(index.encode(digests, packs, addresses, ids))
    assert segment.count == count
    found, where, at = segment.find(digests)
    assert found.all()
    assert [segment.pack_ids[n] for n in where] == [ids[n] for n in packs]
    np.testing.assert_array_equal(at, addresses)
    assert not segment.find(digests ^ np.uint8(1))[0].any()


def test_layout_is_that_of_the_contract() -> None:
    """Where the table kernel and other readers look: offsets are multiples of 64, numbers little-endian."""
    digests, packs, addresses = random_columns(100)
    data = index.encode(digests, packs * 0, addresses, [PACK_ID])
    assert data[64:80] == PACK_ID
    bits = data[11]
    entries = (128 + 4 * ((1 << bits) + 1) + 63) // 64 * 64
    assert len(data) == entries + 40 * 100 + 32
    first = min(digest.tobytes() for digest in digests)
    assert data[entries : entries + 32] == first
    assert data[-32:] == encoding.checksum(data[:-32], length=32)


def test_segments_without_packs_merge() -> None:
    empty = index.encode(np.zeros((0, 32), np.uint8), np.zeros(0, np.uint32), np.zeros(0, np.uint32), [])
    segment = IndexSegment.open(empty)
    assert index.merge([segment, segment]) == empty
    full = IndexSegment.open(index.encode(*random_columns(50), [b"a" * 16, b"b" * 16, b"c" * 16]))
    assert index.merge([segment, full], set(full.pack_ids)) == empty


def test_merge_wants_one_kind_of_digest() -> None:
    digests, packs, addresses = random_columns(3)
    segments = [
        IndexSegment.open(index.encode(digests, packs * 0, addresses, [PACK_ID], kind))
        for kind in ("sha256", "blake3")
    ]
    assert [segment.chunk_digest for segment in segments] == ["sha256", "blake3"]
    with pytest.raises(ValueError):
        index.merge(segments)
    with pytest.raises(ValueError):
        index.merge([])


def test_what_does_not_fit_together_is_not_written() -> None:
    digests, packs, addresses = random_columns(3)
    packs = packs * 0
    for columns, ids in [
        ((digests[:2], packs, addresses), [PACK_ID]),
        ((digests, packs + 1, addresses), [PACK_ID]),
        ((digests, packs, addresses), [PACK_ID, PACK_ID]),
        ((digests, packs, addresses), [b"short"]),
    ]:
        with pytest.raises(ValueError):
            index.encode(*columns, ids)


def liar(change: str) -> bytes:
    """A segment whose checksums are right and whose content is not."""
    digests, packs, addresses = random_columns(50)
    data = bytearray(index.encode(digests, packs * 0, addresses, [PACK_ID]))
    segment = IndexSegment.open(data)
    if change == "order":
        segment.entries[[0, 1]] = segment.entries[[1, 0]]
    elif change == "pack":
        segment.entries["pack"][7] = 1
    elif change == "fanout":
        segment.fanout[1] = 2**32 - 1
    elif change == "twice":
        segment.entries[8] = segment.entries[7]
    data[-32:] = encoding.checksum(data[:-32], length=32)
    return bytes(data)


@pytest.mark.parametrize("change", ["order", "pack", "fanout", "twice"])
def test_a_right_checksum_is_not_enough(change: str) -> None:
    with pytest.raises(Damaged):
        IndexSegment.open(liar(change))


def test_unverified_segments_are_searched_with_care() -> None:
    digests, _, _ = random_columns(50)
    with pytest.raises(Damaged):
        IndexSegment.open(liar("fanout"), verify=False).find(digests)
    with pytest.raises(Damaged):
        IndexSegment.open(liar("fanout"), verify=False).find_range(digests)
    with pytest.raises(Damaged):
        IndexSegment.open(liar("pack"), verify=False).entry(np.array([7], np.uint32))
    with pytest.raises(Damaged):
        index.merge([IndexSegment.open(liar("pack"), verify=False)])


@pytest.mark.parametrize("length", [0, 63, 64, 100])
def test_too_short(length: int) -> None:
    digests, packs, addresses = random_columns(5)
    data = index.encode(digests, packs * 0, addresses, [PACK_ID])
    with pytest.raises(Damaged):
        IndexSegment.open(data[:length], verify=False)
