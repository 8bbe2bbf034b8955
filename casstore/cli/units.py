"""Sizes, durations and ages in docker's words (docker/go-units), and back."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime

from ..errors import UsageError

_SIZES = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_SPANS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?(?:ms|s|m|h|d))+")
_PIECE = re.compile(r"([0-9]+(?:\.[0-9]*)?)(ms|s|m|h|d)")


def human_size(count: float, digits: int = 3) -> str:
    """Bytes → so many significant digits in decimal units: 686_780 → `687kB`."""
    unit = 0
    # Rounding happens before the unit is chosen, so that 999.9 kB is "1MB" and never "1e+03kB".
    while float(f"{count:.{digits}g}") >= 1000 and unit < len(_SIZES) - 1:
        count /= 1000
        unit += 1
    return f"{float(f'{count:.{digits}g}'):g}{_SIZES[unit]}"


def known_size(count: int) -> str:
    """`human_size`, or `N/A` for what is less than nothing: not known."""
    return "N/A" if count < 0 else human_size(count)


def human_duration(seconds: float) -> str:
    """Seconds → docker's rough words: `About an hour`, `3 weeks`."""
    whole = int(seconds)
    minutes, hours = whole // 60, int(seconds / 3600 + 0.5)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return "1 second" if whole == 1 else f"{whole} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{whole // 3600 // 24 // 365} years"


def parse_time(text: str) -> datetime | None:
    """RFC 3339 → aware datetime (microseconds); None for "", rubbish, and Go's zero time (year 1)."""
    try:
        moment = datetime.fromisoformat(text)  # which cuts nanoseconds off
        if moment.tzinfo is not UTC:
            moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        return moment if moment.year > 1 else None
    except (ValueError, OverflowError):
        return None


def age(created: str, now: datetime) -> str:
    """`2 hours ago`, or `N/A` where no time is known."""
    moment = parse_time(created)
    return "N/A" if moment is None else f"{human_duration((now - moment).total_seconds())} ago"


def local_time(created: str) -> str:
    """`2026-11-24 04:33:34 +0000 UTC`, as Go prints a time in the local zone; `N/A` where none is known."""
    moment = parse_time(created)
    if moment is None:
        return "N/A"
    try:
        return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S %z %Z")
    except (ValueError, OverflowError):
        return "N/A"


def parse_duration(text: str) -> float:
    """`90s`, `10m`, `1h30m`, `7d` or plain seconds → seconds. UsageError on anything else."""
    if re.fullmatch(r"[0-9]+(?:\.[0-9]*)?", text):
        return float(text)
    if not _DURATION.fullmatch(text):
        raise UsageError(f'invalid duration "{text}"', hint="such as 90s, 10m, 1h30m, 7d")
    return sum(float(number) * _SPANS[unit] for number, unit in _PIECE.findall(text))


def parse_size(text: str) -> int:
    """`16384`, `16k`, `64KiB`, `1MB` → bytes; k, M, G are powers of 1024, as is KiB; kB, MB, GB of 1000."""
    found = re.fullmatch(r"([0-9]+) ?(?:([kKmMgG])(i?[bB])?|[bB])?", text)
    if not found:
        raise UsageError(f'invalid size "{text}"', hint="such as 16384, 16KiB, 1MB")
    base = 1000 if found[3] in ("b", "B") else 1024
    power = "kmg".index(found[2].lower()) + 1 if found[2] else 0
    return int(found[1]) * int(base**power)


def shortened(text: str, width: int) -> str:
    """At most so many columns of a terminal, an ellipsis at the end of what was longer."""
    if text.isascii():
        return text if len(text) <= width else text[: width - 1] + "…"
    columns = [2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text]
    if sum(columns) <= width:
        return text
    taken = 0
    for at, one in enumerate(columns):
        taken += one
        if taken > width - 1:
            return text[:at] + "…"
    return text


_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""What turns the direction of the text that follows: with it one name can look like another."""


def visible(text: str) -> str:
    """What a terminal might obey as \\x1b, \\u202e; newlines and tabs stay."""
    return text if text.isprintable() else "".join(map(_seen, text))


def _seen(one: str) -> str:
    if one in _TURNING:
        return f"\\u{ord(one):04x}"
    return one if one in "\n\t" or not (ord(one) < 32 or 127 <= ord(one) < 160) else f"\\x{ord(one):02x}"
