"""Pushes to a real registry: plain layers become what docker makes of them, and a push that was killed is ended by the
next one."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import registries
import sample
from peers import Peer
from registries import raw

from casstore import api
from casstore.image.remote import Remote
from casstore.kernels import deflate

compiled = pytest.mark.skipif(deflate.IMPLEMENTATION != "compiled", reason="the compiled kernel is not built")


@pytest.fixture(scope="module")
def folder(scratch: Path) -> Path:
    return scratch / "pushed-to"


@pytest.fixture(scope="module")
def host(folder: Path) -> Iterator[str]:
    with registries.docker_registry(folder) as made:
        yield made


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Remote]:
    with Remote(credentials=[tmp_path / "config.json"]) as made:
        yield made


def layers_at(host: str, path: str) -> list[tuple[str, int]]:
    manifest = json.loads(raw(f"http://{host}/v2/{path}/manifests/1"))
    return [(layer["digest"], layer["size"]) for layer in manifest["layers"]]


@compiled
def test_plain_layers_become_what_docker_push_makes_of_them(
    host: str, docker: Peer, opened: api.Store, remote: Remote, tmp_path: Path
) -> None:
    ours, theirs = f"{host}/plain/ours:1", f"{host}/plain/theirs:1"
    large = sample.tar([sample.entry(f"text-{i}", sample.text(i, 200_000 + i)) for i in range(20)])
    one = sample.image("pushed", (ours, theirs), [large, sample.rich_layer("pushed"), sample.files({"a": b"a"})])
    archive = tmp_path / "a.tar"
    archive.write_bytes(sample.docker_archive(one))
    docker("load", "-i", archive)
    try:
        docker("push", theirs)
    finally:
        docker("rmi", "-f", ours, theirs)
    opened.load(archive)
    opened.push(ours, remote=remote)
    assert layers_at(host, "plain/ours") == layers_at(host, "plain/theirs")
    # And so docker's repository has all that another machine would push there.
    with api.open(tmp_path / "other") as other:
        other.load(archive)
        assert other.push(theirs, remote=remote).sent == 0
        opened.pull(theirs, remote=remote)


@compiled
@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_others_read_what_became_of_plain_layers(
    host: str, skopeo: Peer, opened: api.Store, remote: Remote, tmp_path: Path, compression: str
) -> None:
    name = f"{host}/read/{compression}:1"
    one = sample.rich_image(compression, (name,))
    archive, back = tmp_path / "a.tar", tmp_path / "back"
    archive.write_bytes(sample.docker_archive(one))
    opened.load(archive)
    report = opened.push(name, remote=remote, compression=compression)
    assert sample.digest(raw(f"http://{host}/v2/read/{compression}/manifests/1")) == str(report.digest)
    # skopeo compares all digests, those of what is inside too.
    skopeo("copy", "--src-tls-verify=false", "--dest-decompress", f"docker://{name}", f"dir:{back}")
    layers = json.loads((back / "manifest.json").read_text())["layers"]
    assert [(back / layer["digest"].partition(":")[2]).read_bytes() for layer in layers] == list(one.layers)
    with api.open(opened.root) as again:
        assert again.push(name, remote=remote, compression=compression).sent == 0


@pytest.mark.parametrize("least", [0, 1 << 20, 12 << 20])
def test_the_next_push_ends_what_a_killed_one_began(
    host: str, folder: Path, opened: api.Store, remote: Remote, tmp_path: Path, least: int
) -> None:
    path = f"killed/at-{least}"
    name = f"{host}/{path}:1"
    layer = gzip.compress(sample.files({"big": sample.noise(least, 32 << 20)}), 1, mtime=0)
    one = sample.image(name, (name,), [gzip.decompress(layer)])
    archive = tmp_path / "a.tar"
    archive.write_bytes(sample.docker_archive(one, pack=lambda _: layer))
    opened.load(archive)
    uploads = folder / f"data/docker/registry/v2/repositories/{path}/_uploads"
    with subprocess.Popen([sys.executable, "-m", "casstore", "--store", opened.root, "push", "-q", name]) as push:
        while push.poll() is None and not any(each.stat().st_size > least for each in uploads.glob("*/data")):
            time.sleep(0.001)
        push.kill()
    opened.push(name, remote=remote)
    assert layers_at(host, path) == [(sample.digest(layer), len(layer))]
    got = hashlib.sha256(raw(f"http://{host}/v2/{path}/blobs/{sample.digest(layer)}"))
    assert got.hexdigest() == sample.sha(layer)
    assert not list((opened.root / "transfers").glob("up-*"))
    assert not opened.check().findings
