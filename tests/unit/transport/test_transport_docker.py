"""`load` of docker's archives: each row of BEHAVIOUR §1, from a file and through a pipe."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from archives import (
    Entry,
    LayoutBuilder,
    Way,
    config,
    docker_archive,
    docker_entries,
    folder,
    layer,
    link,
    sha,
    tar_of,
)

from casstore.digest import Digest
from casstore.errors import BadInput, CasstoreError, InvalidReference, LimitExceeded
from casstore.oci.platform import host, parse

BIG = 100_000  # large enough for the sink
ONE, TWO = layer("one", BIG), layer("two")
HEX = "ab" * 32


def items_of(archive: bytes, **changes: Any) -> bytes:
    return archive


def names(archive: Any) -> list[list[str]]:
    return [[tag.familiar() for tag in image.tags] for image in archive.images]


def test_plain_and_under_any_compression(any_way: Way) -> None:
    archive = any_way(docker_archive([ONE, TWO], ["app:v1", "other.example/x:2"]))
    (image,) = archive.images
    assert archive.form == "docker"
    assert image.config_bytes == config([ONE, TWO])
    assert image.config_digest == Digest.of(image.config_bytes)
    assert names(archive) == [["app:v1", "other.example/x:2"]]
    assert image.manifest is None
    assert [str(each.diff_id) for each in image.layers] == [f"sha256:{sha(ONE)}", f"sha256:{sha(TWO)}"]
    assert any_way.layer_bytes(archive, 0, 0) == ONE
    assert any_way.layer_bytes(archive, 0, 1) == TWO
    if archive.source.seekable:
        assert not any_way.sink.taken
    else:
        assert list(any_way.sink.taken.values()) == [ONE]
        landed = image.layers[0].landed
        assert landed is not None
        assert landed.digest == image.layers[0].diff_id == image.layers[0].digest


def test_gzip_layer_inside(way: Way) -> None:
    packed = gzip.compress(ONE, compresslevel=0)

    def change(entries: list[Entry], items: list[dict[str, Any]]) -> None:
        entries[0] = (items[0]["Layers"][0], packed)

    archive = way(docker_archive([ONE], ["a:b"], change=change))
    assert way.layer_bytes(archive) == packed
    landed = archive.images[0].layers[0].landed
    assert landed is None or landed.diff_id == archive.images[0].layers[0].diff_id


@pytest.mark.parametrize("tags", [None, []])
def test_untagged(way: Way, tags: list[str] | None) -> None:
    assert names(way(docker_archive([ONE], tags))) == [[]]


def test_tags_missing_altogether(way: Way) -> None:
    def change(_: list[Entry], items: list[dict[str, Any]]) -> None:
        del items[0]["RepoTags"]

    assert names(way(docker_archive([ONE], change=change))) == [[]]


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        ("foo", 'invalid tag "foo"'),
        (f"foo@sha256:{HEX}", f'invalid tag "foo@sha256:{HEX}"'),
        ("Foo:1", "invalid reference format: repository name must be lowercase"),
        ("", "invalid reference format"),
    ],
)
def test_bad_tag_of_the_second_image(way: Way, tag: str, message: str) -> None:
    def change(entries: list[Entry], items: list[dict[str, Any]]) -> None:
        more, item = docker_entries([TWO], [tag])
        entries += more
        items.append(item)

    with pytest.raises(InvalidReference) as caught:
        way(docker_archive([ONE], ["good:1"], change=change))
    assert message in str(caught.value)
    assert "manifest.json" in str(caught.value)


def test_second_image_bad(way: Way) -> None:
    def change(entries: list[Entry], items: list[dict[str, Any]]) -> None:
        more, item = docker_entries([TWO], ["x:1"], config([TWO], os="windows"))
        entries += more
        items.append(item)

    with pytest.raises(BadInput, match="cannot load windows image on linux"):
        way(docker_archive([ONE], ["good:1"], change=change))


def test_config_under_another_name(way: Way) -> None:
    raw = config([ONE])

    def change(entries: list[Entry], items: list[dict[str, Any]]) -> None:
        entries[-1] = ("whatever.json", raw)
        items[0]["Config"] = "whatever.json"

    assert way(docker_archive([ONE], change=change)).images[0].config_digest == Digest.of(raw)


def test_missing_layer_is_told(way: Way) -> None:
    def change(entries: list[Entry], _: list[dict[str, Any]]) -> None:
        del entries[0]

    found = way(docker_archive([ONE], change=change)).images[0].layers[0]
    assert not found.present
    assert found.diff_id == Digest.of(ONE)


def test_missing_config(way: Way) -> None:
    def change(entries: list[Entry], _: list[dict[str, Any]]) -> None:
        del entries[-1]

    with pytest.raises(BadInput, match=r"\.json: config is missing"):
        way(docker_archive([ONE], change=change))


def test_count_mismatch(way: Way) -> None:
    with pytest.raises(BadInput) as caught:
        way(docker_archive([ONE], config_bytes=config([ONE, TWO])))
    assert "invalid manifest, layers length mismatch: expected 1, got 2" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rootfs": None}, "invalid image JSON, no RootFS key"),
        ({"history": [{}, {}]}, "too many non-empty layers in History section"),
        ({"os": "windows"}, "cannot load windows image on linux"),
        ({"os": "plan9"}, "cannot load plan9 image on linux"),
        ({"rootfs": {"type": "windows", "diff_ids": []}}, "unknown rootfs type"),
    ],
)
def test_impossible_images(file: Way, changes: dict[str, Any], words: str) -> None:
    if host().os != "linux":
        pytest.skip("the texts name linux as the host")
    with pytest.raises(BadInput, match=words):
        file(docker_archive([ONE], config_bytes=config([ONE], **changes)))


def test_accepted_images(file: Way) -> None:
    file(docker_archive([ONE], config_bytes=config([ONE], architecture="s390x")))
    file(docker_archive([ONE], config_bytes=config([ONE], history=[])))
    assert file(docker_archive([], config_bytes=config([], rootfs={}))).images[0].layers == []


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        (b"null", "expected an array"),
        (b"{}", "expected an array"),
        (b'"x"', "expected an array"),
        (b"[1]", "invalid JSON"),
        (b"[{}]", "without Config"),
        (b'[{"Config":"a","config":"b"}]', 'key "config" where "Config" is meant'),
        (b'[{"Config":"a","Config":"b"}]', 'duplicate key "Config"'),
        (b'[{"Config":"a","layers":[]}]', 'key "layers"'),
        (b'[{"Config":7}]', "invalid JSON"),
        (b'[{"Config":"../../etc/passwd","Layers":[]}]', "invalid path"),
        (b'[{"Config":"/etc/passwd","Layers":[]}]', "invalid path"),
        (b'[{"Config":"nosuch.json","Layers":[]}]', "config is missing"),
        (b"[" * 200_000, "nested deeper"),
        (b"", "invalid JSON"),
    ],
)
def test_bad_manifest_json(way: Way, manifest: bytes, words: str) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        way(docker_archive([ONE], manifest=manifest))
    assert "\n" not in str(caught.value)


def test_empty_list_is_nothing(way: Way) -> None:
    assert way(docker_archive([ONE], manifest=b"[]")).images == []


@pytest.mark.parametrize("path", ["../layer.tar", "a/../../b", "/layer.tar", "..", ""])
def test_layer_paths_stay_inside(way: Way, path: str) -> None:
    def change(_: list[Entry], items: list[dict[str, Any]]) -> None:
        items[0]["Layers"] = [path]

    with pytest.raises(BadInput, match="invalid path"):
        way(docker_archive([ONE], change=change))


def test_duplicate_manifest_json(way: Way) -> None:
    def change(entries: list[Entry], _: list[dict[str, Any]]) -> None:
        entries.append(("./manifest.json", b"[]"))

    with pytest.raises(BadInput, match="member twice"):
        way(docker_archive([ONE], change=change))


def test_duplicate_layer(way: Way) -> None:
    def change(entries: list[Entry], _: list[dict[str, Any]]) -> None:
        entries.append((entries[0][0], TWO))  # type: ignore[index]

    with pytest.raises(BadInput, match="member twice"):
        way(docker_archive([ONE], change=change))


# -- links

PLACES = [
    pytest.param(True, id="link first"),
    pytest.param(False, id="target first"),
]


@pytest.mark.parametrize("link_first", PLACES)
@pytest.mark.parametrize("hard", [False, True], ids=["symlink", "hard link"])
def test_linked_layer(way: Way, link_first: bool, hard: bool) -> None:
    def change(entries: list[Entry], items: list[dict[str, Any]]) -> None:
        target = items[0]["Layers"][0]
        linked = link("other/layer.tar", target if hard else f"../{target}", hard)
        entries.insert(0 if link_first else len(entries), linked)
        items[0]["Layers"] = ["other/layer.tar"]

    archive = way(docker_archive([ONE], change=change))
    assert way.layer_bytes(archive) == ONE


def test_several_hops_and_a_linked_folder(way: Way) -> None:
    def change(entries: list[Entry], items: list[dict[str, Any]]) -> None:
        target = items[0]["Layers"][0]
        entries += [
            link("a/layer.tar", "../b/layer.tar"),
            link("b", "./c/"),
            folder("c"),
            link("c/layer.tar", target, hard=True),
        ]
        items[0]["Layers"] = ["./a//layer.tar"]

    archive = way(docker_archive([ONE], change=change))
    assert way.layer_bytes(archive) == ONE


@pytest.mark.parametrize(
    ("links", "words"),
    [
        ([link("x/layer.tar", "layer.tar")], "too many levels"),
        ([link("x/layer.tar", "../y"), link("y", "x/layer.tar")], "too many levels"),
        ([link("x/layer.tar", "x/layer.tar", hard=True)], "too many levels"),
        ([link("x", "x/x")], "too many levels"),
        ([link("x/layer.tar", "../../layer.tar")], "link leaves the archive"),
        ([link("x/layer.tar", "/etc/passwd")], "link leaves the archive"),
        ([link("x", "..")], "link leaves the archive"),
    ],
)
def test_bad_links(way: Way, links: list[Entry], words: str) -> None:
    def change(entries: list[Entry], items: list[dict[str, Any]]) -> None:
        entries += links
        items[0]["Layers"] = ["x/layer.tar"]

    with pytest.raises(BadInput, match=words):
        way(docker_archive([ONE], change=change))


def test_dangling_link_is_a_missing_layer(way: Way) -> None:
    def change(entries: list[Entry], items: list[dict[str, Any]]) -> None:
        entries.append(link("x/layer.tar", "../nosuch"))
        items[0]["Layers"] = ["x/layer.tar"]

    assert not way(docker_archive([ONE], change=change)).images[0].layers[0].present


def test_members_that_climb_are_never_found(way: Way) -> None:
    def change(entries: list[Entry], _: list[dict[str, Any]]) -> None:
        entries.append(("../../manifest.json", b"[]"))
        entries.append(("../x", ONE))

    assert len(way(docker_archive([ONE], change=change)).images) == 1


# -- several images, parents


def test_images_share_and_parents_hold(way: Way) -> None:
    parent_id = Digest.of(config([ONE]))

    def change(entries: list[Entry], items: list[dict[str, Any]]) -> None:
        more, item = docker_entries([ONE, TWO], ["child:1"])
        entries += more[1:]
        items.append(item | {"Parent": str(parent_id)})
        other, item = docker_entries([TWO], None)
        entries += other[1:]
        items.append(item | {"Parent": f"sha256:{HEX}"})

    archive = way(docker_archive([ONE], change=change))
    assert [image.parent for image in archive.images] == [None, parent_id, None]
    assert [bool(image.tags) for image in archive.heads] == [True, False]
    if not archive.source.seekable:
        assert len(way.sink.taken) == 1


def test_one_image_listed_twice_is_one(way: Way) -> None:
    def change(_: list[Entry], items: list[dict[str, Any]]) -> None:
        items.append(items[0] | {"RepoTags": ["b:1", "a:1"]})

    assert names(way(docker_archive([ONE], ["a:1"], change=change))) == [["a:1", "b:1"]]


def test_platform(file: Way) -> None:
    data = docker_archive([ONE], config_bytes=config([ONE], architecture="arm64"))
    assert len(file(data, platform=parse("linux/arm64")).images) == 1
    with pytest.raises(BadInput, match="no matching manifest for linux/s390x"):
        file(data, platform=parse("linux/s390x"))


# -- the hybrid of docker ≥ 25


def hybrid(tag_in_index: str = "docker.io/library/a:1", listed: bool = True) -> tuple[LayoutBuilder, bytes]:
    layout = LayoutBuilder()
    layout.add(layout.image([ONE, TWO]), tag_in_index)
    raw = config([ONE, TWO])
    item = {
        "Config": f"blobs/sha256/{sha(raw)}",
        "RepoTags": ["a:1"],
        "Layers": [f"blobs/sha256/{sha(each)}" for each in (ONE, TWO)],
        "LayerSources": {f"sha256:{sha(ONE)}": {"mediaType": "x", "size": 1, "digest": "y"}},
    }
    return layout, json.dumps([item] if listed else []).encode()


def test_hybrid_keeps_its_manifest(way: Way) -> None:
    layout, manifest = hybrid()
    archive = way(layout.tar(manifest_json=manifest))
    (image,) = archive.images
    assert names(archive) == [["a:1"]]
    assert image.manifest is not None
    assert str(image.manifest.digest) == layout.top[0]["digest"]
    assert [each.digest for each in image.layers] == [Digest.of(ONE), Digest.of(TWO)]
    assert way.layer_bytes(archive, 0, 1) == TWO


def test_hybrid_names_from_both(way: Way) -> None:
    layout, manifest = hybrid("example.com/b:2")
    assert names(way(layout.tar(manifest_json=manifest))) == [["a:1", "example.com/b:2"]]


def test_hybrid_image_that_only_the_layout_has(way: Way) -> None:
    layout, _ = hybrid()
    archive = way(layout.tar(manifest_json=b"[]"))
    assert names(archive) == [["a:1"]]
    assert archive.images[0].manifest is not None


def test_hybrid_that_says_two_things(way: Way) -> None:
    layout, manifest = hybrid()
    layout.top.clear()
    layout.add(layout.image([TWO]), "docker.io/library/a:1")
    with pytest.raises(BadInput, match=r"manifest\.json and index\.json disagree about a:1"):
        way(layout.tar(manifest_json=manifest))


def test_hybrid_of_one_platform_of_an_index(way: Way) -> None:
    """What docker with containerd's store saves: the index names children that are not in the archive."""
    layout = LayoutBuilder()
    mine = layout.image([ONE], architecture="s390x")
    absent = {"mediaType": mine["mediaType"], "digest": f"sha256:{HEX}", "size": 9}
    platforms = [{"os": "linux", "architecture": "s390x"}, {"os": "linux", "architecture": "amd64"}]
    index = layout.index(mine | {"platform": platforms[0]}, absent | {"platform": platforms[1]})
    layout.add(index, "docker.io/library/a:1")
    raw = config([ONE], architecture="s390x")
    item = {"Config": f"blobs/sha256/{sha(raw)}", "RepoTags": ["a:1"], "Layers": [f"blobs/sha256/{sha(ONE)}"]}
    data = layout.tar(manifest_json=json.dumps([item]).encode())
    archive = way(data)
    assert names(archive) == [["a:1"]]
    assert archive.images[0].manifest is not None
    assert str(archive.images[0].manifest.digest) == mine["digest"]
    with pytest.raises(BadInput, match=f"sha256:{HEX} is missing"):
        way(data, everything=True)


