"""The verbs as the library has them: resolution, lists, tags, removal, import, verify, on real stores."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sample

import casstore
from casstore import api
from casstore.digest import Digest
from casstore.errors import (
    AmbiguousPrefix,
    BadInput,
    Conflict,
    InvalidReference,
    NotFound,
    StoreUnusable,
    UsageError,
)
from casstore.image import importing
from casstore.image.content import closure
from casstore.image.listing import moment
from casstore.image.resolve import resolve


def load(store: api.Store, folder: Path, *images: sample.Image) -> None:
    (folder / "in.tar").write_bytes(sample.docker_archive(*images))
    store.load(folder / "in.tar")


def named(store: api.Store, text: str) -> str:
    """The ID that a name or prefix leads to."""
    with store.volume.catalog.read() as tx:
        return str(resolve(tx, text).image.config)


def alike(prefix_length: int) -> tuple[sample.Image, sample.Image]:
    """Two images whose IDs begin alike."""
    seen: dict[str, sample.Image] = {}
    for number in range(10_000):
        one = sample.image("alike", [f"a:{number}"], [sample.files({"f": b"1"})], comment=str(number))
        other = seen.setdefault(one.id[7 : 7 + prefix_length], one)
        if other is not one:
            return other, one
    raise AssertionError("no luck")


# -- resolve


def test_what_names_and_prefixes_mean(opened: api.Store, tmp_path: Path) -> None:
    one, two = alike(3)
    load(opened, tmp_path, one, two)
    common = one.id[7:10]
    for text in (one.tags[0], f"docker.io/library/{one.tags[0]}", one.id, one.id[7:], one.id[:30], one.id[7:30]):
        assert named(opened, text) == one.id
    with pytest.raises(AmbiguousPrefix) as failure:
        named(opened, common)
    assert str(failure.value) == f'ambiguous image ID prefix "{common}": matches ' + ", ".join(
        sorted((one.id[7:19], two.id[7:19]))
    )
    with pytest.raises(AmbiguousPrefix):
        named(opened, f"sha256:{common}")
    opened.tag(two.tags[0], f"{common}:latest")
    assert named(opened, common) == two.id  # a name beats a prefix
    for text in ("nosuch", "a:nosuch", "a", "b/a:1", "0" * 64, "sha256:" + "0" * 64):
        with pytest.raises(NotFound, match="No such image: "):
            named(opened, text)
    for text in ("", "A:1", "a::", "a b"):
        with pytest.raises((InvalidReference, NotFound)):
            named(opened, text)


def test_a_digest_reference_goes_by_the_digest(opened: api.Store, tmp_path: Path) -> None:
    one, two = sample.image(1, ["r:1"]), sample.image(2, ["r:2"])
    load(opened, tmp_path, one, two)
    digest = {row.tag: row.digest for row in opened.images()}
    assert named(opened, f"r@{digest['2']}") == two.id
    assert named(opened, f"r:1@{digest['2']}") == two.id
    assert named(opened, str(digest["1"])) == one.id
    with pytest.raises(NotFound):
        named(opened, "r@sha256:" + "1" * 64)


def test_an_image_that_only_waits_for_gc_is_not_there(opened: api.Store, tmp_path: Path) -> None:
    one = sample.image(1, ["r:1"])
    load(opened, tmp_path, one)
    digest = opened.images()[0].digest
    list(opened.remove(["r:1"]))
    for text in (one.id, one.id[7:15], f"r@{digest}", "r:1"):
        with pytest.raises(NotFound):
            named(opened, text)
    load(opened, tmp_path, one)
    assert named(opened, one.id[7:15]) == one.id


def test_one_id_with_several_manifests(opened: api.Store, tmp_path: Path) -> None:
    """The plain and the gzip form of one image: one ID, two digests."""
    one = sample.image(1, ["plain:1"])
    load(opened, tmp_path, one)
    (tmp_path / "gz.tar").write_bytes(sample.oci_archive(sample.Image(one.config, one.layers, ("gzip:1",))))
    opened.load(tmp_path / "gz.tar")
    rows = {row.repository: row for row in opened.images()}
    assert rows["plain"].id == rows["gzip"].id and rows["plain"].digest != rows["gzip"].digest
    assert rows["plain"].size == rows["gzip"].size
    with opened.volume.catalog.read() as tx:
        blobs = {name: closure(tx, rows[name].digest) for name in rows}
    assert Digest.of(one.layers[0]) in blobs["plain"] and Digest.of(sample.gz(one.layers[0])) in blobs["gzip"]
    assert opened.df().images == 1
    with pytest.raises(Exception, match="multiple repositories"):
        raise_errors(opened, one.id)
    steps = list(opened.remove([one.id], force=True))
    assert [step.verb for step in steps[:2]] == ["Untagged", "Untagged"]
    opened.gc(grace=0)
    assert list(opened.blobs.ls()) == []


def raise_errors(store: api.Store, *names: str, force: bool = False) -> None:
    for step in store.remove(names, force=force):
        if step.verb == "Error":
            raise Conflict(step.text)


# -- lists


def test_lists_are_in_order_of_creation_then_of_name(opened: api.Store, tmp_path: Path) -> None:
    moments = {
        "z:1": "2024-01-01T00:00:00Z",
        "a:1": "2024-01-01T00:00:00Z",
        "offset:1": "2024-01-01T02:00:00+03:00",
        "nano:1": "2024-01-01T00:00:00.000000001Z",
        "old:1": "1980-01-01T00:00:00Z",
        "none:1": None,
        "bad:1": "yesterday",
        "zero:1": "0001-01-01T00:00:00Z",
    }
    load(opened, tmp_path, *(sample.image(tag, [tag], created=made) for tag, made in moments.items()))
    order = [f"{row.repository}:{row.tag}" for row in opened.images()]
    assert order[:5] == ["nano:1", "a:1", "z:1", "offset:1", "old:1"]
    assert set(order[5:]) == {"zero:1", "none:1", "bad:1"}
    assert moment("2024-01-01T02:00:00+03:00") < moment("2023-12-31T23:30:00Z")


def test_labels_and_platforms_are_listed(opened: api.Store, tmp_path: Path) -> None:
    one = sample.image(1, ["l:1"], config={"Labels": {"a": "1", "b": ""}}, architecture="arm64")
    load(opened, tmp_path, one)
    (row,) = opened.images()
    assert row.labels == {"a": "1", "b": ""} and (row.os, row.architecture) == ("linux", "arm64")
    assert opened.images(filters=[("label", "b")]) == [row] == opened.images(filters=[("label", "a=1")])
    assert opened.images(filters=[("label", "a=2")]) == [] == opened.images(filters=[("label", "a"), ("label", "c")])


def test_a_tag_that_moves_leaves_an_image_without_a_name(opened: api.Store, tmp_path: Path) -> None:
    one, two = sample.image(1, ["m:1"]), sample.image(2, ["m:1"])
    load(opened, tmp_path, one)
    load(opened, tmp_path, two)
    dangling = opened.images(filters=[("dangling", "true")])
    assert [(row.repository, str(row.id)) for row in dangling] == [(None, one.id)]
    opened.gc(grace=0)
    assert named(opened, one.id) == one.id
    opened.tag(one.id, "m:old")
    assert opened.images(filters=[("dangling", "true")]) == []
    opened.tag(two.id, "m:old")
    assert [str(row.id) for row in opened.images(filters=[("dangling", "true")])] == [one.id]
    list(opened.remove([one.id]))
    assert opened.images(filters=[("dangling", "true")]) == []


def test_tags_of_an_index_lead_to_its_children(opened: api.Store, tmp_path: Path) -> None:
    layout, images = sample.platforms()
    (tmp_path / "in.tar").write_bytes(layout.tar())
    opened.load(tmp_path / "in.tar", all_platforms=True)
    (row,) = opened.images()
    assert str(row.digest) == layout.top[0]["digest"]
    assert {str(row.id)} <= {one.id for one in images.values()}
    for one in images.values():
        assert named(opened, one.id) == one.id
    opened.tag("many:1", "again:1")
    list(opened.remove(["many:1"]))
    opened.gc(grace=0)
    assert opened.verify("again:1").ok and len(opened.verify("again:1").rows) == len(layout.blobs)
    list(opened.remove(["again:1"]))
    opened.gc(grace=0)
    assert list(opened.blobs.ls()) == []


def test_an_index_whose_children_come_later(opened: api.Store, tmp_path: Path) -> None:
    layout, images = sample.platforms()
    (tmp_path / "in.tar").write_bytes(layout.tar())
    opened.load(tmp_path / "in.tar", platform="linux/arm64")
    assert [str(row.id) for row in opened.images()] == [images["linux/arm64"].id]
    opened.load(tmp_path / "in.tar", all_platforms=True)
    opened.gc(grace=0)
    assert len(opened.verify("many:1").rows) == len(layout.blobs)


# -- rmi


def test_released_layers_are_told_from_the_top(opened: api.Store, tmp_path: Path) -> None:
    base = [sample.files({str(i): bytes([65 + i])}) for i in range(3)]
    low, mid, high = (sample.image(n, [f"c:{n}"], base[:n]) for n in (1, 2, 3))
    load(opened, tmp_path, low, mid, high)

    def deleted(name: str) -> int:
        steps = list(opened.remove([name]))
        assert steps[0].text == name and steps[1].verb == "Deleted"
        return len(steps) - 2

    assert deleted("c:2") == 0  # its two layers are the bottom of c:3
    assert deleted("c:3") == 2
    assert deleted("c:1") == 1


def test_a_parent_whose_children_only_wait_for_gc_goes_with_its_name(opened: api.Store, tmp_path: Path) -> None:
    base = sample.image("base", ["base:1"])
    child = sample.image("child", ["child:1"], [*base.layers, sample.files({"c": b"c"})])
    members = sample.docker_members([base, child])
    items = json.loads(members["manifest.json"])
    items[1]["Parent"] = base.id
    (tmp_path / "in.tar").write_bytes(sample.plain_tar(members | {"manifest.json": json.dumps(items).encode()}))
    opened.load(tmp_path / "in.tar")
    assert [step.verb for step in opened.remove(["child:1"])] == ["Untagged", "Deleted", "Deleted"]
    assert [step.text for step in opened.remove(["base:1"])] == ["base:1", base.id, *base.diff_ids]


def test_a_layer_that_another_image_has_in_another_form_is_not_released(opened: api.Store, tmp_path: Path) -> None:
    """Plain in one image and gzip in the other: the same chainID."""
    layer = sample.files({"f": b"f"})
    one, two = (sample.image(n, [f"f:{n}"], [layer], comment=str(n)) for n in (1, 2))
    load(opened, tmp_path, one)
    (tmp_path / "gz.tar").write_bytes(sample.oci_archive(two))
    opened.load(tmp_path / "gz.tar")
    assert [step.text for step in opened.remove(["f:1"])] == ["f:1", one.id]
    assert [step.text for step in opened.remove(["f:2"])] == ["f:2", two.id, *two.diff_ids]


@pytest.mark.parametrize("parent", ["0" * 64, "a parent", "sha256:" + "0" * 64, "sha256:x"])
def test_a_config_may_name_any_parent(opened: api.Store, tmp_path: Path, parent: str) -> None:
    one = sample.image(1, ["p:1"], parent=parent)
    load(opened, tmp_path, one)
    assert [str(line.id) for line in opened.history("p:1")] == [one.id]
    assert [step.verb for step in opened.remove(["p:1"])] == ["Untagged", "Deleted", "Deleted"]


def test_chain_ids_of_what_is_deleted(opened: api.Store, tmp_path: Path) -> None:
    one = sample.image(1, ["c:1"], [sample.files({"a": b"a"}), sample.files({"b": b"b"})])
    load(opened, tmp_path, one)
    texts = [step.text for step in opened.remove(["c:1"])]
    top = sample.digest(f"{one.diff_ids[0]} {one.diff_ids[1]}".encode())
    assert texts == ["c:1", one.id, top, one.diff_ids[0]]


def test_names_are_tried_one_after_the_other(opened: api.Store, tmp_path: Path) -> None:
    load(opened, tmp_path, sample.image(1, ["a:1"]), sample.image(2, ["b:1"]))
    steps = list(opened.remove(["a:1", "nosuch", "a:1", "b:1"]))
    assert [step.verb for step in steps if step.verb != "Deleted"] == ["Untagged", "Error", "Error", "Untagged"]


def test_removal_by_id_of_one_repository(opened: api.Store, tmp_path: Path) -> None:
    """One tag only: no force is needed."""
    one = sample.image(1, ["a:1"])
    load(opened, tmp_path, one)
    raise_errors(opened, one.id[7:19])
    assert opened.images() == []


# -- import


def test_import_says_what_it_was_told(opened: api.Store, tmp_path: Path) -> None:
    (tmp_path / "root.tar").write_bytes(sample.rich_layer("root"))
    moments = datetime(2024, 2, 3, 4, 5, 6, 789, tzinfo=UTC)
    ids = {
        importing.import_image(opened.volume, tmp_path / "root.tar", f"i:{n}", message="m", created=moments)
        for n in range(2)
    }
    assert len(ids) == 1
    config = json.loads(b"".join(opened.blobs.cat(ids.pop())))
    assert config["created"] == "2024-02-03T04:05:06.000789Z" and config["comment"] == "m"
    assert len(opened.images()) == 2
    for wrong in ("a/b/c/d", "/", "linux/"):
        with pytest.raises((InvalidReference, UsageError, BadInput)):
            opened.import_image(tmp_path / "root.tar", "i:2", platform=wrong)


# -- the store itself


def test_opening(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match="not a casstore store"):
        casstore.open(tmp_path / "s", create=False)
    assert not (tmp_path / "s").exists()
    casstore.open(tmp_path / "s").close()
    casstore.open(tmp_path / "s", create=False).close()
    with pytest.raises(Conflict):
        api.init(tmp_path / "s")
    for wrong in ({"chunk_digest": "md5"}, {"chunk_size": 1 << 20}, {"chunk_size": 5000}, {"chunk_size": 0}):
        with pytest.raises(UsageError):
            api.init(tmp_path / "other", **wrong)  # type: ignore[arg-type]


def test_lists_may_be_read_while_the_store_is_used(opened: api.Store, tmp_path: Path) -> None:
    load(opened, tmp_path, sample.rich_image())
    for row in opened.blobs.ls():
        assert Digest.of(b"".join(opened.blobs.cat(row.digest))) == row.digest
        assert opened.blobs.inspect(row.digest)["Size"] == row.size
        opened.blobs.rm([row.digest])


def test_a_store_used_by_many_threads(opened: api.Store, tmp_path: Path) -> None:
    tops = [sample.files({"n": sample.text(number, 9000)}) for number in range(6)]
    images = [sample.image(n, [f"t:{n}"], [sample.rich_layer("base"), top]) for n, top in enumerate(tops)]
    for number, one in enumerate(images):
        (tmp_path / f"{number}.tar").write_bytes(sample.docker_archive(one))
    begin = threading.Barrier(6)

    def life(number: int) -> None:
        begin.wait()
        opened.load(tmp_path / f"{number}.tar")
        opened.gc(grace=60, max_time=0 if number % 2 else 5)
        opened.save([f"t:{number}"], tmp_path / f"{number}.out")
        assert opened.verify(f"t:{number}").ok

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(life, range(6)))
    for number, one in enumerate(images):
        saved = sample.saved_images((tmp_path / f"{number}.out").read_bytes())
        assert saved == {one.id: ([f"t:{number}"], list(one.layers))}
    assert opened.check(read_data=True).ok


def test_pins_of_blobs(opened: api.Store, tmp_path: Path) -> None:
    """A layer that is pinned outlives its image; a pin more than once is one pin."""
    one = sample.image(1, ["p:1"])
    load(opened, tmp_path, one)
    (tmp_path / "layer").write_bytes(one.layers[0])
    for _ in range(2):
        assert str(opened.blobs.put(tmp_path / "layer")) == one.diff_ids[0]
    list(opened.remove(["p:1"]))
    opened.gc(grace=0)
    assert [str(row.digest) for row in opened.blobs.ls()] == one.diff_ids
    assert opened.blobs.inspect(Digest.of(one.layers[0]))["Pins"] == ["blob"]
    opened.blobs.rm([Digest.of(one.layers[0])])
    opened.gc(grace=0)
    assert list(opened.blobs.ls()) == []


def test_an_index_whose_name_moved_on_goes_with_its_image(opened: api.Store, tmp_path: Path) -> None:
    layout, made = sample.platforms("many:1")
    (tmp_path / "in.tar").write_bytes(layout.tar())
    opened.load(tmp_path / "in.tar", all_platforms=True)
    load(opened, tmp_path, sample.image(1, ["many:1"]))
    (nameless,) = [row for row in opened.images() if row.tag is None]
    assert str(nameless.id) == made["linux/amd64"].id
    assert {step.verb for step in opened.remove([str(nameless.id)])} == {"Deleted"}
    assert [step.verb for step in opened.remove([str(nameless.id)])] == ["Error"]
    opened.gc(grace=0)
    assert len(list(opened.blobs.ls())) == 3


def test_removing_an_image_keeps_what_others_share(opened: api.Store, tmp_path: Path) -> None:
    base = sample.rich_layer("base")
    one, two = (sample.image(n, [f"s:{n}"], [base, sample.files({"n": sample.noise(n, 50_000)})]) for n in (1, 2))
    load(opened, tmp_path, one, two)
    for _ in range(2):
        list(opened.remove(["s:1"]))
        opened.gc(grace=0)
        assert opened.verify("s:2").ok
        assert {str(row.digest) for row in opened.blobs.ls()} >= {two.id, *two.diff_ids}
        assert one.id not in {str(row.digest) for row in opened.blobs.ls()}
        load(opened, tmp_path, one)
        assert opened.verify("s:1").ok
