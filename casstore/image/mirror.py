"""`mirror`, its plan: what of the wanted tags is new, changed, the same or gone. One HEAD for each tag, a list for each
repository of which not all tags are named.

Light: a run that finds nothing to do needs no more than this.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

from ..digest import Digest
from ..errors import BadInput, CasstoreError, NotFound, UsageError
from ..oci import config as oci_config
from ..oci import manifest as oci_manifest
from ..oci import platform as oci_platform
from ..oci import reference
from ..oci.manifest import Index, Manifest
from ..oci.reference import Reference
from ..store import names
from ..store.catalog import Catalog, Tx
from ..transport.registry import Registry
from .executor import Threads
from .mirror_state import State
from .plan import Plan, Wanted, check_targets
from .remote import Remote

ASKERS = 8
"""Questions that are put to registries at once."""
NEW, CHANGED, SAME, GONE, FAILED = "new", "changed", "same", "gone", "failed"
HERE = "store:"
"""What the state calls a name in the store."""


@dataclass(slots=True)
class Row:
    """One tag (or digest) of a mirror. `status`: new, changed, same, gone, or failed where the source could not be
    asked; `size`: bytes of blobs to fetch, None where that was not found out. `outcome`, of a run: "" (nothing to do),
    done, removed, failed, not begun; `error` and `warning` say why; `fetched` and `sent`: bytes."""

    source: Reference
    target: Reference | None
    status: str
    digest: Digest | None = None
    size: int | None = None
    outcome: str = ""
    error: str = ""
    warning: str = ""
    fetched: int = 0
    sent: int = 0

    @property
    def failed(self) -> bool:
        """Does it make the whole run one that failed?"""
        return bool(self.error)

    def plain(self) -> dict[str, Any]:
        """As JSON values, under docker's kind of keys."""
        return {
            "Source": str(self.source),
            "Target": str(self.target) if self.target else "",
            "Status": self.status,
            "Digest": str(self.digest) if self.digest else "",
            "Size": self.size,
            "Outcome": self.outcome,
            "Error": self.error,
            "Warning": self.warning,
            "Fetched": self.fetched,
            "Sent": self.sent,
        }


@dataclass(frozen=True, slots=True)
class MirrorReport:
    """What a mirror found and did: a row for each tag, in the plan's order."""

    rows: list[Row]
    dry_run: bool

    def count(self, *, status: str = "", outcome: str = "") -> int:
        """How many rows are of a status, or came out so."""
        return sum(
            (not status or row.status == status) and (not outcome or row.outcome == outcome) for row in self.rows
        )

    @property
    def failed(self) -> int:
        """Rows that went wrong, or could not be asked about."""
        return sum(row.failed for row in self.rows)

    @property
    def size(self) -> int:
        """Bytes that are to be fetched, of the rows of which that is known."""
        return sum(row.size or 0 for row in self.rows)

    @property
    def fetched(self) -> int:
        """Bytes of blobs that came over."""
        return sum(row.fetched for row in self.rows)

    @property
    def sent(self) -> int:
        """Bytes of blobs that were given to the target."""
        return sum(row.sent for row in self.rows)


@dataclass(slots=True)
class Task:
    """A row, and what must be known to bring it about."""

    row: Row
    wanted: Wanted
    how: str
    """How it is taken: `all`, or a platform; `+referrers`."""

    @property
    def keys(self) -> tuple[str, str]:
        """What the state calls it: in the store, and at the target ("" for none)."""
        return f"{HERE}{self.row.source}", str(self.row.target) if self.row.target else ""


@dataclass(frozen=True, slots=True)
class Options:
    """What holds for a whole mirror. `to`: where it goes, a registry with a prefix or "" for the store alone;
    `platform`: of indexes, where a plan does not say; `recheck`: ask the target, too, rather than believe the state."""

    to: str = ""
    platform: str = ""
    referrers: bool = False
    recheck: bool = False

    def how(self, wanted: Wanted) -> str:
        return (wanted.platform or self.platform or "all") + ("+referrers" if self.referrers else "")


