"""Types of the fixtures that run commands (conftest.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from subprocess import Popen
from typing import Any, TypeAlias


@dataclass(frozen=True)
class Ran:
    """A command that ended; `raw` is its stdout."""

    code: int
    raw: bytes
    err: str

    @property
    def out(self) -> str:
        return self.raw.decode()

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Cas: TypeAlias = Callable[..., Ran]
Spawn: TypeAlias = Callable[..., Popen[bytes]]
Rows: TypeAlias = Callable[[], dict[str, list[tuple[Any, ...]]]]
