"""Encoders of gzip that a machine may have, each made to compress a tar as those do who make layers with it.

    workshop = Workshop(folder)           # programs that must be compiled are, once
    for encoder in ENCODERS:
        encoder.make(workshop, tar, out)  # Absent: it is not on this machine

Only the standard library: benchmarks use it in their measuring process, too.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

GO = """package main

import (
	"compress/gzip"
	"io"
	"os"
	"strconv"
)

// pack LEVEL SIZE < content > gzip: a member for each SIZE bytes; 0: one.
func main() {
	level, _ := strconv.Atoi(os.Args[1])
	size, _ := strconv.ParseInt(os.Args[2], 10, 64)
	for first := true; ; first = false {
		var source io.Reader = os.Stdin
		if size > 0 {
			source = io.LimitReader(os.Stdin, size)
		}
		writer, err := gzip.NewWriterLevel(os.Stdout, level)
		if err != nil {
			panic(err)
		}
		piece := make([]byte, 32<<10)
		n, err := source.Read(piece)
		if n == 0 && err == io.EOF && !first {
			return
		}
		writer.Write(piece[:n])
		if _, err := io.CopyBuffer(struct{ io.Writer }{writer}, struct{ io.Reader }{source}, piece); err != nil {
			panic(err)
		}
		if err := writer.Close(); err != nil {
			panic(err)
		}
		if size == 0 {
			return
		}
	}
}
"""
JAVA = """import java.util.zip.GZIPOutputStream;

public class Pack {
    public static void main(String[] arguments) throws Exception {
        int level = Integer.parseInt(arguments[0]);
        try (var out = new GZIPOutputStream(System.out, 65536) {{ def.setLevel(level); }}) {
            System.in.transferTo(out);
        }
    }
}
"""


class Absent(Exception):
    """An encoder that is not on this machine; the text says what is missing."""


@dataclass(frozen=True)
class Workshop:
    """Where programs are compiled, and what they need."""

    folder: Path

    def program(self, name: str) -> str:
        """The path of a program. Absent."""
        found = shutil.which(name)
        if found is None:
            raise Absent(f"{name} is not installed")
        return found

    def run(self, command: Sequence[str | Path], given: Path | None = None, out: Path | None = None) -> str:
        """Run one, from file to file; returns what it printed elsewhere."""
        with (given or Path(os.devnull)).open("rb") as source, (out or Path(os.devnull)).open("wb") as target:
            home = {"HOME": str(self.folder), "XDG_RUNTIME_DIR": str(self.folder), "TMPDIR": str(self.folder)}
            done = subprocess.run(
                list(map(str, command)), stdin=source, stdout=target if out else subprocess.PIPE,
                stderr=subprocess.PIPE, env={**os.environ, **home},
            )  # fmt: skip
        if done.returncode:
            raise Absent(f"{Path(str(command[0])).name} does not do it here: {done.stderr.decode()[-200:].strip()}")
        return "" if out else done.stdout.decode()

    def toolchains(self) -> dict[str, str]:
        """Go's programs by version ("1.26.8"): CASSTORE_GO (separated by `:`), else the one of the path."""
        named = [name for name in os.environ.get("CASSTORE_GO", "").split(":") if name]
        usual = [shutil.which("go"), *filter(os.path.exists, ["/usr/local/go/bin/go"])]
        found: dict[str, str] = {}
        for name in named or filter(None, usual):
            told = subprocess.run([name, "version"], capture_output=True, text=True, check=False).stdout
            if version := re.search(r"go(1\.\d+\S*)", told):
                found.setdefault(version[1], name)
        return found

    def go(self, new: bool) -> Path:
        """A compiled GO; `new`: of Go 1.27 or later, whose encoder is another. Absent."""
        for version, name in self.toolchains().items():
            if (int(version.split(".")[1]) >= 27) != new:
                continue
            program = self.folder / f"pack-{version}"
            if not program.exists():
                source = self.folder / f"go-{version}/main.go"
                source.parent.mkdir(exist_ok=True)
                source.write_text(GO)
                settings = {"GOTOOLCHAIN": "local", "GOFLAGS": "", "GOCACHE": str(self.folder / "cache")}
                settings["GOROOT"] = str(Path(name).resolve().parents[1])
                built = subprocess.run(
                    [name, "build", "-o", program, source], capture_output=True, text=True, env=os.environ | settings
                )
                if built.returncode:
                    raise Absent(f"Go {version} does not build here: {built.stderr[-200:].strip()}")
            return program
        raise Absent(f"no Go of {'1.27 or later' if new else '1.7 to 1.26'} here (CASSTORE_GO)")

    def java(self) -> list[str]:
        """A command that runs a compiled JAVA. Absent."""
        java, compiler = self.program("java"), self.program("javac")
        if not (self.folder / "Pack.class").exists():
            (self.folder / "Pack.java").write_text(JAVA)
            self.run([compiler, "-d", self.folder, self.folder / "Pack.java"])
        return [java, "-Xshare:auto", "-cp", str(self.folder), "Pack"]


