"""Small archives made for tests: every form that BEHAVIOUR names, and broken ones."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from casstore.digest import Digest
from casstore.oci import media
from casstore.oci.platform import Platform
from casstore.transport import reading
from casstore.transport.archive import Landed, Sink, Stream, open_source
from casstore.transport.contents import Archive

Entry = tuple[str, bytes] | tarfile.TarInfo


def layer(text: str = "hello", size: int = 0) -> bytes:
    """A layer tar with one file; `size` bytes of filling make it large."""
    return tar_of([("file", text.encode() + bytes(size))])


def tar_of(entries: Iterable[Entry], tail: bytes | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                archive.addfile(info, io.BytesIO(entry[1]))
    return out.getvalue() if tail is None else out.getvalue().rstrip(b"\0") + tail


def link(name: str, target: str, hard: bool = False) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = tarfile.LNKTYPE if hard else tarfile.SYMTYPE
    info.linkname = target
    return info


def folder(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    return info


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def config(layers: list[bytes], **changes: Any) -> bytes:
    """`layers`: uncompressed bytes of each."""
    value: dict[str, Any] = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-01-02T03:04:05.678Z",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha(each)}" for each in layers]},
    } | changes
    return json.dumps({key: each for key, each in value.items() if each is not None}).encode()


def docker_entries(
    layers: list[bytes], tags: list[str] | None, config_bytes: bytes | None = None
) -> tuple[list[Entry], dict[str, Any]]:
    """(members, manifest.json item) of one image as docker 1.10–24 saves it."""
    raw = config(layers) if config_bytes is None else config_bytes
    paths = [f"{sha(each + b'id')}/layer.tar" for each in layers]
    entries: list[Entry] = [(path, each) for path, each in zip(paths, layers, strict=True)]
    entries.append((f"{sha(raw)}.json", raw))
    return entries, {"Config": f"{sha(raw)}.json", "RepoTags": tags, "Layers": paths}


def docker_archive(
    layers: list[bytes] | None = None,
    tags: list[str] | None = None,
    config_bytes: bytes | None = None,
    change: Callable[[list[Entry], list[dict[str, Any]]], None] | None = None,
    manifest: bytes | None = None,
) -> bytes:
    """One image; `change` edits members and manifest.json items, `manifest` replaces manifest.json."""
    entries, item = docker_entries([layer()] if layers is None else layers, tags, config_bytes)
    items = [item]
    if change:
        change(entries, items)
    entries.append(("manifest.json", json.dumps(items).encode() if manifest is None else manifest))
    return tar_of(entries)


class LayoutBuilder:
    """An OCI layout, piece by piece."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
        self.top: list[dict[str, Any]] = []

    def blob(self, data: bytes, kind: str, **more: Any) -> dict[str, Any]:
        self.files[f"blobs/sha256/{sha(data)}"] = data
        return {"mediaType": kind, "digest": f"sha256:{sha(data)}", "size": len(data)} | more

    def image(self, layers: list[bytes], packed: bool = False, **changes: Any) -> dict[str, Any]:
        """Descriptor of a new image; `packed`: gzip layers."""
        raw = config(layers, **changes)
        kind = media.OCI_LAYER_GZIP if packed else media.OCI_LAYER
        found = [self.blob(gzip.compress(each, mtime=0) if packed else each, kind) for each in layers]
        manifest = {
            "schemaVersion": 2,
            "mediaType": media.OCI_MANIFEST,
            "config": self.blob(raw, media.OCI_CONFIG),
            "layers": found,
        }
        return self.blob(json.dumps(manifest).encode(), media.OCI_MANIFEST)

    def for_platform(self, text: str, **changes: Any) -> dict[str, Any]:
        wanted = Platform(*text.split("/"))
        described = {"os": wanted.os, "architecture": wanted.architecture}
        if wanted.variant:
            described["variant"] = wanted.variant
        return self.image([layer(text)], **(described | changes)) | {"platform": described}

    def index(self, *children: dict[str, Any], **more: Any) -> dict[str, Any]:
        value = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": list(children)} | more
        return self.blob(json.dumps(value).encode(), media.OCI_INDEX)

    def add(self, descriptor: dict[str, Any], name: str | None = None, **annotations: str) -> None:
        if name:
            annotations["io.containerd.image.name"] = name
        self.top.append(descriptor | ({"annotations": annotations} if annotations else {}))

    def all_files(self) -> dict[str, bytes]:
        value = {"schemaVersion": 2, "manifests": self.top}
        return self.files | {"index.json": json.dumps(value).encode()}

    def tar(self, **extra: bytes) -> bytes:
        files = self.all_files() | {name.replace("_json", ".json"): data for name, data in extra.items()}
        return tar_of(sorted(files.items()))

    def write(self, path: Path) -> Path:
        for name, data in self.all_files().items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
        return path


def legacy_entries(chain: list[tuple[bytes, dict[str, Any]]], prefix: str = "") -> tuple[list[Entry], list[str]]:
    """(members, IDs from the bottom) of a chain of v1 layers."""
    entries: list[Entry] = []
    ids: list[str] = []
    for i, (data, extra) in enumerate(chain):
        name = sha(f"{prefix}{i}".encode())
        value = {
            "id": name,
            "os": "linux",
            "docker_version": "1.8.3",
            "created": "2015-01-01T00:00:00Z",
        } | extra
        if ids:
            value.setdefault("parent", ids[-1])
        entries += [
            (f"{name}/VERSION", b"1.0"),
            (f"{name}/json", json.dumps(value).encode()),
            (f"{name}/layer.tar", data),
        ]
        ids.append(name)
    return entries, ids


class Landings:
    """A sink that remembers, as the store would take members in."""

    def __init__(self) -> None:
        self.taken: dict[str, bytes] = {}

    def __call__(self, name: str, stream: Stream, size: int) -> Landed:
        assert stream.size == size
        data = b""
        while piece := stream.read(70_000):
            data += piece
        assert len(data) == size
        self.taken[name] = data
        inside = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        return Landed(Digest.of(data), Digest.of(inside))


class Way:
    """How an archive is read: from a file, through a pipe, or compressed."""

    def __init__(self, name: str, path: Path, pack: Callable[[bytes], bytes] | None = None) -> None:
        self.name = name
        self._path = path
        self._pack = pack
        self.sink = Landings()

    def __call__(self, data: bytes, **options: Any) -> Archive:
        sink: Sink | None = self.sink
        if self.name == "pipe":
            return _through_pipe(data, sink, options)
        self._path.write_bytes(self._pack(data) if self._pack else data)
        source = open_source(self._path)
        assert source.seekable == (self._pack is None)
        return reading.read(source, None if source.seekable else sink, **options)

    def layer_bytes(self, archive: Archive, image: int = 0, number: int = 0) -> bytes:
        """A layer as the caller would get at it."""
        found = archive.images[image].layers[number]
        if found.landed:
            return self.sink.taken[found.path]
        reader = archive.open(found.path)
        assert reader.size == found.size
        view = memoryview(bytearray(reader.size))
        assert reader.pread_into(0, view) == reader.size
        assert reader.pread(0, reader.size + 5) == view
        return bytes(view)


def _through_pipe(data: bytes, sink: Sink | None, options: dict[str, Any]) -> Archive:
    read, write = os.pipe()

    def feed() -> None:
        with open(write, "wb") as out:
            try:
                out.write(data)
            except BrokenPipeError:
                pass

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        with open_source(read) as source:
            assert not source.seekable
            return reading.read(source, sink, **options)
    finally:
        os.close(read)
        thread.join()
