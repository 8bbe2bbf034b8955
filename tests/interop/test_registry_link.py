"""Over a link that breaks again and again: images arrive whole, here and there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import registries
import sample
from link import linked
from registries import raw

from casstore import api
from casstore.digest import Digest
from casstore.image.remote import Remote
from casstore.transport.http import Network

LAYERS = [sample.files({"noise": sample.noise(("link", number), size << 20)}) for number, size in enumerate((12, 9, 6))]
ONE = sample.image("link", layers=[*LAYERS, *(sample.files({f"{n}": sample.text(n, 90_000)}) for n in range(12))])
# Of every MiB this share takes its connection along; a few dozen times in all.
RESETS = "0.15"


@pytest.fixture(scope="module")
def host(scratch: Path) -> Iterator[str]:
    with registries.docker_registry(scratch / "linked") as made:
        yield made


def test_there_and_back(host: str, opened: api.Store, tmp_path: Path) -> None:
    network = Network(backoff=0.01, retries=8)
    port = host.rpartition(":")[2]
    with linked(f"127.0.0.1:{port}", "--resets", RESETS, "--rate", "100e6") as (near, up), Remote(network) as remote:
        name = f"{near}/a/b:1"
        archive = tmp_path / "a.tar"
        archive.write_bytes(sample.docker_archive(sample.Image(ONE.config, ONE.layers, (name,)), pack=sample.gz))
        opened.load(archive)
        digest = opened.push(name, remote=remote).digest
    for data in (ONE.config, *map(sample.gz, ONE.layers)):
        assert raw(f"http://{host}/v2/a/b/blobs/{sample.digest(data)}") == data
    assert sample.digest(raw(f"http://{host}/v2/a/b/manifests/1")) == str(digest)
    with (
        linked(f"127.0.0.1:{port}", "--resets", RESETS) as (near, down),
        Remote(network) as remote,
        api.open(tmp_path / "other") as other,
    ):
        report = other.pull(f"{near}/a/b:1", remote=remote)
        assert (report.digest, str(report.image)) == (digest, ONE.id)
        for data in (ONE.config, *map(sample.gz, ONE.layers)):
            assert b"".join(other.blobs.cat(Digest.parse(sample.digest(data)))) == data
        assert other.check(read_data=True).findings == []
    assert up.resets > 3 and down.resets > 3, (up, down)
    print(up, down)
