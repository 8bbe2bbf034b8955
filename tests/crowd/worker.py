"""One process of the crowd: `python worker.py FOLDER NAME ROLE SEED DEADLINE`, started by crowd.py.

Owners load, tag, remove, save names and blobs that only they touch, so that each knows what must be there, and names
that all touch, which must point at something whole. Collectors run gc in a loop, checkers check. Whatever may not
happen ends the process with a traceback.
"""

from __future__ import annotations

import faulthandler
import json
import random
import signal
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import sample
from client import Api, Cli, Client, Refused, names_of
from expected import Expected
from population import Kept, population
from shrink import shrink

import casstore
from casstore.errors import CasstoreError, LeaseLost
from casstore.store import catalog
from casstore.store.names import UNTAGGED

IMAGES = 5
SCALE = 20_000
COMMON = "common"
TTL = 1.5
"""Seconds that leases of those who are suspended last."""
OWNERS = ("owner", "sleeper", "cli")


class Wrong(Exception):
    """What must never happen."""


def everything(seed: int, owners: list[str]) -> dict[str, list[Kept]]:
    """The images of each owner, and the common ones."""
    found: dict[str, list[Kept]] = defaultdict(list)
    for one in population(seed, IMAGES, SCALE, [*owners, COMMON]):
        found[one.name.rstrip("0123456789")].append(one)
    return found


class Journal:
    """What a worker did so far, in FOLDER/NAME.json, written before and after each command."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.states: list[Any] = []
        """What the owner's part of the store may be: one state, or two while a command runs."""
        self.hold: dict[str, list[tuple[float, float]]] = defaultdict(list)
        """By transaction: seconds that the write lock was held, and seconds of a processor in that time."""
        self.runs = 1
        with suppress(FileNotFoundError):
            old = json.loads(path.read_bytes())
            self.done, self.refused, self.states = Counter(old["done"]), Counter(old["refused"]), old["states"]
            self.hold.update(old["hold"])
            self.runs = old["runs"] + 1

    def write(self, *, last: bool = False) -> None:
        """`last`: with `hold`, which in an hour becomes long."""
        fields = ("done", "refused", "states", "runs")
        temp = self.path.with_suffix(".new")
        temp.write_text(
            json.dumps({name: getattr(self, name) for name in fields} | {"hold": self.hold if last else {}})
        )
        temp.rename(self.path)


