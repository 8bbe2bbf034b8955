"""How images come to a store and go from it: registries and bundles. A part of the façade, whose ways it keeps: rooms
below are imported when they are first needed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .digest import Digest
from .errors import NotFound, RemoteFailure
from .model import Progress

if TYPE_CHECKING:
    from .image.bundle import BundleReport
    from .image.copy import CopyReport
    from .image.executor import Executor
    from .image.load import LoadReport
    from .image.mirror import MirrorReport, Row
    from .image.plan import Plan
    from .image.pull import PullReport
    from .image.push import PushReport
    from .image.remote import Remote
    from .store.site import Site
    from .store.volume import Volume


class Distribution:
    """The part of a store that has to do with other places."""

    root: Path
    progress: Progress | None
    _site: Site

    @property
    def volume(self) -> Volume:
        """The store as the rooms below know it."""
        raise NotImplementedError

    def _naming(self) -> contextlib.AbstractContextManager[None]:
        raise NotImplementedError

    def _writing(self, pack: str | None) -> dict[str, Any]:
        raise NotImplementedError

    def _room(self, least: int | None = None) -> int:
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
        """Pull an image from its registry, or a mirror of that. `referrers`: its signatures, SBOMs and the like too, to
        stay as long as it does. `say` is told (layer, what became of it), from any thread."""
        from .image.pull import pull
        from .oci.reference import parse

        name = parse(reference).or_latest()
        more = self._writing(pack) | {"platform": platform, "all_platforms": all_platforms, "referrers": referrers}
        more |= {"say": say, "look": pack != "later"}
        *mirrors, registry = remote.ways(name)
        with self._naming():
            for mirror in mirrors:
                # What has come from one that fails need not come again from the next.
                with contextlib.suppress(NotFound, RemoteFailure):
                    return pull(self.volume, mirror, name, **more)
            return pull(self.volume, registry, name, **more)

    def push(
        self,
        reference: str,
        *,
        remote: Remote,
        source: Digest | str | None = None,
        platform: str | None = None,
        referrers: bool = False,
        compression: str = "gzip",
        say: Callable[[str, str], None] = lambda layer, what: None,
    ) -> PushReport:
        """Push what a name stands for to its registry; `source`: something else of the store, under that name. Of an
        index that is not all here, `platform` picks the image. Plain layers are compressed on the way: with "gzip" to
        the same bytes on every machine, those of docker push; with "zstd" to the same with one version of its library.
        What comes of it is kept for the next push, of gzip hardly more than its digest. "none": they stay plain.
        `referrers`: what refers to it (signatures, SBOMs) goes along; plain layers stay plain then, for that refers to
        the manifest as it is."""
        from .image.push import push
        from .oci.reference import parse

        name = parse(reference).or_latest()
        registry = remote.registry(name, push=True)
        more: dict[str, Any] = {"source": source, "platform": platform, "referrers": referrers}
        more |= {"compression": compression, "writing": lambda: self._writing(None), "progress": self.progress}
        return push(self.volume, registry, name, say=say, **more)

    def mirror(
        self,
        plan: Plan | str | Path | Sequence[str],
        *,
        remote: Remote,
        to: str = "",
        platform: str | None = None,
        referrers: bool = False,
        dry_run: bool = False,
        keep_going: bool = False,
        prune: bool = False,
        recheck: bool = False,
        jobs: int = 4,
        min_free: int | None = None,
        state: str | Path | None = None,
        executor: Executor | None = None,
        say: Callable[[Row], None] = lambda row: None,
    ) -> MirrorReport:
        """Bring what a plan names into the store, and on `to` a registry (`REGISTRY[/PREFIX]`); what is there already
        costs one HEAD a tag. `plan`: a Plan, a file (skopeo-sync's YAML, or TOML), or references: `NAME:TAG`, or `NAME`
        for all tags. What comes of each tag is in the report's rows, failures too; `say` is told of each as it ends.

        `platform`: of indexes, that image alone, where the plan does not say; `referrers`: signatures, SBOMs;
        `dry_run`: only find out; `keep_going`: begin others after one failed; `prune`: take away names, here and there,
        that the source has no longer; `recheck`: ask the target rather than believe the state; `jobs`: images at once;
        `min_free`: bytes of the disk (setting min-free); `state`: the file that remembers what was put where
        (STORE/mirror/…); `executor`: does the work instead of `jobs` threads.

        UsageError, Conflict, BadInput: no such plan; OutOfSpace: stopped before the disk was that full."""
        from .image import mirror as mirrors
        from .image import mirror_state

        options = mirrors.Options(mirrors.check_to(to) if to else "", platform or "", referrers, recheck)
        path = Path(state) if state else self.root / "mirror" / mirror_state.name_of(options.to)
        wanted = plan_of(plan)
        catalog = self._site.catalog
        # Each image is decided by itself: a signal is never too late for the others.
        decided, catalog.on_final = catalog.on_final, None
        kept = mirror_state.State(path, write=not dry_run)
        try:
            tasks = mirrors.Surveyor(catalog, remote, kept, options).run(wanted)
            report = mirrors.MirrorReport([task.row for task in tasks], dry_run)
            if dry_run:
                mirrors.weigh(catalog, remote, tasks)
            elif any(task.row.status != mirrors.SAME for task in tasks):
                from .image import mirror_run
                from .image.executor import Threads

                doing = mirror_run.Doing(keep_going, prune, self._room(min_free))
                writing = self._writing(None)
                with self._naming():
                    run = mirror_run.Run(self.volume, remote, kept, options, doing, **writing)
                    run.run(tasks, executor or Threads(jobs), say)
        finally:
            catalog.on_final = decided
            kept.close()
        return report

    def copy(
        self,
        source: str,
        destination: str,
        *,
        remote: Remote | None = None,
        socket: str | Path | None = None,
        platform: str | None = None,
        all_platforms: bool = False,
        referrers: bool = False,
        preserve_digests: bool = False,
        no_store: bool = False,
        pack: str | None = None,
        say: Callable[[str, str], None] = lambda layer, what: None,
    ) -> CopyReport:
        """Copy an image between two places, as skopeo names them: `docker://REF`, `docker-daemon:REF`,
        `docker-archive:FILE[:REF]`, `oci-archive:FILE[:NAME]`, `oci:DIR[:NAME]`, `dir:DIR`; and `store:REF`. It goes by
        way of this store; `no_store`: from registry to registry without. Of an index it is the image for `platform`, or
        for this machine; `all_platforms`: all of it. `referrers`: between registries and the store, what refers to it
        too. `preserve_digests`: UsageError where the destination has no place for the manifest. `remote` None: a way
        to registries that knows no proxy and nobody's credentials; `socket` None: where docker's engine usually is."""
        more: dict[str, Any] = {
            "platform": platform,
            "all_platforms": all_platforms,
            "referrers": referrers,
            "say": say,
        }
        if no_store:
            return copy_streaming(source, destination, remote=remote, progress=self.progress, **more)
        from .image.copy import copy
        from .transport.engine import SOCKET

        more |= {"remote": remote, "socket": Path(socket or SOCKET), "preserve_digests": preserve_digests}
        more["look"] = None if pack is None else pack != "later"
        with self._naming():
            return copy(self.volume, source, destination, **more | self._writing(pack))

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
        level: int | None = None,
    ) -> BundleReport:
        """Write images to a path or an open descriptor, without what the other side has: the images `have`, the blobs
        in `have_file` (its `base_list`), what the bundle `since` brought. `all_platforms`: all of an index.
        `level`: 1 (fast) to 19 (small); None: by how much it is. What the other side has of a layer in another form,
        compressed or not, counts too."""
        from .image.bundle import create

        more: dict[str, Any] = {"have": have, "have_file": have_file, "since": since, "all_platforms": all_platforms}
        more["level"] = level
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

    def bases(self) -> list[tuple[Digest, int, Digest | None]]:
        """Digest, size and digest of the content (where known) of each blob that a bundle for this store may leave
        out."""
        from .image.bundle_file import have

        return [(info.digest, info.size, info.diffid) for info in have(self.volume)]


def copy_streaming(
    source: str,
    destination: str,
    *,
    remote: Remote | None = None,
    platform: str | None = None,
    all_platforms: bool = False,
    referrers: bool = False,
    say: Callable[[str, str], None] = lambda layer, what: None,
    progress: Progress | None = None,
) -> CopyReport:
    """`Store.copy` with `no_store`, for which no store is needed."""
    from .image.copy import stream
    from .image.remote import Remote

    more: dict[str, Any] = {"platform": platform, "all_platforms": all_platforms, "referrers": referrers, "say": say}
    with contextlib.ExitStack() as stack:
        way = remote or stack.enter_context(Remote())
        return stream(source, destination, remote=way, progress=progress, **more)


def plan_of(given: Plan | str | Path | Sequence[str]) -> Plan:
    """A plan; that of a file (a Path, or a text that ends in .toml, .yaml, .yml, or begins with `/` or `.`): TOML where
    its name ends so, else YAML; that of a reference. Several of these: all of them together."""
    from .image.plan import Plan, of_reference

    if isinstance(given, Plan):
        return given
    if not isinstance(given, str | Path):
        return Plan(tuple(wanted for one in given for wanted in plan_of(one).wanted))
    name = str(given)
    if isinstance(given, str) and not name.endswith((".toml", ".yaml", ".yml")) and not name.startswith(("/", ".")):
        return Plan((of_reference(given),))
    from .image.plan_files import from_toml, read

    text = read(given)
    if name.endswith(".toml"):
        return from_toml(text, name)
    from .image.plan_yaml import from_yaml

    return from_yaml(text, name)


def mirror(
    plan: Plan | str | Path | Sequence[str], *, store: Distribution, remote: Remote, **more: Any
) -> MirrorReport:
    """What a plan names, brought into a store and on to a registry: `Store.mirror`, which see for `more`."""
    return store.mirror(plan, remote=remote, **more)
