"""How a store names its chunks: SHA-256 by default, BLAKE3 where it was made so."""

from __future__ import annotations

from ..errors import StoreUnusable
from ..kernels import hashing
from ..model import U8, U32, U64, Buffer


class Names:
    """The naming of one store. Names are (n, 32) uint8."""

    def __init__(self, chunk_digest: str) -> None:
        if chunk_digest not in ("sha256", "blake3"):
            raise StoreUnusable(f"unknown chunk digest {chunk_digest!r}", what="store.json")
        self.kind = chunk_digest
        self._blake3 = chunk_digest == "blake3"

    def of(self, buffer: Buffer, starts: U64, lengths: U32) -> U8:
        """The names of these spans."""
        return hashing.blake3_names(buffer, starts, lengths) if self._blake3 else hashing.names(buffer, starts, lengths)

    def with_stream(
        self, stream: hashing.Sha256, buffer: Buffer, begin: int, end: int, starts: U64, lengths: U32
    ) -> U8:
        """The names of these spans, while `stream` takes bytes [begin, end) of the buffer in the same pass."""
        if not self._blake3:
            return hashing.stream_and_names(stream, buffer, begin, end, starts, lengths)
        stream.update(memoryview(buffer)[begin:end])
        return hashing.blake3_names(buffer, starts, lengths)
