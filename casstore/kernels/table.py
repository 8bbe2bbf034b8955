"""Digests looked up by the thousand: `find` in a sorted table in (mapped) memory, `ChunkMap` in a map.

A table is two buffers. Entries: 40 bytes each, digest 32 | pack uint32 | address uint32, ascending by digest;
equal digests may follow one another. Fanout: 2^bits + 1 uint32; entry fanout[b] is the first whose digest
begins with the `bits` bits b. Numbers are little-endian. What the buffers say is never believed: a fanout
that points outside of the entries is a ValueError; entries out of order make digests unfindable, no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._table_py import MAX_BITS, MISSING, PENDING, pick_bits

if TYPE_CHECKING:
    from ._table_py import IMPLEMENTATION, ChunkMap, build_fanout, find, find_range, order
else:
    try:
        from ._table_c import IMPLEMENTATION, ChunkMap, build_fanout, find, find_range, order
    except ModuleNotFoundError:
        from ._table_py import IMPLEMENTATION, ChunkMap, build_fanout, find, find_range, order

__all__ = [
    "IMPLEMENTATION",
    "MAX_BITS",
    "MISSING",
    "PENDING",
    "ChunkMap",
    "build_fanout",
    "find",
    "find_range",
    "order",
    "pick_bits",
]
