"""`images`: what the store has, one row a tag, and a row for each image that has none."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ..digest import Digest
from ..errors import CasstoreError, InvalidReference, UsageError
from ..model import ImageRow
from ..oci import reference
from ..store import names
from ..store.catalog import Catalog, Tx
from .resolve import UNTAGGED, image_of, no_such_image, resolve

Filters = Sequence[tuple[str, str]]
FILTERS = ("dangling", "label", "before", "since", "reference")


@dataclass(frozen=True, slots=True)
class ImageSummary:
    """A row of `images`. `repository` and `tag` are None for an image without one; `created` is RFC 3339 or "";
    `size` bytes; `digest` what the tag points at."""

    repository: str | None
    tag: str | None
    digest: Digest
    id: Digest
    created: str
    size: int
    labels: dict[str, str] = field(default_factory=dict)
    architecture: str = ""
    os: str = ""


def images(
    catalog: Catalog, pattern: str | None = None, *, everything: bool = False, filters: Filters = ()
) -> list[ImageSummary]:
    """Newest first, then by name. `pattern`: a glob on familiar names, `name` or `name:tag`."""
    wanted = _Wanted(pattern, filters)
    with catalog.read() as tx:
        rows = _rows(tx, everything=everything)
        wanted.place(tx)
    found = [row for row in rows if wanted.has(row)]
    found.sort(key=lambda row: (row.repository or "~", row.tag or "~", row.id.hex))
    found.sort(key=lambda row: moment(row.created), reverse=True)
    return found


def moment(created: str) -> tuple[str, str]:
    """A key that orders RFC 3339 times in UTC; others come last."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(?:Z|[+-]00:00)", created)
    if found:
        return found[1], (found[2] or "").ljust(9, "0")
    try:
        from_zone = _utc(created)
    except ValueError:
        return "", ""
    return from_zone, "0" * 9


def _utc(created: str) -> str:
    from_iso = re.sub(r"(\.\d{6})\d+", r"\1", created)
    return datetime.fromisoformat(from_iso).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _rows(tx: Tx, *, everything: bool) -> list[ImageSummary]:
    known = {row.manifest: row for row in names.images(tx)}
    shown: list[ImageSummary] = []
    for tag in names.tags(tx):
        image = known.get(tag.target) or image_of(tx, tag.target)
        if image is not None:
            repository = reference.familiar_repository(tag.repository)
            shown.append(_summary(image, repository, tag.tag, tag.target))
    tagged = {row.id for row in shown}
    parents = {row.parent for row in known.values() if row.parent}
    for digest, name in names.pins(tx):
        if name != UNTAGGED:
            continue
        image = known.get(digest) or image_of(tx, digest)
        if image is None or image.config in tagged:
            continue
        if str(image.config) in parents and not everything:
            continue  # an intermediate image
        tagged.add(image.config)
        shown.append(_summary(image, None, None, digest))
    return shown


def _summary(image: ImageRow, repository: str | None, tag: str | None, digest: Digest) -> ImageSummary:
    return ImageSummary(
        repository, tag, digest, image.config, image.created, image.size, image.labels, image.architecture, image.os
    )


class _Wanted:
    """The filters of one call."""

    def __init__(self, pattern: str | None, filters: Filters) -> None:
        self._pattern = _glob(pattern) if pattern is not None else None
        self._dangling: bool | None = None
        self._labels: list[tuple[str, str | None]] = []
        self._references: list[tuple[str, str | None]] = []
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
                self._references.append(_glob(value))
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
        at = moment(row.created)
        return all(at < bound for bound in self._before) and all(at > bound for bound in self._since)


def _glob(pattern: str) -> tuple[str, str | None]:
    if pattern.count("[") != pattern.count("]"):
        raise UsageError("syntax error in pattern", what=pattern)
    last = pattern.rfind("/")
    name, colon, tag = pattern[last + 1 :].partition(":")
    return pattern[: last + 1] + name, tag if colon else None


def _matches(row: ImageSummary, pattern: tuple[str, str | None]) -> bool:
    if row.repository is None or row.tag is None:
        return False
    name, tag = pattern
    # Like Go's path.Match, a star does not cross a slash.
    if row.repository.count("/") != name.count("/") or not fnmatch.fnmatchcase(row.repository, name):
        return False
    return tag is None or fnmatch.fnmatchcase(row.tag, tag)
