"""Each verb: what it asks of the API, what it prints, how it fails."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from recorder import Recorder, image

from casstore.cli.blob import parse_range
from casstore.cli.progress import Silent, decided
from casstore.digest import Digest
from casstore.errors import (
    AmbiguousPrefix,
    BadInput,
    Conflict,
    Interrupted,
    InvalidReference,
    NotFound,
    OutOfSpace,
    UsageError,
)

Run = Callable[..., Any]
HEX = "ab" * 32
DIGEST = f"sha256:{HEX}"


# Where the store is


def test_store_before_the_verb_and_after_it(casstore: Run, store: Recorder) -> None:
    store.answers["images"] = []
    assert casstore("--store", "/a", "images").code == 0
    assert casstore("images", "--store", "/b").code == 0
    assert casstore("--store", "/a", "image", "--store", "/c", "ls", "-q").code == 0
    assert store.opened == [Path("/a"), Path("/b"), Path("/c")]


def test_store_by_environment_and_by_default(
    casstore: Run, store: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store.answers["images"] = []
    monkeypatch.setenv("CASSTORE_STORE", "/named")
    casstore("images")
    monkeypatch.setenv("CASSTORE_STORE", "")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    casstore("images")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    casstore("images")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/somebody")
    casstore("images")
    assert store.opened == [
        Path("/named"),
        Path("/var/lib/casstore"),
        tmp_path / "casstore",
        Path("/home/somebody/.local/share/casstore"),
    ]


# Failures


INTERNAL = "(run again with CASSTORE_DEBUG=1 and report it)"


@pytest.mark.parametrize(
    ("failure", "line", "code"),
    [
        (NotFound("No such image: nosuch"), "No such image: nosuch", 1),
        (BadInput("bad header", what="layer.tar", offset=512), "layer.tar: bad header at offset 512", 1),
        (Conflict("two\nlines"), "two\\nlines", 1),
        (Conflict("\x1b[2J"), "\\x1b[2J", 1),
        (UsageError("wrong"), "wrong", 125),
        (Interrupted("interrupted"), "interrupted", 130),
        (KeyboardInterrupt(), "interrupted", 130),
        (OutOfSpace("no space left on device", what="/s"), "/s: no space left on device", 1),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), "/x: no space left on device", 1),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "no space left on device", 1),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "a"),
            "a: no such file or directory",
            1,
        ),
        (PermissionError(errno.EACCES, "Permission denied", b"\xff"), "\\udcff: permission denied", 1),
        (MemoryError(), "out of memory", 1),
        (ZeroDivisionError("a\nb"), f"internal error: ZeroDivisionError: a b {INTERNAL}", 1),
        (RecursionError("deep"), f"internal error: RecursionError: deep {INTERNAL}", 1),
    ],
)
def test_every_failure_is_one_line(
    casstore: Run, store: Recorder, failure: BaseException, line: str, code: int
) -> None:
    store.answers["images"] = failure
    done = casstore("images")
    assert (done.err, done.code, done.out) == (f"Error: {line}\n", code, "")


@pytest.mark.parametrize(("failure", "code"), [(BrokenPipeError(), 1), (SystemExit(3), 3)])
def test_some_ends_are_quiet(casstore: Run, store: Recorder, failure: BaseException, code: int) -> None:
    store.answers["images"] = failure
    done = casstore("images")
    assert (done.err, done.code, done.out) == ("", code, "")


def test_debug_shows_the_traceback(casstore: Run, store: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASSTORE_DEBUG", "1")
    store.answers["images"] = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        casstore("images")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nosuch"], "'nosuch' is not a casstore command (see 'casstore --help')"),
        (["image", "nosuch"], "'nosuch' is not a casstore image command (see 'casstore image --help')"),
        (["--nosuch"], "No such option"),
        (["tag", "a"], "\"casstore tag\" requires exactly 2 arguments (see 'casstore tag --help')"),
        (["tag", "a", "b", "c"], '"casstore tag" requires exactly 2 arguments'),
        (["image", "tag", "a"], '"casstore image tag" requires exactly 2 arguments'),
        (["rmi"], '"casstore rmi" requires at least 1 argument ('),
        (["save"], '"casstore save" requires at least 1 argument ('),
        (["import"], '"casstore import" requires at least 1 argument ('),
        (["import", "a", "b", "c"], '"casstore import" requires at most 2 arguments'),
        (["images", "a", "b"], '"casstore images" requires at most 1 argument ('),
        (["gc", "x"], '"casstore gc" accepts no arguments'),
        (["verify"], '"casstore verify" requires exactly 1 argument ('),
        (["load", "--pack", "maybe"], "Invalid value for '--pack'"),
        (["import", "a", "--pack", "maybe"], "Invalid value for '--pack'"),
        (["blob", "put", "a", "--pack", "maybe"], "Invalid value for '--pack'"),
        (["load", "-i", "x", "--platform", "linux/arm64", "--all-platforms"], "exclude each other"),
        (["gc", "--grace", "soon"], 'invalid duration "soon"'),
        (["images", "-f", "nothing"], "bad format of filter (expected name=value)"),
        (["blob", "cat", DIGEST, "--range", "9-1"], 'invalid range "9-1"'),
        (["init", "--chunk-size", "huge"], 'invalid size "huge"'),
        (["images", "--format", "{{.Nosuch}}"], "can't evaluate field Nosuch"),
        (["images", "--format", "{{"], "unclosed action"),
    ],
)
def test_wrong_calls_are_125(casstore: Run, store: Recorder, argv: list[str], message: str) -> None:
    store.answers["images"] = []
    done = casstore(*argv)
    assert done.code == 125
    assert message in done.err
    assert done.err.startswith("Error: ")


def test_no_command_is_help(casstore: Run) -> None:
    for argv in ([], ["--help"], ["image"], ["load", "--help"]):
        done = casstore(*argv)
        assert (done.code, done.err) == (0, "")
        assert "Usage: casstore" in done.out


# load, save, import


def test_load(casstore: Run, store: Recorder) -> None:
    moved = "The image l:1 already exists, renaming the old one with ID sha256:aa to empty string"
    store.answers["load"] = SimpleNamespace(loaded=["Loaded image: l:1"], notices=[moved])
    done = casstore("load", "-q", "-i", "a.tar", "--platform", "linux/arm64", "--pack", "later")
    assert done.out == f"{moved}\nLoaded image: l:1\n"
    assert store.calls == [("load", ("a.tar",), {"platform": "linux/arm64", "all_platforms": False, "pack": "later"})]
    assert type(store.progress) is Silent


def test_progress_is_handed_down_unless_quiet(casstore: Run, store: Recorder) -> None:
    store.answers["load"] = SimpleNamespace(loaded=[], notices=[])
    for argv, told in (
        (["load", "-i", "x"], True),
        (["--quiet", "load", "-i", "x"], False),
        (["load", "--quiet", "-i", "x"], False),
        (["save", "-o", "/dev/shm/x", "--quiet", "y"], False),
    ):
        casstore(*argv)
        assert (type(store.progress) is not Silent) is told


def test_load_from_stdin_gives_a_descriptor(casstore: Run, store: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    store.answers["load"] = SimpleNamespace(loaded=[], notices=[])
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: False, fileno=lambda: 0))
    casstore("load")
    assert store.calls[0][1] == (0,)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    done = casstore("load")
    assert (done.code, done.err) == (1, "Error: requested load from stdin, but stdin is empty\n")


def test_save(casstore: Run, store: Recorder, tmp_path: Path) -> None:
    target = tmp_path / "out.tar"
    assert casstore("save", "-o", str(target), "--format", "oci-archive", "a", "b:1").code == 0
    assert casstore("save", "a").code == 0
    (first, second) = store.calls
    assert first == ("save", (("a", "b:1"), str(target)), {"format": "oci-archive"})
    assert isinstance(second[1][1], int)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("/nosuch/folder/x.tar", 'invalid output path: directory "/nosuch/folder" does not exist'),
        ("/dev/null", 'invalid output path: "/dev/null" must be a regular file'),
        ("/tmp", 'invalid output path: "/tmp" is a directory'),
    ],
)
def test_save_refuses_bad_targets_first(casstore: Run, store: Recorder, target: str, message: str) -> None:
    done = casstore("save", "-o", target, "a")
    assert (done.code, done.err) == (1, f"Error: {message}\n")
    assert not store.opened


def test_save_refuses_a_terminal(casstore: Run, store: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    done = casstore("save", "a")
    assert done.code == 1
    assert done.err == "Error: cowardly refusing to save to a terminal. Use the -o flag or redirect\n"
    assert not store.opened


def test_import(casstore: Run, store: Recorder) -> None:
    store.answers["import_image"] = DIGEST
    done = casstore("import", "r.tar", "base:1", "-m", "hello")
    assert done.out == f"{DIGEST}\n"
    given = {"changes": (), "message": "hello", "platform": None, "pack": None}
    name, arguments, named = store.calls[0]
    downloading = named.pop("downloading")
    assert (name, arguments, named) == ("import_image", ("r.tar", "base:1"), given)
    casstore("import", "--pack", "never", "-c", "USER a", "--change", "CMD b", "r.tar")
    _, arguments, named = store.calls[1]
    assert arguments == ("r.tar", None) and named["pack"] == "never" and named["changes"] == ("USER a", "CMD b")
    assert callable(downloading)


def test_import_says_what_it_downloads(casstore: Run, store: Recorder) -> None:
    def answer(*_: Any, downloading: Callable[[str], None], **more: Any) -> str:
        downloading("http://h/\x1bx")
        return DIGEST

    store.answers["import_image"] = answer
    assert casstore("import", "http://h/x").err == "Downloading from http://h/\\x1bx\n"
    assert casstore("--quiet", "import", "http://h/x").err == ""


# images, tag, rmi


def test_images_as_docker_prints_them(casstore: Run, store: Recorder) -> None:
    store.answers["images"] = lambda *_, **__: [
        image(),
        image(repository="", tag="", digest=None, created="", size=0),
    ]
    lines = casstore("images").out.splitlines()
    assert re.fullmatch(r"REPOSITORY   TAG +IMAGE ID +CREATED +SIZE", lines[0])
    assert re.fullmatch(r"busybox +1\.36 +abababababab +\d years ago +687kB", lines[1])
    assert re.fullmatch(r"<none> +<none> +abababababab +N/A +0B", lines[2])
    assert casstore("images", "-q").out == "abababababab\n" * 2
    assert casstore("images", "-q", "--no-trunc").out == f"{DIGEST}\n" * 2
    assert "sha256:" + "d" * 64 in casstore("images", "--digests").out
    assert casstore("images", "--format", "{{.Repository}}:{{.Tag}}").out == "busybox:1.36\n<none>:<none>\n"


def test_images_as_json(casstore: Run, store: Recorder) -> None:
    store.answers["images"] = [image()]
    (line,) = casstore("images", "--format", "json", "--no-trunc").out.splitlines()
    row = json.loads(line)
    assert row.pop("CreatedAt").startswith(("2020-01-01 ", "2019-12-31 "))
    assert row.pop("CreatedSince").endswith(" years ago")
    assert row == {
        "Containers": "N/A",
        "Digest": "sha256:" + "d" * 64,
        "ID": DIGEST,
        "Repository": "busybox",
        "SharedSize": "N/A",
        "Size": "687kB",
        "Tag": "1.36",
        "UniqueSize": "N/A",
        "VirtualSize": "687kB",
    }


def test_images_asks_for_what_was_asked(casstore: Run, store: Recorder) -> None:
    store.answers["images"] = []
    casstore("images", "-a", "-f", "dangling=true", "-f", "label=a=b", "busy*")
    pairs = [("dangling", "true"), ("label", "a=b")]
    assert store.calls == [("images", ("busy*",), {"all": True, "filters": pairs})]


def test_tag(casstore: Run, store: Recorder) -> None:
    assert casstore("tag", "a", "b:2").out == ""
    assert store.calls == [("tag", ("a", "b:2"), {})]


def test_rmi_tries_each(casstore: Run, store: Recorder, capfd: pytest.CaptureFixture[str]) -> None:
    store.answers["remove"] = lambda *_, **__: iter(
        [("Untagged", "a:1"), ("Error", "No such image: b"), ("Deleted", DIGEST)]
    )
    done = casstore("rmi", "a:1", "b")
    assert (done.code, done.out) == (1, f"Untagged: a:1\nDeleted: {DIGEST}\n")
    assert done.err == "Error: No such image: b\n"
    done = casstore("image", "rm", "-f", "--no-prune", "a:1", "b")
    assert (done.code, done.err) == (0, "Error: No such image: b\n")
    assert store.calls[1] == ("remove", (("a:1", "b"),), {"force": True, "prune": False})


def test_rmi_by_force_still_fails_on_a_conflict(casstore: Run, store: Recorder) -> None:
    store.answers["remove"] = [("Error", "conflict: unable to delete b28afe738d2e (cannot be forced)")]
    assert casstore("rmi", "-f", "b28").code == 1


# history, inspect, image prune


def step(**fields: Any) -> SimpleNamespace:
    """A HistoryLine as the API gives it."""
    given = {"id": None, "created": "2020-01-01T00:00:00Z", "created_by": "RUN x", "size": 1500, "comment": ""}
    return SimpleNamespace(**given | fields)


def test_history(casstore: Run, store: Recorder) -> None:
    store.answers["history"] = [
        step(id=DIGEST, created_by="a\tb\n" + "c" * 60, comment="d\ne"),
        step(size=0, created=""),
    ]
    lines = casstore("history", "a").out.splitlines()
    assert re.fullmatch(r"IMAGE +CREATED +CREATED BY +SIZE +COMMENT", lines[0])
    assert re.fullmatch(rf"{HEX[:12]} +\d years ago +a b {'c' * 40}… +1\.5kB +d e", lines[1])
    assert re.fullmatch(r"<missing> +N/A +RUN x +0B +", lines[2])
    assert casstore("image", "history", "-q", "a").out == f"{HEX[:12]}\n<missing>\n"
    assert casstore("history", "-q", "--no-trunc", "a").out == f"{DIGEST}\n<missing>\n"
    (first, _) = map(
        json.loads, casstore("history", "--human=false", "--no-trunc", "--format", "json", "a").out.splitlines()
    )
    assert first == {
        "Comment": "d\ne",
        "CreatedAt": first["CreatedSince"],
        "CreatedBy": "a b\n" + "c" * 60,
        "CreatedSince": first["CreatedAt"],
        "ID": DIGEST,
        "Size": "1500",
    }
    assert first["CreatedAt"].startswith(("2020-01-01T", "2019-12-31T"))
    assert store.calls[0] == ("history", ("a",), {})


def test_inspect(casstore: Run, store: Recorder) -> None:
    store.answers["inspect"] = lambda name: {"Id": DIGEST, "Name": name}
    assert json.loads(casstore("inspect", "a", "b").out) == [{"Id": DIGEST, "Name": name} for name in "ab"]
    assert casstore("inspect", "--format", "json", "a").out == f'[{{"Id":"{DIGEST}","Name":"a"}}]\n'
    assert casstore("image", "inspect", "-f", "{{.Name}}", "a", "b").out == "a\nb\n"
    store.answers["inspect"] = NotFound("No such image: nosuch")
    for argv, word in (
        (("inspect",), "object"),
        (("image", "inspect"), "image"),
        (("inspect", "--type=image"), "image"),
    ):
        done = casstore(*argv, "nosuch")
        assert (done.code, done.out, done.err) == (1, "[]\n", f"Error: No such {word}: nosuch\n")
    store.answers["inspect"] = AmbiguousPrefix('ambiguous image ID prefix "ab": matches ab1, ab2')
    assert "matches ab1, ab2" in casstore("inspect", "ab").err
    store.answers["inspect"] = InvalidReference("invalid reference format", what='"A"')
    assert casstore("inspect", "A").err == "Error: No such object: A\n"
    assert casstore("image", "inspect", "A").err == 'Error: "A": invalid reference format\n'
    store.answers["inspect"] = BadInput("bad", what=DIGEST)
    done = casstore("inspect", "a")
    assert (done.code, done.out, done.err) == (1, "[]\n", f"Error: {DIGEST}: bad\n")


def test_prune(casstore: Run, store: Recorder) -> None:
    store.answers["prune"] = SimpleNamespace(steps=[("Untagged", "a:1"), ("Deleted", DIGEST)], reclaimed=686_780)
    told = f"Deleted Images:\nuntagged: a:1\ndeleted: {DIGEST}\n\nTotal reclaimed space: 686.8kB\n"
    assert casstore("image", "prune", "-f").out == told
    assert casstore("image", "prune", "-af", "--filter", "label!=a=b", "--filter", "until=1h").out == told
    dry = casstore("image", "prune", "--dry-run").out
    assert dry == told + "Nothing was changed: this was a dry run.\n"
    asked = {"all": False, "filters": [], "dry_run": False}
    assert [call[2] for call in store.calls] == [
        asked,
        asked | {"all": True, "filters": [("label!", "a=b"), ("until", "1h")]},
        asked | {"dry_run": True},
    ]


@pytest.mark.parametrize(("answer", "sure"), [("y\n", 1), ("Y\n", 1), ("yes\n", 0), ("n\n", 0), ("\n", 0), ("", 0)])
def test_prune_asks(casstore: Run, store: Recorder, monkeypatch: pytest.MonkeyPatch, answer: str, sure: int) -> None:
    store.answers["prune"] = SimpleNamespace(steps=[], reclaimed=0)
    monkeypatch.setattr("sys.stdin", StringIO(answer))
    out = casstore("image", "prune").out
    assert out.endswith("Are you sure you want to continue? [y/N] Total reclaimed space: 0B\n")
    assert len(store.calls) == sure


@pytest.mark.parametrize(
    ("given", "all_ids"), [("-q", True), ("-q=true", True), ("-q=false", False), ("-q=F", False), ("--quiet=1", True)]
)
def test_flags_as_docker_takes_them(casstore: Run, store: Recorder, given: str, all_ids: bool) -> None:
    store.answers["images"] = [image()]
    assert (casstore("images", given, "--format", "table").out == f"{HEX[:12]}\n") == all_ids


# blobs, config, init


def test_blob_put_and_rm(casstore: Run, store: Recorder) -> None:
    store.answers["blobs.put"] = Digest.parse(DIGEST)
    assert casstore("blob", "put", "file").out == f"{DIGEST}\n"
    assert casstore("blob", "put", "--pack", "later", "file").out == f"{DIGEST}\n"
    assert store.calls == [("blobs.put", ("file",), {"pack": pack}) for pack in (None, "later")]
    assert casstore("blob", "rm", DIGEST).out == f"{DIGEST}\n"
    assert store.calls[2] == ("blobs.rm", ([Digest.parse(DIGEST)],), {})
    done = casstore("blob", "rm", "sha256:../../x")
    assert (done.code, done.out) == (1, "")


def test_blob_cat(casstore: Run, store: Recorder) -> None:
    store.answers["blobs.cat"] = lambda *_, **__: iter([b"ab", memoryview(b"c"), bytearray(b"d\0"), b""])
    store.answers["blobs.inspect"] = {"Size": 100}
    name = Digest.parse(DIGEST)
    assert casstore("blob", "cat", DIGEST).out == "abcd\0"
    for span in ("0-9", "5-", "-30", "-300"):
        casstore("blob", "cat", DIGEST, "--range", span)
    asked = [call[1] for call in store.calls if call[0] == "blobs.cat"]
    assert asked == [(name, 0, None), (name, 0, 10), (name, 5, None), (name, 70, None), (name, 0, None)]


@pytest.mark.parametrize("text", ["", "-", "a-b", "1", "1-2-3", "2-1", "-0", "0x1-2", "1 - 2", "+1-2"])
def test_bad_ranges(text: str) -> None:
    with pytest.raises(UsageError, match="invalid range"):
        parse_range(text)


def test_blob_ls(casstore: Run, store: Recorder) -> None:
    row = SimpleNamespace(digest=Digest.parse(DIGEST), size=1500, state="packed", encoding="identity", stored_size=500)
    store.answers["blobs.ls"] = lambda: iter([row])
    assert json.loads(casstore("blob", "ls", "--format", "json").out) == {
        "Digest": DIGEST,
        "Size": 1500,
        "State": "packed",
        "Encoding": "identity",
        "StoredSize": 500,
    }
    table = casstore("blob", "ls").out.splitlines()
    assert table[0].split("   ")[0] == "DIGEST"
    assert re.fullmatch(rf"{DIGEST} +1\.5kB +packed +identity +500B", table[1])


def test_blob_inspect(casstore: Run, store: Recorder) -> None:
    store.answers["blobs.inspect"] = {"Digest": DIGEST, "Size": 3}
    assert json.loads(casstore("blob", "inspect", DIGEST).out) == [{"Digest": DIGEST, "Size": 3}]
    assert casstore("blob", "inspect", "--format", "{{.Size}}", DIGEST, DIGEST).out == "3\n3\n"


def test_config(casstore: Run, store: Recorder) -> None:
    store.answers["config.ls"] = {"pack.after": "24h", "compression": "zstd:3"}
    store.answers["config.get"] = "24h"
    assert casstore("config", "get", "pack.after").out == "24h\n"
    assert casstore("config", "set", "pack.after", "1h").out == ""
    assert store.calls[-1] == ("config.set", ("pack.after", "1h"), {})
    rows = casstore("config", "ls", "--format", "json").out.splitlines()
    assert json.loads(rows[0]) == {"Key": "compression", "Value": "zstd:3"}


def test_init(casstore: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("casstore.api.init", lambda *a, **k: asked.append((a, k)), raising=False)
    done = casstore("--store", "/s", "init", "--chunk-digest", "blake3", "--chunk-size", "64KiB")
    assert done.out == "Initialized empty store in /s\n"
    (((path,), given),) = asked
    assert (path, given.pop("decided")) == (Path("/s"), decided.set)
    assert given == {"chunk_digest": "blake3", "chunk_size": 65536}
