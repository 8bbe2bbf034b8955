"""What is odd but no lie is taken, listed and given back; and no argument, however odd, does more than its command."""

from __future__ import annotations

import json
import os
import pty
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import sample
from running import Cas, Rows, Spawn

ESCAPES = "\x1b]0;owned\x07\x1b[2J\r\n\t\u202e\x9b31m"
LAYERS = [sample.files({"a": sample.text("a", 5000)})]


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def with_links(*links: tuple[str, str, bytes]) -> Callable[[sample.Image], bytes]:
    """An archive that holds such links beside the image."""

    def make(one: sample.Image) -> bytes:
        found = [sample.entry(name, kind=kind, linkname=target) for name, target, kind in links]
        return sample.tar([*found, *(sample.entry(n, d) for n, d in sample.docker_members([one]).items())])

    return make


def with_members(*names: str) -> Callable[[sample.Image], bytes]:
    def make(one: sample.Image) -> bytes:
        members = [*((name, b"[]") for name in names), *sample.docker_members([one]).items()]
        return sample.tar(sample.entry(name, data) for name, data in members)

    return make


ARCHIVES: dict[str, Callable[[sample.Image], bytes]] = {
    "symlinks named . and / (CVE-2021-29136)": with_links(
        (".", "/etc", tarfile.SYMTYPE), ("/", "/etc", tarfile.SYMTYPE)
    ),
    "links that nothing needs, in a circle and out": with_links(
        ("a", "b", tarfile.SYMTYPE), ("b", "a", tarfile.SYMTYPE), ("c", "../../etc/passwd", tarfile.LNKTYPE)
    ),
    "members that climb (CVE-2014-9356)": with_members("../manifest.json", "a/../../index.json", "../../oci-layout"),
    "members of odd names": with_members("\x1b[2J", "a\nb", "\udcff", "x" * 4000, " manifest.json", "manifest.json "),
    "members of one name that nothing needs": with_members("twice", "twice"),
    "devices and pipes": with_links(("null", "", tarfile.CHRTYPE), ("p", "", tarfile.FIFOTYPE)),
}
CONFIGS: dict[str, dict[str, object]] = {
    "a user of 2^32 (CVE-2024-40635)": {"config": {"User": "4294967296:4294967296"}},
    "a user below nothing, far too large (CVE-2026-46680)": {"config": {"User": "-1", "WorkingDir": "../../.."}},
    "a path for everything": {"config": {"Volumes": {"/proc": {}, "../..": {}}, "Entrypoint": ["/proc/self/exe"]}},
    "escape sequences": {"author": ESCAPES, "config": {"Labels": {ESCAPES: ESCAPES}}, "created": ESCAPES},
    "created in the year 0": {"created": "0000-00-00T00:00:00Z"},
    "created in the year 99999": {"created": "99999-01-01T00:00:00Z"},
    "created is a word": {"created": "yesterday"},
    "created is absent": {"created": None},
    "labels in great numbers": {"config": {"Labels": {f"l{n}": "v" * 20 for n in range(5000)}}},
    "no labels, no config": {"config": None},
    "history of nothing but empty layers": {"history": [{"empty_layer": True}] * 3000},
    "numbers that no reader keeps": {"x": [1e308, 2**70, -0.0, 0.1 + 0.2]},
    "an architecture of escape sequences": {"architecture": ESCAPES, "variant": "../.."},
}


def check(cas: Cas, tmp_path: Path, one: sample.Image) -> None:
    """It is in every list, given back by every way, and goes."""
    assert cas("images", "-q", "--no-trunc").lines == [one.id]
    for form in ("json", "{{json .}}", "{{.ID}} {{.CreatedSince}} {{.CreatedAt}} {{.Size}}", "table {{.ID}}"):
        cas("images", "--digests", "--format", form)
    for name in ("l1", "x=y", "\x1b"):
        cas("images", "-f", f"label={name}")
    assert cas("blob", "cat", one.id).raw == one.config
    assert json.loads(cas("blob", "inspect", one.id).out)[0]["Size"] == len(one.config)
    cas("verify", "odd:1")
    cas("df", "-v")
    for form in ("docker-archive", "legacy"):
        ((config, (_, layers)),) = sample.saved_images(cas("save", "--format", form, "odd:1").raw).items()
        assert config == one.id and layers == list(one.layers)
    cas("gc", "--grace", "0")
    cas("check", "--read-data")
    cas("tag", "odd:1", "even:1")
    assert cas("rmi", "odd:1", "even:1").lines[2] == f"Deleted: {one.id}"
    cas("gc", "--grace", "0")
    assert cas("blob", "ls", "--format", "{{.Digest}}").lines == []


