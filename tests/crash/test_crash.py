"""A sample of the siege, other points each time; `make siege` tries them all."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import tracing
from scenarios import SCENARIOS, Scenario
from sieges import SIEGES, besiege, rehearse

REASON = tracing.unavailable()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)

POINTS = 3
"""Of each scenario, no two of one siege."""


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name.replace(" ", "-"))
def test_nothing_is_lost(scenario: Scenario, scratch: Path, seed: int) -> None:
    chance = random.Random(f"{scenario.name} {seed}")
    rehearsal = rehearse(scenario, scratch)
    for siege in chance.sample(SIEGES, POINTS):
        points = list(rehearsal.points(siege))
        if not points:
            continue
        point = chance.choice(points)
        outcome = besiege(rehearsal, point, scratch / "point")
        assert not outcome.problem, f"CASSTORE_TEST_SEED={seed}: {outcome}"
