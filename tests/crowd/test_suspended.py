"""Each command stopped before each of its transactions and each of its steps on files, while another process does
something; then it goes on. Where its lease held, it succeeds; where it did not, it may fail with LeaseLost and has
changed nothing. Nobody ever misses anything.

CROWD_SHARE: of all points how many are tried (0 to 1), taken at random by CROWD_SEED.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sample
from client import Api
from expected import Expected
from population import population
from shrink import shrink

from casstore import api
from casstore.digest import Digest
from casstore.errors import LeaseLost
from casstore.store import protocol
from casstore.store.catalog import Catalog
from casstore.store.objects import Objects

SHARE = float(os.environ.get("CROWD_SHARE", 0.1))
SEED = int(os.environ.get("CROWD_SEED", secrets.randbelow(1 << 30)))
MEMORY = Path("/dev/shm")

KEPT = population("suspended", 4, 6000)
HERE, GOES, COMES, OTHER = (KEPT[4 * n : 4 * n + 4] for n in range(4))
"""Images in all forms: those that are there and stay, that others remove, that are loaded, that others load."""
STEPS = (
    "stage",
    "publish",
    "open",
    "stat",
    "list",
    "delete",
    "make_staging",
    "remove_staging",
    "read_file",
    "write_file",
)
BLOB = COMES[0].layers[0] + b"a blob of its own"


class Points:
    """Counts what a command does; at point number `at` (from 1) `act` runs once, in the command's own thread."""

    def __init__(self, at: int = 0, act: Callable[[], Any] = lambda: None) -> None:
        self.count = 0
        self.at = at
        self.act = act
        self._lock = threading.Lock()
        self._own = threading.local()

    def __call__(self) -> None:
        if getattr(self._own, "busy", 0):
            return
        with self._lock:
            self.count += 1
            hit = self.count == self.at
        if hit:
            with self.busy():
                self.act()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """What this thread does now does not count: it is another's, or holds the write lock."""
        self._own.busy = getattr(self._own, "busy", 0) + 1
        try:
            yield
        finally:
            self._own.busy -= 1

    def watch(self, put: pytest.MonkeyPatch) -> None:
        points, read, write = self, Catalog.read, Catalog.write

        @contextmanager
        def reading(catalog: Catalog) -> Iterator[Any]:
            points()
            with read(catalog) as tx:
                yield tx

        @contextmanager
        def writing(catalog: Catalog, *given: Any, **more: Any) -> Iterator[Any]:
            points()
            with points.busy(), write(catalog, *given, **more) as tx:
                yield tx

        put.setattr(Catalog, "read", reading)
        put.setattr(Catalog, "write", writing)
        for name in STEPS:
            put.setattr(Objects, name, points.step(getattr(Objects, name)))

    def step(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        def step(*given: Any, **more: Any) -> Any:
            self()
            return plain(*given, **more)

        return step


# -- commands


@dataclass(frozen=True)
class Command:
    run: Callable[[api.Store, Path], Any]
    then: Callable[[Expected], Any] = lambda expected: None


def load(one: Any, names: list[str], *, pack: str = "now", pipe: bool = False) -> Command:
    def run(store: api.Store, scratch: Path) -> None:
        (scratch / "in").write_bytes(one.archive(names))
        Api(store).load(scratch / "in", pack, pipe)

    return Command(run, lambda expected: expected.load(one, names))


def put(pack: str) -> Command:
    def run(store: api.Store, scratch: Path) -> None:
        (scratch / "in").write_bytes(BLOB)
        store.blobs.put(scratch / "in", pack=pack)

    return Command(run, lambda expected: expected.pinned.update({sample.digest(BLOB): BLOB}))


def save(form: str) -> Command:
    def run(store: api.Store, scratch: Path) -> None:
        store.save(["here:1"], scratch / "out", format=form)
        assert HERE[1].differs((scratch / "out").read_bytes(), ["here:1"]) == ""

    return Command(run)


def cat(store: api.Store, _: Path) -> None:
    for digest, data in HERE[1].blobs.items():
        assert b"".join(store.blobs.cat(Digest.parse(digest))) == data
        assert b"".join(store.blobs.cat(Digest.parse(digest), 1, len(data) - 1)) == data[1:-1]


def verify(store: api.Store, _: Path) -> None:
    assert store.verify("here:1").ok


def check(**more: bool) -> Command:
    def run(store: api.Store, _: Path) -> None:
        assert store.check(**more).findings == []

    return Command(run)


def rmi(name: str) -> Command:
    def run(store: api.Store, _: Path) -> None:
        assert "Error" not in [step.verb for step in store.remove([name], force=True)]

    return Command(run, lambda expected: expected.untag(name))


COMMANDS = {
    "load": load(COMES[1], ["comes:1"]),
    "load from a pipe": load(COMES[1], ["comes:1"], pipe=True),
    "load --pack later": load(COMES[1], ["comes:1"], pack="later"),
    "load a docker archive": load(COMES[0], ["comes:1", "here:1"]),
    "load gzip": load(COMES[2], ["comes:1"]),
    "load an index": load(COMES[3], []),
    "load again": load(HERE[1], ["here:1"]),
    "save": save("docker-archive"),
    "save --format oci-archive": save("oci-archive"),
    "blob cat": Command(cat),
    "verify": Command(verify),
    "blob put": put("now"),
    "blob put, loose": put("later"),
    "tag": Command(
        lambda store, _: store.tag("here:1", "tagged:1"), lambda expected: expected.point("tagged:1", HERE[1])
    ),
    "rmi": rmi("here:2"),
    "image prune": Command(lambda store, _: store.prune()),
    "gc": Command(lambda store, _: store.gc(grace=0.0)),
    "check": check(),
    "check --read-data": check(read_data=True),
    "check --repair": check(repair=True),
    "df": Command(lambda store, _: store.df()),
}

# -- what others do meanwhile


def gc(other: api.Store, expected: Expected) -> None:
    """Everything lies elsewhere then."""
    other.gc(grace=0.0)


def lose(other: api.Store, expected: Expected) -> None:
    """The time of all leases is over."""
    with other.volume.catalog.read() as tx:
        leases = [row[0] for row in tx.rows("SELECT id FROM lease")]
    for lease in leases:
        protocol.lease_close(other.volume.catalog, lease)
    gc(other, expected)


def remove(other: api.Store, expected: Expected) -> None:
    assert "Error" not in [step.verb for step in other.remove(["goes:1"])]
    expected.untag("goes:1")
    gc(other, expected)


def remove_and_lose(other: api.Store, expected: Expected) -> None:
    remove(other, expected)
    lose(other, expected)


def replace(other: api.Store, expected: Expected) -> None:
    """A name moves to another image, and what it named before is removed."""
    path = other.root.parent / "other"
    path.write_bytes(OTHER[0].archive(["goes:1"]))
    other.load(path, pack="later")
    expected.load(OTHER[0], ["goes:1"])
    assert "Error" not in [step.verb for step in other.remove([GOES[1].id])]
    expected.remove(GOES[1].id)
    gc(other, expected)


OTHERS = {"gc": gc, "lose": lose, "remove": remove, "remove and lose": remove_and_lose, "replace": replace}

# -- the test

TOTAL: dict[str, int] = {}
"""How many points a command has that nobody disturbs."""


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="casstore-suspended-", dir=MEMORY if MEMORY.is_dir() else None))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def begun(base: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Expected]:
    """A store with images packed, loose and half collected, made once and copied."""
    shrink(monkeypatch.setattr)
    expected = Expected()
    given = [(HERE[1], ["here:1"], "now"), (HERE[2], ["here:2"], "now"), (GOES[1], ["goes:1"], "now")]
    given += [(OTHER[3], ["other:1"], "later"), (COMES[1], ["once:1"], "now")]
    for one, names, _ in given:
        expected.load(one, names)
    expected.untag("once:1")
    if not (base / "store").exists():
        with api.open(base / "store") as store:
            for one, names, pack in given:
                (base / "in").write_bytes(one.archive(names))
                store.load(base / "in", pack=pack, all_platforms=True)
            (base / "in").write_bytes(OTHER[0].layers[0] + b"loose")
            store.blobs.put(base / "in", pack="later")
            list(store.remove(["once:1"]))
    data = OTHER[0].layers[0] + b"loose"
    expected.pinned[sample.digest(data)] = data
    return base / "store", expected


