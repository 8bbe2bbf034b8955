"""What was just written is read back before anybody relies on it: DESIGN's first promise."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..errors import Damaged
from ..model import BlobInfo, NewBlob, Progress
from ..store.volume import Volume
from .restore import BlobReader
from .step import Step

_SLOWEST = 5_000_000
"""Bytes of content a second of CPU time that a blob must be made again at."""
_WARM = 1.0
"""CPU seconds that count for nothing."""
OTHER = "it does not come back from its trace"
"""What `doubt` says of a blob whose bytes are not made."""


def doubt(
    volume: Volume, blob: NewBlob, check: Callable[[], None] = lambda: None, progress: Progress | None = None
) -> str:
    """Why a blob is not to be packed: it does not come back from the sealed packs byte for byte (OTHER), or too slowly.
    "": it does."""
    step = Step(progress, f"verify {str(blob.digest)[:19]}", blob.size)
    began, seen = time.process_time(), 0
    whole = max(blob.content_size or 0, blob.size)
    try:
        for piece in BlobReader(volume, info_of(blob)).read():
            check()
            step.advance(len(piece))
            seen += len(piece)
            content = whole * seen / max(blob.size, 1)
            if time.process_time() - began > _WARM + content / _SLOWEST:
                return "making it again is too slow"
    except Damaged:
        return OTHER
    finally:
        step.done()
    return ""


def info_of(blob: NewBlob) -> BlobInfo:
    """What the catalog will say of a blob once it is committed."""
    return BlobInfo(
        blob.digest,
        blob.size,
        blob.place,
        blob.encoding,
        blob.media_type,
        blob.diffid,
        blob.content_size,
        blob.files_size,
        blob.spot,
        0.0,
    )
