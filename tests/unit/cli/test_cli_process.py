"""What only a process of its own can show: signals, broken pipes, full disks, start-up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

#: A command line over a store that waits for the end, or prints without one.
STORE = textwrap.dedent("""
    import contextlib, sys, time
    from concurrent.futures import ThreadPoolExecutor
    from casstore import CasstoreError, api

    class Store:
        class blobs:
            @staticmethod
            def put(source, *, pack):
                if source == "late":
                    Store.decided()
                    print("ready", flush=True)
                    time.sleep(1)
                    return "stored"
                try:
                    print("ready", flush=True)
                    time.sleep(60)
                finally:
                    print("unwound", flush=True)
            @staticmethod
            def rm(digests):
                def work():
                    print("ready", flush=True)
                    with contextlib.suppress(CasstoreError):
                        while True:
                            Store.progress("layer", 0, 1)
                            time.sleep(0.01)
                with ThreadPoolExecutor(1) as pool:
                    pool.submit(work).result()
            @staticmethod
            def cat(digest, *span, content=False):
                while True:
                    yield bytes(1 << 16)
            @staticmethod
            def ls():
                import types
                row = dict(digest="d", size=1, state="loose", encoding="identity", stored_size=1)
                for _ in range(1 << 20):
                    yield types.SimpleNamespace(**row)
        def images(self, *_, **__):
            return []

    def opened(path, progress, decided):
        Store.progress = progress
        Store.decided = decided
        return contextlib.nullcontext(Store())
    api.open = opened
    from casstore.cli import main
    main()
""")
DIGEST = "sha256:" + "0" * 64


def start(*argv: str, **options: object) -> subprocess.Popen[str]:
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    return subprocess.Popen([sys.executable, "-c", STORE, *argv], **given)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_unwinds_and_is_130(number: int) -> None:
    process = start("blob", "put", "x")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, "unwound\n", "Error: interrupted\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_commit_is_too_late(number: int) -> None:
    """130 says that nothing was changed."""
    process = start("blob", "put", "late")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert (*process.communicate(timeout=20), process.returncode) == ("stored\n", "", 0)


@pytest.mark.parametrize("quiet", [["--quiet"], []])
def test_a_signal_ends_the_threads_too(quiet: list[str]) -> None:
    process = start(*quiet, "blob", "rm", DIGEST)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "Error: interrupted\n")


@pytest.mark.parametrize("argv", [("blob", "cat", DIGEST), ("blob", "ls", "--format", "json")])
def test_a_broken_pipe_is_quiet(argv: tuple[str, ...]) -> None:
    process = start(*argv)
    assert process.stdout is not None
    assert process.stdout.read(10)
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(20) == 1


NO_ROOM = "no space left on device"


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (("blob", "cat", DIGEST), "output: no space left"),
        (("images",), "output: no space left"),
        (("--version",), NO_ROOM),
        (("--help",), NO_ROOM),
    ],
)
def test_a_full_disk_is_told(argv: tuple[str, ...], told: str) -> None:
    with open("/dev/full", "w") as full:
        process = start(*argv, stdout=full)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (1, f"Error: {told}\n")


def test_closed_streams_are_survived() -> None:
    code = "import os, sys; os.close({}); os.execv(sys.executable, [sys.executable, '-c', *sys.argv[1:]])"
    for descriptor, argv, expected in (
        (1, ["blob", "cat", DIGEST], 1),
        (2, ["nosuch"], 125),
        (0, ["images"], 0),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code.format(descriptor), STORE, *argv],
            capture_output=True,
            text=True,
            timeout=20,
        )
        assert done.returncode == expected, done
        assert "Traceback" not in done.stderr


def test_odd_names_do_not_break_printing() -> None:
    process = start(os.fsdecode(b"\xff\x1b"), env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"})
    _, err = process.communicate(timeout=20)
    assert process.returncode == 125
    assert err.startswith("Error: '\\udcff\\x1b' is not a casstore command")


def test_plain_commands_start_without_the_heavy() -> None:
    """The bar for `images` is a quarter of a second, all in: rich costs a tenth, numpy another."""
    heavy = "{'rich', 'rich_click', 'numpy', 'importlib.metadata', 'asyncio', 'tarfile'}"
    code = STORE.replace("main()", f"""
try:
    main()
finally:
    print(*sorted({heavy} & set(sys.modules)))
""")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code, "images", "-q"], capture_output=True, text=True, timeout=20)
    assert (done.stdout, done.stderr) == ("\n", "")


def test_help_is_rich() -> None:
    pytest.importorskip("rich_click")
    done = subprocess.run(
        [sys.executable, "-m", "casstore", "image", "ls", "--help"],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 0
    assert "─ Options ─" in done.stdout
    for option in ("--digests", "--no-trunc", "--format", "--store"):
        assert option in done.stdout
