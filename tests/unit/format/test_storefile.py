from __future__ import annotations

import json
from typing import Any

import pytest

from casstore.errors import StoreUnusable
from casstore.format import storefile
from casstore.model import Cutter

STORE = storefile.StoreFile(id="0" * 32, created="2026-11-24T00:00:00Z", cutter=Cutter(average=65536))


CUTTER = {"algorithm": "gear32n", "minimum": 4096, "average": 16384, "maximum": 65536}


def without(name: str) -> bytes:
    return storefile.encode(STORE).replace(f'"{name}"'.encode(), b'"nome"')


def changed(**fields: Any) -> bytes:
    return json.dumps(json.loads(storefile.encode(STORE)) | fields).encode()


def test_returns() -> None:
    assert storefile.decode(storefile.encode(STORE)) == STORE


def test_fields_of_later_versions_within_a_version_are_let_be() -> None:
    assert storefile.decode(changed(note="hello")) == STORE


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not a store.json"),
        (b"{}", "not a store.json"),
        (b"[1]", "not a store.json"),
        (b"\xff\xfe", "not a store.json"),
        (b"[" * 100_000, "too large"),
        (b"[" * 50_000, "not a store.json"),
        (changed(version=2), "format 2"),
        (changed(version=2, id=7, cutter=None), "format 2"),
        (changed(version="1"), "not a store.json"),
        (changed(id=7), "not a store.json"),
        (changed(chunk_digest="md5"), "chunk digest"),
        (changed(id="../" * 8), "store id"),
        (changed(cutter=CUTTER | {"algorithm": "x"}), "unknown cutter"),
        (changed(cutter=CUTTER | {"maximum": 16383}), "cutter parameters"),
        (changed(cutter=CUTTER | {"minimum": 63}), "cutter parameters"),
        (changed(cutter=CUTTER | {"average": 16383}), "cutter parameters"),
        (changed(cutter=CUTTER | {"maximum": 1 << 23}), "cutter parameters"),
        (changed(cutter={}), "not a store.json"),
        (changed(note="").replace(b"note", b"n\xffte"), "not a store.json"),
        *((without(name), "not a store.json") for name in (*CUTTER, "id", "created", "chunk_digest", "version")),
    ],
)
def test_what_is_not_a_store(data: bytes, why: str) -> None:
    with pytest.raises(StoreUnusable, match=why):
        storefile.decode(data)