def test_hybrid_everything(way: Way) -> None:
    layout = LayoutBuilder()
    mine, other = layout.for_platform("linux/amd64"), layout.for_platform("linux/s390x")
    index = layout.index(mine, other)
    layout.add(index, "docker.io/library/a:1")
    raw = config([layer("linux/amd64")], architecture="amd64")
    item = {
        "Config": f"blobs/sha256/{sha(raw)}",
        "RepoTags": ["a:1", "b:1"],
        "Layers": [f"blobs/sha256/{sha(layer('linux/amd64'))}"],
    }
    archive = way(layout.tar(manifest_json=json.dumps([item]).encode()), everything=True)
    assert [str(each.index.digest) for each in archive.indexes] == [index["digest"]]
    assert [tag.familiar() for tag in archive.indexes[0].tags] == ["a:1"]
    assert names(archive) == [["b:1"], []]


# -- broken archives


def test_truncated_everywhere(way: Way) -> None:
    """Cut at any place: an error in one line, or (past the last member) the whole."""
    data = docker_archive([TWO], ["a:1"])
    end = len(data.rstrip(b"\0"))
    for cut in [*range(0, end, 397), 511, 512, 513]:
        with pytest.raises(CasstoreError) as caught:
            way(data[:cut])
        assert "\n" not in str(caught.value)


