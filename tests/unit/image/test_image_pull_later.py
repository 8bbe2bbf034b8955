"""`pull --pack later`: layers are kept as they come, and looked into by gc, or by who needs to know."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sample
from registry import Toy, serving
from running import Cas

from casstore import api
from casstore.codec import compression
from casstore.digest import Digest
from casstore.image.remote import Remote

FILES = {"text": sample.text("later", 3 << 20), "small": b"x"}
SIZE = sum(map(len, FILES.values()))


@pytest.fixture
def toy() -> Iterator[Toy]:
    with serving() as made:
        yield made


def pulled(toy: Toy, opened: api.Store, pack: Callable[[bytes], bytes] = sample.gz, name: str = "1") -> Digest:
    """An image of one layer, pulled for later; its layer."""
    image = sample.image("later", layers=[sample.files(FILES)])
    toy.add("a", name, image, pack)
    with Remote() as remote:
        opened.pull(f"{toy.host}/a:{name}", remote=remote, pack="later")
    return Digest.parse(sample.digest(pack(image.layers[0])))


def zst(data: bytes) -> bytes:
    return bytes(compression.zstd.compress(data))


@pytest.mark.parametrize("pack", [sample.gz, zst])
def test_gc_finds_out_what_is_inside(toy: Toy, opened: api.Store, pack: Callable[[bytes], bytes]) -> None:
    layer = pulled(toy, opened, pack)
    before = opened.blobs.inspect(layer)
    assert (before["State"], before["DiffID"], before["ContentSize"]) == ("loose", "", None)
    assert [one.size for one in opened.images()] == [-1]
    assert opened.inspect(f"{toy.host}/a:1")["Size"] == -1
    assert [one.size for one in opened.history(f"{toy.host}/a:1") if one.diffid] == [-1]
    assert opened.check(read_data=True).findings == []
    opened.gc()
    content = sample.files(FILES)
    after = opened.blobs.inspect(layer)
    assert (after["DiffID"], after["ContentSize"]) == (sample.digest(content), len(content))
    assert after["State"] == ("packed" if pack is sample.gz else "loose")
    assert [one.size for one in opened.images()] == [SIZE]
    assert [one.size for one in opened.history(f"{toy.host}/a:1") if one.diffid] == [SIZE]
    assert opened.check(read_data=True).findings == []


def test_what_is_not_what_it_says_is_asked_once(toy: Toy, opened: api.Store) -> None:
    layer = pulled(toy, opened, lambda data: sample.gz(data)[:-100])
    opened.gc()
    assert opened.blobs.inspect(layer)["State"] == "loose"
    assert opened.blobs.inspect(layer)["Refused"]
    assert [one.size for one in opened.images()] == [-1]
    assert opened.check(read_data=True).findings == []


def test_lists_say_that_it_is_not_known(toy: Toy, opened: api.Store, cas: Cas) -> None:
    pulled(toy, opened)
    assert cas("images", "--format", "{{.Size}}").out == "N/A\n"
    assert cas("history", "--format", "{{.Size}}", f"{toy.host}/a:1").out.splitlines()[-1] == "N/A"
    assert cas("history", "-H=false", "--format", "{{.Size}}", f"{toy.host}/a:1").out.splitlines()[-1] == "N/A"


@pytest.mark.parametrize("format", ["docker-archive", "oci-archive", "legacy"])
def test_it_can_be_saved(toy: Toy, opened: api.Store, tmp_path: Path, format: str) -> None:
    pulled(toy, opened)
    opened.save([f"{toy.host}/a:1"], tmp_path / "a.tar", format=format)
    with tarfile.open(tmp_path / "a.tar") as tar:
        sizes = [member.size for member in tar if member.isfile()]
    assert (len(sample.files(FILES)) if format == "legacy" else len(sample.gz(sample.files(FILES)))) in sizes


def test_files_in_it_can_be_read(toy: Toy, opened: api.Store, cas: Cas) -> None:
    pulled(toy, opened)
    assert cas("cat", f"{toy.host}/a:1", "/small").out == "x"


def test_the_same_layer_comes_looked_into(toy: Toy, opened: api.Store, tmp_path: Path) -> None:
    layer = pulled(toy, opened)
    with Remote() as remote:
        more: dict[str, Any] = {"remote": remote}
        toy.add("a", "2", sample.image("other", layers=[sample.files(FILES)]))
        opened.pull(f"{toy.host}/a:2", **more)  # it is here, and not fetched for that
    assert opened.blobs.inspect(layer)["ContentSize"] is None
    opened.gc()
    assert {one.size for one in opened.images()} == {SIZE}


def test_verify_compares_what_is_inside(toy: Toy, opened: api.Store) -> None:
    pulled(toy, opened)
    assert opened.verify(f"{toy.host}/a:1").ok
    other = sample.image("other", layers=[sample.files({"another": b"file"})])
    content = sample.files({"wrong": b"content"})
    toy.add("b", "1", sample.Image(other.config, (content,)))
    with Remote() as remote:
        opened.pull(f"{toy.host}/b:1", remote=remote, pack="later")
    for _ in range(2):  # the second time from what gc has found out
        told = [row.problem for row in opened.verify(f"{toy.host}/b:1").rows if row.problem]
        (said,) = other.diff_ids
        assert told == [f"it is {sample.digest(content)} inside, the config says {said}"]
        opened.gc()
