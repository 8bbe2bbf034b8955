"""What `check` says: findings, and whom they hurt."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ..digest import Digest
from ..oci.reference import familiar_repository
from ..store import names
from ..store.catalog import Tx


@dataclass(frozen=True, slots=True)
class Finding:
    """`severity`: "error" (something is lost or cannot be read, or would be before long) or "warning"; `what`: the
    object, blob or file; `images`: those that it hurts, by the names that people know; `repaired`: by this run."""

    severity: str
    what: str
    problem: str
    repaired: bool = False
    images: tuple[str, ...] = ()


@dataclass(slots=True)
class CheckReport:
    """All findings, and how much was looked at."""

    findings: list[Finding] = field(default_factory=list)
    objects: int = 0
    blobs: int = 0
    read_bytes: int = 0

    @property
    def ok(self) -> bool:
        """Nothing is wrong (any more)."""
        return all(one.repaired or one.severity == "warning" for one in self.findings)


def images_of(tx: Tx, digests: Iterable[Digest]) -> tuple[str, ...]:
    """The images that need one of these blobs: `name:tag`, or the beginning of the ID of one that has no name."""
    queue = list(dict.fromkeys(digests))
    seen = set(queue)
    found: set[str] = set()
    while queue:
        one = queue.pop()
        tags = [f"{familiar_repository(row.repository)}:{row.tag}" for row in names.tags(tx, target=one)]
        found.update(tags)
        image = None if tags else names.find_image(tx, one)
        parents = names.parents(tx, one)
        if image is not None and not parents:
            found.add(image.config.hex[:12])
        fresh = [parent for parent in parents if parent not in seen]
        seen.update(fresh)
        queue += fresh
    return tuple(sorted(found))
