"""Each row of `rows` here, and, where there is a docker, there: the same call, the same words."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from conftest import Peer
from rows import TABLE, Row, archive, filled
from running import Cas

ROWS = [pytest.param(row, id=f"{verb}: {row}") for verb, rows in TABLE.items() for row in rows]


@pytest.mark.parametrize("row", ROWS)
def test_row(cas: Cas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: Row) -> None:
    if row.given:
        (tmp_path / "in.tar").write_bytes(archive(row.given))
        cas("load", "-q", "-i", tmp_path / "in.tar")
    for argv in row.before:
        cas(*map(filled, argv))
    monkeypatch.setattr("sys.stdin", StringIO(row.stdin))
    done = cas(*map(filled, row.argv), ok=None)
    assert (done.out, done.err, done.code) == (filled(row.out), filled(row.err), row.code)


class Bench:
    """A docker whose images are those of a row; what a row before it loaded and only read stays."""

    def __init__(self, docker: Peer, folder: Path) -> None:
        self._docker = docker
        self._folder = folder
        self._state: object = None

    def run(self, row: Row) -> tuple[str, str, int]:
        if self._state != (row.given, row.before):
            self._docker("image", "prune", "-a", "-f")
            if row.given:
                path = self._folder / f"{'-'.join(row.given)}.tar"
                path.write_bytes(archive(row.given))
                self._docker("load", "-q", "-i", path)
            for argv in row.before:
                self._docker(*map(filled, argv))
        self._state = (row.given, row.before) if self.only_reads(row) else None
        return self._docker.whole(*map(filled, row.argv), stdin=row.stdin)

    @staticmethod
    def only_reads(row: Row) -> bool:
        if row.argv[0] in ("images", "history", "inspect"):
            return True
        told = row.out.endswith("Total reclaimed space: 0B\n") or not row.out
        return told and bool(row.out or row.err) and not row.because


@pytest.fixture(scope="module")
def bench(docker: Peer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """The client is of the daemon's version: newer ones word it differently."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    for client in (Path(folder) / "docker" for folder in folders):
        peer = Peer((str(client), *docker.command[1:]), docker.environment)
        if client.is_file() and " 20.10." in peer("--version"):
            yield Bench(peer, tmp_path_factory.mktemp("rows"))
            docker("image", "prune", "-a", "-f", ok=False)
            return
    pytest.skip("no docker client 20.10")


#: Those on the same images follow each other: docker takes its time to load them.
ORDERED = sorted(ROWS, key=lambda one: (one.values[0].given, one.values[0].before))  # type: ignore[attr-defined]


@pytest.mark.parametrize("row", ORDERED)
def test_docker_says_the_same(bench: Bench, row: Row) -> None:
    out, err, code = bench.run(row)
    told = plain(out, row), meaning(err), code
    wanted = plain(filled(row.out), row), meaning(filled(row.err)), row.code
    if row.because:
        assert told != wanted, f"docker does it too, so it is no longer true that {row.because}"
    else:
        assert told == wanted


EVERY = Row("", ("A", "B", "BASE", "CHILD", "N", "SIZES", "ZERO"), ("images",))
OURS = ("GraphDriver", "Metadata", "RepoDigests", "Digest")
"""Where things lie, when they got their name, and digests of what was not pulled: they cannot be the same."""


@pytest.mark.parametrize(
    "argv",
    [
        ("inspect", "a:1", "b:1", "base:1", "child:1", "{N}", "sizes:1", "zero:1"),
        ("history", "--format", "{{json .}}", "a:1"),
        ("history", "--format", "{{json .}}", "--no-trunc", "child:1"),
        ("images", "--format", "{{json .}}", "-f", "since=b:1"),
        ("images", "--format", "{{json .}}", "--no-trunc", "child"),
    ],
    ids=" ".join,
)
def test_every_key_is_dockers(bench: Bench, cas: Cas, tmp_path: Path, argv: tuple[str, ...]) -> None:
    (tmp_path / "in.tar").write_bytes(archive(EVERY.given))
    cas("load", "-q", "-i", tmp_path / "in.tar")
    out, err, code = bench.run(replace(EVERY, argv=argv))
    assert (err, code) == ("", 0)
    assert objects(cas(*map(filled, argv)).out) == objects(out)


def objects(text: str) -> list[list[tuple[str, object]]]:
    """A JSON array, or a line each, without what cannot be the same; in order, keys too, but for images as old as each
    other."""
    found = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]
    each = [[(key, value) for key, value in one.items() if key not in OURS] for one in found]
    return each if text.startswith("[") or "CreatedBy" in text else sorted(each, key=str)


def plain(text: str, row: Row) -> list[str]:
    lines = text.splitlines()
    return sorted(lines) if row.sort else lines


def meaning(text: str) -> list[str]:
    """Errors without who says them, what they are about, and advice."""
    lines = []
    for line in text.splitlines():
        said = re.sub(r"^(Error response from daemon: |Error: )+", "", line)
        said = re.sub(r"^(Error parsing reference: )?.*: (refusing to create|syntax error)", r"\2", said)
        said = re.sub(r'^"[^"]*": (invalid reference)', r"\1", said)
        said = re.sub(r'^invalid argument ".*" for ".*" flag: ', "", said)
        said = re.sub(r"^(No such image: [^:]*):latest$", r"\1", said)
        if said and not said.startswith("See "):
            lines.append(said)
    return lines