@pytest.mark.parametrize("case", ARCHIVES)
def test_odd_archives_are_taken(cas: Cas, tmp_path: Path, case: str) -> None:
    one = sample.image("odd", ["odd:1"], LAYERS)
    cas("load", "-i", put(tmp_path / "in.tar", ARCHIVES[case](one)))
    check(cas, tmp_path, one)


@pytest.mark.parametrize("case", CONFIGS)
def test_odd_configs_are_taken(cas: Cas, tmp_path: Path, case: str) -> None:
    one = sample.image("odd", ["odd:1"], LAYERS, **CONFIGS[case])
    cas("load", "-i", put(tmp_path / "in.tar", sample.docker_archive(one)))
    check(cas, tmp_path, one)


def on_terminal(spawn: Spawn, *argv: str) -> bytes:
    """What a terminal gets to see."""
    master, slave = pty.openpty()
    process = spawn(*argv, stdout=slave, stderr=slave)
    os.close(slave)
    seen = b""
    try:
        while more := os.read(master, 1 << 16):
            seen += more
    except OSError:  # how a terminal says that nobody is there any more
        pass
    os.close(master)
    process.wait()
    return seen


def test_a_terminal_is_not_told_what_to_do(cas: Cas, spawn: Spawn, tmp_path: Path) -> None:
    """Where an image's words are shown, and where an error quotes them."""
    one = sample.image("odd", ["odd:1"], LAYERS, **CONFIGS["escape sequences"])
    cas("load", "-i", put(tmp_path / "in.tar", sample.docker_archive(one)))
    bad = put(tmp_path / "bad.tar", sample.docker_archive(sample.image("bad", [f"owned{ESCAPES}:1"], LAYERS)))
    for argv in (
        ["images"],
        ["images", "--format", "{{json .}} {{.CreatedSince}}"],
        ["images", "--format", "table {{.CreatedAt}}"],
        ["images", ESCAPES],
        ["images", "-f", f"label={ESCAPES}"],
        ["images", "-f", f"{ESCAPES}=1"],
        ["tag", "odd:1", f"x{ESCAPES}"],
        ["rmi", ESCAPES],
        ["verify", ESCAPES],
        ["load", "-i", str(bad)],
        ["load", "-i", ESCAPES],
        ["import", ESCAPES],
        ["blob", "cat", ESCAPES],
        ["blob", "inspect", one.id],
        ["df", "-v"],
        ["check"],
        ["gc", "--dry-run"],
        [ESCAPES],
    ):
        seen = on_terminal(spawn, *argv).decode()
        assert "owned" in seen or argv[0] in ("images", "blob", "df", "check", "gc"), (argv, seen)
        for odd in ("\x1b]", "\x07", "\x1b[2J", "\u202e", "\x9b"):
            assert odd not in seen, (argv, seen)


# -- folders


def laid_out(folder: Path, one: sample.Image) -> Path:
    layout = sample.Layout()
    layout.name(layout.manifest(one), "docker.io/library/odd:1")
    for name, data in layout.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def test_a_folder_is_not_left(cas: Cas, rows: Rows, tmp_path: Path) -> None:
    """Links out of it, pipes and sockets in it: refused where they are needed, passed over where not."""
    one = sample.image("odd", ["odd:1"], LAYERS)
    cas("init")
    before = rows()
    secret = put(tmp_path / "secret", one.config)
    ways: dict[str, Callable[[Path], object]] = {
        "an absolute link": lambda path: path.symlink_to(secret),
        "a link that climbs": lambda path: path.symlink_to("../../../../secret"),
        "a link to itself": lambda path: path.symlink_to(path.name),
        "a pipe": os.mkfifo,
        "a folder": lambda path: path.mkdir(),
    }
    for number, (name, make) in enumerate(ways.items()):
        folder = laid_out(tmp_path / str(number), one)
        config = folder / "blobs/sha256" / one.id[7:]
        config.unlink()
        make(config)
        failed = cas("load", "-i", folder, ok=False)
        assert str(folder) in failed.err, name
        assert rows() == before
    folder = laid_out(tmp_path / "good", one)
    for number, make in enumerate(ways.values()):
        make(folder / f"odd {number}")
    (folder / "up").symlink_to("..")
    assert cas("load", "-i", folder).out == "Loaded image: odd:1\n"
    cas("verify", "odd:1")


