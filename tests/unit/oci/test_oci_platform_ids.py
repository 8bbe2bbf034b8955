"""Platforms, chainIDs, v1 IDs."""

from __future__ import annotations

import hashlib
import json

import pytest

from casstore.digest import Digest
from casstore.errors import UsageError
from casstore.oci import ids, platform
from casstore.oci.manifest import Descriptor
from casstore.oci.platform import Platform, parse, rank, select

A, B, C = (Digest.parse(f"sha256:{letter * 64}") for letter in "abc")


def offer(text: str | None, digest: Digest = A) -> Descriptor:
    return Descriptor("", digest, 1, Platform(*text.split("/")) if text else None)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("Linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("arm64", "linux/arm64"),
        ("s390x", "linux/s390x"),
        ("windows/amd64", "windows/amd64"),
    ],
)
def test_parse(text: str, normal: str) -> None:
    assert str(parse(text)) == normal


@pytest.mark.parametrize("text", ["", "a/b/c/d", "linux/", "li nux/amd64", "/", "linux/../x"])
def test_bad_platforms(text: str) -> None:
    with pytest.raises(UsageError, match="invalid platform"):
        parse(text)


def test_host_is_normal() -> None:
    assert platform.host() == platform.host().normal()
    assert parse(platform.host().os).architecture == platform.host().architecture


@pytest.mark.parametrize(
    ("offered", "wanted", "suits"),
    [
        ("linux/amd64", "linux/amd64", 0),
        ("linux/386", "linux/amd64", 1),
        ("linux/amd64/v2", "linux/amd64", None),
        ("linux/amd64/v2", "linux/amd64/v3", 1),
        ("linux/arm64/v8", "linux/arm64", 0),
        ("linux/arm/v7", "linux/arm64", 2),
        ("linux/arm/v6", "linux/arm/v7", 1),
        ("linux/arm/v7", "linux/arm/v6", None),
        ("windows/amd64", "linux/amd64", None),
        ("linux/ppc64le", "linux/amd64", None),
        ("linux/riscv64", "linux/riscv64", 0),
        ("linux/arm64/v8.1", "linux/arm64/v8.1", 0),
        ("linux/arm64", "linux/arm64/v8.1", 1),
        ("linux/arm/v4", "linux/arm/v4", 0),
        ("linux/amd64/v10", "linux/amd64/v10", 0),
    ],
)
def test_rank(offered: str, wanted: str, suits: int | None) -> None:
    assert rank(Platform(*offered.split("/")), Platform(*wanted.split("/"))) == suits


def test_select() -> None:
    offers = [offer("linux/386"), offer("linux/arm64/v8", B), offer("linux/amd64", C), offer("linux/amd64")]
    assert select(offers, parse("linux/amd64")) is offers[2]
    assert select(offers, parse("linux/arm64")) is offers[1]
    assert select(offers[:2], parse("linux/amd64")) is offers[0]
    assert select(offers, parse("linux/s390x")) is None
    assert select([offer("unknown/unknown"), offer(None, B)], parse("linux/amd64")).digest == B  # type: ignore[union-attr]
    assert select([offer(None), offer(None, B)], parse("linux/amd64")) is None


def test_chain_ids() -> None:
    first, second, third = ids.chain_ids([A, B, C])
    assert first == A
    assert second.raw == hashlib.sha256(f"{A} {B}".encode()).digest()
    assert third.raw == hashlib.sha256(f"{second} {C}".encode()).digest()
    assert ids.chain_ids([]) == []


RUNTIME = (
    '{"Hostname":"","Domainname":"","User":"","AttachStdin":false,"AttachStdout":false,"AttachStderr":false,'
    '"Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":null,"Cmd":null,"Image":"","Volumes":null,'
    '"WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":null}'
)
CREATED = "2026-11-24T04:28:58.43267365Z"


