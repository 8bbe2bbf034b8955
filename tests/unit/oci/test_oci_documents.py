"""Strict JSON, manifests, indexes and configs: bounded, unambiguous, exact bytes kept."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casstore.digest import Digest
from casstore.errors import BadInput, CasstoreError, DigestMismatch, LimitExceeded
from casstore.oci import build, config, document, image, manifest, media
from casstore.oci.manifest import Descriptor, Index, Manifest
from casstore.oci.platform import Platform

A, B, C = (f"sha256:{letter * 64}" for letter in "abc")


def descriptor(digest: str = A, size: int = 3, kind: str = media.OCI_LAYER) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest, "size": size}


def a_manifest(**changes: Any) -> bytes:
    value = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "config": descriptor(A, 2, media.OCI_CONFIG),
        "layers": [descriptor(B), descriptor(C)],
    } | changes
    return json.dumps({key: each for key, each in value.items() if each is not None}).encode()


def a_config(**changes: Any) -> bytes:
    value = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-01-02T03:04:05Z",
        "config": {"Labels": {"a": "1", "A": "2"}},
        "rootfs": {"type": "layers", "diff_ids": [A, B]},
        "history": [{"created_by": "x"}, {"empty_layer": True}, {"comment": "y"}],
        "unknown": {"kept": True},
    } | changes
    return json.dumps({key: each for key, each in value.items() if each is not None}).encode()


# -- strict JSON


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b"[" * 200_000, LimitExceeded, "nested deeper"),
        (b'{"a":' * 200_000, LimitExceeded, "nested deeper"),
        (b"[" + b"{}," * 2_000_000 + b"{}]", LimitExceeded, "values"),
        (b'"' + b"a" * (1 << 20) + b'"', LimitExceeded, "larger than"),
        (b'{"a":1,"a":2}', BadInput, 'duplicate key "a"'),
        (b'{"x":{"a":1,"b":1,"a":2}}', BadInput, 'duplicate key "a"'),
        (b"[NaN]", BadInput, "NaN"),
        (b"[1" + b"0" * 5000 + b"]", BadInput, "number is too long"),
        (b'["\\ud800"]', BadInput, "surrogate"),
        (b'["\xff"]', BadInput, "not UTF-8"),
        (b"\xef\xbb\xbf[]", BadInput, "invalid JSON"),
        ("[]".encode("utf-16"), BadInput, "not UTF-8"),
        (b"", BadInput, "invalid JSON"),
        (b"[]]", BadInput, "invalid JSON"),
        (b"{'a':1}", BadInput, "invalid JSON"),
    ],
)
def test_refused(data: bytes, kind: type[CasstoreError], words: str) -> None:
    limit = 20 << 20 if words != "larger than" else 1 << 20
    with pytest.raises(kind, match=words) as caught:
        document.strict_json(data, limit, "thing")
    assert str(caught.value).startswith("thing")
    assert len(str(caught.value)) < 200


def test_brackets_in_strings_are_not_nesting() -> None:
    value = {"a": "[" * 5000, "b": '\\"[[[' * 100}
    assert document.strict_json(json.dumps(value).encode(), 1 << 20, "x") == value


def test_a_pair_of_surrogates_is_a_character() -> None:
    assert document.strict_json(b'["\\ud83d\\ude00"]', 99, "x") == ["😀"]


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    try:
        json.dumps(document.strict_json(data, 1 << 20, "x")).encode()
    except CasstoreError:
        pass


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["config", "layers", "manifests", "digest", "size", "rootfs", "schemaVersion", "os"])
            | st.text(max_size=3),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(JSON_VALUES)
def test_any_json_is_parsed_or_refused(value: Any) -> None:
    raw = json.dumps(value).encode()
    for parse in (manifest.parse, config.parse):
        try:
            assert parse(raw, "x").raw == raw
        except CasstoreError as error:
            assert "\n" not in str(error)


# -- manifests


def test_manifest() -> None:
    raw = a_manifest(annotations={"k": "v"}, unknown=[1])
    found = manifest.parse(raw, "m")
    assert isinstance(found, Manifest)
    assert found.raw is raw
    assert found.digest == Digest.of(raw)
    assert found.media_type == media.OCI_MANIFEST
    assert [str(each.digest) for each in found.children] == [A, B, C]
    assert found.is_image
    assert found.annotations == {"k": "v"}


def test_docker_manifest_and_artifact() -> None:
    raw = a_manifest(mediaType=media.DOCKER_MANIFEST, config=descriptor(A, 2, media.DOCKER_CONFIG))
    assert manifest.parse(raw, "m", media.DOCKER_MANIFEST).media_type == media.DOCKER_MANIFEST
    raw = a_manifest(config=descriptor(A, 2, media.OCI_EMPTY), artifactType="x/y", layers=[])
    found = manifest.parse(raw, "m")
    assert isinstance(found, Manifest)
    assert not found.is_image
    assert found.artifact_type == "x/y"


def test_index_and_its_children() -> None:
    attestation = descriptor(C) | {
        "platform": {"os": "unknown", "architecture": "unknown"},
        "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
    }
    variant = descriptor(B) | {"platform": {"os": "linux", "architecture": "arm", "variant": "v7"}}
    raw = json.dumps({"schemaVersion": 2, "manifests": [descriptor(A), variant, attestation]}).encode()
    found = manifest.parse(raw, "i")
    assert isinstance(found, Index)
    assert found.media_type == media.OCI_INDEX
    assert [each.is_attestation for each in found.manifests] == [False, False, True]
    assert found.manifests[1].platform == Platform("linux", "arm", "v7")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (a_manifest(manifests=[]), "both manifests and layers"),
        (a_manifest(config=None, layers=None, manifests=[], fsLayers=[]), "both manifests and layers"),
        (a_manifest(config=None), "no config"),
        (a_manifest(layers=None), "no layers"),
        (a_manifest(schemaVersion=1), "schema 1"),
        (a_manifest(schemaVersion=3), "schemaVersion 3"),
        (a_manifest(schemaVersion=None), "schemaVersion 0"),
        (a_manifest(mediaType=media.OCI_INDEX), "on a manifest"),
        (a_manifest(config=None, layers=None, manifests=[]), "on an index"),
        (a_manifest(Manifests=[]), 'key "Manifests" where "manifests" is meant'),
        (a_manifest(LAYERS=[]), 'key "LAYERS"'),
        (a_manifest(x=[]).replace(b'"x"', b'"layer\\u017f"'), 'where "layers" is meant'),
        (a_manifest(layers=[descriptor() | {"Digest": B}]), 'key "Digest"'),
        (a_manifest(layers=[descriptor("sha256:../../x")]), "invalid digest"),
        (a_manifest(layers=[descriptor("sha384:" + "a" * 96)]), "invalid digest"),
        (a_manifest(layers=[descriptor(size=-1)]), "invalid JSON"),
        (a_manifest(layers=[descriptor(size=1 << 64)]), "invalid JSON"),
        (a_manifest(layers=[descriptor(size="3")]), "invalid JSON"),  # type: ignore[arg-type]
        (a_manifest(layers={}), "invalid JSON"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
    ],
)
def test_bad_manifests(raw: bytes, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        manifest.parse(raw, "m")


def test_what_pointed_here_must_agree() -> None:
    raw = a_manifest()
    with pytest.raises(BadInput, match="expected"):
        manifest.parse(raw, "m", media.DOCKER_MANIFEST)
    with pytest.raises(DigestMismatch):
        manifest.parse(raw, "m", digest=Digest.parse(A))
    with pytest.raises(LimitExceeded):
        manifest.parse(raw + b" " * document.MAX_DOCUMENT, "m")
    with pytest.raises(BadInput, match="schema 1"):
        manifest.parse(b'{"schemaVersion":1,"fsLayers":[]}', "m", next(iter(media.DOCKER_SCHEMA1)))


# -- configs


def test_config() -> None:
    raw = a_config(variant="v8", author="me", parent="p")
    found = config.parse(raw, "c")
    assert found.raw is raw
    assert found.digest == Digest.of(raw)
    assert found.platform == Platform("linux", "amd64", "v8")
    assert found.created == "2024-01-02T03:04:05Z"
    assert found.labels == {"a": "1", "A": "2"}
    assert [str(each) for each in found.diff_ids] == [A, B]
    assert [each.empty_layer for each in found.history] == [False, True, False]
    assert (found.author, found.parent) == ("me", "p")


@pytest.mark.parametrize(
    "raw",
    [
        a_config(rootfs={}, history=None),
        a_config(history=[]),
        a_config(history=None, config=None, created=None, os=None, architecture=None),
        b'{"rootfs":{"type":"layers","diff_ids":null},"history":null,"config":{"Labels":null},"created":null}',
    ],
)
def test_lenient_configs(raw: bytes) -> None:
    found = config.parse(raw, "c")
    config.check_os(found, "linux", "c")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (a_config(rootfs=None), "invalid image JSON, no RootFS key"),
        (b'{"rootfs":null}', "invalid image JSON, no RootFS key"),
        (a_config(history=[{}] * 3), "too many non-empty layers in History section"),
        (a_config(rootfs={"type": "layers+base", "diff_ids": []}), "unknown rootfs type"),
        (a_config(rootfs={"type": "layers", "diff_ids": ["x"]}), "invalid diffID"),
        (a_config(rootfs={"type": "layers", "diff_ids": [A], "Diff_IDs": [B]}), "is meant"),
        (a_config(RootFS={}), "is meant"),
        (b"[]", "not an object"),
    ],
)
def test_bad_configs(raw: bytes, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        config.parse(raw, "c")


@pytest.mark.parametrize("os", ["windows", "plan9", "Windows"])
def test_foreign_systems(os: str) -> None:
    with pytest.raises(BadInput, match=f"cannot load {os} image on linux"):
        config.check_os(config.parse(a_config(os=os), "c"), "linux", "c")


def test_layer_count() -> None:
    found = config.parse(a_config(), "c")
    config.check_layers(found, 2, "c")
    with pytest.raises(BadInput) as caught:
        config.check_layers(found, 1, "c")
    assert caught.value.message == "invalid manifest, layers length mismatch: expected 1, got 2"


# -- documents made here


def test_made_documents_are_stable() -> None:
    """Golden: stores hold digests of these bytes."""
    config_descriptor = Descriptor(media.OCI_CONFIG, Digest.parse(A), 7)
    raw = build.manifest(config_descriptor, [Descriptor(media.OCI_LAYER, Digest.parse(B), 1024)])
    assert raw.decode() == (
        '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":'
        f'"application/vnd.oci.image.config.v1+json","digest":"{A}","size":7}},"layers":[{{"mediaType":'
        f'"application/vnd.oci.image.layer.v1.tar","digest":"{B}","size":1024}}]}}'
    )
    when = "2024-01-02T03:04:05Z"
    made = build.imported_config(Digest.parse(B), when, Platform("linux", "arm64", "v8"))
    assert made.decode() == (
        f'{{"architecture":"arm64","comment":"Imported from -","created":"{when}",'
        f'"history":[{{"created":"{when}","comment":"Imported from -"}}],"os":"linux",'
        f'"rootfs":{{"type":"layers","diff_ids":["{B}"]}},"variant":"v8"}}'
    )
    assert config.parse(made, "c").history[0].comment == "Imported from -"
    index = build.index([Descriptor(media.OCI_MANIFEST, Digest.parse(A), 5, annotations={"b": "2", "a": "1"})])
    found = manifest.parse(index, "i")
    assert isinstance(found, Index)
    assert found.manifests[0].annotations == {"a": "1", "b": "2"}


def test_image_row() -> None:
    parsed = manifest.parse(a_manifest(), "m")
    assert isinstance(parsed, Manifest)
    row = image.image_row(parsed, config.parse(a_config(parent="sha256:p"), "c"), 99)
    assert (row.size, row.os, row.architecture, row.parent) == (99, "linux", "amd64", "sha256:p")
    assert row.labels == {"a": "1", "A": "2"}
    assert image.image_row(parsed, config.parse(a_config(), "c"), 1, "q").parent == "q"


def test_media_types() -> None:
    assert media.to_oci(media.DOCKER_LAYER + ".gzip") == media.OCI_LAYER_GZIP
    assert media.layer_encoding(media.DOCKER_LAYER) == "identity"
    assert media.layer_encoding(media.OCI_LAYER_ZSTD) == "zstd"
    assert media.layer_encoding("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip") == "gzip"
    assert media.layer_encoding(media.OCI_LAYER + "+lzma") is None
    assert media.layer_encoding("application/json") is None
    assert media.layer_type("gzip") == media.OCI_LAYER_GZIP
    assert not media.is_distributable("application/vnd.docker.image.rootfs.foreign.diff.tar")
