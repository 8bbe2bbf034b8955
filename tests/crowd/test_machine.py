"""The store against dictionaries of bytes: any order of commands, and after each the same names, the same bytes.

CROWD_SECONDS: how long. A failure prints the commands, made as few as can be.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sample
from expected import Expected
from hypothesis import HealthCheck, settings, stateful
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from population import Kept, population
from shrink import shrink

import casstore
from casstore import api
from casstore.digest import Digest
from casstore.errors import BadInput, NotFound

SECONDS = float(os.environ.get("CROWD_SECONDS", 40))
MEMORY = Path("/dev/shm")

KEPT = population("machine", 5, 2500)
NAMES = ["a:1", "a:2", "b:latest", "c/d:x"]
STOCK = [sample.noise(("piece", n), size) for n, size in enumerate((1, 300, 4096, 9000, 30_000))]
STOCK += [sample.text("piece", 20_000), bytes(70_000), b""]

names = st.sampled_from(NAMES)
kept = st.sampled_from(KEPT)
packing = st.sampled_from(["now", "now", "later"])
piece = st.integers(0, len(STOCK) - 1) | st.binary(max_size=40)
contents = st.lists(piece, max_size=5) | kept


def content_of(drawn: list[int | bytes] | Kept) -> bytes:
    """Pieces of the stock and others; or the last layer of an image."""
    if isinstance(drawn, Kept):
        return drawn.layers[-1]
    return b"".join(STOCK[one] if isinstance(one, int) else one for one in drawn)


class Machine(stateful.RuleBasedStateMachine):
    runs = 0

    def __init__(self) -> None:
        super().__init__()
        # In memory where there is such a place: nothing here is about the disk.
        self.folder = Path(tempfile.mkdtemp(prefix="casstore-machine-", dir=MEMORY if MEMORY.is_dir() else None))
        self.expected = Expected()
        self.store: api.Store | None = None

    @initialize(digest=st.sampled_from(["sha256", "blake3"]), chunk=st.sampled_from([4096, 16384]))
    def make(self, digest: str, chunk: int) -> None:
        casstore.init(self.folder / "store", chunk_digest=digest, chunk_size=chunk)
        self.store = api.open(self.folder / "store")

    # -- content in

    @rule(drawn=contents, pack=packing)
    def put(self, drawn: list[int | bytes] | Kept, pack: str) -> None:
        content = content_of(drawn)
        (self.folder / "in").write_bytes(content)
        digest = str(self.store.blobs.put(self.folder / "in", pack=pack))
        assert digest == sample.digest(content)
        self.expected.pinned[digest] = content

    @rule(one=kept, given=st.sets(names, max_size=2), pack=packing, pipe=st.booleans())
    def load(self, one: Kept, given: set[str], pack: str, pipe: bool) -> None:
        archive = one.archive(sorted(given))
        if pipe:
            self.load_pipe(archive, pack)
        else:
            (self.folder / "in").write_bytes(archive)
            self.store.load(self.folder / "in", pack=pack, all_platforms=True)
        self.expected.load(one, sorted(given))

    def load_pipe(self, archive: bytes, pack: str) -> None:
        ours, theirs = os.pipe()

        def write() -> None:
            with os.fdopen(theirs, "wb") as end:
                end.write(archive)

        writer = threading.Thread(target=write)
        writer.start()
        self.store.load(ours, pack=pack, all_platforms=True)
        os.close(ours)
        writer.join()

    # -- names

    @precondition(lambda self: self.expected.tags)
    @rule(data=st.data(), name=names)
    def tag(self, data: st.DataObject, name: str) -> None:
        source = data.draw(st.sampled_from(sorted(self.expected.tags)))
        self.store.tag(source, name)
        self.expected.point(name, self.expected.tags[source])

    @precondition(lambda self: self.expected.bare)
    @rule(data=st.data(), name=names)
    def tag_by_id(self, data: st.DataObject, name: str) -> None:
        image_id = data.draw(st.sampled_from(sorted({one.id for one in self.expected.bare})))
        self.store.tag(image_id, name)
        (row,) = self.store.images(name)
        # Of an image's forms any that is kept, be it within an index.
        (now,) = [one for one in KEPT if one.digest == str(row.digest)]
        assert now.id == image_id and now.digest in self.expected.blobs
        self.expected.point(name, now)

    @precondition(lambda self: self.expected.tags)
    @rule(data=st.data())
    def rmi(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.expected.tags)))
        steps = [step.verb for step in self.store.remove([name])]
        assert steps[0] == "Untagged" and "Error" not in steps
        self.expected.untag(name)

    @precondition(lambda self: self.expected.kept)
    @rule(data=st.data(), force=st.booleans())
    def rmi_by_id(self, data: st.DataObject, force: bool) -> None:
        image_id = data.draw(st.sampled_from(sorted(self.expected.ids)))
        mine = self.expected.named(image_id)
        steps = [step.verb for step in self.store.remove([image_id], force=force)]
        if len(mine) > 1 and not force:
            assert steps == ["Error"]
        else:
            assert "Error" not in steps and steps.count("Untagged") == len(mine)
            self.expected.remove(image_id)

    @rule(name=names)
    def nothing_there(self, name: str) -> None:
        if name not in self.expected.tags:
            assert [step.verb for step in self.store.remove([name])] == ["Error"]
            with pytest.raises(NotFound):
                self.store.save([name], self.folder / "out")

    @precondition(lambda self: self.expected.pinned)
    @rule(data=st.data())
    def rm(self, data: st.DataObject) -> None:
        digest = data.draw(st.sampled_from(sorted(self.expected.pinned)))
        self.store.blobs.rm([Digest.parse(digest)])
        del self.expected.pinned[digest]

    # -- upkeep

    @rule(grace=st.sampled_from([0.0, 0.0, 600.0]), budget=st.sampled_from([0.0, 60.0, 60.0]))
    def gc(self, grace: float, budget: float) -> None:
        self.store.gc(grace=grace, max_time=budget)
        found = {str(row.digest) for row in self.store.blobs.ls()}
        needed = self.expected.blobs.keys()
        assert found == needed if grace == 0.0 else found >= needed

    @rule()
    def gc_dry_run(self) -> None:
        before = list(self.store.blobs.ls())
        self.store.gc(dry_run=True, grace=0.0)
        assert list(self.store.blobs.ls()) == before

    @rule(read_data=st.booleans(), repair=st.booleans())
    def check(self, read_data: bool, repair: bool) -> None:
        assert self.store.check(read_data=read_data, repair=repair).findings == []

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = api.open(self.folder / "store", create=False)

    @rule()
    def df(self) -> None:
        self.store.df()

    # -- content out

    @precondition(lambda self: self.expected.blobs)
    @rule(data=st.data())
    def cat(self, data: st.DataObject) -> None:
        digest = data.draw(st.sampled_from(sorted(self.expected.blobs)))
        content = self.expected.blobs[digest]
        start = data.draw(st.integers(0, len(content) + 1))
        end = data.draw(st.none() | st.integers(0, len(content) + 1))
        if start > len(content) or (end is not None and end < start):
            with pytest.raises(BadInput):
                list(self.store.blobs.cat(Digest.parse(digest), start, end))
        else:
            assert b"".join(self.store.blobs.cat(Digest.parse(digest), start, end)) == content[start:end]

    @precondition(lambda self: self.expected.tags)
    @rule(data=st.data(), form=st.sampled_from(["docker-archive", "oci-archive"]))
    def save(self, data: st.DataObject, form: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.expected.tags)))
        self.store.save([name], self.folder / "out", format=form)
        assert self.expected.tags[name].differs((self.folder / "out").read_bytes(), [name]) == ""

    @precondition(lambda self: self.expected.tags)
    @rule(data=st.data())
    def verify(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.expected.tags)))
        report = self.store.verify(name)
        assert report.ok and {str(row.digest) for row in report.rows} == self.expected.tags[name].blobs.keys()

    @invariant()
    def same_names(self) -> None:
        if self.store is not None:
            rows = self.store.images()
            named = {f"{row.repository}:{row.tag}": str(row.digest) for row in rows if row.tag}
            assert named == {name: one.digest for name, one in self.expected.tags.items()}
            assert {str(row.id) for row in rows if not row.tag} == self.expected.nameless

    # -- the end

    def teardown(self) -> None:
        Machine.runs += 1
        try:
            if self.store is not None:
                self.end()
        finally:
            shutil.rmtree(self.folder)

    def end(self) -> None:
        """All is there; and when all is removed, nothing is."""
        for digest, content in self.expected.blobs.items():
            assert b"".join(self.store.blobs.cat(Digest.parse(digest))) == content
        for image_id in self.expected.ids:
            assert "Error" not in [step.verb for step in self.store.remove([image_id], force=True)]
        self.store.blobs.rm([Digest.parse(one) for one in self.expected.pinned])
        self.store.gc(grace=0.0)
        self.store.close()
        left = [path for path in (self.folder / "store/objects").rglob("*") if path.is_file()]
        left += (self.folder / "store/tmp").iterdir()
        assert left == []


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    shrink(monkeypatch.setattr)
    yield


@pytest.mark.timeout(SECONDS + 240)
def test_machine(small: None) -> None:
    few = settings(
        max_examples=5,
        stateful_step_count=40,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        stateful.run_state_machine_as_test(Machine, settings=few)
    print(f"{Machine.runs} orders of commands")