Make = Callable[[Workshop, Path, Path], None]


@dataclass(frozen=True)
class Encoder:
    """One encoder with its options. `engine`: what is to be recognised in it, (name, version, level), a version or
    level of 0 being any; None: no engine is it. `make(workshop, tar, out)`: what it makes of a tar, or of its files.
    `slow`: it takes more than some seconds for each MB."""

    name: str
    engine: tuple[str, int, int] | None
    make: Make
    slow: bool = False


def _piped(*command: str) -> Make:
    """A program from its input to its output."""

    def make(workshop: Workshop, tar: Path, out: Path) -> None:
        workshop.run([workshop.program(command[0]), *command[1:]], tar, out)

    return make


def _zopfli(workshop: Workshop, tar: Path, out: Path) -> None:
    workshop.run([workshop.program("zopfli"), "--i1", "-c", tar], None, out)


def _bsdtar(level: int) -> Make:
    def make(workshop: Workshop, tar: Path, out: Path) -> None:
        chosen = f"gzip:compression-level={level}"
        workshop.run([workshop.program("bsdtar"), "-c", "-z", "-f", out, "--options", chosen, f"@{tar}"])

    return make


def _python(level: int) -> Make:
    def make(workshop: Workshop, tar: Path, out: Path) -> None:
        if "ng" in zlib.ZLIB_RUNTIME_VERSION:
            raise Absent("Python's zlib is zlib-ng here")
        with (
            tar.open("rb") as source,
            out.open("wb") as target,
            gzip.GzipFile("", "wb", level, target, mtime=1_700_000_000) as packed,
        ):
            shutil.copyfileobj(source, packed, 1 << 20)

    return make


def _module(name: str, call: str) -> Make:
    """A Python package: `call` packs `data`."""

    def make(workshop: Workshop, tar: Path, out: Path) -> None:
        code = f"import sys; from {name} import *; data = sys.stdin.buffer.read(); sys.stdout.buffer.write({call})"
        workshop.run([sys.executable, "-c", code], tar, out)

    return make


def _go(level: int, new: bool = False, size: int = 0) -> Make:
    def make(workshop: Workshop, tar: Path, out: Path) -> None:
        workshop.run([workshop.go(new), str(level), str(size)], tar, out)

    return make


def _java(level: int) -> Make:
    def make(workshop: Workshop, tar: Path, out: Path) -> None:
        workshop.run([*workshop.java(), str(level)], tar, out)

    return make


def _members(*levels: int) -> Make:
    """Members of 256 KiB, one after the other, as a layer is that can be read in parts."""

    def make(workshop: Workshop, tar: Path, out: Path) -> None:
        with tar.open("rb") as source, out.open("wb") as target:
            number = 0
            while piece := source.read(256 << 10):
                target.write(gzip.compress(piece, levels[number % len(levels)], mtime=0))
                number += 1

    return make