def check_to(text: str) -> str:
    """`REGISTRY[/PREFIX]` as people write it → without scheme and slashes. UsageError."""
    plain = text.removeprefix("docker://").rstrip("/")
    try:
        found = reference.parse(f"{plain}/x")
    except CasstoreError as error:
        raise UsageError(f"not a registry with a prefix: {error.message}", what=text[:200]) from None
    first = plain.partition("/")[0]
    if found.tag or found.digest or not ("." in first or ":" in first or first == "localhost"):
        raise UsageError("not a registry with a prefix, such as registry.example:5000/mirror", what=text[:200])
    return plain


@dataclass(slots=True)
class _Repository:
    """One repository being surveyed."""

    wanted: Wanted
    registry: Registry
    target: Reference | None
    listed: list[str] | None = None
    error: str = ""
    refs: list[str] = field(default_factory=list)


class _Found(NamedTuple):
    """What a tag stands for at the source; None: there is none."""

    repository: _Repository
    ref: str
    digest: Digest | None
    error: str = ""


class Surveyor:
    """Finds out what is to be done."""

    def __init__(self, catalog: Catalog, remote: Remote, state: State, options: Options) -> None:
        self._catalog = catalog
        self._remote = remote
        self._state = state
        self._options = options
        self._threads = Threads(ASKERS)

    def run(self, plan: Plan) -> list[Task]:
        """All tags in their order, and what is to become of each. What a registry does not tell is a row that failed;
        UsageError, Conflict: the plan cannot be."""
        check_targets(plan)
        repositories = [self._repository(wanted) for wanted in plan.wanted]
        for _ in self._threads.run(self._list, [one for one in repositories if one.wanted.choice.needs_list]):
            pass
        asked = [(one, ref) for one in repositories if not one.error for ref in self._refs(one)]
        answers = {(id(one.repository), one.ref): one for one in self._threads.run(self._ask, asked)}
        tasks: dict[tuple[Reference, Reference | None], Task] = {}
        with self._catalog.read() as tx:
            for repository in repositories:
                mine = [answers[id(repository), ref] for ref in repository.refs]
                for task in self._tasks(tx, repository, mine):
                    tasks.setdefault((task.row.source, task.row.target), task)
        found = list(tasks.values())
        if self._options.recheck:
            found = self._recheck(found)
        return found

    # -- asking

    def _repository(self, wanted: Wanted) -> _Repository:
        target = None
        if self._options.to:
            try:
                target = reference.parse(f"{self._options.to}/{wanted.target or wanted.repository.path}")
            except CasstoreError as error:
                raise UsageError(f"cannot go there: {error.message}", what=wanted.where or None) from None
        registry = self._remote.registry(wanted.repository, access=wanted.access)
        return _Repository(wanted, registry, target)

    def _list(self, one: _Repository) -> None:
        try:
            one.listed = one.registry.tags(one.wanted.repository.path)
        except CasstoreError as error:
            one.error = f"cannot list its tags: {error.message}"

    def _refs(self, one: _Repository) -> list[str]:
        choice = one.wanted.choice
        one.refs = list(choice.exact) if one.listed is None else choice.by_name(one.listed)
        return one.refs

    def _ask(self, item: tuple[_Repository, str]) -> _Found:
        one, ref = item
        if ":" in ref:
            return _Found(one, ref, Digest.parse(ref))
        path = one.wanted.repository.path
        try:
            head = one.registry.head(path, ref)
            digest = head and (head.digest or one.registry.manifest(path, ref).digest)
        except NotFound:
            digest = None
        except CasstoreError as error:
            return _Found(one, ref, None, str(error))
        return _Found(one, ref, digest)

    # -- deciding

    def _tasks(self, tx: Tx, one: _Repository, found: list[_Found]) -> Iterable[Task]:
        if one.error:
            yield self._task(one, Row(one.wanted.repository, one.target, FAILED, error=one.error))
            return
        choice = one.wanted.choice
        broken = [each for each in found if each.error]
        for each in broken:
            yield self._task(one, self._row(one, each.ref, FAILED, error=each.error))
        here = [each for each in found if not each.error and each.digest is not None]
        if choice.needs_dates and not broken:
            here, failed = self._dated(tx, one, here)
            for ref, error in failed.items():
                yield self._task(one, self._row(one, ref, FAILED, error=error))
        for each in here:
            row = self._row(one, each.ref, NEW, digest=each.digest)
            task = self._task(one, row)
            if each.digest is not None:
                row.status = self._status(tx, task, each.digest)
            yield task
        yield from self._gone(one, found)

    def _task(self, one: _Repository, row: Row) -> Task:
        return Task(row, one.wanted, self._options.how(one.wanted))

    def _row(self, one: _Repository, ref: str, status: str, **more: Any) -> Row:
        def at(name: Reference) -> Reference:
            return replace(name, digest=Digest.parse(ref)) if ":" in ref else replace(name, tag=ref)

        return Row(at(one.wanted.repository), at(one.target) if one.target else None, status, **more)

    def _status(self, tx: Tx, task: Task, digest: Digest) -> str:
        row = task.row
        here_key, there_key = task.keys
        if row.source.digest is not None:
            here = digest if names.pins(tx, digest) or names.tags(tx, target=digest) else None
        else:
            here = names.find_tag(tx, row.source.repository, row.source.tag)
        kept = [self._state.find(key) for key in (here_key, there_key) if key]
        if here == digest and all(put and put.source == digest and put.how == task.how for put in kept):
            return SAME
        return CHANGED if here is not None or any(kept) else NEW

    def _gone(self, one: _Repository, found: list[_Found]) -> Iterable[Task]:
        """What we took from the source once, and it has no longer. A tag that was named and never was there is a
        failure."""
        repository, choice = one.wanted.repository, one.wanted.choice
        known = set(self._state.below(f"{HERE}{repository}"))
        if one.target is not None:
            known.update(self._state.below(str(one.target)))
        if one.listed is not None:
            lacking = {tag for tag in known if choice.fits(tag)}.difference(one.listed)
            lacking.update(each.ref for each in found if each.digest is None and not each.error and each.ref in known)
        else:
            lacking = {each.ref for each in found if each.digest is None and not each.error}
        for ref in sorted(lacking):
            row = self._row(one, ref, GONE)
            if ref not in known:
                row = replace(row, status=FAILED, error=f"manifest for {row.source.familiar()} not found")
            yield self._task(one, row)

    def _recheck(self, tasks: list[Task]) -> list[Task]:
        """Ask the target what it has: what is not as the state says has changed. With referrers, all is gone through
        once more, for they come and go without a change of anything else."""

        def ask(task: Task) -> None:
            row = task.row
            if row.status != SAME:
                return
            if self._options.referrers:
                row.status = CHANGED
            if row.target is None:
                return
            put = self._state.find(str(row.target))
            try:
                registry = self._remote.registry(row.target, push=True)
                head = registry.head(row.target.path, row.target.tag or str(row.target.digest))
            except CasstoreError as error:
                row.status, row.error = FAILED, str(error)
                return
            if head is None or put is None or (head.digest is not None and head.digest != put.target):
                row.status = CHANGED

        for _ in self._threads.run(ask, tasks):
            pass
        return tasks

    # -- dates

    def _dated(self, tx: Tx, one: _Repository, found: list[_Found]) -> tuple[list[_Found], dict[str, str]]:
        """Those that are chosen by when they were made; and, by tag, why that could not be found out. Then none are
        chosen by their number, for it might be the wrong ones."""
        made: dict[str, datetime | None] = {}
        unknown: list[_Found] = []
        for each in found:
            moment = each.digest and (self._state.made(each.digest) or _stored_date(tx, each.digest))
            if moment is None:
                unknown.append(each)
            else:
                made[each.ref] = moment
        failed: dict[str, str] = {}
        for each, moment, error in self._threads.run(partial(self._fetch_date, one), unknown):
            if error:
                failed[each.ref] = error
            else:
                made[each.ref] = moment
                if moment is not None and each.digest is not None:
                    self._state.date(each.digest, moment)
        if failed and one.wanted.choice.newest is not None:
            return [], failed
        order = [(each.ref, made[each.ref]) for each in found if each.ref in made]
        chosen = dict.fromkeys(one.wanted.choice.by_date(order))
        by_ref = {each.ref: each for each in found}
        return [by_ref[ref] for ref in chosen], failed

    def _fetch_date(self, one: _Repository, each: _Found) -> tuple[_Found, datetime | None, str]:
        try:
            return each, made_at(one.registry, one.wanted.repository.path, str(each.digest)), ""
        except CasstoreError as error:
            return each, None, str(error)


