"""SHA-256 of streams and of many spans of a buffer in one call; BLAKE3 names through the `blake3` package.

A CPU's SHA instructions do two independent messages in hardly more time than one, so `names` takes spans two
by two and `stream_and_names` a stream beside the spans. Source: FIPS 180-4.

`ENGINE` tells what compresses the blocks: "sha-ni", "armv8" or "hashlib". Spans are `starts` (uint64) and
`lengths` (uint32 or uint64), bytes in `buf`; one that reaches outside is a ValueError and nothing is hashed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._hashing_py import blake3_names

if TYPE_CHECKING:
    from ._hashing_py import ENGINE, IMPLEMENTATION, Sha256, names, stream_and_names
else:
    try:
        from ._hashing_c import ENGINE, IMPLEMENTATION, Sha256, names, stream_and_names
    except ModuleNotFoundError:
        from ._hashing_py import ENGINE, IMPLEMENTATION, Sha256, names, stream_and_names
    if ENGINE == "portable":
        # A CPU without SHA instructions: there OpenSSL, behind hashlib, is 1.7 times as fast as plain C.
        from ._hashing_py import ENGINE, IMPLEMENTATION, Sha256, names, stream_and_names

__all__ = ["ENGINE", "IMPLEMENTATION", "Sha256", "blake3_names", "names", "stream_and_names"]