# -- arguments

ODD_NAMES = [
    "",
    " ",
    "..",
    "../../etc/passwd",
    "/etc/passwd",
    "sha256:",
    "sha256:..",
    "sha256:../../x",
    "@",
    ":",
    "a@b",
]
ODD_NAMES += ["A" * 64, "sha256:" + "A" * 64, "sha256:" + "0" * 63, "sha512:" + "0" * 64, "a\nb", "%00", "\udcff"]
ODD_NAMES += ["x" * 100_000, "*", "[", "'; DROP TABLE tag; --", "one:1@sha256:" + "0" * 64, "ONE:1"]


@pytest.mark.parametrize(
    "argv",
    [
        ["blob", "cat"],
        ["blob", "inspect"],
        ["blob", "rm"],
        ["verify"],
        ["save", "one:1"],
        ["tag", "one:1"],
        ["rmi"],
        ["rmi", "-f"],
        ["import", "/dev/null"],
        ["images", "-f"],
        ["load", "--platform"],
        ["config", "get"],
        ["config", "set", "pack.budget"],
        ["gc", "--grace"],
    ],
    ids=" ".join,
)
def test_arguments_that_are_odd(cas: Cas, rows: Rows, held: Path, tmp_path: Path, argv: list[str]) -> None:
    cas("load", "-i", held.parent / "before.tar")
    before = rows()
    refused = (1, 125)
    for name in ODD_NAMES:
        done = cas(*argv, name, ok=None)
        if argv == ["rmi", "-f"]:
            refused = (0, 1, 125)  # what is not there is no failure then
        assert done.code in refused and not done.raw, (argv, name, done)
        assert done.err.startswith("Error: ") and done.err.count("\n") == 1 and len(done.err) < 8000, (name, done)
        assert rows() == before


def test_a_prefix_that_two_ids_begin_with(cas: Cas, rows: Rows, tmp_path: Path) -> None:
    images = {}
    for number in range(17):
        one = sample.image("twin", [f"twin:{number}"], LAYERS, comment=str(number))
        if one.id[7] in images:
            break
        images[one.id[7]] = one
    other = images[one.id[7]]
    cas("load", "-i", put(tmp_path / "in.tar", sample.docker_archive(one, other)))
    before = rows()
    for argv in (["rmi"], ["rmi", "-f"], ["save"], ["verify"]):
        failed = cas(*argv, one.id[7], ok=None)
        assert failed.code == 1 and not failed.raw, (argv, failed)
        for each in (one, other):
            assert each.id[7:19] in failed.err
    assert "ambiguous image ID prefix" in cas("tag", one.id[7], "new:1", ok=False).err
    assert rows() == before


@pytest.mark.parametrize("pack", ["now", "never"])
def test_save_verifies_while_it_reads(cas: Cas, store_path: Path, tmp_path: Path, pack: str) -> None:
    """A byte that has changed on the disk is in no archive, and no half of one is left."""
    one = sample.image("rotten", ["rotten:1"], [sample.files({"a": sample.noise("rotten", 300_000)})])
    cas("load", "--pack", pack, "-i", put(tmp_path / "in.tar", sample.docker_archive(one)))
    largest = max(
        (path for path in (store_path / "objects").rglob("*") if path.is_file()), key=lambda p: p.stat().st_size
    )
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.chmod(0o600)
    largest.write_bytes(content)
    (tmp_path / "out").mkdir()
    for form in ("docker-archive", "oci-archive", "legacy"):
        cas("save", "--format", form, "-o", tmp_path / "out/a.tar", "rotten:1", ok=False)
        assert not list((tmp_path / "out").iterdir())
        assert cas("save", "--format", form, "rotten:1", ok=None).code == 1
    assert cas("verify", "rotten:1", ok=None).code == 1
    assert cas("blob", "cat", one.diff_ids[0], ok=None).code == 1
