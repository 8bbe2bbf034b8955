"""One case of damage from begin to end: read, check, repair, load a good copy, collect; and what must hold at each."""

from __future__ import annotations

import os
import random
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import sample
from spoil import IN_A_REGION, REGIONS, WHOLE, Region

from casstore import api
from casstore.digest import Digest
from casstore.errors import CasstoreError
from casstore.store import query
from casstore.upkeep.check import Finding

MEMORY = Path("/dev/shm")
SHARE = float(os.environ.get("DAMAGE_SHARE") or 0.12)
"""Of all cases, how many are tried; 1: all."""
SEED = int(os.environ.get("DAMAGE_SEED") or 1)
"""The same sample each time, so that a change fails for what it did only."""

IMAGES = (
    sample.rich_image(1, ["one:1"]),
    sample.image("two", ["two:1"], [sample.rich_layer("base"), sample.files({"n": sample.noise(2, 150_000)})]),
    sample.image("large", ["large:1"], config={"Labels": {"much": sample.noise("l", 40_000).hex()}}),
)
PACKED = sample.image("packed", ["packed:1"], [sample.files({"z": sample.noise("p", 1_200_000)})])
OTHER = sample.image("other", ["one:1", "other:1"], [sample.files({"o": sample.noise("o", 200_000)})])


SOLE = ("data", "metadata", "blob")
"""Files whose bytes are nowhere else."""


class Case(NamedTuple):
    """`kind`: of the file that is hurt; `region`: the number of its region, -1 for the file as a whole."""

    kind: str
    how: str
    region: int = -1
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind}-{self.how}" + (f"-{self.name.replace(' ', '_')}" if self.name else "")


@dataclass
class Origin:
    """A sound store, another one to take foreign files from, and what is in the first."""

    root: Path
    blobs: dict[Digest, bytes] = field(default_factory=dict)
    images: dict[str, set[Digest]] = field(default_factory=dict)

    @classmethod
    def make(cls, root: Path) -> Origin:
        """Two loads, so that there are two files of each kind."""
        self = cls(root)
        (root / "plain.tar").write_bytes(sample.docker_archive(*IMAGES))
        (root / "packed.tar").write_bytes(sample.oci_archive(PACKED))
        (root / "more.tar").write_bytes(sample.oci_archive(sample.image("more", ["more:1"])))
        (root / "other.tar").write_bytes(sample.docker_archive(OTHER))
        with api.open(root / "store") as store:
            self.load(store)
            store.config.set("min-free", "1000")
            self.blobs = {row.digest: b"".join(store.blobs.cat(row.digest)) for row in store.blobs.ls()}
            needs = {digest: store.blobs.inspect(digest)["Parents"] for digest in self.blobs}
            for row in store.images():
                own = {digest for digest, parents in needs.items() if str(row.digest) in parents}
                self.images[f"{row.repository}:{row.tag}"] = own | {row.digest}
        with api.open(root / "other") as store:
            store.load(root / "other.tar")
            store.load(root / "packed.tar")
            for number in range(6):
                store.tag("one:1", f"again:{number}")
        with api.open(root / "killed") as store:  # as a killed command leaves it: with a log
            self.load(store)
            for part in ("", "-wal", "-shm"):
                shutil.copy(root / f"killed/catalog.sqlite{part}", root / f"catalog.sqlite{part}.kept")
        for part in ("", "-wal", "-shm"):
            shutil.move(root / f"catalog.sqlite{part}.kept", root / f"killed/catalog.sqlite{part}")
        return self

    def load(self, store: api.Store) -> None:
        """Bring all images, as somebody does who still has them."""
        for name in ("plain.tar", "packed.tar", "more.tar"):
            store.load(self.root / name)

    def store_for(self, kind: str) -> Path:
        return self.root / ("killed" if kind in ("log", "shared memory") else "store")

    def cases(self) -> Iterator[Case]:
        for kind, regions in REGIONS.items():
            victim, _ = self.victim(kind, self.store_for(kind))
            for number, region in enumerate(regions(victim)):
                for how in IN_A_REGION:
                    yield Case(kind, how, number, region.name)
            for how in WHOLE:
                yield Case(kind, how)

    def victim(self, kind: str, root: Path) -> tuple[Path, Path]:
        """The file of a kind that is hurt, and another file of the kind."""
        single = {
            "catalog": "catalog.sqlite",
            "log": "catalog.sqlite-wal",
            "shared memory": "catalog.sqlite-shm",
            "store.json": "store.json",
            "references.json": "references.json",
            "epoch": "epoch",
        }
        if kind in single:
            foreign = "killed" if root.name != "killed" and "sqlite-" in single[kind] else "other"
            other = self.root / foreign / single[kind]
            return root / single[kind], other if other.exists() else self.root / "other/catalog.sqlite"
        with api.open(self.root / "store") as store, store.volume.catalog.read() as tx:
            keys = [row.key for row in query.objects(tx, kind) if row.state == "live"]
        keys.sort(key=lambda key: -(root / "objects" / key).stat().st_size)
        return root / "objects" / keys[0], root / "objects" / keys[1 % len(keys)]