def _stored_date(tx: Tx, digest: Digest) -> datetime | None:
    """When an image was made that is here; of an index, one of its images."""
    image = names.find_image(tx, digest)
    for child in names.children(tx, digest) if image is None else ():
        image = image or names.find_image(tx, child)
    return parse_date(image.created) if image is not None else None


def made_at(registry: Registry, path: str, ref: str) -> datetime | None:
    """When the image of a manifest (of an index: the one for this machine, else the first) was made, as its config
    says; None where it does not."""
    for _ in range(3):
        fetched = registry.manifest(path, ref)
        document = oci_manifest.parse(
            fetched.raw, f"{registry.domain}/{path}@{ref}", fetched.media_type, fetched.digest
        )
        if isinstance(document, Manifest):
            if not document.is_image:
                return None
            raw = registry.document(path, document.config)
            found = oci_config.parse(raw, f"{registry.domain}/{path}@{ref}: config", document.config.digest)
            return parse_date(found.created)
        below = oci_platform.select(document.manifests, oci_platform.host()) or next(iter(document.manifests), None)
        if below is None:
            return None
        ref = str(below.digest)
    raise BadInput("indexes are nested too deeply", what=f"{registry.domain}/{path}")


def parse_date(text: str) -> datetime | None:
    """RFC 3339 → aware; None for what is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def weigh(catalog: Catalog, remote: Remote, tasks: Sequence[Task]) -> None:
    """Find out how many bytes are to be fetched: a request or more for each tag that is to be taken over. What several
    need counts for the first."""
    seen: set[Digest] = set()

    def blobs(task: Task) -> tuple[Task, dict[Digest, int] | None]:
        registry = remote.registry(task.wanted.repository, access=task.wanted.access)
        try:
            return task, _below(registry, task)
        except CasstoreError:
            return task, None

    wanted = [task for task in tasks if task.row.status in (NEW, CHANGED)]
    found = {id(task): sizes for task, sizes in Threads(ASKERS).run(blobs, wanted)}
    with catalog.read() as tx:
        for task in wanted:
            sizes = found[id(task)]
            if sizes is not None:
                lacking = {one: size for one, size in sizes.items() if one not in seen and not names.is_live(tx, one)}
                seen.update(lacking)
                task.row.size = sum(lacking.values())


def _below(registry: Registry, task: Task) -> dict[Digest, int]:
    """The blobs of a task, with their sizes; manifests are not counted."""
    path = task.wanted.repository.path
    platform = task.how.partition("+")[0]
    found: dict[Digest, int] = {}
    queue, seen = [str(task.row.digest)], set[str]()
    while queue:
        ref = queue.pop()
        if ref in seen or len(seen) > 1000:
            continue
        seen.add(ref)
        fetched = registry.manifest(path, ref)
        document = oci_manifest.parse(fetched.raw, f"{path}@{ref}", fetched.media_type, fetched.digest)
        if isinstance(document, Index):
            below: Sequence[oci_manifest.Descriptor] = document.manifests
            if platform != "all":
                one = oci_platform.select(below, oci_platform.parse(platform))
                below = [one] if one is not None else []
            queue += [str(each.digest) for each in below]
        else:
            found |= {each.digest: each.size for each in document.children}
    return found
