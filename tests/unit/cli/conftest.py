"""The command line over a store that only remembers what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from recorder import Recorder, Result

from casstore import api
from casstore.cli.run import run


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()

    @contextmanager
    def opened(path: Any, *, progress: Any = None, **_: Any) -> Iterator[Recorder]:
        recorder.opened.append(path)
        recorder.progress = progress
        yield recorder

    monkeypatch.setattr(api, "open", opened, raising=False)
    monkeypatch.setattr("casstore.cli.run._catch_signals", lambda: None)
    return recorder


@pytest.fixture
def casstore(store: Recorder, capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """casstore("images", "-q") → code, out, err; never a traceback."""

    def call(*argv: str) -> Result:
        code = run(argv)
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        assert err.count("\n") <= 1
        return Result(code, out, err)

    return call