def attempt(command: Command, store: api.Store, scratch: Path) -> bool:
    """False: its lease was lost."""
    try:
        command.run(store, scratch)
    except LeaseLost:
        return False
    except Exception as error:
        if getattr(error, "kind", "") != LeaseLost.__name__:
            raise
        return False
    return True


def compare_names(store: api.Store, expected: Expected) -> None:
    rows = store.images()
    named = {f"{row.repository}:{row.tag}": str(row.digest) for row in rows if row.tag}
    assert named == {name: one.digest for name, one in expected.tags.items()}
    assert {str(row.id) for row in rows if not row.tag} == expected.nameless


def compare(store: api.Store, expected: Expected) -> None:
    compare_names(store, expected)
    for digest, data in expected.blobs.items():
        assert b"".join(store.blobs.cat(Digest.parse(digest))) == data
    with store.volume.catalog.read() as tx:
        assert not tx.rows("SELECT digest FROM blob WHERE damaged <> 0 OR pack_refused IS NOT NULL")
        assert not tx.rows("SELECT key FROM object WHERE damaged <> 0")
    assert store.check(read_data=True).findings == []
    store.gc(grace=0.0)
    assert {str(row.digest) for row in store.blobs.ls()} == expected.blobs.keys()


@pytest.mark.parametrize("meanwhile", OTHERS)
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.timeout(3600)
def test_suspended(
    name: str, meanwhile: str, base: Path, begun: tuple[Path, Expected], monkeypatch: pytest.MonkeyPatch
) -> None:
    command, act = COMMANDS[name], OTHERS[meanwhile]
    template, start = begun
    where = base / "copy"

    def once(at: int) -> int:
        expected = start.copy()
        shutil.copytree(template, where)
        try:
            with monkeypatch.context() as patch, api.open(where) as store:

                def other() -> None:
                    with api.open(where) as them:
                        act(them, expected)

                points = Points(at, other)
                points.watch(patch)
                done = attempt(command, store, base)
                with points.busy():
                    assert done or "lose" in meanwhile
                    if not done:
                        compare_names(store, expected)
                        assert attempt(command, store, base), "repeated it does not succeed either"
                    command.then(expected)
            with api.open(where) as store:
                compare(store, expected)
            return points.count
        finally:
            shutil.rmtree(where)

    if name not in TOTAL:
        TOTAL[name] = once(0)
        print(f"{name}: {TOTAL[name]} points")
    total = TOTAL[name]
    chance = random.Random(f"{SEED} {name} {meanwhile}")
    for at in range(1, total + 1):
        if chance.random() < SHARE:
            try:
                once(at)
            except BaseException as error:
                error.add_note(f"{name}, at point {at} of {total}: {meanwhile}; CROWD_SEED={SEED}")
                raise
