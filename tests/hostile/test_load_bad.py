"""`load` of what is broken: one line that names the object, exit code 1, and a catalog that has not changed."""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest
import sample
from running import Cas, Rows, Spawn
from sample import docker_members, entry, plain_tar, sha

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TWO_LAYERS = [sample.files({"a": sample.text("a", 90_000)}), sample.files({"b": b"b" * 80_000})]
ONE = sample.image("one", ["one:1"], TWO_LAYERS)
TWO = sample.image("two", ["two:1"], [sample.files({"c": sample.text("c", 100_000)})])
LAYERS = [path for path in docker_members([ONE]) if path.endswith("layer.tar")]
CONFIG = f"{sha(ONE.config)}.json"


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    """ONE with the item of its manifest.json changed."""
    members = docker_members([ONE])
    items = json.loads(members["manifest.json"])
    change(items[0])
    return plain_tar(members | {"manifest.json": json.dumps(items).encode()})


def reconfigured(**changes: Any) -> bytes:
    """An image whose config has other fields."""
    return sample.docker_archive(sample.Image(sample.config(ONE.layers, **changes), ONE.layers, ONE.tags))


def without(name: str) -> bytes:
    members = docker_members([ONE])
    del members[name]
    return plain_tar(members)


def linked(*links: tuple[str, str]) -> bytes:
    """ONE whose first layer is replaced by these symlinks."""
    members = docker_members([ONE])
    del members[LAYERS[0]]
    found = [entry(name, kind=tarfile.SYMTYPE, linkname=target) for name, target in links]
    return sample.tar([*found, *(entry(name, data) for name, data in members.items())], tarfile.USTAR_FORMAT)


def twice() -> bytes:
    members = docker_members([ONE])
    return plain_tar([("manifest.json", b"[]"), *members.items()])


def second_bad() -> bytes:
    other = sample.Image(TWO.config.replace(sha(TWO.layers[0]).encode(), b"0" * 64), TWO.layers, TWO.tags)
    return sample.docker_archive(ONE, other)


def legacy(parents: dict[str, str]) -> bytes:
    """Layers of docker 1.8 with these parents, the first one tagged."""
    members: dict[str, bytes] = {}
    for name, parent in parents.items():
        members[f"{name}/VERSION"] = b"1.0"
        document = {"id": name, "os": "linux"} | ({"parent": parent} if parent else {})
        members[f"{name}/json"] = json.dumps(document).encode()
        members[f"{name}/layer.tar"] = sample.files({"f": name.encode()})
    members["repositories"] = json.dumps({"old": {"1": next(iter(parents))}}).encode()
    return plain_tar(members)


def lying(layout: sample.Layout, **fields: Any) -> bytes:
    """A layout whose index.json says something else of its manifest."""
    layout.top = [layout.top[0] | fields]
    return layout.tar()


def laid_out(*, packed: bool = False) -> sample.Layout:
    layout = sample.Layout()
    layout.name(layout.manifest(ONE, packed=packed), "docker.io/library/one:1")
    return layout


def without_blob(data: bytes, put: bytes | None = None) -> bytes:
    layout = laid_out()
    path = f"blobs/sha256/{sha(data)}"
    if put is None:
        del layout.blobs[path]
    else:
        layout.blobs[path] = put
    return layout.tar()


def retold(document: str, old: object, new: object) -> bytes:
    """A layout in whose manifest or index.json one JSON value is another, digests made good."""
    layout, made = sample.Layout(), laid_out()
    first, second = json.dumps(old).encode(), json.dumps(new).encode()
    layout.blobs = dict(made.blobs)
    raw = layout.blobs.pop(MANIFEST)
    if document == "manifest":
        assert first in raw
        raw = raw.replace(first, second, 1)
    layout.name(layout.blob(raw, sample.OCI_MANIFEST), "docker.io/library/one:1")
    files = layout.files
    if document == "index.json":
        assert first in files["index.json"]
        files["index.json"] = files["index.json"].replace(first, second, 1)
    return plain_tar(files)


