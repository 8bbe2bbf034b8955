"""`mirror`, between registries that behave and such that do not."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import registry
import sample
from registry import Toy, serving
from running import Cas, Spawn

import casstore
from casstore import api
from casstore.digest import Digest
from casstore.errors import BadInput, Conflict, Interrupted, OutOfSpace, UsageError
from casstore.image.mirror import MirrorReport, Row
from casstore.image.remote import Remote
from casstore.oci.platform import host
from casstore.transport.http import METERED, Network, Rate

QUICK = Network(backoff=0.01, read_timeout=1.0, connect_timeout=5.0, retries=3)
T = TypeVar("T")
R = TypeVar("R")


@pytest.fixture
def toy() -> Iterator[Toy]:
    with serving() as made:
        yield made


@pytest.fixture
def target() -> Iterator[Toy]:
    with serving() as made:
        yield made


@pytest.fixture
def remote() -> Iterator[Remote]:
    with Remote(QUICK) as made:
        yield made


def image(seed: object, **changes: Any) -> sample.Image:
    return sample.image(
        seed,
        layers=[sample.files({"base": sample.text("base", 30_000)}), sample.files({"own": str(seed).encode()})],
        **changes,
    )


def outcomes(report: MirrorReport) -> dict[str, tuple[str, str]]:
    return {row.source.tag or row.source.path: (row.status, row.outcome) for row in report.rows}


def holds(toy: Toy, name: str, other: Toy, where: str) -> None:
    """All of a repository is in another one, byte for byte."""
    assert {ref: raw for ref, (_, raw) in toy.manifests[name].items()} == {
        ref: raw for ref, (_, raw) in other.manifests[where].items()
    }
    assert toy.blobs[name] == other.blobs[where]


def test_all_arrives_and_a_second_run_costs_a_head_for_each_tag(
    toy: Toy, target: Toy, opened: api.Store, remote: Remote
) -> None:
    for tag in ("1", "2", "3"):
        toy.add("a/b", tag, image(tag))
    toy.add("c", "1", image("1"))  # shares everything with another
    plan = [f"{toy.host}/a/b", f"{toy.host}/c:1"]
    told: list[Row] = []
    report = casstore.mirror(plan, store=opened, remote=remote, to=f"{target.host}/m", say=told.append)
    assert outcomes(report) == dict.fromkeys(("1", "2", "3"), ("new", "done"))
    assert len(report.rows) == len(told) == 4 and not report.failed
    holds(toy, "a/b", target, "m/a/b")
    holds(toy, "c", target, "m/c")
    assert {f"{one.repository}:{one.tag}" for one in opened.images()} == {f"{toy.host}/a/b:{n}" for n in "123"} | {
        f"{toy.host}/c:1"
    }
    # A layer that several need has come and gone once.
    layers = {
        one["digest"] for raw in (toy.manifests["a/b"][tag][1] for tag in "123") for one in json.loads(raw)["layers"]
    }
    assert {layer: toy.count("GET", layer) for layer in layers} == dict.fromkeys(layers, 1)
    sent = [one.query["digest"] for one in target.log if one.method == "PUT" and "digest" in one.query]
    assert len(sent) == len(set(sent)) and set(sent) >= layers
    assert target.count("HEAD", "/blobs/") < len(report.rows)  # what just came, or just went, is not asked for

    toy.log.clear(), target.log.clear()
    again = opened.mirror(plan, remote=remote, to=f"{target.host}/m")
    assert {row.status for row in again.rows} == {"same"} and not again.fetched
    assert sorted((one.method, one.path) for one in toy.log) == sorted(
        [
            ("GET", "/v2/a/b/tags/list"),
            *(("HEAD", f"/v2/a/b/manifests/{tag}") for tag in "123"),
            ("HEAD", "/v2/c/manifests/1"),
        ]
    )
    assert not target.log


def test_only_what_is_new_or_changed(toy: Toy, target: Toy, opened: api.Store, remote: Remote) -> None:
    for tag in ("1", "2"):
        toy.add("a", tag, image(tag))
    plan, to = f"{toy.host}/a", target.host
    opened.mirror(plan, remote=remote, to=to)
    toy.add("a", "2", image("other"))
    toy.add("a", "3", image("3"))
    looked = opened.mirror(plan, remote=remote, to=to, dry_run=True)
    assert outcomes(looked) == {"1": ("same", ""), "2": ("changed", ""), "3": ("new", "")}
    assert "3" not in target.manifests["a"] and looked.dry_run
    report = opened.mirror(plan, remote=remote, to=to)
    assert outcomes(report) == {"1": ("same", ""), "2": ("changed", "done"), "3": ("new", "done")}
    assert looked.size == report.fetched > 0
    assert target.manifests["a"]["2"] == toy.manifests["a"]["2"]


def test_into_the_store_alone(toy: Toy, opened: api.Store, remote: Remote) -> None:
    made = toy.many("many", "1")
    report = opened.mirror(f"{toy.host}/many:1", remote=remote)
    assert [(row.status, row.outcome, row.target) for row in report.rows] == [("new", "done", None)]
    for architecture in ("amd64", "arm64"):  # all of an index, if nothing else is said
        assert (
            b"".join(opened.blobs.cat(Digest.parse(made[architecture]))) == toy.manifests["many"][made[architecture]][1]
        )
    assert opened.mirror(f"{toy.host}/many:1", remote=remote).count(status="same") == 1


def test_one_platform(toy: Toy, target: Toy, opened: api.Store, remote: Remote) -> None:
    made = toy.many("many", "1")
    platform = f"linux/{host().architecture}"
    first = opened.mirror(f"{toy.host}/many:1", remote=remote, to=target.host, platform=platform)
    assert not first.failed
    assert sample.digest(target.manifests["many"]["1"][1]) == made[host().architecture]
    same = opened.mirror(f"{toy.host}/many:1", remote=remote, to=target.host, platform=platform)
    assert same.count(status="same") == 1
    whole = opened.mirror(f"{toy.host}/many:1", remote=remote, to=target.host)
    assert outcomes(whole) == {"1": ("changed", "done")}
    assert sample.digest(target.manifests["many"]["1"][1]) == made[""]


def test_a_digest(toy: Toy, target: Toy, opened: api.Store, remote: Remote) -> None:
    digest = toy.add("a", "1", image("1"))
    plan = f"{toy.host}/a@{digest}"
    assert not opened.mirror(plan, remote=remote, to=target.host).failed
    assert list(target.manifests["a"]) == [digest]
    toy.log.clear()
    assert opened.mirror(plan, remote=remote, to=target.host).count(status="same") == 1
    assert not toy.log


def test_files(toy: Toy, target: Toy, opened: api.Store, remote: Remote, tmp_path: Path) -> None:
    for tag in ("1.0", "1.1", "1.2-rc1", "2.0", "latest"):
        toy.add("a/b", tag, image(tag))
    (tmp_path / "p.toml").write_text(
        f'[[image]]\nsource = "{toy.host}/a/b"\nexclude = ["*-rc*", "latest"]\nnewest = 2\ntarget = "x"\n'
    )
    report = opened.mirror(tmp_path / "p.toml", remote=remote, to=target.host)
    assert {ref for ref in target.manifests["x"] if ":" not in ref} == {"1.1", "2.0"} and not report.failed
    toy.auth = "basic"
    (tmp_path / "p.yaml").write_text(
        json.dumps(
            {
                toy.host: {
                    "images-by-semver": {"a/b": "1.x"},
                    "credentials": {"username": toy.user, "password": toy.password},
                }
            }
        )
    )
    assert outcomes(opened.mirror(tmp_path / "p.yaml", remote=remote)) == {
        "1.0": ("new", "done"),
        "1.1": ("changed", "done"),
    }


def test_by_when_they_were_made(toy: Toy, opened: api.Store, remote: Remote, tmp_path: Path) -> None:
    for tag, day in (("a", 3), ("b", 1), ("c", 2)):
        toy.add("x", tag, image(tag, created=f"2026-03-0{day}T00:00:00Z"))
    plan = tmp_path / "p.toml"
    plan.write_text(f'[[image]]\nsource = "{toy.host}/x"\nnewest = 2\norder = "created"\n')
    assert outcomes(opened.mirror(plan, remote=remote)) == {"a": ("new", "done"), "c": ("new", "done")}
    toy.log.clear()
    opened.mirror(plan, remote=remote)
    assert {one.method for one in toy.log if "/tags/" not in one.path} == {"HEAD"}  # the dates are known by now
    plan.write_text(f'[[image]]\nsource = "{toy.host}/x"\nsince = 2026-03-03\n')
    assert outcomes(opened.mirror(plan, remote=remote)) == {"a": ("same", "")}


def test_one_bad_tag(toy: Toy, target: Toy, opened: api.Store, remote: Remote) -> None:
    for tag in ("1", "2", "3"):
        toy.add("a", tag, image(tag))
    bad = json.loads(toy.manifests["a"]["2"][1])["layers"][1]["digest"]
    whole = toy.blobs["a"][bad]
    toy.blobs["a"][bad] = whole[:-1] + b"!"
    report = opened.mirror(f"{toy.host}/a", remote=remote, to=target.host, keep_going=True)
    assert outcomes(report) == {"1": ("new", "done"), "2": ("new", "failed"), "3": ("new", "done")}
    assert report.failed == 1 and "verification failed" in report.rows[1].error
    assert "2" not in target.manifests["a"]
    toy.blobs["a"][bad] = whole
    assert outcomes(opened.mirror(f"{toy.host}/a", remote=remote, to=target.host)) == {
        "1": ("same", ""),
        "2": ("new", "done"),
        "3": ("same", ""),
    }


def test_without_keep_going_no_other_is_begun(toy: Toy, opened: api.Store, remote: Remote) -> None:
    for tag in ("1", "2", "3"):
        toy.add("a", tag, image(tag))
    toy.fail("GET", "/manifests/sha256", registry.error(403, "DENIED", "no"), times=1)
    report = opened.mirror(f"{toy.host}/a", remote=remote, jobs=1)
    assert outcomes(report) == {"1": ("new", "failed"), "2": ("new", "not begun"), "3": ("new", "not begun")}


def test_what_is_not_there(toy: Toy, opened: api.Store, remote: Remote) -> None:
    toy.add("a", "1", image("1"))
    plan = [f"{toy.host}/a:1", f"{toy.host}/a:2", f"{toy.host}/nothing"]
    report = opened.mirror(plan, remote=remote, keep_going=True)
    assert [(row.status, row.outcome) for row in report.rows] == [("new", "done"), ("failed", ""), ("failed", "")]
    assert "not found" in report.rows[1].error and "cannot list its tags" in report.rows[2].error
    assert opened.mirror(plan, remote=remote).count(outcome="done") == 0


@pytest.mark.parametrize("deletes", ["tags", "digests", "nothing"])
def test_prune(toy: Toy, target: Toy, opened: api.Store, remote: Remote, deletes: str) -> None:
    for tag in ("1", "2", "3"):
        toy.add("a", tag, image(tag))
    toy.manifests["a"]["also-2"] = toy.manifests["a"]["2"]
    plan, to = f"{toy.host}/a", target.host
    opened.mirror(plan, remote=remote, to=to)
    target.add("a", "theirs", image("theirs"))  # which no mirror put there
    opened.tag(f"{toy.host}/a:3", f"{toy.host}/a:mine")  # nor this one here
    target.deletes = deletes
    for tag in ("1", "2"):
        del toy.manifests["a"][tag]
    assert opened.mirror(plan, remote=remote, to=to).count(status="gone") == 2
    assert "1" in target.manifests["a"]

    toy.fail("GET", "/tags/list", registry.error(500, "UNKNOWN", "no"), times=10)
    assert opened.mirror(plan, remote=remote, to=to, prune=True, keep_going=True).failed == 1
    assert "1" in target.manifests["a"]
    toy.faults.clear()

    report = opened.mirror(plan, remote=remote, to=to, prune=True)
    assert report.count(outcome="removed") == 2 and not report.failed
    left = {ref for ref in target.manifests["a"] if ":" not in ref}
    kept = {"tags": set(), "digests": {"2"}, "nothing": {"1", "2"}}[deletes]
    assert left == {"3", "also-2", "theirs"} | kept
    warned = {row.source.tag for row in report.rows if row.warning}
    assert warned == kept
    assert {one.tag for one in opened.images()} == {"3", "also-2", "mine"}
    assert opened.mirror(plan, remote=remote, to=to, prune=True).count(status="gone") == len(kept)


def test_recheck(toy: Toy, target: Toy, opened: api.Store, remote: Remote) -> None:
    toy.add("a", "1", image("1"))
    plan, to = f"{toy.host}/a:1", target.host
    opened.mirror(plan, remote=remote, to=to)
    target.manifests.clear()
    assert opened.mirror(plan, remote=remote, to=to).count(status="same") == 1
    assert outcomes(opened.mirror(plan, remote=remote, to=to, recheck=True)) == {"1": ("changed", "done")}
    holds(toy, "a", target, "a")


def test_signatures_come_along(toy: Toy, target: Toy, opened: api.Store, remote: Remote) -> None:
    digest = toy.add("a", "1", image("1"))
    empty = toy.blob("a", b"{}", "application/vnd.oci.empty.v1+json")
    subject = {"mediaType": registry.MANIFEST, "digest": digest, "size": len(toy.manifests["a"]["1"][1])}
    signature = {"mediaType": registry.MANIFEST, "config": empty, "layers": [empty], "subject": subject}
    made = toy.put("a", "", signature | {"artifactType": "application/x-signature"})
    del toy.manifests["a"][""]
    size = len(toy.manifests["a"][made][1])
    toy.referring[digest] = [
        {"mediaType": registry.MANIFEST, "digest": made, "size": size, "artifactType": "application/x-signature"}
    ]
    opened.mirror(f"{toy.host}/a", remote=remote, to=target.host)
    assert made not in target.manifests["a"]
    report = opened.mirror(f"{toy.host}/a", remote=remote, to=target.host, referrers=True)
    assert not report.failed
    assert target.manifests["a"][made] == toy.manifests["a"][made]


def test_a_full_disk(toy: Toy, opened: api.Store, remote: Remote) -> None:
    toy.add("a", "1", image("1"))
    with pytest.raises(OutOfSpace, match="are free, less than"):
        opened.mirror(f"{toy.host}/a", remote=remote, min_free=1 << 60)
    assert not opened.images()


def test_the_state_belongs_to_one_run(toy: Toy, opened: api.Store, remote: Remote, tmp_path: Path) -> None:
    toy.add("a", "1", image("1"))
    state = tmp_path / "state"

    def second(row: Row) -> None:
        with pytest.raises(Conflict, match="another process is at work"):
            opened.mirror(f"{toy.host}/a", remote=remote, state=state)
        assert opened.mirror(f"{toy.host}/a", remote=remote, state=state, dry_run=True).count(status="same") == 1

    assert not opened.mirror(f"{toy.host}/a", remote=remote, state=state, say=second).failed
    whole = state.read_text()
    # A torn line is as none, and what is said twice is said once afterwards.
    state.write_text(whole + whole + "put half of a li")
    assert opened.mirror(f"{toy.host}/a", remote=remote, state=state).count(status="same") == 1
    assert state.read_text() == whole
    state.write_bytes(b"\xff\x00 rubbish\nput x y z all\n")
    assert outcomes(opened.mirror(f"{toy.host}/a", remote=remote, state=state)) == {"1": ("changed", "done")}


class Mine:
    """An executor that does one thing after another."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def run(self, do: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        for item in items:
            self.seen.append(item)
            yield do(item)