def _image(tar: Path, archive: Path) -> None:
    """A docker archive with one layer."""
    with tar.open("rb") as file:
        layer = hashlib.file_digest(file, "sha256").hexdigest()
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer}"]}}
    ).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": ["packed:1"], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as made:
        for name, data in (("config.json", config), ("manifest.json", manifest)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
        made.add(tar, "layer.tar")


def _layer_of(layout: Path, out: Path) -> None:
    """The largest blob of an OCI layout."""
    blobs = (layout / "blobs/sha256").iterdir()
    shutil.copyfile(max(blobs, key=lambda path: path.stat().st_size), out)


def _policy(workshop: Workshop) -> str:
    path = workshop.folder / "policy.json"
    path.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    return str(path)


def _skopeo(workshop: Workshop, tar: Path, out: Path) -> None:
    skopeo, archive, layout = workshop.program("skopeo"), out.with_suffix(".archive"), out.with_suffix(".layout")
    _image(tar, archive)
    try:
        options = ["--policy", _policy(workshop), "--tmpdir", str(workshop.folder)]
        workshop.run([skopeo, *options, "copy", "-q", f"docker-archive:{archive}", f"oci:{layout}:1"])
        _layer_of(layout, out)
    finally:
        archive.unlink()
        shutil.rmtree(layout, ignore_errors=True)


def _buildah(workshop: Workshop, tar: Path, out: Path) -> None:
    buildah, archive, layout = workshop.program("buildah"), out.with_suffix(".archive"), out.with_suffix(".layout")
    _image(tar, archive)
    options = ["--root", f"{workshop.folder}/root", "--runroot", f"{workshop.folder}/run", "--storage-driver", "vfs"]
    policy = ["--signature-policy", _policy(workshop)]
    try:
        image = workshop.run([buildah, *options, "pull", *policy, "-q", f"docker-archive:{archive}"]).strip()
        workshop.run([buildah, *options, "push", *policy, "-q", image, f"oci:{layout}:1"])
        workshop.run([buildah, *options, "rmi", image])
        _layer_of(layout, out)
    finally:
        archive.unlink()
        shutil.rmtree(layout, ignore_errors=True)


def _umoci(workshop: Workshop, tar: Path, out: Path) -> None:
    umoci, layout = workshop.program("umoci"), out.with_suffix(".layout")
    try:
        workshop.run([umoci, "init", "--layout", layout])
        workshop.run([umoci, "new", "--image", f"{layout}:1"])
        workshop.run([umoci, "insert", "--rootless", "--image", f"{layout}:1", tar, "/file"])
        _layer_of(layout, out)
    finally:
        shutil.rmtree(layout, ignore_errors=True)


LEVELS = (1, 3, 4, 6, 9)
"""Each of zlib's ways to look for matches, the usual level and the best."""
ENCODERS = [
    *(Encoder(f"gzip -{level}", ("gzip", 1, level), _piped("gzip", "-c", f"-{level}")) for level in LEVELS),
    *(Encoder(f"pigz -{level}", ("pigz", 1, level), _piped("pigz", "-c", "-p2", f"-{level}")) for level in LEVELS),
    Encoder("pigz --best --no-time", ("pigz", 1, 9), _piped("pigz", "-c", "--best", "--no-time")),
    Encoder("pigz -p1", ("pigz", 1, 6), _piped("pigz", "-c", "-p1")),
    *(Encoder(f"Python gzip {level}", ("zlib", 1, level), _python(level)) for level in LEVELS),
    *(Encoder(f"bsdtar {level}", ("zlib", 1, level), _bsdtar(level)) for level in (1, 6, 9)),
    *(Encoder(f"Java {level}", ("zlib", 1, level), _java(level)) for level in (1, 6, 9)),
    Encoder("BusyBox gzip", ("busybox", 1, 0), _piped("busybox", "gzip", "-c")),
    *(Encoder(f"Go {level}", ("go", 1, level), _go(level)) for level in range(1, 10)),
    *(Encoder(f"Go 1.27 {level}", ("go", 2, level), _go(level, new=True)) for level in range(1, 7)),
    *(Encoder(f"Go 1.27 {level}", None, _go(level, new=True)) for level in range(7, 10)),
    Encoder("Go 9, members", ("go", 1, 9), _go(9, size=4 << 20)),
    Encoder("Python 6, members", ("zlib", 1, 6), _members(6)),
    Encoder("skopeo", ("klauspost", 0, 5), _skopeo),
    Encoder("buildah", ("klauspost", 0, 5), _buildah),
    Encoder("umoci", ("klauspost", 0, 25), _umoci),
    Encoder("pigz -i", None, _piped("pigz", "-c", "-p2", "-i")),
    Encoder("pigz -b 512", None, _piped("pigz", "-c", "-p2", "-b", "512")),
    Encoder("Go -2", None, _go(-2)),
    *(Encoder(f"libdeflate -{level}", None, _piped("libdeflate-gzip", "-c", f"-{level}")) for level in (1, 6, 12)),
    *(
        Encoder(f"igzip {level}", None, _module("isal.igzip", f"compress(data, {level}, mtime=0)"))
        for level in (0, 1, 3)
    ),
    *(
        Encoder(f"zlib-ng {level}", None, _module("zlib_ng.gzip_ng", f"compress(data, {level}, mtime=0)"))
        for level in (1, 6, 9)
    ),
    Encoder("zopfli", None, _zopfli, slow=True),
    Encoder("pigz -11", None, _piped("pigz", "-c", "-p2", "-11", "-I", "1"), slow=True),
]
"""All of them. Levels of klauspost tell its units, too: 25 is umoci's."""