def misnamed(digest: object) -> dict[str, tuple[Callable[[], bytes], str]]:
    """A digest that is none, wherever one stands: never a path (CVE-2024-3727)."""
    words = json.loads(json.dumps(digest)) if isinstance(digest, str) else ""
    shown = repr(words)[1:-1][:60]
    layer = sample.digest(ONE.layers[0])
    ids = {"type": "layers", "diff_ids": [digest, ONE.diff_ids[1]]}
    return {
        f"digest {digest!r} in index.json": (lambda: retold("index.json", laid_out().top[0]["digest"], digest), shown),
        f"digest {digest!r} of a config": (lambda: retold("manifest", ONE.id, digest), shown),
        f"digest {digest!r} of a layer": (lambda: retold("manifest", layer, digest), shown),
        f"digest {digest!r} as a diffID": (lambda: reconfigured(rootfs=ids), shown),
    }


def as_member(kind: bytes, name: str, linkname: str = "") -> bytes:
    """ONE with a member that is something else than a file."""
    members = docker_members([ONE])
    found = [entry(name, kind=kind, linkname=linkname)]
    found += [entry(path, data) for path, data in members.items() if path != name]
    return sample.tar(found, tarfile.USTAR_FORMAT)


def repositories(value: object) -> bytes:
    """A layer of docker 1.8 with these names."""
    name = "a" * 64
    members = {f"{name}/json": json.dumps({"id": name}).encode(), f"{name}/layer.tar": sample.files({"f": b"f"})}
    return plain_tar(members | {"repositories": json.dumps(value).encode()})


def both() -> bytes:
    """A document that is a manifest and an index, whichever way one looks."""
    layout = laid_out()
    raw = layout.blobs.pop(MANIFEST)
    document = json.loads(raw) | {"manifests": layout.top}
    again = sample.Layout()
    again.blobs = layout.blobs
    again.name(again.blob(json.dumps(document).encode(), sample.OCI_MANIFEST), "docker.io/library/one:1")
    return again.tar()


def sparse_layer() -> bytes:
    members = docker_members([ONE])
    data = members.pop(LAYERS[0])
    info, _ = entry(LAYERS[0], data, pax_headers={"GNU.sparse.major": "1", "GNU.sparse.realsize": "1099511627776"})
    return sample.tar([(info, data), *(entry(name, each) for name, each in members.items())])


