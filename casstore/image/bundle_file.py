"""What a bundle, and a list of bases, say without being loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..digest import Digest
from ..errors import BadInput, InvalidReference, StoreUnusable
from ..flow.source import StreamSource, name_of, open_input
from ..format import bundle as bundle_format
from ..format.bundle import BundleReader, Head, Header, Part
from ..model import BlobInfo
from ..oci import reference
from ..store.volume import Volume
from .content import per_image

MAX_LIST = 256 << 20
"""Most bytes of a list of bases."""
_CUT = "# chunks: "


def inspect(where: str | Path | int) -> dict[str, Any]:
    """What a bundle says of itself; it is read to its end and checked against its own hash. Needs no store."""
    what = name_of(where)
    with open_input(where) as raw:
        reader = BundleReader(StreamSource(raw), what)
        head = read_head(reader, what)
        digest = reader.end()
    return {
        "Digest": str(digest),
        "Size": reader.offset,
        "Version": bundle_format.VERSION,
        "ChunkDigest": reader.header.chunk_digest,
        "Cutter": cutter_name(reader.header),
        "Names": [
            {"Name": f"{reference.familiar_repository(one.repository)}:{one.tag}", "Digest": str(one.target)}
            for one in head.names
        ],
        "Images": [str(one) for one in head.roots],
        "Referrers": [{"Digest": str(one), "Subject": str(of)} for one, of in head.referrers],
        "Bases": [
            {"Digest": str(base.digest), "Size": base.size, "DiffID": str(base.diffid) if base.diffid else None}
            for base in head.bases
        ],
        "Blobs": [
            {
                "Digest": str(one.digest),
                "Size": one.size,
                "Carried": one.kind.name.lower(),
                "Encoding": one.encoding,
                "MediaType": one.media_type,
            }
            for one in head.blobs
        ],
        "Chunks": head.chunks,
        "ChunkBytes": head.chunk_bytes,
    }


def carried(where: str | Path | int) -> tuple[Header, dict[Digest, Digest | None]]:
    """What a store has once it has loaded a bundle: its blobs and its bases (or such with their content), with the
    digests of their content where known. The bundle is read to its end."""
    what = name_of(where)
    with open_input(where) as raw:
        reader = BundleReader(StreamSource(raw), what)
        head = read_head(reader, what)
        reader.end()
    bases = {base.digest: base.diffid for base in head.bases}
    return reader.header, bases | {one.digest: one.diffid for one in head.blobs}


def have(volume: Volume) -> list[BlobInfo]:
    """The blobs that a bundle may leave out, or lean on: those of all images, each once, by digest."""
    found = {info.digest: info for _, blobs in per_image(volume) for info in blobs}
    return [found[digest] for digest in sorted(found)]


def header_of(volume: Volume) -> Header:
    """What a store's bundles say of how it cuts."""
    return Header(volume.file.chunk_digest, volume.file.cutter)


def cutter_name(header: Header) -> str:
    """How a store cuts and names chunks, in words."""
    cutter = header.cutter
    return f"{header.chunk_digest} {cutter.algorithm} {cutter.minimum} {cutter.average} {cutter.maximum}"


def check_cutter(volume: Volume, header: Header, what: str) -> None:
    """StoreUnusable: a bundle, or a list of bases, is of a store that cuts in another way."""
    ours = header_of(volume)
    if header != ours:
        raise StoreUnusable(
            f"is of a store that cuts chunks as {cutter_name(header)}; this one as {cutter_name(ours)}",
            what=what,
            hint="use casstore save and load between the two",
        )


def read_head(reader: BundleReader, what: str) -> Head:
    """The head of a bundle that is at its begin."""
    return bundle_format.decode_head(reader.whole(Part.HEAD, 2 * bundle_format.MAX_HEAD), what)


def base_lines(volume: Volume, found: list[BlobInfo]) -> list[str]:
    """The list of bases as `read_bases` takes it: how the store cuts, then a line a blob: its digest,
    and that of its content where that is another and known."""
    lines = [f"{_CUT}{cutter_name(header_of(volume))}"]
    for info in found:
        other = info.diffid is not None and info.diffid != info.digest
        lines.append(f"{info.digest} {info.diffid}" if other else str(info.digest))
    return lines


def read_bases(volume: Volume, where: str | Path | int) -> dict[Digest, Digest | None]:
    """The digests in a list of bases, with those of their content where they are told: one or both a line, or a JSON
    object with "Digest" and maybe "DiffID". BadInput; StoreUnusable: of a store that cuts in another way."""
    what = name_of(where)
    with open_input(where) as raw:
        data = raw.read(MAX_LIST + 1)
    if len(data) > MAX_LIST:
        raise BadInput(f"a list of bases has at most {MAX_LIST} bytes", what=what)
    found: dict[Digest, Digest | None] = {}
    for number, line in enumerate(data.splitlines(), 1):
        text = line.decode("utf-8", "replace").strip()
        if text.startswith(_CUT) and text.removeprefix(_CUT) != cutter_name(header_of(volume)):
            ours = cutter_name(header_of(volume))
            raise StoreUnusable(
                f"is of a store that cuts chunks as {text.removeprefix(_CUT)}; this one as {ours}", what=what
            )
        if not text or text.startswith("#"):
            continue
        try:
            if text.startswith("{"):
                told = json.loads(text)
                text = f"{told['Digest']} {told.get('DiffID') or ''}"
            digest, *more = (Digest.parse(word) for word in text.split()[:2])
            found[digest] = more[0] if more else None
        except (InvalidReference, ValueError, KeyError, TypeError, IndexError, RecursionError):
            raise BadInput(f"line {number} is no digest", what=what) from None
    return found


class Span:
    """The next `size` bytes of the whole blobs of a bundle, as a Source."""

    def __init__(self, reader: BundleReader, size: int) -> None:
        self._reader = reader
        self.size: int | None = size
        self._left = size

    def readinto(self, view: memoryview) -> int:
        if not self._left or not len(view):
            return 0
        piece = self._reader.read(Part.WHOLE, min(len(view), self._left, 1 << 20))
        view[: len(piece)] = piece
        self._left -= len(piece)
        return len(piece)
