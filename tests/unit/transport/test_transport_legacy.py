"""Archives of docker 1.8: read as docker 20.10 reads them, and the form that `--format legacy` writes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from archives import Way, layer, legacy_entries, sha, tar_of

from casstore.errors import BadInput, CasstoreError, InvalidReference, LimitExceeded

ONE, TWO, THREE = layer("one", 100_000), layer("two"), layer("three")


def archive_of(chain: list[tuple[bytes, dict[str, Any]]], repositories: Any = None) -> tuple[bytes, list[str]]:
    entries, found = legacy_entries(chain)
    if repositories is not None:
        value = repositories(found) if callable(repositories) else repositories
        entries.append(("repositories", value if isinstance(value, bytes) else json.dumps(value).encode()))
    return tar_of(entries), found


def test_chain_of_parents(any_way: Way) -> None:
    data, names = archive_of(
        [(ONE, {}), (TWO, {"container_config": {"Cmd": ["/bin/sh", "-c", "two"]}}), (THREE, {})],
        lambda ids: {"app": {"v1": ids[2]}, "example.com/base": {"latest": ids[0]}},
    )
    archive = any_way(data)
    low, middle, top = archive.images
    assert archive.form == "legacy"
    assert [len(image.layers) for image in archive.images] == [1, 2, 3]
    assert [[tag.familiar() for tag in image.tags] for image in archive.images] == [
        ["example.com/base:latest"],
        [],
        ["app:v1"],
    ]
    assert (low.parent, middle.parent, top.parent) == (None, low.config_digest, middle.config_digest)
    assert [image.config_digest for image in archive.heads] == [low.config_digest, top.config_digest]
    assert top.config is not None
    assert [str(each) for each in top.config.diff_ids] == [f"sha256:{sha(each)}" for each in (ONE, TWO, THREE)]
    value = json.loads(top.config_bytes)
    assert [step.get("created_by") for step in value["history"]] == [None, "/bin/sh -c two", None]
    assert not {"id", "parent", "Size"} & set(value)
    assert any_way.layer_bytes(archive, 2, 1) == TWO
    assert names[2] in top.what


def test_without_repositories(way: Way) -> None:
    data, _ = archive_of([(ONE, {}), (TWO, {})])
    archive = way(data)
    assert [image.tags for image in archive.images] == [[], []]
    assert len(archive.heads) == 1


OLD = {
    "created": "2015-04-17T22:01:13.062208605Z",
    "container_config": {
        "Hostname": "19bbb9ebab4d",
        "Cmd": ["/bin/sh", "-c", '#(nop) CMD ["sh"] <&>é'],
        "PortSpecs": None,
        "Memory": 0,
        "ExposedPorts": {"80/tcp": {}, "22/tcp": {}},
        "Volumes": {"/b": {}, "/a": {}},
    },
    "docker_version": "1.6.0",
    "config": {
        "Cmd": ["sh"],
        "Labels": {},
        "Entrypoint": None,
        "NetworkDisabled": True,
        "MacAddress": "",
        "StopSignal": "SIGTERM",
    },
    "architecture": "amd64",
    "os": "linux",
    "Size": 7,
    "author": "me",
    "comment": "c",
    "checksum": "x",
    "throwaway": True,
}
RARE = {"Healthcheck": {"Test": ["NONE"]}, "Shell": ["/bin/sh"], "StopTimeout": 0, "ArgsEscaped": True}


@pytest.mark.parametrize(
    ("number", "lower", "changes", "below", "image_id"),
    [
        (
            0,
            {"docker_version": "1.2"},
            {},
            "aedfcf0b6ebac7c851b1bad131e6e325862887e34817dfc350e57f884582e1ab",
            "b5b95ee00c868a76e77a083cc754d9f9493787a9bef7afc9060afc06e498b102",
        ),
        (
            3,
            {},
            {"docker_version": "", "config": None, "architecture": "", "container_config": {"Cmd": None}},
            "3f81516cfaaed8219922332c300c610ace0e8ce0e0e816c625c5e7e211751c60",
            "d82208691666fbbbf7b93c473356f4a8a6da1ab91c85933027f789371b474440",
        ),
        (
            5,
            {},
            {"created": "2015-04-17T22:01:13.100Z", "config": RARE | {"OnBuild": [], "Env": []}},
            "8ed944c604775997a1b71dd6e5fe965c6357455b26732f30e0a9dab509f44688",
            "9541fc7532e7d0ca3f6733c0e6f13e9d1bac27443a4e39837346a605ea0f39f2",
        ),
    ],
)
def test_ids_are_dockers(
    file: Way, number: int, lower: dict[str, Any], changes: dict[str, Any], below: str, image_id: str
) -> None:
    """Golden: `docker load` (20.10.24) of these archives, `docker inspect` of what it made."""
    chain = [(layer(f"l{number}"), lower), (layer(f"m{number}"), OLD | changes)]
    entries, _ = legacy_entries(chain, prefix=str(number))
    archive = file(tar_of(entries))
    assert [image.config_digest.hex for image in archive.images] == [below, image_id]


def repeat(chain: list[Any], repositories: Any, words: str, kind: type[CasstoreError] = BadInput) -> Any:
    return pytest.param(chain, repositories, words, kind, id=words)


@pytest.mark.parametrize(
    ("chain", "repositories", "words", "kind"),
    [
        repeat([(ONE, {"parent": sha(b"0")})], None, "go in a circle", BadInput),
        repeat([(ONE, {"parent": sha(b"1")}), (TWO, {})], None, "in a circle, at", BadInput),
        repeat([(ONE, {"parent": "f" * 64})], None, "parent f+ is missing", BadInput),
        repeat([(ONE, {"parent": "../x"})], None, "is missing", BadInput),
        repeat([(ONE, {"parent": ["x"]})], None, "parent is not an ID", BadInput),
        repeat([(ONE, {"os": "windows"})], None, "cannot load windows image", BadInput),
        repeat([(ONE, {})], {"app": {"v1": "0" * 64}}, "names a missing layer", BadInput),
        repeat([(ONE, {})], {"app": {"v1": 7}}, "app:v1 names a missing", BadInput),
        repeat([(ONE, {})], {"app": "x"}, "invalid repositories", BadInput),
        repeat([(ONE, {})], [], "repositories: expected", BadInput),
        repeat([(ONE, {})], b'{"a":{},"a":{}}', "duplicate key", BadInput),
        repeat([(ONE, {})], lambda ids: {"App": {"v1": ids[0]}}, "must be lowercase", InvalidReference),
        repeat([(ONE, {})], lambda ids: {"app": {"-": ids[0]}}, "invalid tag format", InvalidReference),
        repeat([(ONE, {})], lambda ids: {"app:x": {"v": ids[0]}}, "invalid repository name", BadInput),
        repeat([(TWO, {})] * 129, None, "layers on top of each other", LimitExceeded),
    ],
)
def test_refused(way: Way, chain: list[Any], repositories: Any, words: str, kind: type[CasstoreError]) -> None:
    data, _ = archive_of(chain, repositories)
    with pytest.raises(kind, match=words) as caught:
        way(data)
    assert "\n" not in str(caught.value)


def test_missing_layer(way: Way) -> None:
    entries, _ = legacy_entries([(ONE, {})])
    with pytest.raises(BadInput, match="layer is missing"):
        way(tar_of(entries[:2]))


def test_bad_json(way: Way) -> None:
    with pytest.raises(BadInput, match="not an object"):
        way(tar_of([("a" * 64 + "/json", b"[]"), ("a" * 64 + "/layer.tar", ONE)]))