def test_an_executor_of_ones_own(toy: Toy, opened: api.Store, remote: Remote) -> None:
    for tag in ("1", "2"):
        toy.add("a", tag, image(tag))
    mine = Mine()
    report = opened.mirror(f"{toy.host}/a", remote=remote, executor=mine)
    assert report.count(outcome="done") == len(mine.seen) == 2


def test_plans_that_cannot_be(toy: Toy, opened: api.Store, remote: Remote) -> None:
    with pytest.raises(UsageError, match="not a registry with a prefix"):
        opened.mirror("a.example/x", remote=remote, to="x/y")
    with pytest.raises(UsageError, match="not a registry with a prefix"):
        opened.mirror("a.example/x", remote=remote, to="host:5000/x:1")
    with pytest.raises(Conflict, match="would go to x"):
        opened.mirror(["a.example/x", "b.example/x"], remote=remote, to=toy.host)
    assert not toy.log


def test_interrupted(toy: Toy, opened: api.Store) -> None:
    toy.add("a", "1", image("1"))
    toy.add("a", "2", sample.image("big", layers=[sample.files({"big": sample.noise("big", 1 << 20)})]))
    told = threading.Event()

    def alive() -> None:
        if told.is_set():
            raise Interrupted("interrupted")

    toy.fail("GET", "/blobs/", registry.stall(200_000), times=9)
    with Remote(Network(backoff=0.01, read_timeout=30.0), alive=alive) as remote, pytest.raises(Interrupted):
        threading.Timer(0.5, lambda: (told.set(), remote.http.wake())).start()
        opened.mirror(f"{toy.host}/a:2", remote=remote)
    assert not opened.images()


