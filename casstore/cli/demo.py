"""casstore demo: the whole tool in half a minute, on images made from this machine's own files.

Three related images: Python's standard library; the same after an upgrade (every twelfth file changed, every
time stamp new); an application on the first. They are loaded into a scratch store, listed, saved, compared
byte for byte with what went in, removed and collected, by the commands a user would type.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import sysconfig
import tarfile
import tempfile
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from ..errors import Damaged
from .base import Command
from .output import line
from .units import human_size

_LIMIT = 40 << 20
_CHANGED = 12
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class _Layer:
    path: Path
    size: int
    diffid: str


@click.command(cls=Command)
def demo() -> None:
    """Show the tool at work: make images, load, list, save, verify, remove, collect."""
    with tempfile.TemporaryDirectory(prefix="casstore-demo-") as folder:
        _tour(Path(folder))


def _tour(folder: Path) -> None:
    library = Path(sysconfig.get_paths()["stdlib"])
    line(f"# Three related images, made of {library}")
    one = _library_layer(folder / "one.tar", library, moment=1_700_000_000, changed=False)
    two = _library_layer(folder / "two.tar", library, moment=1_730_000_000, changed=True)
    app = _tar_layer(folder / "app.tar", {"srv/app/main.py": b"print('hello from casstore')\n"}, 1_730_000_000)
    images = {"demo/python:1": [one], "demo/python:2": [two], "demo/app:1": [one, app]}
    for name, layers in images.items():
        line(f"  {name:14} {' + '.join(human_size(each.size) for each in layers)}")
        _write_archive(folder / _file_name(name), name, layers)

    store = folder / "store"
    for name in images:
        _run(store, "load", "-i", str(folder / _file_name(name)))
    _run(store, "images")
    _run(store, "df")
    gzipped = sum(_gzip_size(each.path) for each in (one, two, app))
    kept = sum(each.stat().st_size for each in store.rglob("*") if each.is_file())
    line(f"# A registry would keep {human_size(gzipped)} of gzip layers; this store takes {human_size(kept)},")
    line("# and gives every byte back:")

    saved = folder / "saved.tar"
    _run(store, "save", "-o", str(saved), "demo/python:2")
    _run(store, "verify", "demo/python:2")
    _compare(saved, [two])
    line("# The saved layer equals the one that was loaded, byte for byte.")

    _run(store, "rmi", "demo/python:2")
    _run(store, "gc", "--dry-run", "--grace", "0s", "--format", "{{.Action}} {{.Kind}}: {{.Reason}}")
    _run(store, "gc", "--grace", "0s", "--max-time", "5s")
    _run(store, "df")
    _run(store, "verify", "demo/app:1")
    line("# Done; the scratch store is gone.")


def _run(store: Path, *words: str) -> None:
    """A command as the user types it, its output below it."""
    from .root import call

    line("\n$ casstore " + " ".join(word if word.strip("{}") == word else f"'{word}'" for word in words))
    began = time.monotonic()
    call(["--store", str(store), *words])
    line(f"  ({time.monotonic() - began:.2f} s)")


def _library_layer(target: Path, library: Path, *, moment: int, changed: bool) -> _Layer:
    """A layer of the files below `library`, at most _LIMIT bytes; `changed`: every twelfth is edited."""
    files: dict[str, bytes] = {}
    room = _LIMIT
    for path in sorted(library.rglob("*")):
        inside = path.relative_to(library)
        if "site-packages" in inside.parts or "dist-packages" in inside.parts or not path.is_file():
            continue
        try:
            content = path.read_bytes()
        except OSError:
            continue
        room -= len(content)
        if room < 0:
            break
        if changed and len(files) % _CHANGED == 0:
            content = content[: len(content) // 2] + b"\n# changed by the upgrade\n" + content[len(content) // 2 :]
        files[f"usr/lib/python/{inside}"] = content
    return _tar_layer(target, files, moment)


def _tar_layer(target: Path, files: dict[str, bytes], moment: int) -> _Layer:
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            _add(archive, name, content, moment)
    with target.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return _Layer(target, target.stat().st_size, f"sha256:{digest}")


def _write_archive(target: Path, name: str, layers: Sequence[_Layer]) -> None:
    """One image as `docker save` writes it."""
    config = json.dumps(
        {
            "architecture": _MACHINES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 7200)),
            "config": {"Cmd": ["python3"], "Labels": {"demo": name}},
            "rootfs": {"type": "layers", "diff_ids": [each.diffid for each in layers]},
            "history": [{"created_by": "casstore demo"} for _ in layers],
        }
    ).encode()
    identity = hashlib.sha256(config).hexdigest()
    paths = [f"{each.diffid.removeprefix('sha256:')}/layer.tar" for each in layers]
    manifest = [{"Config": f"{identity}.json", "RepoTags": [name], "Layers": paths}]
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as archive:
        _add(archive, f"{identity}.json", config, 0)
        for path, layer in zip(paths, layers, strict=True):
            _add(archive, path, layer.path.read_bytes(), 0)
        _add(archive, "manifest.json", json.dumps(manifest).encode(), 0)


def _add(archive: tarfile.TarFile, name: str, content: bytes, moment: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = len(content), moment, 0o644
    archive.addfile(entry, io.BytesIO(content))


def _compare(saved: Path, layers: Sequence[_Layer]) -> None:
    """Read the layers back by an independent reader (tarfile) and compare them with what was loaded."""
    with tarfile.open(saved) as archive:
        listed = archive.extractfile("manifest.json")
        paths = json.load(listed)[0]["Layers"] if listed else []
        for path, layer in zip(paths, layers, strict=True):
            member = archive.extractfile(path)
            if member is None or member.read() != layer.path.read_bytes():
                raise Damaged("the saved layer differs from the one that was loaded", what=path)


def _gzip_size(path: Path) -> int:
    """Bytes that a registry would keep: gzip, level 6."""
    squeeze = zlib.compressobj(6, wbits=31)
    with path.open("rb") as stream:
        size = sum(len(squeeze.compress(part)) for part in iter(lambda: stream.read(1 << 20), b""))
    return size + len(squeeze.flush())


def _file_name(reference: str) -> str:
    return reference.replace("/", "-").replace(":", "-") + ".tar"
