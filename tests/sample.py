"""Images made for tests: small, of related layers, in every form in which archives come. Same seed, same bytes."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

CREATED = "2024-02-03T04:05:06.123456789Z"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
MARK = b'{"imageLayoutVersion":"1.0.0"}'


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest(data: bytes) -> str:
    return f"sha256:{sha(data)}"


def noise(seed: object, size: int) -> bytes:
    """Bytes that do not compress."""
    return random.Random(f"noise {seed}").randbytes(size)


def text(seed: object, size: int) -> bytes:
    """Bytes that compress as programs do."""
    words = [noise((seed, i), 1 + i % 9).hex().encode() for i in range(64)]
    picked = random.Random(f"text {seed}").choices(words, k=size // 4 + 1)
    return b" ".join(picked)[:size].ljust(size, b"\n")


# -- layers


def entry(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(data)
    info.mtime = 1_700_000_000
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def tar(entries: Iterable[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, errors="surrogateescape") as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def plain_tar(members: Mapping[str, bytes] | Iterable[tuple[str, bytes]]) -> bytes:
    """The outer tar of an archive: named files, in this order; a name may stand twice."""
    pairs = members.items() if isinstance(members, Mapping) else members
    return tar((entry(name, data) for name, data in pairs), tarfile.USTAR_FORMAT)


def files(names: Mapping[str, bytes]) -> bytes:
    """A layer of plain files."""
    return tar(entry(name, data) for name, data in names.items())


def rich_layer(seed: object, *, kind: int = tarfile.PAX_FORMAT) -> bytes:
    """A layer with one of everything that engines unpack: about 400 KiB."""
    long = "/".join(f"a-rather-long-folder-name-{i:02}" for i in range(6)) + "/" + "f" * 120
    folders = ["bin/", "etc/", "dev/", "var/", "var/empty/"]
    folders += [long[: long.index("/", at) + 1] for at in [i for i, c in enumerate(long) if i == 0 or c == "/"][:-1]]
    xattr = {"SCHILY.xattr.user.note": "kept"} if kind == tarfile.PAX_FORMAT else {}
    fine = {"mtime": 1_700_000_000.25} if kind == tarfile.PAX_FORMAT else {}
    folders = sorted({*(f.removeprefix("/") for f in folders), long.rsplit("/", 1)[0] + "/"}, key=lambda f: (len(f), f))
    return tar(
        [
            *(entry(name.rstrip("/"), kind=tarfile.DIRTYPE) for name in folders),
            entry("bin/tool", text(("tool", seed), 90_000), mode=0o4755),
            entry("bin/library", text("the same in all", 150_000)),
            entry("bin/linked", kind=tarfile.LNKTYPE, linkname="bin/tool"),
            entry("bin/soft", kind=tarfile.SYMTYPE, linkname="tool"),
            entry("etc/empty"),
            entry("etc/small", text(seed, 700), uid=1000, gid=1000, uname="user", gname="user"),
            entry("etc/secret", noise(seed, 60_000), mode=0o600, pax_headers=xattr),
            entry("etc/fine", b"fraction", **fine),
            entry("etc/na\xefve \u2713", b"not ascii"),
            entry("dev/null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
            entry("dev/pipe", kind=tarfile.FIFOTYPE),
            entry(long, b"far down"),
        ],
        kind,
    )


def upper_layer(seed: object) -> bytes:
    """A layer that goes over `rich_layer`: a change, a whiteout, an opaque folder."""
    return tar(
        [
            entry("bin", kind=tarfile.DIRTYPE),
            entry("bin/tool", text(("newer tool", seed), 120_000)),
            entry("etc", kind=tarfile.DIRTYPE),
            entry("etc/.wh.secret"),
            entry("var", kind=tarfile.DIRTYPE),
            entry("var/empty", kind=tarfile.DIRTYPE),
            entry("var/empty/.wh..wh..opq"),
            entry("var/empty/new", b"new"),
        ]
    )


# -- images


@dataclass(frozen=True)
class Image:
    """Exact config bytes and uncompressed layers."""

    config: bytes
    layers: tuple[bytes, ...]
    tags: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return digest(self.config)

    @property
    def diff_ids(self) -> list[str]:
        return [digest(layer) for layer in self.layers]


def config(layers: Iterable[bytes], **changes: Any) -> bytes:
    """`changes` replace fields; a field of value None is left out."""
    layers = list(layers)
    value: dict[str, Any] = {
        "architecture": "amd64",
        "os": "linux",
        "created": CREATED,
        "config": {"Cmd": ["/bin/tool"], "Labels": {"made": "for tests"}},
        "history": [{"created": CREATED, "created_by": f"step {i}"} for i in range(len(layers))],
        "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
        "x-unknown": {"kept": [1, 2.50, "\u2713"]},
    } | changes
    return json.dumps({key: each for key, each in value.items() if each is not None}, indent=1).encode()


def image(seed: object = 0, tags: Iterable[str] = (), layers: Iterable[bytes] | None = None, **changes: Any) -> Image:
    """By default one file of 40 KiB in one layer."""
    made = tuple([files({"file": text(seed, 40_000)})] if layers is None else layers)
    return Image(config(made, **changes), made, tuple(tags))


def rich_image(seed: object = 0, tags: Iterable[str] = ("rich:1",), **changes: Any) -> Image:
    """Three layers with everything in them, the bottom one shared by all seeds."""
    return image(seed, tags, [rich_layer("base"), upper_layer(seed), files({"srv/app": text(seed, 30_000)})], **changes)


# -- archives


def gz(data: bytes) -> bytes:
    return gzip.compress(data, 6, mtime=0)


def docker_members(images: Iterable[Image], pack: Any = bytes) -> dict[str, bytes]:
    """What docker 1.10 to 24 saves, manifest.json last. `pack`: what is done to layers."""
    members: dict[str, bytes] = {}
    items = []
    for one in images:
        paths = []
        for layer in one.layers:
            path = f"{sha(layer + b'id')}/layer.tar"
            members[path] = pack(layer)
            paths.append(path)
        members[f"{sha(one.config)}.json"] = one.config
        items.append({"Config": f"{sha(one.config)}.json", "RepoTags": list(one.tags) or None, "Layers": paths})
    members["manifest.json"] = json.dumps(items).encode() + b"\n"
    return members


def docker_archive(*images: Image, pack: Any = bytes) -> bytes:
    return plain_tar(docker_members(images, pack))


class Layout:
    """An OCI layout, piece by piece: `files` by path."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.top: list[dict[str, Any]] = []

    def blob(self, data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        self.blobs[f"blobs/sha256/{sha(data)}"] = data
        return {"mediaType": media_type, "digest": digest(data), "size": len(data)} | more

    def manifest(self, one: Image, *, packed: bool = True, **more: Any) -> dict[str, Any]:
        """An image's descriptor; `packed`: layers are gzip."""
        kind = OCI_LAYER + ("+gzip" if packed else "")
        value = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self.blob(one.config, OCI_CONFIG),
            "layers": [self.blob(gz(layer) if packed else layer, kind) for layer in one.layers],
            "annotations": {"kept": "byte for byte"},
        }
        return self.blob(json.dumps(value, indent=3).encode(), OCI_MANIFEST, **more)

    def index(self, children: Iterable[dict[str, Any]]) -> dict[str, Any]:
        value = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(children)}
        return self.blob(json.dumps(value, indent=2).encode(), OCI_INDEX)

    def name(self, descriptor: dict[str, Any], reference: str) -> None:
        """Put it into index.json under a full name."""
        tag = reference.rpartition(":")[2]
        annotations = {"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": tag}
        self.top.append(descriptor | {"annotations": annotations})

    @property
    def files(self) -> dict[str, bytes]:
        top = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": self.top}
        return {"oci-layout": MARK, "index.json": json.dumps(top).encode(), **self.blobs}

    def tar(self) -> bytes:
        return plain_tar(self.files)


