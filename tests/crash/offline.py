"""A registry without a network, in the process of the command: images that come from it always come whole, so that what
befalls the command is what the siege does to it."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import sample

from casstore.digest import Digest
from casstore.errors import NotFound
from casstore.image.remote import Remote
from casstore.oci.document import MAX_DOCUMENT
from casstore.oci.manifest import Descriptor
from casstore.transport.http import Http
from casstore.transport.registry import Fetched, Head, Registry

NAME = "registry.test/a"


class _Answer:
    """A blob from some byte on."""

    def __init__(self, data: bytes, start: int) -> None:
        self.status = 206 if start else 200
        self.size = len(data) - start
        self._range = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._left = memoryview(data)[start:]

    def header(self, name: str) -> str:
        return self._range if name == "Content-Range" else ""

    def readinto(self, view: memoryview) -> int:
        got = min(len(view), len(self._left), 50_000)
        view[:got] = self._left[:got]
        self._left = self._left[got:]
        return got

    def wake(self) -> None:
        pass

    def close(self) -> None:
        pass


class Offline(Registry):
    """What `pull` asks a registry, of an image with gzip and plain layers, and a signature of it. `push` finds all
    blobs there."""

    def __init__(self) -> None:
        super().__init__(Http(), "registry.test")
        self._blobs, self._manifests, self._referring = _content()

    def head(self, path: str, ref: str) -> Head | None:
        raw = self._manifests.get(ref)
        return None if raw is None else Head(Digest.of(raw), sample.OCI_MANIFEST, len(raw))

    def manifest(self, path: str, ref: str, limit: int = MAX_DOCUMENT) -> Fetched:
        raw = self._manifests.get(ref)
        if raw is None:
            raise NotFound("no such manifest", what=ref)
        return Fetched(raw, Digest.of(raw), sample.OCI_MANIFEST)

    def document(self, path: str, descriptor: Descriptor, limit: int = MAX_DOCUMENT) -> bytes:
        return self._blobs[str(descriptor.digest)]

    def open_blob(self, path: str, digest: Digest, start: int = 0, stop: int | None = None) -> Any:
        return _Answer(self._blobs[str(digest)][:stop], start)

    def referrers(self, path: str, digest: Digest, artifact_type: str = "") -> list[Descriptor]:
        return self._referring.get(str(digest), [])

    def has_blob(self, path: str, digest: Digest) -> bool:
        return True  # whatever is pushed: what the command does in the store is what counts

    def put_manifest(self, path: str, ref: str, raw: bytes, media_type: str) -> bool:
        return True

    def cosign(self, path: str, digest: Digest) -> list[str]:
        return []


@cache
def _content() -> tuple[dict[str, bytes], dict[str, bytes], dict[str, list[Descriptor]]]:
    rich = sample.rich_image("next", ())
    layers_of = [sample.files({"large": sample.noise("large", 2_500_000)}), *rich.layers]
    image = sample.image("pulled", (), layers_of)
    blobs: dict[str, bytes] = {}
    manifests: dict[str, bytes] = {}

    def blob(data: bytes, kind: str) -> dict[str, Any]:
        blobs[sample.digest(data)] = data
        return {"mediaType": kind, "digest": sample.digest(data), "size": len(data)}

    def manifest(**more: Any) -> dict[str, Any]:
        raw = json.dumps({"schemaVersion": 2, "mediaType": sample.OCI_MANIFEST} | more).encode()
        manifests[sample.digest(raw)] = raw
        return {"mediaType": sample.OCI_MANIFEST, "digest": sample.digest(raw), "size": len(raw)}

    gz = f"{sample.OCI_LAYER}+gzip"
    layers = [blob(data if n > 1 else sample.gz(data), "" if n > 1 else gz) for n, data in enumerate(image.layers)]
    for layer in layers[2:]:
        layer["mediaType"] = sample.OCI_LAYER
    top = manifest(config=blob(image.config, sample.OCI_CONFIG), layers=layers)
    manifests["1"] = manifests[top["digest"]]
    empty = blob(b"{}", "application/vnd.oci.empty.v1+json")
    signature = manifest(
        artifactType="application/x-signature", config=empty, layers=[blob(b"signed", "text/plain")], subject=top
    )
    listed = Descriptor(sample.OCI_MANIFEST, Digest.parse(signature["digest"]), int(signature["size"]))
    return blobs, manifests, {top["digest"]: [listed]}


def install() -> None:
    """From now on, in this process, this is every registry."""
    found = Offline()
    Remote.registry = lambda self, name, **more: found  # type: ignore[assignment, method-assign, return-value]
