"""The real thing for tests: a store in a scratch folder, used from Python or by the command line.

`sample.py` beside this file makes the images.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import Cas, Ran, Rows, Spawn

from casstore import api
from casstore.cli.run import run
from casstore.store.catalog import Catalog


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def opened(store_path: Path) -> Iterator[api.Store]:
    """The store, open from Python."""
    with api.open(store_path) as store:
        yield store


@pytest.fixture
def cas(
    store_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> Cas:
    """cas("images", "-q") runs the command in this process on the scratch store. `ok=False`: it must fail, with one
    line and no traceback; `ok=None`: it may."""
    monkeypatch.setattr("casstore.cli.run._catch_signals", lambda: None)

    def call(*argv: str | Path, ok: bool | None = True) -> Ran:
        capfdbinary.readouterr()
        code = run(["--store", str(store_path), *map(str, argv)])
        out, raw_err = capfdbinary.readouterr()
        err = raw_err.decode()
        assert "Traceback" not in err and "internal error" not in err, err
        if ok is not None:
            assert (code == 0) == ok, (argv, code, err)
        if ok is False:
            assert err.startswith("Error: ") and err.count("\n") == 1, err
        return Ran(code, out, err)

    return call


@pytest.fixture
def spawn(store_path: Path) -> Spawn:
    """The same in a process of its own, for pipes, signals and crowds. Keyword arguments as Popen takes them."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CASSTORE_")}

    def start(*argv: str | Path, **more: Any) -> subprocess.Popen[bytes]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL} | more
        command = [sys.executable, "-m", "casstore", "--store", str(store_path), *map(str, argv)]
        return subprocess.Popen(command, env=environment, **pipes)

    return start


@pytest.fixture
def rows(store_path: Path) -> Rows:
    """Dump of all that the catalog names: before and after a failed command it must be the same."""

    def dump() -> dict[str, list[tuple[Any, ...]]]:
        catalog = Catalog(store_path)
        try:
            with catalog.read() as tx:
                return {
                    "blobs": tx.rows("SELECT * FROM blob ORDER BY id"),
                    "places": tx.rows("SELECT * FROM place ORDER BY blob, object"),
                    "objects": tx.rows("SELECT * FROM object WHERE state <> 'pending' ORDER BY id"),
                    "children": tx.rows("SELECT * FROM child ORDER BY parent, child"),
                    "tags": tx.rows("SELECT * FROM tag ORDER BY repository, tag"),
                    "pins": tx.rows("SELECT * FROM pin ORDER BY digest, name"),
                    "images": tx.rows("SELECT * FROM image ORDER BY manifest"),
                    "config": tx.rows("SELECT * FROM config ORDER BY key"),
                }
        finally:
            catalog.close()

    return dump
