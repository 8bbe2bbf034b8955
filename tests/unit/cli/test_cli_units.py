"""Sizes, durations and times in docker's words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casstore.cli.units import (
    age,
    human_duration,
    human_size,
    local_time,
    parse_duration,
    parse_size,
    parse_time,
)
from casstore.errors import UsageError


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1kB"),
        (1023, "1.02kB"),
        (686_780, "687kB"),
        (999_499, "999kB"),
        (999_500, "1MB"),  # Go prints 1e+03kB
        (1_240_000, "1.24MB"),
        (124_500_000, "124MB"),
        (920_000_000_000, "920GB"),
        (10**30, "1e+06YB"),
    ],
)
def test_sizes_have_three_significant_digits(count: int, text: str) -> None:
    assert human_size(count) == text


@given(st.integers(0, 10**24))
def test_a_size_is_short_and_near(count: int) -> None:
    text = human_size(count)
    assert len(text) <= 6
    number = text.rstrip("BkMGTPEZY")
    unit = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"].index(text[len(number) :])
    assert abs(float(number) * 1000**unit - count) <= count * 0.0051


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "Less than a second"),
        (0.9, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (2 * 3600, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (14 * 86400, "2 weeks"),
        (60 * 86400, "2 months"),
        (730 * 86400, "2 years"),
    ],
)
def test_durations_are_dockers(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


def test_ages() -> None:
    now = datetime(2026, 11, 24, 12, tzinfo=UTC)
    assert age("2026-11-24T10:00:00.123456789Z", now) == "2 hours ago"
    assert age("2026-11-24T12:00:00+02:00", now) == "2 hours ago"
    assert age((now + timedelta(days=3)).isoformat(), now) == "Less than a second ago"
    for nothing in (
        "",
        "0001-01-01T00:00:00Z",
        "rubbish",
        "2026-13-01T00:00:00Z",
        "9999-12-31T23:59:59-23:00",
    ):
        assert age(nothing, now) == "N/A"
        assert local_time(nothing) == "N/A"


def test_times_keep_microseconds() -> None:
    assert parse_time("2026-11-24T10:00:00.123456789Z") == datetime(2026, 11, 24, 10, 0, 0, 123456, tzinfo=UTC)
    assert parse_time("2026-11-24T10:00:00.5Z") == datetime(2026, 11, 24, 10, 0, 0, 500000, tzinfo=UTC)


@given(st.text(max_size=40))
def test_no_time_text_is_fatal(text: str) -> None:
    moment = parse_time(text)
    assert moment is None or moment.tzinfo is UTC
    local_time(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90", 90), ("90s", 90), ("1h30m", 5400), ("7d", 604800), ("1.5h", 5400), ("250ms", 0.25)],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "-1s", "1y", "s", "1h 2m", "inf", "1e9", "१s"])
def test_bad_durations_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError, match="invalid duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [("16384", 16384), ("16k", 16384), ("16KiB", 16384), ("64KiB", 65536), ("1MB", 1_000_000), ("2b", 2)],
)
def test_sizes_are_read(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "k", "-1", "1.5k", "16 X", "1TB"])
def test_bad_sizes_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError, match="invalid size"):
        parse_size(text)
