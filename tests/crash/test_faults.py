"""Disks that are really full or read-only, permissions that are gone, limits, pipes that close: one clear line, the
right exit code, nothing changed."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import resource
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import seen
import sieges
import tracing
from scenarios import CASSTORE, ENVIRONMENT, Place, named
from seen import Seen
from tracing import Strike


def mounted(folder: Path, *options: str) -> str:
    """Mount a tmpfs; why not, "" where it worked."""
    if os.geteuid() != 0:
        return "only root mounts"
    command = ["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr.strip() or ("" if done.returncode == 0 else "mount failed")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    reason = mounted(folder, "-o", "size=4m")
    if reason:
        pytest.skip(f"no file system for the test: {reason}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A store with an image and a blob."""
    top = tmp_path_factory.mktemp("faults")
    made = Place(top / "in", top / "here")
    for folder in (made.inputs, made.store, made.out):
        folder.mkdir(parents=True)
    named("blob rm").prepare(made)
    return made


@pytest.fixture
def place(template: Place, tmp_path: Path) -> Place:
    """The store on an ordinary disk."""
    return template.copy(tmp_path / "here")


def run(place: Place, *argv: str, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [*CASSTORE, "--store", str(place.store), *place.filled(argv)]
    given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
    return subprocess.run(command, env=ENVIRONMENT, text=True, errors="replace", check=False, timeout=120, **given)


def refused(done: subprocess.CompletedProcess[str], message: str) -> None:
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1, done.stderr
    assert message in done.stderr, done.stderr


def sound(place: Place) -> None:
    """Nothing is wrong, and once the leases have run out nothing is left over."""
    assert seen.problems(place.store) == []
    seen.age(place.store)
    seen.collect(place.store)
    assert seen.leaks(place.store) == []
    assert seen.problems(place.store) == []


WRITES = [
    ("load", "-i", "{inputs}/next.tar"),
    ("load", "--pack", "later", "-i", "{inputs}/oci.tar"),
    ("import", "{inputs}/root.tar", "made:1"),
    ("blob", "put", "{inputs}/blob"),
    ("tag", "app:1", "more:1"),
    ("rmi", "app:1"),
    ("image", "prune", "-a", "-f"),
    ("config", "set", "pack.after", "2h"),
    ("gc", "--grace", "0"),
    ("check", "--repair"),
    named("blob rm").argv,
]
READS = [
    ("images",),
    ("df",),
    ("bundle", "have"),
    ("blob", "ls"),
    ("config", "ls"),
    ("gc", "--dry-run"),
    ("verify", "app:1"),
    ("check",),
    ("check", "--read-data"),
    ("save", "app:1"),
    ("save", "--format", "oci-archive", "base:1"),
    ("history", "app:1"),
    ("inspect", "app:1"),
    ("image", "prune", "-a", "--dry-run"),
]


def names(argv: Sequence[str]) -> str:
    return "-".join(one for one in argv if one[0] not in "-{/" and len(one) < 20)


# -- a file system that is full


@pytest.mark.parametrize("free", [0, 4, 12, 40, 80, 120, 160, 240, 320])
def test_a_full_disk(disk: Path, template: Place, free: int) -> None:
    """`free` KiB are left."""
    place = template.copy(disk / "here")
    before = seen.look(place.store)
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        state = os.statvfs(disk)
        file.write(bytes(max(0, state.f_bavail * state.f_frsize - free * 1024)))
    done = run(place, "load", "-i", "{inputs}/next.tar")
    if done.returncode == 0:
        assert free > 100
    else:
        refused(done, "no space left")
        listed = run(place, "images")
        if free < 64 and listed.returncode:  # SQLite's shared memory takes 32 KiB, of readers too
            refused(listed, "no space left")
        else:
            assert listed.returncode == 0
    ballast.unlink()
    assert (seen.look(place.store) == before) == (done.returncode != 0)
    sound(place)
    assert run(place, "load", "-i", "{inputs}/next.tar").returncode == 0
    sound(place)


@pytest.mark.parametrize("argv", WRITES, ids=names)
def test_not_one_byte_is_left(disk: Path, template: Place, argv: tuple[str, ...]) -> None:
    place = template.copy(disk / "here")
    before = seen.look(place.store)
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                break
    refused(run(place, *argv), "no space left")
    ballast.unlink()
    assert seen.look(place.store) == before
    sound(place)


def test_a_save_onto_a_full_disk_leaves_the_old_file(disk: Path, place: Place) -> None:
    target = disk / "saved.tar"
    target.write_bytes(b"old")
    with (disk / "ballast").open("wb") as file:
        file.write(bytes((4 << 20) - (128 << 10)))
    refused(run(place, "save", "-o", str(target), "app:1"), "no space left")
    assert target.read_bytes() == b"old"
    assert {path.name for path in disk.iterdir()} == {"saved.tar", "ballast"}


def test_less_than_min_free(place: Place) -> None:
    before = seen.look(place.store)
    run(place, "config", "set", "min-free", "1000T")
    for argv in (("load", "-i", "{inputs}/next.tar"), ("blob", "put", "{inputs}/blob")):
        refused(run(place, *argv), "less than min-free")
    run(place, "config", "set", "min-free", "0")
    assert seen.look(place.store) == before


# -- one that is read-only


@pytest.fixture
def sealed(disk: Path, template: Place) -> Place:
    place = template.copy(disk / "here")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    return place


@pytest.mark.parametrize("argv", WRITES, ids=names)
def test_nothing_is_written_to_a_read_only_disk(sealed: Place, argv: tuple[str, ...]) -> None:
    refused(run(sealed, *argv), "store is read-only")


@pytest.mark.parametrize("argv", READS, ids=names)
def test_a_read_only_disk_is_read(sealed: Place, argv: tuple[str, ...]) -> None:
    done = run(sealed, *argv)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_a_bundle_of_a_read_only_disk(sealed: Place, place: Place, tmp_path: Path) -> None:
    bundle = str(tmp_path / "thin.bundle")
    done = run(sealed, "bundle", "create", bundle, "app:1", "base:1")
    assert (done.returncode, done.stderr) == (0, "")
    refused(run(sealed, "bundle", "load", bundle), "store is read-only")
    done = run(place, "rmi", "app:1", "base:1")
    assert done.returncode == 0
    assert run(place, "gc", "--grace", "0").returncode == 0
    done = run(place, "bundle", "load", "--expect", digest_of(bundle), bundle)
    assert (done.returncode, done.stdout) == (0, "Loaded image: app:1\nLoaded image: base:1\n")
    sound(place)
    assert run(place, "save", "app:1").stdout == run(sealed, "save", "app:1").stdout


def digest_of(path: str) -> str:
    return "sha256:" + hashlib.sha256(Path(path).read_bytes()).hexdigest()


@pytest.mark.skipif(bool(tracing.unavailable()), reason=tracing.unavailable())
def test_a_log_left_behind_is_read_or_told(disk: Path, template: Place) -> None:
    """What a killed command committed is in SQLite's log alone: a catalog that is read without it is a wrong one."""
    place = template.copy(disk / "here")
    sieges.play(named("config set"), place, CASSTORE, (24, Strike("kill"), False))
    assert (place.store / "catalog.sqlite-wal").stat().st_size
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    done = run(place, "config", "get", "pack.after")
    assert (done.returncode, done.stdout) == (0, "2h\n")
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    (place.store / "catalog.sqlite-shm").unlink()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    refused(run(place, "config", "get", "pack.after"), "a command that was killed has left a log")


# -- permissions that are gone


def without_privileges() -> None:
    """Before exec: root is held to permissions like anybody else."""
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)


