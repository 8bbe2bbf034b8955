"""A tree in a folder: what is kept, what is told without root, and that nothing outside is ever touched, whoever works
in that folder meanwhile."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from layered import applied, joined
from running import Cas
from sample import docker_archive, image
from tarmaker import END, file, header, octal, pax

from casstore.errors import CasstoreError, Conflict, OutOfSpace
from casstore.rootfs import folder
from casstore.rootfs.folder import Bytes, Unpacked

ROOT = os.geteuid() == 0
NOBODY = 65534


def written(top: Path, *layers: bytes, on_bytes: Callable[[int], None] = lambda number: None) -> Unpacked:
    """The merged layers in a folder; `on_bytes` is called before each file's bytes are given."""
    tree = applied(*layers)

    def pieces() -> Iterator[memoryview]:
        for number, part in enumerate(folder.wanted(tree.root)):
            on_bytes(number)
            yield memoryview(joined(layers, [part]))

    return folder.write(tree.root, top, Bytes(pieces()))


def directory(name: bytes, mode: int = 0o755) -> bytes:
    return header(name, 0, b"5", mode=mode)


def link(name: bytes, to: bytes) -> bytes:
    return header(name, 0, b"1", link=to)


def symlink(name: bytes, to: bytes) -> bytes:
    return header(name, 0, b"2", link=to)


def device(name: bytes) -> bytes:
    return header(name, 0, b"3", patches={329: octal(1, 8), 337: octal(3, 8)})


# -- the folder itself


def test_the_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    told = written(tmp_path / "a" / "b", file(b"f", b"123") + symlink(b"s", b"f"))
    assert (tmp_path / "a" / "b" / "f").read_bytes() == b"123"
    assert (told.files, told.size) == (2, 3)


def test_an_empty_folder_is_taken_and_gets_the_roots_attributes(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir(mode=0o700)
    written(tmp_path / "r", header(b".", 0, b"5", mode=0o751, mtime=77) + file(b"f", b""))
    found = (tmp_path / "r").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (0o751, 77 * 10**9)


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("mine")
    before = tmp_path.stat()
    with pytest.raises(Conflict, match="not empty"):
        written(tmp_path, header(b".", 0, b"5", mode=0o700) + file(b"f", b"1"))
    assert [*tmp_path.iterdir()] == [tmp_path / "own"] and tmp_path.stat() == before


def test_a_target_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for target in (tmp_path / "file", tmp_path / "file" / "below", Path("/dev/null")):
        with pytest.raises(CasstoreError) as caught:
            written(target, file(b"f", b"1"))
        assert str(target) in str(caught.value)
    assert (tmp_path / "file").read_text() == ""


def test_a_symlink_as_the_target_is_the_users_choice(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "s").symlink_to("real")
    written(tmp_path / "s", file(b"f", b"1"))
    assert (tmp_path / "real" / "f").read_bytes() == b"1"


def test_folders_are_finished_after_what_is_in_them(tmp_path: Path) -> None:
    made = (
        header(b"d", 0, b"5", mode=0o555, mtime=5) + header(b"d/e", 0, b"5", mode=0o500, mtime=6) + file(b"d/e/f", b"1")
    )
    written(tmp_path / "r", made)
    found = [(tmp_path / "r" / name).stat() for name in ("d", "d/e")]
    assert [(stat.S_IMODE(one.st_mode), one.st_mtime) for one in found] == [(0o555, 5), (0o500, 6)]


def test_holes_stay_holes(tmp_path: Path) -> None:
    flat = b"8388608,4096"
    named = [(b"GNU.sparse.size", b"%d" % (64 << 20)), (b"GNU.sparse.map", flat)]
    told = written(tmp_path / "r", pax(*named) + file(b"f", b"x" * 4096))
    found = (tmp_path / "r" / "f").stat()
    assert found.st_size == 64 << 20 and told.size == 4096
    if found.st_blocks * 512 >= 64 << 20:
        pytest.skip("this file system keeps no holes")
    assert found.st_blocks * 512 < 1 << 20
    with open(tmp_path / "r" / "f", "rb") as held:
        held.seek((8 << 20) - 1)
        assert held.read(4098) == b"\0" + b"x" * 4096 + b"\0"


def test_names_of_any_bytes(tmp_path: Path) -> None:
    names = [b"a\nb", b"\xff\xfe", b"\x1b[31m", b"n" * 255]
    written(tmp_path / "r", b"".join(pax((b"path", name)) + file(b"x", name[:3]) for name in names))
    assert sorted(os.fsencode(one.name) for one in (tmp_path / "r").iterdir()) == sorted(names)


def test_as_deep_as_a_tree_may_be(tmp_path: Path) -> None:
    path = b"/".join([b"n"] * 500)
    assert written(tmp_path / "r", pax((b"path", path)) + file(b"x", b"1")).files == 500


def test_content_that_ends_early_leaves_no_descriptor_open(tmp_path: Path) -> None:
    tree = applied(directory(b"d") + file(b"d/f", b"12345"))
    before = len([*Path("/proc/self/fd").iterdir()])
    with pytest.raises(CasstoreError, match="unexpected EOF"):
        folder.write(tree.root, tmp_path / "r", Bytes(iter([memoryview(b"12")])))
    assert len([*Path("/proc/self/fd").iterdir()]) == before


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(folder.os, "write", full)
        with pytest.raises(OutOfSpace, match="no space left") as caught:
            written(tmp_path / "r", file(b"d/f", b"1"))
    assert "d/f" in str(caught.value)


def test_an_attribute_too_large_for_the_file_system_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folder.os, "setxattr", full)
    attributes = pax((b"SCHILY.xattr.user.a", b"1"), (b"SCHILY.xattr.user.b", b"1"))
    assert written(tmp_path / "r", attributes + file(b"f", b"1")).xattrs == ["f"]


