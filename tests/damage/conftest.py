"""The sample's seed, at the end."""

from __future__ import annotations

import pytest
from harness import SEED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"tests/damage: DAMAGE_SEED={SEED}")
