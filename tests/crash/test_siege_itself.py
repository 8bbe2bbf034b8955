"""Does the siege see what it is there for? The tracer, the disk that forgets, casstore with its fsyncs taken out."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import disk
import pytest
import tracing
from disk import Disk
from scenarios import named
from sieges import besiege, rehearse
from tracing import Call, Strike

REASON = tracing.unavailable()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)

WRITER = """
import os, sys, threading
def save(name, sync):
    handle = os.open(name + ".new", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.write(handle, b"x" * 3000)
    os.pwrite(handle, b"y" * 1000, 1000)
    if sync: os.fsync(handle)
    os.close(handle)
    os.rename(name + ".new", name)
    if sync:
        folder = os.open(os.path.dirname(name), os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
for number in range(3):
    thread = threading.Thread(target=save, args=(f"{sys.argv[1]}/file-{number}", sys.argv[2] == "sync"))
    thread.start(); thread.join()
print("done")
"""


def write(folder: Path, how: str, strike: tuple[int, Strike] | None = None, record: bool = False) -> tracing.Run:
    def decide(call: Call) -> Strike | None:
        return strike[1] if strike is not None and call.number == strike[0] else None

    argv = [sys.executable, "-c", WRITER, str(folder), how]
    return tracing.run(argv, roots=[folder], decide=decide, record=record)


def test_calls_of_all_threads_are_numbered_in_one_row(tmp_path: Path) -> None:
    ran = write(tmp_path, "sync", record=True)
    assert (ran.code, ran.out, ran.err) == (0, b"done\n", b"")
    kinds = ["create", "write", "write", "sync", "rename", "sync"]
    assert [call.kind for call in ran.calls] == 3 * kinds
    assert [call.number for call in ran.calls] == list(range(1, 19))
    assert all(call.done for call in ran.calls)
    assert (ran.calls[2].data, ran.calls[2].offset) == (b"y" * 1000, 1000)
    assert ran.calls[4].path == str(tmp_path / "file-0.new")
    assert ran.calls[4].other == str(tmp_path / "file-0")


def test_a_kill_comes_instead_of_the_call(tmp_path: Path) -> None:
    ran = write(tmp_path, "sync", (11, Strike("kill")))  # the second thread's rename
    assert ran.code is None
    assert {path.name for path in tmp_path.iterdir()} == {"file-0", "file-1.new"}


def test_a_torn_write_is_half_done(tmp_path: Path) -> None:
    ran = write(tmp_path, "sync", (2, Strike("torn")))
    assert ran.code is None
    assert (tmp_path / "file-0.new").stat().st_size == 1500


def test_a_failure_is_returned_and_nothing_is_done(tmp_path: Path) -> None:
    ran = write(tmp_path, "sync", (5, Strike("fail", errno.ENOSPC)))
    assert b"No space left" in ran.err
    assert {path.name for path in tmp_path.iterdir()} == {"file-0.new", "file-1", "file-2"}


def test_a_command_that_hangs_is_ended(tmp_path: Path) -> None:
    ran = tracing.run([sys.executable, "-c", "import time; time.sleep(60)"], roots=[tmp_path], timeout=0.5)
    assert ran.timed_out
    assert ran.code is None


@pytest.mark.parametrize("how", ["sync", "no"])
def test_what_was_not_synced_is_lost(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "old").write_bytes(b"old")
    known = Disk(folder, folder)
    for call in write(folder, how, record=True).calls:
        known.apply(call)
    whole = b"x" * 1000 + b"y" * 1000 + b"x" * 1000
    everything = {"old": b"old"} | {f"file-{n}": whole for n in range(3)}
    least = known.left("none")
    assert least == (everything if how == "sync" else {"old": b"old"})
    assert known.left("all") == everything
    if how == "no":
        assert known.left("names") == {"old": b"old"} | {f"file-{n}": b"" for n in range(3)}
        mixtures = {disk.digest(known.left("some", seed)) for seed in range(20)}
        assert len(mixtures) > 10
    disk.write(least, tmp_path / "copy")
    assert {path.name for path in (tmp_path / "copy").iterdir()} == set(least)


# -- casstore, spoilt

SPOILT = {
    "folders are not synced": "import casstore.store.objects as o; o.sync_folder = lambda path: None",
    "objects are not synced": "import os; real = os.fsync; os.fsync = lambda h: None if '/tmp/' in"
    " os.readlink(f'/proc/self/fd/{h}') else real(h)",
    "commits are not synced": "import casstore.store.catalog as c; real = c.Catalog.write; c.Catalog.write = lambda"
    " self, name='', *, durable=True, **more: real(self, name, durable=False, **more)",
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_spoilt_ritual_is_found_out(scratch: Path, what: str) -> None:
    code = f"{SPOILT[what]}\nimport sys\nfrom casstore.cli import main\nsys.exit(main())"
    rehearsal = rehearse(named("load later"), scratch, (sys.executable, "-c", code))
    for point in rehearsal.points("power"):
        if point.how == "none" and (problem := besiege(rehearsal, point, scratch / "point").problem):
            print(point.call, point.name, point.what, problem)
            return
    raise AssertionError(f"{what}, and the siege held")
