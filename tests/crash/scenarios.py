"""Scenarios: a store in some state, one command, and what must hold. Each is put under every siege of `sieges`.

To add one: write a `prepare`, append to SCENARIOS.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sample
import tracing
from disk import Disk
from tracing import Run

CASSTORE = (sys.executable, "-m", "casstore")
SMALL = """
from casstore.flow import frames
from casstore.store import catalog, collector, packs
catalog.CHECKPOINT_PAGES = 4
collector.FILES = 2
frames.FrameBuilder.__init__.__defaults__ = (16 << 10,)
packs.SYNC_EVERY = 8 << 10
packs.PackShelf.__init__.__defaults__ = (32 << 10,)
"""
"""What happens after MiBs happens after KiBs: the log is written back, files are pushed to the disk, packs are full."""
SEGMENTS = SMALL + "from casstore.codec import gzip\ngzip.TARGET = 160 << 10\n"
"""And streams are taken apart in many segments."""
OFFLINE = """
import offline
from casstore.store import transfers
transfers.LEAST = 1 << 10
offline.install()
"""
"""Registries are in this process, and what comes from them comes in many pieces."""
CACHED = """
from casstore.store import cache
cache.LEAST = 1 << 10
cache.SPAN = 16 << 10
"""
"""Small blobs are kept in the cache too, in several pieces."""
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("CASSTORE_")} | {
    "PYTHONDONTWRITEBYTECODE": "1"
}


@dataclass
class Place:
    """Folders of a scenario: `inputs` is shared by all its points; `store` and `out` are copied for each.

    `traced`: `disk` follows what the commands make durable; what they leave unsynced may be lost in a later one's
    power loss.
    """

    inputs: Path
    here: Path
    traced: bool = False
    disk: Disk | None = None

    @property
    def store(self) -> Path:
        return self.here / "store"

    @property
    def out(self) -> Path:
        return self.here / "out"

    def filled(self, argv: Sequence[str]) -> list[str]:
        names = {"inputs": self.inputs, "store": self.store, "out": self.out}
        return [text.format_map({k: str(v) for k, v in names.items()}) for text in argv]

    def input(self, name: str, data: bytes) -> None:
        (self.inputs / name).write_bytes(data)

    def casstore(self, *argv: str, code: int = 0) -> Run:
        """An untouched run of the command line on the store; it must end with `code`."""
        command = [*CASSTORE, "--store", str(self.store), *self.filled(argv)]
        if self.traced:
            self.disk = self.disk or Disk(self.here, self.here)
            ran = tracing.run(command, roots=[self.here], record=True, environment=ENVIRONMENT)
            for call in ran.calls:
                self.disk.apply(call)
        else:
            done = subprocess.run(command, env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, check=False)
            ran = Run(done.returncode, done.stdout, done.stderr)
        if ran.code != code:
            raise AssertionError(f"casstore {' '.join(argv)}: exit code {ran.code}: {ran.err.decode()}")
        return ran

    @contextmanager
    def by_hand(self) -> Iterator[None]:
        """Around what is done to the files without a command; then all of them are on the disk."""
        yield
        self.disk = None

    def copy(self, here: Path) -> Place:
        if here.exists():
            shutil.rmtree(here)
        subprocess.run(["cp", "-a", "--reflink=auto", self.here, here], check=True)
        return Place(self.inputs, here)


@dataclass(frozen=True)
class Scenario:
    """`argv`: of the command, after --store; {inputs}, {store} and {out} are filled in. `stdin`: name of the input
    that comes through a pipe.

    `outside`: it changes only what lies in {out}, whole or not at all. `broken`: the store is damaged before, and sound
    after the command. `volatile`: the image whose config tells the time. `once`: a second run would do more, or fail.
    `patch`: Python that is run before the command, in its process; `around`: also when it is repeated.
    """

    name: str
    prepare: Callable[[Place], None]
    argv: tuple[str, ...]
    stdin: str | None = None
    outside: bool = False
    broken: bool = False
    volatile: tuple[str, ...] = ()
    once: bool = False
    patch: str = ""
    around: str = ""


BLOB = sample.text("a blob", 100_000)


def _text_image(seed: object, tag: str, size: int = 40_000) -> sample.Image:
    return sample.image(seed, (tag,), [sample.files({"common": sample.text("common", 30_000)}), _layer(seed, size)])


def _layer(seed: object, size: int) -> bytes:
    return sample.files({f"file-{seed}": sample.text(seed, size), "noise": sample.noise(seed, size // 8)})


def _family(*tags: str) -> bytes:
    """A parent without a name of its own … with the names given, and its child."""
    below = sample.image("parent", tags[:1])
    above = sample.image("child", tags[1:], [*below.layers, _layer("child", 20_000)])
    members = sample.docker_members([below, above])
    listed = json.loads(members["manifest.json"])
    listed[1]["Parent"] = below.id
    return sample.plain_tar(members | {"manifest.json": json.dumps(listed).encode()})


# -- stores to begin with


def _nothing(place: Place) -> None:
    place.store.rmdir()
    place.input("image.tar", sample.docker_archive(_text_image("first", "first:1")))


def _one_image(place: Place) -> None:
    """An image in the store; archives of it, of a related one under the same name, and others."""
    place.input("base.tar", sample.docker_archive(sample.rich_image("base", ("app:1", "base:1"))))
    place.input("next.tar", sample.docker_archive(sample.rich_image("next", ("app:1", "app:next"))))
    place.input("oci.tar", sample.oci_archive(sample.rich_image("oci", ("app:1", "oci:1"))))
    place.input("root.tar", _layer("import", 60_000))
    place.input("blob", BLOB)
    place.casstore("config", "set", "min-free", "0")
    place.casstore("load", "-i", "{inputs}/base.tar")


def _family_image(place: Place) -> None:
    place.input("family.tar", _family("parent:1", "child:1"))
    place.casstore("load", "-i", "{inputs}/family.tar")


def _two_images(place: Place) -> None:
    _one_image(place)
    place.casstore("load", "-i", "{inputs}/next.tar")


def _nameless(place: Place) -> None:
    """Two images that have lost their names, two that have some, and a child whose parent has none."""
    _two_images(place)
    place.input("family.tar", _family("parent:1", "child:1"))
    place.casstore("load", "-i", "{inputs}/family.tar")
    place.casstore("rmi", "parent:1")
    place.casstore("load", "-i", "{inputs}/oci.tar")
    place.casstore("tag", "oci:1", "base:1")
    place.casstore("tag", "oci:1", "app:next")


def _loose(place: Place) -> None:
    _one_image(place)
    place.casstore("load", "--pack", "later", "-i", "{inputs}/next.tar")


def _gzip(place: Place) -> None:
    """Two loose layers of gzip, and a blob whose encoder nobody knows."""
    _one_image(place)
    place.input("gzip.tar", sample.docker_archive(*_gzip_images(), pack=sample.gz))
    place.input("odd", _odd_gzip(sample.text("odd", 60_000)))
    place.casstore("load", "-i", "{inputs}/gzip.tar")
    place.casstore("blob", "put", "{inputs}/odd")


def _gzip_comes(place: Place) -> None:
    _one_image(place)
    place.input("gzip.tar", sample.docker_archive(*_gzip_images(), pack=sample.gz))


def _gzip_packed(place: Place) -> None:
    """What is saved must be made again first, and goes into the cache."""
    _gzip_comes(place)
    place.casstore("load", "--pack", "now", "-i", "{inputs}/gzip.tar")
    with place.by_hand():
        (place.out / "saved.tar").write_bytes(b"what was there before")


def _gzip_images() -> list[sample.Image]:
    return [sample.rich_image("next", ("app:1", "gz:1")), _text_image("gz", "text:1", 700_000)]


def _odd_gzip(data: bytes) -> bytes:
    """No encoder sends text as single literals of fixed codes, and ends each block after some hundreds."""
    made = bytearray(b"\x1f\x8b\x08\0\0\0\0\0\0\x03")
    bits = count = 0
    for at in range(0, len(data), 300):
        piece = data[at : at + 300]
        head = [(int(at + 300 >= len(data)), 1), (1, 2)]
        for value, width in [*head, *((_reversed(0x30 + byte), 8) for byte in piece), (0, 7)]:
            bits |= value << count
            count += width
    made += bits.to_bytes((count + 7) // 8, "little")
    return bytes(made) + zlib.crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little")


def _reversed(code: int) -> int:
    return int(f"{code:08b}"[::-1], 2)


def _worn(place: Place) -> None:
    """Five light packs, metadata packs and segments; of two of them something has become garbage."""
    place.casstore("config", "set", "min-free", "0")
    for n in range(5):
        place.input(f"{n}.tar", sample.docker_archive(_text_image(n, f"app:{n}"), _text_image((n, "b"), f"more:{n}")))
        place.casstore("load", "-i", f"{{inputs}}/{n}.tar")
    place.casstore("rmi", "app:1", "more:3")


def _compact(place: Place) -> None:
    """What gc has packed hard, and then another image."""
    _one_image(place)
    place.casstore("gc", "--grace", "0")
    place.casstore("load", "-i", "{inputs}/next.tar")
    place.casstore("rmi", "base:1")


def _no_index(place: Place) -> None:
    _two_images(place)
    with place.by_hand():
        min((place.store / "objects" / "index").iterdir()).unlink()


def _rotten_index(place: Place) -> None:
    _two_images(place)
    with place.by_hand():
        _rot(min((place.store / "objects" / "index").iterdir()))


def _rotten_blob(place: Place) -> None:
    """A loose layer has rotted, and check has seen it."""
    _loose(place)
    with place.by_hand():
        loose = [path for path in (place.store / "objects" / "blobs").rglob("*") if path.is_file()]
        _rot(max(loose, key=lambda path: path.stat().st_size))
    place.casstore("check", "--read-data", code=1)


def _rot(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    path.chmod(0o444)


def _no_catalog(place: Place) -> None:
    """Packs and a loose blob, and a copy of the names."""
    _one_image(place)
    place.casstore("load", "-i", "{inputs}/oci.tar")
    with place.by_hand():
        for part in ("", "-wal", "-shm"):
            (place.store / f"catalog.sqlite{part}").unlink(missing_ok=True)


def _old_catalog(place: Place) -> None:
    """The catalog is from a backup: it does not know what was loaded since, and gc has deleted some that it knows."""
    _one_image(place)
    catalog = place.store / "catalog.sqlite"
    backup = catalog.read_bytes()
    place.casstore("load", "-i", "{inputs}/oci.tar")
    place.casstore("load", "-i", "{inputs}/next.tar")
    place.casstore("gc", "--grace", "0")
    with place.by_hand():
        catalog.write_bytes(backup)


def _old_file(place: Place) -> None:
    _one_image(place)
    with place.by_hand():
        (place.out / "saved.tar").write_bytes(b"what was there before")


def _bundle_comes(place: Place) -> None:
    """A bundle that leans on the image in the store, and moves its name."""
    _one_image(place)
    _bundle(place)


def _bundle_comes_plain(place: Place) -> None:
    """A bundle that leans on plain layers, of which the store has only loose ones of gzip."""
    place.input("base.tar", sample.docker_archive(sample.rich_image("base", ("app:1", "base:1")), pack=sample.gz))
    place.casstore("config", "set", "min-free", "0")
    place.casstore("load", "-i", "{inputs}/base.tar")
    _bundle(place)


def _bundle(place: Place) -> None:
    """thin.bundle: app:1 and app:next, for a store that has base:1; made by a store of its own."""
    sender = place.inputs / "sender"
    both = [sample.rich_image("base", ("app:1", "base:1")), sample.rich_image("next", ("app:1", "app:next"))]
    place.input("both.tar", sample.docker_archive(*both))
    bundle = ["bundle", "create", f"{place.inputs}/thin.bundle", "app:1", "app:next", "--have", "base:1"]
    for argv in (["load", "-i", f"{place.inputs}/both.tar"], bundle):
        command = [*CASSTORE, "--store", str(sender), *argv]
        subprocess.run(command, env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    shutil.rmtree(sender)


def _old_bundle(place: Place) -> None:
    """Some layers are loose, and are taken apart for the bundle."""
    _loose(place)
    with place.by_hand():
        (place.out / "thin.bundle").write_bytes(b"what was there before")


def _to_push(place: Place) -> None:
    """Plain layers, which a push compresses."""
    _one_image(place)
    place.casstore("tag", "app:1", "registry.test/b:1")


def _pinned_blob(place: Place) -> None:
    _one_image(place)
    place.casstore("blob", "put", "{inputs}/blob")


SCENARIOS = [
    Scenario("first use", _nothing, ("load", "-i", "{inputs}/image.tar")),
    Scenario("load", _one_image, ("load", "-i", "{inputs}/next.tar")),
    Scenario("load pipe", _one_image, ("load",), stdin="next.tar"),
    Scenario("load small", _one_image, ("load", "-i", "{inputs}/next.tar"), patch=SMALL),
    Scenario("load oci", _one_image, ("load", "-i", "{inputs}/oci.tar")),
    Scenario("load heals", _rotten_blob, ("load", "-i", "{inputs}/next.tar"), broken=True),
    Scenario("load later", _one_image, ("load", "--pack", "later", "-i", "{inputs}/next.tar")),
    Scenario("pull", _one_image, ("pull", "--referrers", "registry.test/a:1"), patch=SMALL, around=OFFLINE),
    Scenario("pull later", _one_image, ("pull", "--pack", "later", "registry.test/a:1"), patch=SMALL, around=OFFLINE),
    Scenario("push", _to_push, ("push", "registry.test/b:1"), patch=SEGMENTS, around=OFFLINE),
    Scenario("push zstd", _to_push, ("push", "--compression", "zstd", "registry.test/b:1"), around=OFFLINE),
    Scenario("gc pack", _loose, ("gc", "--grace", "0")),
    Scenario("gc gzip", _gzip, ("gc", "--grace", "0"), patch=SEGMENTS),
    Scenario("load gzip now", _gzip_comes, ("load", "--pack", "now", "-i", "{inputs}/gzip.tar")),
    Scenario("gc repack", _worn, ("gc", "--grace", "0")),
    Scenario("gc small", _worn, ("gc", "--grace", "0"), patch=SMALL),
    Scenario("gc again", _compact, ("gc", "--grace", "0")),
    Scenario("tag", _two_images, ("tag", "app:1", "base:1")),
    Scenario("rmi", _two_images, ("rmi", "-f", "base:1")),
    Scenario("rmi parent", _family_image, ("rmi", "-f", "parent:1")),
    Scenario("prune", _nameless, ("image", "prune", "-f")),
    Scenario("prune all", _nameless, ("image", "prune", "-a", "-f")),
    Scenario("check repair", _no_index, ("check", "--repair"), broken=True),
    Scenario("check rotten", _rotten_index, ("check", "--repair"), broken=True),
    Scenario("check rebuild", _no_catalog, ("check", "--repair"), broken=True),
    Scenario("check older", _old_catalog, ("check", "--repair"), broken=True),
    Scenario("save", _old_file, ("save", "-o", "{out}/saved.tar", "app:1", "base:1"), outside=True),
    Scenario(
        "save gzip",
        _gzip_packed,
        ("save", "-o", "{out}/saved.tar", "gz:1", "text:1"),
        outside=True,
        patch=CACHED,
    ),
    Scenario("bundle load", _bundle_comes, ("bundle", "load", "{inputs}/thin.bundle")),
    Scenario("bundle load pipe", _bundle_comes, ("bundle", "load", "-"), stdin="thin.bundle", patch=SMALL),
    Scenario("bundle load remade", _bundle_comes_plain, ("bundle", "load", "{inputs}/thin.bundle")),
    Scenario(
        "bundle create",
        _old_bundle,
        ("bundle", "create", "{out}/thin.bundle", "app:next", "--have", "base:1"),
        outside=True,
    ),
    Scenario(
        "import",
        _one_image,
        ("import", "{inputs}/root.tar", "made:1"),
        volatile=("docker.io/library/made:1",),
        once=True,
    ),
    Scenario("blob put", _one_image, ("blob", "put", "{inputs}/blob")),
    Scenario("blob rm", _pinned_blob, ("blob", "rm", sample.digest(BLOB)), once=True),
    Scenario("init", _nothing, ("init", "--chunk-digest", "blake3", "--chunk-size", "8KiB"), once=True),
    Scenario("config set", _one_image, ("config", "set", "pack.after", "2h")),
]


def named(name: str) -> Scenario:
    return next(one for one in SCENARIOS if one.name == name)
