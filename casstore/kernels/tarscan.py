"""Which bytes of a tar stream are payloads of its entries, and which everything else; the entries, if asked.

    scanner = Scanner()
    for piece in stream:            # of any sizes
        segments = scanner.feed(piece)
    scanner.finish()

What each field means is told in the pure-Python twin, `_tarscan_py`; what is understood, in
`_native/tarscan.h`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._tarscan_py import Entry, Segments, checksum_ok, number

if TYPE_CHECKING:
    from ._tarscan_py import IMPLEMENTATION, Scanner
else:
    try:
        from ._tarscan_c import IMPLEMENTATION, Scanner
    except ModuleNotFoundError:
        from ._tarscan_py import IMPLEMENTATION, Scanner

__all__ = ["IMPLEMENTATION", "Entry", "Scanner", "Segments", "checksum_ok", "number"]