def test_truncated_compression(tmp_path: Any) -> None:
    data = docker_archive([ONE], ["a:1"])
    for cut in (20, 200, 0):
        packed = Way("gz", tmp_path / "a", lambda raw, cut=cut: gzip.compress(raw)[: -cut or -1])  # type: ignore[misc]
        with pytest.raises(BadInput):
            packed(data)


@pytest.mark.parametrize("data", [b"", b"\0" * 10240, b"hello", b"\x7fELF" + bytes(2000), bytes(511)])
def test_not_an_archive(way: Way, data: bytes) -> None:
    with pytest.raises(BadInput):
        way(data)


def test_a_tar_of_other_things(way: Way) -> None:
    with pytest.raises(BadInput, match="no archive of images"):
        way(tar_of([("etc/passwd", b"root")]))


def test_no_end_blocks(way: Way) -> None:
    data = docker_archive([TWO], ["a:1"]).rstrip(b"\0")
    data += bytes(-len(data) % 512)
    assert names(way(data)) == [["a:1"]]


def test_bytes_after_the_end_are_ignored(way: Way) -> None:
    assert names(way(docker_archive([TWO], ["a:1"]) + b"junk" * 3000)) == [["a:1"]]


def test_one_zero_block(way: Way) -> None:
    good = docker_archive([TWO], ["a:1"])
    with pytest.raises(BadInput, match="one zero block"):
        way(good[:512].replace(good[:512], bytes(512)) + good)


