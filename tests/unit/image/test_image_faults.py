"""`pull` and `push` over links and registries that fail in the middle of what they do: what passes is waited for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import registry
import sample
from registry import Toy, serving

from casstore import api
from casstore.digest import Digest
from casstore.image.remote import Remote
from casstore.transport.http import Network

QUICK = Network(backoff=0.01, read_timeout=1.0, connect_timeout=1.0, retries=3)
BIG = sample.files({"big": sample.noise("big", 3 << 20)})
SMALL = sample.files({"small": sample.noise("small", 200_000)})
ONE = sample.image("faults", layers=[BIG, SMALL])


@pytest.fixture
def toy() -> Iterator[Toy]:
    with serving() as made:
        yield made


@pytest.fixture
def remote() -> Iterator[Remote]:
    with Remote(QUICK) as made:
        yield made


def holds(store: api.Store, toy: Toy) -> None:
    for digest, data in toy.blobs["a"].items():
        assert b"".join(store.blobs.cat(Digest.parse(digest))) == data


@pytest.fixture
def pushed(opened: api.Store, toy: Toy, tmp_path: Path) -> str:
    """A name, of an image in the store that is not at the registry."""
    name = f"{toy.host}/a:1"
    archive = tmp_path / "a.tar"
    archive.write_bytes(sample.docker_archive(sample.Image(ONE.config, ONE.layers, (name,)), pack=sample.gz))
    opened.load(archive)
    return name


def whole(toy: Toy) -> None:
    """The repository has what the image is made of, and the name."""
    assert toy.blobs["a"] == {sample.digest(data): data for data in (ONE.config, *map(sample.gz, ONE.layers))}
    assert "1" in toy.manifests["a"]


# -- pull


BROKEN = {
    "reset": registry.reset(),
    "reset inside": registry.reset(10),
    "cut": registry.cut(10),
    "stall": registry.stall(10),
    "silence": registry.silence,
    "503": registry.status(503),
    "429": registry.status(429, Retry_After="0"),
}


@pytest.mark.parametrize("trouble", BROKEN)
@pytest.mark.parametrize("pattern", ["/v2/$", "/manifests/", "/token", sample.digest(ONE.config)])
def test_documents_that_break_off_come_again(
    toy: Toy, opened: api.Store, remote: Remote, pattern: str, trouble: str
) -> None:
    toy.add("a", "1", ONE, bytes)
    if pattern == "/token":
        toy.auth, toy.anonymous = "bearer", True
    # Of a registry on this machine it is not known yet what it speaks: that is tried twice only.
    toy.fail("GET", pattern, BROKEN[trouble], times=1 if pattern == "/v2/$" else 2)
    opened.pull(f"{toy.host}/a:1", remote=remote)
    holds(opened, toy)


@pytest.mark.parametrize("pattern", ["/tags/list", "/referrers/"])
def test_lists_too(toy: Toy, remote: Remote, pattern: str) -> None:
    digest = toy.add("a", "1", ONE, bytes)
    toy.fail("GET", pattern, registry.reset(10), times=2)
    assert remote.tags(f"{toy.host}/a") == ["1"]
    assert remote.referrers(f"{toy.host}/a@{digest}") == []
