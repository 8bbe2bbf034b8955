"""What the catalog answers about names and blobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from casstore.digest import Digest
from casstore.errors import Conflict, Damaged, InvalidReference
from casstore.model import ImageRow, NewBlob, Place, Used
from casstore.store import names, protocol, query, rewrite
from casstore.store.catalog import Catalog
from casstore.store.objects import Objects, loose_key, pack_key
from casstore.store.protocol import NewObject


class Filled:
    """Two images over shared and own layers, one index over both; rows only, no files are asked for here."""

    def __init__(self, root: Path) -> None:
        Objects.make(root)
        self.catalog = Catalog.make(root)
        self.lease = protocol.lease_open(self.catalog, "test", 600)
        self.meta, self.data = pack_key(b"m" * 16), pack_key(b"d" * 16)
        protocol.put_begin(self.catalog, self.lease, [(self.meta, "metadata"), (self.data, "data")])
        self.objects = [NewObject(self.meta, 100), NewObject(self.data, 1000, 3000)]
        self.shared = self.packed("shared", [[0, 10], [20, 30]])
        self.own = self.packed("own", [[25, 40]])
        self.gz = self.loose("own.gz", encoding="gzip", diffid=self.own.digest)
        self.configs = [self.inline(f"config{n}") for n in (1, 2)]
        self.manifests = [
            self.inline("manifest1", self.configs[0], self.shared),
            self.inline("manifest2", self.configs[1], self.shared, self.own),
        ]
        self.index = self.inline("index", *self.manifests)
        self.images = [
            ImageRow(
                self.manifests[n].digest,
                self.configs[n].digest,
                "2020-01-01T00:00:00Z",
                77,
                "linux",
                "amd64",
                "",
                {"k": "v", "ü": "ö"} if n else {},
                str(self.configs[0].digest) if n else "",
            )
            for n in (0, 1)
        ]
        protocol.commit(
            self.catalog,
            self.lease,
            [self.shared, self.own, self.gz, *self.configs, *self.manifests, self.index],
            objects=self.objects,
            images=self.images,
            tags=[
                ("b", "1", self.index.digest),
                ("a", "2", self.manifests[0].digest),
                ("a", "1", self.manifests[0].digest),
            ],
            pins=[(self.gz.digest, "by hand")],
        )

    def packed(self, name: str, intervals: list[list[int]]) -> NewBlob:
        uses = (Used(self.data, np.array(intervals, np.uint32)),)
        digest = Digest.of(name.encode())
        return NewBlob(digest, 50, Place("packed", self.meta, 1, 2, 3, uses), diffid=digest, content_size=50)

    def inline(self, name: str, *children: NewBlob) -> NewBlob:
        below = tuple(child.digest for child in children)
        return NewBlob(
            Digest.of(name.encode()), 5, Place("inline", self.meta, 0, 7, 5), media_type="json", children=below
        )

    def loose(self, name: str, **values: Any) -> NewBlob:
        digest = Digest.of(name.encode())
        key = loose_key(digest)
        protocol.put_begin(self.catalog, self.lease, [(key, "blob")])
        self.objects.append(NewObject(key, 20))
        return NewBlob(digest, 20, Place("loose", key), spot=b"12345678", **values)


@pytest.fixture
def filled(tmp_path: Path) -> Any:
    made = Filled(tmp_path)
    yield made
    made.catalog.close()


@pytest.fixture
def tx(filled: Filled) -> Any:
    with filled.catalog.read() as tx:
        yield tx


def test_blobs_are_told_as_they_were_committed(filled: Filled, tx: Any) -> None:
    for new in (filled.shared, filled.gz, filled.manifests[0]):
        info = query.find_blob(tx, new.digest)
        assert info is not None
        for field in ("digest", "size", "encoding", "media_type", "diffid", "content_size", "files_size", "spot"):
            assert getattr(info, field) == getattr(new, field)
        place = info.place
        assert (place.state, place.key, place.frame, place.offset, place.length) == (
            new.place.state,
            new.place.key,
            new.place.frame,
            new.place.offset,
            new.place.length,
        )
        assert [(use.key, use.intervals.tolist()) for use in place.uses] == [
            (use.key, use.intervals.tolist()) for use in new.place.uses
        ]
        assert abs(info.created - tx.now()) < 60
    assert query.find_blob(tx, Digest.of(b"nothing")) is None


def test_all_blobs_by_digest(filled: Filled, tx: Any) -> None:
    digests = [info.digest for info in query.blobs(tx)]
    assert digests == sorted(digests)
    assert len(digests) == 8


def test_blobs_by_diffid_the_plain_one_first(filled: Filled, tx: Any) -> None:
    found = [info.digest for info in query.find_diffid(tx, filled.own.digest)]
    assert found == [filled.own.digest, filled.gz.digest]
    assert query.find_diffid(tx, Digest.of(b"nothing")) == []


def test_damaged_blobs_are_no_source_of_content(filled: Filled) -> None:
    with filled.catalog.read() as tx:
        info = query.find_blob(tx, filled.own.digest)
    assert info is not None
    protocol.mark_damaged(filled.catalog, [info])
    with filled.catalog.read() as tx:
        assert [info.digest for info in query.find_diffid(tx, filled.own.digest)] == [filled.gz.digest]


def test_loose_blobs_that_were_not_read_lately(filled: Filled) -> None:
    with filled.catalog.read() as tx:
        now = tx.now()
        assert query.loose_blobs(tx, idle_before=now - 60) == []
        assert [info.digest for info in query.loose_blobs(tx, idle_before=now + 60)] == [filled.gz.digest]
    rewrite.pack_refuse(filled.catalog, filled.gz.digest, "unknown encoder")
    with filled.catalog.read() as tx:
        assert query.loose_blobs(tx, idle_before=now + 60, engines="b") == []
    rewrite.pack_refuse(filled.catalog, filled.gz.digest, "unknown encoder", "a")
    with filled.catalog.read() as tx:
        assert query.loose_blobs(tx, idle_before=now + 60, engines="a") == []
        assert len(query.loose_blobs(tx, idle_before=now + 60, engines="b")) == 1  # others may know it


def test_reads_are_noted_coarsely(filled: Filled) -> None:
    with filled.catalog.write() as tx:
        tx.run("UPDATE blob SET last_read = last_read - 5000")
    protocol.mark_read(filled.catalog, [filled.gz.digest, Digest.of(b"nothing")])
    with filled.catalog.read() as tx:
        times = dict(tx.rows("SELECT digest, last_read FROM blob"))
        fresh = times.pop(filled.gz.digest.raw)
        assert all(fresh - other > 4000 for other in times.values())


def test_edges(filled: Filled, tx: Any) -> None:
    first, second = (one.digest for one in filled.manifests)
    assert names.children(tx, second) == [filled.shared.digest, filled.own.digest, filled.configs[1].digest]
    assert names.parents(tx, filled.shared.digest) == [first, second]
    assert names.parents(tx, first) == [filled.index.digest]
    assert names.children(tx, filled.shared.digest) == []
    assert names.is_live(tx, first)
    assert not names.is_live(tx, Digest.of(b"nothing"))


def test_users_of_a_pack(filled: Filled, tx: Any) -> None:
    used = {digest: edge.tolist() for digest, edge in query.users(tx, filled.data)}
    assert used == {filled.shared.digest: [[0, 10], [20, 30]], filled.own.digest: [[25, 40]]}
    assert query.live_intervals(tx, filled.data).tolist() == [[0, 10], [20, 40]]
    assert query.live_intervals(tx, filled.meta).tolist() == []


def test_tags(filled: Filled, tx: Any) -> None:
    assert [(row.repository, row.tag) for row in names.tags(tx)] == [("a", "1"), ("a", "2"), ("b", "1")]
    assert [row.tag for row in names.tags(tx, "a")] == ["1", "2"]
    assert [row.repository for row in names.tags(tx, target=filled.index.digest)] == ["b"]
    assert [row.tag for row in names.tags(tx, "a", filled.index.digest)] == []
    assert names.find_tag(tx, "b", "1") == filled.index.digest
    assert names.find_tag(tx, "b", "2") is None


def test_pins(filled: Filled, tx: Any) -> None:
    assert names.pins(tx) == names.pins(tx, filled.gz.digest) == [(filled.gz.digest, "by hand")]
    assert names.pins(tx, filled.own.digest) == []


def test_former_targets_of_a_tag_are_on_record(filled: Filled) -> None:
    former = protocol.tag(filled.catalog, "a", "1", filled.manifests[1].digest)
    assert former == filled.manifests[0].digest
    assert protocol.tag(filled.catalog, "a", "1", filled.manifests[1].digest) is None
    (row,) = protocol.untag(filled.catalog, [("a", "1"), ("no", "such")])
    assert (row.repository, row.tag, row.target) == ("a", "1", filled.manifests[1].digest)
    with filled.catalog.read() as tx:
        rows = tx.rows("SELECT repository, tag, target FROM tag_history ORDER BY id")
    assert rows == [("a", "1", filled.manifests[n].digest.raw) for n in (0, 1)]


def test_what_was_planned_for_other_names_is_not_carried_out(filled: Filled) -> None:
    with filled.catalog.read() as tx:
        state = names.state(tx)
    protocol.pin(filled.catalog, filled.own.digest, "new")
    with pytest.raises(Conflict, match="nothing was changed"):
        protocol.untag(filled.catalog, [("a", "1")], pins=[(filled.own.digest, "new")], planned=state)
    with filled.catalog.read() as tx:
        assert names.find_tag(tx, "a", "1") and names.pins(tx, filled.own.digest)
        state = names.state(tx)
    assert len(protocol.untag(filled.catalog, [("a", "1")], planned=state)) == 1


def test_images(filled: Filled, tx: Any) -> None:
    assert sorted(names.images(tx), key=lambda row: row.manifest) == sorted(filled.images, key=lambda row: row.manifest)
    for row in filled.images:
        assert names.find_image(tx, row.manifest) == row
        assert names.manifests_of(tx, row.config) == [row]
    assert names.find_image(tx, filled.index.digest) is None
    assert names.image_children(tx, filled.images[0].config) == [filled.images[1]]
    assert names.image_children(tx, filled.images[1].config) == []


class Explained:
    """A transaction that gathers how SQLite would go about each question."""

    def __init__(self, tx: Any) -> None:
        self._tx = tx
        self.plans: list[str] = []

    def rows(self, sql: str, values: Any = ()) -> list[Any]:
        self.plans += [row[3] for row in self._tx.rows(f"EXPLAIN QUERY PLAN {sql}", values)]
        return []

    def row(self, sql: str, values: Any = ()) -> None:
        self.rows(sql, values)

    def value(self, sql: str, values: Any = ()) -> None:
        self.rows(sql, values)


def test_questions_about_one_image_do_not_look_at_all_of_them(filled: Filled, tx: Any) -> None:
    digest = filled.images[0].config
    explained: Any = Explained(tx)
    for ask in (
        names.image_children, names.manifests_of, names.find_image, names.images_with, names.files_size,
        names.children, names.parents, names.pins, names.is_live,
    ):  # fmt: skip
        ask(explained, digest)
    names.tags(explained, target=digest)
    names.image_ids(explained, digest.hex[:6])
    assert explained.plans and not [plan for plan in explained.plans if plan.startswith("SCAN")]


@pytest.mark.parametrize("length", [1, 2, 3, 12, 63, 64])
def test_image_ids_by_prefix(filled: Filled, tx: Any, length: int) -> None:
    for row in filled.images:
        prefix = row.config.hex[:length]
        expected = sorted(one.config for one in filled.images if one.config.hex.startswith(prefix))
        assert names.image_ids(tx, prefix) == expected


def test_image_ids_that_do_not_match(filled: Filled, tx: Any) -> None:
    taken = {row.config.hex[0] for row in filled.images}
    other = next(digit for digit in "0123456789abcdef" if digit not in taken)
    assert names.image_ids(tx, other) == []
    for prefix in ("", "G", "ABC", "sha256:ab", "%", "a" * 65):
        with pytest.raises(InvalidReference):
            names.image_ids(tx, prefix)


def test_sums(filled: Filled, tx: Any) -> None:
    stats = names.stats(tx)
    assert (stats.images, stats.tags, stats.blob_count) == (2, 3, 8)
    assert stats.blob_bytes == 2 * 50 + 20 + 5 * 5
    assert stats.object_bytes == 1120
    assert stats.objects["data", "live"] == names.Sum(1, 1000, 3000)
    assert stats.blobs["packed", "identity"].number == 2
    assert stats.blobs["loose", "gzip"] == names.Sum(1, 20)


def test_an_empty_catalog_has_empty_sums(tmp_path: Path) -> None:
    with Catalog.make(tmp_path) as catalog, catalog.read() as tx:
        stats = names.stats(tx)
        assert (stats.images, stats.blob_count, stats.blob_bytes, stats.object_bytes) == (0, 0, 0, 0)


# -- intervals


@pytest.mark.parametrize(
    ("given", "merged"),
    [
        ([], []),
        ([[5, 9]], [[5, 9]]),
        ([[5, 9], [0, 5]], [[0, 9]]),
        ([[0, 10], [2, 3], [9, 12], [20, 21]], [[0, 12], [20, 21]]),
        ([[0, 2**32 - 1], [7, 8]], [[0, 2**32 - 1]]),
    ],
)
def test_intervals_are_merged(given: list[list[int]], merged: list[list[int]]) -> None:
    array = np.array(given, np.uint32).reshape(-1, 2)
    result = query.merge_intervals(array)
    assert result.tolist() == merged
    assert query.unpack_intervals(query.pack_intervals(result)).tolist() == merged


def test_intervals_that_are_none_are_damage() -> None:
    with pytest.raises(Damaged):
        query.unpack_intervals(b"1234567")