def test_the_command(toy: Toy, target: Toy, cas: Cas) -> None:
    for tag in ("1", "2"):
        toy.add("a", tag, image(tag))
    plan, to = f"{toy.host}/a", f"--to={target.host}/m"
    looked = cas("mirror", plan, to, "--dry-run")
    assert looked.code == 0 and "2 tags: 2 new; " in looked.out and f"{toy.host}/a:1: new, " in looked.out
    done = cas("mirror", plan, to)
    assert done.code == 0 and done.out.splitlines()[-1].startswith("2 tags: 2 new; ")
    rows = [json.loads(line) for line in cas("mirror", plan, to, "--format", "json").out.splitlines()]
    assert [(row["Status"], row["Target"]) for row in rows] == [("same", f"{target.host}/m/a:{n}") for n in "12"]
    wrong = cas("mirror", plan, f"{toy.host}/none:1", "--keep-going", "-q", ok=False)
    assert wrong.code == 1 and "1 of 3 tags failed" in wrong.err and f"{toy.host}/none:1: failed: " in wrong.out
    assert cas("mirror", ok=False).code == 125
    assert cas("mirror", plan, "--max-rate", "0", ok=False).code == 125


def test_killed_and_begun_again(toy: Toy, target: Toy, cas: Cas, spawn: Spawn) -> None:
    for number in range(12):
        toy.add("a", str(number), image(number))
    command = ("mirror", f"{toy.host}/a", "--to", target.host, "--jobs", "2")
    process = spawn(*command)
    end = time.monotonic() + 60
    while len(target.manifests.get("a", {})) < 6 and time.monotonic() < end and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    fetched = toy.count("GET", "/blobs/")
    assert cas(*command).code == 0
    holds(toy, "a", target, "a")
    # What was under way may have to come again: two images, of three blobs each.
    assert toy.count("GET", "/blobs/") <= len(toy.blobs["a"]) + 6 and fetched
    assert cas("check").code == 0
    toy.log.clear()
    assert cas(*command).out.startswith("12 tags: 12 same")
    assert toy.count("GET", "/blobs/") == 0


