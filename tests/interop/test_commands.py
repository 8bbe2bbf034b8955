"""Every command on a store of real images, as a user types them: what they print, and how they fail."""

from __future__ import annotations

import json
import os
import pty
import shutil
import sys
from pathlib import Path
from subprocess import PIPE, Popen

import pytest
import sample
from running import Cas, Rows, Spawn

from casstore import api

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ONE = sample.rich_image(1, ["one:1", "team/one:latest"])
TWO = sample.rich_image(2, ["two:1"], created="2024-05-06T07:08:09Z", config={"Labels": {"made": "later", "x": "1"}})
BIG = sample.image("big", ["big:1"], [sample.files({"noise": sample.noise("big", 3 << 20)})])


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an archive of ONE and TWO, and a store that it was loaded into."""
    root = tmp_path_factory.mktemp("loaded")
    (root / "two.tar").write_bytes(sample.docker_archive(ONE, TWO))
    with api.open(root / "store") as store:
        store.load(root / "two.tar")
    return root


@pytest.fixture
def two(loaded: Path, store_path: Path, tmp_path: Path) -> None:
    shutil.copytree(loaded / "store", store_path)
    shutil.copy(loaded / "two.tar", tmp_path)


def ids(cas: Cas, *argv: str) -> list[str]:
    return cas("images", "-q", "--no-trunc", *argv).lines


# -- save


def test_save_names_what_is_missing_and_leaves_no_file(cas: Cas, two: None, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert "No such image: nosuch" in cas("save", "-o", tmp_path / "out/a.tar", "one:1", "nosuch", ok=False).err
    assert "invalid reference format" in cas("save", "-o", tmp_path / "out/a.tar", "one:1", "", ok=False).err
    assert list((tmp_path / "out").iterdir()) == []


def test_save_does_not_replace_what_is_there_unless_it_is_whole(cas: Cas, two: None, tmp_path: Path) -> None:
    out = tmp_path / "kept.tar"
    out.write_bytes(b"former")
    cas("save", "-o", out, "one:1", "nosuch", ok=False)
    assert out.read_bytes() == b"former"
    cas("save", "-o", out, "one:1")
    assert len(out.read_bytes()) > 100_000


def test_save_where_it_cannot_write(cas: Cas, two: None, tmp_path: Path) -> None:
    assert "is a directory" in cas("save", "-o", tmp_path, "one:1", ok=False).err
    assert "does not exist" in cas("save", "-o", tmp_path / "no/where.tar", "one:1", ok=False).err
    assert "regular file" in cas("save", "-o", "/dev/full", "one:1", ok=False).err
    assert cas("save", "one:1").code == 0
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if os.geteuid() != 0:
        assert "locked" in cas("save", "-o", locked / "a.tar", "one:1", ok=False).err


def test_save_into_a_full_device(spawn: Spawn, two: None) -> None:
    with open("/dev/full", "wb") as full:
        process = spawn("save", "one:1", stdout=full)
        _, err = process.communicate()
    assert process.returncode == 1 and b"no space left" in err and err.count(b"\n") == 1


def test_save_into_a_pipe_that_closes(spawn: Spawn, cas: Cas, store_path: Path, tmp_path: Path) -> None:
    (tmp_path / "big.tar").write_bytes(sample.docker_archive(BIG))
    cas("load", "-i", tmp_path / "big.tar")
    process = spawn("save", "big:1")
    assert process.stdout is not None and process.stderr is not None
    assert len(process.stdout.read(100)) == 100
    process.stdout.close()
    err = process.stderr.read()
    process.wait()
    assert process.returncode == 1 and b"Traceback" not in err and err.count(b"\n") <= 1
    assert not list((store_path / "tmp").iterdir())


def test_save_to_a_terminal_is_refused(spawn: Spawn, two: None) -> None:
    master, slave = pty.openpty()
    process = spawn("save", "one:1", stdout=slave)
    os.close(slave)
    _, err = process.communicate()
    os.close(master)
    assert process.returncode == 1
    assert b"cowardly refusing to save to a terminal. Use the -o flag or redirect" in err


def test_save_goes_on_while_the_image_is_removed_and_collected(
    spawn: Spawn, cas: Cas, rows: Rows, tmp_path: Path
) -> None:
    (tmp_path / "big.tar").write_bytes(sample.docker_archive(BIG))
    cas("load", "-i", tmp_path / "big.tar")
    whole = cas("save", "big:1").raw
    process = spawn("save", "big:1")
    assert process.stdout is not None
    begin = os.read(process.stdout.fileno(), 1000)  # the rest waits: a pipe holds 64 KiB
    cas("rmi", "big:1")
    cas("gc", "--grace", "0")
    rest, err = process.communicate()
    assert process.returncode == 0, err
    assert begin + rest == whole
    cas("gc", "--grace", "0")
    assert rows()["objects"] == [] and rows()["blobs"] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system that is read-only needs root to mount it")
def test_a_folder_on_a_read_only_file_system(two: None, store_path: Path, tmp_path: Path) -> None:
    where = tmp_path / "mounted"
    where.mkdir()
    script = f"mount -t tmpfs -o ro none {where} && "
    script += f"exec {sys.executable} -m casstore --store {store_path} save -o {where}/a.tar one:1"
    done = Popen(["unshare", "-m", "sh", "-c", script], stdout=PIPE, stderr=PIPE)
    _, err = done.communicate()
    if b"unshare" in err or b"mount:" in err:
        pytest.skip(f"no mounts here: {err.decode()[:100]}")
    assert done.returncode == 1 and b"read-only file system" in err.lower() and err.count(b"\n") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="a store that is read-only needs root to mount it")
def test_a_store_that_is_read_only(cas: Cas, two: None, store_path: Path, tmp_path: Path) -> None:
    cas("gc", "--grace", "0")
    casstore = f"{sys.executable} -m casstore --store {store_path}"
    script = f"mount --bind {store_path} {store_path} && mount -o remount,ro,bind {store_path} || exit 77\n"
    script += f"{casstore} images -q | wc -l\n{casstore} tag one:1 other:1\n{casstore} load -i {tmp_path}/two.tar\n"
    done = Popen(["unshare", "-m", "sh", "-c", script], stdout=PIPE, stderr=PIPE)
    out, err = done.communicate()
    if done.returncode == 77 or b"unshare" in err:
        pytest.skip(f"no mounts here: {err.decode()[:100]}")
    assert out.strip() == b"3"
    assert err.count(b"store is read-only") == 2 and err.count(b"\n") == 2, err


# -- import


def test_import(cas: Cas, spawn: Spawn, tmp_path: Path) -> None:
    root = sample.rich_layer("root")
    made = {}
    for name, data in {"plain": root, "gz": sample.gz(root), "zst": zstd.compress(root)}.items():
        (tmp_path / name).write_bytes(data)
        made[name] = cas("import", "-m", "why", tmp_path / name, f"{name}:1").out.strip()
        cas("verify", f"{name}:1")
        config = json.loads(cas("blob", "cat", made[name]).raw)
        assert config["rootfs"]["diff_ids"] == [sample.digest(root)]
        assert config["comment"] == "why" == config["history"][0]["comment"]
    piped = spawn("import", "-", "piped:1", stdin=PIPE)
    out, _ = piped.communicate(root)
    assert piped.returncode == 0
    config = json.loads(cas("blob", "cat", out.decode().strip()).raw)
    assert config["comment"] == "Imported from -"
    assert sample.saved_images(cas("save", "piped:1").raw)[out.decode().strip()][1] == [root]
    unnamed = cas("import", tmp_path / "plain").out.strip()
    assert unnamed in ids(cas, "-f", "dangling=true")


def test_import_for_another_platform(cas: Cas, tmp_path: Path) -> None:
    (tmp_path / "root.tar").write_bytes(sample.files({"a": b"a"}))
    made = cas("import", "--platform", "linux/arm/v7", tmp_path / "root.tar", "arm:1").out.strip()
    config = json.loads(cas("blob", "cat", made).raw)
    assert (config["os"], config["architecture"], config["variant"]) == ("linux", "arm", "v7")


def test_import_of_what_is_odd(cas: Cas, rows: Rows, tmp_path: Path) -> None:
    odd = {"garbage": sample.noise("odd", 3000), "empty": b"", "cut": sample.rich_layer(1)[:100_000]}
    for name, data in odd.items():
        (tmp_path / name).write_bytes(data)
        cas("import", tmp_path / name, f"{name}:1")
        assert next(iter(sample.saved_images(cas("save", f"{name}:1").raw).values()))[1] == [data]
    before = rows()
    (tmp_path / "cut.gz").write_bytes(sample.gz(sample.rich_layer(1))[:50_000])
    assert "cut short" in cas("import", tmp_path / "cut.gz", "a:1", ok=False).err
    assert "directory" in cas("import", tmp_path, "a:1", ok=False).err.lower()
    assert "no such file" in cas("import", tmp_path / "nosuch", "a:1", ok=False).err
    assert "cannot import digest reference" in cas("import", "/nosuch", "a@sha256:" + "0" * 64, ok=False).err
    assert "must be lowercase" in cas("import", "/nosuch", "A:1", ok=False).err
    assert cas("import", "a", "b", "c", ok=False).code == 125
    assert rows() == before


# -- images


def test_images_lists_as_docker_does(cas: Cas, two: None) -> None:
    lines = cas("images").lines
    assert lines[0].split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert [line.split()[:3] for line in lines[1:]] == [
        ["two", "1", TWO.id[7:19]],
        ["one", "1", ONE.id[7:19]],
        ["team/one", "latest", ONE.id[7:19]],
    ]
    assert ids(cas) == [TWO.id, ONE.id, ONE.id]
    (row,) = map(json.loads, cas("images", "--format", "json", "two").lines)
    assert row["Repository"] == "two" and row["Tag"] == "1" and row["ID"] == TWO.id[7:19]
    digests = cas("images", "--digests").lines
    assert digests[0].split()[2] == "DIGEST" and "sha256:" in digests[1]


# -- tag


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("a___b", "invalid reference format"),
        ("-a:b", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("a:b:c", "invalid reference format"),
        ("a:" + "t" * 129, "invalid reference format"),
        ("Foo:x", "repository name must be lowercase"),
        ("LOCAL/x", "repository name must be lowercase"),
        ("host.com/UP:1", "repository name must be lowercase"),
        ("a" * 64, "cannot specify 64-byte hexadecimal strings"),
        ("x@sha256:" + "0" * 64, "refusing to create a tag with a digest reference"),
        ("sha256:abc", "refusing to create an ambiguous tag using digest algorithm as name"),
        ("x" * 256 + ":1", ""),
        ("", "invalid reference format"),
        ("a\nb", "invalid reference format"),
        ("a\x1b[31m", "invalid reference format"),
    ],
)
def test_tag_refuses(cas: Cas, two: None, rows: Rows, target: str, words: str) -> None:
    before = rows()
    assert words in cas("tag", "--", "one:1", target, ok=False).err
    assert rows() == before


def test_tag(cas: Cas, two: None) -> None:
    given = {"foo:BAR": "one:1", "a__b": ONE.id[7:], "x.y:5000/z:1": ONE.id[:20], "l": "team/one"}
    for target, source in given.items():
        cas("tag", source, target)
        assert ids(cas, target) == [ONE.id]
    assert "No such image: nosuch" in cas("tag", "nosuch", "x:1", ok=False).err
    cas("tag", "docker.io/library/two:1", "index.docker.io/library/lib")
    assert ids(cas, "lib") == [TWO.id]
    cas("tag", "two:1", "one:1")
    assert ids(cas, "one:1") == [TWO.id]
    assert ids(cas, "team/one") == [ONE.id]


# -- rmi


def test_rmi_by_tag(cas: Cas, two: None) -> None:
    assert cas("rmi", "one:1").lines == ["Untagged: one:1"]
    told = cas("rmi", "team/one").lines
    assert told[:2] == ["Untagged: team/one:latest", f"Deleted: {ONE.id}"]
    assert len(told) == 2 + 2  # the bottom layer is TWO's too
    assert len(cas("rmi", "two:1").lines) == 2 + 3
    assert ids(cas, "-a") == []


def test_rmi_of_what_is_not_there(cas: Cas, two: None) -> None:
    assert cas("rmi", "nosuch", ok=False).err == "Error: No such image: nosuch\n"
    forced = cas("rmi", "-f", "nosuch")
    assert forced.err == "Error: No such image: nosuch\n"
    mixed = cas("rmi", "nosuch", "two:1", "", ONE.id.upper(), ok=None)
    assert mixed.code == 1 and mixed.lines[0] == "Untagged: two:1" and mixed.err.count("Error: ") == 3
    assert len(ids(cas)) == 2


def test_rmi_of_a_parent(cas: Cas, tmp_path: Path) -> None:
    base = sample.image("base", ["base:1"], [sample.rich_layer("base")])
    child = sample.image("child", ["child:1"], [*base.layers, sample.files({"x": b"x"})])
    members = sample.docker_members([base, child])
    items = json.loads(members["manifest.json"])
    items[1]["Parent"] = base.id
    (tmp_path / "in.tar").write_bytes(sample.plain_tar(members | {"manifest.json": json.dumps(items).encode()}))
    cas("load", "-i", tmp_path / "in.tar")
    assert "image has dependent child images" in cas("rmi", "-f", base.id, ok=False).err
    assert cas("rmi", "base:1").lines == ["Untagged: base:1"]
    assert ids(cas) == [child.id] and sorted(ids(cas, "-a")) == sorted([base.id, child.id])
    cas("gc", "--grace", "0")
    cas("verify", base.id)
    told = cas("rmi", "child:1").lines
    assert told[:2] == ["Untagged: child:1", f"Deleted: {child.id}"] and f"Deleted: {base.id}" in told
    cas("gc", "--grace", "0")
    assert cas("blob", "ls", "--format", "{{.Digest}}").lines == []


def test_rmi_with_a_config_too_large_to_be_kept_inline(cas: Cas, tmp_path: Path) -> None:
    large = sample.rich_image("large", ["large:1"], comment=sample.noise("large", 100_000).hex())
    (tmp_path / "in.tar").write_bytes(sample.docker_archive(large))
    cas("load", "-i", tmp_path / "in.tar")
    assert sample.saved_images(cas("save", "large:1").raw)[large.id][1] == list(large.layers)
    assert len(cas("rmi", "large:1").lines) == 2 + 3


def test_rmi_with_a_damaged_config(cas: Cas, two: None, store_path: Path) -> None:
    for pack in (store_path / "objects/packs").rglob("*"):
        if pack.is_file():
            pack.write_bytes(bytes(len(pack.read_bytes())))
    assert cas("rmi", "two:1").lines[:2] == ["Untagged: two:1", f"Deleted: {TWO.id}"]
    cas("gc", "--grace", "0", "--max-time", "0")


# -- blob


def test_blob_put_cat_ls_inspect_rm(cas: Cas, spawn: Spawn, tmp_path: Path) -> None:
    given = {
        "garbage": sample.noise("blob", 300_000),
        "tar": sample.rich_layer("blob"),
        "gzip": sample.gz(sample.rich_layer("blob")),
        "zstd": zstd.compress(sample.rich_layer("blob")),
        "empty": b"",
        "manifest": b'{"schemaVersion":2}',
        "false gzip": b"\x1f\x8b\x08" + sample.noise("false", 90_000),
    }
    digests = {}
    for name, data in given.items():
        (tmp_path / "given").write_bytes(data)
        digests[name] = cas("blob", "put", tmp_path / "given").out.strip()
        piped = spawn("blob", "put", "-", stdin=PIPE)
        assert piped.communicate(data)[0].decode().strip() == digests[name] == sample.digest(data)
        assert cas("blob", "cat", digests[name]).raw == data
    rows = {row["Digest"]: row for row in map(json.loads, cas("blob", "ls", "--format", "json").lines)}
    assert {row["Size"] for row in rows.values()} == {len(data) for data in given.values()}
    assert [rows[digests[name]]["State"] for name in given] == [
        "packed", "packed", "loose", "loose", "packed", "packed", "loose",
    ]  # fmt: skip
    assert rows[digests["gzip"]]["Encoding"] == "gzip" and rows[digests["tar"]]["Encoding"] == "identity"
    (facts,) = json.loads(cas("blob", "inspect", digests["gzip"]).out)
    assert facts["DiffID"] == digests["tar"] and facts["Size"] == len(given["gzip"])
    cas("gc", "--grace", "0")
    for name, data in given.items():
        assert cas("blob", "cat", digests[name]).raw == data
    cas("blob", "rm", *digests.values())
    cas("gc", "--grace", "0")
    assert cas("blob", "ls", "--format", "json").out == ""
    missing = cas("blob", "cat", digests["tar"], ok=False)
    assert f"No such blob: {digests['tar']}" in missing.err and missing.raw == b""
    assert "No such blob" in cas("blob", "inspect", digests["tar"], ok=False).err
    assert "No such blob" in cas("blob", "rm", digests["tar"], ok=False).err
    cas("blob", "cat", "sha256:../../x", ok=False)
    cas("blob", "put", tmp_path / "nosuch", ok=False)


@pytest.mark.parametrize("kind", ["tar", "gzip", "small", "loose tar"])
@pytest.mark.parametrize("digests", ["sha256", "blake3"])
def test_blob_ranges(cas: Cas, tmp_path: Path, kind: str, digests: str) -> None:
    cas("init", "--chunk-digest", digests)
    big = sample.tar(
        [sample.entry("n", sample.noise(1, 3_000_000)), sample.entry("t", sample.text(2, 2_500_000)), sample.entry("e")]
    )
    data = {"tar": big, "gzip": sample.gz(big), "small": b"0123456789", "loose tar": big}[kind]
    if kind == "loose tar":
        layer = sample.image("loose", ["loose:1"], [data])
        (tmp_path / "loose.tar").write_bytes(sample.docker_archive(layer))
        cas("load", "--pack", "later", "-i", tmp_path / "loose.tar")
    else:
        (tmp_path / "given").write_bytes(data)
        cas("blob", "put", tmp_path / "given")
    name, size = sample.digest(data), len(data)
    assert cas("blob", "cat", name).raw == data
    for first, last in [(0, 0), (0, 9), (3, 7), (size - 1, size - 1), (size // 2, size // 2 + 70_000), (1, size - 1)]:
        last = min(last, size - 1)
        if first <= last:
            assert cas("blob", "cat", "--range", f"{first}-{last}", name).raw == data[first : last + 1]
    assert cas("blob", "cat", "--range", "5-", name).raw == data[5:]
    assert cas("blob", "cat", "--range", "-4", name).raw == data[-4:]
    assert cas("blob", "cat", "--range", f"-{size + 10}", name).raw == data
    assert cas("blob", "cat", "--range", f"2-{size + 100}", name).raw == data[2:]
    assert cas("blob", "cat", "--range", f"{size + 1}-", name, ok=False).code == 1
    for wrong in ("", "-", "x-y", "5-2", "-0", "1", "1-2-3"):
        assert cas("blob", "cat", "--range", wrong, name, ok=False).code == 125


# -- gc, check, df, config


def test_gc_does_what_its_dry_run_says(cas: Cas, two: None, rows: Rows, tmp_path: Path) -> None:
    (tmp_path / "big.tar").write_bytes(sample.docker_archive(BIG))
    cas("load", "--pack", "later", "-i", tmp_path / "big.tar")
    cas("rmi", "two:1")
    before = rows()
    assert cas("gc", "--dry-run", "--format", "json", ok=True).out.count('"delete"') == 0  # all of it is young
    plan = [json.loads(line) for line in cas("gc", "--dry-run", "--grace", "0", "--format", "json").lines]
    assert rows() == before
    deleted = {row["Name"] for row in plan if row["Action"] == "delete" and row["Kind"] == "blob"}
    (former, packs) = cas("blob", "ls", "--format", "{{.Digest}}").lines, {row["Name"] for row in plan} - deleted
    totals = json.loads(cas("gc", "--grace", "0", "--format", "json").out)
    after = cas("blob", "ls", "--format", "{{.Digest}}").lines
    assert deleted == set(former) - set(after) and len(deleted) == 4
    assert totals["blobs_deleted"] == len(deleted)
    assert totals["blobs_packed"] == len([row for row in plan if row["Action"] == "pack"]) == 1
    objects = {row[1] for row in rows()["objects"]}
    assert {row["Name"] for row in plan if row["Action"] == "delete" and row["Kind"] != "blob"}.isdisjoint(objects)
    assert packs
    again = cas("gc", "--dry-run", "--grace", "0", "--format", "json").lines
    assert [line for line in again if '"delete"' in line] == []
    cas("verify", "one:1")
    cas("verify", "big:1")
    cas("check", "--read-data")


def test_pack_later_is_packed_by_gc(cas: Cas, tmp_path: Path) -> None:
    (tmp_path / "one.tar").write_bytes(sample.docker_archive(ONE))
    cas("load", "--pack", "later", "-i", tmp_path / "one.tar")
    states = "{{.Digest}} {{.State}}"
    loose = [line.split()[0] for line in cas("blob", "ls", "--format", states).lines if line.endswith("loose")]
    assert sorted(loose) == sorted(ONE.diff_ids)
    whole = cas("save", "one:1").raw
    cas("gc", "--max-time", "0")
    assert any(line.endswith("loose") for line in cas("blob", "ls", "--format", states).lines)
    told = cas("gc").out
    assert "Packed:     3 blobs" in told
    assert all(line.endswith("packed") for line in cas("blob", "ls", "--format", states).lines)
    assert cas("save", "one:1").raw == whole
    cas("gc", "--grace", "0")
    assert json.loads(cas("df", "--format", "json").out)["stored_bytes"] < len(whole)
    cas("check", "--read-data")


def test_gc_of_nothing_and_twice(cas: Cas) -> None:
    for _ in range(2):
        assert "0 blobs, 0 objects" in cas("gc", "--grace", "0").out
    assert cas("gc", "--grace", "soon", ok=False).code == 125


def test_check_and_verify_tell_of_damage_and_the_next_load_heals(
    cas: Cas, two: None, store_path: Path, tmp_path: Path
) -> None:
    assert cas("check").out == "No problems found\n"
    assert cas("check", "--read-data", "--format", "json").out == ""
    packs = [path for path in (store_path / "objects/packs").rglob("*") if path.is_file()]
    data = max(packs, key=lambda path: path.stat().st_size)
    raw = bytearray(data.read_bytes())
    raw[len(raw) // 3] ^= 1
    data.write_bytes(raw)
    cas("check")  # that every byte is right it did not say
    failed = cas("save", "-o", tmp_path / "out.tar", "one:1", ok=False)
    assert "sha256:" in failed.err or data.name in failed.err
    assert not (tmp_path / "out.tar").exists()
    assert "was found damaged" in cas("check", ok=None).out
    assert cas("verify", "one:1", ok=None).code == 1
    found = cas("check", "--read-data", "--format", "json", ok=None)
    problems = [json.loads(line) for line in found.lines]
    assert found.code == 1 and any(data.name in row["What"] for row in problems)
    assert "one:1" in found.out
    assert cas("check", "--read-data", "--repair", ok=None).code == 1
    cas("load", "-i", tmp_path / "two.tar")
    cas("verify", "one:1")
    cas("verify", "two:1")
    cas("gc", "--grace", "0")
    cas("check", "--read-data")


def test_df_counts(cas: Cas, two: None, store_path: Path) -> None:
    told = json.loads(cas("df", "--format", "json").out)
    stored = sum(path.stat().st_size for path in store_path.rglob("*") if path.is_file())
    assert told["images"] == 2 and told["blobs"] == 5 + 2 + 2
    assert abs(told["stored_bytes"] - stored) < 300_000  # the log of the catalog grows and shrinks
    assert told["blob_bytes"] == sum(map(int, cas("blob", "ls", "--format", "{{.Size}}").lines))
    lines = cas("df", "-v").lines
    assert any(line.startswith("Images:  2") for line in lines) and any("one:1" in line for line in lines)


def test_config(cas: Cas, rows: Rows) -> None:
    assert {line.split()[0] for line in cas("config", "ls").lines[1:]} == {
        "pack.after", "pack.budget", "trace.limit", "cache.size", "compression", "min-free", "limit.ratio",
        "limit.output",
    }  # fmt: skip
    cas("config", "set", "pack.budget", "90s")
    assert cas("config", "get", "pack.budget").out == "90s\n"
    assert {"Key": "pack.budget", "Value": "90s"} in map(json.loads, cas("config", "ls", "--format", "json").lines)
    before = rows()
    assert cas("config", "set", "compression", "brotli", ok=False).code == 125
    assert cas("config", "set", "pack.budget", "soon", ok=False).code == 125
    assert "unknown setting" in cas("config", "set", "nosuch", "1", ok=False).err
    assert "unknown setting" in cas("config", "get", "nosuch", ok=False).err
    assert rows() == before


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd:1", "zstd:19"])
def test_each_compression_gives_the_same_bytes(cas: Cas, tmp_path: Path, compression: str) -> None:
    cas("config", "set", "compression", compression)
    (tmp_path / "one.tar").write_bytes(sample.docker_archive(ONE))
    cas("load", "-i", tmp_path / "one.tar")
    assert sample.saved_images(cas("save", "one:1").raw)[ONE.id][1] == list(ONE.layers)
    cas("check", "--read-data")


def test_min_free_stops_what_would_write(cas: Cas, two: None, tmp_path: Path) -> None:
    cas("config", "set", "min-free", "1000000GiB")
    assert "min-free" in cas("load", "-i", tmp_path / "two.tar", ok=False).err
    assert "min-free" in cas("blob", "put", tmp_path / "two.tar", ok=False).err
    cas("rmi", "one:1")
    cas("gc", "--grace", "0")


def test_init(cas: Cas, store_path: Path, tmp_path: Path) -> None:
    cas("init", "--chunk-digest", "blake3", "--chunk-size", "64KiB")
    assert "there is a store already" in cas("init", ok=False).err
    (tmp_path / "one.tar").write_bytes(sample.docker_archive(ONE))
    cas("load", "-i", tmp_path / "one.tar")
    cas("verify", "one:1")
    cas("gc", "--grace", "0")
    cas("check", "--read-data")
    for wrong in ("3k", "15k", "1M", "x"):
        assert cas("--store", tmp_path / "other", "init", "--chunk-size", wrong, ok=False).code == 125
    assert not (tmp_path / "other").exists()


def test_version_and_calls_that_are_wrong(cas: Cas) -> None:
    assert cas("version").out.startswith("casstore ")
    assert cas("--version").out.startswith("casstore ")
    for wrong in (["nosuch"], ["load", "--nosuch"], ["images", "a", "b"], ["tag", "a"], ["save"], ["rmi"]):
        assert cas(*wrong, ok=False).code == 125


def test_a_folder_that_is_no_store(cas: Cas, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    cas("--store", tmp_path / "file", "images", ok=False)
    (tmp_path / "future").mkdir()
    (tmp_path / "future/store.json").write_text('{"format": 99}')
    cas("--store", tmp_path / "future", "images", ok=False)
