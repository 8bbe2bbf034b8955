"""One way to talk to a store from inside (`Api`) and by the command line (`Cli`); both raise Refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import casstore
from casstore.digest import Digest
from casstore.errors import CasstoreError


class Refused(Exception):
    """A command that failed as a command may: one line. `kind`: the class of the error, "" where it is not known."""

    def __init__(self, kind: str, line: str) -> None:
        super().__init__(f"{kind}: {line}" if kind else line)
        self.kind = kind
        self.line = line


class Row(NamedTuple):
    """A row of `images`; `name` is "" where there is none."""

    name: str
    id: str
    digest: str


class Client(Protocol):
    def load(self, archive: Path, pack: str, pipe: bool) -> None: ...
    def save(self, name: str, out: Path, form: str) -> None: ...
    def tag(self, source: str, target: str) -> None: ...
    def rmi(self, name: str, force: bool) -> None: ...
    def verify(self, name: str) -> None: ...
    def images(self, pattern: str) -> list[Row]: ...
    def put(self, path: Path, pack: str) -> str: ...
    def cat(self, digest: str, start: int, end: int) -> bytes: ...
    def rm(self, digest: str) -> None: ...
    def pins(self, digest: str) -> list[str]: ...


class Api:
    """The store opened in this process."""

    def __init__(self, store: casstore.Store) -> None:
        self.store = store

    def load(self, archive: Path, pack: str, pipe: bool) -> None:
        with Refusing():
            if not pipe:
                self.store.load(archive, pack=pack, all_platforms=True)
                return
            ours, theirs = os.pipe()
            writer = threading.Thread(target=pour, args=(archive, theirs))
            writer.start()
            try:
                self.store.load(ours, pack=pack, all_platforms=True)
            finally:
                os.close(ours)
                writer.join()

    def save(self, name: str, out: Path, form: str) -> None:
        with Refusing():
            self.store.save([name], out, format=form)

    def tag(self, source: str, target: str) -> None:
        with Refusing():
            self.store.tag(source, target)

    def rmi(self, name: str, force: bool) -> None:
        for step in self.store.remove([name], force=force):
            if step.verb == "Error":
                raise Refused("", step.text)

    def verify(self, name: str) -> None:
        with Refusing():
            report = self.store.verify(name)
        if not report.ok:
            raise Refused("", f"verify {name}: {[row for row in report.rows if row.problem]}")

    def images(self, pattern: str) -> list[Row]:
        with Refusing():
            rows = self.store.images(pattern)
        return [Row(f"{row.repository}:{row.tag}" if row.tag else "", str(row.id), str(row.digest)) for row in rows]

    def put(self, path: Path, pack: str) -> str:
        with Refusing():
            return str(self.store.blobs.put(path, pack=pack))

    def cat(self, digest: str, start: int, end: int) -> bytes:
        with Refusing():
            return b"".join(self.store.blobs.cat(Digest.parse(digest), start, end))

    def rm(self, digest: str) -> None:
        with Refusing():
            self.store.blobs.rm([Digest.parse(digest)])

    def pins(self, digest: str) -> list[str]:
        with Refusing():
            return list(self.store.blobs.inspect(Digest.parse(digest))["Pins"])


class Refusing:
    """Turns the library's errors into Refused."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, CasstoreError):
            raise Refused(type(error).__name__, str(error)) from error


def pour(archive: Path, fd: int) -> None:
    """A file into a pipe, whose reader may go away."""
    try:
        with os.fdopen(fd, "wb") as end:
            end.write(archive.read_bytes())
    except BrokenPipeError:
        pass


class Cli:
    """A process for each command, as people use it."""

    def __init__(self, path: Path) -> None:
        self._start = [sys.executable, "-m", "casstore", "--store", str(path)]

    def _run(self, *argv: str, stdin: Path | None = None) -> bytes:
        ran = subprocess.run(
            [*self._start, *argv], input=None if stdin is None else stdin.read_bytes(), capture_output=True, check=False
        )
        if ran.returncode:
            line = ran.stderr.decode()
            if ran.returncode != 1 or not line.startswith("Error: ") or line.count("\n") != 1:
                raise RuntimeError(f"{argv}: exit code {ran.returncode}: {line}")
            raise Refused("", line.strip())
        return ran.stdout

    def load(self, archive: Path, pack: str, pipe: bool) -> None:
        where = [] if pipe else ["-i", str(archive)]
        self._run("load", "-q", "--all-platforms", "--pack", pack, *where, stdin=archive if pipe else None)

    def save(self, name: str, out: Path, form: str) -> None:
        self._run("save", "--format", form, "-o", str(out), name)

    def tag(self, source: str, target: str) -> None:
        self._run("tag", source, target)

    def rmi(self, name: str, force: bool) -> None:
        self._run("rmi", *(["-f"] if force else []), name)

    def verify(self, name: str) -> None:
        self._run("verify", name)

    def images(self, pattern: str) -> list[Row]:
        form = "{{.Repository}}:{{.Tag}} {{.ID}} {{.Digest}}"
        out = self._run("images", "--no-trunc", "--format", form, pattern).decode()
        return [Row(*line.split()) for line in out.splitlines()]

    def put(self, path: Path, pack: str) -> str:
        return self._run("blob", "put", str(path)).decode().strip()

    def cat(self, digest: str, start: int, end: int) -> bytes:
        return self._run("blob", "cat", "--range", f"{start}-{end - 1}", digest)

    def rm(self, digest: str) -> None:
        self._run("blob", "rm", digest)

    def pins(self, digest: str) -> list[str]:
        return list(json.loads(self._run("blob", "inspect", digest))[0]["Pins"])


def names_of(rows: Sequence[Row]) -> dict[str, str]:
    """Name → digest."""
    return {row.name: row.digest for row in rows if row.name}
