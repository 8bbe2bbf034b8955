"""The library's façade: everything that the command line can do, from Python. It prints nothing and reads no
environment.

    with casstore.open("/srv/store") as store:
        store.load("images.tar")
        for image in store.images():
            print(image.repository, image.tag, image.id)

Rooms below are imported when they are first needed: listing a store must not wait for what packs one.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .digest import Digest
from .distribution import Distribution
from .errors import Conflict, Interrupted, OutOfSpace, UsageError
from .format.storefile import StoreFile
from .handles import Blobs, Config
from .image.listing import Filters, ImageSummary
from .image.listing import images as _images
from .model import Cutter, Progress
from .store.site import make_site, open_site, read_store_file

if TYPE_CHECKING:
    from .codec.compression import Limit, Readable
    from .image.history import HistoryLine
    from .image.inside import Change, FileInfo
    from .image.load import LoadReport
    from .image.merged import Merged
    from .image.prune import PruneReport
    from .image.removal import Step
    from .image.verify import VerifyReport
    from .rootfs.folder import Unpacked
    from .store.volume import Volume
    from .upkeep.check import CheckReport
    from .upkeep.df import DfReport
    from .upkeep.gc import GcReport
    from .upkeep.sharing import ImageShare

MIN_CHUNK, MAX_CHUNK = 4 << 10, 256 << 10


def open(
    path: str | Path = "casstore",
    *,
    create: bool = True,
    progress: Progress | None = None,
    decided: Callable[[], None] | None = None,
    remake: bool = False,
) -> Store:
    """Open the store at `path`; with `create`, make it where there is none. StoreUnusable otherwise.

    `remake`: a catalog that is missing or damaged is moved away and made anew, for `check(repair=True)` to fill; else
    that is Damaged.

    `decided` is called just before what a command does becomes visible: to interrupt it from there on is too late.
    """
    return Store(Path(path), create=create, progress=progress, decided=decided, remake=remake)


def inspect_bundle(source: str | Path | int) -> dict[str, Any]:
    """What a bundle, a path or an open descriptor, says of itself; it is read to its end and checked. No store is
    needed."""
    from .image.bundle_file import inspect

    return inspect(source)


def init(
    path: str | Path,
    *,
    chunk_digest: str = "sha256",
    chunk_size: int = 16 << 10,
    decided: Callable[[], None] = lambda: None,
) -> None:
    """Make an empty store. `chunk_size`: average bytes of a chunk, a power of two from 4 KiB to 256 KiB;
    `chunk_digest`: sha256 or blake3. Both are for ever. Conflict where there is a store already. `decided`: see
    `open`."""
    if chunk_digest not in ("sha256", "blake3"):
        raise UsageError(f'unknown chunk digest "{chunk_digest}"', hint="sha256 or blake3")
    if chunk_size & (chunk_size - 1) or not MIN_CHUNK <= chunk_size <= MAX_CHUNK:
        raise UsageError("the chunk size must be a power of two from 4KiB to 256KiB", what=str(chunk_size))
    root = Path(path)
    if read_store_file(root) is not None:
        raise Conflict("there is a store already", what=str(root))
    cutter = Cutter(minimum=chunk_size // 4, average=chunk_size, maximum=chunk_size * 4)
    make_site(root, _new_store(chunk_digest, cutter), decided=decided)


def _new_store(chunk_digest: str = "sha256", cutter: Cutter | None = None) -> StoreFile:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return StoreFile(id=secrets.token_hex(16), created=now, chunk_digest=chunk_digest, cutter=cutter or Cutter())


def _limit(kept: dict[str, str]) -> Limit:
    from .codec.compression import LIMIT
    from .store import settings

    return replace(LIMIT, ratio=settings.ratio(kept["limit.ratio"]), output=settings.size(kept["limit.output"]))


class Store(Distribution):
    """An open store. Any number of threads and processes may work on one store at the same time."""

    def __init__(
        self,
        root: Path,
        *,
        create: bool,
        progress: Progress | None,
        decided: Callable[[], None] | None = None,
        remake: bool = False,
    ) -> None:
        self.root = root
        self.progress = progress
        if remake:
            from .store.refound import refound

            refound(root)
        self._site = open_site(root, create=_new_store() if create else None, remake=remake)
        self._site.catalog.on_final = decided
        self._stop = threading.Event()
        self.blobs = Blobs(self)
        self.config = Config(self)

    # -- the common part

    @cached_property
    def volume(self) -> Volume:
        """The store as the rooms below know it."""
        from .store.volume import Volume

        return Volume(self._site)

    def close(self) -> None:
        """Close all files. The store may not be used afterwards."""
        if "volume" in self.__dict__:
            self.volume.close()
        self._site.close()

    def stop(self) -> None:
        """Ask a running gc or check, in another thread, to stop at the next step (Interrupted)."""
        self._stop.set()

    def _check(self) -> None:
        if self._stop.is_set():
            raise Interrupted("interrupted; nothing was lost")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def _naming(self, *, now: bool = False) -> Iterator[None]:
        """Around what may change names or settings: their copy outside the catalog is brought up to date. `now`: even
        a large one."""
        from .store import references

        try:
            yield
        finally:
            references.refresh(self._site.catalog, self._site.objects, now=now)

    def _writing(self, pack: str | None) -> dict[str, Any]:
        """What every command that brings content needs to know; OutOfSpace where the disk is nearly full."""
        from .store import settings

        self._room()
        with self._site.catalog.read() as tx:
            kept = settings.everything(tx)
        return {
            "pack": pack or "plain",
            "codec": kept["compression"],
            "limit": _limit(kept),
            "trace_limit": settings.share(kept["trace.limit"]),
            "progress": self.progress,
        }

    def _room(self, least: int | None = None) -> int:
        """The bytes of the disk that must stay free: `least`, else as the setting says. OutOfSpace where they are not
        now."""
        from .store import settings

        with self._site.catalog.read() as tx:
            said = settings.get(tx, "min-free")
        free, wanted = self._site.objects.free(), settings.size(said) if least is None else least
        if free < wanted:
            raise OutOfSpace(
                f"only {free} bytes are free, less than min-free ({said if least is None else least})",
                what=str(self.root),
                hint="make room, or casstore config set min-free",
            )
        return wanted

    def _limit(self) -> Limit:
        """What one compressed stream may become."""
        from .store import settings

        with self._site.catalog.read() as tx:
            return _limit(settings.everything(tx))

    # -- images

    def load(
        self,
        source: str | Path | int,
        *,
        platform: str | None = None,
        all_platforms: bool = False,
        pack: str | None = None,
    ) -> LoadReport:
        """Load images from an archive: a path or an open descriptor. All of it, or nothing."""
        from .image.load import load

        with self._naming():
            return load(self.volume, source, platform=platform, all_platforms=all_platforms, **self._writing(pack))

    def save(self, references: Sequence[str], out: str | Path | int, *, format: str = "docker-archive") -> None:
        """Save images to a path or an open descriptor; `format`: docker-archive or oci-archive."""
        from .image.save import save

        save(self.volume, references, out, format=format, progress=self.progress)

    def import_image(
        self,
        source: str | Path | int,
        reference: str | None = None,
        *,
        changes: Sequence[str] = (),
        message: str = "",
        platform: str | None = None,
        pack: str | None = None,
        downloading: Callable[[str], None] = lambda url: None,
    ) -> Digest:
        """Make an image of a root file system's tar (a path, an open descriptor or a URL); returns its ID. `changes`:
        Dockerfile instructions for its configuration (`CMD ["sh"]`). `downloading` is told the URL when it begins."""
        from .image.importing import import_image

        def fetch(url: str) -> contextlib.AbstractContextManager[Readable]:
            from .flow.source import public_url
            from .transport.download import open_url

            downloading(public_url(url))
            return open_url(url)

        more = self._writing(pack) | {"changes": changes, "message": message, "wanted": platform, "fetch": fetch}
        with self._naming():
            return import_image(self.volume, source, reference, **more)

    def images(self, pattern: str | None = None, *, all: bool = False, filters: Filters = ()) -> list[ImageSummary]:
        """The images, newest first."""
        return _images(self._site.catalog, pattern, everything=all, filters=filters)

    def tag(self, source: str, target: str) -> None:
        """Give an image a (further) name."""
        from .image.tags import tag

        with self._naming():
            tag(self._site.catalog, source, target)

    def remove(self, references: Iterable[str], *, force: bool = False, prune: bool = True) -> Iterator[Step]:
        """Remove names, and images that have none left; yields ("Untagged" | "Deleted" | "Error", text)."""
        from .image.tags import remove

        with self._naming():
            yield from remove(self.volume, references, force=force, prune=prune)

    def prune(self, *, all: bool = False, filters: Filters = (), dry_run: bool = False) -> PruneReport:
        """Remove the images without a name, or with `all` every image. `filters`: until, label, label!, dangling."""
        from .image.prune import prune

        with self._naming() if not dry_run else contextlib.nullcontext():
            return prune(self.volume, everything=all, filters=filters, dry_run=dry_run)

    def identify(self, reference: str) -> Digest:
        """The manifest that a reference means now, on this platform. NotFound."""
        from .image.resolve import resolve

        with self._site.catalog.read() as tx:
            return resolve(tx, reference).image.manifest

    def history(self, reference: str) -> list[HistoryLine]:
        """The steps that an image was made in, newest first."""
        from .image.history import history

        return history(self.volume, reference)

    def inspect(self, reference: str) -> dict[str, Any]:
        """All that is known of an image, under docker's keys."""
        from .image.inspect import inspect

        return inspect(self.volume, reference)

    def verify(self, reference: str) -> VerifyReport:
        """Read every blob of an image back and compare it with its digest."""
        from .image.verify import verify

        return verify(self.volume, reference)

    # -- inside images

    def export(self, reference: str, out: str | Path | int) -> None:
        """An image's merged file system as one tar, to a path or an open descriptor."""
        from .image.rootfs import export

        export(self.volume, reference, out, limit=self._limit(), progress=self.progress)

    def unpack(self, reference: str, target: str | Path) -> Unpacked:
        """An image's merged file system into an empty folder; tells what could not be made as the image has it."""
        from .image.rootfs import unpack

        return unpack(self.volume, reference, target, limit=self._limit(), progress=self.progress)

    def files(self, reference: str) -> Merged:
        """The merged file system of an image, for reading: a context manager, for `ls` and `cat`."""
        from .image.merged import Merged

        return Merged(self.volume, reference, purpose="files", limit=self._limit(), progress=self.progress)

    def ls(self, reference: str, path: str | bytes = "/", *, recursive: bool = False) -> list[FileInfo]:
        """What is in a folder of an image, by name."""
        from .image.inside import ls

        with self.files(reference) as files:
            return list(ls(files, path, recursive=recursive))

    def cat(self, reference: str, path: str | bytes, start: int = 0, end: int | None = None) -> Iterator[memoryview]:
        """A file's bytes [start, end), out of an image."""
        from .image.inside import cat

        with self.files(reference) as files:
            yield from cat(files, path, start, end)

    def diff(self, old: str, new: str, *, times: bool = False) -> list[Change]:
        """What differs between the file systems of two images; with `times` also where only a file's time does."""
        from .image.inside import diff

        return diff(self.volume, old, new, times=times, limit=self._limit(), progress=self.progress)

    # -- upkeep

    def gc(
        self,
        *,
        dry_run: bool = False,
        grace: float | None = None,
        max_time: float | None = None,
        max_bytes: int | None = None,
    ) -> GcReport:
        """Collect what nothing needs, then pack and repack. `grace`: seconds (600); `max_time`: seconds (pack.budget),
        and `max_bytes` of blobs and packs, for packing and repacking: what they leave is for the next."""
        from .store import settings
        from .upkeep.gc import GRACE, gc

        with self._site.catalog.read() as tx:
            kept = settings.everything(tx)
        with self._naming(now=True) if not dry_run else contextlib.nullcontext():
            return gc(
                self.volume,
                dry_run=dry_run,
                grace=GRACE if grace is None else grace,
                max_time=settings.seconds(kept["pack.budget"]) if max_time is None else max_time,
                max_bytes=max_bytes,
                codec=kept["compression"],
                trace_limit=settings.share(kept["trace.limit"]),
                check=self._check,
                progress=self.progress,
            )

    def check(self, *, read_data: bool = False, repair: bool = False) -> CheckReport:
        """Check every object and blob; with `read_data` every byte; with `repair` mend what can be."""
        from .store import settings
        from .upkeep.check import check

        with self._site.catalog.read() as tx:
            codec = settings.get(tx, "compression")
        with self._naming(now=True) if repair else contextlib.nullcontext():
            return check(
                self.volume, read_data=read_data, repair=repair, codec=codec, stop=self._check, progress=self.progress
            )

    def df(self, *, verbose: bool = True) -> DfReport:
        """What the store holds and takes; with `verbose` for each image too."""
        from .image.content import per_image
        from .upkeep.df import df

        return df(self.volume, (lambda: per_image(self.volume)) if verbose else None)

    def sharing(self) -> list[ImageShare]:
        """What each layer of each image takes in the store, and how much of it no other image needs."""
        from .image.layers import stacks
        from .upkeep.sharing import sharing

        return sharing(self.volume, stacks(self.volume))
