"""The command line over a real store: what a user types, from the first load to the last gc."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from recorder import Result

from casstore.cli.run import run

Run = Callable[..., Result]


def tar_of(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(content), 1_700_000_000
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def docker_archive(target: Path, name: str, layer: bytes) -> str:
    """One image as docker saved it before 25; returns its ID."""
    diffid = hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "2023-03-01T10:00:00Z",
            "config": {"Labels": {"kind": "test"}},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diffid}"]},
            "history": [{"created_by": "test"}],
        }
    ).encode()
    identity = hashlib.sha256(config).hexdigest()
    manifest = [{"Config": f"{identity}.json", "RepoTags": [name], "Layers": ["l/layer.tar"]}]
    files = {
        "l/layer.tar": layer,
        f"{identity}.json": config,
        "manifest.json": json.dumps(manifest).encode(),
    }
    target.write_bytes(tar_of(files))
    return f"sha256:{identity}"


@pytest.fixture
def run_in(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("CASSTORE_STORE", str(tmp_path / "store"))
    monkeypatch.setattr("casstore.cli.run._catch_signals", lambda: None)

    def call(*argv: str, code: int = 0) -> Result:
        got = run(argv)
        out, err = capfd.readouterr()
        assert got == code, (argv, out, err)
        assert "Traceback" not in err
        assert err.count("\n") <= 1
        return Result(got, out, err)

    return call


@pytest.fixture
def layer() -> bytes:
    return tar_of({f"f{i}": bytes([i % 251]) * (i * 37) for i in range(200)} | {"big": os.urandom(300_000)})


def test_the_life_of_an_image(run_in: Run, tmp_path: Path, layer: bytes) -> None:
    archive, saved = tmp_path / "in.tar", tmp_path / "out.tar"
    identity = docker_archive(archive, "team/tool:1", layer)

    assert run_in("load", "-i", str(archive)).out == "Loaded image: team/tool:1\n"
    assert run_in("load", "-i", str(archive)).out == "Loaded image: team/tool:1\n"
    row = json.loads(run_in("images", "--format", "json", "--no-trunc").out)
    assert (row["Repository"], row["Tag"], row["ID"]) == ("team/tool", "1", identity)
    assert row["CreatedAt"].startswith("2023-03-01")

    run_in("tag", "team/tool:1", "other:2")
    assert run_in("images", "-q").out.split() == [identity[7:19]] * 2
    assert run_in("images", "--format", "{{.Repository}}:{{.Tag}}", "other").out == "other:2\n"

    run_in("save", "-o", str(saved), "team/tool:1")
    first = saved.read_bytes()
    run_in("save", "-o", str(saved), "team/tool:1")
    assert saved.read_bytes() == first
    with tarfile.open(saved) as reread:
        listed = reread.extractfile("manifest.json")
        assert listed is not None
        (entry,) = json.load(listed)
        content = reread.extractfile(entry["Layers"][0])
        assert content is not None
        assert content.read() == layer
    run_in("save", "--format", "legacy", "-o", str(saved), "team/tool:1")
    with tarfile.open(saved) as reread:
        assert "repositories" in reread.getnames()
    assert "3 blobs verified" in run_in("verify", "team/tool:1").out

    totals = json.loads(run_in("df", "--format", "json").out)
    assert {"images", "blobs", "blob_bytes", "chunks", "chunk_bytes", "stored_bytes"} <= totals.keys()
    assert totals["blobs"] == 3
    per_image = json.loads(run_in("df", "-v", "--format", "json").out)["per_image"]
    assert {each["reference"] for each in per_image} <= {"team/tool:1", "other:2"}
    assert per_image[0]["reference"] in run_in("df", "-v").out

    assert run_in("rmi", "other:2").out == "Untagged: other:2\n"
    gone = run_in("rmi", "team/tool:1").out.splitlines()
    assert gone[:2] == ["Untagged: team/tool:1", f"Deleted: {identity}"]
    assert run_in("images", "-q").out == ""

    plan = [json.loads(each) for each in run_in("gc", "--dry-run", "--grace", "0", "--format", "json").out.splitlines()]
    assert {"delete"} == {each["Action"] for each in plan if each["Kind"] == "blob"}
    assert json.loads(run_in("df", "--format", "json").out)["blobs"] == 3
    did = json.loads(run_in("gc", "--grace", "0", "--format", "json").out)
    assert did["blobs_deleted"] == 3
    assert json.loads(run_in("df", "--format", "json").out)["blobs"] == 0
    assert run_in("check", "--read-data").out == "No problems found\n"
    assert run_in("check", "--format", "json").out == ""


def test_blobs(run_in: Run, tmp_path: Path) -> None:
    source, content = tmp_path / "blob", os.urandom(100_000)
    source.write_bytes(content)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert run_in("blob", "put", str(source)).out == f"{digest}\n"
    for span, wanted in (("0-9", content[:10]), ("99990-", content[-10:]), ("-7", content[-7:])):
        done = subprocess.run(
            [sys.executable, "-m", "casstore", "blob", "cat", digest, "--range", span],
            capture_output=True,
            timeout=60,
        )
        assert (done.stdout, done.stderr) == (wanted, b"")
    row = json.loads(run_in("blob", "ls", "--format", "json").out)
    assert (row["Digest"], row["Size"]) == (digest, len(content))
    assert json.loads(run_in("blob", "inspect", digest).out)[0]["Size"] == len(content)
    assert "not found" in run_in("blob", "cat", "sha256:" + "0" * 64, code=1).err.lower().replace(
        "no such", "not found"
    )
    run_in("blob", "rm", digest)
    run_in("gc", "--grace", "0")
    assert run_in("blob", "ls", "--format", "{{.Digest}}").out == ""


def test_a_pipe_in_and_a_pipe_out(run_in: Run, tmp_path: Path, layer: bytes) -> None:
    archive = tmp_path / "in.tar"
    docker_archive(archive, "piped:1", layer)
    command = [sys.executable, "-m", "casstore"]
    with subprocess.Popen(["cat", str(archive)], stdout=subprocess.PIPE) as source:
        done = subprocess.run([*command, "load"], stdin=source.stdout, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Loaded image: piped:1\n", "")
    with subprocess.Popen([*command, "save", "piped:1"], stdout=subprocess.PIPE) as saving:
        again = subprocess.run(
            [*command, "--store", str(tmp_path / "second"), "load"],
            stdin=saving.stdout,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert (again.returncode, again.stdout) == (0, "Loaded image: piped:1\n")
    with subprocess.Popen([*command, "save", "piped:1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as cut:
        assert cut.stdout is not None
        assert cut.stderr is not None
        cut.stdout.read(100)
        cut.stdout.close()
        assert cut.stderr.read().count(b"\n") <= 1
        assert cut.wait(60) == 1


def test_import(run_in: Run, tmp_path: Path, layer: bytes) -> None:
    source = tmp_path / "root.tar"
    source.write_bytes(layer)
    identity = run_in("import", str(source), "root:1", "-m", "a root").out.strip()
    assert identity.startswith("sha256:")
    assert run_in("images", "-q", "--no-trunc").out.strip() == identity
    assert run_in("blob", "cat", f"sha256:{hashlib.sha256(layer).hexdigest()}", "--range", "0-1").code == 0


@pytest.mark.parametrize(
    ("pack", "states"),
    [
        ((), ("packed", "packed")),
        (("--pack", "now"), ("packed", "packed")),
        (("--pack", "later"), ("loose", "packed")),
        (("--pack", "never"), ("loose", "loose")),
    ],
)
@pytest.mark.parametrize("verb", ["load", "import", "put"])
def test_when_to_pack(
    run_in: Run, tmp_path: Path, layer: bytes, verb: str, pack: tuple[str, ...], states: tuple[str, str]
) -> None:
    """What it is kept as at first, and after gc; its bytes are there either way."""
    source = tmp_path / "layer.tar"
    source.write_bytes(layer)
    docker_archive(tmp_path / "in.tar", "a:1", layer)
    calls = {
        "load": ("load", "-i", str(tmp_path / "in.tar")),
        "import": ("import", str(source), "a:1"),
        "put": ("blob", "put", str(source)),
    }
    run_in(*calls[verb], *pack)
    digest = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    for state in states:
        assert run_in("blob", "inspect", digest, "--format", "{{.State}}").out == f"{state}\n"
        run_in("gc", "--grace", "0")
    assert "No problems found" in run_in("check", "--read-data").out


def test_settings_and_choices(run_in: Run, tmp_path: Path) -> None:
    run_in("config", "set", "pack.budget", "5m")
    assert run_in("config", "get", "pack.budget").out == "5m\n"
    keys = {json.loads(each)["Key"] for each in run_in("config", "ls", "--format", "json").out.splitlines()}
    assert {"pack.after", "pack.budget", "cache.size", "compression", "min-free"} <= keys
    assert run_in("config", "get", "nosuch", code=125).err
    store = str(tmp_path / "blake")
    made = run_in("--store", store, "init", "--chunk-digest", "blake3", "--chunk-size", "64KiB").out
    assert made == f"Initialized empty store in {store}\n"
    assert run_in("--store", store, "init", code=1).err
    assert run_in("--store", store + "2", "init", "--chunk-size", "1000", code=125).err


def test_what_check_finds_as_a_table(run_in: Run, tmp_path: Path, layer: bytes) -> None:
    docker_archive(tmp_path / "a.tar", "a:1", layer)
    run_in("load", "-i", str(tmp_path / "a.tar"))
    (tmp_path / "store/references.json").write_bytes(b"nothing")
    found = run_in("check")
    assert found.code == 0 and found.out.split("\n")[1].split()[:2] == ["warning", "references.json"]
    assert found.out.rstrip().endswith("false")
    assert run_in("check", "--repair").out.rstrip().endswith("true")
    assert run_in("check").out == "No problems found\n"



@pytest.mark.parametrize("name", ["absent", "folder", "empty", "garbage"])
def test_a_bad_archive_is_one_line(run_in: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    (tmp_path / "garbage").write_bytes(os.urandom(5000))
    done = run_in("load", "-i", str(tmp_path / name), code=1)
    assert done.out == ""
    assert done.err.startswith("Error: ")
    assert name in done.err


def test_what_is_not_there(run_in: Run) -> None:
    for argv in (["save", "-o", "x.tar", "nosuch"], ["tag", "nosuch", "a"], ["verify", "nosuch"], ["rmi", "nosuch"]):
        assert "No such image: nosuch" in run_in(*argv, code=1).err
    assert not Path("x.tar").exists()
    assert run_in("rmi", "-f", "nosuch").err == "Error: No such image: nosuch\n"


def test_not_a_store(run_in: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert run_in("--store", str(tmp_path / "file"), "images", code=1).err.startswith("Error: ")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "store.json").write_text("{}")
    assert run_in("--store", str(tmp_path / "other"), "images", code=1).err.startswith("Error: ")


def test_listing_a_store_starts_without_the_heavy(run_in: Run, tmp_path: Path, layer: bytes) -> None:
    docker_archive(tmp_path / "in.tar", "a:1", layer)
    run_in("load", "-i", str(tmp_path / "in.tar"))
    code = """
import sys
from casstore.cli.run import run
run(sys.argv[1:])
print(*sorted({"rich", "rich_click", "numpy", "asyncio", "tarfile", "casstore.flow"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code, "images", "-q"], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[1:] == [""], done
    assert done.stderr == ""


def test_version(run_in: Run) -> None:
    row = json.loads(run_in("version", "--format", "json").out)
    assert row["Kernels"].keys() == {"cut", "deflate", "hashing", "spans", "table", "tarscan"}
    assert "GNU gzip" in row["Encoders"]
    assert run_in("--version").out == f"casstore {row['Version']}\n"