def test_bad_checksum_has_an_offset(way: Way) -> None:
    data = bytearray(tar_of([("a", b"x" * 600), ("b", b"")]))
    data[1536 + 5] ^= 1
    with pytest.raises(BadInput, match="invalid tar header at offset 1536"):
        way(bytes(data))


def sparse_claim(name: str, real: int) -> bytes:
    """A GNU sparse member: claims `real` bytes, holds none."""
    block = bytearray(tar_of([(name, b"")])[:512])
    block[156:157] = b"S"
    block[483:495] = b"%011o\0" % real
    block[257:265] = b"ustar  \0"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def test_claimed_gigabyte_of_json(way: Way) -> None:
    with pytest.raises(BadInput, match="sparse members are not supported"):
        way(sparse_claim("manifest.json", 1 << 30) + bytes(1024))


def test_true_gigabyte_of_json(way: Way) -> None:
    header = bytearray(tar_of([("manifest.json", b"")])[:512])
    header[124:136] = b"%011o\0" % (1 << 30)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    if way.name == "pipe":
        with pytest.raises(LimitExceeded, match="larger than 20971520 bytes"):
            way(bytes(header))
    else:
        with pytest.raises(BadInput, match="unexpected EOF"):
            way(bytes(header))


def test_many_small_members_in_a_pipe(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("casstore.transport.stream.MAX_KEPT", 100_000)
    data = tar_of([(f"x{i}", bytes(30_000)) for i in range(5)])
    with pytest.raises(LimitExceeded, match="load it from a file"):
        Way("pipe", tmp_path / "a")(data)


def test_too_many_members(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("casstore.transport.members.MAX_MEMBERS", 10)
    with pytest.raises(LimitExceeded, match="more than 10 members"):
        way(tar_of([(f"x{i}", b"") for i in range(11)]))


def test_bomb(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from casstore.codec.compression import Limit
    from casstore.transport import reading
    from casstore.transport.archive import open_source

    (tmp_path / "a").write_bytes(gzip.compress(docker_archive([layer("x", 1 << 20)])))
    with pytest.raises(LimitExceeded):
        reading.read(open_source(tmp_path / "a", Limit(output=500_000)), Way("gz", tmp_path).sink)
