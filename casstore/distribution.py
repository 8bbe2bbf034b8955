"""How images come to a store and go from it: registries and bundles. A part of the façade, whose ways it keeps: rooms
below are imported when they are first needed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .digest import Digest
from .model import Progress

if TYPE_CHECKING:
    from .image.bundle import BundleReport
    from .image.load import LoadReport
    from .image.pull import PullReport
    from .image.push import PushReport
    from .image.remote import Remote
    from .store.volume import Volume


class Distribution:
    """The part of a store that has to do with other places."""

    progress: Progress | None

    @property
    def volume(self) -> Volume:
        """The store as the rooms below know it."""
        raise NotImplementedError

    def _naming(self) -> contextlib.AbstractContextManager[None]:
        raise NotImplementedError

    def _writing(self, pack: str | None) -> dict[str, Any]:
        raise NotImplementedError

    def pull(
        self,
        reference: str,
        *,
        remote: Remote,
        platform: str | None = None,
        all_platforms: bool = False,
        referrers: bool = False,
        pack: str | None = None,
        say: Callable[[str, str], None] = lambda layer, what: None,
    ) -> PullReport:
        """Pull an image from its registry. `referrers`: its signatures, SBOMs and the like too, to stay as long as it
        does. `say` is told (layer, what became of it), from any thread."""
        from .image.pull import pull
        from .oci.reference import parse

        name = parse(reference).or_latest()
        more = self._writing(pack) | {"platform": platform, "all_platforms": all_platforms, "referrers": referrers}
        with self._naming():
            return pull(self.volume, remote.registry(name), name, say=say, look=pack != "later", **more)

    def push(
        self,
        reference: str,
        *,
        remote: Remote,
        source: Digest | str | None = None,
        platform: str | None = None,
        compression: str = "gzip",
        say: Callable[[str, str], None] = lambda layer, what: None,
    ) -> PushReport:
        """Push what a name stands for to its registry; `source`: something else of the store, under that name. Of an
        index that is not all here, `platform` picks the image. Plain layers are compressed on the way: with "gzip" to
        the same bytes on every machine, those of docker push; with "zstd" to the same with one version of its library.
        What comes of it is kept for the next push, of gzip hardly more than its digest. "none": they stay plain."""
        from .image.push import push
        from .oci.reference import parse

        name = parse(reference).or_latest()
        registry = remote.registry(name, push=True)
        more: dict[str, Any] = {"source": source, "platform": platform, "compression": compression}
        return push(
            self.volume, registry, name, writing=lambda: self._writing(None), say=say, progress=self.progress, **more
        )

    # -- bundles

    def bundle(
        self,
        references: Sequence[str],
        out: str | Path | int,
        *,
        have: Sequence[str] = (),
        have_file: str | Path | int | None = None,
        since: str | Path | int | None = None,
        all_platforms: bool = False,
    ) -> BundleReport:
        """Write images to a path or an open descriptor, without what the other side has: the images `have`, the blobs
        in `have_file` (its `base_list`), what the bundle `since` brought. `all_platforms`: all of an index."""
        from .image.bundle import create

        more: dict[str, Any] = {"have": have, "have_file": have_file, "since": since, "all_platforms": all_platforms}
        return create(self.volume, references, out, **more | self._writing(None))

    def load_bundle(self, source: str | Path | int, *, expect: Digest | None = None, tags: bool = True) -> LoadReport:
        """Load a bundle from a path or an open descriptor: all of it, or nothing. `expect`: the digest of the whole
        file; without `tags` its images come under their IDs only. NotFound names a base that this store lacks."""
        from .image.unbundle import load

        with self._naming():
            return load(self.volume, source, expect=expect, tags=tags, **self._writing(None))

    def base_list(self) -> list[str]:
        """`bases` as the lines of a file, for `have_file` on the other side."""
        from .image.bundle_file import base_lines, have

        return base_lines(self.volume, have(self.volume))

    def bases(self) -> list[tuple[Digest, int]]:
        """Digest and size of each blob that a bundle for this store may leave out."""
        from .image.bundle_file import have

        return [(info.digest, info.size) for info in have(self.volume)]