class Run:
    """A case on a copy of the store."""

    def __init__(self, origin: Origin, case: Case, place: Path) -> None:
        self.origin, self.case = origin, case
        # Rows of another store's catalog name what was never here, and are told so for ever.
        self.foreign = case.kind == "catalog" and case.how == "mixed"
        self.chance = random.Random(SEED ^ zlib.crc32(str(case).encode()))
        self.root = place / "store"
        shutil.copytree(origin.store_for(case.kind), self.root)
        self.hurt()

    def hurt(self) -> None:
        victim, other = self.origin.victim(self.case.kind, self.root)
        raw = victim.read_bytes()
        region = Region("all", 0, len(raw))
        spoil = WHOLE.get(self.case.how)
        if self.case.region >= 0:
            region = list(REGIONS[self.case.kind](victim))[self.case.region]
            spoil = IN_A_REGION[self.case.how]
        assert spoil is not None
        changed = spoil(raw, region, self.chance, other.read_bytes())
        victim.unlink()
        if changed is not None:
            victim.write_bytes(changed)

    # -- what is done with it

    def play(self) -> None:
        if self.chance.random() < 0.5:
            self.read()
            told = self.check()
        else:
            told = self.check()
            self.read()
        lost = self.read()
        self.judge(told, lost)
        self.repair()
        again = self.read()
        assert again <= lost, "a repair lost something"
        if self.case.kind not in SOLE:
            assert not again, "nothing but derived things was damaged"
        left = self.check()
        bad = [one for one in left if not isinstance(one, Finding) or one.severity == "error"]
        assert bad if again else not bad or self.foreign, (again, left)
        with api.open(self.root) as store:
            self.origin.load(store)
        assert self.read() == set(), "a load of good copies did not heal all"
        with api.open(self.root, remake=True) as store:
            store.check(read_data=True, repair=True)
        with api.open(self.root) as store:
            store.gc(grace=0)
            report = store.check(read_data=True)
            assert report.ok or self.foreign, report.findings
        assert self.read() == set()
        with api.open(self.root) as store:
            names = {f"{row.repository}:{row.tag}" for row in store.images()}
        assert names >= self.origin.images.keys()

    def read(self) -> set[Digest]:
        """The blobs that cannot be read, each told so by name. What is read is right, ranges too."""
        try:
            store = api.open(self.root)
        except CasstoreError as error:
            assert error.what and "\n" not in str(error)
            return set(self.origin.blobs)
        lost = set()
        with store:
            for digest, data in self.origin.blobs.items():
                start = self.chance.randint(0, len(data))
                end = self.chance.randint(start, len(data))
                for low, high in ((0, None), (start, end), (max(0, len(data) - 5), None)):
                    try:
                        found = b"".join(store.blobs.cat(digest, low, high))
                    except CasstoreError as error:
                        assert "\n" not in str(error)
                        lost.add(digest)
                    else:
                        assert found == data[low:high], f"wrong bytes of {digest} [{low}, {high})"
        return lost

    def check(self) -> list[Any]:
        """The findings; of a store that cannot be opened, or whose catalog cannot be read, that."""
        try:
            with api.open(self.root) as store:
                return list(store.check(read_data=True).findings)
        except CasstoreError as error:
            return [error]

    def judge(self, told: list[Any], lost: set[Digest]) -> None:
        """What was lost was told, and whom it hurts."""
        if lost:
            assert told, "check found nothing, and blobs cannot be read"
        if any(isinstance(one, CasstoreError) for one in told) or any(one.what == "catalog.sqlite" for one in told):
            return  # without a catalog nobody knows which
        hurt = {name for name, needs in self.origin.images.items() if needs & lost}
        named = {name for one in told for name in one.images}
        assert named >= hurt, (named, hurt, told)

    def repair(self) -> None:
        try:
            with api.open(self.root, remake=True) as store:
                store.check(read_data=True, repair=True)
        except CasstoreError as error:
            raise AssertionError(f"repair ends with: {error}") from error
