"""`verify`: every blob of an image read back and compared with its digest."""

from __future__ import annotations

from dataclasses import dataclass

from ..digest import Digest
from ..errors import Damaged, NotFound
from ..flow.restore import BlobReader
from ..store.leases import Lease
from ..store.volume import Volume
from .content import protect


@dataclass(frozen=True, slots=True)
class VerifyRow:
    """One blob of an image, read back: `kind` index, manifest, config or layer; `problem` is "" where its digest is
    right."""

    digest: Digest
    kind: str
    size: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class VerifyReport:
    rows: list[VerifyRow]

    @property
    def ok(self) -> bool:
        return not any(row.problem for row in self.rows)


def verify(volume: Volume, reference: str) -> VerifyReport:
    """Read every blob of an image back whole and compare it with its digest."""
    rows = []
    with Lease(volume.catalog, volume.objects, "verify", reading=True) as lease:
        (found,), blobs = protect(volume, lease, [reference])
        for digest, info in blobs.items():
            problem = ""
            try:
                for _ in BlobReader(volume, info).read():
                    lease.check()
            except (Damaged, NotFound) as error:
                lease.check()
                problem = str(error)
            kind = "config" if digest == found.image.config else _kind(info.media_type)
            rows.append(VerifyRow(digest, kind, info.size, problem))
    return VerifyReport(rows)


def _kind(media_type: str) -> str:
    if "index" in media_type or "manifest.list" in media_type:
        return "index"
    return "manifest" if "manifest" in media_type else "layer"
