"""A put that succeeds can be read back, whatever the index says of the chunks that were there before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import sample

from casstore import api
from casstore.digest import Digest
from casstore.format.encoding import checksum
from casstore.format.index import IndexSegment
from casstore.store import index as store_index
from casstore.store import query

FIRST = sample.noise("index hits", 3_000_000)
SECOND = FIRST[:2_500_000] + b"and another end"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[api.Store]:
    with api.open(tmp_path / "store") as opened:
        put(opened, FIRST)
        yield opened


def put(store: api.Store, data: bytes) -> None:
    given = store.root.parent / "given"
    given.write_bytes(data)
    assert store.blobs.put(given) == Digest.of(data)


def objects(store: api.Store, kind: str) -> list[Path]:
    with store.volume.catalog.read() as tx:
        return [store.root / "objects" / row.key for row in query.objects(tx, kind) if row.state == "live"]


def packs_of(store: api.Store, data: bytes) -> set[str]:
    return set(store.blobs.inspect(Digest.of(data))["Packs"])


def rewrite(path: Path, change: Callable[[IndexSegment], None]) -> None:
    """Another segment in place of this one, its checksum right."""
    data = bytearray(path.read_bytes())
    change(IndexSegment.open(data))
    data[-32:] = checksum(data[:-32], length=32)
    path.unlink()
    path.write_bytes(data)


def move_on(segment: IndexSegment) -> None:
    segment.entries["address"] += 1


def shuffle(segment: IndexSegment) -> None:
    segment.entries["address"] = np.roll(segment.entries["address"], 1)


@pytest.mark.parametrize("size", ["in memory", "left where it is"])
@pytest.mark.parametrize("change", [move_on, shuffle])
def test_an_index_that_is_wrong(
    store: api.Store, change: Callable[[IndexSegment], None], size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if size == "left where it is":
        monkeypatch.setattr(store_index, "IN_MEMORY", 0)
    (segment,) = objects(store, "index")
    rewrite(segment, change)
    put(store, SECOND)
    assert b"".join(store.blobs.cat(Digest.of(SECOND))) == SECOND
    assert not packs_of(store, FIRST) & packs_of(store, SECOND)


def test_one_entry_of_a_large_segment_is_wrong(store: api.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is right of it is used all the same."""
    monkeypatch.setattr(store_index, "IN_MEMORY", 0)
    (segment,) = objects(store, "index")
    data = bytearray(segment.read_bytes())
    data[-32 - 40 * 5 + 38] ^= 1  # no checksum over all is read
    segment.unlink()
    segment.write_bytes(data)
    put(store, SECOND)
    assert b"".join(store.blobs.cat(Digest.of(SECOND))) == SECOND
    assert packs_of(store, FIRST) & packs_of(store, SECOND)


def test_what_is_right_is_used(store: api.Store) -> None:
    before = sum(path.stat().st_size for path in objects(store, "data"))
    put(store, SECOND)
    after = sum(path.stat().st_size for path in objects(store, "data"))
    assert packs_of(store, FIRST) < packs_of(store, SECOND) and after - before < 200_000


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-1])


@pytest.mark.parametrize("spoil", [Path.unlink, cut])
def test_a_pack_that_is_not_there(store: api.Store, spoil: Callable[[Path], None]) -> None:
    """It answers "missing" from then on: the same blob, put again, is whole, too."""
    (pack,) = objects(store, "data")
    spoil(pack)
    put(store, SECOND)
    assert b"".join(store.blobs.cat(Digest.of(SECOND))) == SECOND
    with store.volume.catalog.read() as tx:
        marks = {row.key: row.damaged for row in query.objects(tx, "data")}
    assert [key for key, damaged in marks.items() if damaged] == [pack.relative_to(store.root / "objects").as_posix()]
    assert len(marks) == 1 + len(packs_of(store, SECOND))
    assert packs_of(store, SECOND) == {key for key, damaged in marks.items() if not damaged}