def test_v1_layers_as_docker_names_them() -> None:
    """Golden: an image that docker 20.10.24 imported, and what its `save` made of it."""
    config = (
        f'{{"architecture":"amd64","comment":"Imported from -","config":{RUNTIME},"container_config":{RUNTIME},'
        f'"created":"{CREATED}","docker_version":"20.10.24+dfsg1","history":[{{"created":"{CREATED}",'
        '"comment":"Imported from -"}],"os":"linux","rootfs":{"type":"layers","diff_ids":'
        '["sha256:6b6043957d3b1b7873a373d1fafe3cbc3d6e6d75771beb0f8dc364124fd7712f"]}}'
    )
    assert Digest.of(config.encode()).hex == "7007f71b4995cff4970ae73720254d2c0cdb8afbc9f207a9b3937416be699e1e"
    diff_id = Digest.parse("sha256:6b6043957d3b1b7873a373d1fafe3cbc3d6e6d75771beb0f8dc364124fd7712f")
    v1_id = "6793428f9b4a1ccb185f766dcfcd7e54c4386349937fc988a5f6f0a3e2127f60"
    document = (
        f'{{"id":"{v1_id}","comment":"Imported from -","created":"{CREATED}","container_config":{RUNTIME},'
        f'"docker_version":"20.10.24+dfsg1","config":{RUNTIME},"architecture":"amd64","os":"linux"}}'
    )
    assert ids.v1_layers(json.loads(config), [diff_id]) == [(v1_id, document.encode())]


def test_lower_v1_layers_as_docker_names_them() -> None:
    """Golden: the lower layers of another image saved by docker 20.10.24."""
    diff_ids = [
        Digest.parse("sha256:6b1f8221ce8234fb6a61dd12ac5bcd3aa0bf4a4385d16e135814fbb1d0b4be93"),
        Digest.parse("sha256:4d32ae8629669408d6ce07b3fc5c3fa05a5715e0bff6c84031052dbf12933aab"),
        A,
    ]
    made = ids.v1_layers({"os": "linux"}, diff_ids)
    low = "4af85f6811c1260d528e501e68fe228375e93b250892ca682cd4cec280db051c"
    middle = "bb69e4220f69db1be88930c95e367724a6f1bc48a252fb40493a7d966caa0305"
    empty = f'"created":"1970-01-01T00:00:00Z","container_config":{RUNTIME},"os":"linux"}}'
    assert made[0] == (low, f'{{"id":"{low}",{empty}'.encode())
    assert made[1] == (middle, f'{{"id":"{middle}","parent":"{low}",{empty}'.encode())


def test_v1_json_is_escaped_as_go_does() -> None:
    ((_, document),) = ids.v1_layers({"config": {"Cmd": ["<&>"]}}, [A])
    assert b"\\u003c\\u0026\\u003e" in document


def test_config_from_v1_of_an_old_engine() -> None:
    """Engines before 1.8.3 wrote fields that docker drops, and left out some that it writes."""
    old = {
        "id": "x",
        "parent": "y",
        "created": "2014-01-01T00:00:00Z",
        "container_config": {"Cmd": ["/bin/sh", "-c", "true"], "PortSpecs": None, "Memory": 0},
        "docker_version": "1.4.1",
        "Size": 5,
        "checksum": "dropped",
        "os": "linux",
        "architecture": "amd64",
    }
    made = json.loads(ids.config_from_v1(old, [old], [A]))
    assert "checksum" not in made
    assert "Size" not in made
    assert "PortSpecs" not in made["container_config"]
    assert made["container_config"]["Entrypoint"] is None
    assert made["rootfs"] == {"type": "layers", "diff_ids": [str(A)]}
    assert made["history"] == [{"created": "2014-01-01T00:00:00Z", "created_by": "/bin/sh -c true"}]
    newer = old | {"docker_version": "1.8.3"}
    assert json.loads(ids.config_from_v1(newer, [newer], [A]))["checksum"] == "dropped"
    assert list(made) == sorted(made)
