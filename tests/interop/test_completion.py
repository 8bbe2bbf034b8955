"""Completion in the shells themselves: what a Tab makes of a line."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sample

from casstore import api

NAMES = ["one:1", "one:2", "registry.example:5000/team/tool:latest"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store, an archive and a command `casstore`, where shells run."""
    folder = tmp_path_factory.mktemp("shells")
    (folder / "archive.tar").write_bytes(sample.docker_archive(sample.image("c", NAMES, [sample.files({"a": b""})])))
    with api.open(folder / "store") as store:
        store.load(folder / "archive.tar")
    (folder / "bin").mkdir()
    command = folder / "bin" / "casstore"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m casstore "$@"\n')
    command.chmod(0o755)
    for shell in ("bash", "zsh", "fish"):
        done = subprocess.run([command, "completion", shell], capture_output=True, text=True, check=True)
        (folder / f"script.{shell}").write_text(done.stdout)
    return folder


def environment(home: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key in ("PYTHONPATH", "LD_LIBRARY_PATH", "LANG")}
    more = {"HOME": str(home), "CASSTORE_STORE": str(home / "store"), "TERM": "dumb", "PS1": "> "}
    return kept | more | {"PATH": f"{home}/bin:{os.environ['PATH']}", "XDG_CONFIG_HOME": str(home)}


#: (line, what a Tab must suggest) → what it suggests
Complete = Callable[[str, set[str]], set[str]]


def in_bash(home: Path) -> Complete:
    """What bash's function suggests, called as bash calls it."""

    def complete(text: str, wanted: set[str]) -> set[str]:
        script = f"""
            source {home}/script.bash
            compopt() {{ echo "compopt $*"; }}
            COMP_LINE={shlex.quote(text)} COMP_POINT={len(text)}
            _casstore_completion casstore
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        done = subprocess.run(
            ["bash", "--norc", "-c", script], cwd=home, env=environment(home), capture_output=True, text=True
        )
        assert done.stderr == ""
        return set(done.stdout.split("\n")) - {""}

    return complete


def in_fish(home: Path) -> Complete:
    def complete(text: str, wanted: set[str]) -> set[str]:
        script = f"source {home}/script.fish; complete -C {shlex.quote(text)}"
        done = subprocess.run(
            ["fish", "--no-config", "-c", script], cwd=home, env=environment(home), capture_output=True, text=True
        )
        assert done.stderr == ""
        return {line.partition("\t")[0] for line in done.stdout.splitlines()}

    return complete


def in_zsh(home: Path) -> Complete:
    """zsh completes in its line editor only: a terminal, a Tab, and what is on it then."""

    def complete(text: str, wanted: set[str]) -> set[str]:
        setup = (
            "PS1='> '; unset zle_bracketed_paste; unsetopt prompt_cr prompt_sp automenu; LISTMAX=0;"
            f" autoload -Uz compinit; compinit -u -D; source {home}/script.zsh"
        )
        return set(re.findall(r"[^\s>]+", typed(["zsh", "-f", "-i"], setup, text, wanted, home)))

    return complete


def typed(shell: list[str], setup: str, text: str, wanted: set[str], home: Path) -> str:
    """What appears in an interactive shell that ran `setup` after `text` and Tabs, until all wanted is there."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(home)
        os.execvpe(shell[0], shell, environment(home) | {"COLUMNS": "200"})
    try:
        os.write(terminal, f"{setup}; echo rea''dy\n".encode())
        until(terminal, {"ready\r\n"})
        os.write(terminal, f"{text}\t\t".encode())
        return until(terminal, wanted)
    finally:
        os.kill(process, signal.SIGKILL)
        os.close(terminal)
        os.waitpid(process, 0)


def until(terminal: int, wanted: set[str]) -> str:
    """What a terminal shows, until that holds all that is wanted, or it has been silent for long."""
    seen = ""
    while select.select([terminal], [], [], 15)[0]:
        try:
            seen += os.read(terminal, 4096).decode(errors="replace")
        except OSError:
            break  # the shell has gone
        shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x07", " ", seen).replace("\b", "")
        if all(each in shown for each in wanted):
            return shown
    return seen


SHELLS = {"bash": in_bash, "fish": in_fish, "zsh": in_zsh}


@pytest.fixture(scope="module", params=SHELLS)
def complete(request: pytest.FixtureRequest, home: Path) -> Complete:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return SHELLS[request.param](home)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("casstore i", {"image", "images", "import", "init", "inspect"}),
        ("casstore image ", {"ls", "load", "rm"}),
        ("casstore load --p", {"--pack", "--platform"}),
        ("casstore load --pack n", {"now", "never"}),
        ("casstore images --format ", {"json", "table"}),
        ("casstore save --format docker", {"docker-archive"}),
        ("casstore save ", set(NAMES)),
        ("casstore rmi one:1 o", set(NAMES[:2])),
        ("casstore tag regi", set(NAMES[2:])),
    ],
)
def test_suggestions(complete: Complete, text: str, wanted: set[str]) -> None:
    assert wanted <= complete(text, wanted)


def test_files(complete: Complete) -> None:
    assert complete("casstore load -i arch", {"archive.tar"}) & {"archive.tar", "compopt -o default"}


def test_bash_replaces_only_what_follows_a_colon(home: Path) -> None:
    complete = in_bash(home)
    assert complete("casstore save one:", set()) == {"1", "2"}
    assert complete("casstore save registry.example:5000/t", set()) == {"5000/team/tool:latest"}
    assert complete("casstore save --format=docker", set()) == {"docker-archive"}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("casstore save reg", "casstore save registry.example:5000/team/tool:latest"),
        ("casstore save registry.example:5", "casstore save registry.example:5000/team/tool:latest"),
        ("casstore comp", "casstore completion"),
        ("casstore load -i arch", "casstore load -i archive.tar"),
    ],
)
def test_bash_with_a_terminal(home: Path, text: str, line: str) -> None:
    setup = f"PS1='> '; bind 'set enable-bracketed-paste off'; source {home}/script.bash"
    assert line in typed(["bash", "--norc", "-i"], setup, text, {line}, home)


def test_nothing_is_said_where_nothing_can_be(home: Path) -> None:
    ask = {"COMP_WORDS": "casstore save ", "_CASSTORE_COMPLETE": "bash_complete"}
    for more, text in (
        ({"CASSTORE_STORE": str(home / "nosuch")}, "casstore save "),
        ({"CASSTORE_STORE": str(home / "archive.tar")}, "casstore save "),
        ({}, "casstore nosuch "),
        ({}, "casstore save 'unfinished "),
        ({"_CASSTORE_COMPLETE": "csh_complete"}, "casstore "),
    ):
        done = subprocess.run(
            [home / "bin/casstore"],
            env=environment(home) | ask | {"COMP_WORDS": text} | more,
            capture_output=True,
            text=True,
        )
        assert (done.stdout, done.stderr) == ("", "")
    assert not (home / "nosuch").exists()


def test_completion_starts_without_the_heavy(home: Path) -> None:
    code = "import sys; from casstore.cli.run import run; run([]); print(*sorted({'rich', 'numpy'} & set(sys.modules)))"
    for text in ("casstore ", "casstore save "):
        ask = {"COMP_WORDS": text, "_CASSTORE_COMPLETE": "bash_complete"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment(home) | ask, capture_output=True, text=True, check=True
        )
        assert len(done.stdout.splitlines()) > 3 and done.stdout.endswith("\n\n")
