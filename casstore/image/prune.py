"""`image prune`: images that nobody uses lose their names. What that frees on the disk is gc's business."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from ..errors import CasstoreError
from ..store.catalog import Tx
from ..store.disk import alone
from ..store.volume import Volume
from .listing import Filters, ImageSummary, listed, moment
from .removal import Removal, Step, carry_out
from .resolve import resolve

_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SPAN = rf"([0-9]{{1,15}}(?:[.][0-9]{{1,15}})?)({'|'.join(_UNITS)})"


class PruneReport(NamedTuple):
    """`steps`: "Untagged" and "Deleted" and what. `reclaimed`: bytes as docker counts them, Σ SIZE of the layers that
    no image needs any more; gc frees less, or more, for it counts what is stored."""

    steps: Sequence[Step]
    reclaimed: int


def prune(
    volume: Volume, *, everything: bool = False, filters: Filters = (), dry_run: bool = False, now: float | None = None
) -> PruneReport:
    """Remove the images without a name, or (`everything`) all images. All that the plan says in one transaction, or
    nothing. `dry_run`: only plan. Conflict while another prune of this store runs.

    Filters: `until` (seconds since 1970, RFC 3339 or a duration before `now`), `label`, `label!` (each `key` or
    `key=value`), `dangling`.
    """
    wanted = _Wanted(everything, filters, time.time() if now is None else now)
    if dry_run:
        with volume.catalog.read() as tx:
            plan = _plan(volume, tx, wanted)
        return PruneReport(plan.steps, plan.reclaimed)
    with alone(volume.objects.root, "a prune operation is already running"):
        plan = carry_out(volume, lambda tx: _plan(volume, tx, wanted))
    return PruneReport(plan.steps, plan.reclaimed)


def _plan(volume: Volume, tx: Tx, wanted: _Wanted) -> Removal:
    removal = Removal(volume, tx)
    for row in listed(tx):
        if not wanted.has(row):
            continue
        found = resolve(tx, str(row.id) if row.tag is None else f"{row.repository}:{row.tag}")
        if row.tag is None:
            removal.by_id(found.image)
        elif found.tag is not None:
            removal.by_tag(found, found.tag)
    return removal


def parse_until(text: str, now: float) -> datetime:
    """Seconds since 1970, a duration before `now` (`90s`, `1h30m`, `7d`) or RFC 3339, also a part of it, then of local
    time. CasstoreError for anything else."""
    try:
        if re.fullmatch(r"[0-9]{1,15}(?:[.][0-9]{1,9})?", text):
            return datetime.fromtimestamp(float(text), UTC)
        if re.fullmatch(rf"(?:{_SPAN})+", text):
            spans = re.findall(rf"(?:{_SPAN})", text)
            seconds = sum(float(number) * _UNITS[unit] for number, unit in spans)
            return datetime.fromtimestamp(now, UTC) - timedelta(seconds=seconds)
        if "-" in text:
            return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise CasstoreError(f"failed to parse value as time or duration: {json.dumps(text[:160], ensure_ascii=False)}")


class _Wanted:
    """Which images go."""

    def __init__(self, everything: bool, filters: Filters, now: float) -> None:
        self._tagged = everything
        self._untagged = True
        self._until: tuple[str, str] | None = None
        self._labels: list[tuple[str, str | None]] = []
        self._spared: list[tuple[str, str | None]] = []
        for name, value in filters:
            if name == "until":
                if self._until is not None:
                    raise CasstoreError("more than one until filter specified")
                self._until = moment(parse_until(value, now).isoformat())
            elif name in ("label", "label!"):
                key, equals, text = value.partition("=")
                (self._labels if name == "label" else self._spared).append((key, text if equals else None))
            elif name == "dangling":
                if value not in ("true", "false", "1", "0"):
                    raise CasstoreError(f"Invalid filter 'dangling=[{value}]'")
                self._tagged = value in ("false", "0")
            else:
                raise CasstoreError(f"Invalid filter '{name}'")

    def has(self, row: ImageSummary) -> bool:
        if row.tag is not None and not self._tagged:
            return False
        if self._until is not None and moment(row.created) > self._until:
            return False
        if any(_says(row, one) for one in self._spared):
            return False
        return all(_says(row, one) for one in self._labels)


def _says(row: ImageSummary, label: tuple[str, str | None]) -> bool:
    key, text = label
    return key in row.labels and (text is None or row.labels[key] == text)