def test_a_rate_is_kept(toy: Toy, target: Toy, opened: api.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.add("a", "1", sample.image("big", layers=[sample.files({"big": sample.noise("big", 600_000)})]))
    waited: list[float] = []
    monkeypatch.setattr(Rate, "take", lambda self, count: waited.append(count))
    with Remote(Network(max_rate=1e9)) as remote:
        report = opened.mirror(f"{toy.host}/a:1", remote=remote, to=target.host)
    assert not report.failed
    assert sum(waited) >= report.fetched - len(toy.blobs["a"]) * 4096 + report.sent  # documents are not counted
    assert max(waited) <= METERED


def test_a_bucket_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0

    class Clock:
        def monotonic(self) -> float:
            return now

        def sleep(self, seconds: float) -> None:
            nonlocal now
            now += seconds

    monkeypatch.setattr("casstore.transport.http.time", Clock())
    bucket = Rate(1000.0)
    for _ in range(50):
        bucket.take(100)
    assert 104.8 < now <= 105.0  # 5,000 bytes at 1,000 a second, a tenth of a second's at once
    now += 1000
    bucket.take(100)
    assert now < 1105.1  # what was not used is not saved up


def test_files_that_are_no_plans(opened: api.Store, remote: Remote, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("a: [")
    with pytest.raises(BadInput, match=r"p\.yaml: not YAML"):
        opened.mirror(tmp_path / "p.yaml", remote=remote)
