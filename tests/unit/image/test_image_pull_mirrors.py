"""Mirrors that are asked before the registry itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import registry
import sample
from registry import Toy, serving
from running import Cas

from casstore import api
from casstore.digest import Digest
from casstore.errors import NotFound
from casstore.image.remote import Remote
from casstore.transport.http import Network

QUICK = Network(backoff=0.01, read_timeout=2.0, connect_timeout=5.0, retries=1)
ONE = sample.image("x", layers=[sample.files({"noise": sample.noise("mirror", 3 << 20)})])
LAYER = sample.digest(sample.gz(ONE.layers[0]))


@pytest.fixture
def origin() -> Iterator[Toy]:
    with serving() as made:
        made.add("a/b", "1", ONE)
        yield made


@pytest.fixture
def mirror() -> Iterator[Toy]:
    with serving() as made:
        yield made


@pytest.fixture
def remote(origin: Toy, mirror: Toy) -> Iterator[Remote]:
    with Remote(QUICK, mirrors={origin.host: [mirror.host]}) as made:
        yield made


def test_the_mirror_is_asked_first_and_told_for_whom(
    origin: Toy, mirror: Toy, opened: api.Store, remote: Remote
) -> None:
    mirror.add("a/b", "1", ONE)
    report = opened.pull(f"{origin.host}/a/b:1", remote=remote)
    assert origin.log == []
    assert {one.query["ns"] for one in mirror.log if one.path != "/v2/"} == {origin.host}
    assert opened.identify(f"{origin.host}/a/b:1") == report.digest


def test_what_it_lacks_comes_from_the_registry(origin: Toy, mirror: Toy, opened: api.Store, remote: Remote) -> None:
    assert opened.pull(f"{origin.host}/a/b:1", remote=remote).fresh
    assert mirror.count("HEAD", "/manifests/1")
    assert not any(one.query for one in origin.log)
    with pytest.raises(NotFound, match=rf"{origin.host}/a/b:2"):
        opened.pull(f"{origin.host}/a/b:2", remote=remote)


def test_what_came_from_one_that_broke_need_not_come_again(
    origin: Toy, mirror: Toy, opened: api.Store, remote: Remote
) -> None:
    mirror.add("a/b", "1", ONE)
    mirror.fail("GET", LAYER, registry.cut(2_500_000))
    mirror.fail("GET", LAYER, registry.status(500), times=100)
    opened.pull(f"{origin.host}/a/b:1", remote=remote)
    (asked,) = [one.headers["range"] for one in origin.log if one.path.endswith(LAYER)]
    assert int(asked.removeprefix("bytes=").rstrip("-")) >= 2 << 20
    assert b"".join(opened.blobs.cat(Digest.parse(LAYER))) == sample.gz(ONE.layers[0])


def test_pushes_go_to_the_registry(origin: Toy, mirror: Toy, opened: api.Store, remote: Remote) -> None:
    mirror.add("a/b", "1", ONE)
    opened.pull(f"{origin.host}/a/b:1", remote=remote)
    opened.tag(f"{origin.host}/a/b:1", f"{origin.host}/new:1")
    mirror.log.clear()
    opened.push(f"{origin.host}/new:1", remote=remote)
    assert mirror.log == []
    assert "1" in origin.manifests["new"]


def test_from_the_command_line(origin: Toy, mirror: Toy, cas: Cas) -> None:
    mirror.add("a/b", "1", ONE)
    assert cas("pull", "--mirror", mirror.host, "-q", f"{origin.host}/a/b:1").out == f"{origin.host}/a/b:1\n"
    assert origin.log == []
