"""Archives with a few bytes wrong: read, or refused in one line; never anything else."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from archives import Landings, LayoutBuilder, config, docker_archive, layer, legacy_entries, sha, tar_of

from casstore.errors import CasstoreError
from casstore.transport import reading
from casstore.transport.archive import LIMIT, open_source
from casstore.transport.stream import TarStream

ROUNDS = 150
TOKENS = [
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b"null",
    b"-1",
    b"../",
    b"\0",
    b"sha256:",
    b"\\ud800",
    b"\xff",
    b":",
    b",",
    b"/",
]


def good_archives() -> list[bytes]:
    layout = LayoutBuilder()
    layout.add(layout.index(layout.for_platform("linux/amd64"), layout.for_platform("linux/arm64")), "a:1")
    layout.add(layout.image([layer("x")]), "b:1")
    raw, data = config([layer("x")]), layer("x")
    item = {"Config": f"blobs/sha256/{sha(raw)}", "RepoTags": ["b:1"], "Layers": [f"blobs/sha256/{sha(data)}"]}
    entries, ids = legacy_entries([(layer("a"), {}), (layer("b"), {})])
    entries.append(("repositories", json.dumps({"a": {"b": ids[1]}}).encode()))
    return [
        docker_archive([layer("x"), layer("y", 70_000)], ["a:1"]),
        layout.tar(),
        layout.tar(manifest_json=json.dumps([item]).encode()),
        tar_of(entries),
    ]


def mutate(good: bytes, dice: random.Random) -> bytes:
    data = bytearray(good)
    blocks = [at for at in range(0, len(data), 512) if any(data[at : at + 512])]
    for _ in range(dice.choice([1, 1, 2, 3, 8])):
        at = dice.choice(blocks)
        kind = dice.random()
        if kind < 0.4:
            data[at + dice.randrange(512)] = dice.randrange(256)
        elif kind < 0.8:
            token = dice.choice(TOKENS)
            place = at + dice.randrange(512 - len(token))
            data[place : place + len(token)] = token
        else:
            other = dice.choice(blocks)
            data[at : at + 512] = data[other : other + 512]
    if dice.random() < 0.7:  # else hardly anything gets past the checksums
        for at in range(0, len(data), 512):
            if data[at + 257 : at + 262] == b"ustar":
                data[at + 148 : at + 156] = b" " * 8
                data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    return bytes(data)


@pytest.mark.parametrize("seed", range(4))
def test_mutated(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    good = good_archives()[seed]
    path = tmp_path / "a.tar"
    read = 0
    for _ in range(ROUNDS):
        path.write_bytes(mutate(good, dice))
        source = open_source(path) if dice.random() < 0.7 else TarStream(open(path, "rb", 0), "pipe", LIMIT)  # noqa: SIM115
        with source:
            try:
                sink = None if source.seekable else Landings()
                archive = reading.read(source, sink, everything=dice.random() < 0.3)
            except CasstoreError as error:
                assert "\n" not in str(error)
            else:
                read += len(archive.images)
    assert read, "some are read all the same"
