"""`images`: what the store has, one row a tag, and a row for each image that has none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from ..digest import Digest
from ..errors import CasstoreError, InvalidReference
from ..model import ImageRow
from ..oci.reference import familiar_repository
from ..store import names
from ..store.catalog import Catalog, Tx
from .patterns import compile_pattern
from .resolve import UNTAGGED, image_of, is_kept, no_such_image, resolve

Filters = Sequence[tuple[str, str]]
_NO_TIME = "0001-01-01T00:00:00Z"
_IN_UTC = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(?:Z|[+-]00:00)")


class ImageSummary(NamedTuple):
    """A row of `images`. `repository` and `tag` are None for an image without one; `created` is RFC 3339 or "";
    `size` bytes; `digest` what the tag points at."""

    repository: str | None
    tag: str | None
    digest: Digest
    id: Digest
    created: str
    size: int
    labels: dict[str, str]
    architecture: str
    os: str


def images(
    catalog: Catalog, pattern: str | None = None, *, everything: bool = False, filters: Filters = ()
) -> list[ImageSummary]:
    """Newest first, then by name. `pattern`: a glob on familiar names, `name` or `name:tag`."""
    wanted = _Wanted(pattern, filters)
    with catalog.read() as tx:
        rows = listed(tx, everything=everything)
        wanted.place(tx)
    return [row for row in rows if wanted.has(row)]


def moment(created: str) -> tuple[str, str]:
    """A key that orders RFC 3339 times in UTC; others come last, and with them the time that Go has for none."""
    found = _IN_UTC.fullmatch(created)
    if created == _NO_TIME:
        return "", ""
    if found:
        return found[1], (found[2] or "").ljust(9, "0")
    try:
        at = datetime.fromisoformat(created).astimezone(UTC)
    except (ValueError, OverflowError):
        return "", ""
    return f"{at:%Y-%m-%dT%H:%M:%S}", f"{at.microsecond:06}000"


def listed(tx: Tx, *, everything: bool = False) -> list[ImageSummary]:
    """Every tag, and every image that has none (those with children only with `everything`), as `images` has them."""
    shown: list[ImageSummary] = []
    familiar: dict[str, str] = {}
    for repository, tag, target, row in names.tagged(tx):
        image = row or image_of(tx, target)
        if image is not None:
            name = familiar.get(repository) or familiar.setdefault(repository, familiar_repository(repository))
            shown.append(_summary(image, name, tag, target))
    tagged = {row.id for row in shown}
    for digest, name in names.pins(tx):
        if name != UNTAGGED:
            continue
        image = image_of(tx, digest)
        if image is None or image.config in tagged:
            continue
        if not everything and any(is_kept(tx, child.manifest) for child in names.image_children(tx, image.config)):
            continue  # an intermediate image
        tagged.add(image.config)
        shown.append(_summary(image, None, None, digest))
    shown.sort(key=lambda row: (row.repository or "~", row.tag or "~", row.id.raw))
    shown.sort(key=lambda row: moment(row.created), reverse=True)
    return shown


def _summary(image: ImageRow, repository: str | None, tag: str | None, digest: Digest) -> ImageSummary:
    return ImageSummary(
        repository, tag, digest, image.config, image.created, image.size, image.labels, image.architecture, image.os
    )


class _Wanted:
    """The filters of one call."""

    def __init__(self, pattern: str | None, filters: Filters) -> None:
        self._pattern = compile_pattern(pattern) if pattern is not None else None
        self._dangling: bool | None = None
        self._labels: list[tuple[str, str | None]] = []
        self._references: list[re.Pattern[str]] = []
        self._bounds: list[tuple[str, str]] = []
        self._before: list[tuple[str, str]] = []
        self._since: list[tuple[str, str]] = []
        for name, value in filters:
            if name == "dangling":
                if value not in ("true", "false", "1", "0"):
                    raise CasstoreError(f"Invalid filter 'dangling=[{value}]'")
                self._dangling = value in ("true", "1")
            elif name == "label":
                key, equals, text = value.partition("=")
                self._labels.append((key, text if equals else None))
            elif name == "reference":
                self._references.append(compile_pattern(value))
            elif name in ("before", "since"):
                self._bounds.append((name, value))
            else:
                raise CasstoreError(f"Invalid filter '{name}'")

    def place(self, tx: Tx) -> None:
        """Look up the images that `before` and `since` name."""
        for name, text in self._bounds:
            try:
                created = moment(resolve(tx, text).image.created)
            except InvalidReference:
                raise no_such_image(text) from None
            (self._before if name == "before" else self._since).append(created)

    def has(self, row: ImageSummary) -> bool:
        if self._pattern is not None and not _matches(row, self._pattern):
            return False
        if self._dangling is not None and self._dangling != (row.tag is None):
            return False
        if self._references and not any(_matches(row, one) for one in self._references):
            return False
        for key, text in self._labels:
            if key not in row.labels or (text is not None and row.labels[key] != text):
                return False
        if not self._bounds:
            return True
        at = moment(row.created)
        return all(at < bound for bound in self._before) and all(at > bound for bound in self._since)


def _matches(row: ImageSummary, pattern: re.Pattern[str]) -> bool:
    """Either the name or name:tag; what has no name matches nothing."""
    if row.repository is None or row.tag is None:
        return False
    return bool(pattern.fullmatch(f"{row.repository}:{row.tag}") or pattern.fullmatch(row.repository))
