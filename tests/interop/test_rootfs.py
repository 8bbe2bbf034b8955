"""Root file systems out of images: what `export`, `unpack`, `ls`, `cat` and `diff` give is what docker, umoci and
podman make of the same images; every form in which a layer is kept; and each way in which they end badly."""

from __future__ import annotations

import io
import json
import os
import pty
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sample
from layered import applied, content, packed, told
from peers import need, need_root
from running import Cas, Rows, Spawn
from sample import entry, sha, tar

from casstore.rootfs.node import FILE, walk

Told = dict[str, tuple[Any, ...]]


def base_layer() -> bytes:
    folders = [entry(name, kind=tarfile.DIRTYPE, mode=mode) for name, mode in FOLDERS.items()]
    xattr = {"SCHILY.xattr.user.note": "kept"}
    return tar(
        [
            *folders,
            entry("bin/tool", sample.text("tool", 90_000), mode=0o4755),
            entry("bin/other", kind=tarfile.LNKTYPE, linkname="bin/tool", mode=0o4755),
            entry("bin/soft", kind=tarfile.SYMTYPE, linkname="tool"),
            entry("d/gone", b"gone"),
            entry("d/kept", b"kept", uid=1000, gid=1001, mode=0o640),
            entry("nodes/dull", kind=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
            entry("nodes/pipe", kind=tarfile.FIFOTYPE, mode=0o600),
            entry("e/hidden", b"hidden"),
            entry("e/f/hidden", b"hidden too"),
            entry("f", b"to become a folder"),
            entry("g/x", b"a folder to become a file"),
            entry("noted", b"noted", pax_headers=xattr),
            entry("link", kind=tarfile.SYMTYPE, linkname="d"),
        ]
    )


FOLDERS = {"bin": 0o755, "d": 0o750, "nodes": 0o755, "e": 0o1777, "e/f": 0o755, "g": 0o755}


def upper_layer() -> bytes:
    return tar(
        [
            entry("d", kind=tarfile.DIRTYPE, mode=0o700, uid=7),
            entry("d/.wh.gone"),
            entry("d/new", sample.text("new", 40_000)),
            entry("e", kind=tarfile.DIRTYPE, mode=0o1777),
            entry("e/.wh..wh..opq"),
            entry("e/shown", b"shown"),
            entry("f", kind=tarfile.DIRTYPE),
            entry("f/y", b"below"),
            entry("g", b"a file now"),
            entry("link", kind=tarfile.DIRTYPE),
            entry("link/z", b"no longer by way of a symlink"),
        ]
    )


LAYERS = [base_layer(), upper_layer(), sample.files({"srv/app": sample.text("app", 50_000)})]
IMAGE = sample.image("rootfs", ["root/fs:1"], LAYERS)


@pytest.fixture
def loaded(cas: Cas, tmp_path: Path) -> None:
    (tmp_path / "given.tar").write_bytes(sample.docker_archive(IMAGE))
    cas("load", "-i", tmp_path / "given.tar")


def by_name(data: bytes, *, without: set[str] = frozenset()) -> Told:  # type: ignore[assignment]
    """A tar's entries by name: kind, mode, owner, time in seconds, attributes, and what they hold."""
    found: Told = {}
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as archive:
        for one in archive:
            if one.name.split("/")[0] in without or one.name == ".":
                continue
            held = archive.extractfile(one).read() if one.isreg() else one.linkname  # type: ignore[union-attr]
            notes = {k: v for k, v in one.pax_headers.items() if k.startswith("SCHILY.xattr.user")}
            numbers = (one.devmajor, one.devminor) if one.isdev() else None
            attributes = (one.mode & 0o7777, one.uid, one.gid, int(one.mtime), tuple(notes.items()))
            found[one.name] = (one.type, held, numbers, *(attributes if not one.islnk() else ()))
    return found


def by_path(top: Path) -> Told:
    """The same of a folder; of files with several names the first stands with all of them."""
    found: Told = {}
    names: dict[int, str] = {}
    for at, folders, files in os.walk(top):
        for name in [*folders, *files]:
            path = Path(at, name)
            one, shown = path.lstat(), str(path.relative_to(top))
            what: Any = one.st_rdev
            if stat.S_ISREG(one.st_mode):
                what = sha(path.read_bytes()), {k: os.getxattr(path, k) for k in os.listxattr(path) if k[:5] == "user."}
            elif stat.S_ISLNK(one.st_mode):
                what = str(path.readlink())
            links = one.st_nlink if not stat.S_ISDIR(one.st_mode) else 0
            found[shown] = (one.st_mode, one.st_uid, one.st_gid, int(one.st_mtime), links, what)
            names.setdefault(one.st_ino, shown)
    return found


# -- the forms in which layers are kept


def kept(cas: Cas, tmp_path: Path, how: str) -> None:
    archive = tmp_path / "given.tar"
    archive.write_bytes(sample.oci_archive(IMAGE) if how == "gzip" else sample.docker_archive(IMAGE))
    cas("load", "-i", archive, *(["--pack", "never"] if how == "loose" else []))
    blobs = [json.loads(line) for line in cas("blob", "ls", "--format", "json").lines]
    states = {one["State"] for one in blobs if int(one["Size"]) > 8192}
    assert states == ({"packed"} if how == "packed" else {"loose"})
    if how == "packed":
        cas("gc", "--grace", "0s")


@pytest.mark.parametrize("how", ["packed", "loose", "gzip"])
def test_forms(how: str, cas: Cas, store_path: Path, tmp_path: Path) -> None:
    kept(cas, tmp_path, how)
    tree = applied(*LAYERS)
    whole = packed(LAYERS, tree)
    assert cas("export", "root/fs:1").raw == whole
    cas("export", "-o", tmp_path / "out.tar", "root/fs:1")
    assert (tmp_path / "out.tar").read_bytes() == whole and stat.S_IMODE((tmp_path / "out.tar").stat().st_mode) == 0o600
    for path, node in walk(tree.root):
        if node.kind == FILE:
            assert cas("cat", "root/fs:1", os.fsdecode(path)).raw == content(LAYERS, node)
    listed = [json.loads(line) for line in cas("ls", "-R", "root/fs:1", "--format", "json").lines]
    assert [one["Path"] for one in listed] == [os.fsdecode(path) for path, _ in walk(tree.root)]
    cas("unpack", "root/fs:1", tmp_path / "rootfs")
    assert (tmp_path / "rootfs" / "srv" / "app").read_bytes() == sample.text("app", 50_000)
    assert not list((store_path / "tmp").iterdir())


def test_what_cannot_be_applied_is_still_kept(cas: Cas, tmp_path: Path) -> None:
    """Only what needs the merged tree refuses a layer; storing and returning it does not."""
    bad = sample.files({".wh.": b""})
    (tmp_path / "bad.tar").write_bytes(sample.docker_archive(sample.image("bad", ["bad:1"], [LAYERS[0], bad])))
    cas("load", "-i", tmp_path / "bad.tar")
    said = f"layer {sample.digest(bad)}: .wh.: invalid whiteout at offset 0"
    for argv in (
        ["export", "bad:1"],
        ["unpack", "bad:1", tmp_path / "r"],
        ["ls", "bad:1"],
        ["cat", "bad:1", "/d/kept"],
    ):
        assert said in cas(*argv, ok=False).err
    assert not (tmp_path / "r").exists()
    cas("verify", "bad:1")
    assert cas("blob", "cat", sample.digest(bad)).raw == bad


def test_looking_inside(cas: Cas, loaded: None) -> None:
    assert [line.split()[-1] for line in cas("ls", "root/fs:1", "/d").lines[1:]] == ["d/kept", "d/new"]
    (row,) = [json.loads(one) for one in cas("ls", "root/fs:1", "bin/soft", "--format", "json").lines]
    assert (row["Mode"], row["Link"], row["Path"]) == ("lrwxrwxrwx", "tool", "bin/soft") or row["Link"] == "tool"
    assert cas("cat", "root/fs:1", "/bin/soft").raw == cas("cat", "root/fs:1", "bin/other").raw
    for path, said in {"/no": "no such file", "/d/kept/": "no such file", "/d/gone": "no such file"}.items():
        assert said in cas("cat", "root/fs:1", path, ok=False).err
        assert said in cas("ls", "root/fs:1", path, ok=False).err
    assert "is a directory" in cas("cat", "root/fs:1", "/d", ok=False).err
    assert "not a regular file" in cas("cat", "root/fs:1", "/nodes/dull", ok=False).err
    assert "No such image: nosuch" in cas("cat", "nosuch", "/f", ok=False).err


def test_a_symlink_to_nothing_is_listed(cas: Cas, tmp_path: Path) -> None:
    layer = tar(
        [entry("s", kind=tarfile.SYMTYPE, linkname="/no/where"), entry("t", kind=tarfile.SYMTYPE, linkname="t")]
    )
    (tmp_path / "a.tar").write_bytes(sample.docker_archive(sample.image("s", ["s:1"], [layer])))
    cas("load", "-i", tmp_path / "a.tar")
    assert cas("ls", "s:1", "/s").lines[1].endswith("s -> /no/where") and cas("ls", "s:1", "t").lines[1].endswith(
        "t -> t"
    )
    assert "no such file" in cas("cat", "s:1", "/s", ok=False).err


def test_diff(cas: Cas, loaded: None, tmp_path: Path) -> None:
    former = sample.image("base", ["base:1"], LAYERS[:1])
    (tmp_path / "base.tar").write_bytes(sample.docker_archive(former))
    cas("load", "-i", tmp_path / "base.tar")
    expected = "C/d D/d/gone A/d/new D/e/f D/e/f/hidden D/e/hidden A/e/shown C/f A/f/y C/g D/g/x C/link A/link/z A/srv"
    assert cas("diff", "base:1", "root/fs:1").lines == [
        f"{one[0]} {one[1:]}" for one in [*expected.split(), "A/srv/app"]
    ]
    assert cas("diff", "root/fs:1", "root/fs:1").lines == cas("diff", "--times", "base:1", "base:1").lines == []


@pytest.mark.parametrize("times", [False, True])
def test_diff_sees_bytes_and_with_times_times(times: bool, cas: Cas, tmp_path: Path) -> None:
    """Also where both come from layers kept in different forms, and differ in the last byte of a large file."""
    big = sample.text("big", 3_000_000)
    first = tar([entry("big", big), entry("same", b"1"), entry("touched", b"2", mtime=1)])
    second = tar([entry("big", big[:-1] + b"!"), entry("same", b"1"), entry("touched", b"2", mtime=2)])
    (tmp_path / "1.tar").write_bytes(sample.docker_archive(sample.image("1", ["one:1"], [first])))
    (tmp_path / "2.tar").write_bytes(sample.oci_archive(sample.image("2", ["two:1"], [second])))
    for name in ("1.tar", "2.tar"):
        cas("load", "-i", tmp_path / name)
    assert cas("diff", *(["--times"] if times else []), "one:1", "two:1").lines == ["C /big"] + ["C /touched"] * times


# -- peers


def test_export_is_docker_exports(docker: Callable[..., str], cas: Cas, loaded: None, tmp_path: Path) -> None:
    """Beside docker's own folders and placeholders, which it makes for every container."""
    cas("save", "-o", tmp_path / "image.tar", "root/fs:1")
    docker("load", "-i", tmp_path / "image.tar")
    made = docker("create", "root/fs:1", "/bin/tool").strip()
    docker("export", "-o", tmp_path / "docker.tar", made)
    docker("rm", made)
    docker("image", "rm", "-f", IMAGE.id)
    theirs = by_name((tmp_path / "docker.tar").read_bytes(), without={".dockerenv", "dev", "proc", "sys", "etc"})
    ours = by_name(cas("export", "root/fs:1").raw)
    # Docker keeps capabilities alone of the attributes; and a folder that no entry describes has the time of its load.
    assert ours["noted"][-1] and not theirs["noted"][-1]
    ours["noted"], ours["srv"], theirs["srv"] = (*ours["noted"][:-1], ()), ours["srv"][:6], theirs["srv"][:6]
    assert ours == theirs and list(ours) == list(theirs)


def test_unpack_is_umocis(umoci: Callable[..., str], cas: Cas, loaded: None, tmp_path: Path) -> None:
    need_root("devices and owners")
    cas("save", "--format", "oci-archive", "-o", tmp_path / "oci.tar", "root/fs:1")
    (tmp_path / "layout").mkdir()
    with tarfile.open(tmp_path / "oci.tar") as archive:
        for one in archive:
            if one.isreg():
                path = tmp_path / "layout" / one.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.extractfile(one).read())  # type: ignore[union-attr]
    umoci("unpack", "--image", f"{tmp_path}/layout:1", tmp_path / "bundle")
    cas("unpack", "root/fs:1", tmp_path / "ours")
    ours, theirs = by_path(tmp_path / "ours"), by_path(tmp_path / "bundle" / "rootfs")
    # A folder that no entry describes: umoci gives it the time of unpacking, we that of the epoch.
    ours["srv"], theirs["srv"] = ours["srv"][:3], theirs["srv"][:3]
    assert ours == theirs


