"""`mirror`, carried out: each tag into the store and on to the target, several at once; then what is gone goes too."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import CasstoreError, Conflict, Interrupted, NotFound, OutOfSpace
from ..model import Progress
from ..oci.reference import Reference
from ..store import names
from ..store.volume import Volume
from ..transport.turns import Turns
from .executor import Executor
from .mirror import CHANGED, FAILED, GONE, NEW, Options, Row, Task
from .mirror_state import Put, State
from .pull import pull
from .push import push
from .remote import Remote
from .tags import remove

_LOOK = 0.25
"""Seconds between looks at how full the disk is."""
_WAKE = 0.05
MAX_SAME = 2000
"""Tags of a target that are asked what they stand for, before a manifest is deleted by its digest."""


@dataclass(frozen=True, slots=True)
class Doing:
    """How a plan is carried out. `keep_going`: begin others after one failed; `prune`: take away what is gone;
    `min_free`: bytes of the disk that stay free."""

    keep_going: bool = False
    prune: bool = False
    min_free: int = 0


class Run:
    """One plan being carried out. `writing`: as Ingest takes it."""

    def __init__(
        self,
        volume: Volume,
        remote: Remote,
        state: State,
        options: Options,
        doing: Doing,
        *,
        progress: Progress | None = None,
        **writing: Any,
    ) -> None:
        self._volume = volume
        self._remote = remote
        self._state = state
        self._options = options
        self._doing = doing
        self._progress = progress
        self._writing = writing
        self._looked = 0.0
        self._coming, self._going = Turns(self._alive, sure=True), Turns(self._alive, sure=True)
        self._stop = threading.Event()
        self._full = ""
        self._interrupted = self._killed = False

    def run(self, tasks: Sequence[Task], executor: Executor, say: Callable[[Row], None]) -> None:
        """Bring about what the tasks say; their rows say afterwards what came of it. `say` is told of each, in the
        caller's thread. A failure of one is in its row; OutOfSpace where the disk is nearly full: then no other was
        begun."""
        wanted = [task for task in tasks if task.row.status in (NEW, CHANGED)]
        for task in tasks:
            if task.row.status == FAILED:
                self._failed()
                say(task.row)
        results = executor.run(self._copy, wanted)
        ended = threading.Event()
        try:
            for task in results:
                say(task.row)
        except BaseException:
            self._stop.set()
            self._killed = True
            threading.Thread(target=self._wake_until, args=(ended,), name="mirror wake", daemon=True).start()
            raise
        finally:
            if isinstance(results, Generator):
                results.close()
            ended.set()
        if self._interrupted:
            raise Interrupted("interrupted; what was done stays done")
        if self._full:
            raise OutOfSpace(self._full, what=str(self._volume.root), hint="make room, or give another --min-free")
        if self._doing.prune and not self._stop.is_set():
            for task in tasks:
                if task.row.status == GONE:
                    self._prune(task)
                    say(task.row)

    def _wake_until(self, ended: threading.Event) -> None:
        """Whoever waits for a server does so no longer: the run is to end."""
        while not ended.wait(_WAKE):
            self._remote.http.wake()

    def _alive(self) -> None:
        if self._killed:
            raise Interrupted("interrupted")

    def _failed(self) -> None:
        if not self._doing.keep_going:
            self._stop.set()

    # -- one tag

    def _copy(self, task: Task) -> Task:
        row = task.row
        if self._stop.is_set():
            row.outcome = "not begun"
            return task
        try:
            self._look()
            self._bring(task)
            row.outcome = "done"
        except OutOfSpace as error:
            self._full = error.message
            self._stop.set()
            row.outcome, row.error = "failed", str(error)
        except Interrupted as error:
            self._stop.set()
            self._interrupted = True
            row.outcome, row.error = "failed", str(error)
        except CasstoreError as error:
            row.outcome, row.error = "failed", str(error)
            self._failed()
        return task

    def _bring(self, task: Task) -> None:
        row, digest = task.row, task.row.digest
        if digest is None:
            raise NotFound("nothing is known of it", what=str(row.source))
        platform = task.how.partition("+")[0]
        more: dict[str, Any] = {"platform": None if platform == "all" else platform}
        if self._options.referrers:
            more["referrers"] = True
        source = Reference(row.source.domain, row.source.path, digest=digest)
        origin = self._remote.registry(row.source, access=task.wanted.access).part(self._coming)
        report = pull(
            self._volume,
            origin,
            source,
            all_platforms=platform == "all",
            tags=[row.source] if row.source.tag else None,
            progress=self._watching,
            look=False,  # gc does, when there is less to do
            **more,
            **self._writing,
        )
        row.fetched = report.fetched
        here, there = task.keys
        if row.target is not None:
            registry = self._remote.registry(row.target, push=True).part(self._going)
            registry.absent = origin.asked
            sent = push(
                self._volume,
                registry,
                row.target,
                source=digest,
                compression="none",  # as it was at the source, to the byte
                progress=self._watching,
                **more,
            )
            row.sent = sent.sent
            self._state.put(there, Put(digest, sent.digest, task.how))
        self._state.put(here, Put(digest, digest, task.how))

    # -- room

    def _watching(self, what: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now - self._looked > _LOOK:
            self._looked = now
            self._look()
        if self._progress is not None:
            self._progress(what, done, total)

    def _look(self) -> None:
        if not self._doing.min_free:
            return
        free = self._volume.objects.free()
        if free < self._doing.min_free:
            raise OutOfSpace(f"only {free} bytes are free, less than {self._doing.min_free}")

    # -- what is gone

    def _prune(self, task: Task) -> None:
        """A name that the source has no longer, taken away here and at the target."""
        row = task.row
        here, there = task.keys
        try:
            if row.target is not None and self._state.find(there) is not None:
                self._delete(row, row.target)
                if not row.warning:
                    self._state.gone(there)
            with self._volume.catalog.read() as tx:
                named = names.find_tag(tx, row.source.repository, row.source.tag) is not None
            for step in remove(self._volume, [str(row.source)] if named else []):
                if step.verb == "Error":
                    raise Conflict(step.text)
            self._state.gone(here)
            row.outcome = "removed"
        except CasstoreError as error:
            row.outcome, row.error = "failed", str(error)

    def _delete(self, row: Row, target: Reference) -> None:
        """A tag at the target: by itself where the registry does that, else with its manifest, unless other tags have
        that one too."""
        registry, path = self._remote.registry(target, push=True), target.path
        try:
            registry.delete_manifest(path, target.tag)
            return
        except NotFound:
            return
        except Conflict:
            pass
        try:
            head = registry.head(path, target.tag)
            if head is None:
                return
            digest = head.digest or registry.manifest(path, target.tag).digest
            others = [tag for tag in registry.tags(path) if tag != target.tag]
            if len(others) > MAX_SAME:
                row.warning = "the registry deletes no tags, and there are too many that may share its manifest"
                return
            for tag in others:
                other = registry.head(path, tag)
                if other is not None and other.digest in (None, digest):
                    row.warning = f"the registry deletes no tags, and {tag} has the same manifest"
                    return
            registry.delete_manifest(path, str(digest))
        except NotFound:
            return
        except Conflict as error:
            row.warning = error.message