NAME = "docker.io/library/one:1"
MANIFEST = f"blobs/sha256/{laid_out().top[0]['digest'][7:]}"
GOOD = sample.docker_archive(ONE)
NAMED = {"a" * 64: "b" * 64, "b" * 64: "a" * 64}
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", ""),
    "garbage": (lambda: sample.noise("garbage", 5000), "invalid tar header"),
    "a tar of no image": (lambda: sample.files({"hello": b"world"}), "no archive of images"),
    "cut in a layer": (lambda: GOOD[: len(GOOD) // 2], "unexpected EOF"),
    "cut in a header": (lambda: GOOD[: GOOD.index(CONFIG.encode()) + 200], "unexpected EOF"),
    "cut gzip": (lambda: sample.gz(GOOD)[:8000], "gzip stream is cut short at offset 8000"),
    "gzip with a wrong checksum": (lambda: sample.gz(GOOD)[:-8] + bytes(8), ""),
    "a bomb": (lambda: zstd.compress(bytes(64 << 20)) * 64, "bad.tar"),
    "wrong diffID": (
        lambda: reconfigured(rootfs={"type": "layers", "diff_ids": [ONE.diff_ids[0], "sha256:" + "0" * 64]}),
        f'invalid diffID for layer 1: expected "sha256:{"0" * 64}", got "{ONE.diff_ids[1]}"',
    ),
    "missing config": (lambda: without(CONFIG), CONFIG),
    "missing layer": (lambda: without(LAYERS[1]), "layer"),
    "too few layers": (
        lambda: changed(lambda item: item["Layers"].pop()),
        "invalid manifest, layers length mismatch: expected 1, got 2",
    ),
    "too many layers": (
        lambda: changed(lambda item: item["Layers"].append(LAYERS[0])),
        "invalid manifest, layers length mismatch: expected 3, got 2",
    ),
    "config outside": (lambda: changed(lambda item: item.update(Config="../../etc/passwd")), "../../etc/passwd"),
    "config from the root": (lambda: changed(lambda item: item.update(Config="/etc/passwd")), "/etc/passwd"),
    "layer outside": (lambda: changed(lambda item: item.update(Layers=["../x", LAYERS[1]])), "../x"),
    "no config": (lambda: changed(lambda item: item.pop("Config")), "Config"),
    "config twice, in other letters": (lambda: changed(lambda item: item.update(config="x")), "config"),
    "link in a circle": (
        lambda: linked((LAYERS[0], "../loop"), ("loop", "./pool"), ("pool", "loop")),
        "too many levels of links",
    ),
    "link to the outside": (lambda: linked((LAYERS[0], "../../etc/passwd")), "link leaves the archive"),
    "link to the root": (lambda: linked((LAYERS[0], "/etc/passwd")), "link leaves the archive"),
    "link to nothing": (lambda: linked((LAYERS[0], "nowhere")), "layer"),
    "manifest twice": (twice, "manifest.json"),
    "second image bad": (second_bad, "invalid diffID for layer 0"),
    "manifest null": (lambda: plain_tar({"manifest.json": b"null"}), "manifest.json"),
    "manifest an object": (lambda: plain_tar({"manifest.json": b"{}"}), "manifest.json"),
    "manifest no JSON": (lambda: plain_tar({"manifest.json": b"[{"}), "manifest.json"),
    "manifest very deep": (lambda: plain_tar({"manifest.json": b"[" * 200_000}), "manifest.json"),
    "manifest too large": (lambda: plain_tar({"manifest.json": b" " * (21 << 20)}), "manifest.json"),
    "tag without a tag": (lambda: changed(lambda item: item.update(RepoTags=["foo"])), 'invalid tag "foo"'),
    "tag with a digest": (
        lambda: changed(lambda item: item.update(RepoTags=["foo@sha256:" + "0" * 64])),
        "invalid tag",
    ),
    "tag in upper case": (lambda: changed(lambda item: item.update(RepoTags=["Foo:1"])), "must be lowercase"),
    "tag empty": (lambda: changed(lambda item: item.update(RepoTags=[""])), "invalid reference format"),
    "second tag bad": (lambda: changed(lambda item: item.update(RepoTags=["ok:1", "a//b:1"])), "a//b:1"),
    "config no JSON": (lambda: plain_tar(docker_members([ONE]) | {CONFIG: b"{"}), CONFIG),
    "no rootfs": (lambda: reconfigured(rootfs=None), "invalid image JSON, no RootFS key"),
    "rootfs of another kind": (
        lambda: reconfigured(rootfs={"type": "other", "diff_ids": ONE.diff_ids}),
        "",
    ),
    "too much history": (
        lambda: reconfigured(history=[{"created_by": str(i)} for i in range(3)]),
        "too many non-empty layers in History section",
    ),
    "windows": (lambda: reconfigured(os="windows"), "cannot load windows image on linux"),
    "plan9": (lambda: reconfigured(os="plan9"), "plan9"),
    "diffID of another kind": (
        lambda: reconfigured(rootfs={"type": "layers", "diff_ids": ["../../x", ONE.diff_ids[1]]}),
        "../../x",
    ),
    "legacy that is its own parent": (lambda: legacy({"a" * 64: "a" * 64}), "circle"),
    "legacy in a circle": (lambda: legacy(NAMED), "circle"),
    "legacy without its parent": (lambda: legacy({"a" * 64: "c" * 64}), "c" * 64),
    "layout without its manifest": (lambda: without_blob(laid_out().blobs[MANIFEST]), MANIFEST[-64:]),
    "layout without its config": (lambda: without_blob(ONE.config), sha(ONE.config)),
    "layout without a layer": (lambda: without_blob(ONE.layers[0]), sha(ONE.layers[0])),
    "layout with another layer": (lambda: without_blob(ONE.layers[0], bytes(len(ONE.layers[0]))), sha(ONE.layers[0])),
    "layout with a shorter layer": (lambda: without_blob(ONE.layers[0], b"short"), sha(ONE.layers[0])),
    "layout with another config": (lambda: without_blob(ONE.config, b" " + ONE.config[1:]), sha(ONE.config)),
    "layout with a wrong size": (lambda: lying(laid_out(), size=7), MANIFEST[-64:]),
    "layout with a digest that is a path": (lambda: lying(laid_out(), digest="sha256:../../x"), "../../x"),
    "layout with a wrong media type": (lambda: lying(laid_out(), mediaType=sample.OCI_INDEX), ""),
    "layout of a later version": (
        lambda: plain_tar(laid_out().files | {"oci-layout": b'{"imageLayoutVersion":"2.0.0"}'}),
        "imageLayoutVersion",
    ),
    "manifest and index in one (CVE-2021-41190)": (both, "ambiguous, has both manifests and layers"),
    "an index that is called a manifest": (
        lambda: retold("manifest", sample.OCI_MANIFEST, sample.OCI_INDEX),
        "mediaType",
    ),
    "a size below nothing": (lambda: retold("manifest", len(ONE.config), -1), "size"),
    "a size that fits no word": (lambda: retold("manifest", len(ONE.config), 1 << 64), "size"),
    "a size that is a text": (lambda: retold("manifest", len(ONE.config), "1"), "size"),
    "schema 1": (lambda: retold("manifest", 2, 1), "schema 1"),
    "legacy whose parent is a path (CVE-2014-9358)": (lambda: legacy({"a" * 64: "../../../etc"}), "../../../etc"),
    "legacy named by a path (CVE-2014-9358)": (lambda: repositories({"one": {"1": "../../../etc"}}), "missing layer"),
    "legacy with a name that climbs": (lambda: repositories({"../one": {"1": "a" * 64}}), "../one"),
    "legacy with a tag that climbs": (lambda: repositories({"one": {"../1": "a" * 64}}), "../1"),
    "legacy with the name of an ID": (lambda: repositories({"b" * 64: {"1": "a" * 64}}), "64-byte hexadecimal"),
    "legacy whose folders climb": (lambda: plain_tar({f"../{'a' * 64}/json": b"{}"}), "no archive of images"),
    "manifest.json a link to the outside": (
        lambda: as_member(tarfile.SYMTYPE, "manifest.json", "/etc/passwd"),
        "link leaves the archive",
    ),
    "manifest.json a hard link to the outside": (
        lambda: as_member(tarfile.LNKTYPE, "manifest.json", "../../etc/passwd"),
        "link leaves the archive",
    ),
    "manifest.json a pipe": (lambda: as_member(tarfile.FIFOTYPE, "manifest.json"), "no archive of images"),
    "config a link to the outside": (lambda: as_member(tarfile.SYMTYPE, CONFIG, "/etc/hostname"), "leaves the archive"),
    "config a device": (lambda: as_member(tarfile.CHRTYPE, CONFIG), CONFIG),
    "layer a pipe": (lambda: as_member(tarfile.FIFOTYPE, LAYERS[0]), ONE.diff_ids[0]),
    "layer a folder": (lambda: as_member(tarfile.DIRTYPE, LAYERS[0]), ONE.diff_ids[0]),
    "layer in a folder that is a link out (CVE-2018-15664)": (
        lambda: linked((LAYERS[0], "../out/layer.tar"), ("out", "/etc")),
        "link leaves the archive",
    ),
    "a layer that is sparse (CVE-2025-58183)": (sparse_layer, f"{LAYERS[0]}: sparse members are not supported"),
    "tags that are no list": (lambda: changed(lambda item: item.update(RepoTags="one:1")), "manifest.json"),
    "layers that are no texts": (lambda: changed(lambda item: item.update(Layers=[1, {}])), "manifest.json"),
    "tag of 64 hex digits": (lambda: changed(lambda item: item.update(RepoTags=["a" * 64])), "64-byte hexadecimal"),
    "tag like the beginning of an ID": (
        lambda: changed(lambda item: item.update(RepoTags=["sha256:abc"])),
        "using digest algorithm as name",
    ),
    "tag like an ID, OCI": (lambda: retold("index.json", NAME, "docker.io/library/sha256:abc"), "digest algorithm"),
    "tag like an ID, legacy": (lambda: repositories({"sha512": {"abc": "a" * 64}}), "digest algorithm as name"),
    "tag with a line end": (lambda: changed(lambda item: item.update(RepoTags=["a\n:1"])), "a\\n:1"),
    "tag that ends too late": (lambda: changed(lambda item: item.update(RepoTags=["a:" + "1" * 129])), "invalid ref"),
    "tag with half a character": (lambda: changed(lambda item: item.update(RepoTags=["\ud800:1"])), "surrogate"),
    "name of 256 characters": (lambda: changed(lambda item: item.update(RepoTags=["a" * 256 + ":1"])), "255"),
    "a path with a NUL": (lambda: changed(lambda item: item.update(Config=CONFIG + "\0")), "leaves the archive"),
    "history that is no list": (lambda: reconfigured(history={"a": 1}), "history"),
    "rootfs twice": (
        lambda: sample.docker_archive(
            sample.Image(ONE.config.replace(b'"x-unknown"', b'"rootfs"'), ONE.layers, ONE.tags),
        ),
        'duplicate key "rootfs"',
    ),
}
for _bad in ("sha256:../../../../x", f"sha256:{'A' * 64}", f"sha256:{'0' * 63}", "sha1:" + "0" * 40, "", "..", 7, None):
    BAD |= misnamed(_bad)


@pytest.mark.parametrize("case", BAD)
def test_nothing_is_changed(cas: Cas, rows: Rows, held: Path, store_path: Path, tmp_path: Path, case: str) -> None:
    shutil.copytree(held, store_path)
    before = rows()
    make, words = BAD[case]
    (tmp_path / "bad.tar").write_bytes(make())
    failed = cas("load", "-i", tmp_path / "bad.tar", ok=False)
    assert failed.code == 1 and failed.raw == b""
    assert words in failed.err
    assert rows() == before
    assert not list((tmp_path / "store/tmp").iterdir())


def test_nothing_is_left_over(cas: Cas, rows: Rows, held: Path, store_path: Path, tmp_path: Path) -> None:
    """After one failure of each kind, one gc."""
    shutil.copytree(held, store_path)
    files = sorted(path for path in (store_path / "objects").rglob("*") if path.is_file())
    for case in list(BAD)[::4]:
        (tmp_path / "bad.tar").write_bytes(BAD[case][0]())
        cas("load", "-i", tmp_path / "bad.tar", ok=False)
    cas("gc", "--grace", "0", "--max-time", "0")
    assert sorted(path for path in (store_path / "objects").rglob("*") if path.is_file()) == files
    cas("verify", "one:1")
    cas("check", "--read-data")


PIPED = [case for case in BAD if case not in ("a bomb", "manifest very deep", "manifest too large")][::4]


@pytest.mark.parametrize("case", PIPED)
def test_nothing_is_changed_by_a_pipe(cas: Cas, spawn: Spawn, rows: Rows, case: str) -> None:
    cas("init")
    before = rows()
    make, words = BAD[case]
    process = spawn("load", stdin=PIPE)
    out, err = process.communicate(make())
    assert process.returncode == 1 and out == b""
    assert err.startswith(b"Error: ") and err.count(b"\n") == 1, err
    assert words in err.decode()
    assert rows() == before


def test_the_rest_of_what_docker_takes(cas: Cas, tmp_path: Path) -> None:
    empty = sample.Image(sample.config([], rootfs={}), (), ("empty:1",))
    arm = sample.image("arm", ["arm:1"], architecture="arm64", history=None, created=None)
    members = docker_members([empty, arm])
    renamed = members["manifest.json"].replace(sha(arm.config).encode(), b"0" * 64)
    members |= {f"{'0' * 64}.json": members.pop(f"{sha(arm.config)}.json"), "manifest.json": renamed}
    (tmp_path / "odd.tar").write_bytes(plain_tar(members))
    cas("load", "-i", tmp_path / "odd.tar")
    listed = cas("images", "--no-trunc", "--format", "{{.Repository}} {{.ID}} {{.CreatedSince}}").lines
    assert f"arm {arm.id} N/A" in listed
    assert any(line.startswith(f"empty {empty.id}") for line in listed)
    (tmp_path / "none.tar").write_bytes(plain_tar({"manifest.json": b"[]"}))
    assert cas("load", "-i", tmp_path / "none.tar").out == ""


def test_a_layer_that_is_missing_but_stored(cas: Cas, tmp_path: Path) -> None:
    (tmp_path / "whole.tar").write_bytes(GOOD)
    cas("load", "-i", tmp_path / "whole.tar")
    members = docker_members([sample.Image(ONE.config, ONE.layers, ("again:1",))])
    (tmp_path / "thin.tar").write_bytes(plain_tar({k: v for k, v in members.items() if k not in LAYERS}))
    cas("load", "-i", tmp_path / "thin.tar")
    cas("verify", "again:1")
    cas("rmi", "again:1", "one:1")
    cas("gc", "--grace", "0")
    cas("load", "-i", tmp_path / "thin.tar", ok=False)


def test_a_file_that_cannot_be_read(cas: Cas, tmp_path: Path) -> None:
    assert "no such file" in cas("load", "-i", tmp_path / "nowhere.tar", ok=False).err
    (tmp_path / "folder").mkdir()
    assert str(tmp_path / "folder") in cas("load", "-i", tmp_path / "folder", ok=False).err


def test_legacy_archives_load_with_all_their_layers(cas: Cas, tmp_path: Path) -> None:
    (tmp_path / "old.tar").write_bytes(legacy({"a" * 64: "b" * 64, "b" * 64: ""}))
    assert cas("load", "-i", tmp_path / "old.tar").out == "Loaded image: old:1\n"
    assert len(cas("images", "-a", "-q").lines) == 1
    cas("verify", "old:1")
    saved = sample.saved_images(cas("save", "old:1").raw)
    assert next(iter(saved.values()))[1] == [sample.files({"f": name.encode() * 64}) for name in "ba"]


def test_names_that_move_are_told(cas: Cas, tmp_path: Path) -> None:
    (tmp_path / "one.tar").write_bytes(GOOD)
    assert cas("load", "-i", tmp_path / "one.tar").out == "Loaded image: one:1\n"
    assert cas("load", "-i", tmp_path / "one.tar").out == "Loaded image: one:1\n"
    later = sample.image("later", ["one:1"])
    (tmp_path / "later.tar").write_bytes(sample.docker_archive(later))
    assert cas("load", "-i", tmp_path / "later.tar").lines == [
        f"The image one:1 already exists, renaming the old one with ID {ONE.id} to empty string",
        "Loaded image: one:1",
    ]
    listed = cas("images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").lines
    assert sorted(listed) == sorted([f"one:1 {later.id}", f"<none>:<none> {ONE.id}"])


def test_six_loads_at_once(cas: Cas, spawn: Spawn, tmp_path: Path) -> None:
    """Of a store that none of them finds made: all succeed, and what they have in common is there once."""
    archives = []
    for number in range(6):
        layers = [ONE.layers[0], sample.files({"n": sample.text(number, 200_000)})]
        one = sample.image(number, [f"crowd:{number}"], layers)
        archives.append(tmp_path / f"{number}.tar")
        archives[-1].write_bytes(sample.docker_archive(one, ONE))
    crowd = [spawn("load", "-i", archive) for archive in archives]
    ended = [process.communicate() for process in crowd]
    assert [process.returncode for process in crowd] == [0] * 6, [err for _, err in ended]
    assert len(cas("images", "-q").lines) == 7
    for tag in ["one:1", *(f"crowd:{number}" for number in range(6))]:
        cas("verify", tag)
    cas("gc", "--grace", "0")
    assert len(cas("blob", "ls", "--format", "{{.Digest}}").lines) == 7 * 2 + 6 + 2
    cas("check", "--read-data")


def half_loaded(spawn: Spawn, store_path: Path) -> Popen[bytes]:
    """A load at work, with half of its input."""
    process = spawn("load", stdin=PIPE)
    assert process.stdin is not None
    process.stdin.write(GOOD[: len(GOOD) // 2])
    process.stdin.flush()
    while not any((store_path / "tmp").iterdir()):
        assert process.poll() is None
    return process


def test_a_load_that_is_killed_leaves_nothing(cas: Cas, spawn: Spawn, rows: Rows, store_path: Path) -> None:
    cas("init")
    before = rows()
    process = half_loaded(spawn, store_path)
    process.kill()
    process.communicate()
    assert rows() == before
    cas("check", "--read-data")


@pytest.mark.parametrize("number", [2, 15])
def test_a_load_that_is_interrupted_says_so(cas: Cas, spawn: Spawn, rows: Rows, store_path: Path, number: int) -> None:
    cas("init")
    before = rows()
    process = half_loaded(spawn, store_path)
    time.sleep(0.5)  # by now it waits for the rest of its input
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == 130 and err.count(b"\n") == 1 and b"interrupted" in err
    assert rows() == before
    assert not list((store_path / "tmp").iterdir())
