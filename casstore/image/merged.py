"""An image's layers merged: what a container of it would see, read without unpacking it.

Entries are known from the layers' literals; a file's bytes are read when they are asked for, from the frames that hold
them alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from ..codec.compression import LIMIT, Limit
from ..errors import BadInput, Damaged, NotFound
from ..flow.content import Content, Part, gather
from ..flow.restore import Ahead
from ..flow.step import Step
from ..model import Progress
from ..oci import config as oci_config
from ..oci import manifest as oci_manifest
from ..oci.manifest import Descriptor, Index
from ..rootfs.entries import shown
from ..rootfs.node import FILE, FOLDER, Node
from ..rootfs.tree import Tree
from ..store.leases import Lease
from ..store.volume import Volume
from .content import protect, read_document


class Merged:
    """The merged tree of an image, open for reading: a context manager, under a lease of its own.

    NotFound as `resolve`; BadInput, LimitExceeded: a layer that cannot be applied. `tree`: what was merged."""

    def __init__(
        self, volume: Volume, given: str, *, purpose: str, limit: Limit = LIMIT, progress: Progress | None = None
    ) -> None:
        self._stack = contextlib.ExitStack()
        self.tree = Tree()
        self.contents: list[Content] = []
        try:
            self._open(volume, given, purpose, limit, progress)
        except BaseException:
            self._stack.close()
            raise

    def _open(self, volume: Volume, given: str, purpose: str, limit: Limit, progress: Progress | None) -> None:
        lease = self._stack.enter_context(Lease(volume.catalog, volume.objects, purpose, reading=True))
        self.ahead = self._stack.enter_context(Ahead())
        (found,), infos = protect(volume, lease, [given])
        digest = found.image.manifest
        document = oci_manifest.parse(read_document(volume, infos[digest]), str(digest), infos[digest].media_type)
        if isinstance(document, Index) or not document.is_image:
            raise BadInput("no image with a file system", what=given)
        self.config = oci_config.parse(read_document(volume, infos[document.config.digest]), str(found.image.config))
        missing = [str(one.digest) for one in document.layers if one.digest not in infos]
        if missing:
            raise Damaged(f"blob {missing[0]} is missing", what=given, hint="run casstore check")
        step = Step(progress, "layers", None)

        def opened(layer: Descriptor) -> Content:
            return Content(volume, infos[layer.digest], self.ahead, limit=limit, step=step)

        # Each is opened, which is the C library's work, while the one below is applied, which is Python's.
        with ThreadPoolExecutor(1, thread_name_prefix="layers") as pool:
            layers = [pool.submit(opened, layer) for layer in document.layers]
            try:
                for layer in layers:
                    self.contents.append(self._stack.enter_context(layer.result()))
                    self.tree.apply(self.contents[-1])
            finally:
                for layer in layers:
                    if not layer.cancel() and layer.exception() is None:
                        self._stack.callback(layer.result().close)
        step.done()

    def gather(self, parts: Iterable[Part]) -> Iterator[memoryview]:
        """The bytes that parts of layers make (see flow.content.gather)."""
        return gather(self.contents, parts, self.ahead)

    def node(self, path: str | bytes, *, follow: bool = True) -> Node:
        """The file at a path, symlinks followed within the image. NotFound."""
        raw = path if isinstance(path, bytes) else path.encode("utf-8", "surrogateescape")
        found = self.tree.find(raw, follow=follow)
        if found is None or (raw.endswith(b"/") and found.kind != FOLDER):
            raise NotFound("no such file or directory", what=shown(raw))
        return found

    def read(self, node: Node, start: int = 0, end: int | None = None) -> Iterator[memoryview]:
        """A file's bytes [start, end), verified; the holes of a sparse one as zeros."""
        return self.gather(spans(node, start, node.size if end is None else min(end, node.size)))

    def close(self) -> None:
        """Let go of everything."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_HOLE = 1 << 20


def spans(node: Node, start: int, end: int) -> Iterator[Part]:
    """The parts that make bytes [start, end) of a file."""
    if node.kind != FILE or start >= end:
        return
    extents: Sequence[tuple[int, int]] = ((0, node.size),) if node.extents is None else node.extents
    data = node.data
    at = start
    for offset, length in extents:
        low, high = max(offset, at), min(offset + length, end)
        if low < high:
            yield from _zeros(low - at)
            yield node.layer - 1, data + low - offset, high - low
            at = high
        data += length
    yield from _zeros(end - at)


def _zeros(count: int) -> Iterator[bytes]:
    while count > 0:
        yield bytes(min(count, _HOLE))
        count -= _HOLE
