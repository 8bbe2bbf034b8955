"""A store that only remembers what it was asked, and what a command left behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


@dataclass
class Recorder:
    """Any method may be called; `answers[name]` is what it returns, or raises, or computes."""

    answers: dict[str, Any] = field(default_factory=dict)
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    opened: list[Any] = field(default_factory=list)
    progress: Any = None

    def __getattr__(self, name: str) -> Any:
        if name in ("blobs", "config"):
            return _Part(self, name)
        return self.method(name)

    def method(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, kwargs))
            answer = self.answers.get(name)
            if isinstance(answer, BaseException):
                raise answer
            return answer(*args, **kwargs) if callable(answer) else answer

        return call


class _Part:
    def __init__(self, recorder: Recorder, name: str) -> None:
        self._recorder, self._name = recorder, name

    def __getattr__(self, name: str) -> Any:
        return self._recorder.method(f"{self._name}.{name}")


@dataclass
class Result:
    code: int
    out: str
    err: str


def image(**fields: Any) -> SimpleNamespace:
    """An ImageSummary as the API gives it."""
    given = {
        "repository": "busybox",
        "tag": "1.36",
        "digest": "sha256:" + "d" * 64,
        "id": "sha256:" + "ab" * 32,
        "created": "2020-01-01T00:00:00Z",
        "size": 686_780,
        "labels": {},
    }
    return SimpleNamespace(**given | fields)
