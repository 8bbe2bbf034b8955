"""What an image says of itself may hold what a terminal obeys: on a terminal it is made visible, in a pipe it is as it
is."""

from __future__ import annotations

import os
import pty
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import sample
from running import Cas, Spawn

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m"
IMAGE = sample.image(
    "evil",
    ["evil:1"],
    author=EVIL,
    history=[{"created_by": f"RUN {EVIL}", "comment": EVIL}],
    config={"Labels": {f"k{EVIL}": EVIL}},
)
CALLS = [
    ["inspect", "evil:1"],
    ["inspect", "-f", "{{.Author}} {{.Config.Labels}}", "evil:1"],
    ["inspect", f"no{EVIL}"],
    ["history", "evil:1"],
    ["history", "--no-trunc", "--format", "{{.CreatedBy}} {{.Comment}}", "evil:1"],
    ["history", "--format", "json", "evil:1"],
    ["images", f"[{EVIL}"],
    ["images", "-f", f"{EVIL}=1"],
    ["images", "-f", f"before={EVIL}"],
    ["rmi", f"no{EVIL}"],
    ["image", "prune", "-f", "--filter", f"until={EVIL}"],
    ["tag", "evil:1", EVIL],
]
Shown = Callable[..., str]


@pytest.fixture
def shown(cas: Cas, spawn: Spawn, tmp_path: Path) -> Shown:
    """shown("images") → what a terminal gets to see, stderr included."""
    (tmp_path / "in.tar").write_bytes(sample.docker_archive(IMAGE))
    cas("load", "-q", "-i", tmp_path / "in.tar")

    def run(*argv: str) -> str:
        ours, theirs = pty.openpty()
        process = spawn(*argv, stdout=theirs, stderr=theirs)
        os.close(theirs)
        parts = []
        try:
            while part := os.read(ours, 65536):
                parts.append(part)
        except OSError:
            pass  # so a terminal tells that nobody writes to it any more
        os.close(ours)
        process.wait()
        return b"".join(parts).decode()

    return run


@pytest.mark.parametrize("argv", CALLS, ids=lambda argv: " ".join(argv).encode("ascii", "backslashreplace").decode())
def test_nothing_that_a_terminal_obeys(shown: Shown, argv: list[str]) -> None:
    text = shown(*argv)
    assert "owned" in text
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", text.replace("\r\n", "\n"))


def test_a_pipe_gets_it_as_it_is(shown: Shown, cas: Cas) -> None:
    assert cas("inspect", "-f", "{{.Author}}", "evil:1").out == f"{EVIL}\n"
    assert cas("history", "--no-trunc", "--format", "{{.Comment}}", "evil:1").out == f"{EVIL}\n"
