"""`mirror` between two docker-registries; what skopeo-sync brings of the same YAML; killed, and begun again."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import registries
import sample
from peers import Peer
from registries import raw
from running import Cas, Spawn

from casstore import api
from casstore.image.remote import Remote
from casstore.oci.reference import parse

LAYER = sample.files({f"base{number}": sample.noise(number, 50_000) for number in range(8)})
KILLS = int(os.environ.get("CASSTORE_TEST_KILLS", "3"))
"""How often a mirror is killed: `CASSTORE_TEST_KILLS=20 pytest tests/interop/test_mirror.py -k killed`."""
TAGS = ("1.0", "1.1", "1.2-alpine", "2.0", "latest")


@pytest.fixture(scope="module")
def source(scratch: Path) -> Iterator[str]:
    """A registry with two repositories of five tags and an index."""
    with registries.docker_registry(scratch / "mirror-source") as host, Remote() as remote:
        with api.open(scratch / "mirror-maker") as store:
            images = [
                sample.image(f"{name}{tag}", (f"{host}/{name}:{tag}",), [LAYER, sample.files({"own": tag.encode()})])
                for name in ("app", "deep/er/db")
                for tag in TAGS
            ]
            archive = scratch / "mirror.tar"
            archive.write_bytes(sample.docker_archive(*images, pack=sample.gz))
            store.load(archive)
            layout, _ = sample.platforms("many:1")
            archive.write_bytes(layout.tar())
            store.load(archive, all_platforms=True)
            store.tag("many:1", f"{host}/many:1")
            for one in store.images():
                if one.repository.startswith(host):
                    store.push(f"{one.repository}:{one.tag}", remote=remote)
        yield host


@pytest.fixture
def target(tmp_path: Path) -> Iterator[str]:
    with registries.docker_registry(tmp_path / "target") as host:
        yield host


def tags_of(host: str, name: str) -> set[str]:
    return set(json.loads(raw(f"http://{host}/v2/{name}/tags/list"))["tags"] or ())


def same(source: str, target: str, name: str, there: str, tag: str) -> bool:
    return raw(f"http://{source}/v2/{name}/manifests/{tag}") == raw(f"http://{target}/v2/{there}/manifests/{tag}")


def test_what_skopeo_brings_of_the_same_file(
    source: str, target: str, skopeo: Peer, opened: api.Store, tmp_path: Path
) -> None:
    plan = tmp_path / "sync.yaml"
    value = {
        source: {
            "images": {"app": ["1.0", "latest"], "many": []},
            "images-by-tag-regex": {"deep/er/db": r"^1\.[12]"},
            "tls-verify": False,
        }
    }
    plan.write_text(json.dumps(value))
    skopeo(
        "sync", "--all", "--src", "yaml", "--dest", "docker", "--dest-tls-verify=false", str(plan), f"{target}/theirs"
    )
    with Remote() as remote:
        report = opened.mirror(plan, remote=remote, to=f"{target}/ours")
        assert report.count(outcome="done") == len(report.rows) == 5
        assert opened.mirror(plan, remote=remote, to=f"{target}/ours").count(status="same") == 5
    for name, tags in (("app", {"1.0", "latest"}), ("many", {"1"}), ("deep/er/db", {"1.1", "1.2-alpine"})):
        last = name.rpartition("/")[2]  # skopeo's way with paths
        assert tags_of(target, f"theirs/{last}") == tags_of(target, f"ours/{name}") == tags
        for tag in tags:
            assert same(source, target, name, f"ours/{name}", tag)
            assert same(target, target, f"theirs/{last}", f"ours/{name}", tag)


def test_what_is_gone_is_taken_away(source: str, target: str, opened: api.Store, tmp_path: Path) -> None:
    with Remote() as remote:
        mine = f"{target}/mine"
        opened.mirror(f"{source}/app", remote=remote, to=mine)
        opened.tag(f"{source}/app:1.0", f"{source}/passing:1")
        opened.tag(f"{source}/app:1.1", f"{source}/passing:2")
        for number in (1, 2):
            opened.push(f"{source}/passing:{number}", remote=remote)
        opened.mirror(f"{source}/passing", remote=remote, to=mine)
        registry = remote.registry(parse(f"{source}/passing"), push=True)
        registry.delete_manifest("passing", str(remote.digest(f"{source}/passing:1")))
        report = opened.mirror(f"{source}/passing", remote=remote, to=mine, prune=True)
        assert not report.failed and report.count(outcome="removed") == 1
        # Debian's docker-registry deletes no tags, but manifests: ours had that one alone.
        assert tags_of(target, "mine/passing") == {"2"}
        assert tags_of(target, "mine/app") == set(TAGS)


@pytest.mark.parametrize("seed", range(KILLS))
def test_killed_at_any_moment(source: str, target: str, cas: Cas, spawn: Spawn, seed: int) -> None:
    plan = [f"{source}/app", f"{source}/deep/er/db", f"{source}/many"]
    command = ("mirror", *plan, "--to", target, "--jobs", "3")
    process = spawn(*command)
    time.sleep(random.Random(seed).uniform(0.25, 1.2))
    process.kill()
    process.wait()
    assert cas(*command).out.splitlines()[-1].startswith(f"{2 * len(TAGS) + 1} tags: ")
    for name in ("app", "deep/er/db"):
        assert tags_of(target, name) == set(TAGS)
        assert all(same(source, target, name, name, tag) for tag in TAGS)
    assert same(source, target, "many", "many", "1")
    cas("check", "--read-data")
    assert cas(*command).out.startswith(f"{2 * len(TAGS) + 1} tags: {2 * len(TAGS) + 1} same")
