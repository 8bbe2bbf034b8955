"""store.json: what a store is, written once when it is made. Specified in FORMATS.md."""

from __future__ import annotations

import re

import msgspec
from blake3 import blake3

from ..errors import StoreUnusable
from ..model import Cutter

VERSION = 1
#: The digests that may name chunks, and their numbers in binary formats.
CHUNK_DIGESTS = {"sha256": 1, "blake3": 2}
#: Larger than any store.json that is written (bytes).
MAX_SIZE = 64 << 10


class StoreFile(msgspec.Struct, frozen=True, kw_only=True):
    """`id` names the store (32 hex digits); `created` is an RFC 3339 time; `version` is that of the whole
    layout on disk."""

    id: str
    created: str
    chunk_digest: str = "sha256"
    cutter: Cutter = msgspec.field(default_factory=Cutter)
    version: int = VERSION


class _Version(msgspec.Struct):
    version: int


class _Cutter(msgspec.Struct):
    algorithm: str
    minimum: int
    average: int
    maximum: int


class _File(msgspec.Struct):
    """Every field must be there: one whose name was damaged would otherwise silently be the default."""

    id: str
    created: str
    chunk_digest: str
    cutter: _Cutter
    version: int


_ID = re.compile("[0-9a-f]{32}")
_MINIMUM, _MAXIMUM = 64, 1 << 22


def encode(store: StoreFile) -> bytes:
    """The bytes of store.json."""
    return msgspec.json.format(msgspec.json.encode(store), indent=2) + b"\n"


def seal(store: StoreFile) -> str:
    """store.json as text under a checksum: the copy that the catalog keeps."""
    text = msgspec.json.encode(store).decode()
    return f"{_check(text)} {text}"


def unseal(sealed: str) -> StoreFile | None:
    """What `seal` made; None where it is not that any more."""
    check, _, text = sealed.partition(" ")
    try:
        return decode(text.encode()) if check == _check(text) else None
    except StoreUnusable:
        return None


def _check(text: str) -> str:
    return blake3(text.encode()).hexdigest(16)


def version_of(data: bytes) -> int | None:
    """The format version that a store.json gives; None where it is none."""
    try:
        return msgspec.json.decode(data, type=_Version).version
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def decode(data: bytes, what: str = "store.json") -> StoreFile:
    """What store.json says. StoreUnusable: it is not one, or of a format this program does not know."""
    if len(data) > MAX_SIZE:
        raise StoreUnusable("store.json is too large to be one", what=what)
    try:
        version = msgspec.json.decode(data, type=_Version).version
        if version != VERSION:
            raise StoreUnusable(
                f"store format {version} is unknown to this version, which reads {VERSION}", what=what
            )
        found = msgspec.json.decode(data, type=_File)
        data.decode()  # what is skipped is not decoded, but must not be damaged either
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StoreUnusable(f"not a store.json: {error}", what=what) from None
    cutter = Cutter(found.cutter.algorithm, found.cutter.minimum, found.cutter.average, found.cutter.maximum)
    if not _ID.fullmatch(found.id):
        raise StoreUnusable("impossible store id", what=what)
    if found.chunk_digest not in CHUNK_DIGESTS:
        raise StoreUnusable(f"unknown chunk digest {found.chunk_digest!r}", what=what)
    if cutter.algorithm != Cutter().algorithm:
        raise StoreUnusable(f"unknown cutter {cutter.algorithm!r}", what=what)
    in_order = _MINIMUM <= cutter.minimum <= cutter.average <= cutter.maximum <= _MAXIMUM
    if not in_order or cutter.average & (cutter.average - 1):
        raise StoreUnusable("impossible cutter parameters", what=what)
    return StoreFile(
        id=found.id, created=found.created, chunk_digest=found.chunk_digest, cutter=cutter, version=found.version
    )