@pytest.mark.skipif(not ROOT, reason="needs root")
def test_setuid_and_capabilities_outlive_the_change_of_owner(tmp_path: Path) -> None:
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    attributes = pax((b"SCHILY.xattr.security.capability", capability))
    told = written(tmp_path / "r", attributes + file(b"f", b"1", mode=0o6755, uid=12, gid=34))
    found = (tmp_path / "r" / "f").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (12, 34, 0o6755)
    if not told.xattrs:
        assert os.getxattr(tmp_path / "r" / "f", "security.capability") == capability


# -- without root


def unprivileged(action: Callable[[], Any]) -> Any:
    """What an action returns that a user without rights does, in a folder of its own, where it stands; or what it
    raises."""
    with tempfile.TemporaryDirectory() as base:
        Path(base).chmod(0o777)
        top = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
        come, go = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.fchdir(top)
                if ROOT:
                    os.setgroups([])
                    os.setresgid(NOBODY, NOBODY, NOBODY)
                    os.setresuid(NOBODY, NOBODY, NOBODY)
                os.umask(0o022)
                try:
                    result = action()
                except Exception as error:
                    result = error
                os.write(go, pickle.dumps(result))
            finally:
                os._exit(0)
        os.close(go)
        os.close(top)
        with open(come, "rb") as answer:
            data = answer.read()
        os.waitpid(child, 0)
        return pickle.loads(data)


def test_without_root() -> None:
    layer = (
        header(b"d", 0, b"5", mode=0o700, uid=5, gid=6)
        + file(b"d/f", b"123", uid=5, mode=0o4755, mtime=9)
        + pax((b"SCHILY.xattr.trusted.t", b"1"), (b"SCHILY.xattr.user.u", b"2"))
        + file(b"g", b"45", uid=NOBODY, gid=NOBODY)
        + device(b"null")
        + header(b"pipe", 0, b"6", mode=0o600, uid=NOBODY, gid=NOBODY)
        + header(b"s", 0, b"2", link=b"d", uid=7)
        + link(b"l", b"d/f")
    )

    def action() -> tuple[Unpacked, list[tuple[str, int, int]], bytes]:
        told = written(Path("r"), layer)
        found = [(name, os.lstat(f"r/{name}")) for name in sorted([*(one.name for one in Path("r").iterdir()), "d/f"])]
        return told, [(name, one.st_mode, one.st_nlink) for name, one in found], Path("r/l").read_bytes()

    told, there, linked = unprivileged(action)
    own = os.geteuid() if not ROOT else NOBODY
    owners = ["d", "d/f", "s"] + ([] if own == NOBODY else ["g", "pipe"])
    assert sorted(set(told.owners) - {"/"}) == sorted(owners)
    assert told.devices == ["null"] and told.xattrs == ["g"] and linked == b"123"
    assert [name for name, _, _ in there] == ["d", "d/f", "g", "l", "pipe", "s"]
    modes = {name: (stat.S_IMODE(mode), links) for name, mode, links in there if not stat.S_ISLNK(mode)}
    assert modes["d/f"] == modes["l"] == (0o4755, 2) and modes["d"][0] == 0o700 and modes["pipe"][0] == 0o600


