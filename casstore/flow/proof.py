"""What was just written is read back before anybody relies on it: DESIGN's first promise."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..errors import Damaged
from ..model import BlobInfo, NewBlob, Progress
from ..store.cache import Making
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
    volume: Volume,
    blob: NewBlob,
    check: Callable[[], None] = lambda: None,
    progress: Progress | None = None,
    *,
    soon: bool = False,
) -> str:
    """Why a blob is not to be packed: it does not come back from the sealed packs byte for byte (OTHER), or too slowly.
    "": it does. `soon`: somebody wants to read it next, so what is made goes into the cache."""
    step = Step(progress, f"verify {str(blob.digest)[:19]}", blob.size)
    began, seen = time.process_time(), 0
    whole = max(blob.content_size or 0, blob.size)
    found = volume.cache.take(blob.digest, blob.size) if soon else None
    kept = found if isinstance(found, Making) else None
    try:
        for piece in BlobReader(volume, info_of(blob)).read():
            check()
            if kept is not None:
                kept.write(piece)
            step.advance(len(piece))
            seen += len(piece)
            content = whole * seen / max(blob.size, 1)
            if time.process_time() - began > _WARM + content / _SLOWEST:
                return "making it again is too slow"
        if kept is not None:
            kept.finish()
    except Damaged:
        return OTHER
    finally:
        if kept is not None:
            kept.abort()
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