class Owner:
    """An owner at work. `sleepy`: its leases are short and it is suspended: it may lose them."""

    def __init__(self, folder: Path, name: str, seed: int, journal: Journal, client: Client, sleepy: bool) -> None:
        self.scratch = folder / f"{name}.d"
        self.scratch.mkdir(exist_ok=True)
        self.name = name
        self.journal = journal
        self.client = client
        self.sleepy = sleepy
        run = json.loads((folder / "run.json").read_bytes())
        images = everything(run["seed"], run["owners"])
        self.mine, self.common = images[name], images[COMMON]
        self.by_digest = {one.digest: one for one in [*self.mine, *self.common]}
        self.chance = random.Random(f"{name} {seed}")
        self.names = [f"{name}/n:{n}" for n in range(4)]
        self.common_names = [f"{COMMON}/n:{n}" for n in range(3)]
        self.expected = Expected()
        if journal.states:
            self.recover()
        else:
            journal.states = [self.state(self.expected)]

    # -- what is expected, as it stands in the journal

    def state(self, expected: Expected) -> dict[str, Any]:
        return {
            "tags": {name: one.digest for name, one in expected.tags.items()},
            "bare": sorted(one.digest for one in expected.bare),
            "pinned": {digest: data.hex() for digest, data in expected.pinned.items()},
        }

    def recover(self) -> None:
        """A worker before this one was killed: its last command was done, or it was not."""
        fitting = [one for one in (restored(state, self.by_digest) for state in self.journal.states) if self.fits(one)]
        if not fitting:
            states = [(state["tags"], state["bare"], list(state["pinned"])) for state in self.journal.states]
            raise Wrong(f"after a kill the store is in none of the states {states}")
        self.expected = fitting[-1]
        self.journal.states = [self.state(self.expected)]

    def fits(self, expected: Expected) -> bool:
        if names_of(self.client.images(f"{self.name}/*")) != {n: one.digest for n, one in expected.tags.items()}:
            return False
        bare = {one.digest for one in self.mine if UNTAGGED in self.pins(one.digest)}
        if bare != {one.digest for one in expected.bare}:
            return False
        return all(self.has(digest, data) for digest, data in expected.pinned.items())

    def pins(self, digest: str) -> list[str]:
        try:
            return self.client.pins(digest)
        except Refused:  # it is not there
            return []

    def has(self, digest: str, data: bytes) -> bool:
        while True:
            try:
                found = self.client.cat(digest, 0, len(data))
            except Refused as error:
                if self.sleepy and error.kind == LeaseLost.__name__:
                    continue  # suspended while it looked: that says nothing of the blob
                return False
            if found != data:
                raise Wrong(f"other bytes in {digest}")
            return True

    # -- commands

    def step(self) -> None:
        kinds: dict[Callable[[], None], int] = {
            self.load: 6,
            self.tag: 2,
            self.rmi: 4,
            self.rmi_by_id: 1,
            self.save: 6,
            self.verify: 1,
            self.listed: 2,
            self.put: 3,
            self.cat: 4,
            self.rm: 2,
            self.load_common: 3,
            self.move_common: 3,
            self.remove_common: 3,
            self.save_common: 4,
        }
        (command,) = self.chance.choices(list(kinds), list(kinds.values()))
        command()
        self.journal.states = [self.state(self.expected)]
        self.journal.write()

    def run(self, command: str, act: Callable[[], Any], after: Expected | None = None) -> Any:
        """A command on what is ours: it succeeds, and only then `after` is what is expected. A lost lease, where that
        may be, changes nothing (None)."""
        if after is not None:
            self.journal.states = [self.state(self.expected), self.state(after)]
            self.journal.write()
        try:
            result = act()
        except Refused as error:
            if not (self.sleepy and error.kind == LeaseLost.__name__):
                raise Wrong(f"{command}: {error}") from error
            self.journal.refused[f"{command}: LeaseLost"] += 1
            return None
        if after is not None:
            self.expected = after
        self.journal.done[command] += 1
        return True if result is None else result

    def run_common(self, command: str, act: Callable[[], Any], *allowed: str) -> Any:
        """A command on what others change too: it may be told that something is not there (any more)."""
        try:
            result = act()
        except Refused as error:
            lost = self.sleepy and error.kind == LeaseLost.__name__
            if not lost and not any(text in error.line for text in allowed):
                raise Wrong(f"{command}: {error}") from error
            reason = "LeaseLost" if lost else next(text for text in allowed if text in error.line)
            self.journal.refused[f"{command}: {reason}"] += 1
            return None
        self.journal.done[command] += 1
        return True if result is None else result

    def archived(self, one: Kept, names: list[str]) -> Path:
        path = self.scratch / "in"
        path.write_bytes(one.archive(names))
        return path

    def load(self) -> None:
        one = self.chance.choice(self.mine)
        names = self.chance.sample(self.names, self.chance.choice([0, 1, 1, 1, 2]))
        pack, pipe = self.chance.choice(["now", "now", "later"]), self.chance.random() < 0.3
        after = self.expected.copy()
        after.load(one, names)
        path = self.archived(one, names)
        self.run("load", lambda: self.client.load(path, pack, pipe), after)

    def tag(self) -> None:
        if self.expected.tags:
            source, name = self.chance.choice(sorted(self.expected.tags)), self.chance.choice(self.names)
            after = self.expected.copy()
            after.point(name, self.expected.tags[source])
            self.run("tag", lambda: self.client.tag(source, name), after)

    def rmi(self) -> None:
        if self.expected.tags:
            name = self.chance.choice(sorted(self.expected.tags))
            after = self.expected.copy()
            after.untag(name)
            self.run("rmi", lambda: self.client.rmi(name, False), after)

    def rmi_by_id(self) -> None:
        if self.expected.ids:
            image_id = self.chance.choice(sorted(self.expected.ids))
            after = self.expected.copy()
            after.remove(image_id)
            self.run("rmi -f ID", lambda: self.client.rmi(image_id, True), after)

    def save(self) -> None:
        if self.expected.tags:
            name = self.chance.choice(sorted(self.expected.tags))
            out, form = self.scratch / "out", self.chance.choice(["docker-archive", "oci-archive"])
            if self.run("save", lambda: self.client.save(name, out, form)):
                difference = self.expected.tags[name].differs(out.read_bytes(), [name])
                if difference:
                    raise Wrong(f"save {name}: {difference}")

    def verify(self) -> None:
        if self.expected.tags:
            name = self.chance.choice(sorted(self.expected.tags))
            self.run("verify", lambda: self.client.verify(name))

    def listed(self) -> None:
        rows = self.run("images", lambda: self.client.images(f"{self.name}/*"))
        wanted = {name: one.digest for name, one in self.expected.tags.items()}
        if names_of(rows) != wanted:
            raise Wrong(f"images: {rows} instead of {wanted}")

    def put(self) -> None:
        # Of the stock that all have, and no two alike.
        one = self.chance.choice(self.mine)
        content = self.chance.choice(one.layers) + f"{self.name} {self.chance.random()}".encode()
        (self.scratch / "blob").write_bytes(content)
        after = self.expected.copy()
        after.pinned[sample.digest(content)] = content
        while len(after.pinned) > 6:
            self.rm()
            del after.pinned[next(one for one in after.pinned if one not in self.expected.pinned)]
        pack = self.chance.choice(["now", "later"])
        self.run("blob put", lambda: self.client.put(self.scratch / "blob", pack), after)

    def cat(self) -> None:
        if self.expected.blobs:
            digest = self.chance.choice(sorted(self.expected.blobs))
            content = self.expected.blobs[digest]
            start = self.chance.randrange(len(content))
            end = self.chance.randint(start + 1, len(content))
            if self.chance.random() < 0.3:
                start, end = 0, len(content)
            found = self.run("blob cat", lambda: self.client.cat(digest, start, end))
            if found is not None and found != content[start:end]:
                raise Wrong(f"cat {digest} {start} {end}: other bytes")

    def rm(self) -> None:
        if self.expected.pinned:
            digest = self.chance.choice(sorted(self.expected.pinned))
            after = self.expected.copy()
            del after.pinned[digest]
            self.run("blob rm", lambda: self.client.rm(digest), after)

    # -- what all share

    def load_common(self) -> None:
        one = self.chance.choice(self.common)
        names = self.chance.sample(self.common_names, self.chance.choice([0, 1, 1, 2]))
        pack, pipe = self.chance.choice(["now", "now", "later"]), self.chance.random() < 0.3
        path = self.archived(one, names)
        self.run_common("load, common", lambda: self.client.load(path, pack, pipe))

    def move_common(self) -> None:
        source = self.chance.choice([*self.common_names, self.chance.choice(self.common).id])
        name = self.chance.choice(self.common_names)
        self.run_common("tag, common", lambda: self.client.tag(source, name), "No such image", "is not in the store")

    def remove_common(self) -> None:
        name = self.chance.choice([*self.common_names, self.chance.choice(self.common).id])
        force = self.chance.random() < 0.7
        allowed = "No such image", "must be forced"
        self.run_common("rmi, common", lambda: self.client.rmi(name, force), *allowed)

    def save_common(self) -> None:
        name = self.chance.choice([*self.common_names, self.chance.choice(self.common).id])
        out, form = self.scratch / "out", self.chance.choice(["docker-archive", "oci-archive"])
        if self.run_common("save, common", lambda: self.client.save(name, out, form), "No such image"):
            problem = one_of(self.common, out.read_bytes(), [] if name.startswith("sha256:") else [name])
            if problem:
                raise Wrong(f"save {name}: {problem}")


