"""The sample's seed: printed at the end, and taken from CASSTORE_TEST_SEED to see the same points again."""

from __future__ import annotations

import os
import random

import pytest

SEED = int(os.environ.get("CASSTORE_TEST_SEED") or random.SystemRandom().randrange(1 << 32))


@pytest.fixture(scope="session")
def seed() -> int:
    return SEED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"tests/crash: CASSTORE_TEST_SEED={SEED}")
