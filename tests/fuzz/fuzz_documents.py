"""Fuzzing documents: manifests, indexes and configs (oci/), references and platforms as text, v1 JSON, store.json and
references.json (format/).

The first byte of an input says what the rest is.

Checked: the errors that each reader names, nothing else. What is taken is what Python's own JSON parser sees; written
again, by us where we write such documents, it is read as the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from casstore.digest import Digest
from casstore.errors import BadInput, CasstoreError, Damaged, InvalidReference, StoreUnusable, UsageError
from casstore.format import references, storefile
from casstore.model import Cutter
from casstore.oci import build, config, ids, image, manifest, media, platform, reference
from casstore.oci.document import MAX_DOCUMENT, strict_json
from casstore.oci.platform import Platform

Value = TypeVar("Value")
_TYPES = ("", media.OCI_MANIFEST, media.OCI_INDEX, media.DOCKER_MANIFEST, media.DOCKER_LIST, "text/plain")


def attempt(refusal: type[CasstoreError], parse: Callable[..., Value], *given: Any) -> Value | None:
    """What `parse` makes of it; None where it says no, in one line."""
    try:
        return parse(*given)
    except refusal as error:
        assert "\n" not in str(error)
        return None


def read_manifest(data: bytes) -> None:
    kind = _TYPES[data[0] % len(_TYPES)] if data else ""
    raw = data[1:]
    found = attempt(BadInput, manifest.parse, raw, "manifest", kind)
    if found is None:
        return
    value = json.loads(raw)
    assert value["schemaVersion"] == 2 and found.raw == raw and found.digest == Digest.of(raw)
    assert value.get("mediaType") in (None, "", found.media_type)
    if isinstance(found, manifest.Index):
        assert len(found.manifests) == len(value["manifests"] or ())
        again = manifest.parse(build.index(found.manifests), "index")
        assert isinstance(again, manifest.Index) and again.manifests == found.manifests
        for wanted in ("linux/amd64", "linux/arm/v7"):
            chosen = platform.select(found.manifests, platform.parse(wanted))
            assert chosen is None or chosen in found.manifests
        return
    again = manifest.parse(build.manifest(found.config, found.layers), "manifest")
    assert isinstance(again, manifest.Manifest) and again.children == found.children
    assert [str(layer.digest) for layer in found.layers] == [each["digest"] for each in value["layers"]]
    for layer in found.layers:
        media.layer_encoding(layer.media_type)


def read_config(raw: bytes) -> None:
    found = attempt(BadInput, config.parse, raw, "config")
    if found is None:
        return
    value = json.loads(raw)
    assert [str(each) for each in found.diff_ids] == (value["rootfs"].get("diff_ids") or [])
    assert len(ids.chain_ids(found.diff_ids)) == len(found.diff_ids)
    platform.rank(found.platform, platform.host())
    owner = manifest.Manifest(raw, found.digest, "", manifest.Descriptor("", found.digest, 1), (), {})
    msgspec.json.encode(image.image_row(owner, found, 1 << 70))
    for _, document in ids.v1_layers(value, found.diff_ids):
        strict_json(document, 2 * MAX_DOCUMENT, "v1")
    made = build.imported_config(Digest.of(raw), found.created, found.platform)
    assert config.parse(made, "made").platform.os == found.os


def read_v1(raw: bytes) -> None:
    value = attempt(BadInput, strict_json, raw, MAX_DOCUMENT, "v1")
    if value is None:
        return
    assert value == json.loads(raw)
    if isinstance(value, dict):
        made = ids.config_from_v1(value, [value, {}], [Digest.of(b"1"), Digest.of(b"2")])
        found = attempt(BadInput, config.parse, made, "made")
        if found is None:
            return
        assert len(found.diff_ids) == len(found.history) == 2


def read_reference(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    for parse in (reference.parse, reference.parse_repo_tag, reference.parse_target):
        found = attempt(InvalidReference, parse, text)
        if found is None:
            continue
        for spelling in (str(found), found.familiar()):
            assert reference.parse(spelling) == found, spelling
        assert re.fullmatch(r"[\w.:\[\]-]+(/[a-z0-9._-]+)+", found.repository) and len(found.path) <= 255
        assert not set(found.repository.split("/")) & {"", ".", ".."}
    reference.id_prefix(text)
    reference.is_full_id(text)
    wanted = attempt(UsageError, platform.parse, text)
    if wanted is None:
        return
    assert wanted == wanted.normal() == platform.parse(str(wanted))
    assert platform.rank(wanted, wanted) == 0


def read_storefile(data: bytes) -> None:
    found = attempt(StoreUnusable, storefile.decode, data)
    if found is None:
        return
    assert storefile.decode(storefile.encode(found)) == found
    value = json.loads(data)
    assert value["id"] == found.id and value["cutter"]["average"] == found.cutter.average


def read_references(data: bytes) -> None:
    """`store serial word written`, then the body: with the right checksum; and all of it as it is."""
    head = references.decode_head(data)
    found = attempt(Damaged, references.decode, data)
    if found is not None:
        assert references.decode(references.encode(found)) == found
        assert head is None or head == found.head
    line, _, body = data.partition(b"\n")
    words = line.decode("ascii", "replace").split(" ")
    if len(words) != 4 or not all(re.fullmatch("[0-9]{1,12}", word) for word in (words[1], words[3])):
        return
    head = references.Head(int(words[1]), words[2][:16], int(words[3]), words[0][:32])
    try:
        msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return
    check = references._check(head, body)
    file = references._File(1, head.store, head.serial, head.word, head.written, check, msgspec.Raw(body))
    found = attempt(Damaged, references.decode, msgspec.json.encode(file))
    if found is None:
        return
    assert found.head == head
    again = references.encode(found)
    assert references.decode(again) == found
    if re.fullmatch("[0-9a-f]{16}", head.word) and re.fullmatch("[0-9a-f]{32}", head.store):
        assert references.decode_head(again[: references.HEAD_SIZE]) == head


READERS: tuple[Callable[[bytes], Any], ...] = (
    read_manifest,
    read_config,
    read_v1,
    read_reference,
    read_storefile,
    read_references,
)


def one(data: bytes) -> None:
    if data:
        READERS[data[0] % len(READERS)](data[1:])


TOKENS = [
    *("{}", "[]", "null", "true", "1e999", "-0", "9223372036854775807", '"\\ud800"', "\\u0000", "sha256:", "0" * 64),
    *("schemaVersion", "mediaType", "config", "layers", "manifests", "digest", "size", "platform", "annotations"),
    *("architecture", "os", "variant", "os.version", "rootfs", "diff_ids", "history", "empty_layer", "Labels"),
    *("container_config", "docker_version", "Cmd", "created", "parent", "version", "chunk_digest", "cutter"),
    *("localhost:5000/", "docker.io/library/", "@sha256:", ":latest", "linux/arm64/v8", "__", "fsLayers", "subject"),
]


def seeds() -> dict[str, bytes]:
    digest = Digest.of(b"a blob")
    layer = manifest.Descriptor(media.OCI_LAYER_GZIP, digest, 6, annotations={"key": "value"})
    settings = manifest.Descriptor(media.OCI_CONFIG, digest, 7)
    child = manifest.Descriptor(media.OCI_MANIFEST, digest, 5, Platform("linux", "arm", "v7", "1.2"), {}, "text/x")
    history = [{"created_by": "step", "empty_layer": True}, {"created": "2024-01-01T00:00:00.5Z", "comment": "c"}]
    image_config = {
        "architecture": "amd64",
        "os": "linux",
        "variant": "v2",
        "created": "2024-01-01T00:00:00Z",
        "author": "somebody",
        "config": {"Labels": {"a": "b"}, "Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [str(digest)]},
        "history": history,
    }
    v1 = {
        "id": "1" * 64,
        "parent": "2" * 64,
        "created": "2015-01-01T00:00:00.120Z",
        "docker_version": "1.8.2",
        "container_config": {"Cmd": ["/bin/sh", "-c", "<&>"], "ExposedPorts": {"80/tcp": {}}},
        "config": {"Entrypoint": "/bin/sh", "Labels": {"b": "c", "a": "d"}},
        "Size": 5,
    }
    store = storefile.StoreFile(id="0" * 32, created="2024-01-01T00:00:00Z", cutter=Cutter())
    names = references.References(
        references.Head(7, "0123456789abcdef", 1_700_000_000, "0123456789abcdef" * 2),
        [("docker.io/library/busybox", "latest", digest, 1.5)],
        [(digest, "kept")],
        {"gc.grace": "1h"},
    )
    copy = references.encode(names)
    body = msgspec.json.decode(copy, type=references._File).references
    return {
        "manifest": b"\0\0" + build.manifest(settings, [layer, layer]),
        "index": b"\0\2" + build.index([child, child]),
        "config": b"\1" + json.dumps(image_config).encode(),
        "v1": b"\2" + json.dumps(v1).encode(),
        "v1-new": b"\2" + json.dumps(v1 | {"docker_version": "1.10.3", "config": None}).encode(),
        "reference": b"\3localhost:5000/a-b/c__d:1.0@sha256:" + b"0" * 64,
        "short": b"\3busybox",
        "platform": b"\3linux/arm64/v8",
        "store": b"\4" + storefile.encode(store),
        "references": b"\5" + copy,
        "references-open": b"\5" + b"0123456789abcdef" * 2 + b" 7 0123456789abcdef 99\n" + bytes(body),
    }
