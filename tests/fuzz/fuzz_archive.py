"""Fuzzing archives of images (transport/): docker's of every age, OCI layouts, both in one, under compression too.

An input is a byte of flags, then members: a byte of type and compression, the lengths of name and content, both. In
names and contents `\\x01N` stands for the digest of what member N holds and `\\x02N` for its size, so that a change
below keeps the documents above true. With RAW the input is a tar, whose headers get their checksums unless AS_IT_IS.

Checked: errors of casstore's tree, nothing else; read in place and as it goes by, an archive shows the same images, or
is refused both times; every layer can be read and is what its digest says; written anew, the images have the same IDs
and names.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
import os
import re
import sys
import tarfile
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from casstore.codec import compression
from casstore.digest import Digest
from casstore.errors import BadInput, CasstoreError, InvalidReference, LimitExceeded, NotFound
from casstore.model import Buffer
from casstore.oci import build, manifest, media
from casstore.oci.manifest import Descriptor
from casstore.oci.platform import host, rank
from casstore.oci.platform import parse as platform
from casstore.transport import docker_archive, reading, tar, writing
from casstore.transport.archive import LIMIT, open_source
from casstore.transport.contents import Archive, ArchiveImage, SavedImage
from casstore.transport.members import Landed, Source, Stream
from casstore.transport.stream import TarStream

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

OUTER, RAW, AS_IT_IS, EVERYTHING, OTHER_PLATFORM = 7, 8, 16, 32, 64
PACKERS = {
    1: lambda data: gzip.compress(data, 1, mtime=0),
    2: lambda data: zstd.compress(data, 1),
    3: lambda data: bz2.compress(data, 1),
    4: lambda data: lzma.compress(data, preset=0),
}
TYPES = b"0125xLg7"
_REFUSALS = (BadInput, InvalidReference, NotFound)
_UNDECODABLE = re.compile("undecodable|is cut short|junk after|becomes more than")


# -- from an input to an archive


def members(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """(type, name, content), what stands for digests and sizes replaced."""
    held: list[bytes] = []

    def filled(text: bytes) -> bytes:
        def stands_for(found: re.Match[bytes]) -> bytes:
            if not held:
                return b""
            content = held[found[2][0] % len(held)]
            return Digest.of(content).hex.encode() if found[1] == b"\1" else b"%d" % len(content)

        return re.sub(rb"([\1\2])(.)", stands_for, text, flags=re.DOTALL)

    at = 0
    while at + 4 <= len(data) and len(held) < 64:
        kind, name_length = data[at], data[at + 1]
        length = int.from_bytes(data[at + 2 : at + 4], "little")
        name = data[at + 4 : at + 4 + name_length]
        at += 4 + name_length
        content = filled(data[at : at + length])
        at += length
        if kind & 16:
            content = bytes(8 * len(content)) + content
        if kind & 32:
            content = gzip.compress(content, 1, mtime=0)
        held.append(content)
        yield TYPES[kind & 7 : (kind & 7) + 1], filled(name), content


def packed(data: bytes) -> bytes:
    out = bytearray()
    for kind, name, content in members(data):
        link = b""
        if kind in b"125":
            link, content = content[:100], b""
        out += tar._ustar(name[-100:], 0o644, len(content), 0, kind, link, name[:-100][:155])
        out += content + bytes(-len(content) % tar.BLOCK)
    return bytes(out) + writing.END


def summed(raw: bytearray) -> bytes:
    for at in range(0, len(raw) - 511, tar.BLOCK):
        if raw[at + 257 : at + 262] == b"ustar":
            raw[at + 148 : at + 156] = b" " * 8
            raw[at + 148 : at + 156] = b"%06o\0 " % sum(raw[at : at + 512])
    return bytes(raw)


# -- reading it in both ways


class View(NamedTuple):
    """What an archive shows, however it was read."""

    form: str
    images: list[tuple[Any, ...]]
    indexes: list[tuple[Any, ...]]
    saved: list[SavedImage]
    blobs: dict[Digest, bytes]


def take(name: str, stream: Stream, size: int) -> Landed:
    data = bytearray()
    while piece := stream.read(1000 + len(data) % 7):
        data += piece
    assert len(data) == size == stream.size
    SEEN[Digest.of(data)] = bytes(data)
    return Landed(Digest.of(data), _diff_id(bytes(data)))


def _diff_id(data: bytes) -> Digest | None:
    with contextlib.suppress(BadInput):
        stream = compression.open_stream(io.BytesIO(data), LIMIT)
        if stream.kind is not None:
            return Digest.of(b"".join(iter(lambda: stream.read(1 << 16), b"")))
    return None


SEEN: dict[Digest, bytes] = {}


def view(archive: Archive) -> View:
    images, saved, blobs = [], [], {}
    for image in archive.images:
        layers = []
        for layer in image.layers:
            held = None
            if layer.landed is not None:
                held = SEEN[layer.landed.digest]
            elif layer.present:
                reader = archive.open(layer.path)
                held = reader.pread(0, reader.size + 1)
                again = bytearray(reader.size)
                assert reader.pread_into(0, memoryview(again)) == len(held) == layer.size and again == held
            # A blob that does not have its digest is for ingest to refuse, not for the archive's reader.
            digest = layer.digest if held is None else Digest.of(held, (layer.digest or Digest.of(b"")).algorithm)
            if held is not None:
                blobs[digest] = held
            layers.append((layer.path, layer.size, layer.media_type, digest, layer.diff_id))
        config = image.config
        if config is not None:
            assert config.digest == image.config_digest and len(config.diff_ids) == len(layers)
        names = sorted(map(str, image.tags))
        raw = None if image.manifest is None else image.manifest.raw
        images.append((image.config_bytes, image.config_media_type, raw, names, layers, image.parent))
        if config is not None and all(layer.present for layer in image.layers):
            saved.append(_to_save(image, [blobs[each[3]] for each in layers]))
    indexes = [(index.index.raw, sorted(map(str, index.tags))) for index in archive.indexes]
    assert {image.config_digest for image in archive.heads} <= {image.config_digest for image in archive.images}
    return View(archive.form, images, indexes, saved, blobs)


def _to_save(image: ArchiveImage, layers: list[bytes]) -> SavedImage:
    descriptors = [Descriptor(media.OCI_LAYER, Digest.of(data), len(data)) for data in layers]
    config = Descriptor(media.OCI_CONFIG, Digest.of(image.config_bytes), len(image.config_bytes))
    made = manifest.parse(build.manifest(config, descriptors), "made")
    assert isinstance(made, manifest.Manifest) and image.config is not None
    diff_ids = image.config.diff_ids
    listed = rank(image.config.platform, host()) is not None  # as save does it
    return SavedImage(made, image.config_bytes, diff_ids, image.config.created, image.tags, image.parent, listed=listed)


def read(source: Source, flags: int) -> View | CasstoreError:
    SEEN.clear()
    wanted = platform("linux/arm64") if flags & OTHER_PLATFORM else None
    with source:
        try:
            archive = reading.read(source, None if source.seekable else take, wanted, bool(flags & EVERYTHING))
        except _REFUSALS as error:
            assert "\n" not in str(error)
            return error
        return view(archive)


def in_place(data: bytes) -> Source:
    fd = os.memfd_create("archive")
    try:
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        return open_source(fd)
    finally:
        os.close(fd)


def going_by(data: bytes) -> Source:
    return TarStream(io.BytesIO(data), "pipe", LIMIT)  # type: ignore[arg-type]


def one(data: bytes) -> None:
    if not data:
        return
    flags, rest = data[0], data[1:]
    made = packed(rest) if not flags & RAW else summed(bytearray(rest))
    archive = rest if flags & RAW and flags & AS_IT_IS else made
    whole, passed = read(in_place(archive), flags), read(going_by(archive), flags)
    compare(whole, passed)
    if flags & OUTER in PACKERS and compression.detect(archive) is None:  # else it was unpacked once already
        under = read(in_place(PACKERS[flags & OUTER](archive)), flags)
        assert type(under) is type(passed)
        assert isinstance(under, CasstoreError) or under == passed
    if isinstance(whole, View):
        write_again(whole)


def compare(whole: View | CasstoreError, passed: View | CasstoreError) -> None:
    errors = [each for each in (whole, passed) if isinstance(each, CasstoreError)]
    if any(isinstance(error, LimitExceeded) for error in errors):
        return  # memory for what goes by is bounded more tightly
    if isinstance(whole, BadInput) and _UNDECODABLE.search(whole.message):
        return  # layers of legacy archives, which give no diffIDs: what goes by is the sink's to judge
    assert len(errors) != 1, errors
    if isinstance(whole, View):
        assert whole == passed
    else:
        assert type(whole) is type(passed), errors


def write_again(found: View) -> None:
    names = [tag for image in found.saved for tag in image.tags]
    if not found.saved or len(set(names)) != len(names):
        return

    def open_blob(content: writing.Content) -> tuple[int, Iterable[Buffer]]:
        return len(found.blobs[content.digest]), [found.blobs[content.digest]]

    plan = docker_archive.plan(found.saved)
    out = io.BytesIO()
    writing.write(out, plan, open_blob)
    assert writing.offsets(plan)[1] == len(out.getvalue())
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as opened:
        assert [each.name.rstrip("/") for each in opened] == [member.name.rstrip("/") for member in plan]
    again = read(in_place(out.getvalue()), EVERYTHING)
    assert isinstance(again, View), again
    assert _named(again.saved) == _named(found.saved)


def _named(saved: list[SavedImage]) -> set[tuple[Any, ...]]:
    found: dict[bytes, set[str]] = {}
    for image in saved:
        found.setdefault(image.manifest.raw, set()).update(map(str, image.tags))
    return {(raw, *sorted(names)) for raw, names in found.items()}


# -- seeds

TOKENS = [
    *("manifest.json", "index.json", "oci-layout", "repositories", "layer.tar", "blobs/sha256/", "../", "/json"),
    *("Config", "RepoTags", "Layers", "Parent", "LayerSources", "docker_version", "io.containerd.image.name"),
    *("org.opencontainers.image.ref.name", "vnd.docker.reference.type", "attestation-manifest", "path=", "linkpath="),
    *("size=", "GNU.sparse.major=", "ustar\\x00", "sha256:\\x01\\x00", '"size":\\x02\\x00', "\\x80\\x00\\x00", "linux"),
    *(media.OCI_INDEX, media.OCI_MANIFEST, media.DOCKER_LIST, media.OCI_CONFIG, media.OCI_LAYER_GZIP),
]


def described(*entries: tuple[int, str, bytes]) -> bytes:
    out = b""
    for kind, name, content in entries:
        out += bytes([kind, len(name)]) + len(content).to_bytes(2, "little") + name.encode() + content
    return out


def _json(value: Any) -> bytes:
    """JSON in which @3 stands for the digest of member 3 and "#3" for its size."""
    text = json.dumps(value, separators=(",", ":")).encode()
    text = re.sub(rb'"#(\d)"', lambda found: b"\2" + bytes([int(found[1])]), text)
    return re.sub(rb"@(\d)", lambda found: b"\1" + bytes([int(found[1])]), text)


def seeds() -> dict[str, bytes]:
    def config(*layers: int, **more: Any) -> bytes:
        diff_ids = [f"sha256:@{n}" for n in layers]
        value = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        return _json(value | more)

    def blob(number: int, kind: str, **more: Any) -> dict[str, Any]:
        return {"mediaType": kind, "digest": f"sha256:@{number}", "size": f"#{number}"} | more

    def name(text: str) -> dict[str, Any]:
        return {"annotations": {"io.containerd.image.name": text}}

    def image(config_number: int, *layers: int) -> bytes:
        described_layers = [blob(n, media.OCI_LAYER) for n in layers]
        value = {"schemaVersion": 2, "config": blob(config_number, media.OCI_CONFIG), "layers": described_layers}
        return _json(value)

    def listed(*children: dict[str, Any]) -> bytes:
        return _json({"schemaVersion": 2, "manifests": list(children)})

    path, mark = "blobs/sha256/\1", b'{"imageLayoutVersion":"1.0.0"}'
    item = {"Config": "c.json", "RepoTags": ["a:1", "localhost/b:2"], "Layers": ["0/layer.tar", "l"]}
    docker = described(
        (0, "0/layer.tar", b"content of a layer"),
        (16, "1/layer.tar", b"and another"),
        (2, "l", b"1/layer.tar"),
        (0, "c.json", config(0, 1, history=[{"created_by": "x"}])),
        (0, "manifest.json", _json([item])),
    )
    layout = [
        (0, path + "\0", b"a layer"),
        (0, path + "\1", config(0)),
        (0, path + "\2", image(1, 0)),
        (0, path + "\3", config(0, architecture="arm64")),
        (0, path + "\4", image(3, 0)),
    ]
    arm = {"platform": {"os": "linux", "architecture": "arm64"}}
    amd = {"platform": {"os": "linux", "architecture": "amd64"}}
    both = listed(blob(2, media.OCI_MANIFEST, **amd), blob(4, media.OCI_MANIFEST, **arm))
    arms = [*layout, (0, path + "\5", both), (0, "index.json", listed(blob(5, media.OCI_INDEX, **name("a:1"))))]
    two = listed(blob(5, media.OCI_INDEX, **name("a:1")), blob(2, media.OCI_MANIFEST, **name("b:1")))
    index = [*arms[:-1], (0, "index.json", two), (0, "oci-layout", mark)]
    hybrid_item = {"Config": "blobs/sha256/@1", "RepoTags": ["c:1"], "Layers": ["blobs/sha256/@0"]}
    hybrid = [
        *layout[:3],
        (0, "index.json", listed(blob(2, media.OCI_MANIFEST, **name("docker.io/library/c:1")))),
        (0, "oci-layout", mark),
        (0, "manifest.json", _json([hybrid_item])),
    ]
    low, top = "1" * 64, "2" * 64
    legacy = described(
        (0, f"{low}/json", _json({"id": low, "os": "linux", "docker_version": "1.8.2"})),
        (0, f"{low}/layer.tar", b"low"),
        (0, f"{top}/json", _json({"id": top, "parent": low, "docker_version": "1.10.0", "os": "linux"})),
        (32, f"{top}/layer.tar", b"top, compressed"),
        (0, "repositories", _json({"a/b": {"1": top}})),
    )
    long_names = described(
        (4, "pax", b"28 path=somewhere/else.json\n"),
        (0, "x", config()),
        (5, "long", b"manifest.json\0"),
        (0, "y", _json([{"Config": "somewhere/else.json"}])),
        (3, "folder/", b""),
        (1, "hard", b"x"),
    )
    made = {
        "docker": bytes([0]) + docker,
        "docker-gzip": bytes([1]) + docker,
        "docker-xz": bytes([4]) + docker,
        "index": bytes([2]) + described(*index),
        "index-everything": bytes([EVERYTHING]) + described(*index),
        "index-arm": bytes([OTHER_PLATFORM | 3]) + described(*arms, (0, "oci-layout", mark)),
        "hybrid": bytes([0]) + described(*hybrid),
        "legacy": bytes([0]) + legacy,
        "long-names": bytes([0]) + long_names,
    }
    return made | {"raw": bytes([RAW]) + packed(long_names)}
