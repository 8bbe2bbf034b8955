"""Fuzzing bundles: format/bundle.py, then `bundle inspect`, and `bundle load` into a store that has the seeds' base.

An input lies open: a byte of flags, then blocks (kind, three bytes of length, content) whose checksums, and the hash at
the end, the target makes; the head is msgpack, the chunks are not compressed. With STORED both are taken as they come;
with RAW the rest of the input is the file itself.

Checked: the errors that are documented, nothing else; where `load` fails the store has what it had, and where it does
not, every blob of what came has its digest.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import io
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from blake3 import blake3

from casstore import api
from casstore.digest import Digest
from casstore.errors import BadInput, Conflict, Damaged, InvalidReference, NotFound, StoreUnusable
from casstore.format.bundle import HEADER_SIZE, Part
from casstore.format.encoding import checksum
from casstore.oci import build, media
from casstore.oci.manifest import Descriptor
from casstore.oci.platform import Platform

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

RAW, STORED = 1, 2
MOST = 1 << 16
"""Bytes of a block: more take time and show nothing."""
_REFUSALS = (BadInput, Damaged, NotFound, StoreUnusable, Conflict, InvalidReference)
_BLOCK = 8


def close(data: bytes) -> bytes:
    flags, rest = data[0], data[1:]
    if flags & RAW:
        return rest
    header = rest[: HEADER_SIZE - 16]
    out = bytearray(header + checksum(header))
    at = HEADER_SIZE - 16
    parts: list[list[Any]] = []
    while at + 4 <= len(rest):
        kind, length = rest[at], min(int.from_bytes(rest[at + 1 : at + 4], "little"), MOST)
        content = rest[at + 4 : at + 4 + length]
        at += 4 + length
        if not flags & STORED and kind in (Part.HEAD, Part.CHUNKS):
            content = zstd.compress(content, 1)
        parts.append([kind, content])
    for kind, content in parts:
        if kind == Part.END:
            content = blake3(bytes(out)).digest()
        head = bytes([kind, 0, 0, 0]) + len(content).to_bytes(4, "little")
        out += head + checksum(head, content) + content
    return bytes(out)


def open_up(bundle: bytes) -> bytes:
    """A bundle of ours as an input: its blocks are whole parts."""
    out, at = bytes([0]) + bundle[: HEADER_SIZE - 16], HEADER_SIZE
    while at < len(bundle):
        kind, length = bundle[at], int.from_bytes(bundle[at + 4 : at + 8], "little")
        at += _BLOCK + 16
        content = bundle[at : at + length]
        at += length
        if kind in (Part.HEAD, Part.CHUNKS):
            content = zstd.decompress(content)
        out += bytes([kind]) + len(content).to_bytes(3, "little") + content
    return out


class _Stores:
    """The store that bundles are loaded into: always one that has the base and nothing else."""

    def __init__(self) -> None:
        shm = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self._folder = Path(tempfile.mkdtemp(prefix="fuzz-bundle-", dir=shm))
        atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
        self._kept, self._path = self._folder / "kept", self._folder / "used"
        with api.open(self._kept) as store:
            load(store, base())
        self._store: api.Store | None = None

    def get(self) -> api.Store:
        if self._store is None:
            shutil.rmtree(self._path, ignore_errors=True)
            shutil.copytree(self._kept, self._path)
            self._store = api.open(self._path)
        return self._store

    def spoil(self) -> None:
        """It has more now: the next input gets another."""
        if self._store is not None:
            self._store.close()
        self._store = None


_stores: list[_Stores] = []


@contextlib.contextmanager
def opened(data: bytes) -> Iterator[int]:
    fd = os.memfd_create("bundle")
    try:
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


def held(store: api.Store) -> tuple[Any, ...]:
    with store.volume.catalog.read() as tx:
        tables = ("blob", "place", "child", "tag", "pin", "image")
        return tuple(sorted(map(repr, tx.rows(f"SELECT * FROM {table}"))) for table in tables)


def one(data: bytes) -> None:
    if not data:
        return
    bundle = close(data)
    with opened(bundle) as fd:
        try:
            said = api.inspect_bundle(fd)
        except _REFUSALS as error:
            assert "\n" not in str(error)
            said = None
    if said is not None:
        assert said["Digest"] == str(Digest.of(bundle)) and said["Size"] == len(bundle)
    if not _stores:
        _stores.append(_Stores())
    store = _stores[0].get()
    before = held(store)
    try:
        with opened(bundle) as fd:
            store.load_bundle(fd)
    except _REFUSALS as error:
        assert "\n" not in str(error)
        assert held(store) == before
        return
    except BaseException:
        _stores[0].spoil()
        raise
    try:
        assert said is not None
        for blob in said["Blobs"]:
            digest = Digest.parse(blob["Digest"])
            found = b"".join(store.blobs.cat(digest))
            assert Digest.of(found, digest.algorithm) == digest and len(found) == blob["Size"]
    finally:
        _stores[0].spoil()


# -- seeds

TOKENS = ["docker.io/library/a", "identity", "gzip", "zstd", "sha256:", *(media.OCI_MANIFEST, media.OCI_LAYER)]


def noise(number: int, size: int) -> bytes:
    out = b""
    while len(out) < size:
        out += hashlib.sha256(b"%d %d" % (number, len(out))).digest()
    return out[:size]


def tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    whole = out.getvalue()
    return whole[: -(-len(whole.rstrip(b"\0")) // 512) * 512 + 1024]


def image(tag: str, layer: bytes) -> bytes:
    """An archive of one image."""
    digest = Digest.of(layer)
    config = build.imported_config(digest, "2024-01-01T00:00:00Z", Platform("linux", "amd64"))
    manifest = build.manifest(
        Descriptor(media.OCI_CONFIG, Digest.of(config), len(config)),
        [Descriptor(media.OCI_LAYER, digest, len(layer))],
    )
    named = Descriptor(
        media.OCI_MANIFEST,
        Digest.of(manifest),
        len(manifest),
        annotations={"io.containerd.image.name": f"docker.io/library/{tag}"},
    )
    blobs = {f"blobs/sha256/{Digest.of(each).hex}": each for each in (layer, config, manifest)}
    mark = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": build.index([named])}
    return tar(blobs | mark)


def base() -> bytes:
    return image("base:1", tar({"a": noise(1, 6000)}))


def load(store: api.Store, archive: bytes) -> None:
    with opened(archive) as fd:
        store.load(fd)


def seeds() -> dict[str, bytes]:
    made: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as folder, api.open(Path(folder) / "store") as store:
        load(store, base())
        load(store, image("a:1", tar({"a": noise(1, 6000), "b": noise(2, 1500)})))
        load(store, image("b:1", tar({"b": b"some text, " * 40})))
        wanted: dict[str, tuple[list[str], list[str]]] = {
            "whole": (["b:1"], []),
            "thin": (["a:1"], ["base:1"]),
            "two": (["b:1", "base:1"], []),
        }
        for name, (names, have) in wanted.items():
            store.bundle(names, Path(folder) / name, have=have)
            made[name] = open_up((Path(folder) / name).read_bytes())
            assert close(made[name])[:HEADER_SIZE] == (Path(folder) / name).read_bytes()[:HEADER_SIZE]
        made["raw"] = bytes([RAW]) + (Path(folder) / "whole").read_bytes()
    return made
