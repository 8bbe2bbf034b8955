"""Fixtures of the attacks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import capped
import pytest
import sample
from capped import Attack, Spent

from casstore import api


@pytest.fixture
def attack(store_path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Attack:
    """attack("load", stdin=pieces) runs the command on the scratch store, under caps. `ok=False`: it must fail with
    one line."""

    def run(*argv: str | Path, stdin: Iterable[bytes] = (), ok: bool = True) -> Spent:
        spent = capped.run(store_path, *argv, stdin=stdin, log=tmp_path / "stderr")
        print(f"{request.node.name}: {argv[0]}: {spent.peak >> 20} MiB, {spent.seconds:.1f} s: {spent.err[:200]!r}")
        assert "Traceback" not in spent.err and "internal error" not in spent.err, spent.err[-2000:]
        assert (spent.code == 0) == ok, (argv, spent)
        if not ok:
            assert spent.code == 1 and not spent.out, spent
            assert spent.err.startswith("Error: ") and spent.err.count("\n") == 1 and len(spent.err) < 8000, spent
        return spent

    return run


@pytest.fixture(scope="session")
def held(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that holds an image under a name that the attacks use too."""
    root = tmp_path_factory.mktemp("held")
    (root / "before.tar").write_bytes(sample.docker_archive(sample.image("before", ["one:1"])))
    with api.open(root / "store") as store:
        store.load(root / "before.tar")
    return root / "store"
