"""What an archive holds: members by name, and the way from a path to the bytes, inside the archive only."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from ..codec import compression
from ..digest import Digest
from ..errors import BadInput, LimitExceeded, NotFound
from . import tar

MAX_MEMBERS = 200_000
MAX_NAMES = 32 << 20
"""All names and links of one archive together, characters."""
MAX_DOCUMENTS = 64 << 20
"""All documents (manifests, configs, lists) read from one archive together, bytes: parsed, each takes a multiple."""
MAX_STEPS = 10_000_000
"""Parts of paths and links walked in one archive."""
_MAX_HOPS = 40


class Reader(Protocol):
    """Bytes that can be read at an offset, from any thread."""

    size: int

    def pread(self, offset: int, length: int) -> bytes: ...

    def pread_into(self, offset: int, view: memoryview) -> int: ...


class Landed(NamedTuple):
    """What the sink made of a member: the digest of its bytes and, where it found out, of its uncompressed stream."""

    digest: Digest
    diff_id: Digest | None = None


class Stream(Protocol):
    """One member going by: exactly `size` bytes."""

    size: int

    def read(self, length: int) -> bytes: ...

    def readinto(self, view: memoryview) -> int: ...


Sink = Callable[[str, Stream, int], Landed]
"""(member's name, its bytes, how many) → what became of it."""


class Member(NamedTuple):
    """A regular file of an archive: where its bytes are (one of: an offset, memory, landed in the sink)."""

    name: str
    size: int
    offset: int = 0
    data: bytes | None = None
    landed: Landed | None = None
    sparse: bool = False


class Source:
    """An archive, scanned. `members` by clean name; `what` names it in errors; `limit`: what compressed members may
    become."""

    def __init__(self, what: str, limit: compression.Limit) -> None:
        self.what = what
        self.limit = limit
        self.members: dict[str, Member] = {}
        self._links: dict[str, tuple[bool, str]] = {}
        self._twice: set[str] = set()
        self._count = 0
        self._names = 0
        self._steps = 0
        self._documents: dict[str, int] = {}
        self._document_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def seekable(self) -> bool:
        """May members be opened at will? Else `scan` needs a sink, and what went there is gone."""
        return True

    def scan(self, sink: Sink | None = None) -> None:
        """Find the members. Once, before anything else."""
        raise NotImplementedError

    def close(self) -> None: ...

    def names(self) -> list[str]:
        """Every file and link."""
        return [*self.members, *self._links]

    def find(self, path: str) -> Member | None:
        """The file that a path leads to, symlinks and hard links followed inside the archive; None if there is none.

        BadInput: the path or a link leaves the archive, links in a circle, a name that stands twice.
        """
        name = self._resolve(path)
        if name in self._twice:
            raise BadInput("archive holds a member twice", what=f"{self.what}: {name}")
        return self.members.get(name)

    def get(self, path: str) -> Member:
        """`find`, or NotFound naming the member."""
        member = self.find(path)
        if member is None:
            raise NotFound("archive has no such member", what=f"{self.what}: {path}")
        return member

    def open(self, path: str) -> Reader:
        """A member as something to read at offsets. Members that went to the sink cannot be opened."""
        member = self.get(path)
        if member.sparse:
            raise BadInput("sparse members are not supported", what=f"{self.what}: {path}")
        if member.data is not None:
            return MemoryReader(member.data)
        if member.landed is not None:
            raise BadInput("member has gone by", what=f"{self.what}: {path}")
        return self._open(member)

    def read(self, path: str, limit: int) -> bytes:
        """A whole member of at most `limit` bytes."""
        member = self.get(path)
        if member.size > limit:
            raise LimitExceeded(f"larger than {limit} bytes", what=f"{self.what}: {path}")
        if member.landed is not None:
            raise LimitExceeded("document is too large to be read from a stream", what=f"{self.what}: {path}")
        self._document_bytes += member.size - self._documents.get(member.name, 0)
        self._documents[member.name] = member.size
        if self._document_bytes > MAX_DOCUMENTS:
            raise LimitExceeded(f"documents take more than {MAX_DOCUMENTS} bytes", what=self.what)
        data = self.open(path).pread(0, member.size)
        if len(data) != member.size:
            raise BadInput("unexpected EOF", what=f"{self.what}: {path}")
        return data

    def _open(self, member: Member) -> Reader:
        raise NotImplementedError

    def _add(self, header: tar.Header, member: Member | None = None) -> None:
        self._count += 1
        if self._count > MAX_MEMBERS:
            raise LimitExceeded(f"more than {MAX_MEMBERS} members", what=self.what)
        self._names += len(header.name) + len(header.link)
        if self._names > MAX_NAMES:
            raise LimitExceeded(f"names are longer than {MAX_NAMES} together", what=self.what)
        name = clean(header.name)
        if not name or header.kind in (tar.FOLDER, tar.OTHER):
            return
        if name in self.members or name in self._links:
            self._twice.add(name)
        elif header.kind == tar.FILE and member is not None:
            self.members[name] = member
        elif header.kind in (tar.SYMLINK, tar.HARD_LINK):
            self._links[name] = (header.kind == tar.HARD_LINK, header.link)

    def _resolve(self, path: str) -> str:
        where = f"{self.what}: {path}"
        if not path or path.startswith("/") or "\0" in path or ".." in path.split("/"):
            raise BadInput("invalid path, it leaves the archive", what=where)
        ahead, walked, hops = deque(_parts(path)), list[str](), 0
        while ahead:
            part = ahead.popleft()
            self._steps += 1 + len(walked) // 16  # joining them again costs more than a step
            if self._steps > MAX_STEPS:
                raise LimitExceeded("paths and links are too long to be followed", what=where)
            if part == "..":
                if not walked:
                    raise BadInput("link leaves the archive", what=where)
                walked.pop()
                continue
            walked.append(part)
            link = self._links.get("/".join(walked))
            if link is None:
                continue
            hops += 1
            if hops > _MAX_HOPS:
                raise BadInput("too many levels of links", what=where)
            from_root, target = link
            if not from_root and target.startswith("/"):
                raise BadInput("link leaves the archive", what=where)
            walked = [] if from_root else walked[:-1]
            ahead.extendleft(reversed(_parts(target)))
        return "/".join(walked)


def clean(name: str) -> str:
    """A member's name without `./`, doubled and leading slashes; "" for one that climbs: nothing can refer to it."""
    parts = _parts(name)
    return "" if ".." in parts else "/".join(parts)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


class MemoryReader:
    """A member that is in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def pread(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]

    def pread_into(self, offset: int, view: memoryview) -> int:
        piece = self._data[offset : offset + len(view)]
        view[: len(piece)] = piece
        return len(piece)