def restored(state: dict[str, Any], by_digest: dict[str, Kept]) -> Expected:
    """The inverse of Owner.state."""
    return Expected(
        {name: by_digest[digest] for name, digest in state["tags"].items()},
        {by_digest[digest] for digest in state["bare"]},
        {digest: bytes.fromhex(data) for digest, data in state["pinned"].items()},
    )


def one_of(images: list[Kept], saved: bytes, names: list[str]) -> str:
    """What is wrong with an archive that should hold any of these images under these names; "" where nothing is."""
    problems = [one.differs(saved, names) for one in images]
    return "" if "" in problems else f"none of the images: {min(problems, key=len)}"


def own(owner: Owner, deadline: float) -> None:
    while time.time() < deadline:
        owner.step()


def measure(store: casstore.Store, journal: Journal) -> None:
    """Note of each write transaction how long the lock was held, and how long (the rest) it waited for a processor or a
    disk meanwhile: on a crowded machine that is most of it."""
    begun = threading.local()
    plain = catalog.WriteTx.__init__

    def begin(self: catalog.WriteTx, *given: Any) -> None:
        plain(self, *given)
        begun.at = time.thread_time()

    def told(name: str, seconds: float) -> None:
        journal.hold[name].append((seconds, time.thread_time() - begun.at))

    catalog.WriteTx.__init__ = begin  # type: ignore[method-assign]
    store.volume.catalog.on_write.append(told)


