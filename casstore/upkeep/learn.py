"""What a pull left for later: to look into compressed blobs that were kept as they came, for the digest, the length and
docker's SIZE of what is inside."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from ..codec import compression
from ..errors import Damaged, NotFound
from ..flow.inside import Inside
from ..flow.loose import UNREADABLE
from ..flow.restore import BlobReader
from ..flow.step import Step
from ..model import BlobInfo, Progress
from ..store import names, query, rewrite
from ..store.volume import Volume
from . import documents
from .pack import Budget


def plan(volume: Volume) -> list[BlobInfo]:
    """Blobs that nobody has looked into."""
    with volume.catalog.read() as tx:
        return query.unknown_blobs(tx)


def learn(
    volume: Volume,
    blobs: Iterable[BlobInfo],
    *,
    limit: compression.Limit = compression.LIMIT,
    budget: Budget | None = None,
    check: Callable[[], None] = lambda: None,
    progress: Progress | None = None,
) -> None:
    """Look into these, and keep what there is to know. One that is damaged, or goes meanwhile, is left as it is."""

    def one(info: BlobInfo) -> None:
        if budget is not None and not budget.more(info.size):
            return
        check()
        step = Step(progress, f"look into {str(info.digest)[:19]}", info.size)
        inside = Inside(info.encoding, limit, strict=False)
        try:
            for piece in step.over(BlobReader(volume, info, leased=False).read()):
                inside.feed(piece)
            inside.finish()
        except (Damaged, NotFound):
            return
        finally:
            inside.close()
        step.done()
        if inside.known:
            facts = rewrite.Facts(inside.digest, inside.size, inside.files_size)
            rewrite.learn(volume.catalog, info.digest, facts)
        else:
            rewrite.pack_refuse(volume.catalog, info.digest, UNREADABLE)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="learn") as pool:
        for job in [pool.submit(one, info) for info in blobs]:
            job.result()


def measure(volume: Volume) -> None:
    """The sizes of images that were not known when they came, where they are now."""
    with volume.catalog.read() as tx:
        unknown = names.unmeasured(tx)
        infos = [info for digest in unknown if (info := query.find_blob(tx, digest)) is not None]
    sizes = {}
    for info in infos:
        document = documents.read(volume, info)
        if document is not None:
            with volume.catalog.read() as tx:
                size = documents.size_of(tx, document)
            if size >= 0:
                sizes[info.digest] = size
    if sizes:
        rewrite.measure(volume.catalog, sizes)