def test_folders_that_shut_their_owner_out() -> None:
    """Files in them get further names, though only root could look them up after the folder is finished."""
    layer = (
        directory(b"a", 0)
        + directory(b"a/b", 0o100)
        + file(b"a/b/f", b"1", mode=0)
        + link(b"z", b"a/b/f")
        + header(b".", 0, b"5", mode=0o555)
    )

    def action() -> list[int]:
        written(Path("r"), layer)
        modes = []
        for name in ("r", "r/a", "r/a/b", "r/z"):
            modes.append(stat.S_IMODE(os.lstat(name).st_mode))
            Path(name).chmod(0o700)
        return [*modes, Path("r/a/b/f").stat().st_nlink]

    assert unprivileged(action) == [0o555, 0, 0o100, 0, 2]


def test_a_folder_that_may_not_be_written_to() -> None:
    def action() -> None:
        Path("r").mkdir(0o500)
        written(Path("r"), file(b"f", b"1"))

    error = unprivileged(action)
    assert isinstance(error, CasstoreError) and str(error) == "f: Permission denied"


# -- escapes


def state(top: Path) -> str:
    """A digest of everything in a folder, contents and attributes."""
    seen = hashlib.sha256()
    for at, folders, files in sorted(os.walk(top)):
        for name in sorted(["", *folders, *files]):
            path = Path(at, name)
            one = path.lstat()
            data = path.read_bytes() if stat.S_ISREG(one.st_mode) else b""
            told = (str(path), one.st_mode, one.st_uid, one.st_gid, one.st_mtime_ns, one.st_ctime_ns, one.st_nlink)
            seen.update(repr((told, data)).encode())
    return seen.hexdigest()


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A folder beside the target that nothing may touch."""
    made = tmp_path / "canary"
    (made / "sub").mkdir(parents=True)
    (made / "file").write_bytes(b"untouched")
    (made / "sub" / "x").write_bytes(b"untouched too")
    before = state(made)
    yield made
    assert state(made) == before


#: Layers by which files outside would be reached; {} is where the canary lies. True: they can be unpacked, inside.
ESCAPES: dict[str, tuple[Callable[[bytes], list[bytes]], bool]] = {
    "..": (lambda c: [file(b"../canary/file", b"owned") + file(b"a/../../../canary/sub/x", b"owned")], True),
    "absolute": (lambda c: [pax((b"path", c + b"/file")) + file(b"", b"owned")], True),
    "symlink, then a file": (lambda c: [pax((b"linkpath", c)) + symlink(b"s", b"") + file(b"s/file", b"owned")], False),
    "symlink with .., then a file": (lambda c: [symlink(b"s", b"../canary") + file(b"s/file", b"owned")], False),
    "symlink, then a folder": (lambda c: [symlink(b"s", b"../canary") + directory(b"s/", 0o777)], False),
    "symlink in a lower layer": (lambda c: [symlink(b"s", b"../canary"), file(b"s/file", b"owned")], True),
    "symlink over symlink": (
        lambda c: [symlink(b"a", b".") + symlink(b"b", b"a/../..") + file(b"b/canary/file", b"owned")],
        True,
    ),
    "symlink in place of the file": (lambda c: [symlink(b"f", b"../canary/file"), file(b"f", b"owned")], True),
    "hard link outside": (lambda c: [link(b"h", b"../canary/file")], False),
    "hard link outside, absolute": (lambda c: [pax((b"linkpath", c + b"/file")) + link(b"h", b"")], False),
    "hard link over a symlink": (lambda c: [symlink(b"s", b"../canary") + link(b"h", b"s/file")], False),
    "hard link to a symlink, then a file": (
        lambda c: [symlink(b"s", b"../canary/file") + link(b"h", b"s"), file(b"h", b"owned")],
        True,
    ),
    "hard link to a symlink, written in the same layer": (
        lambda c: [symlink(b"s", b"../canary") + link(b"h", b"s") + file(b"h/file", b"owned")],
        False,
    ),
    "whiteouts outside": (
        lambda c: [file(b"../canary/.wh.file", b"") + file(b"../canary/.wh..wh..opq", b"") + file(b"f", b"1")],
        True,
    ),
    "whiteout over a symlink": (lambda c: [symlink(b"s", b"../canary"), file(b"s/.wh.file", b"")], True),
    "the root as a symlink": (lambda c: [symlink(b".", b"../canary") + file(b"file", b"owned")], False),
    "names of the target": (lambda c: [file(b"rootfs/../../canary/file", b"owned") + symlink(b"rootfs", b"/")], True),
    "attributes over a symlink": (
        lambda c: [
            pax((b"SCHILY.xattr.user.a", b"1")) + header(b"s", 0, b"2", link=b"../canary/file", uid=99, mtime=1)
        ],
        True,
    ),
}


@pytest.mark.parametrize("make, fine", ESCAPES.values(), ids=ESCAPES)
def test_escapes(make: Callable[[bytes], list[bytes]], fine: bool, canary: Path, tmp_path: Path, cas: Cas) -> None:
    layers = [one + END for one in make(os.fsencode(canary))]
    (tmp_path / "image.tar").write_bytes(docker_archive(image(tags=["bad:1"], layers=layers)))
    cas("load", "-i", tmp_path / "image.tar")
    beside = sorted(tmp_path.iterdir())
    ran = cas("unpack", "bad:1", tmp_path / "rootfs", ok=None)
    assert (ran.code == 0) == fine, ran.err
    assert ran.err.count("\n") <= 3
    assert sorted({*tmp_path.iterdir()} - {tmp_path / "rootfs"}) == beside
    assert cas("export", "bad:1", ok=fine or False).raw == b"" or fine


def swapped(what: Path, to: Path) -> None:
    """A symlink in the place of a file or folder, which goes aside."""
    what.rename(what.with_name(what.name + ".aside"))
    what.symlink_to(to)


def test_a_folder_swapped_while_its_files_are_written(tmp_path: Path, canary: Path) -> None:
    top = tmp_path / "r"
    layer = (
        directory(b"d") + file(b"d/a", b"1") + file(b"d/file", b"owned") + directory(b"d/sub") + file(b"d/sub/x", b"2")
    )
    written(top, layer, on_bytes=lambda number: swapped(top / "d", canary) if number == 0 else None)
    assert (top / "d.aside" / "sub" / "x").read_bytes() == b"2"


def test_a_folder_swapped_before_a_file_in_it_gets_another_name(tmp_path: Path, canary: Path) -> None:
    top = tmp_path / "r"
    layer = directory(b"d") + file(b"d/file", b"1") + file(b"m", b"2") + link(b"z", b"d/file")
    with pytest.raises(CasstoreError, match=r"z: (Not a directory|Too many levels)"):
        written(top, layer, on_bytes=lambda number: swapped(top / "d", canary) if number == 1 else None)
    assert not (top / "z").exists()


@pytest.mark.parametrize("call", ["mkdir", "symlink", "mknod", "open"])
def test_what_was_just_made_swapped_for_a_symlink(
    call: str, tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = tmp_path / "r"
    made = {
        "mkdir": directory(b"new", 0o777) + file(b"new/file", b"owned"),
        "symlink": header(b"new", 0, b"2", link=b"x", uid=99, mtime=1),
        "mknod": header(b"new", 0, b"6", mode=0o777, uid=99, mtime=1),
        "open": file(b"new", b"owned", mode=0o777, uid=99),
    }[call]
    real = getattr(os, call)
    done: list[bytes] = []

    def swap(*arguments: Any, **more: Any) -> Any:
        result = real(*arguments, **more)
        if b"new" in arguments and not done:
            done.append(b"new")
            monkeypatch.undo()
            swapped(top / "new", canary if call == "mkdir" else canary / "file")
        return result

    top.mkdir()
    monkeypatch.setattr(folder.os, call, swap)
    try:
        written(top, made)
    except CasstoreError as error:
        assert str(error).startswith("new: ") and "\n" not in str(error)
    assert done and (top / "new").is_symlink()


def test_nothing_found_inside_is_ever_run(tmp_path: Path, cas: Cas, monkeypatch: pytest.MonkeyPatch) -> None:
    script = b"#!/bin/sh\ntouch /tmp/run\n"
    names = [b"bin/sh", b"usr/bin/tar", b"bin/unpigz", b"sbin/ldconfig", b"etc/ld.so.preload", b"lib/libnss_files.so.2"]
    layer = b"".join(file(name, script, mode=0o755) for name in names)
    (tmp_path / "image.tar").write_bytes(docker_archive(image(tags=["run:1"], layers=[layer])))
    cas("load", "-i", tmp_path / "image.tar")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    for name in ("fork", "forkpty", "posix_spawn", "posix_spawnp", "execv", "execve", "system", "chroot"):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr("_posixsubprocess.fork_exec", refuse)
    monkeypatch.setattr("subprocess._fork_exec", refuse, raising=False)
    cas("unpack", "run:1", tmp_path / "rootfs")
    cas("export", "-o", tmp_path / "out.tar", "run:1")
    assert cas("cat", "run:1", "/bin/sh").raw == script
    cas("ls", "-R", "run:1")
    cas("diff", "run:1", "run:1")