def collect(store: casstore.Store, seed: int, deadline: float, journal: Journal, sleepy: bool = False) -> None:
    chance = random.Random(seed)
    while time.time() < deadline:
        try:
            report = store.gc(grace=0.0, max_time=chance.choice([0.0, 0.5, 2.0, 5.0]))
        except LeaseLost:
            if not sleepy:
                raise
            journal.refused["gc: LeaseLost"] += 1
            continue
        totals = report.totals
        journal.done["gc"] += 1
        journal.done["objects deleted"] += totals.objects_deleted
        journal.done["blobs deleted"] += totals.blobs_deleted
        journal.done["blobs packed"] += totals.blobs_packed
        journal.done["packs rewritten"] += totals.packs_rewritten
        journal.write()


def check(store: casstore.Store, seed: int, deadline: float, journal: Journal) -> None:
    chance = random.Random(seed)
    while time.time() < deadline:
        read_data, repair = chance.random() < 0.5, chance.random() < 0.3
        report = store.check(read_data=read_data, repair=repair)
        if report.findings:
            raise Wrong(f"check: {report.findings}")
        journal.done["check --repair" if repair else "check"] += 1
        store.df()
        journal.done["df"] += 1
        store.gc(dry_run=True, grace=0.0)
        journal.done["gc --dry-run"] += 1
        journal.write()


def main() -> None:
    where, name, role, number, end = sys.argv[1:]
    folder, seed, deadline = Path(where), int(number), float(end)
    sleepy = role in ("sleeper", "drowsy")
    faulthandler.register(signal.SIGUSR1)
    if role != "cli":
        shrink(ttl=TTL if sleepy else None)
    journal = Journal(folder / f"{name}.json")
    journal.write()
    client: Client = Cli(folder / "store") if role == "cli" else Api(casstore.open(folder / "store"))
    if role in OWNERS:
        own(Owner(folder, name, seed, journal, client, sleepy), deadline)
    elif isinstance(client, Api) and role == "check":
        check(client.store, seed, deadline, journal)
    elif isinstance(client, Api):
        if not sleepy:
            measure(client.store, journal)
        collect(client.store, seed, deadline, journal, sleepy)
    journal.write(last=True)


if __name__ == "__main__":
    try:
        main()
    except CasstoreError as error:
        raise Wrong(f"{type(error).__name__}: {error}") from error