def test_podman_imports_the_export(podman: Callable[..., str], cas: Cas, loaded: None, tmp_path: Path) -> None:
    cas("export", "-o", tmp_path / "out.tar", "root/fs:1")
    theirs = podman("import", "-q", tmp_path / "out.tar", "imported:1").strip().splitlines()[-1]
    podman("save", "-q", "-o", tmp_path / "back.tar", theirs)
    podman("rmi", "-f", theirs)
    cas("load", "-i", tmp_path / "back.tar")
    assert cas("diff", "--times", "root/fs:1", theirs).lines == []


def test_the_export_imported_is_the_same(cas: Cas, loaded: None, tmp_path: Path) -> None:
    cas("export", "-o", tmp_path / "out.tar", "root/fs:1")
    cas("import", tmp_path / "out.tar", "again:1")
    assert cas("diff", "--times", "root/fs:1", "again:1").lines == []
    assert cas("export", "again:1").raw == (tmp_path / "out.tar").read_bytes()


def test_a_layout_of_skopeos_is_read_too(
    skopeo: Callable[..., str], cas: Cas, store_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "given.tar").write_bytes(sample.docker_archive(IMAGE))
    skopeo("copy", f"docker-archive:{tmp_path}/given.tar", f"oci:{tmp_path}/layout:root/fs:1")
    cas("load", "-i", tmp_path / "layout")
    (name,) = {json.loads(line)["ID"] for line in cas("images", "--no-trunc", "--format", "json").lines}
    assert cas("export", name).raw == packed(LAYERS, applied(*LAYERS))