@pytest.mark.parametrize("argv", [WRITES[0], *WRITES[4:], READS[0], READS[2]], ids=names)
@pytest.mark.parametrize(
    ("where", "mode"),
    [("", 0), ("objects", 0), ("catalog.sqlite", 0), ("tmp", 0), ("", 0o500), ("objects/packs", 0o500), ("tmp", 0o500)],
)
def test_a_lost_permission(place: Place, where: str, mode: int, argv: tuple[str, ...]) -> None:
    """Either the command does not need it, or it says so in one line; nothing is half done."""
    before = seen.look(place.store)
    target = place.store / where
    old = target.stat().st_mode
    target.chmod(mode)
    done = run(place, *argv, preexec_fn=without_privileges)
    target.chmod(old)
    if done.returncode:
        refused(done, "")
        assert seen.look(place.store) == before
    sound(place)


# -- limits, pipes


@pytest.mark.parametrize("size", [0, 4, 48, 100])
@pytest.mark.parametrize("argv", WRITES, ids=names)
def test_a_limit_on_the_size_of_files(place: Place, argv: tuple[str, ...], size: int) -> None:
    before = seen.look(place.store)
    limit = size * 1024
    done = run(place, *argv, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    if done.returncode:
        refused(done, "")
        assert seen.look(place.store) == before
    sound(place)


@pytest.mark.parametrize("taken", [0, 1, 100_000])
@pytest.mark.parametrize("argv", [("save", "app:1"), ("save", "--format", "oci-archive", "app:1")], ids=names)
def test_a_pipe_that_closes(place: Place, argv: tuple[str, ...], taken: int) -> None:
    command = [*CASSTORE, "--store", str(place.store), *argv]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert len(process.stdout.read(taken)) == taken
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 1
    sound(place)


@pytest.mark.parametrize("argv", WRITES, ids=names)
def test_nobody_reads_what_is_said(place: Place, argv: tuple[str, ...]) -> None:
    """The command is done or it is not, and the error tells which."""
    before = seen.look(place.store)
    with open("/dev/full", "wb") as full:
        done = run(place, *argv, stdout=full)
    changed = seen.look(place.store) != before
    if done.returncode:
        assert done.returncode == 1
        assert done.stderr.startswith("Error: output: no space left")
        assert "(what was asked for is done)" in done.stderr or not changed
    else:
        assert done.stderr == ""
    sound(place)
    reader, writer = os.pipe()
    os.close(reader)
    done = run(place, *argv, stdout=writer)
    os.close(writer)
    assert "internal error" not in done.stderr and done.stderr.count("\n") <= 1
    sound(place)


@pytest.mark.parametrize("how", ["full", "read-only", "forbidden"])
@pytest.mark.parametrize("argv", [("init",), ("config", "set", "min-free", "0")], ids=names)
def test_where_no_store_can_be_made(disk: Path, template: Place, how: str, argv: tuple[str, ...]) -> None:
    place = Place(template.inputs, disk / "here")
    place.here.mkdir()
    ballast = disk / "ballast"
    if how == "full":
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    elif how == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    else:
        place.here.chmod(0o500)
    refused(run(place, *argv, preexec_fn=without_privileges), "")
    assert seen.look(place.store) == Seen.nothing()
    if how == "read-only":
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    ballast.unlink(missing_ok=True)
    place.here.chmod(0o700)
    done = run(place, *argv)
    assert (done.returncode, done.stderr) == (0, "")
    sound(place)


def test_an_output_that_is_full(place: Place) -> None:
    with open("/dev/full", "wb") as full:
        done = run(place, "save", "app:1", stdout=full)
    assert done.returncode == 1
    assert done.stderr == "Error: output: no space left\n"
    sound(place)
