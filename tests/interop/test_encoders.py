"""gzip by real encoders, kept and packed: what a known encoder made is recognised, costs a trace of next to nothing and
no corrections, and comes out again to the byte; what others made does too, or stays loose for a reason that is told.

Which encoders: tests/encoders.py. Each packs one tar of this machine's own files.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import subprocess
import sys
import sysconfig
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from encoders import ENCODERS, Absent, Encoder, Workshop

from casstore import api
from casstore.digest import Digest
from casstore.flow.encoded import ENCODERS as NAMES
from casstore.kernels import deflate

pytestmark = [
    pytest.mark.skipif(deflate.IMPLEMENTATION != "compiled", reason="the compiled kernel is not built"),
    pytest.mark.timeout(900),  # the first test waits for all encoders, on machines with other work too
]

CONTENT = 9 << 19
"""Bytes of the tar, about: two stretches, and four units of every encoder that has such."""
SLOW = 1 << 19
"""Bytes of it for those that would take too long."""
HEAD = 256
"""Bytes of a trace that do not grow with the blob."""
MEMBER = 8
"""And those of one more member, before they are compressed."""
UNKNOWN = [one for one in ENCODERS if one.engine is None]
KNOWN = [one for one in ENCODERS if one.engine is not None]


def content() -> bytes:
    """Programs and sources, half and half, as layers have them: the same bytes on the same machine."""
    library = Path(sysconfig.get_paths()["stdlib"])
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for end, pattern in ((CONTENT // 2, "lib-dynload/*.so"), (CONTENT, "*.py")):
            for path in sorted(library.rglob(pattern)):
                if out.tell() < end and "site-packages" not in path.parts:
                    info = tarfile.TarInfo(f"usr/lib/{path.relative_to(library)}")
                    data = path.read_bytes()
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


@dataclass
class Packed:
    """All blobs in one store, after one gc: by the encoder's name, the file, and what `blob inspect` tells."""

    store: api.Store
    files: dict[str, Path] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    told: dict[str, dict[str, Any]] = field(default_factory=dict)

    def of(self, encoder: Encoder) -> tuple[Path, dict[str, Any]]:
        """Skips where the encoder is not here."""
        if encoder.name in self.absent:
            pytest.skip(self.absent[encoder.name])
        return self.files[encoder.name], self.told[encoder.name]


def made_by(encoder: Encoder, workshop: Workshop, whole: Path, part: Path) -> Path | str:
    """The gzip file; or why there is none."""
    out = workshop.folder / f"{encoder.name.replace(' ', '_')}.gz"
    try:
        encoder.make(workshop, part if encoder.slow else whole, out)
    except Absent as error:
        return str(error)
    return out


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    folder = tmp_path_factory.mktemp("encoders")
    whole, part = folder / "whole.tar", folder / "part.tar"
    whole.write_bytes(content())
    part.write_bytes(whole.read_bytes()[:SLOW])
    workshop = Workshop(folder)
    found = Packed(api.open(folder / "store"))
    # Those that compile or share a folder: not at the same time.
    alone = [one for one in ENCODERS if one.name.split()[0] in ("Go", "Java", "skopeo", "buildah", "umoci")]
    with ThreadPoolExecutor(2) as pool:
        others = [one for one in ENCODERS if one not in alone]
        jobs = [pool.submit(lambda: [(one, made_by(one, workshop, whole, part)) for one in alone])]
        jobs += [pool.submit(lambda one=one: [(one, made_by(one, workshop, whole, part))]) for one in others]  # type: ignore[misc]
        for job in jobs:
            for encoder, out in job.result():
                if isinstance(out, str):
                    found.absent[encoder.name] = out
                else:
                    found.files[encoder.name] = out
    digests = {}
    for name, path in found.files.items():
        digests[name] = found.store.blobs.put(path)
    command = [sys.executable, "-m", "casstore", "--store", folder / "store"]
    subprocess.run([*command, "config", "set", "pack.after", "0s"], check=True, capture_output=True)
    done = subprocess.run([*command, "gc", "--grace", "0s"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, digest in digests.items():
        found.told[name] = found.store.blobs.inspect(digest)
    return found


def comes_back(packed: Packed, path: Path, told: dict[str, Any]) -> None:
    """Whole, and in the middle."""
    blob = path.read_bytes()
    digest = Digest.parse(told["Digest"])
    assert digest.hex == hashlib.sha256(blob).hexdigest()
    assert b"".join(map(bytes, packed.store.blobs.cat(digest))) == blob
    start, end = len(blob) // 2, len(blob) // 2 + 1000
    assert b"".join(map(bytes, packed.store.blobs.cat(digest, start, end))) == blob[start:end]


@pytest.mark.parametrize("encoder", KNOWN, ids=lambda one: one.name)
def test_known_encoders_are_followed(packed: Packed, encoder: Encoder) -> None:
    path, told = packed.of(encoder)
    assert encoder.engine is not None
    name, version, level = encoder.engine
    if version and (name, version) not in deflate.engines():
        pytest.skip(f"there is no engine {name} {version} yet")
    assert told["State"] == "packed", told["Refused"]
    comes_back(packed, path, told)
    names = [text for (one, number), text in NAMES.items() if one == name and version in (0, number)]
    recognised, _, number = told["Encoder"].partition(" level ")
    assert recognised in names and (not level or int(number) == level)
    assert told["Corrections"] == 0
    members = path.read_bytes().count(b"\x1f\x8b\x08\0") if "members" in encoder.name else 1
    assert told["TraceSize"] <= told["Size"] // 10_000 + HEAD + MEMBER * members
    assert told["ContentSize"] == len(gzip.decompress(path.read_bytes()))


@pytest.mark.parametrize("encoder", UNKNOWN, ids=lambda one: one.name)
def test_unknown_encoders_come_back_whatever_becomes_of_them(packed: Packed, encoder: Encoder) -> None:
    path, told = packed.of(encoder)
    comes_back(packed, path, told)
    if told["State"] == "packed":
        assert told["Encoder"] and told["TraceSize"] <= 0.03 * told["Size"]
    else:
        assert told["State"] == "loose" and told["Refused"]
        assert told["StoredSize"] == told["Size"]


def test_what_is_the_same_content_is_kept_once(packed: Packed) -> None:
    """A dozen encodings of one tar take its chunks, and traces."""
    chunks = {key for told in packed.told.values() if told["State"] == "packed" for key in told["Packs"]}
    sizes = [told["Size"] for told in packed.told.values() if told["State"] == "packed"]
    if len(sizes) < 12:
        pytest.skip("too few encoders here")
    kept = sum(told["StoredSize"] for told in packed.told.values() if told["State"] == "packed")
    assert chunks and kept < sum(sizes) / 20