def test_gnu_tar_extracts_the_export(cas: Cas, loaded: None, tmp_path: Path) -> None:
    need_root("devices and owners")
    (tmp_path / "theirs").mkdir()
    tool = need("tar")
    process = subprocess.run(
        [tool, "--xattrs", "--xattrs-include=*", "-x", "-p", "--numeric-owner", "-C", tmp_path / "theirs"],
        input=cas("export", "root/fs:1").raw,
        capture_output=True,
    )
    assert process.returncode == 0, process.stderr
    cas("unpack", "root/fs:1", tmp_path / "ours")
    assert by_path(tmp_path / "ours") == by_path(tmp_path / "theirs")


# -- how they end badly


def test_export_names_what_is_missing_and_leaves_no_file(cas: Cas, loaded: None, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert "No such image: nosuch" in cas("export", "-o", tmp_path / "out/a.tar", "nosuch", ok=False).err
    assert "No such image: nosuch" in cas("unpack", "nosuch", tmp_path / "out/r", ok=False).err
    assert list((tmp_path / "out").iterdir()) == []


def test_export_where_it_cannot_write(cas: Cas, loaded: None, tmp_path: Path) -> None:
    assert "is a directory" in cas("export", "-o", tmp_path, "root/fs:1", ok=False).err
    assert "does not exist" in cas("export", "-o", tmp_path / "no/where.tar", "root/fs:1", ok=False).err
    assert "regular file" in cas("export", "-o", "/dev/full", "root/fs:1", ok=False).err
    (tmp_path / "kept.tar").write_bytes(b"former")
    cas("export", "-o", tmp_path / "kept.tar", "nosuch", ok=False)
    assert (tmp_path / "kept.tar").read_bytes() == b"former"


def test_export_into_a_full_device(spawn: Spawn, loaded: None) -> None:
    for argv in (["export", "root/fs:1"], ["cat", "root/fs:1", "/srv/app"]):
        with open("/dev/full", "wb") as full:
            process = spawn(*argv, stdout=full)
            _, err = process.communicate()
        assert process.returncode == 1 and b"no space left" in err and err.count(b"\n") == 1


def test_export_into_a_pipe_that_closes(spawn: Spawn, loaded: None, store_path: Path) -> None:
    process = spawn("export", "root/fs:1")
    assert process.stdout is not None and process.stderr is not None
    assert len(process.stdout.read(100)) == 100
    process.stdout.close()
    err = process.stderr.read()
    process.wait()
    assert process.returncode in (0, 1) and b"Traceback" not in err and err.count(b"\n") <= 1
    assert not list((store_path / "tmp").iterdir())


def test_export_to_a_terminal_is_refused(spawn: Spawn, loaded: None) -> None:
    master, slave = pty.openpty()
    process = spawn("export", "root/fs:1", stdout=slave)
    os.close(slave)
    _, err = process.communicate()
    os.close(master)
    assert process.returncode == 1 and b"cowardly refusing" in err and err.count(b"\n") == 1


def test_a_killed_export_leaves_no_file(spawn: Spawn, cas: Cas, rows: Rows, tmp_path: Path) -> None:
    """Only its hidden temporary one; and the store is as before."""
    big = sample.image("big", ["big:1"], [sample.files({"noise": sample.noise("big", 120_000_000)})])
    (tmp_path / "big.tar").write_bytes(sample.docker_archive(big))
    cas("load", "-i", tmp_path / "big.tar")
    before = rows()
    (tmp_path / "out").mkdir()
    process = spawn("export", "-o", tmp_path / "out" / "a.tar", "big:1")
    while process.poll() is None and not any(one.stat().st_size for one in (tmp_path / "out").iterdir()):
        time.sleep(0.005)
    assert process.poll() is None, "it was over before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert [one.name for one in (tmp_path / "out").iterdir() if not one.name.startswith(".")] == []
    assert rows() == before
    cas("export", "-o", tmp_path / "out" / "a.tar", "big:1")
    cas("gc", "--grace", "0s")


def test_unpack_into_a_folder_that_is_not_empty(cas: Cas, loaded: None, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "own").write_text("mine")
    assert f"{tmp_path}/r" in (said := cas("unpack", "root/fs:1", tmp_path / "r", ok=False).err) and "not empty" in said
    assert [one.name for one in (tmp_path / "r").iterdir()] == ["own"]
    assert "File exists" in cas("unpack", "root/fs:1", tmp_path / "r" / "own", ok=False).err
    assert (tmp_path / "r" / "own").read_text() == "mine"


def test_unpack_on_a_disk_that_is_full(loaded: None, store_path: Path, tmp_path: Path) -> None:
    need_root("a small file system")
    casstore = f"{sys.executable} -m casstore --store {store_path}"
    script = (
        f"mkdir {tmp_path}/m && mount -t tmpfs -o size=64k none {tmp_path}/m || exit 77; "
        f"{casstore} unpack root/fs:1 {tmp_path}/m/r; code=$?; "
        f"{casstore} export -o {tmp_path}/m/out.tar root/fs:1; ls -A {tmp_path}/m >&2; "
        "exit $code"
    )
    done = subprocess.run([need("unshare"), "-m", "sh", "-c", script], capture_output=True, text=True)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no file system can be mounted here")
    first, second, *left = done.stderr.splitlines()
    assert done.returncode == 1 and first.endswith("no space left") and second.endswith("no space left"), done.stderr
    assert left == ["r"]


def test_a_damaged_layer_is_not_given_away(cas: Cas, loaded: None, store_path: Path, tmp_path: Path) -> None:
    """A frame that has rotted: nothing of it comes out, and no file appears."""
    for pack in sorted(store_path.rglob("*"), key=lambda one: one.stat().st_size)[-1:]:
        data = bytearray(pack.read_bytes())
        data[len(data) // 3] ^= 0x55
        pack.chmod(0o600)
        pack.write_bytes(data)
    (tmp_path / "out").mkdir()
    cas("export", "-o", tmp_path / "out/a.tar", "root/fs:1", ok=False)
    assert list((tmp_path / "out").iterdir()) == []
    cas("unpack", "root/fs:1", tmp_path / "r", ok=False)


def test_a_store_that_is_read_only(loaded: None, cas: Cas, store_path: Path, tmp_path: Path) -> None:
    need_root("a read-only mount")
    expected = cas("export", "root/fs:1").raw
    command = f"{sys.executable} -m casstore --store {store_path}"
    script = (
        f"mount --bind {store_path} {store_path} && mount -o remount,ro,bind {store_path} || exit 77; set -e; "
        f"{command} export root/fs:1 > {tmp_path}/out.tar; {command} ls -R root/fs:1; "
        f"{command} cat root/fs:1 /srv/app > {tmp_path}/app; {command} diff root/fs:1 root/fs:1; "
        f"{command} unpack root/fs:1 {tmp_path}/r"
    )
    done = subprocess.run([need("unshare"), "-m", "sh", "-c", script], capture_output=True, text=True)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no file system can be mounted here")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert (tmp_path / "out.tar").read_bytes() == expected
    assert (tmp_path / "app").read_bytes() == (tmp_path / "r/srv/app").read_bytes() == sample.text("app", 50_000)


def test_the_sample_has_what_it_should(tmp_path: Path) -> None:
    """Against being compared with nothing."""
    found = told(LAYERS, applied(*LAYERS))
    kinds = {one[0] for one in found.values()}
    assert kinds == {b"0", b"1", b"2", b"3", b"5", b"6"} and b"d/gone" not in found and b"e/hidden" not in found
    shutil.rmtree(tmp_path)
