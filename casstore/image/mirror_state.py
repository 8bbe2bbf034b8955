"""What a mirror remembers from one run to the next: what it put where, and when images were made.

    put TARGET SOURCE-DIGEST TARGET-DIGEST HOW      TARGET: a name at the registry, or store:NAME
    gone TARGET
    made DIGEST TIME

A line that it does not know is passed over.
"""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from ..digest import Digest
from ..errors import InvalidReference
from ..store.journal import Journal, read_lines


def name_of(to: str) -> str:
    """The file's name for a mirror that goes there ("" for one that stays in the store)."""
    return re.sub(r"[^a-z0-9.-]+", "_", to.lower())[:200] + ".state" if to else "store.state"


class Put(NamedTuple):
    """What a name stood for at the source when it was taken over, what it stands for at the target since then, and
    how it was taken (`all`, or a platform; `+referrers`)."""

    source: Digest
    target: Digest
    how: str


class State:
    """The state in a file. `write`: for a run that changes something; Conflict where another one does."""

    def __init__(self, path: Path, *, write: bool) -> None:
        self._journal = Journal(path) if write else None
        self._put: dict[str, Put] = {}
        self._made: dict[str, str] = {}
        self._tags: dict[str, set[str]] = {}
        lines = self._journal.lines() if self._journal is not None else read_lines(path)
        for line in lines:
            self._take(line.split(" "))
        self._stale = len(lines) > len(self._put) + len(self._made)
        for target in self._put:
            self._list(target)

    def _take(self, words: list[str]) -> None:
        match words:
            case ["put", target, source, pushed, how]:
                try:
                    self._put[target] = Put(Digest.parse(source), Digest.parse(pushed), how)
                except InvalidReference:
                    pass
            case ["gone", target]:
                self._put.pop(target, None)
            case ["made", digest, moment]:
                self._made[digest] = moment

    def find(self, target: str) -> Put | None:
        """What is at a target, as far as we know."""
        return self._put.get(target)

    def below(self, repository: str) -> set[str]:
        """The tags that we put into one repository."""
        return self._tags.get(repository, set())

    def _list(self, target: str) -> None:
        repository, _, tag = target.rpartition(":")
        if "@" not in repository:
            self._tags.setdefault(repository, set()).add(tag)

    def put(self, target: str, put: Put) -> None:
        """It is there now."""
        self._stale = self._stale or target in self._put
        self._put[target] = put
        self._list(target)
        self._say(f"put {target} {put.source} {put.target} {put.how}")

    def gone(self, target: str) -> None:
        """It is there no longer."""
        if self._put.pop(target, None) is not None:
            self._stale = True
            repository, _, tag = target.rpartition(":")
            self._tags.get(repository, set()).discard(tag)
            self._say(f"gone {target}")

    def made(self, digest: Digest) -> datetime | None:
        """When the image of a manifest was made, where we asked before (aware)."""
        try:
            return datetime.fromisoformat(self._made[str(digest)])
        except (KeyError, ValueError):
            return None

    def date(self, digest: Digest, moment: datetime) -> None:
        """Remember that."""
        if str(digest) not in self._made:
            self._made[str(digest)] = moment.isoformat()
            self._say(f"made {digest} {moment.isoformat()}")

    def _say(self, line: str) -> None:
        if self._journal is not None:
            self._journal.append(line)

    def close(self) -> None:
        """The run has ended: what was said twice is said once now."""
        if self._journal is None:
            return
        try:
            if self._stale:
                lines = [f"put {name} {put.source} {put.target} {put.how}" for name, put in self._put.items()]
                self._journal.compact([*lines, *(f"made {digest} {moment}" for digest, moment in self._made.items())])
        finally:
            self._journal.close()
