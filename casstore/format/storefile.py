"""store.json: what a store is, written once when it is made. Specified in FORMATS.md."""

from __future__ import annotations

import msgspec

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


def encode(store: StoreFile) -> bytes:
    """The bytes of store.json."""
    return msgspec.json.format(msgspec.json.encode(store), indent=2) + b"\n"


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
        store = msgspec.json.decode(data, type=StoreFile)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StoreUnusable(f"not a store.json: {error}", what=what) from None
    cutter = store.cutter
    if store.chunk_digest not in CHUNK_DIGESTS:
        raise StoreUnusable(f"unknown chunk digest {store.chunk_digest!r}", what=what)
    if not 0 < cutter.minimum <= cutter.average <= cutter.maximum <= 1 << 22:
        raise StoreUnusable("impossible cutter parameters", what=what)
    return store
