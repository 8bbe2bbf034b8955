"""Writing an archive: first a plan, in which every size is known, then bytes.

The plan is a list of members in their final order. It can be written one after the other into a pipe, or each at its
own offset from several threads: `offsets` says where.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from ..digest import Digest
from ..errors import Conflict, Damaged
from ..model import Buffer
from . import tar

END = bytes(2 * tar.BLOCK)


class Content(NamedTuple):
    """A blob's bytes, or (`unpacked`) the stream inside them under no compression."""

    digest: Digest
    unpacked: bool = False


@dataclass(frozen=True, slots=True)
class Member:
    """One member to be written: `source` is what a file holds; a folder and a symlink (`link`) hold nothing."""

    name: str
    kind: str
    size: int
    mtime: int
    source: bytes | Content = b""
    link: str = ""

    def header(self) -> bytes:
        return tar.make_header(self.name, self.kind, self.size, self.mtime, self.link)


class Span(NamedTuple):
    """Where a member lies in the archive: its header at `start`, its `member.size` bytes at `data`."""

    member: Member
    start: int
    data: int


class Output(Protocol):
    def write(self, data: Buffer, /) -> object: ...


OpenBlob = Callable[[Content], tuple[int, Iterable[Buffer]]]
"""Bytes to be written: (how many, the buffers, each valid until the next)."""


def offsets(plan: Iterable[Member]) -> tuple[list[Span], int]:
    """Where every member goes, and the size of the whole archive in bytes (its end blocks included)."""
    spans: list[Span] = []
    position = 0
    for member in plan:
        data = position + len(member.header())
        spans.append(Span(member, position, data))
        position = data + member.size + -member.size % tar.BLOCK
    return spans, position + len(END)


def write(out: Output, plan: Iterable[Member], open_blob: OpenBlob) -> None:
    """The archive in one pass. Damaged if a blob turns out longer or shorter than planned."""
    for member in plan:
        out.write(member.header())
        for buffer in contents(member, open_blob):
            out.write(buffer)
        out.write(bytes(-member.size % tar.BLOCK))
    out.write(END)


def write_folder(path: Path, plan: Iterable[Member], open_blob: OpenBlob) -> None:
    """The same members as files of a new folder: an OCI layout. On an error nothing is left."""
    if path.exists():
        raise Conflict("exists already", what=str(path))
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
        root = Path(scratch, path.name)
        root.mkdir()
        for member in plan:
            target = root / member.name
            if member.kind == tar.FOLDER:
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "wb") as file:
                for buffer in contents(member, open_blob):
                    file.write(buffer)
        root.rename(path)


def contents(member: Member, open_blob: OpenBlob) -> Iterator[Buffer]:
    """A member's bytes, exactly `member.size` of them."""
    if isinstance(member.source, bytes):
        if member.source:
            yield member.source
        return
    size, buffers = open_blob(member.source)
    written = 0
    if size == member.size:
        for buffer in buffers:
            written += len(memoryview(buffer).cast("B"))
            if written > member.size:
                break
            yield buffer
    if size != member.size or written != member.size:
        raise Damaged("blob is not as long as the catalog says", what=str(member.source.digest))


def folders(names: Iterable[str]) -> set[str]:
    """Every folder above these names, with its trailing slash."""
    found: set[str] = set()
    for name in names:
        parts = name.split("/")[:-1]
        found.update("/".join(parts[: i + 1]) + "/" for i in range(len(parts)))
    return found
