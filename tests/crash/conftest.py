"""The sample's seed: printed at the end, and taken from CASSTORE_TEST_SEED to see the same points again."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sieges import SCRATCH

SEED = int(os.environ.get("CASSTORE_TEST_SEED") or random.SystemRandom().randrange(1 << 32))


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder for the points of one scenario."""
    with tempfile.TemporaryDirectory(prefix="casstore-crash-", dir=SCRATCH) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def seed() -> int:
    return SEED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"tests/crash: CASSTORE_TEST_SEED={SEED}")