def oci_archive(*images: Image, packed: bool = True) -> bytes:
    layout = Layout()
    for one in images:
        made = layout.manifest(one, packed=packed)
        for tag in one.tags:
            layout.name(made, f"docker.io/{tag}" if "/" in tag else f"docker.io/library/{tag}")
        if not one.tags:
            layout.top.append(made)
    return layout.tar()


def platforms(tag: str = "many:1", *, packed: bool = True) -> tuple[Layout, dict[str, Image]]:
    """A layout with an index over amd64, arm64 and arm/v7 under one name; and the images."""
    layout, images, children = Layout(), {}, []
    for name, fields in {
        "linux/amd64": {"architecture": "amd64"},
        "linux/arm64": {"architecture": "arm64"},
        "linux/arm/v7": {"architecture": "arm", "variant": "v7"},
    }.items():
        one = image(name, layers=[files({"arch": name.encode() + text(name, 20_000)})], **fields)
        images[name] = one
        children.append(layout.manifest(one, packed=packed, platform={"os": "linux", **fields}))
    layout.name(layout.index(children), f"docker.io/library/{tag}")
    return layout, images


def members_of(archive: bytes) -> dict[str, bytes]:
    """Regular files of a tar by name."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        return {one.name: opened.extractfile(one).read() for one in opened if one.isreg()}  # type: ignore[union-attr]


def saved_images(archive: bytes) -> dict[str, tuple[list[str], list[bytes]]]:
    """What manifest.json of an archive says: image ID → (tags, layers as they lie there)."""
    found = members_of(archive)
    result = {}
    for item in json.loads(found["manifest.json"]):
        layers = [found[path] for path in item["Layers"]]
        result[digest(found[item["Config"]])] = (item["RepoTags"] or [], layers)
    return result
