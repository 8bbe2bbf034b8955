"""`prune` as the library has it: what it plans, and what it does when others are at work meanwhile."""

from __future__ import annotations

import fcntl
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sample

from casstore import api
from casstore.errors import CasstoreError, Conflict
from casstore.image import prune
from casstore.image.prune import parse_until
from casstore.image.removal import TURNS

NOW = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)


@pytest.fixture
def three(opened: api.Store, tmp_path: Path) -> list[sample.Image]:
    """One image with a name, two without; all on one layer of 1000 bytes, each with one of 100."""
    base = sample.files({"base": b"b" * 1000})
    images = [
        sample.image(n, ["a:1"] if n == 0 else [], [base, sample.files({"n": bytes(100), str(n): b""})])
        for n in range(3)
    ]
    (tmp_path / "in.tar").write_bytes(sample.docker_archive(*images))
    opened.load(tmp_path / "in.tar")
    return images


def test_layers_that_are_still_needed_are_not_reclaimed(opened: api.Store, three: list[sample.Image]) -> None:
    report = opened.prune()
    assert [step.verb for step in report.steps] == ["Deleted"] * 4 and report.reclaimed == 200
    report = opened.prune(all=True)
    assert [step.verb for step in report.steps] == ["Untagged", "Deleted", "Deleted", "Deleted"]
    assert report.reclaimed == 1100 and opened.images() == []


def test_a_dry_run_says_what_would_go_and_changes_nothing(opened: api.Store, three: list[sample.Image]) -> None:
    before = opened.images()
    planned = opened.prune(all=True, dry_run=True)
    assert opened.images() == before and planned.reclaimed == 1300
    assert opened.prune(all=True) == planned
    assert opened.prune(all=True) == ([], 0)


def test_what_is_pruned_is_collected(opened: api.Store, three: list[sample.Image]) -> None:
    opened.prune()
    opened.gc(grace=0)
    assert opened.verify("a:1").ok and len(list(opened.blobs.ls())) == 4
    assert opened.check(read_data=True).ok
    opened.prune(all=True)
    opened.gc(grace=0)
    assert list(opened.blobs.ls()) == []


def test_names_given_while_it_plans_are_spared(
    opened: api.Store, three: list[sample.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, turns = prune._plan, []

    def interrupted(*given: Any) -> Any:
        made = plan(*given)
        if not turns:
            with api.open(opened.root) as other:
                other.tag(three[1].id, "saved:1")
        turns.append(made)
        return made

    monkeypatch.setattr(prune, "_plan", interrupted)
    report = opened.prune()
    assert len(turns) == 2 and report.steps[0].text == three[2].id
    assert {row.tag for row in opened.images()} == {"1"} and len(opened.images()) == 2


def test_names_that_never_rest(opened: api.Store, three: list[sample.Image], monkeypatch: pytest.MonkeyPatch) -> None:
    plan, turns = prune._plan, []

    def interrupted(*given: Any) -> Any:
        made = plan(*given)
        turns.append(made)
        with api.open(opened.root) as other:
            other.tag(three[0].id, f"b:{len(turns)}")
        return made

    monkeypatch.setattr(prune, "_plan", interrupted)
    with pytest.raises(Conflict, match="nothing was changed"):
        opened.prune()
    assert len(turns) == TURNS
    assert len([row for row in opened.images() if row.tag is None]) == 2


def test_one_at_a_time(opened: api.Store, three: list[sample.Image]) -> None:
    handle = os.open(opened.root, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(Conflict, match=r"^a prune operation is already running$"):
            opened.prune()
        assert opened.prune(dry_run=True).reclaimed == 200
    finally:
        os.close(handle)
    assert opened.prune().reclaimed == 200


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("0", "1970-01-01T00:00:00+00:00"),
        ("1714979289.5", "2024-05-06T07:08:09.500000+00:00"),
        ("90s", "2024-05-06T07:06:39+00:00"),
        ("1h30m", "2024-05-06T05:38:09+00:00"),
        ("1.5h", "2024-05-06T05:38:09+00:00"),
        ("2d", "2024-05-04T07:08:09+00:00"),
        ("500ms", "2024-05-06T07:08:08.500000+00:00"),
        ("2024-01-02T03:04:05Z", "2024-01-02T03:04:05+00:00"),
        ("2024-01-02T03:04:05.25+02:00", "2024-01-02T01:04:05.250000+00:00"),
    ],
)
def test_times(text: str, moment: str) -> None:
    assert parse_until(text, NOW.timestamp()).isoformat() == moment


@pytest.mark.parametrize(
    "text",
    [
        "",
        "garbage",
        "1x",
        "h",
        "2024-13-01",
        "9" * 15,
        "9" * 15 + "h",
        "-",
        "1h ",
        "1e3",
        "٣",
        "0001-01-01T00:00:00+09:00",
    ],
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(CasstoreError, match="failed to parse value as time or duration: "):
        parse_until(text, NOW.timestamp())
